"""Training questions that a file says to leave out: `data.drop`, the dropped.jsonl of `poc difficulty`.

A line names a question by the hash of its text (poc.tasks.own.digest), so that the same question is meant whichever
seed drew it. Hold-out and canary are never filtered: what is measured must not depend on what a model can do.
"""

import json
from pathlib import Path

from poc.records import Example, InputError
from poc.tasks import own
from poc.tasks.rows import show


def leave_out(train: list[Example], file: str) -> tuple[list[Example], dict]:
    """The training questions that `file` does not name, in their order, and a note on how many it does.

    A file without lines names none. Raises InputError for one that cannot be read, that names only other questions, or
    that names them all.
    """
    hashes = _hashes(file)
    if not hashes:
        return train, {"file": file, "named": 0, "left_out": 0}
    kept = [example for example in train if own.digest(example.question) not in hashes]
    if len(kept) == len(train):
        raise InputError(
            f"data.drop {file}: names none of the {len(train)} training questions: it was made for other data, or for "
            "another seed's; filter these with poc difficulty, or leave it out"
        )
    if not kept:
        raise InputError(
            f"data.drop {file}: names all of the {len(train)} training questions: take other questions or a stronger "
            "model"
        )
    return kept, {"file": file, "named": len(hashes), "left_out": len(train) - len(kept)}


def _hashes(file: str) -> set[str]:
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(
            f"data.drop {file}: cannot be read ({error}): name a dropped.jsonl of poc difficulty"
        ) from None
    return {_hash(f"data.drop {file} line {i}", line) for i, line in enumerate(lines, start=1) if line.strip()}


def _hash(where: str, line: str) -> str:
    try:
        row = json.loads(line)
        row["reason"]  # kept.jsonl has none: leaving out what was kept would be a quiet mistake
        return str(row["hash"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{where}: {show(line)} has no hash of a question and no reason: name a dropped.jsonl of poc difficulty"
        ) from None
