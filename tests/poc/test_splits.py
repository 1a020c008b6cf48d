"""No question in two splits, whatever the seeds; hold-out and canary the same for every run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.config import DOMAIN_LEVELS, Data
from poc.records import Example, InputError

EVERY = [(domain, level) for domain, module in tasks.DOMAINS.items() for level in module.LEVELS]
SEEDS = st.integers(0, 10**6)


def test_the_configuration_knows_the_domains_and_their_levels():
    assert DOMAIN_LEVELS == {name: len(module.LEVELS) for name, module in tasks.DOMAINS.items()}


@pytest.mark.parametrize(
    "key,first_byte,split",
    [
        ("10+10", 0xA0, "canary"),
        ("37+58", 0x12, "holdout"),
        ("12+34", 0x15, "holdout"),
        ("99+99", 0xFA, "train"),
        ("23*4", 0xCC, "train"),
    ],
)
def test_a_question_stays_in_its_split_for_ever(key, first_byte, split):
    """First bytes of the keys' sha256 as sha256sum gives them: lab models learned the train split of this rule."""
    assert first_byte % 16 in {"canary": range(2), "holdout": range(2, 6), "train": range(6, 16)}[split]
    assert tasks.split_of(key) == split


@pytest.mark.parametrize("domain,level", EVERY)
@settings(max_examples=4, deadline=None)
@given(SEEDS, SEEDS)
def test_splits_are_disjoint_for_any_two_seeds(domain, level, one, other):
    parts = [
        {example.question for example in tasks.generate(domain, level, split, 12, seed)}
        for split, seed in (("train", one), ("holdout", other), ("canary", other))
    ]
    assert [len(part) for part in parts] == [12, 12, 12]
    assert len(set.union(*parts)) == 36


@pytest.mark.parametrize("domain", tasks.DOMAINS)
def test_splits_have_their_share_of_the_questions(domain):
    keys = {tasks.draw(domain, 0, index, 1)[1] for index in range(4000)}
    share = {s: sum(tasks.split_of(key) == s for key in keys) / len(keys) for s in ("train", "holdout", "canary")}
    assert share == pytest.approx({"train": 10 / 16, "holdout": 4 / 16, "canary": 2 / 16}, abs=0.03)


@pytest.mark.parametrize("domain", tasks.DOMAINS)
def test_the_default_counts_can_be_had_at_level_0(domain):
    assert {s: len(part) for s, part in tasks.load(Data(domain=domain), 1).items()} == {
        "train": 512,
        "holdout": 256,
        "canary": 64,
    }


@given(SEEDS, SEEDS)
@settings(max_examples=10, deadline=None)
def test_only_the_train_split_depends_on_the_seed(one, other):
    data = Data(train=20, holdout=10, canary=5)
    first, second = tasks.load(data, one), tasks.load(data, other)
    assert first["holdout"] == second["holdout"] and first["canary"] == second["canary"]
    assert (first["train"] == second["train"]) == (one == other)
    assert first == tasks.load(data, one)


def test_train_does_not_depend_on_the_other_counts():
    few, many = Data(train=20, holdout=2, canary=0), Data(train=20, holdout=50, canary=9)
    assert tasks.load(few, 3)["train"] == tasks.load(many, 3)["train"]
    assert tasks.load(few, 3)["canary"] == []


def test_more_than_there_are_is_an_error_with_a_way_out():
    with pytest.raises(
        InputError, match=r"data.canary: 200 asked for, but math level 2 has about \d+ .*lower data.canary"
    ):
        tasks.generate("math", 2, "canary", 200, 0)


def test_fingerprints_see_question_answer_and_order_but_not_ids():
    a, b = Example("1", "q", "a", "math"), Example("2", ({"role": "user", "content": "r"},), None, "own")
    assert tasks.fingerprint([a, b]) == tasks.fingerprint([Example("9", "q", "a", "logic"), b])
    changed = [[b, a], [a], [], [Example("1", "Q", "a", "math"), b], [Example("1", "q", None, "math"), b]]
    assert len({tasks.fingerprint(x) for x in [[a, b], *changed]}) == 1 + len(changed)
    # sha256 of '[["q","a"]]', taken with sha256sum
    assert tasks.fingerprint([a]) == "e5b981ce4d3b16e1eda1229318099059459a704fbbcff28ec233045efdbee363"


def test_scores_go_to_the_verifier_of_the_domain():
    assert tasks.score(Example("1", "q", "42", "math"), "#42.0").correct
    assert tasks.score(Example("1", "q", "Ann knight", "logic"), "#Ann is a knight").correct
    assert tasks.score(Example("1", "q", "Paris", "own"), "#paris").correct
    with pytest.raises(ValueError, match="1 has no gold answer"):
        tasks.score(Example("1", "q", None, "own"), "#paris")
