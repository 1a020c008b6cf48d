"""Arithmetic on one tile of logits: tempering, the online statistics of a row, the gradient, the size of a tile.

A row (one token) is folded tile by tile. With m the highest z so far and o its column, the state holds

    others = sum_{v != o} e^(z_v - m)        so that log s = log1p(others) is exact where one token has nearly all mass
    moment = sum_v e^(z_v - m) (z_v - m)     so that entropy = log s - moment / s has no cancellation
    total  = sum_v (z_v - m), count          over the columns that are not -inf

and a higher maximum m' rescales it, with d = m - m' and r = e^d: others' = r others + tile, moment' = r (moment + d s)
+ tile, total' = total + count d + tile. Where the tile holds the new top, the old one (now r) joins `others`.

Nothing here knows where logits come from or keeps a gradient tape.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vocab_kernels.head import Options
from vocab_kernels.reference import TokenStats

ROWS = 1024  # rows of a tile before its columns are cut: enough to make a matrix product of it


def plan(rows: int, columns: int, per_cell: int, per_row: int, per_column: int, budget: int) -> tuple[int, int]:
    """(rows, columns) of a tile whose temporaries stay within `budget`; everything in bytes.

    A tile of n rows and v columns holds n v per_cell + n per_row + v per_column.
    Raises ValueError where not even one cell fits.
    """
    least = per_cell + per_row + per_column
    if least > budget:
        raise ValueError(f"max_memory_mib = {budget / 2**20:g} is too small: {least / 2**20:.3g} MiB is the least")
    tall = min(max(rows, 1), ROWS, max(budget // (2 * per_row), 1))
    v = min(max((budget - tall * per_row) // (tall * per_cell + per_column), 1), columns)
    v -= v % 64 if 64 < v < columns else 0  # products like whole vectors
    n = min(max((budget - v * per_column) // (v * per_cell + per_row), 1), max(rows, 1))
    if n == 1:  # one row: `tall` was too greedy
        v = min((budget - per_row) // (per_cell + per_column), columns)
    return n, v


def floor(dtype: torch.dtype) -> float:
    """Stands for "no finite logit yet": e^(floor - z) is 0, and differences of it stay finite."""
    return torch.finfo(dtype).min / 2


def temper(
    x: Tensor, temperature: float | Tensor, softcap: float | None, slope: bool, out: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """x [n, v] becomes cap(x) / T in place; also cap'(x) [n, v] (in `out`) if asked for. Infinities pass the cap."""
    gain = None
    if softcap is not None:
        endless = x.isinf()
        gain = torch.div(x, softcap, out=out).tanh_()
        _restore_infinities(torch.mul(gain, softcap, out=x), endless)
        gain = gain.square_().neg_().add_(1.0) if slope else None
    if isinstance(temperature, Tensor) or temperature != 1.0:
        x.div_(temperature)
    return x, gain


def _restore_infinities(x: Tensor, endless: Tensor) -> None:
    """Cells of x that the mask `endless` (used up) names become infinite again, each with its sign."""
    if endless.any():
        positive = (x > 0).logical_and_(endless)
        x.masked_fill_(positive, torch.inf).masked_fill_(endless.logical_xor_(positive), -torch.inf)


class Target(NamedTuple):
    """Where each row's target lies in a tile: its column there (0 where it lies elsewhere), and whether it does."""

    column: Tensor  # [n, 1] int64
    inside: Tensor  # [n, 1] bool

    @classmethod
    def of(cls, targets: Tensor, first: int, width: int) -> "Target":
        column = (targets - first)[:, None]
        inside = (column >= 0) & (column < width)
        return cls(torch.where(inside, column, 0), inside)

    def put(self, tile: Tensor, value: Tensor | float) -> None:
        """tile[row, target] = value, in the rows whose target is here."""
        tile.scatter_(1, self.column, torch.where(self.inside, value, tile.gather(1, self.column)))


class Running(NamedTuple):
    """The statistics of the columns seen so far, [n, 1] each; see the module's text. `own` is the target's z."""

    top: Tensor
    others: Tensor
    moment: Tensor
    total: Tensor
    count: Tensor
    own: Tensor

    @classmethod
    def start(cls, n: int, dtype: torch.dtype, device: torch.device) -> "Running":
        zero = torch.zeros(n, 1, dtype=dtype, device=device)
        return cls(torch.full_like(zero, floor(dtype)), zero, zero, zero, zero, zero)


def fold(run: Running, z: Tensor, target: Target, scratch: Tensor) -> tuple[Running, Tensor, Tensor]:
    """The state with tile z [n, v] added; e^(z - top) [n, v]; d [n, 1]. z becomes z - top, and 0 where it was -inf.

    scratch [2, n, v]: the first half holds the result e.
    """
    high = z.amax(1, keepdim=True)
    top = torch.maximum(run.top, high)
    own = torch.where(target.inside, z.gather(1, target.column), run.own)
    e = torch.exp(z.sub_(top), out=scratch[0])
    total, count = _live(z)
    drop = run.top - top
    r = drop.exp()
    mine = high >= run.top
    run = Running(
        top,
        r * run.others + _without_top(e, mine, scratch[1]) + torch.where(mine, r, 0.0),
        r * (run.moment + drop * (1 + run.others)) + torch.mul(e, z, out=scratch[1]).sum(1, keepdim=True),
        run.total + run.count * drop + total,
        run.count + count,
        own,
    )
    return run, e, drop


def _without_top(e: Tensor, mine: Tensor, spare: Tensor) -> Tensor:
    """Sums of the rows of e; without their highest column in the rows `mine` [n, 1]. spare: like e, overwritten."""
    others = e.sum(1, keepdim=True)
    rows = mine.squeeze(1).nonzero().squeeze(1)
    if len(rows):  # the search for a column costs more than all other passes: only where the top is new
        part = torch.index_select(e, 0, rows, out=spare[: len(rows)])
        others[rows] = part.scatter_(1, part.argmax(1, keepdim=True), 0.0).sum(1, keepdim=True)
    return others


def _live(z: Tensor) -> tuple[Tensor, Tensor | int]:
    """Sum and number of the columns that are not -inf, [n, 1]; those that are become 0 in z."""
    total = z.sum(1, keepdim=True)
    if total.isfinite().all():  # one check per row instead of a mask per cell
        return total, z.shape[1]
    dead = z.isneginf()
    z.masked_fill_(dead, 0.0)
    return z.sum(1, keepdim=True), z.shape[1] - dead.sum(1, keepdim=True)


class Rows(NamedTuple):
    """What a backward pass needs of each row, [n, 1] each. y is the target, m the highest z."""

    top: Tensor  # m
    s: Tensor  # sum_v e^(z_v - m)
    mean: Tensor  # sum_v p_v (z_v - m)
    count: Tensor  # columns that are not -inf
    own: Tensor  # z_y - m
    q: Tensor  # 1 - p_y

    def at(self, rows: slice) -> "Rows":
        return Rows(*(x[rows] for x in self))

    @property
    def p(self) -> Tensor:
        """p_y."""
        return self.own.exp() / self.s

    @property
    def possible(self) -> Tensor:
        """bool: z_y > -inf."""
        return ~self.own.isneginf()

    def gain(self, options: Options) -> Tensor:
        """cap'(x_y) / T; 0 where y is impossible."""
        gain = torch.ones_like(self.own)
        if options.softcap is not None:
            gain = 1 - ((self.own + self.top) * options.temperature / options.softcap).square()
        return torch.where(self.possible, gain / options.temperature, 0.0)


def finish(run: Running) -> tuple[TokenStats, Rows]:
    """The outputs [n] and what a backward pass needs. Rows with NaN, with +inf, or all -inf: no distribution, NaN."""
    others = run.others.masked_fill((run.count == 0) | run.total.isnan(), torch.nan)
    s, log_s = 1 + others, others.log1p()
    own = run.own - run.top
    mean = run.moment / s
    stats = TokenStats(own - log_s, log_s - mean, log_s - run.total / run.count - run.count.log())
    q = -stats.logp.expm1()  # no cancellation: a logp near 0 is -log1p(others)
    return TokenStats(*(x.squeeze(1) for x in stats)), Rows(run.top, s, mean, run.count, own, q)


class Upstream(NamedTuple):
    """Gradients of the loss with respect to the three outputs, [n, 1] each; None where an output was not used."""

    logp: Tensor | None
    entropy: Tensor | None
    certainty: Tensor | None

    @classmethod
    def of(cls, possible: Tensor, logp: Tensor | None, entropy: Tensor | None, certainty: Tensor | None) -> "Upstream":
        """From gradients [n]. The logp of an impossible token is the constant -inf: its gradient is dropped."""
        columns = [None if g is None else g[:, None] for g in (logp, entropy, certainty)]
        if logp is not None:
            columns[0] = columns[0].masked_fill(~possible, 0.0)
        return cls(*columns)

    def at(self, rows: slice) -> "Upstream":
        return Upstream(*(None if g is None else g[rows] for g in self))

    def on_others(self) -> Tensor | float:
        """Factor of p_v, for v other than the target, without the entropy's part: d certainty - d logp."""
        return (0.0 if self.certainty is None else self.certainty) - (0.0 if self.logp is None else self.logp)

    def on_target(self, rows: Rows) -> Tensor:
        """dloss/dz_y without the mean(z) part of self-certainty, [n, 1]; 0 for an impossible token."""
        slope = torch.zeros_like(rows.p)
        if self.logp is not None:
            slope = slope + self.logp * rows.q
        if self.certainty is not None:
            slope = slope + self.certainty * rows.p
        if self.entropy is not None:
            slope = slope - self.entropy * rows.p * (rows.own - rows.mean)
        return torch.where(rows.possible, slope, 0.0)


def logit_gradient(z: Tensor, gain: Tensor | None, rows: Rows, up: Upstream, target: Target, width: int) -> Tensor:
    """dloss/dz times cap' for a tempered tile z [n, v], which is used up; the caller divides by T.

    width: columns of the whole row; a row with fewer live ones has some that are -inf, and they get 0.
    """
    dead = z.isneginf() if bool((rows.count < width).any()) else None
    z.sub_(rows.top)
    slope = z.exp().div_(rows.s)
    if up.entropy is not None:  # times p first: z - m of a finite mask is near -1e38, and may not be enlarged
        z.sub_(rows.mean).mul_(slope).mul_(-up.entropy)
    slope.mul_(up.on_others())
    if up.entropy is not None:
        slope.add_(z)
    target.put(slope, up.on_target(rows))
    if up.certainty is not None:
        slope.sub_(up.certainty / rows.count)
    if dead is not None:
        slope.masked_fill_(dead, 0.0)  # also what 0 * -inf left there
    return slope if gain is None else slope.mul_(gain)
