"""The Knights and Knaves reward: hand-worked totals, hedges, hostile text, and golds of the public puzzles."""

import re
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.records import Episode, Example, Group
from poc.rewards.knights import knights_knaves

KNIGHTS_TAGS, KNIGHTS_MARK = knights_knaves("tags"), knights_knaves("mark")
PUBLIC = Path(__file__).parents[3] / "shared" / "data" / "kk_3_people_test.parquet"
GOLD = "(1) Zoey is a knight\n(2) Oliver is a knave"
BEST, WRONG, UNREADABLE, BAD_FORMAT = 3.0, -0.5, -1.0, -3.0
LOOKALIKES = {
    "Cyrillic o": "Z\u043eey",
    "Kelvin sign": "\u212ai",
    "full width": "\uff2foey",
    "zero width": "Zo\u200bey",
}


def group(*texts, gold=GOLD):
    episodes = tuple(Episode((1,), text, True, (-1.0,), (0.5,), (2.0,)) for text in texts)
    return Group(Example("q1", "?", gold, "logic"), (1,), episodes)


def tagged(answer, think="hm"):
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


def tags(*texts, gold=GOLD):
    return KNIGHTS_TAGS(group(*texts, gold=gold))


def mark(*texts, gold="Ann knight, Bob knave"):
    return KNIGHTS_MARK(group(*texts, gold=gold))


@pytest.mark.parametrize(
    "text, total, fired",
    [
        (tagged(GOLD), 3.0, ("format_right", "right")),
        (tagged(GOLD.replace("knave", "knight")), -0.5, ("format_right", "wrong")),
        (tagged("no idea"), -1.0, ("format_right", "unreadable")),
        (GOLD, -3.0, ("format_wrong", "unreadable")),
    ],
)
def test_the_four_totals_of_logic_rl(text, total, fired):
    assert tags(text) == [total]
    assert KNIGHTS_TAGS.fired(group(text), group(text).episodes[0]) == fired
    assert {rule.key: rule.value for rule in KNIGHTS_TAGS.rules} == {
        "right": 2, "wrong": -1.5, "unreadable": -2, "format_right": 1, "format_wrong": -1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        "\n" + GOLD + "\n",
        "Zoey is a knight, Oliver is a knave.",
        "Zoey is a knight and Oliver is a knave",
        "1. Zoey is a knight\n2. Oliver  is a knave",
        "(2) Oliver is a knave; (1) Zoey is a knight",
    ],
)
def test_ways_to_list_everybody_once(answer):
    assert tags(tagged(answer)) == [BEST]
    assert tasks.score(Example("x", "?", GOLD, "logic"), tagged(answer)).correct  # the verifier of the hold-out agrees


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Zoey is a knight",
        "Zoey is a knight, Oliver is a knave, Ann is a knave",
        "Zoey is a knight, Zoey is a knave, Oliver is a knave",
        "Zoey is a knight, Oliver is a knave, Zoey is a knight",
        "Zoey is a knight, zoey is a knight, Oliver is a knave",
        "Zoey is a knight, Ann is a knave",
        "Zoey is not a knave, Oliver is not a knight",
        "Zoey is a knight, Oliver is not a knight",
        "Zoey is a knight or knave, Oliver is a knave",
        "Zoey is a knight or a knave, Oliver is a knave",
        "Zoey is a knight or not, Oliver is a knave",
        "Zoey is a knight/knave, Oliver is a knave",
        "Zoey is a knight? Oliver is a knave?",
        "It is false that Zoey is a knight and Oliver is a knave",
        "Zoey is a knight, Oliver is a knave is false",
        "Zoey is a knightly, Oliver is a knave",
        "ZoeyZoey is a knight, Oliver is a knave",
        "Zoey knight, Oliver knave",
        "Zoey is a knight, Oliver is a knave #42",
        "Zoey is a \u212anight, Oliver is a knave",
        "Zoey is a kn\u0456ght, Oliver is a knave",
        "Zoey is a knight, Oliver is a knave\u202e",
        "Zoey is a knight, " + " " * 3000 + "Oliver is a knave",
    ],
)
def test_hedges_and_near_misses_are_unreadable(answer):
    assert tags(tagged(answer)) == [UNREADABLE]


@pytest.mark.parametrize("name", LOOKALIKES.values(), ids=LOOKALIKES)
def test_a_name_in_letters_that_look_alike_is_another_name(name):
    gold = "Zoey is a knight, Ki is a knave"
    other = "Ki" if name != LOOKALIKES["Kelvin sign"] else "Zoey"
    assert tags(tagged(f"{name} is a knight, {other} is a knight"), gold=gold) == [UNREADABLE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"hm</think><answer>{GOLD}</answer>",
        f"<think>hm<answer>{GOLD}</answer>",
        f"<think>hm</think><answer>{GOLD}",
        f"<think>hm</think>{GOLD}</answer>",
        tagged(GOLD) + tagged(GOLD),
        tagged(GOLD) + "<answer>",
        tagged(GOLD, think="so <answer>"),
        tagged(GOLD, think=f"<answer>{GOLD}</answer>"),
        tagged(GOLD, think="<think>"),
        f"<think>hm<answer>{GOLD}</answer></think>",
        f"<answer>{GOLD}</answer><think>hm</think>",
        f"</think>hm<think><answer>{GOLD}</answer>",
        tagged(GOLD).replace("<", "\uff1c"),
        tagged(GOLD).replace("answer", "Answer"),
    ],
)
def test_a_tag_missing_repeated_or_out_of_order(text):
    assert tags(text) == [BAD_FORMAT]


def test_what_the_reasoning_says_is_not_judged():
    assert tags(tagged(GOLD, think=GOLD), tagged(GOLD, think=GOLD.replace("knave", "knight"))) == [BEST, BEST]
    assert tags(tagged("", think=GOLD), tagged("see above", think=GOLD)) == [UNREADABLE, UNREADABLE]
    assert mark("Ann knight, Bob knave #Ann knave, Bob knight", "Ann knight, Bob knave") == [WRONG, BAD_FORMAT]


@pytest.mark.parametrize(
    "text, total",
    [
        ("tt:lt- tl:tl+ #Ann knight, Bob knave", BEST),
        ("#Ann knight, Bob knave", BEST),
        ("hm\n# Bob knave,Ann knight \n", BEST),
        ("#Ann knave, Bob knave", WRONG),
        ("#Ann knight, Bob knave.", UNREADABLE),
        ("#Ann knight Bob knave", UNREADABLE),
        ("#Ann is a knight, Bob is a knave", UNREADABLE),
        ("#Ann knight, Bob knave and so on", UNREADABLE),
        ("#Ann knight", UNREADABLE),
        ("#Ann knight, Bob knave, Ann knight", UNREADABLE),
        ("#Ann knight, Ann knave, Bob knave", UNREADABLE),
        ("#Ann not knave, Bob knave", UNREADABLE),
        ("#Ann knight or knave, Bob knave", UNREADABLE),
        ("#", UNREADABLE),
        ("Ann knight, Bob knave", BAD_FORMAT),
        ("##Ann knight, Bob knave", BAD_FORMAT),
        ("#Ann knight, Bob knave#", BAD_FORMAT),
        ("#1 first #Ann knight, Bob knave", BAD_FORMAT),
        ("\uff03Ann knight, Bob knave", BAD_FORMAT),
    ],
)
def test_the_mark_layout(text, total):
    assert mark(text) == [total]


@pytest.mark.parametrize(
    "reward, answer", [(KNIGHTS_TAGS, "<think></think><answer>{}</answer>"), (KNIGHTS_MARK, "#{}")]
)
@pytest.mark.parametrize(
    "filler",
    ["a", " ", "#", "<think>", "(1", "1.", "Zoey ", "Zoey is a ", "Zoey is a knight, ", "Zoey knight, ", "and "],
)
def test_ten_megabytes_take_linear_time(reward, answer, filler):
    junk = filler * (10_000_000 // len(filler))
    texts = [
        junk,
        junk + answer.format(GOLD),
        answer.format(junk),
        answer.format(f"Zoey{junk}x"),
        answer.format("") + junk,
    ]
    start = time.process_time()
    assert max(reward(group(*texts))) <= 3
    assert time.process_time() - start < 5  # all five; about 0.1 s


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6), st.randoms())
def test_only_the_gold_itself_is_best_for_the_lab_s_own_puzzles(seed, level, rng):
    example, _ = tasks.draw("logic", seed, 0, level)
    pairs = [pair.split() for pair in example.answer.split(", ")]
    said = [(name, rng.choice(("knight", "knave"))) for name, _ in pairs]
    right = [list(pair) for pair in said] == pairs
    rng.shuffle(said)
    expected = [BEST if right else WRONG]
    assert mark("#" + ", ".join(f"{n} {k}" for n, k in said), gold=example.answer) == expected
    assert tags(tagged("\n".join(f"{n} is a {k}" for n, k in said)), gold=example.answer) == expected


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="<>/think answer#AnBob,knigtve.\n", max_size=80))
def test_any_text_gets_one_of_the_four_totals(text):
    assert {*mark(text, gold=GOLD), *tags(text, tagged(text), gold=GOLD)} <= {BEST, WRONG, UNREADABLE, BAD_FORMAT}


@pytest.mark.parametrize("reward", [KNIGHTS_TAGS, KNIGHTS_MARK])
def test_a_gold_is_needed_and_must_be_a_list_of_people(reward):
    with pytest.raises(ValueError, match="reward knights_knaves: q1 has no gold answer to verify against"):
        reward(group("#x", gold=None))
    for gold in ("42", "", "Ann knight, Ann knave", "Ann knight or Bob knave", "A" * 10_000_000):
        with pytest.raises(ValueError, match="the gold answer of q1 is no list such as"):
            reward(group("#x", gold=gold))


def test_names_that_are_no_plain_words():
    gold = "Zo\u00eb is a knight, Ann-Marie is a knave, Ann is a knight, O'Hara is a knave."
    assert tags(tagged(gold), tagged(gold.replace("\u00eb", "e")), gold=gold) == [BEST, UNREADABLE]


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="layout 'xml' is none of tags, mark"):
        knights_knaves("xml")


def test_a_model_that_follows_the_words_is_paid():
    words = {reward: reward.rules[0].when for reward in (KNIGHTS_TAGS, KNIGHTS_MARK)}
    shown = re.search("<think>.*</answer>", words[KNIGHTS_TAGS])[0]
    assert tags(shown, gold="Ann knight, Bob knave") == [BEST]
    listed = re.search("a list like (.*):", words[KNIGHTS_MARK])[1]
    assert mark(f"#{listed}") == [BEST]


@pytest.mark.skipif(not PUBLIC.exists(), reason=f"{PUBLIC.name} is not here")
def test_the_public_golds_are_best_for_themselves_alone():
    golds = [row["solution_text_format"] for row in pq.read_table(PUBLIC, columns=["solution_text_format"]).to_pylist()]
    assert len(golds) == 100
    for i, gold in enumerate(golds):
        other = golds[i - 1]
        assert tags(tagged(gold), gold=gold) == [BEST]
        marked = ", ".join(re.sub(r"\(\d\) | is a", "", line) for line in gold.split("\n"))
        assert mark(f"#{marked}", gold=gold) == [BEST]
        flipped = gold.removesuffix("knight") + "knave" if gold.endswith("knight") else gold[:-5] + "knight"
        assert tags(tagged(flipped), gold=gold) == [WRONG]
        assert (tags(tagged(other), gold=gold) == [BEST]) == (other == gold)
