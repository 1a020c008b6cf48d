"""The verifiable reward: 1 for a right marked answer, else 0 (GURU, arXiv 2506.14965: binary, no format reward)."""

from poc.records import Group


def verifiable(group: Group) -> list[float]:
    """1.0 where the verdict is correct, else 0.0. Raises ValueError for a prompt without a gold answer."""
    if any(episode.verdict is None for episode in group.episodes):
        raise ValueError(f"reward verifiable: {group.example.id} has no gold answer to verify against")
    return [float(episode.verdict.correct) for episode in group.episodes]
