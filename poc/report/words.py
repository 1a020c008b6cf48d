"""The report's sentences and number formats: what was measured, in words of one language. Facts in, text out.

The words are in poc.report.language; here is which of them apply. Text that a file holds goes into markup as code.
"""

import re
from collections.abc import Iterable

from markupsafe import Markup

from poc.report.arms import Arm, Judged
from poc.report.language import Language, logged
from poc.report.read import Note, Run
from poc.statistics import Interval
from poc.text import clip, visible

MINUS = "\u2212"
NBSP = "\u00a0"
BADGES = {
    "helps": "▲",
    "hurts": "▼",
    "no evidence": "●",
    "not measured": "○",
    "drift": "◆",
    "steady": "◇",
}
MAX_NAMED = 12  # arms in one line


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}{NBSP}%"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A difference of shares, in percentage points: +3.1."""
    text = "–" if value is None else f"{100 * value:+.1f}".replace("-", MINUS)
    return text if text not in ("+0.0", MINUS + "0.0") else "0.0"


def points(interval: Interval | None, say: Language, confidence: float = 0.95) -> str:
    """+3.1 points (95 % interval +0.4 to +5.9)."""
    if interval is None:
        return "–"
    level = f"{100 * confidence:.1f}".removesuffix(".0")
    return say("points", value=signed(interval.value), level=level, ends=ends(interval, say))


def ends(interval: Interval, say: Language) -> str:
    if interval.low is None or interval.high is None:
        return say("unknown")
    return say("span", low=signed(interval.low), high=signed(interval.high))


def duration(seconds: float | None, say: Language) -> str:
    if seconds is None:
        return say("time.unknown")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    key = "time.hours" if hours else "time.minutes" if minutes else "time.seconds"
    return say(key, hours=hours, minutes=minutes, rest=rest)


def accuracy(interval: Interval, say: Language) -> str:
    """41.2 % (36.1 to 46.0)."""
    inner = say("unknown")
    if interval.low is not None and interval.high is not None:
        inner = say("span", low=f"{100 * interval.low:.1f}", high=f"{100 * interval.high:.1f}")
    return f"{percent(interval.value)} ({inner})"


def accuracies(arm: Arm, say: Language) -> str:
    """41.2 % (36.1 to 46.0) → 70.0 % (65.2 to 74.9)."""
    return " → ".join(accuracy(end, say) for end in arm.ends) if arm.ends else "–"


def change(interval: Interval | None, say: Language) -> str:
    """+3.1 (+0.4 to +5.9), in points."""
    return f"{signed(interval.value)} ({ends(interval, say)})" if interval else "–"


def sentence(judged: Judged, say: Language) -> str:
    """What happened to accuracy, with its interval."""
    arm, word = judged.arm, judged.verdict.word
    if word == "not measured":
        return say(_why_not_measured(judged))
    found = arm.change
    return say(
        "sentence", lead=say(_lead(judged)), before=percent(arm.ends[0].value), after=percent(arm.ends[1].value),
        value=signed(found.value), ends=ends(found, say), questions=say.count("question", found.n),
    )  # fmt: skip


def _lead(judged: Judged) -> str:
    if judged.verdict.word != "no evidence":
        return f"lead.{judged.verdict.word}"
    if "few prompts" in judged.verdict.remarks:
        return "lead.few"
    return "lead.control" if "no more than control" in judged.verdict.remarks else "lead.no evidence"


def remarks(judged: Judged, say: Language) -> list[str]:
    """What qualifies the verdict, one sentence each."""
    arm, top = judged.arm, judged.arm.peak
    values = {
        "over": points(judged.over_control, say),
        "anyhow": points(arm.anyhow, say),
        "step": top.step if top else 0,
        "rise": signed(top.change.value) if top else "",
        "fall": signed(-top.fall.value)[1:] if top else "",
    }
    found = [say(f"remark.{remark}", **values) for remark in judged.verdict.remarks]
    if judged.verdict.word == "helps" and not judged.verdict.remarks and judged.over_control:
        found.append(say("remark.over control", **values))
    if arm.undone:
        step, undone = arm.undone
        found.append(say("remark.undone", step=step, change=points(undone, say)))
    if len(arm.per_seed) > 1:
        each = ", ".join(f"{seed}: {signed(interval.value)}" for seed, interval in arm.per_seed)
        found.append(say("remark.by seed", each=each))
    ended = [run for run in arm.runs if run.status == "done" and run.outcome.get("reason")]
    return found + [_ended(run, say) for run in ended]


def _ended(run: Run, say: Language) -> Markup:
    reason = logged(str(run.outcome["reason"]))
    return say.markup("remark.ended", run=clip(run.name, 80), reason=reason, kept=_kept(run, say))


def states(judged: Judged, say: Language) -> list[Markup]:
    """Runs that did not end as planned, and what could not be read."""
    found = []
    for run in judged.arm.runs:
        if run.status != "done":
            found.append(_state(run, say))
        found += [_note(run, note, say) for note in run.notes[:5]]
        more = len(run.notes) - 5
        found += [say.markup("note.more", run=clip(run.name, 80), n=more)] if more > 0 else []
    return found


def _state(run: Run, say: Language) -> Markup:
    told = run.outcome.get("reason")
    reason = say.markup("state.reason", reason=logged(str(told))) if told else Markup("")
    key = f"state.{run.status}"
    return say.markup(key, run=clip(run.name, 80), done=_done(run, say), reason=reason, kept=_kept(run, say))


def _done(run: Run, say: Language) -> str:
    """After 40 of 60 steps."""
    train = run.config.get("train")
    planned = train.get("steps") if isinstance(train, dict) else None
    if isinstance(planned, int) and planned:
        return say("done.of", n=len(run.steps), planned=planned)
    return say("done.steps", steps=say.count("plain step", len(run.steps)))


def _kept(run: Run, say: Language) -> str:
    if run.kept is None:
        return ""
    return say("kept.step", step=run.kept.step) if run.kept.step else say("kept.start")


def _note(run: Run, note: Note, say: Language) -> Markup:
    detail = logged(note.detail, 250) if note.kind == "unreadable" else note.detail
    return say.markup(f"note.{note.kind}", run=clip(run.name, 80), name=clip(note.name, 80), detail=detail)


def view(name: str, arm: Arm, say: Language) -> str:
    """What was measured in the folder `name` beside the hold-out."""
    if level := re.fullmatch(r"level-([0-9]{1,3})", name):
        return say("view.level", level=level[1])
    if domain := re.fullmatch(r"domain-([a-z_]{1,30})", name):
        return say("view.domain", domain=domain[1])
    if name != "motivated":
        return clip(visible(name), 60)
    told = arm.first.config.get("motivation")
    key = f"view.motivated.{told.get('condition') if isinstance(told, dict) else None}"
    return say(key if key in say.text else "view.motivated")


def hardware(run: Run, say: Language) -> str:
    h = run.environment.get("hardware")
    if not isinstance(h, dict):
        return say("hardware.unknown")
    values = {"gpu": h.get("gpu") or say("hardware.no gpu"), "cpu": h.get("cpu") or say("hardware.no cpu")}
    return clip(say("hardware", cores=h.get("cores", "?"), memory=h.get("memory_gib", "?"), **values), 120)


def kit(environment: dict, say: Language) -> str:
    changed = say("kit.dirty") if environment.get("dirty") else ""
    return say("kit", kit=environment.get("kit"), commit=environment.get("commit") or say("unknown"), changed=changed)


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def headline(judged: list[Judged], say: Language) -> str:
    """One line for all arms: 2 of 7 arms help, 3 hurt, ..."""
    arms = [j for j in judged if not j.arm.is_control]
    words = [j.verdict.word for j in arms]
    if not arms or set(words) == {"not measured"}:
        return say("headline.nothing")
    if len(arms) == 1:
        return say("headline.one", arm=clip(arms[0].arm.label, 60), badge=say(f"badge.{words[0]}"))
    counted = [(f"headline.{word}", words.count(word)) for word in ("helps", "hurts", "no evidence", "not measured")]
    parts = say("comma").join(say.count(key, n) for key, n in counted if n)
    return say("headline.many", arms=say.count("arm", len(arms)), parts=parts)


def by_verdict(judged: list[Judged], say: Language) -> list[tuple[str, str]]:
    """Which arms help, hurt, ..., with their change in points."""
    found: dict[str, list[str]] = {}
    for j in judged:
        changed = f" {signed(j.arm.change.value)}" if j.arm.change else ""
        undone = say("undone", value=signed(j.arm.undone[1].value)) if j.arm.undone else ""
        found.setdefault(j.verdict.word, []).append(clip(j.arm.label, 60) + changed + undone)
    return [(say(f"badge.{word}"), _listed(found[word], say)) for word in BADGES if word in found]


def _listed(names: list[str], say: Language) -> str:
    more = say("and more", n=len(names) - MAX_NAMED) if len(names) > MAX_NAMED else ""
    return say("comma").join(names[:MAX_NAMED]) + more


def _why_not_measured(judged: Judged) -> str:
    """The key of the sentence that says it."""
    runs = judged.arm.runs
    evaluations = [e for r in runs for e in r.evaluations]
    if all(r.status == "not started" for r in runs):
        return "unmeasured.not started"
    if not evaluations:
        return "unmeasured.nothing"
    if not any(e.per_prompt(lambda c: c.correct) for e in evaluations):
        return "unmeasured.labels"
    return "unmeasured.one side"
