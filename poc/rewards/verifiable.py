"""Rewards of 1 or 0 read off what the task made of a completion, as rules.

verifiable: 1 for a right marked answer, else 0 (GURU, arXiv 2506.14965: binary, no format reward). It needs the gold.
format: 1 for a completion that ends with a readable marked answer, right or wrong, else 0. It needs no label.
"""

from poc.records import Episode, Group, RunError
from poc.rewards.rules import Rule, RuleReward


def check_gold(name: str, group: Group, present: bool) -> None:
    """Raises ValueError unless the gold that reward `name` needs is `present`."""
    if not present:
        raise ValueError(f"reward {name}: {group.example.id} has no gold answer to verify against")


def _verified(group: Group, episode: Episode) -> tuple[str]:
    check_gold("verifiable", group, episode.verdict is not None)
    if episode.verdict.status == "error":
        raise RunError(
            f"reward verifiable: the verifier of {group.example.domain} failed on a completion of {group.example.id}: "
            "that is its own defect, no reward of 0"
        )
    return ("right",) if episode.verdict.correct else ("not_right",)


def _formatted(group: Group, episode: Episode) -> tuple[str]:
    return ("marked",) if episode.formatted else ("not_marked",)


verifiable = RuleReward(
    "verifiable",
    (
        Rule("right", "answer", "the marked answer is right", 1.0),
        Rule("not_right", "answer", "the marked answer is wrong, missing or unreadable", 0.0),
    ),
    _verified,
)

format_reward = RuleReward(
    "format",
    (
        Rule("marked", "format", "the text ends with a readable marked answer", 1.0),
        Rule("not_marked", "format", "no answer is marked, or it is unreadable or not the end", 0.0),
    ),
    _formatted,
)
