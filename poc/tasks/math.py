"""Arithmetic, equations, word problems; and rows of GSM8K and MATH.

Level 0: a+b, two digits each; 1: a+b or a-b, three digits; 2: two digits times one; 3: a+b-c, two digits each; 4: a
linear equation; 5: a word problem (both by reasoning_gym, see poc.tasks.words).

At levels 0 to 3 the question is the bare sum ("37+58=?"), the answer an integer. A worked solution goes column by
column from the right, as the lab models learned it: "7+8=15 3+5+1=9 #95".

A gold that is a plain number is compared as one, exactly. Any other (MATH: \\frac{1}{2}, (1,2), x+1) is compared as a
mathematical object by poc.scoring.math_equality, in its own killable process; there a decimal of six right places
counts. An answer that is a chain of equations (1/3=1/2) is wrong where the gold is none: the comparison would take the
last side, and so any guess put before it. Text golds (Evelyn) are compared as text.
"""

import re
from random import Random
from typing import Any

from poc.config import DOMAIN_LEVELS
from poc.records import Example, InputError, Verdict
from poc.scoring import math_equality
from poc.tasks import words
from poc.tasks.answers import (
    MAX_TEXT,
    Reading,
    last_number,
    marked_answer,
    normalise,
    parse_number,
    read_number,
    says_something,
    spell,
)
from poc.tasks.problem import Problem
from poc.tasks.rows import show

NAME = "math"
LEVELS = range(DOMAIN_LEVELS[NAME])
DESCRIPTIONS = (
    "two-digit sums",
    "three-digit sums and differences",
    "two digits times one",
    "two-digit a+b-c",
    "linear equations",
    "word problems",
)
CLUSTER = "math"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Work it out, then end with # and the number."
MAX_NEW_TOKENS = 32  # enough for a worked solution, one token a character (lab models), at level 0
PATIENCE = 0.7  # seconds for parsing a LaTeX answer, and again for comparing it: with a new worker below 2 in all


LONGEST = {4: 96, 5: 768}  # characters of a worked solution, and the end token

_SUM = re.compile(r"[0-9]+(?:[+*-][0-9]+)+=\?")
_NAMED = re.compile(r" *[A-Za-z](?:\([A-Za-z]\))? *=")  # the "x =" of an answer
_CALCULATOR = re.compile(r"<<[^<>]*>>")  # annotations of GSM8K


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level` (0-5). Raises InputError at levels 4 and 5 where reasoning_gym is missing."""
    if level >= 4:
        return words.equation(rng) if level == 4 else words.story(rng)
    if level == 2:
        return _product(rng.randint(10, 99), rng.randint(2, 9))
    if level == 3:
        return _chain(rng.randint(10, 99), rng.randint(10, 99), rng.randint(10, 99))
    digits = 2 if level == 0 else 3
    a, b = rng.randint(10 ** (digits - 1), 10**digits - 1), rng.randint(10 ** (digits - 1), 10**digits - 1)
    if level == 1 and rng.random() < 0.5:
        return _difference(max(a, b), min(a, b))
    return _sum(a, b)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return LONGEST.get(level, MAX_NEW_TOKENS)


def OWN_PROCESS(example: Example) -> bool:
    """Whether `score` hands the comparison to a killable process of its own."""
    return parse_number(example.answer) is None


def score(example: Example, text: str) -> Verdict:
    """Compare the marked answer with the gold: number with number, else as mathematical objects."""
    return (_score_object if OWN_PROCESS(example) else score_number)(example.answer, text)


def read(question: str, text: str) -> Reading:
    """The marked number; or, where the question is none of those drawn here, any marked text that says something.

    Drawn questions are told by their form (a bare sum, or the last words of levels 4 and 5): their gold is a number,
    and so a text is no answer. Of a row of GSM8K or MATH only its gold knows that, which is not looked at.
    """
    number = read_number(text)
    if number.answer is not None or _SUM.fullmatch(question) or question.endswith(words.ENDING):
        return number
    marked, last = marked_answer(text)
    return Reading(marked, last) if marked and says_something(marked) else number


def gsm8k(values: dict[str, Any]) -> Problem:
    """A row of GSM8K: question, and answer, a worked solution that ends in "#### 72"; the gold is that number.

    Raises InputError for a row without them.
    """
    question, solution = _text(values, "question"), _text(values, "answer")
    worked, mark, last = _CALCULATOR.sub("", solution).rpartition("####")
    gold = parse_number(last)
    if not mark or gold is None:
        raise InputError(f"column 'answer': {show(solution)} does not end in #### and a number: correct the row")
    return Problem(question, spell(gold), f"{worked.rstrip()} #{spell(gold)}", _one_line(question))


def competition(values: dict[str, Any]) -> Problem:
    """A row of MATH: problem, and solution, whose last \\boxed{...} is the gold, or else answer, which is it.

    Raises InputError for a row without them.
    """
    question, solution = _text(values, "problem"), values.get("solution") or ""
    boxed = solution.rfind("\\boxed{") if isinstance(solution, str) else -1
    gold = (
        marked_answer(solution[boxed:])[0] if boxed >= 0 else marked_answer(f"\\boxed{{{_text(values, 'answer')}}}")[0]
    )
    if not gold or not says_something(gold):
        raise InputError(f"column 'solution': {show(solution[-40:])} has no last \\boxed{{...}}: correct the row")
    read_back = read(question, solution)
    worked = solution if read_back.formatted and boxed >= 0 else f"{solution} \\boxed{{{gold}}}".strip()
    return Problem(question, gold, worked, _one_line(question))


def _text(values: dict[str, Any], column: str) -> str:
    value = values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"column {column!r}: {show(value)} is not a text: write it, or delete the row")
    return value.strip()


def _one_line(text: str) -> str:
    return " ".join(text.casefold().split())


def _score_object(gold: str, text: str) -> Verdict:
    marked, last = marked_answer(text)
    if not marked or not says_something(marked):
        return Verdict("unparsable", False, False, marked)
    before = math_equality.timeouts()
    right = _equal(gold, marked)
    status = "correct" if right else "timeout" if math_equality.timeouts() > before else "wrong"
    tail = normalise(text[-MAX_TEXT:].rpartition("\n")[2])
    return Verdict(status, last, right or tail == normalise(gold), marked)


def _equal(gold: str, answer: str) -> bool:
    """Whether both mean the same; "x = ..." may be left out or added, once."""
    if normalise(gold) == normalise(answer):
        return True
    if "=" not in gold and "=" in _NAMED.sub("", answer, count=1):
        return False
    first, second = math_equality.classes([gold, answer], timeout=PATIENCE)
    return first is not None and first == second


def score_number(gold: str, text: str) -> Verdict:
    """Verdict on a numeric answer. Raises ValueError for a gold that is no number: not the model's fault."""
    target = parse_number(gold)
    if target is None:
        raise ValueError(f"the gold answer {gold!r} is not a number")
    marked, last = marked_answer(text)
    value = None if marked is None else parse_number(marked)
    status = "unparsable" if value is None else "correct" if value == target else "wrong"
    anyhow = status == "correct" or last_number(text) == target
    return Verdict(status, value is not None and last, anyhow, marked)


def _columns(a: int, b: int) -> list[tuple[int, int]]:
    width = max(len(str(a)), len(str(b)))
    return [(int(x), int(y)) for x, y in zip(reversed(str(a).zfill(width)), reversed(str(b).zfill(width)), strict=True)]


def _sum(a: int, b: int) -> Problem:
    steps, carry = [], 0
    for x, y in _columns(a, b):
        steps.append(f"{x}+{y}{'+1' if carry else ''}={x + y + carry}")
        carry = (x + y + carry) // 10
    low, high = sorted((a, b))
    return Problem(f"{a}+{b}=?", str(a + b), f"{' '.join(steps)} #{a + b}", f"{low}+{high}")


def _difference(a: int, b: int) -> Problem:
    steps, borrow = [], 0
    for x, y in _columns(a, b):
        top = x - borrow + (10 if x - borrow < y else 0)
        steps.append(f"{top}-{y}={top - y}")
        borrow = int(x - borrow < y)
    return Problem(f"{a}-{b}=?", str(a - b), f"{' '.join(steps)} #{a - b}", f"{a}-{b}")


def _product(a: int, b: int) -> Problem:
    tens, ones = divmod(a, 10)
    carry = ones * b // 10
    top = tens * b + carry
    steps = f"{ones}*{b}={ones * b} {tens}*{b}{f'+{carry}' if carry else ''}={top}"
    return Problem(f"{a}*{b}=?", str(a * b), f"{steps} #{a * b}", f"{a}*{b}")


def _chain(a: int, b: int, c: int) -> Problem:
    low, high = sorted((a, b))
    return Problem(
        f"{a}+{b}-{c}=?", str(a + b - c), f"{a}+{b}={a + b} {a + b}-{c}={a + b - c} #{a + b - c}", f"{low}+{high}-{c}"
    )
