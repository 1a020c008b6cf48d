"""The benchmark through its real main, on tiny shapes: what a reader of a line needs, and that it cannot flatter."""

import json
import os

import pytest
import torch

from benchmarks import peers, timing, token_stats

TINY = ["--shape", "40,16,300", "--repeats", "2", "--dtype", "float32"]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def no_processes(monkeypatch):
    """Without the fresh processes, which take seconds each."""
    monkeypatch.setattr(token_stats, "_memory_in_fresh_process", lambda *_: 3 * 2**20)


@pytest.fixture
def bench(tmp_path):
    """Runs main; its exit code and the lines it wrote."""

    def run(*words):
        out = tmp_path / "new" / "out.jsonl"
        code = token_stats.main([*TINY, "--out", str(out), *words])
        return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    return run


def test_a_line_says_what_a_reader_needs(bench, no_processes, tmp_path):
    names = ["two_gemms", "eager", "torch", "one_gemm", "torch_forward"]
    code, records = bench("--shape", "8,4,50", "--only", ",".join(names))
    assert code == 0 and [r["shape"] for r in records] == [{"n": 40, "h": 16, "v": 300}, {"n": 8, "h": 4, "v": 50}]
    record = records[0]
    assert list(record["seconds"]) == names and all(len(x) == 2 and min(x) > 0 for x in record["seconds"].values())
    runs = record["seconds"]["torch"]
    assert record["median_s"]["torch"] == sum(runs) / 2
    assert record["ratio"]["two_gemms"]["torch"] == record["median_s"]["torch"] / record["median_s"]["two_gemms"]
    assert set(record["ratio"]["one_gemm"]) == {"one_gemm", "torch_forward"} and record["ratio"]["trl"] == {}
    assert record["parity"]["torch"]["gradient_row"] < 1e-4 and record["parity"]["eager"]["certainty"] < 1e-5
    assert record["residual_bytes"] == 40 * 16 * 8 and record["extra_bytes"]["torch"] == 3 * 2**20
    assert record["seed"] == 0 and record["dtype"] == "float32" and record["versions"]["torch"] == torch.__version__
    assert record["cpu"] and record["cores"] >= 1 and record["torch_threads"] == torch.get_num_threads()
    assert record["command"].endswith("--repeats 2 --dtype float32 --only two_gemms,eager,torch,one_gemm,torch_forward")
    text = json.dumps(record)
    assert str(tmp_path) not in text and str(timing.ROOT) not in text and os.uname().nodename not in text


def test_goals_are_judged_from_the_measurements(bench, no_processes):
    _, (record,) = bench("--only", "two_gemms,torch")
    time, trl, memory = record["goals"]
    assert time["value"] == record["ratio"]["two_gemms"]["torch"] and time["met"] == (time["value"] <= 1.2)
    assert trl["value"] is None and trl["met"] is None
    assert memory["value"] == pytest.approx(3 - 40 * 16 * 8 / 2**20) and memory["met"] is True


@pytest.mark.parametrize("field", peers.MEASURES)
@pytest.mark.parametrize("wrong", [1e-2, float("nan")])
def test_ours_off_is_an_error_and_writes_nothing(bench, monkeypatch, capsys, field, wrong):
    right = peers.METHODS["torch"]

    def broken(problem):
        call = right(problem)
        return lambda: (out := call())._replace(**{field: getattr(out, field) + wrong})

    monkeypatch.setitem(peers.METHODS, "torch", broken)
    assert bench("--only", "torch,two_gemms") == (1, [])
    assert f"torch: {field}" in capsys.readouterr().out


def test_a_peer_that_is_off_is_shown_and_kept(bench, no_processes, monkeypatch, capsys):
    right = peers.METHODS["eager"]
    monkeypatch.setitem(peers.METHODS, "eager", lambda p: lambda: (out := right(p)())._replace(logp=out.logp + 1e-2))
    code, (record,) = bench("--only", "eager,torch")
    assert code == 0 and record["parity"]["eager"]["logp"] == pytest.approx(1e-2, rel=1e-2)
    assert "off: logp" in capsys.readouterr().out


def test_what_is_not_installed_is_left_out_with_a_line(bench, no_processes, monkeypatch, capsys):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    code, (record,) = bench()
    assert code == 0 and "trl is left out: trl is not installed" in capsys.readouterr().out
    assert set(record["left_out"]) == {"trl", "trl_2048"} and "torch" in record["seconds"]


def test_a_peer_that_fails_is_left_out(bench, no_processes, monkeypatch, capsys):
    def failing(problem):
        raise RuntimeError("/home/someone: no")

    monkeypatch.setitem(peers.METHODS, "eager", failing)
    code, (record,) = bench("--only", "eager,torch")
    assert code == 0 and record["left_out"] == {"eager": "failed with RuntimeError"}
    assert "/home/someone: no" in capsys.readouterr().out


def test_ctrl_c_keeps_the_finished_shapes(bench, monkeypatch):
    def interrupted(name, shape, *_):
        if shape.n == 8:
            raise KeyboardInterrupt
        return None

    monkeypatch.setattr(token_stats, "_memory_in_fresh_process", interrupted)
    code, records = bench("--shape", "8,4,50", "--only", "torch")
    assert code == 130 and [r["shape"]["n"] for r in records] == [40]
    assert records[0]["goals"][2]["met"] is None


def test_trl_agrees_and_makes_no_more_than_it_is_asked_for():
    pytest.importorskip("trl")
    problem = peers.make_problem(peers.Shape(40, 16, 300), torch.float32, "cpu")
    for name in ("trl", "trl_2048"):
        found = peers.errors(peers.METHODS[name](problem)(), peers.exact(problem))
        assert found["certainty"] is None and max(found[k] for k in ("logp", "entropy", "gradient")) < 1e-5


@pytest.mark.skipif(not timing.CLEAR.exists(), reason="the peak of a process can be reset on Linux only")
def test_memory_of_a_fresh_process(bench):
    _, records = bench("--shape", "512,8,16384", "--only", "one_gemm")
    assert records[1]["extra_bytes"]["one_gemm"] == pytest.approx(512 * 16384 * 4, rel=0.1)
