"""What the numbers allow to say: pure functions of per-prompt values, no file, chart or wording.

Before and after are the same hold-out prompts. With several seeds the values are averaged per prompt first and the
bootstrap then runs over prompts, so the interval holds the variation between questions, not the one between runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from poc.report.read import Values
from poc.statistics import Interval, bootstrap_interval, paired_difference

MIN_PROMPTS = 10  # below it the interval's coverage was not measured
MIN_MOVED = 6  # questions that changed: with fewer no two-sided sign test reaches 5 % (2 * 0.5^5 = 0.0625)

Word = Literal["helps", "hurts", "no evidence", "not measured", "drift", "steady"]
Remark = Literal["few prompts", "no more than control", "not clear of control", "format only", "fell from peak"]


class Peak(NamedTuple):
    """The best evaluation on the way. `fall`: last minus peak, its confidence corrected for picking a step."""

    step: int
    change: Interval
    fall: Interval


@dataclass(frozen=True)
class Verdict:
    """`word` is the headline of one arm at its last evaluation; `remarks` qualify it."""

    word: Word
    remarks: tuple[Remark, ...] = ()


def judge(
    change: Interval | None,
    *,
    moved: int = MIN_MOVED,
    is_control: bool = False,
    anyhow: Interval | None = None,
    control: Interval | None = None,
    over_control: Interval | None = None,
    peak: Peak | None = None,
) -> Verdict:
    """The verdict on one arm.

    change: accuracy after - before; moved: how many questions changed at all. anyhow: the same for accuracy regardless
    of format. control: the change of the random-reward arm on the same model; over_control: this arm's change minus the
    control's. A gain that the control makes too is drift, so it is no evidence for the reward; a loss stays a loss,
    whatever caused it.
    """
    if change is None:
        return Verdict("not measured")
    enough = change.n >= MIN_PROMPTS and moved >= MIN_MOVED
    sign = _sign(change) if enough else 0
    if is_control:
        return Verdict("drift" if sign else "steady")
    remarks: list[Remark] = []
    word: Word = {1: "helps", -1: "hurts", 0: "no evidence"}[sign]
    if not enough and _sign(change):
        remarks.append("few prompts")
    if word == "helps" and _sign(control) == 1 and over_control is not None and _sign(over_control) < 1:
        word, remarks = "no evidence", ["no more than control"]
    elif word == "helps" and over_control is not None and _sign(over_control) < 1:
        remarks.append("not clear of control")
    if sign == 1 and anyhow is not None and _sign(anyhow) < 1:
        remarks.append("format only")
    if peak is not None and _sign(peak.change) == 1 and _sign(peak.fall) == -1:
        remarks.append("fell from peak")
    return Verdict(word, tuple(remarks))


def change(after: Sequence[Values], before: Sequence[Values], confidence: float = 0.95) -> Interval | None:
    """Mean paired difference over the prompts, each averaged over seeds first; one entry of each list per seed.

    None when no prompt is in both.
    """
    pairs = [_shared(a, b) for a, b in zip(after, before, strict=True)]
    a, b = over_seeds([p[0] for p in pairs]), over_seeds([p[1] for p in pairs])
    return paired_difference(list(a.values()), list(b.values()), confidence) if a else None


def difference_of_changes(arm: tuple, other: tuple, confidence: float = 0.95) -> Interval | None:
    """(after - before) of one arm minus that of another, per prompt; each is a pair (after, before) as in `change`."""
    a, b = (change_per_prompt(*side) for side in (arm, other))
    keys = [k for k in a if k in b]
    return bootstrap_interval([a[k] - b[k] for k in keys], confidence, bounds=(-2.0, 2.0)) if keys else None


def moved(after: Sequence[Values], before: Sequence[Values]) -> int:
    """Number of prompts whose value changed in any seed."""
    pairs = [_shared(a, b) for a, b in zip(after, before, strict=True)]
    return len({key for a, b in pairs for key in a if a[key] != b[key]})


def over_seeds(per_seed: Sequence[Values]) -> Values:
    """Mean per prompt over the seeds that have it."""
    found: dict[str, list[float]] = {}
    for values in per_seed:
        for key, value in values.items():
            found.setdefault(key, []).append(value)
    return {key: sum(v) / len(v) for key, v in found.items()}


def peak(curve: dict[int, Sequence[Values]]) -> Peak | None:
    """The step with the highest mean accuracy after the first; None when that is the last, or nothing lies between.

    `curve`: step -> one Values per seed. The peak is picked on the data it is judged on, so it is optimistic: the fall
    is tested at 1 - 0.05 / (number of steps to pick from).
    """
    steps, best = sorted(curve), best_step(curve)
    if best is None or best == steps[-1]:
        return None
    rise = change(curve[best], curve[steps[0]])
    fall = change(curve[steps[-1]], curve[best], confidence=1 - 0.05 / (len(steps) - 1))
    return Peak(best, rise, fall) if rise and fall else None


def best_step(curve: dict[int, Sequence[Values]]) -> int | None:
    """The step after the first with the highest mean accuracy; None when there is none."""
    return max(sorted(curve)[1:], key=lambda s: _mean(over_seeds(curve[s])), default=None)


def change_per_prompt(after: Sequence[Values], before: Sequence[Values]) -> Values:
    """After - before of each prompt, averaged over the seeds that have it; arguments as in `change`."""
    pairs = [_shared(a, b) for a, b in zip(after, before, strict=True)]
    return over_seeds([{k: a[k] - b[k] for k in a} for a, b in pairs])


def _shared(a: Values, b: Values) -> tuple[Values, Values]:
    keys = [k for k in a if k in b]
    return {k: a[k] for k in keys}, {k: b[k] for k in keys}


def _mean(values: Values) -> float:
    return sum(values.values()) / len(values) if values else float("-inf")


def _sign(interval: Interval | None) -> int:
    """1 or -1 when the interval lies clear of 0 on that side, else 0."""
    if interval is None or interval.low is None or interval.high is None:
        return 0
    return 1 if interval.low > 0 else -1 if interval.high < 0 else 0
