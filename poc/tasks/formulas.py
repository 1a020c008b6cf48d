"""Physics questions from formulas: one with a constant of nature, or two in a row.

Constants are scipy.constants' (CODATA), masses of atoms periodictable's. A formula's steps are computed in SI units;
the last one is the gold, to six digits. What this does not do: judge an answer (poc.tasks.science).
"""

import json
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from math import pi, sqrt
from random import Random
from types import SimpleNamespace
from typing import NamedTuple

from poc.tasks.problem import Problem

TOLERANCE = 0.01
ROUND = "3 significant digits"
WITH_UNIT = f"Give {ROUND} and the unit."
WITHOUT_UNIT = f"Give {ROUND}; it has no unit."

Step = tuple[str, float, str]  # "E = h f", its value, its unit


class Formula(NamedTuple):
    """`given`: name -> (low, high, decimals) of the number drawn; `steps`: the constants and those numbers -> steps."""

    text: str
    given: dict[str, tuple[int, int, int]]
    steps: Callable[..., list[Step]]


SINGLE = (
    Formula(
        "A photon has a frequency of {f} THz. What is its energy? Use the Planck constant.",
        {"f": (100, 900, 1)},
        lambda k, f: [("E = h f", k.h * f * 1e12, "J")],
    ),
    Formula(
        "Light has a wavelength of {w} nm. What is the energy of one photon in eV? Use the Planck constant and the "
        "speed of light.",
        {"w": (200, 900, 1)},
        lambda k, w: [("E = h c / w", k.h * k.c / (w * 1e-9) / k.e, "eV")],
    ),
    Formula(
        "A photon has an energy of {e} eV. What is its wavelength? Use the Planck constant and the speed of light.",
        {"e": (1, 90, 2)},
        lambda k, e: [("w = h c / E", k.h * k.c / (e * k.e), "m")],
    ),
    Formula(
        "{n} mol of an ideal gas fill {v} L at {t} K. What is the pressure? Use the molar gas constant.",
        {"n": (1, 9, 2), "v": (10, 90, 0), "t": (250, 400, 0)},
        lambda k, n, v, t: [("p = n R T / V", n * k.R * t / (v * 1e-3), "Pa")],
    ),
    Formula(
        "What volume do {n} mol of an ideal gas take at {p} kPa and {t} degC? Use the molar gas constant.",
        {"n": (1, 9, 2), "p": (90, 300, 0), "t": (5, 95, 0)},
        lambda k, n, p, t: [("V = n R T / p", n * k.R * (t + 273.15) / (p * 1e3), "m^3")],
    ),
    Formula(
        "Two charges of {a} µC and {b} µC are {r} cm apart in vacuum. What is the force between them? Use the vacuum "
        "permittivity.",
        {"a": (1, 20, 1), "b": (1, 20, 1), "r": (5, 90, 0)},
        lambda k, a, b, r: [
            ("F = Q1 Q2 / (4 pi epsilon0 r^2)", a * b * 1e-12 / (4 * pi * k.epsilon_0 * (r / 100) ** 2), "N")
        ],
    ),
    Formula(
        "Two masses of {a} kg and {b} kg are {r} m apart. With what force do they attract each other? Use the "
        "gravitational constant.",
        {"a": (10, 900, 0), "b": (10, 900, 0), "r": (1, 20, 1)},
        lambda k, a, b, r: [("F = G m1 m2 / r^2", k.G * a * b / r**2, "N")],
    ),
    Formula(
        "A mass of {m} kg is lifted by {h} m. How much potential energy does it gain? Use standard gravity.",
        {"m": (2, 90, 1), "h": (2, 90, 1)},
        lambda k, m, h: [("E = m g h", m * k.g * h, "J")],
    ),
    Formula(
        "What is the mean kinetic energy of a particle of an ideal gas at {t} K? Use the Boltzmann constant.",
        {"t": (100, 900, 1)},
        lambda k, t: [("E = 3/2 k T", 1.5 * k.k * t, "J")],
    ),
    Formula(
        "A black body of {a} m^2 has a temperature of {t} K. What power does it radiate? Use the Stefan-Boltzmann "
        "constant.",
        {"a": (1, 20, 1), "t": (250, 900, 0)},
        lambda k, a, t: [("P = sigma A T^4", k.sigma * a * t**4, "W")],
    ),
    Formula(
        "A body carries a charge of {q} nC. How many elementary charges is that? Use the elementary charge.",
        {"q": (1, 90, 2)},
        lambda k, q: [("N = Q / e", q * 1e-9 / k.e, "")],
    ),
    Formula(
        "What energy is equivalent to a mass of {m} mg? Use the speed of light.",
        {"m": (1, 90, 2)},
        lambda k, m: [("E = m c^2", m * 1e-6 * k.c**2, "J")],
    ),
    Formula(
        "How long does light take for {s} million km? Use the speed of light.",
        {"s": (10, 900, 1)},
        lambda k, s: [("t = s / c", s * 1e9 / k.c, "s")],
    ),
    Formula(
        "An electron moves at {v} km/s. What is its de Broglie wavelength? Use the Planck constant and the electron "
        "mass.",
        {"v": (100, 900, 1)},
        lambda k, v: [("w = h / (m v)", k.h / (k.m_e * v * 1e3), "m")],
    ),
    Formula(
        "What charge do {n} mol of electrons carry? Use the Avogadro constant and the elementary charge.",
        {"n": (1, 90, 2)},
        lambda k, n: [("Q = n NA e", n * k.N_A * k.e, "C")],
    ),
)

CHAIN = (
    Formula(
        "Light of {w} nm falls on a metal with a work function of {a} eV. What is the highest kinetic energy of an "
        "electron that it sets free? Use the Planck constant and the speed of light.",
        {"w": (150, 400, 1), "a": (1, 2, 2)},
        lambda k, w, a: [
            ("E = h c / w", k.h * k.c / (w * 1e-9) / k.e, "eV"),
            ("Ekin = E - W", k.h * k.c / (w * 1e-9) / k.e - a, "eV"),
        ],
    ),
    Formula(
        "An electron is accelerated from rest by {u} V. What is then its de Broglie wavelength? Do not correct for "
        "relativity. Use the elementary charge, the electron mass and the Planck constant.",
        {"u": (50, 900, 1)},
        lambda k, u: [
            ("v = sqrt(2 e U / m)", sqrt(2 * k.e * u / k.m_e), "m/s"),
            ("w = h / (m v)", k.h / sqrt(2 * k.e * u * k.m_e), "m"),
        ],
    ),
    Formula(
        "A heater of {p} W runs for {t} min and all its heat goes into {m} kg of water (4186 J/(kg*K)). By how many "
        "kelvin does the water warm up?",
        {"p": (200, 900, 0), "t": (2, 12, 1), "m": (2, 9, 1)},
        lambda k, p, t, m: [("Q = P t", p * t * 60, "J"), ("dT = Q / (c m)", p * t * 60 / (4186 * m), "K")],
    ),
    Formula(
        "A mass of {m} kg falls freely for {s} s from rest. What is then its kinetic energy? Use standard gravity.",
        {"m": (2, 90, 1), "s": (1, 6, 1)},
        lambda k, m, s: [("v = g t", k.g * s, "m/s"), ("E = m v^2 / 2", m * (k.g * s) ** 2 / 2, "J")],
    ),
    Formula(
        "A wire of copper (1.68e-8 ohm*m) is {l} m long and has a cross-section of {a} mm^2. What current flows at "
        "{u} V?",
        {"l": (10, 90, 0), "a": (1, 6, 1), "u": (1, 12, 1)},
        lambda k, l, a, u: [  # noqa: E741
            ("R = rho l / A", 1.68e-8 * l / (a * 1e-6), "ohm"),
            ("I = U / R", u * a * 1e-6 / (1.68e-8 * l), "A"),
        ],
    ),
    Formula(
        "Two electrons are {r} nm apart in vacuum. What is the acceleration of one of them by the electric force? Use "
        "the elementary charge, the vacuum permittivity and the electron mass.",
        {"r": (1, 90, 2)},
        lambda k, r: [
            ("F = e^2 / (4 pi epsilon0 r^2)", k.e**2 / (4 * pi * k.epsilon_0 * (r * 1e-9) ** 2), "N"),
            ("a = F / m", k.e**2 / (4 * pi * k.epsilon_0 * (r * 1e-9) ** 2) / k.m_e, "m/s^2"),
        ],
    ),
    Formula(
        "What volume do {m} g of {gas} take as an ideal gas at {t} K and {p} kPa? Use the molar gas constant.",
        {"m": (5, 90, 1), "t": (250, 400, 0), "p": (90, 300, 0)},
        lambda k, gas, m, t, p: [
            (f"n = m / M({gas})", m / molar_mass(gas), "mol"),
            ("V = n R T / p", m / molar_mass(gas) * k.R * t / (p * 1e3), "m^3"),
        ],
    ),
    Formula(
        "A lamp of {p} W sends out light of {w} nm only. How many photons does it send out in {t} s? Use the Planck "
        "constant and the speed of light.",
        {"p": (1, 90, 1), "w": (400, 700, 0), "t": (1, 60, 0)},
        lambda k, p, w, t: [
            ("E = h c / w", k.h * k.c / (w * 1e-9), "J"),
            ("N = P t / E", p * t / (k.h * k.c / (w * 1e-9)), ""),
        ],
    ),
    Formula(
        "A satellite circles a planet of {m}e24 kg at a distance of {r} km from its centre. How long does one orbit "
        "take? Use the gravitational constant.",
        {"m": (1, 9, 2), "r": (7000, 60000, 0)},
        lambda k, m, r: [
            ("v = sqrt(G M / r)", sqrt(k.G * m * 1e24 / (r * 1e3)), "m/s"),
            ("T = 2 pi r / v", 2 * pi * sqrt((r * 1e3) ** 3 / (k.G * m * 1e24)), "s"),
        ],
    ),
    Formula(
        "A capacitor of {c} µF is charged to {u} V and then discharged evenly in {t} ms. What is the mean power?",
        {"c": (10, 900, 0), "u": (5, 60, 1), "t": (2, 90, 0)},
        lambda k, c, u, t: [
            ("E = C U^2 / 2", c * 1e-6 * u**2 / 2, "J"),
            ("P = E / t", c * 1e-6 * u**2 / 2 / (t * 1e-3), "W"),
        ],
    ),
)
GASES = ("CO2", "N2", "O2", "CH4", "C3H8", "SO2", "NH3", "H2S")


@lru_cache
def constants() -> SimpleNamespace:
    """scipy's constants of nature, by their usual letters, in SI units."""
    from scipy import constants as c

    names = ("h", "c", "e", "k", "R", "N_A", "G", "g", "epsilon_0", "m_e", "sigma")
    return SimpleNamespace(**{name: getattr(c, name) for name in names})


@lru_cache
def molar_mass(formula: str) -> float:
    """g/mol, natural isotopes."""
    import periodictable

    return float(periodictable.formula(formula).mass)


def single(rng: Random) -> Problem:
    """Level 2: one formula."""
    return _solve(rng, rng.choice(SINGLE))


def chain(rng: Random) -> Problem:
    """Level 4: two formulas, the second takes what the first gives."""
    return _solve(rng, rng.choice(CHAIN))


def _solve(rng: Random, formula: Formula) -> Problem:
    drawn = {name: number(rng, *limits) for name, limits in formula.given.items()}
    words = {"gas": rng.choice(GASES)} if "{gas}" in formula.text else {}
    text = formula.text.format(**words, **drawn)
    steps = formula.steps(constants(), **words, **{x: float(v) for x, v in drawn.items()})
    return problem(text, steps, " ".join([formula.text, *words.values(), *sorted(drawn.values())]))


def number(rng: Random, low: int, high: int, decimals: int) -> str:
    """A number between `low` and `high` with that many decimals."""
    number = Decimal(rng.randint(low * 10**decimals, high * 10**decimals)).scaleb(-decimals)
    return format(number, "f")


def problem(text: str, steps: list[Step], key: str = "") -> Problem:
    """`key`: the text without the order of its numbers, where two of them may change places."""
    unit = steps[-1][2]
    answer = f"{steps[-1][1]:.6g} {unit}".strip()
    worked = "; ".join(f"{rule} = {value:.6g} {unit}".strip() for rule, value, unit in steps)
    question = f"{text} {WITH_UNIT if unit else WITHOUT_UNIT}"
    return Problem(question, answer, f"{worked} #{answer}", key or question, json.dumps({"tolerance": TOLERANCE}))
