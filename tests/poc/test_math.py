"""Generated sums against Python's own arithmetic on the question text, and the numeric verifier's table."""

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poc.records import Example
from poc.tasks import math

SEEDS = st.integers(0, 10**9)
LEVELS = st.sampled_from(range(4))  # bare sums; what reasoning_gym draws is in test_math_levels


def calculate(expression: str) -> int:
    """Left to right, which is right for +, - and a single *."""
    first, *rest = re.findall(r"[+*-]?\d+", expression)
    total = int(first)
    for term in rest:
        total = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[term[0]](total, int(term[1:]))
    return total


def calculate_step(expression: str) -> int:
    """A step of a worked solution: one product first, then sums."""
    head, star, tail = expression.partition("*")
    if not star:
        return calculate(expression)
    factor, _, carry = tail.partition("+")
    return int(head) * int(factor) + int(carry or 0)


@given(SEEDS, LEVELS)
def test_the_answer_is_what_the_question_asks(seed, level):
    problem = math.make(Random(seed), level)
    assert problem.question.endswith("=?")
    assert int(problem.answer) == calculate(problem.question[:-2])


@given(SEEDS, LEVELS)
def test_every_step_of_a_worked_solution_is_true_and_it_scores(seed, level):
    problem = math.make(Random(seed), level)
    *steps, final = problem.worked.split(" ")
    assert final == f"#{problem.answer}"
    assert steps
    for left, right in (step.split("=") for step in steps):
        assert calculate_step(left) == int(right)
    verdict = math.score(Example("x", problem.question, problem.answer, "math", level), problem.worked)
    assert verdict.correct and verdict.formatted and verdict.correct_anyhow


@given(SEEDS, st.sampled_from([0, 1]))
def test_the_columns_of_a_worked_solution_spell_its_answer(seed, level):
    problem = math.make(Random(seed), level)
    assert int(spelled(problem)) == int(problem.answer)


@pytest.mark.parametrize("a,b", [(148, 257), (999, 1), (455, 545), (190, 810)])
def test_carries_and_borrows_run_through_several_columns(a, b):
    assert int(spelled(math._sum(a, b))) == a + b
    assert int(spelled(math._difference(a + b, b))) == a
    assert int(spelled(math._difference(a + b, a))) == b


def spelled(problem: math.Problem) -> str:
    """The last digit of every column's result, and the whole of the leftmost one."""
    results = [step.split("=")[1] for step in problem.worked.split(" ")[:-1]]
    return results[-1] + "".join(result[-1] for result in reversed(results[:-1]))


@given(SEEDS)
def test_the_order_of_the_summands_does_not_change_the_key(seed):
    problem = math.make(Random(seed), 0)
    a, b = problem.question[:-2].split("+")
    assert math._sum(int(b), int(a)).key == problem.key


@pytest.mark.parametrize(
    "level,pattern", [(0, r"\d\d\+\d\d"), (1, r"\d{3}[+-]\d{3}"), (2, r"\d\d\*\d"), (3, r"\d\d\+\d\d-\d\d")]
)
def test_levels_have_the_stated_shape(level, pattern):
    for seed in range(50):
        assert re.fullmatch(pattern + r"=\?", math.make(Random(seed), level).question)


@pytest.mark.parametrize(
    "text,status,formatted,anyhow",
    [
        ("2+0=2 3+1=4 #42", "correct", True, True),
        ("#### 42.00\n", "correct", True, True),
        ("\\boxed{42}", "correct", True, True),
        ("#42\nI am sure.", "correct", False, True),
        ("#42\nin 2 steps", "correct", False, True),
        ("it is 42", "unparsable", False, True),
        ("#41, or 42", "unparsable", False, True),
        ("#41", "wrong", True, False),
        ("#42#43", "wrong", True, False),
        ("#4 2", "unparsable", False, False),
        ("# 42 or 43", "unparsable", False, False),
        ("#4,2", "unparsable", False, False),
        ("#0042", "correct", True, True),
        ("#-42", "wrong", True, False),
        ("#٤٢", "unparsable", False, False),
        ("#４２", "unparsable", False, False),
        ("#42e0", "unparsable", False, False),
        ("#21*2", "unparsable", False, False),
        ("# the answer", "unparsable", False, False),
        ("", "unparsable", False, False),
        ("#42" + "x" * 200_000, "unparsable", False, False),
    ],
)
def test_verdicts(text, status, formatted, anyhow):
    verdict = math.score_number("42", text)
    assert (verdict.status, verdict.formatted, verdict.correct_anyhow) == (status, formatted, anyhow)


def test_a_gold_that_is_no_number_is_the_callers_mistake():
    with pytest.raises(ValueError, match="'forty' is not a number"):
        math.score_number("forty", "#40")
