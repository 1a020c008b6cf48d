"""From arms to the page's figures: which lines, which names, which styles, which scale."""

import textwrap

from markupsafe import Markup

from poc.report import charts, scatter, words
from poc.report.arms import Arm, Judged
from poc.report.charts import CONTROL, STYLES, Line, Style
from poc.report.groups import Group, LabelStudy, mixture
from poc.report.scatter import Cell, Count, Dot, Start
from poc.report.transfer import Matrix, Row
from poc.statistics import Interval
from poc.text import clip, visible

MAX_NAMED = 24  # points whose values are written into a chart's description
ENTROPY_AXIS = {"xlabel": "entropy before training, nats per token", "ylabel": "change in accuracy, points"}
PANELS = (
    ("entropy", "Entropy, nats", 1),
    ("length", "Length, tokens", 1),
    ("transitional_words", "Transitional words, %", 100),
)
VOTING = ("semantic_entropy", "majority_vote")  # rewards that compare the answers to one question
VOTING_PANELS = (
    ("agreement", "Agreement, %", 100, (0, 100)),
    ("semantic_entropy", "Semantic entropy, nats", 1, None),
    ("dropped", "Questions left out, %", 100, (0, 100)),
)


def styles(groups: list[Group]) -> dict[str, Style]:
    """A style per arm, by label: all different within a chart, and the same for the same reward mix where possible."""
    given: dict[str, Style] = {j.arm.label: STYLES[0] for group in groups for j in group.arms}
    by_name: dict[str, Style] = {}
    for chart in (chart for group in groups for chart in group.charts):
        free = list(STYLES)
        control = next((a for a in chart if a.is_control), None)
        for arm in sorted(chart, key=lambda a: _line_name(a) not in by_name):  # who had one before keeps it
            if arm is control:
                given[arm.label] = CONTROL
                continue
            unused = [s for s in free if s not in by_name.values()] or free
            wanted = by_name.get(_line_name(arm))
            given[arm.label] = wanted if wanted in free else unused[0]
            free.remove(given[arm.label])
            by_name.setdefault(_line_name(arm), given[arm.label])
    return given


def accuracy(group: Group, given: dict[str, Style], key: str) -> list[Markup]:
    label = f"Hold-out accuracy at temperature 1 by training step, {visible(heading(group))}. "
    return [
        charts.curves(
            f"{key}c{i}",
            [Line(_short(a, group.mixed), given[a.label], a.curve) for a in chart],
            label=label + " ".join(f"{_line_name(a)}: {_ends(a)}." for a in chart),
            ylabel="right answers, %",
            scale=100,
        )
        for i, chart in enumerate(group.charts)
    ]


def heading(group: Group) -> str:
    mix = mixture(group.first) if group.mixed else None
    role = words.ROLES[group.first.role]
    return f"Mixed starts: {mix.first} + {mix.second}" if mix else f"{role}: {group.first.model}"


def starts(group: Group, key: str) -> list[Markup]:
    """Of mixed starts: change by initial entropy, for each reward mix."""
    found: dict[str, list[tuple[Arm, float]]] = {}
    for arm in (j.arm for j in group.arms if j.arm.change):
        if (entropy := arm.metric("entropy", 0)) is not None:
            found.setdefault(arm.name, []).append((arm, entropy))
    return [_starts(f"{key}s{i}", name, arms) for i, (name, arms) in enumerate(found.items())]


def _starts(key: str, name: str, arms: list[tuple[Arm, float]]) -> Markup:
    points = [Start(mixture(a).share, e, a.change, a.best.change if a.best else None) for a, e in arms]
    said = " ".join(
        f"m = {p.share:g} at {words.number(p.x)} nats: {words.signed(p.end.value)} points at the end"
        + (f", {words.signed(p.best.value)} at the best step." if p.best else ".")
        for p in points[:MAX_NAMED]
    )
    return scatter.starts(key, points, label=f"{visible(name)}: change by initial entropy. {said}", **ENTROPY_AXIS)


def share_name(arm: Arm) -> str:
    return f"m = {mixture(arm).share:g}"


def by_labels(study: LabelStudy, key: str, title: str) -> Markup:
    points = [Count(a.labels, a.ends[1], a.best.accuracy if a.best else None) for a in study.arms]
    said = " ".join(f"{p.labels} labels: {words.percent(p.end.value)}." for p in points[:MAX_NAMED])
    label = f"{visible(title)}: accuracy by number of labels. {said}"
    return scatter.by_labels(key, points, study.arms[0].ends[0].value, label=label)


def heat_map(matrix: Matrix, key: str, title: str) -> Markup:
    """Change on each domain (columns) by what was trained on (rows)."""
    cells = [
        [c and Cell(c.change, name in row.trained) for c, name in zip(row.cells, matrix.columns, strict=True)]
        for row in matrix.rows
    ]
    said = " ".join(
        f"{trained_name(row)} on {visible(name)}: {words.signed(cell.change.value)}."
        for row, line in zip(matrix.rows, cells, strict=True)
        for name, cell in zip(matrix.columns, line, strict=True)
        if cell
    )
    names = [clip(visible(name), 14) for name in matrix.columns]
    label = f"{title}: change in accuracy, points, by training domain. {said}"
    return scatter.heat_map(key, [trained_name(row) for row in matrix.rows], names, cells, label=label)


def trained_name(row: Row) -> str:
    """What an arm was trained on: a domain, or how many."""
    return clip(visible(row.trained[0]), 14) if len(row.trained) == 1 else f"mix of {len(row.trained)}"


def dots(judged: list[Judged], given: dict[str, Style]) -> Markup | None:
    """Change by initial entropy; None unless two starting points differ."""
    known = [(j.arm, e) for j in judged if j.arm.change and (e := j.arm.metric("entropy", 0)) is not None]
    if len({round(e, 3) for _, e in known}) < 2:
        return None
    known = _comparable(known)
    if not known:
        return None
    points = [Dot(_line_name(a), given[a.label], e, a.change) for a, e in known]
    label = "Change in accuracy by initial entropy. " + " ".join(
        f"{a.label} at {words.number(e)} nats: {words.signed(a.change.value)} points." for a, e in known[:MAX_NAMED]
    )
    return scatter.dots("dots", points, label=visible(label), **ENTROPY_AXIS)


def _comparable(known: list[tuple[Arm, float]]) -> list[tuple[Arm, float]]:
    """Those of a reward mix that was tried on several starts, where there are more mixes than styles."""
    at: dict[str, set] = {}
    for arm, _ in known:
        at.setdefault(_line_name(arm), set()).add(arm.group)
    several = [name for name, starts in at.items() if len(starts) > 1]
    return known if len(at) <= len(STYLES) else [(a, e) for a, e in known if _line_name(a) in several[: len(STYLES)]]


def panels(arm: Arm, style: Style, key: str, everyone: list[Arm]) -> list[Markup]:
    """The small charts of one arm; those of agreement only where its reward looks at agreement."""
    steps = max((a.curve[-1][0] for a in everyone if a.curve), default=0)
    steps = max([steps, *(r.steps[-1]["step"] for r in arm.runs if r.steps)])
    greedy = Style("#444444", (0, (2, 1.5)), "")
    right = [Line("", style, arm.curve), Line("", greedy, arm.metric_curve("accuracy_greedy"))]
    found = [
        ("Right answers, %", 100, right, (0, 100)),
        ("Reward (training)", 1, [_logged(arm, style, "reward")], None),
    ]
    found += [
        (title, scale, [Line("", style, arm.metric_curve(name))], _limits(everyone, name, scale))
        for name, title, scale in PANELS
    ]
    if set(arm.rewards) & set(VOTING):
        found += [(title, scale, [_logged(arm, style, name)], ends) for name, title, scale, ends in VOTING_PANELS]
    label = visible(arm.label)
    return [
        charts.panel(f"{key}m{i}", [line for line in lines if line.points], label=f"{label}: {title} by training step",
                     title=title, steps=steps, limits=limits, scale=scale)
        for i, (title, scale, lines, limits) in enumerate(found) if any(line.points for line in lines)
    ]  # fmt: skip


def _logged(arm: Arm, style: Style, key: str) -> Line:
    """A value of steps.jsonl, without markers and bands."""
    return Line("", style._replace(marker=""), [(s, Interval(v, None, None, 0)) for s, v in arm.step_curve(key)])


def _limits(arms: list[Arm], metric: str, scale: float) -> tuple[float, float]:
    tops = [p.high if p.high is not None else p.value for a in arms for _, p in a.metric_curve(metric)]
    return 0, scale * max(tops, default=1) * 1.08 or 1


def _short(arm: Arm, mixed: bool) -> str:
    """The arm's name beside its line."""
    if mixed:
        return share_name(arm)
    return "\n".join(textwrap.wrap(_line_name(arm), 24)) or "unnamed"


def _line_name(arm: Arm) -> str:
    """The name within the arm's group; the end of a long one stays, since that is where similar arms differ."""
    if arm.is_control:
        return "random (control)"
    plain, mix = visible(arm.name).replace("\n", " "), "-".join(arm.rewards)
    if mix and plain.startswith(mix):
        plain = " + ".join(arm.rewards) + plain[len(mix) :].replace("-labels", ", labels\u00a0").replace("-", ", ")
    return plain if len(plain) <= 44 else f"{plain[:20]} … {plain[-20:]}"


def _ends(arm: Arm) -> str:
    return f"{words.percent(arm.curve[0][1].value)} to {words.percent(arm.curve[-1][1].value)}"
