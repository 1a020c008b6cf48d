"""Rows of public sets, and rows that the kit wrote itself, become examples of a domain, scored by its verifier.

`data: {file: mbpp.jsonl, format: mbpp}`: columns as the public set has them. `format: kit`: the columns id, question,
answer, domain, level, check, as `poc difficulty` writes them. A public set holds a few rows
that cannot be turned into a question with a check: up to a tenth is left out and counted, more is an error. Nothing of
a row is executed here.
"""

from importlib import import_module

from poc.config import DOMAIN_LEVELS, FORMATS, nearest
from poc.records import Example, InputError
from poc.tasks import cells
from poc.tasks.problem import Problem
from poc.tasks.rows import Row, show
from poc.text import visible

KIT = "kit"
COLUMNS = ("id", "question", "answer", "domain", "level", "check")  # of a kit row
# Module of poc.tasks, its function (values of a row) -> Problem, which raises ValueError, and the level whose
# instruction fits: code asks for an expression at level 0, for a function above it.
READERS = {
    "gsm8k": ("math", "gsm8k", 0),
    "math": ("math", "competition", 0),
    "mbpp": ("code", "mbpp", 1),
    "humaneval": ("code", "humaneval", 1),
    "gpqa": ("multiple_choice", "gpqa", 0),
    "mmlu": ("multiple_choice", "mmlu", 0),
}
UNUSABLE = 10  # one row in so many may be left out
MAX_ID = MAX_WHY = 200  # characters

Read = list[tuple[Row, Example]]


def examples(rows: list[Row], form: str) -> tuple[Read, dict]:
    """Each row's example (its id is empty where the row gives none), and a note on the rows that were left out.

    Raises InputError, naming the first row, when more than a tenth cannot be read; of a kit file, when any cannot.
    """
    if form == KIT:
        return [(row, _kit(row)) for row in rows], {}
    return _read(rows, form)


def _read(rows: list[Row], form: str) -> tuple[Read, dict]:
    module, function, level = READERS[form]
    problem_of = getattr(import_module(f"poc.tasks.{module}"), function)
    read, unusable = [], []
    for row in rows:
        try:
            read.append((row, _public(problem_of(row.values), FORMATS[form], level)))
        except ValueError as error:
            unusable.append(f"{row.where}: {visible(' '.join(str(error).split()))[:MAX_WHY]}")
    if len(unusable) * UNUSABLE > len(rows):
        raise InputError(
            f"{unusable[0]} (as {form}, {len(unusable)} of {len(rows)} rows cannot be read: correct data.format, or "
            "the rows)"
        )
    return read, {"unusable": len(unusable), "first_unusable": unusable[0]} if unusable else {}


def _public(problem: Problem, domain: str, level: int) -> Example:
    for text in (problem.question, problem.answer, problem.check):
        if cells.unencodable(text):
            raise ValueError(f"{show(text)} holds a NUL or half a surrogate pair")
    return Example("", problem.question, problem.answer, domain, level, problem.check)


def kit_row(example: Example) -> dict:
    """The columns of a kit row, as `examples` reads them back."""
    return {column: getattr(example, column) for column in COLUMNS}


def _kit(row: Row) -> Example:
    if missing := [column for column in COLUMNS if column not in row.values]:
        raise InputError(f"{row.where}: no column {missing[0]!r}: a kit file has {', '.join(COLUMNS)}")
    domain = _text(row, "domain")
    if domain != "own" and domain not in DOMAIN_LEVELS:
        row.fail("domain", domain, f"is no domain{nearest(domain, ['own', *DOMAIN_LEVELS])}")
    answer = None if row.values["answer"] is None else _text(row, "answer") or None
    level = _level(row, 1 if domain == "own" else DOMAIN_LEVELS[domain])
    return Example(_id(row), cells.prompt(row, "question"), answer, domain, level, _text(row, "check"))


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if not isinstance(value, str):
        row.fail(column, value, "is not text: put it in quotes")
    return cells.clean(row, column, value)


def _id(row: Row) -> str:
    value = _text(row, "id")
    if not value.isprintable() or not 0 < len(value) <= MAX_ID:
        row.fail("id", value, f"is not a name of 1 to {MAX_ID} printable characters")
    return value


def _level(row: Row, levels: int) -> int:
    value = row.values["level"]
    if isinstance(value, str) and value.isdecimal() and len(value) <= 4:  # CSV
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < levels:
        row.fail("level", value, f"is no level of {row.values['domain']}: 0 to {levels - 1}")
    return value
