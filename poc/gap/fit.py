"""Fits of measured curves: the equations' (shared rate, G = U_s - U_v), and each curve by itself.

Given its rate, every model here is linear, so the rate alone is searched (variable projection, Golub and Pereyra 1973)
on a grid of RATES, which finds the best one wherever it lies, and the rest follows by least squares; many curves at
once, which makes bootstraps cheap.

    joint        min over (lambda, A_v >= 0, A_s - A_v >= 0, limits) of |r_s|^2 + |r_v|^2 + |r_s - r_v|^2
    one curve    min over (p, a, c) of |y - a f_p(t) - c|^2,   f = e^(-p t) or (1 + t)^(-p)

The third term of the joint sum is the residual of G, which is no parameter of its own. A_s >= A_v >= 0 is what alpha >
beta >= 0 and a gap that closes imply; where the data say otherwise the fit lies on that border and `bound` says so.
Not here: which model to believe (poc.gap.forecast).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from poc.gap.equations import Dynamics

RATES = 240  # of the grid, evenly in the logarithm
SLOW, FAST = 0.05, 5.0  # slowest: over the whole span the exponent moves by this; fastest: from one time to the next
POWERS = np.geomspace(0.05, 6.0, RATES)
PARAMETERS = 5
# Which of (A_v, A_s - A_v, U_v(inf), U_s(inf)) are free: all, then the borders.
FREE = ((0, 1, 2, 3), (1, 2, 3), (0, 2, 3), (2, 3))
BORDERS = (None, "verifier stands still", "gap stands still", "nothing moves")

Shape = Literal["exponential", "power"]


class Alone(NamedTuple):
    """One curve a f_p(t) + c. Arrays [B] where B curves were fitted."""

    shape: Shape
    p: np.ndarray
    a: np.ndarray
    c: np.ndarray
    at_edge: np.ndarray  # the best p is the slowest or fastest that was tried: the curve does not tell it

    def at(self, t) -> np.ndarray:
        """[B, n]"""
        return self.a[:, None] * _basis(self.shape, np.asarray(t, float), self.p) + self.c[:, None]


@dataclass(frozen=True, slots=True)
class Fit:
    """The equations' fit to n times. `residuals` [3, n] of U_s, U_v, G; `bound`: the border it lies on."""

    dynamics: Dynamics
    residuals: np.ndarray
    r2: tuple[float, float, float]  # of U_s, U_v, G; NaN for a curve that is constant
    bound: str | None
    at_edge: bool  # the rate is the slowest or fastest that was tried


def joint(t, solver, verifier) -> Fit:
    """The least-squares fit of the equations to U_s and U_v [n] at times t [n], n >= 4.

    Raises ValueError for fewer or other lengths, times that do not increase, or numbers that are not finite.
    """
    t, curves = checked(t, solver, verifier, least=4)
    rate, parameters, case, edge = _joint(t, curves[None])
    found = _refined(t, curves, float(rate[0]), bool(edge[0])) or (rate[0], parameters[0], case[0])
    dynamics, case = _dynamics(*found[:2]), int(found[2])
    shown = np.stack([*curves, curves[0] - curves[1]])
    residuals = shown - dynamics.at(t)
    return Fit(dynamics, residuals, tuple(map(r2, shown, residuals)), BORDERS[case], bool(edge[0]))


def joint_many(t, curves: np.ndarray) -> list[Dynamics]:
    """The same for B pairs of curves [B, 2, n], on the grid only."""
    rate, parameters, _, _ = _joint(np.asarray(t, float), curves)
    return [_dynamics(*pair) for pair in zip(rate, parameters, strict=True)]


def alone(shape: Shape, t, curves, falling: bool = False) -> Alone:
    """Each of B curves [B, n] by itself. `falling`: a >= 0."""
    t, y = np.asarray(t, float), np.atleast_2d(np.asarray(curves, float))
    grid = rates(t) if shape == "exponential" else POWERS
    basis = _basis(shape, t, grid)  # [K, n]
    f, centred = basis - basis.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    slope = centred @ f.T / (f**2).sum(1)  # [B, K]
    slope = np.maximum(slope, 0.0) if falling else slope
    gain = 2 * slope * (centred @ f.T) - slope**2 * (f**2).sum(1)  # what is taken off the sum of squares
    best, rows = gain.argmax(1), np.arange(len(y))
    a = slope[rows, best]
    edge = (best == 0) | (best == len(grid) - 1)
    return Alone(shape, grid[best], a, y.mean(1) - a * basis.mean(1)[best], edge)


def rates(t: np.ndarray) -> np.ndarray:
    """The rates that are tried."""
    return np.geomspace(SLOW / (t[-1] - t[0]), FAST / np.diff(t).min(), RATES)


def checked(t, solver, verifier, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Times [n] and curves [2, n]. Raises ValueError, saying what is wrong."""
    if not len(t) == len(solver) == len(verifier):
        raise ValueError(f"{len(t)} times, {len(solver)} and {len(verifier)} values: one of each per time is needed")
    t, curves = np.asarray(t, float), np.asarray([solver, verifier], float)
    if not (np.isfinite(t).all() and np.isfinite(curves).all()):
        raise ValueError("a measurement is NaN or infinite: nothing can be fitted to it")
    if len(t) < least:
        raise ValueError(f"{len(t)} measurements: a curve of this kind takes at least {least}")
    if not (np.diff(t) > 0).all():
        raise ValueError("the times do not increase")
    return t, curves


def covariance(fit: Fit) -> np.ndarray:
    """[2, 2] of the noise of U_s and U_v, for the parameters that were fitted."""
    r, n = fit.residuals[:2], fit.residuals.shape[1]
    return r @ r.T / max(1.0, n - PARAMETERS / 2)


def _basis(shape: Shape, t: np.ndarray, p: np.ndarray) -> np.ndarray:
    """f_p(t) [K, n]"""
    p = np.asarray(p, float)[:, None]
    return np.exp(-p * t) if shape == "exponential" else (1 + t) ** -p


def _joint(t: np.ndarray, curves: np.ndarray, grid: np.ndarray | None = None):
    """The best rate [B], its parameters [B, 4], which of FREE [B], and whether it lies on the grid's edge [B]."""
    grid = rates(t) if grid is None else grid
    y = np.concatenate([curves[:, 0], curves[:, 1], curves[:, 0] - curves[:, 1]], axis=1)  # [B, 3n]
    design, inverses = _plan(tuple(t), tuple(grid))
    right = np.einsum("krp,br->bkp", design, y, optimize=True)
    best = np.full((4, len(y), len(grid)), -np.inf)  # what each case takes off the sum of squares
    found = np.zeros((4, len(y), len(grid), 4))
    for case, (free, inverse) in enumerate(zip(FREE, inverses, strict=True)):
        found[case][:, :, free] = (inverse @ right[:, :, free, None])[..., 0]
        gain = (found[case] * right).sum(-1)
        best[case] = np.where((found[case][:, :, :2] >= 0).all(-1), gain, -np.inf)
    case_of = best.argmax(0)  # [B, K]; ties go to the free one
    rows, rate_of = np.arange(len(y)), best.max(0).argmax(1)
    case = case_of[rows, rate_of]
    edge = (rate_of == 0) | (rate_of == len(grid) - 1)
    return grid[rate_of], found[case, rows, rate_of], case, edge


@lru_cache(maxsize=256)
def _plan(t: tuple[float, ...], grid: tuple[float, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """What depends on times and rates alone: the rows [K, 3n, 4], and for each of FREE the inverse [K, f, f]."""
    design = _design(np.exp(-np.asarray(grid)[:, None] * np.asarray(t)))
    parts = [design[:, :, free] for free in FREE]
    return design, [np.linalg.pinv(part.transpose(0, 2, 1) @ part) for part in parts]


def _design(decay: np.ndarray) -> np.ndarray:
    """Rows U_s, U_v, G at each time [K, 3n, 4], columns A_v, A_s - A_v, U_v(inf), U_s(inf)."""
    zero, one = np.zeros_like(decay), np.ones_like(decay)
    solver, verifier, gap = (decay, decay, zero, one), (decay, zero, one, zero), (zero, decay, -one, one)
    return np.concatenate([np.stack(rows, -1) for rows in (solver, verifier, gap)], axis=1)


def _refined(t: np.ndarray, curves: np.ndarray, rate: float, edge: bool):
    """Between the grid's neighbours, until the rate is known to six digits; None where it lies on the edge."""
    if edge:
        return None
    step = np.log(rates(t)[1] / rates(t)[0])
    for _ in range(4):
        near = rate * np.exp(np.linspace(-step, step, 21))
        found, parameters, case, _ = _joint(t, curves[None], near)
        rate, step = float(found[0]), step / 8
    return rate, parameters[0], case[0]


def _dynamics(rate: float, parameters: np.ndarray) -> Dynamics:
    verifier, more, verifier_limit, solver_limit = map(float, parameters)
    return Dynamics(float(rate), verifier + more, verifier, solver_limit, verifier_limit)


def r2(shown: np.ndarray, residuals: np.ndarray) -> float:
    """Share of a curve's variance that is explained; NaN for a constant one."""
    whole = ((shown - shown.mean()) ** 2).sum()
    return float(1 - (residuals**2).sum() / whole) if whole > 0 else float("nan")
