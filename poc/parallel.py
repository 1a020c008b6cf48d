"""Several processes on one run (`accelerate launch`, torchrun): who does what, and what all of them must know.

Each process holds the whole model and takes a share of the prompts, in whole groups; what it samples, grades and
measures is gathered, its gradients are added up. From then on every process computes the same from the same numbers, so
nobody has to be told what was decided. Process 0 alone writes and speaks. What fails on one process fails on all: the
outcome of every shared piece of work travels with its result, and an error from elsewhere (`shared_fate`) takes the
place of the next result, so that nobody waits for who is gone.

    RANK  WORLD_SIZE  LOCAL_RANK  MASTER_ADDR  MASTER_PORT      as launchers set them; without WORLD_SIZE: one process

All that travels is small (completions, the adapter's gradients), so it goes over the CPU (gloo) whatever computes.
Objects travel pickled, between the processes of one run, and never reach a disk. With one process nothing here does
anything, and torch.distributed is not imported. Not here: models that do not fit one card (`poc graduate`).
"""

import atexit
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

from poc.records import InputError, RunError

PATIENCE = timedelta(hours=2)  # for the slowest process; one that has ended is noticed at once
MEETING = timedelta(minutes=5)  # until all have started
FAILED = "an error"  # in the place of what was to be shared
T, U = TypeVar("T"), TypeVar("U")


class Lost(RunError):
    """The processes cannot go on together: one is gone, or failed where the others did not.

    It ends the run, and the command as well: they do not meet again, or not in the same place.
    """


class World:
    """This process, number `rank` of `size`."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.broken = rank, size, False

    @property
    def is_writer(self) -> bool:
        """Whether this is the one process that writes and speaks."""
        return self.rank == 0

    def parts(self, count: int) -> list[slice]:
        """What each process takes of `count` things: `size` stretches, the first ones longer by one where need be."""
        share, rest = divmod(count, self.size)
        ends = [share * rank + min(rank, rest) for rank in range(self.size + 1)]
        return [slice(first, last) for first, last in zip(ends, ends[1:], strict=False)]

    def most(self, count: int) -> int:
        """How many things the longest part has."""
        return -(-count // self.size)

    def spread(self, place: str, count: int, work: Callable[[slice], list[T]]) -> list[T]:
        """What `work` gives for all parts of `count` things, in order: each process does its part, all get the whole.

        `place`: a name for it; processes that meet in different places are Lost.
        """
        part = self.parts(count)[self.rank]
        found = self.each(place, lambda: work(part) if part.stop > part.start else [])
        return [one for some in found for one in some]

    def map(self, place: str, function: Callable[[T], U], things: Sequence[T]) -> list[U]:
        """`function` of each thing, in order."""
        return self.spread(place, len(things), lambda part: [function(thing) for thing in things[part]])

    def each(self, place: str, work: Callable[[], T]) -> list[T]:
        """What `work` gives on each process, by rank; its error, if it fails anywhere."""
        if self.size == 1:
            return [work()]
        value = error = None
        try:
            value = work()
        except Exception as raised:
            error = raised
        return self._exchange(place, value, error)

    def from_writer(self, place: str, work: Callable[[], T]) -> T:
        """What `work` gives on the process that writes; the others wait for it."""
        return self.each(place, lambda: work() if self.is_writer else None)[0]

    @contextmanager
    def together(self, place: str) -> Iterator[None]:
        """For what cannot travel: when it fails inside on one process, it fails on all."""
        error = None
        try:
            yield
        except Exception as raised:
            if self.size == 1:
                raise
            error = raised
        if self.size > 1:
            self._exchange(place, None, error)

    def any(self, place: str, flag: bool) -> bool:
        """Whether `flag` holds on some process."""
        return any(self.each(place, lambda: flag))

    def add_gradients(self, parameters: Sequence) -> None:
        """Each parameter's gradient becomes the sum over all processes; one that has none adds zeros."""
        if self.size == 1:
            return
        import torch

        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.detach().flatten().cpu() for gradient in own])
        with self._reachable():
            torch.distributed.all_reduce(flat)
        for p, total in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = total.view_as(p).to(p.device, p.dtype)

    @contextmanager
    def shared_fate(self) -> Iterator[None]:
        """An error that leaves this block on one process is raised on the others where they share something next."""
        try:
            yield
        except Exception as error:
            if self.size > 1 and not self.broken and not getattr(error, "shared", False):
                error.shared = True
                with suppress(Lost):
                    error.known = self._tell(FAILED, None, error)[0][2] is not None
            raise

    def is_told_elsewhere(self, error: Exception) -> bool:
        """Whether the process that speaks has this error, or the like, as well."""
        return not self.is_writer and getattr(error, "known", False)

    def leave(self) -> None:
        """Before the process ends: wait for the others, so that none is stopped by a launcher in its last words."""
        if self.size > 1 and not self.broken:
            with suppress(Lost):
                self._tell("the end", None, None)

    def _exchange(self, place: str, value: T, error: Exception | None) -> list[T]:
        """The values of all processes; raises the first process's error on all of them, or Lost."""
        found = self._tell(place, value, error)
        failed = next((rank for rank, (_, _, raised) in enumerate(found) if raised is not None), None)
        if failed is not None:
            raised = error if failed == self.rank else _from_elsewhere(found[failed], place, failed)
            raised.shared, raised.known = True, failed != self.rank
            raise raised
        for rank, (theirs, _, _) in enumerate(found):
            if theirs != place:
                raise _lost(f"process {rank} is at {theirs!r}, process {self.rank} at {place!r}")
        return [value for _, value, _ in found]

    def _tell(self, place: str, value, error: Exception | None) -> list[tuple]:
        """(place, value, error) of every process."""
        from torch import distributed

        found: list = [None] * self.size
        with self._reachable():
            distributed.all_gather_object(found, (place, value, _portable(error)))
        return found

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            said = " ".join(str(error).split("] ", 1)[-1].split())  # without the line of gloo's source
            self.broken, reason = True, said[:80]
            raise _lost(f"process {self.rank} cannot reach another one, which has ended ({reason})") from None


@lru_cache(maxsize=1)
def the_world() -> World:
    """As the launcher says; joins the other processes when first asked. Raises InputError for half a launch."""
    size = _number("WORLD_SIZE", 1)
    return World() if size <= 1 else _joined(size)


def _joined(size: int) -> World:
    import torch

    rank = _number("RANK", None)
    if not all(os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")):
        raise InputError(f"WORLD_SIZE={size}, but MASTER_ADDR or MASTER_PORT is not set: start with accelerate launch")
    if torch.cuda.is_available():  # with fewer cards than processes they share them
        torch.cuda.set_device(_number("LOCAL_RANK", rank) % torch.cuda.device_count())
    if rank >= size:
        raise InputError(f"RANK={rank}, but WORLD_SIZE={size}: ranks go from 0 to {size - 1}")
    try:
        store, *_ = next(torch.distributed.rendezvous("env://", timeout=MEETING))
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:  # a port that is none, or taken
        at = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"the processes cannot meet at {at} ({reason}): give another --main_process_port") from None
    atexit.register(torch.distributed.destroy_process_group)  # its threads must have ended before the interpreter has
    return World(rank, size)


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise InputError(f"{name}={text!r} in the environment is no number: start with accelerate launch or torchrun")
    return int(text)


def _portable(error: Exception | None) -> Exception | None:
    """The error, or where it cannot travel one that says the same."""
    try:
        return error if type(pickle.loads(pickle.dumps(error))) is type(error) else RuntimeError(repr(error))
    except Exception:
        return RuntimeError(repr(error))


def _lost(reason: str) -> Lost:
    lost = Lost(f"the processes of this run cannot go on together: {reason}")
    lost.shared = True
    return lost


def _from_elsewhere(told: tuple, place: str, rank: int) -> Exception:
    """As it is where the same work failed: all go the same way on from it. Else it ends the run, or the command."""
    theirs, _, error = told
    if theirs == place:
        return error
    kind = type(error) if type(error) in (RunError, InputError) else Lost
    return kind(f"process {rank}: {error if kind is not Lost else repr(error)}")
