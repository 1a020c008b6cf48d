"""One token for every row, drawn from the untruncated tempered softmax over the real vocabulary, and its statistics.

Inverse transform sampling: the token is the first whose cumulated probability exceeds the row's uniform number. First
the block of BLOCK tokens is found and then the token in it, so that only the blocks' sums and one block a row are
cumulated, in float64: 262,144 float32 terms would lose 1e-4. The statistics come from the same logits. Not here: where
the logits come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from vocab_kernels import TokenStats, token_stats

from poc.models import Head, Policy

BLOCK = 256


@dataclass(slots=True)
class Drawn:
    """One completion while it grows."""

    token_ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    self_certainty: list[float] = field(default_factory=list)

    def add(self, token: int, logp: float, entropy: float, self_certainty: float) -> None:
        self.token_ids.append(token)
        self.logp.append(logp)
        self.entropy.append(entropy)
        self.self_certainty.append(self_certainty)


def left_pad(prompts: Sequence[Sequence[int]], policy: Policy) -> tuple[Tensor, Tensor]:
    """Prompts of unlike length as (token ids [P, L], mask [P, L]), padded on the left with id 0 (masked)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids.to(policy.device), mask.to(policy.device)


def head_logits(head: Head, hidden: Tensor) -> Tensor:
    """Float32 logits [R, real vocabulary] of hidden states [R, H]."""
    logits = head.logits(hidden).float()
    return head.softcap * torch.tanh(logits / head.softcap) if head.softcap else logits


def draw(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, TokenStats]:
    """One token per row of `logits` [R, V] and its statistics, each [R]; temperature 0 takes the largest logit.

    `uniform` [R]: float64 in [0, 1).
    """
    tokens = logits.argmax(-1) if temperature == 0 else _inverse(logits, temperature, uniform.to(logits.device))
    return tokens, token_stats(logits, tokens, temperature=temperature or 1.0)


def _inverse(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """The token of each row [R] at which the cumulated probability passes `uniform` [R]."""
    size = logits.shape[-1]
    mass = logits - logits.amax(-1, keepdim=True)
    mass = torch.nn.functional.pad(mass.div_(temperature).exp_(), (0, -size % BLOCK)).view(len(logits), -1, BLOCK)
    sums = mass.sum(-1, dtype=torch.float64).cumsum(-1)  # [R, V / BLOCK]
    point = uniform[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, point, right=True).clamp_max(sums.shape[-1] - 1)
    before = sums.gather(1, (block - 1).clamp_min(0)).masked_fill(block == 0, 0.0)
    inside = mass.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1).double().cumsum(-1)  # [R, BLOCK]
    token = torch.searchsorted(inside, point - before, right=True).clamp_max(BLOCK - 1)
    return (block * BLOCK + token).squeeze(1).clamp_max(size - 1)
