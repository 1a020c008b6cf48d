"""Where the reward rose while accuracy fell: the signature of a reward that is earned by something else. Pure.

The reward rose: its mean over the last 5 steps is above that of the first 5 (what the run optimised, as logged).
Accuracy fell: the paired change up to the last evaluated step lies clear below 0, also where the guard has undone it.
"""

from statistics import fmean
from typing import NamedTuple

from poc.report import verdicts
from poc.report.arms import Arm, correct
from poc.statistics import Interval

FIRST = 5  # steps that are averaged at either end, as the guard does


class Divergence(NamedTuple):
    """Mean reward at either end of the run, and the change of accuracy up to its last evaluated step."""

    arm: Arm
    reward: tuple[float, float]
    change: Interval
    undone: bool


def divergence(arm: Arm) -> Divergence | None:
    """None where the reward did not rise, accuracy did not fall clear of 0, or one of them is not known."""
    rewards = [value for _, value in arm.step_curve("reward")]
    if len(rewards) < 2 * FIRST:
        return None
    ends = fmean(rewards[:FIRST]), fmean(rewards[-FIRST:])
    change = _to_the_last_step(arm)
    fell = change is not None and change.high is not None and change.high < 0
    return Divergence(arm, ends, change, arm.undone is not None) if fell and ends[1] > ends[0] else None


def _to_the_last_step(arm: Arm) -> Interval | None:
    """Change of accuracy as if nobody had gone back."""
    ways = [[run.evaluations[i].per_prompt(correct) for run in arm.measured] for i in (-1, 0)]
    return verdicts.change(*ways)
