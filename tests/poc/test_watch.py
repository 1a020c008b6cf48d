"""`poc watch`: what it reads from a folder that somebody else is writing, and what of it reaches the terminal."""

import fcntl
import io
import json
import sys
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from rich.cells import cell_len
from rich.console import Console

from poc import cli, pilot, watch_screen
from poc.config import PilotConfig, RunConfig
from poc.records import InputError
from poc.text import visible
from poc.watch import Reader, Watched
from poc.watch_screen import _levels, braille, ending, frame
from tests.poc.runs import job, resume, run

NOW = 1_800_000_000.0
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202egnihton\u2066 \u200b[red]x[/red] [/] \r\x00 end"


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(NOW + seconds))


def step_line(step: int, **other) -> dict:
    return {"step": step, "reward": 0.1 * step, "entropy": 1.0 / step, "length": 20.0, "tokens": 300,
            "timing": {"rollout": 1.0, "update": 0.5}} | other  # fmt: skip


def event(kind: str, at: float, **data) -> dict:
    return {"data": data, "event": kind, "time": stamp(at)}


def evaluation(step: int, at: float, accuracy: float | None, view: str = "") -> dict:
    known = {} if accuracy is None else {"accuracy": accuracy}
    return event("evaluation", at, path=f"evaluations/{view}step-{step:06d}.json", step=step, entropy=0.3, **known)


def sample(step: int, text: str = "2 + 2 = 4") -> dict:
    kept = [{"text": f"{text} {i}", "reward": 1.0 - i, "status": "correct"} for i in range(3)]
    return {"step": step, "question": text, "gold": "4", "completions": kept}


def add(path: Path, *lines: dict) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def write_run(folder: Path, steps: int = 6, total: int = 20, seconds: float = 3.0, config: bool = True) -> Path:
    """A run after some steps of `seconds` each, evaluated at its start and every five steps."""
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        made = RunConfig(train={"steps": total}).model_dump(mode="json")
        (folder / "config.yaml").write_text(yaml.safe_dump(made))
    add(folder / "audit.jsonl", event("start", 0), evaluation(0, 1, 0.25), evaluation(0, 2, 0.5, "canary/"))
    for step in range(1, steps + 1):
        add(folder / "steps.jsonl", step_line(step))
        add(folder / "samples.jsonl", sample(step))
        add(folder / "audit.jsonl", event("step", seconds * step, step=step))
        if step % 5 == 0:
            add(folder / "audit.jsonl", evaluation(step, seconds * step, 0.25 + step / 100))
    return folder


def write_pilot(folder: Path) -> Path:
    """Of three arms, the first of which has ended and the second goes on."""
    arms = [{"model": "base", "reward": {name: 1.0}} for name in ("random", "verifiable", "format")]
    config = PilotConfig(arms=arms, train={"steps": 20}, models={"base": "lab:base"})
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    write_run(folder / "arms" / "base-random-seed0", steps=20)
    finish(folder / "arms" / "base-random-seed0", "done")
    write_run(folder / "arms" / "base-verifiable-seed0", steps=6)
    return folder


def finish(folder: Path, status: str, **more) -> None:
    (folder / "outcome.json").write_text(json.dumps({"status": status, "reason": None, "steps": 6, **more}))


@pytest.fixture
def hold():
    """Locks a folder as the process that trains does."""
    locks = []

    def held(folder: Path) -> FileLock:
        locks.append(FileLock(folder / ".lock"))
        locks[-1].acquire(timeout=0)
        return locks[-1]

    yield held
    for lock in locks:
        lock.release()


def drawn(seen: Watched, width: int = 100, height: int | None = None, now: float = NOW + 20) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(frame(seen, width, height, now))
    return console.file.getvalue()


def test_a_run_that_goes_on(tmp_path, hold):
    folder = write_run(tmp_path / "run")
    hold(folder)
    seen = Reader(folder).look()
    found = seen.current
    assert (seen.state, seen.ended, seen.is_pilot) == ("running", False, False)
    assert (found.step, found.total, found.speed, found.pace, found.left) == (6, 20, 200.0, 3.0, 42.0)
    assert found.curves["reward"][:2] == ((1, 0.1), (2, 0.2)) and len(found.curves["reward"]) == 6
    assert found.curves["hold-out accuracy"] == ((0, 0.25), (5, 0.3))
    assert found.curves["canary accuracy"] == ((0, 0.5),)
    assert (seen.sample.step, seen.sample.best.text, seen.sample.worst.reward) == (6, "2 + 2 = 4 0", -1.0)
    text = drawn(seen)
    for part in (
        "running",
        "6 of 20 steps",
        "about 42 s left",
        "200 tokens/s",
        "hold-out accuracy 0.300",
        "guard: nothing",
    ):
        assert part in text, part
    assert "silent" not in text and "silent for 16.4 min" in drawn(seen, now=NOW + 1000)


def test_before_two_steps_the_time_left_is_what_was_predicted(tmp_path, hold):
    folder = write_run(tmp_path / "run", steps=1)
    (folder / "plan.json").write_text('{"total": 90.0}')
    hold(folder)
    assert Reader(folder).look().left == 90.0


def test_quick_steps_are_timed_by_what_they_say_of_themselves(tmp_path, hold):
    folder = write_run(tmp_path / "run", seconds=0.0)  # all within one second of the log's clock
    hold(folder)
    assert Reader(folder).look().current.pace == 1.5


def test_half_a_line_is_left_for_the_next_look(tmp_path, hold):
    folder = write_run(tmp_path / "run")
    hold(folder)
    reader = Reader(folder)
    line = json.dumps(step_line(7))
    with (folder / "steps.jsonl").open("a") as file:
        file.write(line[:40])
    assert reader.look().current.step == 6
    with (folder / "steps.jsonl").open("a") as file:
        file.write(line[40:] + "\n")
    seen = reader.look().current
    assert seen.step == 7 and len(seen.curves["reward"]) == 7


def test_each_line_is_read_once(tmp_path, hold):
    folder = write_run(tmp_path / "run")
    hold(folder)
    reader = Reader(folder)
    reader.look()
    tail = reader.readers[folder].steps
    assert tail.read() == (False, [])
    add(folder / "steps.jsonl", step_line(7))
    assert tail.read() == (False, [step_line(7)])


def test_what_a_resumed_run_takes_back_is_taken_back_here_too(tmp_path, hold):
    folder = write_run(tmp_path / "run", steps=6)
    add(folder / "audit.jsonl", event("guard", 18, step=6, rule="kl", action="warn", message="far"))
    add(folder / "audit.jsonl", event("memory", 18, step=6, stage="update", rows=8, now=4))
    hold(folder)
    reader = Reader(folder)
    assert reader.look().current.decisions[0].rule == "kl"
    kept = (folder / "steps.jsonl").read_text().splitlines(keepends=True)[:3]
    (folder / "steps.jsonl").rename(folder / "old")
    (folder / "steps.jsonl").write_text("".join(kept))
    add(folder / "audit.jsonl", event("resume", 100, step=3), event("step", 110, step=4), event("step", 112, step=5))
    seen = reader.look().current
    assert seen.step == 3 and len(seen.curves["reward"]) == 3
    assert seen.curves["hold-out accuracy"] == ((0, 0.25),) and seen.decisions == ()
    assert seen.pace == 2.0 and seen.troubles == ("resumed: 1",)


def test_a_killed_run_is_said_to_be_dead_and_how_to_go_on(tmp_path):
    folder = write_run(tmp_path / "my run")
    seen = Reader(folder).look()
    assert seen.state == "killed" and seen.ended
    assert (
        ending(seen) == f"{folder}: was killed after step 6, no process works on it; go on with: poc resume '{folder}'"
    )


@pytest.mark.parametrize(
    "status, more, said",
    [
        ("done", {}, "done after 6 steps; report: {}/report.html"),
        ("done", {"kept": 5}, "done after 6 steps, back to step 5; report: {}/report.html"),
        ("stopped", {"kept": 2, "reason": "kl: too far"}, "stopped it after step 6, back to step 2: kl: too far"),
        ("interrupted", {}, "interrupted after step 6; go on with: poc resume {}"),
        ("failed", {"reason": "no memory"}, "failed after step 6: no memory; when that is mended, go on with: poc res"),
    ],
)
def test_how_a_run_ended_is_one_line(tmp_path, hold, status, more, said):
    folder = write_run(tmp_path / "run")
    lock = hold(folder)
    finish(folder, status, **more)
    assert not Reader(folder).look().ended  # who wrote it is still there, with the report to write or to go on
    lock.release()
    seen = Reader(folder).look()
    assert seen.ended and seen.state == status
    assert said.format(folder) in ending(seen) and "\n" not in ending(seen)


def test_an_interrupted_run_that_is_gone_on_with_is_running(tmp_path, hold):
    folder = write_run(tmp_path / "run")
    finish(folder, "interrupted")
    hold(folder)
    assert Reader(folder).look().state == "running"


def test_what_has_not_begun_is_waited_for(tmp_path, hold):
    folder = tmp_path / "run"
    reader = Reader(folder)
    assert reader.look().state == "waiting" and not reader.look().ended and "waiting for" in drawn(reader.look(), 300)
    folder.mkdir()
    assert Reader(folder).look().state == "waiting"
    lock = hold(folder)
    assert reader.look().state == "starting" and "to be loaded" in drawn(reader.look(), 300)
    write_run(folder)
    assert reader.look().state == "running"
    lock.release()
    assert reader.look().state == "killed"


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    for path in (tmp_path / "file", tmp_path / "other", tmp_path / "nowhere" / "run"):
        with pytest.raises(InputError, match="is no folder of a run"):
            Reader(path)


def test_looking_changes_nothing_and_keeps_no_lock(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / ".lock").write_bytes(b"")
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    drawn(Reader(folder).look())
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before
    with FileLock(folder / ".lock").acquire(timeout=0):
        pass


def test_another_watcher_is_not_taken_for_the_process_that_trains(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / ".lock").write_bytes(b"")
    with (folder / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert Reader(folder).look().state == "killed"


def test_guard_memory_and_skips_are_shown(tmp_path, hold):
    folder = write_run(tmp_path / "run")
    for step, rule, action in (
        (2, "zero_variance", "warn"),
        (3, "kl", "warn"),
        (4, "kl", "warn"),
        (5, "kl", "rollback"),
    ):
        add(folder / "audit.jsonl", event("guard", 9, step=step, rule=rule, action=action, message=f"said at {step}"))
    add(folder / "audit.jsonl", event("memory", 9, step=2, stage="update", rows=8, now=4))
    add(folder / "audit.jsonl", event("skip", 9, step=3, found="loss nan"))
    hold(folder)
    text = drawn(Reader(folder).look())
    assert "(earlier: zero_variance)" in text and "step 5 kl (rollback): said at 5" in text and "said at 2" not in text
    assert "memory ran out: 1, last in step 2, update: 8 -> 4 completions at once" in text
    assert "steps skipped: 1, last step 3: loss nan" in text


def test_a_pilot_shows_its_arms_and_the_one_that_goes_on(tmp_path, hold):
    folder = write_pilot(tmp_path / "pilot")
    hold(folder)
    hold(folder / "arms" / "base-verifiable-seed0")
    seen = Reader(folder).look()
    assert [(run.name, run.state) for run in seen.runs] == [
        ("base-random-seed0", "done"), ("base-verifiable-seed0", "running"), ("base-format-seed0", "waiting"),
    ]  # fmt: skip
    assert (seen.state, seen.current.name, seen.steps, seen.left) == (
        "running",
        "base-verifiable-seed0",
        (26, 60),
        102.0,
    )
    text = " ".join(drawn(seen).split())
    assert "▶ base-verifiable-seed0 running 6/20" in text and "0.250 -> 0.450" in text and "about 1.7 min left" in text
    assert text.count("base-verifiable-seed0") == 2  # in the table, and above its curves


def test_of_many_arms_those_around_the_current_one_are_shown(tmp_path, hold):
    folder = tmp_path / "pilot"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(PilotConfig(seeds=[0, 1, 2]).model_dump(mode="json")))
    hold(folder)
    at = folder / "arms" / "base-random-seed1"
    hold(write_run(at))
    seen = Reader(folder).look()
    few, all_of_them = drawn(seen, 160, height=24), drawn(seen, 160)
    assert len(seen.runs) == 24 and "and 20 more" in few and "▶  base-random-seed1" in few
    assert "more" not in all_of_them and all_of_them.count("-seed") == 25


@pytest.mark.parametrize(
    "end, state, said",
    [
        ({"base-verifiable-seed0": "done", "base-format-seed0": "done"}, "done", "done, all arms have ended;"),
        (
            {"base-verifiable-seed0": "stopped", "base-format-seed0": "done"},
            "done",
            "done, all arms have ended; report:",
        ),
        ({"base-verifiable-seed0": "failed", "base-format-seed0": "done"}, "failed", "failed: base-verifiable-seed0; "),
        ({"base-verifiable-seed0": "interrupted"}, "interrupted", "go on with: poc resume"),
        ({}, "killed", "go on with: poc resume"),
        ({"base-verifiable-seed0": "done"}, "killed", "go on with: poc resume"),  # between two arms
    ],
)
def test_how_a_pilot_ended(tmp_path, end, state, said):
    folder = write_pilot(tmp_path / "pilot")
    for name, status in end.items():
        finish(write_run(folder / "arms" / name), status)
    seen = Reader(folder).look()
    assert seen.ended and seen.state == state and said in ending(seen)


def test_arms_are_in_the_order_in_which_the_pilot_takes_them(tmp_path):
    from poc.watch import _planned

    arms = [{"model": m, "reward": {n: 1.0}} for m, n in (("b", "random"), ("a", "random"), ("b", "format"))]
    config = PilotConfig(models={"a": "lab:base", "b": "lab:instruct"}, arms=arms, seeds=[3, 1])
    assert _planned(config) == [job.name for job in pilot.jobs_of(config, tmp_path)]


def test_nothing_hostile_reaches_the_terminal(tmp_path):
    folder = write_run(tmp_path / f"run{HOSTILE[:30].replace(chr(0), '')}", steps=6)
    add(folder / "samples.jsonl", sample(7, HOSTILE))
    add(folder / "audit.jsonl", event("guard", 9, step=5, rule=HOSTILE, action=HOSTILE, message=HOSTILE))
    add(folder / "audit.jsonl", event("memory", 9, step=5, stage=HOSTILE, rows=HOSTILE, now=HOSTILE))
    add(folder / "audit.jsonl", event("skip", 9, step=5, found=HOSTILE))
    finish(folder, "failed", reason=HOSTILE)
    seen = Reader(folder).look()
    for text in (drawn(seen, 400), drawn(seen, 60), ending(seen)):
        assert visible(text) == text, ascii(text)
    assert "[red]x[/red] [/]" in drawn(seen, 400) and "\\x1b]0;title\\x07" in drawn(seen, 400)
    arm = tmp_path / "pilot" / "arms" / HOSTILE.replace("/", "").replace("\x00", "")
    finish(write_run(arm), "failed", reason=HOSTILE)
    seen = Reader(tmp_path / "pilot").look()
    assert visible(drawn(seen, 400)) == drawn(seen, 400) and visible(ending(seen)) == ending(seen)


ODD = (None, [], {}, "x", True, -1, 2**80, 1e30, 10**400, float("nan"), float("inf"), [[[]]], {"value": 3})


def test_odd_shapes_are_left_out(tmp_path):
    folder = write_run(tmp_path / "run")
    for odd in ODD:
        add(
            folder / "steps.jsonl",
            {"step": odd, "reward": 1.0},
            step_line(8, reward=odd, timing=odd, tokens=odd),
        )
        add(folder / "audit.jsonl", {"event": odd, "data": odd, "time": odd}, event("evaluation", 9, step=5, path=odd))
        add(folder / "audit.jsonl", event("guard", 9, step=5, rule=odd, message=odd), event("resume", 9, step=odd))
        add(folder / "audit.jsonl", evaluation(5, 9, None) | {"data": {"step": 5, "path": odd, "accuracy": odd}})
        add(folder / "samples.jsonl", {"step": 5, "completions": odd}, {"step": 5, "completions": [odd]})
        (folder / "outcome.json").write_text(json.dumps({"status": odd, "reason": odd, "kept": odd}))
        (folder / "plan.json").write_text(json.dumps({"total": odd}))
        drawn(Reader(folder).look())
    for name in ("steps.jsonl", "audit.jsonl", "samples.jsonl"):
        with (folder / name).open("ab") as file:
            file.write(b"[" * 100_000 + b"\n\xff\xfe\n" + b'"text"\n')
    assert Reader(folder).look().current.step == 8
    (folder / "config.yaml").write_text("a: &a [*a]")
    assert Reader(folder).look().current.total is None


@pytest.mark.parametrize("width", [20, 40, 80, 133, 250])
def test_no_line_is_wider_than_the_terminal(tmp_path, width, hold):
    folder = write_pilot(tmp_path / "pilot")
    hold(folder)
    hold(folder / "arms" / "base-verifiable-seed0")
    add(folder / "arms" / "base-verifiable-seed0" / "samples.jsonl", sample(7, "日本語 " * 400))
    lines = drawn(Reader(folder).look(), width).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_braille_draws_what_it_is_given():
    rising = tuple((step, float(step)) for step in range(4))
    assert braille(rising, 2, 1) == ["⣠⠞"]  # strokes from level to level
    assert braille((), 3, 2) == ["   ", "   "]
    assert braille(((5, 1.0),), 3, 1) == ["⠂  "]
    flat = braille(((0, 2.0), (9, 2.0)), 4, 1)[0]
    assert len(set(flat)) == 1 and flat.strip()
    step = braille(((0, 0.0), (1, 1.0)), 1, 3)  # from the bottom to the top: no row without a dot
    assert all(row.strip() for row in step)


def test_steps_that_share_a_column_are_averaged():
    levels = _levels(tuple((step, step % 2) for step in range(1000)), 10)
    assert len(levels) == 10 and all(abs(level - 0.5) < 0.05 for level in levels)
    assert _levels(((0, 0.0), (9, 9.0)), 10) == list(range(10))  # and those between are on the line


def test_a_real_run_is_read_as_it_was_written(tmp_path, tiny_folder):
    folder = tmp_path / "run"
    run([job(folder, tiny_folder, ["evaluate.every=4", "guard.action=warn"])], stop_after=6)
    seen = Reader(folder).look()
    assert seen.state == "interrupted" and seen.current.step == 6
    resume(folder)
    seen = Reader(folder).look()
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert seen.state == "done" and (seen.current.step, seen.current.total) == (12, 12)
    assert seen.current.curves["reward"] == tuple((s["step"], s["reward"]) for s in steps)
    for view, name in (("", "hold-out accuracy"), ("canary", "canary accuracy")):
        paths = sorted((folder / "evaluations" / view).glob("step-*.json"))
        found = [json.loads(path.read_text()) for path in paths]
        assert seen.current.curves[name] == tuple((e["step"], e["summary"]["accuracy"]["value"]) for e in found)
    assert seen.sample.step == 12 and seen.sample.question
    assert "resumed: 1" in seen.current.troubles


def of(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["poc", "watch", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0


def test_without_a_terminal_it_is_one_frame(tmp_path, hold, monkeypatch, capsys):
    folder = write_run(tmp_path / "run")
    hold(folder)
    assert of(monkeypatch, str(folder)) == 0  # no --once: the output is no terminal
    assert "6 of 20 steps" in capsys.readouterr().out
    assert of(monkeypatch, str(tmp_path / "nowhere" / "run")) == 2


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 100 x 40; gives what was written to it."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100, height=40, highlight=False)
    monkeypatch.setattr(watch_screen, "Console", lambda **options: console)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    return written


def test_it_follows_until_the_run_has_ended(tmp_path, hold, terminal, monkeypatch):
    folder = write_run(tmp_path / "run")
    lock, slept = hold(folder), []

    def sleep(seconds):
        slept.append(seconds)
        add(folder / "steps.jsonl", step_line(6 + len(slept)))
        if len(slept) == 3:
            finish(folder, "done")
            lock.release()

    monkeypatch.setattr(watch_screen.time, "sleep", sleep)
    watch_screen.show(folder, 2.0, once=False)
    said = terminal.getvalue()
    assert slept == [2.0] * 3 and "8 of 20 steps" in said and "done after 9 steps" in said.splitlines()[-1]
    assert said.count("\x1b[?1049h") == said.count("\x1b[?1049l") == 1  # the terminal is given back


def test_ctrl_c_leaves_the_run_alone(tmp_path, hold, terminal, monkeypatch):
    folder = write_run(tmp_path / "run")
    hold(folder)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch_screen.time, "sleep", interrupted)
    watch_screen.show(folder, 2.0, once=False)
    assert "left alone" in terminal.getvalue().splitlines()[-1] and Reader(folder).look().state == "running"
