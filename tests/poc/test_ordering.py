"""Ordering puzzles against a solver that knows nothing but the question's text."""

import hashlib
import json
import re
from functools import cache
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.records import Example
from poc.tasks import logic, ordering
from poc.tasks.answers import Reading

LEVELS = (7, 8)
PINNED = {7: "4039008376111118", 8: "0a331eb92d441e77"}


@cache
def drawn(level: int) -> list[tuple[Example, str]]:
    return [tasks.draw("logic", 0, index, level) for index in range(1000)]


@cache
def solve(question: str) -> list[str]:
    """Every order that fits, from the words alone."""
    head, *clues = question.removesuffix(" Who stands where?").rstrip(".").split(". ")
    people = head.removesuffix(" stand in a line").split(", ")
    return [", ".join(order) for order in permutations(people) if all(fits(clue, order) for clue in clues)]


def fits(clue: str, order: tuple[str, ...]) -> bool:
    place = {name: i for i, name in enumerate(order)}
    name, relation, other = re.fullmatch(r"(\w+) is (left of|right of|next to|at) (.+)", clue).groups()
    if relation == "at":
        ends = {"the left end": [0], "the right end": [len(order) - 1], "an end": [0, len(order) - 1]}
        return place[name] in ends[other]
    apart = place[other] - place[name]
    return {"left of": apart > 0, "right of": apart < 0, "next to": abs(apart) == 1}[relation]


@pytest.mark.parametrize("level", LEVELS)
def test_a_thousand_puzzles_score_are_reproducible_and_unique(level):
    for index, (example, _) in enumerate(drawn(level)):
        worked = logic.make(Random(f"logic/0/{level}/{index}"), level).worked
        assert tasks.score(example, worked).correct and tasks.score(example, worked).correct_anyhow
        assert tasks.read(example, worked) == Reading(example.answer, True)
    text = json.dumps([(e.question, e.answer) for e, _ in drawn(level)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PINNED[level]
    assert len({e.question for e, _ in drawn(level)}) == 1000


@pytest.mark.parametrize("level", LEVELS)
def test_every_puzzle_has_exactly_the_one_solution_it_states_and_no_idle_clue(level):
    for example, _ in drawn(level)[:: 1 if level == 7 else 20]:
        assert solve(example.text) == [example.answer]
        head, *clues = example.text.removesuffix(" Who stands where?").rstrip(".").split(". ")
        for clue in clues:
            assert len(solve(". ".join([head, *(c for c in clues if c != clue)]) + ". Who stands where?")) > 1


@pytest.mark.parametrize("level", LEVELS)
def test_every_split_has_enough_questions(level):
    for split, count in (("train", 512), ("holdout", 256), ("canary", 64)):
        assert len(tasks.generate("logic", level, split, count, 0)) == count


@pytest.mark.parametrize("level", LEVELS)
def test_the_golds_of_others_pass_only_where_they_are_true(level):
    examples = [example for example, _ in drawn(level)[:50]]
    for example in examples:
        for other in examples:
            assert tasks.score(example, f"#{other.answer}").correct is (other.answer in solve(example.text))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([4, 5, 6]), st.randoms(use_true_random=False))
def test_renaming_people_or_moving_clues_keeps_the_key(seed, people, chance):
    problem = ordering.make(Random(seed), people)
    clues = list(eval(problem.key)[1])  # our own text
    again = ordering._puzzle(Random(seed + 1), chance.sample(clues, len(clues)), chance.sample(ordering.NAMES, people))
    assert again.key == problem.key and again.question != problem.question


@pytest.mark.parametrize(
    "answer,status",
    [
        ("Ann, Bob, Cid, Dee", "correct"), ("Ann,Bob,Cid,Dee.", "correct"), ("Ann, Bob, Cid, and Dee", "correct"),
        ("Dee, Cid, Bob, Ann", "wrong"), ("Ann, Bob, Dee, Cid", "wrong"), ("Ann, Bob, Cid", "unparsable"),
        ("Ann, Bob, Cid, Dee, Eve", "unparsable"), ("Ann, Bob, Cid, Dee, Ann", "unparsable"), ("", "unparsable"),
        ("Ann, Ann, Cid, Dee", "unparsable"), ("Ann, Bob, Cid, Dee or Dee, Cid, Bob, Ann", "unparsable"), (":",
        "unparsable"),
        ("Ann, Bob, Cid, Dee, Dee, Cid, Bob, Ann", "unparsable"), ("It is Ann, Bob, Cid, Dee", "unparsable"),
        ("ann, bob, cid, dee", "unparsable"), ("Ann, Bob, Cid or Eve, Dee", "unparsable"), ("Ann Bob Cid Dee",
        "unparsable"),
        ("Аnn, Bob, Cid, Dee", "unparsable"), ("Ann, Bob, Cid, Dee\u200b", "unparsable"),
        ("not Ann, Bob, Cid, Dee", "unparsable"),
        ("Ann, Bob/Cid, Cid/Bob, Dee", "unparsable"), ("1, 2, 3, 4", "unparsable"), ("Ann, " * 50_000, "unparsable"),
        (", " * 100_000, "unparsable"), ("sys.exit(0)", "unparsable"), ("9**9**9", "unparsable"),
        ("x" * 200_000, "unparsable"),
        ("Ann, Bob, Cid, Dee, " + "and " * 4_000, "unparsable"), ("Thought process:", "unparsable"), ("\ud800\0",
        "unparsable"),
    ],
)  # fmt: skip
def test_verdicts(answer, status):
    example = Example("x", "Dee, Ann, Cid, Bob stand in a line. Who stands where?", "Ann, Bob, Cid, Dee", "logic", 7)
    assert logic.score(example, f"#{answer}").status == status
    assert (logic.read(example.text, f"#{answer}").answer == example.answer) is (status == "correct")
    assert not logic.score(example, answer).correct and not logic.score(example, f"{example.text} {answer}").correct


def test_one_a_line_and_unmarked_answers():
    example = Example("x", "Bob, Ann stand in a line.", "Ann, Bob", "logic", 7)
    assert logic.score(example, "<answer>\nAnn,\nBob</answer>").correct
    assert logic.score(example, "####\nAnn, Bob").formatted
    assert logic.score(example, "so\nAnn, Bob").correct_anyhow
    assert not logic.score(example, "#Ann, Bob\nI think").formatted


@given(st.lists(st.sampled_from(["Ann", "Bob", "Cid"]), max_size=5))
def test_only_the_one_list_is_ever_correct(names):
    example = Example("x", "Cid, Bob, Ann stand in a line.", "Ann, Bob, Cid", "logic", 7)
    assert logic.score(example, f"#{', '.join(names)}").correct == (names == ["Ann", "Bob", "Cid"])


@given(st.text())
def test_no_text_raises(text):
    for level in LEVELS:
        example, _ = drawn(level)[0]
        assert not tasks.score(example, f"#{text}").correct
