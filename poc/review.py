"""Human review of a finished run: a blind sample of its completions, and how far a person and the verifier agree.

The sample mixes what the start model and the trained model wrote on the same hold-out questions; who judges it sees
neither whose text it is nor what the verifier said. Questions with more kinds of disagreement come first (greedy
verdict of start and end; the verifier's strict and lenient reading; a model's samples among themselves), equals by
chance. So what is measured describes this sample, which is harder than the hold-out. Agreement is Cohen's kappa,

    kappa = (p_o - p_e) / (1 - p_e),   p_e = h v + (1 - h) (1 - v)

p_o: share judged alike; h, v: shares that person and verifier call right. Its interval resamples whole questions.
Pure functions. Not here: files and the audit log (poc.review_session), asking (poc.review_ask), forms
(poc.review_form), how good the models are on all of the hold-out (poc.report).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean
from typing import NamedTuple

import numpy as np

from poc import statistics
from poc.audit import sample_sha256
from poc.report.read import Completion, Evaluation, Prompt
from poc.text import clip

MODELS = {"start": "start model", "end": "trained model"}
MAX_DISAGREEMENTS = 20  # that the result spells out
MAX_TEXT = 2000  # characters of a text in them
MAX_NOTE = 500  # characters of a person's words on one completion
NO_LABELS = "the questions have no labels, so there is no verifier's word to compare with"
ONE_KIND = "undefined: one of the two gave the same verdict throughout"
NO_INTERVAL = "no interval: too few verdicts of one kind"


@dataclass(frozen=True, slots=True)
class Item:
    """One completion to judge.

    `key` names it on forms and says nothing of whose it is. `model`: start, end, or both, where both wrote this text.
    `verifier`: whether it said right; None without a label.
    """

    key: str
    question_id: str
    question: str
    gold: str | None
    text: str
    model: str
    verifier: bool | None


class Said(NamedTuple):
    """What a person said of one completion: right, wrong or, where they would not tell, None."""

    right: bool | None
    note: str = ""


Judged = Sequence[tuple[Item, Said]]  # those with a verdict


def draw(start: Evaluation, end: Evaluation, count: int, seed: int) -> list[Item]:
    """At most `count` completions of the questions that both evaluations have, in the order they are to be judged in.

    Only labelled questions where there are any. A question gives one completion of each model before any gives a
    second; its equal texts come once. Empty where the evaluations share no question.
    """
    pairs = {key: (start.prompts[key], end.prompts[key]) for key in start.prompts if key in end.prompts}
    labelled = {key: pair for key, pair in pairs.items() if pair[0].gold is not None}
    asked = labelled or pairs
    first = sorted(asked, key=lambda key: (-len(disagreements(*asked[key])), _chance(seed, key)))
    rounds = zip_longest(*(_taken(*asked[key], seed) for key in first), fillvalue=())
    found = [item for one in rounds for items in one for item in items][:count]
    return sorted(found, key=lambda item: _chance(seed, item.key))


def disagreements(before: Prompt, after: Prompt) -> list[str]:
    """What makes a question worth a person's time: "verdict", "reading", "samples"."""
    greedy = before.greedy, after.greedy
    found = {
        "verdict": None not in greedy and greedy[0].correct != greedy[1].correct,
        "reading": any(map(_read_two_ways, [*_drawn(before), *_drawn(after)])),
        "samples": any(len(set(map(_answer, prompt.sampled))) > 1 for prompt in (before, after)),
    }
    return [name for name, there in found.items() if there]


def sample(items: Sequence[Item], seed: int, step: int, show_gold: bool) -> dict:
    """What a person is shown, in order; its hash (poc.audit.sample_sha256) names the sample."""
    return {"seed": seed, "step": step, "items": [_shown(item, show_gold) for item in items]}


def kappa(human: Sequence[float], verifier: Sequence[float]) -> float | None:
    """Cohen's kappa of two raters' verdicts [n], 1 for right.

    None where one of them gave the same verdict throughout: chance then explains any agreement.
    """
    h, v = np.asarray(human, dtype=float), np.asarray(verifier, dtype=float)
    if np.ptp(h) == 0 or np.ptp(v) == 0:
        return None
    expected = h.mean() * v.mean() + (1 - h.mean()) * (1 - v.mean())
    return float(((h == v).mean() - expected) / (1 - expected))


def result(items: Sequence[Item], said: dict[str, Said], facts: dict) -> dict:
    """review.json: `facts` (step, seed, hashes, reviewer, date) and what follows from the verdicts.

    Raises ValueError where nothing was judged.
    """
    judged = [(item, said[item.key]) for item in items if item.key in said and said[item.key].right is not None]
    if not judged:
        raise ValueError("a review needs at least one verdict, got none")
    compared = [(item, one) for item, one in judged if item.verifier is not None]
    return {
        "version": 1,
        **facts,
        "n": len(judged),
        "not_judged": len(items) - len(judged),
        "agreement": fmean(one.right == item.verifier for item, one in compared) if compared else None,
        "kappa": _kappa(compared),
        "by_model": {model: _shares([pair for pair in judged if pair[0].model in (model, "both")]) for model in MODELS},
        "disagreements": [_spelled(*pair) for pair in compared if pair[1].right != pair[0].verifier][
            :MAX_DISAGREEMENTS
        ],
        "verdicts": {item.key: one.right for item, one in judged},
    }


def sentence(found: dict) -> str:
    """A result in words: "you and the verifier agree on 36 of 40 (kappa 0.78, 0.55 to 0.93); the trained model ..." """
    models = [_in_words(name, found["by_model"][model]) for model, name in reversed(MODELS.items())]
    if found["agreement"] is None:
        return "; ".join([*filter(None, models), NO_LABELS])
    alike = round(found["agreement"] * found["n"])
    lead = f"you and the verifier agree on {alike} of {found['n']} ({_kappa_in_words(found['kappa'])})"
    return "; ".join([lead, *filter(None, models)])


def _taken(before: Prompt, after: Prompt, seed: int) -> list[list[Item]]:
    """The completions of a question, the most telling first, one of each model at a time."""
    greedy_first, found, taken = "verdict" in disagreements(before, after), [], set()
    ranked = (_ranked(prompt, greedy_first, seed) for prompt in (before, after))
    for one, other in zip_longest(*ranked):
        if one and other and one.text == other.text:
            written = [(one, "both")]
        else:
            written = [(one, "start"), (other, "end")]
        found.append([_item(before, c, model) for c, model in written if c and c.text not in taken])
        taken |= {c.text for c, _ in written if c}
    return found


def _ranked(prompt: Prompt, greedy_first: bool, seed: int) -> list[Completion]:
    """Of equal texts the first. Chance is the same for both models: draws of the same random numbers meet."""
    numbered = {number: c for number, c in enumerate((prompt.greedy, *prompt.sampled)) if c}

    def place(number: int) -> tuple:
        strict_is_lenient = not _read_two_ways(numbered[number])
        return strict_is_lenient, not (greedy_first and number == 0), _chance(seed, f"{prompt.id}\n{number}")

    found: dict[str, Completion] = {}
    for number in sorted(numbered, key=place):
        found.setdefault(numbered[number].text, numbered[number])
    return list(found.values())


def _drawn(prompt: Prompt) -> list[Completion]:
    return [c for c in (prompt.greedy, *prompt.sampled) if c]


def _read_two_ways(completion: Completion) -> bool:
    return completion.correct_anyhow is not None and completion.correct_anyhow != bool(completion.correct)


def _answer(completion: Completion) -> str:
    """What tells a question's samples apart: right or not; without a label the last line."""
    return completion.text.strip().rpartition("\n")[2] if completion.correct is None else str(completion.correct)


def _item(prompt: Prompt, completion: Completion, model: str) -> Item:
    named = {"id": prompt.id, "question": prompt.question, "text": completion.text}
    verifier = None if completion.correct is None else bool(completion.correct)
    # a letter first: a spreadsheet would take some hexadecimal keys for numbers (1e15)
    key = f"c{sample_sha256(named)[:15]}"
    return Item(key, prompt.id, prompt.question, prompt.gold, completion.text, model, verifier)


def _shown(item: Item, show_gold: bool) -> dict:
    return {"item": item.key, "question": item.question, "text": item.text} | ({"gold": item.gold} if show_gold else {})


def _chance(seed: int, text: str) -> str:
    """A place in an order that depends on the seed alone, on every machine."""
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


def _kappa(compared: Judged) -> dict:
    """Kappa with its 95 % interval over n questions; `why` says what is missing, "" where nothing is."""
    if not compared:
        return {"value": None, "low": None, "high": None, "n": 0, "why": NO_LABELS}
    questions: dict[tuple, list] = {}
    for item, one in compared:
        questions.setdefault((item.question_id, item.question), []).append((one.right, item.verifier))
    found = statistics.bootstrap_statistic(kappa, [np.array(rows, dtype=float) for rows in questions.values()])
    why = ONE_KIND if found.value is None else NO_INTERVAL if found.low is None else ""
    return {**found._asdict(), "why": why}


def _shares(judged: Judged) -> dict:
    """How much of it is right by the person and by the verifier; None where that is not known."""
    labelled = [item.verifier for item, _ in judged if item.verifier is not None]
    return {
        "human": fmean(one.right for _, one in judged) if judged else None,
        "verifier": fmean(labelled) if labelled else None,
        "n": len(judged),
    }


def _spelled(item: Item, one: Said) -> dict:
    return {
        "id": item.question_id, "model": item.model, "verifier": item.verifier, "human": one.right,
        "question": clip(item.question, MAX_TEXT), "text": clip(item.text, MAX_TEXT), "note": one.note,
    }  # fmt: skip


def _in_words(name: str, shares: dict) -> str:
    if not shares["n"]:
        return ""
    by = {who: round(shares[who] * shares["n"]) for who in ("human", "verifier") if shares[who] is not None}
    verifier = f", {by['verifier']} by the verifier" if "verifier" in by else ""
    return f"the {name} is right in {by['human']} of {shares['n']} by you{verifier}"


def _kappa_in_words(found: dict) -> str:
    if found["value"] is None:
        return f"kappa {found['why']}"
    ends = found["why"] or f"{found['low']:.2f} to {found['high']:.2f}"
    return f"kappa {found['value']:.2f}, {ends}"
