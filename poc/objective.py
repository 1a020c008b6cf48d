"""Advantages and the clipped policy loss: pure functions of tensors.

    A_i = sum_parts w_part (r_i - mean(r)) / (std(r) + 1e-4)    over the G completions of one prompt, part by part
    L   = -(1/N) sum_tokens min(rho A, clip(rho, 1-c, 1+c) A) + beta * k3,       rho = exp(logp - logp_old)
    k3  = exp(d) - d - 1,  d = logp_start - logp                    (unbiased, never negative: Schulman's k3)

N counts all completion tokens of the step, so that micro-batches add up to the same loss. logp_old is what the sampler
recorded for the token it drew. std has ddof 1, as in the GRPO codes. Normalising the parts separately before mixing is
what Intuitor's hybrid does: no part drowns the other by its scale. Not here: value functions, entropy bonuses, length
penalties.
"""

from typing import NamedTuple

import torch
from torch import Tensor

STD_EPSILON = 1e-4


class Loss(NamedTuple):
    """`loss` is the micro-batch's share of the step's loss; the others are sums over its tokens."""

    loss: Tensor
    clipped: Tensor
    kl: Tensor


def normalise(rewards: Tensor) -> Tensor:
    """Group-normalised rewards [P, G]; an all-equal group gives exact zeros."""
    centred = rewards - rewards.mean(-1, keepdim=True)
    equal = (rewards == rewards[:, :1]).all(-1, keepdim=True)  # the rounded mean of equal numbers may differ from them
    return torch.where(equal, 0.0, centred / (rewards.std(-1, keepdim=True) + STD_EPSILON))


def advantages(parts: dict[str, Tensor], weights: dict[str, float | Tensor]) -> Tensor:
    """Weighted sum of the separately normalised parts, [P, G] float64 each -> [P, G]; weights: numbers or [P, 1]."""
    return sum(weights[name] * normalise(part) for name, part in parts.items())


def policy_loss(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, *, tokens: int, clip: float,
    start_logp: Tensor | None = None, kl: float = 0.0,
) -> Loss:  # fmt: skip
    """Clipped policy loss (PPO, arXiv 1707.06347, eq. 7) of n tokens, divided by the step's `tokens`.

    logp, old_logp, advantage, start_logp: [n], nats; the gradient flows through `logp` alone.
    """
    ratio = (logp - old_logp).exp()
    clipped_ratio = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(ratio * advantage, clipped_ratio * advantage)
    clipped = (surrogate != ratio * advantage).sum()
    difference = torch.zeros_like(logp) if start_logp is None else start_logp - logp
    k3 = difference.exp() - difference - 1
    return Loss((kl * k3 - surrogate).sum() / tokens, clipped, k3.detach().sum())
