"""The audit log of a run: every event in one chain of hashes, written here, checked by poc.audit_verify.

    audit.jsonl           one event a line: {"data", "event", "hash", "prev", "seq", "time"}
    audit.jsonl.corrupt   half a line that a killed writer left, moved out of the way; a "recovery" event tells of it

What the chain shows: an event that was edited, inserted, deleted or moved before a head ("SEQ:HEX", number and hash of
the last event) that somebody holds. What it cannot show: an end that was cut off or a log that was written anew, where
no head is kept outside the folder; a run that was removed as a whole; who wrote it; whether what it says was true.
One writer at a time: the caller holds the lock.
"""

import errno
import hashlib
import os
import stat
import uuid
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from poc import audit_verify as chain
from poc import durable
from poc.records import InputError, RunError
from poc.text import visible

FILE = "audit.jsonl"
EVENTS = (
    "genesis", "start", "step", "evaluation", "guard", "memory", "checkpoint", "skip", "human", "resume", "export",
    "end", "recovery",
)  # fmt: skip
Head = tuple[int, str]


class Audit:
    """The log of one run, open for appending; a new one begins with its genesis.

    InputError: the chain is broken or belongs to another run. Half a last line is set aside: its writer was killed.
    """

    def __init__(self, path: Path, run_id: str | None = None) -> None:
        self.path, self._corrupt = path, path.with_name(f"{path.name}.corrupt")
        self._seq, self._hash, self._size = -1, chain.START, 0
        self._told = 0  # bytes of the .corrupt file that recovery events tell of
        self.run_id = run_id or uuid.uuid4().hex
        torn = self._go_on(run_id) if path.exists() else False
        if torn:
            self._set_aside()
        if self._seq < 0:
            self.append("genesis", {"format": chain.FORMAT, "run_id": self.run_id})
            durable.sync(path.parent)
        self._tell()

    @property
    def head(self) -> str:
        return f"{self._seq}:{self._hash}"

    def append(self, event: str, data: dict) -> str:
        """Write one event to the disk; the new head. OSError (a full disk): nothing was appended."""
        line, digest = self._line(event, data)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if self._seq < 0 else 0), 0o666)
        try:
            self._write(descriptor, line)
        finally:
            os.close(descriptor)
        self._seq, self._hash, self._size = self._seq + 1, digest, self._size + len(line)
        return self.head

    def _line(self, event: str, data: dict) -> tuple[bytes, str]:
        """The line of the next event and its hash, after the check that a reader will make."""
        if event not in EVENTS:
            raise ValueError(f"audit event {event!r}: not one of {', '.join(EVENTS)}")
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        content = {"data": data, "event": event, "prev": self._hash, "seq": self._seq + 1, "time": now}
        try:
            digest = chain.digest(content)
            line = chain.ENCODER.encode({**content, "hash": digest}).encode("ascii")
            _, problem = chain.check(line, self._seq + 1, self._hash)
            problem = problem if _has_text_keys(data) else "a key is not text"
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"audit event {event}: {error}") from None
        if problem or len(line) >= chain.LIMIT:
            raise ValueError(f"audit event {event}: {problem or f'longer than {chain.LIMIT} bytes'}")
        return line + b"\n", digest

    def _write(self, descriptor: int, line: bytes) -> None:
        """In one piece and to the disk, or undone as far as the system lets us; the next opening sees to the rest."""
        if os.fstat(descriptor).st_size != self._size:
            raise RunError(f"{self.path}: not as this run left it; another program writes it, or a failed write stayed")
        try:
            written = os.write(descriptor, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes were written", str(self.path))
            os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, self._size)
            raise

    def _go_on(self, run_id: str | None) -> bool:
        """Take up the chain that is there. True where bytes follow its last whole event."""
        result = chain.verify(self.path, seen=self._see)
        begun = result.events == 0 and (result.incomplete or self.path.stat().st_size == 0)  # killed in its genesis
        if not (result.ok or begun):
            raise InputError(
                f"{self.path}: {result.problem}; it cannot be continued: put a copy of the log back, or start a new run"
            )
        if result.events and run_id not in (None, self.run_id):
            raise InputError(f"{self.path}: is the log of run {visible(self.run_id)}, not of {run_id}")
        self._size = result.size
        return result.incomplete

    def _see(self, event: dict) -> None:
        self._seq, self._hash = event["seq"], event["hash"]
        if event["event"] == "genesis":
            self.run_id = str(event["data"].get("run_id"))
        if event["event"] == "recovery":
            told = event["data"].get("corrupt_bytes")
            self._told = told if isinstance(told, int) else 0

    def _set_aside(self) -> None:
        """Copy, flush, only then cut: a kill in between leaves what the next opening repairs."""
        with self.path.open("r+b") as log, self._corrupt.open("ab") as corrupt:
            log.seek(self._size)
            corrupt.write(log.read())
            corrupt.flush()
            os.fsync(corrupt.fileno())
            durable.sync(self.path.parent)
            log.truncate(self._size)
            os.fsync(log.fileno())

    def _tell(self) -> None:
        """A recovery event for what lies in the .corrupt file and no event tells of, however often we were killed."""
        size = self._corrupt.stat().st_size if self._corrupt.exists() else 0
        begin = self._told if self._told <= size else 0  # somebody removed the file
        if begin < size:
            with self._corrupt.open("rb") as corrupt:
                corrupt.seek(begin)
                moved = corrupt.read()
            told = {"bytes": len(moved), "sha256": hashlib.sha256(moved).hexdigest(), "corrupt_bytes": size}
            self.append("recovery", told)


def file_sha256(path: Path) -> str:
    """Of a regular file, read piece by piece."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def sample_sha256(sample: dict) -> str:
    """Of the canonical JSON of what a person was shown."""
    return hashlib.sha256(chain.ENCODER.encode(sample).encode("ascii")).hexdigest()


def human_verdict(
    audit: Audit, *, reviewer: str, verdict: str, sample: dict, report: Path, adapter: Path, note: str = ""
) -> str:
    """Bind what a person said to what it was said of; the new head. `adapter`: its file or folder."""
    said = {"reviewer": reviewer, "verdict": verdict, "note": note, "sample_sha256": sample_sha256(sample)}
    return audit.append("human", {**said, "report": _hashes(audit, report), "adapter": _hashes(audit, adapter)})


def exported(audit: Audit, kind: str, path: Path) -> str:
    """Bind every file of an export, a file or a folder; the new head."""
    return audit.append("export", {"kind": kind, "files": _hashes(audit, path)})


def _hashes(audit: Audit, path: Path) -> dict[str, str]:
    """Path, as seen from the run's folder, to hash."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise InputError(f"{path}: there is no file to put into the audit log; name a file or a folder with files")
    root = audit.path.parent.resolve()
    return {Path(os.path.relpath(file.resolve(), root)).as_posix(): file_sha256(file) for file in files}


def _has_text_keys(value) -> bool:
    """JSON would silently make text of a number that is a key."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_has_text_keys, value.values()))
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, value))
