"""Grading the red team's corpus as training grades completions, and watching what that does to this machine.

A siege of one example sends each attack alone through poc.scoring.pool, so that each has its own time, then looks for
what it left behind: files (a canary's folder and the working directory), environment, Python's own functions, signals,
processes, memory. It does not see the network or other folders; that the code sandbox holds is tested on its own.
"""

import builtins
import gc
import json
import operator
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from poc.records import Episode, Example, Group
from poc.redteam import Attack, honest, hostile
from poc.tasks import DOMAINS, own

LIMIT = 2.0  # seconds a verdict may take
LATE = 0.25  # seconds beyond the limit within which it must be there
GROWTH = 50.0  # MiB that this process may grow
SETTLING = 1.0  # seconds after which nothing that an attack started may live
OWN_CHILDREN = os.path.join("poc", "scoring", "")  # in the command line of the pool's processes
UNPAID = {  # reward -> kinds of attack that say nothing; format looks at the mark alone where any text is an answer
    "semantic_entropy": ("blank", "empty", "echo"),
    "majority_vote": ("blank", "empty", "echo"),
    "format": ("blank", "empty"),
}


class Siege(NamedTuple):
    """What came of it. `paid`: (reward, attack); `raised`: exceptions and verdicts "error"; `effects`: words."""

    example: Example
    attacks: int
    passed: list[Attack]
    refused: list[Attack]
    paid: list[tuple[str, Attack]]
    raised: list[Attack]
    seconds: list[tuple[float, Attack]]
    effects: list[str]

    @property
    def held(self) -> bool:
        """Whether nothing got through: time aside, which a busy machine may add to."""
        return not (self.passed or self.refused or self.paid or self.raised or self.effects)


def besiege(example: Example, limit: float = LIMIT, wanted: Callable[[Attack], bool] = lambda attack: True) -> Siege:
    """Send the honest spellings, then all `wanted` attacks, one by one, each with `limit` seconds."""
    passed, paid, raised, seconds = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="poc-siege-") as folder:
        attacks = [attack for attack in hostile(example, os.path.join(folder, "canary")) if wanted(attack)]
        spelled = honest(example)
        refused = [attack for attack in spelled if not _correct(example, attack, limit)]
        with _watched(folder) as effects:
            for attack in attacks:
                start = time.perf_counter()
                grade = _graded(example, attack, limit)
                seconds.append((time.perf_counter() - start, attack))
                if grade is None or grade.verdict.status == "error":
                    raised.append(attack)
                    continue
                passed += [attack] if grade.verdict.correct else []
                paid += [(name, attack) for name in _payers(example, attack, grade)]
    return Siege(example, len(attacks), passed, refused, paid, raised, seconds, effects)


def _graded(example: Example, attack: Attack, limit: float):
    """The grade, None if an exception came instead: counted by the caller, whatever it is."""
    from poc.scoring.pool import grade

    try:
        return grade([example], [attack.text], limit=limit)[0]
    except Exception:
        return None


def _correct(example: Example, attack: Attack, limit: float) -> bool:
    grade = _graded(example, attack, limit)
    return grade is not None and grade.verdict.correct


def _payers(example: Example, attack: Attack, grade) -> Iterator[str]:
    """The rewards that pay for this attack if four completions in a group agree on it."""
    from poc.rewards import REWARDS
    from poc.rewards.knights import knights_knaves

    rewards = {name: REWARDS[name] for name, kinds in UNPAID.items() if attack.kind in kinds}
    if example.domain == "logic" and "kn" in example.answer.partition(" ")[2][:2]:
        rewards |= {f"knights_knaves ({layout})": knights_knaves(layout) for layout in ("tags", "mark")}
    group = _agreed(example, attack, grade) if rewards else None
    for name, reward in rewards.items():
        if max(reward(group)) > 0:
            yield name


def _agreed(example: Example, attack: Attack, grade) -> Group:
    from poc.rewards.meanings import exact, mathematical, with_meanings

    cluster = own.CLUSTER if example.domain == own.NAME else DOMAINS[example.domain].CLUSTER
    episode = Episode((0,), attack.text, True, (0.0,), (0.0,), (0.0,), grade.verdict, grade.answer, grade.formatted)
    return with_meanings(Group(example, (0,), (episode,) * 4), mathematical if cluster == "math" else exact)


@contextmanager
def _watched(folder: str) -> Iterator[list[str]]:
    """A list that is filled, at the end, with what has changed since the start."""
    effects: list[str] = []
    before, size = _state(folder), _size()
    yield effects
    effects += [f"{name} changed" for name, value in _state(folder).items() if value != before[name]]
    if (growth := _size() - size) > GROWTH:
        effects.append(f"{growth:.0f} MiB more memory")
    effects += _strays(folder)


def _state(folder: str) -> dict[str, object]:
    return {
        "canary's folder": sorted(os.listdir(folder)),
        "working directory": (os.getcwd(), sorted(os.listdir())),
        "environment": dict(os.environ),
        "builtins": {name: id(value) for name, value in vars(builtins).items() if name != "_"},
        "json and operator": [json.dumps, json.loads, json.JSONEncoder.default, operator.eq],
        "interpreter": (list(sys.path), sys.getrecursionlimit(), sys.gettrace()),
        "signals": [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM)],
    }


def _size() -> float:
    import psutil

    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def _strays(folder: str) -> list[str]:
    """Processes that should be gone: any with the canary in its command line, children that are not the pool's."""
    import psutil

    end = time.monotonic() + SETTLING
    while True:
        found = {p.pid for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or [])}
        found |= {p.pid for p in psutil.Process().children(recursive=True) if OWN_CHILDREN not in _command(p)}
        if not found or time.monotonic() > end:
            return [f"{len(found)} processes left"] if found else []
        time.sleep(0.05)


def _command(process) -> str:
    import psutil

    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return OWN_CHILDREN
