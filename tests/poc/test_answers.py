"""Reading answers out of hostile text: tables of good and bad, and a time limit."""

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poc.records import Example
from poc.tasks import logic, math, own
from poc.tasks.answers import last_number, marked_answer, normalise, parse_number

HOSTILE = [
    "",
    "#",
    "####",
    "#" * 200_000,
    "# " * 100_000,
    "9" * 200_000,
    "1," * 100_000,
    "1." * 100_000,
    "1e" * 100_000,
    "-" * 200_000,
    "\n" * 200_000,
    "{" * 200_000,
    "\\boxed{" * 40_000,
    "\\boxed{" + "{" * 200_000,
    "\\boxed{" + "{}" * 100_000,
    "#\\text{" + "{" * 19_000,
    "#" + "\u0315\u0300" * 100_000,
    "#" + "\u0315\u0300" * 500,
    "Ann knight, " * 20_000,
    "#" + "Ann is a " * 20_000,
    "#" + "(1) " * 20_000,
    "A" * 200_000,
    "٣",
    "１２",
    "1e9",
    "#1e999999999",
    "inf",
    "#nan",
    "9**9**9",
    "#9**9**9",
    "#__import__('os').system('true')",
    "# 42 or 43",
    "#42#43",
    "\\boxed{\\boxed{3}}",
    "\\boxed{",
    "\\boxed{3",
    "\0#\0",
    "#\ud800",
    "\u202e#24",
]
EXAMPLES = [
    (math.score, Example("m", "3+39=?", "42", "math")),
    (logic.score, Example("l", "?", "Ann knight, Bob knave", "logic")),
    (own.score, Example("o", "?", "42", "own")),
    (own.score, Example("o", "?", "New York", "own")),
    (own.score, Example("o", "?", "C#", "own")),
    (own.score, Example("o", "?", "a\nb", "own")),
]


@pytest.mark.parametrize("scorer,example", EXAMPLES, ids=lambda x: getattr(x, "answer", None))
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{ascii(text[:12])}x{len(text)}")
def test_hostile_text_is_scored_at_once_and_never_right(scorer, example, text):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        verdict = scorer(example, text)
        seconds.append(time.perf_counter() - start)
    assert not verdict.correct
    assert min(seconds) < 0.05  # measured below 0.005 on an idle core


@given(st.text())
def test_no_text_raises(text):
    for scorer, example in EXAMPLES:
        verdict = scorer(example, text)
        assert verdict.correct_anyhow or not verdict.correct


@given(st.text(alphabet="#\\boxed{}0123456789.,-+eE$ \nknightveABa", max_size=80))
def test_no_answer_like_text_raises(text):
    for scorer, example in EXAMPLES:
        verdict = scorer(example, text)
        assert verdict.correct_anyhow or not verdict.correct


@pytest.mark.parametrize(
    "text,answer,last",
    [
        ("6*7=42 #42\n", "42", True),
        ("so\n#### 18", "18", True),
        ("# 42 or 43", "42 or 43", True),
        ("#42#43", "43", True),
        ("#42\nas shown", "42", False),
        ("#", "", True),
        ("####", "", True),
        ("no mark", None, False),
        ("$\\boxed{42}$.", "42", True),
        ("\\boxed{42} is it", "42", False),
        ("\\boxed{\\boxed{3}}", "3", True),
        ("\\boxed{a{b}c}", "a{b}c", True),
        ("\\boxed{3", None, False),
        ("# 1\n\\boxed{2}", "2", True),
        ("\\boxed{2}\n# 1", "1", True),
        ("**#42**", "42", True),
        ("\\boxed{\\text{Yes}}", "Yes", True),
    ],
)
def test_marked_answer(text, answer, last):
    assert marked_answer(text) == (answer, last)


def test_a_marked_answer_of_several_lines():
    assert marked_answer("# a\nb\nc", lines=2) == ("a\nb", False)
    assert marked_answer("# a\nb\n", lines=2) == ("a\nb", True)


@pytest.mark.parametrize(
    "text,number",
    [
        ("42", "42"), (" 42. ", "42"), ("-7", "-7"), ("−7", "-7"), ("+3", "3"), ("007", "7"), (".5", "0.5"),
        ("5.0", "5"), ("$1,234.50", "1234.5"), ("-$5", "-5"), ("$-5", "-5"), ("\\$5", "5"), ("50%", "50"),
        ("1,00,000", "100000"), ("2{,}000", None), ("1,2,3", None), ("12,34", None), ("3,14", None), ("42,", None),
        ("", None), (".", None), ("-", None), ("--1", None), ("1.2.3", None), ("1e9", None), ("inf", None),
        ("nan", None), ("1/2", None), ("9**9", None), ("42 43", None), ("42 or 43", None), ("0x2a", None),
        ("1_000", None), ("٣", None), ("１２", None), ("²", None), ("Ⅳ", None), ("9" * 65, None),
    ],
)  # fmt: skip
def test_parse_number(text, number):
    assert parse_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    "text,number",
    [
        ("it is 42, I think", "42"), ("x=-3", "-3"), ("5-3", "3"), ("costs $1,234.50.", "1234.5"), ("7 eggs", "7"),
        ("5kg", "5"), ("42 ٣", "42"), ("1e9", None), ("1.5e3", None), ("(1,2)", None), ("v1.5.2", None), ("٣", None),
        ("none", None),
    ],
)  # fmt: skip
def test_last_number(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_every_way_of_writing_a_number_is_read_as_that_number(value):
    for written in (f"{value}", f"{value:,}", f" {value}. ", f"{value}%", f"#{value}"[1:]):
        assert parse_number(written) == value
    assert last_number(f"after 7 steps it is {value:,}, surely") == value


def test_normalise():
    assert normalise("  New\n YORK. ") == "new york"
    assert normalise("Cafe\u0301") == normalise("Café")  # accent typed apart and together
    assert normalise("１２") != "12"
