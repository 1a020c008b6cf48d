"""Groups of sampled completions with their token statistics.

Two ways lead to the same tokens: poc.decode, which computes a prompt once and keeps the batch full, and poc.plain,
transformers' own `generate`, which every architecture can take and which the first is tested against. Both draw from
the untruncated tempered softmax with one table of uniform numbers, row i with its i-th row (poc.draw), so that what a
row draws does not depend on its company, but for rounding: it moves the borders between tokens by about 1e-7. With text
no token of our tests fell on such a border; with prompts of random tokens and 262,144 nearly as likely ones (Gemma 3)
one in thirty did, and the completion goes on from a neighbour in the vocabulary. Not here: top-k, top-p, stop strings,
beam search.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from poc.decode import decode
from poc.draw import Drawn
from poc.models import Policy
from poc.parallel import the_world
from poc.plain import generate
from poc.records import Episode, Example, Group
from poc.scoring.pool import grade

LEAST = 1.0  # seconds for grading: on a busy machine an innocent completion takes longer than a toy's sampling


def sample(
    policy: Policy, prompts: Sequence[Sequence[int]], copies: int, *, max_new_tokens: int, temperature: float,
    seed: int, max_rows: int = 1024, plain: bool = False, part: slice | None = None,
) -> list[list[Episode]]:  # fmt: skip
    """`copies` completions of each prompt; temperature 0 is greedy, with the statistics of temperature 1.

    At most `max_rows` completions are written at once (one prompt's copies start together). `plain`: with transformers'
    own `generate` and the adapter beside the weights, as every architecture can. `part`: only these of the prompts, as
    they are drawn among all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(prompts) * copies, max_new_tokens, generator=generator, dtype=torch.float64)
    if part is not None:
        prompts, uniform = prompts[part], uniform[part.start * copies : part.stop * copies]
    if plain:
        drawn = generate(policy, prompts, copies, temperature, uniform, max_rows)
    else:
        with policy.merged():
            way = decode if policy.shares_prefix else generate
            drawn = way(policy, prompts, copies, temperature, uniform, max_rows)
    episodes = [_episode(policy, one) for one in drawn]
    return [episodes[i : i + copies] for i in range(0, len(episodes), copies)]


def _episode(policy: Policy, drawn: Drawn) -> Episode:
    finished = drawn.token_ids[-1] in policy.stop_ids
    shown = drawn.token_ids[:-1] if finished else drawn.token_ids
    text = policy.tokenizer.decode(shown, skip_special_tokens=True)
    statistics = tuple(drawn.logp), tuple(drawn.entropy), tuple(drawn.self_certainty)
    return Episode(tuple(drawn.token_ids), text, finished, *statistics)


def graded(examples: Sequence[Example], groups: Sequence[Sequence[Episode]], budget: float) -> list[list[Episode]]:
    """The episodes of each example with their answers, and their verdicts where the example has a gold answer.

    `budget`: seconds that completions which are slow to judge may take together (poc.scoring.pool), LEAST at least.
    Raises as poc.scoring.pool.grade does.
    """
    pairs = [(example, episode) for example, group in zip(examples, groups, strict=True) for episode in group]
    texts = [episode.text for _, episode in pairs]
    grades = iter(grade([example for example, _ in pairs], texts, budget=max(budget, LEAST)))
    return [[replace(episode, **next(grades)._asdict()) for episode in group] for group in groups]


def rollout(policy: Policy, examples: Sequence[Example], prompts: Sequence[Sequence[int]], *, group_size: int,
            max_new_tokens: int, temperature: float, seed: int, max_rows: int = 1024) -> list[Group]:  # fmt: skip
    """One Group of `group_size` graded episodes per example; `prompts` are the examples' token ids.

    Every process of a run does its part (poc.parallel). Grading hostile completions takes about as long as sampling
    them at most, so that they cannot stall a run.
    """
    options = dict(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, max_rows=max_rows)

    def draw(part: slice) -> list[Group]:
        started = time.perf_counter()
        drawn = sample(policy, prompts, group_size, part=part, **options)
        judged = graded(examples[part], drawn, budget=time.perf_counter() - started)
        return [
            Group(example, tuple(prompt), tuple(episodes), seed)
            for example, prompt, episodes in zip(examples[part], prompts[part], judged, strict=True)
        ]

    return the_world().spread("rollout", len(prompts), draw)
