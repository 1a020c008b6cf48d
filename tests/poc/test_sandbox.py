"""The sandbox against programs that try to get out, to stay alive, to cheat or to lie about their outputs."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc.records import InputError
from poc.scoring import inside, sandbox, seccomp

needs = pytest.mark.skipif(sandbox.level() == "none", reason=f"no sandbox here: {sandbox.why_not()}")
SHORT = sandbox.Limits(seconds=0.6)
SECRET = "canary-" + "7f3a9c"
EXPECTED = 6_121_976_451  # never goes in

# name: what f() does to get out; it returns True if it got there
ESCAPES = {
    "ssh keys": "return bool(os.listdir(os.path.expanduser('~/.ssh')))",
    "root's home": "return [p for p in os.listdir('/root') if p != '.pyenv'] != []",
    "home": "return bool(os.listdir('/home'))",
    "shadow": "return bool(open('/etc/shadow').read())",
    "passwd": "return bool(open('/etc/passwd').read())",
    "host canary file": "return open(CANARY).read() != ''",
    "init's environment": "return bool(open('/proc/1/environ','rb').read())",
    "own memory through proc": "return bool(open('/proc/self/mem','rb'))",
    "other processes": "return bool(os.listdir('/proc'))",
    "environment": "return bool(os.environ)",
    "environment of libc": "import ctypes; return ctypes.CDLL(None).getenv(b'SECRET_CANARY') != 0",
    "loopback": "import socket; socket.create_connection(('127.0.0.1', PORT), 0.3); return True",
    "dns": "import socket; return bool(socket.getaddrinfo('example.com', 80))",
    "metadata address": "import socket; socket.create_connection(('169.254.169.254', 80), 0.3); return True",
    "raw socket": "import socket; return bool(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))",
    "unix socket": "import socket; return bool(socket.socket(socket.AF_UNIX))",
    "netlink socket": "import socket; return bool(socket.socket(16, socket.SOCK_RAW))",
    "fork": "return os.fork() >= 0",
    "vfork by posix_spawn": "return os.posix_spawn('/usr/lib', ['x'], {}) > 0",
    "a shell": "import subprocess; return subprocess.run('echo hi', shell=True).returncode == 0",
    "clone by ctypes": "import ctypes; return ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0",
    "clone3 by ctypes": "import ctypes; return ctypes.CDLL(None).syscall(435, 0, 0) >= 0",
    "thread": "import threading; threading.Thread(target=print).start(); return True",
    "write to tmp": "open('/tmp/x', 'w'); return True",
    "write to usr": "open('/usr/lib/x', 'w'); return True",
    "write to the interpreter": "import sys; open(sys.executable, 'r+b'); return True",
    "write beside os": "open(os.path.dirname(os.__file__) + '/x.py', 'w'); return True",
    "symlink out": "os.symlink('/etc/shadow', '/tmp/link'); return True",
    "symlink by dir": "os.symlink('/', '/dev/link'); return True",
    "hard link": "os.link(os.__file__, '/tmp/link'); return True",
    "mkdir": "os.mkdir('/new'); return True",
    "mount": "import ctypes; return ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, 0) == 0",
    "umount": "import ctypes; return ctypes.CDLL(None).umount2(b'/usr/lib', 2) == 0",
    "new user namespace": "import ctypes; return ctypes.CDLL(None).unshare(0x10000000) == 0",
    "chroot": "os.chroot('/tmp'); return True",
    "setuid": "os.setuid(0); return True",
    "ptrace the parent": "import ctypes; return ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
    "memory of the parent": "import ctypes; return ctypes.CDLL(None).syscall(310, 1, 0, 0, 0, 0, 0) >= 0",
    "signal the outside": "os.kill(PID, 0); return True",
    "outlive the kit": "import ctypes; return ctypes.CDLL(None).prctl(1, 0) == 0",
    "memory file": "return os.memfd_create('x') >= 0",
    "shared segment": "import ctypes; return ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0",
    "user keys": "import ctypes; return ctypes.CDLL(None).syscall(250, 0, -4, 0) >= 0",
    "bpf": "import ctypes; return ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0",
    "terminal": "return bool(open('/dev/tty'))",
    "disks": "return any(p not in ('null',) for p in os.listdir('/dev'))",
    "installed packages": "import numpy; return True",
    "this repository": "import poc; return True",
    "host name": "return os.uname().nodename == HOST",
    "4 GB": "return len(bytearray(4 << 30)) > 0",
    "4 GB in pieces": "return len([bytearray(1 << 20) for _ in range(4096)]) > 0",
    "mapped 4 GB": "import mmap; return bool(mmap.mmap(-1, 4 << 30))",
    "1 GB file": "f = open('/tmp/big', 'wb'); f.write(b'x' * (1 << 20)); return True",
    "many descriptors": "return len([os.open('/dev/null', 0) for _ in range(10_000)]) > 0",
    "raise the limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); return True",
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'true']); return True",
}

# what the programs below may use: say writes to every descriptor that may be the result pipe, one() is no answer
HELP = """
import os
def say(data):
    for d in range(3, 9):
        try: os.write(d, data)
        except OSError: pass
def one(x): return 1
"""
# name: a program whose f must not be taken for right, nor hold anything up. EXPECTED is nowhere inside.
CHEATS = {
    "exit 0": "import sys\nsys.exit(0)",
    "exit 0 in the call": "def f(x):\n    raise SystemExit(0)",
    "hard exit": "def f(x):\n    os._exit(0)",
    "always equal": "class A:\n    def __eq__(s, o): return True\n    __hash__ = None\ndef f(x): return A()",
    "always equal int": "class A(int):\n    def __eq__(s, o): return True\ndef f(x): return A(1)",
    "lying class": "class A:\n    __class__ = int\ndef f(x): return A()",
    "lying metaclass": "class M(type):\n    def __subclasscheck__(s, c): return True\n"
    "class A(metaclass=M): pass\ndef f(x): return A()",
    "lying repr": "class A(int):\n    def __repr__(s): return '6121976450'\ndef f(x): return A(1)",
    "patched equality": "import operator, builtins\noperator.eq = builtins.all = lambda *a: True\nf = one",
    "patched builtins": "import builtins\nbuiltins.type = builtins.issubclass = builtins.len = lambda *a: 1\nf = one",
    "patched encoder": "import sys\nsys.modules['__main__'].encode = lambda v, r=0, d=0: 'true'\nf = one",
    "patched reply": "import sys\nsys.modules['__main__']._reply = lambda *a: '{\"verdict\":\"correct\"}'\nf = one",
    "forged line": 'say(b\'{"status":"correct"}\\n\')\nf = one',
    "forged outputs": "say(b'{\"outputs\":[true]}')\nos._exit(0)",
    "forged twice": 'say(b\'{"outputs":[1]}\\n{"outputs":[2]}\')\nos._exit(0)',
    "deep reply": "say(b'[' * 60000)\nos._exit(0)",
    "huge number reply": "say(b'{\"outputs\":[' + b'9' * 60000 + b']}')\nos._exit(0)",
    "bad tags": 'say(b\'{"outputs":[{"complex":[1,2,3]}]}\')\nos._exit(0)',
    "words at exit": "import atexit\natexit.register(say, b'{\"outputs\":[1]}')\nf = one",
    "no hard exit": "import atexit\nos._exit = lambda c: None\natexit.register(say, b'[1]')\nf = one",
    "closed descriptors": "os.closerange(0, 99)\nf = one",
    "pipe replaced": "for d in range(3, 9):\n    try: os.dup2(0, d)\n    except OSError: pass\nf = one",
    "traced": "import sys\ndef t(frame, event, arg):\n    frame.f_locals['outputs'] = ['true']\n    return t\n"
    "sys.settrace(t)\nf = one",
    "walks the frames": "import sys\ndef f(x):\n    frame, seen = sys._getframe(), ''\n    while frame:\n"
    "        seen += repr(frame.f_locals) + repr(frame.f_globals)\n        frame = frame.f_back\n"
    "    return 6121976 * 1000 + 451 if str(6121976) + '451' in seen else 0",
    "walks the heap": "import gc\ndef f(x):\n    seen = [o for a in gc.get_objects() if type(a) is list for o in a]\n"
    "    return max([o for o in seen if type(o) is int and o % 1000 == 451], default=0)",
    "reads its input again": "import sys\ndef f(x):\n    os.lseek(0, 0, 0)\n    return sys.stdin.read()",
    "reads its command line": "import sys\ndef f(x): return int('6121976' + '451' in str(sys.orig_argv))",
    "mutates its input": "def f(x):\n    x.clear()\n    return x",
    "not a number": "def f(x): return float('nan')",
    "huge integer": "def f(x): return 10**100000",
    "power tower": "def f(x): return 9**9**9",
    "endless recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)",
    "endless data": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "shared data": "def f(x):\n    a = [0]\n    for _ in range(60): a = [a, a]\n    return a",
    "deep data": "def f(x):\n    a = 1\n    for _ in range(5000): a = [a]\n    return a",
    "much text": "def f(x): return 'x' * 10**8",
    "endless loop": "def f(x):\n    while True: pass",
    "loop while loading": "while True: pass",
    "sleep": "import time\ndef f(x): time.sleep(99)",
    "stopped": "import signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return 1",
    "deaf": "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except OSError: pass\ndef f(x):\n    while True: pass",
    "kills all": "def f(x):\n    os.kill(-1, 9)\n    return 1",
    "kills its parent": "def f(x):\n    os.kill(os.getppid(), 9)\n    return 1",
    "clings": "import ctypes\nctypes.CDLL(None).prctl(1, 0)\ndef f(x):\n    while True: pass",
    "endless stdout": "def f(x):\n    while True: print('x' * 10000)",
    "endless stderr": "import sys\ndef f(x):\n    while True: sys.stderr.write('x' * 10000)",
    "endless pipe": "def f(x):\n    while True: say(b'x' * 10000)",
    "fork storm": "def f(x):\n    n = 0\n    for _ in range(60):\n        try: n += os.fork() >= 0\n"
    "        except OSError: pass\n    return n",
    "thread storm": "import threading, time\ndef f(x):\n    n = 0\n    for _ in range(60):\n        try:\n"
    "            threading.Thread(target=time.sleep, args=(30,)).start()\n            n += 1\n"
    "        except RuntimeError: pass\n    return n",
    "grandchild": "import time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n"
    "        if os.fork() == 0: time.sleep(60)\n        os._exit(0)\n    return 1",
    "segmentation fault": "import ctypes\ndef f(x): return ctypes.string_at(0)",
    "syntax": "def f(x) return 1",
    "null byte": "def f(x): return 1\0",
    "surrogates": "def f(x): return '\ud800'",
    "nothing": "",
    "another name": "def g(x): return 1",
}


def try_cheat(name: str) -> sandbox.Outcome:
    return sandbox.run(HELP + CHEATS[name], "f", [[[3]]], SHORT)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A secret in a file, one in the environment, a listening port: none may be touched."""
    canary = tmp_path_factory.mktemp("host") / "canary"
    canary.write_text(SECRET)
    os.environ["SECRET_CANARY"] = SECRET
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        yield {"CANARY": str(canary), "PORT": server.getsockname()[1], "PID": os.getpid(), "HOST": os.uname().nodename}
        with pytest.raises(TimeoutError):
            server.accept()
    del os.environ["SECRET_CANARY"]
    assert canary.read_text() == SECRET


def alive_inside() -> list[int]:
    """Processes that run the sandbox's Python code, or bubblewrap around it, for this process, or orphaned."""
    mark, parents = inside.__doc__[:60].encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "cmdline").read_bytes():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return [pid for pid in parents if top(pid, parents) in (1, os.getpid())]


def top(pid: int, parents: dict[int, int]) -> int:
    """The first ancestor that is no part of a sandbox: other tests may run theirs on this machine."""
    while pid in parents:
        pid = parents[pid]
    return pid


def nobody_is_left() -> bool:
    end = time.monotonic() + 1.0
    while alive_inside() and time.monotonic() < end:
        time.sleep(0.02)
    return not alive_inside()


@needs
@pytest.mark.parametrize("name", ESCAPES)
def test_no_program_gets_out(name, world):
    facts = "".join(f"{key} = {value!r}\n" for key, value in world.items())
    found = sandbox.run(f"import os\n{facts}def f():\n    {ESCAPES[name]}\n", "f", [[]], SHORT)
    assert found.status != "ok" or found.outputs == (False,), found
    assert found.detail not in ("SyntaxError", "NameError", "IndentationError")  # it was really tried


@needs
@pytest.mark.parametrize("name", CHEATS)
def test_no_program_passes_without_the_right_output(name):
    began = time.monotonic()
    found = try_cheat(name)
    assert time.monotonic() - began < 0.6 + 2.0  # a busy machine starts slowly; the limit counts from the start on
    assert found.status != "ok" or not sandbox.same(found.outputs[0], EXPECTED)
    assert nobody_is_left()


@needs
@pytest.mark.parametrize(
    "name, status",
    [("exit 0", "failed"), ("hard exit", "failed"), ("endless loop", "timeout"), ("stopped", "ok")]
    + [("always equal", "failed"), ("endless pipe", "failed"), ("forged line", "failed"), ("deep reply", "failed")]
    + [("huge number reply", "failed"), ("bad tags", "failed"), ("not a number", "ok"), ("huge integer", "failed")]
    + [
        ("closed descriptors", "failed"),
        ("grandchild", "failed"),
        ("segmentation fault", "failed"),
        ("deaf", "timeout"),
    ],
)
def test_what_is_said_of_it(name, status):
    assert try_cheat(name).status == status


@needs
def test_storms_start_nothing():
    for name in ("fork storm", "thread storm"):
        assert try_cheat(name) == sandbox.Outcome("ok", (0,))


@needs
def test_what_comes_back_is_what_went_in():
    plain = [1, -1, 10**300, 0.5, -0.0, True, None, 'é\n\\"😀\ud800', [1, [2]], (1, (2,)), {1, 2}, frozenset({3})]
    plain += [{"a": 1, 2: (3,)}, b"\x00ok", 1 + 2j, float("inf"), [], (), {}, set(), ""]
    found = sandbox.run("def f(x):\n    return x\n", "f", [[plain]])
    assert found.status == "ok" and sandbox.same(found.outputs[0], plain)
    assert found.outputs[0] == plain


@needs
def test_of_a_subclass_the_data_count():
    source = (
        "from collections import Counter, OrderedDict, namedtuple\nfrom enum import IntEnum\n"
        "P = namedtuple('P', 'x y')\nclass E(IntEnum):\n    A = 3\n"
        "def f(x):\n    return [Counter('aab'), OrderedDict(a=1), P(1, 2), E.A]\n"
    )
    assert sandbox.run(source, "f", [[1]]).outputs == ([{"a": 2, "b": 1}, {"a": 1}, (1, 2), 3],)


@needs
def test_each_input_is_fresh_and_each_output_is_written_down_at_once():
    source = (
        "seen = []\ndef f(x):\n    x.append(9)\n    seen.append(x)\n    for s in seen[:-1]: s.clear()\n    return x\n"
    )
    assert sandbox.run(source, "f", [[[1]], [[2]]]).outputs == ([1, 9], [2, 9])


@needs
def test_an_expression_has_x_and_nothing_else():
    assert sandbox.run(" x * 2 ", None, [[2], [3]]).outputs == (4, 6)
    for source in ("y", "x = 1", "x; x", "x\nx", "return x", "", "def f(x): return x"):
        assert sandbox.run(source, None, [[2]]).status == "failed"


@needs
def test_the_same_request_runs_once(monkeypatch):
    calls = []
    real = sandbox._execute
    monkeypatch.setattr(sandbox, "_execute", lambda *a: calls.append(a) or real(*a))
    source = f"x + {time.monotonic_ns()}"
    first, again = sandbox.run(source, None, [[1]]), sandbox.run(source, None, [[1]])
    assert first == again and len(calls) == 1
    sandbox.run(source, None, [[2]])
    sandbox.run(source, None, [[True]])  # 1 and True are different inputs
    assert len(calls) == 3


@needs
def test_two_threads_at_once():
    found = {}

    def work(i):
        found[i] = sandbox.run(f"x + {i}", None, [[j] for j in range(8)]).outputs

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert found == {i: tuple(range(i, i + 8)) for i in range(8)}


@needs
def test_an_interrupt_leaves_no_process(monkeypatch):
    def interrupted(process, seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox, "_listen", interrupted)
    for i in range(20):  # at once: bubblewrap has hardly begun
        with pytest.raises(KeyboardInterrupt):
            sandbox.run(f"[x for x in iter(int, {time.monotonic_ns() + i})]", None, [[1]])
    assert nobody_is_left()


@needs
def test_the_kit_killed_takes_its_programs_along():
    clinging = HELP + CHEATS["clings"]
    code = f"from poc.scoring import sandbox\nsandbox.run({clinging!r}, 'f', [[1]], sandbox.Limits(30))"
    root = Path(sandbox.__file__).parents[2]
    kit = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    end, started = time.monotonic() + 60, []
    while not started and time.monotonic() < end:  # still there a moment later: not the trial start of the sandbox
        before = inside_of(kit.pid)
        time.sleep(0.2)
        started = [pid for pid in inside_of(kit.pid) if pid in before]
    assert started
    kit.kill()
    kit.wait()
    end = time.monotonic() + 1.0
    while any(running(pid) for pid in started) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [pid for pid in started if running(pid)]


def running(pid: int) -> bool:
    """Not gone, and not a zombie that waits for init to look at it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def inside_of(ancestor: int) -> list[int]:
    """All descendants of a process that run the sandbox's Python."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, more = [], [ancestor]
    while more:
        more = [pid for pid, parent in parents.items() if parent in more]
        found += more
    return found if len(found) >= 2 else []  # bubblewrap and the interpreter


def test_without_any_sandbox_it_refuses_with_the_install_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    forget()
    try:
        assert sandbox.level() == "none"
        with pytest.raises(InputError, match="apt-get install bubblewrap .* dnf install bubblewrap") as error:
            sandbox.run("x", None, [[1]])
        assert "\n" not in str(error.value)
    finally:
        monkeypatch.undo()
        forget()


def test_a_sandbox_that_does_not_start_is_no_verdict(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho bwrap: setting up uid map: Permission denied >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sandbox, "level", lambda: "bubblewrap")
    with pytest.raises(RuntimeError, match="did not start: bwrap: setting up uid map: Permission denied"):
        sandbox.run(f"x + {time.monotonic_ns()}", None, [[1]])


def test_a_container_gets_every_limit_and_is_killed(monkeypatch, tmp_path):
    log = tmp_path / "log"
    tool = tmp_path / "docker"
    tool.write_text(
        f"#!/bin/bash\nprintf '%s ' \"${{@:1:34}}\" >> {log}\necho >> {log}\n"
        "if [ $1 = image ]; then echo debian:12; echo some/python:3.12-slim; fi\n"
        f'if [ $1 = run ]; then exec {sys.executable} -I -S -c "${{@: -1}}"; fi\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    forget()
    try:
        monkeypatch.setattr(sandbox.shutil, "which", lambda name: str(tool) if name == "docker" else None)
        assert sandbox.level() == "docker"
        assert sandbox.run("x + 40", None, [[2]]).outputs == (42,)
        assert sandbox.run("[0 for _ in iter(int, 2)]", None, [[2]], SHORT).status == "timeout"
    finally:
        monkeypatch.undo()
        forget()
    said = log.read_text()
    for limit in ("--network none", "--pids-limit", "--memory", "--read-only", "--cap-drop ALL", "--pull never"):
        assert limit in said
    for limit in ("--security-opt no-new-privileges", "--user 65534:65534", "some/python:3.12-slim", "kill poc-"):
        assert limit in said


def test_a_container_tool_without_a_python_image_is_none(monkeypatch, tmp_path):
    tool = tmp_path / "podman"
    tool.write_text("#!/bin/sh\necho debian:12\n")
    tool.chmod(0o755)
    forget()
    try:
        monkeypatch.setattr(sandbox.shutil, "which", lambda name: str(tool) if name == "podman" else None)
        assert sandbox.level() == "none"
        assert "no python image is here" in sandbox.why_not()
    finally:
        monkeypatch.undo()
        forget()


def forget():
    sandbox.level.cache_clear()
    sandbox._findings.cache_clear()
    sandbox._image.cache_clear()
    sandbox._run.cache_clear()


@pytest.mark.parametrize("count", [0, 9])
def test_one_to_eight_inputs(count):
    with pytest.raises(ValueError, match=f"{count} inputs"):
        sandbox.run("x", None, [[1]] * count)


def test_inputs_are_plain_data():
    for value in (object(), lambda: 1, range(3), [[[object()]]]):
        with pytest.raises(inside.NotPlain):
            sandbox.run("x", None, [[value]])


def test_a_program_may_not_be_endless():
    assert sandbox.run("x" * 20_001, None, [[1]]).status == "failed"


@pytest.mark.parametrize(
    "a, b",
    [(1, True), (1, 1.0), (0, False), ((1,), [1]), ({1}, frozenset({1})), ("1", 1), (b"a", "a"), (None, False)]
    + [({1: 2}, {True: 2}), ([1, 2], [2, 1]), (0.0, -0.0), ("", []), ({}, set())],
)
def test_what_is_not_the_same(a, b):
    assert not sandbox.same(a, b)
    assert not sandbox.same([a], [b])
    assert sandbox.same(a, a) and sandbox.same(b, b)


def test_order_of_sets_and_dicts_does_not_count():
    assert sandbox.same({1: 2, 3: 4}, {3: 4, 1: 2})
    assert sandbox.same({"a", "b", "c"}, {"c", "b", "a"})


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda x: (
        st.lists(x, max_size=4)
        | st.lists(x, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), x, max_size=3)
        | st.sets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_encoding_is_json_and_comes_back(value):
    text = inside.encode(value)
    assert text.isascii()
    back = sandbox.decode(json.loads(text))
    assert back == value and sandbox.same(back, value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda t: ('{"outputs":[' + t + "]}").encode()))
def test_no_reply_breaks_the_reader(data):
    assert sandbox._outcome(data, 1).status in ("ok", "failed")


@pytest.mark.parametrize("found", [{"tuple": [1], "set": []}, {"list": [1]}, {}, {"float": "1"}, {"dict": [[1]]}])
def test_a_forged_value_is_refused(found):
    assert sandbox._outcome(json.dumps({"outputs": [found]}).encode(), 1).status == "failed"


def verdict_of(program: bytes, number: int, arch: int, argument: int = 0) -> int:
    """What the kernel would return for a call: the four kinds of instruction that the filter uses."""
    data, at, value = struct.pack("=IIQQ", number, arch, 0, argument), 0, 0
    while True:
        code, true, false, k = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == seccomp.RETURN:
            return k
        if code == seccomp.LOAD:
            (value,) = struct.unpack_from("=I", data, k)
        else:
            at += true if (value == k if code == seccomp.EQUAL else value >= k) else false


@pytest.mark.parametrize("machine, column", [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_refuses_what_it_names_and_nothing_else(machine, column):
    program, arch = seccomp.program(machine), seccomp.AUDIT_ARCH[machine]
    refused = {numbers[column] for numbers in seccomp.REFUSED.values()}
    for number in range(600):
        assert verdict_of(program, number, arch) == (seccomp.EPERM if number in refused else seccomp.ALLOW), number
    prctl = seccomp.PRCTL[column]
    assert [verdict_of(program, prctl, arch, x) for x in (1, 15)] == [seccomp.EPERM, seccomp.ALLOW]
    assert verdict_of(program, seccomp.X32 + 56, arch) == seccomp.EPERM
    assert verdict_of(program, 1, arch + 1) == seccomp.KILL


def test_as_root_on_an_unknown_machine_there_is_no_bubblewrap(monkeypatch):
    monkeypatch.setattr(sandbox.seccomp, "program", lambda machine: None)
    monkeypatch.setattr(sandbox.os, "getuid", lambda: 0)
    assert "nothing would bound root's processes" in (sandbox._fault("bubblewrap") or "") or not sandbox.shutil.which(
        "bwrap"
    )
