"""A linear head as the backends see it: rows of its weight, dense or 4-bit, a low-rank (LoRA) part, its inputs.

A 4-bit weight (bitsandbytes' Params4bit: NF4 or FP4, nested scales or not) is unpacked a few rows at a time; nothing
here imports bitsandbytes. A LoRA head W + s B A adds s (h Aᵀ) Bᵀ to the logits: `low` = s h Aᵀ is computed before, with
its own gradient, and `up` = B joins tile by tile, so that no [W, B] is ever built.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vocab_kernels.reference import compute_dtype

HALF = (torch.float16, torch.bfloat16)


class Options(NamedTuple):
    """temperature: a float or [n, 1] in the compute dtype; budget: bytes for temporaries."""

    temperature: float | Tensor
    softcap: float | None
    budget: int

    def at(self, rows: slice) -> float | Tensor:
        return self.temperature[rows] if isinstance(self.temperature, Tensor) else self.temperature


class Packed(NamedTuple):
    """A 4-bit weight [V, H]. Element e of row v is code[nibble] * scale of its block of `block` elements."""

    nibbles: Tensor  # uint8 [V, H / 2], the earlier element in the high half
    pairs: Tensor  # float32 [256, 2]: the two codes of a byte
    scales: Tensor  # [V, H / block]: float32, or uint8 into `nested`
    nested: tuple[Tensor, Tensor, float, int] | None  # code [256], scales of blocks, offset, length of those blocks
    block: int
    dtype: torch.dtype  # in which the head computes

    @classmethod
    def of(cls, weight: Tensor) -> "Packed":
        """From a Params4bit. Raises ValueError where rows are not whole blocks."""
        state = weight.quant_state
        rows, size = state.shape
        if size % state.blocksize:
            block = f"not a multiple of its block {state.blocksize}"
            raise ValueError(f"weight is 4-bit with H={size}, {block}: dequantise it first")
        if getattr(state, "packing_format_for_cpu", False):
            raise ValueError("weight is 4-bit, repacked by bitsandbytes for this CPU: dequantise it first")
        code, inner = state.code.float(), state.state2 if state.nested else None
        pairs = torch.stack([code.repeat_interleave(16), code.repeat(16)], 1)
        nested = None if inner is None else (inner.code, inner.absmax, float(state.offset), inner.blocksize)
        nibbles = weight.detach().contiguous().view(torch.uint8).reshape(rows, size // 2)
        return cls(nibbles, pairs, state.absmax.reshape(rows, -1), nested, state.blocksize, state.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.nibbles), 2 * self.nibbles.shape[1]

    @property
    def device(self) -> torch.device:
        return self.nibbles.device

    def narrow(self, width: int) -> "Packed":
        return self._replace(nibbles=self.nibbles[:width], scales=self.scales[:width])

    def take(self, rows: slice | Tensor) -> Tensor:
        """The rows [n, H] in float32."""
        codes = torch.nn.functional.embedding(self.nibbles[rows].int(), self.pairs)
        out = codes.view(len(codes), self.shape[1] // self.block, self.block)
        return out.mul_(self._scales(rows)[..., None]).flatten(1)

    def _scales(self, rows: slice | Tensor) -> Tensor:
        """Float scales [n, H / block] of the rows."""
        scales = self.scales[rows]
        if self.nested is None:
            return scales
        code, outer, offset, length = self.nested
        per_row = scales.shape[1]
        numbers = torch.arange(*rows.indices(self.shape[0]), device=self.device) if isinstance(rows, slice) else rows
        at = numbers[:, None] * per_row + torch.arange(per_row, device=self.device)
        return code[scales.int()] * outer[at // length] + offset


class Layer(NamedTuple):
    """A head and what it is applied to: hidden [n, H], weight [V, H], targets [n]; bias [V], low [n, r], up [V, r]."""

    hidden: Tensor
    weight: Tensor | Packed
    bias: Tensor | None
    low: Tensor | None
    up: Tensor | None
    targets: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """In which logits, statistics and residuals are computed."""
        return compute_dtype(self.hidden, self.weight, self.bias, self.low, self.up)

    @property
    def operands(self) -> torch.dtype:
        """In which a GPU may multiply without loss: the stored one, where hidden and weight share a half precision."""
        same = self.hidden.dtype == self.weight.dtype and self.dtype == torch.float32
        return self.hidden.dtype if same and self.hidden.dtype in HALF else self.dtype

    @property
    def width(self) -> int:
        return self.weight.shape[0]

    def rows(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the weight [n, H] in `dtype`."""
        if isinstance(self.weight, Packed):
            return self.weight.take(which).to(self.weight.dtype).to(dtype)
        return self.weight[which].to(dtype)

    def cast_bytes(self, dtype: torch.dtype) -> tuple[int, int]:
        """Bytes that a row of hidden and a row of the weight take when they are cast to `dtype` or unpacked."""
        row, column = self.hidden.shape[1] * dtype.itemsize, self.row_bytes(dtype)
        row *= self.hidden.dtype != dtype
        if self.low is not None:  # cast to the compute dtype, row and column alike
            row, column = row + self.low.shape[1] * self.dtype.itemsize, column + self.up.shape[1] * self.dtype.itemsize
        return row, column

    def row_bytes(self, dtype: torch.dtype) -> int:
        size = self.weight.shape[1]
        if isinstance(self.weight, Packed):  # indices, float32 values, their two casts, scales
            return size * (2 + 4 + self.weight.dtype.itemsize + dtype.itemsize) + 40 * self.weight.scales.shape[1]
        return size * dtype.itemsize if self.weight.dtype != dtype else 0

    def add_low(self, logits: Tensor, rows: slice, columns: slice) -> None:
        if self.low is not None:
            logits.addmm_(self.low[rows].to(logits.dtype), self.up[columns].to(logits.dtype).T)


def spans(length: int, step: int) -> Iterator[slice]:
    """Slices of `step` that cover `length`; one empty slice for 0."""
    for first in range(0, max(length, 1), step):
        yield slice(first, min(first + step, length))


def join(parts: list[tuple]) -> list[Tensor]:
    """Concatenate each column of a list of tuples of tensors."""
    return list(parts[0]) if len(parts) == 1 else [torch.cat(column) for column in zip(*parts, strict=True)]
