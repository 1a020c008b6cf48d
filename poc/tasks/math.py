"""Multi-digit arithmetic.

Level 0: a+b, two digits each; 1: a+b or a-b, three digits; 2: two digits times one; 3: a+b-c, two digits each.

The question is the bare sum ("37+58=?"); the answer is an integer. A worked solution goes column by column from the
right, as the lab models learned it: "7+8=15 3+5+1=9 #95".
"""

from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks.answers import Reading, last_number, marked_answer, parse_number, read_number
from poc.tasks.problem import Problem

NAME = "math"
LEVELS = range(DOMAIN_LEVELS[NAME])
CLUSTER = "math"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Work it out, then end with # and the number."
MAX_NEW_TOKENS = 32  # enough for a worked solution, one token a character (lab models), at level 0


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level` (0-3)."""
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
    return MAX_NEW_TOKENS


def score(example: Example, text: str) -> Verdict:
    """Compare the marked integer with the gold one."""
    return score_number(example.answer, text)


def read(question: str, text: str) -> Reading:
    """The marked number."""
    return read_number(text)


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
