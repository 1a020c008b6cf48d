"""Joins the torch backend to autograd: what is saved, and which backward pass a case needs.

Gradients reach logits, hidden, weight and bias; a second derivative is refused. The backward pass of a linear head is

- row scaling of the residuals, where the head is frozen (under a softcap only if self-certainty has no gradient: its
  mean over the vocabulary then has a slope of its own in every row);
- an exact second run over the tiles of logits otherwise.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from vocab_kernels.reference import TokenStats
from vocab_kernels.tiles import Rows, Upstream
from vocab_kernels.torch_backend import (
    Layer,
    Options,
    Residuals,
    linear_gradient,
    linear_stats,
    logits_gradient,
    logits_stats,
    residual_gradient,
)


def token_stats(logits: Tensor, index: Tensor | None, targets: Tensor, width: int, options: Options) -> TokenStats:
    """Statistics [n] of the first `width` columns of logits[index] ([N, V]; index None: all rows), targets [n]."""
    if torch.is_grad_enabled() and logits.requires_grad:
        return TokenStats(*_LogitsStats.apply(logits, index, targets, width, options))
    return TokenStats(*logits_stats(logits, index, targets, width, options)[:3])


def linear_token_stats(layer: Layer, options: Options, entropy_grad: bool) -> TokenStats:
    """Statistics [n] of a linear head's logits."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in layer):
        return TokenStats(*_LinearStats.apply(*layer, options, entropy_grad))
    return TokenStats(*linear_stats(layer, options, None)[:3])


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # in a backward pass: create_graph=True
        raise RuntimeError("create_graph=True: only backend='reference' has second derivatives")


class _LogitsStats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, index: Tensor | None, targets: Tensor, width: int, options: Options):
        ctx.set_materialize_grads(False)
        out = logits_stats(logits, index, targets, width, options)
        ctx.save_for_backward(logits, index, targets, *out[3:])
        ctx.width, ctx.options = width, options
        return tuple(out[:3])

    @staticmethod
    def backward(ctx: FunctionCtx, *upstream: Tensor | None):
        _refuse_second_derivative()
        logits, index, targets, *saved = ctx.saved_tensors
        rows = Rows(*saved)
        with torch.autocast(logits.device.type, enabled=False):
            up = Upstream.of(rows.possible, *upstream)
            grad = logits_gradient(logits, index, targets, ctx.width, ctx.options, rows, up)
        return grad, None, None, None, None


class _LinearStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        options: Options,
        entropy_grad: bool,
    ):
        ctx.set_materialize_grads(False)
        layer = Layer(hidden, weight, bias, targets)
        frozen = not any(ctx.needs_input_grad[1:3])
        residuals = Residuals.empty(hidden, layer.dtype, entropy_grad) if frozen else None
        stats = linear_stats(layer, options, residuals)
        again = not frozen or options.softcap is not None  # the hidden states may be needed again
        kept = (None, None) if residuals is None else residuals
        ctx.save_for_backward(hidden if again else None, weight, bias, targets, *kept, *stats[3:])
        ctx.options, ctx.hidden_dtype = options, hidden.dtype
        if not entropy_grad:
            ctx.mark_non_differentiable(stats[1])
        return tuple(stats[:3])

    @staticmethod
    def backward(ctx: FunctionCtx, logp: Tensor | None, entropy: Tensor | None, certainty: Tensor | None):
        _refuse_second_derivative()
        hidden, weight, bias, targets, first, second, *saved = ctx.saved_tensors
        rows = Rows(*saved)
        with torch.autocast(weight.device.type, enabled=False):
            up = Upstream.of(rows.possible, logp, entropy, certainty)
            if first is None or (ctx.options.softcap is not None and certainty is not None):
                layer = Layer(hidden, weight, bias, targets)
                grads = linear_gradient(layer, ctx.options, rows, up, ctx.needs_input_grad[:3])
            else:
                kept = Residuals(first, second)
                grad = residual_gradient(weight, bias, targets, ctx.options, rows, kept, up, ctx.hidden_dtype)
                grads = grad, None, None
        return *grads, None, None, None
