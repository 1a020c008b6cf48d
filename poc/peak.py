"""The most memory that this process held since a run began, in bytes: of the card where it computes on one.

CUDA: what torch's allocator reserved. Linux: the resident set; its highest value is reset through /proc. Elsewhere, or
where that is not allowed, the highest of the whole process counts. What malloc keeps after it was freed is given back
first (glibc), so that a run is not charged for the one before it. Worker processes are not counted.
"""

import ctypes
import resource
import sys
from functools import lru_cache
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def begin() -> None:
    """From here on `measured` counts."""
    if card := _card():
        card.empty_cache()
        card.reset_peak_memory_stats()
    _give_back()
    try:
        CLEAR.write_text("5")
    except OSError:
        pass


def measured() -> int:
    if card := _card():
        return card.max_memory_reserved()
    try:
        return _status("VmHWM")
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def held() -> int:
    """What the process holds now, without what is free again."""
    if card := _card():
        card.empty_cache()
        return card.memory_reserved()
    _give_back()
    try:
        return _status("VmRSS")
    except (OSError, KeyError):
        return measured()


def _card():
    """torch.cuda where there is a card."""
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def _status(key: str) -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def _give_back() -> None:
    if trim := _trim():
        trim(0)


@lru_cache(maxsize=1)
def _trim():
    """glibc's malloc_trim; None elsewhere."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
