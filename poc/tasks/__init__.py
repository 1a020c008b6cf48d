"""The domains, and how their questions are divided.

Which split a generated question belongs to is a property of the question (a hash of its structure), not of a seed: no
seed, count or order can put one question, or a renamed copy of it, into two splits.
"""

import hashlib
import json
from collections.abc import Iterable
from importlib import import_module
from random import Random

from poc.config import DOMAIN_LEVELS, Data
from poc.records import Example, InputError, Split, Verdict
from poc.tasks import dropped, multiple_choice, own
from poc.tasks.answers import Reading

DOMAINS = {name: import_module(f"poc.tasks.{name}") for name in DOMAIN_LEVELS}  # each is cheap to import
PATIENCE = 5000  # draws without a new question before a split is called exhausted
MEASURING_SEED = 0  # hold-out and canary: every arm and every seed is measured on the same questions


def load(data: Data, seed: int) -> dict[str, list[Example]]:
    """The examples of all three splits: the user's own or generated; only the generated train split depends on `seed`.

    Beside train, holdout and canary a key "level-5" for each level that is only measured and "domain-code" for each
    domain that is measured as well, as many as the hold-out has. Raises InputError when the data are wrong or too few.
    """
    return load_with_notes(data, seed)[0]


def load_with_notes(data: Data, seed: int) -> tuple[dict[str, list[Example]], dict]:
    """As `load`, with what was left out on the way: leaks and unusable rows of own files, questions of `data.drop`."""
    splits, notes = own.load_with_notes(data) if data.own else (_generated(data, seed), {})
    if data.drop:
        splits["train"], notes["drop"] = dropped.leave_out(splits["train"], data.drop)
    return splits, notes


def _generated(data: Data, seed: int) -> dict[str, list[Example]]:
    counts: dict[Split, int] = {"train": data.train, "holdout": data.holdout, "canary": data.canary}
    splits = {
        split: _shared(kinds_of(data), split, count, seed if split == "train" else MEASURING_SEED)
        for split, count in counts.items()
    }
    beside = {f"level-{level}": [(name, level) for name in data.trained_domains] for level in data.ood_levels}
    others = [name for name in data.measure if [name] != data.trained_domains]  # that one is the hold-out itself
    beside |= {f"domain-{name}": [(name, level) for level in data.trained_levels] for name in others}
    return splits | {view: _shared(kinds, "holdout", data.holdout, MEASURING_SEED) for view, kinds in beside.items()}


def kinds_of(data: Data) -> list[tuple[str, int]]:
    """(domain, level) of the generated questions that are trained on."""
    return [(name, level) for name in data.trained_domains for level in data.trained_levels]


def _shared(kinds: list[tuple[str, int]], split: Split, count: int, seed: int) -> list[Example]:
    """`count` examples in equal shares over the kinds, the first kinds getting what is left over."""
    share, rest = divmod(count, len(kinds))
    parts = [generate(*kind, split, share + (i < rest), seed) for i, kind in enumerate(kinds)]
    return [example for part in parts for example in part]


def instruction(example: Example) -> str:
    """What the example's domain tells a model beside the question; a question with options says all by itself."""
    if multiple_choice.asked(example.text):
        return multiple_choice.INSTRUCTION
    return own.INSTRUCTION if example.domain == own.NAME else DOMAINS[example.domain].instruction(example.level)


def score(example: Example, text: str) -> Verdict:
    """The verdict of the example's verifier on a completion. Raises ValueError when the example has no gold answer."""
    if example.answer is None:
        raise ValueError(f"{example.id} has no gold answer to score against")
    return own.score(example, text) if example.domain == own.NAME else DOMAINS[example.domain].score(example, text)


def read(example: Example, text: str) -> Reading:
    """What a completion gives as its answer, without looking at the gold."""
    return own.read(text) if example.domain == own.NAME else DOMAINS[example.domain].read(example.question, text)


def fingerprint(examples: Iterable[Example]) -> str:
    """sha256 (hex) of the questions and gold answers in their order: equal for equal data, whatever the ids."""
    rows = [[e.question, e.answer, *([e.check] if e.check else [])] for e in examples]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def split_of(key: str) -> Split:
    """2/16 of all questions are canary, 4/16 hold-out, 10/16 train."""
    bucket = hashlib.sha256(key.encode()).digest()[0] % 16
    return "canary" if bucket < 2 else "holdout" if bucket < 6 else "train"


def draw(domain: str, seed: int, index: int, level: int) -> tuple[Example, str]:
    """The `index`-th example of stream `seed`, and the key by which it is assigned to a split."""
    problem = DOMAINS[domain].make(Random(f"{domain}/{seed}/{level}/{index}"), level)
    name = f"{domain}-{level}-{seed}-{index}"
    return Example(name, problem.question, problem.answer, domain, level, problem.check), problem.key


def generate(domain: str, level: int, split: Split, count: int, seed: int) -> list[Example]:
    """`count` different examples of one split; the same arguments give the same examples.

    Raises InputError when the split does not hold that many different questions.
    """
    found: dict[str, Example] = {}
    index = last = 0
    while len(found) < count and index - last < PATIENCE:
        example, key = draw(domain, seed, index, level)
        if split_of(key) == split and example.question not in found:
            found[example.question], last = example, index
        index += 1
    if len(found) < count:
        raise InputError(
            f"data.{split}: {count} asked for, but {domain} level {level} has about {len(found)} different {split} "
            f"questions: lower data.{split} or choose another level"
        )
    return list(found.values())
