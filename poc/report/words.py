"""The report's sentences and number formats: what was measured, in plain words. Facts in, text out."""

import re

from poc.report.arms import Arm, Judged
from poc.report.read import Run
from poc.statistics import Interval
from poc.text import clip, visible

MINUS = "\u2212"
NBSP = "\u00a0"
NO_LABELS = "No labelled hold-out: accuracy not measured."
ROLES = {"base": "Base model", "instruct": "Instruction-tuned model", "other": "Model"}
BADGES = {
    "helps": ("▲", "helps"),
    "hurts": ("▼", "hurts"),
    "no evidence": ("●", "no evidence"),
    "not measured": ("○", "not measured"),
    "drift": ("◆", "control: drifts"),
    "steady": ("◇", "control: steady"),
}
REWARDS = {
    "self_certainty": "Pays answers whose tokens the model was sure of: how far its prediction is from a blind guess. "
    "No labels.",
    "token_entropy": "Pays low entropy: a model that hesitates little at each token. No labels.",
    "trajectory_entropy": "Pays answers the model itself finds likely as a whole. No labels.",
    "verifiable": "Pays answers that a program checked against the known answer. Needs labels for training questions.",
    "semantic_entropy": "Asks the same question several times and pays the answers whose meaning the others share. "
    "Questions answered all alike, or each time differently, are left out unless set otherwise. No labels.",
    "majority_vote": "Asks the same question several times and pays the most frequent answer. No labels.",
    "format": "Pays answers that are marked the way the task asks for, right or wrong. No labels.",
    "knights_knaves": "Pays format and answer by the published rules for Knights and Knaves puzzles: most when all are "
    "named rightly, less than nothing for a badly formatted or wrong answer. Needs labels for training questions.",
    "own choices": "No reward: the model is fine-tuned on the best of its own answers by its own judgement. No labels.",
    "random": "Pays by coin toss. It carries no information: whatever it moves is drift. This is the control.",
}
GLOSSARY = {
    "Hold-out": "Questions kept away from training. Accuracy is measured on them; no reward ever sees their answers.",
    "Accuracy": "Share of right answers when the model samples freely (temperature 1), the way it is trained.",
    "Greedy": "The same when the model always takes its most likely next token; what a deployment often does.",
    "Points": "Percentage points: from 40 % to 45 % is +5 points.",
    "95 % interval": "Where the change would lie, 19 times out of 20, if the questions were drawn anew. Clear of 0 "
    "means: not explained by which questions happened to be asked.",
    "Paired": "Before and after are compared question by question, which removes how hard each question is.",
    "Best evaluated step": "The step with the highest accuracy after the start. It is picked on the questions it is "
    "measured on, so it flatters.",
    "Label fraction": "Share of the training questions whose known answer a reward may use. Those questions get the "
    "rewards that need labels, the others the rewards that need none: a label-free hybrid.",
    "Level n, never trained on": "New questions of another level of difficulty than those in training: does what was "
    "learned carry over?",
    "Asked with the reward's rules in the prompt": "The hold-out again, with the rules of the reward written into the "
    "question as in training. The accuracy elsewhere on this page is without them.",
    "Mixed start": "A model whose weights are the share 1 − m of one model and m of another.",
    "Agreement": "Of several answers to one question, the share that gives the most frequent one. 100 % need not be "
    "right.",
    "Semantic entropy": "How much the answers to one question differ in meaning, in nats; 0 when all mean the same.",
    "Format": "Share of answers that are marked the way the task asks for.",
    "Regardless of format": "Right answers counted even where they are not marked as asked. If accuracy rises and this "
    "does not, the model learned the format, not the task.",
    "Entropy": "How undecided the model is per token, in nats; 0 is certain. Near 0 it no longer explores.",
    "Length, truncated": "Tokens per answer; share of answers cut off by the length limit.",
    "Transitional words": "Share of words such as “but”, “wait”, “let me check”: a rough trace of deliberation.",
    "ECE": "Expected calibration error: gap between the model's confidence and its accuracy. 0 is best. With few "
    "questions it comes out too large.",
    "AUROC": "Chance that a right answer has more confidence than a wrong one. 0.5 is blind, 1 is perfect.",
    "Seed": "The start of the random numbers of one training run. More seeds show how much runs differ.",
}


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}{NBSP}%"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A difference of shares, in percentage points: +3.1."""
    text = "–" if value is None else f"{100 * value:+.1f}".replace("-", MINUS)
    return text if text not in ("+0.0", MINUS + "0.0") else "0.0"


def points(interval: Interval | None) -> str:
    """+3.1 points (95 % interval +0.4 to +5.9)."""
    if interval is None:
        return "–"
    return f"{signed(interval.value)}{NBSP}points (95{NBSP}% interval {ends(interval)})"


def ends(interval: Interval) -> str:
    return "unknown" if interval.low is None else f"{signed(interval.low)} to {signed(interval.high)}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def sentence(judged: Judged) -> str:
    """What happened to accuracy, with its interval."""
    arm, word = judged.arm, judged.verdict.word
    if word == "not measured":
        return _why_not_measured(judged)
    before, after, change = arm.ends[0].value, arm.ends[1].value, arm.change
    numbers = f"{percent(before)} → {percent(after)}, {points(change)[:-1]}, {count(change.n, 'question')})"
    lead = {
        "helps": "Accuracy rose",
        "hurts": "Accuracy fell",
        "no evidence": _no_evidence(judged),
        "drift": "A reward without information moved accuracy: treat changes of this size as drift",
        "steady": "A reward without information did not measurably move accuracy, as it should be",
    }[word]
    return f"{lead}: {numbers}."


def remarks(judged: Judged) -> list[str]:
    """What qualifies the verdict, one sentence each."""
    arm, over = judged.arm, points(judged.over_control)
    texts = {
        "few prompts": "Too few questions to judge: it takes 10 with labels, 6 of them changed; hundreds are better.",
        "no more than control": f"The control, rewarded by coin toss, gained too (this arm minus control: "
        f"{over}): treat the gain as drift.",
        "not clear of control": f"The gain is not clearly larger than the control's (this arm minus control: {over}).",
        "format only": "The gain is format, not reasoning: counted regardless of format, accuracy changed by "
        f"{points(arm.anyhow)}.",
        "fell from peak": _peaked(judged),
    }
    found = [texts[r] for r in judged.verdict.remarks]
    if judged.verdict.word == "helps" and not judged.verdict.remarks and judged.over_control:
        found.append(f"Compared with the control: {over}.")
    if arm.undone:
        step, change = arm.undone
        found.append(f"Before the guard went back, at step {step}: {points(change)}.")
    if len(arm.per_seed) > 1:
        found.append("By seed: " + ", ".join(f"{seed}: {signed(i.value)}" for seed, i in arm.per_seed) + " points.")
    ended = [r for r in arm.runs if r.status == "done" and r.outcome.get("reason")]
    return found + [clip(f"{r.name} ended as planned: {r.outcome['reason']}{_kept(r)}.", 400) for r in ended]


def view(name: str, arm: Arm) -> str:
    """What was measured in the folder `name` beside the hold-out."""
    if level := re.fullmatch(r"level-([0-9]{1,3})", name):
        return f"level {level[1]}, never trained on"
    if domain := re.fullmatch(r"domain-([a-z_]{1,30})", name):
        return f"domain {domain[1]}"
    if name != "motivated":
        return clip(visible(name), 60)
    told = arm.first.config.get("motivation")
    part = {"score_only": " (of the answer only)", "adverse": " (turned into their opposite)"}
    return "asked with the reward's rules in the prompt" + part.get(str(_key(told, "condition")), "")


def accuracy(interval: Interval) -> str:
    """41.2 % (36.1 to 46.0)."""
    inner = "unknown" if interval.low is None else f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return f"{percent(interval.value)} ({inner})"


def accuracies(arm: Arm) -> str:
    """41.2 % (36.1 to 46.0) → 70.0 % (65.2 to 74.9)."""
    return " → ".join(map(accuracy, arm.ends)) if arm.ends else "–"


def change(interval: Interval | None) -> str:
    """+3.1 (+0.4 to +5.9), in points."""
    return f"{signed(interval.value)} ({ends(interval)})" if interval else "–"


def _key(mapping, key: str):
    return mapping.get(key) if isinstance(mapping, dict) else None


def hardware(run: Run) -> str:
    h = run.environment.get("hardware")
    if not isinstance(h, dict):
        return "hardware unknown"
    gpu = h.get("gpu") or "no GPU"
    return clip(
        f"{gpu}, {h.get('cpu', 'CPU unknown')} ({h.get('cores', '?')} cores, {h.get('memory_gib', '?')} GiB)", 120
    )


def kit(environment: dict) -> str:
    changed = ", with uncommitted changes" if environment.get("dirty") else ""
    return f"{environment.get('kit')}, commit {environment.get('commit') or 'unknown'}{changed}"


def unique(values) -> list[str]:
    return list(dict.fromkeys(values))


def states(judged: Judged) -> list[str]:
    """Runs that did not end as planned, and what could not be read."""
    found = []
    for run in judged.arm.runs:
        if run.status != "done":
            found.append(f"{run.name}: {_state(run)}")
        found += [f"{run.name}: {note}" for note in run.notes[:5]]
        found += [f"{run.name}: and {len(run.notes) - 5} more notes"] if len(run.notes) > 5 else []
    return found


def headline(judged: list[Judged]) -> str:
    """One line for the whole page: 2 of 7 arms help, 3 hurt, ..."""
    arms = [j for j in judged if not j.arm.is_control]
    words = [j.verdict.word for j in arms]
    if not arms or set(words) == {"not measured"}:
        return "Nothing could be judged: no accuracy before and after training."
    if len(arms) == 1:
        return f"{clip(arms[0].arm.label, 60)}: {BADGES[words[0]][1]}."
    phrases = (("helps", "help", "helps"), ("hurts", "hurt", "hurts"), ("no evidence", *["without evidence"] * 2),
               ("not measured", *["not measured"] * 2))  # fmt: skip
    named = [(words.count(word), one if words.count(word) == 1 else many) for word, many, one in phrases]
    parts = [f"{n} {phrase}" for n, phrase in named if n]
    return f"Of {count(len(arms), 'arm')}: " + ", ".join(parts) + "."


def by_verdict(judged: list[Judged]) -> list[tuple[str, str]]:
    """Which arms help, hurt, ..., with their change in points."""
    found: dict[str, list[str]] = {}
    for j in judged:
        change = f" {signed(j.arm.change.value)}" if j.arm.change else ""
        change += f" (the guard undid {signed(j.arm.undone[1].value)})" if j.arm.undone else ""
        found.setdefault(BADGES[j.verdict.word][1], []).append(clip(j.arm.label, 60) + change)
    order = [badge for _, badge in BADGES.values()]
    return [(badge, _listed(found[badge])) for badge in order if badge in found]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more


def _no_evidence(judged: Judged) -> str:
    if "few prompts" in judged.verdict.remarks:
        return "Not enough questions for a verdict"
    drifted = "no more than control" in judged.verdict.remarks
    return "Accuracy rose, but so did the control's" if drifted else "No clear change of accuracy"


def _peaked(judged: Judged) -> str:
    top = judged.arm.peak
    if top is None:
        return ""
    return (
        f"Peaked at step {top.step} with {signed(top.change.value)} points, then fell by {signed(-top.fall.value)[1:]}."
    )


def _state(run: Run) -> str:
    planned = (run.config.get("train") or {}).get("steps") if isinstance(run.config.get("train"), dict) else None
    done = f"after {len(run.steps)} of {planned} steps" if planned else f"after {count(len(run.steps), 'step')}"
    reason = f": {run.outcome['reason']}" if run.outcome.get("reason") else ""
    return {
        "killed": f"no usable outcome.json: killed or still running, {done}",
        "not started": "planned, but it has no run folder",
        "stopped": f"stopped by its guard {done}{reason}{_kept(run)}",
    }.get(run.status, f"{run.status} {done}{reason}")


def _kept(run: Run) -> str:
    if run.kept is None:
        return ""
    where = f"its checkpoint of step {run.kept.step}" if run.kept.step else "its start"
    return f". It went back to {where}, which was measured again: the verdict is on that"


def _why_not_measured(judged: Judged) -> str:
    runs = judged.arm.runs
    evaluations = [e for r in runs for e in r.evaluations]
    if all(r.status == "not started" for r in runs):
        return "Not started."
    if not evaluations:
        return "No evaluation was written: accuracy not measured."
    if not any(e.per_prompt(lambda c: c.correct) for e in evaluations):
        return NO_LABELS
    return "Only one of the two evaluations, before and after training, is there: change not measured."
