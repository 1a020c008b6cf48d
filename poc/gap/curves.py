"""What a run measured of solver and verifier, read from its folder, and what follows from it. Judges by numbers only.

Reading takes evaluations/gap/step-*.json as untrusted: a file that is not what poc.gap.measure writes is an InputError
that names it. `analysed` is pure.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from pydantic import ValidationError

from poc.config import Cost, External
from poc.gap import cross, honesty
from poc.gap.forecast import Forecast, forecast
from poc.records import InputError
from poc.text import clip, visible

UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError, ValidationError)
SHARES = ("solver_accuracy", "verifier_accuracy", "oracle_accuracy", "passed", "unverified", "truncated")
MOST = 1e9  # nats or tokens of an answer
NEEDED = ("solver", "verifier", "solver_length", "solver_nll", "verifier_length", "verifier_nll")


@dataclass(frozen=True, slots=True)
class Curves:
    """One run's measurements, by step. `unit`: round (of poc improve) or step; `pace`: seconds of one."""

    name: str
    model: str
    task: str
    seed: int
    unit: str
    measured: tuple[dict, ...]
    rounds: int
    pace: float | None = None
    cost: Cost = Cost()
    external: External | None = None
    verifier: str = "none"

    @property
    def times(self) -> list[float]:
        return [float(one["step"]) for one in self.measured]

    def values(self, name: str) -> list[float | None]:
        """Of one metric at each time; None where it was not measured."""
        return [number(one["summary"].get(name, {}).get("value")) for one in self.measured]

    @property
    def key(self) -> tuple:
        """Runs that differ in nothing but seed and external answers."""
        return self.model, self.task, self.unit, self.rounds, self.verifier


@dataclass(frozen=True, slots=True)
class Analysis:
    """A run's curves with what they allow to say."""

    curves: Curves
    forecast: Forecast
    split: honesty.Split
    accuracy: honesty.Word
    extra: dict = field(default_factory=dict)

    @property
    def hours(self) -> float | None:
        """Of the rounds that are left until the limit is nearly reached."""
        rounds = self.forecast.rounds
        known = rounds is not None and math.isfinite(rounds.value) and self.curves.pace
        return rounds.value * self.curves.pace / 3600 if known else None


def read(folder: Path) -> list[Curves]:
    """Of a run, or of all runs of a pilot that have measurements. Raises InputError where there are none."""
    runs = sorted(p for p in (folder / "arms").iterdir()) if (folder / "arms").is_dir() else [folder]
    if not any((run / "config.yaml").is_file() for run in runs):
        raise InputError(f"{folder}: is no folder of a run or a pilot: name one")
    found = [read_run(run) for run in runs if any(run.glob("evaluations/gap/step-*.json"))]
    if not found:
        raise InputError(
            f"{folder}: solver and verifier were not measured there: train with --set gap.every=10, or use poc improve"
        )
    return found


def read_run(folder: Path) -> Curves:
    """Raises InputError for a file that is not as the kit writes it."""
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
        cost, improve = Cost.model_validate(config.get("cost", {})), config.get("improve") or {}
        told = improve.get("external")
        path = folder / "environment.json"
        kind = json.loads(path.read_text("utf-8")).get("kind")
        data = config["data"]
        rounds, seed = int(config["train"]["steps"]), int(config["train"]["seed"])
        measured = []
        for path in sorted(folder.glob("evaluations/gap/step-*.json")):
            measured.append(_measurement(path))
        path = folder / "evaluations" / "gap"
        return Curves(
            name=folder.resolve().name, model=clip(visible(str(config["model"])), 80),
            task=clip(visible(_task(data)), 80),
            seed=seed, unit="round" if kind == "improve" else "step", measured=tuple(measured), rounds=rounds,
            pace=_pace(folder), cost=cost,
            external=External.model_validate(told) if told and kind == "improve" else None,
            verifier=str(json.loads(_newest(folder).read_text("utf-8")).get("verifier", "none")),
        )  # fmt: skip
    except UNREADABLE as error:
        reason = clip(visible(" ".join(str(error).split())), 120)
        raise InputError(f"{path}: cannot be read as what the kit writes there ({reason}): put it back") from None


def _task(data: dict) -> str:
    return str(data.get("file") or data.get("dataset") or "+".join(data["domains"]) or data["domain"])


def _newest(folder: Path) -> Path:
    return max(folder.glob("evaluations/gap/step-*.json"))


def _measurement(path: Path) -> dict:
    found = json.loads(path.read_text("utf-8"))
    if found["step"] != int(path.stem.removeprefix("step-")) or isinstance(found["step"], bool):
        raise ValueError("its step is not that of its name")
    for name, entry in found["summary"].items():
        value = number(entry["value"])
        most = 1.0 if name in SHARES else MOST
        if (name in NEEDED or name in SHARES) and (value is None or not 0 <= value <= most):
            raise ValueError(f"{name} is no number from 0 to {most:g}")
    if missing := [name for name in NEEDED if name not in found["summary"]]:
        raise ValueError(f"{missing[0]} is missing")
    if not isinstance(found["questions"], list):
        raise TypeError("questions is no list")
    return found


def _pace(folder: Path) -> float | None:
    """Seconds of a step, all that surrounds it included."""
    try:
        outcome = json.loads((folder / "outcome.json").read_text("utf-8"))
        seconds, steps = number(outcome["seconds"]["total"]), number(outcome["steps"])
    except UNREADABLE:
        return None
    return seconds / steps if seconds and steps else None


def number(value) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def until(curves: Curves, step: int | None) -> Curves:
    """Only what was measured up to `step`."""
    kept = tuple(one for one in curves.measured if step is None or one["step"] <= step)
    return replace(curves, measured=kept)


def analysed(curves: Curves) -> Analysis:
    """Forecast, split of the fall into length and certainty, and what happened to the right answers."""
    solver, verifier = ([math.nan if v is None else v for v in curves.values(name)] for name in ("solver", "verifier"))
    first, last = curves.measured[0], curves.measured[-1]
    return Analysis(
        curves, forecast(curves.times, solver, verifier), honesty.split(first["summary"], last["summary"]),
        honesty.accuracy_word(first["questions"], last["questions"]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timing:
    """Of the runs that spent their external answers at one time, over seeds; None: without external answers."""

    when: str | None
    seeds: tuple[int, ...]
    solver: tuple[float, ...]  # U_s after the last round
    accuracy: tuple[float | None, ...]
    gamma: tuple[float, ...] = ()  # against the twin of the same seed without external answers


def timings(runs: Sequence[Curves]) -> list[Timing]:
    """Cross-improvement: runs of `poc improve` alike but for seed and external answers, where some have them.

    Raises InputError for runs with external answers that are not alike: nothing could be compared.
    """
    ours = [run for run in runs if run.unit == "round"]
    if not any(run.external for run in ours):
        return []
    kinds = {(run.key, run.external and (run.external.answers, run.external.count)) for run in ours}
    if len({key for key, _ in kinds}) > 1 or len({told for _, told in kinds if told}) > 1:
        raise InputError("runs with external answers are compared only if model, task, rounds and answers are the same")
    alone = {run.seed: run for run in ours if not run.external}
    return [_timing(when, ours, alone) for when in (None, "early", "uniform", "late") if _of(when, ours)]


def _of(when: str | None, runs: Sequence[Curves]) -> list[Curves]:
    return sorted((r for r in runs if (r.external and r.external.when) == when), key=lambda run: run.seed)


def _timing(when: str | None, runs: Sequence[Curves], alone: dict[int, Curves]) -> Timing:
    mine = _of(when, runs)
    gammas = [g for run in mine if when and run.seed in alone and (g := _gamma(run, alone[run.seed])) is not None]
    return Timing(
        when, tuple(run.seed for run in mine), tuple(run.values("solver")[-1] for run in mine),
        tuple(run.values("solver_accuracy")[-1] for run in mine), tuple(gammas),
    )  # fmt: skip


def _gamma(run: Curves, twin: Curves) -> float | None:
    """None unless every round of both was measured."""
    rounds = list(range(run.rounds + 1))
    if run.times != rounds or twin.times != rounds:
        return None
    given, alone = ([one.values(name) for name in ("solver", "verifier")] for one in (run, twin))
    return cross.gamma_of(given, alone, cross.shares(run.external.when, run.rounds))
