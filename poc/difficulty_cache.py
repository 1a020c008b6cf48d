"""The counts of a difficulty filter on disk: JSON lines, a batch at a time, readable after a kill at any byte.

A line: {"key": what was asked (poc.difficulty), "id", "count", "errors", "batch", "of"}. A batch that is not whole is
asked again as a whole, because its draws depend on all of its questions.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from poc.records import InputError

FILES = ("counts-weak.jsonl", "counts-strong.jsonl", "kept.jsonl", "dropped.jsonl", "summary.json")


def prepare(out: Path) -> None:
    """Make the folder, or go on in one of this kind; InputError for a folder that holds something else."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not any((out / name).is_file() for name in FILES):
        raise InputError(f"--out {out}: exists and holds something else; name another folder or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be made ({error.strerror}); name a folder that you may write to"
        ) from None


def batch_name(keys: Sequence[str]) -> str:
    """15 hexadecimal digits that stand for these questions in this order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:15]


def append(file: Path, keys: Sequence[str], counts: Sequence[tuple[str, int, int]]) -> None:
    """Write down (id, count, errors) of every question of a batch, in one piece."""
    same = {"batch": batch_name(keys), "of": len(keys)}
    entries = [
        {"key": key, "id": name, "count": count, "errors": errors} | same
        for key, (name, count, errors) in zip(keys, counts, strict=True)
    ]
    with file.open("a", encoding="utf-8") as opened:
        opened.write("".join(map(_line, entries)))


def read(file: Path) -> dict[str, dict]:
    """Entry by key. What a kill has torn is taken out of the file, so that the next batch begins on a line."""
    if not file.exists():
        return {}
    content = file.read_bytes()
    entries = [entry for line in content.split(b"\n") if (entry := _entry(line))]
    sizes = Counter(entry["batch"] for entry in entries)
    whole = [entry for entry in entries if sizes[entry["batch"]] >= entry["of"]]
    if "".join(map(_line, whole)).encode() != content:
        write_lines(file, whole)
    return {entry["key"]: entry for entry in whole}


def _entry(line: bytes) -> dict | None:
    kinds = {"key": str, "id": str, "count": int, "errors": int, "batch": str, "of": int}
    try:
        entry = json.loads(line)
        return entry if all(isinstance(entry[name], kind) for name, kind in kinds.items()) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def write_lines(file: Path, rows: Sequence[dict]) -> None:
    """The whole file or nothing."""
    staged = file.with_name(f".{file.name}.staged")
    staged.write_text("".join(map(_line, rows)), encoding="utf-8")
    os.replace(staged, file)


def _line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
