"""Out of memory: half as many rows at once, at most twice, the same result; then one line with the ways out."""

import json

import pytest
import torch

import poc.session
import poc.update
from tests.poc.runs import essence, job, resume, run

OPTIONS = ["train.steps=3", "train.checkpoint_every=1", "reward={self_certainty: 1.0}"]  # 8 completions a step


def run_out(monkeypatch, most: int, error: BaseException) -> list[int]:
    """An update with more than `most` completions at once runs out of memory; the sizes that were tried."""
    real, tried = poc.update.token_logp, []

    def token_logp(policy, batch, temperature):
        tried.append(int(batch.segments.max(-1).values.sum()))
        if tried[-1] > most:
            raise error
        return real(policy, batch, temperature)

    monkeypatch.setattr(poc.update, "token_logp", token_logp)
    return tried


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_the_micro_batch_is_halved_and_the_result_is_the_same(tmp_path, tiny_folder, monkeypatch, error, capsys):
    run([job(tmp_path / "run", tiny_folder, OPTIONS)])
    with pytest.MonkeyPatch.context() as patch:
        tried = run_out(patch, 2, error)
        assert run([job(tmp_path / "little" / "run", tiny_folder, OPTIONS)]) == "done"
    assert tried[:3] == [8, 4, 2] and set(tried[2:]) == {2}  # tried once, then kept
    plain, little = essence(tmp_path / "run"), essence(tmp_path / "little" / "run")
    assert [s.pop("micro_batch") for s in plain["steps"]] == [128, 128, 128]
    assert [s.pop("micro_batch") for s in little["steps"]] == [2, 2, 2]
    for one, other in zip(plain["steps"], little["steps"], strict=True):
        keys = ("reward", "entropy", "logp", "length", "grad_norm", "tokens", "agreement")  # the loss is rounding only
        assert [one[key] for key in keys] == pytest.approx([other[key] for key in keys], rel=1e-4)
    texts = [
        [[c["text"] for c in json.loads(line)["completions"]] for line in path.read_text().splitlines()]
        for path in sorted(tmp_path.rglob("samples.jsonl"))
    ]
    assert texts[0] == texts[1]  # the same prompts, the same completions
    events = [json.loads(line) for line in (tmp_path / "little" / "run" / "audit.jsonl").read_text().splitlines()]
    halved = [e["data"] for e in events if e["event"] == "memory"]
    assert halved == [{"step": 1, "stage": "update", "rows": n, "now": n // 2} for n in (8, 4)]
    assert "out of memory in update, 4 rows at once now" in capsys.readouterr().out


def test_after_two_halvings_the_run_stops_with_three_ways_out(tmp_path, tiny_folder, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        run_out(patch, 1, torch.OutOfMemoryError("CUDA out of memory"))
        assert run([job(tmp_path / "run", tiny_folder, OPTIONS)]) == "failed"
    reason = json.loads((tmp_path / "run" / "outcome.json").read_text())["reason"]
    assert reason.startswith(
        "out of memory in step 1's update at train.micro_batch = 2 after halving it twice (from 8)"
    )
    assert reason.count(" saves ") == 3 and "--set train.micro_batch=1" in reason and "\n" not in reason
    assert resume(tmp_path / "run") == "done"  # with more memory: from the last good step


def test_what_was_halved_stays_so_after_a_resume(tmp_path, tiny_folder, monkeypatch):
    tried = run_out(monkeypatch, 4, torch.OutOfMemoryError("CUDA out of memory"))
    run([job(tmp_path / "run", tiny_folder, OPTIONS)])
    run([job(tmp_path / "cut" / "run", tiny_folder, OPTIONS)], stop_after=1)
    tried.clear()
    resume(tmp_path / "cut" / "run")
    assert set(tried) == {4} and essence(tmp_path / "cut" / "run") == essence(tmp_path / "run")


def test_sampling_runs_out_too(tmp_path, tiny_folder, monkeypatch):
    real = poc.session.rollout

    def rollout(*arguments, max_rows, **options):
        if max_rows > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments, max_rows=max_rows, **options)

    monkeypatch.setattr(poc.session, "rollout", rollout)
    assert run([job(tmp_path / "run", tiny_folder, OPTIONS)]) == "done"


def test_out_of_memory_in_the_optimizer_takes_no_step_twice(tmp_path, tiny_folder, monkeypatch):
    run([job(tmp_path / "run", tiny_folder, OPTIONS)])
    real, taken = torch.optim.AdamW.step, []

    def step(optimizer):
        real(optimizer)
        taken.append(1)
        if len(taken) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(torch.OutOfMemoryError):
            run([job(tmp_path / "cut" / "run", tiny_folder, OPTIONS)])
    assert resume(tmp_path / "cut" / "run") == "done"
    assert essence(tmp_path / "cut" / "run") == essence(tmp_path / "run")


def test_other_errors_are_not_taken_for_too_little_memory(tmp_path, tiny_folder, monkeypatch):
    run_out(monkeypatch, 2, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        run([job(tmp_path / "run", tiny_folder, OPTIONS)])
