"""The user's own questions: read, checked row by row, and divided.

A question's place is decided by a hash of its text (white space aside), not by a seed or by the order of the file:
canary and hold-out are the labelled rows of lowest rank, train is the rest and may be unlabelled, less what copies a
measured question (poc.tasks.leakage). Whatever is wrong with a row is an InputError of one line. What this does not do:
guess columns, or judge whether a gold answer is true.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from poc.config import Data, nearest
from poc.records import Example, InputError, Messages, Split, Verdict
from poc.tasks import cells, formats, leakage
from poc.tasks.answers import MAX_TEXT, Reading, marked_answer, normalise, parse_number, read_number, says_something
from poc.tasks.math import score_number
from poc.tasks.rows import Row, columns_of, read_rows, show

NAME = "own"
CLUSTER = "math"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Work it out step by step, then end with # and the answer alone."
MAX_NEW_TOKENS = 256
SHARES = {"holdout": 25, "canary": 10}  # per cent of the rows, where a file is too small for the counts


@dataclass(frozen=True, slots=True)
class Question:
    """One checked row. `key`: see `key_of`."""

    where: str
    key: str
    example: Example

    @property
    def gold(self) -> str | None:
        return self.example.answer


def load(data: Data) -> dict[Split, list[Example]]:
    """The splits of `data.file` or `data.dataset`, each in the order of the questions' hashes.

    Raises InputError for an unreadable source, a bad row, contradicting duplicates, or too few (labelled) rows. Counts
    left at their defaults shrink to what the data hold.
    """
    return load_with_notes(data)[0]


def load_with_notes(data: Data) -> tuple[dict[Split, list[Example]], dict]:
    """The splits, and what was left out on the way: {"unusable": rows, "leaks": see poc.tasks.leakage.Leaks.note}."""
    source = data.file or data.dataset
    read, notes = _questions(source, list(read_rows(data)), data)
    questions = sorted(_unique(read), key=lambda q: _digest(q.key))
    labelled = [q for q in questions if q.gold is not None]
    counts = _counts(source, data, len(questions), len(labelled))
    measured = labelled[: counts["canary"] + counts["holdout"]]
    taken = {q.key for q in measured}
    rest = [q.example for q in questions if q.key not in taken]
    measured = [q.example for q in measured]
    train, leaks = leakage.without_copies(rest, measured, counts["train"])
    if not train:
        raise InputError(f"{source}: every question that is left for training copies a measured one: add questions")
    split = {"train": train, "holdout": measured[counts["canary"] :], "canary": measured[: counts["canary"]]}
    return split, notes | {"leaks": leaks.note()}


def key_of(question: str | Messages) -> str:
    """The prompt with single spaces: equal for questions that differ in white space alone."""
    turns = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return "\n".join(f"{turn['role']}: {' '.join(turn['content'].split())}" for turn in turns)


def digest(question: str | Messages) -> str:
    """sha256 (hex) of a question's key: how files of questions to drop name it."""
    return _digest(key_of(question))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _questions(source: str, rows: list[Row], data: Data) -> tuple[list[Question], dict]:
    """Every row that can be read, and a note on the others."""
    if data.format is None:
        _check_columns(source, data, columns_of(rows))
        read, notes = [(row, _example(row, data)) for row in rows], {}
    else:
        read, notes = formats.examples(rows, data.format)
    return [_question(row, example, data.format or NAME) for row, example in read], notes


def _example(row: Row, data: Data) -> Example:
    if data.prompt not in row.values:
        valid = [show(column)[1:-1] for column in row.values]
        raise InputError(f"{row.where}: no column {show(data.prompt)}{nearest(data.prompt, valid)}")
    return Example("", cells.prompt(row, data.prompt), cells.gold(row, data.answer, data.answer_after), NAME)


def _question(row: Row, example: Example, prefix: str) -> Question:
    key = key_of(example.question)
    return Question(row.where, key, replace(example, id=example.id or f"{prefix}-{_digest(key)[:16]}"))


def score(example: Example, text: str) -> Verdict:
    """Number against number where the gold is one, else the marked text against the gold, case and spacing aside.

    Only the whole marked answer counts: "Paris or Rome" is not "Paris". `correct_anyhow` asks whether the completion
    ends with the gold. Raises ValueError when there is no gold.
    """
    if example.answer is None:
        raise ValueError(f"{example.id} has no gold answer to score against")
    if parse_number(example.answer) is not None:
        return score_number(example.answer, text)
    text, gold = _hide_hashes(text[-MAX_TEXT:], example.answer)
    target = normalise(gold)
    marked, last = marked_answer(text, lines=gold.count("\n") + 1)
    value = normalise(marked or "")
    status = "unparsable" if not value else "correct" if value == target else "wrong"
    anyhow = status == "correct" or _ends_with(normalise(text), target) or _ends_with(value, target)
    return Verdict(status, bool(value) and last, anyhow, marked)


def read(text: str) -> Reading:
    """The marked answer: a number in its one spelling, else the marked text as it stands."""
    number = read_number(text)
    if number.answer is not None:
        return number
    marked, last = marked_answer(text)
    return Reading(marked, last) if marked and says_something(marked) else Reading(None, False)


def _hide_hashes(text: str, gold: str) -> tuple[str, str]:
    """A gold such as "C#" holds the mark itself: there it stands as "♯" in both."""
    hidden = gold.replace("#", "♯")
    return (text.replace(gold, hidden) if hidden != gold else text), hidden


def _ends_with(text: str, target: str) -> bool:
    return text == target or (text.endswith(target) and not text[-len(target) - 1].isalnum())


def _check_columns(source: str, data: Data, columns: list[str]) -> None:
    for key, name in (("prompt", data.prompt), ("answer", data.answer)):
        if name not in columns:
            names = [show(column)[1:-1] for column in columns[:20]]
            hint = "; it holds one column: separate the columns with commas" if _wrong_separator(columns) else ""
            raise InputError(f"{source}: no column {show(name)} (data.{key}){hint or nearest(name, names)}")


def _wrong_separator(columns: list[str]) -> bool:
    return len(columns) == 1 and any(mark in columns[0] for mark in ";\t")


def _unique(questions: Iterable[Question]) -> list[Question]:
    """The first of every question; a label that only a later copy has is kept, labels that contradict are an error."""
    found: dict[str, Question] = {}
    for question in questions:
        first = found.setdefault(question.key, question)
        if first.gold is None:
            label = replace(first.example, answer=question.gold, check=question.example.check)
            found[question.key] = replace(first, example=label)
        elif question.gold is not None and not _same(first.example, question.example):
            raise InputError(
                f"{question.where}: the same question as {first.where}, but the answer {show(question.gold)} "
                f"contradicts {show(first.gold)}: correct or delete one of them"
            )
    _check_ids(found.values())
    return list(found.values())


def _check_ids(questions: Iterable[Question]) -> None:
    """Everything behind here tells questions apart by id."""
    seen: dict[str, Question] = {}
    for question in questions:
        first = seen.setdefault(question.example.id, question)
        if first is not question:
            raise InputError(
                f"{question.where}: another question than {first.where}, but the same id {show(first.example.id)}: "
                "change one of them"
            )


def _same(one: Example, other: Example) -> bool:
    """Whether two labels agree; of code, one solution of many is as good as another."""
    if one.domain == "code":
        return True
    numbers = parse_number(one.answer), parse_number(other.answer)
    return numbers[0] == numbers[1] if None not in numbers else normalise(one.answer) == normalise(other.answer)


def _counts(source: str, data: Data, total: int, labelled: int) -> dict[str, int]:
    asked = {split: getattr(data, split) for split in ("train", "holdout", "canary")}
    measured = asked["holdout"] + asked["canary"]
    if total >= measured + asked["train"] and labelled >= measured:
        return asked
    have = f"{source} holds {total} different questions ({labelled} labelled, {total - labelled} unlabelled)"
    if total < 3 or labelled < 2:
        raise InputError(f"{have}: a pilot needs at least 3, 2 of them labelled for the hold-out: add rows or answers")
    fitting = _fitting(asked, total, labelled)
    if all(asked[split] == Data.model_fields[split].default for split in asked):
        return fitting
    way = " ".join(f"--set data.{split}={fitting[split]}" for split in ("holdout", "canary", "train"))
    raise InputError(
        f"{have}, but data.train + data.holdout + data.canary is {asked['train']} + {asked['holdout']} + "
        f"{asked['canary']}, and hold-out and canary need {measured} labelled ones: use {way}, or add rows"
    )


def _fitting(asked: dict[str, int], total: int, labelled: int) -> dict[str, int]:
    """Counts that fit: a quarter held out, a tenth canary, fewer where labels are short, the rest train."""
    together = sum(SHARES.values())
    usable = min(total * together // 100, labelled)
    part = {split: min(asked[split], usable * share // together) for split, share in SHARES.items()}
    part["holdout"] = max(2, part["holdout"])
    return {"train": min(asked["train"], total - sum(part.values())), **part}
