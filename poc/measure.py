"""`poc evaluate RUN|MODEL`: the hold-out metrics of a run's last checkpoint or of a model as it is."""

import json
from pathlib import Path

from rich.table import Table

from poc import pilot, runfolder, sources, tasks
from poc.config import RunConfig, load
from poc.display import console
from poc.records import InputError


def measure(target: str, out: Path | None, overrides: list[str]) -> dict:
    """Evaluate, print a table, write the JSON where asked."""
    config, adapter = _of_run(Path(target), overrides) if Path(target, "config.yaml").is_file() else (None, None)
    if config is None:
        config = load(RunConfig, None, [*overrides, f"model={json.dumps(target)}"])
    if out is not None and out.exists():
        raise InputError(f"--out {out}: exists already; name another file")
    config = pilot.resolve(config)
    sources.check_source(config.model)
    data = tasks.load(config.data, config.train.seed)

    from poc.evaluate import evaluate
    from poc.models import load_policy

    policy = load_policy(
        config.model, quantization=config.quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha,
        adapter=adapter,
    )  # fmt: skip
    encode, _ = pilot.prompt_encoder(pilot.Job(Path(), target, None, config), policy)
    pilot.check_lengths(data, encode, policy, config)
    evaluation = evaluate(policy, data["holdout"], config, step=0, encode=encode)
    if out is not None:
        runfolder.write_json(out, evaluation)
    _print(target, evaluation)
    return evaluation


def _of_run(folder: Path, overrides: list[str]) -> tuple[RunConfig, Path]:
    checkpoints = sorted(folder.glob("checkpoints/step-*"))
    if not checkpoints:
        raise InputError(
            f"{folder}: no checkpoint in it: name a run folder (a pilot's are in its arms/ folder) or a model"
        )
    recorded = json.loads((folder / "environment.json").read_text())["model"]["prompt_format"]
    overrides = [f"prompt.format={recorded}", *overrides]  # "auto" would not know the model's role in the pilot
    return load(RunConfig, str(folder / "config.yaml"), overrides), checkpoints[-1]


def _print(name: str, evaluation: dict) -> None:
    table = Table("metric", "value", "95 % interval", "prompts", title=None)
    for metric, entry in evaluation["summary"].items():
        value = "-" if entry["value"] is None else f"{entry['value']:.3f}"
        interval = "-" if entry["low"] is None else f"{entry['low']:.3f} to {entry['high']:.3f}"
        table.add_row(metric, value, interval, str(entry["n"]))
    console.print(table)
