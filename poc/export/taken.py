"""What is exported: the checkpoint that a run ended with, its start model and data, and what was measured of it.

Reads only. What is no run, has no whole checkpoint, or has other data or another start model than the run began with is
an InputError of one line. Words and verdicts are those of the report, of this run alone and, inside a pilot, of its arm
with all seeds and the control.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from poc import checkpoint, runfolder, tasks
from poc.config import PilotConfig, RunConfig
from poc.configfile import kind_of, load
from poc.records import Example, InputError
from poc.report import words
from poc.report.arms import Judged, collect
from poc.report.language import load as language
from poc.report.read import Run
from poc.report.read import read as read_runs
from poc.weights import Located, locate

SAY = language("en")


@dataclass(frozen=True, slots=True)
class Taken:
    """`run`: as the report reads it, its evaluations those up to `step`; none where that step was not measured."""

    folder: Path
    config: RunConfig
    checkpoint: Path
    step: int
    located: Located  # the start model
    holdout: list[Example]
    run: Run
    judged: Judged  # of this run alone
    in_pilot: Judged | None  # of its arm, over all seeds

    @property
    def quantization(self) -> str:
        """How the start model was held in training: nf4 or none."""
        gpu = (self.run.environment.get("hardware") or {}).get("gpu")
        return self.config.quantization or ("nf4" if gpu else "none")


def read(folder: Path) -> Taken:
    """Of the run in `folder`; relative paths in its configuration start at the current folder. Raises InputError."""
    told = _told(folder)
    config = load(RunConfig, str(folder / "config.yaml"), [f"prompt.format={told['model']['prompt_format']}"])
    found = _checkpoint(folder)
    holdout = tasks.load(config.data, config.train.seed)["holdout"]
    if tasks.fingerprint(holdout) != told["data"]["holdout"]:
        raise InputError(f"{folder}: the questions of holdout are not those the run began with: put the data back")
    located = locate(config.model)
    if located.fingerprint != told["model"]["fingerprint"]:
        raise InputError(f"{folder}: the weights of {config.model} are not those the run began with: put them back")
    step = checkpoint.step_of(found)
    run = as_exported(read_runs(folder)[0], step)
    return Taken(folder, config, found, step, located, holdout, run, collect([run])[0], _in_pilot(folder))


def as_exported(run: Run, step: int) -> Run:
    """The run as if it had ended at `step`: what was measured later says nothing of these weights."""
    if run.kept:
        return run
    so_far = tuple(evaluation for evaluation in run.evaluations if evaluation.step <= step)
    return replace(run, evaluations=so_far if so_far and so_far[-1].step == step else ())


def _told(folder: Path) -> dict:
    """environment.json of a run that has begun."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: name that of a run")
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no config.yaml in it, so it is no run's folder: name one that is")
    if kind_of(str(folder / "config.yaml"), []) is PilotConfig:
        raise InputError(f"{folder}: is a pilot's folder: name one of its arms{_best_arm(folder)}")
    told = runfolder.read_environment(folder) or {}
    if "prompt_format" not in (told.get("model") or {}) or "holdout" not in (told.get("data") or {}):
        raise InputError(f"{folder}: was stopped before it began, there is nothing to export: start it again")
    return told


def _best_arm(folder: Path) -> str:
    """Of a pilot: the run to name, by its report, if there is any."""
    there = [judged for judged in collect(read_runs(folder)) if (folder / "arms" / judged.arm.first.name).is_dir()]
    if not there:
        return f" (none has begun in {folder / 'arms'})"
    best = max(there, key=lambda judged: judged.arm.change.value if judged.arm.change else -1.0)
    change = f", {words.change(best.arm.change, SAY)} points" if best.arm.change else ""
    word = SAY(f"badge.{best.verdict.word}")
    return f", the best is {folder / 'arms' / best.arm.first.name} ({word}{change})"


def _checkpoint(folder: Path) -> Path:
    """The one that the guard went back to, else the last whole one."""
    root, kept = folder / "checkpoints", runfolder.read_outcome(folder).get("kept")
    if isinstance(kept, int):
        found = root / checkpoint.name(kept)
        try:
            checkpoint.verify(found)
        except checkpoint.Damaged as damage:
            raise InputError(f"{found}: the run ended with it, and it is damaged ({damage}): put it back") from None
        return found
    found = checkpoint.last_whole(root)
    if found is None:
        raise InputError(f"{folder}: no checkpoint in it is whole: put one back, or go on with the run: poc resume")
    return found


def _in_pilot(folder: Path) -> Judged | None:
    """The arm of a run that lies in a pilot's folder."""
    arms = folder.resolve().parent
    if arms.name != "arms" or not (arms.parent / "config.yaml").is_file():
        return None
    name = folder.resolve().name
    return next((j for j in collect(read_runs(arms.parent)) if name in [run.name for run in j.arm.runs]), None)
