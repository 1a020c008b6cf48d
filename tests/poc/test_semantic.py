"""Agreement rewards: hand-worked groups, invariances, thresholds, and what counts as an answer."""

import math
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.objective import advantages
from poc.records import Episode, Example, Group
from poc.rewards import meanings, semantic
from poc.rewards.semantic import Limits, entropy, kept, majority_vote, semantic_entropy

SUM = Example("q1", "17+25=?", None, "math")
OWN = Example("q2", "Which planet of the solar system is the largest of all, and why?", None, "own")
labels = st.lists(st.none() | st.integers(0, 3), min_size=2, max_size=10)
spellings = st.lists(st.sampled_from([None, "4", "4.0", "+4", "0x4", "Four", "four.", "", "5"]), min_size=2, max_size=8)


def episode(answer=None, text="", finished=True):
    return Episode((1,), text, finished, (-1.0,), (0.5,), (2.0,), answer=answer)


def group(*answers, example=SUM):
    return Group(example, (1,), tuple(map(episode, answers)))


def meant(*labels):
    return replace(group(*[None] * len(labels)), meanings=tuple(labels))


def test_shares_votes_and_entropy_by_hand():
    g = meant(0, 0, 1, None)
    assert semantic_entropy(g) == [0.5, 0.5, 0.25, 0.0]
    assert majority_vote(g) == [1, 1, 0, 0]
    assert entropy(g.meanings) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert semantic.agreement(g) == 0.5
    assert majority_vote(meant(0, 0, 1, 1, 2)) == [1, 1, 1, 1, 0]  # no draw decides a tie
    assert majority_vote(meant(0, 1, None, None)) == [0, 0, 0, 0]  # one vote is no majority, or format would be paid


def test_without_an_answer_there_is_nothing_to_win():
    g = meant(None, None, None)
    assert semantic_entropy(g) == majority_vote(g) == [0, 0, 0] and semantic.agreement(g) == 0
    assert entropy(g.meanings) == pytest.approx(math.log(3))  # they do not agree on anything
    assert semantic_entropy(meant(None, None, None, 0))[-1] > 0  # one answer beats many blanks


@given(labels, st.randoms())
def test_permuting_a_group_permutes_its_rewards(given_labels, random):
    order = random.sample(range(len(given_labels)), len(given_labels))
    shuffled = [given_labels[i] for i in order]
    for reward in (semantic_entropy, majority_vote):
        assert reward(meant(*shuffled)) == [reward(meant(*given_labels))[i] for i in order]
    assert entropy(shuffled) == pytest.approx(entropy(given_labels))


@given(labels)
def test_entropy_is_that_of_the_shares(given_labels):
    blanks = given_labels.count(None)
    sizes = [given_labels.count(x) for x in {*given_labels} - {None}] + [1] * blanks
    p = torch.tensor(sizes, dtype=torch.float64) / len(given_labels)
    assert entropy(given_labels) == pytest.approx(-(p * p.log()).sum().item(), abs=1e-12)
    assert -1e-12 <= entropy(given_labels) <= math.log(len(given_labels)) + 1e-12


@given(st.integers(2, 32), st.booleans())
def test_one_cluster_and_all_different_give_zero_advantage(size, agree):
    g = meant(*([0] * size if agree else range(size)))
    for reward in (semantic_entropy, majority_vote):
        part = torch.tensor([reward(g)], dtype=torch.float64)
        assert torch.equal(advantages({"r": part}, {"r": 1.0}), torch.zeros(1, size, dtype=torch.float64))
    assert not kept(g, Limits())


def test_thresholds_are_strict_in_nats_and_in_shares():
    g = meant(0, 0, 1, 1)  # H = ln 2, half of ln 4
    assert kept(g, Limits(None, None)) and kept(g, Limits(0.0, 1.0)) and kept(g, Limits(0.4, 0.6))
    assert not kept(g, Limits(0.5, 1.0)) and not kept(g, Limits(0.0, 0.5))
    assert kept(g, Limits(0.6, 0.8, "nats")) and not kept(g, Limits(0.0, 0.6, "nats"))
    assert not kept(g, Limits(0.7, None, "nats"))
    assert kept(meant(0, 0), Limits(None, None))


@given(spellings, st.randoms())
def test_equal_spelling_clusters_in_any_order(answers, random):
    order = random.sample(range(len(answers)), len(answers))
    one = meanings.exact(group(*answers))
    other = meanings.exact(group(*[answers[i] for i in order]))
    assert [one[i] == one[j] for i in order for j in order] == [a == b for a in other for b in other]
    assert [x is None for x in one] == [not answer for answer in answers]


def test_exact_knows_numbers_and_ignores_case():
    assert meanings.exact(group("4", "4.0", "+4", "1,000", "1000", "Rome", "rome.", None)) == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        None,
    ]


@pytest.mark.parametrize(
    "answer, copied",
    [
        ("Which planet of the solar system is the largest of all, and why?", True),
        ("which planet of the solar system is the largest", True),
        ("my answer to the question: the planet of all planets is the largest", False),  # half its words are its own
        ("Jupiter", False),
        ("the largest", False),  # few words of a question may be its answer
        ("Jupiter is the largest of all planets of the solar system", False),
        ("“Which; planet-of_the\u200bsolar system is ... the \\text{largest of all, and why}”", True),
        ("The largest planet of the solar system of all is Jupiter", False),
        ("Which planet of the solar system is the largest of all, and why? Jupiter", False),  # it says something new
        ("all, which planet of the solar system is the largest of, and why", False),  # its words, not its order
        ("of all, and why", False),  # a span may be asked for
    ],
)
def test_a_copy_of_the_question_is_no_answer(answer, copied):
    assert meanings.copies(answer, OWN.question) == copied
    assert (meanings.exact(group(answer, "Mars", example=OWN))[0] is None) == copied


@pytest.mark.parametrize(
    "answer, question, copied",
    [
        ("12*7", "Compute 12*7.", True),
        ("12 \\times 7", "Compute 12 × 7.", True),
        ("(2+2)", "What is 2+2?", True),
        ("2+2=", "What is $2+2$?", True),
        ("17-5", "What is 17-5?", True),
        ("6/3", "What is 6/3?", True),
        ("\\sqrt{16}", "What is \\sqrt{16}?", True),
        ("84", "Compute 12*7.", False),
        ("-5", "Is 5 or -5 the smaller?", False),
        ("2/3", "Which is larger, 1/2 or 2/3?", False),
        ("01/05/2024", "Which day do you mean, 01/05/2024 or 02/05/2024?", False),
        ("e^x", "What is the derivative of e^x?", False),
        ("x=2", "Is it x=2 or x=3?", False),
        ("C++", "Is it C++ or Java?", False),
        ("km/h", "Is it in km/h or in mph?", False),
        (
            "3-2",
            "In the final, which went on for hours and was watched by many, they won 3-2. What was the score?",
            False,
        ),
        ("1 2 3 4 5", "Sort ascending: 1 2 3 4 5", False),
        ("New York City in America", "Which: New York City in America, or Rome?", False),
        ("The French Revolution of 1789", "Which came first: The French Revolution of 1789, or WW1?", False),
        (
            "The first president of the United States of America was George Washington",
            "Who was the first president of the United States of America?",
            False,
        ),
        ("東京都の人口はどのくらいですか", "東京都の人口はどのくらいですか？", True),
        ("約1400万人", "東京都の人口はどのくらいですか？", False),
    ],
)
def test_a_formula_or_a_sentence_of_the_question_is_no_answer(answer, question, copied):
    assert meanings.copies(answer, question) == copied


def test_a_hostile_sum_takes_no_time():
    endless = "1+" * 20_000
    began = time.monotonic()
    assert not meanings._repeats_sum(endless + "x", f"What is {endless}x?")
    assert time.monotonic() - began < 2  # bounded: milliseconds


BLANKS = [
    "#", "#\u200b", "#\u2800", "#\u3164", "\\boxed{\\,}", "#{}", "#$", "#$$", "#%", "#()", "\\boxed{\\text{}}",
    "<answer> </answer>", "#...", "\\boxed{\\quad}", "\\boxed{\\phantom{x}}", "#&nbsp;", "#\\hspace{1cm}", "#\\hfill",
    "#\\enspace", "#\\frac{}{}", "#<br>", "#\u0640", "#\\begin{aligned}\\end{aligned}",
]  # fmt: skip


@pytest.mark.parametrize("blank", BLANKS)
def test_blanks_are_no_answers(blank):
    assert tasks.read(OWN, blank).answer is None


@pytest.mark.parametrize("sign", ["<", "≤", "+", "-", "🙂", "✓", "→", "∈", "♥", "\\infty", "\\boxed{\\pi}", "C", "東"])
def test_one_sign_may_be_an_answer(sign):
    assert tasks.read(OWN, sign if "boxed" in sign else f"#{sign}").answer


def test_numbers_of_a_generated_question_are_no_copies():
    assert meanings.exact(group("17", "25")) == [0, 1]


def test_only_free_text_may_stand_without_a_mark():
    episodes = (episode(text="Jupiter "), episode(text="Jupi", finished=False), episode("Mars", "so: #Mars"))
    g = Group(OWN, (1,), episodes)
    assert meanings.answers(g) == [None, None, "Mars"]
    assert meanings.answers(g, unmarked=True) == ["Jupiter", None, "Mars"]


def test_a_clustering_of_the_wrong_size_is_an_error():
    with pytest.raises(ValueError, match="1 meanings for 2 completions of q1"):
        meanings.with_meanings(group("1", "2"), lambda g: [0])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(-100, 100))
def test_a_constant_added_to_a_reward_changes_nothing(values, constant):
    part = torch.tensor([values], dtype=torch.float64).round(decimals=3)  # so that the sum below is not all rounding
    one, other = (advantages({"r": x}, {"r": 1.0}) for x in (part, part + round(constant, 3)))
    assert torch.allclose(one, other, atol=1e-6)
