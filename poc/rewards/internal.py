"""Internal feedback: what the policy thinks of its own sample. No label, no second model, no gradient through it.

With n tokens o_1..o_n of one completion and p_t the tempered next-token distribution that drew o_t:

    self_certainty      =  (1/n) sum_t KL(U || p_t)       Intuitor (arXiv 2505.19590), RLIF (arXiv 2506.17219)
    token_entropy       = -(1/n) sum_t H(p_t)             RLIF; EM-RL-token (arXiv 2505.15134) up to the 1/n
    trajectory_entropy  =  (1/n) sum_t log p_t(o_t)       RLIF; EM-RL-sequence up to the 1/n

The last two have the same expectation before the 1/n (chain rule of entropy). Self-certainty weights the tail of the
distribution and can rise while the entropy rises. All are to be maximised.
"""

from statistics import fmean
from typing import Literal

from poc.records import Group


def self_certainty(group: Group) -> list[float]:
    """Mean KL(U || p_t) per token, in nats; 0 for a uniform policy, unbounded above."""
    return [fmean(episode.self_certainty) for episode in group.episodes]


def token_entropy(group: Group) -> list[float]:
    """Minus the mean entropy per token, in nats; at most 0."""
    return [-fmean(episode.entropy) for episode in group.episodes]


def trajectory_entropy(group: Group, length_norm: Literal["mean", "sum"] = "mean") -> list[float]:
    """Log-probability of the completion, in nats: per token ("mean") or whole ("sum", which pays for short answers)."""
    pool = {"mean": fmean, "sum": sum}[length_norm]
    return [pool(episode.logp) for episode in group.episodes]
