"""Rewards without information, to measure what the training procedure alone does."""

from random import Random

from poc.records import Group


def random(group: Group) -> list[float]:
    """0 or 1 by a fair coin per completion, blind to it; reproducible through the group's seed."""
    coin = Random(f"random-reward/{group.seed}/{group.example.id}")
    return [float(coin.random() < 0.5) for _ in group.episodes]
