"""The processes of one domain's verifier: its supervisor, its servers, and who of them works on what.

See poc.scoring.grader for what they are and say, poc.scoring.pool for what is asked of them.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple, get_args

from poc.records import Example, InputError, Status, Verdict
from poc.scoring.process import GONE, Channel, Process

SERVERS = min(4, os.cpu_count() or 1)  # at work at once
SPARE = 8  # forked together when one is missing: on a busy machine waiting for a fork takes longer than forking
START_TIMEOUT = 120.0  # seconds for importing a domain's libraries on a busy machine
FORK_TIMEOUT = 20.0  # seconds; it takes milliseconds
FIELDS = {field.name for field in fields(Verdict)}
BENIGN = 0.002  # seconds of processor time
PATIENCE, PAUSE = 1.0, 0.01  # seconds
DEATHS = 2  # of the servers that were asked: the first may have been an accident


class Grade(NamedTuple):
    """What a completion gives as its answer (poc.tasks.answers.Reading) and, where there is a gold, the verdict."""

    answer: str | None
    formatted: bool
    verdict: Verdict | None


@dataclass(slots=True, eq=False)
class Job:
    """One completion of one example. In the end it has a `grade`, or an `error` (type, message), or took too long.

    `record`: the example for JSON; `apart`: score() is not for the servers. `limit`: seconds that
    its servers may take, and `waited`: those that they took in vain.
    """

    example: Example
    record: dict
    text: str
    apart: bool
    limit: float
    grade: Grade | None = None
    error: tuple[str, str] | None = None
    deaths: int = 0
    waited: float = 0.0

    @property
    def open(self) -> bool:
        return self.grade is None and self.error is None

    def refuse(self, status: Status) -> None:
        self.grade = Grade(None, False, None if self.example.answer is None else Verdict(status, False, False))


Allowance = Callable[[Job, int], float]  # a job, how many are still to be asked with it -> its seconds, 0 for none


class _Server(NamedTuple):
    pid: int
    channel: Channel

    def computed(self) -> float:
        """Seconds of processor time so far, by the number that Linux gives that clock; elsewhere the time of day."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return time.monotonic()


class _Task(NamedTuple):
    job: Job
    number: int
    asked: float
    deadline: float
    computed: float  # by its server before it was asked


class Servers:
    """Starts nothing until asked. Not for several threads at once.

    A server whose time is up before it had BENIGN seconds of the processor is on a busy machine rather than busy: it
    goes on, for PATIENCE seconds beyond all allowances together, but for no job longer than its limit.
    """

    def __init__(self, module: str, domain: str) -> None:
        self.module, self.domain = module, domain
        self.supervisor, self.ready = Process(), False
        self.servers: list[_Server] = []
        self.busy: dict[_Server, _Task] = {}
        self.selector = selectors.PollSelector()
        self.asked, self.patience, self.fork_seconds = 0, 0.0, 0.0

    def look(self, jobs: Iterable[Job], allowance: Allowance) -> None:
        """Ask for the grade of each of `jobs`; a job that takes longer than its allowance stays open."""
        waiting = deque(jobs)
        with self._whole():
            while waiting or self.busy:
                self._hand_out(waiting, allowance)
                self._collect(waiting)

    def start(self) -> None:
        """Wait until there is a server, and be patient again.

        Raises InputError where the verifier lacks a library, RuntimeError where it cannot start.
        """
        self.patience = PATIENCE
        with self._whole():
            self.servers or self._fork(SERVERS)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """After an interrupt nothing is left: a late reply must not be taken for the next one."""
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """Start the supervisor, if none is running, without waiting for it."""
        if self.supervisor.running:
            return
        self.stop()
        paths = json.dumps([str(Path(path or ".").resolve()) for path in sys.path])
        self.supervisor.launch("grader.py", paths, self.module, self.domain)

    def stop(self) -> None:
        for server in list(self.servers):
            self._kill(server)
        self.supervisor.stop()
        self.ready = False

    def disown(self) -> None:
        """In a forked child: let go of the parent's processes, which are neither asked nor killed."""
        for server in self.servers:
            server.channel.close()
        self.supervisor.disown()

    def _hand_out(self, waiting: deque[Job], allowance: Allowance) -> None:
        while waiting and (idle := self._idle()):
            seconds = allowance(waiting[0], len(waiting))
            job = waiting.popleft()
            if seconds > 0:
                self._ask(idle, job, seconds, waiting)

    def _idle(self) -> _Server | None:
        if len(self.busy) == SERVERS:
            return None
        if len(self.busy) == len(self.servers):
            self._fork(SPARE)
        return next(server for server in self.servers if server not in self.busy)

    def _ask(self, server: _Server, job: Job, seconds: float, waiting: deque[Job]) -> None:
        self.asked += 1
        score = job.example.answer is not None and not job.apart
        request = {"id": self.asked, "example": job.record, "text": job.text, "score": score, "limit": seconds}
        try:
            server.channel.send(request, FORK_TIMEOUT)
            now = time.monotonic()
            self.busy[server] = _Task(job, self.asked, now, now + seconds, server.computed())
        except (*GONE, TimeoutError):
            self._died(server, job, waiting)

    def _collect(self, waiting: deque[Job]) -> None:
        """Wait for replies until the next deadline; who is past it is killed."""
        first = min((task.deadline for task in self.busy.values()), default=0.0)
        for key, _ in self.selector.select(max(0.0, first - time.monotonic())):
            self._read(key.data, waiting)
        now = time.monotonic()
        for server, task in [(server, task) for server, task in self.busy.items() if task.deadline <= now]:
            spent = task.job.waited + now - task.asked
            if self.patience > 0 and spent < task.job.limit and server.computed() - task.computed < BENIGN:
                self.patience -= PAUSE
                self.busy[server] = task._replace(deadline=now + PAUSE)
            else:
                task.job.waited = spent
                self._kill(server)

    def _read(self, server: _Server, waiting: deque[Job]) -> None:
        task = self.busy.get(server)
        try:
            message = server.channel.take()
            if message is not None:
                _settle(task, message)
                del self.busy[server]
        except GONE:
            self._died(server, task and task.job, waiting)

    def _died(self, server: _Server, job: Job | None, waiting: deque[Job]) -> None:
        """Of memory, mostly, or it talks nonsense: asked once more, then it is the completion's doing, like a hang."""
        self._kill(server)
        if job is not None:
            job.deaths += 1
            job.refuse("timeout") if job.deaths == DEATHS else waiting.appendleft(job)

    def _kill(self, server: _Server) -> None:
        try:
            os.kill(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.selector.unregister(server.channel.socket)
        server.channel.close()
        self.servers.remove(server)
        self.busy.pop(server, None)

    def _fork(self, count: int) -> None:
        for _ in range(2):
            try:
                self.launch()
                return self._forked(count)
            except (*GONE, TimeoutError):
                self.stop()
        raise RuntimeError(f"the process that judges {self.domain} answers ended twice before it was asked anything")

    def _forked(self, count: int) -> None:
        if not self.ready:
            _check(self.domain, self.supervisor.channel.receive(START_TIMEOUT))
            self.ready = True
        channels, started = [], time.monotonic()
        for _ in range(count):
            ours, theirs = socket.socketpair()
            channels.append(Channel(ours))
            with theirs:
                socket.send_fds(self.supervisor.channel.socket, [b"f"], [theirs.fileno()])
        for channel in channels:
            server = _Server(channel.receive(FORK_TIMEOUT)["pid"], channel)
            self.servers.append(server)
            self.selector.register(channel.socket, selectors.EVENT_READ, server)
        self.fork_seconds = (time.monotonic() - started) / count


def _check(domain: str, first: dict) -> None:
    if first.get("error") == "InputError":
        raise InputError(first["message"])
    if "error" in first:
        raise RuntimeError(f"the verifier of {domain} cannot start: {first['error']}: {first['message']}")


def _settle(task: _Task | None, message: dict) -> None:
    """Give the job what was said of it. Raises EOFError for what is no reply to what was asked."""
    if task is None or message.get("id") != task.number:
        raise EOFError
    if "error" in message:
        task.job.error = str(message["error"]), str(message.get("message"))
        return
    answer, formatted, said = (message.get(name) for name in ("answer", "formatted", "verdict"))
    fits = isinstance(answer, str | None) and isinstance(formatted, bool) and isinstance(said, dict | None)
    if not fits or (said is not None and (said.keys() != FIELDS or said["status"] not in get_args(Status))):
        raise EOFError
    task.job.grade = Grade(answer, formatted, said and Verdict(**said))
