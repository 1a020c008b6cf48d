"""What the number of a step decides, and nothing else does: its prompts, its place in a rollout, every seed.

A rollout serves rollout_reuse * inner_epochs steps: `inner_epochs` passes, in which each step takes its share of the
prompts. So nothing has to be remembered to go on after any step but the rollout itself.
"""

import hashlib
from collections.abc import Sequence
from random import Random

from poc.config import RunConfig
from poc.records import Example, Group


def derived_seed(seed: int, purpose: str, step: int) -> int:
    """A 62-bit seed for one purpose at one step: streams never overlap and depend on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{step}".encode()).digest()[:8], "big") >> 2


def prompts_of_step(examples: Sequence[Example], count: int, seed: int, step: int) -> list[Example]:
    """The prompts of rollout number `step`: epoch after epoch in a new order, every example once an epoch."""
    first = (step - 1) * count
    return [_shuffled(examples, seed, i // len(examples))[i % len(examples)] for i in range(first, first + count)]


def _shuffled(examples: Sequence[Example], seed: int, epoch: int) -> Sequence[Example]:
    return Random(f"order/{seed}/{epoch}").sample(examples, len(examples))


def cycle_length(config: RunConfig) -> int:
    """Steps that one rollout serves."""
    return config.train.rollout_reuse * config.train.inner_epochs


def cycle_of(step: int, config: RunConfig) -> int:
    """Which rollout a step trains on, from 1."""
    return (step - 1) // cycle_length(config) + 1


def place_of(step: int, config: RunConfig) -> int:
    """Which of the steps that its rollout serves a step is, from 0."""
    return (step - 1) % cycle_length(config)


def share_of(drawn: Sequence[Group], place: int, config: RunConfig) -> Sequence[Group]:
    """The groups of one step: passes over the rollout, each share once a pass."""
    count = config.train.prompts_per_step
    first = place % config.train.rollout_reuse * count
    return drawn[first : first + count]
