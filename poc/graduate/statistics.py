"""Token statistics of completions that another sampler drew, by a forward pass of the policy as it is now.

The kit's own sampler records them while it draws; an engine of TRL gives tokens only. Same distribution: tempered, not
truncated, over the real vocabulary. No gradient. Two ways to the same numbers:

    the policy's body and head    no logits exist (vocab_kernels.linear_token_stats)
    `model`, the wrapped whole    for weights that an engine has spread over processes, of which body and head are parts
                                  only: logits of the completions, a few rows at a time
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from vocab_kernels import TokenStats, linear_token_stats, token_stats

from poc.models import Policy
from poc.records import RunError

LOGITS_BYTES = 2**29  # of one pass through `model`, in float32

Tokens = Sequence[int]


@torch.no_grad()
def statistics(
    policy: Policy,
    prompts: Sequence[Tokens],
    completions: Sequence[Tokens],
    *,
    temperature: float,
    rows: int,
    model=None,
) -> list[TokenStats]:
    """Of every token of each completion, lists instead of tensors. `rows`: completions at once.

    Raises RunError for a token that the kit never draws.
    """
    _check_tokens(policy, completions)
    found = []
    for start in range(0, len(prompts), rows):
        chosen = slice(start, start + rows)
        found += _pass(policy, prompts[chosen], completions[chosen], temperature, model)
    return found


def rows_of_logits(policy: Policy, longest: int, most: int) -> int:
    """Completions at once through `model`: the same number in every process, whatever its completions are."""
    return max(1, min(most, LOGITS_BYTES // (4 * policy.head.weight.shape[0] * (longest + 1))))


def _pass(policy: Policy, prompts, completions, temperature: float, model) -> Iterator[TokenStats]:
    ids, mask = _left_pad([[*a, *b] for a, b in zip(prompts, completions, strict=True)], policy.device)
    longest = max(map(len, completions))
    lengths = torch.tensor([len(drawn) for drawn in completions], device=ids.device)
    drawn = torch.arange(longest, device=ids.device) >= longest - lengths[:, None]  # [R, longest]
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
    stats = _of_model if model else _of_policy
    columns = stats(policy, model, inputs, longest, drawn, ids[:, -longest:][drawn], temperature)
    parts = [column.float().cpu().split(lengths.tolist()) for column in columns]
    return (TokenStats(*(part.tolist() for part in row)) for row in zip(*parts, strict=True))


def _left_pad(rows: Sequence[Tokens], device) -> tuple[Tensor, Tensor]:
    """Token ids and mask [R, L], so that all completions end in the last column."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, (torch.arange(width, device=device) >= width - lengths[:, None]).long()


def _of_policy(policy: Policy, _, inputs: dict, longest: int, drawn: Tensor, targets: Tensor, temperature: float):
    hidden, _ = policy.body(**inputs)
    hidden, head = hidden[:, -longest - 1 : -1][drawn], policy.head
    return linear_token_stats(
        hidden.to(head.weight.dtype), head.weight, targets,
        bias=head.bias, temperature=temperature, softcap=head.softcap, vocab_size=head.vocab_size,
    )  # fmt: skip


def _of_model(policy: Policy, model, inputs: dict, longest: int, drawn: Tensor, targets: Tensor, temperature: float):
    logits = model(**inputs, logits_to_keep=longest + 1, use_cache=False).logits  # capped already
    logits = logits[:, :-1][drawn].float()
    return token_stats(logits, targets, temperature=temperature, vocab_size=policy.head.vocab_size)


def _check_tokens(policy: Policy, completions: Sequence[Tokens]) -> None:
    size = policy.head.vocab_size
    if strange := [token for drawn in completions for token in drawn if token >= size]:
        raise RunError(f"token {strange[0]} was sampled, a padding row of the head: the vocabulary has {size} tokens")
