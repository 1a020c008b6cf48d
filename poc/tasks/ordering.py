"""Ordering puzzles: who stands where in a line? One order fits all clues (all are tried), and no clue is idle.

A clue says of two people that one is somewhere left of the other or next to them, or of one that they stand at an end.
People are numbered by their place in the solution, so that a clue is its truth: ("left", 0, 2). The key is the set of
clues so numbered: equal for puzzles that differ in names and in the order or wording of clues.
"""

import re
from functools import cache, reduce
from itertools import permutations
from operator import and_
from random import Random

from poc.tasks.problem import Problem

NAMES = ("Ann", "Bob", "Cid", "Dee", "Eve", "Fay", "Gus", "Hal")
INSTRUCTION = "Who stands where? End with # and the names from left to right, like this: #Kim, Lou, Max, Ned"
MARK = " stand in a line"  # of every question

_PEOPLE = re.compile(r"[A-Z][a-z]+(?:, [A-Z][a-z]+)*(?= stand in a line)")
_SEPARATOR = re.compile(r" ?, ?(?:and )?")
Clue = tuple[str, int, int]  # (relation, one, other), the same person twice for an end
HOLDS = {
    "left": lambda p, q, last: p < q,
    "next": lambda p, q, last: abs(p - q) == 1,
    "end": lambda p, q, last: p in (0, last),
    "first": lambda p, q, last: p == 0,
    "last": lambda p, q, last: p == last,
}
PHRASES = {
    "left": ("{p} is left of {q}.", "{q} is right of {p}."),
    "next": ("{p} is next to {q}.", "{q} is next to {p}."),
    "end": ("{p} is at an end.",),
    "first": ("{p} is at the left end.",),
    "last": ("{p} is at the right end.",),
}
SHORT = {"left": "{p}{i}<{q}{j}", "next": "{p}{i} by {q}{j}", "end": "{p}{i}", "first": "{p}{i}", "last": "{p}{i}"}


def make(rng: Random, people: int) -> Problem:
    """Draw a puzzle of `people` (4 to 8) that has exactly one solution."""
    clues: list[Clue] = []
    while not _unique(clues, people):
        clue = _clue(rng, people)
        clues = [*clues, clue] if _left([*clues, clue], people) != _left(clues, people) else clues
    for clue in list(clues):
        others = [c for c in clues if c != clue]
        clues = others if _unique(others, people) else clues
    return _puzzle(rng, clues, rng.sample(NAMES, people))


def canonical(question: str, answer: str) -> str | None:
    """ "Ann, Bob, Cid" from a list of exactly the people of the question, each once; else None."""
    people = _PEOPLE.search(question)
    said = _SEPARATOR.split(" ".join(answer.split()).rstrip("."))
    return ", ".join(said) if people and sorted(said) == sorted(people[0].split(", ")) else None


def _unique(clues: list[Clue], people: int) -> bool:
    left = _left(clues, people)
    return left & (left - 1) == 0  # one bit: the order that the clues were drawn for always fits


def _left(clues: list[Clue], people: int) -> int:
    """The orders that fit all clues, a bit each."""
    return reduce(and_, (_fitting(clue, people) for clue in clues), -1)


@cache
def _fitting(clue: Clue, people: int) -> int:
    """The orders (the place of each person) that fit, a bit each."""
    relation, p, q = clue
    holds = HOLDS[relation]
    return sum(1 << i for i, o in enumerate(permutations(range(people))) if holds(o[p], o[q], people - 1))


def _clue(rng: Random, people: int) -> Clue:
    """One that holds where everybody stands at the place of their number."""
    while True:
        relation = rng.choices(list(HOLDS), (6, 6, 2, 1, 1))[0]
        one, other = rng.sample(range(people), 2)
        other = other if relation in ("left", "next") else one
        if HOLDS[relation](one, other, people - 1):
            return relation, min(one, other), max(one, other)


def _puzzle(rng: Random, clues: list[Clue], names: list[str]) -> Problem:
    words = [rng.choice(PHRASES[r]).format(p=names[p], q=names[q]) for r, p, q in rng.sample(clues, len(clues))]
    question = f"{', '.join(rng.sample(names, len(names)))}{MARK}. {' '.join(words)} Who stands where?"
    checked = [SHORT[r].format(p=names[p], i=p + 1, q=names[q], j=q + 1) for r, p, q in clues]
    answer = ", ".join(names)
    return Problem(question, answer, f"{', '.join(checked)} #{answer}", repr((len(names), sorted(clues))))
