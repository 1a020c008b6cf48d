"""`poc export RUN`: a folder that others can load without this kit, checked, described and written into the audit log.

    adapter   adapter_model.safetensors  adapter_config.json                   } generation_config.json  README.md
    merged    model*.safetensors  config.json, in 16 bits                      } tokenizer and chat template
    gguf      the same as merged, and the command of llama.cpp's converter for it

Written aside in `.export-NAME.staged`, checked there (poc.export.parity), flushed, then renamed: under its final name a
folder is whole and has passed. What fails, or is interrupted, is removed; what a kill left behind is removed by the
next export into the same place. The run's lock is held meanwhile; its log gets the sums of all files and the figures of
the check.
"""

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from transformers import GenerationConfig

from poc import durable, runfolder, sources
from poc.audit import FILE as LOG
from poc.audit import Audit, file_sha256
from poc.config import nearest
from poc.export import card, merge, parity
from poc.export.parity import Parity, Reference
from poc.export.taken import Taken, read
from poc.models import ADAPTER
from poc.records import InputError, RunError
from poc.resume import begun_in
from poc.text import visible

TARGETS = ("adapter", "merged", "gguf")
CONFIG, CARD = "adapter_config.json", "README.md"
TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "chat_template*",
    "LICENSE*",
)  # fmt: skip
MARGIN = 2**20  # bytes for the card and the configurations
LOCK = ".lock"


def export(run: Path, to: str, out: Path, dtype: str | None = None) -> list[str]:
    """Write the folder `out`; the lines to show.

    InputError: nothing was written. RunError: it does not say what the run says, or the disk is full; nothing is left.
    """
    dtype = _check(to, dtype)
    run, place = run.resolve(), out.resolve()
    with _inside(begun_in(run)):
        taken = read(run)
        _check_place(place, _needed(taken, to))
        held = runfolder.lock(run)
        try:
            found, head = _export(taken, to, place, dtype)
        finally:
            held.release()
    return _told(taken, to, out, dtype, found, head)


def _check(to: str, dtype: str | None) -> str:
    """What the weights are to be held in."""
    if to not in TARGETS:
        raise InputError(f"--to {visible(to)}: unknown{nearest(to, TARGETS)}")
    if to == "adapter" and dtype is not None:
        raise InputError(f"--dtype {visible(dtype)}: an adapter stays in float32, as it was trained: leave it out")
    if dtype not in (None, *merge.DTYPES):
        raise InputError(f"--dtype {visible(dtype)}: unknown{nearest(dtype, merge.DTYPES)}")
    return dtype or merge.DTYPES[0]


def _needed(taken: Taken, to: str) -> int:
    """Bytes on the disk."""
    weights = (taken.checkpoint / ADAPTER).stat().st_size if to == "adapter" else merge.size(taken.located.folder)
    return weights + sum(path.stat().st_size for path in _texts(taken.located.folder)) + MARGIN


def _check_place(place: Path, needed: int) -> None:
    """Room for `needed` bytes at a place that does not exist, or is an empty folder; its parent is made."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"--out {place}: exists and is not empty; name another folder")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {place}: cannot be made ({error.strerror}); name another folder") from None
    _sweep(place.parent)
    free = shutil.disk_usage(place.parent).free
    if free < needed:
        raise InputError(
            f"--out {place}: takes {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free there; make room or "
            "name a folder elsewhere"
        )


def _export(taken: Taken, to: str, place: Path, dtype: str) -> tuple[Parity, str]:
    """The figures of the check, and the new head of the run's log."""
    log = taken.folder / LOG
    if not log.is_file():
        raise InputError(f"{log}: is missing, and an export is written into it: put it back")
    audit = Audit(log)
    with _staged(place) as folder:
        found, quantization = _write(taken, to, folder, dtype)
        text = card.render(taken, "adapter" if to == "adapter" else "merged", found, audit.head, quantization)
        durable.write(folder / CARD, text.encode())
        _publish(folder, place)
        files = {os.path.relpath(path, taken.folder): file_sha256(path) for path in sorted(place.iterdir())}
        kind = "adapter" if to == "adapter" else "merged"
        return found, audit.append("export", {"kind": kind, "files": files, "parity": asdict(found)})


def _write(taken: Taken, to: str, folder: Path, dtype: str) -> tuple[Parity, dict | None]:
    """All but the card; the check of it, and how the start model was quantised in that."""
    base = taken.located.folder
    asked = parity.reference(taken, taken.quantization if to == "adapter" else "none")
    for path in _texts(base):
        shutil.copyfile(path, folder / path.name)
    settings = _settings(asked)
    if to == "adapter":
        _write_adapter(taken, settings, folder)
        return parity.check(taken, folder, asked, base, asked.dtype), asked.quantization
    merge.write(base, taken.checkpoint, dtype, settings, folder)
    return parity.check(taken, folder, asked, None, dtype, four_bit=_four_bit(taken)), None


def _four_bit(taken: Taken) -> Reference | None:
    """What the policy said as it was trained, where that was on a start model in 4 bits."""
    return parity.reference(taken, "nf4") if taken.quantization == "nf4" else None


def _write_adapter(taken: Taken, settings: GenerationConfig, folder: Path) -> None:
    """The checkpoint's adapter, byte for byte, and the start model named so that PEFT cannot mistake it."""
    shutil.copyfile(taken.checkpoint / ADAPTER, folder / ADAPTER)
    told = json.loads((taken.checkpoint / CONFIG).read_text("utf-8"))
    told |= {"base_model_name_or_path": _base_name(taken.config.model), "revision": taken.located.revision}
    durable.write(folder / CONFIG, json.dumps(told, indent=2, sort_keys=True).encode())
    settings.save_pretrained(folder)


def _base_name(source: str) -> str:
    """A folder by its whole path: relative, it could be read as the name of a stranger's model on the Hub."""
    local = None if source in sources.LABS else sources.local_folder(source)
    return str(local.resolve()) if local else source


def _settings(asked: Reference) -> GenerationConfig:
    """The tokens that end an answer, its tokenizer's own first. Nothing else of the start model's settings: the run
    sampled and measured without penalties, top-k or top-p."""
    own, pad = asked.tokenizer.eos_token_id, asked.tokenizer.pad_token_id
    ends = sorted(asked.stop_ids, key=lambda token: (token != own, token))
    return GenerationConfig(
        eos_token_id=ends, pad_token_id=ends[0] if pad is None else pad, bos_token_id=asked.tokenizer.bos_token_id
    )


def _texts(base: Path) -> list[Path]:
    """Tokenizer, chat template and licence, to be copied as they are."""
    return [path for path in sorted(base.iterdir()) if any(fnmatch(path.name, pattern) for pattern in TOKENIZER)]


@contextmanager
def _staged(place: Path) -> Iterator[Path]:
    """An empty folder beside `place`; whatever ends this early, nothing is left of the one or the other."""
    folder = place.with_name(f".export-{place.name}.staged")
    try:
        folder.mkdir()
    except FileExistsError:
        raise InputError(f"--out {place}: another export is writing there; name another folder") from None
    held = FileLock(folder / LOCK)
    held.acquire(timeout=0)
    try:
        yield folder
    except BaseException as error:
        shutil.rmtree(folder if folder.exists() else place, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError):
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"{place}: {reason}; nothing was left there, the run is as it was") from None
        if isinstance(error, RunError):
            raise RunError(f"{place}: {error}. Nothing was left there") from None
        raise
    finally:
        held.release()


def _sweep(parent: Path) -> None:
    """Remove what an export that was killed left here; one that still writes holds its lock."""
    for left in parent.glob(".export-*.staged"):
        lock = FileLock(left / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        shutil.rmtree(left, ignore_errors=True)
        lock.release()


def _publish(folder: Path, place: Path) -> None:
    """Flushed to the disk, then there under its name."""
    (folder / LOCK).unlink()
    for path in folder.iterdir():
        path.chmod((folder / CARD).stat().st_mode)  # safetensors writes for its owner only
        durable.sync(path)
    durable.sync(folder)
    os.rename(folder, place)
    durable.sync(place.parent)


@contextmanager
def _inside(place: Path | None) -> Iterator[None]:
    """The current folder is `place`, if there is one: relative paths of the run start there."""
    here = Path.cwd()
    os.chdir(place or here)
    try:
        yield
    finally:
        os.chdir(here)


def _told(taken: Taken, to: str, out: Path, dtype: str, found: Parity, head: str) -> list[str]:
    kind = "adapter" if to == "adapter" else f"weights in {dtype}"
    lines = [
        f"{out}: the {kind} of {taken.folder.name} after step {taken.step}",
        f"checked: {found.agreement:.1%} of the first {found.tokens} greedy tokens of {found.questions} questions are "
        f"the run's, {found.equal} answers to the end ({found.dtype} against {found.reference_dtype}, {found.device})",
        *(f"note: {line}" for line in card.warnings(taken, found)),
        f"audit head {head}: keep it elsewhere",
        f"read {out / CARD}",
    ]
    return [visible(line) for line in (*lines, *([_gguf(out, dtype)] if to == "gguf" else []))]


def _gguf(out: Path, dtype: str) -> str:
    outtype = {"bfloat16": "bf16", "float16": "f16"}[dtype]
    words = ["llama.cpp/convert_hf_to_gguf.py", str(out), "--outtype", outtype, "--outfile", f"{out}.gguf"]
    return f"no GGUF file was written: llama.cpp's converter makes it of this folder: python {shlex.join(words)}"
