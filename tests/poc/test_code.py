"""The code domain: golds pass, others' do not, lazy answers fail, and rows of the public sets become tests.

Golds by the thousand go through the sandbox in batches, one start for many: the program is then this file's own.
"""

import hashlib
import json
import re
import time
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.records import Example, InputError
from poc.scoring import sandbox
from poc.tasks import code
from poc.tasks.answers import Reading

needs = pytest.mark.skipif(sandbox.level() == "none", reason=f"no sandbox here: {sandbox.why_not()}")
LEVELS = pytest.mark.parametrize("level", code.LEVELS)
PINNED = {
    0: "dbfc87db0cefd52e",
    1: "869b63e01e2164d1",
    2: "3f00bf63d236f8c1",
    3: "d44a7d51f424354b",
}  # made by another process
BATCH = """
def call(source, x):
    names = {}
    if source.startswith("def "):
        exec(source, names)
        return names["f"](x)
    return eval(source, {"x": x})
def f(items):
    return [[call(source, x) for x in inputs] for source, inputs in items]
"""
GIVEN = {  # inputs far beyond the tests, on which two functions that both pass must agree
    "x": [*range(-40, 41)],
    "n": [*range(1, 100)],
    "items": [[x, y] for x in range(-15, 27, 3) for y in range(-14, 27, 3)],
    "text": ["abcdefghijklmnopqrstuvwxyz", "river stone cloud tiger moon a be", "zyx", "aeiou", "kite", ""],
}


@cache
def drawn(level: int, count: int = 1000) -> list[tuple[Example, code.Problem, str]]:
    found = []
    for i in range(count):
        example, key = tasks.draw("code", 7, i, level)
        found.append((example, code.make(Random(f"code/7/{level}/{i}"), level), key))
    return found


def outputs(items: list) -> list:
    """What every (source, inputs) gives, many to a sandbox."""
    found = []
    for start in range(0, len(items), 50):
        done = sandbox.run(BATCH, "f", [[items[start : start + 50]]], sandbox.Limits(seconds=20))
        assert done.status == "ok", done
        found += done.outputs[0]
    return found


def hidden(example: Example) -> list:
    return json.loads(example.check)["tests"]


@needs
@LEVELS
def test_a_thousand_golds_are_right(level):
    items = [(example.answer, [x for (x,), _ in hidden(example)]) for example, _, _ in drawn(level)]
    for (example, problem, _), found in zip(drawn(level), outputs(items), strict=True):
        assert sandbox.same(found, [y for _, y in hidden(example)]), example
        assert code.read(example.question, problem.worked) == Reading(
            "".join(example.answer.split()) if level == 0 else example.answer, True
        )
        assert len(problem.worked) < code.max_new_tokens(level)


@needs
@LEVELS
def test_worked_solutions_score_correct(level):
    for example, problem, _ in drawn(level)[:25]:
        verdict = code.score(example, problem.worked)
        assert (verdict.status, verdict.formatted, verdict.correct_anyhow) == ("correct", True, True)


@LEVELS
def test_drawing_is_fixed_and_mostly_without_repeats(level):
    examples = [example for example, _, _ in drawn(level)]
    assert hashlib.sha256(tasks.fingerprint(examples[:300]).encode()).hexdigest()[:16] == PINNED[level]
    assert len({e.question for e in examples}) >= (750 if level == 0 else 900)
    assert len({key for _, _, key in drawn(level)}) >= (550 if level == 0 else 880)


@LEVELS
def test_every_split_is_large_enough(level):
    for split, count in (("holdout", 256), ("canary", 64)):
        assert len(tasks.generate("code", level, split, count, 0)) == count


@LEVELS
def test_tests_are_eight_with_five_outputs(level):
    for example, _, _ in drawn(level):
        tests = hidden(example)
        assert len(tests) == 8
        assert len({json.dumps(y) for _, y in tests}) >= 5
        assert len({json.dumps(x) for x, _ in tests}) >= 7


@needs
@LEVELS
def test_others_golds_fail_unless_they_are_the_same_function(level):
    chosen = [example for example, _, _ in drawn(level)[:50]]
    pairs = [(a, b) for a in chosen for b in chosen if a is not b and argument(a) == argument(b)]
    given = outputs_or_error([(b.answer, [x for (x,), _ in hidden(a)]) for a, b in pairs])
    passed = [pair for pair, found in zip(pairs, given, strict=True) if found == [y for _, y in hidden(pair[0])]]
    for a, b in passed:
        wide = GIVEN[argument(a)]
        assert outputs_or_error([(a.answer, wide)]) == outputs_or_error([(b.answer, wide)]), (a, b)
    assert len(passed) <= 20


def argument(example: Example) -> str:
    return re.search(r"def f\((\w+)\)|(x)", example.answer).group(1) or "x"


def outputs_or_error(items: list) -> list:
    """Like `outputs`; a function that fails on an input gives that as its output (words given to a letters' one)."""
    guarded = BATCH.replace("call(source, x) for x", "safe(source, x) for x") + (
        "def safe(source, x):\n    try: return call(source, x)\n    except Exception as e: return type(e).__name__\n"
    )
    found = []
    for start in range(0, len(items), 50):
        found += sandbox.run(guarded, "f", [[items[start : start + 50]]], sandbox.Limits(seconds=20)).outputs[0]
    return found


def near_misses(source: str) -> set[str]:
    """The gold with one number one off, a comparison turned around, a condition dropped, an order changed."""
    found = set()
    for match in re.finditer(r"(?<![\w'])\d+", source):
        found |= {source[: match.start()] + str(int(match[0]) + d) + source[match.end() :] for d in (1, -1)}
    for old, new in ((" < ", " >= "), (" > ", " <= "), (" == ", " != "), ("sorted(found)", "found[::-1]")):
        found.add(source.replace(old, new))
    return found - {source}


@needs
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_near_misses_fail_nearly_always(level):
    items, wanted = [], []
    for example, _, _ in drawn(level)[:60]:
        tests = hidden(example)
        for source in sorted(near_misses(example.answer)):
            if "% 0" in source or "// 0" in source or "while" in source:  # the loops may become endless
                continue
            items.append((source, [x for (x,), _ in tests]))
            wanted.append([y for _, y in tests])
    passed = sum(found == y for found, y in zip(outputs_or_error(items), wanted, strict=True))
    assert len(items) > 200 and passed <= 0.06 * len(items), (passed, len(items))


@needs
@LEVELS
def test_lazy_answers_fail(level):
    for example, _, _ in drawn(level)[:6]:
        first, second = hidden(example)[0], hidden(example)[1]
        name = argument(example)
        table = f"{{{first[0][0]!r}: {first[1]!r}, {second[0][0]!r}: {second[1]!r}}}.get(x, 0)" if name in "xn" else "0"
        for lazy in ("0", "x", "x*x", repr(first[1]), table, "None"):
            text = f"#{lazy}" if level == 0 else f"```python\ndef f(x):\n    return {lazy}\n```"
            assert code.score(example, text).status == "wrong", (lazy, example)


EXPRESSION = Example(
    "e",
    "f(x): add 7, times 2, subtract 3",
    "(x+7)*2-3",
    "code",
    0,
    json.dumps({"tests": [[[x], (x + 7) * 2 - 3] for x in code.INPUTS]}),
)
DOUBLE = {"entry": "f", "tests": [[[x], 2 * x] for x in (1, 2, 3, -4, 5)]}
FUNCTION = Example("f", "Write f(n): twice n.\ndef f(n):", "def f(n):\n    return 2 * n", "code", 1, json.dumps(DOUBLE))
PIECES = ("```", "#", "def f(n):", "\n", "<answer>", "</answer>", "\\boxed{", "x", "python")


@needs
@pytest.mark.parametrize(
    "text, status",
    [
        ("#(x+7)*2-3", "correct"),
        ("# 2*x + 11", "correct"),
        ("so \\boxed{(x + 7) * 2 - 3}.", "correct"),
        ("<answer>11+x+x</answer>", "correct"),
        ("#f(x) = 2*x+11", "correct"),
        ("```python\n2*x+11\n```", "correct"),
        ("```2*x+11```", "correct"),
        ("#(x+7)*2", "wrong"),
        ("#(x+7)*2-3.0", "wrong"),
        ("#(x+7)*2-3 or x", "unparsable"),
        ("#(x+7)*2-3, x", "wrong"),
        ("#(x+7)*2-3; x", "unparsable"),
        ("#x = 3", "unparsable"),
        ("#lambda x: (x+7)*2-3", "wrong"),
        ("The answer is (x+7)*2-3", "unparsable"),
        ("(x+7)*2-3", "unparsable"),
        ("", "unparsable"),
        ("#", "unparsable"),
        (":", "unparsable"),
        ("Thought process:", "unparsable"),
        ("f(x): add 7, times 2, subtract 3", "unparsable"),
        ("#" + "9" * 400, "wrong"),
        ("#" + "(" * 400, "unparsable"),
        ("#" + "x+" * 100_000 + "x", "unparsable"),
        ("#__import__('sys').exit(0)", "wrong"),
        ("#(x+7)*2-3\0", "unparsable"),
        ("#[c for c in ().__class__.__base__.__subclasses__()]", "wrong"),
    ],
)
def test_expressions(text, status):
    verdict = code.score(EXPRESSION, text)
    assert verdict.status == status
    assert (verdict.answer is None) == (status == "unparsable")
    assert verdict.answer == code.read(EXPRESSION.question, text).answer


@needs
@pytest.mark.parametrize(
    "text, status, formatted",
    [
        ("```python\ndef f(n):\n    return n + n\n```", "correct", True),
        ("```\ndef f(n): return 0\n```\nno:\n```py\ndef f(n):\n    # 2\n    return n * 2\n```\n", "correct", True),
        ("```python\ndef f(n): return 2*n\n```\nThat is it.", "correct", False),
        ("<answer>\ndef f(n):\n    return 2 * n  # twice\n</answer>", "correct", True),
        ("#def f(n):\n    return 2 * n", "correct", True),
        ("```python\ndef f(n): return 2*n\n```\n```python\ndef f(n): return 0\n```", "wrong", True),
        ("```python\nfrom math import *\ndef g(n): return 2 * n\ndef f(n): return g(n)\n```", "correct", True),
        ("```python\ndef g(n): return 2 * n\n```", "wrong", True),
        ("```python\ndef f(n): return 2.0 * n\n```", "wrong", True),
        ("```python\ndef f(n):\n  return 2 * n", "unparsable", False),
        ("def f(n):\n    return 2 * n", "unparsable", False),
        ("```python\n2 * n\n```", "unparsable", False),
        ("#lambda n: 2 * n", "unparsable", False),
        ("Write f(n): twice n.\ndef f(n):", "unparsable", False),
        ("```python\ndef f(n): print(2 * n)\n```", "wrong", True),
        ("```python\ndef f(n): return 2 * int(input())\n```", "wrong", True),
    ],
)  # fmt: skip
def test_functions(text, status, formatted):
    verdict = code.score(FUNCTION, text)
    assert (verdict.status, verdict.formatted) == (status, formatted)
    reading = code.read(FUNCTION.question, text)
    assert (verdict.answer, verdict.formatted) == reading


@needs
def test_right_anyhow():
    assert code.score(EXPRESSION, "it is (x+7)*2-3").correct_anyhow
    assert code.score(FUNCTION, "Sure!\ndef f(n):\n    return n * 2\n\nThat doubles it.").correct_anyhow
    assert not code.score(FUNCTION, "Sure!\ndef f(n):\n    return n * 3\n").correct_anyhow
    assert not code.score(FUNCTION, "no idea").correct_anyhow


@needs
def test_an_endless_answer_is_a_timeout(monkeypatch):
    monkeypatch.setattr(sandbox, "LIMITS", sandbox.Limits(seconds=0.3))
    assert code.score(EXPRESSION, "#[0 for _ in iter(int, 1)]").status == "timeout"
    assert code.score(FUNCTION, "```python\ndef f(n):\n    while 1: pass\n```").status == "timeout"


def test_without_a_sandbox_it_refuses_but_still_reads(monkeypatch):
    monkeypatch.setattr(sandbox, "level", lambda: "none")
    with pytest.raises(InputError, match="install bubblewrap"):
        code.score(EXPRESSION, "#x + 987654")
    assert code.read(EXPRESSION.question, "#x + 1") == Reading("x+1", True)
    assert code.score(EXPRESSION, "").status == "unparsable"


def test_a_failing_sandbox_is_no_verdict(monkeypatch):
    def broken(*_):
        raise RuntimeError("the sandbox did not start")

    monkeypatch.setattr(sandbox, "run", broken)
    with pytest.raises(RuntimeError):
        code.score(EXPRESSION, "#x")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_reading_never_raises_and_is_its_own_spelling(text):
    for example in (EXPRESSION, FUNCTION):
        reading = code.read(example.question, text)
        assert reading.answer is None or reading.answer.strip()
        if example is FUNCTION and reading.answer and "```" not in reading.answer:
            assert code.read(example.question, f"```python\n{reading.answer}\n```").answer == reading.answer


@pytest.mark.parametrize(
    "text",
    ["```" * 6000, "#" * 20_000, "<answer>" * 2500, "\ndef f(" * 3000, " " * 20_000, "f(x)" + " " * 19_000 + "="],
)
def test_reading_is_linear(text):
    began = time.perf_counter()
    for example in (EXPRESSION, FUNCTION):
        code.read(example.question, text * 10)
    assert time.perf_counter() - began < 0.5


MBPP = {
    "task_id": 9001,
    "text": "Write a function to add the ends of a tuple.",
    "code": "def ends(t, k=0):\n    return t[0] + t[-1]",
    "test_list": [
        "assert ends((1, 2, 3)) == 4",
        "assert ends((2.5, 1)) == 3.5",
        'assert ends(("a", "b"), 1) == "ab", "joined"',
    ],
    "test_setup_code": "",
    "challenge_test_list": ["assert ends((True, 1)) == 2"],
}
HUMANEVAL = {
    "task_id": "HumanEval/9001",
    "prompt": 'from typing import List\n\ndef mean(values: List[float]):\n    """The mean: of [1, 3] it is 2.0."""\n',
    "canonical_solution": "    return sum(values) / len(values)\n",
    "test": "\n\nMETADATA = {'author': 'x'}\n\n\ndef check(candidate):\n    assert candidate([1, 3]) == 2.0\n"
    "    assert abs(candidate([0.1, 0.2]) - 0.15) < 1e-6\n    assert candidate([7]), 'one'\n"
    "    assert not candidate([0])\n    assert True\n",
    "entry_point": "mean",
}


def example_of(problem) -> Example:
    return Example("row", problem.question, problem.answer, "code", 1, problem.check)


def fenced(source: str) -> str:
    return f"```python\n{source}\n```"


@needs
def test_an_mbpp_row():
    problem = code.mbpp(MBPP)
    assert problem.question.endswith("For example: assert ends((1, 2, 3)) == 4\ndef ends(t, k=0):")
    assert (problem.key, problem.worked) == (problem.question, "")
    row = example_of(problem)
    assert len(hidden(row)) == 4
    assert code.score(row, fenced(problem.answer)).status == "correct"
    assert code.score(row, fenced("def ends(t, k=0): return t[0]")).status == "wrong"
    assert code.mbpp({**MBPP, "text": None, "prompt": "Add."}).question.startswith("Add.")


@needs
def test_a_humaneval_row():
    problem = code.humaneval(HUMANEVAL)
    row = example_of(problem)
    assert [rule for _, _, rule in hidden(row)] == ["==", {"abs": 1e-6}, "bool", "bool"]
    assert code.score(row, fenced(problem.answer)).status == "correct"
    assert (
        code.score(row, fenced("def mean(values: List[float]) -> float:\n    return sum(values) / len(values)")).status
        == "correct"
    )
    assert code.score(row, fenced("def mean(values):\n    return 2.0")).status == "wrong"
    assert code.score(row, fenced("def other(values):\n    return 2.0")).status == "wrong"


@needs
@pytest.mark.parametrize(
    "test, right, wrong",
    [
        ("assert f(2) == 4", ["4", "4.0"], ["5", "'4'", "None"]),
        ("assert f(2) == True", ["True", "1"], ["False", "2"]),
        ("assert f(2) == [1, 2]", ["[1, 2]"], ["(1, 2)", "[2, 1]"]),
        ("assert f(2) == (1, 2)", ["(1, 2)"], ["[1, 2]"]),
        ("assert f(2) == {1: 'a', 'b': {2, 3}}", ["{'b': {3, 2}, 1: 'a'}"], ["{1: 'a'}"]),
        ("assert f(2) is True", ["True"], ["1", "'True'"]),
        ("assert f(2) is None", ["None"], ["0", "False"]),
        ("assert f(2)", ["True", "1", "[0]"], ["0", "''", "None"]),
        ("assert not f(2)", ["False", "0", "[]"], ["1", "[0]"]),
        (
            "assert abs(f(2) - 0.3) < 1e-6",
            ["0.1 + 0.2", "0.3000001"],
            ["0.31", "'0.3'", "None", "float('nan')", "10**999"],
        ),
        ("assert math.isclose(f(2), 10, rel_tol=0.1)", ["10.5", "10"], ["12", "None", "[10]"]),
        ("assert f(2) == -1.5", ["-1.5"], ["1.5"]),
        ("assert f(2) == set()", ["set()"], ["[]", "{}"]),
    ],
)
def test_what_a_test_in_a_row_asks(test, right, wrong):
    row = example_of(code.mbpp({**MBPP, "code": "def f(x): pass", "test_list": [test], "challenge_test_list": []}))
    for status, sources in (("correct", right), ("wrong", wrong)):
        for source in sources:
            assert code.score(row, fenced(f"def f(x):\n    return {source}")).status == status, source


@pytest.mark.parametrize(
    "test, said",
    [
        ("assert f(g(2)) == 4", "line 1"),
        ("assert f(2) == g(4)", "line 1"),
        ("assert f(2) > 4", "line 1"),
        ("assert sorted(f(2)) == [4]", "line 1"),
        ("assert f(x=2) == 4", "line 1"),
        ("assert f(*[2]) == 4", "line 1"),
        ("for i in range(3): assert f(i) == i", "line 1"),
        ("import os", "line 1"),
        ("assert f(2) == __import__('os').getpid()", "line 1"),
        ("assert abs(f(2) - 'a') < 1", "line 1"),
        ("assert f(2) == 1 == 1", "line 1"),
        ("assert f(2) == " + "9" * 3000, "line 1"),
        ("assert (", "not Python"),
        ("assert f(2) == " + "-" * 20000 + "1", "not Python"),
        ("assert f(2) == " + "[" * 5000, "not Python"),
        ("x" * 100_001, "at most"),
        ("assert True", "nothing"),
    ],
)
def test_a_row_that_cannot_be_turned_says_which_line(test, said):
    with pytest.raises(ValueError, match=said):
        code.mbpp({**MBPP, "code": "def f(x): pass", "test_list": [test], "challenge_test_list": []})
    body = "\n".join(f"    {line}" for line in test.split("\n"))
    with pytest.raises(ValueError):
        code.humaneval({**HUMANEVAL, "entry_point": "f", "test": f"def check(f):\n{body}\n"})


@pytest.mark.parametrize("column", ["prompt", "canonical_solution", "test", "entry_point"])
def test_a_row_without_a_column_says_so(column):
    for value in (None, "", 3):
        with pytest.raises(ValueError, match=column):
            code.humaneval({**HUMANEVAL, column: value})


def test_rows_that_do_not_fit_together():
    with pytest.raises(ValueError, match="one function"):
        code.mbpp({**MBPP, "test_list": ["assert f(1) == 1", "assert g(1) == 1"]})
    with pytest.raises(ValueError, match="does not define"):
        code.mbpp({**MBPP, "code": "def other(): pass"})
    with pytest.raises(ValueError, match="test_list"):
        code.mbpp({**MBPP, "test_list": "assert f(1) == 1"})
    with pytest.raises(ValueError, match="calls 'sum'"):
        code.humaneval({**HUMANEVAL, "test": "def check(candidate):\n    assert sum([1]) == 1\n"})


def test_the_first_eight_tests_of_a_row_count():
    tests = [f"assert ends(({i}, 1)) == {i + 1}" for i in range(12)]
    assert [t[0][0]["tuple"][0] for t in hidden(example_of(code.mbpp({**MBPP, "test_list": tests})))] == [*range(8)]


@needs
def test_a_row_s_setup_runs_first():
    given = {"test_setup_code": "import math\nK = 3", "code": "def f(x): return K * x", "challenge_test_list": []}
    row = {**MBPP, **given, "test_list": ["assert f(2) == 6"]}
    assert code.score(example_of(code.mbpp(row)), fenced("def f(x): return math.floor(K * x)")).status == "correct"


def test_the_interface():
    assert len(code.DESCRIPTIONS) == len(code.LEVELS) == 4
    assert code.OWN_PROCESS(EXPRESSION) is True
    assert code.max_new_tokens(0) == 48
    assert code.instruction(0) == code.INSTRUCTION and "```" in code.instruction(2)
