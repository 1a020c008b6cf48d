"""Rows that break softmax statistics: what TRL's and Liger's kernels make of them, and ours. Correctness, not speed.

    python -m benchmarks.edge_cases            # seconds; Triton kernels run in its interpreter, on the CPU
    python -m benchmarks.edge_cases --write    # also puts the table in kernels/README.md

What came out of one small float32 call: "right" (within 1 % or 1e-5 of float64, gradients without NaN), what was wrong,
or the exception. A peer that lacks an output is judged by those it has. Not here: peers that need a GPU to run at all.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before triton

import argparse
import math
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from vocab_kernels import linear_token_stats, token_stats

from benchmarks import readme

INF = math.inf


def ours_rows(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    return token_stats(logits, target, backend="triton")


def trl_rows(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    from trl.kernels.logprob_entropy import selective_log_softmax_and_entropy

    return selective_log_softmax_and_entropy(logits, target)


def liger_rows(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Its kernel for log-probabilities alone; it has no gradient. The row after the last one is not read."""
    from liger_kernel.ops.grpo_loss import fused_selective_log_softmax

    return (fused_selective_log_softmax(torch.cat([logits, logits[:1]])[None], target[None], 1.0)[0],)


def ours_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, ...]:
    return linear_token_stats(hidden, weight, target, bias=bias, entropy_grad=True, backend="triton")


def trl_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, ...]:
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    return ChunkedLogProbFunction.apply(hidden, weight, bias, target, 1.0, 64, None, 1.0, ("entropy",))[:2]


ROWS = {"ours": ours_rows, "TRL logits kernel": trl_rows, "Liger logp kernel": liger_rows}
HEADS = {"ours": ours_head, "TRL chunked head": trl_head}


def verdict(call: Callable[[Tensor], tuple[Tensor, ...]], start: Tensor, truth: tuple[Tensor, ...]) -> str:
    """What call(start) gives beside the true (logp, entropy, ...), and whether its gradient has a NaN."""
    start = start.clone().requires_grad_()
    try:
        out = call(start)
        if out[0].requires_grad:
            sum(x.sum() for x in out).backward()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    names = ("logp", "entropy", "self-certainty")
    wrong = [
        n for n, a, b in zip(names, out, truth, strict=False) if not (a - b).abs().max() <= 0.01 * b.abs().max() + 1e-5
    ]
    if start.grad is not None and start.grad.isnan().any():
        wrong.append("gradient NaN")
    shown = ", ".join(
        f"{n} {dict(zip(names, out, strict=False))[n].flatten()[0]:.3g}" if n in names else n for n in wrong
    )
    return shown or "right"


def row_cases() -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> logits [1, V], target [1]."""
    draw = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    one, lead, low = draw.clone(), draw.clone(), torch.full((1, 50257), 200.0)
    one[0, 5], lead[0, :2048] = -INF, -INF
    low[0, 7] += math.log(50256 / 1.5e-6)
    return {
        "one −∞ logit": (one, torch.tensor([9])),
        "first 2,048 logits −∞": (lead, torch.tensor([3000])),
        "all logits near −200": (draw - 200, torch.tensor([9])),
        "entropy 3.8e-5, logits near 200": (low, torch.tensor([7])),
    }


def head_cases() -> dict[str, tuple[Tensor, Tensor, Tensor | None, Tensor]]:
    """Name -> hidden [1, H], weight [V, H] (or a 4-bit one), bias, target [1]."""
    from bitsandbytes.nn import Params4bit

    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(1, 64, generator=generator), torch.randn(50, 64, generator=generator) / 8
    bias, target = torch.zeros(50).index_fill(0, torch.tensor([3]), -INF), torch.tensor([4])
    packed = Params4bit(weight, quant_type="nf4")._quantize("cpu")
    return {"−∞ in the bias": (hidden, weight, bias, target), "NF4 weight, as stored": (hidden, packed, None, target)}


def results() -> list[tuple[str, str, str]]:
    """(case, method, what came out)."""
    found = []
    for name, (logits, target) in row_cases().items():
        truth = token_stats(logits.double(), target, backend="reference")
        found += [(name, who, verdict(partial(call, target=target), logits, truth)) for who, call in ROWS.items()]
    for name, (hidden, weight, bias, target) in head_cases().items():
        truth = linear_token_stats(hidden.double(), weight, target, bias=bias, backend="reference")
        for who, call in HEADS.items():
            found.append((name, who, verdict(partial(call, weight=weight, bias=bias, target=target), hidden, truth)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table in kernels/README.md")
    write = parser.parse_args().write
    found = results()
    table = Table("case", "method", "outcome")
    for line in found:
        table.add_row(*line)
    Console().print(table)
    if write:
        versions = ", ".join(f"{name} {version(name)}" for name in ("triton", "trl", "liger-kernel"))
        rows = readme.markdown(["case", "method", "outcome"], [list(line) for line in found])
        readme.put("edge cases", f"{rows}\n\n`python -m benchmarks.edge_cases --write`, {versions}")


if __name__ == "__main__":
    main()
