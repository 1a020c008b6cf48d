"""Estimates with their uncertainty: pure functions of numbers, no model, file or clock.

The unit is the prompt: completions of one prompt are alike, so every interval resamples whole prompts, never single
completions. Intervals say how far the figure may lie from the one over all prompts of this kind; they hold nothing of
the variation between training runs. The method is the BCa bootstrap (Efron 1987) at levels widened for small n as the t
interval is (Hesterberg 2015, "expanded percentile"):

    z' = sqrt(n/(n-1)) t_{n-1, a},   level(z') = Phi(z0 + (z0 + z') / (1 - acc (z0 + z')))

z0 from the share of resamples below the estimate, acc from the third moment of the influence. Measured coverage of
nominal 95 %, means of four Bernoulli draws: 0.93 to 0.97 for n = 16 to 256 at means 0.3 to 0.9 and for paired
differences; at means 0.01 and 0.05 down to 0.89 (plain percentile: 0.83). Where all values are equal a bootstrap is
silent: see bootstrap_interval.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

MAX_DRAWS = 2_000_000  # indices held at once


class Interval(NamedTuple):
    """An estimate over n prompts and its confidence interval; None where the data do not determine it."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def bootstrap_interval(
    values: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Mean of `values` [n], one per prompt, with its BCa bootstrap interval.

    `bounds`: the range a value can have; (0, 1) is assumed when all values lie in it. If all n values equal c, the
    share of prompts that would differ is at most p = 1 - (alpha/2)^(1/n) (Clopper and Pearson 1934; about 3.7/n at
    95 %), so the interval is [c - p (c - lowest), c + p (highest - c)]; without bounds the ends are None.
    Raises ValueError for an empty sample or one that is not finite.
    """
    x = _sample(values, "values")
    alpha = _alpha(confidence)
    if np.ptp(x) == 0:
        return _constant(float(x[0]), len(x), alpha, bounds or _unit_bounds(x))
    mean = float(x.mean())
    low, high = _bca(mean, _resampled_means(x, resamples, seed), x - mean, alpha)
    return Interval(mean, low, high, len(x))


def paired_difference(
    after: Sequence[float],
    before: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of after - before over the same n prompts, with a bootstrap over prompts of the per-prompt difference.

    Raises ValueError when the lengths differ.
    """
    a, b = _sample(after, "after"), _sample(before, "before")
    if len(a) != len(b):
        raise ValueError(f"after has {len(a)} prompts, before has {len(b)}: a paired difference needs the same prompts")
    bounds = (-1.0, 1.0) if _unit_bounds(a) and _unit_bounds(b) else None
    if bounds is None and np.ptp(a - b) == 0:
        return Interval(float((a - b)[0]), None, None, len(a))
    return bootstrap_interval(a - b, confidence, resamples, seed, bounds)


def bootstrap_statistic(
    function: Callable[..., float | None],
    per_prompt: Sequence[np.ndarray],
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """A ratio over completions (ece, auroc) with a bootstrap over prompts.

    `per_prompt`: n arrays [completions of the prompt, columns]; `function` gets the pooled columns, one array each, and
    returns a float or None (undefined). Ends are None if more than 1 in 10 resamples are undefined or n < 2.
    Raises ValueError for an empty or non-finite sample.
    """
    rows = [np.atleast_2d(np.asarray(r, dtype=np.float64)) for r in per_prompt]
    pooled = np.concatenate(rows) if rows else np.empty((0, 1))
    _sample(pooled.ravel(), "per_prompt")
    alpha, n, value = _alpha(confidence), len(rows), function(*pooled.T)
    if value is None or n < 2:
        return Interval(value, None, None, n)
    draws = np.random.default_rng(seed).integers(0, n, (resamples, n))
    resampled = _defined(function(*np.concatenate([rows[i] for i in draw]).T) for draw in draws)
    left_out = _defined(function(*np.concatenate(rows[:i] + rows[i + 1 :]).T) for i in range(n))
    if len(resampled) < 0.9 * resamples or np.ptp(resampled) == 0:
        return Interval(value, None, None, n)
    low, high = _bca(value, resampled, left_out.mean() - left_out, alpha)
    return Interval(value, low, high, n)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k completions is right, unbiased, from n drawn of which c are right.

    1 - C(n-c, k) / C(n, k) as a product, which cannot overflow (Chen et al. 2021, eq. 1). Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n:
        raise ValueError(f"c must be between 0 and n = {n}, got {c}")
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and n = {n} (the number of samples), got {k}")
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def expected_calibration_error(confidence: Sequence[float], correct: Sequence[float], bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over equal bins ((m-1)/M, m/M], by count (Guo et al. 2017, eq. 3).

    `confidence` [n] in [0, 1], `correct` [n] of 0 or 1. Raises ValueError outside these ranges. Biased upwards when few
    completions share a bin: at a true 0.06 its 95 % bootstrap interval held the truth in 24 % of samples of 32 prompts
    and 73 % of 128; at a true 0.19 in 94 % and 85 %.
    """
    p, y = _labelled(confidence, correct)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"confidence must lie in [0, 1], got {p.min()} to {p.max()}")
    index = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=p - y, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def auroc(confidence: Sequence[float], correct: Sequence[float]) -> float | None:
    """Chance that a right completion has more confidence than a wrong one, ties count half (Mann-Whitney U / n1 n0).

    `confidence` [n], `correct` [n] of 0 or 1. None if only one class is there.
    """
    score, y = _labelled(confidence, correct)
    right, wrong = int(y.sum()), int(len(y) - y.sum())
    if not right or not wrong:
        return None
    ranks = stats.rankdata(score)
    return float((ranks[y == 1].sum() - right * (right + 1) / 2) / (right * wrong))


def _sample(values, name: str) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise ValueError(f"{name} must be a non-empty list of numbers, got shape {x.shape}")
    bad = int(np.count_nonzero(~np.isfinite(x)))
    if bad:
        raise ValueError(f"{bad} of {len(x)} {name} are NaN or infinite: leave them out or find out why")
    return x


def _labelled(confidence, correct) -> tuple[np.ndarray, np.ndarray]:
    p, y = _sample(confidence, "confidence"), _sample(correct, "correct")
    if len(p) != len(y):
        raise ValueError(f"confidence has {len(p)} values, correct has {len(y)}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"correct must be 0 or 1, got {y[~np.isin(y, (0, 1))][0]}")
    return p, y


def _alpha(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return 1 - confidence


def _unit_bounds(x: np.ndarray) -> tuple[float, float] | None:
    return (0.0, 1.0) if x.min() >= 0 and x.max() <= 1 else None


def _constant(c: float, n: int, alpha: float, bounds: tuple[float, float] | None) -> Interval:
    if bounds is None:
        return Interval(c, None, None, n)
    others = 1 - (alpha / 2) ** (1 / n)
    return Interval(c, c - others * (c - bounds[0]), c + others * (bounds[1] - c), n)


def _resampled_means(x: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    random, n = np.random.default_rng(seed), len(x)
    rows = max(1, MAX_DRAWS // n)
    parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([x[random.integers(0, n, (part, n))].mean(axis=1) for part in parts])


def _bca(value: float, resampled: np.ndarray, influence: np.ndarray, alpha: float) -> tuple[float, float]:
    n = len(influence)
    below = ((resampled < value).mean() + (resampled <= value).mean()) / 2  # ties count half
    z0 = special.ndtri(np.clip(below, 1 / len(resampled), 1 - 1 / len(resampled)))
    spread = np.sum(influence**2) ** 1.5
    acceleration = np.sum(influence**3) / (6 * spread) if spread else 0.0
    z = np.sqrt(n / (n - 1)) * stats.t.ppf([alpha / 2, 1 - alpha / 2], n - 1) + z0
    levels = special.ndtr(z0 + z / np.maximum(1 - acceleration * z, 1e-3))
    low, high = np.quantile(resampled, levels)
    return float(low), float(high)


def _defined(results) -> np.ndarray:
    return np.array([r for r in results if r is not None], dtype=np.float64)
