"""`poc evaluate RUN|MODEL`: the hold-out metrics of a run's checkpoint (the one that the guard went back to, else the
last whole one) or of a model as it is."""

import json
import os
from pathlib import Path

from rich.table import Table

from poc import checkpoint, durable, pilot, runfolder, sources, tasks
from poc.config import RunConfig
from poc.configfile import load
from poc.display import console
from poc.records import InputError


def measure(target: str, out: Path | None, overrides: list[str]) -> dict:
    """Evaluate, print a table, write the JSON where asked."""
    config, adapter = _of_run(Path(target), overrides) if Path(target, "config.yaml").is_file() else (None, None)
    if config is None:
        config = load(RunConfig, None, [*overrides, f"model={json.dumps(target)}"])
    if out is not None and out.exists():
        raise InputError(f"--out {out}: exists already; name another file")
    if out is not None and not os.access(out.parent, os.W_OK):
        raise InputError(f"--out {out}: {out.parent} is not a folder that you may write to; name another")
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
        durable.write_json(out, evaluation)
    _print(evaluation)
    return evaluation


def _of_run(folder: Path, overrides: list[str]) -> tuple[RunConfig, Path]:
    root, kept = folder / "checkpoints", runfolder.read_outcome(folder).get("kept")
    found = root / checkpoint.name(kept) if isinstance(kept, int) else checkpoint.last_whole(root)
    try:
        found and checkpoint.verify(found)
    except checkpoint.Damaged as damage:
        raise InputError(f"{found}: the checkpoint that the guard went back to is damaged: {damage}") from None
    if found is None:
        raise InputError(
            f"{folder}: no whole checkpoint in it: name a run folder (a pilot's are in its arms/ folder) or a model"
        )
    recorded = json.loads((folder / "environment.json").read_text())["model"]["prompt_format"]
    overrides = [f"prompt.format={recorded}", *overrides]  # "auto" would not know the model's role in the pilot
    return load(RunConfig, str(folder / "config.yaml"), overrides), found


def _print(evaluation: dict) -> None:
    """A table in a terminal, plain lines elsewhere."""
    table = Table("metric", "value", "95 % interval", "prompts")
    for metric, entry in evaluation["summary"].items():
        value, low, high = ("-" if entry[key] is None else f"{entry[key]:.3f}" for key in ("value", "low", "high"))
        table.add_row(metric, value, f"{low} to {high}", str(entry["n"]))
        if not console.is_terminal:
            print(f"{metric} {value} ({low} to {high}, {entry['n']} prompts)")
    if console.is_terminal:
        console.print(table)
