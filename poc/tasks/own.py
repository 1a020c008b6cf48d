"""The user's own questions: read, checked row by row, and divided.

A question's place is decided by a hash of its text (white space aside), not by a seed or by the order of the file:
canary and hold-out are the labelled rows of lowest rank, train is the rest and may be unlabelled. Whatever is wrong
with a row is an InputError of one line. What this does not do: guess columns, or judge whether a gold answer is true.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

from poc.config import Data, nearest
from poc.records import Example, InputError, Messages, Split, Verdict
from poc.tasks.answers import MAX_TEXT, Reading, marked_answer, normalise, parse_number, read_number, says_something
from poc.tasks.math import score_number
from poc.tasks.rows import Row, columns_of, read_rows, show

NAME = "own"
CLUSTER = "math"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Work it out step by step, then end with # and the answer alone."
MAX_NEW_TOKENS = 256
ROLES = ("system", "user", "assistant")
SHARES = {"holdout": 25, "canary": 10}  # per cent of the rows, where a file is too small for the counts


@dataclass(frozen=True, slots=True)
class Question:
    """One checked row. `key` is the prompt with single spaces: equal for questions that differ in white space alone."""

    where: str
    key: str
    prompt: str | Messages
    gold: str | None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.key.encode()).hexdigest()


def load(data: Data) -> dict[Split, list[Example]]:
    """The splits of `data.file` or `data.dataset`, each in the order of the questions' hashes.

    Raises InputError for an unreadable source, a bad row, contradicting duplicates, or too few (labelled) rows. Counts
    left at their defaults shrink to what the data hold.
    """
    source = data.file or data.dataset
    rows = list(read_rows(data))
    _check_columns(source, data, columns_of(rows))
    questions = _unique(_question(row, data) for row in rows)
    questions.sort(key=lambda q: q.digest)
    labelled = [q for q in questions if q.gold is not None]
    counts = _counts(source, data, len(questions), len(labelled))
    measured = labelled[: counts["canary"] + counts["holdout"]]
    taken = {q.key for q in measured}
    train = [q for q in questions if q.key not in taken][: counts["train"]]
    split = {"train": train, "holdout": measured[counts["canary"] :], "canary": measured[: counts["canary"]]}
    return {name: [_example(q) for q in part] for name, part in split.items()}


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


def _question(row: Row, data: Data) -> Question:
    if data.prompt not in row.values:
        valid = [show(column)[1:-1] for column in row.values]
        raise InputError(f"{row.where}: no column {show(data.prompt)}{nearest(data.prompt, valid)}")
    prompt = _prompt(row, data.prompt)
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    key = "\n".join(f"{turn['role']}: {' '.join(turn['content'].split())}" for turn in turns)
    return Question(row.where, key, prompt, _gold(row, data.answer, data.answer_after))


def _prompt(row: Row, column: str) -> str | Messages:
    value = row.values[column]
    if isinstance(value, list):
        return _messages(row, column, value)
    if value is not None and not isinstance(value, str):
        row.fail(column, value, "is neither text nor a list of chat messages: put the question in quotes")
    if value is None or not value.strip():
        row.fail(column, value, "is empty: write the question or delete the row")
    return _clean(row, column, value)


def _messages(row: Row, column: str, value: list) -> Messages:
    if not value:
        row.fail(column, value, "is an empty list: write the question or delete the row")
    turns = tuple(_turn(row, column, turn) for turn in value)
    if turns[-1]["role"] != "user":
        row.fail(column, value[-1], "must be the user's message, as the last one: cut off what follows the question")
    return turns


def _turn(row: Row, column: str, turn: Any) -> dict[str, str]:
    if not isinstance(turn, dict):
        row.fail(column, turn, 'is not a chat message such as {"role": "user", "content": "..."}')
    if turn.get("role") not in ROLES:
        row.fail(column, turn.get("role"), f"is not a role: use one of {', '.join(ROLES)}")
    content = turn.get("content")
    if not isinstance(content, str) or not content.strip():
        row.fail(column, turn, "has no content, or content that is not text: write it or delete the message")
    return {"role": turn["role"], "content": _clean(row, column, content)}


def _gold(row: Row, column: str, marker: str | None) -> str | None:
    value = row.values.get(column)
    text = _as_text(row, column, value).strip()
    if not text:
        return None
    if marker is not None:
        if marker not in text:
            row.fail(column, value, f"does not hold {show(marker)} (data.answer_after): add it or empty the answer")
        text = text.rpartition(marker)[2].strip()
    if not normalise(text):
        row.fail(column, value, "holds no answer: write it, or leave the cell empty where nobody knows it")
    return _clean(row, column, text)


def _as_text(row: Row, column: str, value: Any) -> str:
    if value is None:
        return ""
    if value in ("nan", "NaN") or (isinstance(value, (float, Decimal)) and not isfinite(value)):
        row.fail(column, value, "is not an answer: leave it empty where nobody knows it")
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        row.fail(column, value, "is neither text nor a number: put the answer in quotes")
    if isinstance(value, str):
        return value
    return format(Decimal(repr(value)) if isinstance(value, float) else Decimal(value), "f")  # 1e22 without exponent


def _clean(row: Row, column: str, value: str) -> str:
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        row.fail(column, value, "holds a NUL or half a surrogate pair: remove it")
    return value


def _unique(questions: Iterable[Question]) -> list[Question]:
    """The first of every question; a label that only a later copy has is kept, labels that contradict are an error."""
    found: dict[str, Question] = {}
    for question in questions:
        first = found.setdefault(question.key, question)
        if first.gold is None:
            found[question.key] = Question(first.where, first.key, first.prompt, question.gold)
        elif question.gold is not None and not _same(first.gold, question.gold):
            raise InputError(
                f"{question.where}: the same question as {first.where}, but the answer {show(question.gold)} "
                f"contradicts {show(first.gold)}: correct or delete one of them"
            )
    return list(found.values())


def _same(one: str, other: str) -> bool:
    numbers = parse_number(one), parse_number(other)
    return numbers[0] == numbers[1] if None not in numbers else normalise(one) == normalise(other)


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


def _example(question: Question) -> Example:
    return Example(f"{NAME}-{question.digest[:16]}", question.prompt, question.gold, NAME)
