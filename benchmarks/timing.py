"""Seconds, peak memory, the rates of a card, and what the machine is. Knows nothing of the methods it runs.

Seconds: methods take turns, each round in an order of its own, so that a machine that slows down or another job on it
hits all alike. Memory on Linux: the highest resident set of the process, reset before the call; the kernel counts it
per core and adds up now and then, so it is right to a few hundred KiB. Elsewhere it is not measured (None).
"""

import ctypes
import gc
import os
import platform
import random
import subprocess
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
import torch

ROOT = Path(__file__).parent.parent
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def seconds(call: Callable[[], object], device: str) -> float:
    """Of one call; what it returns is dropped after the clock has stopped."""
    if device != "cuda":
        start = time.perf_counter()
        kept = call()  # noqa: F841
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    kept = call()  # noqa: F841
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def alternate(
    calls: dict[str, Callable[[], object]], repeats: int, device: str, tick: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds of every call, round by round; tick(name) after each."""
    times = {name: [] for name in calls}
    for turn in range(repeats):
        order = list(calls)
        random.Random(turn).shuffle(order)
        for name in order:
            gc.collect()
            times[name].append(seconds(calls[name], device))
            tick(name)
    return times


def peak_extra(build_and_call: Callable[[], object], device: str) -> int | None:
    """Bytes by which memory grows at most during the call; None where that cannot be measured."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        build_and_call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    found = resident(build_and_call)
    return None if found is None else found.peak - found.before


class Resident(NamedTuple):
    """Bytes of this process in memory: when a call began, at most during it, and at most until it began."""

    before: int
    peak: int
    earlier: int


def resident(call: Callable[[], object]) -> Resident | None:
    """None, and no call, where it cannot be measured."""
    gc.collect()
    _give_back_free_memory()
    try:
        earlier = _status("VmHWM")
        CLEAR.write_text("5")  # VmHWM starts again from VmRSS
        before = _status("VmRSS")
    except (OSError, KeyError):
        return None
    call()
    return Resident(before, _status("VmHWM"), earlier)


def workers() -> int:
    """Bytes of all processes that this one started and that still run; of what processes share, each has its part.

    Where that cannot be told, what is shared counts once for each.
    """
    found = [process.memory_full_info() for process in psutil.Process().children(recursive=True)]
    return sum(getattr(memory, "pss", memory.rss) for memory in found)


def release(device: str) -> None:
    """Cached memory of the card back, for other processes."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def _status(key: str) -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def _give_back_free_memory() -> None:
    """Freed memory that malloc keeps is resident already: a call that took it would look smaller than it is."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def card_rates(dtype: torch.dtype) -> dict[str, float]:
    """Bytes per second of a copy on the device (read and write counted), operations per second of a large product."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target, a = torch.empty_like(source), torch.randn(8192, 8192, device="cuda").to(dtype)
    out = torch.empty_like(a)
    copying = _median_seconds(lambda: target.copy_(source))
    product = _median_seconds(lambda: torch.mm(a, a, out=out))
    return {"copy_bytes_per_s": 2 * source.numel() / copying, "gemm_flop_per_s": 2 * 8192**3 / product}


def _median_seconds(call: Callable[[], object]) -> float:
    call()
    return median(seconds(call, "cuda") for _ in range(10))


def environment(device: str) -> dict:
    """The machine and what is installed; no paths and no names of hosts."""
    names = ("torch", "triton", "trl", "transformers", "peft", "accelerate", "verl", "cut-cross-entropy")
    return {
        "git": git_state(),
        "device": device,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in names}},
    }


def git_state() -> dict:
    """Commit, and whether the tree differs from it; the results are left out, as they grow while this runs."""
    try:
        commit = _git("rev-parse", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results").strip()
        return {"commit": commit, "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines: Iterable[str] = path.read_text().splitlines() if path.exists() else ()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
