"""The public functions: check what is asked for, drop the ignored tokens, choose a backend, restore the shape.

What each backend computes is defined in reference.py. Masked tokens (-inf logits) contribute nothing to the entropy,
are left out of the self-certainty mean, and receive no gradient. Neither NaN nor +inf is hidden: where a row holds
one, or holds nothing but -inf, the outputs of that row are NaN.
"""

from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from vocab_kernels import autograd, checks, reference, torch_backend
from vocab_kernels.head import Layer, Options, Packed
from vocab_kernels.reference import TokenStats, compute_dtype

LOGITS_BUDGET = 128 * 2**20  # bytes for the temporaries of token_stats


def token_stats(
    logits: Tensor,
    targets: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
    inplace_backward: bool = False,
    backend: str = "auto",
) -> TokenStats:
    """Log-probability of the target, entropy and self-certainty of every token, in nats, from its logits.

    logits [..., V] of any float dtype; targets [...] int64, -100 leaves a token out (outputs and gradient 0).
    temperature: a float or a tensor shaped like targets, z = cap(logits) / temperature. softcap: c of
    cap(x) = c tanh(x / c). vocab_size: columns from it on are padding. inplace_backward: the gradient is written over
    the logits, which saves their size in memory; nothing else may need them after, a second backward pass raises, and a
    leaf shares memory with its grad (not where logits overlap themselves; not by the reference).
    backend: "auto" (Triton on CUDA, else torch), "triton", "torch" or "reference" (the plain definition).
    All three outputs [...] are differentiable with respect to logits; float32, or float64 for float64 logits.
    A target on a -inf logit gives logp -inf without gradient. Raises ValueError naming what does not fit.
    Source of the definitions: reference.py.
    """
    checks.logits(logits, targets)
    name = checks.backend(backend, logits.device)
    softcap = checks.softcap(softcap)
    width = checks.columns(vocab_size, logits.shape[-1])
    flat, dtype = logits.reshape(-1, logits.shape[-1]), compute_dtype(logits)
    kept, index, heat = _prepare(targets, width, temperature, dtype)
    with torch.autocast(logits.device.type, enabled=False):
        if name == "reference":
            rows = flat if index is None else flat[index]
            out = reference.token_stats(rows[:, :width], kept, heat, softcap)
        else:
            options = Options(heat, softcap, LOGITS_BUDGET)
            out = autograd.token_stats(_module(name), flat, index, kept, width, options, inplace_backward)
    return _restore(out, index, targets)


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    lora: tuple[Tensor, Tensor, float] | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
    entropy_grad: bool = False,
    max_memory_mib: float = 128,
    backend: str = "auto",
) -> TokenStats:
    """`token_stats` of the logits hidden @ weight.T + bias, which are never held as a whole.

    hidden [..., H], weight [V, H], bias [V], each of any float dtype; logits are accumulated in float32 (float64 where
    one of them is). weight may also be a Params4bit of bitsandbytes (NF4 or FP4, frozen), unpacked tile by tile. lora:
    (A [r, H], B [V, r], s) adds s B A to the weight. logp and self_certainty are differentiable with respect to hidden
    and, where they require grad, weight, bias, A and B; entropy only with entropy_grad=True, which for a frozen head
    costs one more matrix product and [n, H] of memory. A masked token is one whose bias is -inf. max_memory_mib caps
    the temporaries of a pass, beside inputs, outputs, gradients and what is kept for the backward pass
    (kernels/README.md has the account; the reference backend knows no cap). The other arguments and the errors are
    those of `token_stats`.
    """
    weight = Packed.of(weight) if getattr(weight, "quant_state", None) is not None else weight
    checks.linear(hidden, weight, bias, targets)
    checks.lora(lora, weight)
    name = checks.backend(backend, hidden.device)
    softcap = checks.softcap(softcap)
    budget = checks.budget(max_memory_mib)
    width = checks.columns(vocab_size, weight.shape[0])
    flat, dtype = hidden.reshape(-1, hidden.shape[-1]), compute_dtype(hidden, weight, bias, *(lora or ())[:2])
    kept, index, heat = _prepare(targets, width, temperature, dtype)
    if index is not None:
        flat = flat[index] if name == "reference" else autograd.PickedRows.apply(flat, index)
    with torch.autocast(hidden.device.type, enabled=False):
        layer = _layer(flat, weight, bias, lora, kept, width, dtype)
        if name == "reference":
            out = reference.linear_token_stats(*layer, heat, softcap, entropy_grad)
        else:
            out = autograd.linear_token_stats(_module(name), layer, Options(heat, softcap, budget), entropy_grad)
    return _restore(out, index, targets)


def _layer(
    hidden: Tensor,
    weight: Tensor | Packed,
    bias: Tensor | None,
    lora: tuple[Tensor, Tensor, float] | None,
    targets: Tensor,
    width: int,
    dtype: torch.dtype,
) -> Layer:
    """The first `width` columns of the head; the low-rank part of its input, s h Aᵀ, computed in `dtype`."""
    low = up = None
    if lora is not None:
        a, b, scale = lora
        low, up = scale * (hidden.to(dtype) @ a.to(dtype).T), b[:width]
    if width < weight.shape[0]:
        weight = weight.narrow(width) if isinstance(weight, Packed) else weight[:width]
        bias = None if bias is None else bias[:width]
    return Layer(hidden, weight, bias, low, up, targets)


def _module(name: str) -> ModuleType:
    """The backend's module; Triton is imported when it is first used."""
    return torch_backend if name == "torch" else import_module("vocab_kernels.triton_backend")


def _prepare(
    targets: Tensor, width: int, temperature: float | Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None, float | Tensor]:
    """The targets that count [n], their indices (None: all count), their temperature (a float or [n, 1])."""
    heat = checks.temperature(temperature, targets)
    flat = targets.reshape(-1)
    index = checks.kept_rows(flat, width)
    kept = flat if index is None else flat[index]
    if isinstance(heat, Tensor):
        heat = heat.reshape(-1, 1).to(kept.device, dtype)
        heat = heat if index is None else heat[index]
    return kept, index, heat


def _restore(stats: TokenStats, index: Tensor | None, targets: Tensor) -> TokenStats:
    """Outputs [n] back to the shape of targets, 0 where a token was left out."""
    if index is not None:
        stats = [x.new_zeros(targets.numel()).index_copy(0, index, x) for x in stats]
    return TokenStats(*(x.reshape(targets.shape) for x in stats))
