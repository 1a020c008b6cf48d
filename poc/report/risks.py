"""What speaks against an arm beside its accuracy: found in what its runs recorded, not in anybody's opinion. Pure.

Looked for, and serious (an arm with one of these is not shipped): accuracy fell from a peak and nobody went back; the
guard ended a run and left nothing to go back to; a finding of the guard that still stands; answers that leave the
questions' script; entropy that collapsed. What the guard undid by going back is no serious risk any more, but it is
said. Not looked for: harm in the answers themselves, other languages, other tasks than those measured.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from poc.report.arms import Arm, Judged
from poc.report.read import Run, number

FIRST = 5  # steps that make the baseline, as for the guard
COLLAPSE = 0.15  # of the entropy at the start: the guard's own limit (poc.config.Guard)
FOREIGN = 0.1  # of the letters that were in the questions' script: the guard's own limit
LOST = 0.02  # of greedy accuracy, and of calibration: smaller changes are not worth a line on the first screen
GRAVE_RULES = (
    "entropy_collapse", "entropy_explosion", "length_collapse", "length_runaway", "repetition", "truncation",
    "charset_drift", "kl", "canary_drop", "agreement_drop",
)  # fmt: skip

Kind = Literal[
    "fell from peak", "stopped", "guard", "foreign script", "collapse",  # serious
    "undone", "elsewhere", "greedy", "calibration", "no control", "one seed",
]  # fmt: skip
SERIOUS = ("fell from peak", "stopped", "guard", "foreign script", "collapse")


class Risk(NamedTuple):
    """`about`: the guard's rule, or the view; `step` and `amount` (a share) where the kind has one."""

    kind: Kind
    about: str = ""
    step: int | None = None
    amount: float | None = None


def risks(judged: Judged) -> list[Risk]:
    """All that were found, serious ones first."""
    arm = judged.arm
    found = [*_fallen(judged), *_stopped(arm), *_standing(arm), *_foreign(arm), *_collapsed(arm)]
    return found + [*_undone(arm), *_elsewhere(arm), *_lost(arm), *_uncontrolled(judged), *_one_seed(arm)]


def serious(found: Sequence[Risk]) -> tuple[Risk, ...]:
    return tuple(risk for risk in found if risk.kind in SERIOUS)


def _fallen(judged: Judged) -> list[Risk]:
    top = judged.arm.peak
    fell = "fell from peak" in judged.verdict.remarks and top
    return [Risk("fell from peak", step=top.step, amount=top.fall.value)] if fell else []


def _stopped(arm: Arm) -> list[Risk]:
    return [Risk("stopped", step=len(run.steps)) for run in arm.runs if run.status == "stopped" and not run.kept][:1]


def _standing(arm: Arm) -> list[Risk]:
    """What the guard said of the weights that are left: before the step it went back to, or all where it did not."""
    said = [d for run in arm.runs for d in run.alarms if d.rule in GRAVE_RULES and _left(run, d.step)]
    return [
        Risk("guard", rule, min(d.step for d in said if d.rule == rule)) for rule in dict.fromkeys(d.rule for d in said)
    ]


def _left(run: Run, step: int) -> bool:
    """Whether what happened at a step is part of the weights that the run leaves behind."""
    return run.kept is None or step <= run.kept.step


def _foreign(arm: Arm) -> list[Risk]:
    shares = [s for run in arm.runs if (s := _drift(run)) is not None]
    return [Risk("foreign script", amount=max(shares))] if shares and max(shares) > FOREIGN else []


def _drift(run: Run) -> float | None:
    """Share of what was in the questions' script that is so no more; None with fewer than ten steps to compare."""
    found = [v for s in run.steps if _left(run, s["step"]) and (v := number(s.get("foreign"))) is not None]
    if len(found) < 2 * FIRST:
        return None
    before, after = fmean(found[:FIRST]), fmean(found[-FIRST:])
    return (after - before) / (1 - before) if before < 1 else 0.0


def _collapsed(arm: Arm) -> list[Risk]:
    before, after = arm.metric("entropy", 0), arm.metric("entropy", -1)
    fell = bool(arm.ends and before and after is not None and after / before < COLLAPSE)
    return [Risk("collapse", amount=after / before)] if fell else []


def _undone(arm: Arm) -> list[Risk]:
    return [Risk("undone", step=arm.undone[0], amount=arm.undone[1].value)] if arm.undone else []


def _elsewhere(arm: Arm) -> list[Risk]:
    """Views on which accuracy fell clear of 0."""
    changes = [(name, arm.view(name).change) for name in arm.view_names]
    return [Risk("elsewhere", name, amount=c.value) for name, c in changes if c and c.high is not None and c.high < 0]


def _lost(arm: Arm) -> list[Risk]:
    greedy, ece = _moved(arm, "accuracy_greedy"), _moved(arm, "ece")
    found = [Risk("greedy", amount=greedy)] if greedy is not None and greedy <= -LOST else []
    return found + ([Risk("calibration", amount=ece)] if ece is not None and ece >= LOST else [])


def _moved(arm: Arm, metric: str) -> float | None:
    before, after = arm.metric(metric, 0), arm.metric(metric, -1)
    return after - before if arm.ends and before is not None and after is not None else None


def _uncontrolled(judged: Judged) -> list[Risk]:
    """Without a random reward on the same model, drift cannot be told from a gain."""
    return [Risk("no control")] if judged.control is None and judged.arm.change else []


def _one_seed(arm: Arm) -> list[Risk]:
    return [Risk("one seed")] if len(arm.per_seed) == 1 else []
