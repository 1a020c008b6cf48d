"""Reading answers without the gold: what `read` says agrees with what the verifier, who knows the gold, says."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poc import tasks
from poc.records import Example
from poc.tasks.answers import Reading

TEXTS = [
    "so #42", "#42 #41", "42", "#", "#42 apples", "\\boxed{42}", "\\boxed{42} ok", "<answer> 42 </answer>", "#0042.0",
    "<answer>42", "#+42", "#forty-two", "####  1,042", "#-0", "#42\nand more",
]  # fmt: skip


@pytest.mark.parametrize("domain, level", [("math", 0), ("math", 3), ("logic", 0), ("logic", 1), ("logic", 6)])
def test_a_worked_solution_reads_as_the_gold(domain, level):
    for index in range(20):
        problem = tasks.DOMAINS[domain].make(Random(index), level)
        example = Example("x", problem.question, None, domain, level)
        assert tasks.read(example, problem.worked) == Reading(problem.answer, True)
        assert tasks.read(example, f"{problem.worked}\nand so on").formatted is False
        assert tasks.read(example, "who knows") == Reading(None, False)


@given(st.sampled_from(TEXTS))
def test_numbers_read_as_right_exactly_if_they_are_scored_right(text):
    for domain in ("math", "own"):
        verdict = tasks.score(Example("x", "6*7=?", "42", domain), text)
        answer, formatted = tasks.read(Example("x", "6*7=?", None, domain), text)
        assert (answer == "42") == verdict.correct
        assert domain == "own" or (
            formatted == verdict.formatted
            and (answer is None) == (verdict.answer is None or verdict.status == "unparsable")
        )  # noqa: E501


def test_one_spelling_for_equal_answers():
    example = tasks.generate("logic", 0, "train", 1, 0)[0]
    one, other = example.answer.split(", ")
    spellings = [
        f"#{one}, {other}",
        f"#{other}, {one}",
        f"<answer> (1) {other.replace(' ', ' is a ')} (2) {one} </answer>",
    ]
    assert {tasks.read(example, text) for text in spellings} == {Reading(example.answer, True)}
    assert tasks.read(example, f"#{one}").answer is None  # somebody is missing
    assert tasks.read(example, f"#{one}, {one}").answer is None
    math = Example("x", "?", None, "math")
    assert {tasks.read(math, f"#{x}").answer for x in ("7", "7.0", "+7", "007", "$7", "7.")} == {"7"}
    assert tasks.read(math, "#-0").answer == "0"


def test_free_text_is_read_as_it_stands():
    own = Example("x", "capital?", None, "own")
    assert tasks.read(own, "it is #Rome") == Reading("Rome", True)
    assert tasks.read(own, "\\boxed{\\Delta x}").answer == "\\Delta x"  # case may matter to mathematics
    assert tasks.read(own, "#  ").answer is None


def test_tags_mark_an_answer():
    own = Example("x", "capital?", "Rome", "own")
    assert tasks.score(own, "<think>Paris? no</think> <answer> Rome </answer>").formatted
    assert tasks.score(own, "<answer>Rome</answer> I hope").formatted is False
    assert tasks.score(own, "<answer>Rome").status == "unparsable"
    assert tasks.score(own, "<answer>Paris</answer> #Rome").correct  # the last mark counts
