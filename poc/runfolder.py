"""A run is a folder. This file alone writes it; everything else (report, comparison) only reads it.

    config.yaml  environment.json  steps.jsonl  samples.jsonl  audit.jsonl  outcome.json
    evaluations/step-000010.json  evaluations/VIEW/step-000010.json  checkpoints/step-000010/
    tensorboard/ or wandb/ where the configuration asks for it (poc.tracker)

Files appear whole or not at all (poc.durable); of a log the last line may be torn after a kill, and what goes on with
the run cuts it off. One process at a time may write: the others are told so.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import fmean

import yaml
from filelock import FileLock, Timeout

from poc import __version__, durable, peak
from poc.audit import Audit, file_sha256
from poc.audit_verify import parse_head, verify
from poc.config import RunConfig
from poc.parallel import the_world
from poc.records import Group, InputError, StepRecord
from poc.tracker import Run, Tracker

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "tokenizers", "numpy", "triton")
DESCRIBED = {"config": "config.yaml", "environment": "environment.json"}  # what an audit log says a run is
SUMMARY = ("step", "reward", "entropy", "length", "truncated", "accuracy", "agreement", "loss", "grad_norm", "skipped")
STAGES = ("rollout", "reward", "update", "evaluate", "save")
PLAN = "plan.json"  # what the run was predicted to take, reckoned at its start


class RunFolder:
    """The folder of one run: its only writer, from its first to its last line, over any number of interruptions."""

    def __init__(self, path: Path, config: RunConfig, facts: dict) -> None:
        """A new folder, or the one that an interrupted run left: `resumed` tells which. `facts`: see environment.json.

        Raises InputError, having changed nothing, when another process writes there, when what is there is another run
        than this one, or when it is not as this run left it.
        """
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.lock, self.config, self.tracker = path, lock(path), config, Tracker()
        try:
            self.resumed = (path / "config.yaml").is_file()
            if not self.resumed:
                create_empty(path)
            self.steps, self.decisions, self.seconds = 0, [], dict.fromkeys(STAGES, 0.0)
            self.began, self.before = time.perf_counter(), 0.0
            self._open(config, facts)
        except BaseException:
            self.lock.release()
            raise

    def _open(self, config: RunConfig, facts: dict) -> None:
        now, self.earlier = environment() | begun_in(self.path) | facts, read_environment(self.path)
        begun = _start_of(self.path) if self.resumed else None
        if begun:
            _check_files(self.path, begun)
            _check_same(self.path, self.earlier, now)
            self._check_logs()
        else:
            write_config(self.path, config)
            durable.write_json(self.path / "environment.json", now)
        for name in ("evaluations", "checkpoints"):
            (self.path / name).mkdir(exist_ok=True)
        self.audit = Audit(self.path / "audit.jsonl")
        if not begun:
            files = {f"{name}_sha256": file_sha256(self.path / file) for name, file in DESCRIBED.items()}
            self.audit.append("start", files | {key: facts[key] for key in ("model", "data", "labels") if key in facts})

    def _check_logs(self) -> None:
        """InputError unless audit log and steps.jsonl are as they were written: up to the newest whole checkpoint, the
        audit log also up to the head that outcome.json holds."""
        from poc import checkpoint

        found, steps = checkpoint.last_whole(self.path / "checkpoints"), self.path / "steps.jsonl"
        lines = _lines_until(steps, checkpoint.step_of(found) if found else 2**62)
        if not found and lines:
            raise InputError(f"{self.path}: no checkpoint is whole: put one back, or start a new run")
        if not found:
            return
        hashes, heads = {}, [checkpoint.verify(found)["audit_head"], read_outcome(self.path).get("audit_head")]
        try:
            heads = [parse_head(head) for head in heads if head is not None]
        except ValueError as error:
            raise InputError(f"{self.path / 'outcome.json'}: {error}; put it back, or start a new run") from None
        result = verify(self.path / "audit.jsonl", heads, lambda event: _line_hash(event, hashes))
        if not result.ok:
            raise InputError(f"{self.path / 'audit.jsonl'}: {result.problem}; put it back, or start a new run")
        for step in range(1, checkpoint.step_of(found) + 1):
            if step > len(lines) or hashlib.sha256(lines[step - 1]).hexdigest() != hashes.get(step):
                raise InputError(
                    f"{steps} line {step}: is missing or not as it was written; put the file back, or start a new run"
                )

    def restore(self, policy, optimizer, say: Callable[[str], None]):
        """Adapter, optimizer and poc.checkpoint.State of the newest whole checkpoint; None where there is none yet.

        The logs are cut back to that step; the audit log is not: it says that the later steps are taken again. The
        tracker follows from here on.
        """
        state = self._restored(policy, optimizer, say) if self.resumed else None
        self.tracker = Tracker(self.config.tracker, Run(self.path.resolve(), self.audit.run_id, self.steps), say)
        return state

    def _restored(self, policy, optimizer, say: Callable[[str], None]):
        """Of a run that has begun."""
        from poc import checkpoint

        found = checkpoint.newest(self.path / "checkpoints", say)
        state = checkpoint.load_state(found) if found else None
        changed = _other_versions(self.earlier, environment())
        if changed:
            say(f"other versions than before ({', '.join(changed)}): the last digits may differ from those of one run")
        used = {"manifest_sha256": file_sha256(found / checkpoint.MANIFEST)} if found else {}
        self.audit.append("resume", {"step": state.step if state else 0, "versions": changed, **used})
        self._cut_back(state.step if state else 0)  # told first: a kill in between looks like no tampering
        if state:
            policy.load_adapter(found)
            checkpoint.load_optimizer(found, policy, optimizer)
            self.steps, self.decisions = state.step, list(state.account["decisions"])
            self.seconds, self.before = self.seconds | state.account["seconds"], state.account["total"]
            say(f"{self.path.name} goes on after step {state.step}")
        return state

    def _cut_back(self, step: int) -> None:
        """Lines and evaluations of later steps are taken out: they are made again, the same."""
        for path in (self.path / name for name in ("steps.jsonl", "samples.jsonl", "equivalence.jsonl")):
            if path.is_file():
                durable.write(path, b"".join(line + b"\n" for line in _lines_until(path, step)))
        for path in self.path.glob("evaluations/**/step-*.json"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()
        (self.path / "outcome.json").unlink(missing_ok=True)

    def log_step(self, record: StepRecord, groups: Sequence[Group], totals) -> None:
        """One line in steps.jsonl, and one group of completions (best, median, worst reward) in samples.jsonl.

        `totals` [P, G]: the weighted sum of the rewards of each completion; None where there is none.
        """
        self.steps = record.step
        for stage, seconds in record.timing.items():
            self.seconds[stage] += seconds
        line = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False).encode()
        durable.append_line(self.path / "steps.jsonl", line)
        paid = [None] * len(groups[0].episodes) if totals is None else totals[0].tolist()
        append_json(self.path / "samples.jsonl", {"step": record.step, **_sample(groups[0], paid)})
        summary = {key: getattr(record, key) for key in SUMMARY}
        self.audit.append("step", {"line_sha256": hashlib.sha256(line).hexdigest(), **summary})
        self.tracker.step(record)

    def log_evaluation(self, evaluation: dict, view: str = "") -> None:
        """`view`: the subfolder of a measurement beside the hold-out's."""
        self.seconds["evaluate"] += evaluation["seconds"]
        folder = self.path / "evaluations" / view
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{evaluation['step']:06d}.json"
        durable.write_json(path, evaluation)
        found = {
            key: evaluation["summary"][key]["value"] for key in ("accuracy", "entropy") if key in evaluation["summary"]
        }
        written = {"path": path.relative_to(self.path).as_posix(), "sha256": file_sha256(path)}
        self.audit.append("evaluation", {"step": evaluation["step"], **written, **found})
        self.tracker.evaluation(evaluation, view)

    def log_plan(self, plan: dict) -> dict:
        """What is left to do at the start, and from it what the whole run is to take; the first word stands."""
        if self._predicted():
            return _read_object(self.path / PLAN)
        seconds, spent = {stage: self.seconds[stage] + left for stage, left in plan["seconds"].items()}, self.spent()
        whole = plan | {"seconds": seconds, "spent": spent, "total": spent + sum(plan["seconds"].values())}
        durable.write_json(self.path / PLAN, whole)
        return whole

    def log_decision(self, decision: dict) -> None:
        """What the guard said; it is in the audit log, in outcome.json and on the page."""
        self.decisions.append(decision)
        self.audit.append("guard", decision)
        self.tracker.decision(decision)

    def save_checkpoint(self, state, policy, optimizer, keep: Collection[int]) -> None:
        """See poc.checkpoint; the last two are kept, and the steps of `keep`."""
        from poc import checkpoint

        root = self.path / "checkpoints"
        account = {"seconds": self.seconds, "total": self.spent(), "decisions": self.decisions}
        began = time.perf_counter()
        manifest = checkpoint.save(root, replace(state, account=account), policy, optimizer, self.audit.head)
        self.audit.append("checkpoint", {"step": state.step, "manifest_sha256": manifest})
        checkpoint.prune(root, keep)
        self.seconds["save"] += time.perf_counter() - began

    def spent(self) -> float:
        """Seconds of work in this folder, those before an interruption included as far as a checkpoint knew."""
        return self.before + time.perf_counter() - self.began

    def log_outcome(self, status: str, reason: str | None = None, kept: int | None = None) -> dict:
        """`status`: done, stopped (by the guard), interrupted or failed. `kept`: the step that was gone back to."""
        outcome = {
            "status": status, "reason": reason, "steps": self.steps, "kept": kept, "guard": self.decisions,
            "seconds": {"total": self.spent(), **self.seconds}, "peak_memory_mib": peak.measured() / 2**20,
            "length": self._mean_length(), "predicted": self._predicted(),
        }  # fmt: skip
        self.audit.append("end", {key: outcome[key] for key in ("status", "reason", "steps", "kept", "guard")})
        durable.write_json(self.path / "outcome.json", outcome | {"audit_head": self.audit.head})
        return outcome

    def _mean_length(self) -> float | None:
        """Tokens of a completion, over all steps."""
        found = [json.loads(line)["length"] for line in _lines_until(self.path / "steps.jsonl", self.steps)]
        return fmean(found) if found else None

    def _predicted(self) -> dict | None:
        """What plan.json says, beside which the outcome's own figures stand."""
        plan = _read_object(self.path / PLAN)
        try:
            return {
                "seconds": float(plan["total"]), "peak_memory_mib": plan["peak_bytes"] / 2**20,
                "length": float(plan["lengths"]["mean"]),
            }  # fmt: skip
        except (KeyError, TypeError, ValueError):
            return None

    def close(self) -> None:
        """Let another process write."""
        try:
            self.tracker.close()
        finally:
            self.lock.release()


_LOCKS: dict[Path, FileLock] = {}  # of this process: a folder is locked again by who holds it already


def lock(path: Path) -> FileLock:
    """The lock of a run's or pilot's folder, held. Raises InputError when another process has it."""
    held = _LOCKS.setdefault(path.resolve(), FileLock(path.resolve() / ".lock"))
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{path}: another process is writing there; wait until it has ended, or stop it") from None
    return held


def begun_in(path: Path) -> dict:
    """Where the command was given, as seen from the run: relative paths in its configuration start there."""
    return {"begun_in": os.path.relpath(Path.cwd(), path.resolve())}


def write_refused(path: Path, config: RunConfig, facts: dict, reason: str) -> None:
    """The folder of a run that could not begin, which says why; one that has begun is left alone."""
    if (path / "audit.jsonl").is_file():
        return
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, config)
    durable.write_json(path / "environment.json", environment() | begun_in(path) | facts)
    durable.write_json(path / "outcome.json", {"status": "failed", "reason": reason, "steps": 0})


def read_environment(path: Path) -> dict | None:
    """environment.json of a run folder; None where it was not written, or is not readable."""
    try:
        found = json.loads((path / "environment.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_outcome(path: Path) -> dict:
    """outcome.json of a run folder; empty where the run has not ended or was killed."""
    return _read_object(path / "outcome.json")


def _read_object(path: Path) -> dict:
    """A JSON object; empty where the file is none, or not there."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_same(path: Path, earlier: dict, now: dict) -> None:
    """InputError unless data and start model are those that the run began with."""
    for split, mark in now.get("data", {}).items():
        if split != "left_out" and earlier.get("data", {}).get(split) != mark:
            raise InputError(f"{path}: the questions of {split} are not those the run began with: put the data back")
    if earlier["model"].get("fingerprint") != now.get("model", {}).get("fingerprint"):
        raise InputError(
            f"{path}: the weights of {earlier['model'].get('source')} are not those the run began with: put them back"
        )


def _start_of(path: Path) -> dict | None:
    """What the audit log says the run is; None where it had not begun. Raises InputError when the log is gone or cannot
    be read although there are checkpoints."""
    reason = "has no start"
    try:
        with (path / "audit.jsonl").open("rb") as lines:
            begun = next((event["data"] for event in map(json.loads, lines) if event["event"] == "start"), None)
        if begun is not None:
            return begun
    except FileNotFoundError:
        reason = "is missing"
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = "cannot be read"  # without checkpoints: torn in its first lines by a kill
    if any(path.glob("checkpoints/step-*")):
        raise InputError(f"{path}: audit.jsonl {reason}; put it back, or start a new run")
    return None


def _check_files(path: Path, begun: dict) -> None:
    """InputError when config.yaml or environment.json is not what the run began with."""
    for name, file in DESCRIBED.items():
        found = file_sha256(path / file) if (path / file).is_file() else None
        if found != begun[f"{name}_sha256"]:
            raise InputError(
                f"{path / file}: is missing or was changed after the run began; put it back, or start a new run"
            )


def _line_hash(event: dict, hashes: dict[int, str]) -> None:
    """Collects what the log says of each line of steps.jsonl; the last word counts."""
    if event["event"] == "step":
        hashes[event["data"]["step"]] = event["data"]["line_sha256"]


def _other_versions(earlier: dict | None, now: dict) -> list[str]:
    """Packages, threads and processes that are not those of before, as "torch 2.12 -> 2.13"."""
    known = (earlier or {}).get("hardware", {})
    before = {
        **(earlier or {}).get("packages", {}),
        "threads": known.get("threads"),
        "processes": known.get("processes", 1),
    }
    after = {**now["packages"], **{key: now["hardware"][key] for key in ("threads", "processes")}}
    return [f"{key} {before[key]} -> {after.get(key)}" for key in before if before[key] != after.get(key)]


def _lines_until(path: Path, step: int) -> list[bytes]:
    """Whole lines up to that step."""
    kept = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            found = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(found, int) and found <= step:
            kept.append(line)
    return kept


def create_empty(path: Path) -> None:
    """Make the folder; InputError when it holds something already: nothing is ever overwritten.

    What a run leaves that was stopped before it had a config.yaml counts as nothing.
    """
    if path.exists() and (not path.is_dir() or any(not _is_nothing(p) for p in path.iterdir())):
        raise InputError(
            f"--out {path}: exists and is not empty; name another folder, or go on with a run: poc resume {path}"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {path}: cannot be made ({error.strerror}); name a folder that you may write to"
        ) from None


def _is_nothing(path: Path) -> bool:
    return path.name in (".lock", ".config.yaml.staged") or (path.is_dir() and not any(path.iterdir()))


def write_config(path: Path, config) -> None:
    text = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
    durable.write(path / "config.yaml", text.encode())


def append_json(path: Path, content: dict) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def _sample(group: Group, totals: list[float | None]) -> dict:
    order = sorted(range(len(totals)), key=lambda i: totals[i] or 0.0)
    picked = dict.fromkeys((order[-1], order[len(order) // 2], order[0]))
    completions = [
        {
            "text": group.episodes[i].text,
            "reward": totals[i],
            "status": group.episodes[i].verdict and group.episodes[i].verdict.status,
        }
        for i in picked
    ]
    return {"question": group.example.text, "gold": group.example.answer, "completions": completions}


def environment() -> dict:
    """What a reader needs to repeat the run: versions, commit, hardware, command, start. No environment variable."""
    commit, dirty = _commit()
    return {
        "kit": __version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "hardware": _hardware(),
        "command": " ".join(["poc", *sys.argv[1:]]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> tuple[str | None, bool]:
    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain").strip())
    except (OSError, subprocess.SubprocessError):
        return None, False


def _hardware() -> dict:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "memory_gib": round(memory, 1),
        "gpu": gpu, "processes": the_world().size,
    }  # fmt: skip


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
