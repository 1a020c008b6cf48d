"""What a person sees of the difficulty filter: progress while it samples, a table at its end. No model's text."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from poc.display import console
from poc.text import visible


class Progress:
    """Questions counted of `total`, with the time left: a bar in a terminal, a line a batch elsewhere."""

    def __init__(self, total: int, live: bool) -> None:
        self.total, self.done, self.started = total, 0, None
        self.bar = Bar(
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=True), console=console,
        ) if live else None  # fmt: skip
        self.task = self.bar.add_task("questions", total=total) if live else None

    def advance(self, count: int, side: str) -> None:
        self.done += count
        if self.bar:
            self.bar.update(self.task, completed=self.done, description=f"{side} model, questions")
        else:
            print(f"{side} model: {self.done}/{self.total} questions · {self._left()} left", flush=True)

    def _left(self) -> str:
        seconds = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

    def say(self, line: str) -> None:
        self.started = self.started or time.monotonic()
        console.print(visible(line), markup=False) if self.bar else print(visible(line), flush=True)


@contextmanager
def progress(total: int) -> Iterator[Progress]:
    """A Progress; when it is interrupted, it says what was kept."""
    shown = Progress(total, live=bool(total) and sys.stdout.isatty() and console.is_terminal)
    if shown.bar:
        shown.bar.start()
    try:
        yield shown
    except KeyboardInterrupt:
        shown.say(
            f"stopped: {shown.done} of {total} questions were counted and kept; the same command goes on from there"
        )
        raise
    finally:
        if shown.bar:
            shown.bar.stop()


def show(summary: dict, out: Path) -> None:
    """The table of kept and dropped questions by domain and level, and what to do next."""
    for line in lines(summary) if not console.is_terminal else ():
        print(line)
    if console.is_terminal:
        console.print(_table(summary))
    kept, asked = (sum(entry[key] for _, entry in _entries(summary)) for key in ("kept", "questions"))
    if 0 < kept < asked:
        print(
            f"train on what was kept: --set data.drop={visible(str(out / 'dropped.jsonl'))} (the same data otherwise)"
        )


def lines(summary: dict) -> list[str]:
    """The table as plain text: "math level 0: 48 questions, 31 kept (65 %), dropped: 17 too easy"."""
    return [f"{name}: {_sentence(entry)}" for name, entry in _entries(summary)]


def _sentence(entry: dict) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in entry["dropped"].items()) or "none"
    return f"{entry['questions']} questions, {entry['kept']} kept ({_share(entry)}), dropped: {dropped}"


def _share(entry: dict) -> str:
    return f"{entry['kept'] / entry['questions']:.0%}"


def _entries(summary: dict) -> list[tuple[str, dict]]:
    named = [(f"{entry['domain']} level {entry['level']}", entry) for entry in summary["by"]]
    return [*named, ("all", summary)] if len(named) > 1 else named


def _table(summary: dict) -> Table:
    reasons = list(summary["dropped"])
    table = Table("", "questions", "kept", "share", *reasons)
    for name, entry in _entries(summary):
        counts = [str(entry["dropped"].get(reason, 0)) for reason in reasons]
        table.add_row(name, str(entry["questions"]), str(entry["kept"]), _share(entry), *counts)
    return table
