"""From arms to the page's figures: which lines, which names, which styles, which scale."""

import textwrap
from typing import NamedTuple

from markupsafe import Markup

from poc.report import charts, scatter, words
from poc.report.arms import Arm, Judged
from poc.report.charts import CONTROL, STYLES, Line, Mark, Style
from poc.report.groups import Group, LabelStudy, mixture
from poc.report.language import Language
from poc.report.read import Alarm
from poc.report.scatter import Cell, Count, Dot, Start
from poc.report.transfer import Matrix, Row
from poc.statistics import Interval
from poc.text import clip, visible

MAX_NAMED = 24  # points whose values are written into a chart's description
MAX_EVENTS = 12  # of the guard, in one chart
PANELS = (("entropy", 1), ("length", 1), ("transitional_words", 100))
VOTING = ("semantic_entropy", "majority_vote")  # rewards that compare the answers to one question
VOTING_PANELS = (("agreement", 100, (0, 100)), ("semantic_entropy", 1, None), ("dropped", 100, (0, 100)))


class Event(NamedTuple):
    """Something the guard decided, with its number in the chart."""

    number: int
    arm: Arm
    alarm: Alarm


def styles(groups: list[Group]) -> dict[str, Style]:
    """A style per arm, by label: all different within a chart, and the same for the same reward mix where possible."""
    given: dict[str, Style] = {j.arm.label: STYLES[0] for group in groups for j in group.arms}
    by_name: dict[str, Style] = {}
    for chart in (chart for group in groups for chart in group.charts):
        free = list(STYLES)
        control = next((a for a in chart if a.is_control), None)
        for arm in sorted(chart, key=lambda a: _mix_name(a) not in by_name):  # who had one before keeps it
            if arm is control:
                given[arm.label] = CONTROL
                continue
            unused = [s for s in free if s not in by_name.values()] or free
            wanted = by_name.get(_mix_name(arm))
            given[arm.label] = wanted if wanted in free else unused[0]
            free.remove(given[arm.label])
            by_name.setdefault(_mix_name(arm), given[arm.label])
    return given


def accuracy(group: Group, given: dict[str, Style], key: str, say: Language) -> list[tuple[Markup, list[Event]]]:
    """The charts of a group, each with the guard's decisions that are marked in it."""
    return [_accuracy(chart, group.mixed, heading(group, say), given, f"{key}c{i}", say)
            for i, chart in enumerate(group.charts)]  # fmt: skip


def _accuracy(chart: list[Arm], mixed: bool, title: str, given: dict[str, Style], key: str, say: Language):
    events = marked(chart)
    drawn = charts.curves(
        key,
        [Line(_short(a, mixed, say), given[a.label], a.curve) for a in chart],
        label=say("chart.accuracy", group=visible(title)),
        details=" ".join(f"{_line_name(a, say)}: {_ends(a)}." for a in chart),
        xlabel=say("axis.step"),
        ylabel=say("axis.right"),
        scale=100,
        marks=[Mark(e.number, e.alarm.step, _height(e.arm, e.alarm.step)) for e in events],
    )
    return drawn, events


def marked(chart: list[Arm]) -> list[Event]:
    """What the guard decided in these arms, numbered by step; where it ended a run rather than warned, first."""
    found = [(arm, d) for arm in chart for d in arm.events if arm.curve[0][0] <= d.step <= arm.curve[-1][0]]
    found.sort(key=lambda pair: (pair[1].action == "warn", pair[1].step))
    shown = sorted(found[:MAX_EVENTS], key=lambda pair: pair[1].step)
    return [Event(number, arm, alarm) for number, (arm, alarm) in enumerate(shown, 1)]


def _height(arm: Arm, step: int) -> float:
    """Accuracy at a step, between the evaluations around it."""
    before = max((p for p in arm.curve if p[0] <= step), key=lambda p: p[0])
    after = min((p for p in arm.curve if p[0] >= step), key=lambda p: p[0])
    share = (step - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    return before[1].value + share * (after[1].value - before[1].value)


def heading(group: Group, say: Language) -> str:
    mix = mixture(group.first) if group.mixed else None
    if mix:
        return say("heading.mixed", first=mix.first, second=mix.second)
    return say("heading", role=say(f"role.{group.first.role}"), model=group.first.model)


def starts(group: Group, key: str, say: Language) -> list[Markup]:
    """Of mixed starts: change by initial entropy, for each reward mix."""
    found: dict[str, list[tuple[Arm, float]]] = {}
    for arm in (j.arm for j in group.arms if j.arm.change):
        if (entropy := arm.metric("entropy", 0)) is not None:
            found.setdefault(arm.name, []).append((arm, entropy))
    return [_starts(f"{key}s{i}", name, arms, say) for i, (name, arms) in enumerate(found.items())]


def _starts(key: str, name: str, arms: list[tuple[Arm, float]], say: Language) -> Markup:
    points = [Start(mixture(a).share, e, a.change, a.best.change if a.best else None) for a, e in arms]
    said = [
        say("chart.start", m=f"{p.share:g}", entropy=words.number(p.x), end=words.signed(p.end.value),
            best=say("chart.start best", value=words.signed(p.best.value)) if p.best else "")
        for p in points[:MAX_NAMED]
    ]  # fmt: skip
    return scatter.starts(
        key, points, label=say("chart.starts", name=visible(name)), details=" ".join(said),
        names=(say("legend.end"), say("legend.best")), **_entropy_axes(say),
    )  # fmt: skip


def _entropy_axes(say: Language) -> dict[str, str]:
    return {"xlabel": say("axis.entropy"), "ylabel": say("axis.change")}


def share_name(arm: Arm) -> str:
    return f"m = {mixture(arm).share:g}"


def by_labels(study: LabelStudy, key: str, title: str, say: Language) -> Markup:
    points = [Count(a.labels, a.ends[1], a.best.accuracy if a.best else None) for a in study.arms]
    said = [say("chart.count", n=p.labels, value=words.percent(p.end.value)) for p in points[:MAX_NAMED]]
    return scatter.by_labels(
        key, points, study.arms[0].ends[0].value, label=say("chart.labels", title=visible(title)),
        details=" ".join(said), xlabel=say("axis.labels"), ylabel=say("axis.right"),
        names=(say("legend.end"), say("legend.best"), say("legend.before")),
    )  # fmt: skip


def heat_map(matrix: Matrix, key: str, title: str, say: Language) -> Markup:
    """Change on each domain (columns) by what was trained on (rows)."""
    cells = [
        [c and Cell(c.change, name in row.trained) for c, name in zip(row.cells, matrix.columns, strict=True)]
        for row in matrix.rows
    ]
    rows = [trained_name(row, say) for row in matrix.rows]
    said = [
        say("chart.cell", row=row, column=visible(name), value=words.signed(cell.change.value))
        for row, line in zip(rows, cells, strict=True)
        for name, cell in zip(matrix.columns, line, strict=True)
        if cell
    ]
    names = [clip(visible(name), 14) for name in matrix.columns]
    return scatter.heat_map(key, rows, names, cells, label=say("chart.matrix", title=visible(title)),
                            details=" ".join(said), xlabel=say("axis.measured"),
                            ylabel=say("axis.trained"))  # fmt: skip


def trained_name(row: Row, say: Language) -> str:
    """What an arm was trained on: a domain, or how many."""
    return clip(visible(row.trained[0]), 14) if len(row.trained) == 1 else say("mix of", n=len(row.trained))


def dots(judged: list[Judged], given: dict[str, Style], say: Language) -> Markup | None:
    """Change by initial entropy; None unless two starting points differ."""
    known = [(j.arm, e) for j in judged if j.arm.change and (e := j.arm.metric("entropy", 0)) is not None]
    if len({round(e, 3) for _, e in known}) < 2:
        return None
    known = _comparable(known)
    if not known:
        return None
    points = [Dot(_line_name(a, say), given[a.label], e, a.change) for a, e in known]
    said = [
        say("chart.dot", arm=visible(a.label), entropy=words.number(e), value=words.signed(a.change.value))
        for a, e in known[:MAX_NAMED]
    ]
    return scatter.dots("dots", points, label=say("chart.dots"), details=" ".join(said), **_entropy_axes(say))


def _comparable(known: list[tuple[Arm, float]]) -> list[tuple[Arm, float]]:
    """Those of a reward mix that was tried on several starts, where there are more mixes than styles."""
    at: dict[str, set] = {}
    for arm, _ in known:
        at.setdefault(_mix_name(arm), set()).add(arm.group)
    several = [name for name, starts in at.items() if len(starts) > 1]
    return known if len(at) <= len(STYLES) else [(a, e) for a, e in known if _mix_name(a) in several[: len(STYLES)]]


def panels(arm: Arm, style: Style, key: str, everyone: list[Arm], say: Language) -> list[Markup]:
    """The small charts of one arm; those of agreement only where its reward looks at agreement."""
    steps = max((a.curve[-1][0] for a in everyone if a.curve), default=0)
    steps = max([steps, *(r.steps[-1]["step"] for r in arm.runs if r.steps)])
    greedy = Style("#444444", (0, (2, 1.5)), "")
    right = [Line("", style, arm.curve), Line("", greedy, arm.metric_curve("accuracy_greedy"))]
    found = [("right", 100, right, (0, 100)), ("reward", 1, [logged_line(arm, style, "reward")], None)]
    found += [(n, scale, [Line("", style, arm.metric_curve(n))], _limits(everyone, n, scale)) for n, scale in PANELS]
    if set(arm.rewards) & set(VOTING):
        found += [(n, scale, [logged_line(arm, style, n)], ends) for n, scale, ends in VOTING_PANELS]
    label, events = visible(arm.label), [d.step for d in arm.events if d.step <= steps][:MAX_EVENTS]
    return [
        charts.panel(f"{key}m{i}", [line for line in lines if line.points], steps=steps, limits=limits, scale=scale,
                     label=say("chart.panel", arm=label, title=say(f"panel.{name}")), title=say(f"panel.{name}"),
                     events=events)
        for i, (name, scale, lines, limits) in enumerate(found) if any(line.points for line in lines)
    ]  # fmt: skip


def logged_line(arm: Arm, style: Style, key: str) -> Line:
    """A value of steps.jsonl, without markers and bands."""
    return Line("", style._replace(marker=""), [(s, Interval(v, None, None, 0)) for s, v in arm.step_curve(key)])


def _limits(arms: list[Arm], metric: str, scale: float) -> tuple[float, float]:
    tops = [p.high if p.high is not None else p.value for a in arms for _, p in a.metric_curve(metric)]
    return 0, scale * max(tops, default=1) * 1.08 or 1


def _short(arm: Arm, mixed: bool, say: Language) -> str:
    """The arm's name beside its line."""
    if mixed:
        return share_name(arm)
    return "\n".join(textwrap.wrap(_line_name(arm, say), 24)) or "–"


def _line_name(arm: Arm, say: Language) -> str:
    """The name within the arm's group; the end of a long one stays, since that is where similar arms differ."""
    if arm.is_control:
        return say("control")
    mix, rest = _name_parts(arm)
    if mix:
        rest = rest.replace("-labels", f", {say('labels')}{words.NBSP}").replace("-", ", ")
    plain = mix + rest
    return plain if len(plain) <= 44 else f"{plain[:20]} … {plain[-20:]}"


def _mix_name(arm: Arm) -> str:
    """What the arms of one reward mix share, whatever their model."""
    return "control" if arm.is_control else "".join(_name_parts(arm))


def _name_parts(arm: Arm) -> tuple[str, str]:
    """The reward mix and what else the arm's name says; ("", name) where the name is not made of the mix."""
    plain, mix = visible(arm.name).replace("\n", " "), "-".join(arm.rewards)
    return (" + ".join(arm.rewards), plain[len(mix) :]) if mix and plain.startswith(mix) else ("", plain)


def _ends(arm: Arm) -> str:
    return f"{words.percent(arm.curve[0][1].value)} → {words.percent(arm.curve[-1][1].value)}"
