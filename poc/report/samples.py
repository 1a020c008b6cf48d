"""Which of the model's texts the report shows: chosen by rule and hash, never by hand; clipped, not cleaned.

The hash is of the arm's label and the question, so the choice is the same for the same folders and nobody's.
"""

import hashlib

from poc.report.arms import Arm, correct
from poc.report.language import Language
from poc.report.read import Completion, Evaluation, Prompt, Run, number
from poc.text import clip

KINDS = ("best", "worst", "gained", "lost", "random", "random")  # in the order they are shown; no question twice


def changed_answers(arm: Arm, say: Language) -> list[dict]:
    """Greedy answers before and after, of the first seed: one question for each of KINDS that has one."""
    if not arm.measured:
        return []
    first, last = arm.measured[0].evaluations[0], arm.measured[0].final
    keys = sorted((k for k in first.prompts if _answered(first, k) and _answered(last, k)), key=_order(arm.label))
    taken: list[str] = []
    found = []
    for kind in KINDS:
        key = _PICKS[kind]([k for k in keys if k not in taken], first, last)
        if key is not None:
            taken.append(key)
            found.append(_pair(say(f"sample.{kind}"), first.prompts[key], last.prompts[key], say))
    return found


def _answered(evaluation: Evaluation, key: str) -> bool:
    return key in evaluation.prompts and evaluation.prompts[key].greedy is not None


def _turned(keys: list[str], first: Evaluation, last: Evaluation, to: int) -> str | None:
    """The first whose greedy answer became right (`to` 1) or wrong (0)."""
    ends = ((k, correct(first.prompts[k].greedy), correct(last.prompts[k].greedy)) for k in keys)
    return next((k for k, before, after in ends if (before, after) == (1 - to, to)), None)


def _most(keys: list[str], first: Evaluation, last: Evaluation, sign: int) -> str | None:
    """The question whose share of right sampled answers rose (`sign` 1) or fell (-1) most."""
    before, after = first.per_prompt(correct), last.per_prompt(correct)
    moved = {k: sign * (after[k] - before[k]) for k in keys if k in before and k in after}
    best = max(moved, key=moved.get, default=None)
    return best if best is not None and moved[best] > 0 else None


_PICKS = {
    "gained": lambda keys, first, last: _turned(keys, first, last, 1),
    "lost": lambda keys, first, last: _turned(keys, first, last, 0),
    "best": lambda keys, first, last: _most(keys, first, last, 1),
    "worst": lambda keys, first, last: _most(keys, first, last, -1),
    "random": lambda keys, first, last: next(iter(keys), None),
}


def _order(salt: str):
    return lambda key: hashlib.sha256(f"{salt}\n{key}".encode("utf-8", "surrogatepass")).hexdigest()


def _pair(title: str, before: Prompt, after: Prompt, say: Language) -> dict:
    answers = [{"when": say(f"sample.{when}"), **_answer(p.greedy, say), "right": _right(p, say)}
               for when, p in (("before", before), ("after", after))]  # fmt: skip
    return {
        "title": title,
        "question": clip(before.question, 500),
        "gold": clip(before.gold or "–", 80),
        "answers": answers,
    }


def _answer(completion: Completion, say: Language) -> dict:
    return {"status": say(f"status.{completion.status or 'unlabelled'}"), "text": clip(completion.text, 700)}


def _right(prompt: Prompt, say: Language) -> str:
    """ "3 of 4 sampled answers right" """
    known = [c.correct for c in prompt.sampled if c.correct is not None]
    return say("sample.right", right=int(sum(known)), n=len(known)) if known else ""


def paid(run: Run, say: Language) -> dict | None:
    """Best, median and worst completion of one training group at the last step that kept some."""
    for record in reversed(run.samples):
        kept = record.get("completions")
        found = [c for c in kept if isinstance(c, dict)] if isinstance(kept, list) else []
        if found:
            rows = [
                {"reward": _reward(c.get("reward")), "status": status_word(c.get("status"), say),
                 "text": clip(str(c.get("text")), 400)} for c in found[:3]
            ]  # fmt: skip
            return {"step": str(record.get("step")), "question": clip(str(record.get("question")), 400), "rows": rows}
    return None


def status_word(said, say: Language) -> str:
    """In words; what is no status stays as the file has it."""
    known = f"status.{said or 'unlabelled'}"
    return say(known) if isinstance(said, str | None) and known in say.text else clip(str(said), 20)


def _reward(paid) -> str:
    value = number(paid)
    return clip(str(paid), 12) if value is None else f"{value:.3f}".replace("-", "\u2212")
