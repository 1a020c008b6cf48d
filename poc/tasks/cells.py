"""One cell of a user's row becomes a prompt or a gold answer; what cannot is an InputError that names the cell."""

from decimal import Decimal
from math import isfinite
from typing import Any

from poc.records import Messages
from poc.tasks.answers import normalise
from poc.tasks.rows import Row, show

ROLES = ("system", "user", "assistant")


def prompt(row: Row, column: str) -> str | Messages:
    """The question: text, or chat messages that end with the user's."""
    value = row.values.get(column)
    if isinstance(value, list):
        return _messages(row, column, value)
    if value is not None and not isinstance(value, str):
        row.fail(column, value, "is neither text nor a list of chat messages: put the question in quotes")
    if value is None or not value.strip():
        row.fail(column, value, "is empty: write the question or delete the row")
    return clean(row, column, value)


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
    return {"role": turn["role"], "content": clean(row, column, content)}


def gold(row: Row, column: str, marker: str | None) -> str | None:
    """The gold answer, after the last `marker` where one is given; None for an empty cell."""
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
    return clean(row, column, text)


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


def clean(row: Row, column: str, value: str) -> str:
    """Text that can be encoded, hashed and shown."""
    if unencodable(value):
        row.fail(column, value, "holds a NUL or half a surrogate pair: remove it")
    return value


def unencodable(text: str) -> bool:
    return "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)
