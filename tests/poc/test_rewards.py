"""Rewards against hand-worked numbers."""

import math
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_kernels import token_stats

from poc import rewards
from poc.config import RunConfig
from poc.records import Episode, Example, Group, RunError, Verdict


def episode(logp=(-1.0,), entropy=(0.5,), certainty=(2.0,), status=None):
    verdict = status and Verdict(status, True, False)
    return Episode((1,) * len(logp), "", True, tuple(logp), tuple(entropy), tuple(certainty), verdict)


def group(*episodes, seed=0):
    return Group(Example("q1", "1+1=?", "2", "math"), (1, 2), episodes, seed)


def test_internal_rewards_are_means_over_tokens():
    g = group(episode((-1.0, -3.0), (0.5, 1.5), (2.0, 4.0)), episode((-0.5,), (0.25,), (1.0,)))
    assert rewards.self_certainty(g) == [3.0, 1.0]
    assert rewards.token_entropy(g) == [-1.0, -0.25]
    assert rewards.trajectory_entropy(g) == [-2.0, -0.5]
    assert rewards.trajectory_entropy(g, "sum") == [-4.0, -0.5]


def test_sum_pays_for_short_answers_and_mean_does_not():
    long, short = episode((-0.5,) * 10), episode((-1.0,) * 2)
    config = RunConfig(reward={"trajectory_entropy": 1.0})
    mean = rewards.select(config)["trajectory_entropy"](group(long, short))
    total = rewards.select(config.model_copy(update={"length_norm": "sum"}))["trajectory_entropy"](group(long, short))
    assert mean[0] > mean[1] and total[0] < total[1]


def test_verifiable_is_binary_and_refuses_unlabelled():
    assert rewards.verifiable(
        group(episode(status="correct"), episode(status="wrong"), episode(status="unparsable"))
    ) == [1, 0, 0]
    with pytest.raises(ValueError, match="q1 has no gold answer"):
        rewards.verifiable(group(episode()))


def test_random_ignores_the_completion_and_repeats_with_the_seed():
    good, bad = [episode(status="correct")] * 64, [episode((-9.0,), status="wrong")] * 64
    assert rewards.random(group(*good, seed=7)) == rewards.random(group(*bad, seed=7))
    assert rewards.random(group(*good, seed=7)) != rewards.random(group(*good, seed=8))
    assert 16 < sum(rewards.random(group(*good, seed=7))) < 48


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan], [math.inf, 0.0], [None, 1.0], ["1", 1.0]])
def test_a_bad_reward_is_an_error_that_names_it(values):
    with pytest.raises(RunError, match="reward mine of q1: "):
        rewards.apply("mine", lambda g: values, group(episode(), episode()))


def test_a_reward_that_raises_is_an_error_that_names_the_completion():
    def mine(g):
        return [1 / len(e.text) for e in g.episodes]

    texts = [replace(episode(), text=text) for text in ("a", "", "b")]
    with pytest.raises(RunError, match="reward mine of q1: completion 1 raises ZeroDivisionError"):
        rewards.apply("mine", mine, replace(group(*texts), meanings=(0, None, 1)))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6), st.integers(1, 9), st.integers(2, 60), st.sampled_from([0.5, 1.0, 1.7]), st.floats(0.1, 8)
)
def test_internal_rewards_equal_their_definitions_in_float64(seed, tokens, vocabulary, temperature, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(tokens, vocabulary, dtype=torch.float64, generator=generator)
    drawn = torch.randint(vocabulary, (tokens,), generator=generator)
    stats = token_stats(logits, drawn, temperature=temperature)
    g = group(episode(*(x.tolist() for x in stats)))
    p = torch.softmax(logits / temperature, -1)
    certainty = -(vocabulary * p).log().mean(-1)  # KL(U || p) = -(1/V) sum_v log(V p_v)
    entropy, logp = -(p * p.log()).sum(-1), p[range(tokens), drawn].log()
    wanted = certainty.mean(), -entropy.mean(), logp.mean()
    rewarded = rewards.self_certainty(g), rewards.token_entropy(g), rewards.trajectory_entropy(g)
    assert [r[0] for r in rewarded] == pytest.approx([w.item() for w in wanted], rel=1e-9, abs=1e-9)


@given(st.permutations(range(5)), st.integers(0, 10**6))
def test_permuting_a_group_permutes_every_reward_but_the_coin(order, seed):
    random = Random(seed)
    episodes = [
        replace(episode((-random.random(),), (random.random(),), (random.random(),), random.choice(["correct", "wrong"])),  # noqa: E501
                formatted=random.random() < 0.5, text=random.choice(["#Ann knight, Bob knave", "#", "Ann"]))
        for _ in range(5)
    ]  # fmt: skip
    labels = [random.choice([0, 1, None]) for _ in episodes]
    example = Example("q1", "Ann: no. Bob: yes.", "Ann knight, Bob knave", "logic")
    one = Group(example, (1,), tuple(episodes), meanings=tuple(labels))
    other = Group(example, (1,), tuple(episodes[i] for i in order), meanings=tuple(labels[i] for i in order))
    for name in rewards.REWARDS.keys() - {"random"}:
        values = rewards.apply(name, rewards.REWARDS[name], one)
        assert rewards.apply(name, rewards.REWARDS[name], other) == [values[i] for i in order]
