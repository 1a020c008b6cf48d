"""The figures that the guard promises, on seeds that its limits were not chosen on, with all default rules together."""

from functools import cache

import pytest

from poc import guard
from poc.config import Guard
from tests.poc import traces

SEED, FAILING, HEALTHY = 50_000, 100, 200
SUDDEN = [failure for failure in traces.FAILURES if failure not in traces.SLOW]


@cache
def replayed(failure):
    """Trace, memory and decisions of every seed; of the healthy ones for None."""
    seeds = range(SEED, SEED + (FAILING if failure else HEALTHY))
    runs = [traces.failing(failure, seed) if failure else traces.healthy(seed) for seed in seeds]
    if failure in SUDDEN:  # what comes later is not asked for
        runs = [run._replace(steps=run.steps[: run.onset + traces.WITHIN]) for run in runs]
    return [(trace, *traces.replay(trace, Guard())) for trace in runs]


@pytest.mark.parametrize("failure", SUDDEN)
def test_at_least_95_of_100_failures_are_caught_within_10_steps(failure):
    assert sum(traces.caught(trace, decisions, failure) for trace, _, decisions in replayed(failure)) >= 95


def test_at_most_2_percent_of_healthy_runs_are_stopped():
    assert sum(traces.stopped(decisions) for _, _, decisions in replayed(None)) <= 0.02 * HEALTHY


def test_without_labels_no_run_that_gains_is_stopped():
    """One that stands still may be: it goes back to a checkpoint that is as good."""
    options, gaining = Guard(canary_drop={"action": "off"}), [trace for trace, *_ in replayed(None)][2::3]
    stopped = [traces.stopped(traces.replay(trace, options)[1]) for trace in gaining]
    assert sum(stopped) <= 0.02 * len(stopped) and len(stopped) > 60


def test_at_most_2_percent_of_healthy_runs_are_warned_of():
    """By past_peak more often: a run that stands still is not told from one past its peak, so with labels it warns."""
    warned = [any(d.action == "warn" and d.rule != "past_peak" for d in run) for _, _, run in replayed(None)]
    assert sum(warned) <= 0.02 * HEALTHY


@pytest.mark.parametrize("failure", traces.SLOW)
def test_a_slow_fall_is_seen_without_labels_before_it_ends(failure):
    """It takes 20 to 40 steps; three evaluations are 15 more."""
    assert sum(traces.caught(trace, d, failure, within=45) for trace, _, d in replayed(failure)) >= 95


@pytest.mark.parametrize("failure, labels", [("agreement_drop", True), ("past_peak", True), ("past_peak", False)])
def test_what_is_gone_back_to_is_about_as_good_as_the_best(failure, labels):
    """Mean over runs past their peak of the kept checkpoint's expected accuracy over the best one's."""
    kept = []
    for trace, memory, _ in replayed(failure):
        accuracy = dict(zip((look.step for look in trace.canaries), trace.accuracy, strict=True))
        kept.append(accuracy[guard.best_step(memory, Guard(), labels)] / max(trace.accuracy))
    assert sum(kept) / len(kept) >= 0.96


def test_traces_are_those_of_their_seed():
    assert traces.failing("kl", 7) == traces.failing("kl", 7) != traces.failing("kl", 8)
    assert traces.healthy(7) == traces.healthy(7)
