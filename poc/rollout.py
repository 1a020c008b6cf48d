"""Groups of sampled completions with their token statistics.

A prompt is computed once, its cache is expanded to the rows that continue it, and a finished row leaves the batch.
Tokens come from the untruncated tempered softmax over the real vocabulary, by inverse transform sampling: row i uses
the i-th row of one table of uniform numbers, so that what a row draws does not depend on which others are still alive.
The statistics are taken from the same logits. Not here: top-k, top-p, stop strings, beam search.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from vocab_kernels import token_stats

from poc.models import Head, Policy
from poc.records import Episode, Example, Group
from poc.scoring.pool import grade


@dataclass(slots=True)
class _Row:
    """One completion while it grows."""

    token_ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    self_certainty: list[float] = field(default_factory=list)


def sample(
    policy: Policy, prompts: Sequence[Sequence[int]], copies: int, *, max_new_tokens: int, temperature: float,
    seed: int, max_rows: int = 1024,
) -> list[list[Episode]]:  # fmt: skip
    """`copies` completions of each prompt; temperature 0 is greedy, with the statistics of temperature 1.

    Prompts are taken in chunks of at most `max_rows` completions (one prompt's copies stay together).
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(prompts) * copies, max_new_tokens, generator=generator, dtype=torch.float64)
    step = max(1, max_rows // copies)
    episodes = []
    for start in range(0, len(prompts), step):
        chunk = prompts[start : start + step]
        rows = _sample_chunk(
            policy, chunk, copies, temperature, uniform[start * copies : (start + len(chunk)) * copies]
        )
        episodes += [_episode(policy, row) for row in rows]
    return [episodes[i : i + copies] for i in range(0, len(episodes), copies)]


@torch.no_grad()
def _sample_chunk(policy: Policy, prompts, copies: int, temperature: float, uniform: Tensor) -> list[_Row]:
    input_ids, mask = left_pad(prompts, policy)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    hidden, cache = policy.body(input_ids, mask, position_ids=positions, use_cache=True)
    cache.batch_repeat_interleave(copies)
    hidden, mask = hidden[:, -1].repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)  # [R, H], [R, L]
    rows = [_Row() for _ in range(len(prompts) * copies)]
    alive = torch.arange(len(rows))
    stop = torch.tensor(sorted(policy.stop_ids), device=policy.device)
    for t in range(uniform.shape[1]):
        tokens, stats = _draw(head_logits(policy.head, hidden), temperature, uniform[alive, t])
        columns = [x.tolist() for x in (tokens, *stats)]
        for row, token, logp, entropy, certainty in zip(alive.tolist(), *columns, strict=True):
            rows[row].token_ids.append(token)
            rows[row].logp.append(logp)
            rows[row].entropy.append(entropy)
            rows[row].self_certainty.append(certainty)
        going = ~torch.isin(tokens, stop)
        if t + 1 == uniform.shape[1] or not going.any():
            break
        if not going.all():
            cache.batch_select_indices(going.nonzero().squeeze(1))
            alive, tokens, mask = alive[going.cpu()], tokens[going], mask[going]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        hidden, cache = policy.body(
            tokens[:, None], mask, position_ids=mask.sum(-1, keepdim=True) - 1, past_key_values=cache, use_cache=True
        )
        hidden = hidden[:, -1]
    return rows


def left_pad(prompts: Sequence[Sequence[int]], policy: Policy) -> tuple[Tensor, Tensor]:
    """Prompts of unlike length as (token ids [P, L], mask [P, L]), padded on the left with id 0 (masked)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids.to(policy.device), mask.to(policy.device)


def head_logits(head: Head, hidden: Tensor) -> Tensor:
    """Float32 logits [R, real vocabulary] of hidden states [R, H]."""
    bias = None if head.bias is None else head.bias[: head.vocab_size]
    logits = torch.nn.functional.linear(hidden, head.weight[: head.vocab_size], bias).float()
    return head.softcap * torch.tanh(logits / head.softcap) if head.softcap else logits


def _draw(logits: Tensor, temperature: float, uniform: Tensor):
    """One token per row of `logits` [R, V] and its (logp, entropy, self_certainty), each [R]."""
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        mass = torch.softmax(logits.double() / temperature, -1).cumsum(-1)  # float64: 262k float32 terms lose 1e-4
        point = uniform.to(logits.device)[:, None] * mass[:, -1:]
        tokens = torch.searchsorted(mass, point, right=True).squeeze(1).clamp_max(logits.shape[-1] - 1)
    return tokens, token_stats(logits, tokens, temperature=temperature or 1.0)


def _episode(policy: Policy, row: _Row) -> Episode:
    finished = row.token_ids[-1] in policy.stop_ids
    shown = row.token_ids[:-1] if finished else row.token_ids
    text = policy.tokenizer.decode(shown, skip_special_tokens=True)
    return Episode(tuple(row.token_ids), text, finished, tuple(row.logp), tuple(row.entropy), tuple(row.self_certainty))


def graded(examples: Sequence[Example], groups: Sequence[Sequence[Episode]], budget: float) -> list[list[Episode]]:
    """The episodes of each example with their answers, and their verdicts where the example has a gold answer.

    `budget`: seconds that completions which are slow to judge may take together (poc.scoring.pool). Raises as
    poc.scoring.pool.grade does.
    """
    pairs = [(example, episode) for example, group in zip(examples, groups, strict=True) for episode in group]
    grades = iter(grade([example for example, _ in pairs], [episode.text for _, episode in pairs], budget=budget))
    return [[replace(episode, **next(grades)._asdict()) for episode in group] for group in groups]


def rollout(policy: Policy, examples: Sequence[Example], prompts: Sequence[Sequence[int]], *, group_size: int,
            max_new_tokens: int, temperature: float, seed: int, max_rows: int = 1024) -> list[Group]:  # fmt: skip
    """One Group of `group_size` graded episodes per example; `prompts` are the examples' token ids.

    Grading hostile completions takes about as long as sampling them at most, so that they cannot stall a run.
    """
    started = time.perf_counter()
    drawn = sample(
        policy,
        prompts,
        group_size,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        max_rows=max_rows,
    )
    judged = graded(examples, drawn, budget=time.perf_counter() - started)
    return [
        Group(example, tuple(prompt), tuple(episodes), seed)
        for example, prompt, episodes in zip(examples, prompts, judged, strict=True)
    ]
