"""Charts of changes and ends rather than of training: against labels, and against the entropy of the start.

Filled markers are the last evaluation, hollow ones the best on the way; bars are 95 % intervals. All words come in.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import matplotlib.patches
from markupsafe import Markup

from poc.report.charts import RC, STYLES, Style, as_svg, new_figure, spread
from poc.statistics import Interval


class Dot(NamedTuple):
    name: str
    style: Style
    x: float
    y: Interval


class Start(NamedTuple):
    """A mixed start and what training changed; `best` is None without an evaluation on the way."""

    share: float
    x: float
    end: Interval
    best: Interval | None


class Count(NamedTuple):
    """Accuracy with this many labels, at the end and at the best evaluated step."""

    labels: int
    end: Interval
    best: Interval | None


class Cell(NamedTuple):
    """Of a heat map; `own`: the row was trained on this column."""

    change: Interval
    own: bool


def dots(key: str, points: Sequence[Dot], *, label: str, details: str, xlabel: str, ylabel: str) -> Markup:
    """Change against a starting property, with intervals; points of one model share x and are drawn side by side."""
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(5.4, 3.6)
        axes.axhline(0, color="#444444", linewidth=1)
        gap = 0.035 * _span([p.x for p in points])
        for point, x in zip(points, _dodge([p.x for p in points], gap), strict=True):
            _bar(axes, x, point.y, point.style.color)
            axes.plot([x], [100 * point.y.value], point.style.marker, color=point.style.color, markersize=7,
                      label=point.name)  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.margins(x=0.15)
        _legend(figure, axes)
        return as_svg(figure, key, label, details)


def starts(key: str, points: Sequence[Start], *, label: str, details: str, xlabel: str, ylabel: str,
           names: tuple[str, str]) -> Markup:  # fmt: skip
    """One filled and one hollow marker for each start, its share above the chart; `names`: what the two are."""
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(5.4, 3.9)
        axes.axhline(0, color="#444444", linewidth=1)
        beside = 0.02 * _span([p.x for p in points])
        for point in points:
            _marked(axes, point.x, point.end, STYLES[0], names[0], filled=True)
            if point.best:
                _marked(axes, point.x + beside, point.best, STYLES[1], names[1], filled=False)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.margins(x=0.08, y=0.08)
        _name_above(axes, points)
        _legend(figure, axes)
        return as_svg(figure, key, label, details)


def by_labels(key: str, points: Sequence[Count], before: float, *, label: str, details: str, xlabel: str, ylabel: str,
              names: tuple[str, str, str]) -> Markup:  # fmt: skip
    """Accuracy against the number of labels, the counts side by side whatever their distance; `before`: training.

    `names`: of the markers at the end and at the best step, and of the line before training.
    """
    counts = sorted({p.labels for p in points})
    beside = 0.025 * max(len(counts) - 1, 1)
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(5.4, 3.6)
        axes.axhline(100 * before, color="#767676", linestyle=(0, (1, 1.5)), label=names[2])
        ordered = sorted(points, key=lambda p: p.labels)
        _series(axes, [(counts.index(p.labels), p.end) for p in ordered], STYLES[0], names[0], filled=True)
        best = [(counts.index(p.labels) + beside, p.best) for p in ordered if p.best]
        _series(axes, best, STYLES[1], names[1], filled=False)
        axes.set_xticks(range(len(counts)), [str(c) for c in counts])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.margins(x=0.1, y=0.08)
        _legend(figure, axes, 3)
        return as_svg(figure, key, label, details)


def reliability(key: str, before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]], *, label: str,
                details: str, title: str, xlabel: str, ylabel: str, names: tuple[str, str, str]) -> Markup:  # fmt: skip
    """Share of right answers by confidence, as (confidence, accuracy) of each bin; `names`: before, after, diagonal."""
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(3.6, 3.7)
        axes.plot([0, 100], [0, 100], color="#767676", linestyle=(0, (1, 1.5)), label=names[2])
        for points, style, name, face in zip((before, after), STYLES, names, ("white", STYLES[1].color), strict=False):
            x, y = ([100 * value for value in side] for side in zip(*points, strict=True))
            axes.plot(x, y, color=style.color, linestyle=style.line, marker=style.marker, markerfacecolor=face,
                      markersize=6, label=name)  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 101), ylim=(-1, 101))
        axes.set_title(title, fontsize=10, loc="left")
        _legend(figure, axes, 3)
        return as_svg(figure, key, label, details)


def heat_map(key: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell | None]], *,
             label: str, details: str, xlabel: str, ylabel: str) -> Markup:  # fmt: skip
    """Changes in points, purple for a gain and orange for a loss; framed where a row was trained on the column."""
    most = max((abs(c.change.value) for row in cells for c in row if c), default=0) or 0.01
    with matplotlib.rc_context(RC | {"axes.grid": False}):
        figure, axes = new_figure(1.9 + 0.72 * len(columns), 1.0 + 0.42 * len(rows))
        shades = [[c.change.value / most if c else 0.0 for c in row] for row in cells]
        axes.imshow(shades, cmap="PuOr", vmin=-2.5, vmax=2.5, aspect="auto")  # beyond 1: no shade too dark for text
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                _cell(axes, x, y, cell)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.tick_params(length=0)
        return as_svg(figure, key, label, details)


def _cell(axes, x: int, y: int, cell: Cell | None) -> None:
    """The change, in bold where its interval is clear of 0."""
    if cell is None:
        return axes.text(x, y, "–", ha="center", va="center", color="#767676")
    low, high = cell.change.low, cell.change.high
    clear = low is not None and high is not None and (low > 0 or high < 0)
    points = round(100 * cell.change.value)
    text = f"{points:+d}".replace("-", "−") if points else "0"
    axes.text(x, y, text, ha="center", va="center", weight="bold" if clear else "normal",
              color="#111111" if clear else "#3a3a3a")  # fmt: skip
    if cell.own:
        axes.add_patch(matplotlib.patches.Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, linewidth=1.4))


def _series(axes, points: Sequence[tuple[float, Interval]], style: Style, name: str, filled: bool) -> None:
    axes.plot([x for x, _ in points], [100 * y.value for _, y in points], color=style.color, linestyle=style.line,
              linewidth=1.2, zorder=1)  # fmt: skip
    for x, y in points:
        _marked(axes, x, y, style, name, filled)


def _marked(axes, x: float, y: Interval, style: Style, name: str, filled: bool) -> None:
    _bar(axes, x, y, style.color)
    face = style.color if filled else "white"
    axes.plot([x], [100 * y.value], style.marker, color=style.color, markerfacecolor=face, markersize=7,
              label=name)  # fmt: skip


def _bar(axes, x: float, y: Interval, color: str) -> None:
    if y.low is not None and y.high is not None:
        axes.plot([x, x], [100 * y.low, 100 * y.high], color=color, linewidth=1.6)


def _name_above(axes, points: Sequence[Start]) -> None:
    """The share m of each start over its markers, moved apart where starts are close."""
    low, high = axes.get_xlim()
    placed = sorted(points, key=lambda p: p.x)
    at = [(p.x - low) / (high - low) for p in placed]
    names = [f"{p.share:g}" if i else f"m = {p.share:g}" for i, p in enumerate(placed)]
    moved_apart = _within(spread(at, [0.03 + 0.022 * len(name) for name in names]))
    for point, name, x, moved in zip(placed, names, at, moved_apart, strict=True):
        axes.annotate(
            name, (x, 1.0), (moved, 1.08), "axes fraction", "axes fraction", ha="center", fontsize=9.5,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#767676", "linewidth": 0.8, "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip
        axes.axvline(point.x, color="#d0d0d0", linewidth=0.8, zorder=0)


def _within(positions: list[float]) -> list[float]:
    """The positions shifted so that they start or end inside the chart."""
    over, under = max(0.0, positions[-1] - 1), max(0.0, -positions[0])
    return [p - over + under for p in positions]


def _legend(figure, axes, columns: int = 2) -> None:
    handles = {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9,
        columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip


def _span(positions: Sequence[float]) -> float:
    return (max(positions) - min(positions)) or max(abs(positions[0]), 1.0)


def _dodge(positions: Sequence[float], gap: float) -> list[float]:
    """Equal positions set side by side around their common place."""
    seen: dict[float, int] = {}
    moved = []
    for x in positions:
        moved.append(x + gap * (seen.get(x, 0) - (list(positions).count(x) - 1) / 2))
        seen[x] = seen.get(x, 0) + 1
    return moved
