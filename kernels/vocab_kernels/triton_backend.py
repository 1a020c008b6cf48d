"""The Triton backend: launches the kernels of triton_kernels.py, and cuBLAS between them, under a memory cap.

A tile of a linear head's logits is one matrix product with float32 output; the fold reads it once, and where residuals
are wanted writes e^(z - m) over it, in the head's dtype, for the second product, which accumulates in float32. With
`entropy_grad` the panels of R and Q lie row by row side by side, so one product serves both. The functions have the
names and meanings of torch_backend.py. Runs on CUDA, and on the CPU under Triton's interpreter (TRITON_INTERPRET=1).
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from vocab_kernels import triton_kernels as kernels
from vocab_kernels.frozen import ROW_BYTES, Residuals
from vocab_kernels.head import HALF, Layer, Options, join, spans
from vocab_kernels.reference import compute_dtype
from vocab_kernels.tiles import Rows, Upstream, floor, plan
from vocab_kernels.torch_backend import add_small_gradients

EXACT = {"enable_fp_fusion": False}  # z - top of a fused z = x / T is off by z's rounding error: 1e-5 of an entropy
SPAN = 16384  # columns of logits per program: fixed, so that a row is summed in the same order in every batch
BLOCK = {4: 4096, 8: 2048}  # columns in registers, by bytes of a number
TILE = {4: 4096, 8: 2048}  # columns of a linear head's tile: a program holds one row of it in registers
INTERPRETED = triton.knobs.runtime.interpret


def _block(width: int, most: int) -> int:
    return min(triton.next_power_of_2(width), most)


def _warps(block: int) -> int:
    return min(max(block // 256, 1), 16)  # eight numbers a thread: one or two whole vectors, and no spilling


def _heat(options: Options, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Temperatures on the device of `like` and their step: one number for all rows, or one each."""
    if isinstance(options.temperature, Tensor):
        return options.temperature.contiguous(), 1
    return torch.full((1,), options.temperature, dtype=dtype, device=like.device), 0


def _close(state: Tensor, n: int, parts: int) -> Tensor:
    out = state.new_empty(9, n)
    kernels.close_kernel[(triton.cdiv(n, 128),)](state, out, n, parts, FLOOR=floor(state.dtype), BLOCK=128, **EXACT)
    return out


def _split(out: Tensor) -> list[Tensor]:
    """TokenStats [n], then Rows [n, 1]."""
    return [*out[:3], *out[3:, :, None]]


def logits_stats(logits: Tensor, index: Tensor | None, targets: Tensor, width: int, options: Options) -> list[Tensor]:
    """TokenStats and Rows, one after the other, of the first `width` columns of logits[index] (None: of all rows)."""
    n, parts, dtype = len(targets), triton.cdiv(width, SPAN), compute_dtype(logits)
    state = logits.new_empty(6, parts, n, dtype=dtype)
    if n == 0:
        return _split(state.new_empty(9, 0))
    heat, heat_step = _heat(options, state, dtype)
    block = _block(width, BLOCK[dtype.itemsize])
    with torch.cuda.device_of(logits):
        kernels.row_kernel[(n, parts)](
            logits, *logits.stride(), targets if index is None else index, targets.contiguous(), heat, heat_step,
            state, n, width, CAP=options.softcap, INDEXED=index is not None, FLOOR=floor(dtype), SPAN=SPAN,
            BLOCK=block, num_warps=_warps(block), **EXACT,
        )  # fmt: skip
        return _split(_close(state, n, parts))


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
    if len(targets):
        heat = _heat(options, out, saved.top.dtype)
        with torch.cuda.device_of(logits):
            _slope(logits, index, targets, None, 0, width, heat, options.softcap, saved, up, out)


def _slope(
    x: Tensor,
    index: Tensor | None,
    targets: Tensor,
    bias: Tensor | None,
    first: int,
    width: int,
    heat: tuple[Tensor, int],
    softcap: float | None,
    saved: Rows,
    up: Upstream,
    out: Tensor,
) -> None:
    n, size = len(targets), saved.top.dtype.itemsize
    block = _block(width, BLOCK[size])
    saved = torch.stack([part.squeeze(1) for part in saved])
    grads = [saved if g is None else g.contiguous() for g in up]
    kernels.slope_kernel[(n, triton.cdiv(width, block))](
        x, *x.stride(), targets if index is None else index, targets.contiguous(), x if bias is None else bias,
        *heat, saved, *grads, out, *out.stride(), n, first, width,
        CAP=softcap, INDEXED=index is not None, BIASED=bias is not None, LOGP=up.logp is not None,
        ENTROPY=up.entropy is not None, CERTAINTY=up.certainty is not None, BLOCK=block, num_warps=_warps(block),
        **EXACT,
    )  # fmt: skip


def product(a: Tensor, b: Tensor, out: Tensor, add: bool = False) -> None:
    """out = a @ b, or out += a @ b: half-precision operands, sums and result in out's float32, without rounding."""
    if a.dtype not in HALF:
        out.addmm_(a, b, beta=1 if add else 0)
    elif not a.is_cuda:  # the interpreter's host: the same products, in float32
        out.addmm_(a.float(), b.float(), beta=1 if add else 0)
    elif add:
        torch.addmm(out, a, b, out_dtype=out.dtype, out=out)
    else:
        torch.mm(a, b, out_dtype=out.dtype, out=out)


class Tile:
    """Memory for a tile [n, v] of logits in `dtype`, and in the same place the panels [n keep, v] that replace them."""

    def __init__(self, n: int, width: int, keep: int, dtype: torch.dtype, panels: torch.dtype, device: torch.device):
        self.n, self.keep, self.panels = n, keep, panels
        self.cells = torch.empty(n * width * self.tiles(keep, dtype, panels), dtype=dtype, device=device)

    @staticmethod
    def tiles(keep: int, dtype: torch.dtype, panels: torch.dtype) -> int:
        """How many numbers a cell takes: two half-precision panels fit in the place of one float32."""
        return max(1, keep) if panels == dtype else 1

    def views(self, v: int) -> tuple[Tensor, Tensor]:
        """Logits [n, v] and panels [n keep, v], row by row R's and Q's, of a tile of v columns."""
        tiles = self.tiles(self.keep, self.cells.dtype, self.panels)
        logits = self.cells[: self.n * v * tiles].view(self.n, tiles * v)
        panels = logits.view(self.panels).view(self.n * max(1, self.keep), -1)
        return logits[:, :v], panels[:, :v]


def _plan(layer: Layer, options: Options, keep: int, panels: torch.dtype, again: bool = False) -> tuple[int, int]:
    """Rows and columns of a tile; `again`: of the second run, where the panel lies beside the tile."""
    row, column = map(sum, zip(*(layer.cast_bytes(dtype) for dtype in {layer.operands, panels}), strict=True))
    cell = layer.dtype.itemsize * Tile.tiles(keep, layer.dtype, panels)
    cell += panels.itemsize if again and panels != layer.dtype else 0
    height, width = plan(len(layer.hidden), layer.width, cell, ROW_BYTES + row, 8 + column, options.budget)
    widest = TILE[layer.dtype.itemsize]
    if width > widest:
        width = widest
        height = (options.budget - width * (8 + column)) // (width * cell + ROW_BYTES + row)
    return max(1, min(height, len(layer.hidden))), width


def linear_stats(layer: Layer, options: Options, residuals: Residuals | None) -> list[Tensor]:
    """TokenStats and Rows, one after the other, [n] and [n, 1] each; fills `residuals` if given."""
    if len(layer.targets) == 0:
        return _split(layer.hidden.new_empty(9, 0, dtype=layer.dtype))
    keep = 0 if residuals is None else residuals.kept.shape[1]
    height, width = _plan(layer, options, keep, layer.operands)
    parts = []
    with torch.cuda.device_of(layer.hidden):
        for rows in spans(len(layer.targets), height):
            kept = None if residuals is None else residuals.at(rows)
            part = _split(_fold_columns(layer, rows, width, options, kept, keep))
            if kept is not None:
                kept.close(Rows(*part[3:]), options.at(rows), _unit(layer.operands))
            parts.append(part)
    return join(parts)


def _unit(panels: torch.dtype) -> float:
    """What e^(z - m) <= 1 is multiplied by: in float16 small ones would vanish, below 6e-8."""
    return 2.0**14 if panels == torch.float16 else 1.0


class Chunk(NamedTuple):
    """Some rows of a layer, in the form that the kernels take, and their tile."""

    rows: slice
    hidden: Tensor  # [n, H] in the head's operand dtype
    targets: Tensor  # [n]
    heat: tuple[Tensor, int]
    tile: Tile

    @classmethod
    def of(cls, layer: Layer, options: Options, rows: slice, width: int, keep: int, panels: torch.dtype) -> "Chunk":
        hidden, targets = layer.hidden[rows].to(layer.operands), layer.targets[rows].contiguous()
        heat = _heat(options._replace(temperature=options.at(rows)), targets, layer.dtype)
        return cls(rows, hidden, targets, heat, Tile(len(targets), width, keep, layer.dtype, panels, hidden.device))


def _fold_columns(layer: Layer, rows: slice, width: int, options: Options, kept: Residuals | None, keep: int) -> Tensor:
    """Fold all columns of some rows, tile by tile: the outputs [9, n]."""
    chunk = Chunk.of(layer, options, rows, width, keep, layer.operands)
    state = chunk.hidden.new_empty(6, len(chunk.targets), dtype=layer.dtype)
    for columns in spans(layer.width, width):
        _fold_tile(layer, chunk, columns, options.softcap, state, kept, keep)
    return _close(state, len(chunk.targets), 1)


def _fold_tile(
    layer: Layer,
    chunk: Chunk,
    columns: slice,
    softcap: float | None,
    state: Tensor,
    kept: Residuals | None,
    keep: int,
) -> None:
    (n, size), v = chunk.hidden.shape, columns.stop - columns.start
    logits, panels = chunk.tile.views(v)
    weight = _logits(layer, chunk, columns, logits)
    bias, block = _bias(layer, columns), _block(v, TILE[layer.dtype.itemsize])
    kernels.tile_kernel[(n,)](
        logits, logits.stride(0), chunk.targets, state if bias is None else bias, *chunk.heat, state,
        panels, max(1, keep) * panels.stride(0), panels.stride(0), state if kept is None else kept.kept, size, n,
        columns.start, v, CAP=softcap, BIASED=bias is not None, KEEP=keep, SCALE=_unit(panels.dtype),
        FLOOR=floor(layer.dtype), BLOCK=block, BLOCK_SIZE=_block(size, 1024), num_warps=_warps(block), **EXACT,
        maxnreg=128 if layer.dtype.itemsize == 4 else None,  # the compiler aims at 80 and would spill
    )  # fmt: skip
    if kept is not None:
        product(panels, weight, kept.kept.view(n * keep, size), add=columns.start > 0)


def _bias(layer: Layer, columns: slice) -> Tensor | None:
    return None if layer.bias is None else layer.bias[columns].contiguous()


def _logits(layer: Layer, chunk: Chunk, columns: slice, out: Tensor) -> Tensor:
    """Logits without bias of the chunk into out [n, v]; returns the weight's rows [v, H] in hidden's dtype."""
    weight = layer.rows(columns, chunk.hidden.dtype)
    product(chunk.hidden, weight.T, out)
    layer.add_low(out, chunk.rows, columns)
    return weight


def linear_gradient(layer: Layer, options: Options, saved: Rows, up: Upstream, out: list[Tensor | None]) -> None:
    """Add dloss/d(hidden, weight, bias, low, up) to those of `out` that are given, by building every tile again."""
    if len(layer.targets) == 0:
        return
    height, width = _plan(layer, options, 1, _slope_panels(layer), again=True)
    with torch.cuda.device_of(layer.hidden):
        for rows in spans(len(layer.targets), height):
            chunk = Chunk.of(layer, options, rows, width, 1, layer.dtype)
            for columns in spans(layer.width, width):
                _add_tile_gradient(out, layer, chunk, columns, options.softcap, saved.at(rows), up.at(rows))


def _add_tile_gradient(
    out: list[Tensor | None],
    layer: Layer,
    chunk: Chunk,
    columns: slice,
    softcap: float | None,
    saved: Rows,
    up: Upstream,
) -> None:
    """Slopes are float32, and bfloat16 in the large products where the head is."""
    v, panels = columns.stop - columns.start, _slope_panels(layer)
    slope, _ = chunk.tile.views(v)
    weight = _logits(layer, chunk, columns, slope).to(panels)
    bias = _bias(layer, columns)
    _slope(slope, None, chunk.targets, bias, columns.start, v, chunk.heat, softcap, saved, up, slope)
    panel = slope.to(panels)
    if out[0] is not None:
        product(panel, weight, out[0][chunk.rows], add=True)
    if out[1] is not None:
        product(panel.T, chunk.hidden.to(panels), out[1][columns], add=True)
    add_small_gradients(out[2:], layer, slope, chunk.rows, columns)


def _slope_panels(layer: Layer) -> torch.dtype:
    """float16 has too few exponents for slopes of any size."""
    return torch.bfloat16 if layer.operands == torch.bfloat16 else layer.dtype
