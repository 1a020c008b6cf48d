"""What every domain promises at every level: golds that score, questions that differ, the same for the same seed."""

import hashlib
import importlib.util
import subprocess
import sys
from random import Random

import pytest

from poc import tasks
from poc.records import Example

DRAWS = 1000
# Different questions among the first 1,000 draws of seed 0, at least.
UNIQUE = {
    "math": (900, 950, 500, 950, 950, 950),
    "code": (750, 950, 900, 920),
    "science": (880, 980, 980, 980, 980),
    "logic": (900, 950, 950, 950, 950, 950, 950, 950, 950, 950, 950, 950, 950),
    "simulation": (950, 950, 950, 950, 950),
    "table": (950, 980, 980, 980),
}
GENERATED = importlib.util.find_spec("reasoning_gym") is not None
KINDS = [
    pytest.param(d, n, marks=[pytest.mark.skipif(d == "math" and n > 3 and not GENERATED, reason="no reasoning-gym")])
    for d, module in tasks.DOMAINS.items()
    for n in module.LEVELS
]


def problems(domain, level, count, seed=0):
    return [tasks.DOMAINS[domain].make(Random(f"{domain}/{seed}/{level}/{i}"), level) for i in range(count)]


def example(problem, domain, level):
    return Example("x", problem.question, problem.answer, domain, level, problem.check)


@pytest.mark.parametrize("domain, level", KINDS)
def test_golds_score_and_questions_differ(domain, level):
    drawn = problems(domain, level, DRAWS)
    assert len({p.question for p in drawn}) >= UNIQUE[domain][level]
    for p in drawn if domain != "code" else ():  # those go through the sandbox: tests/poc/test_code.py
        asked = example(p, domain, level)
        reading = tasks.read(asked, p.worked)
        assert tasks.score(asked, p.worked).correct and reading.answer is not None and reading.formatted, p


@pytest.mark.parametrize("domain, level", KINDS)
def test_the_gold_of_another_question_passes_only_as_the_same_answer(domain, level):
    """Where another way of being right exists (an input, a program), the domain's own tests prove it right."""
    drawn = problems(domain, level, 30, seed=1)
    if domain == "code" or (domain, level) == ("simulation", 4):
        pytest.skip("judged by what it does: see the domain's own tests")
    for p in drawn:
        asked = example(p, domain, level)
        for other in drawn:
            if tasks.score(asked, f"#{other.answer}").correct:
                tolerance = domain == "science"  # 1 % of another number
                same = tasks.read(asked, f"#{other.answer}").answer == tasks.read(asked, f"#{p.answer}").answer
                assert same or tolerance, (p.answer, other.answer)


def test_another_process_draws_the_same_questions():
    code = (
        "import hashlib; from poc import tasks\n"
        "print(hashlib.sha256(repr([tasks.draw(d, 3, i, 0) for d in tasks.DOMAINS for i in range(50)]).encode())"
        ".hexdigest())"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
                       capture_output=True, text=True, check=True).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    drawn = [tasks.draw(d, 3, i, 0) for d in tasks.DOMAINS for i in range(50)]
    assert outputs == {hashlib.sha256(repr(drawn).encode()).hexdigest()}
