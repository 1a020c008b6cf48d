"""External answers in a self-improving model (arXiv 2507.00075, section 5): what they are worth, and when.

The paper lets an external answer act through the verifier alone: of a limited set, a share eta_t in round t,

    U_v^c(t) = U_v(t - 1) / (1 + gamma eta_t),   sum of eta_t = 1

and claims that what matters is the total, not the timing. To first order in gamma the factors multiply to 1 / (1 +
gamma) however the set is spent; beyond it they do not: all at once 1 / (1 + gamma), evenly over R rounds (1 + gamma /
R)^-R, which tends to e^-gamma: at gamma = 0.5 that is 0.667 against 0.616 for R = 8. So even by the paper's own model
the claim holds for small gamma only (`spread`). And a round in which nothing external comes also moves U_v, so gamma is
estimated against what the equations, fitted to a twin without external answers, say of the next round (`gamma_of`).
Pure functions.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from poc.gap.equations import solution
from poc.gap.fit import joint
from poc.gap.forecast import Bounds

When = Literal["early", "uniform", "late"]
LATE = 0.8  # of the rounds: the paper's late is round 8 of 10


def shares(when: When, rounds: int) -> list[float]:
    """eta_1 ... eta_R. Raises ValueError for less than one round."""
    if rounds < 1:
        raise ValueError(f"{rounds} rounds: external answers are spent in one round at least")
    if when == "uniform":
        return [1 / rounds] * rounds
    spent = 0 if when == "early" else math.ceil(round(LATE * rounds, 9)) - 1
    return [float(i == spent) for i in range(rounds)]


def portions(count: int, when: When, rounds: int) -> list[slice]:
    """Which of `count` answers each round gets; together all of them once."""
    ends = np.rint(count * np.cumsum([0.0, *shares(when, rounds)])).astype(int)
    return [slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def factor(gamma: float, eta: Sequence[float]) -> float:
    """What the external answers leave of U_v by the paper's model: the product of 1 / (1 + gamma eta_t)."""
    return float(np.prod([1 / (1 + gamma * share) for share in eta]))


def spread(gamma: float, rounds: int) -> float:
    """Largest over smallest factor of the three timings, minus 1: how far the claim fails by the paper's own model."""
    found = [factor(gamma, shares(when, rounds)) for when in ("early", "uniform", "late")]
    return max(found) / min(found) - 1


def simulated(
    alpha: float, beta: float, b: float, solver: float, verifier: float, gamma: float, eta: Sequence[float]
) -> np.ndarray:
    """U_s and U_v [2, R + 1] of the equations (k = 1), round by round, with external answers at each round's end."""
    found = [(solver, verifier)]
    for share in eta:
        after = solution(alpha, beta, 1.0, b, *found[-1]).at([1.0])
        found.append((float(after[0, 0]), float(after[1, 0]) / (1 + gamma * share)))
    return np.array(found).T


def gamma_of(with_external: np.ndarray, by_itself: np.ndarray, eta: Sequence[float]) -> float | None:
    """gamma by least squares from U_s and U_v [2, R + 1] of a run with external answers and of its twin without.

    With u_t what the model would come to in round t by itself: U_v(t) (1 + gamma eta_t) = u_t. None where nothing was
    spent. Raises ValueError for other lengths.
    """
    given, alone, eta = (np.asarray(x, float) for x in (with_external, by_itself, eta))
    if not given.shape == alone.shape == (2, len(eta) + 1):
        raise ValueError(f"{given.shape} and {alone.shape} for {len(eta)} rounds: R + 1 of U_s and of U_v are needed")
    x = eta * given[1, 1:]
    y = _by_itself(given, alone) - given[1, 1:]
    return float(x @ y / (x @ x)) if (x @ x) > 0 else None


def _by_itself(given: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """U_v of the next round [R] from where a run stands: by the equations as its twin obeys them.

    U_v(t) - U_v(t + 1) = A_v / (A_s - A_v) (G(t) - b) (1 - e^-lambda); where the twin's gap does not close, U_v changes
    by the twin's own factor.
    """
    twin = joint(np.arange(alone.shape[1]), *alone).dynamics
    if twin.gap_amplitude <= 0:
        return given[1, :-1] * alone[1, 1:] / alone[1, :-1]
    pull = twin.verifier_amplitude / twin.gap_amplitude * (1 - np.exp(-twin.rate))
    return given[1, :-1] - pull * (given[0, :-1] - given[1, :-1] - twin.gap_limit)


def mean_over_seeds(values: Sequence[float]) -> Bounds:
    """Mean and 95 % t interval over seeds; infinite for one seed."""
    x = np.asarray(values, float)
    if len(x) < 2:
        return Bounds(float(x.mean()), -np.inf, np.inf)
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Bounds(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def same(one: Sequence[float], other: Sequence[float]) -> tuple[Bounds, float]:
    """Paired difference over seeds with its interval, and the p value of its t test (1 for one seed)."""
    difference = np.asarray(one, float) - np.asarray(other, float)
    p = 1.0
    if len(difference) > 1:
        p = float(stats.ttest_1samp(difference, 0).pvalue) if difference.std() > 0 else float(difference[0] == 0)
    return mean_over_seeds(difference), p
