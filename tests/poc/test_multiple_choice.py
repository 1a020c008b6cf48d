"""Multiple choice: rows of the published sets, and a table of marked letters."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc.records import Example, InputError
from poc.tasks import multiple_choice, science

GPQA = {
    "Question": "Which gas is lightest?",
    "Correct Answer": "hydrogen",
    "Incorrect Answer 1": "helium",
    "Incorrect Answer 2": "neon",
    "Incorrect Answer 3": "argon",
}
MMLU = {"question": "2+2?", "choices": ["3", "4", "5", "six"], "answer": 1}


def example(problem) -> Example:
    return Example("x", problem.question, problem.answer, "science", check=problem.check)


FOUR = example(multiple_choice.mmlu(MMLU))  # A) 3, B) 4, C) 5, D) six; the gold is B

CASES = [  # completion, verdict, formatted, right anyhow
    ("2+2=4 #B", "correct", True, True),
    ("#b", "correct", True, True),
    ("#(B)", "correct", True, True),
    ("#B)", "correct", True, True),
    ("#B.", "correct", True, True),
    ("# **B**", "correct", True, True),
    ("#### B", "correct", True, True),
    ("\\boxed{B}", "correct", True, True),
    ("\\boxed{\\text{B}}", "correct", True, True),
    ("\\boxed{\\textbf{(B)}}", "correct", True, True),
    ("$\\boxed{\\mathrm{B}}$.", "correct", True, True),
    ("<answer>B</answer>", "correct", True, True),
    ("<answer> B) 4 </answer>", "correct", True, True),
    ("#B) 4", "correct", True, True),
    ("#B: 4", "correct", True, True),
    ("#B\nbecause 2+2=4", "correct", False, True),
    ("#B #B", "correct", True, True),
    ("#A", "wrong", True, False),
    ("#D) six", "wrong", True, False),
    ("#D) SIX.", "wrong", True, False),
    ("#B) 5", "unparsable", False, True),  # the letter of one, the text of another
    ("#4", "unparsable", False, False),
    ("#A or B", "unparsable", False, True),
    ("#A, B, C, D", "unparsable", False, False),
    ("#ABCD", "unparsable", False, False),
    ("#A #B #C #D", "unparsable", False, False),
    ("#D #C #A #B", "unparsable", False, True),
    ("\\boxed{A} \\boxed{B}", "unparsable", False, True),
    ("<answer>A</answer><answer>B</answer>", "unparsable", False, True),
    ("#A) 3 B) 4 C) 5 D) six", "unparsable", False, False),
    ("#not B", "unparsable", False, True),
    ("#E", "unparsable", False, False),
    ("#X", "unparsable", False, False),
    ("The answer is B.", "unparsable", False, True),
    ("The answer is B, not C.", "unparsable", False, False),
    ("#В", "unparsable", False, False),  # a Cyrillic Ve
    ("#Ｂ", "unparsable", False, False),
    ("#", "unparsable", False, False),
    (":", "unparsable", False, False),
    ("Thought process:", "unparsable", False, False),
    ("", "unparsable", False, False),
    (FOUR.question, "unparsable", False, False),
    ("B" * 200_000, "unparsable", False, False),
    ("#B" + " B" * 100_000, "unparsable", False, True),
]


@pytest.mark.parametrize("text,status,formatted,anyhow", CASES)
def test_verdicts(text, status, formatted, anyhow):
    verdict = science.score(FOUR, text)
    assert (verdict.status, verdict.formatted, verdict.correct_anyhow) == (status, formatted, anyhow)
    reading = science.read(FOUR.question, text)
    assert (reading.answer is not None) == (status != "unparsable")
    assert reading.formatted == formatted and reading.answer in (None, *"ABCD")


def test_the_table_is_long_enough():
    assert len(CASES) >= 30


def test_a_row_of_gpqa():
    problem = multiple_choice.gpqa(GPQA)
    options = multiple_choice.choices(problem.question)
    assert sorted(options.values()) == ["argon", "helium", "hydrogen", "neon"]
    assert options[problem.answer] == "hydrogen" and problem.check == '{"choices": 4}'
    assert problem.question.startswith("Which gas is lightest?\nA) ")
    assert science.score(example(problem), problem.worked).correct


def test_the_place_of_the_right_option_says_nothing_and_never_changes():
    rows = [GPQA | {"Question": f"Which gas is number {i}?"} for i in range(2000)]
    places = Counter(multiple_choice.gpqa(row).answer for row in rows)
    assert all(420 < places[letter] < 580 for letter in "ABCD")  # 500 +- 4 standard deviations
    swapped = GPQA | {"Incorrect Answer 1": "neon", "Incorrect Answer 2": "helium"}
    assert multiple_choice.gpqa(swapped) == multiple_choice.gpqa(GPQA)


@pytest.mark.parametrize("answer", [1, "1", "B", " b "])
def test_rows_of_mmlu_keep_their_order(answer):
    problem = multiple_choice.mmlu(MMLU | {"answer": answer})
    assert problem.answer == "B"
    assert multiple_choice.choices(problem.question) == {"A": "3", "B": "4", "C": "5", "D": "six"}


def test_a_row_of_mmlu_pro_has_ten_options():
    row = {"question": "Which digit is 9?", "options": [str(i) for i in range(10)], "answer": "J", "answer_index": 9}
    problem = multiple_choice.mmlu(row)
    assert problem.answer == "J" and problem.question.count("\n") == 11
    assert science.score(example(problem), "#J").correct and science.score(example(problem), "#I").status == "wrong"
    assert multiple_choice.mmlu({**row, "options": '["a", "b"]', "answer": "A"}).answer == "A"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=10), st.text(min_size=1, max_size=30), st.data())
def test_no_option_can_forge_another(options, question, data):
    right = data.draw(st.integers(0, len(options) - 1))
    try:
        problem = multiple_choice.mmlu({"question": question, "choices": options, "answer": right})
    except InputError:
        return
    assert list(multiple_choice.choices(problem.question).values()) == [" ".join(o.split()) for o in options]
    golds = [x for x in "ABCDEFGHIJ" if science.score(example(problem), f"#{x}").correct]
    assert golds == [problem.answer] == ["ABCDEFGHIJ"[right]]


def test_options_in_the_question_itself_are_not_the_options():
    problem = multiple_choice.mmlu(MMLU | {"question": "Read:\nA) this\nB) that"})
    assert multiple_choice.choices(problem.question) == {"A": "3", "B": "4", "C": "5", "D": "six"}


def test_any_letter_is_right_one_time_in_four():
    rng = Random(0)
    rows = [GPQA | {"Question": f"Which gas is number {i}?"} for i in range(1000)]
    hits = sum(science.score(example(multiple_choice.gpqa(row)), f"#{rng.choice('ABCD')}").correct for row in rows)
    assert 190 < hits < 310
    assert not any(science.score(example(multiple_choice.gpqa(row)), "I cannot say").correct for row in rows)


@pytest.mark.parametrize(
    "make,row,message",
    [
        ("gpqa", {"Question": "?"}, "column 'Correct Answer' .* holds None: it needs a text"),
        ("gpqa", GPQA | {"Incorrect Answer 2": " "}, "column 'Incorrect Answer 2' .* holds ' '"),
        ("gpqa", GPQA | {"Incorrect Answer 2": "hydrogen"}, "the right option 'hydrogen' stands there twice"),
        ("mmlu", {}, "column 'question' .* holds None"),
        ("mmlu", MMLU | {"choices": "3, 4"}, "choices or options .* holds '3, 4': it needs a list"),
        ("mmlu", MMLU | {"choices": ["3"]}, "a list of 2 to 10"),
        ("mmlu", MMLU | {"choices": ["3", ""]}, "a text for each"),
        ("mmlu", MMLU | {"choices": list("abcdefghijk")}, "a list of 2 to 10"),
        ("mmlu", MMLU | {"answer": 4}, "holds 4: it needs a number from 0 to 3 or a letter from A to D"),
        ("mmlu", MMLU | {"answer": "E"}, "a letter from A to D"),
        ("mmlu", MMLU | {"answer": True}, "holds True"),
        ("mmlu", MMLU | {"answer": None}, "holds None"),
    ],
)
def test_a_row_that_is_not_so_is_refused_in_one_line(make, row, message):
    with pytest.raises(InputError, match=message) as error:
        getattr(multiple_choice, make)(row)
    assert "\n" not in str(error.value)


def test_a_gold_that_no_option_has_is_the_callers_mistake():
    with pytest.raises(ValueError, match="'Z' of x is not one of A, B, C, D"):
        science.score(Example("x", FOUR.question, "Z", "science"), "#A")
