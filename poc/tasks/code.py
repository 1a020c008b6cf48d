"""Write a small Python function for a described behaviour; hidden tests decide, in the sandbox, and all must pass.

Level 0: one expression in x, three operations long ("f(x): add 7, double, subtract 3"); the worked solution builds it
step by step: "x+7 (x+7)*2 #(x+7)*2-3". Levels 1 to 3: a function f, see poc.tasks.code_functions; the answer is the
last fenced code block, or what is marked. `mbpp` and `humaneval` turn rows of the public sets into such problems.

Nothing here runs or parses an answer: its text goes to poc.scoring.sandbox, its outputs come back. The kit's own
questions want the very type (2.0 is not 2, True is not 1); rows of public sets say how their tests compare.
"""

import ast
import json
import math
import re
import threading
import warnings
from random import Random
from typing import Any

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Status, Verdict
from poc.scoring import sandbox
from poc.tasks import code_functions
from poc.tasks.answers import MAX_TEXT, Reading, marked_answer
from poc.tasks.code_rows import humaneval as humaneval
from poc.tasks.code_rows import mbpp as mbpp
from poc.tasks.problem import Problem

NAME = "code"
LEVELS = range(DOMAIN_LEVELS[NAME])
DESCRIPTIONS = (
    "one expression in x from three operations",
    "a function of an integer with a condition",
    "a function of a list or a text: which elements, changed how, put together how",
    "a loop that collects integers, and what to make of them",
)
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Write f(x) as one Python expression: build it step by step, then end with # and the expression."
FUNCTION_INSTRUCTION = (
    "Write the Python function. Standard library only, no input, no output. End with one code block that starts with "
    "```python and ends with ``` and holds the whole function."
)
MAX_NEW_TOKENS = 48
FUNCTION_TOKENS = (160, 192, 256)  # levels 1 to 3
MAX_EXPRESSION = 500  # characters
OPERATIONS = {  # phrase, Python around the expression so far, what it does
    "add": ("add {k}", "{e}+{k}", lambda x, k: x + k),
    "subtract": ("subtract {k}", "{e}-{k}", lambda x, k: x - k),
    "multiply": ("times {k}", "{e}*{k}", lambda x, k: x * k),
    "square": ("square", "{e}**2", lambda x, k: x * x),
}
INPUTS = (0, 1, 2, 3, 5, -1, -4, 10)
_HEDGE = re.compile(r"\b(?:or|and)\b")  # "A or B" would be A wherever A is not 0
_PARSING = threading.Lock()
_SAYS = re.compile(r"[0-9A-Za-z]")
_LEFT_SIDE = re.compile(r"\s*f\(x\)\s?=(?!=)")


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level`."""
    return code_functions.make(rng, level) if level else _expression(rng)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return FUNCTION_INSTRUCTION if level else INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return FUNCTION_TOKENS[level - 1] if level else MAX_NEW_TOKENS


def OWN_PROCESS(example: Example) -> bool:
    """`score` starts a sandbox of its own for every answer."""
    return True


def score(example: Example, text: str) -> Verdict:
    """Right only if every hidden test passes. Raises InputError where this machine has no sandbox, RuntimeError where
    the sandbox failed: neither is the answer's fault."""
    return score_within(example, text, sandbox.LIMITS.seconds)


def score_within(example: Example, text: str, seconds: float) -> Verdict:
    """As `score`, with less time for a program that may be hostile."""
    check = json.loads(example.check)
    program, last = _program(text, "entry" not in check)
    if program is None:
        return Verdict("unparsable", False, _right_anyhow(example, check, text, seconds))
    status = _status(check, program, seconds)
    return Verdict(status, last, status == "correct", _spelled(program, "entry" not in check))


def read(question: str, text: str) -> Reading:
    """The program as text: an expression without spaces, a function without spaces at the ends of its lines."""
    expression = not re.search(r"^\s*def \w", question, re.MULTILINE)
    program, last = _program(text, expression)
    return Reading(None, False) if program is None else Reading(_spelled(program, expression), last)


def _spelled(program: str, expression: bool) -> str:
    return "".join(program.split()) if expression else program


def _program(text: str, expression: bool) -> tuple[str | None, bool]:
    """(the answer's source or None, whether it ends the text): the last closed code block, else what is marked."""
    text = text[-MAX_TEXT:]
    found, last = _block(text)
    if found is None:
        found, last = marked_answer(text) if expression else _tagged(text)
    found = _tidy(found or "", expression)
    return (found, last) if found else (None, False)


def _tidy(source: str, expression: bool) -> str:
    """The source without blank edges, "" for what cannot be an answer."""
    if expression:
        source = _LEFT_SIDE.sub("", source.strip(), count=1).strip()
        return source if _is_expression(source) else ""
    source = "\n".join(line.rstrip() for line in source.split("\n")).strip("\n")
    return source if re.search(r"^(?:async )?def ", source, re.MULTILINE) else ""


def _is_expression(source: str) -> bool:
    """Whether this is one Python expression with a letter or a digit in it; only its grammar is looked at."""
    if len(source) > MAX_EXPRESSION or _HEDGE.search(source) or not _SAYS.search(source):
        return False
    try:
        with _PARSING, warnings.catch_warnings():  # the filters belong to all threads
            warnings.simplefilter("ignore")
            ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _block(text: str) -> tuple[str | None, bool]:
    parts = text.split("```")
    if len(parts) < 3:
        return None, False
    closed = len(parts) - 2 if len(parts) % 2 else len(parts) - 3
    first, newline, rest = parts[closed].partition("\n")
    tag = newline and (first.strip().isalnum() or not first.strip())
    return rest if tag else parts[closed], not "".join(parts[closed + 1 :]).strip()


def _tagged(text: str) -> tuple[str | None, bool]:
    """A whole function between <answer> tags, where a # is a comment and no mark; else as everywhere."""
    start, end = text.rfind("<answer>"), text.rfind("</answer>")
    if 0 <= start < end:
        return text[start + len("<answer>") : end], not text[end + len("</answer>") :].strip()
    return marked_answer(text, lines=text.count("\n") + 1)


def _right_anyhow(example: Example, check: dict, text: str, seconds: float) -> bool:
    """The last expression of an unmarked text is the gold; its last function, down to the next bare line, passes."""
    if "entry" not in check:
        return text[-MAX_TEXT:].split()[-1:] == [example.answer]
    at = f"\n{text[-MAX_TEXT:]}".rfind("\ndef ")
    if at < 0:
        return False
    head, *lines = text[-MAX_TEXT:][at:].split("\n")
    stop = next((i for i, line in enumerate(lines) if line.strip() and not line[0].isspace()), len(lines))
    return _status(check, "\n".join([head, *lines[:stop]]), seconds) == "correct"


def _status(check: dict, program: str, seconds: float) -> Status:
    tests = check["tests"]
    source = f"{check['setup']}\n{program}" if check.get("setup") else program
    inputs = [sandbox.decode(arguments) for arguments, *_ in tests]
    outcome = sandbox.run(source, check.get("entry"), inputs, sandbox.LIMITS._replace(seconds=seconds))
    if outcome.status == "timeout":
        return "timeout"
    passed = outcome.status == "ok" and all(
        _passes(output, sandbox.decode(wanted), *rule)
        for output, (_, wanted, *rule) in zip(outcome.outputs, tests, strict=True)
    )
    return "correct" if passed else "wrong"


def _passes(output: Any, wanted: Any, rule: str | dict = "same") -> bool:
    """same: equal type by type; ==: as Python has it; bool: true or false; {"abs": e}, {"rel": e}: numbers so near."""
    if rule == "same":
        return sandbox.same(output, wanted)
    if rule == "==":
        return bool(output == wanted)
    if rule == "bool":
        return bool(output) is wanted
    return _near(output, wanted, **rule)


def _near(output: Any, wanted: float, abs: float | None = None, rel: float | None = None) -> bool:
    if not isinstance(output, int | float):
        return False
    try:
        if rel is not None:
            return math.isclose(output, wanted, rel_tol=rel)
        return math.fabs(output - wanted) < abs
    except OverflowError:
        return False


def _expression(rng: Random) -> Problem:
    names = rng.sample(("add", "subtract", "multiply", "square"), 3)
    steps = [(name, rng.randint(2, 9)) for name in names]
    phrases, written, values = [], ["x"], list(INPUTS)
    for name, k in steps:
        phrase, form, does = OPERATIONS[name]
        phrases.append(phrase.format(k=k))
        tight = name in ("multiply", "square") and written[-1] != "x"
        written.append(form.format(e=f"({written[-1]})" if tight else written[-1], k=k))
        values = [does(value, k) for value in values]
    question = f"f(x): {', '.join(phrases)}"
    check = json.dumps({"tests": [[[x], value] for x, value in zip(INPUTS, values, strict=True)]})
    return Problem(question, written[-1], f"{' '.join(written[1:-1])} #{written[-1]}", repr(values), check)
