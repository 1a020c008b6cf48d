"""The page's contents as plain values for the template: cards, groups, rows, charts, samples, provenance."""

from markupsafe import Markup

from poc import money
from poc.report import cards, figures, solver_verifier, words
from poc.report.arms import Arm, Judged
from poc.report.charts import Style
from poc.report.costs import prices
from poc.report.decision import decisions
from poc.report.figures import Event
from poc.report.groups import Group, LabelStudy, grouped, label_studies, mixture
from poc.report.language import Language, logged
from poc.report.origin import configurations, provenance
from poc.report.panels import calibrated, diverged
from poc.report.read import Run
from poc.report.reviewed import reviewed
from poc.report.samples import changed_answers, paid
from poc.report.transfer import VIEW, Matrix, matrices, trained_on
from poc.report.words import unique
from poc.text import clip


def context(judged: list[Judged], detailed: int, say: Language) -> dict:
    """Everything the template prints. Only the first `detailed` arms get panels, samples and their configuration."""
    groups = grouped(judged)
    several = len({group.first.group[:3] for group in groups}) < len(groups)  # one start model on several hold-outs
    carried = matrices(judged)
    in_matrix = {row.arm.label for matrix in carried for row in matrix.rows}
    styles = figures.styles(groups)
    alone = [j for group in groups if not group.mixed for j in group.arms]
    decided = decisions(judged)
    lab = any(j.arm.model.startswith(("lab:", "mix:lab:")) for j in judged)
    return {
        "say": say,
        "title": _title(judged, say),
        "facts": _facts(judged, say),
        "cards": [cards.card(decision, say) for decision in decided],
        "phrases": cards.phrases(decided, judged, lab, say),
        "headline": words.headline(judged, say),
        "by_verdict": words.by_verdict(judged, say),
        "one_seed": any(len(j.arm.per_seed) == 1 for j in judged),
        "judged_arms": sum(j.verdict.word != "not measured" for j in judged),
        "lab": lab,
        "groups": [_group(group, styles, f"g{number}", several, in_matrix, say) for number, group in enumerate(groups)],
        "studies": [
            _study(study, group, f"l{n}n{i}", say)
            for n, group in enumerate(groups)
            for i, study in enumerate(label_studies(group))
        ],
        "gap": solver_verifier.section([run.gap for j in judged for run in j.arm.runs if run.gap], say.code),
        "matrices": [_matrix(m, f"x{n}", say) for n, m in enumerate(carried)],
        "scale": _scale(judged),
        "dots": figures.dots(alone, styles, say),
        "diverged": diverged(judged, styles, say),
        "calibrated": calibrated(decided, judged, say),
        "reviews": [found for j in judged for run in j.arm.runs if (found := reviewed(run, say))],
        "rows": [_row(j, say) for j in judged],
        "details": [_details(j, styles, i, judged, say) for i, j in enumerate(judged[:detailed])],
        "left_out": len(judged[detailed:]),
        "provenance": provenance([run for j in judged for run in j.arm.runs], say),
        "configurations": configurations([j.arm for j in judged[:detailed]], say),
        "unpriced": all(money.hourly(prices(j.arm)) is None for j in judged),
        "rewards": {r: say.rewards[r] for j in judged for r in j.arm.rewards if r in say.rewards},
    }


def _title(judged: list[Judged], say: Language) -> str:
    models = unique(_start(j.arm, say) for j in judged)
    tasks = unique(_task(j.arm.first, say) for j in judged if j.arm.first.config)
    domains = unique(name for j in judged if j.arm.first.config for name in trained_on(j.arm))
    if len(domains) > 3:
        tasks = [say("task.domains", n=len(domains), names=say("comma").join(domains))]
    joined = say("and").join
    return clip(say("title", models=joined(models[:4]), tasks=joined(tasks[:3]) or say("task.unknown")), 160)


def _start(arm: Arm, say: Language) -> str:
    mix = mixture(arm)
    return say("start.mixed", first=mix.first, second=mix.second) if mix else arm.model


def _task(run: Run, say: Language) -> str:
    data = run.config.get("data") if isinstance(run.config.get("data"), dict) else {}
    own = data.get("file") or data.get("dataset")
    if own:
        return str(own)
    several = data.get("levels") if isinstance(data.get("levels"), list) else []
    domains = data.get("domains") if isinstance(data.get("domains"), list) else []
    named = " + ".join(map(str, domains)) or data.get("domain") or say("task.unknown")
    levels = ", ".join(map(str, several)) or data.get("level", 0)
    return say("task.levels" if several else "task.level", domain=named, level=levels)


def _facts(judged: list[Judged], say: Language) -> list[str]:
    runs = [run for j in judged for run in j.arm.runs]
    questions = max((len(e.prompts) for r in runs for e in r.evaluations), default=0)
    steps = max((r.steps[-1]["step"] for r in runs if r.steps), default=0)
    seconds = [s for j in judged if (s := j.arm.seconds()) is not None]
    hardware = unique(words.hardware(r, say) for r in runs if r.environment)
    return [
        say.count("arm", len(judged)),
        say.count("seed", len(unique(str(r.seed) for r in runs))),
        say.count("hold-out question", questions),
        say.count("step", steps),
        say("time.all", time=words.duration(sum(seconds) if seconds else None, say)),
        *hardware[:3],
    ]


def _group(group: Group, styles: dict[str, Style], key: str, several: bool, in_matrix: set[str], say: Language) -> dict:
    title, carried = figures.heading(group, say), all(j.arm.label in in_matrix for j in group.arms)
    if several and not group.mixed:
        title = say("title", models=title, tasks=_task(group.first.first, say))
    drawn = [] if carried else figures.accuracy(group, styles, key, say)
    return {
        "title": clip(title, 120),
        "facts": _mixed_facts(group, say) if group.mixed else _start_facts([j.arm for j in group.arms], say),
        "arms": [_verdict(j, carried, say) for j in group.arms],
        "starts": figures.starts(group, key, say) if group.mixed else [],
        "carried": carried,
        "charts": [{"svg": svg, "events": [_event(e, say) for e in events]} for svg, events in drawn],
    }


def _event(event: Event, say: Language) -> Markup:
    """What the guard decided, in one line."""
    rule = say.rules.get(event.alarm.rule)
    known = say(f"action.{event.alarm.action}") if f"action.{event.alarm.action}" in say.text else "–"
    return say.markup(
        "event", number=event.number, arm=logged(event.arm.label, 60), step=event.alarm.step, action=known,
        rule=logged(event.alarm.rule, 60), meaning=rule or say("rule.unknown"),
    )  # fmt: skip


def _start_facts(arms: list[Arm], say: Language) -> list[str]:
    start = next((a for a in arms if a.curve), None)
    entropy = next((e for a in arms if (e := a.metric("entropy", 0)) is not None), None)
    facts = [say("fact.right", value=words.percent(start.curve[0][1].value))] if start else []
    return facts + ([say("fact.entropy", value=words.number(entropy))] if entropy is not None else [])


def _mixed_facts(group: Group, say: Language) -> list[str]:
    found = {}
    for arm in (j.arm for j in group.arms if j.arm.curve):
        values = {"right": words.percent(arm.curve[0][1].value), "entropy": words.number(arm.metric("entropy", 0))}
        found.setdefault(figures.share_name(arm), say("fact.start", share=figures.share_name(arm), **values))
    asked = group.first.first.environment.get("model")
    form = str(asked.get("prompt_format")) if isinstance(asked, dict) else "–"
    mix = mixture(group.first)
    lead = say("fact.mixed", first=mix.first, second=mix.second, form=form)
    before = [say("fact.starts", starts=say("comma").join(list(found.values())[:24]))] if found else []
    return [clip(lead, 400), *before]


def _matrix(matrix: Matrix, key: str, say: Language) -> dict:
    """Heat map and table of one start model."""
    first = matrix.rows[0].arm
    title = clip(say("heading", role=say(f"role.{first.role}"), model=first.model), 120)
    before = [matrix.before(i) for i in range(len(matrix.columns))]
    return {
        "title": title,
        "chart": figures.heat_map(matrix, key, title, say),
        "columns": [clip(name, 40) for name in matrix.columns],
        "before": [words.accuracy(arm.ends[0], say) if arm else "–" for arm in before],
        "rows": [[clip(row.arm.label, 80), *(words.change(c.change, say) if c else "–" for c in row.cells)]
                 for row in matrix.rows],
    }  # fmt: skip


def _study(study: LabelStudy, group: Group, key: str, say: Language) -> dict:
    """Chart and table of accuracy by number of labels."""
    internal = " + ".join(study.internal) or say("labels alone")
    title = clip(f"{figures.heading(group, say)}, {internal}", 160)
    chart = figures.by_labels(study, key, title, say)
    return {"title": title, "chart": chart, "rows": [_by_label(a, say) for a in study.arms]}


def _by_label(arm: Arm, say: Language) -> list[str]:
    best = arm.best
    at_best = ["–"] * 3
    if best:
        at_best = [str(best.step), words.accuracy(best.accuracy, say), words.signed(best.change.value)]
    end = words.accuracy(arm.ends[1], say), words.signed(arm.change.value)
    return [str(arm.labels), *end, *at_best, clip(arm.label, 80)]


def _verdict(j: Judged, carried: bool, say: Language) -> dict:
    """`carried`: a matrix has its domains."""
    return {
        "label": clip(j.arm.label, 80),
        "word": j.verdict.word.replace(" ", "-"),
        "symbol": words.BADGES[j.verdict.word],
        "badge": say(f"badge.{j.verdict.word}"),
        "sentence": words.sentence(j, say),
        "remarks": words.remarks(j, say),
        "states": words.states(j, say),
        "views": [_view(j.arm, n, say) for n in j.arm.view_names if not (carried and n.startswith(VIEW))],
        "change": j.arm.change,
        "change_text": words.points(j.arm.change, say),
    }


def _view(arm: Arm, name: str, say: Language) -> list[str]:
    measured = arm.view(name)
    return [words.view(name, arm, say), words.accuracies(measured, say), words.change(measured.change, say)]


def _scale(judged: list[Judged]) -> float:
    """Half the width of the interval bars, as a share: the largest end, rounded up to 5 points."""
    ends = [abs(e) for j in judged if j.arm.change for e in j.arm.change[:3] if e is not None]
    return max(0.05, -(-max(ends, default=0) // 0.05) * 0.05)


def _row(j: Judged, say: Language) -> list[str]:
    arm, share, plain = j.arm, words.percent, words.number

    def span(name: str, show) -> str:
        first, last = arm.metric(name, 0), arm.metric(name, -1)
        return "–" if first is None and last is None else f"{show(first)} → {show(last)}"

    start = arm.curve[0][1].value if arm.curve and arm.curve[0][0] == 0 else None
    end = arm.ends[1].value if arm.ends else None
    return [
        clip(arm.label, 80), share(start), share(end), words.signed(arm.change.value) if arm.change else "–",
        words.ends(arm.change, say) if arm.change else "–",
        *(span(name, share) for name in ("accuracy_greedy", "format", "accuracy_anyhow")),
        span("entropy", plain), span("length", lambda v: plain(v, 1)),
        *(span(name, share) for name in ("truncated", "transitional_words", "ece")), span("auroc", plain),
        words.duration(arm.seconds(), say),
    ]  # fmt: skip


def _details(j: Judged, styles: dict[str, Style], number: int, everyone: list[Judged], say: Language) -> dict:
    arm = j.arm
    return {
        "label": clip(arm.label, 80),
        "panels": figures.panels(arm, styles[arm.label], f"p{number}", [o.arm for o in everyone], say),
        "samples": changed_answers(arm, say),
        "paid": paid(arm.first, say),
    }
