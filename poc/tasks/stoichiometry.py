"""Chemistry by the gram: moles, molecules, solutions, and the masses in a balanced reaction.

Masses of atoms are periodictable's, for the natural isotopes.
"""

import re
from random import Random

from poc.tasks.formulas import GASES, constants, molar_mass, number, problem
from poc.tasks.problem import Problem

SOLIDS = (
    "NaCl", "KCl", "CaCO3", "NaOH", "KOH", "Na2CO3", "NaHCO3", "MgO", "CaO", "CuSO4", "KNO3", "NH4NO3", "C6H12O6",
    "C12H22O11", "KMnO4", "AgNO3", "Fe2O3", "Al2O3", "MgCl2", "CaCl2", "K2SO4", "NH4Cl",
)  # fmt: skip
SOLUBLE = ("NaCl", "KCl", "NaOH", "KOH", "NH4NO3", "C6H12O6", "MgCl2", "CaCl2", "NH4Cl", "HCl", "HNO3", "H2SO4")
REACTIONS = (
    "2 H2 + O2 -> 2 H2O", "N2 + 3 H2 -> 2 NH3", "CH4 + 2 O2 -> CO2 + 2 H2O", "C3H8 + 5 O2 -> 3 CO2 + 4 H2O",
    "2 C2H6 + 7 O2 -> 4 CO2 + 6 H2O", "4 Fe + 3 O2 -> 2 Fe2O3", "2 Mg + O2 -> 2 MgO", "2 Al + 3 Cl2 -> 2 AlCl3",
    "CaCO3 -> CaO + CO2", "2 KClO3 -> 2 KCl + 3 O2", "Zn + 2 HCl -> ZnCl2 + H2", "2 Na + 2 H2O -> 2 NaOH + H2",
    "AgNO3 + NaCl -> AgCl + NaNO3", "2 SO2 + O2 -> 2 SO3", "4 NH3 + 5 O2 -> 4 NO + 6 H2O", "C6H12O6 -> 2 C2H6O + 2 CO2",
    "Fe2O3 + 3 CO -> 2 Fe + 3 CO2", "2 H2O2 -> 2 H2O + O2", "2 Al + Fe2O3 -> Al2O3 + 2 Fe", "NaOH + HCl -> NaCl + H2O",
)  # fmt: skip


def reaction(rng: Random) -> Problem:
    """Level 3: grams, moles, molecules and solutions of one substance, or the masses in a reaction."""
    draw = rng.choice((_moles, _grams, _molecules, _solution, _reacts, _reacts, _reacts))
    return draw(rng, rng.choice(SOLIDS))


def terms(side: str) -> list[tuple[int, str]]:
    """[(2, "H2"), (1, "O2")] from "2 H2 + O2"."""
    return [(int(count or 1), name) for count, name in re.findall(r"(?:([0-9]+) )?([A-Z][A-Za-z0-9]*)", side)]


def _moles(rng: Random, substance: str) -> Problem:
    m, mass = number(rng, 2, 200, 1), molar_mass(substance)
    steps = [(f"M({substance})", mass, "g/mol"), ("n = m / M", float(m) / mass, "mol")]
    return problem(f"How many moles are {m} g of {substance}?", steps)


def _grams(rng: Random, substance: str) -> Problem:
    n, mass = number(rng, 1, 9, 2), molar_mass(substance)
    steps = [(f"M({substance})", mass, "g/mol"), ("m = n M", float(n) * mass, "g")]
    return problem(f"What is the mass of {n} mol of {substance}?", steps)


def _molecules(rng: Random, substance: str) -> Problem:
    m, gas = number(rng, 2, 200, 1), rng.choice(GASES)
    n = float(m) / molar_mass(gas)
    steps = [("n = m / M", n, "mol"), ("N = n NA", n * constants().N_A, "")]
    return problem(f"How many molecules are in {m} g of {gas}? Use the Avogadro constant.", steps)


def _solution(rng: Random, substance: str) -> Problem:
    volume, c = number(rng, 50, 900, 0), number(rng, 1, 5, 2)
    n, substance = float(c) * float(volume) / 1000, rng.choice(SOLUBLE)
    steps = [("n = c V", n, "mol"), ("m = n M", n * molar_mass(substance), "g")]
    return problem(f"How much {substance} is in {volume} mL of a solution of {c} mol/L?", steps)


def _reacts(rng: Random, substance: str) -> Problem:
    """What forms from, or what is needed for, a mass of the first substance."""
    equation = rng.choice(REACTIONS)
    left, right = map(terms, equation.split(" -> "))
    (a, given), (b, other) = rng.sample(left, 1)[0], rng.choice(right)
    if needed := len(left) > 1 and rng.random() < 0.4:
        (a, given), (b, other) = rng.sample(left, 2)
    m = number(rng, 2, 200, 1)
    n = float(m) / molar_mass(given)
    steps = [
        (f"n({given})", n, "mol"),
        (f"n({other})", n * b / a, "mol"),
        ("m = n M", n * b / a * molar_mass(other), "g"),
    ]
    asked = f"is needed to react with {m} g of {given}" if needed else f"forms when {m} g of {given} react completely"
    return problem(f"{equation}. What mass of {other} {asked}?", steps)
