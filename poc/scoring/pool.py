"""Grading completions in processes that can be killed: what a model wrote is never read by a verifier in ours.

Each domain has a supervisor, started when first needed and kept, and servers forked from it, which read and score one
completion at a time, SERVERS at once; one that takes too long is killed and a fork replaces it in milliseconds. Where a
domain's OWN_PROCESS(example) holds, score() is called here, in threads, because it hands the completion to a killable
process of its own; read() is not. Their breaker is that of `_score_apart`.

Hostile completions must neither delay a step nor harm the others in it, so those that take long are put off. With n
different completions, N servers, B seconds of budget and f seconds for a fork (2 to 4 ms, more on a busy machine):

    first look      each gets s = N (B / 2n - f) seconds, but at least FIRST[0] and at most FIRST[1]; most need far less
    second look     those m that took longer share what is left of B, L, in equal parts: min(1, N/m) L, at least s; once
                    nothing is left the rest is judged "timeout" unseen

So grading ends after about max(B, n (FIRST[0] / N + f)). Nobody gets more than `limit` in all, and a single slow
completion gets it whole. On a busy machine time may be up before a server had the processor: then it is given more
(see Servers). Equal completions of one example are judged once. Threads take turns; a forked child starts its own
processes. POSIX only.
"""

import atexit
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module

from poc.records import Example, InputError
from poc.scoring import servers
from poc.scoring.servers import Grade, Job, Servers

FIRST = (0.005, 0.05)  # seconds
APART = (0.05, 0.25)  # seconds of the first look where score() is called here; a sandboxed program takes 0.02
LAST_LOOK = 1.0  # seconds for all of the second look together, if the budget is used up: a few slow ones are innocent
MOST_LATE = 8  # comparisons of formulas in one call that may take too long, each about a second with its new worker
THREADS = os.cpu_count() or 1
MODULE = "poc.tasks"  # tests put a double in its place

_LOCK = threading.Lock()
_SERVERS: dict[str, Servers] = {}  # domain -> its processes


def grade(
    examples: Sequence[Example], texts: Sequence[str], *, limit: float = 2.0, budget: float | None = None
) -> list[Grade]:
    """The grade of each text as a completion of the example beside it.

    `limit`: seconds for one completion; `budget`: seconds for all of them together (default: twice the limit). Both
    count for read(), and again for score() where OWN_PROCESS holds. Verdict statuses: timeout for a completion that
    took too long or killed two servers; error where the verifier raised on this completion though not on an empty one,
    a defect that a RuntimeWarning names. Raises InputError (a ValueError) for a gold that the verifier cannot use or a
    library that is missing, ValueError for lists of unequal length, RuntimeError where a verifier cannot start.
    """
    jobs = _jobs(examples, texts, limit)
    different = list(dict.fromkeys(jobs.values()))
    budget = 2 * limit if budget is None else budget
    with _LOCK:
        _look(different, limit, budget)
    _score_apart([job for job in different if job.apart and job.grade and not job.grade.verdict], limit, budget)
    with _LOCK:
        _blame([job for job in different if job.error])
    return [jobs[id(example), text].grade for example, text in zip(examples, texts, strict=True)]


def _jobs(examples: Sequence[Example], texts: Sequence[str], limit: float) -> dict[tuple[int, str], Job]:
    """(identity of the example, text) -> its job; equal examples share their jobs."""
    same, found, jobs = {}, {}, {}
    for example, text in zip(examples, texts, strict=True):
        if id(example) not in same:
            record = asdict(example)
            same[id(example)] = repr(record), record, _apart(example)
        key, record, own = same[id(example)]
        if (key, text) not in found:
            found[key, text] = Job(example, record, text, own, limit)
        jobs[id(example), text] = found[key, text]
    return jobs


def _module(example: Example):
    tasks = import_module(MODULE)
    return tasks.DOMAINS[example.domain] if example.domain in tasks.DOMAINS else tasks.own


def _apart(example: Example) -> bool:
    """Whether score() hands its completions to a process of its own."""
    own_process = getattr(_module(example), "OWN_PROCESS", None)
    return own_process is not None and example.answer is not None and own_process(example)


def _look(jobs: Sequence[Job], limit: float, budget: float) -> None:
    domains = [_servers(domain) for domain in dict.fromkeys(job.example.domain for job in jobs)]
    for domain in domains:
        domain.launch()  # all at once: importing takes longest
    for domain in domains:
        domain.start()
    end = time.monotonic() + budget
    fork = max((domain.fork_seconds for domain in domains), default=0.0)
    first = servers.SERVERS * (budget / (2 * max(1, len(jobs))) - fork)
    first = min(limit, max(FIRST[0], min(FIRST[1], first)))
    for domain in domains:
        domain.look(_open(jobs, domain), lambda job, left: first)
    for domain in domains:
        late, of = _open(jobs, domain), sum(job.open for job in jobs)
        now = time.monotonic()
        mine = now + max(0.0, end - now) * len(late) / max(1, of)  # the other domains wait for their shares
        domain.look(late, partial(_share, mine, first))
    for job in jobs:
        if job.open:
            job.refuse("timeout")


def _share(end: float, least: float, job: Job, left: int) -> float:
    seconds = end - time.monotonic()
    return min(job.limit - job.waited, max(least, seconds * min(1.0, servers.SERVERS / left))) if seconds > 0 else 0.0


def _open(jobs: Sequence[Job], domain: Servers) -> list[Job]:
    return [job for job in jobs if job.open and job.example.domain == domain.domain]


def _servers(domain: str) -> Servers:
    return _SERVERS.setdefault(domain, Servers(MODULE, domain))


def _score_apart(jobs: Sequence[Job], limit: float, budget: float) -> None:
    """score() here, for those that hand it on; in two looks as well, where the domain can be given less time.

    Where it cannot, MOST_LATE completions may take too long; after them the rest is judged "timeout" unseen.
    """
    timed = [job for job in jobs if _timed(job)]
    whole = [job for job in jobs if not _timed(job)]
    began = time.monotonic()
    first = min(limit, max(APART[0], min(APART[1], THREADS * budget / (2 * max(1, len(timed))))))
    _score_all(timed, first)
    late = [job for job in timed if _late(job)]
    end = max(began + budget, time.monotonic() + LAST_LOOK)
    for i in range(0, len(late), THREADS):  # each its share of what is left, or twice the first look; while time lasts
        left = end - time.monotonic()
        if left > 0:
            _score_all(late[i : i + THREADS], min(limit - first, max(2 * first, left * THREADS / (len(late) - i))))
    for i in range(0, len(whole), THREADS):
        if sum(map(_late, whole[:i])) < MOST_LATE:
            _score_all(whole[i : i + THREADS], limit)
        else:
            [job.refuse("timeout") for job in whole[i : i + THREADS]]


def _timed(job: Job) -> bool:
    return hasattr(_module(job.example), "score_within")


def _late(job: Job) -> bool:
    return job.grade.verdict is not None and job.grade.verdict.status == "timeout"


def _score_all(jobs: Sequence[Job], seconds: float) -> None:
    """As many at once as there are cores."""
    if not jobs:
        return
    threads = ThreadPoolExecutor(THREADS)
    try:
        list(threads.map(partial(_score_here, seconds=seconds), jobs))
    finally:
        threads.shutdown(cancel_futures=True)  # on an interrupt: not those that have not begun


def _score_here(job: Job, seconds: float) -> None:
    tasks = import_module(MODULE)
    try:
        if _timed(job):
            verdict = tasks.DOMAINS[job.example.domain].score_within(job.example, job.text, seconds)
        else:
            verdict = tasks.score(job.example, job.text)
        job.grade = job.grade._replace(verdict=verdict)
    except Exception as error:
        job.error = type(error).__name__, str(error)


def _blame(jobs: Sequence[Job]) -> None:
    """Whose fault an exception is: the gold's, if it comes whatever the completion says, else the verifier's."""
    tried: set[int] = set()
    for job in jobs:
        kind, message = job.error
        if kind == "InputError":
            raise InputError(message)
        if id(job.example) not in tried and (failed := _without_text(job)):
            raise InputError(
                f"{job.example.id}: the verifier of {job.example.domain} cannot use this question's gold answer "
                f"({': '.join(failed)}): correct it, or leave it empty where nobody knows it"
            )
        tried.add(id(job.example))
        job.refuse("error")
    for (domain, kind), count in Counter((job.example.domain, job.error[0]) for job in jobs).items():
        warnings.warn(
            f"the verifier of {domain} raised {kind} on {count} completions: they count as 'error', not as wrong",
            RuntimeWarning, stacklevel=3,
        )  # fmt: skip


def _without_text(job: Job) -> tuple[str, str] | None:
    """The error of an empty completion of the same example."""
    probe = replace(job, text="", grade=Grade(None, False, None) if job.apart else None, error=None, deaths=0)
    if job.apart:
        _score_here(probe, job.limit)
    else:
        _servers(job.example.domain).look([probe], lambda job, left: job.limit)
    return probe.error


def _after_fork() -> None:
    """In a forked child: its own lock and processes. The parent's are neither asked nor killed."""
    global _LOCK
    _LOCK = threading.Lock()
    for domain in _SERVERS.values():
        domain.disown()
    _SERVERS.clear()


def _stop() -> None:
    for domain in _SERVERS.values():
        domain.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_stop)
