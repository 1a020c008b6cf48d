"""A child process that answers in JSON lines, and the time that is waited for it.

Both kinds of child use it: the comparer of math_equality and the supervisor of pool. The socket is the child's stdin
and stdout, so whoever holds the other end is gone when it reads the end of file. Never pickle: a child is trusted with
nothing but its own answers.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MAX_LINE = 1 << 20  # bytes; nobody has that much to say
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # several cannot fork
GONE = (EOFError, BrokenPipeError, ConnectionResetError)  # what send and receive raise when the other side has ended


class Channel:
    """JSON lines over a stream socket. Raises one of GONE when the other side ended, TimeoutError when it is slow."""

    def __init__(self, end: socket.socket) -> None:
        self.socket, self.unread = end, b""

    def send(self, message: dict, timeout: float) -> None:
        self.socket.settimeout(timeout)
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float) -> dict:
        """The next line. A line that is no JSON object is an EOFError: who sent it is beyond help."""
        end, message = time.monotonic() + timeout, None
        while message is None:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            message = self.take()
        return message

    def take(self) -> dict | None:
        """What one read brings: a whole message, or None while it is a part."""
        chunk = self.socket.recv(1 << 16)
        self.unread += chunk
        if not chunk or len(self.unread) > MAX_LINE:
            raise EOFError
        if not self.unread.endswith(b"\n"):
            return None
        line, self.unread = self.unread, b""
        return _object(line)

    def close(self) -> None:
        self.socket.close()


def _object(line: bytes) -> dict:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise EOFError from None
    if not isinstance(message, dict):
        raise EOFError
    return message


class Process:
    """A script of this folder in a Python of its own: no user settings, few variables, its own session."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None
        self.channel: Channel | None = None

    def launch(self, script: str, *arguments: str) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).resolve().with_name(script)), *arguments],
                stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, start_new_session=True,
                env=ONE_THREAD | {name: os.environ[name] for name in PASSED_ON if name in os.environ},
            )  # fmt: skip

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Kill the process with its group. It keeps nothing that would be lost."""
        process, self.process = self.process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        self.channel.close()

    def disown(self) -> None:
        """In a forked child: let go of the parent's process, which is neither asked nor killed."""
        if self.process is not None:
            self.channel.close()
            self.process.returncode = 0  # not this process's child: nothing to wait for
