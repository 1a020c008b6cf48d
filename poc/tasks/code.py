"""Write a small Python function for a described behaviour; hidden tests decide.

Level 0: one expression in x, three operations long ("f(x): add 7, double, subtract 3"); the worked solution builds it
step by step: "x+7 (x+7)*2 #(x+7)*2-3".
"""

import json
from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks.answers import Reading, marked_answer
from poc.tasks.problem import Problem

NAME = "code"
LEVELS = range(DOMAIN_LEVELS[NAME])
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Write f(x) as one Python expression: build it step by step, then end with # and the expression."
MAX_NEW_TOKENS = 48
OPERATIONS = {  # phrase, Python around the expression so far, what it does
    "add": ("add {k}", "{e}+{k}", lambda x, k: x + k),
    "subtract": ("subtract {k}", "{e}-{k}", lambda x, k: x - k),
    "multiply": ("times {k}", "{e}*{k}", lambda x, k: x * k),
    "square": ("square", "{e}**2", lambda x, k: x * x),
}
INPUTS = (0, 1, 2, 3, 5, -1, -4, 10)


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level`."""
    return _expression(rng)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return MAX_NEW_TOKENS


def score(example: Example, text: str) -> Verdict:
    """TODO sandbox"""
    marked, last = marked_answer(text)
    status = "unparsable" if not marked else "correct" if marked == example.answer else "wrong"
    return Verdict(status, bool(marked) and last, status == "correct", marked)


def read(question: str, text: str) -> Reading:
    """The marked expression, without spaces."""
    marked, last = marked_answer(text)
    return Reading("".join(marked.split()), last) if marked else Reading(None, False)


def _expression(rng: Random) -> Problem:
    names = rng.sample(("add", "subtract", "multiply", "square"), 3)
    steps = [(name, rng.randint(2, 9)) for name in names]
    phrases, written, values = [], ["x"], list(INPUTS)
    for name, k in steps:
        phrase, form, does = OPERATIONS[name]
        phrases.append(phrase.format(k=k))
        tight = name in ("multiply", "square") and written[-1] != "x"
        written.append(form.format(e=f"({written[-1]})" if tight else written[-1], k=k))
        values = [does(value, k) for value in values]
    question = f"f(x): {', '.join(phrases)}"
    check = json.dumps({"tests": [[[x], value] for x, value in zip(INPUTS, values, strict=True)]})
    return Problem(question, written[-1], f"{' '.join(written[1:-1])} #{written[-1]}", question, check)
