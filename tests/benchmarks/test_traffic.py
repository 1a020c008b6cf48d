"""The instrument counts exactly, and what it finds on our kernels is what their text says."""

import json
from importlib.util import find_spec

import pytest
import torch

triton = pytest.importorskip("triton")
if not triton.knobs.runtime.interpret:
    pytest.skip("bytes are counted in Triton's interpreter (TRITON_INTERPRET=1)", allow_module_level=True)

import triton.language as tl  # noqa: E402

from benchmarks import traffic  # noqa: E402


@triton.jit
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Per program: BLOCK columns under a mask, and one number without."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, x.to(tl.float32) + tl.load(x_ptr), mask=at < n)


@triton.jit
def atomic_kernel(x_ptr):
    tl.atomic_add(x_ptr, 1.0)


def ours_forward(v):
    """2V for the row; heat, target and five numbers of state per part of 16,384 columns, read again by close_kernel;
    the target's logit, read, stored and read again; nine outputs."""
    return 2 * v + -(-v // 16384) * (4 + 8 + 20 + 20) + (2 + 4 + 4) + 36


def ours_backward(v):
    """4V; per block of 4,096 columns heat, target, six saved numbers and the three gradients, one of them twice."""
    return 4 * v + -(-v // 4096) * (4 + 8 + 24 + 16)


def test_masked_lanes_are_counted_and_no_others():
    x, out = torch.randn(100).bfloat16(), torch.zeros(100)
    with traffic.counting() as counted:
        copy_kernel[(4,)](x, out, 100, BLOCK=32)
    assert (counted.loaded, counted.stored) == (100 * 2 + 4 * 2, 100 * 4)
    assert torch.equal(out, x.float() + x[0].float())
    copy_kernel[(4,)](x, out, 100, BLOCK=32)
    assert counted.bytes == 608  # only inside the block


def test_atomic_operations_are_refused():
    with traffic.counting(), pytest.raises(triton.runtime.errors.InterpreterError, match="not counted"):
        atomic_kernel[(1,)](torch.zeros(1))


@pytest.mark.parametrize("v", [300, 4096, 4097, 40000])
def test_ours_moves_what_its_text_says(v):
    assert traffic.measure(traffic.METHODS["ours"], 2, v) == (ours_forward(v), ours_backward(v), [])


def test_ours_stays_near_the_floors():
    for v in (32768, 50257, 151936):
        assert max(ours_forward(v) / (2 * v), ours_backward(v) / (4 * v)) < 1.02
    assert ours_forward(4096) / (2 * 4096) < 1.015


def test_large_torch_operations_are_seen_in_both_passes():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            copy_kernel[(1,)](x, torch.empty(32), 32, BLOCK=32)
            return torch.empty_like(x).copy_(x).view(8, 4).sum(1)[:2]

        @staticmethod
        def backward(ctx, g):
            copy_kernel[(1,)](g, torch.empty(2), 2, BLOCK=32)
            return g.new_zeros(32)

    x = torch.randn(32, requires_grad=True)
    assert traffic.measure(lambda n, v: (x, lambda: (Doubled.apply(x),)), 1, 32).operations == [
        "copy_",
        "new_zeros",
        "sum",
    ]


def test_nothing_interpreted_is_not_nothing_moved():
    x = torch.randn(4, requires_grad=True)
    with pytest.raises(RuntimeError, match="no kernel ran"):
        traffic.measure(lambda n, v: (x, lambda: (2 * x,)), 1, 4)


@pytest.mark.parametrize("name", list(traffic.PACKAGES))
def test_peers_read_the_row_at_least_once(name):
    if find_spec(traffic.PACKAGES[name]) is None:
        pytest.skip(f"{traffic.PACKAGES[name]} is not installed")
    forward, backward, _ = traffic.measure(traffic.METHODS[name], 2, 5000)
    assert 10_000 < forward < 1.02 * 10_000 and 20_000 < backward < 1.02 * 20_000


def test_the_command_writes_a_line_and_leaves_out_what_is_not_installed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(traffic, "find_spec", lambda name: None)
    out = tmp_path / "new" / "out.jsonl"
    assert traffic.main(["--v", "300,32768", "--rows", "1", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "trl is left out: trl is not installed" in shown and "Goals met" in shown
    (record,) = map(json.loads, out.read_text().splitlines())
    assert record["missed"] == [] and set(record["left_out"]) == {"trl", "liger"}
    assert [(x["method"], x["v"]) for x in record["bytes_per_token"]] == [("ours", 300), ("ours", 32768)]
    assert record["command"] == "python -m benchmarks.traffic --v 300,32768 --rows 1" and str(tmp_path) not in str(
        record
    )


def test_a_missed_goal_is_an_error(monkeypatch, tmp_path, capsys):
    for forward, operations in ((1.021, []), (1.0, ["copy_"])):
        bad = traffic.Measured(forward * 2 * 32768, 4 * 32768, operations)
        monkeypatch.setattr(traffic, "measure", lambda *_, bad=bad: bad)
        assert traffic.main(["--v", "32768", "--out", str(tmp_path / "out.jsonl")]) == 1
        assert "Goals MISSED: V=32768" in capsys.readouterr().out
