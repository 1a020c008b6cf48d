"""JSON that nobody trusts, read strictly: one value, whole, and equal only to what is written as the same value.

Types are exact: true is not 1, 1 is not 1.0, "1" is not 1, [] is not {}. So is the order of lists; that of keys is
free. Two spellings of one value are equal: 1.50 and 1.5, 1e2 and 100.0, -0 and 0, "\\u0061" and "a". Refused, before
anything is built: more than MAX_LENGTH characters, brackets deeper than MAX_DEPTH (those in strings count), more than
MAX_DIGITS digits on end (those in strings too). Refused by the reader: a key twice, NaN, Infinity and what overflows
to it, anything after the value.
"""

import json
import re
from math import isfinite
from typing import Any, NoReturn

MAX_LENGTH = 4_000  # characters
MAX_DEPTH = 16
MAX_DIGITS = 64

_TOO_LONG = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")


def parse(text: str) -> Any:
    """The value of `text`. Raises ValueError for all that the module's docstring refuses, and nothing else."""
    if len(text) > MAX_LENGTH or _TOO_LONG.search(text) or _depth(text) > MAX_DEPTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters, deeper than {MAX_DEPTH}, or a number too long")
    return json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse, parse_float=_float)


def canonical(text: str) -> str | None:
    """The one spelling of the value of `text`: sorted keys, no spaces, ASCII. None if it is not strict JSON."""
    try:
        return dump(parse(text))
    except ValueError:
        return None


def dump(value: Any) -> str:
    """The one spelling of a value that JSON can hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def same(one: Any, other: Any) -> bool:
    """Whether two values as `parse` gives them are equal, types included."""
    return dump(one) == dump(other)


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "[{") - (char in "]}")
        deepest = max(deepest, depth)
    return deepest


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _float(text: str) -> float:
    value = float(text) + 0.0  # -0.0 becomes 0.0
    if not isfinite(value):
        raise ValueError("a number is too large")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
