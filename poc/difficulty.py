"""`poc difficulty`: which training questions are worth their time for a model, by GURU's rule with two models.

n completions of every training question by the start model (weak) and by any other (strong), at temperature 1, asked as
a run would ask; w and s are how many of them are right. Dropped, by the first rule that holds (arXiv 2506.14965, n 16):

    w >= 15/16 n                                 too easy
    s = 0                                        noisy or too hard
    w > s                                        suspicious label
    math:    s - w <= 6/16 n and s >= 3/4 n      nearly solved
    science: s - w < n/2                         gap too small

Without a strong model no label is looked at: w is the size of the largest set of answers that agree (semantic.cluster
says), too easy as above, and "noisy" where no two agree (w <= 1).

The folder is the cache: a batch of counts is appended as soon as it is sampled, the next run asks only what is missing
there, and the same input gives the same files, whole or in parts. What counts as the same question, model and way of
asking is `_key`. Two runs may not write one folder at a time.

    counts-weak.jsonl  counts-strong.jsonl  kept.jsonl  dropped.jsonl  summary.json

kept.jsonl can be trained on (`data: {file: kept.jsonl, format: kit}`), dropped.jsonl left out (`data: {drop: ...}`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from poc import difficulty_cache as cache
from poc import durable, pilot, sources, tasks
from poc.config import RunConfig
from poc.difficulty_page import Progress, progress, show
from poc.records import Example, Group, InputError
from poc.tasks import formats, own

SAMPLES = 16
TEMPERATURE = 1.0
BATCH = 16  # questions that are sampled, and written down, together
MOST = 1024  # samples of one question

Reason = Literal[
    "too easy", "noisy", "noisy or too hard", "suspicious label", "nearly solved", "gap too small", "not judged"
]


def decide(domain: str, weak: int, strong: int | None, n: int) -> Reason | None:
    """Why a question is dropped, None if it is kept; counts of n. `strong` None: `weak` completions agree."""
    if 16 * weak >= 15 * n:
        return "too easy"
    if strong is None:
        return "noisy" if weak <= 1 else None
    if strong == 0:
        return "noisy or too hard"
    if weak > strong:
        return "suspicious label"
    if domain == "math" and 16 * (strong - weak) <= 6 * n and 4 * strong >= 3 * n:
        return "nearly solved"
    if domain == "science" and 2 * (strong - weak) < n:
        return "gap too small"
    return None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models and what it has to do. `keys`: of each question, in the questions' order."""

    name: str
    config: RunConfig
    fingerprint: str
    keys: list[str]
    file: Path


def run(config: RunConfig, strong: str | None = None, samples: int = SAMPLES, out: Path = Path("difficulty")) -> dict:
    """Filter the training questions of `config` (as poc.pilot.resolve gives it) into the folder `out`; its summary.

    Raises InputError for what cannot work, before any model is loaded where that is possible. Ctrl-C
    (KeyboardInterrupt) keeps what was counted.
    """
    _check(config, strong, samples)
    questions = tasks.load(config.data, config.train.seed)["train"]
    _check_questions(questions, strong)
    cache.prepare(out)
    sides = _sides(config, strong, samples, questions, out)
    known = {side.name: cache.read(side.file) for side in sides}
    missing = {side.name: _missing(side, questions, known[side.name]) for side in sides}
    with progress(sum(map(len, missing.values()))) as shown:
        for side in sides:
            if missing[side.name]:
                _ask(side, missing[side.name], samples, strong is not None, shown)
    summary = _write(sides, questions, samples, out)
    show(summary, out)
    return summary


def _check(config: RunConfig, strong: str | None, samples: int) -> None:
    sources.check_source(config.model)
    if strong is not None:
        sources.check_source(strong)
    if not 2 <= samples <= MOST:
        raise InputError(
            f"samples = {samples}: a share needs 2 to {MOST} completions of a question; the paper takes 16"
        )


def _check_questions(questions: Sequence[Example], strong: str | None) -> None:
    unlabelled = sum(example.answer is None for example in questions)
    if strong is not None and unlabelled:
        raise InputError(
            f"{unlabelled} of {len(questions)} training questions have no answer: label them, or leave the strong "
            "model out: then questions are judged by how far the start model agrees with itself"
        )
    if strong is not None and any(example.domain == "code" for example in questions):
        from poc.scoring import sandbox

        if sandbox.level() == "none":
            raise InputError(f"code cannot be judged here: {sandbox.why_not()}; install bubblewrap: {sandbox.INSTALL}")


def _sides(config: RunConfig, strong: str | None, samples: int, questions: Sequence[Example], out: Path) -> list[Side]:
    from poc.weights import locate

    judged = "verdict" if strong is not None else [config.semantic.cluster, config.semantic.judge]
    models = {"weak": config.model} | ({} if strong is None else {"strong": strong})
    sides = []
    for name, source in models.items():
        mine = config.model_copy(update={"model": source})
        fingerprint = locate(source).fingerprint
        keys = [_key(example, mine, fingerprint, samples, judged) for example in questions]
        sides.append(Side(name, mine, fingerprint, keys, out / f"counts-{name}.jsonl"))
    if len({side.fingerprint for side in sides}) < len(sides):
        raise InputError(f"the strong model {strong} is the start model: name a stronger one, or none")
    return sides


def _key(example: Example, config: RunConfig, fingerprint: str, samples: int, judged) -> str:
    """sha256 of whatever decides a count: change one of them, and the question is asked again."""
    told = tasks.instruction(example) if config.prompt.instruction is None else config.prompt.instruction
    asked = [own.key_of(example.question), example.domain, example.level, config.prompt.format, told]
    drawn = [config.model, fingerprint, config.quantization, samples, TEMPERATURE, config.train.max_new_tokens]
    gold = [example.answer, example.check] if judged == "verdict" else []
    return hashlib.sha256(json.dumps([asked, drawn, judged, gold]).encode()).hexdigest()


def _missing(side: Side, questions: Sequence[Example], known: dict) -> list[tuple[str, Example]]:
    return [(key, example) for key, example in zip(side.keys, questions, strict=True) if key not in known]


def _ask(side: Side, missing: list[tuple[str, Example]], samples: int, labels: bool, shown: Progress) -> None:
    """Sample what is missing and write it down, batch by batch."""
    from poc.models import load_policy

    config = side.config
    shown.say(f"loading {config.model}")
    policy = load_policy(
        config.model, quantization=config.quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha
    )
    encode, _ = pilot.prompt_encoder(pilot.Job(side.file.parent, side.name, None, config), policy)
    pilot.check_lengths({"train": [example for _, example in missing]}, encode, policy, config)
    count = _right if labels else _agreeing(pilot.clustering(config, policy))
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        groups = _sample(policy, batch, encode, config, samples, labels)
        cache.append(side.file, [key for key, _ in batch], [(g.example.id, *count(g)) for g in groups])
        shown.advance(len(batch), side.name)


def _sample(policy, batch: list[tuple[str, Example]], encode, config: RunConfig, samples: int, labels: bool):
    """A group for each question; the draws depend on the questions of the batch, not on when it is sampled."""
    from poc.rollout import rollout

    examples = [example if labels else replace(example, answer=None, check="") for _, example in batch]
    return rollout(
        policy, examples, [encode(example) for example in examples], group_size=samples,
        max_new_tokens=config.train.max_new_tokens, temperature=TEMPERATURE, max_rows=config.train.sample_rows,
        seed=int(cache.batch_name([key for key, _ in batch]), 16),
    )  # fmt: skip


def _right(group: Group) -> tuple[int, int]:
    """(right, those that the verifier failed on)."""
    statuses = Counter(episode.verdict.status for episode in group.episodes)
    return statuses["correct"], statuses["error"]


def _agreeing(cluster) -> Callable[[Group], tuple[int, int]]:
    """Group -> (size of the largest cluster of answers, 0)."""
    from poc.rewards.meanings import with_meanings

    def count(group: Group) -> tuple[int, int]:
        labels = [label for label in with_meanings(group, cluster).meanings if label is not None]
        return max(Counter(labels).values(), default=0), 0

    return count


def _write(sides: list[Side], questions: Sequence[Example], samples: int, out: Path) -> dict:
    counts = [[cache.read(side.file)[key] for key in side.keys] for side in sides]
    rows = [_row(example, found, samples) for example, *found in zip(questions, *counts, strict=True)]
    cache.write_lines(out / "kept.jsonl", [row for row in rows if row["reason"] is None])
    cache.write_lines(out / "dropped.jsonl", [row for row in rows if row["reason"] is not None])
    models = {side.name: {"source": side.config.model, "fingerprint": side.fingerprint} for side in sides}
    asked = {"samples": samples, "temperature": TEMPERATURE, "data": tasks.fingerprint(questions)}
    summary = {"models": models} | asked | _summary(rows)
    durable.write_json(out / "summary.json", summary)
    return summary


def _row(example: Example, found: list[dict], samples: int) -> dict:
    """A kit row with its counts and the reason why it is dropped."""
    weak, strong = found[0]["count"], found[1]["count"] if len(found) > 1 else None
    failed = any(entry["errors"] for entry in found)
    reason = "not judged" if failed else decide(example.domain, weak, strong, samples)
    counted = {"hash": own.digest(example.question), "weak": weak, "strong": strong, "reason": reason}
    return formats.kit_row(example) | counted


def _summary(rows: list[dict]) -> dict:
    kinds = sorted({(row["domain"], row["level"]) for row in rows})
    by = [
        {"domain": domain, "level": level} | _tally([r for r in rows if (r["domain"], r["level"]) == (domain, level)])
        for domain, level in kinds
    ]
    return _tally(rows) | {"by": by}


def _tally(rows: list[dict]) -> dict:
    dropped = Counter(row["reason"] for row in rows if row["reason"] is not None)
    return {
        "questions": len(rows),
        "kept": len(rows) - dropped.total(),
        "dropped": {reason: dropped[reason] for reason in Reason.__args__ if dropped[reason]},
    }
