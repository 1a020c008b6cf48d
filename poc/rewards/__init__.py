"""Rewards: plain functions of a Group, one float per episode. The name in REWARDS is the name in config and metrics."""

import math
from collections.abc import Callable
from functools import partial

from poc.records import Group
from poc.rewards.controls import random
from poc.rewards.internal import self_certainty, token_entropy, trajectory_entropy
from poc.rewards.verifiable import verifiable

Reward = Callable[[Group], list[float]]

REWARDS: dict[str, Reward] = {
    "self_certainty": self_certainty,
    "token_entropy": token_entropy,
    "trajectory_entropy": trajectory_entropy,
    "verifiable": verifiable,
    "random": random,
}


def select(names, length_norm: str = "mean") -> dict[str, Reward]:
    """The reward functions called `names`; `length_norm` ("mean" or "sum") is for trajectory_entropy."""
    options = {"trajectory_entropy": partial(trajectory_entropy, length_norm=length_norm)}
    return {name: options.get(name, REWARDS[name]) for name in names}


def apply(name: str, reward: Reward, group: Group) -> list[float]:
    """The rewards of one group, checked: a wrong count or a value that is no finite number is a ValueError."""
    values = reward(group)
    if len(values) != len(group.episodes):
        raise ValueError(
            f"reward {name}: {len(values)} values for {len(group.episodes)} completions of {group.example.id}"
        )
    for row, value in enumerate(values):
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(
                f"reward {name}: {value!r} for completion {row} of {group.example.id} is not a finite number"
            )
    return [float(value) for value in values]
