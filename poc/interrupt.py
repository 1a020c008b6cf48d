"""Ctrl-C: the first asks the run to end after its step; a second, or one before any step, ends it at once.

At once means within two seconds, whatever is being computed: a thread hears of the signal even while the interpreter is
inside a long call, and where the ordinary way out takes longer it ends the process. What is on the disk is whole at any
moment (poc.durable, poc.checkpoint), so that nothing is lost by this but the time since the last checkpoint.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poc.display import Watch

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 1.5  # seconds for the ordinary way out


@contextmanager
def deferred(watch: Watch) -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether one of SIGNALS came; a second signal raises KeyboardInterrupt.

    A signal that was ignored before (nohup) stays ignored.
    """
    came = []

    def handle(number, frame) -> None:
        if came or not watch.done:
            raise KeyboardInterrupt
        came.append(number)
        watch.say("stopping after this step (once more to stop at once)")

    mine = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in mine}
    with _second_signal_ends(mine):
        try:
            yield lambda: bool(came)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def _second_signal_ends(numbers) -> Iterator[None]:
    """The process ends GRACE seconds after the second signal, unless it has left this block by then."""
    hear, wake = socket.socketpair()
    wake.setblocking(False)
    left = threading.Event()

    def listen() -> None:
        count = 0
        while count < 2:
            heard = hear.recv(1)
            if not heard:
                return
            count += heard[0] in numbers
        if not left.wait(GRACE):
            sys.stderr.write("poc: stopped at once\n")
            os._exit(130)

    before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        wake.close()
        thread.join()
        hear.close()
