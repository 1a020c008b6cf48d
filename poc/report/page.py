"""The page's contents as plain values for the template: groups, rows, charts, samples, provenance."""

from collections.abc import Sequence

from markupsafe import Markup

from poc.report import charts, words
from poc.report.arms import Arm, Judged
from poc.report.charts import CONTROL, STYLES, Dot, Line, Style
from poc.report.read import Run
from poc.report.samples import changed_answers, paid
from poc.statistics import Interval
from poc.text import clip, visible

LINES_PER_CHART = 8
PANELS = (
    ("entropy", "Entropy, nats", 1),
    ("length", "Length, tokens", 1),
    ("transitional_words", "Transitional words, %", 100),
)
ROLES = {"base": "Base model", "instruct": "Instruction-tuned model", "other": "Model"}


def context(judged: list[Judged], detailed: int) -> dict:
    """Everything the template prints. Only the first `detailed` arms get panels, samples and their configuration."""
    styles = _styles([j.arm for j in judged])
    groups = _groups(judged)
    runs = [run for j in judged for run in j.arm.runs]
    return {
        "title": _title(judged),
        "facts": _facts(judged),
        "headline": words.headline(judged),
        "by_verdict": words.by_verdict(judged),
        "one_seed": any(len(j.arm.per_seed) == 1 for j in judged),
        "judged_arms": sum(j.verdict.word != "not measured" for j in judged),
        "lab": any(j.arm.model.startswith(("lab:", "mix:lab:")) for j in judged),
        "groups": [_group(arms, styles, number) for number, arms in enumerate(groups)],
        "scale": _scale(judged),
        "dots": _dots(judged, styles),
        "rows": [_row(j) for j in judged],
        "details": [_details(j, styles, i, judged) for i, j in enumerate(judged[:detailed])],
        "left_out": len(judged[detailed:]),
        "provenance": _provenance(runs),
        "rewards": {r: words.REWARDS[r] for j in judged for r in j.arm.rewards if r in words.REWARDS},
        "glossary": words.GLOSSARY,
    }


def _title(judged: list[Judged]) -> str:
    models = _unique(j.arm.model for j in judged)
    tasks = _unique(_task(j.arm.first) for j in judged if j.arm.first.config)
    return clip(f"{' and '.join(models[:4])} on {' and '.join(tasks[:3]) or 'an unknown task'}", 160)


def _task(run: Run) -> str:
    data = run.config.get("data") if isinstance(run.config.get("data"), dict) else {}
    own = data.get("file") or data.get("dataset")
    return str(own) if own else f"{data.get('domain', 'unknown task')}, level {data.get('level', 0)}"


def _facts(judged: list[Judged]) -> list[str]:
    runs = [run for j in judged for run in j.arm.runs]
    questions = max((len(e.prompts) for r in runs for e in r.evaluations), default=0)
    steps = max((r.steps[-1]["step"] for r in runs if r.steps), default=0)
    seconds = [s for j in judged if (s := j.arm.seconds()) is not None]
    hardware = _unique(_hardware(r) for r in runs if r.environment)
    return [
        words.count(len(judged), "arm"),
        words.count(len(_unique(str(r.seed) for r in runs)), "seed"),
        words.count(questions, "hold-out question"),
        words.count(steps, "training step"),
        words.duration(sum(seconds) if seconds else None) + " in all",
        *hardware[:3],
    ]


def _hardware(run: Run) -> str:
    h = run.environment.get("hardware")
    if not isinstance(h, dict):
        return "hardware unknown"
    gpu = h.get("gpu") or "no GPU"
    return clip(
        f"{gpu}, {h.get('cpu', 'CPU unknown')} ({h.get('cores', '?')} cores, {h.get('memory_gib', '?')} GiB)", 120
    )


def _groups(judged: list[Judged]) -> list[list[Judged]]:
    grouped: dict[tuple, list[Judged]] = {}
    for j in judged:
        grouped.setdefault(j.arm.group, []).append(j)
    order = {"base": 0, "instruct": 1}
    return sorted(grouped.values(), key=lambda arms: order.get(arms[0].arm.role, 2))


def _group(arms: list[Judged], styles: dict[str, Style], number: int) -> dict:
    first = arms[0].arm
    start = next((j.arm for j in arms if j.arm.curve), first)
    entropy = next((e for j in arms if (e := j.arm.metric("entropy", 0)) is not None), None)
    facts = [f"{words.percent(start.curve[0][1].value)} right before training"] if start.curve else []
    facts += [f"initial entropy {words.number(entropy)} nats per token"] if entropy is not None else []
    return {
        "title": f"{ROLES[first.role]}: {clip(first.model, 80)}",
        "facts": facts,
        "arms": [_verdict(j) for j in arms],
        "charts": _accuracy_charts([j.arm for j in arms if j.arm.curve], styles, f"g{number}", first),
    }


def _verdict(j: Judged) -> dict:
    symbol, badge = words.BADGES[j.verdict.word]
    return {
        "label": clip(j.arm.label, 80),
        "word": j.verdict.word.replace(" ", "-"),
        "symbol": symbol,
        "badge": badge,
        "sentence": words.sentence(j),
        "remarks": words.remarks(j),
        "states": [clip(s, 300) for s in words.states(j)],
        "change": j.arm.change,
        "change_text": words.points(j.arm.change),
    }


def _accuracy_charts(arms: list[Arm], styles: dict[str, Style], key: str, first: Arm) -> list[Markup]:
    chunks = [arms[i : i + LINES_PER_CHART] for i in range(0, len(arms), LINES_PER_CHART)]
    label = f"Hold-out accuracy at temperature 1 by training step, {ROLES[first.role].lower()}. "
    return [
        charts.curves(
            f"{key}c{i}",
            [Line(_short(a), styles[a.label], a.curve) for a in chunk],
            label=label + " ".join(f"{_short(a)}: {_ends(a)}." for a in chunk).replace("\n", " "),
            ylabel="right answers, %",
            scale=100,
        )
        for i, chunk in enumerate(chunks)
    ]


def _short(arm: Arm) -> str:
    """The arm's name within its group, without the model's role: short enough for a chart."""
    name = visible(arm.label.removeprefix(f"{arm.role}-"))[:36]
    return "random (control)" if arm.is_control else name.replace("-", " +\n" if len(name) > 18 else " + ", 1)


def _ends(arm: Arm) -> str:
    return f"{words.percent(arm.curve[0][1].value)} to {words.percent(arm.curve[-1][1].value)}"


def _styles(arms: list[Arm]) -> dict[str, Style]:
    """One style per reward mix, the same for every model."""
    mixes = _unique("+".join(a.rewards) for a in arms if not a.is_control)
    by_mix = {mix: STYLES[i % len(STYLES)] for i, mix in enumerate(mixes)}
    return {a.label: CONTROL if a.is_control else by_mix["+".join(a.rewards)] for a in arms}


def _scale(judged: list[Judged]) -> float:
    """Half the width of the interval bars, as a share: the largest end, rounded up to 5 points."""
    ends = [abs(e) for j in judged if j.arm.change for e in j.arm.change[:3] if e is not None]
    return max(0.05, -(-max(ends, default=0) // 0.05) * 0.05)


def _dots(judged: list[Judged], styles: dict[str, Style]) -> Markup | None:
    """Change by initial entropy; None unless two starting points differ."""
    known = [(j.arm, e) for j in judged if j.arm.change and (e := j.arm.metric("entropy", 0)) is not None]
    if len({round(e, 3) for _, e in known}) < 2:
        return None
    points = [Dot(" + ".join(visible(r) for r in a.rewards), styles[a.label], e, a.change) for a, e in known]
    label = "Change in accuracy by initial entropy. " + " ".join(
        f"{a.label} at {words.number(e)} nats: {words.signed(a.change.value)} points." for a, e in known[:24]
    )
    return charts.dots(
        "dots",
        points,
        label=visible(label),
        xlabel="entropy before training, nats per token",
        ylabel="change in accuracy, points",
    )


def _row(j: Judged) -> list[str]:
    arm, share, plain = j.arm, words.percent, words.number

    def span(name: str, show) -> str:
        first, last = arm.metric(name, 0), arm.metric(name, -1)
        return "–" if first is None and last is None else f"{show(first)} → {show(last)}"

    start, end = (arm.curve[0][1].value, arm.curve[-1][1].value) if arm.curve else (None, None)
    return [
        clip(arm.label, 80), share(start), share(end), words.signed(arm.change.value) if arm.change else "–",
        words.ends(arm.change) if arm.change else "–",
        *(span(name, share) for name in ("accuracy_greedy", "format", "accuracy_anyhow")),
        span("entropy", plain), span("length", lambda v: plain(v, 1)),
        *(span(name, share) for name in ("truncated", "transitional_words", "ece")), span("auroc", plain),
        words.duration(arm.seconds()),
    ]  # fmt: skip


def _details(j: Judged, styles: dict[str, Style], number: int, everyone: list[Judged]) -> dict:
    arm = j.arm
    return {
        "label": clip(arm.label, 80),
        "panels": _panels(arm, styles[arm.label], f"p{number}", [o.arm for o in everyone]),
        "samples": changed_answers(arm),
        "paid": paid(arm.first),
        "config": clip(arm.first.config_text, 20_000),
    }


def _panels(arm: Arm, style: Style, key: str, everyone: list[Arm]) -> list[Markup]:
    steps = max((a.curve[-1][0] for a in everyone if a.curve), default=0)
    steps = max([steps, *(r.steps[-1]["step"] for r in arm.runs if r.steps)])
    greedy = Style("#444444", (0, (2, 1.5)), "")
    found = [
        (
            "Right answers, %",
            100,
            [Line("", style, arm.curve), Line("", greedy, arm.metric_curve("accuracy_greedy"))],
            None,
        )
    ]
    reward = [(s, Interval(v, None, None, 0)) for s, v in arm.reward_curve()]
    found.append(("Reward (training)", 1, [Line("", style._replace(marker=""), reward)], None))
    found += [(title, scale, [Line("", style, arm.metric_curve(name))], name) for name, title, scale in PANELS]
    drawn = []
    for i, (title, scale, lines, metric) in enumerate(found):
        lines = [line for line in lines if line.points]
        if lines:
            limits = (0, 100) if i == 0 else _limits(everyone, metric, scale) if metric else None
            label = f"{visible(arm.label)}: {title} by training step"
            drawn.append(
                charts.panel(f"{key}m{i}", lines, label=label, title=title, steps=steps, limits=limits, scale=scale)
            )
    return drawn


def _limits(arms: list[Arm], metric: str, scale: float) -> tuple[float, float]:
    tops = [p.high if p.high is not None else p.value for a in arms for _, p in a.metric_curve(metric)]
    return 0, scale * max(tops, default=1) * 1.08 or 1


def _provenance(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Name and distinct values over all runs."""
    environments = [r.environment for r in runs if r.environment]

    def parts(name: str) -> list[dict]:
        return [e[name] for e in environments if isinstance(e.get(name), dict)]

    models, data = parts("model"), parts("data")
    found = {
        "Kit": map(_kit, environments),
        "Command": (str(e.get("command")) for e in environments),
        "Started": sorted(str(e.get("started")) for e in environments)[:1],
        "Seeds": (str(r.seed) for r in runs),
        "Models": (f"{m.get('source')}, sha256 {m.get('fingerprint')}" for m in models),
        "Prompts": (
            f"{m.get('source')}: {m.get('prompt_format')}. {m.get('instruction') or 'No instruction'}" for m in models
        ),
        "Data": (f"{split}: sha256 {d.get(split)}" for d in data for split in ("train", "holdout", "canary")),
        "Questions": (_pairs(d["counts"]) for d in data if isinstance(d.get("counts"), dict)),
        "Hardware": (_hardware(r) for r in runs if r.environment),
        "Python": (str(e.get("python")) for e in environments),
        "Packages": map(_pairs, parts("packages")),
        "Peak memory": (
            f"{r.name}: {m:.0f} MiB" for r in runs if isinstance(m := r.outcome.get("peak_memory_mib"), int | float)
        ),
    }
    return [(name, [clip(v, 1000) for v in _unique(values)[:40]]) for name, values in found.items()]


def _kit(environment: dict) -> str:
    changed = ", with uncommitted changes" if environment.get("dirty") else ""
    return f"{environment.get('kit')}, commit {environment.get('commit') or 'unknown'}{changed}"


def _pairs(mapping: dict) -> str:
    return ", ".join(f"{k} {v}" for k, v in mapping.items())


def _unique(values) -> list[str]:
    return list(dict.fromkeys(values))
