"""Two sections of the page: where the reward rose while accuracy fell, and how confidence fits accuracy."""

from collections.abc import Sequence

from poc.report import charts, figures, scatter, words
from poc.report.arms import Arm, Judged
from poc.report.calibration import before_and_after
from poc.report.charts import Style
from poc.report.decision import Decision
from poc.report.divergence import Divergence, divergence
from poc.report.language import Language, logged
from poc.text import clip, visible

MOST = 4  # charts of either section


def diverged(judged: Sequence[Judged], styles: dict[str, Style], say: Language) -> list[dict]:
    """A chart and a sentence for each arm whose reward rose while its accuracy fell, the largest fall first."""
    found = [d for j in judged if (d := divergence(j.arm))]
    found.sort(key=lambda d: d.change.value)
    return [{"svg": _both(d, styles[d.arm.label], f"d{i}", say) if i < MOST else "", "text": _told(d, say)}
            for i, d in enumerate(found)]  # fmt: skip


def _told(found: Divergence, say: Language):
    before, after = (words.number(value) for value in found.reward)
    text = say.markup("diverged", arm=logged(found.arm.label, 60), before=before, after=after,
                      change=words.points(found.change, say))  # fmt: skip
    return text + (" " + say("diverged.undone") if found.undone else "")


def _both(found: Divergence, style: Style, key: str, say: Language):
    """Reward over accuracy, on the same steps."""
    arm = found.arm
    parts = [
        (say("panel.reward"), figures.logged_line(arm, style, "reward"), 1.0),
        (say("panel.right"), charts.Line("", style, arm.curve), 100.0),
    ]
    name = clip(visible(arm.label), 60)
    return charts.stacked(
        key, parts, label=say("chart.diverged", arm=name), title=name, xlabel=say("axis.step"),
        details=say("chart.diverged details", change=words.signed(found.change.value)),
        events=[d.step for d in arm.events][: figures.MAX_EVENTS],
    )  # fmt: skip


def calibrated(decided: Sequence[Decision], judged: Sequence[Judged], say: Language) -> dict:
    """Reliability diagrams of the stages' named arms, and ECE and AUROC of all arms."""
    named = [decision.named.arm for decision in decided if decision.named]
    drawn = [svg for i, arm in enumerate(named[:MOST]) if (svg := _reliability(arm, f"k{i}", say))]
    rows = [[clip(j.arm.label, 80), *_pair(j.arm, "ece"), *_pair(j.arm, "auroc")] for j in judged]
    return {"charts": drawn, "rows": [row for row in rows if set(row[1:]) != {"–"}]}


def _pair(arm: Arm, metric: str) -> list[str]:
    return [words.number(arm.metric(metric, index)) for index in (0, -1)]


def _reliability(arm: Arm, key: str, say: Language):
    found = before_and_after(arm)
    if found is None:
        return None
    name = clip(visible(arm.label), 34)
    ece = _pair(arm, "ece")
    return scatter.reliability(
        key, *([(b.confidence, b.accuracy) for b in side] for side in found), title=name,
        label=say("chart.reliability", arm=name), details=say("chart.reliability details", before=ece[0], after=ece[1]),
        xlabel=say("axis.confidence"), ylabel=say("axis.right"),
        names=(say("legend.before"), say("legend.after"), say("legend.calibrated")),
    )  # fmt: skip
