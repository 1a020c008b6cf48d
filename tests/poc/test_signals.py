"""Loops and foreign letters, by hand and on ordinary text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poc.signals import foreign, repetition

SUMS = "27 + 35 : 20 + 30 = 50 , 7 + 5 = 12 , 50 + 12 = 62 # 62"
PROSE = (
    "She buys three apples and two pears. Each apple costs two coins and each pear costs three coins, so the apples "
    "cost six coins and the pears cost six coins. Together she pays twelve coins. The answer is 12."
)
CODE = """def add(xs):
    total = 0
    for x in xs:
        if x > 0:
            total = total + x
        else:
            total = total - x
    return total
"""


def words(text):
    ids = {}
    return [ids.setdefault(word, len(ids)) for word in re.findall(r"\w+|[^\w\s]|\s+", text)]


@pytest.mark.parametrize(
    "ids, share",
    [
        ([], 0.0),
        ([7], 0.0),
        ([7] * 5, 0.0),  # 77777 may be a number
        ([7] * 6, 1.0),
        ([1, 2] * 3, 0.0),
        ([1, 2] * 3 + [1], 1.0),
        ([1, 2, 3] * 3, 1.0),
        ([1, 2, 3] * 2, 0.0),  # twice is no loop
        ([*range(10, 19), *[1, 2, 3] * 3], 0.5),
        ([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 0.0),
        (list(range(64)) * 3, 1.0),
        (list(range(65)) * 3, 0.0),  # a longer phrase is not looked for
    ],
)
def test_repetition_by_hand(ids, share):
    assert repetition(ids) == share


@pytest.mark.parametrize("text", [SUMS, PROSE, CODE])
def test_ordinary_text_does_not_repeat(text):
    assert repetition(words(text)) == repetition(list(text.replace("    ", "\t").encode())) == 0.0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(10, 20), st.lists(st.integers(6, 9)))
def test_a_loop_is_found_wherever_it_starts(phrase, copies, before):
    loop = phrase * copies
    assert repetition([*before, *loop]) >= len(loop) / len([*before, *loop])


def test_foreign_by_hand():
    assert foreign(["abc где"], ["What?"]) == 0.5
    assert foreign(["abc где"], ["What?", "что"]) == 0.0  # any question makes a script known
    assert foreign(["12 + 3 = 15", ""], ["What?"]) == 0.0
    assert foreign(["abc"], ["12 + 3"]) == 0.0  # no letters to compare with
    assert foreign(["答え is ab"], ["What?"]) == pytest.approx(2 / 6)
    assert foreign(["ab", "где", "x"], ["q"]) == 0.5  # of all letters, not a mean over texts


def test_compatibility_forms_are_no_script_of_their_own():
    assert foreign(["𝐱 + ａ = 𝒚ᵗʰ", "naïve É"], ["x?"]) == 0.0
