"""Agreement: what the group as a whole says is taken for right. No label.

With clusters c_1..c_k of the G completions by meaning (poc.rewards.meanings) and p(c) = |c| / G:

    semantic_entropy   r_i = p(c(i))                 EMPO (arXiv 2504.05812, eq. 6): its cluster's share, not -H
    majority_vote      r_i = 1 if c(i) is largest    TTRL (arXiv 2504.16084); tied clusters are largest together, and a
                                                     vote of one is none
    H = -sum_c p(c) log p(c)                         eq. 4; each completion without an answer is a cluster of its own

A completion without an answer gets 0, less than any answer. Prompts are kept where low < H < high (eq. 7): where all
agree there is nothing to learn, where hardly two agree the largest cluster is an accident. EMPO gives no values; its
code drops only groups whose answers all differ, which is the default here.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from poc.records import Group

ROUNDING = 1e-9  # ln G as a sum of G terms and as a logarithm differ by this much


class Limits(NamedTuple):
    """Thresholds for H; None: no limit. `unit`: "nats", or "share" of ln G, so that they mean the same for every G."""

    low: float | None = 0.0
    high: float | None = 1.0
    unit: Literal["nats", "share"] = "share"


def semantic_entropy(group: Group) -> list[float]:
    """Share of the group that gives the same answer, 0 to 1; 0 without an answer."""
    sizes = Counter(group.meanings)
    return [0.0 if label is None else sizes[label] / len(group.meanings) for label in group.meanings]


def majority_vote(group: Group) -> list[float]:
    """1 for the most frequent answer or answers, else 0; all 0 where no two agree."""
    shares = semantic_entropy(group)
    elected = max(shares) if max(shares) * len(shares) > 1.5 else math.inf
    return [float(share == elected) for share in shares]


def agreement(group: Group) -> float:
    """Share of the most frequent answer, 0 to 1."""
    return max(semantic_entropy(group))


def entropy(labels: Sequence[int | None]) -> float:
    """Semantic entropy H in nats, 0 to ln G."""
    sizes = [*Counter(label for label in labels if label is not None).values(), *[1] * labels.count(None)]
    return sum(size / len(labels) * math.log(len(labels) / size) for size in sizes)


def kept(group: Group, limits: Limits) -> bool:
    """Whether the semantic entropy of the group lies strictly between the limits."""
    h, most = entropy(group.meanings), math.log(len(group.meanings))
    unit = most if limits.unit == "share" else 1.0
    low = -math.inf if limits.low is None else limits.low * unit
    high = math.inf if limits.high is None else limits.high * unit
    return low + ROUNDING < h < high - ROUNDING
