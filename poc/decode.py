"""Sampling at speed: a prompt is computed once, its cache is expanded to the rows that continue it, finished rows
leave, and waiting prompts take the place of those that left.

    waiting prompts -> prefill -> rows -> draw -> rows that go on -> next token -> draw -> ...

To leave copies what stays, so rows leave together: when a share 1 - KEEP of them has finished, when others join, or
when a finished one would grow beyond the longest completion. Until then it is computed along and nobody looks at it.

Rows are padded on the left, so that all of them end in the same column of the cache: a new token is one more column for
everybody, and prompts that join are padded to the same width. Columns that are padding in every row are cut off when
rows leave or join. A row's numbers do not depend on its company but for rounding. It works on caches of full and
sliding-window attention (poc.abilities finds out); others sample as poc.plain does. Not here: what is drawn, and from
what (poc.draw), static shapes and CUDA graphs.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from poc.cost import KEEP, PREFILL, ROOM
from poc.draw import Drawn, draw, head_logits, left_pad
from poc.models import Policy


class Rows:
    """The completions that are being written. `index`: which of all completions each of the R rows is; `ages`: how many
    tokens were drawn for it, those after its end included."""

    def __init__(self, index: list[int], mask: Tensor, hidden: Tensor, cache: DynamicCache) -> None:
        self.index, self.mask, self.hidden, self.cache = index, mask, hidden, cache  # mask [R, W], hidden [R, H]
        self.ages = [0] * len(index)

    def keep(self, going: Tensor) -> None:
        """Only the rows where `going` [R] is true."""
        if going.all():
            return
        where = going.nonzero().squeeze(1)
        self.index, self.ages = ([of[i] for i in where.tolist()] for of in (self.index, self.ages))
        self.mask, self.hidden = self.mask[where], self.hidden[where]
        self.cache.batch_select_indices(where)
        self._cut(int(self.mask.sum(-1).max()))

    def join(self, other: "Rows") -> None:
        """The rows of both, those of `other` last."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        for ours, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            columns = max(ours.keys.shape[-2], theirs.keys.shape[-2])
            ours.keys = torch.cat([_padded(x.keys, columns) for x in (ours, theirs)])
            ours.values = torch.cat([_padded(x.values, columns) for x in (ours, theirs)])
            _forget_room(ours, width)
        self.mask = torch.cat([torch.nn.functional.pad(x.mask, (width - x.mask.shape[1], 0)) for x in (self, other)])
        self.index, self.ages = self.index + other.index, self.ages + other.ages
        self.hidden = torch.cat([self.hidden, other.hidden])
        self._cut(int(self.mask.sum(-1).max()))

    def go_on(self, policy: Policy, tokens: Tensor) -> None:
        """Compute the next hidden states from the rows' last tokens [R]."""
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self.ages = [age + 1 for age in self.ages]
        positions = self.mask.sum(-1, keepdim=True) - 1
        hidden, self.cache = policy.body(
            tokens[:, None], self.mask, position_ids=positions, past_key_values=self.cache, use_cache=True
        )
        self.hidden = hidden[:, -1]

    def _cut(self, width: int) -> None:
        """Leave the last `width` columns."""
        if width == self.mask.shape[1]:
            return
        self.mask = self.mask[:, -width:]
        for layer in self.cache.layers:
            columns = min(width, layer.keys.shape[-2])
            layer.keys, layer.values = layer.keys[:, :, -columns:], layer.values[:, :, -columns:]
            _forget_room(layer, width)


class Roomy(DynamicLayer):
    """A full layer whose tensors have room for columns to come, so that a token does not copy all before it."""

    store: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        length, new = self.keys.shape[-2], key_states.shape[-2]
        if self.store is None or length + new > self.store[0].shape[-2]:
            self.store = tuple(torch.nn.functional.pad(x, (0, 0, 0, new + ROOM)) for x in (self.keys, self.values))
        for store, states in zip(self.store, (key_states, value_states), strict=True):
            store[:, :, length : length + new] = states
        self.keys, self.values = (store[:, :, : length + new] for store in self.store)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.store = None

    @classmethod
    def of(cls, layer: DynamicLayer) -> "Roomy":
        roomy = cls()
        roomy.lazy_initialization(layer.keys, layer.values)
        roomy.keys, roomy.values = layer.keys, layer.values
        return roomy


def _forget_room(layer: DynamicLayer, width: int) -> None:
    """After its keys and values were replaced by hand: `width` columns it has seen."""
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length = width
    else:
        layer.store = None


def _padded(x: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, 0, columns - x.shape[-2], 0))


def can_share(cache: object) -> bool:
    """Whether the cache of `prefilled` is made of layers that `Rows` can select and join."""
    layers = getattr(cache, "layers", None)
    return bool(layers) and all(type(layer) in (Roomy, DynamicSlidingWindowLayer) for layer in layers)


@torch.no_grad()
def decode(
    policy: Policy, prompts: Sequence[Sequence[int]], copies: int, temperature: float, uniform: Tensor, max_rows: int
) -> list[Drawn]:
    """`copies` completions of each prompt, one Drawn each in order; `uniform` [prompts * copies, tokens at most].

    At most `max_rows` completions are written at once, but a prompt's copies always start together.
    """
    drawn = [Drawn() for _ in range(len(uniform))]
    waiting = deque(enumerate(prompts))
    most = uniform.shape[1]
    rows, going = None, []  # of each row: whether its completion goes on
    while waiting or rows is not None:
        for joined in _admitted(policy, waiting, copies, max_rows, sum(going)):
            rows, going = _joined(rows, going, joined)
        tokens = _draw_next(policy, rows, going, drawn, temperature, uniform)
        ended = [token in policy.stop_ids for token in tokens.tolist()]
        going = [
            on and not end and len(drawn[i].token_ids) < most
            for on, end, i in zip(going, ended, rows.index, strict=True)
        ]
        if not any(going):
            rows, going = None, []
            continue
        if leaves(going, rows.ages, most):
            kept = torch.tensor(going, device=policy.device)
            rows.keep(kept)
            tokens, going = tokens[kept], [True] * sum(going)
        rows.go_on(policy, tokens)
    return drawn


def leaves(going: Sequence[bool], ages: Sequence[int], most: int) -> bool:
    """Whether the finished rows leave now. `ages`: before the token that was just drawn."""
    outgrown = any(not on and age + 1 >= most for on, age in zip(going, ages, strict=True))
    return outgrown or sum(going) <= KEEP * len(going)


def _joined(rows: Rows | None, going: list[bool], new: Rows) -> tuple[Rows, list[bool]]:
    """The rows that go on and the new ones."""
    if rows is None:
        return new, [True] * len(new.index)
    rows.keep(torch.tensor(going, device=rows.mask.device))
    rows.join(new)
    return rows, [True] * len(rows.index)


def _admitted(policy: Policy, waiting: deque, copies: int, max_rows: int, taken: int) -> Iterator[Rows]:
    """Rows for as many waiting prompts as there is room for; a little room is left until it is worth a prefill."""
    room = (max_rows - taken) // copies
    if taken and (room == 0 or 4 * room * copies < max_rows):
        return
    chosen = [waiting.popleft() for _ in range(min(len(waiting), max(room, 1)))]
    while chosen:
        width = max(len(prompt) for _, prompt in chosen)
        count = max(1, PREFILL // width)
        numbers, prompts = zip(*chosen[:count], strict=True)
        chosen = chosen[count:]
        yield prefilled(policy, numbers, prompts, copies)


def prefilled(policy: Policy, numbers: Sequence[int], prompts: Sequence[Sequence[int]], copies: int) -> Rows:
    """Rows of `copies` completions for each prompt, before their first token. `numbers`: which prompts these are."""
    input_ids, mask = left_pad(prompts, policy)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    hidden, cache = policy.body(input_ids, mask, position_ids=positions, use_cache=True)
    cache.batch_repeat_interleave(copies)
    cache.layers = [Roomy.of(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    index = [number * copies + i for number in numbers for i in range(copies)]
    return Rows(index, mask.repeat_interleave(copies, 0), hidden[:, -1].repeat_interleave(copies, 0), cache)


def _draw_next(
    policy: Policy, rows: Rows, going: list[bool], drawn: list[Drawn], temperature: float, uniform: Tensor
) -> Tensor:  # fmt: skip
    """Draw one token for each row, and note it with its statistics where the completion goes on."""
    at = [min(len(drawn[i].token_ids), uniform.shape[1] - 1) for i in rows.index]
    tokens, stats = draw(head_logits(policy.head, rows.hidden), temperature, uniform[rows.index, at])
    for on, i, *found in zip(going, rows.index, tokens.tolist(), *(x.tolist() for x in stats), strict=True):
        if on:
            drawn[i].add(*found)
    return tokens
