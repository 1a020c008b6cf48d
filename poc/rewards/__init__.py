"""Rewards: plain functions of a Group, one float per episode. The name in REWARDS is the name in config and metrics."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real

import numpy as np
from torch import Tensor

from poc.config import RunConfig
from poc.records import Group, NonFinite, RunError
from poc.rewards.controls import random
from poc.rewards.internal import self_certainty, token_entropy, trajectory_entropy
from poc.rewards.knights import knights_knaves
from poc.rewards.rules import RuleReward
from poc.rewards.semantic import majority_vote, semantic_entropy
from poc.rewards.verifiable import format_reward, verifiable
from poc.sources import LABS, first_part
from poc.text import visible

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
    """The rewards of one group, checked. Raises RunError naming reward, prompt and row: an exception in a reward, a
    wrong count or a value that is no number is never a reward of 0; NonFinite for NaN and infinity."""
    where = f"reward {name} of {group.example.id}"
    try:
        values = reward(group)
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{where}: {_raised(reward, group)} raises {visible(repr(error))}"[:500]) from error
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray | Tensor):
        raise RunError(f"{where}: {values!r}, a {type(values).__name__}, is no list of numbers"[:500])
    values = list(values) if isinstance(values, Sequence) else values.tolist()
    if len(values) != len(group.episodes):
        raise RunError(f"{where}: {len(values)} values for {len(group.episodes)} completions")
    for row, value in enumerate(values):
        if not isinstance(value, Real):
            raise RunError(f"{where}: {value!r} for completion {row} is a {type(value).__name__}, not a number"[:500])
        if not math.isfinite(value):
            raise NonFinite(f"{where}: {value!r} for completion {row}")
    return [float(value) for value in values]


def _raised(reward: Reward, group: Group) -> str:
    """Which completion a reward stumbles over: the first that it refuses alone."""
    for row, episode in enumerate(group.episodes):
        try:
            reward(replace(group, episodes=(episode,), meanings=group.meanings[row : row + 1]))
        except Exception:
            return f"completion {row}"
    return "the group as a whole"
