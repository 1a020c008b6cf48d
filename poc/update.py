"""The policy update: groups and advantages in, one optimizer step out.

Only completion tokens, the end token included, are trained (poc.packing lays them out). No logits exist: the loss asks
`linear_token_stats` for the log-probabilities of the hidden states. Nothing reaches the weights unless what was
sampled, the loss and the gradient norm are finite, and the step itself is checked to have left them so.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import bitsandbytes
import torch
from torch import Tensor
from vocab_kernels import linear_token_stats

from poc.config import Train
from poc.models import Policy
from poc.objective import Loss, policy_loss
from poc.packing import TokenBatch, batches, hidden_states
from poc.parallel import the_world
from poc.records import Group, NonFinite, RunError

STATISTICS = ("logp", "entropy", "self_certainty")


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """Loss, gradient norm before clipping, share of clipped tokens, mean k3 (nats a token)."""

    loss: float
    grad_norm: float
    clip_fraction: float
    kl: float


def new_optimizer(policy: Policy, options: Train) -> torch.optim.Optimizer:
    """AdamW on the adapter. With 8-bit moments (Dettmers et al. 2022) tensors under 4,096 numbers keep 32-bit ones."""
    kind = torch.optim.AdamW if options.optimizer == "adamw" else bitsandbytes.optim.AdamW8bit
    return kind(policy.trainable(), lr=options.learning_rate, weight_decay=options.weight_decay)


def token_logp(policy: Policy, batch: TokenBatch, temperature: float) -> Tensor:
    """Log-probabilities [n] of the trained tokens, in reading order, under the policy as it is now."""
    head = policy.head
    return linear_token_stats(
        hidden_states(policy, batch), head.weight, batch.targets,
        bias=head.bias, temperature=temperature, softcap=head.softcap, vocab_size=head.vocab_size,
    ).logp  # fmt: skip


def check_finite(groups: Sequence[Group]) -> None:
    """Raises NonFinite for a sampled token whose statistics are not numbers, naming it."""
    for group in groups:
        for row, episode in enumerate(group.episodes):
            for name in STATISTICS:
                for t, value in enumerate(getattr(episode, name)):
                    if not math.isfinite(value):
                        raise NonFinite(f"{name} {value} of token {t} of completion {row} of {group.example.id}")


def optimise(
    policy: Policy, optimizer: torch.optim.Optimizer, groups: Sequence[Group], advantages: Tensor, config: Train,
    micro_batch: int | None = None,
) -> UpdateRecord:  # fmt: skip
    """One optimizer step. Raises NonFinite before a step that would not be finite: the weights stay as they are."""
    record = gradients(policy, optimizer, groups, advantages, config, micro_batch or config.micro_batch)
    take_step(policy, optimizer)
    return record


def gradients(
    policy: Policy, optimizer: torch.optim.Optimizer, groups: Sequence[Group], advantages: Tensor, config: Train,
    micro_batch: int, loss_of: Callable | None = None,
) -> UpdateRecord:  # fmt: skip
    """Fill the gradients of one step; none where no completion has an advantage. Raises NonFinite, leaving none.

    `loss_of(policy, batch, tokens, config)`: the policy loss unless `likelihood_share` is given.

    `micro_batch`: completions per forward and backward pass; the sum is the same for every size, up to rounding, and
    for every number of processes, of which each takes its part of the groups (poc.parallel).
    """
    tokens = sum(len(episode) for group in groups for episode in group.episodes)

    def backward(part: slice) -> list[tuple[float, float, float]]:
        found = []
        for batch in batches(groups[part], advantages[part], micro_batch, policy, all_rows=config.kl > 0):
            share = (loss_of or _loss)(policy, batch, tokens, config)
            share.loss.backward()
            found.append((share.loss.item(), share.clipped.item(), share.kl.item()))
        return found

    optimizer.zero_grad(set_to_none=True)
    passes = the_world().spread("update", len(groups), backward)
    loss, clipped, kl = map(sum, zip(*passes, strict=True)) if passes else (0.0, 0.0, 0.0)
    if passes:
        the_world().add_gradients(policy.trainable())
    norm = torch.nn.utils.clip_grad_norm_(policy.trainable(), config.max_grad_norm).item() if passes else 0.0
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        raise NonFinite(f"loss {loss}, gradient norm {norm}")
    return UpdateRecord(loss, norm, clipped / tokens, kl / tokens)


def take_step(policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    """The optimizer's step, if there are gradients. Raises RunError when it ruined the weights."""
    if any(p.grad is not None for p in policy.trainable()):
        optimizer.step()
    if not all(p.isfinite().all() for p in policy.trainable()):
        raise RunError("the weights are not finite after the step: lower train.learning_rate or train.max_grad_norm")


def likelihood_share(policy: Policy, batch: TokenBatch, tokens: int, config: Train) -> Loss:
    """Of supervised fine-tuning: -sum of logp over all `tokens`; advantages, ratios and KL play no part."""
    logp = token_logp(policy, batch, config.temperature)
    return Loss(-logp.sum() / tokens, torch.zeros(()), torch.zeros(()))


def _loss(policy: Policy, batch: TokenBatch, tokens: int, config: Train) -> Loss:
    """The micro-batch's share of the step's loss."""
    start_logp = None
    if config.kl:
        with torch.no_grad(), policy.adapter_off():
            start_logp = token_logp(policy, batch, config.temperature)
    return policy_loss(
        token_logp(policy, batch, config.temperature), batch.old_logp, batch.advantages,
        tokens=tokens, clip=config.clip, start_logp=start_logp, kl=config.kl,
    )  # fmt: skip
