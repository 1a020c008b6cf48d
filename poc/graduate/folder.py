"""`poc graduate --to trl RUN`: a folder that goes on with a run in TRL's GRPOTrainer, when one GPU is not enough.

    README.md  train_trl.py  merge.py  config.yaml  grpo_config.json  origin.json  prompts.jsonl  adapter/
    accelerate_configs/

The rewards are not copied: the script imports them from this package (poc.graduate.adapter). README.md in the folder
says what is the same and what is not. Nothing is trained here, and no weights but the adapter are written.
"""

import json
import shlex
import shutil
from importlib import metadata
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from poc import __version__, durable, runfolder
from poc.config import RunConfig, nearest
from poc.graduate import prompts, settings
from poc.graduate.groups import INTERNAL
from poc.graduate.origin import Origin, read
from poc.records import InputError, RunError
from poc.text import visible

TARGETS = ("trl",)
TEMPLATES = Path(__file__).parent / "trl"
ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes")


def graduate(run: Path, to: str, out: Path) -> list[str]:
    """Write the folder `out`; the lines to show. Raises InputError, having written nothing."""
    if to not in TARGETS:
        raise InputError(f"--to {to}: unknown{nearest(to, TARGETS)}")
    origin = read(run)
    questions = prompts.render(origin.config, origin.examples, _tokenizer(origin))
    chosen = settings.grpo_config(origin)
    text = _readme(origin, questions, chosen)
    runfolder.create_empty(out)
    try:
        shutil.copytree(TEMPLATES, out, ignore=shutil.ignore_patterns("*.j2", "__pycache__"), dirs_exist_ok=True)
        _copy_adapter(origin, out / "adapter")
        runfolder.write_config(out, origin.config)
        durable.write(out / "grpo_config.json", json.dumps(chosen, indent=1).encode())
        durable.write(out / "origin.json", json.dumps(_facts(origin), indent=1).encode())
        prompts.write(out / "prompts.jsonl", questions)
        durable.write(out / "README.md", text.encode())
    except BaseException as error:  # a full disk, Ctrl-C: half a folder would look like a whole one
        for child in out.iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        if isinstance(error, OSError):
            raise RunError(f"{out}: {error.strerror or error}; nothing was left there, the run is as it was") from None
        raise
    return [f"{out}: goes on after step {origin.step} of {origin.run}", f"read {out / 'README.md'}"]


def _tokenizer(origin: Origin):
    """The start model's; InputError when that is not the one the run began with."""
    from transformers import AutoTokenizer

    from poc.weights import locate

    located = locate(origin.config.model)
    if located.fingerprint != origin.model["fingerprint"]:
        raise InputError(
            f"{origin.run}: the weights of {origin.config.model} are not those the run began with: put them back"
        )
    return AutoTokenizer.from_pretrained(located.folder, trust_remote_code=False)


def _facts(origin: Origin) -> dict:
    """origin.json."""
    outcome = {key: origin.outcome.get(key) for key in ("status", "reason", "kept", "audit_head")}
    return {
        "kit": __version__, "run": origin.run.resolve().name, "step": origin.step,
        "fingerprint": origin.model["fingerprint"], **outcome,
    }  # fmt: skip


def _copy_adapter(origin: Origin, folder: Path) -> None:
    """Nothing for a run without a checkpoint: the script makes the fresh one that the run would have had."""
    if origin.checkpoint:
        folder.mkdir()
        for name in ADAPTER:
            shutil.copyfile(origin.checkpoint / name, folder / name)


def _readme(origin: Origin, questions: list[prompts.Question], chosen: dict) -> str:
    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    config, outcome = origin.config, origin.outcome
    template = page.from_string((TEMPLATES / "README.md.j2").read_text("utf-8"))
    return template.render(
        origin=origin, config=config, train=config.train, chosen=chosen, questions=questions,
        model=visible(config.model), name=visible(origin.run.resolve().name),
        guarded=outcome.get("status") == "stopped" or isinstance(outcome.get("kept"), int),
        reason=visible(outcome.get("reason") or ""),
        internal=INTERNAL, measured=_measured(config),
        rewards=", ".join(f"{name} ({weight:g})" for name, weight in config.reward.items()),
        labels=sum(question.example.answer is not None for question in questions),
        versions=" ".join(f'"{name}=={_version(name)}"' for name in PACKAGES), kit=__version__,
    )  # fmt: skip


def _version(name: str) -> str:
    """As pip takes it: 2.13.0 for 2.13.0+cpu."""
    return metadata.version(name).partition("+")[0]


def _measured(config: RunConfig) -> str:
    """Options of `poc evaluate` that ask as the run asked."""
    keys = {
        "data": config.data.model_dump(exclude_defaults=True),
        "prompt": config.prompt.model_dump(),
        "train.max_new_tokens": config.train.max_new_tokens,
        "evaluate.samples": config.evaluate.samples,
    }
    return " ".join(f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in keys.items())
