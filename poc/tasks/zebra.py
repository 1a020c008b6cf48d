"""Zebra puzzles: n houses in a row, each with one value of every attribute; what is where? One solution, no idle clue.

A value is numbered by its house in the solution, so that a clue is its truth: ("next", (0, 1), (2, 2)) says that the
colour of house 1 is next to the drink of house 2. An arrangement is one permutation per attribute. Solutions are found
by assigning attribute by attribute; of each pair of attributes the clues leave a table of compatible permutations, kept
as bit masks over the n!, which prunes the rest. The key is the set of clues, the least over the attributes' orders:
equal for puzzles that differ in names, in what the attributes are called, or in the order of clues.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import permutations
from random import Random

from poc.tasks.problem import Problem

ATTRIBUTES = {
    "colour": ("black", "blue", "green", "grey", "red", "white"),
    "pet": ("cat", "dog", "fish", "fox", "horse", "snail"),
    "drink": ("cider", "cocoa", "juice", "milk", "tea", "water"),
    "job": ("baker", "clerk", "doctor", "farmer", "nurse", "pilot"),
}
PLACES = {
    "colour": "the {} house",
    "pet": "the house with the {}",
    "drink": "the house where {} is drunk",
    "job": "the house of the {}",
}
INSTRUCTION = (
    "What is in which house? End with # and every house, its values in the order of the question, like this: "
    "#house 1: pink, hen, beer; house 2: gold, owl, wine"
)
MARK = " houses stand in a row"  # of every question

_SIZE = re.compile(r"^([0-9]) houses stand in a row")
_VALUES = re.compile(r"\(([a-z]+(?:, [a-z]+)*)\)")
_HOUSE = re.compile(r"house ([0-9]) ?: ?([a-z]+(?: ?, ?[a-z]+)*)")
_BETWEEN = re.compile(r" ?[;.] ?| ")
Value = tuple[int, int]  # (attribute, house in the solution)
Clue = tuple[str, Value, Value]  # "at" has the same value twice
HOLDS = {
    "is": lambda p, q: p == q,
    "not": lambda p, q: p != q,
    "next": lambda p, q: abs(p - q) == 1,
    "directly": lambda p, q: q - p == 1,
    "left": lambda p, q: p < q,
}
SYMMETRIC = ("is", "not", "next")
PHRASES = {
    "is": "{p} is {q}.",
    "not": "{p} is not {q}.",
    "next": "{p} is next to {q}.",
    "directly": "{p} is directly left of {q}.",
    "left": "{p} is somewhere left of {q}.",
    "at": "{p} is house {i}.",
}
SHORT = {"is": "{p}{i}={q}{j}", "not": "{p}{i}/{q}{j}", "at": "{p}{i}"}  # the others: {p}{i}<{q}{j}


def make(rng: Random, size: int) -> Problem:
    """Draw a puzzle of `size` houses and as many attributes (2 to 4) that has exactly one solution."""
    clues: list[Clue] = []
    while len(solutions(clues, size, 2)) > 1:
        clue = _clue(rng, size)
        clues = clues if clue in clues else [*clues, clue]
    for clue in rng.sample(clues, len(clues)):
        others = [c for c in clues if c != clue]
        clues = others if len(solutions(others, size, 2)) == 1 else clues
    attributes = rng.sample(list(ATTRIBUTES), size)
    return _puzzle(clues, attributes, [rng.sample(ATTRIBUTES[attribute], size) for attribute in attributes])


def solutions(clues: Sequence[Clue], size: int, most: int) -> list[tuple[tuple[int, ...], ...]]:
    """The first `most` arrangements that fit all clues: for each attribute the house of each of its values."""
    domains = [(1 << len(_orders(size))) - 1] * size
    tables: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for relation, (a, p), (b, q) in clues:
        if a == b:
            domains[a] &= _alone(size, relation, p, q)
        elif a < b:
            tables.setdefault((a, b), []).append(_pairs(size, relation, p, q, False))
        else:
            tables.setdefault((b, a), []).append(_pairs(size, relation, q, p, True))
    return _assign(size, tuple(domains), tables, most)


def canonical(question: str, answer: str) -> str | None:
    """ "house 1: red, cat; house 2: ..." if every house is there once, with one value of every attribute; else None.

    The order of the houses and of the values in a house is free, and so are capitals.
    """
    size, groups = _SIZE.match(question), [found.split(", ") for found in _VALUES.findall(question)]
    answer = " ".join(answer.casefold().split())
    houses = {number: re.split(" ?, ?", values) for number, values in _HOUSE.findall(answer)}
    if not size or _BETWEEN.sub("", _HOUSE.sub("", answer)) or len(_HOUSE.findall(answer)) != len(houses):
        return None
    rows = [_row(groups, houses.get(str(i + 1), [])) for i in range(int(size[1]))]
    if None in rows or len(rows) != len(houses) or len({value for row in rows for value in row}) != len(rows) ** 2:
        return None
    return _say(rows)


def _row(groups: list[list[str]], values: list[str]) -> list[str] | None:
    row = [value for group in groups for value in values if value in group]
    places = [i for i, group in enumerate(groups) for value in row if value in group]
    return row if len(values) == len(row) == len(groups) and places == list(range(len(groups))) else None


def _say(rows: Sequence[Sequence[str]]) -> str:
    return "; ".join(f"house {i}: {', '.join(row)}" for i, row in enumerate(rows, 1))


def _assign(size: int, domains: tuple[int, ...], tables: dict, most: int, done: tuple = ()) -> list[tuple]:
    a, found = len(done), []
    if a == size:
        return [done]
    for i, order in enumerate(_orders(size)):
        if domains[a] >> i & 1:
            left = tuple(_compatible(d, tables.get((a, b), ()), i) if b > a else d for b, d in enumerate(domains))
            if all(left):
                found += _assign(size, left, tables, most - len(found), (*done, order))
            if len(found) >= most:
                break
    return found


def _compatible(domain: int, tables: Sequence[tuple[int, ...]], i: int) -> int:
    for table in tables:
        domain &= table[i]
    return domain


@cache
def _orders(size: int) -> list[tuple[int, ...]]:
    return list(permutations(range(size)))


@cache
def _alone(size: int, relation: str, p: int, q: int) -> int:
    """The orders of one attribute in which its values p and q stand so ("at": value p in house p)."""
    holds = (lambda a, b: a == p) if relation == "at" else HOLDS[relation]
    return sum(1 << i for i, order in enumerate(_orders(size)) if holds(order[p], order[q]))


@cache
def _pairs(size: int, relation: str, p: int, q: int, swapped: bool) -> tuple[int, ...]:
    """For every order of one attribute, with value p, the orders of the other, with value q, that fit."""
    holds = (lambda a, b: HOLDS[relation](b, a)) if swapped else HOLDS[relation]
    orders = _orders(size)
    return tuple(sum(1 << j for j, y in enumerate(orders) if holds(x[p], y[q])) for x in orders)


def _clue(rng: Random, size: int) -> Clue:
    """One that holds in the solution, in its one spelling."""
    while True:
        relation = rng.choices([*HOLDS, "at"], (4, 1, 3, 2, 2, 1))[0]
        one, other = ((rng.randrange(size), rng.randrange(size)) for _ in range(2))
        if relation == "at":
            return relation, one, one
        useless = one[0] == other[0] and relation in ("is", "not")
        if HOLDS[relation](one[1], other[1]) and not useless:
            return (relation, *sorted((one, other))) if relation in SYMMETRIC else (relation, one, other)


def _key(clues: list[Clue], size: int) -> str:
    return min(
        repr(sorted((r, *_sorted(r, (new[a], p), (new[b], q))) for r, (a, p), (b, q) in clues))
        for new in permutations(range(size))
    )


def _sorted(relation: str, one: Value, other: Value) -> list[Value]:
    return sorted((one, other)) if relation in SYMMETRIC else [one, other]


def _puzzle(clues: list[Clue], attributes: list[str], values: list[list[str]]) -> Problem:
    listed = [f"one {name} ({', '.join(sorted(words))})" for name, words in zip(attributes, values, strict=True)]
    told, checked = [], []
    for relation, (a, p), (b, q) in clues:
        places = [PLACES[attributes[x]].format(values[x][y]) for x, y in ((a, p), (b, q))]
        told.append(PHRASES[relation].format(p=places[0].capitalize(), q=places[1], i=p + 1))
        form = SHORT.get(relation, "{p}{i}<{q}{j}" if p < q else "{p}{i}>{q}{j}")
        checked.append(form.format(p=values[a][p], i=p + 1, q=values[b][q], j=q + 1))
    size = len(attributes)
    question = (
        f"{size}{MARK}, house 1 at the left end. Each has {', '.join(listed)}, all different. {' '.join(told)} "
        "What is in which house?"
    )
    answer = _say(list(zip(*values, strict=True)))
    return Problem(question, answer, f"{', '.join(checked)} #{answer}", f"{size} {_key(clues, size)}")
