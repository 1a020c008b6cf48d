"""Solver and verifier of a policy as it is: N candidates a question, the model's own choice among them, and the truth.

    U = -sum of log p over an answer's tokens, nats, at temperature 1
    solver     U_s: mean over questions of the mean U of the N candidates (the expectation of one drawn answer's)
    verifier   U_v: mean over questions of the chosen one's U; chosen: the least U / length among those with score >=
               the threshold; where none reaches it, among those with the highest score (`unverified` counts them)
    gap        U_s - U_v

and beside them what tells whether less uncertainty is more capability: nats a token, lengths, right answers of solver
(all candidates) and verifier (the chosen ones), of an oracle (any of the N), and how well the scores order right and
wrong ones. The questions and the random numbers are the same every time, so two measurements differ by the weights.
Labels are used for the accuracies only: nothing is chosen by them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from poc import statistics
from poc.config import Gap, RunConfig
from poc.gap import selfscore
from poc.models import Policy
from poc.parallel import the_world
from poc.records import Episode, Example, Group
from poc.rollout import graded, sample

SEED = 20_250_701  # one fixed stream, as in poc.evaluate
TEMPERATURE = 1.0
METRICS = (
    "solver", "verifier", "gap", "solver_nll", "verifier_nll", "solver_length", "verifier_length", "solver_accuracy",
    "verifier_accuracy", "oracle_accuracy", "passed", "unverified", "truncated",
)  # fmt: skip


def measure(
    policy: Policy, examples: Sequence[Example], config: RunConfig, *, step: int,
    encode: Callable[[Example], list[int]],
) -> dict:  # fmt: skip
    """The record of one measurement: {"step", "candidates", "verifier", "threshold", "summary", "questions", ...}.

    summary: METRICS and score_auroc with 95 % intervals over questions; questions: the same numbers for each.
    """
    started, options = time.perf_counter(), config.gap
    prompts = [encode(example) for example in examples]
    kind = selfscore.decide(options.verifier, policy)

    def look(part: slice) -> list[tuple[Group, list[float]]]:
        began = time.perf_counter()
        drawn = sample(
            policy, prompts, options.candidates, max_new_tokens=config.train.max_new_tokens, temperature=TEMPERATURE,
            seed=SEED, max_rows=config.train.sample_rows, part=part,
        )  # fmt: skip
        judged = graded(examples[part], drawn, budget=time.perf_counter() - began)
        some = zip(examples[part], prompts[part], judged, strict=True)
        groups = [Group(example, tuple(prompt), tuple(episodes)) for example, prompt, episodes in some]
        return list(zip(groups, selfscore.scorer(policy, kind)(groups), strict=True))

    found = the_world().spread("gap", len(examples), look)
    rows = [question(group, scores, options) for group, scores in found]
    took = time.perf_counter() - started
    return {
        "step": step, "temperature": TEMPERATURE, "samples": options.candidates, "verifier": kind,
        "threshold": options.threshold, "seconds": took, "took": took, "summary": summary(rows, found),
        "questions": rows, "prompts": [],
    }  # fmt: skip


def uncertainty(episode: Episode) -> float:
    """U in nats."""
    return -sum(episode.logp)


def choose(group: Group, scores: Sequence[float], threshold: float) -> int:
    """Which candidate the model takes for its answer; see the module docstring. Ties go to the first."""
    bar = min(threshold, max(scores))
    passing = [i for i, score in enumerate(scores) if score >= bar]
    return min(passing, key=lambda i: uncertainty(group.episodes[i]) / len(group.episodes[i]))


def chosen(groups: Sequence[Group], scores: Sequence[Sequence[float]], threshold: float) -> list[Group]:
    """Each group with its chosen candidate alone."""
    return [
        replace(group, episodes=(group.episodes[choose(group, some, threshold)],), meanings=())
        for group, some in zip(groups, scores, strict=True)
    ]


def question(group: Group, scores: Sequence[float], options: Gap) -> dict:
    """One question's numbers, by METRICS."""
    best, everyone = group.episodes[choose(group, scores, options.threshold)], group.episodes
    right = [float(e.verdict.correct) for e in everyone] if group.example.answer is not None else None
    solver, verifier = fmean(map(uncertainty, everyone)), uncertainty(best)
    return {
        "id": group.example.id, "solver": solver, "verifier": verifier, "gap": solver - verifier,
        "solver_nll": fmean(uncertainty(e) / len(e) for e in everyone), "verifier_nll": verifier / len(best),
        "solver_length": fmean(map(len, everyone)), "verifier_length": float(len(best)),
        "solver_accuracy": right and fmean(right), "verifier_accuracy": right and float(best.verdict.correct),
        "oracle_accuracy": right and max(right), "passed": fmean(s >= options.threshold for s in scores),
        "unverified": float(max(scores) < options.threshold), "truncated": fmean(not e.finished for e in everyone),
    }  # fmt: skip


def summary(rows: Sequence[dict], found: Sequence[tuple[Group, Sequence[float]]]) -> dict[str, dict]:
    """Means over questions with 95 % intervals; what needs labels covers the labelled ones, or is not there."""
    known = {name: [row[name] for row in rows if row[name] is not None] for name in METRICS}
    summed = {name: _entry(statistics.bootstrap_interval(values)) for name, values in known.items() if values}
    pairs = [
        [(score, e.verdict.correct) for score, e in zip(scores, group.episodes, strict=True)]
        for group, scores in found
        if group.example.answer is not None
    ]
    if pairs:
        summed["score_auroc"] = _entry(statistics.bootstrap_statistic(statistics.auroc, pairs, resamples=300))
    return summed


def _entry(interval: statistics.Interval) -> dict:
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}
