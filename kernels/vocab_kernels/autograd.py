"""Joins the backends to autograd: what is saved, and which backward pass a case needs.

Gradients reach logits, hidden, weight, bias and the low-rank part; a second derivative is refused. The backward pass of
a linear head is

- row scaling of the residuals, where the head is frozen (under a softcap only if self-certainty has no gradient: its
  mean over the vocabulary then has a slope of its own in every row);
- an exact second run over the tiles of logits otherwise.
"""

from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from vocab_kernels.frozen import Residuals, residual_gradient
from vocab_kernels.head import Layer, Options
from vocab_kernels.reference import TokenStats
from vocab_kernels.tiles import Rows, Upstream


def token_stats(
    backend: ModuleType,
    logits: Tensor,
    index: Tensor | None,
    targets: Tensor,
    width: int,
    options: Options,
    in_place: bool,
) -> TokenStats:
    """Statistics [n] of the first `width` columns of logits[index] ([N, V]; index None: all rows), targets [n].

    in_place: the gradient overwrites the logits.
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        in_place = in_place and not _overlaps(logits)
        return TokenStats(*_LogitsStats.apply(logits, index, targets, backend, width, options, in_place))
    return TokenStats(*backend.logits_stats(logits, index, targets, width, options)[:3])


def _overlaps(x: Tensor) -> bool:
    """Whether two cells of x [N, V] may share memory (expanded, strided into itself)."""
    (stride, size), (wide, count) = sorted(zip(x.stride(), x.shape, strict=True))
    return (size > 1 and stride == 0) or (count > 1 and wide < stride * (size - 1) + 1)


def linear_token_stats(backend: ModuleType, layer: Layer, options: Options, entropy_grad: bool) -> TokenStats:
    """Statistics [n] of a linear head's logits."""
    dense = isinstance(layer.weight, Tensor)
    sources = (layer.hidden, layer.weight if dense else None, layer.bias, layer.low, layer.up)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in sources):
        packed = None if dense else layer.weight
        return TokenStats(*_LinearStats.apply(*sources, layer.targets, packed, backend, options, entropy_grad))
    return TokenStats(*backend.linear_stats(layer, options, None)[:3])


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # in a backward pass: create_graph=True
        raise RuntimeError("create_graph=True: only backend='reference' has second derivatives")


class _LogitsStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        logits: Tensor,
        index: Tensor | None,
        targets: Tensor,
        backend: ModuleType,
        width: int,
        options: Options,
        in_place: bool,
    ):
        ctx.set_materialize_grads(False)
        out = backend.logits_stats(logits, index, targets, width, options)
        ctx.save_for_backward(logits, index, targets, *out[3:])
        ctx.call = backend, width, options, in_place
        return tuple(out[:3])

    @staticmethod
    def backward(ctx: FunctionCtx, *upstream: Tensor | None):
        _refuse_second_derivative()
        logits, index, targets, *saved = ctx.saved_tensors
        backend, width, options, in_place = ctx.call
        rows = Rows(*saved)
        out = logits.detach() if in_place else torch.empty_like(logits, memory_format=torch.contiguous_format)
        with torch.autocast(logits.device.type, enabled=False):
            up = Upstream.of(rows.possible, *upstream)
            backend.logits_gradient(logits.detach(), index, targets, width, options, rows, up, out)
        _clear_rest(out, index, width)  # in place, this also tells autograd, so that a second backward pass raises
        return out, *(None,) * 6


def _clear_rest(out: Tensor, index: Tensor | None, width: int) -> None:
    """Zeros in the rows of out [N, V] that are not in `index`, and in the columns from `width` on."""
    out[:, width:].zero_()
    if index is not None:
        left_out = torch.ones(len(out), dtype=torch.bool, device=out.device).index_fill_(0, index, False)
        out[left_out] = 0.0


class PickedRows(torch.autograd.Function):
    """x[index] for distinct rows; its gradient takes one buffer shaped like x, that of torch's own indexing two."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor):
        _refuse_second_derivative()
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.rows, grad.shape[1]).index_copy_(0, index, grad), None


class _LinearStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        low: Tensor | None,
        up: Tensor | None,
        targets: Tensor,
        packed,
        backend: ModuleType,
        options: Options,
        entropy_grad: bool,
    ):
        ctx.set_materialize_grads(False)
        layer = Layer(hidden, packed if weight is None else weight, bias, low, up, targets)
        frozen = not any(ctx.needs_input_grad[1:3]) and low is None
        residuals = Residuals.empty(hidden, layer.dtype, entropy_grad) if frozen else None
        stats = backend.linear_stats(layer, options, residuals)
        again = not frozen or options.softcap is not None  # the hidden states may be needed again
        kept = None if residuals is None else residuals.kept
        ctx.save_for_backward(hidden if again else None, weight, bias, low, up, targets, kept, *stats[3:])
        ctx.call = packed, backend, options
        ctx.dtype = hidden.dtype
        if not entropy_grad:
            ctx.mark_non_differentiable(stats[1])
        return tuple(stats[:3])

    @staticmethod
    def backward(ctx: FunctionCtx, logp: Tensor | None, entropy: Tensor | None, certainty: Tensor | None):
        _refuse_second_derivative()
        hidden, weight, bias, low, up, targets, kept, *saved = ctx.saved_tensors
        packed, backend, options = ctx.call
        rows = Rows(*saved)
        layer = Layer(hidden, packed if weight is None else weight, bias, low, up, targets)
        with torch.autocast(targets.device.type, enabled=False):
            upstream = Upstream.of(rows.possible, logp, entropy, certainty)
            if kept is None or (options.softcap is not None and certainty is not None):
                grads = _recomputed(backend, layer, options, rows, upstream, ctx.needs_input_grad[:5])
            else:
                grad = residual_gradient(layer, options, rows, Residuals(kept), upstream, ctx.dtype)
                grads = grad, *(None,) * 4
        return *grads, *(None,) * 5


def _recomputed(
    backend: ModuleType, layer: Layer, options: Options, rows: Rows, upstream: Upstream, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of (hidden, weight, bias, low, up), each where wanted, from a second run over the tiles."""
    sources = (layer.hidden, layer.weight, layer.bias, layer.low, layer.up)
    out = [torch.zeros_like(t, dtype=layer.dtype) if w else None for t, w in zip(sources, wanted, strict=True)]
    backend.linear_gradient(layer, options, rows, upstream, out)
    return tuple(None if g is None else g.to(t.dtype) for g, t in zip(out, sources, strict=True))
