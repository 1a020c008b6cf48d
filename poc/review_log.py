"""The verdicts of a review on the disk, review.jsonl: how its sample was drawn, then a line a verdict.

    {"version": 1, "count": 40, "seed": 0, "show_gold": false, "sample_sha256": "..."}
    {"item": "c38370c8c10fe3a5", "right": false, "note": "no carry", "reviewer": "Ada"}

A line is flushed before the next question is asked; half a last one, which a kill left, is taken out. Of two verdicts
on one item the last counts. Not here: the sample itself, the result.
"""

import json
from collections.abc import Collection
from pathlib import Path

from poc import durable
from poc.records import InputError
from poc.review import Said

FILE = "review.jsonl"
DEFAULTS = {"count": 40, "seed": 0, "show_gold": False}
HEADER = DEFAULTS | {"sample_sha256": ""}


def read(path: Path) -> list[dict]:
    """The lines, none where no review was begun. Raises InputError for a first line that begins none, or no JSON."""
    if not path.is_file():
        return []
    whole, _, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        durable.write(path, whole + b"\n" if whole else b"")
    try:
        lines = [json.loads(line) for line in whole.split(b"\n")] if whole else []
    except (ValueError, RecursionError):
        lines = [None]
    if not all(isinstance(line, dict) for line in lines):
        raise InputError(f"{path}: is not as it was written: remove it to begin anew")
    if lines and any(type(lines[0].get(name)) is not type(value) for name, value in HEADER.items()):
        raise InputError(f"{path} line 1: is not how a review begins: remove the file to begin anew")
    return lines


def settled(path: Path, lines: list[dict], options: dict) -> dict:
    """The options of this review: those it was begun with, else those given (not None), else the defaults."""
    given = {name: value for name, value in options.items() if value is not None}
    if not lines:
        return DEFAULTS | given
    for name, value in given.items():
        if lines[0][name] != value:
            raise InputError(
                f"--{name.replace('_', '-')}: this review was begun with {name} {lines[0][name]}, not {value}: leave "
                f"the option out, or remove {path} to begin anew"
            )
    return {name: lines[0][name] for name in DEFAULTS}


def begin(path: Path, lines: list[dict], options: dict, sample: str) -> None:
    """The first line, where there is none yet; InputError where it names another sample's hash."""
    if not lines:
        durable.write(path, _line({"version": 1, **options, "sample_sha256": sample}) + b"\n")
    elif lines[0]["sample_sha256"] != sample:
        raise InputError(f"{path}: was begun on another sample (other evaluations or kit): remove it to begin anew")


def verdicts(path: Path, lines: list[dict], keys: Collection[str]) -> tuple[dict[str, Said], list[str]]:
    """What was said of each item of the sample, and by whom, in order. InputError names a line that is no verdict."""
    said, reviewers = {}, {}
    for number, line in enumerate(lines[1:], 2):
        key, note, reviewer = (line.get(name) for name in ("item", "note", "reviewer"))
        known = all(isinstance(text, str) for text in (key, note, reviewer)) and key in keys
        if not known or not isinstance(line.get("right", ""), bool | None):
            raise InputError(f"{path} line {number}: is no verdict on this sample: remove that line to go on")
        said[key], reviewers[reviewer] = Said(line["right"], note), None
    return said, [name for name in reviewers if name]


def append(path: Path, key: str, said: Said, reviewer: str) -> None:
    """Raises OSError, having added nothing."""
    durable.append_line(path, _line({"item": key, "right": said.right, "note": said.note, "reviewer": reviewer}))


def _line(content: dict) -> bytes:
    """ASCII: a text may hold what is no character (a lone surrogate)."""
    return json.dumps(content, allow_nan=False).encode("ascii")
