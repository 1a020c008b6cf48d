"""A frozen head's residuals, and its backward pass: rows are scaled, no logits are built.

With f_v = cap'(x_v) / T, dz_v/dh = f_v W_v, so for a frozen head W

    dlogp/dh           = (1 - p_y) f_y W_y - R                R = sum_{v != y} p_v f_v W_v
    dcertainty/dh      = p_y f_y W_y + R - mean_v(f_v W_v)
    dentropy/dh        = -p_y (z_y - m - a) f_y W_y - Q       Q = sum_{v != y} p_v (z_v - m - a) f_v W_v
                                                              a = sum_v p_v (z_v - m)

The upstream gradient is one number per token and output, so R (and Q, on request) is accumulated in the forward pass
beside the statistics, by one more matrix product on the tile at hand. kernels/README.md has the derivation and the
account of memory and products. No autograd here: see autograd.py; the tiles are the backends'.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vocab_kernels.head import Layer, Options, spans
from vocab_kernels.tiles import Rows, Upstream

ROW_BYTES = 512  # the per-row numbers of a tile (state, targets, indices): about 40 of at most 8 bytes, rounded up


class Residuals(NamedTuple):
    """kept [n, 1 or 2, H]: R, and Q where the entropy is differentiable; see the module's text."""

    kept: Tensor

    @classmethod
    def empty(cls, hidden: Tensor, dtype: torch.dtype, entropy: bool) -> "Residuals":
        return cls(hidden.new_empty(len(hidden), 2 if entropy else 1, hidden.shape[1], dtype=dtype))

    @property
    def first(self) -> Tensor:
        return self.kept[:, 0]

    @property
    def second(self) -> Tensor | None:
        return self.kept[:, 1] if self.kept.shape[1] == 2 else None

    def at(self, rows: slice) -> "Residuals":
        return Residuals(self.kept[rows])

    def rescale(self, drop: Tensor, spare: Tensor) -> None:
        """To a maximum that is higher by -drop [n, 1]; few rows have a new one. spare: any numbers, overwritten."""
        rows, (n, _, size) = drop.squeeze(1).nonzero().squeeze(1), self.kept.shape
        if len(rows) * size > min(spare.numel(), n * size // 2):
            return self._rescale_all(drop)
        part, drop = spare.flatten()[: len(rows) * size].view(-1, size), drop[rows]
        if self.second is not None:
            self.second.index_add_(0, rows, torch.index_select(self.first, 0, rows, out=part).mul_(drop))
        for kept in (self.first, self.second):
            if kept is not None:
                kept.index_copy_(0, rows, torch.index_select(kept, 0, rows, out=part).mul_(drop.exp()))

    def _rescale_all(self, drop: Tensor) -> None:
        if self.second is not None:
            self.second.addcmul_(self.first, drop).mul_(drop.exp())
        self.first.mul_(drop.exp())

    def add(self, e: Tensor, z: Tensor, weight: Tensor, fresh: bool) -> None:
        """Add a tile (`fresh`: the first): e = e^(z - m) f T, target's column 0 (used up), z - m, weight [v, H]."""
        beta = 0 if fresh else 1
        self.first.addmm_(e, weight, beta=beta)
        if self.second is not None:
            self.second.addmm_(e.mul_(z), weight, beta=beta)

    def close(self, rows: Rows, temperature: float | Tensor, unit: float = 1.0) -> None:
        """From e^(z - m) * unit and z - m to p and z - m - a; f gets its 1 / T."""
        scale = rows.s * temperature * unit
        if self.second is not None:
            self.second.addcmul_(self.first, -rows.mean).div_(scale)
        self.first.div_(scale)


def residual_gradient(
    layer: Layer, options: Options, saved: Rows, residuals: Residuals, up: Upstream, dtype: torch.dtype
) -> Tensor:
    """dloss/dhidden [n, H] in `dtype`, for a frozen head: without softcap, or where certainty has no gradient.

    layer.hidden is not used: it need not be there any more.
    """
    kept = residuals.first
    out = kept.new_empty(kept.shape, dtype=dtype)
    per_row = layer.row_bytes(kept.dtype) + 3 * kept.shape[1] * kept.dtype.itemsize + ROW_BYTES
    step = max(1, options.budget // per_row)
    mean = None if up.certainty is None else _mean_row(layer, kept.dtype, step)
    on_target, on_rest = up.on_target(saved) * saved.gain(options), up.on_others()
    for rows in spans(len(out), step):
        part = kept[rows] * (on_rest[rows] if isinstance(on_rest, Tensor) else on_rest)
        part.addcmul_(layer.rows(layer.targets[rows], part.dtype), on_target[rows])
        if mean is not None:
            part.addr_((-up.certainty[rows] / options.at(rows)).squeeze(1), mean)
        if up.entropy is not None:
            part.addcmul_(residuals.second[rows], -up.entropy[rows])
        out[rows] = part
    return out


def _mean_row(layer: Layer, dtype: torch.dtype, step: int) -> Tensor:
    """Mean of the weight's rows whose bias is not -inf, [H]: one matrix-vector product."""
    total = layer.targets.new_zeros(layer.weight.shape[1], dtype=dtype)
    count = layer.targets.new_zeros(())
    for columns in spans(layer.width, step):
        share = total.new_ones(columns.stop - columns.start)
        if layer.bias is not None:
            share.masked_fill_(layer.bias[columns].isneginf(), 0.0)
        total.addmv_(layer.rows(columns, dtype).T, share)
        count += share.count_nonzero()
    return total / count
