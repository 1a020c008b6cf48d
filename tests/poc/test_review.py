"""A review's sample is blind and takes disagreements first; kappa, its interval and what is said of them."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poc import review
from poc.review import Said, disagreements, draw, kappa, result, sample, sentence
from tests.poc.reviews import completion, drawn, evaluation, items, pair, prompt, said

VERDICTS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


# ------------------------------------------------------------------------------------------------------- the sample


def test_both_models_of_each_question_are_drawn_and_mixed():
    found = drawn(20)
    assert Counter(item.model for item in found) == {"start": 10, "end": 10}
    assert set(Counter(item.question_id for item in found).values()) == {2}
    models = [item.model for item in found]
    assert models not in (sorted(models), sorted(models, reverse=True)) and models[::2] != ["start"] * 10
    neighbours = sum(a.question_id == b.question_id for a, b in zip(found, found[1:], strict=False))
    assert neighbours < 5  # not question by question


def test_nothing_that_is_shown_tells_the_model_or_the_verdict():
    found = draw(*pair(), 40, 0)
    shown = sample(found, 0, 60, show_gold=False)
    assert {key for item in shown["items"] for key in item} == {"item", "question", "text"}
    assert all(item["gold"] == "7" for item in sample(found, 0, 60, show_gold=True)["items"])
    other = [review.Item(**{name: getattr(item, name) for name in item.__slots__} | {"model": "x", "verifier": False})
             for item in found]  # fmt: skip
    assert sample(other, 0, 60, show_gold=False) == shown  # the keys neither


def test_keys_name_one_text_and_are_no_numbers_to_a_spreadsheet():
    keys = [item.key for item in draw(*pair(), 80, 0)]
    assert len(set(keys)) == len(keys) == 80
    assert all(key[0] == "c" and len(key) == 16 for key in keys)


def test_the_seed_decides_and_is_all_that_decides():
    assert drawn(12, 3) == drawn(12, 3)
    assert [i.key for i in drawn(12, 3)] != [i.key for i in drawn(12, 4)]
    start, end = pair()
    turned = evaluation(0, *reversed(start.prompts.values()))
    assert draw(turned, end, 12, 3) == drawn(12, 3)  # not the order in the file


def test_questions_with_more_disagreement_come_first():
    right, wrong = completion("right"), completion("wrong", right=False)
    quiet = [prompt(f"quiet{k}", right, right) for k in range(30)]
    loud = {
        "verdict": (prompt("verdict", wrong, right, right), prompt("verdict", right, right, right)),
        "reading": (prompt("reading", right), prompt("reading", right, completion("lenient", False, anyhow=True))),
        "samples": (prompt("samples", right, right, right), prompt("samples", right, right, wrong)),
    }
    both = (prompt("both", wrong, right, wrong), prompt("both", right, right, right))
    assert {name: disagreements(*found) for name, found in loud.items()} == {name: [name] for name in loud}
    assert disagreements(*both) == ["verdict", "samples"] and disagreements(quiet[0], quiet[0]) == []
    start, end = zip(*loud.values(), both, *((q, q) for q in quiet), strict=True)
    for seed in range(3):
        at = [i.question_id for i in draw(evaluation(0, *start), evaluation(60, *end), 2, seed)]
        assert set(at) == {"both"}
        at = [i.question_id for i in draw(evaluation(0, *start), evaluation(60, *end), 10, seed)]
        assert {"verdict", "samples", "both", "reading"} <= set(at)


def test_of_a_question_the_most_telling_completions_are_drawn():
    right, wrong = completion("right"), completion("wrong", right=False)
    lenient = completion("lenient", False, anyhow=True)
    start = prompt("q", completion("greedy start", False), right, wrong, lenient)
    end = prompt("q", completion("greedy end"), right, completion("other"), wrong)
    for seed in range(5):
        assert {i.text for i in draw(evaluation(0, start), evaluation(60, end), 2, seed)} == {"lenient", "greedy end"}


def test_a_text_that_both_models_wrote_is_judged_once():
    one = prompt("q", completion("same"), completion("start only"), completion("same"))
    other = prompt("q", completion("same"), completion("end only"), completion("same"))
    found = draw(evaluation(0, one), evaluation(60, other), 40, 0)
    assert sorted((i.text, i.model) for i in found) == [("end only", "end"), ("same", "both"), ("start only", "start")]


def test_a_second_completion_of_a_question_comes_after_a_first_of_all():
    found = draw(*pair(3), 6, 0)
    assert set(Counter(i.question_id for i in found).values()) == {2}
    assert len(draw(*pair(3), 100, 0)) == 12  # all that there are
    assert len(draw(*pair(3), 5, 0)) == 5


def test_questions_without_a_label_are_drawn_only_where_none_has_one():
    open_, known = completion("open", None), completion("known")
    bare, full = prompt("bare", open_, open_, gold=None), prompt("full", known, known)
    assert {i.question_id for i in draw(evaluation(0, bare, full), evaluation(60, bare, full), 9, 0)} == {"full"}
    (item,) = draw(evaluation(0, bare), evaluation(60, bare), 9, 0)
    assert item.verifier is None and item.gold is None
    ends = prompt("bare", open_, completion("so\n#4", None), completion("thus\n#5", None), gold=None)
    assert disagreements(bare, ends) == ["samples"]


def test_questions_that_only_one_evaluation_has_are_left_out():
    assert draw(evaluation(0, prompt("a", completion("x"))), evaluation(60, prompt("b", completion("x"))), 9, 0) == []


# ------------------------------------------------------------------------------------------------------------ kappa


def test_kappa_of_a_known_table():
    table = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert kappa(*zip(*table, strict=True)) == pytest.approx(0.4)  # 0.7 alike, 0.5 by chance
    assert kappa([1, 0, 1, 0], [0, 1, 0, 1]) == pytest.approx(-1)


@given(VERDICTS)
def test_kappa_is_symmetric_at_most_1_and_1_only_where_all_are_alike(table):
    human, verifier = zip(*table, strict=True)
    value = kappa(human, verifier)
    assert value == kappa(verifier, human)
    if value is None:
        assert len(set(human)) == 1 or len(set(verifier)) == 1
    else:
        assert value <= 1 + 1e-12 and (value > 1 - 1e-12) == (human == verifier)


def test_one_kind_of_verdict_has_no_kappa_and_is_told():
    found = items(True, True, False)
    got = result(found, said(found, True, True, True), {})
    assert got["kappa"] == {"value": None, "low": None, "high": None, "n": 3, "why": review.ONE_KIND}
    assert got["agreement"] == pytest.approx(2 / 3)
    assert sentence(got).startswith("you and the verifier agree on 2 of 3 (kappa undefined: one of the two gave the")


def test_the_interval_resamples_questions_not_completions():
    words, human = [True, False] * 12, [True, False] * 9 + [False, True] * 3
    once = items(*words)
    twice = [review.Item(f"{i.key}{n}", *[getattr(i, name) for name in i.__slots__[1:]]) for i in once for n in "ab"]
    one = result(once, said(once, *human), {})["kappa"]
    other = result(twice, said(twice, *np.repeat(human, 2).tolist()), {})["kappa"]
    assert one == other and one["n"] == 24 and one["why"] == ""
    assert one["low"] < one["value"] < one["high"] and one["value"] == pytest.approx(0.5)


def test_so_few_verdicts_that_there_is_no_interval():
    found = items(True, False, True)
    got = result(found, said(found, True, False, True), {})
    assert got["kappa"]["value"] == 1 and got["kappa"]["low"] is None
    assert "(kappa 1.00, no interval: too few verdicts of one kind)" in sentence(got)


# ------------------------------------------------------------------------------------------------------- the result


def test_shares_by_model_and_the_sentence():
    found = [*items(True, True, False, False), *items(*[True] * 3, model="start"), *items(False, model="both")]
    found = [review.Item(f"c{n}", *[getattr(i, name) for name in i.__slots__[1:]]) for n, i in enumerate(found)]
    got = result(found, said(found, True, False, True, False, True, True, False, True), {"step": 60})
    assert got["by_model"] == {
        "start": {"human": 0.75, "verifier": 0.75, "n": 4},
        "end": {"human": 0.6, "verifier": 0.4, "n": 5},
    }
    assert (got["n"], got["agreement"], got["step"], got["version"]) == (8, 0.5, 60, 1)
    assert sentence(got).endswith(
        "; the trained model is right in 3 of 5 by you, 2 by the verifier; "
        "the start model is right in 3 of 4 by you, 3 by the verifier"
    )


def test_disagreements_are_spelled_out_and_capped():
    found = items(*[True] * 30)
    words = {item.key: Said(False, f"note {item.key}") for item in found} | {found[3].key: Said(True)}
    got = result(found, words, {})
    assert len(got["disagreements"]) == 20 and "q3" not in {d["id"] for d in got["disagreements"]}
    assert got["disagreements"][0] == {
        "id": "q0", "model": "end", "verifier": True, "human": False, "question": "0?", "text": "text 0",
        "note": "note c00",
    }  # fmt: skip
    assert len(got["verdicts"]) == 30 and got["verdicts"]["c03"] is True


def test_skipped_and_unanswered_count_for_nothing():
    found = items(True, False, True, False)
    got = result(found, said(found, True, None, False), {})
    assert (got["n"], got["not_judged"], got["agreement"]) == (2, 2, 0.5)
    assert set(got["verdicts"]) == {"c00", "c02"}
    with pytest.raises(ValueError, match="at least one verdict"):
        result(found, said(found, None), {})


def test_without_labels_only_the_person_speaks():
    found = items(None, None, None)
    got = result(found, said(found, True, False, True), {})
    assert got["agreement"] is None and got["disagreements"] == []
    assert got["kappa"] == {"value": None, "low": None, "high": None, "n": 0, "why": review.NO_LABELS}
    assert got["by_model"]["end"] == {"human": pytest.approx(2 / 3), "verifier": None, "n": 3}
    assert got["by_model"]["start"] == {"human": None, "verifier": None, "n": 0}
    assert sentence(got) == f"the trained model is right in 2 of 3 by you; {review.NO_LABELS}"


def test_a_result_is_strict_json():
    found = items(*[True, False] * 10)
    got = result(found, said(found, *[True, False] * 9, False, True), {"date": "today"})
    assert json.loads(json.dumps(got, allow_nan=False)) == got
