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
import json
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from poc import audit_verify as chain
from poc import durable
from poc.records import InputError, RunError
from poc.text import clip, visible

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


# ----------------------------------------------------------------------------------------------- what events bind


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


def check_bindings(path: Path, samples: Iterable[dict] | None = None) -> list[str]:
    """What is no longer as the "human" and "export" events of the log `path` say, a line each.

    Of several events about one file the last counts. `samples`: what a reviewer would be shown now; each sample that
    was judged must be among them. A file outside the run's folder that is not here is no difference.
    """
    claims = _Claims()
    result = chain.verify(path, seen=claims.see)
    comparison = _Comparison(path.parent, claims)
    comparison.files(claims.bound)
    there = claims.samples if samples is None else set(map(sample_sha256, samples))
    gone = [line for sample, line in claims.samples.items() if sample not in there]
    changed = [f"{FILE} line {line}: the sample that was judged is another now" for line in gone]
    problems = [result.problem] if result.problem else []
    return list(map(_safe, problems + claims.malformed + comparison.problems + changed))


def _hashes(audit: Audit, path: Path) -> dict[str, str]:
    """Path, as seen from the run's folder, to hash."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise InputError(f"{path}: there is no file to put into the audit log; name a file or a folder with files")
    root = audit.path.parent.resolve()
    return {Path(os.path.relpath(file.resolve(), root)).as_posix(): file_sha256(file) for file in files}


# ------------------------------------------------------------------------------------------- poc verify


@dataclass(frozen=True, slots=True)
class Verification:
    """`lines` to print, safe for a terminal."""

    ok: bool
    lines: list[str]

    def __bool__(self) -> bool:
        return self.ok


def verify_run(folder: Path, heads: Iterable[Head] = ()) -> Verification:
    """The log of a run, and the folder's files against it; of a pilot, those of each run that is there.

    `heads`: kept outside the folder, of the one run. InputError: the folder is neither.
    """
    arms, heads = folder / "arms", list(heads)
    if not arms.is_dir():
        if not any((folder / name).is_file() for name in (FILE, "config.yaml")):
            raise InputError(f"{folder}: is no run or pilot folder; name one that poc train or poc pilot wrote")
        return _verify_one(folder, heads)
    runs = sorted(path for path in arms.iterdir() if path.is_dir())
    if heads or not runs:
        raise InputError(
            f"{folder}: no run has begun in it" if not runs else f"--head: is of one run; name one of {arms}/*"
        )
    found = [_verify_one(run, []) for run in runs]
    return Verification(all(found), [line for one in found for line in one.lines])


def _verify_one(folder: Path, heads: list[Head]) -> Verification:
    if not _has_begun(folder):
        return _said(folder, True, ["not begun: there is nothing to verify yet"])
    if not (folder / FILE).is_file():
        return _said(folder, False, [f"BROKEN: {FILE} is missing: removed, or written by a version that kept none"])
    claims, (local, problems) = _Claims(), _local_heads(folder)
    result = chain.verify(folder / FILE, [*heads, *local], claims.see)
    lines = chain.describe(result._replace(anchored=max((seq for seq, _ in heads or local), default=None)))
    comparison = _Comparison(folder, claims)
    if result.ok:
        comparison.all()
    problems += claims.malformed + comparison.problems
    notes = comparison.notes if result.ok else ["the folder's files were not compared with it"]
    if local and not heads and result.ok:
        whose = f"these heads are the folder's own: who can write it can change them; keep {result.head} elsewhere"
        notes = [whose, *notes]
    shown = [f"PROBLEM: {problem}" for problem in _first(problems)]
    return _said(folder, result.ok and not problems, [*lines, *shown, *_first(notes)])


def _has_begun(folder: Path) -> bool:
    """Not where the run was killed before its first event."""
    traces = [folder / name for name in ("steps.jsonl", "outcome.json") if (folder / name).exists()]
    return bool(traces or _checkpoints(folder) or next(_lines(folder / FILE), b"").endswith(b"\n"))


def _said(folder: Path, ok: bool, lines: list[str]) -> Verification:
    return Verification(ok, [_safe(f"{folder.resolve().name}: {line}") for line in lines])


def _local_heads(folder: Path) -> tuple[list[Head], list[str]]:
    """The heads that outcome.json and the checkpoints hold, and what is wrong with them."""
    heads, problems = [], []
    for path in [folder / "outcome.json", *(path / "manifest.json" for path in _checkpoints(folder))]:
        text = _small_json(path).get("audit_head")
        try:
            heads += [chain.parse_head(text)] if text is not None else []
        except ValueError as error:
            problems.append(f"{path.relative_to(folder)}: audit_head: {error}")
    return heads, problems


class _Claims:
    """What a chain says of the folder beside it. Each value is (SHA-256, line of the log that says so)."""

    def __init__(self) -> None:
        self.steps: dict[int, tuple[str, int]] = {}
        self.checkpoints: dict[int, tuple[str, int]] = {}
        self.evaluations: dict[str, tuple[str, int]] = {}
        self.fixed: dict[str, tuple[str, int]] = {}  # written once
        self.bound: dict[str, tuple[str, int]] = {}  # by people and exports
        self.samples: dict[str, int] = {}
        self.end: tuple[dict, int] | None = None  # what the log says of how the run ended, and its line
        self.malformed: list[str] = []

    def see(self, event: dict) -> None:
        line = event["seq"] + 1
        try:
            self._take(event["event"], event["data"], line)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.malformed.append(f"{FILE} line {line}: this version does not know this form of {event['event']!r:.40}")

    def _take(self, event: str, data: dict, line: int) -> None:
        if event in ("start", "resume"):
            named = {"config.yaml": data.get("config_sha256"), "environment.json": data.get("environment_sha256")}
            told = {name: (_sha(value), line) for name, value in named.items() if value is not None}
            if event == "start" and self.fixed:
                self.malformed.append(f"{FILE} line {line}: a run starts once, this is a second start")
            self.fixed = told | self.fixed
        if event == "resume":
            self._forget_after(_number(data["step"]))
            if "manifest_sha256" in data:
                self.checkpoints[_number(data["step"])] = _sha(data["manifest_sha256"]), line
        if event == "step":
            self.steps[_number(data["step"])] = _sha(data["line_sha256"]), line
        if event == "evaluation":
            self.evaluations[str(data["path"])] = _sha(data["sha256"]), line
        if event == "checkpoint":
            self.checkpoints[_number(data["step"])] = _sha(data["manifest_sha256"]), line
        if event == "human":
            self.samples[_sha(data["sample_sha256"])] = line
        if event in ("human", "export"):
            files = data["files"] if event == "export" else data["report"] | data["adapter"]
            self.bound |= {name: (_sha(value), line) for name, value in files.items()}
        if event in ("start", "resume", "step", "end"):
            self.end = (data, line) if event == "end" else None

    @property
    def done(self) -> bool:
        """Nothing is written after this."""
        return self.end is not None and self.end[0].get("status") in ("done", "stopped")

    def _forget_after(self, step: int) -> None:
        """A resume writes these again, the evaluation of its own step as well."""
        self.steps = {n: claim for n, claim in self.steps.items() if n <= step}
        self.checkpoints = {n: claim for n, claim in self.checkpoints.items() if n <= step}
        self.evaluations = {path: claim for path, claim in self.evaluations.items() if _step_of(path) < step}


class _Comparison:
    """A run's folder against what its chain claims."""

    def __init__(self, folder: Path, claims: _Claims) -> None:
        self.folder, self.claims = folder, claims
        self.problems: list[str] = []
        self.notes: list[str] = []

    def all(self) -> None:
        claims = self.claims
        self.files(claims.fixed)
        self.steps()
        self.files(claims.evaluations)
        known = claims.evaluations.keys()
        found = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob("evaluations/**/*.json"))
        self._unknown([path for path in found if path not in known and not Path(path).name.startswith(".")])
        self.checkpoints()
        self.outcome()
        self.files(claims.bound)
        if not self.problems:
            saved = len(_checkpoints(self.folder))
            counts = [f"{len(claims.steps)} steps", f"{len(known)} evaluations", f"{saved} checkpoints"]
            self.notes.insert(0, f"as logged: {', '.join([*claims.fixed, *counts])}")
        self._tell_unchecked()

    def files(self, claimed: dict[str, tuple[str, int]]) -> None:
        for name, (sha256, line) in claimed.items():
            try:
                path = self.folder / name
                if not path.exists() and not path.resolve().is_relative_to(self.folder.resolve()):
                    self.notes.append(f"{name}: is not here, so not checked")
                elif file_sha256(path) != sha256:
                    self.problems.append(f"{name}: is not what {FILE} line {line} says")
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
                self.problems.append(f"{name}: {why} ({FILE} line {line} names it)")

    def steps(self) -> None:
        """Line i of steps.jsonl is that of the i-th step that counts."""
        claimed, read = sorted(self.claims.steps.items()), 0
        for text in _lines(self.folder / "steps.jsonl"):
            if read < len(claimed) and not _is_line(text, claimed[read][1][0]):
                step, (_, line) = claimed[read]
                self.problems.append(f"steps.jsonl line {read + 1}: is not what {FILE} line {line} says of step {step}")
                return
            read += 1
        if read < len(claimed):
            line = claimed[read][1][1]
            self.problems.append(f"steps.jsonl line {read + 1}: is missing, {FILE} line {line} tells of it")
        if read > len(claimed):
            self._unknown([f"steps.jsonl line {len(claimed) + 1}" + " and later" * (read > len(claimed) + 1)])

    def checkpoints(self) -> None:
        """Those that are there; a run keeps but a few."""
        for folder in _checkpoints(self.folder):
            claim, before = self.claims.checkpoints.get(int(folder.name[5:])), len(self.problems)
            if claim is None:
                self._unknown([f"checkpoints/{folder.name}"])
                continue
            self.files({f"checkpoints/{folder.name}/manifest.json": claim})
            if len(self.problems) == before:
                self._manifest(folder, claim[1])
        self._kept()
        aside = sorted(path.name for path in self.folder.glob("checkpoints/step-*.damaged"))
        self.notes += [f"checkpoints/{name}: was found damaged and set aside" for name in aside]

    def _kept(self) -> None:
        """The checkpoint that an ended run left behind must be there."""
        if self.claims.done and self.claims.checkpoints:
            kept = self.claims.end[0].get("kept")
            step = max(self.claims.checkpoints) if kept is None else kept
            if step not in [int(folder.name[5:]) for folder in _checkpoints(self.folder)]:
                self.problems.append(f"checkpoints/step-{step:06d}: is missing, the run ended with it")

    def _manifest(self, folder: Path, line: int) -> None:
        """The files beside a manifest that is the one which line `line` of the log names."""
        name = f"checkpoints/{folder.name}"
        listed = _small_json(folder / "manifest.json").get("files")
        if not isinstance(listed, dict) or not all(isinstance(entry, dict) for entry in listed.values()):
            self.problems.append(f"{name}/manifest.json: lists no files")
            return
        present = {path.name for path in folder.iterdir()} - {"manifest.json"}
        self.problems += [f"{name}/{file}: missing" for file in sorted(listed.keys() - present)]
        self.problems += [f"{name}/{file}: not in its manifest" for file in sorted(present - listed.keys())]
        self.files({f"{name}/{file}": (listed[file].get("sha256"), line) for file in sorted(present & listed.keys())})

    def outcome(self) -> None:
        """What outcome.json says of the end, where the log says it too."""
        if not (self.folder / "outcome.json").exists():
            if self.claims.end:
                self.notes.append("outcome.json: is not here: the run was killed as it ended, or somebody removed it")
            return
        if self.claims.end is None:
            return self._unknown(["outcome.json"])
        (told, line), found = self.claims.end, _small_json(self.folder / "outcome.json")
        wrong = sorted(key for key in told if key not in found or found[key] != told[key])
        self.problems += [f"outcome.json: {key} is not what {FILE} line {line} says" for key in wrong]

    def _unknown(self, names: list[str]) -> None:
        """Not in the log: where the run is done somebody added it, else the run may have been killed before it told."""
        for name in names:
            if self.claims.done:
                self.problems.append(f"{name}: in no event of the log of a finished run")
            else:
                self.notes.append(f"{name}: not yet audited (the run was killed or still writes); not tampering")

    def _tell_unchecked(self) -> None:
        known = {FILE, f"{FILE}.corrupt", "steps.jsonl", "outcome.json", *self.claims.fixed, *self.claims.bound}
        rest = sorted({path.name for path in self.folder.iterdir() if path.is_file() and path.name[0] != "."} - known)
        if rest:
            self.notes.append(f"in no event, so not checked: {', '.join(_first(rest))}")


def _checkpoints(folder: Path) -> list[Path]:
    found = folder.glob("checkpoints/step-*")
    return sorted(path for path in found if re.fullmatch("step-[0-9]{1,15}", path.name) and path.is_dir())


def _lines(path: Path) -> Iterator[bytes]:
    """None where there is no file; a line that is longer than the limit comes in pieces."""
    if path.is_file():
        with path.open("rb") as file:
            yield from iter(lambda: file.readline(chain.LIMIT), b"")


def _is_line(text: bytes, sha256: str) -> bool:
    return text.endswith(b"\n") and hashlib.sha256(text[:-1]).hexdigest() == sha256


def _small_json(path: Path) -> dict:
    """{} for what is not there, too large or no JSON object."""
    try:
        if path.stat().st_size > chain.LIMIT:
            return {}
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _has_text_keys(value) -> bool:
    """JSON would silently make text of a number that is a key."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_has_text_keys, value.values()))
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, value))


def _number(value) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _sha(value) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _step_of(path: str) -> int:
    """Of evaluations/step-000010.json; 0 where the name has none."""
    found = re.search("step-([0-9]{1,15})[.]json$", path)
    return int(found[1]) if found else 0


def _first(lines: list[str], most: int = 20) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]


def _safe(line: str) -> str:
    return clip(visible(line).replace("\n", "\\n"), 500)
