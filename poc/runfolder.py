"""A run is a folder. This file alone writes it; everything else (report, comparison) only reads it.

    config.yaml  environment.json  steps.jsonl  samples.jsonl  outcome.json
    evaluations/step-000010.json  evaluations/VIEW/step-000010.json  checkpoints/step-000010/

Lines are flushed as they are written; a JSON file appears whole or not at all (written aside, then renamed).
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import yaml

from poc import __version__
from poc.records import Group, InputError, StepRecord

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "tokenizers", "numpy", "triton")


class RunFolder:
    """The folder of one run, from its first to its last line."""

    def __init__(self, path: Path, config) -> None:
        create_empty(path)
        self.path = path
        self.seconds = {"rollout": 0.0, "reward": 0.0, "update": 0.0, "evaluate": 0.0}
        self.steps = 0
        (path / "evaluations").mkdir()
        (path / "checkpoints").mkdir()
        write_config(path, config)

    def log_environment(self, **facts) -> None:
        write_json(self.path / "environment.json", environment() | facts)

    def log_step(self, record: StepRecord, groups: Sequence[Group], totals) -> None:
        """One line in steps.jsonl, and one group of completions (best, median, worst reward) in samples.jsonl.

        `totals` [P, G]: the weighted sum of the rewards of each completion.
        """
        self.steps = record.step
        for stage, seconds in record.timing.items():
            self.seconds[stage] += seconds
        append_json(self.path / "steps.jsonl", asdict(record))
        append_json(self.path / "samples.jsonl", {"step": record.step, **_sample(groups[0], totals[0].tolist())})

    def log_evaluation(self, evaluation: dict, view: str = "") -> None:
        """`view`: the subfolder of a measurement beside the hold-out's."""
        self.seconds["evaluate"] += evaluation["seconds"]
        folder = self.path / "evaluations" / view
        folder.mkdir(exist_ok=True)
        write_json(folder / f"step-{evaluation['step']:06d}.json", evaluation)

    def save_checkpoint(self, step: int, policy) -> None:
        """The adapter in PEFT's format, under a name that appears when it is whole; the last two are kept."""
        final = self.path / "checkpoints" / f"step-{step:06d}"
        staged = final.with_name(f".staged-{step:06d}")
        policy.save_adapter(staged)
        os.rename(staged, final)
        for old in sorted(self.path.glob("checkpoints/step-*"))[:-2]:
            shutil.rmtree(old)

    def log_outcome(self, status: str, total: float, reason: str | None = None) -> None:
        """`status`: done, interrupted or failed."""
        seconds = {"total": total, **self.seconds}
        write_json(
            self.path / "outcome.json",
            {
                "status": status,
                "reason": reason,
                "steps": self.steps,
                "seconds": seconds,
                "peak_memory_mib": peak_memory_mib(),
            },
        )


def create_empty(path: Path) -> None:
    """Make the folder; InputError when it holds something already: nothing is ever overwritten."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"--out {path}: exists and is not empty; name another folder or remove it")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {path}: cannot be made ({error.strerror}); name a folder that you may write to"
        ) from None


def write_config(path: Path, config) -> None:
    (path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True))


def write_json(path: Path, content: dict) -> None:
    staged = path.with_name(f".{path.name}.staged")
    staged.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False))
    os.replace(staged, path)


def append_json(path: Path, content: dict) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def _sample(group: Group, totals: list[float]) -> dict:
    order = sorted(range(len(totals)), key=totals.__getitem__)
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


def peak_memory_mib() -> float:
    """Highest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


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
        "gpu": gpu,
    }  # fmt: skip


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
