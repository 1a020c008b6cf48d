"""Registers, spills and shared memory of our Triton kernels, compiled for seven architectures without a GPU.

    python -m benchmarks.compiled                      # about five minutes on one core; the second time seconds
    python -m benchmarks.compiled --arch 86,90 --dtypes bfloat16
    python -m benchmarks.compiled --write              # also puts the table in kernels/README.md

The launchers of vocab_kernels.triton_backend run on CPU tensors, but in place of the kernels stands a recorder. So
block sizes, warps, constants and alignments are those that the launchers choose, and Triton's own binder turns the
arguments into what is compiled; nothing is written down twice. Recorded are: bfloat16, float16 and float32; with and
without a softcap; rows by index or all; row lengths that are multiples of 16 or not; a head with and without bias; 0, 1
or 2 residuals; a full tile and a narrow last one. Gradients of all three outputs are asked for, which is the most code;
float64 (--dtypes) is not in the default.

Exit code 1 where a kernel does not compile, is left to fuse multiplications with additions, spills, takes more than
99 KB of shared memory (the most a program may have on sm_86, 89 and 120), or is not launched at all. sm_75 is shown,
not judged. 130: interrupted.

It says nothing about speed, occupancy or whether the results are right, and nothing was run on a GPU.
`create_function_from_signature` and `_pack_args` are not public: a new Triton may need a change here.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature
from vocab_kernels import triton_backend, triton_kernels
from vocab_kernels.frozen import Residuals
from vocab_kernels.head import Layer, Options
from vocab_kernels.tiles import Rows, Upstream

from benchmarks import readme
from benchmarks.token_stats import Steps, console, showing

ARCHS = (75, 80, 86, 89, 90, 100, 120)
JUDGED = ARCHS[1:]
DTYPES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
DEFAULT_DTYPES = ("bfloat16", "float16", "float32")
SHARED = 99 * 1024
ROWS, HIDDEN, SOFTCAP = 2, 1024, 30.0  # HIDDEN: as many as _rescale takes at once
LOGITS_WIDTHS = (50257, 49152)  # odd: no row but the first is aligned; a multiple of 16
NARROW = 300  # columns of the last tile: the fewest warps, and a width that is not a multiple of 16
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Launch(NamedTuple):
    """A kernel's name and what a launcher gave it."""

    kernel: str
    args: tuple
    named: dict[str, Any]


class Usage(NamedTuple):
    """Registers of a thread; bytes that a thread spills (local memory and stack); bytes of shared memory."""

    registers: int
    spill: int
    shared: int
    variant: str = ""


class Recorder:
    """Stands in for the module triton_kernels: every launch is noted, none is run."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []

    def __getattr__(self, kernel: str):
        note = self.launches.append

        class Kernel:
            def __getitem__(self, grid):
                return lambda *args, **named: note(Launch(kernel, args, named))

        return Kernel()


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    if triton_backend.INTERPRETED:
        console.print("the kernels are interpreted and cannot be compiled: set TRITON_INTERPRET=0")
        return 2
    try:
        launches = record(options.dtypes)
        found, faults = _compile(launches, options.arch)
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written")
        return 130
    _show(found)
    faults = [f"{name} is not launched: record() must cover it" for name in missing(launches)] + faults
    for fault in faults:
        console.print(f"[red]FAULT[/red] {fault}")
    if options.write:
        readme.put("compiled", _markdown(found, faults))
    return 1 if faults else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.compiled", description=__doc__.split("\n")[0])
    parser.add_argument("--arch", type=_archs, default=ARCHS, metavar="N,N", help=", ".join(map(str, ARCHS)))
    parser.add_argument("--dtypes", type=_dtypes, default=DEFAULT_DTYPES, metavar="NAME,NAME", help=", ".join(DTYPES))
    parser.add_argument("--write", action="store_true", help="put the table in kernels/README.md")
    options = parser.parse_args(argv)
    if options.write and (tuple(options.arch), tuple(options.dtypes)) != (ARCHS, DEFAULT_DTYPES):
        parser.error("--write is for the whole table: without --arch and --dtypes")
    return options


def _archs(text: str) -> tuple[int, ...]:
    return _among(text, {str(arch): arch for arch in ARCHS})


def _dtypes(text: str) -> tuple[str, ...]:
    return _among(text, {name: name for name in DTYPES})


def _among(text: str, valid: dict[str, Any]) -> tuple:
    unknown = [word for word in text.split(",") if word not in valid]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: valid are {', '.join(valid)}")
    return tuple(valid[word] for word in dict.fromkeys(text.split(",")))


def record(dtypes: tuple[str, ...]) -> list[Launch]:
    """What the launchers launch, for every case in the module's text."""
    recorder = Recorder()
    with mock.patch.object(triton_backend, "kernels", recorder):
        for dtype in (getattr(torch, name) for name in dtypes):
            for softcap in (None, SOFTCAP):
                for width in LOGITS_WIDTHS:
                    _launch_logits(dtype, softcap, width)
                _launch_linear(dtype, softcap)
    return recorder.launches


def _launch_logits(dtype: torch.dtype, softcap: float | None, width: int) -> None:
    """The arrays hold what happens to be in memory: no number in them chooses a kernel."""
    logits, targets = torch.empty(ROWS, width, dtype=dtype), torch.zeros(ROWS, dtype=torch.int64)
    options, out = Options(1.0, softcap, 2**27), torch.empty(ROWS, width, dtype=dtype)
    for index in (None, targets):
        saved = Rows(*triton_backend.logits_stats(logits, index, targets, width, options)[3:])
        triton_backend.logits_gradient(logits, index, targets, width, options, saved, _upstream(saved), out)


def _launch_linear(dtype: torch.dtype, softcap: float | None) -> None:
    hidden, targets = torch.empty(ROWS, HIDDEN, dtype=dtype), torch.zeros(ROWS, dtype=torch.int64)
    weight = torch.empty(triton_backend.TILE[max(dtype.itemsize, 4)] + NARROW, HIDDEN, dtype=dtype)
    options = Options(1.0, softcap, 2**27)
    for bias in (None, torch.empty(len(weight), dtype=dtype)):
        layer = Layer(hidden, weight, bias, None, None, targets)
        kept = [None, *(Residuals.empty(hidden, layer.dtype, entropy) for entropy in (False, True))]
        for residuals in kept:
            saved = Rows(*triton_backend.linear_stats(layer, options, residuals)[3:])
        wanted = [torch.zeros(ROWS, HIDDEN, dtype=layer.dtype), None, None, None, None]
        triton_backend.linear_gradient(layer, options, saved, _upstream(saved), wanted)


def _upstream(saved: Rows) -> Upstream:
    return Upstream(*(torch.empty_like(saved.top) for _ in range(3)))


def missing(launches: list[Launch]) -> list[str]:
    """The kernels of ours that nothing launches."""
    ours = [name for name, value in vars(triton_kernels).items() if name.endswith("_kernel") and hasattr(value, "fn")]
    return sorted(set(ours) - {launch.kernel for launch in launches})


def _compile(launches: list[Launch], archs: tuple[int, ...]) -> tuple[dict, list[str]]:
    """{(kernel, arch): usages of its variants}, and what is wrong."""
    found, faults = defaultdict(list), []
    jobs = [(arch, kernel, group) for arch in archs for kernel, group in _variants(launches, arch).items()]
    with showing(sum(len(group) for _, _, group in jobs) if console.is_terminal else len(jobs)) as steps:
        for arch, kernel, group in jobs:
            found[kernel, arch] = _compile_kernel(kernel, arch, group, faults, steps)
            faults += judge(kernel, arch, found[kernel, arch])
    return dict(found), faults


def _compile_kernel(kernel: str, arch: int, group: list, faults: list[str], steps: Steps) -> list[Usage]:
    """One step of the bar a variant, or one line a kernel where there is no bar."""
    usages = []
    for source, options in group:
        if options["enable_fp_fusion"]:  # the interpreter cannot show what that does to z - top
            faults.append(f"{kernel} on sm_{arch} is compiled with fused multiply-add")
        try:
            usages.append(measure(source, options, arch))
        except Exception as error:  # whatever the compiler raises: the other variants are still to be seen
            faults.append(f"{kernel} on sm_{arch} does not compile: {type(error).__name__}")
        if steps.bar is not None:
            steps.tick(f"{kernel} sm_{arch}")
    if steps.bar is None:
        steps.tick(f"{kernel} sm_{arch}")
    return usages


def _variants(launches: list[Launch], arch: int) -> dict[str, list[tuple[ASTSource, dict]]]:
    """By kernel, what Triton would compile on that architecture for these launches, each once."""
    backend, unique = make_backend(_target(arch)), {}
    for launch in launches:
        source, options = _bind(launch, backend)
        unique.setdefault((launch.kernel, source.hash(), str(options)), (source, options))
    grouped = defaultdict(list)
    for (kernel, _, _), variant in unique.items():
        grouped[kernel].append(variant)
    return grouped


def _bind(launch: Launch, backend: Any) -> tuple[ASTSource, dict]:
    """As JITFunction.run does before it compiles."""
    kernel = getattr(triton_kernels, launch.kernel)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, named = bind(*launch.args, **launch.named)
    options, *parts = kernel._pack_args(backend, dict(launch.named), bound, specialization, named)
    return ASTSource(kernel, *parts), options.__dict__


def _target(arch: int) -> GPUTarget:
    return GPUTarget("cuda", arch, 32)


def measure(source: ASTSource, options: dict, arch: int) -> Usage:
    """Of one compiled variant. The compiler's figure for shared memory includes what is asked for at the launch."""
    compiled = triton.compile(source, target=_target(arch), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        words = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        usage = parse(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return usage._replace(shared=max(usage.shared, compiled.metadata.shared), variant=_label(source))


def _label(source: ASTSource) -> str:
    """What sets a variant apart: type of its input, constants, and whether rows of x are aligned."""
    names = source.fn.arg_names
    constants = [f"{names[i]}={value}" for (i,), value in source.constants.items() if names[i].isupper()]
    aligned = "x_row" in names and bool(source.attrs.get((names.index("x_row"),)))
    return " ".join([source.signature.get("x_ptr", ""), *constants, "aligned" if aligned else "unaligned"]).strip()


def parse(text: str) -> Usage:
    """From cuobjdump's lines, one per function; ValueError where there is none."""
    lines = [tuple(map(int, numbers)) for numbers in RESOURCES.findall(text)]
    if not lines:
        raise ValueError("cuobjdump names no resources")
    return Usage(*worst([Usage(registers, stack + local, shared) for registers, stack, shared, local in lines]))


def worst(usages: list[Usage]) -> tuple[int, int, int]:
    """Of each figure by itself: they need not be those of one variant."""
    return tuple(max(column) for column in zip(*(usage[:3] for usage in usages), strict=True))


def judge(kernel: str, arch: int, usages: list[Usage]) -> list[str]:
    """What breaks the rules, in words."""
    if arch not in JUDGED or not usages:
        return []
    faults = []
    for name, most, of in (("spills", 0, lambda u: u.spill), ("takes in shared memory", SHARED, lambda u: u.shared)):
        over = sorted((u for u in usages if of(u) > most), key=of)
        if over:
            text = f"{kernel} on sm_{arch} {name} {of(over[-1])} bytes, more than {most},"
            faults.append(f"{text} in {len(over)} of {len(usages)} variants: {over[-1].variant}")
    return faults


def _show(found: dict[tuple[str, int], list[Usage]]) -> None:
    table = Table(title=f"Worst of all variants, Triton {triton.__version__}")
    for column in ("kernel", "arch", "variants", "registers", "spilled bytes", "shared bytes"):
        table.add_column(column, justify="left" if column == "kernel" else "right")
    for (kernel, arch), usages in sorted(found.items()):
        cells = map(str, worst(usages)) if usages else ("-",) * 3
        table.add_row(kernel, f"sm_{arch}", str(len(usages)), *cells)
    console.print(table)


def _markdown(found: dict[tuple[str, int], list[Usage]], faults: list[str]) -> str:
    kernels = sorted({kernel for kernel, _ in found})
    rows = [[f"`{kernel}`", *(_cell(found[kernel, arch]) for arch in ARCHS)] for kernel in kernels]
    variants = sum(len(usages) for (_, arch), usages in found.items() if arch == JUDGED[0])
    covered = f"{', '.join(DEFAULT_DTYPES)}; {variants} variants"
    verdict = f"met: no spill, at most {SHARED // 1024} KB of shared memory"
    if faults:
        verdict = "\n".join(["NOT met:", "", *(f"- `{fault}`" for fault in faults)])
    return f"""## What the compiler makes of the kernels
Registers of a thread / bytes it spills / bytes of shared memory: of each the worst of all variants that the launchers
produce ({covered}), compiled without a GPU; nothing here was timed.
The rules for sm_80 to sm_120 are {verdict}

{readme.markdown(["kernel", *(f"sm_{arch}" for arch in ARCHS)], rows)}

`python -m benchmarks.compiled --write`, Triton {triton.__version__}"""


def _cell(usages: list[Usage]) -> str:
    return " / ".join(map(str, worst(usages))) if usages else "-"


if __name__ == "__main__":
    sys.exit(main())
