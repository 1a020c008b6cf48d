"""A run's numbers in a tracker that the user has already: `tracker: none | tensorboard | trackio | wandb`.

Numbers only, and what the guard said: StepRecords as train/..., evaluations as holdout/... or VIEW/..., by step. No
question, no completion, no configuration. The run folder stays the record: a tracker that fails is told of once and
left alone, and the run goes on. A resumed run goes on in the same place after the step of its checkpoint; steps that
are taken again are the same again. Where they go: tensorboard into RUN/tensorboard; wandb as WANDB_MODE and its login
say, its own files into RUN/wandb; trackio to where TRACKIO_DIR says. To add one takes a function and a line in OPEN.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from poc.parallel import the_world
from poc.records import InputError, StepRecord
from poc.text import clip, visible

PROJECT = "poc-pilot-kit"
# What libraries read before they report to their makers; set at the start of a command, unless the user has set it.
TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1", "DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False", "WANDB_ERROR_REPORTING": "false",
}  # fmt: skip
Numbers = dict[str, float]


class Run(NamedTuple):
    """A run as its tracker knows it: the same whenever it is gone on with."""

    folder: Path  # resolved
    id: str
    step: int  # the last that was taken

    @property
    def group(self) -> str | None:
        """Of runs: the pilot, where it is one of a pilot's."""
        return self.folder.parent.parent.name if self.folder.parent.name == "arms" else None


class Sink(NamedTuple):
    """Where it goes. Each may raise."""

    numbers: Callable[[int, Numbers], object]
    note: Callable[[int, str], object]
    close: Callable[[], object]


class Tracker:
    """Of one run. With the name "none" it does nothing."""

    def __init__(self, name: str = "none", run: Run | None = None, say: Callable[[str], None] = print) -> None:
        self.name, self.say, self.sink = name, say, None
        if name != "none":
            self.sink = self._try(lambda: OPEN[name](run))

    def step(self, record: StepRecord) -> None:
        fields = asdict(record)
        self._send(record.step, _numbers("train", fields), f"skipped: {record.skipped}" if record.skipped else "")

    def evaluation(self, evaluation: dict, view: str = "") -> None:
        """`view`: the name of what was measured beside the hold-out."""
        means = {name: interval["value"] for name, interval in evaluation["summary"].items()} if self.sink else {}
        self._send(evaluation["step"], _numbers(view or "holdout", means), "")

    def decision(self, decision: dict) -> None:
        """Of the guard."""
        self._send(decision["step"], {}, f"{decision['rule']} ({decision['action']}): {decision['message']}")

    def close(self) -> None:
        if self.sink:
            self._try(self.sink.close)
        self.sink = None

    def _send(self, step: int, numbers, note: str) -> None:
        if self.sink and (found := dict(numbers)):
            self._try(lambda: self.sink.numbers(step, found))
        if self.sink and note:
            self._try(lambda: self.sink.note(step, visible(clip(note, 1000))))

    def _try(self, work: Callable):
        """What `work` gives; the first time that it fails is the last time that it is asked."""
        try:
            return work()
        except Exception as error:  # whatever a library, its server or the network may raise
            self.sink = None
            reason = visible(clip(" ".join(f"{type(error).__name__}: {error}".split()), 300))
            self.say(f"tracker {self.name} failed, the run goes on without it: {reason}")


def check(name: str) -> None:
    """InputError where the package is missing. Who has to log in is asked here, before anything heavy loads."""
    if name == "none":
        return
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        raise InputError(f"tracker = {name!r}: is not installed: pip install {name}, or leave tracker out") from None
    if name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online" and the_world().is_writer:
        _login()


def _login() -> None:
    import wandb

    try:
        known, why = wandb.login(), ""
    except Exception as error:  # no terminal to ask in, a key that is none
        known, why = False, f" ({visible(clip(' '.join(str(error).split()), 100))})"
    if not known:
        raise InputError(
            f"tracker = 'wandb': nobody is logged in{why}: wandb login, or WANDB_MODE=offline to keep it here"
        )


def _tensorboard(run: Run) -> Sink:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)  # hides what is taken again

    def numbers(step: int, found: Numbers) -> None:
        for name, value in found.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Sink(numbers, lambda step, text: writer.add_text("guard", text, step), writer.close)


def _trackio(run: Run) -> Sink:
    import trackio

    opened = trackio.init(
        project=PROJECT, name=f"{run.folder.name}-{run.id[:8]}", group=run.group, resume="allow", private=True,
        embed=False, auto_log_gpu=False, auto_log_cpu=False,
    )  # fmt: skip
    return Sink(
        lambda step, found: opened.log(found, step=step),
        lambda step, text: opened.log({"guard": text}, step=step),
        opened.finish,
    )


def _wandb(run: Run) -> Sink:
    import wandb

    nothing_else = wandb.Settings(
        console="off", save_code=False, disable_git=True, x_disable_meta=True, x_disable_stats=True,
        x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip
    opened = wandb.init(
        project=PROJECT, name=run.folder.name, group=run.group, id=run.id, resume="allow", dir=str(run.folder),
        settings=nothing_else,
    )  # fmt: skip
    opened.define_metric("*", step_metric="step")  # its own counter only goes up, ours goes back at a resume
    return Sink(
        lambda step, found: opened.log({"step": step, **found}),
        lambda step, text: opened.log({"step": step, "guard": text}),
        opened.finish,
    )


OPEN = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}


def _numbers(prefix: str, tree: dict) -> Iterator[tuple[str, float]]:
    """("train/rewards/verifiable", 0.5), ...: every finite number in it; the step is the axis."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _numbers(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and name != "step":
            yield f"{prefix}/{name}", float(value)
