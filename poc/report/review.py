"""What people found when they read a sample of the answers: review.json of a run folder, read and checked.

Another part of the kit writes the file; it may be missing or damaged, which is the page's business to say. The two
hashes are shown beside each other, not judged: whether they belong together is the audit log's business.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poc.statistics import Interval

MAX_SHOWN = 20  # disagreements on the page


@dataclass(frozen=True, slots=True)
class Scores:
    """Share of right answers among the reviewed ones of one model, by people and by the verifier."""

    human: float | None
    verifier: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An answer on which a person and the verifier differ."""

    id: str
    model: str
    verifier: str
    human: str
    text: str
    note: str


@dataclass(frozen=True, slots=True)
class Review:
    """`agreement`: the share of answers on which both say the same; `kappa`: the same beyond chance (Cohen).

    `found_sha256`: of the adapter that lies in the folder now; None where there is none.
    """

    n: int
    agreement: float | None
    kappa: Interval | None
    by_model: dict[str, Scores]
    disagreements: tuple[Disagreement, ...]
    left_out: int
    reviewer: str
    date: str
    sample_sha256: str
    adapter_sha256: str
    found_sha256: str | None


def review(data: dict, found_sha256: str | None) -> Review:
    """The review in `data`. TypeError, ValueError or KeyError where it is not one."""
    rows = data.get("disagreements") or []
    if not isinstance(rows, list):
        raise TypeError(f"disagreements: a list was expected, got {type(rows).__name__}")
    kappa = data.get("kappa")
    return Review(
        n=_count(data["n"]),
        agreement=_share(data.get("agreement")),
        kappa=_kappa(kappa) if kappa else None,
        by_model={name: _scores(data["by_model"][name]) for name in ("start", "end") if name in data["by_model"]},
        disagreements=tuple(_disagreement(row) for row in rows[:MAX_SHOWN]),
        left_out=max(0, len(rows) - MAX_SHOWN),
        reviewer=str(data.get("reviewer") or ""),
        date=str(data.get("date") or ""),
        sample_sha256=str(data.get("sample_sha256") or ""),
        adapter_sha256=str(data.get("adapter_sha256") or ""),
        found_sha256=found_sha256,
    )


def adapter_sha256(folder: Path, kept: Any) -> str | None:
    """Of the adapter that a run leaves behind: of the checkpoint it went back to, else of its last one."""
    found = sorted(folder.glob("checkpoints/step-*/adapter_model.safetensors"))
    if isinstance(kept, int):
        found = [path for path in found if path.parent.name == f"step-{kept:06d}"]
    return hashlib.sha256(found[-1].read_bytes()).hexdigest() if found else None


def _disagreement(row: dict) -> Disagreement:
    names = ("id", "model", "verifier", "human", "text", "note")
    return Disagreement(*(str(row.get(name) if row.get(name) is not None else "") for name in names))


def _scores(data: dict) -> Scores:
    return Scores(_share(data.get("human")), _share(data.get("verifier")), _count(data["n"]))


def _kappa(data: dict) -> Interval:
    return Interval(*(_number(data.get(key)) for key in ("value", "low", "high")), _count(data.get("n") or 0))


def _share(value: Any) -> float | None:
    found = _number(value)
    if found is not None and not 0 <= found <= 1:
        raise ValueError(f"a share from 0 to 1 was expected, got {found}")
    return found


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
        raise ValueError(f"a number was expected, got {str(value)[:40]!r}")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
        raise ValueError(f"a number of answers was expected, got {str(value)[:40]!r}")
    return value
