"""Bytes that Triton kernels load and store per token: ours for rows of logits, TRL's and Liger's beside them.

    python -m benchmarks.traffic                       # under two minutes; no GPU is used
    python -m benchmarks.traffic --v 8192 --rows 2
    python -m benchmarks.traffic --write               # also puts the table in kernels/README.md

The kernels run in Triton's interpreter, on the CPU; every load and store adds its unmasked lanes times the size of an
element. bfloat16 logits. The floors: a forward pass reads a row once (2 V bytes), a backward pass reads and writes it
once (4 V). Goals for ours from V = 32,768 on: at most 1.02 of each, and between the kernels no torch operation on V or
more elements, beside allocations and views. Exit code 1 where a goal is missed, 130 if interrupted. Appends one JSON
line to --out.

What is counted is what the kernels ask for: no caches, no sectors of 32 bytes, no rows that overlap. What torch does
outside the kernels is not in the bytes; for every method its large operations are listed. Nothing is said about speed.
The methods do not compute the same: ours logp, entropy and self-certainty with all three gradients, TRL logp and
entropy with both gradients, Liger the GRPO loss of logp alone (one more row of logits, which it leaves out or zeroes).
No token is left out here (-100), which would add fills.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
import triton
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder
from vocab_kernels import token_stats

from benchmarks import readme, timing
from benchmarks.token_stats import console, showing

VOCABULARIES = (4096, 50257, 151936)
GOAL, GOAL_FROM = 1.02, 32768
SEED = 0
COLUMNS = ["method", "V", "forward", "of 2V", "backward", "of 4V", "large torch operations"]
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class Traffic:
    """Bytes of all loads and stores so far."""

    def __init__(self) -> None:
        self.loaded = self.stored = 0

    @property
    def bytes(self) -> int:
        return self.loaded + self.stored


@contextmanager
def counting() -> Iterator[Traffic]:
    """Counts what interpreted kernels load and store meanwhile. Unmasked accesses come through the masked ones."""
    traffic, load, store = Traffic(), InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def counted_load(self, ptrs, mask, *rest):
        traffic.loaded += _bytes(ptrs, mask)
        return load(self, ptrs, mask, *rest)

    def counted_store(self, ptrs, value, mask, *rest):
        traffic.stored += _bytes(ptrs, mask)
        return store(self, ptrs, value, mask, *rest)

    wrappers = {"create_masked_load": counted_load, "create_masked_store": counted_store}
    refused = dict.fromkeys(("create_atomic_rmw", "create_atomic_cas"), _refuse)
    with mock.patch.multiple(InterpreterBuilder, **wrappers, **refused):
        yield traffic


def _bytes(ptrs, mask) -> int:
    lanes = np.broadcast_to(mask.data, ptrs.data.shape).sum()
    return int(lanes) * max(1, ptrs.get_element_ty().primitive_bitwidth // 8)


def _refuse(*_):
    raise NotImplementedError("atomic operations are not counted: no figure rather than a wrong one")


class LargeOperations(TorchDispatchMode):
    """Names of the torch operations on `size` or more elements, without allocations, views and launched kernels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.names = size, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        name = func.overloadpacket.__name__
        if not func.is_view and name not in ALLOCATIONS and any(x.numel() >= self.size for x in tensors):
            self.names.add(name)
        return result


@contextmanager
def launches_hidden() -> Iterator[None]:
    """From dispatch modes: the interpreter handles a launch's arguments with torch, which a GPU does not."""
    call = GridExecutor.__call__

    def hidden(self, *args, **kwargs):
        with _disable_current_modes():
            return call(self, *args, **kwargs)

    with mock.patch.object(GridExecutor, "__call__", hidden):
        yield


class Measured(NamedTuple):
    """Bytes per token of the two passes; large torch operations."""

    forward: float
    backward: float
    operations: list[str]


# From (rows, V): the logits, which require grad, and the call that gives the differentiable outputs.
Case = tuple[Tensor, Callable[[], tuple[Tensor, ...]]]


def _inputs(n: int, v: int, extra_rows: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(SEED)
    logits = torch.randn(n + extra_rows, v, generator=rng).mul_(3).bfloat16()
    return logits, torch.randint(v, (n,), generator=rng)


def _ours(n: int, v: int) -> Case:
    logits, targets = _inputs(n, v)
    logits.requires_grad_()
    return logits, lambda: token_stats(logits, targets, backend="triton")


def _trl(n: int, v: int) -> Case:
    from trl.kernels import selective_log_softmax_and_entropy

    logits, targets = _inputs(n, v)
    logits.requires_grad_()
    return logits, lambda: selective_log_softmax_and_entropy(logits, targets)


def _liger(n: int, v: int) -> Case:
    """One sequence, whose last row of logits predicts nothing; no KL term, as in TRL's default."""
    from liger_kernel.transformers.grpo_loss import triton_grpo_loss

    logits, targets = _inputs(n, v, extra_rows=1)
    logits, targets, advantages = logits[None].requires_grad_(), targets[None], torch.ones(1)
    settings = {"temperature": 1.0, "beta": 0.0, "inplace": False, "reduce": False}
    return logits, lambda: triton_grpo_loss(logits, None, None, targets, advantages, **settings)[:1]


METHODS: dict[str, Callable[[int, int], Case]] = {"ours": _ours, "trl": _trl, "liger": _liger}
PACKAGES = {"trl": "trl", "liger": "liger_kernel"}


def measure(build: Callable[[int, int], Case], n: int, v: int) -> Measured:
    logits, call = build(n, v)
    with launches_hidden(), LargeOperations(v) as operations:
        with counting() as forward:
            outputs = call()
        with counting() as backward:
            torch.autograd.grad(outputs, logits, [torch.ones_like(x) for x in outputs])
    if not (forward.bytes and backward.bytes):
        raise RuntimeError("no kernel ran in the interpreter")  # a figure of 0 would look like a good one
    return Measured(forward.bytes / n, backward.bytes / n, sorted(operations.names))


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    if not triton.knobs.runtime.interpret:
        console.print("the kernels are not interpreted: set TRITON_INTERPRET=1 before Triton is imported")
        return 2
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.traffic --v {','.join(map(str, options.v))} --rows {options.rows}",
        **timing.environment("cpu"), "packages": _versions(), "dtype": "bfloat16", "rows": options.rows, "seed": SEED,
    }  # fmt: skip
    try:
        measured, absent = _run(options.v, options.rows)
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written")
        return 130
    _show(measured, absent)
    _append(options.out, record, measured, absent)
    if options.write:
        readme.put("traffic", _markdown(measured, absent, options.rows))
    return 1 if missed(measured) else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.traffic", description=__doc__.split("\n")[0])
    parser.add_argument("--v", type=_numbers, default=VOCABULARIES, metavar="V,V", help="vocabulary sizes")
    parser.add_argument("--rows", type=_number, default=3, help="tokens of a batch")
    parser.add_argument("--out", type=Path, default=timing.ROOT / "benchmarks/results/traffic.jsonl")
    parser.add_argument("--write", action="store_true", help="put the table in kernels/README.md")
    return parser.parse_args(argv)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: 1 or more is needed")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_number(part) for part in text.split(",")))


def _run(vocabularies: tuple[int, ...], n: int) -> tuple[dict[tuple[str, int], Measured], dict[str, str]]:
    """{(method, V): measured}, and why a peer is absent. Ours must run; what ails a peer is said."""
    measured, absent = {}, {}
    with showing(len(METHODS) * len(vocabularies)) as steps:
        for name, build in METHODS.items():
            for v in vocabularies:
                if name not in absent and (reason := _try(measured, name, build, n, v)):
                    absent[name] = reason
                steps.tick(f"{name} V={v}")
    return measured, absent


def _try(measured: dict, name: str, build: Callable[[int, int], Case], n: int, v: int) -> str | None:
    if name in PACKAGES and find_spec(PACKAGES[name]) is None:
        return f"{PACKAGES[name]} is not installed"
    try:
        measured[name, v] = measure(build, n, v)
    except Exception as error:
        if name not in PACKAGES:
            raise
        console.print(f"{name} failed: {error}", markup=False)  # for the screen only: it may name folders
        return f"failed with {type(error).__name__}"
    return None


def shares(v: int, measured: Measured) -> tuple[float, float]:
    """Of the floors, 2 V and 4 V bytes."""
    return measured.forward / (2 * v), measured.backward / (4 * v)


def missed(measured: dict[tuple[str, int], Measured]) -> list[str]:
    """The goals that ours misses, in words."""
    found = []
    for (name, v), result in measured.items():
        if name == "ours" and v >= GOAL_FROM and max(shares(v, result)) > GOAL:
            found.append(f"V={v}: more than {GOAL} of a floor")
        if name == "ours" and result.operations:
            found.append(f"V={v}: torch runs {', '.join(result.operations)} on V or more elements")
    return found


def _show(measured: dict[tuple[str, int], Measured], absent: dict[str, str]) -> None:
    table = Table(title="Bytes that the kernels load and store per token, bfloat16 logits")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in (COLUMNS[0], COLUMNS[-1]) else "right")
    for cells in _rows(measured):
        table.add_row(*cells, style="bold" if cells[0] == "ours" else None)
    console.print(table)
    for name, reason in absent.items():
        console.print(f"{name} is left out: {reason}", markup=False)
    console.print(_verdict(measured))


def _rows(measured: dict[tuple[str, int], Measured]) -> list[list[str]]:
    rows = []
    for (name, v), result in sorted(measured.items(), key=lambda item: item[0][1]):
        forward, backward = (f"{share:.4f}" for share in shares(v, result))
        sizes = f"{result.forward:,.0f}", f"{result.backward:,.0f}"
        rows.append([name, f"{v:,}", sizes[0], forward, sizes[1], backward, ", ".join(result.operations) or "none"])
    return rows


def _verdict(measured: dict[tuple[str, int], Measured]) -> str:
    judged = [v for name, v in measured if name == "ours" and v >= GOAL_FROM]
    if missed(measured):
        return f"Goals MISSED: {'; '.join(missed(measured))}."
    if not judged:
        return f"No V of {GOAL_FROM:,} or more: the goal was not judged."
    return f"Goals met: ours at most {GOAL} of each floor from V = {GOAL_FROM:,} on, no large torch operation."


def _append(path: Path, record: dict, measured: dict[tuple[str, int], Measured], absent: dict[str, str]) -> None:
    results = [{"method": name, "v": v, **result._asdict()} for (name, v), result in measured.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({**record, "left_out": absent, "bytes_per_token": results, "missed": missed(measured)}))
        file.write("\n")


def _markdown(measured: dict[tuple[str, int], Measured], absent: dict[str, str], n: int) -> str:
    vocabularies = ",".join(str(v) for v in dict.fromkeys(v for _, v in measured))
    left_out = "".join(f" {name}: {reason}." for name, reason in absent.items())
    installed = ", ".join(f"{name} {found}" for name, found in _versions().items() if found)
    return f"""## Bytes that the kernels move
Loads and stores per token of the kernels for rows of bfloat16 logits, counted in Triton's interpreter, without a GPU:
what is asked for, caches left aside; nothing here was timed. The floors are one read (2V), and one read and one write
(4V). Ours: logp, entropy, self-certainty and their gradients; trl: logp and entropy; liger: the GRPO loss of logp
alone. The last column: torch operations on V or more elements between the kernels, whose bytes are not in the others.
{_verdict(measured)}{left_out}

{readme.markdown(COLUMNS, _rows(measured))}

`python -m benchmarks.traffic --v {vocabularies} --rows {n} --write`, {installed}"""


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in ("triton", "trl", "liger-kernel")}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") != "1":  # triton decides when it is imported, and it has been
        words = [sys.executable, "-m", "benchmarks.traffic", *sys.argv[1:]]
        os.execve(sys.executable, words, {**os.environ, "TRITON_INTERPRET": "1"})
    sys.exit(main())
