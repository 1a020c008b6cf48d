"""Questions from a user's own CSV: a data file that `data: {file: ..., prompt: question, answer: answer}` reads.

The columns are judged by what stands in them: numbers (nine cells in ten), categories (short text that repeats), labels
(short text that names a row). Then poc.tasks.table_questions asks about a few rows at a time, levels 0 to 3. Missing
cells are never shown. What this does not do: tell an identifier made of digits from a measure (drop such a column), or
read more than the first `MAX_ROWS` rows and `MAX_BYTES` bytes.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from poc.records import Example, InputError
from poc.tasks import own, table_questions
from poc.tasks.answers import parse_number, spell
from poc.tasks.rows import MAX_FIELD, show
from poc.tasks.table_questions import Source

MAX_ROWS = 20_000
MAX_BYTES = 64 * 2**20
HEADER = 2**20  # characters in which the header must end
MAX_CELL = 40  # characters of a text that a question shows
MAX_NUMBER = 12  # digits: sums of a few stay exact
FEWEST_ROWS = 4
PATIENCE = 3000  # draws without a new question before the table is called exhausted
NUMERIC = 0.9  # share of the cells that must be numbers
REPEATS = 3  # a category's cells repeat that often on average
MISSING = ("", "-", "na", "n/a", "nan", "null", "none", "#n/a", "?")
DELIMITERS = (",", ";", "\t")

_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3}){0,4},[0-9]{1,6}|[+-]?[0-9]{1,15}(?:,[0-9]{1,6})?")


def make_questions(table: Path, count: int, seed: int, level: int | None = None) -> list[Example]:
    """`count` different questions on the CSV `table`, of one level (0-3) or of all that its columns allow in turn.

    The same arguments give the same questions. Raises InputError when the file cannot be read, when it has no column
    of numbers, or when it does not hold that many questions.
    """
    source = read_source(table)
    levels = _levels(source, level)
    found: dict[str, Example] = {}
    index = last = 0
    while len(found) < count and index - last < PATIENCE:
        which, kinds = levels[index % len(levels)]
        drawn = table_questions.draw(Random(f"table/{seed}/{which}/{index}"), source, which, kinds)
        if drawn and drawn.key not in found and (example := _example(drawn, which, f"own-table-{seed}-{index}")):
            found[drawn.key], last = example, index
        index += 1
    if len(found) < count:
        raise InputError(
            f"{source.name}: {count} questions asked for, but this table allows about {len(found)} different ones: "
            "lower the count or add rows"
        )
    return list(found.values())


def write(table: Path, out: Path, count: int, seed: int, level: int | None = None) -> Path:
    """Writes the questions as JSON lines with the columns `question` and `answer` and returns `out`."""
    examples = make_questions(table, count, seed, level)
    lines = [json.dumps({"question": e.question, "answer": e.answer}, ensure_ascii=False) for e in examples]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out


def read_source(table: Path) -> Source:
    """The usable columns of a CSV file. Raises InputError for what cannot be read or asked about."""
    name = table.name
    rows = list(_rows(name, *_text(table)))
    header, body = rows[0], rows[1:]
    if len(body) < FEWEST_ROWS:
        raise InputError(f"{name}: holds {len(body)} rows below its header: it needs at least {FEWEST_ROWS}, add rows")
    shown, numbers, categories, labels = {}, {}, [], []
    for i, column in enumerate(header):
        cells = [_cell(row[i]) if i < len(row) else None for row in body]
        if not column or len(column) > MAX_CELL or all(c is None for c in cells):
            continue
        if parsed := _numbers(cells):
            shown[column], numbers[column] = parsed
        elif kind := _kind(cells):
            shown[column] = [c if c is not None and len(c) <= MAX_CELL else None for c in cells]
            (categories if kind == "category" else labels).append(column)
    _check(name, header, shown, numbers)
    return table_questions.source(name, shown, numbers, tuple(categories), tuple(labels))


def _check(name: str, header: list[str], shown: dict, numbers: dict) -> None:
    if not numbers:
        raise InputError(
            f"{name}: none of its columns ({', '.join(map(show, header[:8]))}) holds numbers in at least "
            f"{NUMERIC:.0%} of its cells: it needs a column of numbers, without units in the cells"
        )
    if len(shown) < 2:
        raise InputError(
            f"{name}: only the column {show(next(iter(shown)))} can be asked about: it needs a second one, of "
            f"numbers or of texts of at most {MAX_CELL} characters, separated by a comma, a semicolon or a tab"
        )


def _levels(source: Source, level: int | None) -> list[tuple[int, list]]:
    """The levels to ask with their kinds of question. Raises InputError when the columns allow none."""
    every = range(len(table_questions.KINDS))
    if level is not None and level not in every:
        raise InputError(f"level {level}: a table has levels 0 to {every[-1]}")
    asked = every if level is None else [level]
    rows = [r for r, _ in table_questions.SIZES]
    found = [(n, kinds) for n in asked if len(source) >= rows[n] and (kinds := table_questions.feasible(source, n))]
    if not found:
        raise InputError(
            f"{source.name}: level {level} needs at least {rows[level or 0]} rows and "
            f"two columns of numbers, or one and a text column that repeats: it has {len(source)} rows, "
            f"{len(source.numbers)} such columns of numbers and {len(source.categories)} of texts; ask level 0"
        )
    return found


def _example(drawn: table_questions.Question, level: int, name: str) -> Example | None:
    """None where the answer, marked as told, would not be read as itself (such as the text "C#")."""
    example = Example(name, drawn.text, drawn.answer, own.NAME, level)
    marked = f"#{drawn.answer}"
    return example if own.score(example, marked).correct and own.read(marked).answer is not None else None


def _kind(cells: list[str | None]) -> str | None:
    """ "category", "label" or None for a column of text, by how short its cells are and how often they repeat."""
    present = [c for c in cells if c is not None]
    short = [c for c in present if len(c) <= MAX_CELL]
    if len(short) < NUMERIC * len(present):
        return None
    values = Counter(short)
    return (
        "category" if len(values) > 1 and len(short) >= REPEATS * len(values) else "label" if len(values) > 1 else None
    )


def _numbers(cells: list[str | None]) -> tuple[list[str | None], list[float | None]] | None:
    """(the cells shown, their values) of a column of numbers; a decimal comma is shown as a point. None: text."""
    present = sum(c is not None for c in cells)
    for read in (_plain, _comma):
        shown = [None if c is None else read(c) for c in cells]
        if sum(c is not None for c in shown) >= NUMERIC * present:
            return shown, [None if c is None else float(parse_number(c)) for c in shown]
    return None


def _plain(text: str) -> str | None:
    number = parse_number(text)
    short = number is not None and len(spell(number).strip("-").replace(".", "").lstrip("0")) <= MAX_NUMBER
    return text if short else None


def _comma(text: str) -> str | None:
    """ "1.234,50" as "1234.50"."""
    return _plain(text.replace(".", "").replace(",", ".")) if _DECIMAL_COMMA.fullmatch(text) else None


def _cell(text: str) -> str | None:
    """On one line, None where it says that nothing is known or cannot be shown as it is."""
    text = " ".join(text[: 4 * MAX_CELL].split())
    return None if text.lower() in MISSING else text


def _text(table: Path) -> tuple[str, bool]:
    """The first `MAX_BYTES` bytes, up to a line's end, as text, and whether anything was left out."""
    try:
        with table.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: cannot be read ({error}): name a CSV file") from None
    cut = len(content) > MAX_BYTES
    content = content[: content.rfind(b"\n") + 1] if cut else content
    if b"\0" in content:
        raise InputError(f"{table.name}: holds a NUL byte: remove it, or save the file as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{table.name} line {line}: is not UTF-8: save the file as UTF-8") from None
    if not text.strip(" \r\n\t,;"):
        raise InputError(f"{table.name}: is empty: it needs a header and one row per line")
    return text, cut


def _rows(name: str, text: str, cut: bool) -> Iterator[list[str]]:
    """The header, then at most `MAX_ROWS` rows, split at the delimiter that gives the header the most fields."""
    mark = max(DELIMITERS, key=lambda mark: len(next(_records(name, text[:HEADER], mark, True), (0, []))[1]))
    header: list[str] = []
    for number, (line, row) in enumerate(_records(name, text, mark, cut)):
        if not header:
            header = [column.strip() for column in row]
            twice = next((column for column in header if column and header.count(column) > 1), None)
            if twice is not None:
                raise InputError(f"{name} line {line}: the header names {show(twice)} twice: rename one of them")
        if len(row) > len(header):
            raise InputError(
                f"{name} line {line}: {len(row)} fields, but the header has {len(header)}: put the text around the "
                f"{show(mark)} before {show(row[len(header)])} in quotes"
            )
        if number > MAX_ROWS:
            return
        yield row if number else header


def _records(name: str, text: str, mark: str, cut: bool) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of every row that is not blank; where the text was `cut`, a quote may stay open at its end."""
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if any(field.strip() for field in row))
    except csv.Error as error:
        if not cut:
            raise InputError(f"{name} line {reader.line_num}: not CSV ({error}): check the quotes") from None
