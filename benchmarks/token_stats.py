"""`vocab_kernels.linear_token_stats` against two bare GEMMs, TRL, plain torch and, on CUDA, verl and cut_cross_entropy.

    python -m benchmarks.token_stats                                   # minutes on two cores; a card if there is one
    python -m benchmarks.token_stats --shape 1024,640,131072 --only torch,two_gemms,trl

For every shape: parity with float64 first (exit code 1, and no times, if ours is off; a peer that is off is marked),
then seconds of alternating runs after one warm-up (the parity run), then peak extra memory in a fresh process per
method. Prints a table and whether the project's goals are met, and appends one JSON line with all times to --out.
Ctrl-C keeps the shapes that are finished (exit code 130). `eager` needs the [N, V] matrix several times over.

It says nothing about a trainable head, a softcap, gradients of entropy or self-certainty, or training as a whole.
`benchmarks/peers.py` says what each method computes and whom that favours.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import peers, timing
from benchmarks.peers import FORWARD, METHODS, OURS, Call, Output, Problem, Shape

SHAPES = [Shape(1024, 640, 131072), Shape(1024, 640, 262144), Shape(2048, 576, 49152)]
CUDA_SHAPES = [*SHAPES, Shape(4096, 2048, 151936)]
TOLERANCE = {  # the statistics in nats; bfloat16: the gradient itself is stored in it (8 bits)
    "float32": {"logp": 1e-4, "entropy": 1e-4, "certainty": 1e-4, "gradient": 1e-4},
    "bfloat16": {"logp": 1e-3, "entropy": 1e-3, "certainty": 1e-3, "gradient": 1e-2},
}
GOALS = {"x two_gemms": 1.20, "x trl": 0.40, "MiB beside the residual": 64.0}
MIB = 2**20

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class Off(Exception):
    """Ours differs from float64 by more than the tolerance."""


class Steps:
    """A bar with the time left in a terminal, one plain line a step elsewhere."""

    def __init__(self, total: int, bar: Progress | None) -> None:
        self.total, self.done, self.bar, self.started = total, 0, bar, time.monotonic()
        self.task = None if bar is None else bar.add_task("starting", total=total)

    def tick(self, what: str) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, description=what)
            return
        left = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        print(f"{self.done}/{self.total} {what} · about {left:.0f} s left", flush=True)

    def skip(self, steps: int) -> None:
        self.total -= steps
        if self.bar is not None:
            self.bar.update(self.task, total=self.total)


@contextmanager
def showing(total: int):
    if not console.is_terminal:
        yield Steps(total, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    shown = {"console": console, "transient": True, "refresh_per_second": 1}  # seldom: it runs beside what is timed
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), **shown) as bar:
        yield Steps(total, bar)


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    if options.memory_of:
        print(json.dumps(_measure_memory(options)))
        return 0
    names, absent = _choose(options)
    common = {"command": _command(options), **timing.environment(options.device)}
    try:
        if options.device == "cuda":
            common["card"] = timing.card_rates(getattr(torch, options.dtype))
        with showing(len(options.shape) * len(names) * (options.repeats + 2)) as steps:
            for shape in options.shape:
                record = {**common, **_run(shape, names, options, absent, steps)}
                _show(record)
                _append(options.out, record)
    except Off as problem:
        console.print(f"[red]OFF[/red] {problem}. Nothing of this shape was timed.")
        return 1
    except KeyboardInterrupt:
        console.print(f"interrupted; the shapes that were finished are in {options.out}")
        return 130
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.token_stats", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", type=_shape, action="append", metavar="N,H,V", help="repeatable")
    parser.add_argument("--repeats", type=_positive, default=5)
    parser.add_argument("--dtype", choices=TOLERANCE, help="float32; on CUDA bfloat16")
    parser.add_argument("--only", type=_names, metavar="NAME,NAME", help=", ".join(METHODS))
    parser.add_argument("--out", type=Path, default=timing.ROOT / "benchmarks/results/token_stats.jsonl")
    parser.add_argument("--memory-of", choices=METHODS, help=argparse.SUPPRESS)  # what the fresh process is told
    options = parser.parse_args(argv)
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.dtype = options.dtype or ("bfloat16" if options.device == "cuda" else "float32")
    options.shape = options.shape or (CUDA_SHAPES if options.device == "cuda" else SHAPES)
    return options


def _shape(text: str) -> Shape:
    try:
        n, h, v = (_positive(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: N,H,V, each 1 or more, is needed") from None
    return Shape(n, h, v)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(f"{text}: 1 or more is needed")
    return int(text)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: valid are {', '.join(METHODS)}")
    return names


def _command(options: argparse.Namespace) -> str:
    """As it would be typed to repeat this, every default written out; without --out, which may be a private path."""
    shapes = " ".join(f"--shape {','.join(map(str, shape))}" for shape in options.shape)
    only = f" --only {','.join(options.only)}" if options.only else ""
    return f"python -m benchmarks.token_stats {shapes} --repeats {options.repeats} --dtype {options.dtype}{only}"


def _choose(options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The methods to run, and those that cannot be had with the reason; what needs a card is not missed without one."""
    names, absent = options.only or list(METHODS), {}
    for name in names:
        reason = peers.unavailable(name, options.device)
        if reason and (options.only or reason != "needs CUDA"):
            _leave_out(name, reason, absent)
    return [name for name in names if not peers.unavailable(name, options.device)], absent


def _leave_out(name: str, reason: str, absent: dict[str, str], detail: object = "") -> None:
    """The detail is for the screen only: messages of other packages may name folders."""
    absent[name] = reason
    console.print(f"{name} is left out: {reason} {detail}".rstrip(), markup=False)


def _run(shape: Shape, names: list[str], options: argparse.Namespace, absent: dict[str, str], steps: Steps) -> dict:
    """The record of one shape; raises Off."""
    load, absent = os.getloadavg()[0], dict(absent)
    problem = peers.make_problem(shape, getattr(torch, options.dtype), options.device)
    calls, parity = _check(problem, names, options, absent, steps)
    times = timing.alternate(calls, options.repeats, options.device, lambda name: steps.tick(f"{name} {_label(shape)}"))
    del problem, calls  # before other processes need the memory
    timing.release(options.device)
    memory = {name: _memory_in_fresh_process(name, shape, options, steps) for name in times}
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "shape": shape._asdict(), "dtype": options.dtype, "seed": peers.SEED, "repeats": options.repeats,
        "load_before": round(load, 2), "left_out": absent, "parity": parity, "tolerance": TOLERANCE[options.dtype],
        "seconds": times, "median_s": {name: median(runs) for name, runs in times.items()},
        "extra_bytes": memory, "residual_bytes": _residual(shape, options.dtype),
    }  # fmt: skip
    record["ratio"] = {base: _ratios(record["median_s"], base) for base in ("two_gemms", "trl", "trl_2048", "one_gemm")}
    record["goals"] = _goals(record)
    return record


def _check(
    problem: Problem, names: list[str], options: argparse.Namespace, absent: dict[str, str], steps: Steps
) -> tuple[dict[str, Call], dict[str, dict]]:
    """The calls that work, each run once, and how far each is from float64. A peer that fails is left out."""
    right, calls, parity = peers.exact(problem), {}, {}
    for name in names:
        got = _try(name, problem, absent)
        if got is None:
            steps.skip(options.repeats + 2)
            continue
        calls[name], output = got
        parity[name] = peers.errors(output, right)
        steps.tick(f"{name} parity")
    _show_parity(parity, TOLERANCE[options.dtype])
    bad = {name: parity[name] for name in parity if name in OURS and _off(parity[name], TOLERANCE[options.dtype])}
    if bad:
        raise Off(", ".join(f"{name}: {', '.join(_off(e, TOLERANCE[options.dtype]))}" for name, e in bad.items()))
    return calls, parity


def _try(name: str, problem: Problem, absent: dict[str, str]) -> tuple[Call, Output] | None:
    try:
        call = METHODS[name](problem)
        return call, call()
    except Exception as error:
        unknown_backend = name.startswith("triton") and isinstance(error, ValueError | ImportError)
        if name in OURS and not unknown_backend:
            raise
        _leave_out(name, f"failed with {type(error).__name__}", absent, error)
        return None


def _off(errors: dict[str, float | None], tolerance: dict[str, float]) -> list[str]:
    """The measures that are out of tolerance; NaN is."""
    return [name for name, most in tolerance.items() if errors[name] is not None and not errors[name] <= most]


def _memory_in_fresh_process(name: str, shape: Shape, options: argparse.Namespace, steps: Steps) -> int | None:
    """Peak extra bytes of one call, measured where nothing ran before."""
    words = ["--memory-of", name, "--shape", ",".join(map(str, shape)), "--dtype", options.dtype]
    paths = os.pathsep.join(path or "." for path in sys.path)  # pytest adds some that are not in the environment
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.token_stats", *words],
        cwd=timing.ROOT, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    steps.tick(f"{name} memory {_label(shape)}")
    if done.returncode:
        console.print(f"{name}: its memory could not be measured (exit code {done.returncode})", markup=False)
        return None
    return json.loads(done.stdout.splitlines()[-1])["extra_bytes"]


def _measure_memory(options: argparse.Namespace) -> dict:
    """In the fresh process: a tiny run loads libraries and starts threads, then one call at full size is watched.
    Random targets do, and finding the likeliest ones would make the matrix library keep its buffers beforehand."""
    (shape,), dtype, build = options.shape, getattr(torch, options.dtype), METHODS[options.memory_of]
    tiny = Shape(min(shape.n, 64), shape.h, min(shape.v, 1024))
    build(peers.make_problem(tiny, dtype, options.device, likely_targets=False))()
    problem = peers.make_problem(shape, dtype, options.device, likely_targets=False)
    return {"extra_bytes": timing.peak_extra(lambda: build(problem)(), options.device)}


def _residual(shape: Shape, dtype: str) -> int:
    """R in float32 and the gradient of hidden: what any method with a frozen head and our backward pass must hold."""
    return shape.n * shape.h * (4 + getattr(torch, dtype).itemsize)


def _ratios(medians: dict[str, float], base: str) -> dict[str, float]:
    """To one GEMM for forward passes, to the other methods for forward and backward."""
    if base not in medians:
        return {}
    alike = [name for name in medians if (name in FORWARD) == (base in FORWARD)]
    return {name: medians[name] / medians[base] for name in alike}


def _main_method(record: dict) -> str | None:
    """The one the goals are about: Triton where it runs."""
    return next((name for name in ("triton", "torch") if name in record["median_s"]), None)


def _goals(record: dict) -> list[dict]:
    """Value and whether it meets the goal; None where it was not measured."""
    ours = _main_method(record)
    if ours is None:
        return []
    extra = record["extra_bytes"].get(ours)
    values = {
        "x two_gemms": record["ratio"]["two_gemms"].get(ours),
        "x trl": record["ratio"]["trl"].get(ours),
        "MiB beside the residual": None if extra is None else (extra - record["residual_bytes"]) / MIB,
    }
    return [
        {"method": ours, "goal": goal, "most": most, "value": values[goal],
         "met": None if values[goal] is None else values[goal] <= most}
        for goal, most in GOALS.items()
    ]  # fmt: skip


def _append(path: Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _label(shape: Shape) -> str:
    return f"{shape.n} x {shape.h} x {shape.v}"


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def _show_parity(parity: dict[str, dict], tolerance: dict[str, float]) -> None:
    table = Table(title="Largest error against float64")
    for column in ("method", *peers.MEASURES, "by row", ""):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, errors in parity.items():
        off = _off(errors, tolerance)
        verdict = f"off: {', '.join(off)}" if off else "ok"
        if any(value is not None for value in errors.values()):
            cells = [_number(value, ".1e") for value in errors.values()]
            table.add_row(name, *cells, verdict, style="red" if off else None)
    console.print(table)


def _show(record: dict) -> None:
    table = Table(title=f"{_label(Shape(**record['shape']))} {record['dtype']}, {record['repeats']} runs each")
    columns = ("method", "median s", "spread", "x two_gemms", "x trl", "x one_gemm", "extra MiB", "beside residual")
    for column in columns + (("GEMM rate", "copy rate") if "card" in record else ()):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, runs in record["seconds"].items():
        table.add_row(name, *_row(record, name, runs), style="bold" if name == _main_method(record) else None)
    console.print(table)
    for goal in record["goals"]:
        verdict = {None: "not measured", True: "met", False: "NOT MET"}[goal["met"]]
        value = _number(goal["value"]) or "-"
        console.print(f"{goal['method']}: {value} {goal['goal']}, goal <= {goal['most']}: {verdict}")
    beside = record["ratio"]["trl_2048"].get(_main_method(record))
    if beside is not None:
        console.print(f"without a goal: {beside:.2f} x trl_2048, the same TRL function with smaller tiles")


def _row(record: dict, name: str, runs: list[float]) -> list[str]:
    extra, ratio, seconds = record["extra_bytes"][name], record["ratio"], record["median_s"][name]
    beside = None if extra is None or name in FORWARD else (extra - record["residual_bytes"]) / MIB
    cells = [_number(seconds, ".4f"), f"{min(runs):.4f}-{max(runs):.4f}"]
    cells += [_number(ratio[base].get(name)) for base in ("two_gemms", "trl", "one_gemm")]
    cells += [_number(None if extra is None else extra / MIB, ".1f"), _number(beside, ".1f")]
    return cells + ([f"{share:.0%}" for share in _shares(record, name)] if "card" in record else [])


def _shares(record: dict, name: str) -> tuple[float, float]:
    """Of the card's product and copy rates, counting what must be done: two products (one in a forward pass), each
    reading the weight once, the hidden states read once and their gradient written once."""
    shape, item = Shape(**record["shape"]), getattr(torch, record["dtype"]).itemsize
    passes, seconds = 1 if name in FORWARD else 2, record["median_s"][name]
    flop, moved = 2 * passes * shape.n * shape.h * shape.v, passes * (shape.v + shape.n) * shape.h * item
    card = record["card"]
    return flop / seconds / card["gemm_flop_per_s"], moved / seconds / card["copy_bytes_per_s"]


if __name__ == "__main__":
    sys.exit(main())
