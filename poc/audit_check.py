"""`poc verify`: a run's audit log, and the run's folder against it.

What the chain proves and what it cannot is said in poc.audit. Here: whether config.yaml, environment.json, each line of
steps.jsonl, the evaluations, the checkpoints and the end in outcome.json are what the events say of them; what lies
there and no event tells of; which heads anchor the log. An honest kill at any moment is no difference. Nothing is
changed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from poc import audit_verify as chain
from poc.audit import FILE, Head, file_sha256, sample_sha256
from poc.records import InputError
from poc.text import clip, visible


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
