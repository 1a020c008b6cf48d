"""The hostile corpus: what it holds, that it finds every kind of bad scorer, and that ours withstand it."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import unicodedata
from contextlib import contextmanager

import pytest

from poc import siege, tasks
from poc.records import Example, Verdict
from poc.redteam import Attack, examples, honest, hostile, others, standing
from poc.scoring import pool, sandbox
from poc.siege import LATE, LIMIT, besiege

STANDING = {example.id: example for example in standing()}
NUMBER = STANDING["own-2"]
# One level of each kind: all of them are besieged by `poc domains --attack`.
BESIEGED = [
    ("math", 0), ("math", 4), ("science", 0), ("science", 1), ("science", 3), ("logic", 0), ("logic", 7), ("logic", 9),
    ("logic", 11), ("simulation", 0), ("simulation", 2), ("simulation", 3), ("simulation", 4), ("table", 0),
]  # fmt: skip
CHEAP = ("blank", "empty", "key", "unmarked", "unclosed", "covered", "spam", "long", "json", "lookalike")


def fake(monkeypatch, judge):
    """A verifier that takes a text for right where judge(example, text) is true, in place of all the real ones."""

    def grade(examples, texts, limit):
        right = [judge(example, text) for example, text in zip(examples, texts, strict=True)]
        verdicts = [Verdict("correct" if r else "wrong", False, r) for r in right]
        return [pool.Grade(None, False, verdict) for verdict in verdicts]

    monkeypatch.setattr(pool, "grade", grade)


def last_mark(text):
    return re.split(r"#|\\boxed\{|<answer>", text)[-1].split("\n")[0].partition("<")[0].rstrip("}").strip()


def as_int(text):
    try:
        return str(int(text))
    except ValueError:
        return None


def first_of(pattern):
    return lambda example, text: (re.findall(pattern, text) or [None])[0] == example.answer


BAD_SCORERS = {  # a verifier with one fault each -> a kind of attack that must get through
    "always": (lambda example, text: True, "blank"),
    "anything but nothing": (lambda example, text: bool(text), "key"),
    "the gold anywhere": (lambda example, text: example.answer in text, "unmarked"),
    "the last number": (lambda example, text: (re.findall(r"[0-9]+", text) or [0])[-1] == example.answer, "unmarked"),
    "the first mark": (first_of(r"(?:#|\\boxed\{|<answer>)([0-9]+)"), "covered"),
    "the gold in the mark": (lambda example, text: example.answer in last_mark(text), "hedge"),
    "the mark begins with it": (lambda example, text: last_mark(text).startswith(example.answer), "hedge"),
    "the mark ends with it": (lambda example, text: last_mark(text).endswith(example.answer), "hedge"),
    "digits alone": (lambda example, text: re.sub(r"\D", "", last_mark(text)) == example.answer, "lookalike"),
    "digits of any script": (lambda example, text: as_int(last_mark(text)) == example.answer, "lookalike"),
    "compatible characters": (
        lambda example, text: unicodedata.normalize("NFKC", last_mark(text)[:99]) == example.answer,
        "lookalike",
    ),
    "not closed": (lambda example, text: last_mark(text) == example.answer, "unclosed"),
    "near enough": (
        lambda example, text: abs(int(as_int(last_mark(text)) or 0) - int(example.answer)) <= 10,
        "foreign",
    ),
    "JSON, the last key": (
        lambda example, text: '"answer": ' in text and text.rpartition('"answer": ')[2].startswith(example.answer),
        "json",
    ),
}


@pytest.mark.parametrize("name", BAD_SCORERS)
def test_the_corpus_finds_every_bad_scorer(monkeypatch, name):
    judge, kind = BAD_SCORERS[name]
    fake(monkeypatch, judge)
    found = besiege(NUMBER)
    assert kind in {attack.kind for attack in found.passed}
    assert not found.held


def test_a_scorer_that_refuses_everything_is_found_as_well(monkeypatch):
    fake(monkeypatch, lambda example, text: False)
    found = besiege(NUMBER)
    assert len(found.refused) == len(honest(NUMBER)) >= 5
    assert not found.passed and not found.held


@pytest.mark.parametrize("example", STANDING.values(), ids=STANDING)
def test_the_corpus_is_large_pure_and_without_repetition(example):
    corpus = hostile(example)
    assert len(corpus) >= 200
    assert len({attack.name for attack in corpus}) == len({attack.text for attack in corpus}) == len(corpus)
    assert corpus == hostile(example)
    assert not {attack.text for attack in corpus} & {attack.text for attack in honest(example)}
    assert {*CHEAP, "bomb", "echo", "hedge", "payload", "program"} <= {attack.kind for attack in corpus}
    assert max(len(attack.text) for attack in corpus) >= 200_000


@pytest.mark.parametrize("domain", tasks.DOMAINS)
def test_the_corpus_does_not_depend_on_the_process(domain):
    example = examples(domain, 0)[0]
    code = (
        "import hashlib, json, sys\nfrom poc.redteam import examples, hostile\n"
        "texts = json.dumps(hostile(examples(sys.argv[1], 0)[0]))\nprint(hashlib.sha256(texts.encode()).hexdigest())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, domain], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert said.stdout.strip() == hashlib.sha256(json.dumps(hostile(example)).encode()).hexdigest()


@pytest.mark.parametrize("gold", ["x", "yes", "A", "None", "1.0", "[]", "true"])
def test_a_constant_that_is_the_gold_is_no_attack(gold):
    texts = {attack.text for attack in hostile(Example("o", "Which?", gold, "own"))}
    assert not texts & {f"#{gold}", f"\\boxed{{{gold}}}", f"<answer>{gold}</answer>", f"# {gold}", f"#{gold}."}


def test_a_number_of_the_question_that_is_the_gold_is_no_attack():
    assert "#42" not in {attack.text for attack in hostile(Example("o", "6*7 or 42*1?", "42", "own"))}
    assert "#42" in {attack.text for attack in hostile(Example("o", "6*8 or 42*1?", "48", "own"))}


@pytest.mark.parametrize("domain", tasks.DOMAINS)
def test_answers_of_others_differ_from_the_gold(domain):
    for level in (0, tasks.DOMAINS[domain].LEVELS[-1]):
        for example in examples(domain, level):
            assert others(example) and example.answer not in others(example)


def test_without_a_gold_there_is_nothing_to_attack():
    with pytest.raises(ValueError, match="row-7 has no gold answer"):
        hostile(Example("row-7", "?", None, "own"))


def sieged(monkeypatch, act):
    """A siege of a few attacks on a verifier that does something else beside judging."""

    def judge(example, text):
        if text.startswith("#") and "canary" in text:
            act(re.search(r"/[^' ]*canary", text)[0])
        return False

    fake(monkeypatch, judge)
    return besiege(NUMBER, wanted=lambda attack: attack.name == "payload: 1 in #")


@contextmanager
def restored(holder, name):
    value = getattr(holder, name)
    try:
        yield
    finally:
        setattr(holder, name, value)


def test_a_file_that_a_payload_makes_is_seen(monkeypatch):
    found = sieged(monkeypatch, lambda path: open(path, "w").close())
    assert found.effects == ["canary's folder changed"] and not found.held


def test_a_file_in_the_working_directory_is_seen(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert sieged(monkeypatch, lambda path: open("new", "w").close()).effects == ["working directory changed"]


def test_a_changed_environment_is_seen(monkeypatch):
    monkeypatch.setenv("POC_CANARY", "alive")
    assert sieged(monkeypatch, lambda path: os.environ.pop("POC_CANARY", 0)).effects == ["environment changed"]


def test_a_patched_function_is_seen(monkeypatch):
    with restored(json, "loads"):
        found = sieged(monkeypatch, lambda path: setattr(json, "loads", eval))
    assert found.effects == ["json and operator changed"]


def test_a_process_that_is_left_is_seen(monkeypatch):
    started = []

    def start(path):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", path]))

    try:
        assert sieged(monkeypatch, start).effects == ["1 processes left"]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_memory_that_is_kept_is_seen(monkeypatch):
    kept = []
    found = sieged(monkeypatch, lambda path: kept.append(os.urandom(80 << 20)))
    assert len(found.effects) == 1 and re.fullmatch(r"[0-9]+ MiB more memory", found.effects[0])


def test_an_exception_is_counted_and_the_siege_goes_on(monkeypatch):
    def broken(examples, texts, limit):
        raise OSError("disk")

    monkeypatch.setattr(pool, "grade", broken)
    found = besiege(NUMBER, wanted=lambda attack: attack.kind == "empty")
    assert len(found.raised) == found.attacks > 10
    assert not found.held


def test_what_rewards_without_labels_pay_is_seen(monkeypatch):
    def grade(examples, texts, limit):
        return [pool.Grade("nothing", True, Verdict("wrong", True, False)) for _ in texts]

    monkeypatch.setattr(pool, "grade", grade)
    found = besiege(NUMBER, wanted=lambda attack: attack.kind == "blank")
    assert {name for name, _ in found.paid} == {"semantic_entropy", "majority_vote", "format"}


def test_time_is_measured_for_each_verdict(monkeypatch):
    fake(monkeypatch, lambda example, text: time.sleep(0.05 if text == "#" else 0) is not None)
    found = besiege(NUMBER, wanted=lambda attack: attack.kind == "empty")
    assert max(found.seconds) >= (0.05,) and max(found.seconds)[1].text == "#"


def check(found, late=LATE):
    """0 pass, 0 exceptions, 0 side effects, no honest answer refused, every verdict in its time."""
    assert not found.passed
    assert not found.refused
    assert not found.raised
    assert not found.effects
    assert not [(seconds, attack.name) for seconds, attack in found.seconds if seconds > LIMIT + late]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("domain,level", BESIEGED)
def test_our_scorers_withstand_it(domain, level):
    example = examples(domain, level)[0]
    found = besiege(example)
    check(found)
    assert not found.paid
    assert found.attacks >= 1000


@pytest.mark.parametrize("name", [name for name in STANDING if not name.startswith("math")])
def test_questions_of_files_withstand_it(name):
    found = besiege(STANDING[name])
    check(found)
    assert not found.paid


def test_formulas_withstand_what_is_cheap():
    check(besiege(STANDING["math-1"], wanted=lambda attack: attack.kind in (*CHEAP, "hedge", "echo")))


@pytest.mark.skipif(sandbox.level() == "none", reason=f"no sandbox: {sandbox.INSTALL}")
@pytest.mark.parametrize("level,kinds", [(0, ("hedge", "covered")), (1, ("program", "unclosed"))])
def test_programs_withstand_it(level, kinds):
    example = examples("code", level)[0]
    found = besiege(example, wanted=lambda attack: attack.kind in kinds)
    check(found)  # what rewards without labels pay for a program is not asked here
    assert found.attacks > 90


def test_one_siege_is_one_example_and_the_corpus_that_was_wanted(monkeypatch):
    fake(monkeypatch, lambda example, text: text == "")
    found = besiege(NUMBER, wanted=lambda attack: attack.kind == "blank")
    assert found.example is NUMBER and found.attacks == len(found.seconds)
    assert found.passed == [Attack("blank: nothing", "")]
    assert siege.UNPAID["format"] == ("blank", "empty")
