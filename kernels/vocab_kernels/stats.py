"""The public functions: check what is asked for, drop the ignored tokens, choose a backend, restore the shape.

What each backend computes is defined in reference.py. Masked tokens (-inf logits) contribute nothing to the entropy,
are left out of the self-certainty mean, and receive no gradient. Neither NaN nor +inf is hidden: where a row holds
one, or holds nothing but -inf, the outputs of that row are NaN.
"""

import torch
from torch import Tensor

from vocab_kernels import autograd, checks, reference
from vocab_kernels.reference import TokenStats, compute_dtype
from vocab_kernels.torch_backend import Layer, Options

LOGITS_BUDGET = 128 * 2**20  # bytes for the temporaries of token_stats


def token_stats(
    logits: Tensor,
    targets: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
    backend: str = "auto",
) -> TokenStats:
    """Log-probability of the target, entropy and self-certainty of every token, in nats, from its logits.

    logits [..., V] of any float dtype; targets [...] int64, -100 leaves a token out (outputs and gradient 0).
    temperature: a float or a tensor shaped like targets, z = cap(logits) / temperature. softcap: c of
    cap(x) = c tanh(x / c). vocab_size: columns from it on are padding. backend: "auto", "torch" or "reference".
    All three outputs [...] are differentiable with respect to logits; float32, or float64 for float64 logits.
    A target on a -inf logit gives logp -inf without gradient. Raises ValueError naming what does not fit.
    Source of the definitions: reference.py.
    """
    name = checks.backend(backend)
    checks.logits(logits, targets)
    checks.softcap(softcap)
    width = checks.columns(vocab_size, logits.shape[-1])
    flat, dtype = logits.reshape(-1, logits.shape[-1]), compute_dtype(logits)
    kept, index, heat = _prepare(targets, width, temperature, dtype)
    with torch.autocast(logits.device.type, enabled=False):
        if name == "reference":
            rows = flat if index is None else flat[index]
            out = reference.token_stats(rows[:, :width], kept, heat, softcap)
        else:
            out = autograd.token_stats(flat, index, kept, width, Options(heat, softcap, LOGITS_BUDGET))
    return _restore(out, index, targets)


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
    entropy_grad: bool = False,
    max_memory_mib: float = 128,
    backend: str = "auto",
) -> TokenStats:
    """`token_stats` of the logits hidden @ weight.T + bias, which are never held as a whole.

    hidden [..., H], weight [V, H], bias [V], each of any float dtype; logits are accumulated in float32 (float64 where
    one of them is). logp and self_certainty are differentiable with respect to hidden and, where they require grad,
    weight and bias; entropy only with entropy_grad=True, which costs one more matrix product and [n, H] of memory for
    a frozen head. A masked token is one whose bias is -inf. max_memory_mib caps the temporaries of a pass, beside
    inputs, outputs, gradients and what is kept for the backward pass (kernels/README.md has the account; the
    reference backend knows no cap). The other arguments and the errors are those of `token_stats`.
    """
    name = checks.backend(backend)
    checks.linear(hidden, weight, bias, targets)
    checks.softcap(softcap)
    budget = checks.budget(max_memory_mib)
    width = checks.columns(vocab_size, len(weight))
    if width < len(weight):
        weight, bias = weight[:width], None if bias is None else bias[:width]
    flat, dtype = hidden.reshape(-1, hidden.shape[-1]), compute_dtype(hidden, weight, bias)
    kept, index, heat = _prepare(targets, width, temperature, dtype)
    flat = flat if index is None else flat[index]
    with torch.autocast(hidden.device.type, enabled=False):
        if name == "reference":
            out = reference.linear_token_stats(flat, weight, bias, kept, heat, softcap, entropy_grad)
        else:
            layer = Layer(flat, weight, bias, kept)
            out = autograd.linear_token_stats(layer, Options(heat, softcap, budget), entropy_grad)
    return _restore(out, index, targets)


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
