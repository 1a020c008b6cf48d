"""What this machine has, which pilot fits it, and for what is missing the command that mends it: text to paste.

It imports none of the heavy libraries and starts no CUDA: versions come from the installed packages' metadata, torch's
CUDA from its version file, the card from nvidia-smi (with a time limit); the sandbox is found out by running a trivial
program in it. Of tokens it says whether they are set, never what they are. Not here: what a pilot takes (poc plan).
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, get_args

import psutil
import yaml

from poc.config import RunConfig
from poc.records import InputError
from poc.scoring import sandbox
from poc.sources import LABS, WHEELS, is_here, local_folder, wheel_parts
from poc.text import visible
from poc.tracker import TELEMETRY_OFF

GIB = 2**30
KIT = "poc-pilot-kit"
PACKAGES = ("torch", "triton", "bitsandbytes", "transformers", "peft")
QUERY = ("name", "driver_version", "memory.total", "compute_cap")
PATIENCE = 1.0  # seconds for nvidia-smi
LEAST_DRIVER = {11: 450, 12: 525, 13: 580}  # of Linux, for each CUDA major; any minor version then works
OLDEST = 7.5  # compute capability that the kernels are compiled for
ROOM = 7.0  # GiB of a card that is sold as one of 8
SMALLEST_DISK = 0.2  # GiB: the checkpoints of a pilot of toys
TOKENS = ("HF_TOKEN", "WANDB_API_KEY")
MOST_NAMES = 8  # of models in the Hub's cache


class Card(NamedTuple):
    name: str
    driver: str
    gib: float
    capability: float | None  # None: the driver is too old to say


def show() -> bool:
    """Prints one line a finding, what fits here, and what every pilot lacks; whether nothing is lacking."""
    found = findings()
    for name, value in found:
        print(f"{name:<16}{visible(value)}")
    print("\n" + textwrap.fill(visible(advice(*_machine())), 100))
    broken = faults()
    for fault in broken:
        print(f"\nno pilot can run: {visible(fault)}")
    return not broken


def findings() -> list[tuple[str, str]]:
    """(what, what was found) in the order in which they are shown."""
    (cards, why), memory = _cards(), psutil.virtual_memory()
    return [
        ("code sandbox", _sandbox()),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"),
        *((name, _version(name)) for name in PACKAGES),
        ("gpu", "; ".join(map(_described, cards)) or why),
        *([("gpu and torch", _misfit(cards[0], _torch_cuda()) or "fit")] if cards else []),
        ("cpus", str(os.cpu_count())),
        ("memory", f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} free"),
        ("free disk", f"{_free():.1f} GiB here"),
        ("lab models", _lab_models()),
        ("offline models", _offline_models()),
        ("hub cache", _hub_cache()),
        ("offline mode", _offline_mode()),
        ("trackers", _trackers()),
        ("tokens", ", ".join(f"{name} {'set' if os.environ.get(name) else 'not set'}" for name in TOKENS)),
        ("telemetry", _telemetry()),
    ]


def faults() -> list[str]:
    """What every pilot needs and is not there, each with what mends it."""
    found = [] if sys.version_info >= (3, 10) else ["python is older than 3.10: install a newer one"]
    if lacking := [name for need in _needs() if (name := _unmet(need))]:
        found.append(f"missing or too old: {', '.join(lacking)}: pip install {' '.join(map(repr, lacking))}")
    if _free() < SMALLEST_DISK:
        found.append(f"{_free():.2f} GiB of free disk here: free some, or start it where there is more")
    return found


def advice(card: Card | None, misfit: str, models: dict[str, bool], wheels: bool, offline: bool) -> str:
    """Which configuration of poc/configs fits, and why. `models`: those of gpu-8gb, and whether they are here."""
    if card is None or misfit:
        start = f"Torch cannot use the card ({misfit}); until then" if card else "There is no NVIDIA card, so"
        first = "" if wheels else " (after: make offline-models)"
        return (
            f"{start} two pilots fit here. `poc pilot` trains the embedded toy models in minutes: it shows how the "
            "rewards behave and tells nothing about your model. `poc pilot gsm8k-cpu --set data.file=FILE.jsonl`"
            f"{first} takes two real models of 135 and 270 million weights through every stage, a few steps only: it "
            "tries your questions, it does not train. A pilot that decides something wants a card with 8 GB."
        )
    fits = "fits it"
    if card.gib < ROOM:
        fits = f"is made for 8 GB: `poc plan gpu-8gb --memory-gib {max(card.gib - 0.5, 0.5):.1f}` says whether it fits"
    more = " There is room for larger models: --set models='{base: ..., instruct: ...}'." if card.gib > 2 * ROOM else ""
    return (
        f"The card has {card.gib:.1f} GiB. `poc pilot gpu-8gb` ({' and '.join(models)}, 4-bit weights) {fits}."
        f"{_to_fetch(models, offline)} `poc plan gpu-8gb --probe` says before what it takes.{more} `poc pilot` alone "
        "trains the embedded toy models in minutes."
    )


def _to_fetch(models: dict[str, bool], offline: bool) -> str:
    absent = [name for name, here in models.items() if not here]
    if not absent:
        return ""
    if offline:
        return f" {' and '.join(absent)} are not here and offline mode is on: unset HF_HUB_OFFLINE, or name folders."
    return f" It downloads {' and '.join(absent)} first (beforehand: {'; '.join(f'hf download {m}' for m in absent)})."


def _machine() -> tuple[Card | None, str, dict[str, bool], bool, bool]:
    """What `advice` goes by."""
    cards, _ = _cards()
    names = yaml.safe_load((Path(__file__).parent / "configs" / "gpu-8gb.yaml").read_text())["models"].values()
    wheels = all(map(_present, WHEELS))
    card = cards[0] if cards else None
    return card, _misfit(card, _torch_cuda()) if card else "", {m: _is_whole(m) for m in names}, wheels, _is_offline()


def _sandbox() -> str:
    if sandbox.level() == "none":
        return f"none: code rewards refuse. Install bubblewrap: {sandbox.INSTALL} ({sandbox.why_not()})"
    return sandbox.level()


def _version(name: str) -> str:
    """With what torch was built for; and for what is missing how to get it."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed" + (": torch for CUDA brings it" if name == "triton" else f": pip install {name}")
    if name != "torch":
        return version
    return f"{version}, for {f'CUDA {_torch_cuda()}' if _torch_cuda() else 'the CPU'}"


def _torch_cuda() -> str | None:
    """The CUDA version that torch was built with, without importing it."""
    spec = find_spec("torch")
    path = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    found = re.search(r"^cuda\b.*=\s*'([\d.]+)'", path.read_text(), re.M) if path and path.is_file() else None
    return found[1] if found else None


def _cards() -> tuple[list[Card], str]:
    """All cards, or why there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [], "none (no nvidia-smi)"
    try:
        said = _ask(tool, QUERY)
        if said.returncode:
            said = _ask(tool, QUERY[:3])  # a driver that does not know compute_cap
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"unknown ({type(error).__name__} from nvidia-smi)"
    cards = [_card(line) for line in said.stdout.splitlines() if line.count(",") >= 2]
    return (cards, "") if said.returncode == 0 and cards else ([], "none (nvidia-smi finds no card)")


def _ask(tool: str, query: tuple[str, ...]) -> subprocess.CompletedProcess:
    command = [tool, f"--query-gpu={','.join(query)}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)


def _card(line: str) -> Card:
    name, driver, mib, *capability = (part.strip() for part in line.split(","))
    return Card(name, driver, (_number(mib) or 0.0) / 1024, _number(capability[0]) if capability else None)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _described(card: Card) -> str:
    capability = "" if card.capability is None else f", compute capability {card.capability:.1f}"
    return f"{card.name}, {card.gib:.1f} GiB, driver {card.driver}{capability}"


def _misfit(card: Card, cuda: str | None) -> str:
    """Why torch cannot use the card, with what mends it; "" where it can."""
    if cuda is None:
        return "torch is a build for the CPU: pip install --force-reinstall torch"
    major, driver = int(cuda.split(".")[0]), _number(card.driver.split(".")[0])
    least = LEAST_DRIVER.get(major)
    if least and driver and driver < least:
        return f"driver {card.driver} is too old for CUDA {cuda}: update it to {least} or newer"
    if card.capability is not None and card.capability < OLDEST:
        return f"compute capability {card.capability:.1f} is below {OLDEST}, the oldest that the kernels are made for"
    return ""


def _needs() -> list[str]:
    """The requirements of the kit itself, as its metadata has them; without metadata the heaviest of them."""
    try:
        return [need for need in metadata.requires(KIT) or () if "extra ==" not in need]
    except metadata.PackageNotFoundError:
        return list(PACKAGES)


def _unmet(need: str) -> str | None:
    """The requirement, where what is installed does not meet it."""
    from packaging.requirements import Requirement

    wanted = Requirement(need)
    if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
        return None
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name}{wanted.specifier}"
    return None if wanted.specifier.contains(version, prereleases=True) else f"{wanted.name}{wanted.specifier}"


def _free() -> float:
    return shutil.disk_usage(".").free / GIB


def _lab_models() -> str:
    absent = [name for name in LABS if not (local_folder(name) / "model.safetensors").is_file()]
    return f"{', '.join(absent)} absent: make them with python -m poc.lab" if absent else f"{', '.join(LABS)} present"


def _offline_models() -> str:
    found = [f"{name.removeprefix('wheel:')} {'present' if _present(name) else 'absent'}" for name in WHEELS]
    return ", ".join(found) + ("" if all(map(_present, WHEELS)) else ": make offline-models")


def _present(source: str) -> bool:
    try:
        return bool(wheel_parts(source))
    except InputError:
        return False


def _hub_cache() -> str:
    """Names of the models that load without a download."""
    folders = sorted(Path(_hub("HF_HUB_CACHE", "nowhere")).glob("models--*--*"))
    names = [folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders]
    whole = [name for name in names if _is_whole(name)]
    more = f" and {len(whole) - MOST_NAMES} more" if len(whole) > MOST_NAMES else ""
    return f"{', '.join(whole[:MOST_NAMES])}{more}" if whole else "no model"


def _is_whole(name: str) -> bool:
    try:
        return is_here(name)
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError):  # no Hub client, name or index
        return False


def _is_offline() -> bool:
    return _hub("HF_HUB_OFFLINE", False)


def _hub(name: str, otherwise):
    """One of the Hub client's constants, also where its package is missing."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return otherwise
    return getattr(constants, name)


def _offline_mode() -> str:
    return "on: nothing is downloaded (HF_HUB_OFFLINE)" if _is_offline() else "off: Hub ids are downloaded when needed"


def _trackers() -> str:
    """What the configuration's key `tracker` can be here."""
    names = [name for name in get_args(RunConfig.model_fields["tracker"].annotation) if name != "none"]
    known = {name: _version(name) for name in names}
    here = [f"{name} {version}" for name, version in known.items() if not version.startswith("not ")]
    absent = [name for name in names if known[name].startswith("not ")]
    return "; ".join([*here, *([f"not installed: {', '.join(absent)} (pip install {absent[0]})"] if absent else [])])


def _telemetry() -> str:
    on = [name for name, off in TELEMETRY_OFF.items() if os.environ.get(name, off) != off]
    return f"the kit sends nothing; you set for its libraries: {', '.join(on)}" if on else "off: the kit sends nothing"
