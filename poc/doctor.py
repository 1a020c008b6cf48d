"""What this machine has that the kit can use: plain text to paste into a question. No secret, no environment.

It imports none of the heavy libraries: versions come from the installed packages' metadata. The one program it runs
from elsewhere is nvidia-smi, with a time limit; the sandbox is found out by running a trivial program in it.
"""

import os
import platform
import shutil
import subprocess
from importlib import metadata

from poc.records import InputError
from poc.scoring import sandbox
from poc.sources import WHEELS, wheel_parts
from poc.text import visible

PACKAGES = ("torch", "triton", "bitsandbytes", "transformers")
QUERY = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
PATIENCE = 1.5  # seconds for nvidia-smi


def show() -> None:
    """Prints one line per finding, in under three seconds."""
    for name, value in findings():
        print(f"{name:<16}{visible(value)}")


def findings() -> list[tuple[str, str]]:
    """(what, what was found) in the order in which they are shown."""
    return [
        ("code sandbox", _sandbox()),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"),
        *((name, _version(name)) for name in PACKAGES),
        ("gpu", _gpu()),
        ("cpus", str(os.cpu_count())),
        ("memory", _memory()),
        ("free disk", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB here"),
        ("offline models", _offline_models()),
        ("telemetry", "off: the kit sends nothing"),
    ]


def _sandbox() -> str:
    if sandbox.level() == "none":
        return f"none: code rewards refuse. Install bubblewrap: {sandbox.INSTALL} ({sandbox.why_not()})"
    return sandbox.level()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none (no nvidia-smi)"
    try:
        said = subprocess.run([tool, *QUERY], capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({type(error).__name__} from nvidia-smi)"
    cards = [line for line in said.stdout.splitlines() if line.strip()]
    return "; ".join(cards) if said.returncode == 0 and cards else "none (nvidia-smi finds no card)"


def _memory() -> str:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return "unknown"
    return f"{pages * size / 2**30:.1f} GiB"


def _offline_models() -> str:
    found = [f"{name.removeprefix('wheel:')} {'present' if _present(name) else 'absent'}" for name in WHEELS]
    return ", ".join(found)


def _present(source: str) -> bool:
    try:
        return bool(wheel_parts(source))
    except InputError:
        return False
