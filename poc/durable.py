"""Files that survive a kill, a power cut or a full disk: whole, or not there.

A file is written aside, flushed to the disk (fsync), renamed, and its folder flushed: after any interruption the old
content or the new one is there, never a part of either. A line is appended and flushed; a kill can leave half of the
last one, which whoever reads it must expect. Not here: locks, checksums, network file systems that lie about fsync.
"""

import errno
import json
import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """The whole file or the one before it. Raises OSError (a full disk, a folder that is gone or read-only)."""
    staged = path.with_name(f".{path.name}.staged")
    write_new(staged, content)
    os.replace(staged, path)
    sync(path.parent)


def write_json(path: Path, content: dict) -> None:
    """Strict JSON: a NaN is a ValueError."""
    write(path, json.dumps(content, ensure_ascii=False, allow_nan=False).encode())


def write_new(path: Path, content: bytes) -> None:
    """A file that nobody reads before it is renamed, or before a manifest names it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def append_line(path: Path, line: bytes) -> None:
    """`line` and a line break, in one piece and to the disk. Raises OSError, having added nothing."""
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            whole = file.write(line + b"\n") == len(line) + 1
        except OSError:
            file.truncate(before)
            raise
        if not whole:  # the disk filled up in the middle
            file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Flush a file or a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
