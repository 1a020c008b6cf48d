"""Measure a policy on held-out questions: greedy and at temperature 1, the same questions and draws for every arm.

The completions are kept (they are what the report shows and what paired intervals are made of); the summary is a pure
function of them. Intervals are 95 % bootstrap over prompts. Confidence is exp(mean logp of the completion's tokens).
Not here: verdict on an arm (the report compares evaluations), rewards (no reward sees the hold-out).
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import torch

from poc import statistics
from poc.config import RunConfig
from poc.models import Policy
from poc.packing import batches
from poc.parallel import the_world
from poc.records import CanaryRecord, Episode, Example, Group
from poc.rewards.meanings import Clustering, with_meanings
from poc.rewards.semantic import agreement
from poc.rollout import graded, sample
from poc.update import token_logp

SEED = 20_250_617  # one fixed stream: what differs between two evaluations is the weights
TEMPERATURE = 1.0


@dataclass(frozen=True, slots=True)
class View:
    """Questions to measure on and how they are asked; the hold-out itself has no name.

    `cluster`: of the canary; it says which answers mean the same, so that agreement can be measured.
    """

    name: str
    examples: Sequence[Example]
    encode: Callable[[Example], list[int]]
    cluster: Clustering | None = None


def evaluate(
    policy: Policy, examples: Sequence[Example], config: RunConfig, *, step: int,
    encode: Callable[[Example], list[int]], cluster: Clustering | None = None,
) -> dict:  # fmt: skip
    """The evaluation record of `examples`: summary metrics with intervals and every completion behind them.

    With `cluster` also what the guard needs (`canary_record`): each question's agreement, the distance to the start.
    Every process of a run does its part of the questions (poc.parallel).
    """
    started = time.perf_counter()
    prompts = [encode(example) for example in examples]
    answer = lambda part: [_answered(policy, examples, prompts, part, config, cluster)]  # noqa: E731
    found = the_world().spread("evaluation", len(examples), answer)
    rows = [row for some in found for row in some.rows]
    extra = {}
    if cluster:
        extra["agreement"] = [value for some in found for value in some.agreement]
        extra["kl"] = sum(some.distance for some in found) / sum(some.tokens for some in found)
    summary = summarise(rows, config.evaluate.transitional_words)
    timing = {name: max(some.timing[name] for some in found) for name in found[0].timing}
    seconds = time.perf_counter() - started
    return extra | {
        "step": step,
        "temperature": TEMPERATURE,
        "samples": config.evaluate.samples,
        "seconds": seconds,
        "timing": timing | {"rest": seconds - sum(timing.values())},
        "summary": summary,
        "prompts": rows,
    }


class _Answered(NamedTuple):
    """What one process found of its part of the questions, and the seconds; the last three of the canary only."""

    rows: list[dict]
    timing: dict[str, float]
    agreement: Sequence[float] = ()
    distance: float = 0.0
    tokens: int = 0


def _answered(
    policy: Policy, examples: Sequence[Example], prompts: list[list[int]], part: slice, config: RunConfig,
    cluster: Clustering | None,
) -> _Answered:  # fmt: skip
    """The questions of `part`, as they are drawn among all of them."""
    started = time.perf_counter()
    limits = dict(max_new_tokens=config.train.max_new_tokens, max_rows=config.train.sample_rows, seed=SEED, part=part)
    greedy = sample(policy, prompts, 1, temperature=0.0, **limits)
    sampled = sample(policy, prompts, config.evaluate.samples, temperature=TEMPERATURE, **limits)
    drawn = [[*one, *many] for one, many in zip(greedy, sampled, strict=True)]
    sampling = time.perf_counter() - started
    judged = graded(examples[part], drawn, budget=sampling)
    timing = {"sampling": sampling, "scoring": time.perf_counter() - started - sampling}
    rows = [
        {
            "id": example.id,
            "question": example.text,
            "gold": example.answer,
            "greedy": completion(one),
            "sampled": [completion(episode) for episode in many],
        }
        for example, (one, *many) in zip(examples[part], judged, strict=True)
    ]
    if not cluster:
        return _Answered(rows, timing)
    groups = [
        Group(example, tuple(prompt), tuple(many))
        for example, prompt, (_, *many) in zip(examples[part], prompts[part], judged, strict=True)
    ]
    agreed = [agreement(with_meanings(group, cluster)) for group in groups]
    return _Answered(rows, timing, agreed, *distance(policy, groups, config))


@torch.no_grad()
def distance(policy: Policy, groups: Sequence[Group], config: RunConfig) -> tuple[float, int]:
    """KL(policy || start model) in nats (k3 estimate, poc.objective), summed over the groups' tokens; their number."""
    weights = torch.ones(len(groups), len(groups[0].episodes))
    total, tokens = 0.0, 0
    with policy.adapter_off():
        for batch in batches(groups, weights, config.train.micro_batch, policy, all_rows=True):
            difference = token_logp(policy, batch, TEMPERATURE).double() - batch.old_logp.double()
            total, tokens = total + (difference.exp() - difference - 1).sum().item(), tokens + len(difference)
    return total, tokens


def canary_record(evaluation: dict) -> CanaryRecord:
    """What the guard sees of the canary's evaluation."""
    rows, mean = evaluation["prompts"], lambda key: evaluation["summary"][key]["value"]
    labelled = [row for row in rows if row["gold"] is not None]
    return CanaryRecord(
        step=evaluation["step"],
        correct=tuple(fmean(c["status"] == "correct" for c in row["sampled"]) for row in labelled),
        agreement=tuple(evaluation["agreement"]),
        entropy=mean("entropy"), length=mean("length"), truncated=mean("truncated"), kl=evaluation["kl"],
        entropies=tuple(fmean(c["mean_entropy"] for c in row["sampled"]) for row in rows),
    )  # fmt: skip


def completion(episode: Episode) -> dict:
    """What is kept of one completion. `status`, `formatted`, `correct_anyhow` are None without a gold answer."""
    verdict = episode.verdict
    return {
        "text": episode.text,
        "status": verdict and verdict.status,
        "formatted": verdict and verdict.formatted,
        "correct_anyhow": verdict and verdict.correct_anyhow,
        "finished": episode.finished,
        "length": len(episode),
        "mean_logp": fmean(episode.logp),
        "mean_entropy": fmean(episode.entropy),
    }


def transitional_share(text: str, phrases: Sequence[str]) -> float:
    """Words of `text` that belong to one of `phrases`, as a share of all its words (RLIF's "transitional words")."""
    words = len(re.findall(r"[\w'-]+", text))
    longest_first = sorted((phrase.lower() for phrase in phrases), key=len, reverse=True)
    pattern = "|".join(r"\b" + r"\s+".join(map(re.escape, phrase.split())) + r"\b" for phrase in longest_first)
    found = re.findall(pattern, text.lower()) if pattern else []
    return sum(len(re.findall(r"[\w'-]+", phrase)) for phrase in found) / words if words else 0.0


def summarise(rows: Sequence[dict], transitional_words: Sequence[str]) -> dict[str, dict]:
    """Metrics with 95 % intervals over prompts; those that need labels cover the labelled prompts only."""
    labelled = [row for row in rows if row["gold"] is not None]
    summary = _label_free(rows, transitional_words)
    return (_labelled(labelled) if labelled else {}) | summary


def _mean_over(rows, value: Callable[[dict], float]) -> dict:
    return _entry(statistics.bootstrap_interval([fmean(map(value, row["sampled"])) for row in rows]))


def _entry(interval: statistics.Interval) -> dict:
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}


def _label_free(rows, transitional_words) -> dict[str, dict]:
    return {
        "length": _mean_over(rows, lambda c: c["length"]),
        "truncated": _mean_over(rows, lambda c: not c["finished"]),
        "entropy": _mean_over(rows, lambda c: c["mean_entropy"]),
        "transitional_words": _mean_over(rows, lambda c: transitional_share(c["text"], transitional_words)),
    }


def _labelled(rows) -> dict[str, dict]:
    samples = len(rows[0]["sampled"])
    right = [sum(c["status"] == "correct" for c in row["sampled"]) for row in rows]
    greedy = [float(row["greedy"]["status"] == "correct") for row in rows]
    sizes = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= samples]
    passed = {
        f"pass@{k}": _entry(statistics.bootstrap_interval([statistics.pass_at_k(samples, c, k) for c in right]))
        for k in sizes
    }
    return {
        "accuracy": _mean_over(rows, lambda c: c["status"] == "correct"),
        "accuracy_greedy": _entry(statistics.bootstrap_interval(greedy)),
        **passed,
        "format": _mean_over(rows, lambda c: c["formatted"]),
        "accuracy_anyhow": _mean_over(rows, lambda c: c["correct_anyhow"]),
        **_calibration(rows),
    }


def _calibration(rows) -> dict[str, dict]:
    pairs = [[(math.exp(c["mean_logp"]), c["status"] == "correct") for c in row["sampled"]] for row in rows]
    metrics = {"ece": statistics.expected_calibration_error, "auroc": statistics.auroc}
    return {name: _entry(statistics.bootstrap_statistic(f, pairs, resamples=300)) for name, f in metrics.items()}
