"""Ship, do not ship, or not enough evidence: the three stages of a pilot, decided from its judged arms. Pure.

    1  the base model, with rewards that use no label        2  the instruction-tuned model, with the same
    3  hybrids: rewards that use labels, alone or beside label-free ones, with the guard watching
    0  label-free arms of a model that is neither (one run alone, mixed starts); shown only where there are some

Controls (a coin, the bare format) are no candidates. Of a stage's m measured candidates one is named, and picking the
best of m flatters it, so all its intervals have confidence 1 - 0.05 / m (Bonferroni). Named is the arm with the best
word, and among those of one word the one with the largest gain. `word_for` holds the rules in their order.

How many questions would settle it: with s the standard deviation of the paired differences between questions,

    z s / sqrt(n) < max(gain, MIN_USEFUL - gain),

the smaller n of the two ways out, an interval clear of 0 and one that leaves out every useful gain. It takes the gain
that was seen for the true one, so it is a size for planning, no promise.
Not here: words (poc.report.cards), money (poc.report.costs), whether a useful gain is worth its price.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

from scipy import special

from poc.config import NEED_LABELS
from poc.report import risks, verdicts
from poc.report.arms import Arm, Judged, at_confidence, correct
from poc.report.risks import Risk
from poc.report.verdicts import MIN_MOVED, MIN_PROMPTS, Verdict
from poc.statistics import Interval

MIN_USEFUL = 0.02  # 2 points: below it changing a model in service (tests, people, a way back) costs more than it gives
CONTROLS = ("random", "format")

Word = Literal["ship", "do not ship", "not enough evidence", "not tried"]
Reason = Literal[
    "helps", "nothing to ship", "hurts", "serious risk", "no useful gain",
    "not measured", "few questions", "few moved", "not ended", "format only", "control", "unclear", "not tried",
]  # fmt: skip
ORDER = ("ship", "not enough evidence", "do not ship")
SETTLED_BY_QUESTIONS = ("few questions", "few moved", "unclear", "control")


@dataclass(frozen=True)
class Facts:
    """What decides about one arm. `back_at_start`: the guard went back to the untrained model in every run."""

    verdict: Verdict
    change: Interval | None
    moved: int = MIN_MOVED
    back_at_start: bool = False
    serious: bool = False
    ended: bool = True


@dataclass(frozen=True)
class Decision:
    """One stage. `named`: the arm it is about, judged at `confidence`; None where nothing was tried.

    `needed`: hold-out questions in all that would settle it; None where more questions are not what is missing.
    """

    stage: int
    word: Word
    reason: Reason
    candidates: tuple[Judged, ...] = ()
    named: Judged | None = None
    confidence: float = 0.95
    risks: tuple[Risk, ...] = ()
    needed: int | None = None


def decisions(judged: Sequence[Judged]) -> list[Decision]:
    """Stages 1 to 3, tried or not, and 0 where there are arms for it."""
    staged: dict[int, list[Judged]] = {1: [], 2: [], 3: []}
    for j in judged:
        if (number := stage(j.arm)) is not None and any(run.status != "not started" for run in j.arm.runs):
            staged.setdefault(number, []).append(j)
    return [_decide(number, candidates) for number, candidates in staged.items()]


def stage(arm: Arm) -> int | None:
    """The stage that an arm is a candidate of; None for a control, or labels without a guard."""
    config = arm.first.config
    if not arm.rewards or set(arm.rewards) <= set(CONTROLS):
        return None
    if uses_labels(arm):
        return 3 if set(arm.rewards) - set(NEED_LABELS) or _guarded(config) else None
    return {"base": 1, "instruct": 2}.get(arm.role, 0)


def uses_labels(arm: Arm) -> bool:
    """Whether a reward of this arm sees known answers; with a label fraction of 0 none does."""
    return bool(set(arm.rewards) & set(NEED_LABELS)) and arm.first.config.get("label_fraction") != 0


def word_for(facts: Facts) -> tuple[Word, Reason]:
    """The rules, first match first."""
    change, remarks = facts.change, set(facts.verdict.remarks)
    rules: list[tuple[bool, Word, Reason]] = [
        (change is None, "not enough evidence", "not measured"),
        (facts.back_at_start, "do not ship", "nothing to ship"),
        (change is not None and change.n < MIN_PROMPTS, "not enough evidence", "few questions"),
        (facts.moved < MIN_MOVED, "not enough evidence", "few moved"),
        (facts.verdict.word == "hurts", "do not ship", "hurts"),
        (facts.serious, "do not ship", "serious risk"),
        (not facts.ended, "not enough evidence", "not ended"),
        (_no_useful_gain(change), "do not ship", "no useful gain"),
        (bool(remarks & {"no more than control", "not clear of control"}), "not enough evidence", "control"),
        (facts.verdict.word != "helps", "not enough evidence", "unclear"),
        ("format only" in remarks, "not enough evidence", "format only"),
        (True, "ship", "helps"),
    ]
    return next((word, reason) for holds, word, reason in rules if holds)


def _no_useful_gain(change: Interval | None) -> bool:
    return change is not None and change.high is not None and change.high < MIN_USEFUL


def questions_needed(gain: float, deviation: float, confidence: float = 0.95) -> int:
    """The smallest number of questions whose interval settles it; see above. `gain` and `deviation` are shares."""
    room = max(gain, MIN_USEFUL - gain)
    return math.floor((special.ndtri(0.5 + confidence / 2) * deviation / room) ** 2) + 1


def _decide(number: int, candidates: Sequence[Judged]) -> Decision:
    if not candidates:
        return Decision(number, "not tried", "not tried")
    measured = sum(j.arm.change is not None for j in candidates)
    confidence = 1 - 0.05 / max(measured, 1)
    found = [_about(number, at_confidence(j.arm, j.control, confidence), confidence) for j in candidates]
    best = min(found, key=lambda d: (ORDER.index(d.word), -_gain(d.named)))
    return replace(best, candidates=tuple(candidates))


def _about(number: int, judged: Judged, confidence: float) -> Decision:
    arm, found = judged.arm, risks.risks(judged)
    moved = verdicts.moved(*arm.before_and_after(correct))
    facts = Facts(
        judged.verdict,
        judged.change,
        moved,
        back_at_start=bool(arm.measured) and all(run.kept and run.kept.step == 0 for run in arm.measured),
        serious=bool(risks.serious(found)),
        ended=all(run.status in ("done", "stopped") for run in arm.runs),
    )
    word, reason = word_for(facts)
    needed = _needed(judged, reason, moved, confidence) if reason in SETTLED_BY_QUESTIONS else None
    return Decision(number, word, reason, (), judged, confidence, tuple(found), needed)


def _needed(judged: Judged, reason: Reason, moved: int, confidence: float) -> int | None:
    """None where it asks for no more than there are: then chance, or the training, is what stands in the way."""
    found, n = _differences(judged, reason), judged.change.n
    spread = stdev(found) if len(found) > 1 else 0.0
    least = questions_needed(fmean(found), spread, confidence) if spread else MIN_PROMPTS
    if reason in ("few questions", "few moved"):
        least = max(least, MIN_PROMPTS, math.ceil(n * MIN_MOVED / moved) if moved else 0)
    return least if least > n else None


def _differences(judged: Judged, reason: Reason) -> list[float]:
    """Change per question; beside a control, this change minus the control's."""
    own = verdicts.change_per_prompt(*judged.arm.before_and_after(correct))
    if reason != "control" or judged.control is None:
        return list(own.values())
    other = verdicts.change_per_prompt(*judged.control.before_and_after(correct))
    return [own[key] - other[key] for key in own if key in other]


def _gain(judged: Judged) -> float:
    return judged.change.value if judged.change else -math.inf


def _guarded(config: dict) -> bool:
    guard = config.get("guard")
    return not isinstance(guard, dict) or guard.get("action") not in ("off", False)
