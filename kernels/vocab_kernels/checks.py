"""What is asked for, checked before anything is computed: every failure is a ValueError that names the value.

One look at the targets (their range) and at a temperature tensor is all that touches data; NaN and +inf in logits are
not looked for: they come out as NaN.
"""

import math
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
        return "triton" if device.type == "cuda" and installed else "torch"
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
    valid = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    require(x.dtype in valid, f"{name} has dtype {x.dtype}: float16, bfloat16, float32 or float64 is needed")


def _targets(targets: Tensor, shape: torch.Size, of: str, device: torch.device) -> None:
    require(targets.dtype == torch.int64, f"targets has dtype {targets.dtype}: torch.int64 is needed")
    require(targets.shape == shape, f"targets has shape {tuple(targets.shape)}: {tuple(shape)} is needed, as in {of}")
    require(targets.device == device, f"targets is on {targets.device}, {of} on {device}")


def columns(vocab_size: int | None, width: int) -> int:
    """Columns that count, of `width`."""
    if vocab_size is None:
        return width
    require(1 <= vocab_size <= width, f"vocab_size={vocab_size}: 1 to {width} (the columns there are) is needed")
    return vocab_size


def softcap(value: float | None) -> None:
    if value is not None:
        require(0 < value < math.inf, f"softcap={value}: a positive number, or None for none, is needed")


def budget(max_memory_mib: float) -> int:
    """Bytes."""
    require(max_memory_mib > 0, f"max_memory_mib={max_memory_mib}: a positive number is needed")
    return int(min(max_memory_mib, 2**40) * 2**20)


def temperature(value: float | Tensor, targets: Tensor) -> float | Tensor:
    """A positive float, or a tensor of them shaped like targets."""
    if not isinstance(value, Tensor):
        require(0 < value < math.inf, f"temperature={value}: a positive number is needed")
        return float(value)
    shape = f"temperature has shape {tuple(value.shape)}"
    require(value.shape == targets.shape, f"{shape}: a float or {tuple(targets.shape)}, as in targets, is needed")
    require(not value.requires_grad, "temperature requires grad, but gets none: pass temperature.detach()")
    bad = value[~((value > 0) & (value < math.inf))]
    if bad.numel():
        raise ValueError(f"temperature holds {bad[0].item()}: positive numbers are needed")
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
