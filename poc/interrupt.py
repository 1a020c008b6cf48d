"""Ctrl-C: the first asks the run to end after its step; a second, or one before any step, ends it at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poc.display import Watch


@contextmanager
def deferred(watch: Watch) -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGINT or SIGTERM came; a second signal raises KeyboardInterrupt."""
    came = []

    def handle(number, frame) -> None:
        if came or not watch.done:
            raise KeyboardInterrupt
        came.append(number)
        watch.say("stopping after this step (once more to stop at once)")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
