"""The guard in whole runs: what a decision does to the run, its folder, its exit code and its report."""

import json
import sys

import pytest
from filelock import FileLock

from poc import checkpoint, cli, guard
from poc.audit_check import verify_run
from poc.guard import Decision
from tests.poc.runs import SMALL, essence, job, resume, run, sha256

OPTIONS = [
    "train.steps=9", "train.checkpoint_every=1", "evaluate.every=2", "reward={self_certainty: 1.0}",
    "guard.action=rollback", "data.canary=4",
]  # fmt: skip


@pytest.fixture
def decide(monkeypatch):
    """Makes the guard decide `action` at step 6, with step 2 the best."""

    def with_action(action: str, canary: bool = False, best: int = 2) -> None:
        def after(memory, record, options):
            decision = Decision("past_peak", action, record.step, "made up", {"value": 1.0})
            return memory, (decision,) if record.step == 6 else ()

        for name, used in (("after_canary", canary), ("after_step", not canary)):
            monkeypatch.setattr(guard, name, after if used else lambda memory, record, options: (memory, ()))
        monkeypatch.setattr(guard, "best_step", lambda memory, options, labels: best)

    return with_action


def outcome(folder) -> dict:
    return json.loads((folder / "outcome.json").read_text())


@pytest.mark.parametrize("canary", [False, True])
def test_rollback_puts_the_best_in_place_and_measures_it_again(tmp_path, tiny_folder, decide, canary):
    from poc.report.read import read

    decide("rollback", canary)
    folder = tmp_path / "run"
    assert run([job(folder, tiny_folder, OPTIONS)]) == "stopped"
    found = outcome(folder)
    assert (found["status"], found["kept"], found["steps"]) == ("stopped", 2, 6) and "past_peak" in found["reason"]
    assert [d["rule"] for d in found["guard"]] == ["past_peak"]
    assert checkpoint.verify(folder / "checkpoints" / "step-000002")["step"] == 2
    for again, then in (("kept", ""), ("kept-canary", "canary")):
        one, other = (
            json.loads((folder / "evaluations" / view / "step-000002.json").read_text()) for view in (again, then)
        )
        assert one["prompts"] == other["prompts"]  # to the last bit
    assert verify_run(folder).ok
    (seen,) = read(folder)
    assert seen.status == "stopped" and seen.final.step == 2 and seen.views == {}
    assert seen.evaluations[-1].step == (6 if canary else 4)  # what the guard saw is not hidden


def test_the_start_is_measured_again_too_not_remembered(tmp_path, tiny_folder, decide, monkeypatch):
    import poc.evaluate

    real, measured = poc.evaluate.evaluate, []

    def evaluate(*arguments, step, **options):
        measured.append(step)
        return real(*arguments, step=step, **options)

    monkeypatch.setattr(poc.evaluate, "evaluate", evaluate)
    decide("rollback", best=0)
    run([job(tmp_path / "run", tiny_folder, OPTIONS)])
    assert measured == [0, 0, 2, 2, 4, 4, 0, 0]  # hold-out and canary each
    assert json.loads((tmp_path / "run/evaluations/kept/step-000000.json").read_text())["seconds"] > 0


def test_stop_evaluates_and_keeps_the_last(tmp_path, tiny_folder, decide):
    decide("stop")
    assert run([job(tmp_path / "run", tiny_folder, OPTIONS)]) == "stopped"
    assert outcome(tmp_path / "run")["kept"] is None and (tmp_path / "run/evaluations/step-000006.json").is_file()


def test_a_warning_is_said_and_changes_nothing(tmp_path, tiny_folder, decide, capsys):
    run([job(tmp_path / "plain" / "run", tiny_folder, [*OPTIONS, "guard.action=warn"])])
    decide("warn")
    assert run([job(tmp_path / "run", tiny_folder, [*OPTIONS, "guard.action=warn"])]) == "done"
    assert "guard (warn): made up" in capsys.readouterr().out
    assert essence(tmp_path / "run") == essence(tmp_path / "plain" / "run")


def test_a_damaged_best_is_not_gone_back_to(tmp_path, tiny_folder, decide, monkeypatch):
    decide("rollback", best=4)
    look = guard.after_step

    def after(memory, record, options):
        if record.step == 6:
            (tmp_path / "run/checkpoints/step-000004/optimizer.safetensors").write_bytes(b"x")
        return look(memory, record, options)

    monkeypatch.setattr(guard, "after_step", after)
    run([job(tmp_path / "run", tiny_folder, OPTIONS)])
    assert outcome(tmp_path / "run")["kept"] == 2  # the newest whole one before it


def test_the_guard_remembers_over_a_resume(tmp_path, tiny_folder):
    """A real rule that counts five steps: it trips at the same one whether the run was interrupted or not."""
    overrides = [*OPTIONS, "evaluate.every=100", "train.kl=0.1", "guard.kl={limit: 1.0e-6, patience: 5}"]
    assert run([job(tmp_path / "run", tiny_folder, overrides)]) == "stopped"
    whole = outcome(tmp_path / "run")
    assert 5 <= whole["steps"] < 9 and whole["guard"][0]["rule"] == "kl"
    for k in (1, 4, whole["steps"] - 1):
        folder = tmp_path / f"{k}" / "run"
        run([job(folder, tiny_folder, overrides)], stop_after=k)
        assert resume(folder) == "stopped"
        again = outcome(folder)
        assert [again[key] for key in ("steps", "kept", "guard")] == [whole[key] for key in ("steps", "kept", "guard")]
        assert essence(folder) == essence(tmp_path / "run")


def test_exit_code_3_for_a_run_and_what_the_commands_do_with_it(tmp_path, tiny_folder, decide, monkeypatch, capsys):
    decide("rollback")
    arguments = [part for o in (f"model={tiny_folder}", *SMALL, *OPTIONS) for part in ("--set", o)]
    assert command(monkeypatch, "train", "--out", str(tmp_path / "run"), *arguments) == 3
    assert "goes back to step 2" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    head = outcome(tmp_path / "run")["audit_head"]
    assert "It went back to its checkpoint of step 2" in page and head in page
    assert command(monkeypatch, "resume", str(tmp_path / "run")) == 3  # nothing is left to do
    assert command(monkeypatch, "verify", str(tmp_path / "run"), "--head", head) == 0
    shown = capsys.readouterr().out
    assert "has ended" in shown and "chain whole" in shown
    changed = tmp_path / "run" / "steps.jsonl"
    changed.write_text(changed.read_text().replace('"length": 6.0', '"length": 9.0', 1))
    assert command(monkeypatch, "verify", str(tmp_path / "run")) == 1
    assert "steps.jsonl line" in capsys.readouterr().out
    assert command(monkeypatch, "evaluate", str(tmp_path / "run")) == 0  # of the step that was kept
    out = capsys.readouterr().out
    kept = json.loads((tmp_path / "run/evaluations/kept/step-000002.json").read_text())["summary"]["entropy"]["value"]
    assert f"entropy {kept:.3f}" in out


def command(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["poc", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    return 0


def test_rolled_back_adapter_is_the_checkpoint_bit_for_bit(tmp_path, tiny_folder, decide, monkeypatch):
    from poc.models import Policy

    decide("rollback")
    policies, load = [], Policy.load_adapter
    monkeypatch.setattr(Policy, "load_adapter", lambda self, folder: (policies.append(self), load(self, folder)))
    run([job(tmp_path / "run", tiny_folder, OPTIONS)])
    policies[-1].save_adapter(tmp_path / "now")
    name = "adapter_model.safetensors"
    assert sha256(tmp_path / "now" / name) == sha256(tmp_path / "run/checkpoints/step-000002" / name)


def test_two_processes_never_write_one_folder(tmp_path, tiny_folder, monkeypatch, capsys):
    """Neither a resume nor a second start, which must not clear away what the first has begun, nor a pilot's arm."""
    arguments = [part for o in (f"model={tiny_folder}", *SMALL, *OPTIONS) for part in ("--set", o)]
    run([job(tmp_path / "arms" / "run", tiny_folder, OPTIONS)], stop_after=2)
    (tmp_path / "begun").mkdir()
    for folder, locked in (("arms/run", "arms/run"), ("arms/run", "."), ("begun", "begun")):
        held = FileLock(tmp_path / locked / ".lock")  # as another process has it
        held.acquire()
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        resume = ["resume", str(tmp_path / folder)]
        start = ["train", "--out", str(tmp_path / folder), *arguments]
        assert command(monkeypatch, *(start if folder == "begun" else resume)) == 2
        assert "another process is writing there" in capsys.readouterr().err
        assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        held.release()


def test_a_folder_that_disappears_is_one_line_and_exit_1(tmp_path, tiny_folder, monkeypatch, capsys):
    import shutil

    step = guard.after_step

    def after(memory, record, options):
        if record.step == 2:
            shutil.rmtree(tmp_path / "run")
        return step(memory, record, options)

    monkeypatch.setattr(guard, "after_step", after)
    arguments = [part for o in (f"model={tiny_folder}", *SMALL, *OPTIONS) for part in ("--set", o)]
    assert command(monkeypatch, "train", "--out", str(tmp_path / "run"), *arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No such file" in error
