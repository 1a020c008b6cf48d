"""Runs a program that nobody trusts: with no network, no files, no memory beyond a limit, and dead at the end.

Only the program and the inputs go in; what it says its outputs are comes back and is judged by the caller, out here,
against expected values that never went in. So a program that forges its results gains nothing: it still has to know
the right ones. What runs inside is poc.scoring.inside, one start per program, never in this process.

bubblewrap first: every namespace its own, an empty read-only root with just the interpreter, its library and the
system's shared libraries, uid 65534, no capability, no environment, no /proc; /tmp is empty and takes no files. A
seccomp filter (poc.scoring.seccomp) refuses new processes, threads and sockets, also to root. The program is the first
process of its namespace, so nothing in there outlives it, and it dies with this one. Else docker or podman with the
same limits, if a Python image lies on this machine: nothing is pulled. Else InputError. Memory is the address space of
the one process there can be. Only the standard library can be imported; what the program prints goes nowhere.
"""

import contextlib
import glob
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from poc.records import InputError
from poc.scoring import inside, seccomp

MAX_INPUTS = 8
MAX_PROGRAM = 20_000  # characters
START = 30.0  # seconds that the sandbox itself may take to stand, on a machine that does everything else too
REMEMBERED = 1024  # results
INSTALL = "apt-get install bubblewrap (Debian, Ubuntu) or dnf install bubblewrap (Fedora, RHEL)"
SYSTEM = ("/usr/lib", "/usr/lib32", "/usr/lib64")
INSIDE = Path(inside.__file__).read_text("utf-8")
Level = Literal["bubblewrap", "docker", "podman", "none"]


class Limits(NamedTuple):
    """`seconds` of wall clock for all inputs together, from when the sandbox stands; `memory` in bytes."""

    seconds: float = 2.0
    memory: int = 256 << 20


class Outcome(NamedTuple):
    """What a program made of its inputs.

    ok: `outputs` has one plain value per input. timeout: it ran longer than the limit. failed: it did not compile,
    raised, ended, ran out of memory, or gave what is no plain value; `detail` says which, in words of the program's
    own making: not to be trusted, not to be printed raw.
    """

    status: Literal["ok", "failed", "timeout"]
    outputs: tuple[Any, ...] = ()
    detail: str = ""


LIMITS = Limits()


def run(program: str, entry: str | None, inputs: Sequence[list], limits: Limits = LIMITS) -> Outcome:
    """Calls the function `entry` of `program` with each list of arguments; entry None: an expression in x.

    The same request is run once per process while it is remembered. Raises InputError where this machine has no
    sandbox, RuntimeError where the sandbox itself failed, which says nothing of the program, and NotPlain for inputs
    that are no plain data (see poc.scoring.inside).
    """
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise ValueError(f"{len(inputs)} inputs: 1 to {MAX_INPUTS} can be judged at once")
    if len(program) > MAX_PROGRAM:
        return Outcome("failed", (), f"longer than {MAX_PROGRAM} characters")
    plain = [decode(json.loads(inside.encode(list(arguments)))) for arguments in inputs]
    require()
    try:
        data = _run(ascii((program, entry, plain, limits.memory)), limits.seconds)
    except _TimeUp:
        data = None
    return _outcome(data, len(inputs))


def require() -> None:
    """Raises InputError, with the line that installs one, where this machine has no sandbox that works."""
    if level() == "none":
        raise InputError(f"code cannot be judged here: {why_not()}; install bubblewrap: {INSTALL}")


@cache
def level() -> Level:
    """The strongest sandbox that this machine has, found out by running a program in it."""
    return next((name for name, fault in _findings() if fault is None), "none")


def why_not() -> str:
    """What is wrong with each sandbox that could not be used; "" if bubblewrap works."""
    return "; ".join(f"{name}: {fault}" for name, fault in _findings() if fault is not None)


def decode(found: Any, depth: int = 0) -> Any:
    """The plain value that parsed JSON stands for. Raises ValueError for anything that `inside.encode` never writes."""
    if depth > 2 * inside.MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(found, list):
        return [decode(item, depth + 1) for item in found]
    if not isinstance(found, dict):
        return found
    if len(found) != 1 or next(iter(found)) not in _TAGS:
        raise ValueError("not a value")
    ((tag, content),) = found.items()
    return _TAGS[tag](decode(content, depth + 1))


def same(output: Any, expected: Any) -> bool:
    """Whether two plain values are the same, type by type: True is not 1, 1.0 is not 1, (1,) is not [1]."""
    try:
        return inside.encode(output) == inside.encode(expected)
    except inside.NotPlain:
        return False


def _pairs(content: list) -> dict:
    return {key: value for key, value in content}


_TAGS = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": _pairs,
    "float": {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}.__getitem__,
    "complex": lambda parts: complex(*map(float, parts)),
    "bytes": bytes.fromhex,
}


@cache
def _findings() -> tuple[tuple[Level, str | None], ...]:
    """(sandbox, None or what is wrong with it), the best first, up to the first that works."""
    found = []
    for name in ("bubblewrap", "docker", "podman"):
        found.append((name, _fault(name)))
        if found[-1][1] is None:
            break
    return tuple(found)


def _fault(name: Level) -> str | None:
    try:
        data = _execute(name, ascii(("x + 1", None, [[1]], LIMITS.memory)), LIMITS.seconds)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return " ".join(str(error).split())[:200]
    return None if _outcome(data, 1) == Outcome("ok", (2,)) else f"gave {data!r} for 1 + 1"[:200]


class _TimeUp(Exception):
    """Not remembered: the machine may have been busy."""


@lru_cache(maxsize=REMEMBERED)
def _run(request: str, seconds: float) -> bytes:
    data = _execute(level(), request, seconds)
    if data is None:
        raise _TimeUp
    return data


def _execute(name: Level, request: str, seconds: float) -> bytes | None:
    """What came out after the sign that the sandbox stood; None: the time was up."""
    start = _bubblewrap if name == "bubblewrap" else _container
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(request.encode("ascii"))
        stdin.seek(0)
        with start(name, stdin, stderr) as process:
            stood, data = _listen(process, seconds)
        if not stood:
            stderr.seek(0)
            said = stderr.read(500).decode("utf-8", "replace").strip()
            raise RuntimeError(f"the sandbox did not start: {said or f'nothing after {START} s'}")
    return data


def _listen(process: subprocess.Popen, seconds: float) -> tuple[bool, bytes | None]:
    """(whether the sandbox stood, what it wrote, cut one byte above the limit, or None when the time was up)."""
    data, stood, end = b"", False, time.monotonic() + START
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(data) <= inside.MAX_OUTPUT:
            if not selector.select(max(0.0, end - time.monotonic())):
                return stood, None
            chunk = os.read(process.stdout.fileno(), inside.MAX_OUTPUT)
            if not chunk:
                break
            if not stood:
                stood, chunk, end = True, chunk.removeprefix(inside.READY), time.monotonic() + seconds
            data += chunk
    return stood, data


def _outcome(data: bytes | None, count: int) -> Outcome:
    """Reads a result that the program may have forged: whatever is not exactly one result is a failure."""
    if data is None:
        return Outcome("timeout", (), "took too long")
    try:
        reply = json.loads(data) if len(data) <= inside.MAX_OUTPUT else None
        if set(reply) == {"failed"}:
            return Outcome("failed", (), str(reply["failed"])[:60])
        outputs = tuple(decode(output) for output in reply["outputs"])
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return Outcome("failed", (), "wrote no readable result")
    return Outcome("ok", outputs) if len(outputs) == count else Outcome("failed", (), "not one output per input")


@contextlib.contextmanager
def _bubblewrap(name: Level, stdin, stderr) -> Iterator[subprocess.Popen]:
    tool, rules = shutil.which("bwrap"), seccomp.program(os.uname().machine)
    if tool is None:
        raise RuntimeError("no bwrap on the PATH")
    if rules is None and os.getuid() == 0:
        raise RuntimeError(f"nothing would bound root's processes on {os.uname().machine}: use an ordinary account")
    with _pipe(rules or b"") as (filter_fd, sent), _pipe() as (info, told):
        sent.close()
        options = ["--info-fd", str(told.fileno()), *(["--seccomp", str(filter_fd)] if rules else [])]
        fds = (filter_fd, told.fileno())
        process = _popen([tool, *_walls(), *options, "--", *_python()], stdin, stderr, pass_fds=fds, env={})
        try:
            told.close()
            yield process
        finally:
            _end(process, info)


def _end(process: subprocess.Popen, info: int) -> None:
    """Kills the first process of the namespace, and so all that are in it; bubblewrap then ends by itself.

    Killing bubblewrap would do that too, but leave a zombie to whoever adopts orphans, and not everybody reaps them.
    """
    try:
        # It is told as soon as that process exists. Before, bubblewrap must not be killed: the process would wait for
        # it forever.
        with selectors.DefaultSelector() as selector:
            selector.register(info, selectors.EVENT_READ)
            told = os.read(info, 4096) if selector.select(START) else b""
        os.kill(int(told.partition(b'"child-pid":')[2].split()[0].rstrip(b",")), signal.SIGKILL)  # JSON's beginning
        process.wait(START)
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):  # it ended before, or never got so far
        process.kill()
    process.wait()
    process.stdout.close()


@contextlib.contextmanager
def _pipe(content: bytes = b"") -> Iterator[tuple[int, BinaryIO]]:
    """A descriptor to read from and a file to write to, which holds the few bytes of `content` already."""
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as reader, os.fdopen(write, "wb", buffering=0) as writer:
        writer.write(content)
        yield reader.fileno(), writer


def _popen(command: list[str], stdin, stderr, **more: Any) -> subprocess.Popen:
    """In a session of its own, so that a Ctrl-C meant for the kit does not end a program and pass for its failure."""
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, bufsize=0, start_new_session=True, **more
    )


def _interpreter() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _python() -> list[str]:
    return [_interpreter(), "-I", "-S", "-c", INSIDE]


@cache
def _walls() -> tuple[str, ...]:
    """bubblewrap's options. Installed packages are covered up: they may include this kit and the references in it."""
    places = [*SYSTEM, *(f"{sys.base_prefix}/{lib}" for lib in ("lib", "lib64")), "/etc/ld.so.cache", _interpreter()]
    places = [place for place in dict.fromkeys(places) if os.path.exists(place)]
    binds = [option for place in places for option in ("--ro-bind", place, place)]
    for link in ("/lib", "/lib32", "/lib64"):
        if os.path.islink(link):
            binds += ["--symlink", os.readlink(link), link]
        elif os.path.exists(link):
            binds += ["--ro-bind", link, link]
    packages = {os.path.realpath(p) for place in places for p in glob.glob(f"{place}/python3*/*-packages")}
    covers = [option for p in sorted(packages) for option in ("--tmpfs", p, "--remount-ro", p)]
    return (
        *("--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"),
        *("--as-pid-1", "--die-with-parent", "--new-session", "--hostname", "sandbox", *binds, *covers),
        *("--dev-bind", "/dev/null", "/dev/null", "--dir", "/tmp", "--remount-ro", "/", "--chdir", "/"),
    )


@contextlib.contextmanager
def _container(name: Level, stdin, stderr) -> Iterator[subprocess.Popen]:
    tool = shutil.which(name)
    if tool is None:
        raise RuntimeError(f"no {name} on the PATH")
    image, title = _image(tool), f"poc-{os.getpid()}-{os.urandom(6).hex()}"
    process = _popen([tool, "run", "--name", title, *CONTAINED, image, *_guarded()], stdin, stderr)
    try:
        yield process
    finally:
        if process.poll() is None:
            subprocess.run([tool, "kill", title], capture_output=True, timeout=START)
        process.kill()
        process.wait()
        process.stdout.close()


CONTAINED = (
    *("--rm", "--interactive", "--pull", "never", "--network", "none", "--pids-limit", "16", "--memory", "512m"),
    *("--memory-swap", "512m", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "65534:65534", "--workdir", "/", "--hostname", "sandbox", "--entrypoint", "timeout"),
)


def _guarded() -> list[str]:
    """Ends inside the container too, should this process die: nobody would kill it then."""
    return ["-s", "KILL", str(int(2 * START)), "python3", "-I", "-S", "-c", INSIDE]


@cache
def _image(tool: str) -> str:
    """A Python image that is already here. Raises RuntimeError when the daemon does not answer or there is none."""
    listed = subprocess.run(
        [tool, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"], capture_output=True, text=True, timeout=5
    )
    if listed.returncode:
        raise RuntimeError(listed.stderr.strip()[:120] or f"exit code {listed.returncode}")
    names = [line for line in listed.stdout.split() if line.rpartition(":")[0].rpartition("/")[2] == "python"]
    usable = [image for image in names if not image.endswith(":<none>")]
    if not usable:
        raise RuntimeError("answers, but no python image is here (none is fetched)")
    return usable[0]
