"""What lies in a folder that is gone on with: honest kills are whole, what was changed is refused."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from poc import checkpoint, pilot, runfolder
from poc.audit import Audit
from poc.audit_check import verify_run
from poc.config import PilotConfig
from poc.configfile import load
from poc.records import InputError, RunError
from poc.resume import begun_in, left
from tests.poc.runs import SMALL, essence, job, resume, run
from tests.poc.test_guard_run import command

OPTIONS = [
    "train.steps=4", "train.checkpoint_every=2", "evaluate.every=2", "guard.action=warn",
    "reward={self_certainty: 1.0}",
]  # fmt: skip


class Killed(BaseException):
    """Nothing catches it, as nothing catches a SIGKILL; what a finally block writes is suppressed by `dead`."""


def kill_at(patch, number: int, before: bool) -> None:
    """The process dies before or after its `number`-th event is in the audit log, and writes nothing from then on."""
    real, seen = Audit.append, []

    def append(audit, event, data):
        if len(seen) > number:
            raise Killed
        if before and len(seen) == number:
            seen.append(event)
            raise Killed
        head = real(audit, event, data)
        seen.append(event)
        if len(seen) > number:
            raise Killed
        return head

    patch.setattr(Audit, "append", append)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run([job(folder, tiny_folder, OPTIONS)]) == "done" and verify_run(folder).ok
    return folder


def events(folder) -> list[str]:
    return [json.loads(line)["event"] for line in (folder / "audit.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("before", [True, False])
def test_killed_around_every_event_a_run_is_whole_and_ends_the_same(tmp_path, tiny_folder, straight, before):
    """verify calls no honest kill tampering, neither at once nor after the run has gone on to its end."""
    count = len(events(straight))
    for number in range(1, count):
        folder = tmp_path / f"{number}" / "run"
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number, before)
            with pytest.raises(Killed):
                run([job(folder, tiny_folder, OPTIONS)])
        assert verify_run(folder).ok, (number, verify_run(folder).lines)
        assert resume(folder) == "done"
        assert verify_run(folder).ok, (number, verify_run(folder).lines)
        assert essence(folder) == essence(straight)


def test_killed_again_while_it_repeats_what_the_log_knows_already(tmp_path, tiny_folder, straight):
    """The evaluation of the step that a run goes on from is made anew: its file changes before the log can say so."""
    made = [i for i, event in enumerate(events(straight)) if event == "evaluation"]
    for number in made:
        folder = tmp_path / f"{number}" / "run"
        for at, before in ((number, False), (2, True)):  # of the second process: start or resume, then the evaluation
            with pytest.MonkeyPatch.context() as patch:
                kill_at(patch, at, before)
                with pytest.raises(Killed):
                    resume(folder) if folder.exists() else run([job(folder, tiny_folder, OPTIONS)])
            assert verify_run(folder).ok, (number, verify_run(folder).lines)
        assert resume(folder) == "done" and verify_run(folder).ok
        assert essence(folder) == essence(straight)


def cut(path, count: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-count]))


CHANGES = {
    "environment.json gone, config changed": (
        lambda f: ((f / "environment.json").unlink(), edit(f / "config.yaml", "clip: 0.2", "clip: 0.3")),
        "is missing or was changed after the run began",
    ),
    "environment.json garbled": (lambda f: (f / "environment.json").write_text("{"), "was changed after the run began"),
    "audit log gone": (lambda f: (f / "audit.jsonl").unlink(), "audit.jsonl is missing"),
    "audit log garbled": (lambda f: edit(f / "audit.jsonl", "{", "x"), "audit.jsonl cannot be read"),
    "audit log cut": (lambda f: cut(f / "audit.jsonl", 9), "cut off or rewritten"),
    "audit log edited": (lambda f: edit(f / "audit.jsonl", '"step":1', '"step":7'), "audit.jsonl: line"),
    "only the end of the audit log cut": (lambda f: cut(f / "audit.jsonl", 1), "cut off or rewritten"),
    "steps.jsonl edited": (lambda f: edit(f / "steps.jsonl", '"length"', '"lenght"'), "steps.jsonl line 1"),
    "steps.jsonl cut": (lambda f: cut(f / "steps.jsonl", 2), "steps.jsonl line 2"),
    "no checkpoint whole": (
        lambda f: [p.unlink() for p in f.glob("checkpoints/*/state.json")],
        "no checkpoint is whole",
    ),
    "no checkpoint": (lambda f: shutil.rmtree(f / "checkpoints"), "no checkpoint is whole"),
}


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("change, said", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_refused_and_left_as_it_is(tmp_path, tiny_folder, monkeypatch, capsys, change, said):
    run([job(tmp_path / "run", tiny_folder, OPTIONS)], stop_after=3)
    change(tmp_path / "run")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert command(monkeypatch, "resume", str(tmp_path / "run")) == 2
    assert said in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_run_that_had_not_begun_is_begun(tmp_path, tiny_folder, straight):
    """A kill or a full disk before config.yaml was there: the pilot that it belongs to goes on."""
    small = [x for x in (*SMALL, *OPTIONS) if not x.startswith("reward")]
    arms = "arms=[{model: base, reward: {random: 1.0}}, {model: base, reward: {self_certainty: 1.0}}]"
    config = load(PilotConfig, None, [f"models={{base: {tiny_folder}}}", *small, arms])
    (tmp_path / "pilot").mkdir()
    runfolder.write_config(tmp_path / "pilot", config)
    second = tmp_path / "pilot" / "arms" / "base-self_certainty-seed0"
    for left_over in ("evaluations", "checkpoints"):
        (second / left_over).mkdir(parents=True)
    for left_over in (".lock", ".config.yaml.staged"):
        (second / left_over).write_text("x")
    assert resume(tmp_path / "pilot") == "done" and pilot.ended(second) == "done"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="was stopped before it began"):
        left(tmp_path / "empty")


def test_an_error_after_the_weights_moved_saves_nothing(tmp_path, tiny_folder, straight, monkeypatch):
    """Else the weights of step 4 would be kept under the name of step 3, which has no checkpoint yet."""
    real = runfolder.RunFolder.log_step

    def log_step(folder, record, groups, totals):
        if record.step == 4:
            raise RunError("after the optimizer's step")
        real(folder, record, groups, totals)

    with monkeypatch.context() as patch:
        patch.setattr(runfolder.RunFolder, "log_step", log_step)
        assert run([job(tmp_path / "run", tiny_folder, OPTIONS)]) == "failed"
    assert checkpoint.whole(tmp_path / "run" / "checkpoints") == [0, 2]
    assert resume(tmp_path / "run") == "done" and essence(tmp_path / "run") == essence(straight)


def test_evaluate_looks_at_no_damaged_checkpoint_and_changes_nothing(tmp_path, straight, monkeypatch, capsys):
    folder = shutil.copytree(straight, tmp_path / "run")
    (folder / "checkpoints/step-000004/optimizer.safetensors").write_bytes(b"x")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert command(monkeypatch, "evaluate", str(folder)) == 0  # of step 2, which is whole
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    outcome = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps(outcome | {"kept": 4}))
    assert command(monkeypatch, "evaluate", str(folder)) == 2
    assert "the guard went back to is damaged: optimizer.safetensors" in capsys.readouterr().err


def test_verify_misses_what_an_ended_run_left_behind(straight, tmp_path):
    folder = shutil.copytree(straight, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "step-000004")
    assert any("checkpoints/step-000004: is missing" in line for line in verify_run(folder).lines)
    folder = shutil.copytree(straight, tmp_path / "again")
    edit(folder / "outcome.json", '"guard": [', '"guard": [{}, ') if '"guard": [{' in (
        folder / "outcome.json"
    ).read_text() else edit(folder / "outcome.json", '"guard": []', '"guard": [1]')
    assert any("outcome.json: guard" in line for line in verify_run(folder).lines)


def test_relative_paths_start_where_the_run_was_begun(tmp_path, tiny_folder):
    """A process of its own: it changes its working directory."""
    (tmp_path / "work" / "sub").mkdir(parents=True)
    rows = [f"{i} + 1 =,{i + 1}" for i in range(90)]
    (tmp_path / "work" / "own.csv").write_text("\n".join(["prompt,answer", *rows]))
    small = [x for x in (*SMALL, *OPTIONS) if not x.startswith("data.")]
    options = [f"model={tiny_folder}", *small, "data={file: own.csv, train: 16, holdout: 4, canary: 2}"]
    arguments = [part for option in options for part in ("--set", option)]
    code = (
        "import sys; from poc import cli, session; real = session.Session.judge\n"
        "def judge(self, state, *rest):\n"
        "    if state.step == 3: raise OSError(28, 'No space left on device')\n"
        "    return real(self, state, *rest)\n"
        "session.Session.judge = judge; sys.argv = ['poc', *sys.argv[1:]]; cli.main()"
    )
    started = [sys.executable, "-c", code, "train", "--out", "runs/one", *arguments]
    first = subprocess.run(started, cwd=tmp_path / "work", capture_output=True, text=True)
    assert first.returncode == 1 and "poc resume runs/one" in first.stderr, first.stderr
    second = [sys.executable, "-m", "poc.cli", "resume", "../runs/one"]
    found = subprocess.run(second, cwd=tmp_path / "work" / "sub", capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert os.path.samefile(begun_in(tmp_path / "work" / "runs" / "one"), tmp_path / "work")


def test_an_equivalence_run_goes_on_as_one(tmp_path, tiny_folder, monkeypatch):
    options = [x for x in OPTIONS if "rollout" not in x]
    arguments = [part for o in (f"model={tiny_folder}", *SMALL, *options) for part in ("--set", o)]
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 3, True)
        with pytest.raises(Killed):
            command(monkeypatch, "equivalence", "--out", str(tmp_path / "run"), *arguments)
    assert command(monkeypatch, "resume", str(tmp_path / "run")) == 0
    lines = (tmp_path / "run" / "equivalence.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 4] and (
        tmp_path / "run" / "equivalence.html"
    ).is_file()
