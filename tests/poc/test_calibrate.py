"""Measuring a policy's speed changes nothing, and what it finds are sensible constants."""

import random
from dataclasses import asdict, replace
from itertools import count

import numpy as np
import pytest
import torch

from poc import calibrate, cost
from poc.calibrate import Sizes
from poc.config import Train
from poc.records import Example
from poc.update import new_optimizer
from tests.poc.architectures import random_policy

SIZES = Sizes(rows=16, prompt=5, answer=4, micro_batch=8, together=4)
MEASURED = ("merge", "step", "prompt", "part", "token", "pair", "trained")


def state_of(policy, optimizer) -> list:
    """All that may not change: weights, gradients, the optimizer, random states, the policy itself."""
    weights = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    gradients = [None if p.grad is None else p.grad.clone() for p in policy.trainable()]
    chance = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    merged = [list(module.merged_adapters) for module in policy.adapted()]
    flags = [(p.requires_grad, p.dtype) for p in policy.model.parameters()]
    forwards = ["forward" in vars(layer) for layer in policy.layers()]
    return [weights, gradients, optimizer.state_dict(), chance, merged, flags, forwards, torch.is_grad_enabled()]


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("stepped", [False, True])
def test_nothing_is_changed(tiny_policy, recompute, stepped):
    optimizer = new_optimizer(tiny_policy, Train(learning_rate=0.01))
    if stepped:  # there are gradients and moments
        for p in tiny_policy.trainable():
            p.grad = torch.full_like(p, 0.01)
        optimizer.step()
    before = state_of(tiny_policy, optimizer)
    calibrate.measure(tiny_policy, replace(SIZES, recompute=recompute))
    assert same(before, state_of(tiny_policy, optimizer))
    assert all((p.grad is not None) == stepped for p in tiny_policy.trainable())


def test_constants_are_numbers_that_make_sense(tiny_policy):
    found = asdict(calibrate.measure(tiny_policy, SIZES))
    assert all(value >= 0 for value in found.values())
    assert found["merge"] > 0  # the others are differences of times: on a busy machine nothing may be left of one
    assert found["score"] == found["question"] == found["save"] == 0  # nobody measured them
    assert found["pair"] == pytest.approx(found["token"] * tiny_policy.attention_cost)


@pytest.mark.parametrize("kind, shares, packs", [("Bloom", True, False), ("Lfm2", False, False)])
def test_architectures_that_cannot_take_the_fast_ways(tmp_path, kind, shares, packs):
    policy = random_policy(kind, tmp_path)
    assert (policy.shares_prefix, policy.packs) == (shares, packs)
    found = calibrate.measure(policy, replace(SIZES, together=1))
    assert min(asdict(found).values()) >= 0 and found.merge > 0 and (shares or found.move == 0)


@pytest.mark.parametrize("sizes", [Sizes(1, 1, 1, 1, 1), Sizes(2, 1, 1, 3, 8), Sizes(1024, 200, 40, 2, 2)])
def test_the_smallest_run_and_prompts_near_the_end_of_the_context(tiny_policy, sizes):
    assert all(value >= 0 for value in asdict(calibrate.measure(tiny_policy, sizes)).values())


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("prompt, answer", [(150, 100), (250, 6)])
def test_no_token_lies_beyond_the_context(tmp_path, prompt, answer):
    """GPT-2 has no place for more than 256 tokens."""
    calibrate.measure(random_policy("GPT2", tmp_path), Sizes(4, prompt, answer, 2, 2))


def test_sampling_is_timed_merged_and_without_gradients(tiny_policy, monkeypatch):
    seen = []

    def decoding(policy, sizes, clock):
        seen.append((torch.is_grad_enabled(), all(module.merged for module in policy.adapted())))
        return (0.0,) * 5

    monkeypatch.setattr(calibrate, "_decoding", decoding)
    calibrate.measure(tiny_policy, SIZES)
    assert seen == [(False, True)]


def test_what_a_clock_says_is_what_is_found(tiny_policy, monkeypatch):
    """A decode step takes 10 + 2 n + 0.01 n w, a pass 5 + 0.1 u: the constants come out."""
    monkeypatch.setattr(calibrate, "_timed", lambda p, n, w, clock: (10 + 2 * n + 0.01 * n * w, None))
    monkeypatch.setattr(calibrate, "_prompt", lambda policy, length, step, clock: float(length))
    step, row, column, move, prompt = calibrate._decoding(tiny_policy, SIZES, None)
    assert (step, row, column, move, prompt) == pytest.approx((10, 2, 0.01, 0, calibrate.ASKED))
    times = iter([30.0, 10.0, 11.0])  # where there is no room for a longer prompt, a difference is noise
    monkeypatch.setattr(calibrate, "_timed", lambda policy, rows, prompt, clock: (next(times), None))
    assert calibrate._decoding(tiny_policy, replace(SIZES, prompt=250), None)[2] == 0
    monkeypatch.setattr(calibrate, "_pass", lambda policy, batch: None)
    times = iter([5 + 0.1 * calibrate._units(tiny_policy, calibrate._batch(tiny_policy, *at)) for at in
                  ((1, 1, 2, 1), (2, 4, 5, 4))])  # fmt: skip
    monkeypatch.setattr(calibrate, "_seconds", lambda call, clock: next(times))
    assert calibrate._updating(tiny_policy, SIZES, None) == pytest.approx((5, 0.1))


def test_a_pass_is_timed_as_large_as_the_runs(tiny_policy):
    batch = calibrate._batch(tiny_policy, -(-8 // 4), 4, 5, 4)
    assert batch.input_ids.shape == (2, 5 + 4 * 4) and len(batch.targets) == 32
    (counted,) = cost.passes([5, 5], [[4] * 4] * 2, 8, 0.0)[:1]
    assert (counted.rows, counted.length, counted.trained) == (2, 5 + 4 * 4, 32)


@pytest.mark.parametrize(
    "durations, expected, made",
    [
        ([9.0, 1.0], 9.0, 1),
        ([0.01, 0.06, 0.05, 0.07, 0.01], 0.05, 3),
        ([0.2, 0.2, 0.05], 0.2, 2),
        ([0.001] * 99, 0.001, 7),
    ],
)
def test_the_first_call_does_not_count_unless_it_is_the_only_one(durations, expected, made):
    """Long ones (over LONG) are not repeated; others until ENOUGH seconds have gone."""
    calls = count()
    ticks = iter([x for d in durations for x in (0.0, d)])
    assert calibrate._seconds(lambda: next(calls), lambda: next(ticks)) == expected
    assert next(calls) == made


def test_on_a_card_the_clock_waits(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    assert calibrate._after_all(torch.device("cuda"), lambda: 3.0)() == 3.0 and waited == [torch.device("cuda")]
    assert calibrate._after_all(torch.device("cpu"), lambda: 3.0)() == 3.0 and len(waited) == 1


def test_grading_and_summing_take_some_time():
    example = Example("a", "1 + 1 =", "2", "math")
    assert 0 < calibrate.grading([(example, "2#2"), (example, "3")])
    assert 0 < calibrate.summing(4, 2)
