"""`poc watch`: what poc.watch found, drawn for a terminal of a given size, until the run has ended.

`frame` is a pure function of the record, the size and the time. Curves are braille, 2 x 4 dots a character: from the
first step to the last, from the lowest value to the highest. Whatever a model or a file wrote goes through `_shown`;
rich sees it as plain text, never as markup. Not here: reading files.
"""

import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from poc.display import duration
from poc.text import clip, visible
from poc.watch import Completion, Curve, Reader, Run, Sample, Watched

STYLES = {"running": "green", "done": "green", "stopped": "yellow", "interrupted": "yellow", "failed": "red",
          "killed": "red"}  # fmt: skip
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bit of the dot in row, column of a braille character
CURVES = ("reward", "entropy", "length", "hold-out accuracy", "hold-out entropy", "canary accuracy", "canary entropy")
GAP = 2  # characters between two curves
CURVE_HEIGHT = 3
NARROWEST = 38  # a curve's characters, below which there is a column less
BESIDE = 22  # lines of a pilot's screen that its table of arms has to leave free
FEWEST, DECISIONS = 4, 3
SILENT = 120  # seconds without a word that are pointed out, if steps do not take as long


def show(folder: Path, every: float, once: bool) -> None:
    """Frames, one each `every` seconds, until the run has ended or Ctrl-C; the run notices neither.

    One frame with `once`, or where the output is no terminal.
    """
    with suppress(AttributeError):  # a terminal without these characters shows question marks
        sys.stdout.reconfigure(errors="replace")
    console, reader = Console(highlight=False), Reader(folder)
    if once or not (console.is_terminal and sys.stdout.isatty()) or console.is_dumb_terminal:
        return _print(console, reader.look())
    try:
        seen = _until_the_end(console, reader, every)
    except KeyboardInterrupt:
        return console.print(_shown(f"{folder}: left alone, it goes on as it was", 2000), soft_wrap=True)
    _print(console, seen)


def _print(console: Console, seen: Watched) -> None:
    """One frame that stays, and how it ended."""
    console.print(frame(seen, console.width, None, time.time()))
    if seen.ended:
        console.print(Text(ending(seen)), soft_wrap=True)


def _until_the_end(console: Console, reader: Reader, every: float) -> Watched:
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not (seen := reader.look()).ended:
            live.update(frame(seen, console.width, console.height, time.time()), refresh=True)
            time.sleep(every)
    return seen


def ending(seen: Watched) -> str:
    """How it ended and what to do now, in one line."""
    run, folder = seen.current, _line(str(seen.folder), 2000)
    on = f"go on with: poc resume {shlex.quote(folder)}"
    why = f": {_line(run.reason, 300)}" if run.reason else ""
    if seen.is_pilot and seen.state in ("done", "failed"):
        failed = [r.name for r in seen.runs if r.state == "failed"]
        said = f"failed: {_line(', '.join(failed), 300)}; the others ran" if failed else "done, all arms have ended"
        return f"{folder}: {said}; report: {folder}/report.html"
    went_back = "" if run.kept is None else f", back to step {run.kept}"
    return {
        "done": f"{folder}: done after {run.step} steps{went_back}; report: {folder}/report.html",
        "stopped": f"{folder}: the guard stopped it after step {run.step}{went_back}{why}",
        "interrupted": f"{folder}: interrupted after step {run.step}; {on}",
        "failed": f"{folder}: failed after step {run.step}{why}; when that is mended, {on}",
        "killed": f"{folder}: was killed after step {run.step}, no process works on it; {on}",
    }[seen.state]


def frame(seen: Watched, width: int, height: int | None, now: float) -> RenderableType:
    """The whole screen, `width` characters wide. `height`: lines, for which a pilot's table leaves arms out; None: all.

    `now`: seconds since 1970.
    """
    run = seen.current
    parts = [_head(seen, width, now)]
    if seen.is_pilot:
        parts.append(_arms(seen, width, None if height is None else max(FEWEST, height - BESIDE)))
        parts.append(_shown(run.name, width, "bold") if run.curves else Text("waiting for the first arm"))
    parts += [_curves(run.curves, width), _guard(run, width)] if run.curves else []
    parts += [_shown(line, 2 * width, "yellow") for line in run.troubles]
    parts += [_sample(seen.sample, width)] if seen.sample else []
    return Group(*parts)


def _head(seen: Watched, width: int, now: float) -> Text:
    """Where it is, and how long it will take."""
    folder = _line(str(seen.folder), 2000)
    if seen.state == "waiting":
        return Text(f"waiting for {folder}: no run has begun there yet", "yellow")
    head = Text.assemble((folder, "bold"), " ", (seen.state, STYLES.get(seen.state, "default")))
    if seen.state == "starting":
        return head.append(": waiting for the model to be loaded")
    return head.append("\n").append(_progress(seen, width, now))


def _progress(seen: Watched, width: int, now: float) -> str:
    """ "█████░░░ 23 of 60 steps · about 1.2 min left · 5,210 tokens/s · silent for 3.0 min" """
    (taken, total), run = seen.steps, seen.current
    parts = [f"{taken} of {total} steps" if total else f"step {taken}"]
    if seen.busy and seen.left is not None:
        parts.append(f"about {duration(seen.left)} left")
    parts += [f"{run.speed:,.0f} tokens/s"] if run.speed else []
    silence = now - run.heard if run.heard else 0.0
    if seen.busy and silence > max(SILENT, 5 * (run.pace or 0.0)):
        parts.append(f"silent for {duration(silence)}")
    cells = min(24, width // 4)
    full = round(cells * min(taken / total, 1)) if total else 0
    return " ".join(["█" * full + "░" * (cells - full), " · ".join(parts)])


def _arms(seen: Watched, width: int, most: int | None) -> RenderableType:
    """One line for each run of a pilot, the current one marked; of more than `most` those around it."""
    wide = width >= 90
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    heads = ("", "arm", "state", "step", "accuracy", *(("accuracy so far", "reward", "entropy") if wide else ()))
    for head in heads:
        table.add_column(head, no_wrap=True, overflow="ellipsis", header_style="dim")
    first, shown = _window(len(seen.runs), seen.runs.index(seen.current), most)
    for run in seen.runs[first : first + shown]:
        table.add_row(*_arm(run, run is seen.current, wide))
    hidden = len(seen.runs) - shown
    return Group(table, Text(f"and {hidden} more", "dim")) if hidden else table


def _window(count: int, at: int, most: int | None) -> tuple[int, int]:
    """(first, how many) of `count` lines, at most `most`, around number `at`."""
    shown = count if most is None else min(count, most)
    return max(0, min(at - shown // 2, count - shown)), shown


def _arm(run: Run, is_current: bool, wide: bool) -> list[Text]:
    accuracy = run.curves.get("hold-out accuracy", ())
    change = f"{accuracy[0][1]:.3f} -> {accuracy[-1][1]:.3f}" if accuracy else "–"
    steps = f"{run.step}/{run.total}" if run.total else str(run.step)
    cells = [Text("▶" if is_current else " ", "green"), _shown(run.name, 64)]
    cells += [Text(run.state, STYLES.get(run.state, "dim")), Text(steps), Text(change)]
    if wide:
        last = [_figure(run.curves[name][-1][1]) if name in run.curves else "–" for name in ("reward", "entropy")]
        cells += [Text(braille(accuracy, 15, 1)[0], "cyan"), *map(Text, last)]
    return cells


def _curves(curves: dict[str, Curve], width: int) -> Table:
    """As many beside each other as fit."""
    columns = max(1, min(3, (width + GAP) // (NARROWEST + GAP)))
    each = max(1, (width - GAP * (columns - 1)) // columns)
    cells = [_curve(name, curves[name], each) for name in CURVES if name in curves]
    grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for _ in range(columns):
        grid.add_column(width=each, no_wrap=True, overflow="ellipsis")
    for first in range(0, len(cells), columns):
        grid.add_row(*cells[first : first + columns])
    return grid


def _curve(name: str, curve: Curve, width: int) -> Text:
    """Name, last value and range above the line."""
    values = [value for _, value in curve]
    about = f"  {_figure(min(values))} to {_figure(max(values))}"
    title = Text.assemble((name, "bold"), " ", (_figure(values[-1]), "cyan"), (about, "dim"))
    return title.append("\n").append("\n".join(braille(curve, width, CURVE_HEIGHT)), "cyan")


def braille(curve: Curve, width: int, height: int) -> list[str]:
    """A line of `height` rows of `width` characters; blank where there is no value."""
    levels, rows = _levels(curve, 2 * width), 4 * height
    low, high = (min(levels), max(levels)) if levels else (0.0, 0.0)
    dots = [round((level - low) / (high - low) * (rows - 1)) if high > low else rows // 2 for level in levels]
    cells = [[0] * width for _ in range(height)]
    for x, dot in enumerate(dots):
        before = dots[x - 1] if x else dot
        for y in range(min(dot, before), max(dot, before) + 1):  # a stroke from the last dot: the line has no gaps
            row = rows - 1 - y
            cells[row // 4][x // 2] |= DOTS[row % 4][x % 2]
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in row) for row in cells]


def _levels(curve: Curve, columns: int) -> list[float]:
    """The value of each column of dots: the mean of the steps that fall there, else on the line between neighbours."""
    if not curve:
        return []
    first, span, known = curve[0][0], max(curve[-1][0] - curve[0][0], 1), {}
    for step, value in curve:
        known.setdefault(round((step - first) / span * (columns - 1)), []).append(value)
    points = [(column, fmean(values)) for column, values in known.items()]
    levels = []
    for (a, start), (b, end) in zip(points, points[1:], strict=False):
        levels += [start + (end - start) * (x - a) / (b - a) for x in range(a, b)]
    return [*levels, points[-1][1]]


def _guard(run: Run, width: int) -> Text:
    """The last decisions, and the rules that have spoken before."""
    if not run.decisions:
        return Text("guard: nothing to say", "dim")
    latest, earlier = run.decisions[-DECISIONS:], run.decisions[:-DECISIONS]
    text = Text("guard", "bold")
    if earlier:
        rules = ", ".join(dict.fromkeys(decision.rule for decision in earlier))
        text.append(_line(f" (earlier: {rules})", width), "dim")
    for found in latest:
        style = "yellow" if found.action == "warn" else "red"
        text.append("\n").append(_line(f"step {found.step} {found.rule} ({found.action})", width), style)
        text.append(f": {_line(found.message, 2 * width)}")
    return text


def _sample(sample: Sample, width: int) -> Text:
    """A question with its best and its worst answer, two lines each at most."""
    gold = f"  (gold {_line(sample.gold, 30)})" if sample.gold else ""
    text = Text.assemble((f"step {sample.step} ", "bold"), _line(sample.question, width), (gold, "dim"))
    for name, found in (("best", sample.best), ("worst", sample.worst)):
        if found:
            text.append("\n").append(_judged(name, found), "cyan" if name == "best" else "magenta")
            text.append(" ").append(_line(found.text, max(20, 2 * width - 40)))
    return text


def _judged(name: str, found: Completion) -> str:
    """ "best 0.83 correct" """
    reward = "" if found.reward is None else f" {_figure(found.reward)}"
    return f"{name}{reward}{' ' + _line(found.status, 12) if found.status else ''}"


def _figure(value: float) -> str:
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 10_000 else f"{value:.3g}"


def _line(text: str, limit: int) -> str:
    """Text from a file as one harmless line of `limit` characters, more where something had to be made visible."""
    return visible(clip(text, limit).replace("\n", " ⏎ ").replace("\t", " "))


def _shown(text: str, limit: int, style: str = "") -> Text:
    return Text(_line(text, limit), style)
