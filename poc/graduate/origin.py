"""What a run folder says about the experiment that is to go on: configuration, checkpoint, questions.

Reads only. What cannot be gone on with, or is not as the run left it, is an InputError of one line. The guard's memory,
the optimizer and the evaluations stay behind: nothing in TRL would read them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from poc import checkpoint, pilot, runfolder, sources, tasks
from poc.config import NEED_LABELS, PilotConfig, RunConfig
from poc.configfile import kind_of, load
from poc.records import Example, InputError
from poc.rewards import hybrid


@dataclass(frozen=True, slots=True)
class Origin:
    """`checkpoint`: None for a run that was stopped before its first one, which starts with a fresh adapter. `config`:
    what is left of the experiment; `examples`: its training questions, with the labels that its rewards may see."""

    run: Path
    config: RunConfig
    checkpoint: Path | None
    step: int
    model: dict  # what environment.json says of it
    outcome: dict
    examples: list[Example]

    @property
    def steps(self) -> int:
        """What is left; of a run that has taken all its steps, as many again."""
        left = self.config.train.steps - self.step
        return left if left > 0 else self.config.train.steps


def read(run: Path) -> Origin:
    """Raises InputError for a folder that is no run's, or whose run cannot go on elsewhere."""
    told = _facts(run)
    config = load(RunConfig, str(run / "config.yaml"), [f"prompt.format={told['model']['prompt_format']}"])
    with _begun_in(run, told):
        examples = tasks.load(config.data, config.train.seed)["train"]
        _check_same(run, told, examples)
        config = _found_from_anywhere(config)
    found = _checkpoint(run)
    step, entropies = _progress(found)
    examples = pilot.training_questions(config, examples)
    if config.switch:
        config, examples = _after_switch(run, config, step, entropies), [e for e in examples if e.answer is not None]
    return Origin(run, config, found, step, told["model"], runfolder.read_outcome(run), _as_seen(config, examples))


def _facts(run: Path) -> dict:
    """environment.json of a run."""
    if not run.is_dir():
        raise InputError(f"{run}: there is no such folder: name that of a run")
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: no config.yaml in it, so it is no run's folder: name one that is")
    if kind_of(str(run / "config.yaml"), []) is PilotConfig:
        arms = sorted(path for path in run.glob("arms/*") if path.is_dir())
        raise InputError(f"{run}: is a pilot's folder: name one of its arms, as {arms[0] if arms else run / 'arms/…'}")
    told = runfolder.read_environment(run)
    if not told or "prompt_format" not in told.get("model", {}) or "train" not in told.get("data", {}):
        raise InputError(f"{run}: was stopped before it began, there is nothing to go on with: start it again")
    return told


@contextmanager
def _begun_in(run: Path, told: dict) -> Iterator[None]:
    """Inside, relative paths of the configuration start where the run was begun, if that is still there."""
    here, there = Path.cwd(), run.resolve() / str(told.get("begun_in", "."))
    os.chdir(there if there.is_dir() else here)
    try:
        yield
    finally:
        os.chdir(here)


def _check_same(run: Path, told: dict, examples: list[Example]) -> None:
    if tasks.fingerprint(examples) != told["data"]["train"]:
        raise InputError(f"{run}: the questions of train are not those the run began with: put the data back")


def _checkpoint(run: Path) -> Path | None:
    """The one that the guard went back to, else the last whole one."""
    root, kept = run / "checkpoints", runfolder.read_outcome(run).get("kept")
    found = root / checkpoint.name(kept) if isinstance(kept, int) else checkpoint.last_whole(root)
    try:
        found and checkpoint.verify(found)
    except checkpoint.Damaged as damage:
        raise InputError(
            f"{found}: the checkpoint that the guard went back to is damaged ({damage}): put it back"
        ) from None
    if found is None and any(root.glob("step-*")):
        raise InputError(f"{run}: no checkpoint is whole: put one back")
    return found


def _progress(found: Path | None) -> tuple[int, tuple[float | None, ...]]:
    """Steps taken, and the policy's entropy in each."""
    if found is None:
        return 0, ()
    state = checkpoint.load_state(found)
    return state.step, state.entropies


def _after_switch(run: Path, config: RunConfig, step: int, entropies) -> RunConfig:
    """What is left of a run with a switch that has happened: the parts that need labels, on the labelled questions."""
    switch = config.switch
    if switch.then == "stop" or not hybrid.has_switched(switch, entropies):
        ends = "ends the run" if switch.then == "stop" else f"has not happened by step {step}"
        raise InputError(f"{run}: its switch {ends}, and TRL has none: go on here, or start a run without a switch")
    reward = {name: weight for name, weight in config.reward.items() if name in NEED_LABELS}
    schedule = {name: plan for name, plan in config.schedule.items() if name in reward}
    return config.model_copy(update={"reward": reward, "schedule": schedule, "switch": None, "label_fraction": None})


def _as_seen(config: RunConfig, examples: list[Example]) -> list[Example]:
    """No gold where no reward looks at one, and no `check`, which may tell it, beside a gold that is hidden."""
    return [e if config.needs_labels and e.answer is not None else replace(e, answer=None, check="") for e in examples]


def _found_from_anywhere(config: RunConfig) -> RunConfig:
    """The same configuration, its files and folders as absolute paths."""
    semantic, data = config.semantic, config.data
    paths = {key: str(Path(path).resolve()) for key in ("file", "drop") if (path := getattr(data, key))}
    if data.dataset and Path(data.dataset).is_dir():
        paths["dataset"] = str(Path(data.dataset).resolve())
    if semantic.judge not in (None, "policy"):
        semantic = semantic.model_copy(update={"judge": _absolute(semantic.judge)})
    model = config.model
    if model.startswith("mix:"):
        first, second, share = sources.parse_mix(model)
        model = f"mix:{_absolute(first)}+{_absolute(second)}@{share!r}"
    found = {"model": _absolute(model), "semantic": semantic, "data": data.model_copy(update=paths)}
    return config.model_copy(update=found)


def _absolute(source: str) -> str:
    folder = None if source in sources.LABS else sources.local_folder(source)
    return str(folder.resolve()) if folder else source
