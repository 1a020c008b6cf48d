"""What a person sees while it runs: a rich progress bar in a terminal, one plain line a step elsewhere.

Nothing that a model wrote is printed here.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from poc.records import StepRecord

GIB = 2**30
CHANGED = 0.1  # a mean length that changed by more is told of

console = Console(highlight=False, soft_wrap=True)


def summary(record: StepRecord) -> str:
    """ "reward 0.412 · entropy 0.31 nats · length 21.4 · 5,210 tokens/s" """
    rate = record.tokens / max(sum(record.timing.values()), 1e-9)
    shown = {"reward": record.reward, "entropy": record.entropy}
    known = [f"{name} {'–' if value is None else f'{value:.3f}'}" for name, value in shown.items()]
    parts = [*known, f"length {record.length:.1f}", *(["SKIPPED"] if record.skipped else [])]
    if record.truncated > 0.5:
        parts.append(f"TRUNCATED {record.truncated:.0%}")
    return " · ".join([*parts, f"{rate:,.0f} tokens/s"])


def foretold(plan: dict) -> str:
    """ "will take about 1.3 min and 0.68 GiB, as long as completions have 18.2 tokens" """
    time_, memory_ = duration(plan["total"]), f"{plan['peak_bytes'] / GIB:.2f} GiB"
    return f"will take about {time_} and {memory_}, as long as completions have {plan['lengths']['mean']:.1f} tokens"


def told(outcome: dict, steps: int) -> str:
    """ "1.4 min (predicted 1.3), peak 0.71 GiB (predicted 0.68), mean tokens 11.2 -> 7.0" """
    plan, length = outcome["predicted"], outcome["length"]
    taken, most = duration(outcome["seconds"]["total"]), f"peak {outcome['peak_memory_mib'] / 1024:.2f} GiB"
    early = f"after {outcome['steps']} of {steps} steps " if outcome["steps"] < steps else ""
    if not plan:
        return f"{early}{taken}, {most}"
    taken += f" (predicted {duration(plan['seconds'])}{' for all' if early else ''})"
    most += f" (predicted {plan['peak_memory_mib'] / 1024:.2f})"
    was = plan["length"]
    changed = f", mean tokens {was:.1f} -> {length:.1f}" if length and abs(length / was - 1) > CHANGED else ""
    return f"{early}{taken}, {most}{changed}"


def duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


class Watch:
    """Shows the steps of all runs of a command as one bar with the time left; `say` prints a line above it."""

    def __init__(self, total_steps: int, live: bool) -> None:
        self.total, self.done, self.name = total_steps, 0, ""
        self.started = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[stats]}"), console=console,
        ) if live else None  # fmt: skip
        self.task = self.bar.add_task("starting", total=total_steps, stats="") if live else None

    def start_run(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps

    def step(self, record: StepRecord) -> None:
        self.done += 1
        text = summary(record)
        if self.bar:
            self.bar.update(self.task, completed=self.done, description=f"{self.name} step {record.step}", stats=text)
        else:
            print(f"{self.name} step {record.step}/{self.steps} · {text} · {self.left()} left", flush=True)

    def evaluating(self) -> None:
        if self.bar:
            self.bar.update(self.task, description=f"{self.name} evaluating")

    def evaluated(self, evaluation: dict, view: str = "") -> None:
        """One line: accuracy on the hold-out (entropy where it has no labels) or `view`, and how long it took."""
        if not self.done:  # the time left is reckoned from the first step on: loading and measuring happen once
            self.started = time.monotonic()
        shown = {"accuracy": "accuracy", "accuracy_greedy": "greedy", "entropy": "entropy", "solver": "uncertainty",
                 "verifier": "of the chosen answer", "verifier_accuracy": "accuracy of that"}  # fmt: skip
        known = {
            name: evaluation["summary"][key]["value"] for key, name in shown.items() if key in evaluation["summary"]
        }
        text = " · ".join(f"{name} {value:.3f}" for name, value in known.items())
        self.say(
            f"{self.name} {view or 'hold-out'} at step {evaluation['step']}: {text} ({evaluation['seconds']:.0f} s)"
        )

    def left(self) -> str:
        seconds = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

    def say(self, line: str) -> None:
        console.print(line, markup=False) if self.bar else print(line, flush=True)


@contextmanager
def watching(total_steps: int) -> Iterator[Watch]:
    """A Watch for `total_steps` steps; the bar is live only in a terminal."""
    watch = Watch(total_steps, live=sys.stdout.isatty() and console.is_terminal)
    if watch.bar is None:
        yield watch
        return
    with watch.bar:
        yield watch
