"""Runs to arms: the seeds of one model and reward mix brought together, measured and judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from poc.config import NEED_LABELS
from poc.report import verdicts
from poc.report.read import Alarm, Completion, Evaluation, Run, Values, number
from poc.report.verdicts import Peak, Verdict
from poc.statistics import Interval, bootstrap_interval

METRICS = ("accuracy", "accuracy_greedy", "format", "accuracy_anyhow", "entropy", "length", "truncated",
           "transitional_words", "ece", "auroc")  # fmt: skip


class Best(NamedTuple):
    """The evaluated step with the highest accuracy, picked on the questions it is measured on: it flatters."""

    step: int
    accuracy: Interval
    change: Interval


@dataclass(frozen=True)
class Arm:
    """The runs of one arm, one per seed. Everything below is derived from them."""

    label: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @cached_property
    def measured(self) -> tuple[Run, ...]:
        """Runs with an evaluation before the first and one after the last step."""
        return tuple(r for r in self.runs if r.evaluations and r.evaluations[0].step == 0 < r.evaluations[-1].step)

    @cached_property
    def rewards(self) -> tuple[str, ...]:
        """The rewards with a weight at some step; of `poc improve`, which pays none, what it learns from."""
        if self.first.environment.get("kind") == "improve":
            return ("own choices",)
        reward, config = self.first.config.get("reward"), self.first.config
        if not isinstance(reward, dict):
            return ()
        return tuple(str(k) for k, weight in reward.items() if weight or _rises(_of(config, "schedule", k)))

    @cached_property
    def internal(self) -> tuple[str, ...]:
        """The rewards that need no labels."""
        return tuple(name for name in self.rewards if name not in NEED_LABELS)

    @property
    def name(self) -> str:
        """The label without the key of its model."""
        return self.label.removeprefix(f"{self.first.environment.get('role')}-")

    @property
    def labels(self) -> int | None:
        """Labelled training questions a reward may use; None where labels are not rationed (no label_fraction)."""
        rationed = number(self.first.config.get("label_fraction")) is not None
        found = self.first.environment.get("labels") if rationed else None
        return found if isinstance(found, int) and number(found) is not None and found >= 0 else None

    @cached_property
    def view_names(self) -> tuple[str, ...]:
        return tuple(sorted({name for run in self.runs for name in run.views}))

    def view(self, name: str) -> "Arm":
        """The same arm as measured elsewhere than on the hold-out; it has no verdict."""
        runs = (replace(run, evaluations=run.views.get(name, ()), views={}, kept=None) for run in self.runs)
        return Arm(self.label, tuple(runs))

    @property
    def is_control(self) -> bool:
        return self.rewards == ("random",)

    @cached_property
    def model(self) -> str:
        return str(_of(self.first.environment, "model", "source") or self.first.config.get("model") or "unknown model")

    @property
    def role(self) -> str:
        role = self.first.environment.get("role")
        return role if role in ("base", "instruct") else "other"

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Arms that start from the same weights and have the same hold-out: these are compared with each other."""
        fingerprint = _of(self.first.environment, "model", "fingerprint") or self.model
        holdout = _of(self.first.environment, "data", "holdout")
        return self.first.source, self.role, str(fingerprint), str(holdout)

    def before_and_after(self, metric: Callable[[Completion], float | bool | None]) -> tuple[list, list]:
        after = [r.final.per_prompt(metric) for r in self.measured]
        return after, [r.evaluations[0].per_prompt(metric) for r in self.measured]

    @cached_property
    def change(self) -> Interval | None:
        return verdicts.change(*self.before_and_after(correct))

    @cached_property
    def undone(self) -> tuple[int, Interval] | None:
        """The last evaluated step and the change up to there, which going back has undone; None where no run did."""
        back = [r for r in self.measured if r.kept]
        ways = [[e.per_prompt(correct) for e in (r.evaluations[-1], r.evaluations[0])] for r in back]
        change = verdicts.change(*zip(*ways, strict=True)) if back else None
        return (back[0].evaluations[-1].step, change) if change else None

    @cached_property
    def ends(self) -> tuple[Interval, Interval] | None:
        """Accuracy before the first step and under the final weights; runs may end at different steps. None if not
        measured."""
        if self.change is None:
            return None
        after, before = (verdicts.over_seeds(side) for side in self.before_and_after(correct))
        return bootstrap_interval(list(before.values())), bootstrap_interval(list(after.values()))

    @cached_property
    def anyhow(self) -> Interval | None:
        return verdicts.change(*self.before_and_after(correct_anyhow))

    @cached_property
    def per_seed(self) -> list[tuple[int, Interval]]:
        found = [(r.seed, verdicts.change(*replace(self, runs=(r,)).before_and_after(correct))) for r in self.measured]
        return [(seed, interval) for seed, interval in found if interval]

    @cached_property
    def peak(self) -> Peak | None:
        return verdicts.peak(self._by_step)

    @cached_property
    def best(self) -> Best | None:
        """None without an evaluation after the first step; of several seeds only steps that all have count."""
        step = verdicts.best_step(self._by_step) if self.change else None
        rise = verdicts.change(self._by_step[step], self._by_step[0]) if step is not None else None
        return Best(step, dict(self.curve)[step], rise) if rise else None

    @cached_property
    def curve(self) -> list[tuple[int, Interval]]:
        """Accuracy at temperature 1 by step, seeds averaged per prompt."""
        merged = ((step, verdicts.over_seeds(seeds)) for step, seeds in self._by_step.items())
        return [(step, bootstrap_interval(list(values.values()))) for step, values in merged if values]

    @cached_property
    def _by_step(self) -> dict[int, list[Values]]:
        common = self._common_steps
        return {
            s: [e.per_prompt(correct) for r in self._evaluated for e in r.evaluations if e.step == s] for s in common
        }

    @property
    def _evaluated(self) -> tuple[Run, ...]:
        return self.measured or tuple(r for r in self.runs if r.evaluations)

    @property
    def _common_steps(self) -> list[int]:
        sets = [{e.step for e in r.evaluations} for r in self._evaluated]
        return sorted(set.intersection(*sets)) if sets else []

    def metric(self, name: str, index: int) -> float | None:
        """Mean over seeds of a summary value at the first evaluation (0) or under the final weights (-1)."""
        return _mean([_value(r.final if index else r.evaluations[0], name) for r in self._evaluated])

    def metric_curve(self, name: str) -> list[tuple[int, Interval]]:
        """A summary metric by step. Ends: the interval over prompts (one seed) or the range over seeds (several)."""
        return [(step, interval) for step in self._common_steps if (interval := self._at(name, step)) is not None]

    def _at(self, name: str, step: int) -> Interval | None:
        found = [e.summary.get(name) for r in self._evaluated for e in r.evaluations if e.step == step]
        found = [i for i in found if i is not None and i.value is not None]
        if len(found) < 2:
            return found[0] if found else None
        values = [i.value for i in found]
        return Interval(sum(values) / len(values), min(values), max(values), found[0].n)

    def step_curve(self, key: str) -> list[tuple[int, float]]:
        """A value of steps.jsonl by step, averaged over the seeds that have it; 200 points at most."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            for record in run.steps:
                if (value := number(record.get(key))) is not None:
                    found.setdefault(record["step"], []).append(value)
        steps = sorted(found)
        return [(s, sum(found[s]) / len(found[s])) for s in steps[:: len(steps) // 200 + 1]]

    def seconds(self) -> float | None:
        return _sum([number(_of(r.outcome, "seconds", "total")) for r in self.runs])

    @cached_property
    def events(self) -> list[Alarm]:
        """What the guard decided, of all seeds, by step."""
        return sorted({d for run in self.runs for d in run.alarms}, key=lambda d: (d.step, d.rule, d.action))


@dataclass(frozen=True)
class Judged:
    """An arm with its verdict, its control (None without one on the same model) and its change minus the control's.

    `change`: of accuracy, at the confidence that the verdict was made with.
    """

    arm: Arm
    verdict: Verdict
    control: Arm | None
    over_control: Interval | None
    change: Interval | None


def collect(runs: Sequence[Run]) -> list[Judged]:
    """Arms in the order they came, judged; the seeds of one arm are the runs of one source with one label."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.source, run.label), []).append(run)
    labels = [label for _, label in grouped]
    arms = []
    for (source, label), members in grouped.items():
        name = f"{Path(source).name}/{label}" if labels.count(label) > 1 else label
        arms.append(Arm(name, tuple(sorted(members, key=lambda r: (r.status == "not started", r.seed)))))
    return [_judged(arm, arms) for arm in arms]


def correct(completion: Completion) -> float | None:
    return completion.correct


def correct_anyhow(completion: Completion) -> bool | None:
    return completion.correct_anyhow


def at_confidence(arm: Arm, control: Arm | None, confidence: float = 0.95) -> Judged:
    """`arm` judged with intervals of this confidence; `control`: the random-reward arm on the same model."""
    sides = arm.before_and_after(correct)
    change = verdicts.change(*sides, confidence)
    over = verdicts.difference_of_changes(sides, control.before_and_after(correct), confidence) if control else None
    verdict = verdicts.judge(
        change,
        moved=verdicts.moved(*sides),
        is_control=arm.is_control,
        anyhow=verdicts.change(*arm.before_and_after(correct_anyhow), confidence),
        control=control.change if control else None,
        over_control=over,
        peak=None if any(run.kept for run in arm.runs) else arm.peak,
    )
    return Judged(arm, verdict, control, over, change)


def _judged(arm: Arm, arms: list[Arm]) -> Judged:
    return at_confidence(arm, next((a for a in arms if a.is_control and a.group == arm.group and a is not arm), None))


def _rises(plan) -> bool:
    """Whether a schedule takes a weight of 0 to another."""
    return isinstance(plan, dict) and bool(plan.get("to")) and plan.get("shape") != "constant"


def _value(evaluation: Evaluation, name: str) -> float | None:
    interval = evaluation.summary.get(name)
    return interval.value if interval else None


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _sum(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def _of(mapping: dict, *path: str):
    for key in path:
        mapping = mapping.get(key) if isinstance(mapping, dict) else None
    return mapping
