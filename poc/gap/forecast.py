"""What comes next, by six models; which of them has been right so far; and when nothing should be said.

Each model is asked again and again what it would have said earlier (rolling origin): fitted to the first m
measurements, m = LEAST ... n - 1, its error is

    e = mean over m of mean over the later times of (|U_s - U_s^| + |U_v - U_v^| + |G - G^|) / 3      in nats

The model with the least error wins. Nothing is forecast (Forecast.abstained says why) where the input does not allow
it, where no model beats persistence ("it stays as it is") by MARGIN, where the winner has no limit, or where the
interval of the limit is as wide as all that has been seen. Intervals are 95 % by a parametric bootstrap: curves drawn
anew around the fit with the residuals' covariance, fitted again; percentiles, widened by t / z for the few points
(2 n - 5 degrees of freedom). They are of the curve, given that the model is right; a measurement scatters around it.

Sums of log-probabilities fall when answers get shorter: poc.gap.honesty looks at that. Not here: what a round costs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from poc.gap import fit as fits

LEAST = 4  # measurements that a model is fitted to
FEWEST = 6  # that a forecast takes: two origins
MARGIN = 0.9  # of persistence's error: a model has to be that much better
RESAMPLES, CONFIDENCE = 400, 0.95
NAMES = ("solver", "verifier", "gap")
JOINT, FREE = "joint", "free"


class Line(NamedTuple):
    """A fitted model: what it says of U_s, U_v, G at times [k] -> [3, k], and in the end [3] (NaN: without end)."""

    at: Callable[[np.ndarray], np.ndarray]
    limit: np.ndarray
    edge: bool = False  # how fast it goes cannot be told from what it was fitted to


class Reason(NamedTuple):
    """Why nothing is forecast; poc.gap.words has the sentences."""

    code: str
    values: tuple[float, ...] = ()


class Bounds(NamedTuple):
    """A value and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """`model` won; `errors`: nats of each model by rolling origin; `abstained`: why nothing is forecast, or None.

    Of a forecast: `limits` by NAMES, `curve` [3, 3, k] (value, low, high of NAMES) at `times` [k], and `rounds`: after
    the last time, until U_s is within `tolerance` of its limit. `fit`: the equations', where they could be fitted.
    """

    model: str | None
    errors: dict[str, float]
    abstained: Reason | None
    fit: fits.Fit | None = None
    free: tuple[float, float, float] | None = None  # R^2 of the free-rate variant
    limits: dict[str, Bounds] = field(default_factory=dict)
    times: np.ndarray | None = None
    curve: np.ndarray | None = None
    rounds: Bounds | None = None
    tolerance: float = 0.05


def persistence(t, curves) -> Line:
    last = _with_gap(curves[:, -1])
    return Line(lambda at: np.repeat(last[:, None], len(at), 1), last)


def linear(t, curves) -> Line:
    slopes = np.polynomial.polynomial.polyfit(t, _with_gap(curves).T, 1)  # [2, 3]
    return Line(lambda at: slopes[0][:, None] + slopes[1][:, None] * at, np.full(3, np.nan))


def exponential(t, curves) -> Line:
    """Each of the three curves by itself."""
    return _alone("exponential", t, curves)


def power(t, curves) -> Line:
    return _alone("power", t, curves)


def free(t, curves) -> Line:
    """The equations with a rate of its own for solver and verifier; G is their difference."""
    found = fits.alone("exponential", t, curves, falling=True)
    return Line(lambda at: _with_gap(found.at(at)), _with_gap(found.c), bool(found.at_edge[:2].any()))


def joint(t, curves) -> Line:
    found = fits.joint(t, *curves)
    d = found.dynamics
    return Line(d.at, np.array([d.solver_limit, d.verifier_limit, d.gap_limit]), found.at_edge)


def _alone(shape: fits.Shape, t, curves) -> Line:
    found = fits.alone(shape, t, _with_gap(curves))
    return Line(found.at, found.c, bool(found.at_edge[:2].any()))


MODELS: dict[str, Callable[[np.ndarray, np.ndarray], Line]] = {
    "persistence": persistence, "linear": linear, "exponential": exponential, "power": power, FREE: free, JOINT: joint,
}  # fmt: skip


def forecast(t, solver, verifier, horizon: float | None = None, tolerance: float = 0.05) -> Forecast:
    """The forecast from U_s and U_v [n] at times [n]; `horizon`: beyond the last time, as long again by default.

    `tolerance`: share of the way from the first value to the limit. What cannot be forecast is said in `abstained`;
    nothing is raised for bad measurements. Raises ValueError for lengths that do not match.
    """
    if not len(t) == len(solver) == len(verifier):
        raise ValueError(f"{len(t)} times, {len(solver)} and {len(verifier)} values: one of each per time is needed")
    t, curves = np.asarray(t, float), np.asarray([solver, verifier], float)
    if reason := _unusable(t, curves) or _unfit(curves):
        return Forecast(None, {}, reason)
    errors = rolling_origin(t, curves)
    model = min(errors, key=errors.get)
    found = Forecast(model, errors, None, fits.joint(t, *curves), _r2_of(FREE, t, curves), tolerance=tolerance)
    reason = _not_better(model, errors) or _no_end(MODELS[model](t, curves), curves)
    if reason:
        return replace(found, abstained=reason)
    return _with_intervals(found, t, curves, t[-1] - t[0] if horizon is None else horizon)


def rolling_origin(t: np.ndarray, curves: np.ndarray) -> dict[str, float]:
    """The error of each model; `curves` [2, n], n > LEAST."""
    shown = _with_gap(curves)
    return {
        name: float(np.mean([
            np.abs(model(t[:m], curves[:, :m]).at(t[m:]) - shown[:, m:]).mean() for m in range(LEAST, len(t))
        ])) for name, model in MODELS.items()
    }  # fmt: skip


def _unusable(t: np.ndarray, curves: np.ndarray) -> Reason | None:
    if not (np.isfinite(t).all() and np.isfinite(curves).all()):
        return Reason("not finite")
    if len(t) < FEWEST:
        return Reason("few", (len(t), FEWEST))
    return None if (np.diff(t) > 0).all() else Reason("order")


def _unfit(curves: np.ndarray) -> Reason | None:
    """Why curves like these are not what the equations are about."""
    solver = curves[0]
    if np.ptp(curves, axis=1).max() <= 1e-6 * max(1.0, np.abs(curves).max()):
        return Reason("constant")
    third = max(1, len(solver) // 3)
    return Reason("rising") if solver[-third:].mean() >= solver[:third].mean() else None


def _not_better(model: str, errors: dict[str, float]) -> Reason | None:
    still = errors["persistence"]
    best = min(error for name, error in errors.items() if name != "persistence")
    return None if errors[model] <= MARGIN * still else Reason("persistence", (still, best))


def _no_end(line: Line, curves: np.ndarray) -> Reason | None:
    if np.isnan(line.limit[0]):
        return Reason("straight")
    if line.edge:
        return Reason("edge")
    return Reason("turning") if line.limit[0] > curves[0, 0] else None


def _with_intervals(bare: Forecast, t: np.ndarray, curves: np.ndarray, horizon: float) -> Forecast:
    line, times = MODELS[bare.model](t, curves), np.linspace(t[0], t[-1] + horizon, 200)
    drawn = drawn_anew(bare.model, line, t, curves)
    limits = np.stack([one.limit for one in drawn])  # [B, 3]
    wide = widening(len(t))
    bounds = [Bounds(*interval(line.limit[i], limits[:, i], wide)) for i in range(3)]
    if not bounds[0].high - bounds[0].low < np.ptp(curves[0]):
        return replace(bare, abstained=Reason("wide", (bounds[0].low, bounds[0].high, float(np.ptp(curves[0])))))
    value, samples = line.at(times), np.stack([one.at(times) for one in drawn])
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    curve = np.stack([value, value + wide * (low - value), value + wide * (high - value)], axis=1)
    rounds = [_rounds(one, t, bare.tolerance) for one in (line, *drawn)]
    return replace(
        bare, limits=dict(zip(NAMES, bounds, strict=True)), times=times, curve=curve,
        rounds=Bounds(rounds[0], *_ends(rounds[1:])),
    )  # fmt: skip


def drawn_anew(model: str, line: Line, t: np.ndarray, curves: np.ndarray, seed: int = 0) -> list[Line]:
    """The model fitted to curves drawn anew around it."""
    fitted = line.at(t)[:2]
    residuals = curves - fitted
    noise = residuals @ residuals.T / max(1.0, len(t) - fits.PARAMETERS / 2)
    random = np.random.default_rng(seed)
    samples = fitted + random.multivariate_normal(np.zeros(2), noise, (RESAMPLES, len(t)), method="eigh").swapaxes(1, 2)
    if model == JOINT:
        found = fits.joint_many(t, samples)
        return [Line(d.at, np.array([d.solver_limit, d.verifier_limit, d.gap_limit])) for d in found]
    return [MODELS[model](t, sample) for sample in samples]


def widening(n: int) -> float:
    """From the normal distribution's interval to that of 2 n - 5 degrees of freedom."""
    level = (1 + CONFIDENCE) / 2
    return float(stats.t.ppf(level, 2 * n - fits.PARAMETERS) / stats.norm.ppf(level))


def interval(value: float, samples: np.ndarray, wide: float) -> tuple[float, float, float]:
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(value), float(value + wide * (low - value)), float(value + wide * (high - value))


def _rounds(line: Line, t: np.ndarray, tolerance: float) -> float:
    """After t[-1], until U_s is within `tolerance` of the way from its start to its limit; 0 where it is already."""
    limit, start = line.limit[0], line.at(t[:1])[0, 0]
    far = abs(line.at(t[-1:])[0, 0] - limit)
    goal = tolerance * abs(start - limit)
    if far <= goal:
        return 0.0
    ahead = np.geomspace(1e-3, 1e4, 4000) * (t[-1] - t[0])
    inside = np.abs(line.at(t[-1] + ahead)[0] - limit) <= goal
    return float(ahead[inside.argmax()]) if inside.any() else math.inf


def _ends(rounds: list[float]) -> tuple[float, float]:
    """Of the middle 95 %; some may be infinite."""
    low, high = np.quantile(rounds, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")
    return float(low), float(high)


def _r2_of(model: str, t: np.ndarray, curves: np.ndarray) -> tuple[float, float, float]:
    shown = _with_gap(curves)
    return tuple(map(fits.r2, shown, shown - MODELS[model](t, curves).at(t)))


def _with_gap(curves: np.ndarray) -> np.ndarray:
    return np.stack([curves[0], curves[1], curves[0] - curves[1]])
