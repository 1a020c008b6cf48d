"""Rewards: plain functions of a Group, one float per episode. The name in REWARDS is the name in config and metrics."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from poc.config import RunConfig
from poc.records import Group
from poc.rewards.controls import random
from poc.rewards.internal import self_certainty, token_entropy, trajectory_entropy
from poc.rewards.knights import knights_knaves
from poc.rewards.rules import RuleReward
from poc.rewards.semantic import majority_vote, semantic_entropy
from poc.rewards.verifiable import format_reward, verifiable
from poc.sources import LABS, first_part

Reward = Callable[[Group], list[float]]

REWARDS: dict[str, Reward] = {
    "self_certainty": self_certainty,
    "token_entropy": token_entropy,
    "trajectory_entropy": trajectory_entropy,
    "semantic_entropy": semantic_entropy,
    "majority_vote": majority_vote,
    "verifiable": verifiable,
    "knights_knaves": knights_knaves("tags"),
    "format": format_reward,
    "random": random,
}


def select(config: RunConfig) -> dict[str, Reward]:
    """The reward functions that a configuration names, with its options."""
    return {name: _options(config).get(name, REWARDS[name]) for name in config.reward}


def rules_of(config: RunConfig) -> list[RuleReward]:
    """Those among them that can be written out as rules, with the values they have in the mix: weight times value."""
    return [
        replace(
            reward,
            rules=tuple(replace(rule, value=round(config.reward[name] * rule.value, 9)) for rule in reward.rules),
        )
        for name, reward in select(config).items()
        if isinstance(reward, RuleReward)
    ]


def layout(config: RunConfig) -> str:
    """How Knights and Knaves are answered: the lab models mark with #, others learn the tags of the papers."""
    return "mark" if first_part(config.model) in LABS else "tags"


def _options(config: RunConfig) -> dict[str, Reward]:
    return {
        "trajectory_entropy": partial(trajectory_entropy, length_norm=config.length_norm),
        "knights_knaves": knights_knaves(layout(config)),
    }


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
