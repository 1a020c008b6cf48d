"""The definition, in plain torch: what every other backend is tested against.

Differentiable by autograd, any float dtype (half and bfloat16 are computed in float32), no regard for memory.

With z = cap(x) / T over the columns that are not -inf (K of them), cap(x) = c tanh(x / c) or x, and p = softmax(z):

    logp            = z_y - logsumexp(z)
    entropy         = -sum_v p_v log p_v
    self_certainty  = KL(U || p) = -mean_v log p_v - log K = logsumexp(z) - mean(z) - log K

Self-certainty: Kang et al. 2025 (arXiv 2502.18581); as a reward: Zhao et al. 2025 (Intuitor, arXiv 2505.19590).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class TokenStats(NamedTuple):
    """Per-token statistics in nats, each shaped like `targets`; float32, or float64 where the input is."""

    logp: Tensor
    entropy: Tensor
    self_certainty: Tensor


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 if any input is float64, else float32."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def tempered(x: Tensor, temperature: float | Tensor, softcap: float | None) -> Tensor:
    """z [n, V] of logits x [n, V]. Infinities pass the cap: -inf stays a masked token, +inf is not hidden."""
    if softcap is not None:
        finite = ~x.isinf()
        x = torch.where(finite, softcap * torch.tanh(x.masked_fill(~finite, 0.0) / softcap), x)
    return x / temperature


def token_stats(
    logits: Tensor, targets: Tensor, temperature: float | Tensor, softcap: float | None, entropy_grad: bool = True
) -> TokenStats:
    """logits [n, V], targets [n] in range, temperature a float or [n, 1]; the three outputs [n]."""
    z = tempered(logits.to(compute_dtype(logits)), temperature, softcap)
    live = ~z.isneginf()
    log_p = z.log_softmax(-1)
    logp = log_p.gather(-1, targets[:, None]).squeeze(-1)
    logp = torch.where(logp.isneginf(), logp.detach(), logp)  # an impossible token: the constant -inf, gradient 0
    finite = torch.where(live, log_p, 0.0)
    entropy = -(log_p.exp() * finite).sum(-1)
    count = live.sum(-1).to(z.dtype)
    certainty = -finite.sum(-1) / count - count.log()
    return TokenStats(logp, entropy if entropy_grad else entropy.detach(), certainty)


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    low: Tensor | None,
    up: Tensor | None,
    targets: Tensor,
    temperature: float | Tensor,
    softcap: float | None,
    entropy_grad: bool,
) -> TokenStats:
    """hidden [n, H], weight [V, H]; bias [V], low [n, r], up [V, r] or None: the logits are built, then `token_stats`.

    weight: a tensor, or a 4-bit one with `take`.
    """
    dtype = compute_dtype(hidden, weight, bias, low, up)
    dense = weight if isinstance(weight, Tensor) else weight.take(slice(None)).to(weight.dtype)
    logits = hidden.to(dtype) @ dense.to(dtype).T
    if bias is not None:
        logits = logits + bias.to(dtype)
    if low is not None:
        logits = logits + low.to(dtype) @ up.to(dtype).T
    return token_stats(logits, targets, temperature, softcap, entropy_grad)
