"""The first screen: a card for each stage with its word, gain, risks, cost and next step, and what to say in a meeting.

Decisions and costs in, words of one language out; commands stand in code elements, to be copied.
"""

import shlex
from collections.abc import Sequence

from markupsafe import Markup

from poc import money
from poc.config import Cost
from poc.report import words
from poc.report.arms import Arm, Judged
from poc.report.costs import Spent, prices, spent
from poc.report.decision import MIN_USEFUL, ORDER, Decision, uses_labels
from poc.report.language import Language, logged
from poc.report.risks import SERIOUS, Risk, serious
from poc.report.verdicts import MIN_PROMPTS
from poc.text import clip, visible

SYMBOLS = {"ship": "✓", "do not ship": "✗", "not enough evidence": "?", "not tried": "–"}
MOST_QUESTIONS = 100_000  # beyond it the answer is "more than anybody will ask"
MAX_RISKS = 4  # on a card; the arms below have the rest
TRY = {
    0: "poc pilot",
    1: "poc pilot --set 'arms=[{model: base, reward: {trajectory_entropy: 1.0}}, "
    "{model: base, reward: {random: 1.0}}]'",
    2: "poc pilot --set 'arms=[{model: instruct, reward: {trajectory_entropy: 1.0}}, "
    "{model: instruct, reward: {random: 1.0}}]'",
    3: "poc pilot --set 'arms=[{model: base, reward: {self_certainty: 1.0, verifiable: 1.0}}, "
    "{model: base, reward: {random: 1.0}}]'",
}


def card(decision: Decision, say: Language) -> dict:
    """One stage as the template prints it."""
    named = decision.named
    return {
        "title": say(f"stage.{decision.stage}"),
        "word": say(f"word.{decision.word}"),
        "css": decision.word.replace(" ", "-"),
        "symbol": SYMBOLS[decision.word],
        "arm": clip(named.arm.label, 60) if named else "",
        "change": named.change if named else None,
        "change_text": words.points(named.change, say, decision.confidence) if named else "",
        "rows": [(say(f"card.{term}"), lines) for term, lines in _rows(decision, say).items() if lines],
        "next": next_step(decision, say),
    }


def _rows(decision: Decision, say: Language) -> dict[str, list]:
    """What stands on a card, by term."""
    if decision.named is None:
        return {"why": [say("reason.not tried")]}
    found, total = decision.named, spent(decision)
    return {
        "gain": [_gain(decision, say)],
        "measured": [_measured(decision, say)],
        "why": [reason(decision, say)],
        "risk": _risks(decision, say),
        "cost": [_so_far(total, say), *_labels(found.arm, total, say)],
        "going on": [_going_on(total, say)],
    }


def _gain(decision: Decision, say: Language) -> str:
    arm, change = decision.named.arm, decision.named.change
    if change is None or arm.ends is None:
        return say("gain.none")
    before, after = (words.percent(end.value) for end in arm.ends)
    return say("gain", change=words.points(change, say, decision.confidence), before=before, after=after)


def _measured(decision: Decision, say: Language) -> str:
    arm, change, m = decision.named.arm, decision.named.change, len(decision.candidates)
    n = say.count("hold-out question", change.n if change else 0)
    seeds = say.count("seed", len(arm.per_seed) or len(arm.runs))
    return say("measured.best", n=n, seeds=seeds, m=m) if m > 1 else say("measured", n=n, seeds=seeds)


def reason(decision: Decision, say: Language) -> str:
    """Why this word, and how many questions would change that."""
    key = f"reason.{decision.reason}"
    if decision.reason == "not measured":
        return words.sentence(decision.named, say)
    over = words.points(decision.named.over_control, say, decision.confidence)
    text = say(key, useful=words.signed(MIN_USEFUL)[1:], least=MIN_PROMPTS, over=over)
    return f"{text} {_needed(decision, say)}".strip()


def _needed(decision: Decision, say: Language) -> str:
    if decision.needed is None:
        return ""
    if decision.needed > MOST_QUESTIONS:
        return say("needed.most", n=f"{MOST_QUESTIONS:,}")
    return say("needed", n=f"{rounded_up(decision.needed):,}", have=decision.named.change.n)


def rounded_up(n: int) -> int:
    """To two digits: a size for planning has no more."""
    unit = 10 ** max(0, len(str(n)) - 2)
    return -(-n // unit) * unit


def _risks(decision: Decision, say: Language) -> list[str]:
    """The serious ones are called so; where none was found, what was looked for."""
    told = [("risk.serious", r) for r in serious(decision.risks)]
    told += [("risk.minor", r) for r in decision.risks if r.kind not in SERIOUS]
    lines = [say(key, text=risk(r, decision.named.arm, say)) for key, r in told[:MAX_RISKS]]
    return lines if serious(decision.risks) else [say("risk.none"), *lines]


def risk(found: Risk, arm: Arm, say: Language) -> str:
    """One risk in words."""
    about = found.about
    if found.kind == "guard":
        about = say.rules.get(found.about, found.about)
    elif found.kind == "elsewhere":
        about = words.view(found.about, arm, say)
    amount = words.signed(found.amount)
    share = words.percent(found.amount) if found.amount is not None else ""
    return say(f"risk.{found.kind}", about=about, step=found.step, amount=amount, share=share)


def _so_far(total: Spent, say: Language) -> str:
    time = words.duration(total.seconds, say)
    return say("cost.time", time=time, money=_money(total.money, total.cost, say))


def _going_on(total: Spent, say: Language) -> str:
    paid = _money(total.money_again, total.cost, say)
    return say("cost.again", time=words.duration(total.again, say), money=paid)


def _money(amount: float | None, cost: Cost, say: Language) -> str:
    return "" if amount is None else say("cost.money", amount=money.said(amount, cost))


def _labels(arm: Arm, total: Spent, say: Language) -> list[str]:
    """Labels used and spared, with their price, and where the machine's time breaks even with them."""
    if total.used is None:
        return []
    used = say.count("label", total.used) + _money(total.money_labels, total.cost, say)
    key = "cost.labels" if uses_labels(arm) else "cost.no labels"
    saved = f"{total.saved or 0:,}" + (_money(total.money_saved, total.cost, say) if total.saved else "")
    lines = [say(key, used=used, saved=saved)]
    if total.break_even is not None:
        key = "cost.break even" if total.break_even >= 1 else "cost.break even less"
        lines.append(say(key, n=f"{total.break_even:,.0f}"))
    return lines


def next_step(decision: Decision, say: Language) -> Markup:
    """One sentence in the imperative."""
    named = decision.named
    if named is None:
        return say.markup("next.not tried", command=_command(TRY[decision.stage]))
    run = next((r for r in named.arm.runs if r.status not in ("done", "stopped")), named.arm.first)
    last = run.final.step if run.evaluations else 0
    values = {
        "checkpoint": _command(f"{clip(visible(run.name), 80)}/checkpoints/step-{last:06d}"),
        "resume": _command(f"poc resume {shlex.quote(clip(visible(run.name), 80))}"),
        "seeds": _command("--set 'seeds=[0,1,2]'"),
        "holdout": _command(f"--set data.holdout={rounded_up(decision.needed or 0)}"),
    }
    return say.markup(f"next.{_next_key(decision)}", **values)


def _next_key(decision: Decision) -> str:
    unlabelled = decision.reason == "not measured" and any(r.evaluations for r in decision.named.arm.runs) and not any(
        p.gold for r in decision.named.arm.runs for e in r.evaluations for p in e.prompts.values())  # fmt: skip
    if unlabelled:
        return "no labels"
    if decision.reason in ("unclear", "control", "few questions"):
        if decision.needed is None:
            return "seeds"
        return "questions" if decision.needed <= MOST_QUESTIONS else "other"
    return decision.reason


def _command(text: str) -> Markup:
    return logged(text, 400)


def phrases(found: Sequence[Decision], judged: Sequence[Judged], lab: bool, say: Language) -> list[Markup]:
    """Five sentences that can be said in a meeting: what was tried, found, risky, not known, and proposed."""
    return [
        _tried(judged, say),
        _found(found, say),
        _risky(judged, found, say),
        say.markup("phrase.lab" if lab else "phrase.unknown"),
        _proposed(found, say),
    ]


def _tried(judged: Sequence[Judged], say: Language) -> Markup:
    started = [j for j in judged if any(run.status != "not started" for run in j.arm.runs)]
    seconds = [s for j in started if (s := j.arm.seconds()) is not None]
    questions = max((j.arm.change.n for j in started if j.arm.change), default=0)
    cost = prices(judged[0].arm)
    paid = _money(money.of_time(sum(seconds), cost), cost, say) if seconds else ""
    values = {"arms": say.count("arm", len(started)), "money": paid}
    time = words.duration(sum(seconds) if seconds else None, say)
    return say.markup("phrase.tried" if questions else "phrase.unmeasured", n=questions, time=time, **values)


def _leading(found: Sequence[Decision]) -> Decision | None:
    """The stage that speaks first: the best word, then the largest gain; None where nothing was measured."""
    known = [d for d in found if d.named and d.named.change]
    return min(known, key=lambda d: (ORDER.index(d.word), -d.named.change.value), default=None)


def _found(found: Sequence[Decision], say: Language) -> Markup:
    best = _leading(found)
    if best is None:
        return say.markup("phrase.nothing")
    key = {"ship": "phrase.ship", "do not ship": "phrase.none"}.get(best.word, "phrase.open")
    change = words.points(best.named.change, say, best.confidence)
    return say.markup(key, arm=logged(best.named.arm.label, 60), change=change, n=best.named.change.n)


def _risky(judged: Sequence[Judged], found: Sequence[Decision], say: Language) -> Markup:
    """The worst that happened on the way, undone or not; else that none of the risks was found."""
    lost = [(j.arm.undone[1].value, j, True) for j in judged if j.arm.undone]
    lost += [(j.arm.change.value, j, False) for j in judged if j.arm.change]
    value, worst, undone = min(lost, key=lambda entry: entry[0], default=(0.0, None, False))
    if worst is None or value > -MIN_USEFUL:
        return say.markup("phrase.serious" if any(serious(d.risks) for d in found) else "phrase.no risk")
    key = "phrase.undone" if undone else "phrase.lost"
    return say.markup(key, arm=logged(worst.arm.label, 60), value=words.signed(-value)[1:])


def _proposed(found: Sequence[Decision], say: Language) -> Markup:
    best = _leading(found) or found[0]
    total = spent(best)
    again = words.duration(total.again, say) if total else words.duration(None, say)
    paid = _money(total.money_again, total.cost, say) if total else ""
    return say.markup("phrase.proposal", stage=say(f"stage.{best.stage}"), next=next_step(best, say), time=again,
                      money=paid)  # fmt: skip
