"""The torch backend: statistics and gradients tile by tile under a memory cap, on any device, made for the CPU.

A tile of tokens x vocabulary is small enough to stay in the cache between the few passes over it (tiles.py) and the two
matrix products before and after them. What a frozen head needs instead of logits is in frozen.py. No autograd here: see
autograd.py. triton_backend.py has functions of the same four names.
"""

import math

import torch
from torch import Tensor

from vocab_kernels.frozen import ROW_BYTES, Residuals
from vocab_kernels.head import Layer, Options, join, spans
from vocab_kernels.reference import compute_dtype
from vocab_kernels.tiles import Rows, Running, Target, Upstream, finish, fold, logit_gradient, plan, temper

CACHE = 16 * 2**20  # bytes of a tile's temporaries on a CPU: what stays in its last cache between two passes


def logits_stats(logits: Tensor, index: Tensor | None, targets: Tensor, width: int, options: Options) -> list[Tensor]:
    """TokenStats and Rows, one after the other, of the first `width` columns of logits[index] (None: of all rows)."""
    parts = []
    for rows in spans(len(targets), _logit_rows(len(targets), width, compute_dtype(logits), options)):
        x = _picked(logits, index, rows, width)
        z, _ = temper(x, options.at(rows), options.softcap, slope=False)
        run = Running.start(len(z), z.dtype, z.device)
        run, _, _ = fold(run, z, Target.of(targets[rows], 0, width), z.new_empty(2, *z.shape))
        stats, saved = finish(run)
        parts.append((*stats, *saved))
        del x, z  # before the next ones are made
    return join(parts)


def logits_gradient(
    logits: Tensor,
    index: Tensor | None,
    targets: Tensor,
    width: int,
    options: Options,
    saved: Rows,
    up: Upstream,
    out: Tensor,
) -> None:
    """dloss/dlogits into out [N, V], maybe `logits`; rows left out and columns from `width` on stay as they are."""
    for rows in spans(len(targets), _logit_rows(len(targets), width, compute_dtype(logits), options)):
        x = _picked(logits, index, rows, width)
        z, gain = temper(x, options.at(rows), options.softcap, slope=True)
        target = Target.of(targets[rows], 0, width)
        slope = logit_gradient(z, gain, saved.at(rows), up.at(rows), target, width).div_(options.at(rows))
        out[rows if index is None else index[rows], :width] = slope.to(out.dtype)
        del x, z, gain, slope  # before the next ones are made


def _per_cell(options: Options, dtype: torch.dtype) -> int:
    """Bytes: z, e and one product; under a softcap its slope too; half a number for masks."""
    return (7 if options.softcap is None else 9) * dtype.itemsize // 2


def _logit_rows(n: int, width: int, dtype: torch.dtype, options: Options) -> int:
    return max(1, min(n, options.budget // (width * _per_cell(options, dtype) + ROW_BYTES)))


def _picked(logits: Tensor, index: Tensor | None, rows: slice, width: int) -> Tensor:
    """A copy to work in of the rows, [n, width], in the compute dtype."""
    if index is None:
        return logits[rows, :width].to(compute_dtype(logits), copy=True)
    return logits[:, :width].index_select(0, index[rows]).to(compute_dtype(logits))


def _plan(layer: Layer, options: Options) -> tuple[int, int]:
    """Rows and columns of a tile; what is stored in another dtype than that of the computation is copied."""
    budget = min(options.budget, CACHE) if layer.hidden.device.type == "cpu" else options.budget
    row, column = layer.cast_bytes(layer.dtype)
    cell = _per_cell(options, layer.dtype)
    return plan(len(layer.hidden), layer.width, cell, ROW_BYTES + row, layer.dtype.itemsize + column, budget)


def _logits(layer: Layer, hidden: Tensor, rows: slice, columns: slice, out: Tensor) -> Tensor:
    """Raw logits of hidden [n, H] (compute dtype) into `out` [n, v]; returns the weight's rows in it, [v, H]."""
    weight = layer.rows(columns, layer.dtype)
    if layer.bias is None:
        torch.mm(hidden, weight.T, out=out)
    else:
        torch.addmm(layer.bias[columns].to(layer.dtype), hidden, weight.T, out=out)
    layer.add_low(out, rows, columns)
    return weight


def linear_stats(layer: Layer, options: Options, residuals: Residuals | None) -> list[Tensor]:
    """TokenStats and Rows, one after the other, [n] and [n, 1] each; fills `residuals` if given."""
    height, width = _plan(layer, options)
    parts = []
    for rows in spans(len(layer.targets), height):
        kept = None if residuals is None else residuals.at(rows)
        stats, saved = finish(_fold_columns(layer, rows, width, options, kept))
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
    for columns in spans(layer.width, width):
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
    weight = _logits(layer, hidden, rows, columns, cells[0])
    z, gain = temper(cells[0], options.at(rows), options.softcap, slope=kept is not None, out=cells[-1])
    target = Target.of(layer.targets[rows], columns.start, z.shape[1])
    run, e, drop = fold(run, z, target, cells[1:3])
    if kept is not None:
        if columns.start:
            kept.rescale(drop, cells[2])
        target.put(e, 0.0)
        kept.add(e if gain is None else e.mul_(gain), z, weight, fresh=columns.start == 0)
    return run


def linear_gradient(layer: Layer, options: Options, saved: Rows, up: Upstream, out: list[Tensor | None]) -> None:
    """Add dloss/d(hidden, weight, bias, low, up) to those of `out` that are given, by building every tile again."""
    height, width = _plan(layer, options)
    for rows in spans(len(layer.targets), height):
        hidden = layer.hidden[rows].to(layer.dtype)
        for columns in spans(layer.width, width):
            _add_tile_gradient(out, layer, hidden, rows, columns, options, saved.at(rows), up.at(rows))


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
    x = hidden.new_empty(len(hidden), columns.stop - columns.start)
    weight = _logits(layer, hidden, rows, columns, x)
    z, gain = temper(x, options.at(rows), options.softcap, slope=True)
    target = Target.of(layer.targets[rows], columns.start, z.shape[1])
    slope = logit_gradient(z, gain, saved, up, target, layer.width).div_(options.at(rows))
    if out[0] is not None:
        out[0][rows].addmm_(slope, weight)
    if out[1] is not None:
        out[1][columns].addmm_(slope.T, hidden)
    add_small_gradients(out[2:], layer, slope, rows, columns)


def add_small_gradients(out: list[Tensor | None], layer: Layer, slope: Tensor, rows: slice, columns: slice) -> None:
    """Add dloss/d(bias, low, up) of a tile with dloss/dlogits `slope` [n, v] in the compute dtype."""
    if out[0] is not None:
        out[0][columns].add_(slope.sum(0))
    if out[1] is not None:
        out[1][rows].addmm_(slope, layer.up[columns].to(slope.dtype))
    if out[2] is not None:
        out[2][columns].addmm_(slope.T, layer.low[rows].to(slope.dtype))
