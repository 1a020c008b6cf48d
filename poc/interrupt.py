"""Ctrl-C: the first one asks the run to end after its step, the second ends it at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGINT or SIGTERM came; a second signal raises KeyboardInterrupt."""
    came = []

    def handle(number, frame) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        say("stopping after this step (once more to stop at once)")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
