"""Logs that another process is writing: their whole lines so far, as JSON objects; and whether it still writes.

Half a last line is left for the next look, a line that is no object is left out, a file that is not there is an empty
one. Nothing is written, nothing is judged.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

LAST_BYTES = 2**20  # among which the last line is looked for


class Tail:
    """The lines of a log that grows."""

    def __init__(self, path: Path) -> None:
        self.path, self.place, self.file = path, 0, None

    def read(self) -> tuple[bool, list[dict]]:
        """(whether it was cut back or replaced, so that all lines come again; the objects on its new whole lines)."""
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                anew = self.file is not None and (found.st_ino != self.file or found.st_size < self.place)
                self.file, self.place = found.st_ino, 0 if anew else self.place
                file.seek(self.place)
                whole, end, _ = file.read().rpartition(b"\n")
        except OSError:
            return False, []
        self.place += len(whole) + len(end)
        return anew, list(_objects(whole.split(b"\n")))


def last_object(path: Path) -> dict:
    """The object on the last whole line that holds one; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LAST_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return {}
    return next(_objects(reversed(lines)), {})


def whole_object(path: Path) -> dict:
    """The object that a file holds; empty where it holds none."""
    try:
        return next(_objects([path.read_bytes()]), {})
    except OSError:
        return {}


def held(folder: Path) -> bool:
    """Whether a process has the lock of a run's folder. Asking holds up no other reader, and a writer for microseconds.

    Where that cannot be found out it counts as held: nobody is said to be dead who may be alive.
    """
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY)
    except PermissionError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # and the lock with it
    return False


def _objects(lines: Iterable[bytes]) -> Iterator[dict]:
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found
