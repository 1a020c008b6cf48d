"""Physical and chemical quantities with units.

Level 0: one product of two given quantities ("m=7 kg, a=24 m/s^2, F=?"), worked column by column: "4*7=28 2*7+2=16
#168 N"; 1: a conversion; 2: a formula with a constant of nature; 3: grams, moles and reactions; 4: two formulas, one
after the other. Levels 2 and 4 are poc.tasks.formulas, 3 is poc.tasks.stoichiometry; multiple-choice rows
(poc.tasks.multiple_choice) are scored here as well.

An answer may stand in any unit of the gold's dimension and must lie within `check`'s relative tolerance of it: 1e-6
where the result is a short decimal (levels 0 and 1), 1 % where it is not: three significant digits are off by up to
0.5 %, the constants that people remember (c = 3e8 m/s, h = 6.63e-34 J s, g = 9.8 m/s^2) by 0.1 %. A conversion must
be in the unit it asks for, or repeating the question would do.
"""

import json
import re
from decimal import Decimal
from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks import formulas, multiple_choice, quantity, stoichiometry
from poc.tasks.answers import Reading, marked_answer, spell
from poc.tasks.problem import Problem
from poc.tasks.quantity import Quantity

NAME = "science"
LEVELS = range(DOMAIN_LEVELS[NAME])
DESCRIPTIONS = (
    "the product of two quantities, whole numbers",
    "a conversion between units",
    "a formula with a constant of nature",
    "grams, moles, molecules and the masses in a reaction",
    "two formulas, one after the other",
)
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Work it out, then end with #, the number and its unit, like this: #12 m/s"
MAX_NEW_TOKENS = (40, 96, 256, 256, 384)
EXACT = 1e-6
PRODUCTS = (  # first quantity and unit, second, result
    (("m", "kg"), ("a", "m/s^2"), ("F", "N")),
    (("t", "s"), ("v", "m/s"), ("s", "m")),
    (("I", "A"), ("R", "ohm"), ("U", "V")),
    (("t", "s"), ("I", "A"), ("Q", "C")),
    (("t", "s"), ("P", "W"), ("E", "J")),
    (("U", "V"), ("I", "A"), ("P", "W")),
    (("s", "m"), ("F", "N"), ("W", "J")),
)
CONVERSIONS = (  # from, to, and the step in which the given number is drawn: the result is a short decimal
    ("km/h", "m/s", "0.9"), ("m/s", "km/h", "0.1"), ("m/s", "km/min", "0.5"), ("min", "s", "0.1"),
    ("s", "min", "0.3"), ("h", "min", "0.05"), ("min", "h", "0.3"), ("h", "s", "0.01"), ("d", "h", "0.1"),
    ("kWh", "MJ", "0.1"), ("MJ", "kWh", "0.9"), ("kJ", "Wh", "0.9"), ("Ah", "C", "0.01"), ("L", "m^3", "0.5"),
    ("m^3", "L", "0.001"), ("cm^3", "L", "1"), ("mL", "m^3", "10"), ("degC", "K", "0.1"), ("K", "degC", "0.1"),
    ("g/cm^3", "kg/m^3", "0.01"), ("mm^2", "cm^2", "1"), ("cm^2", "m^2", "10"),
    ("bar", "kPa", "0.01"), ("hPa", "bar", "0.5"), ("mg", "g", "1"), ("nm", "µm", "1"), ("L/min", "m^3/h", "0.5"),
    ("N/cm^2", "kPa", "0.1"), ("kg*m/s^2", "kN", "1"), ("mol/L", "mol/m^3", "0.001"), ("mA", "A", "1"),
)  # fmt: skip
_CONVERSION = re.compile(r"Convert [0-9.]{1,20} \S{1,20} to (\S{1,20})\.")
_STATED = re.compile(r"[0-9][0-9.e+-]*(?: [^\s,;?]+)?")


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level` (0-4); above level 0 none that repeating one of its numbers would answer."""
    draw = (_product, _conversion, formulas.single, stoichiometry.reaction, formulas.chain)[level]
    while True:
        problem = draw(rng)
        if level == 0 or not _repeats(problem):
            return problem


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return MAX_NEW_TOKENS[level]


def score(example: Example, text: str) -> Verdict:
    """Compare the marked quantity with the gold one, or the marked letter with the gold letter.

    A number without the unit that the gold has is unparsable, another dimension is wrong. Raises ValueError for a gold
    that is neither.
    """
    quantity.symbols()  # a locked worker, warmed up with a question of either kind, can load nothing later
    if multiple_choice.asked(example.text) or "choices" in _check(example):
        return multiple_choice.score(example, text)
    gold = quantity.parse(example.answer)
    if gold is None:
        raise ValueError(f"the gold answer {example.answer!r} of {example.id} is no quantity")
    said, marked, last = _said(example.text, text)
    if said is not None and gold.written and not said.written:
        said = None
    tolerance, asked = _check(example).get("tolerance", EXACT), _unit_asked(example.text)
    right = said is not None and _right(said, gold, tolerance, asked)
    status = "unparsable" if said is None else "correct" if right else "wrong"
    anyhow = right or ((end := quantity.parse_end(text)) is not None and _right(end, gold, tolerance, asked))
    return Verdict(status, said is not None and last, anyhow, marked)


def read(question: str, text: str) -> Reading:
    """The marked quantity in base units and as many digits as the question asks for, or the marked letter."""
    quantity.symbols()
    if multiple_choice.asked(question):
        return multiple_choice.read(question, text)
    said, marked, last = _said(question, text)
    if said is None:
        return Reading(None, False)
    asked = _unit_asked(question)
    if asked and not quantity.same_scale(said.unit, asked):  # the question repeated is another answer than its result
        return Reading(" ".join(marked.split()), last)
    return Reading(quantity.spell(said, 3 if formulas.ROUND in question else quantity.DIGITS), last)


def _check(example: Example) -> dict:
    return json.loads(example.check) if example.check else {}


def _said(question: str, text: str) -> tuple[Quantity | None, str | None, bool]:
    """(the marked quantity, the marked text, whether it ends the text); a unit that is asked for must be there."""
    marked, last = marked_answer(text)
    said = None if marked is None else quantity.parse(marked)
    wanted = question.endswith(("=?", formulas.WITH_UNIT)) or _unit_asked(question)
    return (None if said is not None and wanted and not said.written else said), marked, last


def _unit_asked(question: str) -> quantity.Unit | None:
    """The unit that a conversion must be given in, None elsewhere."""
    found = _CONVERSION.fullmatch(question)
    return quantity.read_unit(found[1]) if found else None


def _right(said: Quantity, gold: Quantity, tolerance: float, asked: quantity.Unit | None) -> bool:
    return quantity.same(said, gold, tolerance) and (asked is None or quantity.same_scale(said.unit, asked))


def _repeats(problem: Problem) -> bool:
    """Whether a quantity that the question or the instruction states is scored as its answer."""
    example = Example("", problem.question, problem.answer, NAME, check=problem.check)
    stated = (found.rstrip(".") for found in _STATED.findall(f"{problem.question} {INSTRUCTION}"))
    return any(score(example, f"#{part}").correct for part in stated)


def _product(rng: Random) -> Problem:
    (x, x_unit), (y, y_unit), (z, z_unit) = rng.choice(PRODUCTS)
    a, b = rng.randint(2, 9), rng.randint(11, 99)
    tens, ones = divmod(b, 10)
    carry = ones * a // 10
    high = tens * a + carry
    worked = f"{ones}*{a}={ones * a} {tens}*{a}{f'+{carry}' if carry else ''}={high}"
    question = f"{x}={a} {x_unit}, {y}={b} {y_unit}, {z}=?"
    answer = f"{a * b} {z_unit}"
    return Problem(question, answer, f"{worked} #{answer}", f"{a}*{b}", json.dumps({"tolerance": EXACT}))


def _conversion(rng: Random) -> Problem:
    """ "Convert 37.8 km/h to m/s.": given 42 steps of 0.9 km/h, so that the gold has few digits."""
    old, new, step = rng.choice(CONVERSIONS)
    given = rng.randint(11, 4000) * Decimal(step)
    source, target = quantity.parse(f"{given} {old}"), quantity.parse(f"1 {new}").unit
    value = (source.base - target.offset) * target.down / target.up
    answer = f"{spell(value)} {new}"
    question = f"Convert {spell(given)} {old} to {new}."
    rule = "0 degC" if "degC" in (old, new) else f"1 {old}"
    worked = f"{rule} = {quantity.spell(quantity.parse(rule))}"
    return Problem(question, answer, f"{worked} #{answer}", question, json.dumps({"tolerance": EXACT}))
