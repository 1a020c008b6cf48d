"""Run folders to plain records: reads, checks the shape, judges nothing.

A run that was killed leaves torn or missing files. What can be read is kept, what cannot is named in `notes`, which the
report prints. Only a folder that is no run and no pilot at all is an InputError.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import ValidationError

from poc.config import PilotConfig
from poc.configfile import MAX_FILE_BYTES
from poc.gap.curves import Curves, read_run
from poc.records import InputError, Status
from poc.report.review import Review, adapter_sha256, review
from poc.statistics import Interval

Values = dict[str, float]  # prompt key -> value of that prompt
MAX_STEP = 2**31  # a larger number is no step: it would only stretch the charts
OF_THE_GUARD = ("canary", "kept", "kept-canary", "gap")  # views that are no results of the run
MAX_VIEWS = 20  # levels and ways of asking; more is no pilot's folder
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, yaml.YAMLError)


class Note(NamedTuple):
    """What could not be read. `kind`: missing, unreadable, torn (the last line), line (its number), folders."""

    kind: str
    name: str
    detail: str = ""


class Alarm(NamedTuple):
    """What the guard decided at a step; `action`: warn, stop or rollback."""

    rule: str
    action: str
    step: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer on the hold-out. `status`, `formatted`, `correct_anyhow` are None where no label exists.

    `confidence`: exp of the mean log-probability of its tokens, from 0 to 1; None where it was not written.
    """

    text: str
    status: str | None
    formatted: bool | None
    correct_anyhow: bool | None
    confidence: float | None = None

    @property
    def correct(self) -> float | None:
        return None if self.status is None else float(self.status == "correct")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One hold-out question with its greedy and its sampled answers."""

    id: str
    question: str
    gold: str | None
    greedy: Completion | None
    sampled: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The hold-out at one step. `prompts` is keyed by id and question, so that other data never pair by chance."""

    step: int
    temperature: float
    samples: int
    summary: dict[str, Interval]
    prompts: dict[str, Prompt]

    def per_prompt(self, metric: Callable[[Completion], float | bool | None]) -> Values:
        """Mean of `metric` over each prompt's sampled answers; unlabelled prompts are left out."""
        found = {key: [metric(c) for c in prompt.sampled] for key, prompt in self.prompts.items()}
        return {key: sum(v) / len(v) for key, v in found.items() if v and None not in v}


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder. `status`: done, stopped (by its guard), interrupted, failed, killed (no outcome.json) or not
    started.

    `views`: what was measured beside the hold-out, by the name of its folder. `kept`: the hold-out at the checkpoint
    that the guard went back to. `gap`: solver and verifier, where they were measured.
    """

    name: str
    source: str  # the pilot folder, or the folder that holds the run
    status: str
    config_text: str = ""
    config: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    outcome: dict = field(default_factory=dict)
    steps: tuple[dict, ...] = ()
    samples: tuple[dict, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    views: dict[str, tuple[Evaluation, ...]] = field(default_factory=dict)
    kept: Evaluation | None = None
    gap: Curves | None = None
    alarms: tuple[Alarm, ...] = ()
    review: Review | None = None
    notes: tuple[Note, ...] = ()
    label: str = ""
    seed: int = 0

    @property
    def final(self) -> Evaluation:
        """The hold-out under the weights that the run leaves behind."""
        return self.kept or self.evaluations[-1]


def read(folder: Path) -> list[Run]:
    """The run in `folder`, or all runs of a pilot, those that never started included. InputError if it is neither."""
    folder = Path(folder)
    if (folder / "arms").is_dir():
        return _read_pilot(folder)
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: not a run folder (no config.yaml) and not a pilot's (no arms/): name one of these")
    parent = folder.resolve().parent
    return [_read_run(folder, str(parent.parent if parent.name == "arms" else parent))]


def _read_pilot(folder: Path) -> list[Run]:
    source = str(folder.resolve())
    found = {path.name: path for path in sorted((folder / "arms").iterdir()) if path.is_dir()}
    planned = {f"{label}-seed{seed}": (label, seed) for label, seed in _planned(folder)}
    order = [*(n for n in planned if n in found), *(n for n in found if n not in planned)]
    runs = [_read_run(found[name], source) for name in order]
    missing = [n for n in planned if n not in found]
    return runs + [Run(n, source, "not started", label=planned[n][0], seed=planned[n][1]) for n in missing]


def _planned(folder: Path) -> list[tuple[str, int]]:
    try:
        config = PilotConfig.model_validate(yaml.safe_load(_text(folder / "config.yaml")))
    except (OSError, ValueError, yaml.YAMLError, ValidationError):
        return []
    return [(arm.label, seed) for arm in config.arms for seed in config.seeds]


def _read_run(folder: Path, source: str) -> Run:
    notes: list[Note] = []
    config_text = _attempt(folder / "config.yaml", _text, "", notes)
    config = _attempt(folder / "config.yaml", lambda p: _mapping(yaml.safe_load(_text(p))), {}, notes)
    environment = _attempt(folder / "environment.json", _json, {}, notes)
    outcome, status = {}, "killed"
    if (folder / "outcome.json").exists():
        outcome = _attempt(folder / "outcome.json", _json, {}, notes)
        status = _one_of(outcome.get("status"), ("done", "stopped", "interrupted", "failed"), "killed")
    views = _views(folder / "evaluations", notes)
    kept = [e for e in views.get("kept", ()) if e.step == outcome.get("kept")]
    steps, samples = _lines(folder / "steps.jsonl", notes), _lines(folder / "samples.jsonl", notes)
    return Run(
        name=folder.resolve().name,
        source=source,
        status=status,
        config_text=config_text,
        config=config,
        environment=environment,
        outcome=outcome,
        steps=tuple(s for s in steps if _is_step(s.get("step"))),
        samples=tuple(samples),
        evaluations=_evaluations(folder / "evaluations", notes),
        views={name: found for name, found in views.items() if name not in OF_THE_GUARD},
        kept=kept[0] if kept else None,
        gap=_attempt(folder, read_run, None, notes) if any(folder.glob("evaluations/gap/step-*.json")) else None,
        alarms=_alarms(outcome.get("guard")),
        review=_reviewed(folder, outcome.get("kept"), notes),
        notes=tuple(notes),
        label=str(environment.get("arm") or folder.resolve().name),
        seed=environment.get("seed") if isinstance(environment.get("seed"), int) else 0,
    )


def _alarms(listed: Any) -> tuple[Alarm, ...]:
    """The guard's, of outcome.json; what is none is left out."""
    found = [d for d in listed if isinstance(d, dict) and _is_step(d.get("step"))] if isinstance(listed, list) else []
    return tuple(Alarm(str(d.get("rule"))[:60], str(d.get("action"))[:20], d["step"]) for d in found[:100])


def _reviewed(folder: Path, kept: Any, notes: list[Note]) -> Review | None:
    """review.json, where people have read answers of this run."""
    if not (folder / "review.json").exists():
        return None
    found = lambda path: review(_json(path), adapter_sha256(folder, kept))  # noqa: E731
    return _attempt(folder / "review.json", found, None, notes)


def number(value: Any) -> float | None:
    """A finite number, or None for whatever else a file may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_STEP


def _evaluations(folder: Path, notes: list[Note], view: str = "") -> tuple[Evaluation, ...]:
    """What can be read of step-*.json in `folder`, by step."""
    prefix = f"{view}/" if view else ""
    paths = sorted(folder.glob("step-*.json"))
    found = [_attempt(path, _evaluation, None, notes, name=prefix + path.name) for path in paths]
    return tuple(sorted((e for e in found if e), key=lambda e: e.step))


def _views(folder: Path, notes: list[Note]) -> dict[str, tuple[Evaluation, ...]]:
    paths = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if len(paths) > MAX_VIEWS:
        notes.append(Note("folders", "evaluations", f"{MAX_VIEWS} / {len(paths)}"))
    found = {path.name: _evaluations(path, notes, path.name) for path in paths[:MAX_VIEWS]}
    return {name: evaluations for name, evaluations in found.items() if evaluations}


def _attempt(path: Path, reader: Callable, otherwise: Any, notes: list[Note], name: str = "") -> Any:
    try:
        return reader(path)
    except UNREADABLE as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        detail = "" if kind == "missing" else f"{type(error).__name__}: {error}".replace("\n", " ")[:250]
        notes.append(Note(kind, name or path.name, detail))
        return otherwise


def _lines(path: Path, notes: list[Note]) -> list[dict]:
    raw = _attempt(path, lambda p: p.read_text("utf-8", errors="replace"), "", notes).split("\n")
    records = []
    for number, line in enumerate(raw, 1):
        try:
            records += [_mapping(_loads(line))] if line.strip() else []
        except (ValueError, TypeError, RecursionError):
            torn = number == len(raw)
            notes.append(Note("torn", path.name) if torn else Note("line", path.name, str(number)))
    return records


def _evaluation(path: Path) -> Evaluation:
    data = _json(path)
    prompts = [_prompt(p) for p in data.get("prompts", [])]
    if not _is_step(data["step"]):
        raise ValueError(f"step {data['step']!r}"[:60])
    return Evaluation(
        step=data["step"],
        temperature=float(data.get("temperature", 1.0)),
        samples=int(data.get("samples", 0)),
        summary={str(name): _interval(v) for name, v in _mapping(data["summary"]).items()},
        prompts={f"{p.id}\n{p.question}": p for p in prompts},
    )


def _prompt(data: dict) -> Prompt:
    gold, greedy = data.get("gold"), data.get("greedy")
    return Prompt(
        id=str(data["id"]),
        question=_question(data["question"]),
        gold=None if gold is None else str(gold),
        greedy=_completion(greedy) if greedy else None,
        sampled=tuple(_completion(c) for c in data["sampled"]),
    )


def _question(question: str | list) -> str:
    if isinstance(question, str):
        return question
    return "\n".join(f"{m['role']}: {m['content']}" for m in question)  # chat messages


def _completion(data: dict) -> Completion:
    status = _one_of(data["status"], get_args(Status), None)
    formatted, anyhow = _flag(data.get("formatted")), _flag(data.get("correct_anyhow"))
    return Completion(str(data["text"]), status, formatted, anyhow, _confidence(number(data.get("mean_logp"))))


def _confidence(mean_logp: float | None) -> float | None:
    return math.exp(mean_logp) if mean_logp is not None and mean_logp <= 0 else None


def _interval(data: dict) -> Interval:
    numbers = [number(data.get(k)) for k in ("value", "low", "high")]
    return Interval(*numbers, int(data.get("n") or 0))


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _one_of(value: Any, valid: tuple[str, ...], otherwise: str | None) -> str | None:
    return value if value in valid else otherwise


def _mapping(value: Any) -> dict:
    if not isinstance(value, dict):
        raise TypeError(f"a mapping was expected, got {type(value).__name__}")
    return value


def _json(path: Path) -> dict:
    return _mapping(_loads(path.read_text("utf-8")))


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: None)  # NaN and Infinity are no JSON: a missing value


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes, more than {MAX_FILE_BYTES}")
    return path.read_text("utf-8")
