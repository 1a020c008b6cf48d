"""`poc resume RUN`: what is left of an interrupted run or pilot, from what lies in its folder.

Own data and models in folders are looked for where the command was given that began it (`begun_in`)."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from poc import pilot, runfolder
from poc.config import PilotConfig, RunConfig
from poc.configfile import load
from poc.pilot import Job
from poc.records import InputError


@dataclass(frozen=True, slots=True)
class Left:
    """All jobs of the command that made the folder, those that have ended among them."""

    config: PilotConfig | RunConfig
    jobs: list[Job]
    is_pilot: bool
    kind: str  # of the command: pilot, train, equivalence

    @property
    def open(self) -> list[Job]:
        return [job for job in self.jobs if not pilot.ended(job.folder)]


def left(folder: Path) -> Left:
    """Raises InputError for a folder that is no run's and no pilot's."""
    path = folder / "config.yaml"
    if folder.is_dir() and not path.is_file() and all(p.name.startswith(".") or p.is_dir() for p in folder.iterdir()):
        raise InputError(f"{folder}: was stopped before it began, there is nothing to go on with: start it again")
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: name that of a run or pilot")
    if not path.is_file():
        raise InputError(f"{folder}: no config.yaml in it, so it is no run's or pilot's folder: name one that is")
    if "arms" in _keys(path):
        config = load(PilotConfig, str(path))
        return Left(config, pilot.jobs_of(config, folder), True, "pilot")
    config = load(RunConfig, str(path))
    known = runfolder.read_environment(folder) or {}
    in_pilot = folder.resolve().parent.name == "arms"
    if in_pilot and "role" not in known:
        raise InputError(f"{folder}: was stopped before it began: resume its pilot, {folder.resolve().parent.parent}")
    kind = known.get("kind", "train")
    return Left(config, [Job(folder, folder.resolve().name, known.get("role"), config)], False, kind)


def _keys(path: Path) -> set[str]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        raise InputError(f"{path}: cannot be read as YAML: put it back") from None
    return set(found) if isinstance(found, dict) else set()


def begun_in(folder: Path) -> Path | None:
    """The folder in which the run's command was given; None where that is not known or no more."""
    told = (runfolder.read_environment(folder) or {}).get("begun_in")
    found = folder.resolve() / told if isinstance(told, str) else None
    return found if found and found.is_dir() else None
