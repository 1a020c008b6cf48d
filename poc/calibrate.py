"""How fast this machine is with a loaded policy (poc.cost.Speed), found out in about a second.

Timed are the real functions on made-up tokens: a decode step at two numbers of rows and two widths of the cache, one
after a row has left, a prompt, and two update passes, one small, one as large as the run's. From them follow

    step + n row + n w column       three decode steps: many rows, few rows, few rows behind a longer prompt
    part + u token                  two passes of u units; a unit is a token's way through the layers, attention to one
                                    more token is r of it (poc.packing), the head of a trained token V H / weights

Every call is made once before it is timed, and again while that takes little; the fastest counts. Weights, gradients,
optimizer and random states are left as they are: gradients are asked for, not accumulated, and nothing is drawn at
random. Not here: what evaluation and the disk take; that shows when a run does them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from poc.cost import Speed
from poc.decode import ROOM, Rows, prefilled
from poc.draw import Drawn, draw, head_logits
from poc.evaluate import summarise
from poc.models import Policy
from poc.packing import TokenBatch, pack
from poc.plain import generate
from poc.records import Episode, Example
from poc.scoring.pool import grade
from poc.update import token_logp

LEAST, REPEATS = 2, 6  # timed calls after the first one: at least, unless they are LONG, and at most
ENOUGH, LONG = 0.06, 0.3  # seconds of all calls: after these no more than LEAST; none more
MOST = 5e9  # FLOPs of a decode step on a CPU: more rows than that are not tried
FEW = 8  # times fewer rows
FURTHER = 64  # tokens of prompt
ASKED = 32  # tokens of the prompt that is timed, at least
GRADED = 16  # completions whose grading is timed
TOKEN = 3  # a token's number: every vocabulary has it
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """As in the run: rows at once, tokens of a prompt and of a completion, completions of an update pass, a group."""

    rows: int
    prompt: int
    answer: int
    micro_batch: int
    together: int  # completions behind one prompt
    recompute: bool = False


def measure(policy: Policy, sizes: Sizes, clock: Clock = time.perf_counter) -> Speed:
    """Raises what torch raises when memory runs out."""
    clock = _after_all(policy.device, clock)
    merge = _seconds(lambda: _enter(policy), clock)
    with policy.merged(), torch.no_grad():
        decoding = _decoding(policy, sizes, clock)
    with policy.recomputing(sizes.recompute):
        part, token = _updating(policy, sizes, clock)
    pair, trained = token * policy.attention_cost, token * _head_cost(policy)
    return Speed(merge, *decoding, part, token, pair, trained)


def _after_all(device: torch.device, clock: Clock) -> Clock:
    """The clock; on a card it waits for what was begun there."""
    return clock if device.type != "cuda" else lambda: (torch.cuda.synchronize(device), clock())[1]


def _enter(policy: Policy) -> None:
    with policy.merged():
        pass


def grading(completions: Sequence[tuple[Example, str]], clock: Clock = time.perf_counter) -> float:
    """Seconds a completion, where the graders run already."""
    began = clock()
    grade(*zip(*completions, strict=True))
    return (clock() - began) / len(completions)


def summing(questions: int, samples: int, clock: Clock = time.perf_counter) -> float:
    """Seconds of an evaluation's summary, a question."""
    one = {"text": "1", "status": "wrong", "formatted": True, "correct_anyhow": False, "finished": True, "length": 1,
           "mean_logp": -1.0, "mean_entropy": 1.0}  # fmt: skip
    drawn = [[one | {"status": "correct"}] * (i % 2) + [one] * (samples - i % 2) for i in range(questions)]
    began = clock()
    summarise([{"gold": "1", "greedy": one, "sampled": some} for some in drawn], ())
    return (clock() - began) / questions


def _seconds(call: Callable[[], object], clock: Clock) -> float:
    """Of the fastest of some calls, without the first one if there are more: others may have the processor now."""
    times: list[float] = []
    while sum(times) < (ENOUGH if len(times) > LEAST else LONG) and len(times) <= REPEATS:
        began = clock()
        call()
        times.append(clock() - began)
    return min(times[1:] or times)


def _decoding(policy: Policy, sizes: Sizes, clock: Clock) -> tuple[float, float, float, float, float]:
    """The constants step, row, column, move and prompt."""
    many, most = _most_rows(policy, sizes.rows), max(1, _context(policy) - ROOM)
    few, near, far = max(1, many // FEW), min(sizes.prompt, most), min(sizes.prompt + FURTHER, most)
    (long, rows), (short, _), (wide, _) = (_timed(policy, *at, clock) for at in ((many, near), (few, near), (few, far)))
    column = max(0.0, wide - short) / (few * (far - near)) if far > near else 0.0
    row = max(0.0, long - short) / (many - few) if many > few else 0.0
    step = max(0.0, short - few * row)
    moving = _moving(policy, rows, clock) if rows else 0.0
    prompt = _prompt(policy, max(near, min(far, ASKED)), step, clock)
    return step, max(0.0, row - near * column), column, moving, prompt


def _timed(policy: Policy, count: int, prompt: int, clock: Clock) -> tuple[float, Rows | None]:
    """A decode step of `count` completions behind one prompt of so many tokens; the rows, where they can go on."""
    if not policy.shares_prefix:
        more, less = (_seconds(lambda n=n: _generated(policy, count, prompt, n), clock) for n in (3, 1))
        return max(0.0, more - less) / 2, None
    rows, drawn = prefilled(policy, (0,), [(TOKEN,) * prompt], count), [Drawn() for _ in range(count)]
    return _seconds(lambda: _go_on(policy, rows, drawn), clock), rows


def _prompt(policy: Policy, length: int, step: float, clock: Clock) -> float:
    """A token of a prompt."""
    ids = torch.full((1, length), TOKEN, device=policy.device)
    return max(0.0, _seconds(lambda: policy.body(ids, torch.ones_like(ids)), clock) - step) / length


def _go_on(policy: Policy, rows: Rows, drawn: list[Drawn]) -> None:
    """What poc.decode does for one token."""
    uniform = torch.full((len(drawn),), 0.5, dtype=torch.float64)
    tokens, stats = draw(head_logits(policy.head, rows.hidden), 1.0, uniform)
    for one, *found in zip(drawn, tokens.tolist(), *(x.tolist() for x in stats), strict=True):
        one.add(*found)
    rows.go_on(policy, tokens)


def _generated(policy: Policy, rows: int, prompt: int, tokens: int) -> None:
    unstopped, uniform = replace(policy, stop_ids=frozenset({-1})), torch.full((rows, tokens), 0.5, dtype=torch.float64)
    generate(unstopped, [(TOKEN,) * prompt], rows, 1.0, uniform, rows)


def _moving(policy: Policy, rows: Rows, clock: Clock) -> float:
    """A cell of the cache that is copied as rows leave, and again with room behind it."""
    everyone = torch.arange(len(rows.index), device=policy.device)

    def copy() -> None:
        rows.cache.batch_select_indices(everyone)
        for layer in rows.cache.layers:
            roomy = (torch.nn.functional.pad(x, (0, 0, 0, ROOM)) for x in (layer.keys, layer.values))
            layer.keys, layer.values = (x[:, :, :-ROOM] for x in roomy)

    return _seconds(copy, clock) / (len(rows.index) * (rows.mask.shape[1] + ROOM))


def _most_rows(policy: Policy, rows: int) -> int:
    if policy.device.type == "cuda":
        return rows
    return min(rows, max(1, int(MOST / (2 * _weights(policy) * (1 + _head_cost(policy))))))


def _updating(policy: Policy, sizes: Sizes, clock: Clock) -> tuple[float, float]:
    """The constants of a pass: what it takes anyhow, and a unit of its work."""
    together = min(sizes.together, sizes.micro_batch)
    small = _batch(policy, 1, 1, -(-sizes.prompt // 4), 1)
    large = _batch(policy, -(-sizes.micro_batch // together), together, sizes.prompt, sizes.answer)
    less, more = (_seconds(lambda batch=batch: _pass(policy, batch), clock) for batch in (small, large))
    few, many = (_units(policy, batch) for batch in (small, large))
    token = max(0.0, more - less) / (many - few) if many > few else more / many
    return max(0.0, less - token * few), token


def _pass(policy: Policy, batch: TokenBatch) -> None:
    """A forward and backward pass whose gradients are thrown away."""
    torch.autograd.grad(token_logp(policy, batch, 1.0).sum(), policy.trainable())


def _batch(policy: Policy, rows: int, together: int, prompt: int, answer: int) -> TokenBatch:
    nothing = (0.0,) * answer
    episode = Episode((TOKEN,) * answer, "", False, nothing, nothing, nothing)
    return pack([((TOKEN,) * prompt, [episode] * together, (1.0,) * together)] * rows).to(policy.device)


def _units(policy: Policy, batch: TokenBatch) -> float:
    rows, length = batch.input_ids.shape
    return rows * length * (1 + policy.attention_cost * length) + len(batch.targets) * _head_cost(policy)


def _head_cost(policy: Policy) -> float:
    """FLOPs of the head for a trained token over FLOPs of the layers for a token; weights are frozen in both."""
    return policy.head.vocab_size * policy.head.weight.shape[1] / _weights(policy)


def _weights(policy: Policy) -> int:
    return sum(module.in_features * module.out_features for module in policy.adapted())


def _context(policy: Policy) -> int:
    return getattr(policy.model.config, "max_position_embeddings", None) or 2**20
