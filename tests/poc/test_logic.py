"""Knights and Knaves against a solver that knows nothing but the question's text; which level is which puzzle."""

import hashlib
import re
from itertools import product
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc.config import Data
from poc.records import Example
from poc.tasks import draw, knights, logic
from poc.tasks.rows import read_rows

PUBLIC = Path(__file__).parents[3] / "shared" / "data" / "kk_3_people_test.parquet"
SEEDS = st.integers(0, 10**9)
LEVELS = st.sampled_from(range(7))  # Knights and Knaves; the others have files of their own
GOLD = Example("x", "?", "Ann knight, Bob knave", "logic")


def true_in(claim: str, world: dict[str, str]) -> bool:
    """Truth of "if A is a knight then B is a knave" and its kin, by the words of the sentence."""
    for word, rule in (
        (" if and only if ", lambda p, q: p is q),
        (" and ", lambda p, q: p and q),
        (" or ", lambda p, q: p or q),
    ):
        if word in claim:
            return rule(*(true_in(part, world) for part in claim.split(word)))
    if claim.startswith("if "):
        premise, conclusion = claim[3:].split(" then ")
        return not true_in(premise, world) or true_in(conclusion, world)
    name, kind = re.fullmatch(r"(\w+) is a (knight|knave)", claim).groups()
    return world[name] == kind


def claims(question: str) -> dict[str, str]:
    return dict(sentence.split(": ") for sentence in question.removesuffix(".").split(". "))


def solve(question: str) -> list[dict[str, str]]:
    said = claims(question)
    worlds = (dict(zip(said, kinds, strict=True)) for kinds in product(("knight", "knave"), repeat=len(said)))
    return [w for w in worlds if all(true_in(claim, w) is (w[name] == "knight") for name, claim in said.items())]


def read(answer: str) -> dict[str, str]:
    return dict(pair.split(" ") for pair in answer.split(", "))


@settings(max_examples=60, deadline=None)
@given(SEEDS, LEVELS)
def test_every_puzzle_has_exactly_the_one_solution_it_states(seed, level):
    puzzle = logic.make(Random(seed), level)
    found = solve(puzzle.question)
    assert found == [read(puzzle.answer)]
    assert len(found[0]) == level + 2


def test_the_solver_of_this_test_can_find_none_and_two():
    assert solve("Ann: Ann is a knave. Bob: Ann is a knight.") == []
    assert len(solve("Ann: Ann is a knight. Bob: Ann is a knight.")) == 2


@settings(max_examples=60, deadline=None)
@given(SEEDS, LEVELS)
def test_a_worked_solution_tries_in_order_ends_in_the_gold_and_scores(seed, level):
    puzzle = logic.make(Random(seed), level)
    tries, mark, answer = puzzle.worked.partition(" #")
    assert (mark, answer) == (" #", puzzle.answer)
    said, letters = claims(puzzle.question), ["".join(t) for t in product("tl", repeat=level + 2)]
    attempts = tries.split(" ")
    for attempt, tried in zip(attempts, letters[: len(attempts)], strict=True):
        world = {name: {"t": "knight", "l": "knave"}[letter] for name, letter in zip(said, tried, strict=True)}
        found = "".join("t" if true_in(claim, world) else "l" for claim in said.values())
        assert attempt == f"{tried}:{found}{'+' if found == tried else '-'}"
    assert attempt.endswith("+") and world == read(answer)
    assert level > 1 or len(puzzle.worked) < logic.MAX_NEW_TOKENS  # a token a character, and the end token
    verdict = logic.score(Example("x", puzzle.question, puzzle.answer, "logic", level), puzzle.worked)
    assert verdict.correct and verdict.formatted and verdict.correct_anyhow


@pytest.mark.parametrize(
    "text,status,formatted,anyhow",
    [
        ("tt- tl+ #Ann knight, Bob knave", "correct", True, True),
        ("#Bob is a knave and Ann is a knight.", "correct", True, True),
        ("#(1) Ann is a knight\n(2) Bob is a knave", "correct", True, True),
        ("####\n(1) Ann is a knight\n(2) Bob is a knave", "correct", True, True),
        ("\\boxed{Ann: knight, Bob: knave}", "correct", True, True),
        ("#Ann knight, Bob knave\nCheck: Ann knave lies.", "correct", False, True),
        ("So Ann is a knight and Bob is a knave.", "unparsable", False, True),
        ("#Ann knight, Bob knight", "wrong", True, False),
        ("#Ann knave, Bob knight", "wrong", True, False),
        ("#Ann knight, Ann knave", "unparsable", False, False),
        ("#Ann knight, Ann knave, Bob knave", "unparsable", False, False),
        ("#Ann knight, Bob knave, Ann knight, Bob knave", "unparsable", False, True),
        ("#Ann knight, Bob knave, Ann knave, Bob knight", "unparsable", False, False),
        ("#Ann knight or knave, Bob knave or knight", "unparsable", False, False),
        ("#Ann knight, Bob not knight", "unparsable", False, False),
        ("#Ann is not a knight, Bob is a knave", "unparsable", False, False),
        ("#not Ann knight, Bob knave", "unparsable", False, True),
        ("#Ann knight, Bob knave, Cid knave", "unparsable", False, False),
        ("#Ann knight", "unparsable", False, False),
        ("Bob knave, Ann knave, Ann knight", "unparsable", False, False),
        ("#", "unparsable", False, False),
        ("", "unparsable", False, False),
        ("#ann knight, bob knave", "unparsable", False, False),
        ("Ann knight, " * 20_000 + "#Ann knight, Bob knave", "correct", True, True),
    ],
)
def test_verdicts(text, status, formatted, anyhow):
    verdict = logic.score(GOLD, text)
    assert (verdict.status, verdict.formatted, verdict.correct_anyhow) == (status, formatted, anyhow)


@given(st.lists(st.tuples(st.sampled_from(["Ann", "Bob"]), st.sampled_from(["knight", "knave"])), max_size=5))
def test_only_the_two_right_pairs_are_ever_correct(pairs):
    text = "#" + ", ".join(f"{name} {kind}" for name, kind in pairs)
    assert logic.score(GOLD, text).correct == (sorted(pairs) == [("Ann", "knight"), ("Bob", "knave")])


def test_a_gold_that_names_nobody_is_the_callers_mistake():
    with pytest.raises(ValueError, match="names nobody"):
        logic.score(Example("x", "?", "who knows", "logic"), "#Ann knight")


@pytest.mark.skipif(not PUBLIC.exists(), reason=f"{PUBLIC.name} is not here")
def test_the_public_puzzles_gold_is_read_and_scored():
    columns = "quiz", "solution_text_format"
    rows = pq.read_table(PUBLIC).to_pylist()
    golds = [row.values for row in read_rows(Data(file=str(PUBLIC), prompt=columns[0], answer=columns[1]))]
    assert len(rows) == len(golds) == 100
    for row, gold in zip(rows, golds, strict=True):
        assert set(gold) == set(columns)
        truth = {n: "knight" if k else "knave" for n, k in zip(row["names"], row["solution"], strict=True)}
        assert knights.read_assignment(gold[columns[1]]) == truth
        assert knights.read_assignment(row["solution_text"]) == truth
        example = Example("x", gold[columns[0]], gold[columns[1]], "logic")
        assert logic.score(example, f"I tried them all.\n#### {gold[columns[1]]}").correct
        flipped = {"knight": "knave", "knave": "knight"}[truth[row["names"][0]]]
        wrong = ", ".join(f"{n} {flipped if n == row['names'][0] else k}" for n, k in truth.items())
        assert logic.score(example, f"#{wrong}").status == "wrong"


def test_knights_stay_as_the_lab_models_learned_them():
    """Computed with the code from before there were other puzzles."""
    rows = [(draw("logic", seed, i, level)[0], i) for level in range(7) for seed in (0, 1) for i in range(30)]
    worked = [logic.make(Random(i), level).worked for level in range(7) for i in range(30)]
    text = repr([(e.question, e.answer) for e, _ in rows] + worked + [logic.instruction(x) for x in range(7)])
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "61e2c19f64e5616a9110f2b5c6eb1788f87a6c1663a1658199bbbf4beb8b9bcd"
    )
    assert {logic.max_new_tokens(level) for level in range(7)} == {112} == {logic.MAX_NEW_TOKENS}


def test_every_level_is_described_told_and_has_room_for_its_worked_solution():
    assert len(logic.DESCRIPTIONS) == len(logic.LEVELS) == 13
    for level in range(7, 13):
        assert logic.instruction(level) != logic.INSTRUCTION
        worked = [logic.make(Random(i), level).worked for i in range(100)]
        assert max(map(len, worked)) < logic.max_new_tokens(level)


@pytest.mark.parametrize("level", range(13))
def test_what_one_kind_of_puzzle_is_answered_with_is_no_answer_to_another(level):
    example, _ = draw("logic", 0, 0, level)
    for other in range(13):
        worked = logic.make(Random(5), other).worked
        kind = (min(other, 7), other) if other < 7 else ((other + 1) // 2,)
        mine = (min(level, 7), level) if level < 7 else ((level + 1) // 2,)
        if kind != mine:
            assert logic.score(example, worked).status == "unparsable"
            assert logic.read(example.text, worked).answer is None


def test_echoing_the_instruction_is_never_right():
    for level in range(7, 13):
        for index in range(100):
            example, _ = draw("logic", 3, index, level)
            assert logic.score(example, logic.instruction(level)).status == "unparsable"
            assert not logic.score(example, f"{logic.instruction(level)} {example.text}").correct


def test_a_gold_that_is_no_full_answer_is_the_callers_mistake():
    with pytest.raises(ValueError, match="no full answer"):
        logic.score(Example("x", "Ann, Bob stand in a line.", "Ann", "logic", 7), "#Ann, Bob")


@given(st.integers(0, 10**6), st.integers(0, 3), st.randoms())
@settings(max_examples=40, deadline=None)
def test_a_puzzle_told_in_another_order_has_the_same_key(seed, level, rng):
    """Who speaks first, and what stands first in and, or, iff, makes no other puzzle; names never did."""
    draws = Random(seed)
    statements = tuple(knights._statement(draws, speaker, level + 2) for speaker in range(level + 2))
    order = list(range(len(statements)))
    rng.shuffle(order)
    number = {person: i for i, person in enumerate(order)}
    told = []
    for connective, p, q in (statements[person] for person in order):
        p, q = (number[p[0]], p[1]), q and (number[q[0]], q[1])
        if q and connective != "implies" and rng.random() < 0.5:
            p, q = q, p
        told.append((connective, p, q))
    assert knights._key(tuple(told)) == knights._key(statements)


def test_other_puzzles_have_other_keys():
    lies = (("is", (1, False), None), ("is", (0, False), None))
    assert knights._key(lies) != knights._key((lies[0], ("is", (0, True), None)))
    first, second = (("implies", (1, True), (0, True)), lies[1]), (("implies", (0, True), (1, True)), lies[1])
    assert knights._key(first) != knights._key(second)  # if p then q is not if q then p
