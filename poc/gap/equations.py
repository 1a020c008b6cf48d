"""Solver and verifier that pull each other: the differential equations of arXiv 2507.00075 and their solution.

U = -log p(answer) in nats, summed over the answer's tokens: U_s of an answer as it is drawn, U_v of the best of N by
the model's own judgement; the gap is G = U_s - U_v. With the potential energy E = k G - b

    dU_s/dt = -alpha E,   dU_v/dt = -beta E,   alpha > beta >= 0

    lambda = k (alpha - beta),   delta = U_s(0) - U_v(0) - b/k
    G(t)   = delta e^(-lambda t) + b/k
    U_f(t) = A_f e^(-lambda t) + U_f(inf),   A_s = alpha delta / (alpha - beta),   A_v = beta delta / (alpha - beta)

Curves show lambda, the amplitudes A_s, A_v and the limits; k and the scale of alpha and beta drop out, so `Dynamics`
holds the first and sets k = 1: alpha = lambda A_s / (A_s - A_v), beta = lambda A_v / (A_s - A_v), b = G(inf).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp


@dataclass(frozen=True, slots=True)
class Dynamics:
    """The identifiable parameters: rate per round, amplitudes and limits in nats."""

    rate: float
    solver_amplitude: float
    verifier_amplitude: float
    solver_limit: float
    verifier_limit: float

    @property
    def gap_amplitude(self) -> float:
        return self.solver_amplitude - self.verifier_amplitude

    @property
    def gap_limit(self) -> float:
        """b, with k = 1."""
        return self.solver_limit - self.verifier_limit

    @property
    def alpha(self) -> float:
        """With k = 1; infinite where the gap does not close."""
        return self._share(self.solver_amplitude)

    @property
    def beta(self) -> float:
        return self._share(self.verifier_amplitude)

    def _share(self, amplitude: float) -> float:
        return self.rate * amplitude / self.gap_amplitude if self.gap_amplitude else float("inf")

    def at(self, t: ArrayLike) -> np.ndarray:
        """[3, n]: U_s, U_v and G at times [n]."""
        decay = np.exp(-self.rate * np.asarray(t, dtype=float))
        solver = self.solver_amplitude * decay + self.solver_limit
        verifier = self.verifier_amplitude * decay + self.verifier_limit
        return np.stack([solver, verifier, solver - verifier])


def solution(alpha: float, beta: float, k: float, b: float, solver: float, verifier: float) -> Dynamics:
    """The closed form from U_s(0) and U_v(0). Raises ValueError unless alpha > beta >= 0 and k > 0."""
    if not (alpha > beta >= 0 and k > 0):
        raise ValueError(f"alpha = {alpha}, beta = {beta}, k = {k}: the equations need alpha > beta >= 0 and k > 0")
    delta = solver - verifier - b / k
    amplitudes = alpha * delta / (alpha - beta), beta * delta / (alpha - beta)
    return Dynamics(k * (alpha - beta), *amplitudes, solver - amplitudes[0], verifier - amplitudes[1])


def integrated(alpha: float, beta: float, k: float, b: float, solver: float, verifier: float, t: ArrayLike):
    """U_s and U_v at increasing times [n] from 0 on, [2, n], by numerical integration: what the closed form is held to.

    Written in the differential equations' own terms; nothing of `solution` is used.
    """

    def slope(_, u):
        energy = k * (u[0] - u[1]) - b
        return [-alpha * energy, -beta * energy]

    times = np.asarray(t, dtype=float)
    found = solve_ivp(
        slope, (0.0, float(times[-1])), [solver, verifier], t_eval=times, method="DOP853", rtol=1e-12, atol=1e-12
    )
    return found.y
