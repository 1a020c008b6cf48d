"""Grading in killable processes: what hostile completions cannot do, how long they take, and whom they do not harm.

The verifier here is a double that does what a completion tells it to do, as if every completion had found a hole.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from poc import rewards, tasks
from poc.records import Episode, Example, Group, InputError, RunError, Verdict
from poc.rewards.verifiable import verifiable
from poc.scoring import pool, servers
from poc.scoring.pool import Grade, grade

DOUBLE = """
import ctypes, os, signal, socket, subprocess, sys, time
from types import SimpleNamespace
from poc.records import Verdict
from poc.tasks.answers import Reading
from poc.tasks.problem import Problem

def own_process(example):
    return example.check == "apart"

make = lambda rng, level: Problem("?", "yes", "yes", "key")
DOMAINS = {name: SimpleNamespace(LEVELS=range(1), make=make, OWN_PROCESS=own_process) for name in ("one", "two")}

def read(example, text):
    if example.check == "apart read":
        score(example, text)
    return Reading(text, True)

def score(example, text):
    if example.answer == "no gold at all":
        raise KeyError("gold")
    name, _, argument = text.partition(" ")
    try:
        said = ACTIONS[name](argument) if name in ACTIONS else None
    except OSError as error:
        said = "refused"
    return Verdict("correct" if text == "yes" else "wrong", True, False, said)

def loop(argument):
    while True:
        pass

def nest(argument):
    return nest(argument)

def flood(argument):
    while True:
        for handle in range(3, 12):
            try:
                os.write(handle, b"x" * 65536)
            except OSError:
                pass

def forge(argument):
    line = b'{"id": %d, "answer": "yes", "formatted": true, "verdict": {"status": "correct", "formatted": true, '
    line += b'"correct_anyhow": true, "answer": "yes"}}\\n'
    for handle in range(3, 12):
        for number in range(1, 200):
            try:
                os.write(handle, line % number)
            except OSError:
                pass

def babble(argument):
    for handle in range(3, 12):
        try:
            os.write(handle, argument.encode() + b"\\n")
        except OSError:
            pass

def shout(argument):
    print('{"id": 1, "answer": "yes"}', flush=True)
    os.write(1, b'{"id": 1, "answer": "yes"}\\n')
    os.write(2, b'{"id": 1, "answer": "yes"}\\n')

ACTIONS = {
    "loop": loop, "nest": nest, "flood": flood, "forge": forge, "babble": babble, "shout": shout,
    "sleep": lambda x: time.sleep(60),
    "burn": lambda x: sum(range(int(x))) and None,
    "allocate": lambda x: len(bytearray(4 << 30)),
    "hoard": lambda x: [bytearray(1 << 20) for _ in range(100_000)] and None,
    "exit": lambda x: sys.exit(0), "_exit": lambda x: os._exit(0), "crash": lambda x: ctypes.string_at(0),
    "raise": lambda x: 1 // 0, "int": lambda x: int("9" * 5000),
    "write": lambda x: open(x, "w"), "append": lambda x: open(x, "a"), "look": lambda x: open("/etc/passwd").read(),
    "unlink": os.unlink, "mkdir": lambda x: os.mkdir(x + ".d"), "rename": lambda x: os.rename(x, x + ".new"),
    "chmod": lambda x: os.chmod(x, 0o777), "link": lambda x: os.symlink(x, x + ".link"), "list": os.listdir,
    "truncate": lambda x: os.truncate(x, 0), "utime": os.utime,
    "fork": lambda x: os.fork(), "spawn": lambda x: subprocess.run(["touch", x]),
    "exec": lambda x: os.execv("/bin/touch", ["touch", x]), "pipe": lambda x: os.pipe(),
    "kill": lambda x: os.kill(int(x), signal.SIGKILL), "stop": lambda x: os.kill(os.getpid(), signal.SIGSTOP),
    "everybody": lambda x: os.kill(-1, signal.SIGTERM), "killpg": lambda x: os.killpg(0, signal.SIGTERM),
    "socket": lambda x: socket.socket(),
    "udp": lambda x: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "unix": lambda x: socket.socketpair(),
    "environ": lambda x: repr(sorted(os.environ.items())),
    "import": lambda x: __import__("wave").__name__,
    "pid": lambda x: str(os.getpid()),
}
"""
HARMS = (
    "write append look unlink mkdir rename chmod link list truncate utime fork spawn exec pipe kill stop everybody "
    "killpg socket udp unix"
).split()
HANGS = ["loop", "sleep", "flood"]
DEATHS = ["allocate", "hoard", "_exit", "crash"]
ONE = Example("q1", "?", "yes", "one")
PATIENT = 30.0  # seconds: where the answer counts, not how fast a busy machine finds it
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp and /proc are Linux's")


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """domain -> processes of the double. They are kept from test to test: every test leaves them able to work."""
    folder, kept = tmp_path_factory.mktemp("double"), {}
    (folder / "verifier_double.py").write_text(DOUBLE)
    sys.path.insert(0, str(folder))
    yield kept
    sys.path.remove(str(folder))
    for domain in kept.values():
        domain.stop()


@pytest.fixture
def double(processes, monkeypatch):
    """The verifier that does what it is told."""
    monkeypatch.setattr(pool, "MODULE", "verifier_double")
    monkeypatch.setattr(pool, "_SERVERS", processes)
    grade([ONE], ["yes"])
    return processes["one"]


def one(text, **options):
    return grade([ONE], [text], **options)[0]


def answer(text):
    """What the action gave, where it is none of time."""
    return one(text, limit=PATIENT).verdict.answer


def works():
    return one("yes", limit=PATIENT) == Grade("yes", True, Verdict("correct", True, False))


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def soon(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def processes_of(*domains):
    return [pid for d in domains for pid in (d.supervisor.process.pid, *(server.pid for server in d.servers))]


def test_order_duplicates_and_examples_without_gold(double):
    examples = [ONE, replace(ONE, id="q2", domain="two"), replace(ONE, id="q3", answer=None)]
    asked = [(random.Random(i).choice(examples), random.Random(-i).choice(["yes", "no", "x y"])) for i in range(200)]
    before = double.asked
    grades = grade(*zip(*asked, strict=True))
    for (example, text), found in zip(asked, grades, strict=True):
        verdict = Verdict("correct" if text == "yes" else "wrong", True, False)
        assert found == Grade(text, True, None if example.answer is None else verdict)
    assert double.asked - before == len({pair for pair in asked if pair[0].domain == "one"})
    copies = [replace(ONE) for _ in range(50)]  # equal, but not the same object
    before = double.asked
    assert len(set(grade(copies, ["no"] * 50))) == 1 and double.asked == before + 1
    assert grade([], []) == []
    with pytest.raises(ValueError):
        grade([ONE], [])


@linux
@pytest.mark.parametrize("harm", HARMS)
def test_no_harm_is_done(double, tmp_path, harm):
    """Also where these tests run as root."""
    canary = tmp_path / "canary"
    canary.write_text("sings")
    before, mode = sorted(tmp_path.iterdir()), canary.stat()
    argument = os.getpid() if harm == "kill" else canary
    assert answer(f"{harm} {argument}") == "refused"
    assert sorted(tmp_path.iterdir()) == before and canary.read_text() == "sings"
    assert (canary.stat().st_mode, canary.stat().st_mtime_ns) == (mode.st_mode, mode.st_mtime_ns)
    assert works()


@linux
def test_what_is_left_to_a_server(double, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    pool._stop()
    assert answer("environ") == "[]"
    server = double.servers[0].pid
    with open(f"/proc/{server}/environ") as environment, open(f"/proc/{server}/limits") as lines:
        assert "hunter2" not in environment.read()
        limits = {line[:25].strip(): line[25:].split()[0] for line in lines}
    asked = ("Max address space", "Max core file size", "Max file size", "Max processes", "Max open files")
    assert [limits[name] for name in asked] == [str(2 << 30), "0", "0", "0", "0"]
    with open(f"/proc/{server}/status") as lines:
        status = dict(line.split(":\t", 1) for line in lines)
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    assert os.getuid() or status["Uid"].split() == ["65534"] * 4
    assert os.getsid(server) == double.supervisor.process.pid != os.getsid(0)  # no Ctrl-C of the terminal reaches it


@pytest.mark.parametrize("text", HANGS)
def test_a_hang_is_a_timeout_in_time(double, text):
    started = time.monotonic()
    assert one(text, limit=0.5) == Grade(None, False, Verdict("timeout", False, False))
    assert time.monotonic() - started < 0.5 + 0.25
    assert works()


@pytest.mark.parametrize("text", DEATHS)
def test_a_death_is_a_timeout_after_a_second_try(double, text):
    before, started = double.asked, time.monotonic()
    assert one(text, limit=1.0).verdict == Verdict("timeout", False, False)
    assert time.monotonic() - started < 1.0 + 0.25
    assert double.asked - before >= 2
    assert works()


@pytest.mark.parametrize("nonsense", ["[1]", "[" * 5000, '{"id": 1}', "\xff", '{"id": 1, "verdict": 5}'])
def test_a_server_that_talks_nonsense_is_not_believed(double, nonsense):
    double.asked = 0  # so that its next request has number 1
    assert one(f"babble {nonsense}").verdict.status == "timeout"
    assert works()


def test_nothing_that_is_said_early_or_printed_passes_for_a_reply(double):
    assert one("shout").verdict.status == "wrong"
    assert one("forge").verdict.status != "correct"
    assert [one(f"no {i}").verdict.status for i in range(5)] == ["wrong"] * 5
    assert works()


@pytest.mark.parametrize(
    "text, kind",
    [
        ("raise", "ZeroDivisionError"),
        ("int", "ValueError"),
        ("nest", "RecursionError"),
        ("exit", "SystemExit"),
        ("import", "ModuleNotFoundError"),  # nothing can be imported that was not when the supervisor tried
    ],
)
def test_a_verifier_that_raises_is_an_error_that_is_told_and_pays_nothing(double, text, kind):
    with pytest.warns(RuntimeWarning, match=f"the verifier of one raised {kind} on 2 completions"):
        grades = grade([ONE] * 3, [text, text + " again", "yes"])
    assert [g.verdict.status for g in grades] == ["error", "error", "correct"]
    episodes = tuple(Episode((1,), "", True, (0.0,), (0.0,), (0.0,), g.verdict) for g in grades)
    with pytest.raises(RunError, match="the verifier of one failed on a completion of q1"):
        rewards.apply("verifiable", verifiable, Group(ONE, (1,), episodes))


def test_a_gold_that_cannot_be_used_is_the_callers(double):
    with pytest.raises(ValueError, match="q7: the verifier of one cannot use this question's gold answer .KeyError"):
        grade([ONE, replace(ONE, id="q7", answer="no gold at all")], ["yes", "no"])
    with pytest.raises(ValueError, match="q8: .* cannot use this question's gold answer .KeyError"):
        grade([replace(ONE, id="q8", answer="no gold at all", check="apart")], ["no"])
    assert works()


def test_a_gold_that_a_domain_cannot_read():
    example = Example("logic-7", "Ann: Bob is a knave. Bob: Ann is a knave.", "who knows", "logic")
    with pytest.raises(InputError, match="logic-7: .*the gold answer 'who knows' .*names nobody"):
        grade([example], ["#Ann knight, Bob knave"])


@pytest.mark.parametrize("kind, raised", [("InputError", InputError), ("OSError", RuntimeError)])
def test_a_verifier_that_cannot_start(double, tmp_path, monkeypatch, kind, raised):
    text = (
        f"import sys\nfrom poc.records import InputError\nif sys.flags.isolated:\n    raise {kind}('pip install x')\n"
    )
    (tmp_path / f"broken_{kind}.py").write_text(text + DOUBLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(pool, "MODULE", f"broken_{kind}")
    monkeypatch.setattr(pool, "_SERVERS", {})
    with pytest.raises(raised, match="pip install x"):
        grade([replace(ONE, domain="two")], ["yes"])


def mixed(hostile, benign, text="loop"):
    texts = [f"{text} {i}" for i in range(hostile)] + [f"no {i}" for i in range(benign)]
    random.Random(0).shuffle(texts)
    return texts


@pytest.mark.parametrize("hostile, benign", [(64, 0), (32, 32), (60, 4)])
def test_a_step_of_hostile_completions_takes_less_than_twice_its_time(double, hostile, benign):
    """Grading is allowed the time of sampling, so it must not take that and the update's; no benign one is harmed."""
    texts = mixed(hostile, benign)
    sampling, update = work(30), work(15)
    started = time.monotonic()
    grades = grade([ONE] * len(texts), texts, budget=sampling)
    assert time.monotonic() - started < sampling + update
    assert [g.verdict.status for g in grades] == ["timeout" if text.startswith("loop") else "wrong" for text in texts]


def work(units):
    """Seconds of as much work, about 0.05 a unit on an idle machine: what else runs here slows it like the grading."""
    started = time.monotonic()
    for _ in range(units):
        sum(i * i for i in range(700_000))
    return time.monotonic() - started


def test_without_budget_every_completion_is_still_looked_at(double):
    texts = mixed(20, 100)
    started = time.monotonic()
    grades = grade([ONE] * len(texts), texts, limit=1.0, budget=0.0)
    assert time.monotonic() - started < 2.0
    assert sum(g.verdict.status == "wrong" for g in grades) == 100


def test_a_slow_completion_among_quick_ones_gets_its_time(double):
    texts = ["burn 3000000", *mixed(2, 50)]
    assert grade([ONE] * len(texts), texts, limit=PATIENT, budget=3.0)[0].verdict.status == "wrong"


@linux
def test_who_never_had_the_processor_is_waited_for(double):
    """The server is stopped from outside for a while, as if the machine were busy elsewhere: no completion's doing."""
    for server in double.servers:
        os.kill(server.pid, signal.SIGSTOP)
    again = threading.Timer(0.3, lambda: [os.kill(server.pid, signal.SIGCONT) for server in double.servers])
    again.start()
    assert one("no 1", limit=PATIENT, budget=0.0).verdict.status == "wrong"
    again.join()


def test_domains_share_the_budget(double):
    two = replace(ONE, id="q2", domain="two")
    grade([two], ["yes"])
    examples, texts = [ONE] * 12 + [two] * 12, [f"loop {i}" for i in range(12)] * 2
    started = time.monotonic()
    grades = grade([*examples, ONE, two], [*texts, "yes", "yes"], limit=1.0, budget=2.0)
    assert time.monotonic() - started < 3.0
    assert [g.verdict.status for g in grades] == ["timeout"] * 24 + ["correct"] * 2


def test_score_of_its_own_process_is_called_here_and_read_is_not(double):
    apart = replace(ONE, id="q2", check="apart")
    assert grade([apart, ONE], ["pid", "pid"])[0].verdict.answer == str(os.getpid())
    assert grade([apart, ONE], ["pid", "pid"])[1].verdict.answer != str(os.getpid())
    started = time.monotonic()
    examples = [apart, apart, apart, replace(apart, id="q3", answer=None)]
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError on 1"):
        here = grade(examples, ["yes", "no", "raise", "loop"])
    assert [g.verdict and g.verdict.status for g in here] == ["correct", "wrong", "error", None]
    assert here[3].answer == "loop" and time.monotonic() - started < 5  # without gold there is nothing to score
    refused = grade([replace(ONE, check="apart read")], ["loop"], limit=0.3)[0]
    assert refused == Grade(None, False, Verdict("timeout", False, False))


@linux
def test_memory_of_the_parent(double):
    def resident():
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    texts = [*HANGS, *DEATHS, *mixed(20, 100, "flood"), *(chr(c) * 200_000 for c in range(97, 117)), "\ud800" * 200_000]
    assert len(grade([ONE] * len(texts), texts, limit=0.3)) == len(texts)
    assert resident() - before < 50 << 20


def test_long_and_odd_texts_come_back(double):
    texts = ["x" * 200_000, "\ud800\0\n\u2028", "\n", "{" * 50_000]
    assert [g.answer for g in grade([ONE] * 4, texts, limit=PATIENT)] == texts


@linux
def test_the_processes_end_with_their_owner(double):
    script = textwrap.dedent("""
        import sys, threading, time
        from poc.records import Example
        from poc.scoring import pool
        pool.MODULE = "verifier_double"
        example = Example("q", "?", "yes", "one")
        pool.grade([example], ["yes"])
        threading.Thread(target=pool.grade, args=([example] * 2, ["loop", "sleep"]), kwargs={"limit": 50.0}).start()
        while len(pool._SERVERS["one"].busy) < min(2, pool.servers.SERVERS):
            time.sleep(0.01)
        d = pool._SERVERS["one"]
        print(d.supervisor.process.pid, *(server.pid for server in d.servers), flush=True)
        time.sleep(50)
    """)
    paths = os.pathsep.join(path for path in sys.path if path)
    child = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in child.stdout.readline().split()]
    assert len(pids) == 1 + min(2, servers.SERVERS) and not any(gone(pid) for pid in pids)
    child.kill()
    child.wait()
    child.stdout.close()
    assert soon(lambda: all(gone(pid) for pid in pids))


@linux
def test_stop_ends_them_all(double):
    grade([ONE, replace(ONE, domain="two")] * 2, ["yes", "yes", "no", "no"])
    pids = processes_of(*pool._SERVERS.values())
    assert len(pids) >= 4
    pool._stop()
    assert soon(lambda: all(gone(pid) for pid in pids))
    assert works()


@linux
def test_a_server_ends_itself_when_nobody_kills_it(double):
    server = double.servers[0]
    request = {"id": 1, "example": {**vars_of(ONE)}, "text": "loop", "score": True, "limit": -4.5}
    server.channel.send(request, PATIENT)  # the alarm rings 5 seconds after the limit
    assert soon(lambda: gone(server.pid))


def vars_of(example):
    return {name: getattr(example, name) for name in Example.__dataclass_fields__}


@linux
def test_who_was_killed_from_outside_is_replaced(double):
    os.kill(double.servers[0].pid, signal.SIGKILL)
    assert works()
    os.kill(double.supervisor.process.pid, signal.SIGKILL)
    double.supervisor.process.wait()
    assert soon(lambda: all(gone(server.pid) for server in double.servers))
    assert works()


def test_an_interrupt_leaves_no_reply_behind(double, monkeypatch):
    collect, pids = servers.Servers._collect, processes_of(double)

    def interrupted(self, waiting):
        raise KeyboardInterrupt

    monkeypatch.setattr(servers.Servers, "_collect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one("yes")
    monkeypatch.setattr(servers.Servers, "_collect", collect)
    assert soon(lambda: all(gone(pid) for pid in pids)) and not double.busy
    assert one("no").verdict.status == "wrong"


def test_threads_take_turns(double):
    texts = [[f"no {i} {j}" for j in range(20)] for i in range(8)]
    with ThreadPoolExecutor(4) as threads:
        grades = list(threads.map(lambda mine: grade([ONE] * 20, mine, limit=PATIENT), texts))
    assert [[g.answer for g in found] for found in grades] == texts
    assert threading.active_count() < 10 and works()  # the supervisor outlives the thread that started it


def _in_child(queue):
    queue.put((one("no").verdict.status, processes_of(*pool._SERVERS.values())))
    pool._stop()


def test_a_forked_child_has_its_own_processes(double):
    context = multiprocessing.get_context("fork")
    queue, ours = context.Queue(), processes_of(double)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, from Python 3.12 on
        child = context.Process(target=_in_child, args=(queue,))
        child.start()
    status, theirs = queue.get(timeout=60)
    child.join(30)
    assert status == "wrong" and not set(ours) & set(theirs)
    assert not any(gone(pid) for pid in ours) and works() and processes_of(double)[0] == ours[0]


@pytest.mark.parametrize("domain", [*tasks.DOMAINS, "own"])
def test_the_same_grades_as_in_our_process(domain):
    if domain == "own":
        examples = [Example("o", "?", "Rome", "own"), Example("m", ({"role": "user", "content": "?"},), "7", "own")]
    else:
        examples = [tasks.draw(domain, 5, 0, level)[0] for level in tasks.DOMAINS[domain].LEVELS]
    texts = [f"so #{example.answer}" for example in examples]
    module = tasks.DOMAINS.get(domain)
    if any(getattr(module, "OWN_PROCESS", lambda e: False)(example) for example in examples):
        examples = [replace(example, answer=None) for example in examples]
    for example, text, found in zip(examples, texts, grade(examples, texts, limit=PATIENT), strict=True):
        verdict = None if example.answer is None else tasks.score(example, text)
        assert found == Grade(*tasks.read(example, text), verdict)


def test_a_plain_answer_costs_less_than_two_milliseconds():
    examples = [tasks.draw("math", 1, i, 0)[0] for i in range(2000)]
    texts = [f"{i} #{example.answer}" for i, example in enumerate(examples)]
    grade(examples[:1], texts[:1])
    started = time.monotonic()
    grades = grade(examples, texts)
    assert (time.monotonic() - started) / 2000 < 0.002
    assert all(g.verdict.correct for g in grades)


def test_the_verifiers_need_no_torch():
    code = "import sys, poc.tasks; assert not {'torch', 'transformers', 'pandas', 'sympy'} & set(sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
