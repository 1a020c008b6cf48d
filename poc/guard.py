"""When to warn, to stop, or to take a run back: pure rules over step records and canary evaluations.

Each rule compares one value with its limit (config.Guard) and trips after `patience` consecutive looks beyond it. It
decides once; only after the value has come back within RELEASE of the limit can it decide again. A missing value is no
look. With b the mean of the run's first FIRST steps:

    entropy_collapse  x / b < 0.15         repetition     (x - b) / (1 - b) > 0.2      kl              x > 1 nat a token
    entropy_explosion x / b > 2            truncation     (x - b) / (1 - b) > 0.3      canary_drop     z > 2.3
    length_collapse   x / b < 0.5          charset_drift  (x - b) / (1 - b) > 0.1      agreement_drop  z > 2.1
    length_runaway    x / b > 2            zero_variance  (x - b) / (1 - b) > 0.8      past_peak       z > 1

Patience is 3, for kl 2, and for kl on the canary one evaluation. zero_variance warns: nothing is learned or harmed. z
is how many standard errors the canary is worse than at the best so far, paired by question (`standard_errors`): its
accuracy for canary_drop, the share of its samples that agree for agreement_drop, its entropy for past_peak. The best is
the best mean of WINDOW evaluations in a row: the best of many noisy values would flatter itself and stop healthy runs.
z is looked at again and again; the limits of the first two are from simulated runs of 20 looks, not from a formula. For
canary_drop one evaluation beyond SURE times the limit is enough.

Without labels (agreement_drop, past_peak; runs whose rewards use none). The rewards pay for certainty, so a run that
gains becomes more certain: on fixed questions, asked with the same random numbers, entropy falls from the first
evaluations on (z below -4 in the lab runs that gained). Once it has risen from its lowest for three evaluations the
reward is earned by something else: the run is past its peak. Where a labelled canary is used past_peak only warns, and
canary_drop decides; with canary_drop off, or without labels, past_peak decides. It also ends runs that gain nothing.

The checkpoint to go back to (`best_step`): by accuracy, the middle of the best window if that beats the start by PROOF
standard errors, else the start; without labels, the middle of the window of lowest entropy, or the start. Evaluations
at which a rule was beyond its limit are no candidates. A run that no rule ended goes back too, if its last window is
worse than the best by LATE standard errors (`at_end`): there little is lost where the evidence misleads.

Measured. Traces (tests/poc/traces.py, `python -m benchmarks.guard_roc --failing 100 --healthy 600`, seeds that no limit
was chosen on, 95 % intervals), all rules on. Caught within 10 steps of the onset: 100 % (96.4 to 100) of entropy and
length failures, loops, truncations and drifts of script, 99 % of zero_variance, 98 % (93.0 to 99.8) of kl and
canary_drop; in 45 steps 100 % of the slow falls of agreement_drop and past_peak. False stops: 1.5 % (0.7 to 2.8),
canary_drop alone 0.8 %, agreement_drop alone 0.7 %, every other rule 0 (to 0.6) but past_peak: without labels it ends
155 of 200 runs that stand still, all of 200 that swing and none of 200 that gain; what is kept of them has as much
accuracy as their ends (0.998 in the mean). Real runs (LOG.md, 2026-11-26): 25 runs of the lab models that lose 21 to 71
% of their accuracy to self_certainty keep 0.964 to 1 of the best evaluated one with labels, 0.972 to 1 without.
canary_drop and agreement_drop end 24 of them at step 25 to 190, at_end one; without labels all are ended, at step 15 to
80. Of 10 runs with other rewards none is ended with labels, one without: a semantic_entropy run that ends 8 % below its
start.

What it cannot do. canary_drop stops after the harm: on the first 13 of these runs accuracy had lost 9 to 39 % of the
best by then. past_peak is blind where certainty keeps growing while the answers get worse, as the papers describe for
larger models (there entropy_collapse, length_collapse and agreement_drop are left, all untested on real failures of
such models). Where agreement falls and entropy does not, what is kept without labels has 0.93 of the best. Without a
canary, or before its third evaluation, the best is the start. Runs that are meant to grow long answers need another
length_runaway.
Not here: acting on a decision, files, the model, values that are not finite (the trainer stops at or skips such steps).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

import numpy as np
from scipy import special

from poc import config
from poc.records import CanaryRecord, StepRecord

FIRST = 5  # steps that make the baseline
RECENT = 5  # steps whose mean reward is compared
WINDOW = 3  # evaluations that are averaged where the best is looked for
PROOF = 1.5  # standard errors above the start, from which on the best accuracy counts as better than the start's
SURE = 1.7  # times the limit: a drop of accuracy of which one evaluation is enough
LATE = {"canary_drop": 1.64, "past_peak": 0.5}  # standard errors that are enough when a run has ended anyway
RELEASE = 0.8  # of a limit: within it a rule that has tripped may trip again

STRENGTH = ("off", "warn", "stop", "rollback")
RATIOS = {"entropy_collapse": "entropy", "entropy_explosion": "entropy", "length_collapse": "length",
          "length_runaway": "length"}  # fmt: skip
SHARES = {"repetition": "repetition", "truncation": "truncated", "zero_variance": "zero_variance",
          "charset_drift": "foreign"}  # fmt: skip
SIGNALS = tuple(dict.fromkeys((RATIOS | SHARES).values()))
BELOW = ("entropy_collapse", "length_collapse")
MEANING = {
    "entropy_collapse": "the policy hardly varies any more and has little left to learn from",
    "entropy_explosion": "the policy becomes random",
    "length_collapse": "the answers lose their working",
    "length_runaway": "the answers grow without end",
    "repetition": "the answers run in loops",
    "truncation": "the answers no longer come to an end",
    "zero_variance": "nearly every group gets one and the same reward, so hardly anything is learned",
    "charset_drift": "the answers leave the questions' script",
    "kl": "the policy has left the start model far behind",
    "canary_drop": "it is forgetting the task",
    "agreement_drop": "it is less of one mind; no label was used to see that",
    "past_peak": "certainty is paid for but falls, the run is past its peak; no label was used to see that",
}


@dataclass(frozen=True, slots=True)
class Count:
    """Of one rule: consecutive looks beyond the limit, the step of the first, and whether it has tripped."""

    streak: int = 0
    since: int = 0
    tripped: bool = False


@dataclass(frozen=True, slots=True)
class Course:
    """Of one value per canary question: the start, the last evaluations, and the best mean of WINDOW in a row."""

    start: tuple[float, ...] = ()
    recent: tuple[tuple[float, ...], ...] = ()
    steps: tuple[int, ...] = ()  # of `recent`
    best: tuple[float, ...] = ()
    at: int = 0  # the step in the middle of the best
    reward: float | None = None  # mean of the steps before the best


@dataclass(frozen=True, slots=True)
class Memory:
    """Everything that the guard remembers; its size does not grow with the run."""

    label_free: bool
    first: dict[str, tuple[float, ...]] = field(default_factory=dict)  # by signal, at most FIRST
    rewards: tuple[float, ...] = ()  # of the last RECENT steps
    counts: dict[str, Count] = field(default_factory=dict)  # by rule
    correct: Course = Course()
    agreement: Course = Course()
    certainty: Course = Course()  # minus the entropy

    @classmethod
    def from_json(cls, tree: dict) -> "Memory":
        """The memory whose dataclasses.asdict went through JSON."""
        return cls(
            label_free=tree["label_free"],
            first={name: tuple(values) for name, values in tree["first"].items()},
            rewards=tuple(tree["rewards"]),
            counts={name: Count(**count) for name, count in tree["counts"].items()},
            correct=_course(tree["correct"]),
            agreement=_course(tree["agreement"]),
            certainty=_course(tree["certainty"]),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """A rule has tripped at `step`; `message` is one line for people, `values` what it was made of."""

    rule: str
    action: Literal["warn", "stop", "rollback"]
    step: int
    message: str
    values: dict[str, float]


Outcome = tuple[Memory, tuple[Decision, ...]]


def start(label_free: bool) -> Memory:
    """Before the first step. `label_free`: no reward of this run uses a label, so past_peak may judge it."""
    return Memory(label_free)


def after_step(memory: Memory, record: StepRecord, options: config.Guard) -> Outcome:
    """What the step's own statistics say."""
    known = {name: values for name, values in memory.first.items() if len(values) == FIRST}
    memory = replace(memory, first=_first(memory, record), rewards=_rewards(memory, record))
    decisions = []
    for rule, signal in (RATIOS | SHARES).items():
        measured = getattr(record, signal)
        if measured is not None and signal in known:
            base = fmean(known[signal])
            found = _ratio(signal, measured, base) if rule in RATIOS else _share(signal, measured, base)
            memory, decision = _judge(memory, options, rule, record.step, *found)
            decisions += decision
    if record.kl:  # 0.0 where kl is off
        memory, decision = _judge(memory, options, "kl", record.step, *_kl(record.kl))
        decisions += decision
    return memory, tuple(decisions)


def after_canary(memory: Memory, canary: CanaryRecord, options: config.Guard) -> Outcome:
    """What the canary says; at step 0 and after the after_step of an evaluated step."""
    candidate, decisions = not _in_trouble(memory, options), []
    labels = bool(canary.correct) and options.canary_drop.action != "off"
    if canary.kl is not None:
        found, looks = _kl(canary.kl), options.kl.patience  # hundreds of completions: one look is enough
        memory, decision = _judge(memory, options, "kl", canary.step, *found, looks=looks)
        decisions += decision
    seen = {"correct": canary.correct, "agreement": canary.agreement, "certainty": tuple(-x for x in canary.entropies)}
    label_free = {"agreement_drop": "agreement", "past_peak": "certainty"}
    for rule, name in ({"canary_drop": "correct"} | (label_free if memory.label_free else {})).items():
        course, values = getattr(memory, name), seen[name]
        if values and course.start:
            found = _drop(name, values, course, memory.rewards)
            sure = rule == "canary_drop" and found[0] > SURE * options.canary_drop.limit
            looks = options.canary_drop.patience if sure else 1
            memory, decision = _judge(memory, options, rule, canary.step, *found, looks=looks)
            decisions += [_softened(d) for d in decision] if rule == "past_peak" and labels else decision
    courses = {
        name: _extended(getattr(memory, name), canary.step, values, memory.rewards, candidate)
        for name, values in seen.items()
    }
    return replace(memory, **courses), tuple(decisions)


def best_step(memory: Memory, options: config.Guard, labels: bool) -> int:
    """The step of the checkpoint to go back to: by the canary's accuracy with `labels`, by its certainty without."""
    if not (labels and memory.correct.start):
        return _reference(memory.certainty)[1]
    best, first = memory.correct.best, memory.correct.start
    return memory.correct.at if best and standard_errors(best, first) >= PROOF else 0


def at_end(memory: Memory, options: config.Guard, labels: bool, step: int) -> Decision | None:
    """Whether a run that no rule ended should leave its best checkpoint behind instead of its last at `step`.

    One look at the mean of the last evaluations, so less evidence is enough than for a stop; what is gone back to is
    about as good where the evidence misleads.
    """
    rule, name = ("canary_drop", "correct") if labels else ("past_peak", "certainty")
    course, best = getattr(memory, name), best_step(memory, options, labels)
    if _action(options, rule) != "rollback" or not course.recent or best >= course.steps[0]:
        return None
    if not (labels or memory.label_free):
        return None
    reference = _reference(course)[0]
    errors = standard_errors(reference, _mean(course.recent))
    if errors < LATE[rule]:
        return None
    words = f"at the end canary {_said(name)} is {errors:.1f} standard errors worse than at its best, about step {best}"
    return Decision(rule, "rollback", step, words, {"value": errors, "limit": LATE[rule], "best_step": float(best)})


def _softened(decision: Decision) -> Decision:
    """Where labels tell, they decide."""
    return replace(decision, action="warn")


def _reference(course: Course) -> tuple[tuple[float, ...], int]:
    """The best so far, the start included, and its step."""
    if course.best and fmean(course.best) > fmean(course.start):
        return course.best, course.at
    return course.start, 0


def standard_errors(after: Sequence[float], before: Sequence[float]) -> float:
    """How far `after` is above `before`, paired by question: the one-sided p of the t test as a normal quantile.

    No less than the p of 2^-m that flipping the signs of the m differences could reach: few questions prove little.
    """
    difference = np.asarray(after) - np.asarray(before)
    changed = np.count_nonzero(difference)
    if not changed:
        return 0.0
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    t = abs(difference.mean()) / spread * math.sqrt(len(difference)) if spread else math.inf
    p = max(special.stdtr(len(difference) - 1, -t), 2.0**-changed)
    return math.copysign(max(0.0, -special.ndtri(p)), difference.mean())


def _course(tree: dict) -> Course:
    vectors = {name: tuple(tree[name]) for name in ("start", "steps", "best")}
    return Course(**tree | vectors | {"recent": tuple(map(tuple, tree["recent"]))})


def _first(memory: Memory, record: StepRecord) -> dict[str, tuple[float, ...]]:
    if len(memory.first) == len(SIGNALS) and all(len(values) == FIRST for values in memory.first.values()):
        return memory.first
    first = dict(memory.first)
    for signal in SIGNALS:
        value = getattr(record, signal)
        if value is not None and len(first.get(signal, ())) < FIRST:
            first[signal] = (*first.get(signal, ()), value)
    return first


def _rewards(memory: Memory, record: StepRecord) -> tuple[float, ...]:
    return memory.rewards if record.reward is None else (*memory.rewards, record.reward)[-RECENT:]


# What the limit is compared with, the values behind it, and these in words (called for by a decision only).
Found = tuple[float, dict[str, float], Callable[[], str]]


def _ratio(signal: str, measured: float, base: float) -> Found:
    ratio = measured / base if base else 1.0
    words = lambda: f"{signal} {measured:.3g} is {ratio:.2g} of the first steps' {base:.3g}"  # noqa: E731
    return ratio, {"measured": measured, "baseline": base}, words


def _share(signal: str, measured: float, base: float) -> Found:
    risen = (measured - base) / (1 - base) if base < 1 else 0.0
    name = signal.replace("_", " ")
    words = lambda: f"{name} {measured:.2f}, in the first steps {base:.2f}: {risen:.2f} of the rest"  # noqa: E731
    return risen, {"measured": measured, "baseline": base}, words


def _kl(measured: float) -> Found:
    return measured, {"measured": measured}, lambda: f"KL {measured:.3g} nats per token from the start model"


def _drop(name: str, values: Sequence[float], course: Course, rewards: Sequence[float]) -> Found:
    best, at = (course.best, course.at) if course.best and name != "certainty" else _reference(course)
    errors, sign = standard_errors(best, values), -1 if name == "certainty" else 1
    measured = {"measured": sign * fmean(values), "baseline": sign * fmean(best), "best_step": float(at)}
    shown = f"{measured['measured']:.3f}, best {measured['baseline']:.3f} about step {at}: {errors:.1f} standard errors"
    words = f"canary {_said(name)} {shown}"
    if course.reward is not None and len(rewards) > 1 and fmean(rewards) > course.reward + np.std(rewards, ddof=1):
        measured |= {"reward": fmean(rewards), "reward_at_best": course.reward}
        words += f", while the reward rose from {course.reward:.3g} to {fmean(rewards):.3g}"
    return errors, measured, lambda: words


def _judge(memory: Memory, options: config.Guard, rule: str, step: int, value: float, values: dict[str, float],
           words: Callable[[], str], looks: int = 1) -> tuple[Memory, list[Decision]]:  # fmt: skip
    """Counts a look at `value`; a decision if the rule trips by it."""
    limit, action = getattr(options, rule).limit, _action(options, rule)
    if action == "off":
        return memory, []
    before = memory.counts.get(rule, Count())
    count = _counted(before, _excess(rule, value, limit), step, looks)
    trips = not count.tripped and count.streak >= getattr(options, rule).patience
    if count != before:
        memory = replace(memory, counts=memory.counts | {rule: replace(count, tripped=count.tripped or trips)})
    if not trips:
        return memory, []
    message = f"{words()} (limit {limit:g}), since step {count.since}: {MEANING[rule]}"
    return memory, [Decision(rule, action, step, message, {"value": value, "limit": limit, **values})]


def _action(options: config.Guard, rule: str) -> str:
    """The rule's own action, or what the guard may do at most."""
    return min(options.action, getattr(options, rule).action, key=STRENGTH.index)


def _excess(rule: str, value: float, limit: float) -> float:
    """Above 1 beyond the limit."""
    if rule in BELOW:
        return limit / value if value > 0 else math.inf
    return value / limit


def _counted(count: Count, excess: float, step: int, looks: int) -> Count:
    if excess > 1:
        return replace(count, streak=count.streak + looks, since=count.since if count.streak else step)
    return Count(tripped=count.tripped and excess >= RELEASE)


def _in_trouble(memory: Memory, options: config.Guard) -> bool:
    """Whether a rule that could stop the run is beyond its limit: such a state is no candidate for the best."""
    serious = [rule for rule in memory.counts if STRENGTH.index(getattr(options, rule).action) >= 2]
    serious = [rule for rule in serious if rule != "past_peak"]  # its own best is where certainty was highest
    return any(memory.counts[rule].streak or memory.counts[rule].tripped for rule in serious)


def _mean(vectors: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(np.mean(vectors, axis=0).tolist())


def _extended(course: Course, step: int, values: Sequence[float], rewards: Sequence[float], candidate: bool) -> Course:
    """With one more evaluation."""
    if not values:
        return course
    recent, steps = (*course.recent, tuple(values))[-WINDOW:], (*course.steps, step)[-WINDOW:]
    course, mean = replace(course, start=course.start or tuple(values), recent=recent, steps=steps), _mean(recent)
    if not candidate or len(recent) < WINDOW or course.best and fmean(mean) <= fmean(course.best):
        return course
    return replace(course, best=mean, at=steps[WINDOW // 2], reward=fmean(rewards) if rewards else None)


def _said(name: str) -> str:
    return {"correct": "accuracy", "certainty": "entropy"}.get(name, name)
