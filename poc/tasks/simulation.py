"""Predict what a short program or process gives, as JSON, compared strictly.

Level 0: two operations on a word of four letters ('s="bade": reverse, drop first'), worked state by state:
'edab dab #"dab"'.
"""

import json
from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks.answers import Reading, marked_answer
from poc.tasks.problem import Problem

NAME = "simulation"
LEVELS = range(DOMAIN_LEVELS[NAME])
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = 'Go step by step, then end with # and the result as JSON, like this: #"abc"'
MAX_NEW_TOKENS = 32
LETTERS = "abcdefgh"
WORD_OPERATIONS = {
    "reverse": lambda s: s[::-1],
    "rotate left": lambda s: s[1:] + s[:1],
    "rotate right": lambda s: s[-1:] + s[:-1],
    "swap first two": lambda s: s[1:2] + s[:1] + s[2:],
    "drop first": lambda s: s[1:],
    "drop last": lambda s: s[:-1],
    "double": lambda s: s + s,
}


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level`."""
    return _word(rng)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return MAX_NEW_TOKENS


def score(example: Example, text: str) -> Verdict:
    """TODO strict JSON"""
    marked, last = marked_answer(text)
    status = "unparsable" if not marked else "correct" if marked == example.answer else "wrong"
    return Verdict(status, bool(marked) and last, status == "correct", marked)


def read(question: str, text: str) -> Reading:
    """TODO canonical JSON"""
    marked, last = marked_answer(text)
    return Reading(marked, last) if marked else Reading(None, False)


def _word(rng: Random) -> Problem:
    word = "".join(rng.choices(LETTERS, k=4))
    names = rng.sample(list(WORD_OPERATIONS), 2)
    states = [word]
    for name in names:
        states.append(WORD_OPERATIONS[name](states[-1]))
    question, answer = f's="{word}": {", ".join(names)}', json.dumps(states[-1])
    return Problem(question, answer, f"{' '.join(states[1:])} #{answer}", question)
