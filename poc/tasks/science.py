"""Physical and chemical quantities with units.

Level 0: one product of two given quantities ("m=7 kg, a=24 m/s^2, F=?"), worked column by column: "4*7=28 2*7+2=16
#168 N".
"""

import json
from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks.answers import Reading, marked_answer
from poc.tasks.problem import Problem

NAME = "science"
LEVELS = range(DOMAIN_LEVELS[NAME])
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Work it out, then end with #, the number and its unit, like this: #12 m/s"
MAX_NEW_TOKENS = 40
PRODUCTS = (  # first quantity and unit, second, result
    (("m", "kg"), ("a", "m/s^2"), ("F", "N")),
    (("t", "s"), ("v", "m/s"), ("s", "m")),
    (("I", "A"), ("R", "ohm"), ("U", "V")),
    (("t", "s"), ("I", "A"), ("Q", "C")),
    (("t", "s"), ("P", "W"), ("E", "J")),
    (("U", "V"), ("I", "A"), ("P", "W")),
    (("s", "m"), ("F", "N"), ("W", "J")),
)


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level`."""
    return _product(rng)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return MAX_NEW_TOKENS


def score(example: Example, text: str) -> Verdict:
    """TODO pint"""
    marked, last = marked_answer(text)
    status = "unparsable" if not marked else "correct" if marked == example.answer else "wrong"
    return Verdict(status, bool(marked) and last, status == "correct", marked)


def read(question: str, text: str) -> Reading:
    """TODO pint"""
    marked, last = marked_answer(text)
    return Reading(marked, last) if marked else Reading(None, False)


def _product(rng: Random) -> Problem:
    (x, x_unit), (y, y_unit), (z, z_unit) = rng.choice(PRODUCTS)
    a, b = rng.randint(2, 9), rng.randint(11, 99)
    tens, ones = divmod(b, 10)
    carry = ones * a // 10
    high = tens * a + carry
    worked = f"{ones}*{a}={ones * a} {tens}*{a}{f'+{carry}' if carry else ''}={high}"
    question = f"{x}={a} {x_unit}, {y}={b} {y_unit}, {z}=?"
    answer = f"{a * b} {z_unit}"
    return Problem(question, answer, f"{worked} #{answer}", question, json.dumps({"tolerance": 1e-6}))
