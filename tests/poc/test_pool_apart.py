"""The breaker of the domains whose score() hands completions to processes of its own: programs, and formulas."""

import time

import pytest

from poc import tasks
from poc.records import Example
from poc.scoring import math_equality, pool, sandbox
from poc.scoring.pool import grade

BOXED = pytest.mark.skipif(sandbox.level() == "none", reason="no sandbox on this machine: see poc doctor")


def statuses(examples, texts, **options):
    return [grade.verdict.status for grade in grade(examples, texts, **options)]


@BOXED
def test_programs_that_never_end_cost_little_and_good_ones_beside_them_are_right():
    example = tasks.generate("code", 0, "train", 1, 0)[0]
    loops = [f"#sum(iter(int, 1)) + {i}" for i in range(40)]
    good = [f"#{example.answer}", f"#({example.answer})", f"#{example.answer}+0"]
    began = time.monotonic()
    found = statuses([example] * 43, [*loops[:20], *good, *loops[20:]], limit=2.0, budget=1.0)
    seconds = time.monotonic() - began
    assert found[20:23] == ["correct"] * 3 and found[:20] + found[23:] == ["timeout"] * 40
    assert seconds < 0.5 * 40 * 2.0 / pool.THREADS  # half of what it takes without a breaker


@BOXED
def test_one_slow_program_gets_the_whole_time():
    example = tasks.generate("code", 0, "train", 1, 0)[0]
    slow = f"#[{example.answer} for i in range(3 * 10**6)][0]"
    quick = f"#{example.answer}"
    assert statuses([example] * 2, [slow, quick], budget=0.0) == ["correct", "correct"]


def hostile(monkeypatch, deadly):
    """math_equality whose worker hangs on some answers: no formula that hangs for sure is known."""
    asked = []

    def reply(request, timeout):
        asked.append(request["a"])
        if deadly in request["a"] or deadly in request.get("b", ""):
            math_equality._TIMEOUTS.count = math_equality.timeouts() + 1
            return False
        return True

    monkeypatch.setattr(math_equality, "_reply", reply)
    return asked


def test_formulas_that_take_too_long_are_looked_at_a_few_times_only(monkeypatch):
    asked = hostile(monkeypatch, "!")
    example = Example("m", "What is it?", "\\frac{1}{2}", "math")
    found = statuses([example] * 40, [f"#{i}!!" for i in range(40)])
    assert found == ["timeout"] * 40
    assert len([a for a in asked if "!" in a]) <= 8 + pool.THREADS


def test_a_few_late_formulas_stop_nobody(monkeypatch):
    hostile(monkeypatch, "!")
    example = Example("m", "What is it?", "\\frac{1}{2}", "math")
    found = statuses([example] * 12, ["#1!!", "#2!!", *[f"#\\frac{{{i}}}{{{2 * i}}}" for i in range(2, 12)]])
    assert found == ["timeout"] * 2 + ["correct"] * 10
