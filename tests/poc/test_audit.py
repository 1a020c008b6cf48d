"""The audit log: what was changed is found and its line named; what a kill or a full disk did is never called that."""

import ast
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import audit as subject
from poc import audit_verify as chain
from poc.audit import Audit, exported, human_verdict
from poc.audit_check import check_bindings, verify_run
from poc.audit_verify import describe, parse_head, verify
from poc.records import InputError, RunError

EVENTS = 200
BREAK = ord("\n")


def write_log(path: Path, events: int = EVENTS) -> str:
    log = Audit(path, "run-1")
    for i in range(1, events):
        log.append(
            "step", {"step": i, "line_sha256": f"{i:064x}", "reward": i / 7, "text": 'é "\\ \u202e', "none": None}
        )
    return log.head


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> tuple[bytes, str]:
    """The bytes of a log and its head."""
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    head = write_log(path)
    return path.read_bytes(), head


def judged(folder: Path, content: bytes, *heads: str) -> chain.Result:
    path = folder / "changed.jsonl"
    path.unlink(missing_ok=True)  # cutting a file to nothing and writing it again waits for the disk
    path.write_bytes(content)
    return verify(path, map(parse_head, heads))


def first_difference(before: bytes, after: bytes) -> int:
    """Number of the first line that differs, its line break included."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    pairs = enumerate(zip(old, new, strict=False), 1)
    return next((i for i, (a, b) in pairs if a != b), min(len(old), len(new)) + 1)


def assert_caught(folder: Path, before: bytes, after: bytes, head: str) -> None:
    """Bytes behind the last line break are half a line, whoever wrote them; all else is named as broken."""
    result, line = judged(folder, after, head), first_difference(before, after)
    if after.startswith(before):
        behind = after[len(before) :]
        assert result.incomplete == (BREAK not in behind) and result.ok == result.incomplete
        line = EVENTS + 1
    else:
        assert not result.ok
    assert any(text.startswith((f"BROKEN: line {line} ", f"line {line} is inc")) for text in describe(result)), (
        line, describe(result),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the chain


def flip(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def replace(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ draw.randrange(1, 256)]) + content[at + 1 :]


def delete(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + content[at + 1 :]


def insert(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + draw.choice([b" ", b"\n", b"0", b"\x00", bytes([draw.randrange(256)])]) + content[at:]


def lines_changed(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    i, j = draw.sample(range(len(lines)), 2)
    change = draw.choice(["swap", "delete", "double", "copy", "move", "run"])
    if change == "swap":
        lines[i], lines[j] = lines[j], lines[i]
    elif change == "delete":
        del lines[i]
    elif change == "double":
        lines.insert(i, lines[i])
    elif change == "copy":
        lines.insert(i, lines[j])
    elif change == "move":
        lines.insert(j, lines.pop(i))
    else:
        del lines[min(i, j) : max(i, j)]
    return b"".join(lines)


@pytest.mark.parametrize("change", [flip, replace, delete, insert, lines_changed])
def test_a_thousand_changes_are_all_caught_and_the_line_is_named(log, tmp_path, change):
    content, head = log
    draw = random.Random(0)
    for _ in range(500 if change in (flip, replace) else 200):
        assert_caught(tmp_path, content, change(content, draw), head)


def test_every_byte_of_a_line_counts(log, tmp_path):
    content, head = log
    lines = content.splitlines(keepends=True)[:3]
    content = b"".join(lines)
    head = judged(tmp_path, content).head
    for at in range(len(lines[0]), len(lines[0] + lines[1])):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert judged(tmp_path, changed).problem.startswith("line 2 ")  # no head is needed before the last line
    assert judged(tmp_path, content, head).ok


def test_a_cut_at_every_byte_of_the_last_lines_is_incomplete_without_a_head_and_broken_with_it(log, tmp_path):
    lines = log[0].splitlines(keepends=True)[:10]
    content = b"".join(lines)
    head = judged(tmp_path, content).head
    for end in range(len(b"".join(lines[:-3])), len(content)):
        cut = content[:end]
        whole = cut.count(b"\n")
        alone, anchored = judged(tmp_path, cut), judged(tmp_path, cut, head)
        assert alone.ok and alone.events == whole and alone.incomplete == (not cut.endswith(b"\n"))
        assert any("length not anchored" in line for line in describe(alone))
        assert not anchored.ok and anchored.problem.startswith(f"line 10 is not the head {head}")
        assert anchored.incomplete == alone.incomplete


def test_a_head_that_is_not_the_last_anchors_what_is_before_it(log, tmp_path):
    content, head = log
    lines = content.splitlines(keepends=True)
    middle = judged(tmp_path, b"".join(lines[:100])).head
    result = judged(tmp_path, content, middle)
    assert result.ok and result.anchored == 99
    assert "anchored up to event 99 of 199: later ones cut off would not be noticed" in describe(result)
    assert judged(tmp_path, content, middle, head).anchored == EVENTS - 1
    assert judged(tmp_path, b"".join(lines[:99]), middle).problem.startswith("line 100 ")


def test_a_log_that_was_written_anew_is_found_by_the_head_alone(log, tmp_path):
    _, head = log
    write_log(tmp_path / "anew.jsonl")
    content = (tmp_path / "anew.jsonl").read_bytes().replace(b"run-1", b"run-2")
    anew = tmp_path / "other.jsonl"
    other = Audit(anew, "run-2")
    for _ in range(1, EVENTS):
        other.append("step", {})
    assert not judged(tmp_path, content).ok
    assert judged(tmp_path, anew.read_bytes()).ok
    assert judged(tmp_path, anew.read_bytes(), head).problem == f"line 200 is not the head {head}: cut off or rewritten"


def forged(**changes) -> bytes:
    """A line whose hash is right."""
    event = {"data": {}, "event": "step", "prev": chain.START, "seq": 0, "time": "now"} | changes
    return chain.ENCODER.encode(event | {"hash": chain.digest(event)}).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"\x00\n", b"\xff\xfe\n", b"null\n", b"[]\n", b"{}\n", b"NaN\n", b'{"data":NaN}\n', b'"\\ud800"\n',
        b"[" * 200_000 + b"\n", b'{"a":' * 100_000 + b"\n", b"1" * 10_000 + b"\n", b"1e999\n", b"x" * (chain.LIMIT + 9),
        b"x" * (chain.LIMIT - 1) + b"\n", forged(), forged(event="genesis", seq=1), forged(event="genesis", data=[]),
        forged(event="genesis", prev="0" * 63), forged(event="genesis", extra=1), forged(event=["genesis"]),
        forged(event="half")[:40],
    ],
)  # fmt: skip
def test_a_hostile_file_is_one_plain_sentence(tmp_path, content):
    result = judged(tmp_path, content, "5:" + "a" * 64)
    assert not result.ok and result.problem.startswith("line 1 ") and result.events == 0
    assert len(describe(result)[0]) < 200 and describe(result)[0].isprintable()


@pytest.mark.parametrize("end", [b"", b"\n", b"x", b"x\n"])
def test_a_line_beyond_the_limit_is_broken_not_incomplete(tmp_path, end):
    result = judged(tmp_path, forged(event="genesis") + b"x" * chain.LIMIT + end)
    assert result.problem.startswith("line 2 ") and result.events == 1 and not result.incomplete


def test_a_second_genesis_is_found(tmp_path):
    first = forged(event="genesis")
    again = forged(event="genesis", seq=1, prev=json.loads(first)["hash"])
    assert judged(tmp_path, first).ok and judged(tmp_path, first + again).problem.startswith("line 2 ")


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_upset_the_verifier(tmp_path_factory, content):
    assert not judged(tmp_path_factory.getbasetemp(), content).ok


@pytest.mark.parametrize(
    "text", ["", "5", "5:", ":" + "a" * 64, "5:" + "A" * 64, "-1:" + "a" * 64, "5:" + "a" * 63, 7, None]
)
def test_a_malformed_head_is_refused(text):
    with pytest.raises(ValueError, match="a head is"):
        parse_head(text)


def test_the_verifier_is_short_and_needs_only_the_standard_library():
    source = Path(chain.__file__).read_text()
    assert len(source.splitlines()) <= 80
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names and names <= sys.stdlib_module_names


def test_the_verifier_runs_alone(log, tmp_path):
    content, head = log
    shutil.copy(chain.__file__, tmp_path / "audit_verify.py")
    (tmp_path / "audit.jsonl").write_bytes(content)
    (tmp_path / "broken.jsonl").write_bytes(content[:5000] + b" " + content[5000:])

    def run(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-I", "audit_verify.py", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={})
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    code, text = run("audit.jsonl")
    assert code == 0 and head in text and "length not anchored" in text
    code, text = run("audit.jsonl", "--head", head)
    assert code == 0 and "anchored up to event 199 of 199" in text and "not anchored" not in text
    assert run("audit.jsonl", "--head", "150:" + "0" * 64)[0] == 1
    code, text = run("broken.jsonl")
    assert code == 1 and "BROKEN: line " in text
    for words in [(), ("missing.jsonl",), (".",), ("audit.jsonl", "--head", "xyz"), ("audit.jsonl", "--heads", head)]:
        code, text = run(*words)
        assert code == 2 and "audit_verify.py audit.jsonl [--head SEQ:HEX]" in text


# ------------------------------------------------------------------------------------------------ the writer


def assert_goes_on(path: Path, events: int) -> Audit:
    """Open again, append, and the chain is whole."""
    log = Audit(path, "run-1")
    log.append("end", {"status": "done"})
    result = verify(path, [parse_head(log.head)])
    assert result.ok and not result.incomplete and result.anchored == result.events - 1 and result.events > events
    return log


def test_an_event_is_one_canonical_line_and_the_head_is_its_hash(tmp_path):
    log = Audit(tmp_path / "audit.jsonl", "run-1")
    assert log.run_id == "run-1" and log.append("start", {"b": 1, "a": [None, True, "é"]}) == log.head
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    genesis, start = map(json.loads, lines)
    assert genesis["data"] == {"format": "poc-audit-v1", "run_id": "run-1"} and genesis["prev"] == "0" * 64
    assert start["prev"] == genesis["hash"] and log.head == f"1:{start['hash']}"
    assert '"data":{"a":[null,true,"\\u00e9"],"b":1}' in lines[1]
    body = {key: value for key, value in start.items() if key != "hash"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert start["hash"] == hashlib.sha256(b"poc-audit-v1\n" + canonical.encode()).hexdigest()
    assert Audit(tmp_path / "audit.jsonl").head == log.head


def test_an_opened_log_goes_on_with_its_run_and_its_head(tmp_path):
    path = tmp_path / "audit.jsonl"
    head = write_log(path, 5)
    log = Audit(path)
    assert log.head == head and log.run_id == "run-1"
    with pytest.raises(InputError, match="is the log of run run-1, not of run-2"):
        Audit(path, "run-2")
    assert_goes_on(path, 5)


def test_a_broken_log_is_not_continued(log, tmp_path):
    content, _ = log
    path = tmp_path / "audit.jsonl"
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:50] + lines[51:]) + b"half a li")
    before = path.read_bytes()
    with pytest.raises(InputError, match="line 51 .*start a new run"):
        Audit(path)
    assert path.read_bytes() == before and not (tmp_path / "audit.jsonl.corrupt").exists()


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("stop", {}), ("genesis", {}), ("step", {"x": float("nan")}), ("step", {"x": [float("inf")]}), ("step", {1: 2}),
        ("step", {"x": [{None: 1}]}), ("step", {"x": {1, 2}}), ("step", [1]), ("step", {"x": Path()}),
        ("step", {"x": "y" * chain.LIMIT}),
    ],
)  # fmt: skip
def test_what_no_reader_could_check_is_not_written(tmp_path, event, data):
    log = Audit(tmp_path / "audit.jsonl", "run-1")
    head = log.head
    with pytest.raises(ValueError, match=f"audit event '?{event}"):
        log.append(event, data)
    assert log.head == head and verify(log.path).events == 1
    assert_goes_on(log.path, 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=3))
@settings(max_examples=60, deadline=None)
def test_all_json_can_be_told_and_read_again(tmp_path_factory, told):
    """Lone surrogates, huge integers and subnormal numbers among it."""
    path = tmp_path_factory.mktemp("any") / "audit.jsonl"
    log, read = Audit(path), []
    for data in told:
        log.append("guard", data)
    assert verify(path, [parse_head(log.head)], lambda event: read.append(event["data"])).ok
    assert read[1:] == told


def recoveries(path: Path) -> list[dict]:
    found = []
    verify(path, seen=lambda event: found.append(event["data"]) if event["event"] == "recovery" else None)
    return found


def test_half_a_last_line_at_every_length_is_set_aside_and_told(log, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand logs
    lines = log[0].splitlines(keepends=True)[:3]
    content = b"".join(lines)
    for end in range(len(content) + 1):
        folder = tmp_path / str(end)
        folder.mkdir()
        path, corrupt = folder / "audit.jsonl", folder / "audit.jsonl.corrupt"
        path.write_bytes(content[:end])
        whole = content[:end].count(b"\n")
        torn = content[:end].rpartition(b"\n")[2]
        opened = assert_goes_on(path, max(whole, 1))
        assert path.read_bytes().startswith(b"".join(lines[:whole])) and opened.run_id == "run-1"
        assert (corrupt.read_bytes() if torn else b"") == torn and corrupt.exists() == bool(torn)
        told = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest(), "corrupt_bytes": len(torn)}
        assert recoveries(path) == ([told] if torn else [])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(12))
def test_a_repair_that_is_killed_anywhere_is_repaired(log, tmp_path, monkeypatch, at):
    lines = log[0].splitlines(keepends=True)[:4]
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines)[:-30])
    with monkeypatch.context() as patched:
        calls = iter(range(100))

        def killed_at(real):
            def call(*words):
                if next(calls) == at:
                    raise Killed
                return real(*words)

            return call

        for name in ("fsync", "open", "write", "ftruncate"):
            patched.setattr(os, name, killed_at(getattr(os, name)))
        try:
            Audit(path)
        except Killed:
            pass
    assert_goes_on(path, 3)
    told, corrupt = recoveries(path), (tmp_path / "audit.jsonl.corrupt").read_bytes()
    assert lines[3][:-30] in corrupt and told and told[-1]["corrupt_bytes"] == len(corrupt)
    assert sum(t["bytes"] for t in told) == len(corrupt)


def test_what_is_set_aside_is_on_the_disk_before_the_log_is_cut(tmp_path, monkeypatch):
    path, corrupt, seen = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.corrupt", []
    write_log(path, 3)
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"torn")
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((corrupt.stat().st_size, path.stat().st_size)))
    Audit(path)
    assert seen[:3] == [(4, whole + 4), (4, whole + 4), (4, whole)]  # the bytes, their file's name, the shorter log


def test_a_kill_between_cutting_and_telling_is_told_at_the_next_opening(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    write_log(path, 3)
    with path.open("ab") as file:
        file.write(b"torn")
    with monkeypatch.context() as patched:
        patched.setattr(Audit, "_tell", lambda self: None)
        Audit(path)
    assert not recoveries(path) and (tmp_path / "audit.jsonl.corrupt").read_bytes() == b"torn"
    Audit(path)
    Audit(path)
    assert [told["bytes"] for told in recoveries(path)] == [4]


def failing(real, what: str):
    def call(*words):
        if what == "full":
            raise OSError(28, "No space left on device")
        if what == "half":
            return real(words[0], words[1][: len(words[1]) // 2])
        if what == "after":
            real(*words)
        raise OSError(5, "Input/output error") if what != "interrupt" else KeyboardInterrupt

    return call


@pytest.mark.parametrize("undo", [True, False])
@pytest.mark.parametrize(
    ("call", "what"),
    [("write", "full"), ("write", "half"), ("write", "after"), ("write", "interrupt"), ("fsync", "full"),
     ("fsync", "after"), ("fsync", "interrupt")],
)  # fmt: skip
def test_a_failed_append_leaves_the_head_and_a_log_that_goes_on(tmp_path, monkeypatch, what, call, undo):
    path = tmp_path / "audit.jsonl"
    head = write_log(path, 4)
    log = Audit(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(getattr(os, call), what))
        if not undo:
            patched.setattr(os, "ftruncate", failing(os.ftruncate, "error"))
        with pytest.raises(KeyboardInterrupt if what == "interrupt" else OSError):
            log.append("end", {})
    assert log.head == head and verify(path, [parse_head(head)]).ok
    size = path.stat().st_size
    if undo:
        assert verify(path).events == 4 and not verify(path).incomplete
    try:
        log.append("end", {})
        assert verify(path, [parse_head(log.head)]).anchored == 4
    except RunError as error:  # what could not be undone is never written over or forked
        assert not undo and "a failed write stayed" in str(error) and path.stat().st_size == size
    assert_goes_on(path, 4)


WRITER = """
import sys
from pathlib import Path
from poc.audit import Audit
log = Audit(Path(sys.argv[1]), "run-1")
print(log.head, flush=True)
for i in range(10**6):
    head = log.append("step", {"step": i, "text": "x" * (i * 7919 % 20000)})
    print(head, flush=True)
"""


def test_a_writer_that_is_killed_anywhere_leaves_a_log_that_holds_every_head_it_gave(tmp_path):
    draw, path = random.Random(0), tmp_path / "audit.jsonl"
    heads, root = [], Path(subject.__file__).parent.parent
    for _ in range(25):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as child:
            first = child.stdout.readline()
            time.sleep(draw.random() * 0.03)
            child.send_signal(signal.SIGKILL)
            said = (first + child.stdout.read()).splitlines(keepends=True)
        heads += [parse_head(line.decode().strip()) for line in said if line.endswith(b"\n")]
        assert verify(path, heads).ok
    assert_goes_on(path, len(set(heads)) - 1)


# ------------------------------------------------------------------------------------------ files against the log


def put(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return subject.file_sha256(path)


def checkpoint(folder: Path, log: Audit, step: int) -> None:
    root = folder / "checkpoints" / f"step-{step:06d}"
    names = ("adapter_model.safetensors", "state.json")
    files = {name: {"size": 9, "sha256": put(root / name, f"{name}{step}")} for name in names}
    manifest = json.dumps({"step": step, "audit_head": log.head, "files": files})
    log.append("checkpoint", {"step": step, "manifest_sha256": put(root / "manifest.json", manifest)})


def take_steps(folder: Path, log: Audit, first: int, last: int) -> None:
    for step in range(first, last + 1):
        line = json.dumps({"step": step, "at": log.head[:9]}).encode()
        with (folder / "steps.jsonl").open("ab") as file:
            file.write(line + b"\n")
        log.append("step", {"step": step, "line_sha256": hashlib.sha256(line).hexdigest(), "reward": 0.5})
        if step % 2 == 0:
            for view in ("", "canary/"):
                name = f"evaluations/{view}step-{step:06d}.json"
                log.append("evaluation", {"step": step, "path": name, "sha256": put(folder / name, f"{{{step}}}")})
            checkpoint(folder, log, step)


def make_run(folder: Path, status: str | None = "done") -> Audit:
    """Six steps; status None: killed after them."""
    config, facts = put(folder / "config.yaml", "model: x\n"), put(folder / "environment.json", "{}")
    log = Audit(folder / "audit.jsonl", "run-1")
    log.append("start", {"config_sha256": config, "environment_sha256": facts, "data": {}, "model": "x"})
    take_steps(folder, log, 1, 6)
    shutil.rmtree(folder / "checkpoints" / "step-000002")  # as the run does: it keeps the last two
    if status:
        log.append("end", {"status": status})
        put(folder / "outcome.json", json.dumps({"status": status, "audit_head": log.head}))
    put(folder / "samples.jsonl", "{}\n")
    return log


def test_a_whole_run_is_compared_and_its_own_heads_are_called_that(tmp_path):
    head = make_run(tmp_path / "run").head
    found = verify_run(tmp_path / "run")
    text = "\n".join(found.lines)
    assert found and found.ok and head in text
    assert "as logged: config.yaml, environment.json, 6 steps, 6 evaluations, 2 checkpoints" in text
    assert "these heads are the folder's own" in text and "not checked: samples.jsonl" in text
    kept = verify_run(tmp_path / "run", [parse_head(head)])
    assert kept and not any("own" in line for line in kept.lines)
    assert any("anchored up to event 17 of 17" in line for line in kept.lines)
    early = json.loads((tmp_path / "run/checkpoints/step-000004/manifest.json").read_text())["audit_head"]
    assert any(
        "anchored up to event 10 of 17" in line for line in verify_run(tmp_path / "run", [parse_head(early)]).lines
    )
    wrong = verify_run(tmp_path / "run", [(3, "0" * 64)])
    assert not wrong and "BROKEN: line 4 is not the head 3:000" in wrong.lines[0]


def edit(name: str, change):
    """Rewrite one file of the folder."""
    return lambda folder: put(folder / name, change((folder / name).read_bytes() if (folder / name).exists() else b""))


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def cut(content: bytes, lines: int) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:lines])


CHECKPOINT = "checkpoints/step-000006"
CHANGES = {  # what is said, and what somebody did to a finished run
    "config.yaml": edit("config.yaml", lambda b: b"model: y"),
    "environment.json": remove("environment.json"),
    "steps.jsonl line 3": edit("steps.jsonl", lambda b: b.replace(b'"step": 3', b'"step": 9')),
    "steps.jsonl line 4": edit("steps.jsonl", lambda b: cut(b, 3)),
    "steps.jsonl line 1": remove("steps.jsonl"),
    "steps.jsonl line 7": edit("steps.jsonl", lambda b: b + b"{}"),
    "steps.jsonl line 6": edit("steps.jsonl", lambda b: b[:-1] + b"x"),  # its line break
    "evaluations/canary/step-000004.json": edit("evaluations/canary/step-000004.json", lambda b: b"{5}"),
    "evaluations/step-000002.json": remove("evaluations/step-000002.json"),
    "evaluations/step-000008.json": edit("evaluations/step-000008.json", lambda b: b"{}"),
    f"{CHECKPOINT}/manifest.json": edit(f"{CHECKPOINT}/manifest.json", lambda b: b + b" "),
    f"{CHECKPOINT}/state.json": edit(f"{CHECKPOINT}/state.json", lambda b: b"other"),
    f"{CHECKPOINT}/adapter_model.safetensors": remove(f"{CHECKPOINT}/adapter_model.safetensors"),
    f"{CHECKPOINT}/extra.bin": edit(f"{CHECKPOINT}/extra.bin", lambda b: b"x"),
    "checkpoints/step-000008": lambda folder: shutil.copytree(folder / CHECKPOINT, folder / "checkpoints/step-000008"),
    "outcome.json: audit_head": edit("outcome.json", lambda b: b'{"status": "done", "audit_head": [1]}'),
    "outcome.json: status": edit("outcome.json", lambda b: b.replace(b"done", b"failed")),
    "BROKEN: line 1 ": edit("audit.jsonl", lambda b: b""),
    "BROKEN: line 4 ": edit("audit.jsonl", lambda b: b.replace(b'"step":2', b'"step":3', 1)),
    "BROKEN: line 18 ": edit("audit.jsonl", lambda b: cut(b, 17)),
    "BROKEN: audit.jsonl is missing": remove("audit.jsonl"),
}


@pytest.mark.parametrize("said", CHANGES)
def test_each_change_to_a_finished_run_is_named(tmp_path, said):
    make_run(tmp_path / "run")
    CHANGES[said](tmp_path / "run")
    found = verify_run(tmp_path / "run")
    told = [line for line in found.lines if "PROBLEM" in line or "BROKEN" in line]
    assert not found and len(told) == 1 and said in told[0], found.lines


def test_what_a_kill_left_behind_is_not_yet_audited(tmp_path):
    run = tmp_path / "run"
    make_run(run, status=None)
    put(run / "evaluations/step-000008.json", "{}")
    shutil.copytree(run / "checkpoints/step-000006", run / "checkpoints/step-000008")
    for behind in (b'{"step": 7}\n', b'{"step": 7}\n{"st', b'{"st'):
        before = (run / "steps.jsonl").read_bytes()
        put(run / "steps.jsonl", before + behind)
        found = verify_run(run)
        assert found and sum("not yet audited" in line for line in found.lines) == 3, found.lines
        assert any("steps.jsonl line 7" in line for line in found.lines)
        put(run / "steps.jsonl", before)
    with (run / "audit.jsonl").open("ab") as file:
        file.write(b'{"data":')
    found = verify_run(run)
    assert found and any("is incomplete" in line and "not tampering" in line for line in found.lines)


def test_after_a_resume_the_last_word_on_each_step_counts(tmp_path, monkeypatch):
    run = tmp_path / "run"
    make_run(run, status="interrupted")
    log = Audit(run / "audit.jsonl")
    lines = (run / "steps.jsonl").read_bytes().splitlines(keepends=True)
    log.append("resume", {"step": 5})
    assert verify_run(run), "killed before the later lines were cut off"
    put(run / "steps.jsonl", b"".join(lines[:5]))
    (run / "outcome.json").unlink()
    for view in ("", "canary/"):
        (run / f"evaluations/{view}step-000006.json").unlink()
    shutil.rmtree(run / "checkpoints/step-000006")
    assert verify_run(run), "killed before the first new step"
    with monkeypatch.context() as patched:
        patched.setattr(log, "append", lambda event, data: None)
        checkpoint(run, log, 6)
    assert any("checkpoints/step-000006: not yet audited" in line for line in verify_run(run).lines)
    assert verify_run(run), "killed before it told of the new checkpoint"
    take_steps(run, log, 6, 8)
    log.append("end", {"status": "done"})
    assert verify_run(run).ok
    put(run / "steps.jsonl", b"".join([*lines, *(run / "steps.jsonl").read_bytes().splitlines(keepends=True)[6:]]))
    assert any("steps.jsonl line 6: is not what" in line for line in verify_run(run).lines)


def test_every_run_of_a_pilot_is_verified(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / "pilot" / "arms" / name)
    assert verify_run(tmp_path / "pilot")
    put(tmp_path / "pilot" / "arms" / "b" / "config.yaml", "x")
    found = verify_run(tmp_path / "pilot")
    assert not found and any(line.startswith("b: PROBLEM: config.yaml") for line in found.lines)
    with pytest.raises(InputError, match="--head: is of one run"):
        verify_run(tmp_path / "pilot", [(0, "0" * 64)])


@pytest.mark.parametrize("log", [None, b"", b'{"data":{"form'])
def test_a_run_that_was_killed_before_its_first_event_was_not_tampered_with(tmp_path, log):
    run = tmp_path / "run"
    put(run / "config.yaml", "model: x\n")
    if log is not None:
        put(run / "audit.jsonl", log)
    assert verify_run(run).lines == ["run: not begun: there is nothing to verify yet"] and verify_run(run)
    put(run / "steps.jsonl", "{}\n")
    assert not verify_run(run)


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "arms").mkdir()
    for folder in (tmp_path / "none", tmp_path / "arms", tmp_path):
        with pytest.raises(InputError, match="is no run or pilot folder|no run has begun"):
            verify_run(folder)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("step", {}), ("step", {"step": "1", "line_sha256": "x"}), ("step", {"step": True, "line_sha256": "x"}),
        ("resume", {}), ("evaluation", {"path": "../../x", "sha256": 5}),
        ("evaluation", {"path": "\x1b[2J\u202ea\nOK" * 99, "sha256": "x"}),
        ("evaluation", {"path": "a\x00b", "sha256": "x"}), ("evaluation", {"path": ".", "sha256": "x"}), ("human", {}),
        ("checkpoint", {"step": 6, "manifest_sha256": "x"}), ("export", {"files": [1]}),
        ("start", {"config_sha256": [2]}), ("evaluation", {"path": "/dev/zero", "sha256": "x"}),
    ],
)  # fmt: skip
def test_what_a_forger_writes_into_events_is_a_plain_line(tmp_path, event, data):
    make_run(tmp_path / "run", None).append(event, data)
    found = verify_run(tmp_path / "run")
    assert not found and all(line.isprintable() and len(line) < 600 for line in found.lines), found.lines


def test_a_changed_manifest_list_is_not_followed_out_of_the_folder(tmp_path):
    run = tmp_path / "run"
    log = make_run(run, None)
    for files in ({"../../config.yaml": {"sha256": "x"}}, {"state.json": 5}, [1]):
        content = json.dumps({"files": files})
        log.append(
            "checkpoint", {"step": 6, "manifest_sha256": put(run / "checkpoints/step-000006/manifest.json", content)}
        )
        assert any("PROBLEM: checkpoints/step-000006/" in line for line in verify_run(run).lines)


# --------------------------------------------------------------------------------------------- people and exports


def reviewed(folder: Path) -> tuple[Audit, dict]:
    log = make_run(folder / "run")
    put(folder / "report.html", "<p>report")
    sample = {"question": "1+1", "completions": ["2"]}
    human_verdict(
        log, reviewer="Ada", verdict="ship", sample=sample, report=folder / "report.html",
        adapter=folder / "run/checkpoints/step-000006", note="as measured",
    )  # fmt: skip
    put(folder / "run/export/model.gguf", "weights")
    exported(log, "gguf", folder / "run/export")
    return log, sample


def test_a_verdict_binds_reviewer_verdict_sample_report_and_adapter(tmp_path):
    log, sample = reviewed(tmp_path)
    run, head = tmp_path / "run", parse_head(log.head)
    assert check_bindings(log.path, [{"other": 1}, sample]) == [] and verify_run(run, [head])
    for old, new in ((b'"reviewer":"Ada"', b'"reviewer":"Bob"'), (b'"verdict":"ship"', b'"verdict":"stop"')):
        before = log.path.read_bytes()
        put(log.path, before.replace(old, new))
        assert not verify_run(run, [head]) and "line 19 was changed" in check_bindings(log.path)[0]
        put(log.path, before)
    assert check_bindings(log.path, [sample | {"question": "1+2"}]) == [
        "audit.jsonl line 19: the sample that was judged is another now"
    ]
    for name in ("../report.html", "checkpoints/step-000006/adapter_model.safetensors", "export/model.gguf"):
        before = (run / name).read_bytes()
        put(run / name, before + b"!")
        found = check_bindings(log.path)
        assert len(found) == 1 and found[0].startswith(f"{name}: is not what audit.jsonl line "), found
        assert not verify_run(run, [head])
        put(run / name, before)
    assert verify_run(run, [head])


def test_of_two_verdicts_on_one_report_the_last_counts(tmp_path):
    log, sample = reviewed(tmp_path)
    put(tmp_path / "report.html", "<p>new report")
    assert len(check_bindings(log.path)) == 1
    adapter = tmp_path / "run/checkpoints/step-000006/adapter_model.safetensors"
    human_verdict(log, reviewer="Ada", verdict="no", sample=sample, report=tmp_path / "report.html", adapter=adapter)
    assert check_bindings(log.path, [sample]) == []


def test_a_report_outside_the_run_may_be_left_behind_but_nothing_inside(tmp_path):
    log, _ = reviewed(tmp_path)
    (tmp_path / "report.html").unlink()
    found = verify_run(tmp_path / "run")
    assert found and any("../report.html: is not here, so not checked" in line for line in found.lines)
    (tmp_path / "run/export/model.gguf").unlink()
    assert len(check_bindings(log.path)) == 1 and not verify_run(tmp_path / "run")


def test_there_is_no_verdict_on_nothing(tmp_path):
    log = make_run(tmp_path / "run")
    head = log.head
    with pytest.raises(InputError, match="no file to put into the audit log"):
        exported(log, "merged", tmp_path / "missing")
    assert log.head == head
