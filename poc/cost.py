"""What a run takes: how often each thing is computed, times what it takes on this machine. Pure: no clock, no torch.

Sampling (poc.decode) at step t draws a token for n_t rows, finished ones that have not left among them; m_t of them go
on, behind w_t columns of cache:

    merge + passes * step + prompt tokens (padded) * prompt + sum over t of (step + n_t * row + m_t * w_t * column)

and at the start, where rows leave or join, and where room for ROOM more columns is used up, the cells of the cache are
copied with that room, `move` each.

Update: packs (poc.packing) of B rows padded to L tokens, m of them trained:

    sum over passes of (part + B L * token + B L^2 * pair + m * trained)

and a forward pass without gradients, for the KL term and the canary's distance, takes `prompt` a token. Grading takes
`score` a completion, an evaluation's summary `question` a question, a checkpoint `save`. An evaluation is one greedy
completion of each question and `samples` drawn ones.

Everything is linear in the constants (Speed; poc.calibrate measures them). The counts follow from the completions'
lengths: a handful of lengths stands for many (`typical`). Not here: bytes (poc.memory), loading, what scoring hostile
completions may take, and how lengths change while a policy learns.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean
from typing import NamedTuple

PREFILL = 4096  # prompt tokens of one forward pass of poc.decode, padding included; a single prompt may be longer
ROOM = 64  # columns that a full cache grows by at once
KEEP = 0.8  # finished rows leave together when no more than this share goes on
WAIT = 4  # rows join where a quarter of them all has room
STAGES = ("rollout", "update", "evaluate", "save")


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds that a model takes on a machine, by the terms of the module docstring."""

    merge: float  # once for each call of sampling: the adapter goes into the weights
    step: float
    row: float  # layers, head and draw
    column: float
    move: float
    prompt: float
    part: float
    token: float
    pair: float
    trained: float
    score: float = 0.0
    question: float = 0.0
    save: float = 0.0

    def sampling_at(self, factor: float) -> "Speed":
        """All that sampling takes, times `factor`."""
        names = ("merge", "step", "row", "column", "move", "prompt")
        return replace(self, **{name: factor * getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True)
class View:
    """Questions that are measured, by the tokens of their prompts. `guarded`: their distance to the start as well."""

    prompts: tuple[int, ...]
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What one process of a run does. `lengths`, `prompts`: tokens of completions and prompts like those to come."""

    steps: int
    prompts_per_step: int
    group_size: int
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    views: tuple[View, ...]
    samples: int
    evaluations: int
    saves: int
    rows: dict[str, int]  # completions at once: update, rollout, evaluate (poc.budget)
    reuse: int = 1
    epochs: int = 1
    kl: bool = False
    trained: float = 1.0  # share of the groups that have something to learn from; the others are left out
    shares_prefix: bool = True
    packs: bool = True
    attention: float = 0.0  # FLOPs of attention a token and key over FLOPs of the layers a token


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds by stage; bytes by stage beside what the process `held`; `lengths`: mean tokens it is reckoned for."""

    seconds: dict[str, float]
    tokens: float
    held: int = 0
    extra: dict[str, int] | None = None
    peak: int | None = None  # bytes of the process

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class Sampling(NamedTuple):
    """Of one call: decode steps, tokens, cells of the cache read and copied, prompt passes and their tokens."""

    steps: int = 0
    rows: int = 0
    cells: int = 0
    moved: int = 0
    passes: int = 0
    prompt_tokens: int = 0
    widest: tuple[int, int] = (0, 0)  # rows and columns of the moment with the most cells
    prefill: int = 0  # tokens of the largest pass over prompts


class Pass(NamedTuple):
    """One forward and backward pass: rows padded to `length` tokens, `trained` of them; completions a row, at most."""

    rows: int
    length: int
    trained: int
    together: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def pairs(self) -> int:
        return self.rows * self.length**2


def typical(values: Sequence[int], count: int) -> list[int]:
    """`count` values that are spread as `values` are, in a mixed order that is always the same."""
    ordered = sorted(values)
    chosen = [ordered[int((i + 0.5) / count * len(ordered))] for i in range(count)]
    Random(count).shuffle(chosen)
    return chosen


def in_groups(values: Sequence[int], size: int) -> list[Sequence[int]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def all_alike(drawn: int, size: int) -> float:
    """The chance that a group of `size` completions is of one kind, where `drawn` ones were: the rule of succession,
    (n + 1) / (n + 2) for the next one, and so on."""
    return (drawn + 1) / (drawn + 1 + size)


def sampling(prompts: Sequence[int], groups: Sequence[Sequence[int]], at_once: int, shares: bool = True) -> Sampling:
    """Counts of a call that writes completions of the lengths `groups[i]` to prompt i, `at_once` of them at most.

    `shares`: as poc.decode does; else as poc.plain: every row computes its prompt and stays until the last one ends.
    """
    if not shares:
        groups = [[max(map(max, groups))] * len(group) for group in groups]
    waiting, copies = list(zip(prompts, groups, strict=True)), len(groups[0])
    found, moments, cache, ends = Sampling(), [(0, 0)], _Cache(), Counter()
    t = rows = going = columns = 0
    while waiting or going:
        for chunk in _admitted(waiting, copies, at_once, going):
            width = max(prompt for prompt, _ in chunk)
            cache.join(chunk, t)
            ends.update(t + length for _, group in chunk for length in group)
            rows = going = going + copies * len(chunk)
            columns = cache.columns(t)
            found = _prefilled(found, width * len(chunk) * (1 if shares else copies))
        moments.append((rows, columns))
        t += 1
        found = found._replace(steps=found.steps + 1, rows=found.rows + rows)
        going, columns = going - ends[t], columns + 1
        if ends[t] and going <= KEEP * rows:
            rows, cache.room, columns = going, 0, cache.columns(t)
        moved = rows * cache.grow(columns)
        found = found._replace(cells=found.cells + rows * columns, moved=found.moved + moved)
    return found._replace(widest=max(moments, key=lambda moment: moment[0] * moment[1]))


class _Cache:
    """How many columns there are, as many as the longest living row needs, and for how many there is room."""

    def __init__(self) -> None:
        self.last: dict[int, int] = {}  # tokens that a row had at step 0, had it been there: the last end of such rows
        self.room = 0

    def join(self, chunk: Sequence[tuple[int, Sequence[int]]], now: int) -> None:
        for prompt, group in chunk:
            self.last[prompt - now] = max(self.last.get(prompt - now, 0), now + max(group))
        self.room = 0

    def columns(self, now: int) -> int:
        return max((start + now for start, end in self.last.items() if end > now), default=0)

    def grow(self, columns: int) -> int:
        """Columns that are copied so that there is room for `columns`."""
        if columns <= self.room:
            return 0
        self.room = columns + ROOM
        return self.room


def _admitted(waiting: list, copies: int, at_once: int, taken: int) -> Iterator[list]:
    """Prompts that start now, one pass after the other; they are taken from `waiting`."""
    room = (at_once - taken) // copies
    if taken and (room == 0 or WAIT * room * copies < at_once):
        return
    chosen = [waiting.pop(0) for _ in range(min(len(waiting), max(room, 1)))]
    while chosen:
        count = max(1, PREFILL // max(prompt for prompt, _ in chosen))
        yield chosen[:count]
        chosen = chosen[count:]


def _prefilled(found: Sampling, tokens: int) -> Sampling:
    return found._replace(
        passes=found.passes + 1, prompt_tokens=found.prompt_tokens + tokens, prefill=max(found.prefill, tokens)
    )


def passes(prompts: Sequence[int], groups: Sequence[Sequence[int]], size: int, attention: float) -> list[Pass]:
    """Passes of at most `size` completions, packed as poc.packing does; `attention`: see Work. 1 a row for size 1."""
    packs = []
    for prompt, group in zip(prompts, groups, strict=True):
        k = best_size(prompt, sorted(group), size, attention)
        packs += [(prompt + sum(some), some) for some in in_groups(sorted(group), k)]
    return list(_passes(sorted(packs, key=lambda pack: pack[0]), size))


def _passes(packs: Sequence[tuple[int, Sequence[int]]], size: int) -> Iterator[Pass]:
    some: list[tuple[int, Sequence[int]]] = []
    for pack in packs:
        if some and sum(len(answers) for _, answers in some) + len(pack[1]) > size:
            yield _pass(some)
            some = []
        some.append(pack)
    if some:
        yield _pass(some)


def _pass(packs: Sequence[tuple[int, Sequence[int]]]) -> Pass:
    trained, together = sum(sum(answers) for _, answers in packs), max(len(answers) for _, answers in packs)
    return Pass(len(packs), max(length for length, _ in packs), trained, together)


def best_size(prompt: int, lengths: Sequence[int], most: int, attention: float) -> int:
    """Completions behind one prompt, at most `most`, that take the fewest FLOPs (poc.packing has the formula)."""

    def flops(k: int) -> float:
        tokens = (prompt + sum(lengths[i : i + k]) for i in range(0, len(lengths), k))
        return sum(t * (1 + attention * t) for t in tokens)

    return min(range(1, min(most, len(lengths)) + 1), key=lambda k: (flops(k), k))


def rollout_of(work: Work) -> Sampling:
    """One rollout's counts."""
    return sampling(*_drawn(work, work.prompts, work.prompts_per_step * work.reuse, work.group_size),
                    work.rows["rollout"], work.shares_prefix)  # fmt: skip


def update_of(work: Work) -> list[Pass]:
    """The passes of one step."""
    prompts, groups = _drawn(work, work.prompts, work.prompts_per_step, work.group_size)
    return _packed(work, prompts, groups)


def measured_of(work: Work, view: View) -> tuple[Sampling, Sampling, list[Pass]]:
    """Of one view of an evaluation: greedy completions, drawn ones, passes of the distance to the start."""
    count, rows = len(view.prompts), work.rows["evaluate"]
    greedy, drawn = (_drawn(work, view.prompts, count, copies) for copies in (1, work.samples))
    asked = [sampling(*some, rows, work.shares_prefix) for some in (greedy, drawn)]
    return *asked, _packed(work, *drawn) if view.guarded else []


def _drawn(work: Work, prompts: Sequence[int], count: int, copies: int) -> tuple[list[int], list[Sequence[int]]]:
    return typical(prompts, count), in_groups(typical(work.lengths, count * copies), copies)


def _packed(work: Work, prompts: Sequence[int], groups: Sequence[Sequence[int]]) -> list[Pass]:
    if work.packs:
        return passes(prompts, groups, work.rows["update"], work.attention)
    alone = [(prompt + length, [length]) for prompt, group in zip(prompts, groups, strict=True) for length in group]
    return list(_passes(sorted(alone), work.rows["update"]))


def sampling_seconds(found: Sampling, speed: Speed) -> float:
    prompts = found.passes * speed.step + found.prompt_tokens * speed.prompt
    cache = found.cells * speed.column + found.moved * speed.move
    return speed.merge + prompts + found.steps * speed.step + found.rows * speed.row + cache


def update_seconds(found: Sequence[Pass], speed: Speed) -> float:
    return sum(
        speed.part + one.tokens * speed.token + one.pairs * speed.pair + one.trained * speed.trained for one in found
    )


def forward_seconds(found: Sequence[Pass], speed: Speed) -> float:
    """The same passes without gradients."""
    return sum(speed.step + one.tokens * speed.prompt + one.trained * speed.trained for one in found)


def view_seconds(work: Work, view: View, speed: Speed) -> float:
    """Of one view of one evaluation."""
    greedy, drawn, distance = measured_of(work, view)
    asked = sampling_seconds(greedy, speed) + sampling_seconds(drawn, speed)
    graded = len(view.prompts) * ((1 + work.samples) * speed.score + speed.question)
    return asked + graded + forward_seconds(distance, speed)


def predict(work: Work, speed: Speed, evaluation: float | None = None) -> Prediction:
    """Seconds of all of `work`; `evaluation`: of one evaluation, where that was measured."""
    if evaluation is None:
        evaluation = sum(view_seconds(work, view, speed) for view in work.views)
    completions, cycle = work.prompts_per_step * work.reuse * work.group_size, work.reuse * work.epochs
    drawn = sampling_seconds(rollout_of(work), speed) + completions * speed.score
    packed = update_of(work)
    learned = work.trained * update_seconds(packed, speed) + (forward_seconds(packed, speed) if work.kl else 0.0)
    seconds = {
        "rollout": -(-work.steps // cycle) * drawn,
        "update": work.steps * learned,
        "evaluate": work.evaluations * evaluation,
        "save": work.saves * speed.save,
    }
    return Prediction(seconds, fmean(work.lengths))
