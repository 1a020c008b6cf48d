"""What one forward pass trains on: completions packed behind the prompt that they share.

    prompt | completion 1 | completion 2 | ...       one row; positions of every completion go on from the prompt's end

A token sees the prompt and its own completion, nothing else, and in a layer with a sliding window of w the last w
positions only. So the prompt is computed once for all completions of a row, and rows of one pass differ little in
length. The last prompt token predicts the first token of each completion: `source` says which hidden state predicts
which trained token. How many completions share a row is a balance: more of them compute the prompt less often, but
attention is then computed (and masked) between completions as well; with r = FLOPs of attention a token and key over
FLOPs of the layers a token, k completions of length C behind P prompt tokens cost T (1 + r T) for T = P + k C.

With one completion in a row nothing is shared and no mask of our own is needed: that is the plain path, which every
architecture can take (poc.abilities tells which take the other) and which tests hold the packed one against.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from poc.cost import best_size
from poc.models import Policy
from poc.records import Episode, Group

PADDING, PROMPT = -1, 0  # in TokenBatch.segments; from 1 on completions


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """B rows of at most L tokens, padded on the right; n trained tokens in reading order."""

    input_ids: Tensor  # [B, L] int64
    positions: Tensor  # [B, L] int64
    segments: Tensor  # [B, L] -1 padding, 0 prompt, k the row's k-th completion
    source: Tensor  # [n] b * L + t of the hidden state that predicts the token
    targets: Tensor  # [n] int64
    old_logp: Tensor  # [n] as recorded by the sampler
    advantages: Tensor  # [n]

    def to(self, device: torch.device) -> "TokenBatch":
        return TokenBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


class _Pack(NamedTuple):
    """Completions that share a row, with their advantages."""

    prompt: tuple[int, ...]
    episodes: Sequence[Episode]
    advantages: Sequence[float]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.episodes))


def batches(
    groups: Sequence[Group], advantages: Tensor, size: int, policy: Policy, all_rows: bool, packed: bool | None = None
) -> list[TokenBatch]:
    """Micro-batches of at most `size` completions. `advantages`: [P, G].

    A completion whose advantage is 0 has no gradient: it is left out unless `all_rows` (the KL term needs every row).
    `packed`: None for what the architecture can do, False for the plain path.
    """
    together = policy.packs if packed is None else packed
    packs = [
        pack
        for group, values in zip(groups, advantages.tolist(), strict=True)
        for pack in _packs(group, values, size if together else 1, policy.attention_cost, all_rows)
    ]
    packs.sort(key=lambda pack: pack.length)
    return [pack(some).to(policy.device) for some in _passes(packs, size)]


def _packs(group: Group, values: Sequence[float], most: int, cost: float, all_rows: bool) -> Iterator[_Pack]:
    rows = [(e, a) for e, a in zip(group.episodes, values, strict=True) if all_rows or a != 0]
    rows.sort(key=lambda row: len(row[0]))
    if not rows:
        return
    k = best_size(len(group.prompt_ids), [len(e) for e, _ in rows], most, cost)
    for i in range(0, len(rows), k):
        yield _Pack(tuple(group.prompt_ids), *zip(*rows[i : i + k], strict=True))


def _passes(packs: Sequence[_Pack], size: int) -> Iterator[list[_Pack]]:
    """Packs, in order, `size` completions at most in each pass."""
    some, count = [], 0
    for pack in packs:
        if some and count + len(pack.episodes) > size:
            yield some
            some, count = [], 0
        some, count = [*some, pack], count + len(pack.episodes)
    if some:
        yield some


def pack(rows: Sequence[_Pack]) -> TokenBatch:
    """One forward pass: each row a prompt, the completions behind it and their advantages."""
    packs = [_Pack(*row) for row in rows]
    shape = len(packs), max(pack.length for pack in packs)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, PADDING)
    source, targets, old_logp, advantages = [], [], [], []
    for b, pack in enumerate(packs):
        start = len(pack.prompt)
        ids[b, :start], positions[b, :start] = torch.tensor(pack.prompt), torch.arange(start)
        segments[b, :start] = PROMPT
        end = start
        for number, (episode, advantage) in enumerate(zip(pack.episodes, pack.advantages, strict=True), 1):
            here = slice(end, end := end + len(episode))
            ids[b, here] = torch.tensor(episode.token_ids)
            positions[b, here] = torch.arange(start, start + len(episode))
            segments[b, here] = number
            source += [b * shape[1] + t for t in (start - 1, *range(here.start, here.stop - 1))]
            targets += episode.token_ids
            old_logp += episode.logp
            advantages += [advantage] * len(episode)
    return TokenBatch(
        ids, positions, segments, torch.tensor(source), torch.tensor(targets), torch.tensor(old_logp),
        torch.tensor(advantages),
    )  # fmt: skip


def hidden_states(policy: Policy, batch: TokenBatch) -> Tensor:
    """The hidden state [n, H] that predicts each trained token."""
    if batch.segments.max() <= 1:  # one completion a row: what every causal model can do
        hidden, _ = policy.body(batch.input_ids, (batch.segments != PADDING).long())
    else:
        hidden, _ = policy.body(batch.input_ids, masks(policy, batch), position_ids=batch.positions)
    return hidden.flatten(0, 1)[batch.source]


def masks(policy: Policy, batch: TokenBatch) -> Tensor | dict[str, Tensor]:
    """The additive mask [B, 1, L, L], or one for each kind of layer where the architecture has several."""
    dtype = policy.model.get_input_embeddings().weight.dtype  # torch 2.13 misreads float32 masks of float64 queries
    made = {kind: _mask(batch, window, dtype) for kind, window in policy.windows.items()}
    return made if len(made) > 1 else next(iter(made.values()))


def _mask(batch: TokenBatch, window: int | None, dtype: torch.dtype) -> Tensor:
    """0 where query q may see key k, the lowest number elsewhere. Padding sees itself: no row is empty, nothing NaN."""
    segments, positions = batch.segments, batch.positions
    query, key = segments[:, :, None], segments[:, None, :]
    index = torch.arange(segments.shape[1], device=segments.device)
    seen = (index[:, None] >= index) & ((key == query) | ((key == PROMPT) & (query != PADDING)))
    if window is not None:
        seen &= positions[:, :, None] - positions[:, None, :] < window
    seen |= index[:, None] == index
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
