"""What a run or a pilot has written so far, read while it goes on: a folder -> a frozen record. It writes nothing.

Logs are read as they grow, each line once, and from the beginning again where a resumed run cut them back. What is
missing, half written or of another shape counts as not there yet. The big files (evaluations, checkpoints) are not
opened: the audit log says what was measured. Not here: the terminal (poc.watch_screen), judging a result (poc.report).
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from poc.config import PilotConfig, RunConfig
from poc.configfile import kind_of, load
from poc.records import InputError
from poc.tail import Tail, held, last_object, whole_object

State = Literal["waiting", "starting", "running", "done", "stopped", "interrupted", "failed", "killed"]
Curve = tuple[tuple[int, float], ...]  # (step, value), by step
OF_STEPS = ("reward", "entropy", "length")
VIEWS = {"evaluations": "hold-out", "evaluations/canary": "canary"}  # folders whose accuracy is followed
RECENT = 50  # steps that the pace is taken from
LARGEST = 1e30  # no statistic of a run is larger: what is, was not written by one


@dataclass(frozen=True, slots=True)
class Decision:
    """Of the guard."""

    step: int
    rule: str
    action: str
    message: str


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    reward: float | None
    status: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One group of a step: its best completion and, where there are several, its worst."""

    step: int
    question: str
    gold: str
    best: Completion
    worst: Completion | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Every text is as it lies in the folder: not safe to print.

    `curves`: reward, entropy and length of the steps; accuracy, or without labels entropy, of hold-out and canary.
    `pace`: seconds a step, evaluations and checkpoints included; None before there are two steps.
    """

    name: str
    state: State
    reason: str = ""  # why it ended early
    kept: int | None = None  # the step that it went back to
    total: int | None = None  # steps
    step: int = 0  # the last that was taken
    curves: dict[str, Curve] = field(default_factory=dict)
    speed: float | None = None  # tokens a second, of the last step
    pace: float | None = None
    foretold: float | None = None  # seconds that the whole run was predicted to take
    heard: float | None = None  # when it last wrote something, seconds since 1970
    decisions: tuple[Decision, ...] = ()
    troubles: tuple[str, ...] = ()  # memory that ran out, steps that were skipped, resumes

    @property
    def left(self) -> float | None:
        """Seconds to the last step, at the pace so far; before the second step as predicted."""
        if self.pace is None or self.total is None:
            return self.foretold if self.step < 2 else None
        return self.pace * max(self.total - self.step, 0)


@dataclass(frozen=True, slots=True)
class Watched:
    """A run, or a pilot with all its planned runs in order. `busy`: a process works on it."""

    folder: Path
    is_pilot: bool
    busy: bool
    runs: tuple[Run, ...]
    sample: Sample | None = None  # the latest of `current`

    @property
    def current(self) -> Run:
        """The run that goes on, else the last that has taken a step, else the first."""
        going = [run for run in self.runs if run.state == "running"]
        return (going or [run for run in reversed(self.runs) if run.step] or self.runs)[0]

    @property
    def state(self) -> State:
        """Of a pilot: that of its command. An arm that the guard stopped is a finding, no end."""
        states = {run.state for run in self.runs}
        if not self.is_pilot:
            return self.current.state
        if self.busy:
            return "starting" if states <= {"waiting", "starting"} else "running"
        if "killed" in states or ("waiting" in states and "interrupted" not in states):
            return "killed"
        return next((state for state in ("interrupted", "failed") if state in states), "done")

    @property
    def ended(self) -> bool:
        """Nobody works on it, and somebody has."""
        return not self.busy and self.state not in ("waiting", "starting", "running")

    @property
    def steps(self) -> tuple[int, int | None]:
        """(taken, in all) of all runs; one that ended early is counted as far as it came."""
        taken, over = sum(run.step for run in self.runs), ("done", "stopped", "failed")
        if any(run.total is None for run in self.runs):
            return taken, None
        return taken, sum(run.step if run.state in over else run.total for run in self.runs)

    @property
    def left(self) -> float | None:
        """Seconds to the end of all runs, if those to come are as fast as the current one."""
        taken, total = self.steps
        if not self.is_pilot:
            return self.current.left
        return None if total is None or self.current.pace is None else self.current.pace * (total - taken)


class Reader:
    """Looks at one folder again and again."""

    def __init__(self, folder: Path) -> None:
        """InputError for what is no run's folder and cannot become one."""
        self.folder, self.config = folder, None
        self.readers: dict[Path, _RunReader] = {}
        if folder.is_dir():
            strange = not _is_ours(folder) and any(path.name[0] != "." for path in folder.iterdir())
        else:
            strange = folder.exists() or not folder.absolute().parent.is_dir()
        if strange:
            raise InputError(f"{folder}: is no folder of a run or a pilot, nor a place for one: name the run's --out")

    def look(self) -> Watched:
        """What is there now."""
        self.config = self.config or _config(self.folder)
        busy, arms = held(self.folder), self.folder / "arms"
        is_pilot = isinstance(self.config, PilotConfig) or arms.is_dir()
        folders = [arms / name for name in self._names(arms)] if is_pilot else [self.folder]
        total = self.config.train.steps if self.config else None
        readers = [self.readers.setdefault(folder, _RunReader(folder)) for folder in folders]
        runs = tuple(reader.look(total, goes_on=is_pilot and busy) for reader in readers) or (Run("", "waiting"),)
        seen = Watched(self.folder, is_pilot, busy, runs)
        latest = self.folder if not is_pilot else arms / seen.current.name
        return replace(seen, sample=_sample(last_object(latest / "samples.jsonl")))

    def _names(self, arms: Path) -> list[str]:
        """Of all runs: those that are planned in the order in which they are taken, then whatever else lies there."""
        planned = _planned(self.config) if isinstance(self.config, PilotConfig) else []
        found = sorted(path.name for path in arms.iterdir() if path.is_dir()) if arms.is_dir() else []
        return list(dict.fromkeys([*planned, *found]))


class _RunReader:
    """Of one run folder: what was read so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps, self.audit = Tail(folder / "steps.jsonl"), Tail(folder / "audit.jsonl")
        self.numbers: dict[int, dict[str, float]] = {}  # by step
        self.last: dict = {}  # the last line of steps.jsonl
        self.told = Told()

    def look(self, total: int | None, goes_on: bool) -> Run:
        """`goes_on`: its pilot is at work and will take it up again where it stands."""
        self._read()
        outcome = whole_object(self.folder / "outcome.json")
        return Run(
            name=self.folder.resolve().name, state=self._state(held(self.folder), outcome.get("status"), goes_on),
            reason=_text(outcome.get("reason")), kept=_step(outcome.get("kept")), total=total,
            step=max(self.numbers, default=0), curves=self._curves(), speed=self._speed(), pace=self._pace(),
            foretold=number(whole_object(self.folder / "plan.json").get("total")), heard=self.told.heard,
            decisions=tuple(self.told.decisions), troubles=self.told.troubles(),
        )  # fmt: skip

    def _read(self) -> None:
        anew, lines = self.steps.read()
        self.numbers = {} if anew else self.numbers
        for line in lines:
            if (step := _step(line.get("step"))) is not None:
                known = {name: number(line.get(name)) for name in OF_STEPS}
                self.numbers[step] = {name: value for name, value in known.items() if value is not None}
                self.last = line
        anew, events = self.audit.read()
        self.told = Told() if anew else self.told
        for event in events:
            self.told.take(event)

    def _state(self, busy: bool, status: Any, goes_on: bool) -> State:
        """`busy`: a process works on this run. What it was interrupted with then counts no more."""
        if status in ("done", "stopped") or (status in ("interrupted", "failed") and not busy):
            return status
        if busy:
            return "starting" if self.told.heard is None else "running"
        return "killed" if (self.folder / "config.yaml").is_file() and not goes_on else "waiting"

    def _curves(self) -> dict[str, Curve]:
        of_steps = {name: {s: n[name] for s, n in self.numbers.items() if name in n} for name in OF_STEPS}
        return {name: tuple(sorted(curve.items())) for name, curve in (of_steps | self.told.measured).items() if curve}

    def _speed(self) -> float | None:
        seconds, tokens = _seconds(self.last), number(self.last.get("tokens"))
        return tokens / seconds if tokens and seconds else None

    def _pace(self) -> float | None:
        """By the clock of the audit log, whose unit is a second; not below what the last step says it took."""
        times = self.told.times
        return max((times[-1] - times[0]) / (len(times) - 1), _seconds(self.last)) if len(times) > 1 else None


class Told:
    """What the audit log tells of a run, event after event."""

    def __init__(self) -> None:
        self.measured: dict[str, dict[int, float]] = {}  # curve -> step -> value
        self.decisions: list[Decision] = []
        self.memory: list[tuple[int, str]] = []  # (step, what happened)
        self.skips: list[tuple[int, str]] = []
        self.resumes = 0
        self.times: list[float] = []  # of the last steps since the run was last taken up
        self.heard: float | None = None
        self.takes = {
            "step": self._stepped, "evaluation": self._evaluated, "guard": self._decided, "memory": self._lacked,
            "skip": self._skipped, "resume": self._resumed,
        }  # fmt: skip

    def take(self, event: dict) -> None:
        """One event; of an unknown kind or shape only its time counts."""
        self.heard = _time(event.get("time")) or self.heard
        kind, data = event.get("event"), event.get("data")
        step = _step(data.get("step")) if isinstance(data, dict) else None
        if step is not None and isinstance(kind, str) and kind in self.takes:
            self.takes[kind](step, data)

    def troubles(self) -> tuple[str, ...]:
        """One line for each kind that there was."""
        kinds = {"memory ran out": self.memory, "steps skipped": self.skips}
        lines = [f"{name}: {len(found)}, last {found[-1][1]}" for name, found in kinds.items() if found]
        return (*lines, *([f"resumed: {self.resumes}"] if self.resumes else []))

    def _stepped(self, step: int, data: dict) -> None:
        if self.heard is not None:
            self.times = [*self.times, self.heard][-RECENT:]

    def _evaluated(self, step: int, data: dict) -> None:
        view = VIEWS.get(_text(data.get("path")).rpartition("/")[0])
        name = "entropy" if number(data.get("accuracy")) is None else "accuracy"
        value = number(data.get(name))
        if view and value is not None:
            self.measured.setdefault(f"{view} {name}", {})[step] = value

    def _decided(self, step: int, data: dict) -> None:
        self.decisions.append(Decision(step, *(_text(data.get(key)) for key in ("rule", "action", "message"))))

    def _lacked(self, step: int, data: dict) -> None:
        stage, rows, now = (_text(data.get(key)) for key in ("stage", "rows", "now"))
        self.memory.append((step, f"in step {step}, {stage}: {rows} -> {now} completions at once"))

    def _skipped(self, step: int, data: dict) -> None:
        self.skips.append((step, f"step {step}: {_text(data.get('found'))}"))

    def _resumed(self, step: int, data: dict) -> None:
        """Whatever was told of later steps is told again."""
        self.resumes, self.times = self.resumes + 1, []
        self.measured = {n: {s: v for s, v in curve.items() if s <= step} for n, curve in self.measured.items()}
        self.decisions = [decision for decision in self.decisions if decision.step <= step]
        self.memory, self.skips = ([one for one in some if one[0] <= step] for some in (self.memory, self.skips))


def number(value: Any) -> float | None:
    """A finite number of a sane size, or None for whatever else a file may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else None  # NaN is not, either


def _is_ours(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.yaml", "arms", "audit.jsonl", ".lock"))


def _config(folder: Path) -> PilotConfig | RunConfig | None:
    """None where there is none yet, or none that this version of the kit knows."""
    path = folder / "config.yaml"
    try:
        return load(kind_of(str(path), []), str(path)) if path.is_file() else None
    except (InputError, OSError):
        return None


def _planned(config: PilotConfig) -> list[str]:
    """Names of the runs' folders, one model after the other (poc.pilot.jobs_of)."""
    roles = list(config.models)
    arms = sorted(config.arms, key=lambda arm: roles.index(arm.model))
    return [f"{arm.label}-seed{seed}" for arm in arms for seed in config.seeds]


def _sample(line: dict) -> Sample | None:
    step, listed = _step(line.get("step")), line.get("completions")
    found = [_completion(c) for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    if step is None or not found:
        return None
    worst = found[-1] if len(found) > 1 else None
    return Sample(step, _text(line.get("question")), _text(line.get("gold")), found[0], worst)


def _completion(data: dict) -> Completion:
    return Completion(_text(data.get("text")), number(data.get("reward")), _text(data.get("status")))


def _seconds(record: dict) -> float:
    timing = record.get("timing")
    known = [number(value) for value in timing.values()] if isinstance(timing, dict) else []
    return sum(value for value in known if value is not None)


def _step(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _text(value: Any) -> str:
    """A text, or a number as one; nothing for whatever else."""
    return value if isinstance(value, str) else str(value) if number(value) is not None else ""


def _time(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
