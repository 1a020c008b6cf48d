"""What is asked for, checked before anything is computed: every failure is a ValueError that names the value.

One look at the targets (their range) and at a temperature tensor is all that touches data; NaN and +inf in logits are
not looked for: they come out as NaN.
"""

import math
import operator
import os
from importlib.util import find_spec

import torch
from torch import Tensor

from vocab_kernels.head import Packed

IGNORED = -100  # the target of a token that is left out
BACKENDS = ("auto", "triton", "torch", "reference")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def backend(name: str, device: torch.device) -> str:
    """The backend that runs on `device`: for "auto" Triton on CUDA where it is installed, else torch."""
    require(name in BACKENDS, f"backend={name!r}: valid are {', '.join(map(repr, BACKENDS))}")
    installed = find_spec("triton") is not None
    if name == "auto":
        return "triton" if device.type == "cuda" and installed and torch.version.hip is None else "torch"
    if name == "triton":
        require(installed, "backend='triton': the package triton is not installed; use backend='torch'")
        interpreted = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
        way_out = "use backend='torch', or set TRITON_INTERPRET=1 before triton is imported (slow, for tests)"
        require(device.type == "cuda" or interpreted, f"backend='triton': the tensors are on {device}; {way_out}")
    return name


def logits(x: Tensor, targets: Tensor) -> None:
    _floating("logits", x)
    require(x.ndim >= 1 and x.shape[-1] >= 1, f"logits has shape {tuple(x.shape)}: [..., V] with V >= 1 is needed")
    _targets(targets, x.shape[:-1], "logits", x.device)


def linear(hidden: Tensor, weight: Tensor | Packed, bias: Tensor | None, targets: Tensor) -> None:
    for name, x in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if x is not None:
            _floating(name, x)
            require(x.device == hidden.device, f"{name} is on {x.device}, hidden on {hidden.device}")
    shapes = f"hidden has shape {tuple(hidden.shape)}, weight {tuple(weight.shape)}"
    fits = hidden.ndim >= 1 and len(weight.shape) == 2 and hidden.shape[-1] == weight.shape[1] and 0 not in weight.shape
    require(fits, f"{shapes}: [..., H] and [V, H] are needed")
    if bias is not None:
        require(bias.shape == weight.shape[:1], f"bias has shape {tuple(bias.shape)}: ({weight.shape[0]},) is needed")
    _targets(targets, hidden.shape[:-1], "hidden", hidden.device)


def lora(parts: tuple[Tensor, Tensor, float] | None, weight: Tensor | Packed) -> None:
    if parts is None:
        return
    require(isinstance(parts, tuple) and len(parts) == 3, f"lora={type(parts).__name__}: (A, B, scale) is needed")
    a, b, scale = parts
    for name, x in (("A", a), ("B", b)):
        _floating(f"lora's {name}", x)
        require(x.device == weight.device, f"lora's {name} is on {x.device}, weight on {weight.device}")
    (rows, size), shapes = weight.shape, f"lora has A {tuple(a.shape)} and B {tuple(b.shape)}"
    fits = a.ndim == b.ndim == 2 and a.shape[1] == size and b.shape[0] == rows and a.shape[0] == b.shape[1] > 0
    require(fits, f"{shapes}: [r, {size}] and [{rows}, r] are needed")
    require(
        not isinstance(scale, Tensor) and math.isfinite(scale), f"lora has scale {scale}: a finite number is needed"
    )


def _floating(name: str, x: Tensor | Packed) -> None:
    require(isinstance(x, (Tensor, Packed)), f"{name} is a {type(x).__name__}: a tensor is needed")
    require(
        isinstance(x, Packed) or x.layout == torch.strided, f"{name} is {getattr(x, 'layout', None)}: dense is needed"
    )
    valid = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    require(x.dtype in valid, f"{name} has dtype {x.dtype}: float16, bfloat16, float32 or float64 is needed")


def _targets(targets: Tensor, shape: torch.Size, of: str, device: torch.device) -> None:
    require(isinstance(targets, Tensor), f"targets is a {type(targets).__name__}: a tensor is needed")
    require(targets.dtype == torch.int64, f"targets has dtype {targets.dtype}: torch.int64 is needed")
    require(targets.shape == shape, f"targets has shape {tuple(targets.shape)}: {tuple(shape)} is needed, as in {of}")
    require(targets.device == device, f"targets is on {targets.device}, {of} on {device}")


def columns(vocab_size: int | None, width: int) -> int:
    """Columns that count, of `width`."""
    if vocab_size is None:
        return width
    try:
        value = operator.index(vocab_size)
    except TypeError:
        raise ValueError(f"vocab_size={vocab_size!r}: a whole number is needed") from None
    require(1 <= value <= width, f"vocab_size={value}: 1 to {width} (the columns there are) is needed")
    return value


def number(name: str, value: float) -> float:
    """A number that float32 and its inverse can hold, as a float."""
    try:
        found = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    require(1e-30 <= found <= 1e30, f"{name}={value!r}: a positive number (1e-30 to 1e30) is needed")
    return found


def softcap(value: float | None) -> float | None:
    return None if value is None else number("softcap", value)


def budget(max_memory_mib: float) -> int:
    """Bytes."""
    return int(min(number("max_memory_mib", max_memory_mib), 2**40) * 2**20)


def temperature(value: float | Tensor, targets: Tensor) -> float | Tensor:
    """A positive float, or a tensor of them shaped like targets."""
    if not isinstance(value, Tensor):
        return number("temperature", value)
    shape = f"temperature has shape {tuple(value.shape)}"
    require(value.shape == targets.shape, f"{shape}: a float or {tuple(targets.shape)}, as in targets, is needed")
    require(not value.requires_grad, "temperature requires grad, but gets none: pass temperature.detach()")
    require(not value.is_complex() and not value.is_meta, f"temperature is {value.dtype} on {value.device}")
    bad = value[~((value >= 1e-30) & (value <= 1e30))]
    if bad.numel():
        raise ValueError(f"temperature holds {bad[0].item()}: positive numbers (1e-30 to 1e30) are needed")
    return value


def kept_rows(targets: Tensor, width: int) -> Tensor | None:
    """Indices of the targets [n] that are not -100; None where that is all of them. Others must lie in [0, width)."""
    if targets.numel() == 0:
        return None
    low, high = (int(x) for x in targets.aminmax())
    if low >= 0 and high < width:
        return None
    kept = targets != IGNORED
    bad = (kept & ((targets < 0) | (targets >= width))).nonzero()
    if bad.numel():
        at = int(bad[0])
        raise ValueError(
            f"target {int(targets[at])} (token {at}) is out of range: 0 to {width - 1}, or {IGNORED} to leave it out"
        )
    return kept.nonzero().squeeze(1)
