"""The kinds of question that a table can be asked, each answered by pandas on the rows that the question shows.

Each takes the rows as a DataFrame and the columns by their roles, and gives None where chance made a tie or left too
few rows: the caller (poc.tasks.table_questions) draws again.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

from poc.tasks.answers import spell
from poc.text import visible

AGGREGATES = {"sum": "sum", "highest value": "max", "lowest value": "min", "mean": "mean"}
ROUNDED = 2  # decimals of a mean


class Asked(NamedTuple):
    """A question on a part of a table; `decimals` to round a number to, None where it is exact; `steps`: its way."""

    text: str
    answer: Any
    decimals: int | None
    steps: str


class Kind(NamedTuple):
    """`roles`: the columns it needs: l(abel), c(ategory), m and n(umbers), in the order of `ask`'s arguments."""

    roles: str
    ask: Callable[..., Asked | None]


def cell(value: Any) -> str:
    """One line without control characters, pipes and backslashes escaped."""
    return re.sub(r"([|\\])", r"\\\1", visible(" ".join(str(value).split())))


def _q(name: str) -> str:
    """A column's name or a cell within a question, in quotes where it is not one word."""
    name = cell(name)
    return name if re.fullmatch(r"[\w.%$€-]{1,40}", name) else f'"{name}"'


def _list(values) -> str:
    return ", ".join(v if isinstance(v, str) else _num(v) for v in list(values))


def _num(value: float) -> str:
    """Without the noise of floating point and without an exponent."""
    return spell(Decimal(f"{value:.15g}"))


def _aggregate(rng: Random, part, n: str, where: str) -> Asked | None:
    """Sum, mean, highest or lowest `n` of at least two rows of a part."""
    how = rng.choice(list(AGGREGATES))
    if len(part) < 2:
        return None
    value = getattr(part[n], AGGREGATES[how])()
    mean = how == "mean"
    text = f"What is the {how} of {_q(n)}{where}?{f' Round to {ROUNDED} decimals.' if mean else ''}"
    return Asked(text, value, ROUNDED if mean else None, f"{_list(part[n])}: {how}")


def _threshold(rng: Random, frame, m: str) -> float:
    """One of the lower values of a column, so that some rows lie above it."""
    values = sorted(set(frame[m].tolist()))
    return values[rng.randrange(max(1, len(values) // 2))]


def _plain(rng: Random, frame, n: str) -> Asked | None:
    how = rng.choice(("sum", "highest value", "lowest value"))
    return Asked(f"What is the {how} of {_q(n)}?", getattr(frame[n], AGGREGATES[how])(), None, _list(frame[n]))


def _count(rng: Random, frame, c: str) -> Asked | None:
    v = rng.choice(frame[c].tolist())
    found = frame[frame[c] == v]
    return Asked(f"How many rows have {_q(c)} {_q(v)}?", len(found), None, _list(found[c]))


def _of_category(rng: Random, frame, c: str, n: str) -> Asked | None:
    v = rng.choice(frame[c].tolist())
    return _aggregate(rng, frame[frame[c] == v], n, f" over the rows where {_q(c)} is {_q(v)}")


def _above(rng: Random, frame, m: str, n: str) -> Asked | None:
    t = _threshold(rng, frame, m)
    return _aggregate(rng, frame[frame[m] > t], n, f" over the rows where {_q(m)} is above {_num(t)}")


def _count_above(rng: Random, frame, n: str) -> Asked | None:
    t = _threshold(rng, frame, n)
    found = frame[frame[n] > t]
    return Asked(f"How many rows have {_q(n)} above {_num(t)}?", len(found), None, _list(found[n]))


def _ranked(rng: Random, frame, column: str, n: str) -> tuple[str, Any, str] | None:
    """("second highest", the cell of `column` in that row, the values in order), None where it is a tie."""
    which = rng.choice(("highest", "lowest", "second highest", "second lowest"))
    ordered = frame.sort_values(n, ascending="lowest" in which)
    at, values = int(which.startswith("second")), ordered[n].tolist()
    if values.count(values[at]) > 1 or values.count(values[0]) > 1:
        return None
    return which, ordered[column].iloc[at], _list(values[: at + 2])


def _argument(rng: Random, frame, l: str, n: str) -> Asked | None:  # noqa: E741
    found = _ranked(rng, frame, l, n)
    return found and Asked(f"Which {_q(l)} has the {found[0]} {_q(n)}?", found[1], None, found[2])


def _second(rng: Random, frame, n: str) -> Asked | None:
    found = _ranked(rng, frame, n, n)
    return found and Asked(f"What is the {found[0]} {_q(n)}?", found[1], None, found[2])


def _best_group(rng: Random, frame, c: str, n: str, where: str = "") -> Asked | None:
    """Which category has the highest or lowest sum, of at least two without a tie at the end that is asked for."""
    which = rng.choice(("highest", "lowest"))
    sums = frame.groupby(c, sort=True)[n].sum().sort_values(ascending=which == "lowest")
    if len(sums) < 2 or abs(sums.iloc[0] - sums.iloc[1]) <= 1e-9 * abs(sums).max():
        return None
    steps = ", ".join(f"{name} {_num(value)}" for name, value in sums.items())
    return Asked(f"Which {_q(c)} has the {which} sum of {_q(n)}{where}?", sums.index[0], None, steps)


def _range(rng: Random, frame, n: str) -> Asked | None:
    high, low = frame[n].max(), frame[n].min()
    text = f"By how much is the highest {_q(n)} above the lowest?"
    return Asked(text, high - low, None, f"{_num(high)} - {_num(low)}")


def _difference(rng: Random, frame, l: str, n: str) -> Asked | None:  # noqa: E741
    pair = frame.iloc[rng.sample(range(len(frame)), 2)].sort_values(n, ascending=False)
    (a, b), (x, y) = pair[l].tolist(), pair[n].tolist()
    text = f"By how much is the {_q(n)} of {_q(a)} above that of {_q(b)}?"
    return Asked(text, x - y, None, f"{_num(x)} - {_num(y)}") if x > y else None


def _share(rng: Random, frame, c: str, n: str) -> Asked | None:
    v = rng.choice(frame[c].tolist())
    part, total = frame[frame[c] == v][n].sum(), frame[n].sum()
    if frame[n].min() <= 0 or part == total:
        return None
    text = f"What percentage of the sum of {_q(n)} do the rows where {_q(c)} is {_q(v)} make up? Round to 1 decimal."
    return Asked(text, 100 * part / total, 1, f"{_num(part)} of {_num(total)}")


def _two_conditions(rng: Random, frame, c: str, m: str) -> tuple[Any, str] | None:
    """(at least two rows of one category above a threshold, how that is said)."""
    v = rng.choice(frame[c].tolist())
    inside = sorted(frame[frame[c] == v][m].tolist())
    lower = sorted({t for t in frame[m].tolist() if t < inside[-2]}) if len(inside) > 1 else []
    if not lower:
        return None
    t = rng.choice(lower)
    where = f" over the rows where {_q(c)} is {_q(v)} and {_q(m)} is above {_num(t)}"
    return frame[(frame[c] == v) & (frame[m] > t)], where


def _both(rng: Random, frame, c: str, m: str, n: str) -> Asked | None:
    found = _two_conditions(rng, frame, c, m)
    return found and _aggregate(rng, found[0], n, found[1])


def _between(rng: Random, frame, m: str, n: str) -> Asked | None:
    low, high = frame[m].min(), frame[m].max()
    where = f" over the rows where {_q(m)} is above {_num(low)} and below {_num(high)}"
    return _aggregate(rng, frame[(frame[m] > low) & (frame[m] < high)], n, where) if low < high else None


def _beyond_mean(rng: Random, frame, c: str, m: str, n: str) -> Asked | None:
    found = _two_conditions(rng, frame, c, m)
    if found is None:
        return None
    high, mean = found[0][n].max(), frame[n].mean()
    text = f"Take the highest {_q(n)}{found[1]}. By how much does it differ from the mean {_q(n)} of all rows?"
    return Asked(f"{text} Round to {ROUNDED} decimals.", abs(high - mean), ROUNDED, f"{_num(high)} and {_num(mean)}")


def _groups_above(rng: Random, frame, c: str, m: str, n: str) -> Asked | None:
    t = _threshold(rng, frame, m)
    return _best_group(rng, frame[frame[m] > t], c, n, f" over the rows where {_q(m)} is above {_num(t)}")


def _argument_of(rng: Random, frame, l: str, c: str, m: str, n: str) -> Asked | None:  # noqa: E741
    found = _two_conditions(rng, frame, c, m)
    asked = found and _argument(rng, found[0], l, n)
    return asked and asked._replace(text=f"{asked.text[:-1]}{found[1]}?")


def _groups_apart(rng: Random, frame, c: str, m: str, n: str) -> Asked | None:
    """How far the sums of two categories are apart, over the rows above a threshold."""
    t, values = _threshold(rng, frame, m), sorted(set(frame[c].tolist()))
    if len(values) < 2:
        return None
    a, b = rng.sample(values, 2)
    part = frame[frame[m] > t]
    x, y = part[part[c] == a][n].sum(), part[part[c] == b][n].sum()
    text = f"Over the rows where {_q(m)} is above {_num(t)}: by how much do the sums of {_q(n)} of {_q(a)} and {_q(b)}"
    return Asked(f"{text} differ?", abs(x - y), None, f"{_num(x)} and {_num(y)}") if x and y and x != y else None


KINDS = (
    (Kind("n", _plain), Kind("c", _count)),
    (*2 * (Kind("cn", _of_category), Kind("mn", _above)), Kind("n", _count_above)),
    (
        Kind("ln", _argument), Kind("n", _second), Kind("cn", _best_group), Kind("n", _range), Kind("ln", _difference),
        Kind("cn", _share),
    ),
    (
        Kind("cmn", _both), Kind("mn", _between), Kind("cmn", _beyond_mean), Kind("cmn", _groups_above),
        Kind("lcmn", _argument_of), Kind("cmn", _groups_apart),
    ),
)  # fmt: skip
