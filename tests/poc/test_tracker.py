"""Numbers in a tracker: the right ones at the right step, no text of a model, and never the end of a run."""

import json
import os
import sqlite3
import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace

import pytest

from poc import cli, tracker
from poc.checkpoint import step_of
from poc.config import RunConfig
from poc.records import InputError
from poc.runfolder import RunFolder
from poc.text import visible
from poc.tracker import Run, Sink, Tracker
from tests.poc.runs import essence, job, resume, run

WITH = ["tracker=trackio", "evaluate.every=4", "train.checkpoint_every=3"]
EVALUATION = {"step": 4, "summary": {"accuracy": {"value": 0.5, "low": 0.1}, "auroc": {"value": None}}}
DECISION = {"step": 4, "rule": "kl", "action": "warn", "message": "1.2 nats \x1b[31m"}


@pytest.fixture
def sent(monkeypatch):
    """Stands in for a library: what was sent to it, in order."""
    found = []

    def opened(run):
        found.append(("open", run))
        return Sink(
            lambda step, numbers: found.append((step, numbers)), lambda step, text: found.append((step, text)),
            lambda: found.append(("close", None)),
        )  # fmt: skip

    monkeypatch.setitem(tracker.OPEN, "trackio", opened)
    monkeypatch.setattr(tracker, "check", lambda name: None)
    return found


def packages(version) -> SimpleNamespace:
    """importlib.metadata with other packages installed."""
    return SimpleNamespace(version=version, PackageNotFoundError=metadata.PackageNotFoundError)


def numbers(sent: list, prefix: str) -> list[tuple[int, dict]]:
    return [(step, one) for step, one in sent if isinstance(one, dict) and next(iter(one)).startswith(prefix)]


def test_a_run_sends_the_numbers_that_it_writes_down(tmp_path, tiny_folder, sent):
    folder = tmp_path / "run"
    run([job(folder, tiny_folder, WITH)])
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    trained = numbers(sent, "train/")
    assert [step for step, _ in trained] == [s["step"] for s in steps] == list(range(1, 13))
    for (_, one), line in zip(trained, steps, strict=True):
        assert one["train/reward"] == line["reward"] and one["train/timing/update"] == line["timing"]["update"]
        assert one["train/rewards/self_certainty"] == line["rewards"]["self_certainty"]
        assert all(type(value) is float for value in one.values())
    measured = json.loads((folder / "evaluations" / "step-000008.json").read_text())["summary"]["accuracy"]["value"]
    assert [step for step, _ in numbers(sent, "holdout/")] == [0, 4, 8, 12]
    assert dict(numbers(sent, "holdout/"))[8]["holdout/accuracy"] == measured
    assert sent[0] == ("open", Run(folder, sent[0][1].id, 0)) and sent[-1] == ("close", None)


def test_a_resumed_run_goes_on_in_the_same_place_after_its_checkpoint(tmp_path, tiny_folder, sent, monkeypatch):
    folder = tmp_path / "run"

    real = RunFolder.save_checkpoint

    def killed(self, state, *rest):
        if state.step > 3:
            raise KeyboardInterrupt
        real(self, state, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunFolder, "save_checkpoint", killed)
        run([job(folder, tiny_folder, WITH)])
    before, place = len(sent), sent[0][1]
    assert step_of(max((folder / "checkpoints").iterdir())) == 3 and numbers(sent, "train/")[-1][0] == 4
    resume(folder)
    again = sent[before:]
    assert again[0] == ("open", place._replace(step=3))
    assert [step for step, _ in numbers(again, "train/")] == list(range(4, 13))


def test_a_tracker_changes_nothing_in_the_run(tmp_path, tiny_folder, sent):
    run([job(tmp_path / "with", tiny_folder, WITH)])
    run([job(tmp_path / "without", tiny_folder, WITH[1:])])
    assert essence(tmp_path / "with") == essence(tmp_path / "without")


@pytest.mark.parametrize("when", ["open", "numbers", "close"])
def test_one_that_fails_is_told_of_once_and_the_run_goes_on(tmp_path, tiny_folder, monkeypatch, capsys, when):
    def fail(*_):
        raise ConnectionError("no way \x1b[31m there\nat all")

    calls = {name: fail if name == when else lambda *_: None for name in ("open", "numbers", "close")}

    def opened(run):
        calls["open"]()
        return Sink(calls["numbers"], lambda *_: None, calls["close"])

    monkeypatch.setitem(tracker.OPEN, "trackio", opened)
    monkeypatch.setattr(tracker, "check", lambda name: None)
    assert run([job(tmp_path / "run", tiny_folder, WITH)]) == "done"
    said = [line for line in capsys.readouterr().out.splitlines() if "tracker" in line]
    assert said == [
        "tracker trackio failed, the run goes on without it: ConnectionError: no way \\x1b[31m there at all"
    ]


def test_what_is_no_finite_number_is_left_out_and_notes_are_harmless(sent):
    known = Tracker("trackio", Run(None, "id", 0))
    known.evaluation(EVALUATION, "canary")
    known.decision(DECISION)
    known.evaluation({"step": 5, "summary": {}})
    assert sent[1:] == [(4, {"canary/accuracy": 0.5}), (4, "kl (warn): 1.2 nats \\x1b[31m")]
    found = dict(
        tracker._numbers("x", {"a": True, "b": "text", "c": float("nan"), "d": {"e": 1, "f": None}, "step": 3})
    )
    assert found == {"x/d/e": 1.0}


def test_runs_of_a_pilot_are_a_group(tmp_path):
    assert Run(tmp_path / "pilot" / "arms" / "base-random-seed0", "id", 0).group == "pilot"
    assert Run(tmp_path / "run", "id", 0).group is None


def test_a_missing_package_is_exit_2_before_any_weights_load(tmp_path, monkeypatch, capsys):
    import poc.models

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(tracker, "metadata", packages(missing))
    monkeypatch.setattr(poc.models, "load_policy", lambda *a, **k: pytest.fail("weights were loaded"))
    monkeypatch.chdir(tmp_path)
    for name in tracker.OPEN:
        monkeypatch.setattr(sys, "argv", ["poc", "train", "--out", "run", "--set", f"tracker={name}"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and f"pip install {name}" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_tracker_that_may_be_named_can_be_opened():
    assert RunConfig().tracker == "none"
    for name in tracker.OPEN:
        assert RunConfig(tracker=name).tracker == name


@pytest.mark.parametrize("login", [lambda: False, lambda: 1 / 0])
def test_wandb_is_refused_where_nobody_is_logged_in(monkeypatch, login):
    monkeypatch.setattr(tracker, "metadata", packages(lambda name: "1"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(login=login))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(InputError, match="WANDB_MODE=offline"):
        tracker.check("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker.check("wandb")


def recorder(calls: list) -> SimpleNamespace:
    """A run object of trackio or wandb."""
    note = lambda name: lambda *a, **k: calls.append((name, a, k))  # noqa: E731
    return SimpleNamespace(log=note("log"), finish=note("finish"), define_metric=note("define_metric"))


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_how_the_other_libraries_are_called(tmp_path, monkeypatch, name):
    """With a stand-in of the library; see the test below for what the real one makes of it."""
    calls, module = [], ModuleType(name)
    module.init = lambda **options: calls.append(("init", (), options)) or recorder(calls)
    module.Settings = lambda **options: options
    monkeypatch.setitem(sys.modules, name, module)
    known = Tracker(name, Run(tmp_path / "pilot" / "arms" / "arm", "0123456789abcdef", 3), pytest.fail)
    known.evaluation(EVALUATION)
    known.decision(DECISION)
    known.close()
    kinds = [kind for kind, _, _ in calls if kind != "define_metric"]
    assert kinds == ["init", "log", "log", "finish"]
    options = calls[0][2]
    assert options["resume"] == "allow" and options["group"] == "pilot" and "config" not in options
    assert "0123456789abcdef".startswith(options.get("id") or options["name"].removeprefix("arm-"))
    logged = [(a[0], k) for kind, a, k in calls if kind == "log"]
    text = "kl (warn): 1.2 nats \\x1b[31m"
    if name == "wandb":
        assert logged == [({"step": 4, "holdout/accuracy": 0.5}, {}), ({"step": 4, "guard": text}, {})]
    else:
        assert logged == [({"holdout/accuracy": 0.5}, {"step": 4}), ({"guard": text}, {"step": 4})]


def test_tensorboard_shows_every_step_once_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step, reached in ((0, 6), (3, 8)):  # killed after step 6, gone on with from the checkpoint of step 3
        known = Tracker("tensorboard", Run(tmp_path, "id", step), pytest.fail)
        for now in range(step + 1, reached + 1):
            known._send(now, {"train/reward": float(now)}.items(), "")
        known.decision(DECISION | {"step": reached})
        known.close()
    seen = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in seen.Scalars("train/reward")] == [(s, float(s)) for s in range(1, 9)]
    note = seen.Tensors("guard/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert note == "kl (warn): 1.2 nats \\x1b[31m" and visible(note) == note


def test_the_real_trackio_gets_numbers_and_nothing_of_the_machine(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "kept")
    for step in (0, 3):
        followed = Tracker("trackio", Run(tmp_path / "pilot" / "arms" / "arm", "0123456789", step), pytest.fail)
        followed.evaluation(EVALUATION)
        followed.decision(DECISION)
        followed.close()
    database = sqlite3.connect(next((tmp_path / "kept").glob("*.db")))
    rows = database.execute("select run_name, step, metrics from metrics").fetchall()
    assert {(name, step, json.loads(found).popitem()) for name, step, found in rows} == {
        ("arm-01234567", 4, ("holdout/accuracy", 0.5)), ("arm-01234567", 4, ("guard", "kl (warn): 1.2 nats \\x1b[31m")),
    }  # fmt: skip
    assert database.execute("select count(*) from system_metrics").fetchone() == (0,)


def test_the_real_wandb_keeps_numbers_and_nothing_of_the_machine(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    followed = Tracker("wandb", Run(tmp_path, "0123456789abcdef", 3), pytest.fail)
    followed.evaluation(EVALUATION)
    followed.close()
    (kept,) = (tmp_path / "wandb").glob("offline-run-*-0123456789abcdef/*.wandb")
    assert b"holdout/accuracy" in kept.read_bytes() and sys.executable.encode() not in kept.read_bytes()
    assert not list((tmp_path / "wandb").rglob("requirements.txt")) and not list(tmp_path.rglob("*metadata.json"))


def test_what_libraries_report_to_their_makers_is_off_unless_the_user_says_otherwise(monkeypatch, capsys):
    for name in tracker.TELEMETRY_OFF:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.setattr(sys, "argv", ["poc", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert {name: os.environ[name] for name in tracker.TELEMETRY_OFF} == tracker.TELEMETRY_OFF | {"DO_NOT_TRACK": "0"}
