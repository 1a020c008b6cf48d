"""Answers of equal meaning: hand cases, an order that does not matter, and answers that attack the worker."""

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc.records import InputError
from poc.scoring import math_equality
from poc.scoring.math_equality import Worker, classes, source

PATIENT = 60.0  # seconds: where the answer counts, not how fast a busy machine finds it
HANG = "9^{9^{9^9}}"


@pytest.fixture
def fresh(monkeypatch):
    """An own worker and an empty cache."""
    worker = Worker()
    monkeypatch.setattr(math_equality, "_WORKER", worker)
    monkeypatch.setattr(math_equality, "_REPLIES", type(math_equality._REPLIES)())
    yield worker
    worker.stop()


def same(a, b):
    one, other = classes([a, b], PATIENT), classes([b, a], PATIENT)
    assert one == other and None not in one
    return one[0] == one[1]


EQUAL = [
    [r"\frac{1}{2}", "1/2", "0.5", ".5", r"\dfrac12", r"$\frac{1}{2}$", "2/4", r"0.5\text{ cm}", "½", "0.50"],
    ["1,000", "1000", "1000.0", r"1\,000", "1{,}000", "10^3", "1e3", "$1000"],
    ["50%", r"50\%", "50", "50 percent", "50."],
    ["x^2+1", "1+x^2", "x**2 + 1", "x² + 1", "1+x*x"],
    ["(x+1)(x-1)", "x^2-1"],
    ["sqrt(2)/2", r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt2}{2}", "2^(-1/2)"],
    [r"\{1,2\}", r"\{2, 1\}", "{1,2}", "1,2", "2 and 1"],
    ["(1,2)", "(1, 2)", r"\left(1,2\right)", "(2/2,2)", "1<x<2"],
    [r"(-\infty,2]\cup[3,\infty)", r"[3,\infty)\cup(-\infty,2]"],
    ["x=3", "3", r"\frac{6}{2}", "x = 3"],
    ["2 1/2", r"2\frac{1}{2}", "2.5", "5/2"],
    ["2(3)", "(2)(3)", r"2\left(3\right)", "6"],
    [r"\log_2(8)", "3"],
    ["sin(x)", r"\sin x"],
    ["x<3", "3>x"],
    [r"\pm 2", "2,-2"],
    ["2+3i", "3i+2"],
    ["0.333333", "1/3"],
    [r"0.1\cdot 3", r"\frac{3}{10}"],
    [r"90^\circ", "90°", "90"],
    [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"],
    ["No Solution.", "no  solution"],
    ["(A)", "A", r"\text{A}"],
]
DIFFERENT = [
    ("50%", "1/2"),
    ("50%", "0.5"),
    ("x=3", "y=3"),
    ("(1,2)", r"\{1,2\}"),
    ("(1,2)", "1,2"),
    ("(1,2)", "(2,1)"),
    ("(2,1)", "2,1"),
    ("(1,2)", "[1,2]"),
    ("(1,100)", "(1100)"),
    ("(1,2,3)", "(3,2,1)"),
    ("3t", "3"),
    ("2c", "2"),
    ("101_2", "101"),
    ("101_2", "101_3"),
    ("2 1/2", "1"),
    ("1 000", "0"),
    ("10^{-20}", r"2\times 10^{-20}"),
    ("listen", "silent"),
    (r"\text{listen}", r"\text{silent}"),
    (r"\mathrm{tea}", r"\mathrm{eat}"),
    ("XYZ", "ZYX"),
    ("Ann knight", "Bob knight"),
    ("x +", "+ x"),
    (r"\foo{1}", "1"),
    ("2+3\\mathrm{i}", "2"),
    ("-1", "1"),
    ("x^2", "x^3"),
    ("x", "y"),
]


@pytest.mark.parametrize("group", EQUAL, ids=lambda group: group[0])
def test_equal(group):
    assert classes(group, PATIENT) == [0] * len(group)
    assert all(same(group[0], other) for other in group)


@pytest.mark.parametrize("a, b", DIFFERENT)
def test_different(a, b):
    assert not same(a, b)


def test_labels_by_first_appearance_and_none_without_an_answer():
    answers = ["7", None, "1/2", "", " . ", "7.0", "cat", "0.5", "Cat."]
    assert classes(answers, PATIENT) == [0, None, 1, None, None, 0, 2, 1, 2]
    assert classes([]) == []
    assert classes([None, ""]) == [None, None]


def test_a_third_answer_may_join_two():
    assert classes(["x=3", "y=3", "3"], PATIENT) == [0, 0, 0]


ALPHABET = [
    "1/2",
    "0.5",
    r"\frac{2}{4}",
    "x=1/2",
    "y=0.5",
    "(1,2)",
    "1,2",
    "2,1",
    r"\{1,2\}",
    "X",
    "x",
    "cat",
    "act",
    None,
]
ALPHABET += ["0.333333", "0.3333333", "1/3", "+", "50%", ""]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(ALPHABET), max_size=12), st.randoms(use_true_random=False))
def test_the_partition_does_not_depend_on_the_order(answers, random):
    order = list(range(len(answers)))
    random.shuffle(order)
    labels, shuffled = classes(answers, PATIENT), classes([answers[i] for i in order], PATIENT)
    pairs = {(labels[i], label) for i, label in zip(order, shuffled, strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})  # a bijection of labels
    assert all((a is None) == (b is None) for a, b in pairs)
    found = [label for label in labels if label is not None]
    assert list(dict.fromkeys(found)) == list(range(len(set(found))))


def test_numbers_and_text_start_no_process(fresh):
    answers = ["1", "1.0", "1,000", None, "50%", "$7", "cat", "listen to me", "+" * 201, "x" * 300, r"\foo"]
    assert classes(answers) == [0, 0, 1, None, 2, 3, 4, 5, 6, 7, 8]
    assert fresh.process is None


def test_of_strings_that_differ_in_case_the_same_one_is_read_in_any_order():
    assert classes([r"\PI", r"\pi", r"\pi+0"], PATIENT) == classes([r"\pi", r"\PI", r"\pi+0"], PATIENT)


def test_what_is_read_as_what():
    assert source("1,000%") == Decimal(1000)
    assert source(r"12\,345") == Decimal(12345)
    assert source("x^(n+1)") == "x^{n+1}"
    assert source("sqrt((1+2)/3)") == r"\sqrt{(1+2)/3}"
    assert source("x" * 201) is None
    assert source("1+" * 100 + "1") is None  # 201 characters
    assert source("$") is None


HOSTILE = ["(" * 200, ")" * 200, "{" * 199, "^(" * 100, "sqrt(" * 40, "\\" * 199, "$" * 200, "\0", "\ud800", "1\n2",
           r"\frac" * 40, "x_" * 100, "-" * 200, "|" * 200, "\\frac{1}{0}", "0^0", "1/0", "\\infty-\\infty", ",,,",
           "()", "[]", "\\{\\}", "{}", "=", "==", "x==1", "x=x", "1=2", "\\\\", "\\begin{pmatrix}"]  # fmt: skip


def test_hostile_shapes_come_back():
    labels = classes(HOSTILE, 5.0)
    assert len(labels) == len(HOSTILE)
    assert classes(["1/2", "0.5"], PATIENT) == [0, 0]


@pytest.mark.parametrize("answer", [HANG, "9**9**9**9", "(10^{10})!", r"\binom{10^{9}}{5\cdot 10^{8}}", "1e999999999"])
def test_a_hang_becomes_text_and_the_next_call_works(fresh, answer):
    assert classes(["1/3", "2/6"], PATIENT) == [0, 0]
    started = time.monotonic()
    assert classes([answer, answer, "1/2"], 0.5)[:2] == [0, 0]
    assert time.monotonic() - started < 30
    assert classes(["1/2", "0.5", "x+1", "1+x"], PATIENT) == [0, 0, 1, 1]


def test_a_comparison_that_hangs_makes_two_answers_different(fresh, monkeypatch):
    asked = []

    def ask(request, timeout):
        asked.append(request["op"])
        return Worker.ask(fresh, {**request, "a": HANG} if request["op"] == "equal" else request, timeout)

    monkeypatch.setattr(fresh, "ask", ask)
    assert classes(["1/2", "2/4"], 1.0) == [0, 1]
    assert asked == ["parse", "parse", "equal"]
    assert not fresh.ready  # killed, and the next one on its way


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_limits_session_and_environment_of_the_worker(fresh, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    fresh.start()
    pid = fresh.process.pid
    with open(f"/proc/{pid}/limits") as lines:
        limits = {line[:25].strip(): line[25:].split()[0] for line in lines}
    assert limits["Max address space"] == str(2 << 30)
    assert limits["Max core file size"] == "0"
    assert os.getsid(pid) == os.getpgid(pid) == pid  # no Ctrl-C of the terminal reaches it
    with open(f"/proc/{pid}/environ") as environment:
        assert "hunter2" not in environment.read()


@pytest.mark.parametrize("bomb", ["2^{10^{11}}", "(2^{10^{10}})(3^{10^{10}})", "7^{10^{12}}+x"])
def test_a_memory_bomb_is_contained(fresh, bomb):
    assert classes([bomb, bomb, "x+1", "1+x"], 3.0)[2:] == [1, 1]


def test_a_worker_that_was_killed_is_replaced(fresh):
    assert classes(["1/2", "2/4"], PATIENT) == [0, 0]
    killed = fresh.process.pid
    os.kill(killed, signal.SIGKILL)
    assert classes(["1/3", "2/6"], PATIENT) == [0, 0]
    assert fresh.process.pid != killed


def test_a_worker_that_always_dies_means_different(fresh, monkeypatch):
    started = []

    def start():
        started.append(1)
        Worker.start(fresh)
        os.kill(fresh.process.pid, signal.SIGKILL)
        fresh.process.wait()

    monkeypatch.setattr(fresh, "start", start)
    assert fresh.ask({"op": "parse", "a": "1/2"}, PATIENT) is False
    assert len(started) == 2


def test_an_interrupt_leaves_no_reply_behind(fresh, monkeypatch):
    fresh.start()

    def interrupted(timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(fresh.channel, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fresh.ask({"op": "parse", "a": "1/2"}, PATIENT)
    monkeypatch.undo()
    assert fresh.process is None


def test_the_worker_ends_with_its_parent(fresh):
    fresh.start()
    fresh.channel.close()
    assert fresh.process.wait(30) == 0


def test_the_worker_ends_itself_when_nobody_kills_it(fresh):
    fresh.start()
    fresh.channel.send({"op": "parse", "a": HANG, "limit": -0.5}, PATIENT)  # the alarm rings a second after the limit
    assert fresh.process.wait(30) == -signal.SIGALRM


def test_threads_take_turns(fresh):
    groups = [[f"{i}/7", f"{2 * i}/14", "x"] for i in range(1, 13)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda group: classes(group, PATIENT), groups)) == [[0, 0, 1]] * 12


def _in_child(queue):
    queue.put((classes(["5/9", "10/18"], PATIENT), math_equality._WORKER.process.pid))
    math_equality._WORKER.stop()


def test_a_forked_child_has_its_own_worker(fresh):
    assert classes(["1/2", "2/4"], PATIENT) == [0, 0]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    labels, pid = queue.get(timeout=120)
    child.join(60)
    assert labels == [0, 0] and pid != fresh.process.pid
    assert fresh.process.poll() is None
    assert classes(["1/3", "2/6"], PATIENT) == [0, 0]


def test_replies_are_kept_and_bounded(fresh, monkeypatch):
    assert classes(["1/2", "2/4"], PATIENT) == [0, 0]
    fresh.stop()
    monkeypatch.setattr(fresh, "start", lambda: pytest.fail("asked again"))
    assert classes(["2/4", "1/2"], PATIENT) == [0, 0]
    monkeypatch.setattr(fresh, "start", lambda: Worker.start(fresh))
    monkeypatch.setattr(math_equality, "CACHE", 3)
    classes([f"{i}/7" for i in range(1, 6)], PATIENT)
    assert len(math_equality._REPLIES) == 3


def test_without_math_verify(fresh, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert classes(["1", "1.0"]) == [0, 0]
    with pytest.raises(InputError, match="pip install math-verify"):
        classes(["1/2", "0.5"])


def _payloads(marker):
    call = f"__import__('pathlib').Path('{marker}').touch()"
    coded = "+".join(f"chr({ord(char)})" for char in call)
    return [
        call, f"${call}$", f"\\boxed{{{call}}}", f"\\text{{{call}}}", f"\\operatorname{{{call}}}", f"x_{{{call}}}",
        f"x={call}", f"1+{call}", f"({call},2)", f"\\frac{{{call}}}{{2}}", f"eval({coded})", f"exec('{call}')",
        f"sqrt({call})", f"f({call})", f"\\mathrm{{{call}}}(x)", f"Symbol('x').subs({call})", f"lambda: {call}",
        f"answer: {call}", f"\\begin{{{call}}}1\\end{{{call}}}", f"\\sum_{{k={call}}}^3 k", f"\\vec{{{call}}}",
        f"\\write18{{touch {marker}}}", f"\\input{{|touch {marker}}}", f"'; touch {marker} #", f"`touch {marker}`",
        f"$(touch {marker})", json.dumps({"op": "parse", "a": call}), f'"}}\n{call}\n',
    ]  # fmt: skip


def test_payloads_do_nothing(tmp_path, fresh):
    from sympy import sympify

    marker = tmp_path / "m"
    payloads = _payloads(marker)
    sympify(payloads[0])  # the control: they do work where text is evaluated
    assert marker.exists()
    marker.unlink()
    classes([*payloads, "1/2"], PATIENT)
    for payload in payloads:  # past the filter, straight to the parser and the comparison
        fresh.ask({"op": "parse", "a": payload}, PATIENT)
        fresh.ask({"op": "equal", "a": payload, "b": "x"}, PATIENT)
        fresh.ask({"op": "equal", "a": payload, "b": payload + "+0"}, PATIENT)
    assert not marker.exists()
    assert classes(["1/2", "0.5"], PATIENT) == [0, 0]


def test_payloads_are_text():
    assert [source(payload) for payload in _payloads("m")] == [None] * len(_payloads("m"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says so in /proc")
def test_the_worker_has_given_up_files_network_processes_and_rights(fresh):
    fresh.start()
    process = Path(f"/proc/{fresh.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    assert status["NoNewPrivs"].strip() == "1" and "0" not in status["Uid"].split()
    if os.uname().machine in ("x86_64", "aarch64"):
        assert status["Seccomp"].strip() == "2"
    limits = (process / "limits").read_text()
    assert re.search(r"Max open files +0 ", limits) and re.search(r"Max processes +0 ", limits)
