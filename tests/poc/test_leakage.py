"""Copies of measured questions: exact, inside, near; what is none; and the kit's own domains."""

import json
import random
import re
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.records import Example
from poc.tasks import leakage
from poc.tasks.leakage import check, tokens_of

SHARED = Path(__file__).parents[3] / "shared" / "data"
GSM8K = [SHARED / f"gsm8k_{name}.jsonl" for name in ("train", "test")]
LONG = (
    "A farmer named Ann walks to the market in the old town every Monday morning and sells twelve baskets of ripe "
    "apples there for 3 dollars each, then buys 2 loaves of bread for her four children at home. What is left?"
)


def examples(prefix, texts):
    return [Example(f"{prefix}{i}", text, None, "own") for i, text in enumerate(texts)]


def kinds(train, measured):
    """{place in train: kind} of the leaks."""
    found = check(examples("t", train), examples("m", measured)).found
    return {int(leak.train[1:]): leak.kind for leak in found}


@pytest.mark.parametrize(
    "text,tokens",
    [
        ("The well-known 1,000 apples!", "the well known 1000 apples"),
        ("12+34=?", "12 + 34 ="),
        ("12 + 34 =", "12 + 34 ="),
        ("5−3", "5 - 3"),
        ("x-y, or 2×3.50", "x - y or 2 * 3.50"),
        ("“Don't,” he said: 'no'…", "dont he said no"),
        ("5! is 120.", "5 ! is 120"),
        ("(1, 2) or 1,2", "( 1 2 ) or 1,2"),
        ("STRASSE Straße", "strasse strasse"),
        ("", ""),
    ],
)
def test_what_is_compared(text, tokens):
    assert tokens_of(text) == tuple(tokens.split())


@pytest.mark.parametrize(
    "one,other,kind",
    [
        ("What is 2 + 3?", "what is 2+3", "exact"),
        ("What is 2 + 3?", "What is 3 + 2?", None),
        ("What is 2 + 3?", "What is 2 - 3?", None),
        ("2*(3+4)", "2*3+4", None),
        ("Is 1.5 more than 15?", "Is 15 more than 1.5?", None),
        (LONG, LONG.upper().replace(",", "").replace(" ", "\n "), "exact"),
        (LONG, LONG.replace("Ann", "Eve"), "near"),
        (LONG, LONG.replace("twelve", "12"), "near"),
        (LONG, LONG.replace("3 dollars", "4 dollars"), None),
        (LONG, LONG.replace("four", "five"), None),
        (LONG, LONG.replace("Monday", "Friday").replace("apples", "pears").replace("bread", "ham"), None),
        (LONG, f"Read this. {LONG} Answer with a number.", "inside"),
        (f"Read this. {LONG} Answer with a number.", LONG, "inside"),
        ("Explain why ice floats on water, please, now", "ice floats on water", None),
        ("The sum of the first 12 odd numbers is what", "The sum of the first 12 odd numbers is whatever", None),
        ("#..#.\n.###.\n..#.. " + LONG, "#..#.\n.##..\n..#.. " + LONG, None),
    ],
)
def test_copies_by_hand(one, other, kind):
    assert kinds([one], [other]) == ({} if kind is None else {0: kind})


@pytest.mark.parametrize("length,kind", [(12, "near"), (11, "near"), (10, None)])
def test_the_bound_on_the_similarity_by_hand(length, kind):
    """The last of n tokens changed: n - 3 shingles shared of n - 1, so J = 9/11, 8/10 and 7/9."""
    words = [f"w{chr(97 + i)}x" for i in range(length)]
    assert kinds([" ".join([*words[:-1], "zz"])], [" ".join(words)]) == ({} if kind is None else {0: kind})


def test_a_template_in_front_of_every_row_makes_no_copies():
    head = "You are a careful clerk. Read the letter below and say in one word which department it belongs to: "
    places = ["harbour", "school", "station", "library", "forest", "bridge", "garden", "museum", "airport", "market"]
    rows = [f"{head} a complaint from the {a} about the {b}" for a in places for b in places if a != b]
    assert kinds(rows[40:], rows[:40]) == {}
    assert kinds([LONG], [*rows[:40], LONG.replace("Ann", "Eve")]) == {0: "near"}


def test_the_system_message_is_not_the_question():
    def chat(system, text):
        return ({"role": "system", "content": system}, {"role": "user", "content": text})

    rows = [chat(LONG, "Is Rome in Italy?"), chat(LONG, "Is Bonn in Japan?"), chat("Be brief.", "is rome in italy")]
    assert kinds(rows[1:], rows[:1]) == {1: "exact"}


def test_the_note_counts_and_names_ids_only():
    train = [LONG, LONG.replace("Ann", "Eve"), LONG.replace("Ann", "Bob"), "same words", "Same words!", "other"]
    found = check(examples("t", train), examples("m", [LONG]))
    assert found.note() == {
        "left_out": 3,
        "exact": 1,
        "near": 2,
        "examples": [["t0", "m0", "exact"], ["t1", "m0", "near"], ["t2", "m0", "near"]],
        "copies_within_train": 1,
    }
    assert check(examples("t", train), []).copies == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab1 .+", max_size=60), max_size=8), st.lists(st.text("ab1 .+", max_size=60), max_size=8))
def test_properties(train, measured):
    found = kinds(train, measured)
    assert found == kinds(train, measured)
    known = {tokens_of(text) for text in measured}
    assert {i for i, kind in found.items() if kind == "exact"} == {
        i for i, text in enumerate(train) if tokens_of(text) in known
    }
    assert check(examples("t", measured), examples("m", measured)).note()["left_out"] == len(measured)


@pytest.mark.parametrize("domain", tasks.DOMAINS)
def test_no_generated_question_crosses_splits_whatever_its_names(domain):
    """Splits by key: no copy, and none under other names. What is near beyond that is another problem in few words."""
    train = tasks.generate(domain, 0, "train", 300, 1)
    measured = tasks.generate(domain, 0, "holdout", 100, 0) + tasks.generate(domain, 0, "canary", 30, 0)
    found = check(train, measured).found
    assert not any(leak.kind == "exact" for leak in found)
    if domain != "table":  # its names are days, and those are data
        assert not {_without_names(e.question) for e in train} & {_without_names(e.question) for e in measured}
    assert found == () or domain in ("logic", "table")


def _without_names(question):
    """Names in the order in which they appear: "Bob: Ann is a knight" -> "N0: N1 is a knight"."""
    names = dict.fromkeys(re.findall(r"\b[A-Z][a-z]+\b", question))
    return re.sub(r"\b[A-Z][a-z]+\b", lambda found: f"N{list(names).index(found[0])}", question)


@pytest.mark.skipif(not all(path.exists() for path in GSM8K), reason="the GSM8K files are not here")
def test_gsm8k_in_time_and_planted_copies_are_found():
    texts = [[json.loads(line)["question"] for line in path.open(encoding="utf-8")] for path in GSM8K]
    train, test = examples("t", texts[0][:6800]), examples("m", texts[1][:1200])
    rng = random.Random(0)
    long_ones = [e for e in test if len(e.question.split()) > 40]
    planted = [(e, _with_a_word_changed(e.question, rng)) for e in rng.sample(long_ones, 50)]
    extra = [Example(f"planted-{e.id}", text, None, "own") for e, text in planted]
    started = time.process_time()
    found = check([*train, *extra], test).found
    assert time.process_time() - started < 15
    assert {leak.train for leak in found} <= {e.id for e in extra}
    assert len(found) >= 48  # J > 0.85: one in forty may be missed


def _with_a_word_changed(text, rng):
    words = text.split()
    places = [i for i, word in enumerate(words) if word.isalpha() and word not in leakage.NUMBER_WORDS]
    words[rng.choice(places)] = "quux"
    return " ".join(words)


SPELLINGS = [
    ("Wie viele Äpfel hat das schöne Café am Ende des Tages noch übrig?", lambda s: unicodedata.normalize("NFD", s)),
    ("How many red apples does the farmer sell in a week?", lambda s: s.replace("farmer", "far\u200bmer")),
    ("How many of the 12 apples are left when 5 are gone?", lambda s: s.replace("12", "１２").replace("5", "５")),
    ("小明有十二个苹果他吃了五个以后又买了三个请问他现在一共有多少个苹果呢", lambda s: s.replace("一共", "总一共")),
]


@pytest.mark.parametrize("question, respelled", SPELLINGS)
def test_spelling_in_other_characters_hides_no_copy(question, respelled):
    assert respelled(question) != question
    found = check([Example("t", question, "1", "own")], [Example("m", respelled(question), "1", "own")])
    assert len(found.found) == 1
