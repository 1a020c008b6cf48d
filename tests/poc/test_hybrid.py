"""Mixes over time and over prompts: schedules by hand, the switch, partial labels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poc import pilot, rewards
from poc.config import RunConfig, Schedule, Switch
from poc.objective import advantages
from poc.records import Episode, Example, Group, Verdict
from poc.rewards import hybrid
from poc.rewards.semantic import Limits
from poc.trainer import reward_tables

MIX = {"self_certainty": 1.0, "verifiable": 0.5}


def group(answer, meanings, certainty):
    verdict = None if answer is None else Verdict("correct", True, True)
    wrong = None if answer is None else Verdict("wrong", True, False)
    episodes = [
        Episode((1,), "", True, (-1.0,), (0.5,), (c,), verdict if i == 0 else wrong, "7", True)
        for i, c in enumerate(certainty)
    ]
    return Group(Example("q", "?", answer, "math"), (1,), tuple(episodes), meanings=meanings)


def test_schedules_by_hand():
    def at(step, **plan):
        return hybrid.weights_at(step, 11, MIX, {"self_certainty": Schedule(**plan)}, None)["self_certainty"]

    assert [at(s) for s in (1, 6, 11)] == pytest.approx([1.0, 0.5, 0.0])
    assert [at(s, to=3.0) for s in (1, 6, 11)] == pytest.approx([1.0, 2.0, 3.0])
    assert [at(s, shape="cosine", over=5) for s in (1, 2, 3, 5, 11)] == pytest.approx(
        [1.0, 0.5 + math.cos(math.pi / 4) / 2, 0.5, 0.0, 0.0]
    )
    assert [at(s, shape="constant") for s in (1, 6, 11)] == [1.0, 1.0, 1.0]
    assert at(1, over=1) == 0.0
    assert hybrid.weights_at(4, 11, MIX, {"self_certainty": Schedule()}, None)["verifiable"] == 0.5  # has no schedule


@given(st.sampled_from(["linear", "cosine"]), st.integers(1, 50), st.floats(-2, 2), st.floats(-2, 2))
def test_a_schedule_stays_between_its_ends_and_arrives(shape, over, first, last):
    plan = {"random": Schedule(shape=shape, to=last, over=over)}
    values = [hybrid.weights_at(s, 60, {"random": first}, plan, None)["random"] for s in range(1, 61)]
    assert values[-1] == pytest.approx(last) and (over == 1 or values[0] == first)
    assert all(min(first, last) - 1e-9 <= v <= max(first, last) + 1e-9 for v in values)


def test_the_switch_waits_for_three_steps_and_never_goes_back():
    switch = Switch(entropy=0.5)
    assert not hybrid.has_switched(None, [0.0] * 9)
    assert not hybrid.has_switched(switch, [0.1, 0.1])
    assert not hybrid.has_switched(switch, [0.9, 0.1, 0.6])  # one quiet step is noise
    assert not hybrid.has_switched(switch, [0.9, 0.6, 0.1])
    assert hybrid.has_switched(switch, [0.9, 0.6, 0.5, 0.4])
    assert hybrid.has_switched(switch, [0.5, 0.5, 0.5, 9.0, 9.0, 9.0])
    assert hybrid.has_switched(Switch(entropy=0.5, step=2), [0.9, 0.9])
    assert not hybrid.has_switched(Switch(step=2), [0.0])


def test_after_the_switch_the_other_parts_speak():
    assert hybrid.weights_at(1, 9, MIX, {}, False) == {"self_certainty": 1.0, "verifiable": 0.0}
    assert hybrid.weights_at(5, 9, MIX, {}, True) == {"self_certainty": 0.0, "verifiable": 0.5}


def test_who_speaks_where():
    labelled, unlabelled = group("7", (0, 0, 1), (1, 2, 3)), group(None, (0, 0, 1), (1, 2, 3))
    assert hybrid.speaks("verifiable", labelled, Limits(), True)
    assert not hybrid.speaks("verifiable", unlabelled, Limits(), True)
    assert not hybrid.speaks("self_certainty", labelled, Limits(), True)
    assert hybrid.speaks("self_certainty", unlabelled, Limits(), True)
    assert hybrid.speaks("self_certainty", labelled, Limits(), False)  # without partial labels all speak everywhere
    assert not hybrid.speaks("semantic_entropy", group(None, (0, 0, 0), (1, 2, 3)), Limits(), True)
    assert hybrid.speaks("majority_vote", group(None, (0, 0, 0), (1, 2, 3)), Limits(), True)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_partial_labels_route_each_prompt_to_its_part(fraction):
    config = RunConfig(reward=MIX, label_fraction=fraction)
    certainty = (1.0, 2.0, 4.0)
    groups = [group("7", (0, 0, 1), certainty), group(None, (0, 0, 1), certainty)]
    groups = {0.0: groups[1:] * 2, 0.5: groups, 1.0: groups[:1] * 2}[fraction]
    parts, volume = reward_tables(rewards.select(config), MIX, groups, config, routed=True)
    total = advantages(parts, volume)
    checked = 0.5 * torch.tensor([2 / 3, -1 / 3, -1 / 3]).double() / (3**-0.5 + 1e-4)
    sure = torch.tensor([-4 / 3, -1 / 3, 5 / 3]).double() / (torch.tensor(certainty).double().std() + 1e-4)
    wanted = {0.0: [sure, sure], 0.5: [checked, sure], 1.0: [checked, checked]}[fraction]
    assert torch.allclose(total, torch.stack(wanted))


def test_a_dropped_group_has_no_gradient_and_others_keep_theirs():
    groups = [group(None, (0, 1, 1), (1, 2, 3)), group(None, (0, 0, 0), (1, 2, 3))]  # H of the first: 0.58 of ln 3

    def tables(high):
        config = RunConfig(reward={"semantic_entropy": 1.0}, semantic={"high": high})
        return reward_tables(rewards.select(config), {"semantic_entropy": 1.0}, groups, config)

    assert torch.equal(advantages(*tables(0.5)), torch.zeros(2, 3).double())
    parts, volume = tables(0.7)
    assert advantages(parts, volume)[0].abs().min() > 0 and volume["semantic_entropy"].tolist() == [[1.0], [0.0]]


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_hidden_labels_are_gone_and_fractions_are_nested(count, one, other, seed):
    examples = [Example(f"q{i}", "?", None if i % 4 == 3 else str(i), "math") for i in range(count)]
    few, many = sorted((one, other))
    shown = [{e.id for e in hybrid.hide_labels(examples, f, seed) if e.answer is not None} for f in (few, many)]
    labelled = sum(e.answer is not None for e in examples)
    assert [len(s) for s in shown] == [round(f * labelled) for f in (few, many)]
    assert shown[0] <= shown[1]
    assert [e.id for e in hybrid.hide_labels(examples, one, seed)] == [e.id for e in examples]


def test_hidden_labels_change_with_the_seed():
    examples = [Example(f"q{i}", "?", "1", "math") for i in range(40)]
    kept = [tuple(e.id for e in hybrid.hide_labels(examples, 0.5, s) if e.answer) for s in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]


def test_a_run_sees_only_its_share_of_the_labels():
    config = pilot.resolve(RunConfig(reward=MIX, label_fraction=0.1))
    examples = [Example(f"q{i}", "?", "1", "math") for i in range(50)]
    assert sum(e.answer is not None for e in pilot.training_questions(config, examples)) == 5
    assert pilot.training_questions(pilot.resolve(RunConfig()), examples) == examples
