"""Questions over a few rows of a table, with the gold computed by pandas from the numbers that the question shows.

Level 0: highest, lowest, sum or a count over 4 rows; 1: filter, then aggregate, 6 rows of 3 columns; 2: compare, share,
second highest, 6 to 8 rows; 3: filter by two conditions, aggregate, compare, 8 to 12 rows of 4 or 5 columns. A draw
whose answer is a tie, or lies between two roundings, is None: the caller draws again. Where the table comes from is
poc.tasks.table's and poc.own_table's affair.
"""

from dataclasses import dataclass
from decimal import Decimal
from math import floor
from random import Random
from typing import Any, NamedTuple

from poc.tasks.answers import normalise, parse_number, spell
from poc.tasks.table_kinds import KINDS, Asked, Kind, cell

SIZES = ((4, 4), (6, 6), (6, 8), (8, 12))  # rows, fewest and most, of each level
WIDTHS = ((2, 2), (3, 3), (3, 3), (4, 5))  # columns, where the table has as many
MARGIN = 1e-6  # a value this near the middle between two roundings is drawn again


@dataclass(frozen=True, slots=True)
class Source:
    """The columns of a table. `shown`: name -> cells as the question shows them, None where missing.

    `numbers`: the values of the numeric columns; `categories`: columns of text that repeats; `labels`: columns whose
    cells name a row.
    """

    name: str
    shown: dict[str, list[str | None]]
    numbers: dict[str, list[float | None]]
    categories: tuple[str, ...]
    labels: tuple[str, ...]
    places: dict[str, dict[str, list[int]]]  # category -> cell -> rows that have it

    def __len__(self) -> int:
        return len(next(iter(self.shown.values()), []))


class Question(NamedTuple):
    """`key` is equal for questions that differ in the order of the rows alone."""

    text: str
    answer: str
    worked: str
    key: str


def source(name: str, shown: dict, numbers: dict, categories: tuple[str, ...], labels: tuple[str, ...]) -> Source:
    """A Source, with the rows of each category looked up once."""
    places: dict[str, dict[str, list[int]]] = {c: {} for c in categories}
    for c in categories:
        for i, value in enumerate(shown[c]):
            if value is not None:
                places[c].setdefault(value, []).append(i)
    return Source(name, shown, numbers, categories, labels, places)


def feasible(source: Source, level: int) -> list[Kind]:
    """The kinds of question of `level` that the columns of `source` allow."""
    have = {
        "l": len(source.labels),
        "c": len(source.categories),
        "m": len(source.numbers) - 1,
        "n": len(source.numbers),
    }
    return [kind for kind in KINDS[level] if all(have[role] > 0 for role in kind.roles)]


def draw(rng: Random, source: Source, level: int, kinds: list[Kind]) -> Question | None:
    """One question of one of the `kinds`, or None where chance gave a tie or too few rows."""
    import pandas

    kind = rng.choice(kinds)
    roles = _columns(rng, source, kind.roles)
    columns = _fill(rng, source, list(roles.values()), rng.randint(*WIDTHS[level]))
    rows = _rows(rng, source, columns, roles, rng.randint(*SIZES[level]))
    if rows is None or any(_alike(source, roles[role], rows) for role in "lc" if role in roles):
        return None
    frame = pandas.DataFrame({c: [source.numbers.get(c, source.shown[c])[i] for i in rows] for c in columns})
    asked = kind.ask(rng, frame, *(roles[role] for role in kind.roles))
    answer = None if asked is None else _spelled(asked, _decimals(source, columns, rows))
    if answer is None:
        return None
    lines = [[source.shown[c][i] for c in columns] for i in rows]
    key = f"{asked.text} {sorted(lines)}"
    return Question(f"{markdown(columns, lines)}\n{asked.text}", answer, f"{asked.steps} #{answer}", key)


def markdown(columns, rows) -> str:
    """A table in Markdown; cells are escaped so that none can end a cell, a row or the table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell(value) for value in line)} |" for line in lines)


def _alike(source: Source, column: str, rows: list[int]) -> bool:
    """Whether two cells differ in case or spacing alone: as answers they would be one."""
    cells = {source.shown[column][i] for i in rows}
    return len({normalise(c) for c in cells}) < len(cells)


def _decimals(source: Source, columns: list[str], rows: list[int]) -> int:
    """How many decimals the numbers of this part are written with at most: no sum or difference has more."""
    cells = (parse_number(source.shown[c][i]) for c in columns if c in source.numbers for i in rows)
    return max((-number.as_tuple().exponent for number in cells), default=0)


def _columns(rng: Random, source: Source, roles: str) -> dict[str, str]:
    numbers = rng.sample(list(source.numbers), sum(role in "mn" for role in roles))
    pick = {"l": lambda: rng.choice(source.labels), "c": lambda: rng.choice(source.categories), "m": numbers.pop}
    return {role: (pick | {"n": numbers.pop})[role]() for role in roles}


def _fill(rng: Random, source: Source, needed: list[str], width: int) -> list[str]:
    """`needed` and others up to `width`, in the order of the table."""
    others = [name for name in source.shown if name not in needed]
    taken = {*needed, *rng.sample(others, max(0, min(len(others), width - len(needed))))}
    return [name for name in source.shown if name in taken]


def _rows(rng: Random, source: Source, columns: list[str], roles: dict[str, str], count: int) -> list[int] | None:
    """`count` rows without a missing cell, with different labels, of two or three categories if one is asked about."""
    pool: Any = range(len(source))
    if "c" in roles:
        groups = source.places[roles["c"]]
        values = rng.sample(list(groups), min(len(groups), rng.randint(2, 3)))
        pool = [groups[value][rng.randrange(len(groups[value]))] for value in values for _ in range(3 * count)]
    found: dict[Any, int] = {}
    for _ in range(8 * count):
        row = pool[rng.randrange(len(pool))]
        if all(source.shown[c][row] is not None for c in columns):
            found.setdefault(source.shown[roles["l"]][row] if "l" in roles else row, row)
        if len(found) == count:
            return list(found.values())
    return None


def _spelled(asked: Asked, exact: int) -> str | None:
    """The gold as text, or None where it is text that a table cannot show plainly, or not surely rounded."""
    if isinstance(asked.answer, str):
        return asked.answer if cell(asked.answer) == asked.answer else None
    places = max(0, exact) if asked.decimals is None else asked.decimals
    scaled = float(asked.answer) * 10**places
    if abs(scaled - floor(scaled) - 0.5) < MARGIN:
        return None
    return spell(Decimal(round(scaled)).scaleb(-places))
