"""The page's contents as plain values for the template: groups, rows, charts, samples, provenance."""

from collections.abc import Sequence

from poc.report import figures, solver_verifier, words
from poc.report.arms import Arm, Judged
from poc.report.charts import Style
from poc.report.groups import Group, LabelStudy, grouped, label_studies, mixture
from poc.report.read import Run
from poc.report.samples import changed_answers, paid
from poc.report.transfer import VIEW, Matrix, matrices, trained_on
from poc.report.words import unique
from poc.text import clip


def context(judged: list[Judged], detailed: int) -> dict:
    """Everything the template prints. Only the first `detailed` arms get panels, samples and their configuration."""
    groups = grouped(judged)
    several = len({group.first.group[:3] for group in groups}) < len(groups)  # one start model on several hold-outs
    carried = matrices(judged)
    in_matrix = {row.arm.label for matrix in carried for row in matrix.rows}
    styles = figures.styles(groups)
    alone = [j for group in groups if not group.mixed for j in group.arms]
    runs = [run for j in judged for run in j.arm.runs]
    return {
        "title": _title(judged),
        "facts": _facts(judged),
        "headline": words.headline(judged),
        "by_verdict": words.by_verdict(judged),
        "one_seed": any(len(j.arm.per_seed) == 1 for j in judged),
        "judged_arms": sum(j.verdict.word != "not measured" for j in judged),
        "lab": any(j.arm.model.startswith(("lab:", "mix:lab:")) for j in judged),
        "groups": [_group(group, styles, f"g{number}", several, in_matrix) for number, group in enumerate(groups)],
        "studies": [
            _study(study, group, f"l{n}n{i}")
            for n, group in enumerate(groups)
            for i, study in enumerate(label_studies(group))
        ],
        "gap": solver_verifier.section([run.gap for run in runs if run.gap]),
        "matrices": [_matrix(m, f"x{n}") for n, m in enumerate(carried)],
        "scale": _scale(judged),
        "dots": figures.dots(alone, styles),
        "rows": [_row(j) for j in judged],
        "details": [_details(j, styles, i, judged) for i, j in enumerate(judged[:detailed])],
        "left_out": len(judged[detailed:]),
        "provenance": _provenance(runs),
        "rewards": {r: words.REWARDS[r] for j in judged for r in j.arm.rewards if r in words.REWARDS},
        "glossary": words.GLOSSARY,
    }


def _title(judged: list[Judged]) -> str:
    models = unique(_start(j.arm) for j in judged)
    tasks = unique(_task(j.arm.first) for j in judged if j.arm.first.config)
    domains = unique(name for j in judged if j.arm.first.config for name in trained_on(j.arm))
    tasks = [f"{len(domains)} domains: {', '.join(domains)}"] if len(domains) > 3 else tasks
    return clip(f"{' and '.join(models[:4])} on {' and '.join(tasks[:3]) or 'an unknown task'}", 160)


def _start(arm: Arm) -> str:
    mix = mixture(arm)
    return f"mixes of {mix.first} and {mix.second}" if mix else arm.model


def _task(run: Run) -> str:
    data = run.config.get("data") if isinstance(run.config.get("data"), dict) else {}
    own = data.get("file") or data.get("dataset")
    several = data.get("levels") if isinstance(data.get("levels"), list) else []
    levels = f"levels {', '.join(map(str, several))}" if several else f"level {data.get('level', 0)}"
    domains = data.get("domains") if isinstance(data.get("domains"), list) else []
    named = " + ".join(map(str, domains)) or data.get("domain", "unknown task")
    return str(own) if own else f"{named}, {levels}"


def _facts(judged: list[Judged]) -> list[str]:
    runs = [run for j in judged for run in j.arm.runs]
    questions = max((len(e.prompts) for r in runs for e in r.evaluations), default=0)
    steps = max((r.steps[-1]["step"] for r in runs if r.steps), default=0)
    seconds = [s for j in judged if (s := j.arm.seconds()) is not None]
    hardware = unique(words.hardware(r) for r in runs if r.environment)
    return [
        words.count(len(judged), "arm"),
        words.count(len(unique(str(r.seed) for r in runs)), "seed"),
        words.count(questions, "hold-out question"),
        words.count(steps, "training step"),
        words.duration(sum(seconds) if seconds else None) + " in all",
        *hardware[:3],
    ]


def _group(group: Group, styles: dict[str, Style], key: str, several: bool, in_matrix: set[str]) -> dict:
    title, carried = figures.heading(group), all(j.arm.label in in_matrix for j in group.arms)
    return {
        "title": clip(f"{title} on {_task(group.first.first)}" if several and not group.mixed else title, 120),
        "facts": _mixed_facts(group) if group.mixed else _start_facts([j.arm for j in group.arms]),
        "arms": [_verdict(j, carried) for j in group.arms],
        "starts": figures.starts(group, key) if group.mixed else [],
        "carried": carried,
        "charts": [] if carried else figures.accuracy(group, styles, key),
    }


def _start_facts(arms: list[Arm]) -> list[str]:
    start = next((a for a in arms if a.curve), None)
    entropy = next((e for a in arms if (e := a.metric("entropy", 0)) is not None), None)
    facts = [f"{words.percent(start.curve[0][1].value)} right before training"] if start else []
    return facts + ([f"initial entropy {words.number(entropy)} nats per token"] if entropy is not None else [])


def _mixed_facts(group: Group) -> list[str]:
    found = {}
    for arm in (j.arm for j in group.arms if j.arm.curve):
        right, entropy = words.percent(arm.curve[0][1].value), words.number(arm.metric("entropy", 0))
        found.setdefault(figures.share_name(arm), f"{right} and {entropy} at {figures.share_name(arm)}")
    asked = group.first.first.environment.get("model")
    form = str(asked.get("prompt_format")) if isinstance(asked, dict) else "one"
    mix = mixture(group.first)
    lead = f"m is the share of {mix.second} in the start's weights; all are asked in {mix.first}'s format ({form}), "
    lead += "so towards m = 1 a low accuracy may be the format's"
    before = "right answers and entropy (nats per token) before training: " + ", ".join(list(found.values())[:24])
    return [clip(lead, 300), *([before] if found else [])]


def _matrix(matrix: Matrix, key: str) -> dict:
    """Heat map and table of one start model."""
    title = clip(f"{words.ROLES[matrix.rows[0].arm.role]}: {matrix.rows[0].arm.model}", 120)
    before = [matrix.before(i) for i in range(len(matrix.columns))]
    return {
        "title": title,
        "chart": figures.heat_map(matrix, key, title),
        "columns": [clip(name, 40) for name in matrix.columns],
        "before": [words.accuracy(arm.ends[0]) if arm else "–" for arm in before],
        "rows": [[clip(row.arm.label, 80), *(words.change(c.change) if c else "–" for c in row.cells)]
                 for row in matrix.rows],
    }  # fmt: skip


def _study(study: LabelStudy, group: Group, key: str) -> dict:
    """Chart and table of accuracy by number of labels."""
    internal = " + ".join(study.internal) or "labels alone"
    title = clip(f"{figures.heading(group)}, {internal}", 160)
    return {"title": title, "chart": figures.by_labels(study, key, title), "rows": [_by_label(a) for a in study.arms]}


def _by_label(arm: Arm) -> list[str]:
    best = arm.best
    at_best = [str(best.step), words.accuracy(best.accuracy), words.signed(best.change.value)] if best else ["–"] * 3
    end = words.accuracy(arm.ends[1]), words.signed(arm.change.value)
    return [str(arm.labels), *end, *at_best, clip(arm.label, 80)]


def _verdict(j: Judged, carried: bool) -> dict:
    """`carried`: a matrix has its domains."""
    symbol, badge = words.BADGES[j.verdict.word]
    return {
        "label": clip(j.arm.label, 80),
        "word": j.verdict.word.replace(" ", "-"),
        "symbol": symbol,
        "badge": badge,
        "sentence": words.sentence(j),
        "remarks": words.remarks(j),
        "states": [clip(s, 500) for s in words.states(j)],
        "views": [_view(j.arm, n) for n in j.arm.view_names if not (carried and n.startswith(VIEW))],
        "change": j.arm.change,
        "change_text": words.points(j.arm.change),
    }


def _view(arm: Arm, name: str) -> list[str]:
    measured = arm.view(name)
    return [words.view(name, arm), words.accuracies(measured), words.change(measured.change)]


def _scale(judged: list[Judged]) -> float:
    """Half the width of the interval bars, as a share: the largest end, rounded up to 5 points."""
    ends = [abs(e) for j in judged if j.arm.change for e in j.arm.change[:3] if e is not None]
    return max(0.05, -(-max(ends, default=0) // 0.05) * 0.05)


def _row(j: Judged) -> list[str]:
    arm, share, plain = j.arm, words.percent, words.number

    def span(name: str, show) -> str:
        first, last = arm.metric(name, 0), arm.metric(name, -1)
        return "–" if first is None and last is None else f"{show(first)} → {show(last)}"

    start = arm.curve[0][1].value if arm.curve and arm.curve[0][0] == 0 else None
    end = arm.ends[1].value if arm.ends else None
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
        "panels": figures.panels(arm, styles[arm.label], f"p{number}", [o.arm for o in everyone]),
        "samples": changed_answers(arm),
        "paid": paid(arm.first),
        "config": clip(arm.first.config_text, 20_000),
    }


def _provenance(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Name and distinct values over all runs."""
    environments = [r.environment for r in runs if r.environment]

    def parts(name: str) -> list[dict]:
        return [e[name] for e in environments if isinstance(e.get(name), dict)]

    models, data = parts("model"), parts("data")
    found = {
        "Kit": map(words.kit, environments),
        "Command": (str(e.get("command")) for e in environments),
        "Started": sorted(str(e.get("started")) for e in environments)[:1],
        "Seeds": (str(r.seed) for r in runs),
        "Models": (f"{m.get('source')}, sha256 {m.get('fingerprint')}" for m in models),
        "Prompts": (
            f"{m.get('source')}: {m.get('prompt_format')}. {m.get('instruction') or 'No instruction'}" for m in models
        ),
        "Data": (f"{split}: sha256 {d.get(split)}" for d in data for split in ("train", "holdout", "canary")),
        "Questions": (_pairs(d["counts"]) for d in data if isinstance(d.get("counts"), dict)),
        "Hardware": (words.hardware(r) for r in runs if r.environment),
        "Python": (str(e.get("python")) for e in environments),
        "Packages": map(_pairs, parts("packages")),
        "Audit head": (f"{r.name}: {head}" for r in runs if (head := r.outcome.get("audit_head"))),
        "Peak memory": (
            f"{r.name}: {m:.0f} MiB" for r in runs if isinstance(m := r.outcome.get("peak_memory_mib"), int | float)
        ),
    }
    return [(name, [clip(v, 1000) for v in unique(values)[:40]]) for name, values in found.items()]


def _pairs(mapping: dict) -> str:
    return ", ".join(f"{k} {v}" for k, v in mapping.items())
