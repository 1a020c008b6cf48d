"""The policy update: groups and advantages in, one optimizer step out.

A TokenBatch holds prompt and completion side by side, padded on the right; only completion tokens, the end token
included, are trained. No logits exist: the loss asks `linear_token_stats` for the log-probabilities of the hidden
states. Nothing reaches the weights unless what was sampled, the loss and the gradient norm are finite, and the step
itself is checked to have left them so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from vocab_kernels import linear_token_stats

from poc.config import Train
from poc.models import Policy
from poc.objective import policy_loss
from poc.records import Group, NonFinite, RunError

STATISTICS = ("logp", "entropy", "self_certainty")


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """B completions, right-padded to L. `targets[b, t]` is the token after position t, -100 where it is not trained."""

    input_ids: Tensor  # [B, L] int64
    mask: Tensor  # [B, L] 1 = real token
    targets: Tensor  # [B, L] int64
    old_logp: Tensor  # [B, L] as recorded by the sampler, 0 where not trained
    advantages: Tensor  # [B, L]


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """Loss, gradient norm before clipping, share of clipped tokens, mean k3 (nats a token)."""

    loss: float
    grad_norm: float
    clip_fraction: float
    kl: float


def batches(groups: Sequence[Group], advantages: Tensor, size: int, policy: Policy, all_rows: bool) -> list[TokenBatch]:
    """Micro-batches of at most `size` completions of like length. `advantages`: [P, G].

    A completion whose advantage is 0 has no gradient: it is left out unless `all_rows` (the KL term needs every row).
    """
    rows = [
        (group.prompt_ids, episode, float(advantage))
        for group, values in zip(groups, advantages, strict=True)
        for episode, advantage in zip(group.episodes, values, strict=True)
        if all_rows or advantage != 0
    ]
    rows.sort(key=lambda row: len(row[0]) + len(row[1]))
    return [_batch(rows[i : i + size], policy) for i in range(0, len(rows), size)]


def _batch(rows, policy: Policy) -> TokenBatch:
    shape = len(rows), max(len(prompt) + len(episode) for prompt, episode, _ in rows)
    input_ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    targets, old_logp, advantages = torch.full(shape, -100), torch.zeros(shape), torch.zeros(shape)
    for b, (prompt, episode, advantage) in enumerate(rows):
        end = len(prompt) + len(episode)
        trained = slice(len(prompt) - 1, end - 1)
        input_ids[b, :end] = torch.tensor((*prompt, *episode.token_ids))
        mask[b, :end] = 1
        targets[b, trained] = torch.tensor(episode.token_ids)
        old_logp[b, trained] = torch.tensor(episode.logp)
        advantages[b, trained] = advantage
    return TokenBatch(*(x.to(policy.device) for x in (input_ids, mask, targets, old_logp, advantages)))


def token_logp(policy: Policy, batch: TokenBatch, temperature: float) -> Tensor:
    """Log-probabilities [n] of the trained tokens, in reading order, under the policy as it is now."""
    hidden, _ = policy.body(batch.input_ids, batch.mask)
    trained = batch.targets != -100
    head = policy.head
    stats = linear_token_stats(
        hidden[trained], head.weight, batch.targets[trained],
        bias=head.bias, temperature=temperature, softcap=head.softcap, vocab_size=head.vocab_size,
    )  # fmt: skip
    return stats.logp


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
    micro_batch: int,
) -> UpdateRecord:  # fmt: skip
    """Fill the gradients of one step; none where no completion has an advantage. Raises NonFinite, leaving none.

    `micro_batch`: completions per forward and backward pass; the sum is the same for every size, up to rounding.
    """
    tokens = sum(len(episode) for group in groups for episode in group.episodes)
    data = batches(groups, advantages, micro_batch, policy, all_rows=config.kl > 0)
    optimizer.zero_grad(set_to_none=True)
    loss = clipped = kl = 0.0
    for batch in data:
        part = _loss(policy, batch, tokens, config)
        part.loss.backward()
        loss, clipped, kl = loss + part.loss.item(), clipped + part.clipped.item(), kl + part.kl.item()
    norm = torch.nn.utils.clip_grad_norm_(policy.trainable(), config.max_grad_norm).item() if data else 0.0
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


def _loss(policy: Policy, batch: TokenBatch, tokens: int, config: Train):
    """The micro-batch's share of the step's loss."""
    start_logp = None
    if config.kl:
        with torch.no_grad(), policy.adapter_off():
            start_logp = token_logp(policy, batch, config.temperature)
    trained = batch.targets != -100
    return policy_loss(
        token_logp(policy, batch, config.temperature), batch.old_logp[trained], batch.advantages[trained],
        tokens=tokens, clip=config.clip, start_logp=start_logp, kl=config.kl,
    )  # fmt: skip
