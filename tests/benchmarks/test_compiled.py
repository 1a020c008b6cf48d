"""The compiler's figures: two architectures through the command, and what makes it fail."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("triton")

from vocab_kernels import triton_kernels  # noqa: E402

from benchmarks import compiled, timing  # noqa: E402

LINE = " Function row_kernel:\n  REG:{} STACK:{} SHARED:{} LOCAL:{} CONSTANT[0]:500 TEXTURE:0 SURFACE:0 SAMPLER:0\n"


@pytest.fixture(scope="module")
def table():
    """What the command prints. In a process of its own: here the kernels are interpreted, there they are compiled."""
    paths = os.pathsep.join(path or "." for path in sys.path)  # pytest adds some that are not in the environment
    environment = {**os.environ, "PYTHONPATH": paths, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.compiled", "--arch", "86,90", "--dtypes", "bfloat16"],
        cwd=timing.ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def test_no_kernel_spills_or_takes_too_much_shared_memory(table):
    assert table.returncode == 0, table.stdout + table.stderr
    assert "FAULT" not in table.stdout


def test_every_kernel_is_in_the_table(table):
    source = open(triton_kernels.__file__).read()
    kernels = re.findall(r"^@triton\.jit.*\ndef (\w+_kernel)\(", source, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.stdout.splitlines() if "│" in line]
    assert len(kernels) >= 4 and {(row[0], row[1]) for row in rows} == {
        (k, a) for k in kernels for a in ("sm_86", "sm_90")
    }
    assert all(int(row[2]) >= 1 and 0 < int(row[3]) <= 255 for row in rows)  # variants, registers of a thread


def test_a_kernel_that_nothing_launches_is_found():
    launches = compiled.record(("bfloat16",))
    assert compiled.missing(launches) == []
    assert compiled.missing([x for x in launches if x.kernel != "close_kernel"]) == ["close_kernel"]


@pytest.mark.parametrize(
    "stack, shared, local, word", [(0, 0, 8, "8"), (16, 0, 0, "16"), (0, 99 * 1024 + 1, 0, "101377")]
)
def test_a_spill_or_too_much_shared_memory_fails_from_sm_80_on(stack, shared, local, word):
    usage = compiled.parse(LINE.format(40, stack, shared, local))
    assert usage[:3] == (40, stack + local, shared)
    (fault,) = compiled.judge("row_kernel", 86, [compiled.Usage(30, 0, 0), usage])
    assert f" {word} bytes" in fault and "1 of 2 variants" in fault
    assert compiled.judge("row_kernel", 75, [usage]) == []


def test_the_limits_themselves_pass():
    assert compiled.judge("row_kernel", 86, [compiled.parse(LINE.format(255, 0, 99 * 1024, 0))]) == []


def test_no_resources_are_not_taken_for_none():
    with pytest.raises(ValueError, match="no resources"):
        compiled.parse("Resource usage:\n")


@pytest.mark.parametrize("words", [["--arch", "87"], ["--dtypes", "int8"], ["--write", "--arch", "86"]])
def test_what_cannot_be_asked_for(words, capsys):
    with pytest.raises(SystemExit):
        compiled.main(words)
    assert "error:" in capsys.readouterr().err
