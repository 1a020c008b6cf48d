"""Real runs of the tests' toy model: whole, cut off after a step, gone on with; and what must be equal between them."""

import hashlib
import json
from pathlib import Path

from poc import pilot
from poc.config import RunConfig
from poc.configfile import load
from poc.display import Watch
from poc.resume import left

SMALL = [
    "data.train=16", "data.holdout=4", "data.canary=2", "train.prompts_per_step=2", "train.group_size=4",
    "train.max_new_tokens=6", "evaluate.every=100", "evaluate.samples=2", "lora.rank=2", "train.steps=12",
    "train.learning_rate=0.01", "train.checkpoint_every=100", "guard.action=off",
]  # fmt: skip


def job(folder: Path, model: Path, overrides=(), small=SMALL) -> pilot.Job:
    config = load(RunConfig, None, [f"model={model}", *small, *overrides])
    return pilot.Job(folder, folder.name, None, pilot.resolve(config))


def run(jobs: list[pilot.Job], stop_after: int | None = None) -> str:
    """Run the jobs, or go on with them; `stop_after`: as if Ctrl-C were pressed when so many steps are done."""
    watch = Watch(sum(j.config.train.steps for j in jobs), live=False)
    return pilot.run(jobs, pilot.prepare(jobs), watch, lambda: stop_after is not None and watch.done >= stop_after)


def resume(folder: Path, stop_after: int | None = None) -> str:
    """`poc resume FOLDER`."""
    return run(left(folder).jobs, stop_after)


def essence(folder: Path) -> dict:
    """What must be the same to the last bit however often the run was interrupted: bytes, hashes and records."""
    last = sorted(folder.glob("checkpoints/step-*"))[-1]
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    for step in steps:
        step.pop("timing")
    return {
        "step": last.name,
        "adapter": sha256(last / "adapter_model.safetensors"),
        "optimizer": sha256(last / "optimizer.safetensors"),
        "steps": steps,
        "samples": sha256(folder / "samples.jsonl"),
        "evaluations": {
            path.relative_to(folder).as_posix(): json.loads(path.read_text())["prompts"]
            for path in sorted(folder.glob("evaluations/**/step-*.json"))
        },
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
