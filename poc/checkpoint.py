"""Checkpoints: atomic, verified, without pickle, and enough to go on exactly where the run stood.

    checkpoints/step-000010/
        adapter_model.safetensors  adapter_config.json     as PEFT reads them
        optimizer.safetensors                              AdamW's moments and step counts, "<parameter>/<name>"
        state.json                                         State: whatever else decides the future
        rollouts.json                                      completions that were drawn and are still to be trained on
        manifest.json                                      step, audit head, size and SHA-256 of each file, its own

A checkpoint is written aside, every file and the folder flushed, the manifest last, then renamed, then its parent
flushed: under its final name it is whole. Reading trusts nothing but the manifest's sums; what fails them is set aside
as step-000010.damaged and the newest whole one is taken. There is no state of a random generator to keep: every draw is
seeded by (seed, purpose, number) (poc.order). The manifest finds damage, not malice: who can write the folder can write
a manifest too (poc.audit says what can be done about that).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from poc import durable, guard
from poc.records import Episode, Example, Group, Verdict

MANIFEST, OPTIMIZER, STATE, ROLLOUTS = "manifest.json", "optimizer.safetensors", "state.json", "rollouts.json"
FORMAT = 2


class Damaged(Exception):
    """A checkpoint that is not what its manifest says; the message names file and difference."""


@dataclass(frozen=True, slots=True)
class State:
    """What decides the future of a run beside the weights, the optimizer, the configuration and the data."""

    memory: guard.Memory
    rows: dict[str, int]  # completions at once in update, rollout and evaluate; halved when memory runs out
    halved: dict[str, int]  # how often
    recompute: bool = False  # gradient checkpointing
    step: int = 0  # optimizer steps taken or skipped; the data position, the epochs and every seed follow from it
    evaluated: int = -1  # the last step whose evaluation is written
    entropies: tuple[float | None, ...] = ()  # policy entropy of each step so far: a switch looks at them
    skipped: int = 0  # steps that were not finite
    stop: str | None = None  # "stop" or "rollback": the guard ended the run
    reason: str | None = None  # why
    pending: tuple[Group, ...] = ()  # the last rollout, where later steps still train on it
    account: dict = field(default_factory=dict)  # decides nothing: seconds spent, what the guard said


def save(root: Path, state: State, policy, optimizer: torch.optim.Optimizer, head: str) -> str:
    """Write the checkpoint of `state.step` into `root`; SHA-256 of its manifest. Raises OSError, leaving the others.

    `head`: the audit log's. A checkpoint of the same step is replaced.
    """
    final, staged = root / name(state.step), root / f".staged-{state.step:06d}"
    _remove(staged)
    policy.save_adapter(staged)
    durable.write_new(staged / OPTIMIZER, optimizer_bytes(policy, optimizer))
    durable.write_new(staged / STATE, _json(asdict(replace(state, pending=()))))
    groups = [asdict(group) for group in state.pending]  # what is not finite in them is found when it is trained on
    durable.write_new(staged / ROLLOUTS, json.dumps(groups).encode())
    files = {path.name: _entry(path) for path in sorted(staged.iterdir())}
    manifest = _sealed({"format": FORMAT, "step": state.step, "audit_head": head, "files": files})
    for file in files:
        durable.sync(staged / file)
    durable.write_new(staged / MANIFEST, manifest)
    durable.sync(staged)
    _remove(final)
    os.rename(staged, final)
    durable.sync(root)
    return hashlib.sha256(manifest).hexdigest()


def verify(folder: Path) -> dict:
    """The manifest of a whole checkpoint. Raises Damaged, naming what is missing, cut off or changed."""
    try:
        written = (folder / MANIFEST).read_bytes()
        manifest = json.loads(written)
        listed, step = dict(manifest["files"]), manifest["step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST}: {error}") from None
    if manifest.get("format") != FORMAT:
        raise Damaged(f"{MANIFEST}: format {manifest.get('format')!r}, this version reads {FORMAT}")
    if folder.name != name(step):
        raise Damaged(f"{MANIFEST}: it is of step {step!r}")
    if _sealed(manifest) != written:
        raise Damaged(f"{MANIFEST}: not as it was written")
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if different := sorted(present ^ listed.keys()):
        raise Damaged(f"{different[0]}: {'missing' if different[0] in listed else 'not in the manifest'}")
    for file, entry in listed.items():
        if (found := _entry(folder / file)) != entry:
            key = "size" if found["size"] != entry.get("size") else "sha256"
            raise Damaged(f"{file}: {key} {found[key]}, the manifest says {entry.get(key)}")
    return manifest


def last_whole(root: Path) -> Path | None:
    """The newest whole checkpoint, or None. Changes nothing."""
    return next(filter(_is_whole, reversed(_found(root))), None)


def newest(root: Path, say=lambda line: None) -> Path | None:
    """The newest whole checkpoint, or None; newer ones that are damaged are set aside and `say` tells of it."""
    for folder in reversed(_found(root)):
        try:
            verify(folder)
            return folder
        except Damaged as damage:
            aside = folder.with_name(f"{folder.name}.damaged")
            _remove(aside)
            os.rename(folder, aside)
            say(f"{folder.name} is damaged ({damage}): set aside as {aside.name}, an older one is looked for")
    return None


def whole(root: Path) -> list[int]:
    """The steps of all whole checkpoints, ascending."""
    return [step_of(folder) for folder in _found(root) if _is_whole(folder)]


def prune(root: Path, keep: Collection[int]) -> None:
    """Remove all checkpoints but the last two and those of `keep`, and what an interrupted write left behind."""
    found = _found(root)
    for folder in found[:-2]:
        if step_of(folder) not in keep:
            _remove(folder)
    for left in root.glob(".*-[0-9]*"):
        shutil.rmtree(left)


def load_state(folder: Path) -> State:
    """The State of a verified checkpoint."""
    saved = json.loads((folder / STATE).read_bytes())
    groups = tuple(map(_group, json.loads((folder / ROLLOUTS).read_bytes())))
    made = {
        "memory": guard.Memory.from_json(saved["memory"]),
        "entropies": tuple(saved["entropies"]),
        "pending": groups,
    }
    return State(**{f.name: saved[f.name] for f in fields(State)} | made)


def optimizer_bytes(policy, optimizer: torch.optim.Optimizer) -> bytes:
    """The optimizer's state as safetensors, the same bytes for the same state."""
    named = {parameter: key for key, parameter in policy.model.named_parameters()}
    tensors = {
        f"{named[parameter]}/{key}": torch.as_tensor(value).detach().cpu().clone().contiguous()
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
    }
    return to_bytes(tensors)


def load_optimizer(folder: Path, policy, optimizer: torch.optim.Optimizer) -> None:
    """Put the saved state into a fresh optimizer over the same parameters, exactly."""
    named = dict(policy.model.named_parameters())
    optimizer.state.clear()
    for key, value in load_file(folder / OPTIMIZER).items():
        parameter, _, entry = key.rpartition("/")
        owner = named[parameter]
        if value.dtype == torch.int64:  # a plain count
            optimizer.state[owner][entry] = int(value)
            continue
        device = value.device if value.ndim == 0 else owner.device
        optimizer.state[owner][entry] = torch.empty_like(value, device=device).copy_(value)  # owned, aligned memory


def name(step: int) -> str:
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _found(root: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [path for path in root.glob("step-*") if path.name.removeprefix("step-").isdecimal() and path.is_dir()]
    return sorted(found, key=step_of)


def _is_whole(folder: Path) -> bool:
    try:
        return bool(verify(folder))
    except Damaged:
        return False


def _remove(folder: Path) -> None:
    """Gone at once under this name, whatever comes between: a half-removed folder is never taken for a checkpoint."""
    if folder.exists():
        aside = folder.with_name(f".removed-{folder.name.removeprefix('.')}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
        shutil.rmtree(aside)


def _entry(path: Path) -> dict:
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sealed(manifest: dict) -> bytes:
    """The manifest with its own sum in it, as bytes."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return _json(content | {"sha256": hashlib.sha256(_json(content)).hexdigest()})


def _json(content) -> bytes:
    return json.dumps(content, ensure_ascii=True, allow_nan=False, sort_keys=True).encode()


def _group(saved: dict) -> Group:
    return Group(
        example=Example(**saved["example"] | {"question": _question(saved["example"]["question"])}),
        prompt_ids=tuple(saved["prompt_ids"]),
        episodes=tuple(map(_episode, saved["episodes"])),
        seed=saved["seed"],
        meanings=tuple(saved["meanings"]),
    )


def _question(saved):
    return saved if isinstance(saved, str) else tuple(saved)


def _episode(saved: dict) -> Episode:
    listed = {key: tuple(saved[key]) for key in ("token_ids", "logp", "entropy", "self_certainty")}
    return Episode(**saved | listed | {"verdict": saved["verdict"] and Verdict(**saved["verdict"])})
