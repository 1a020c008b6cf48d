"""The benchmark through its real main, on lab:base: what a line says, that parity can fail, that peers are not cut."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from benchmarks import rollout, timing
from benchmarks.rollout import METHODS, Drawn, Task, difference, off

TINY = ["--model", "lab:base", "--prompts", "2", "--group", "2", "--tokens", "4", "--repeats", "2"]
KEYS = {
    "command", "git", "device", "cpu", "cores", "torch_threads", "versions", "date", "model", "dtype", "mode", "lora",
    "seed", "prompt_tokens", "copies", "max_tokens", "repeats", "load_before", "left_out", "parity", "tolerance",
    "merge_s", "seconds", "tokens", "tokens_per_s", "median_tokens_per_s", "ours_over",
}  # fmt: skip


@pytest.fixture(autouse=True)
def noisy(monkeypatch):
    """Settings of the whole process stay as they are."""
    monkeypatch.setattr(rollout, "quiet", lambda: None)


@pytest.fixture
def bench(tmp_path):
    """Runs main; its exit code and the lines it wrote."""

    def run(*words):
        out = tmp_path / "new" / "out.jsonl"
        code = rollout.main([*TINY, "--out", str(out), *words])
        return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    return run


@pytest.fixture(scope="module")
def policy():
    return rollout.load("lab:base")


def test_a_line_says_what_a_reader_needs(bench, tmp_path):
    code, (record,) = bench("--mode", "forced")
    assert code == 0 and set(record) >= KEYS and record["left_out"] == {}
    assert list(record["seconds"]) == list(METHODS) and all(found["rows"] == 0 for found in record["parity"].values())
    assert record["parity"]["ours"]["logp"] < 1e-4 and record["parity"]["generate"]["logp"] is None
    assert record["tokens"] == {name: [16, 16] for name in METHODS} and record["prompt_tokens"] == [45, 55]
    rate, peer = record["tokens_per_s"]["ours"], record["tokens_per_s"]["generate"]
    assert (
        rate == [16 / s for s in record["seconds"]["ours"]] and record["median_tokens_per_s"]["ours"] == sum(rate) / 2
    )
    over = record["ours_over"]["generate"]
    assert over["min"] == min(a / b for a, b in zip(rate, peer, strict=True)) and over["max"] >= over["median"]
    assert "ours" not in record["ours_over"] and record["merge_s"] > 0 and record["dtype"] == "float32"
    assert record["command"].endswith("--prompts 2 --group 2 --tokens 4 --mode forced --repeats 2")
    text = json.dumps(record)
    assert str(tmp_path) not in text and str(timing.ROOT) not in text and os.uname().nodename not in text


def test_both_modes_and_a_choice_of_methods(bench):
    _, records = bench("--only", "ours,generate")
    assert [record["mode"] for record in records] == ["forced", "free"]
    assert all(list(record["seconds"]) == ["ours", "generate"] for record in records)
    assert records[0]["merge_s"] is None and records[0]["command"].endswith("--only ours,generate")


@pytest.mark.parametrize("wrong", ["rows", "logp", "nan"])
def test_ours_off_is_an_error_and_writes_nothing(bench, monkeypatch, capsys, wrong):
    right = METHODS["ours"]

    def broken(task, seed):
        drawn = right(task, seed)
        if wrong == "rows":
            return Drawn([row[:-1] for row in drawn.rows], drawn.logp)
        return Drawn(drawn.rows, [[x + (0.01 if wrong == "logp" else float("nan")) for x in row] for row in drawn.logp])

    monkeypatch.setitem(METHODS, "ours", broken)
    assert bench("--only", "ours,generate") == (1, [])
    assert "OFF ours against generate" in capsys.readouterr().out


def test_a_peer_that_is_off_is_shown_and_kept(bench, monkeypatch):
    right = METHODS["generate"]
    monkeypatch.setitem(METHODS, "generate", lambda task, seed: Drawn([[0] + row for row in right(task, seed).rows]))
    code, (record,) = bench("--only", "ours,generate", "--mode", "free")
    assert code == 0 and record["parity"]["generate"]["rows"] == 2 and record["seconds"]["generate"]


def test_a_peer_that_cannot_run_is_said_in_one_line(bench, monkeypatch, capsys):
    def failing(task, seed):
        raise RuntimeError("/home/someone:\n needs a GPU")

    monkeypatch.setitem(METHODS, "continuous", failing)
    code, (record,) = bench("--only", "ours,continuous", "--mode", "free")
    assert code == 0 and record["left_out"] == {"continuous": "could not run: RuntimeError"}
    assert "continuous is left out: could not run: RuntimeError /home/someone: needs a GPU" in capsys.readouterr().out


def test_ours_failing_is_not_left_out(bench, monkeypatch):
    def failing(task, seed):
        raise RuntimeError("no")

    monkeypatch.setitem(METHODS, "ours", failing)
    with pytest.raises(RuntimeError, match="no"):
        bench()


def test_difference_compares_log_probabilities_of_equal_rows_only():
    right = Drawn([[1, 2], [3]], [[-1.0, -2.0], [-3.0]])
    assert difference(Drawn([[1, 2], [4]], [[-1.5, -2.0], [-9.0]]), right) == {"rows": 1, "logp": 0.5}
    assert difference(Drawn([[1], [4]], [[0.0], [0.0]]), right) == {"rows": 2, "logp": None}
    assert off({"rows": 0, "logp": float("nan")}) == ["logp"] and off({"rows": 1, "logp": None}) == ["rows"]


def test_the_end_token_counts_and_what_follows_does_not():
    task = Task(SimpleNamespace(stop_ids=frozenset({7})), [], 1, 4)
    assert task.until_end([1, 7, 7, 2]) == [1, 7] and task.until_end([1, 2]) == [1, 2]


def test_nothing_ends_a_forced_completion_and_the_weights_are_shared(policy):
    forced = rollout.in_mode(policy, "forced")
    assert forced.stop_ids == frozenset() and forced.model is policy.model and rollout.in_mode(policy, "free") is policy
    assert Task(forced, [], 1, 4).config().eos_token_id is None


def test_peers_are_not_truncated_by_the_models_own_settings(policy):
    inner = policy.model.get_base_model()
    kept = inner.generation_config
    inner.generation_config = policy.model.generation_config = GenerationConfig(top_k=1, eos_token_id=5)
    try:
        task = Task(rollout.in_mode(policy, "forced"), rollout.encode(policy, 1), 8, 6)
        for name in ("generate", "continuous"):
            assert (
                len({tuple(row) for row in METHODS[name](task, 0).rows}) > 1
            )  # top-k 1 would draw the same eight times
        assert inner.generation_config.top_k == 1
    finally:
        inner.generation_config = policy.model.generation_config = kept


def test_log_probabilities_of_the_reference_are_those_of_the_model(policy):
    task = Task(policy, rollout.encode(policy, 2), 2, 4)
    drawn = METHODS["generate_logp"](task, 1)
    prompt, row = task.prompts[1], drawn.rows[3]
    with torch.no_grad():
        logp = policy.model(torch.tensor([prompt + row])).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    assert drawn.logp[3] == pytest.approx([logp[t, token].item() for t, token in enumerate(row)], abs=1e-4)


def test_the_adapter_counts(policy):
    ids = torch.tensor([rollout.encode(policy, 1)[0]])
    with torch.no_grad():
        with_adapter = policy.model(ids).logits
        with policy.adapter_off():
            assert (with_adapter - policy.model(ids).logits).abs().max() > 0.01


def test_a_busy_machine_is_said_to_be_busy(capsys):
    rollout.busy(0.1)
    assert capsys.readouterr().out == ""
    rollout.busy(3.0)
    assert "not quiet (load 3.0)" in capsys.readouterr().out


def test_wrong_options_and_sources_end_with_2(bench, capsys):
    for words in (["--only", "gpt"], ["--prompts", "99"], ["--tokens", "0"]):
        with pytest.raises(SystemExit) as ended:
            bench(*words)
        assert ended.value.code == 2
    assert bench("--model", "lab:bas")[0] == 2 and "lab:base" in capsys.readouterr().out
