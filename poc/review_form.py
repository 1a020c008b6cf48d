"""The forms of a review, a CSV file and an offline HTML page, and reading what was filled in.

The page needs no network and works from a file; its content policy allows nothing but its own style and its own script,
by their hashes, and that script only collects the answers into a file to save. A CSV cell that a spreadsheet would take
for a formula gets an apostrophe. Forms are as blind as the terminal: no model, no verifier, the gold only if asked.
Not here: the sample (poc.review), keeping verdicts (poc.review_session).
"""

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from poc.records import InputError
from poc.review import MAX_NOTE, Item, Said
from poc.text import clip, visible

TEMPLATE = Path(__file__).with_name("review_form.html.j2")
MAX_CELL = 30_000  # characters; a spreadsheet's cell holds 32,767
MAX_BYTES = 64 * 2**20
FORMULA = "=+-@＝＋－＠"  # with these a cell begins to compute, full-width ones too
WORDS = {
    "y": True, "yes": True, "right": True, "true": True, "1": True,
    "n": False, "no": False, "wrong": False, "false": False, "0": False,
    "s": None, "skip": None, "": None,
}  # fmt: skip


class Entry(NamedTuple):
    """One filled-in item as it stands in the file; `where` is "my.csv line 7"."""

    where: str
    item: str
    verdict: str
    note: str


def csv_form(items: Sequence[Item], show_gold: bool) -> bytes:
    """A table to fill in: the columns verdict and note are empty. UTF-8 with the mark that spreadsheets look for."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["number", "item", "question", *["known answer"] * show_gold, "completion", "verdict", "note"])
    for number, item in enumerate(items, 1):
        texts = [item.question, *[item.gold or ""] * show_gold, item.text]
        writer.writerow([number, item.key, *map(cell, texts), "", ""])
    return out.getvalue().encode("utf-8-sig")


def cell(text: str) -> str:
    """Visible, at most MAX_CELL characters and the count of the rest, never a formula."""
    text = clip(visible(text), MAX_CELL)
    begins = text.lstrip(" \t\r\n\"'")[:1]
    computes = text[:1] in ("\t", "\r") or (begins and begins in FORMULA)
    return f"'{text}" if computes else text


def html_form(items: Sequence[Item], show_gold: bool, *, name: str, reviewer: str, sample: str) -> bytes:
    """The page; `name`: the run's, `sample`: the sample's hash, which the saved file carries."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=lambda value: visible(str(value)))
    source = TEMPLATE.read_text("utf-8")
    policy = {f"{tag}_hash": _hash_in_policy(source, tag) for tag in ("script", "style")}
    rows = [
        {"key": item.key, "question": item.question, "text": item.text, "gold": item.gold if show_gold else None}
        for item in items
    ]
    values = {"items": rows, "name": name, "reviewer": reviewer, "sample": sample, "max_note": MAX_NOTE, **policy}
    return environment.from_string(source).render(values).encode("utf-8")


def read_back(path: Path, items: Sequence[Item], sample: str) -> tuple[str, dict[str, Said]]:
    """The reviewer's name ("" in a CSV file) and what was said of each item that is filled in.

    Raises InputError, naming the place, for what is no form of this sample: an unknown or doubled item, a verdict that
    is none, another sample's hash, or no verdict at all.
    """
    text = _text(path)
    reviewer, entries = (
        _from_json(path, text, sample) if path.suffix.lower() == ".json" else ("", _from_csv(path, text))
    )
    keys, places, said = {item.key for item in items}, {}, {}
    for where, key, verdict, note in entries:
        if key not in keys:
            raise InputError(f"{where}: item {key!r:.60} is not in this sample: read the form that was written for it")
        if key in places:
            raise InputError(f"{where}: item {key!r:.60} stands in {places[key]} already: remove one of the two")
        places[key] = where
        if verdict.strip() or note.strip():
            said[key] = Said(_verdict(where, verdict), clip(note.strip(), MAX_NOTE))
    if all(one.right is None for one in said.values()):
        raise InputError(f"{path}: holds no verdict: fill in y (right) or n (wrong)")
    return reviewer, said


def _hash_in_policy(source: str, tag: str) -> str:
    """Of what stands between the tags in the template, into which nothing is written."""
    content = re.search(f"<{tag}>(.*)</{tag}>", source, re.DOTALL)[1]
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _verdict(where: str, word: str) -> bool | None:
    if word.strip().lower() not in WORDS:
        raise InputError(f"{where}: verdict {word!r:.60}: write y (right), n (wrong) or s (cannot tell)")
    return WORDS[word.strip().lower()]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"--read {path}: {error.strerror}: name the form that was filled in") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"--read {path}: more than {MAX_BYTES // 2**20} MiB: that is no form of a review")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: is not UTF-8: save it as CSV UTF-8") from None


def _from_csv(path: Path, text: str) -> Iterator[Entry]:
    records = _records(path, text)
    where, header = next(records, (f"{path} line 1", []))
    names = [name.strip().lower() for name in header]
    for name in ("item", "verdict"):
        if names.count(name) != 1:
            raise InputError(f"{where}: {names.count(name)} columns named {name!r}: keep the form's first line")
    for where, fields in records:
        row = dict(zip(names, fields, strict=False))  # a short row leaves its last columns out
        yield Entry(where, row.get("item", "").strip(), row.get("verdict", ""), row.get("note", ""))


def _records(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """Every row that is not blank, with the line that it begins in; spreadsheets of some countries write semicolons."""
    csv.field_size_limit(MAX_BYTES)
    mark = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    while True:
        where = f"{path} line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{where}: not CSV ({error}): check the quotes") from None
        if fields is None:
            return
        if any(field.strip() for field in fields):
            yield where, fields


def _from_json(path: Path, text: str, sample: str) -> tuple[str, Iterator[Entry]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} line {getattr(error, 'lineno', 1)}: is not JSON: read the file as it was saved"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("verdicts"), list):
        raise InputError(f"{path}: has no list of verdicts: read the file that the form saved")
    if content.get("sample_sha256") != sample:
        raise InputError(f"{path}: was saved for another sample: name the run whose form it was")
    reviewer = content.get("reviewer", "")
    return reviewer if isinstance(reviewer, str) else "", _listed(path, content["verdicts"])


def _listed(path: Path, verdicts: list) -> Iterator[Entry]:
    for number, entry in enumerate(verdicts, 1):
        where = f"{path} verdict {number}"
        found = [entry.get(key) for key in ("item", "verdict", "note")] if isinstance(entry, dict) else []
        if not found or not all(isinstance(value, str) for value in found):
            raise InputError(
                f"{where}: {entry!r:.60} has no texts item, verdict and note: read the file as it was saved"
            )
        yield Entry(where, *found)
