"""The torch backend: tiles of logits under a memory cap, and for a frozen head a backward pass without logits.

With f_v = cap'(x_v) / T, dz_v/dh = f_v W_v, so for a frozen head W

    dlogp/dh           = (1 - p_y) f_y W_y - R                R = sum_{v != y} p_v f_v W_v
    dcertainty/dh      = p_y f_y W_y + R - mean_v(f_v W_v)
    dentropy/dh        = -p_y (z_y - m - a) f_y W_y - Q       Q = sum_{v != y} p_v (z_v - m - a) f_v W_v
                                                              a = sum_v p_v (z_v - m)

The upstream gradient is one number per token and output, so R (and Q, on request) is accumulated in the forward pass
beside the statistics, by one more matrix product on the tile at hand; the backward pass scales rows. kernels/README.md
has the derivation and the account of memory and products. No autograd here: see autograd.py.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vocab_kernels.reference import compute_dtype
from vocab_kernels.tiles import (
    Rows,
    Running,
    Target,
    Upstream,
    finish,
    fold,
    logit_gradient,
    plan,
    temper,
)

ROW_BYTES = 512  # the per-row numbers of a tile (state, targets, indices): about 40 of at most 8 bytes, rounded up
CACHE = 16 * 2**20  # bytes of a tile's temporaries on a CPU: what stays in its last cache between two passes


class Options(NamedTuple):
    """temperature: a float or [n, 1] in the compute dtype; budget: bytes for temporaries."""

    temperature: float | Tensor
    softcap: float | None
    budget: int

    def at(self, rows: slice) -> float | Tensor:
        return self.temperature[rows] if isinstance(self.temperature, Tensor) else self.temperature

    def per_cell(self, dtype: torch.dtype) -> int:
        """Bytes: z, e and one product; under a softcap its slope too; half a number for masks."""
        return (7 if self.softcap is None else 9) * dtype.itemsize // 2


class Residuals(NamedTuple):
    """R [n, H], and Q [n, H] where the entropy is differentiable; see the module's text."""

    first: Tensor
    second: Tensor | None

    @classmethod
    def empty(cls, hidden: Tensor, dtype: torch.dtype, entropy: bool) -> "Residuals":
        first = hidden.new_zeros(hidden.shape, dtype=dtype)
        return cls(first, torch.zeros_like(first) if entropy else None)

    def at(self, rows: slice) -> "Residuals":
        return Residuals(self.first[rows], None if self.second is None else self.second[rows])

    def rescale(self, drop: Tensor) -> None:
        """To a maximum that is higher by -drop [n, 1]."""
        if self.second is not None:
            self.second.addcmul_(self.first, drop).mul_(drop.exp())
        self.first.mul_(drop.exp())

    def add(self, e: Tensor, z: Tensor, weight: Tensor) -> None:
        """Add a tile: e = e^(z - m) f T with the target's column 0 (used up), z - m, weight [v, H]."""
        self.first.addmm_(e, weight)
        if self.second is not None:
            self.second.addmm_(e.mul_(z), weight)

    def close(self, rows: Rows, temperature: float | Tensor) -> None:
        """From e^(z - m) and z - m to p and z - m - a; f gets its 1 / T."""
        scale = rows.s * temperature
        if self.second is not None:
            self.second.addcmul_(self.first, -rows.mean).div_(scale)
        self.first.div_(scale)


class Layer(NamedTuple):
    """A linear head and what it is applied to: hidden [n, H], weight [V, H], bias [V] or None, targets [n]."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.hidden, self.weight, self.bias)

    def plan(self, options: Options) -> tuple[int, int]:
        """Rows and columns of a tile; what is stored in another dtype than that of the computation is copied."""
        width = self.hidden.shape[1] * self.dtype.itemsize
        per_row = ROW_BYTES + (width if self.hidden.dtype != self.dtype else 0)
        per_column = self.dtype.itemsize + (width if self.weight.dtype != self.dtype else 0)
        return plan(*self.hidden.shape[:1], len(self.weight), options.per_cell(self.dtype), per_row, per_column,
                    min(options.budget, CACHE) if self.hidden.device.type == "cpu" else options.budget)  # fmt: skip

    def logits(self, hidden: Tensor, columns: slice, out: Tensor) -> Tensor:
        """Raw logits of hidden [n, H] (compute dtype) into `out` [n, v]; returns the weight's rows in it, [v, H]."""
        weight = self.weight[columns].to(self.dtype)
        if self.bias is None:
            torch.mm(hidden, weight.T, out=out)
        else:
            torch.addmm(self.bias[columns].to(self.dtype), hidden, weight.T, out=out)
        return weight


def spans(length: int, step: int) -> Iterator[slice]:
    """Slices of `step` that cover `length`; one empty slice for 0."""
    for first in range(0, max(length, 1), step):
        yield slice(first, min(first + step, length))


def join(parts: list[tuple]) -> list[Tensor]:
    """Concatenate each column of a list of tuples of tensors."""
    return list(parts[0]) if len(parts) == 1 else [torch.cat(column) for column in zip(*parts, strict=True)]


def logits_stats(logits: Tensor, index: Tensor | None, targets: Tensor, width: int, options: Options) -> list[Tensor]:
    """TokenStats and Rows, one after the other, of the first `width` columns of logits[index] (None: of all rows)."""
    parts = []
    for rows in spans(len(targets), _logit_rows(len(targets), width, compute_dtype(logits), options)):
        x = _picked(logits, index, rows, width)
        parts.append(_row_stats(x, targets[rows], options.at(rows), options.softcap))
    return join(parts)


def _row_stats(x: Tensor, targets: Tensor, temperature: float | Tensor, softcap: float | None) -> tuple[Tensor, ...]:
    z, _ = temper(x, temperature, softcap, slope=False)
    run = Running.start(len(z), z.dtype, z.device)
    run, _, _ = fold(run, z, Target.of(targets, 0, z.shape[1]), z.new_empty(2, *z.shape))
    stats, saved = finish(run, temperature, softcap)
    return *stats, *saved


def logits_gradient(
    logits: Tensor, index: Tensor | None, targets: Tensor, width: int, options: Options, saved: Rows, up: Upstream
) -> Tensor:
    """dloss/dlogits, shaped like logits [N, V]; 0 in the rows left out and the columns from `width` on."""
    out = torch.zeros_like(logits, memory_format=torch.contiguous_format)
    for rows in spans(len(targets), _logit_rows(len(targets), width, compute_dtype(logits), options)):
        x = _picked(logits, index, rows, width)
        slope = _row_gradient(x, targets[rows], options.at(rows), options.softcap, saved.at(rows), up.at(rows))
        out[rows if index is None else index[rows], :width] = slope.to(out.dtype)
        del x, slope  # before the next ones are made
    return out


def _row_gradient(
    x: Tensor, targets: Tensor, temperature: float | Tensor, softcap: float | None, saved: Rows, up: Upstream
) -> Tensor:
    z, gain = temper(x, temperature, softcap, slope=True)
    target = Target.of(targets, 0, z.shape[1])
    return logit_gradient(z, gain, saved, up, target, z.shape[1]).div_(temperature)


def _logit_rows(n: int, width: int, dtype: torch.dtype, options: Options) -> int:
    return max(1, min(n, options.budget // (width * options.per_cell(dtype) + ROW_BYTES)))


def _picked(logits: Tensor, index: Tensor | None, rows: slice, width: int) -> Tensor:
    """A copy to work in of the rows, [n, width], in the compute dtype."""
    if index is None:
        return logits[rows, :width].to(compute_dtype(logits), copy=True)
    return logits[:, :width].index_select(0, index[rows]).to(compute_dtype(logits))


def linear_stats(layer: Layer, options: Options, residuals: Residuals | None) -> list[Tensor]:
    """TokenStats and Rows, one after the other, [n] and [n, 1] each; fills `residuals` if given."""
    height, width = layer.plan(options)
    parts = []
    for rows in spans(len(layer.targets), height):
        kept = None if residuals is None else residuals.at(rows)
        stats, saved = finish(_fold_columns(layer, rows, width, options, kept), options.at(rows), options.softcap)
        if kept is not None:
            kept.close(saved, options.at(rows))
        parts.append((*stats, *saved))
    return join(parts)


def _fold_columns(layer: Layer, rows: slice, width: int, options: Options, kept: Residuals | None) -> Running:
    """Fold all columns of some rows, tile by tile."""
    hidden = layer.hidden[rows].to(layer.dtype)
    run = Running.start(len(hidden), layer.dtype, hidden.device)
    tiles = 3 if options.softcap is None else 4  # z, e, a product, a slope
    cells = hidden.new_empty(tiles * len(hidden) * width)
    for columns in spans(len(layer.weight), width):
        shape = (tiles, len(hidden), columns.stop - columns.start)
        run = _fold_tile(run, layer, hidden, rows, columns, options, kept, cells[: math.prod(shape)].view(shape))
    return run


def _fold_tile(
    run: Running,
    layer: Layer,
    hidden: Tensor,
    rows: slice,
    columns: slice,
    options: Options,
    kept: Residuals | None,
    cells: Tensor,
) -> Running:
    weight = layer.logits(hidden, columns, cells[0])
    z, gain = temper(cells[0], options.at(rows), options.softcap, slope=kept is not None, out=cells[-1])
    target = Target.of(layer.targets[rows], columns.start, z.shape[1])
    run, e, drop = fold(run, z, target, cells[1:3])
    if kept is not None:
        if columns.start:
            kept.rescale(drop)
        target.put(e, 0.0)
        kept.add(e if gain is None else e.mul_(gain), z, weight)
    return run


def residual_gradient(
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    options: Options,
    saved: Rows,
    residuals: Residuals,
    up: Upstream,
    dtype: torch.dtype,
) -> Tensor:
    """dloss/dhidden [n, H] in `dtype` for a frozen head: without softcap, or where certainty has no gradient."""
    kept = residuals.first
    out = kept.new_empty(kept.shape, dtype=dtype)
    step = max(1, options.budget // (3 * kept.shape[1] * kept.dtype.itemsize + ROW_BYTES))
    mean = None if up.certainty is None else _mean_row(weight, bias, kept.dtype, step)
    on_target, on_rest = up.on_target(saved) * saved.gain, up.on_others()
    for rows in spans(len(out), step):
        part = kept[rows] * (on_rest[rows] if isinstance(on_rest, Tensor) else on_rest)
        part.addcmul_(weight[targets[rows]].to(part.dtype), on_target[rows])
        if mean is not None:
            part.addr_((-up.certainty[rows] / options.at(rows)).squeeze(1), mean)
        if up.entropy is not None:
            part.addcmul_(residuals.second[rows], -up.entropy[rows])
        out[rows] = part
    return out


def _mean_row(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, step: int) -> Tensor:
    """Mean of the weight's rows whose bias is not -inf, [H]: one matrix-vector product."""
    share = weight.new_ones(len(weight), dtype=dtype)
    if bias is not None:
        share.masked_fill_(bias.isneginf(), 0.0)
    share /= share.sum()
    total = share.new_zeros(weight.shape[1])
    for columns in spans(len(share), step):
        total.addmv_(weight[columns].to(dtype).T, share[columns])
    return total


def linear_gradient(
    layer: Layer, options: Options, saved: Rows, up: Upstream, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """dloss/d(hidden, weight, bias), each where wanted, by building every tile of logits again."""
    sources = (layer.hidden, layer.weight, layer.bias)
    out = [torch.zeros_like(t, dtype=layer.dtype) if w else None for t, w in zip(sources, wanted, strict=True)]
    height, width = layer.plan(options)
    for rows in spans(len(layer.targets), height):
        hidden = layer.hidden[rows].to(layer.dtype)
        for columns in spans(len(layer.weight), width):
            _add_tile_gradient(out, layer, hidden, rows, columns, options, saved.at(rows), up.at(rows))
    return tuple(None if g is None else g.to(t.dtype) for g, t in zip(out, sources, strict=True))


def _add_tile_gradient(
    out: list[Tensor | None],
    layer: Layer,
    hidden: Tensor,
    rows: slice,
    columns: slice,
    options: Options,
    saved: Rows,
    up: Upstream,
) -> None:
    """Add the part of a tile to the gradients [hidden, weight, bias] that are not None."""
    x = hidden.new_empty(len(hidden), columns.stop - columns.start)
    weight = layer.logits(hidden, columns, x)
    z, gain = temper(x, options.at(rows), options.softcap, slope=True)
    target = Target.of(layer.targets[rows], columns.start, z.shape[1])
    slope = logit_gradient(z, gain, saved, up, target, len(layer.weight)).div_(options.at(rows))
    if out[0] is not None:
        out[0][rows].addmm_(slope, weight)
    if out[1] is not None:
        out[1][columns].addmm_(slope.T, hidden)
    if out[2] is not None:
        out[2][columns].add_(slope.sum(0))
