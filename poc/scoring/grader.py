"""The processes that read and score completions: JSON lines in, JSON lines out. `pool` starts this by path.

    python -I grader.py PATHS MODULE DOMAIN     PATHS: sys.path as JSON; MODULE: poc.tasks, or a test's double of it

This process, the supervisor, imports what the domain's verifier needs, tries it out so that nothing is left to import,
says {"ready": true} or {"error": TYPE, "message": TEXT}, and never sees a completion. For every socket it is sent it
forks a server, which locks itself in (poc.scoring.lockdown), says {"pid": n} and then answers

    {"id": n, "example": {...}, "text": TEXT, "score": bool, "limit": seconds}
        -> {"id": n, "answer": ..., "formatted": bool, "verdict": {...} or null}
        -> {"id": n, "error": TYPE, "message": TEXT}    the verifier raised

one at a time. Who asks kills the server that takes too long; should nobody do so, SIGALRM, left at its default, ends
it. A server also ends when it is short of memory: it is not to be trusted with the next request.
"""

import gc
import json
import os
import signal
import socket
import sys
from importlib import import_module
from random import Random

GRACE = 5.0  # seconds beyond the limit of a request after which a server ends itself
SAID = 300  # characters of an exception's message that are passed on


def main() -> None:
    sys.path[:] = json.loads(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # what a library prints cannot pass for a reply
        os.dup2(null, standard)
    try:
        tasks = import_module(sys.argv[2])
        _try_out(tasks, sys.argv[3])
        lockdown = import_module("poc.scoring.lockdown")
        lockdown.leave_network()
    except BaseException as error:
        return _say(control.fileno(), _failure(error))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a server ended
    gc.freeze()  # memory that a collection does not touch stays shared with the servers
    _say(control.fileno(), {"ready": True})
    while True:
        message, handles, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        parent = os.getpid()
        if os.fork() == 0:
            control.close()
            os.close(null)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            lockdown.close_down(parent)
            _serve(handles[0], tasks)
            os._exit(0)
        os.close(handles[0])


def _try_out(tasks, domain: str) -> None:
    """Read and score one problem of each level, right, wrong and empty: what is imported lazily is imported now."""
    from poc.records import Example

    module = tasks.DOMAINS.get(domain)
    if module is None:  # the user's own questions: there is nothing to draw
        for gold in ("1", "one"):
            tasks.read(Example("trial", "?", gold, domain), "#1")
            tasks.score(Example("trial", "?", gold, domain), "#1")
        return
    apart = getattr(module, "OWN_PROCESS", lambda example: False)
    for level in module.LEVELS:
        problem = module.make(Random(level), level)
        example = Example("trial", problem.question, problem.answer, domain, level, problem.check)
        for text in (problem.worked, "#1", "#x y", "\\boxed{2}", ""):
            tasks.read(example, text)
            if not apart(example):
                tasks.score(example, text)


def _serve(handle: int, tasks) -> None:
    """Answer until the other side closes."""
    _say(handle, {"pid": os.getpid()})
    unread = b""
    while chunk := os.read(handle, 1 << 16):
        unread += chunk
        if unread.endswith(b"\n"):
            request, unread = json.loads(unread), b""
            signal.setitimer(signal.ITIMER_REAL, request["limit"] + GRACE)
            reply = _answer(tasks, request)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _say(handle, {"id": request["id"], **reply})


def _answer(tasks, request: dict) -> dict:
    from poc.records import Example

    asked = request["example"]["question"]
    question = asked if isinstance(asked, str) else tuple(asked)
    example = Example(**request["example"] | {"question": question})
    try:
        answer, formatted = tasks.read(example, request["text"])
        verdict = tasks.score(example, request["text"]) if request["score"] else None
    except MemoryError:
        os._exit(1)
    except BaseException as error:  # sys.exit() in a verifier too
        return _failure(error)
    fields = ("status", "formatted", "correct_anyhow", "answer")
    said = verdict and {name: getattr(verdict, name) for name in fields}
    return {"answer": answer, "formatted": formatted, "verdict": said}


def _failure(error: BaseException) -> dict:
    return {"error": type(error).__name__, "message": str(error)[:SAID]}


def _say(handle: int, message: dict) -> None:
    line = json.dumps(message).encode() + b"\n"
    while line:
        line = line[os.write(handle, line) :]


if __name__ == "__main__":
    main()
