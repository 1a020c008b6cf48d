"""Estimates against hand-worked values, exhaustive counts and simulated coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc.statistics import (
    auroc,
    bootstrap_interval,
    bootstrap_statistic,
    expected_calibration_error,
    paired_difference,
    pass_at_k,
)

shares = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=60)


@pytest.mark.parametrize(("mean", "n"), [(0.3, 32), (0.05, 64), (0.9, 128)])
def test_coverage_of_the_nominal_95_percent(mean, n):
    random = np.random.default_rng(5)
    hits = 0
    for trial in range(300):
        values = random.binomial(4, random.beta(2 * mean, 2 * (1 - mean), n)) / 4
        interval = bootstrap_interval(values, resamples=400, seed=trial)
        hits += interval.low <= mean <= interval.high
    assert 0.90 <= hits / 300 <= 0.99  # standard error 0.013


def test_coverage_follows_the_confidence_asked_for():
    random = np.random.default_rng(6)
    draws = [random.binomial(4, 0.5, 40) / 4 for _ in range(300)]
    found = [bootstrap_interval(x, confidence=0.5, resamples=400) for x in draws]
    assert 0.42 <= np.mean([i.low <= 0.5 <= i.high for i in found]) <= 0.60


def test_interval_is_close_to_the_t_interval_for_a_large_symmetric_sample():
    x = np.random.default_rng(0).normal(3, 2, 2000)
    interval = bootstrap_interval(x, resamples=4000)
    half = 1.961 * x.std(ddof=1) / math.sqrt(2000)
    assert interval.value == pytest.approx(x.mean()) and interval.n == 2000
    assert interval.low == pytest.approx(x.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(x.mean() + half, abs=0.01)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([0.0] * 10, 0.0, 0.30850), ([1.0] * 10, 0.69150, 1.0), ([0.5] * 10, 0.34575, 0.65425)],
)
def test_all_equal_is_not_certain(values, low, high):
    """1 - 0.025^(1/10) = 0.30850, the Clopper-Pearson end for 0 of 10."""
    interval = bootstrap_interval(values)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))


def test_all_equal_without_bounds_has_no_ends():
    assert bootstrap_interval([7.0, 7.0])[1:3] == (None, None)
    assert paired_difference([7.0, 8.0], [5.0, 6.0])[:3] == (2.0, None, None)


def test_no_prompt_changed_leaves_room_on_both_sides():
    interval = paired_difference([0.5] * 20, [0.5] * 20)
    assert interval.value == 0 and interval.low == pytest.approx(-0.16843, abs=1e-5) == -interval.high


def test_pairing_removes_the_difficulty_of_the_question():
    random = np.random.default_rng(1)
    before = random.uniform(0, 0.8, 100)
    after = before + 0.1 + random.normal(0, 0.02, 100)
    paired = paired_difference(after, before)
    assert paired.value == pytest.approx(0.1, abs=0.01) and paired.high - paired.low < 0.02


@given(shares, st.integers(0, 3))
def test_interval_holds_the_estimate_and_the_range(values, seed):
    interval = bootstrap_interval(values, resamples=100, seed=seed)
    assert min(values) - 1 <= interval.low <= interval.high <= max(values) + 1
    assert interval == bootstrap_interval(values, resamples=100, seed=seed)
    if np.ptp(values) == 0:
        assert interval.low < interval.high and interval.low <= interval.value <= interval.high


@given(shares)
def test_swapping_before_and_after_changes_the_sign(values):
    other = values[::-1]
    a, b = paired_difference(values, other, resamples=100), paired_difference(other, values, resamples=100)
    assert a.value == pytest.approx(-b.value)


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_against_every_subset(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_stays_finite_for_many_samples():
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)
    assert pass_at_k(4, 0, 4) == 0.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 5, 1), (4, -1, 1), (4, 1, 0)])
def test_pass_at_k_refuses(n, c, k):
    with pytest.raises(ValueError, match="between"):
        pass_at_k(n, c, k)


def test_ece_by_hand():
    """Bins (0.8, 0.9]: confidence 0.85, accuracy 1/2; (0.1, 0.2]: 0.2 against 0. (2 * 0.35 + 1 * 0.2) / 3."""
    assert expected_calibration_error([0.8001, 0.9, 0.2], [1, 0, 0]) == pytest.approx((0.70010 + 0.2) / 3, abs=1e-9)
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert expected_calibration_error([0.4, 0.6], [1, 0], bins=1) == pytest.approx(0.0)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=1, max_size=30))
def test_auroc_against_all_pairs(rows):
    p, y = [r[0] for r in rows], [r[1] for r in rows]
    right, wrong = [a for a, b in rows if b], [a for a, b in rows if not b]
    pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    assert auroc(p, y) == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_auroc_by_hand():
    assert auroc([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0]) == 0.75
    assert auroc([0.5, 0.5], [1, 0]) == 0.5


def test_statistic_resamples_prompts_not_completions():
    """Four identical completions per prompt carry the information of one: the interval must not shrink."""
    x = np.random.default_rng(3).random(60)
    once = bootstrap_statistic(lambda c: float(c.mean()), [np.array([[v]]) for v in x], resamples=500)
    four = bootstrap_statistic(lambda c: float(c.mean()), [np.full((4, 1), v) for v in x], resamples=500)
    assert four[:3] == pytest.approx(once[:3])
    assert once.high - once.low == pytest.approx(2 * 2.0 * x.std(ddof=1) / math.sqrt(60), rel=0.15)


def test_statistic_on_unequal_groups_and_one_class():
    random = np.random.default_rng(4)
    rows = [np.column_stack([random.random(k), random.integers(0, 2, k)]) for k in random.integers(1, 5, 40)]
    interval = bootstrap_statistic(auroc, rows, resamples=200)
    assert interval.low < interval.value < interval.high and interval.n == 40
    assert bootstrap_statistic(auroc, [np.array([[0.3, 1.0]])] * 5)[:3] == (None, None, None)


@pytest.mark.parametrize("function", [bootstrap_interval, lambda x: paired_difference(x, [0, 0, 0])])
def test_nan_is_counted(function):
    with pytest.raises(ValueError, match="2 of 3"):
        function([math.nan, 0.5, math.inf])


def test_bad_samples_are_refused():
    with pytest.raises(ValueError, match="2 prompts, before has 3"):
        paired_difference([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="non-empty"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="0 or 1, got 2"):
        auroc([0.1, 0.2], [1, 2])
    with pytest.raises(ValueError, match="confidence must lie in"):
        expected_calibration_error([1.2], [1])
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        bootstrap_interval([0, 1], confidence=95)


@settings(max_examples=20)
@given(st.integers(1, 50), st.integers(0, 50))
def test_pass_at_1_is_the_share(n, c):
    c = min(c, n)
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)
