"""Strict JSON: what is refused, what is equal, and that nothing hangs or raises anything but ValueError."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poc.tasks.strict_json import MAX_DEPTH, MAX_DIGITS, canonical, dump, parse, same

REFUSED = [
    "", " ", "nan", "NaN", "[NaN]", "Infinity", "-Infinity", "1e999", "[1e999]", "True", "None", "'a'", "{1: 2}",
    "[1,]",
    "[1] 2", "[1][1]", "1 or 2", '"a" or "b"', '{"a": 1, "a": 2}', '{"a": 1, "a": 1}', '[{"a": {"b": 1, "b": 1}}]',
    "[" * 100_000, "{" * 100_000, '{"a":' * 2_000, "[" * 17 + "]" * 17, "[" * 100 + "]" * 100, "9" * 100_000, "9" * 65,
    "-" + "1" * 5_000, "1e" + "9" * 100_000, "0." + "1" * 100_000, '"' + "a" * 200_000 + '"', '"' * 3, '"\\"' * 1_000,
    "01", "+1", ".5", "5.", "0x10", "1_000", "١", "１", '"a', '"\n"', "\ufeff1", "[1, 2", "//1", "[1] // one", "1;",
    "#1",
    "\0", "{}{}", "[]]", "undefined", "__import__('os')", "1**9", "(1, 2)", "{1, 2}", "b'a'", '"a" "b"', "[1 2]",
    '{"a"}',
]  # fmt: skip
DIFFERENT = [
    "true",
    "1",
    "1.0",
    '"1"',
    "[1]",
    '{"1": 1}',
    "null",
    "false",
    "0",
    '""',
    "[]",
    "{}",
    '"true"',
    "0.0",
    '" 1"',
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: f"{ascii(text[:12])}x{len(text)}")
def test_what_is_refused_is_refused_at_once(text):
    start = time.perf_counter()
    assert canonical(text) is None
    with pytest.raises(ValueError):
        parse(text)
    assert time.perf_counter() - start < 0.1


def test_types_are_exact():
    for i, one in enumerate(DIFFERENT):
        for j, other in enumerate(DIFFERENT):
            assert same(parse(one), parse(other)) is (i == j)
            assert (canonical(one) == canonical(other)) is (i == j)


@pytest.mark.parametrize(
    "one,other",
    [
        ("1.50", "1.5"), ("1e2", "100.0"), ("-0", "0"), ("-0.0", "0.0"), ('"\\u0061"', '"a"'), ("[1, 2]", " [1,2]\n"),
        ('{"a": 1, "b": [true]}', '{"b":[true],"a":1}'), ('"\\/"', '"/"'),
    ],
)  # fmt: skip
def test_spellings_of_one_value_are_equal(one, other):
    assert canonical(one) == canonical(other) is not None


def test_the_order_of_a_list_and_case_and_spaces_in_strings_matter():
    assert canonical("[1,2]") != canonical("[2,1]")
    assert len({canonical(text) for text in ('"a"', '"A"', '" a"', '"a."')}) == 4


def test_the_limits_are_where_they_are_said_to_be():
    assert canonical("[" * MAX_DEPTH + "]" * MAX_DEPTH) and not canonical("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    assert canonical("9" * MAX_DIGITS) and not canonical("9" * (MAX_DIGITS + 1))


@given(VALUES)
def test_what_is_written_is_read_back_with_its_types(value):
    assert same(parse(json.dumps(value, indent=1)), value + 0.0 if isinstance(value, float) else parse(dump(value)))
    assert canonical(dump(value)) == canonical(json.dumps(value, sort_keys=False, indent=2))


@given(st.text() | st.text(alphabet='[]{}":,0123456789.eE+-truefalsn\\ '))
def test_no_text_raises(text):
    found = canonical(text)
    assert found is None or canonical(found) == found
