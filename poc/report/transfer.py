"""What carries over: runs trained on different domains, each measured on all of them, as matrices.

A matrix is of one start model: a row for each arm, a column for each domain, in a cell the change of accuracy on that
domain's hold-out with its 95 % interval (paired over questions). The domain that an arm alone was trained on is its own
hold-out, the others are views (`domain-NAME`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from poc.report.arms import Arm, Judged

VIEW = "domain-"


@dataclass(frozen=True)
class Row:
    """One arm. `cells`: the arm as measured on each column's domain, None where it was not."""

    arm: Arm
    trained: tuple[str, ...]
    cells: tuple[Arm | None, ...]


@dataclass(frozen=True)
class Matrix:
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def before(self, column: int) -> Arm | None:
        """Somebody's measurement of the column's domain: before training they are all the same."""
        return next((row.cells[column] for row in self.rows if row.cells[column]), None)


def matrices(judged: Sequence[Judged]) -> list[Matrix]:
    """One for each start model whose arms were measured on two domains or more."""
    starts: dict[tuple, list[Arm]] = {}
    for arm in (j.arm for j in judged if _measured(j.arm)):
        starts.setdefault(arm.group[:3], []).append(arm)
    return [found for arms in starts.values() if len((found := _matrix(arms)).columns) > 1]


def trained_on(arm: Arm) -> tuple[str, ...]:
    """The domains of the generated questions that an arm learned from."""
    data = arm.first.config.get("data")
    data = data if isinstance(data, dict) else {}
    several = data.get("domains")
    listed = several if isinstance(several, list) and several else [data.get("domain")]
    return tuple(str(name) for name in listed)


def _measured(arm: Arm) -> dict[str, Arm]:
    """The arm as measured on each domain; empty without views of domains."""
    found = {name.removeprefix(VIEW): arm.view(name) for name in arm.view_names if name.startswith(VIEW)}
    own = trained_on(arm)
    return found | ({own[0]: arm} if found and len(own) == 1 else {})


def _matrix(arms: Sequence[Arm]) -> Matrix:
    measured = [_measured(arm) for arm in arms]
    known = {name: None for cells in measured for name in cells if cells[name].ends}
    alone = [own[0] for arm in arms if len(own := trained_on(arm)) == 1]
    columns = tuple(sorted(known, key=lambda name: alone.index(name) if name in alone else len(alone)))
    rows = [
        Row(arm, trained_on(arm), tuple(cells[c] if c in cells and cells[c].ends else None for c in columns))
        for arm, cells in zip(arms, measured, strict=True)
    ]
    return Matrix(columns, tuple(row for row in rows if any(row.cells)))
