"""Charts as inline SVG: no script, no font file, no address; legible in grey and at 390 px.

Colours are those of Okabe and Ito, which people with colour-blindness tell apart; line style and marker differ too.
Text stays text (searchable, small); names come in already made visible and clipped, and are never read as formulas.
"""

import html
import io
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from poc.statistics import Interval

RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#767676",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.unicode_minus": True,
    "grid.color": "#e3e3e3",
    "text.color": "#222222",
    "axes.labelcolor": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "font.size": 10,
}


class Style(NamedTuple):
    color: str
    line: str | tuple
    marker: str


STYLES = (
    Style("#0072B2", "-", "o"),
    Style("#D55E00", (0, (6, 2)), "s"),
    Style("#009E73", (0, (6, 2, 1, 2)), "^"),
    Style("#CC79A7", (0, (2, 1)), "D"),
    Style("#E69F00", (0, (8, 2, 1, 1, 1, 2)), "v"),
    Style("#56B4E9", (0, (4, 1)), "P"),
    Style("#000000", (0, (10, 2)), "X"),
    Style("#882255", (0, (3, 1, 1, 1)), "p"),
)
CONTROL = Style("#767676", (0, (1, 1.5)), "x")


class Line(NamedTuple):
    """One named curve: (step, Interval) points. A point without ends has no band."""

    name: str
    style: Style
    points: Sequence[tuple[int, Interval]]


class Mark(NamedTuple):
    """A numbered event on one curve: the guard spoke at this step. `share`: its height on the curve, unscaled."""

    number: int
    step: int
    share: float


def curves(
    key: str,
    lines: Sequence[Line],
    *,
    label: str,
    ylabel: str,
    details: str = "",
    xlabel: str = "training step",
    scale: float = 1.0,
    marks: Sequence[Mark] = (),
) -> Markup:
    """All `lines` in one chart, each named at its right end; `scale` multiplies values (100 for per cent).

    `label` names the chart, `details` says in words what it shows.
    """
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(5.4, 3.3 if len(lines) < 7 else 3.9)
        for line in lines:
            _draw(axes, line, scale)
        last = max((line.points[-1][0] for line in lines), default=1) or 1
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, last * 1.02))
        axes.margins(y=0.08)
        _integer_steps(axes)
        _name_ends(axes, lines, scale, last)
        for mark in marks:
            _numbered(axes, mark, scale)
        return as_svg(figure, key, label, details)


def panel(
    key: str,
    lines: Sequence[Line],
    *,
    label: str,
    title: str,
    steps: int,
    limits: tuple[float, float] | None,
    scale: float = 1.0,
    events: Sequence[int] = (),
) -> Markup:
    """A small chart of one arm; `limits` (scaled) make panels of one metric comparable between arms.

    `events`: steps at which the guard spoke, as dotted uprights.
    """
    with matplotlib.rc_context(RC | {"font.size": 9}):
        figure = Figure(figsize=(2.2, 1.65))  # a fixed layout: there are many of these, and measuring text is slow
        axes = figure.add_axes((0.17, 0.15, 0.8, 0.7))
        for step in events:
            axes.axvline(step, color="#111111", linewidth=1, linestyle=(0, (1, 1.2)), zorder=0)
        for line in lines:
            _draw(axes, line, scale, small=True)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlim(0, max(steps, 1) * 1.03)
        if limits:
            axes.set_ylim(*limits)
        axes.locator_params(axis="y", nbins=4)
        axes.set_xticks([0, steps] if steps else [0])
        return as_svg(figure, key, label)


def stacked(key: str, parts: Sequence[tuple[str, Line, float]], *, label: str, details: str, title: str, xlabel: str,
            events: Sequence[int] = ()) -> Markup:  # fmt: skip
    """Curves of one arm over each other on the same steps: (axis label, line, scale) of each."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(5.4, 3.6), layout="constrained")
        rows = figure.subplots(len(parts), sharex=True)
        for axes, (ylabel, line, scale) in zip(rows, parts, strict=True):
            for step in events:
                axes.axvline(step, color="#111111", linewidth=1, linestyle=(0, (1, 1.2)), zorder=0)
            _draw(axes, line, scale)
            axes.set_ylabel(ylabel)
            axes.locator_params(axis="y", nbins=4)
        rows[0].set_title(title, fontsize=10, loc="left")
        rows[-1].set_xlabel(xlabel)
        _integer_steps(rows[-1])
        return as_svg(figure, key, label, details)


def new_figure(width: float, height: float):
    """A figure whose layout leaves room for all text, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _draw(axes, line: Line, scale: float, small: bool = False) -> None:
    steps = [s for s, _ in line.points]
    ends = [(s, scale * i.low, scale * i.high) for s, i in line.points if i.low is not None and i.high is not None]
    if ends:
        axes.fill_between(*zip(*ends, strict=True), color=line.style.color, alpha=0.13, linewidth=0)
    axes.plot(
        steps,
        [scale * i.value for _, i in line.points],
        color=line.style.color,
        linestyle=line.style.line,
        linewidth=1.5 if small else 2,
        marker=line.style.marker if len(steps) < 40 else None,
        markersize=3 if small else 4.5,
    )


def _numbered(axes, mark: Mark, scale: float) -> None:
    """A numbered disc on the curve and a dotted upright through it."""
    axes.axvline(mark.step, color="#555555", linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1)
    axes.annotate(
        str(mark.number), (mark.step, scale * mark.share), ha="center", va="center", fontsize=8, zorder=5,
        bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "#111111", "linewidth": 1.2},
    )  # fmt: skip


def _integer_steps(axes) -> None:
    axes.locator_params(axis="x", integer=True, nbins=7)


def _name_ends(axes, lines: Sequence[Line], scale: float, last: float) -> None:
    low, high = axes.get_ylim()
    ends = sorted(((scale * line.points[-1][1].value - low) / (high - low), line) for line in lines if line.points)
    heights = [0.045 + 0.048 * line.name.count("\n") + 0.03 for _, line in ends]
    for (at, line), y in zip(ends, spread([at for at, _ in ends], heights), strict=True):
        x = line.points[-1][0] / (last * 1.02)
        cut = line.points[-1][0] < last  # a run that ended early: its leader must not look like data
        axes.annotate(
            line.name,
            (x, at),
            (1.06, y),
            "axes fraction",
            "axes fraction",
            va="center",
            fontsize=9.5,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": "#b0b0b0" if cut else line.style.color,
                "shrinkA": 1,
                "shrinkB": 2,
                "linewidth": 0.8 if cut else 1.2,
                "linestyle": ":" if cut else "-",
            },
        )


def spread(positions: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Ascending positions of things as large as `sizes`, moved apart until none overlap, their middle kept."""
    placed: list[float] = []
    for i, position in enumerate(positions):
        placed.append(max(position, placed[-1] + (sizes[i - 1] + sizes[i]) / 2) if placed else position)
    shift = sum(p - q for p, q in zip(placed, positions, strict=True)) / max(len(placed), 1)
    return [p - shift for p in placed]


def as_svg(figure: Figure, key: str, label: str, details: str = "") -> Markup:
    """The figure as an <svg> element with a title and, where there are details, a description.

    Ids are made unique by `key`; metadata and the document-wide style are left out.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts draw the text, not ours
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    body = buffer.getvalue()
    view_box = re.search(r'viewBox="([^"]+)"', body)[1]
    body = body[body.index(">", body.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{key}-', body).replace("url(#", f"url(#{key}-")
    body = re.sub(r' d="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]).replace("\n", " "), body)
    body = re.sub(r"(font: [^'\";]*px) [^\"]*?(;|\")", r"\1 system-ui, sans-serif\2", body)
    body = re.sub(r"\n\s*", "\n", body)
    title = f'<title id="{key}-title">{html.escape(label)}</title>'
    desc = f'<desc id="{key}-desc">{html.escape(details)}</desc>' if details else ""
    named = f"{key}-title {key}-desc" if details else f"{key}-title"
    return Markup(f'<svg viewBox="{view_box}" role="img" aria-labelledby="{named}">{title}{desc}{body}')
