"""Which parts of a reward mix speak, for which prompts, and how loud: schedules, a switch, partial labels.

    schedule         w(s) = w_0 + (w_1 - w_0) f(min(1, (s - 1) / (n - 1))),  f(x) = 0, x or (1 - cos(pi x)) / 2
    partial labels   prompts with a label get the parts that need one, the others get the rest (before a switch, all do)
    switch           parts without labels until the policy is sure of itself or a step is reached; from then on only the
                     parts that need labels ("verifiable"), or nothing ("stop")

Pure: the switch is a function of the entropies of the steps so far, so that a resumed run decides alike. The parts are
normalised per group before they are mixed (poc.objective).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean

from poc.config import NEED_LABELS, Schedule, Switch
from poc.records import Example, Group
from poc.rewards.semantic import Limits, kept

SMOOTHED = 3  # steps whose mean entropy the switch looks at: one step's rollouts are a noisy measurement
SHAPES = {
    "constant": lambda x: 0.0,
    "linear": lambda x: x,
    "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2,
}


def weights_at(
    step: int, steps: int, reward: dict[str, float], schedule: dict[str, Schedule], switched: bool | None
) -> dict[str, float]:
    """Weight of each part at `step` (from 1) of `steps`; `switched`: None without a switch, else if it has happened."""
    weights = {name: _scheduled(step, steps, weight, schedule.get(name)) for name, weight in reward.items()}
    if switched is None:
        return weights
    return {name: weight if (name in NEED_LABELS) == switched else 0.0 for name, weight in weights.items()}


def _scheduled(step: int, steps: int, weight: float, plan: Schedule | None) -> float:
    if plan is None:
        return weight
    over = plan.over or steps
    done = 1.0 if over == 1 else min(1.0, (step - 1) / (over - 1))
    return weight + (plan.to - weight) * SHAPES[plan.shape](done)


def has_switched(switch: Switch | None, entropies: Sequence[float | None]) -> bool:
    """Whether the switch has happened, given the policy entropy (nats per token) of every step so far.

    It happens once, when the mean entropy of the last three steps is at most `switch.entropy`, or after `switch.step`
    steps; it is never taken back. None: a step without a finite entropy, which no mean is taken over.
    """
    if switch is None:
        return False
    if switch.step is not None and len(entropies) >= switch.step:
        return True
    windows = [entropies[i - SMOOTHED : i] for i in range(SMOOTHED, len(entropies) + 1)]
    return switch.entropy is not None and any(None not in w and fmean(w) <= switch.entropy for w in windows)


def asked(name: str, group: Group, routed: bool) -> bool:
    """Whether the part `name` is asked about this group.

    A part that needs a label is not without one; if `routed` (partial labels, and no switch still to come), a part that
    needs none leaves the labelled prompts to those that do.
    """
    labelled = group.example.answer is not None
    return labelled if name in NEED_LABELS else not (routed and labelled)


def speaks(name: str, group: Group, limits: Limits, routed: bool) -> bool:
    """Whether it has a say as well: semantic_entropy leaves out what its limits drop."""
    return asked(name, group, routed) and (name != "semantic_entropy" or kept(group, limits))


def hide_labels(examples: Sequence[Example], fraction: float, seed: int) -> list[Example]:
    """The examples, the gold answers of all but `fraction` of the labelled ones gone (rounded to whole labels).

    Which keep theirs is drawn by `seed`; those of a smaller fraction are among those of a larger one.
    """
    labelled = [e.id for e in examples if e.answer is not None]
    keep = set(Random(f"labels/{seed}").sample(labelled, len(labelled))[: round(fraction * len(labelled))])
    return [e if e.id in keep else replace(e, answer=None) for e in examples]
