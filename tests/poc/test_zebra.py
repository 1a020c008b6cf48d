"""Zebra puzzles against a solver that reads the question's text and tries all arrangements."""

import hashlib
import json
import re
from functools import cache
from itertools import permutations, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.records import Example
from poc.tasks import logic, zebra
from poc.tasks.answers import Reading

LEVELS = (9, 10)
PINNED = {9: "dafe01ef18c315e4", 10: "41bfc357b9c33fba"}
GOLD = "house 1: red, cat; house 2: blue, dog"
QUESTION = "2 houses stand in a row, house 1 at the left end. Each has one colour (blue, red), one pet (cat, dog)."


@cache
def drawn(level: int) -> list[tuple[Example, str]]:
    return [tasks.draw("logic", 0, index, level) for index in range(1000)]


def read_puzzle(question: str) -> tuple[list[list[str]], list[tuple[str, list[str], int]]]:
    """(the values of each attribute, the clues as (relation, one or two values, house))."""
    groups = [found.split(", ") for found in re.findall(r"\(([^)]*)\)", question)]
    words = {word for group in groups for word in group}
    body = question.partition("all different. ")[2].removesuffix(" What is in which house?").rstrip(".")
    clues = []
    for clue in body.split(". "):
        named = [word for word in re.findall("[a-z]+", clue.lower()) if word in words]
        house = int(re.search(r"is house (\d)", clue)[1]) if "is house" in clue else 0
        kinds = ("next to", "directly left of", "somewhere left of", "is not the")
        clues.append((next((kind for kind in kinds if kind in clue), "is"), named, house))
    return groups, clues


def fits(clue: tuple[str, list[str], int], house: dict[str, int]) -> bool:
    relation, named, number = clue
    if number:
        return house[named[0]] == number
    apart = house[named[1]] - house[named[0]]
    return {
        "is": apart == 0, "is not the": apart != 0, "next to": abs(apart) == 1, "directly left of": apart == 1,
        "somewhere left of": apart > 0,
    }[relation]  # fmt: skip


def solve(question: str) -> list[str]:
    """Attribute by attribute, keeping what fits the clues whose values all have a house."""
    groups, clues = read_puzzle(question)
    partial: list[dict[str, int]] = [{}]
    for group in groups:
        orders = [dict(zip(group, order, strict=True)) for order in permutations(range(1, len(groups) + 1))]
        partial = [one | other for one, other in product(partial, orders)]
        partial = [h for h in partial if all(fits(c, h) for c in clues if all(word in h for word in c[1]))]
    return [say(groups, house) for house in partial]


def say(groups: list[list[str]], house: dict[str, int]) -> str:
    rows = [[word for group in groups for word in group if house[word] == i + 1] for i in range(len(groups))]
    return "; ".join(f"house {i}: {', '.join(row)}" for i, row in enumerate(rows, 1))


@pytest.mark.parametrize("level", LEVELS)
def test_a_thousand_puzzles_score_are_reproducible_and_unique(level):
    for index, (example, _) in enumerate(drawn(level)):
        worked = logic.make(Random(f"logic/0/{level}/{index}"), level).worked
        assert tasks.score(example, worked).correct and tasks.score(example, worked).formatted
        assert tasks.read(example, worked) == Reading(example.answer, True)
    text = json.dumps([(e.question, e.answer) for e, _ in drawn(level)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PINNED[level]
    assert len({e.question for e, _ in drawn(level)}) == 1000
    assert len({key for _, key in drawn(level)}) >= 950


@pytest.mark.parametrize("level,count", [(9, 300), (10, 60)])
def test_every_puzzle_has_exactly_the_one_solution_it_states(level, count):
    for example, _ in drawn(level)[:count]:
        assert solve(example.text) == [example.answer]


def test_no_clue_is_idle():
    for example, _ in drawn(9)[:40]:
        head, _, body = example.text.partition("all different. ")
        clues = body.removesuffix(". What is in which house?").split(". ")
        for clue in clues:
            left = ". ".join(c for c in clues if c != clue)
            assert len(solve(f"{head}all different. {left}. What is in which house?")) > 1


@pytest.mark.parametrize("level", LEVELS)
def test_every_split_has_enough_questions(level):
    for split, count in (("train", 512), ("holdout", 256), ("canary", 64)):
        assert len(tasks.generate("logic", level, split, count, 0)) == count


@pytest.mark.parametrize("level", LEVELS)
def test_the_golds_of_others_pass_only_where_they_are_true(level):
    examples = [example for example, _ in drawn(level)[:50]]
    for example in examples:
        for other in examples:
            assert tasks.score(example, f"#{other.answer}").correct is (other.answer == example.answer)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([2, 3, 4]), st.randoms(use_true_random=False))
def test_renaming_or_moving_attributes_and_clues_keeps_the_key(seed, size, chance):
    problem = zebra.make(Random(seed), size)
    clues = eval(problem.key[2:])  # our own text
    new = chance.sample(range(size), size)
    moved = [(r, (new[a], p), (new[b], q)) for r, (a, p), (b, q) in chance.sample(clues, len(clues))]
    names = chance.sample(list(zebra.ATTRIBUTES), size)
    again = zebra._puzzle(moved, names, [chance.sample(zebra.ATTRIBUTES[name], size) for name in names])
    assert again.key == problem.key
    assert solve(again.question) == [again.answer]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([2, 3]))
def test_the_fast_search_finds_all_that_trying_finds(seed, size):
    rng = Random(seed)
    clues = [zebra._clue(rng, size) for _ in range(rng.randint(0, 4))]
    names = list(zebra.ATTRIBUTES)[:size]
    problem = zebra._puzzle(clues, names, [zebra.ATTRIBUTES[name][:size] for name in names])
    slow = solve(problem.question) if clues else None
    assert len(zebra.solutions(clues, size, 10**6)) == (
        len(slow) if clues else len(list(permutations(range(size)))) ** size
    )
    assert len(zebra.solutions(clues, size, 2)) <= 2


@pytest.mark.parametrize(
    "answer,status",
    [
        (GOLD, "correct"), ("House 1: Red, Cat; House 2: Blue, Dog.", "correct"),
        ("house 2: dog, blue; house 1: cat,red", "correct"),
        ("house 1: red, cat\nhouse 2: blue, dog", "correct"), ("house 1: blue, cat; house 2: red, dog", "wrong"),
        ("house 1: red, dog; house 2: blue, cat", "wrong"), ("house 1: red, cat", "unparsable"), ("", "unparsable"),
        ("house 1: red, cat; house 2: blue", "unparsable"), ("house 1: red, cat; house 2: blue, dog, cat",
        "unparsable"),
        ("house 1: red, cat; house 2: blue, cat", "unparsable"), ("house 1: red, cat; house 1: red, cat",
        "unparsable"),
        ("house 1: red, cat; house 2: blue, dog; house 2: red, dog", "unparsable"), (":", "unparsable"),
        ("house 1: red, cat; house 2: blue, dog; house 3: red, cat", "unparsable"), ("red, cat; blue, dog",
        "unparsable"),
        ("house 1: red or blue, cat; house 2: blue, dog", "unparsable"),
        ("house 1: red, cat; house 2: blue, dog or cat", "unparsable"),
        (f"it is {GOLD}", "unparsable"), (f"{GOLD} or else", "unparsable"), (f"{GOLD} {GOLD}", "unparsable"),
        (f"not {GOLD}", "unparsable"), ("house 1: red, red; house 2: blue, dog", "unparsable"),
        ("house 1: cat, cat; house 2: dog, dog", "unparsable"),
        ("house 1: red, cаt; house 2: blue, dog", "unparsable"), ("house ١: red, cat; house 2: blue, dog",
        "unparsable"),
        ("house 1: " * 20_000, "unparsable"), ("house 1: red, cat; " * 10_000, "unparsable"), ("sys.exit(0)",
        "unparsable"),
        ("house 1: " + "red, " * 180, "unparsable"), ("9**9**9", "unparsable"), ("Thought process:", "unparsable"),
        ("\ud800\0", "unparsable"),
        ("house 1: blue, cat, red, dog; house 2: blue, cat, red, dog", "unparsable"),
        ("house 0: red, cat; house 1: blue, dog", "unparsable"),
    ],
)  # fmt: skip
def test_verdicts(answer, status):
    example = Example("x", QUESTION, GOLD, "logic", 9)
    assert logic.score(example, f"#{answer}").status == status
    assert (logic.read(example.text, f"#{answer}").answer == GOLD) is (status == "correct")
    assert not logic.score(example, answer).correct and not logic.score(example, f"{QUESTION} {answer}").correct


@given(st.lists(st.sampled_from(["red", "blue", "cat", "dog", "house 1:", "house 2:", ";", ","]), max_size=12))
def test_only_the_right_cells_are_ever_correct(parts):
    text = " ".join(parts)
    rows = {p[0]: {w.strip() for w in p[1].split(",")} for p in (h.split(":") for h in text.split(";")) if len(p) == 2}
    rows = {key.strip(): row for key, row in rows.items()}
    truth = rows == {"house 1": {"red", "cat"}, "house 2": {"blue", "dog"}}
    assert logic.score(Example("x", QUESTION, GOLD, "logic", 9), f"#{text}").correct <= truth


@given(st.text())
def test_no_text_raises(text):
    for level in LEVELS:
        example, _ = drawn(level)[0]
        assert not tasks.score(example, f"#{text}").correct
