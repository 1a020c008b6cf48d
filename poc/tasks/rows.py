"""Rows from .jsonl, .csv and .parquet files and Hugging Face datasets, each with the place to name in an error.

Rows come as they are: what a prompt or an answer may be is poc.tasks.cells' affair. Everything that cannot be read is
an InputError of one line.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from poc.config import Data
from poc.records import InputError

MAX_SHOWN = 60  # characters of a value in an error
MAX_FIELD = 2**31 - 1  # characters of a CSV field; the csv module's own limit would refuse long prompts


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `where` is "my.csv line 7" (where it starts, as an editor counts) or "my.parquet row 7"."""

    where: str
    values: dict[str, Any]

    def fail(self, column: str, value: Any, what: str) -> NoReturn:
        raise InputError(f"{self.where}, column {show(column)}: {show(value)} {what}")


def show(value: Any) -> str:
    """`repr`, so that it is one line without control characters, of at most 60 characters."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def columns_of(rows: list[Row]) -> list[str]:
    """Every column that some row has, in order of appearance."""
    return list(dict.fromkeys(column for row in rows for column in row.values))


def read_rows(data: Data) -> Iterator[Row]:
    """The rows of `data.file` or `data.dataset`. Raises InputError when there are none."""
    if data.dataset:
        return _dataset(data)
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    path = Path(data.file).expanduser()
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{data.file}: cannot read {path.suffix or 'a file without an ending'}; valid: {', '.join(readers)}"
        )
    content = _bytes(data.file, path)
    return reader(data, content) if reader is _parquet else reader(data.file, _text(data.file, content))


def _bytes(file: str, path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{file}: is a directory: name the file, or use data.dataset for a dataset folder")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{file}: no such file (looked in {Path.cwd()}): correct data.file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}): correct data.file") from None
    if not content.strip():
        raise InputError(f"{file}: is empty: it needs one row per question")
    return content


def _text(file: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start : error.start + 1]
        raise InputError(f"{file} line {line}: the byte {byte!r} is not UTF-8: save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{file} line {line}: holds a NUL byte: remove it, or save the file as UTF-8")
    return text


def _jsonl(file: str, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand inside a string
        if not line.strip():
            continue
        where = f"{file} line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise InputError(f"{where}: {show(line)} is not JSON ({what}): write one object per line") from None
        if not isinstance(values, dict):
            raise InputError(f"{where}: {show(values)} is not an object: write one {{...}} per line")
        yield Row(where, values)


def _csv(file: str, text: str) -> Iterator[Row]:
    header: list[str] = []
    found = False
    for where, fields in _records(file, text):
        if not header:
            header = _header(where, fields)
            continue
        found = True
        if len(fields) > len(header):
            extra = show(fields[len(header)])
            raise InputError(
                f"{where}: {len(fields)} fields, but the header has {len(header)}: put the text around the comma "
                f"before {extra} in quotes"
            )
        yield Row(where, dict(zip(header, fields, strict=False)))  # a short row leaves its last columns out
    if not found:
        raise InputError(f"{file}: has a header but no rows: it needs one row per question")


def _records(file: str, text: str) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        where = f"{file} line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{where}: not CSV ({error}): check the quotes") from None
        if fields is None:
            return
        if fields:
            yield where, fields


def _header(where: str, fields: list[str]) -> list[str]:
    twice = next((name for name in fields if name and fields.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: the header names {show(twice)} twice: rename one of them")
    return fields


def _wanted(columns: list[str], data: Data) -> list[str]:
    """The two columns, or all of them for a format of its own or where one is missing: the caller names those there."""
    if data.format is not None:
        return columns
    pair = [name for name in columns if name in (data.prompt, data.answer)]
    return pair if {data.prompt, data.answer} <= set(pair) else columns


def _parquet(data: Data, content: bytes) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{data.file}: is not a parquet file ({show(str(error))}): write it again") from None
    if not table.num_rows:
        raise InputError(f"{data.file}: has columns but no rows: it needs one row per question")
    for number, values in enumerate(table.select(_wanted(table.column_names, data)).to_pylist(), start=1):
        yield Row(f"{data.file} row {number}", values)


def _dataset(data: Data) -> Iterator[Row]:
    import datasets

    try:
        table = datasets.load_dataset(data.dataset, name=data.subset, split=data.split)
    except Exception as error:  # the library, its readers and the network raise of every kind
        first = str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"{data.dataset}: cannot be loaded as a dataset, subset {data.subset!r}, split {data.split!r} "
            f"({type(error).__name__}: {first}): correct data.dataset, data.subset or data.split"
        ) from None
    for number, values in enumerate(table.select_columns(_wanted(table.column_names, data)), start=1):
        yield Row(f"{data.dataset} row {number}", values)
