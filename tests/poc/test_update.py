"""The packed, micro-batched update against a plain one, and what must never reach the weights."""

import pytest
import torch

from poc.config import Train
from poc.objective import policy_loss
from poc.packing import batches
from poc.records import Example, Group, NonFinite
from poc.rollout import sample
from poc.update import optimise, token_logp

PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25]]
ADVANTAGES = torch.tensor([[1.0, -1.0, 0.0, 0.5], [0.3, 0.0, -2.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def groups(tiny_policy):
    drawn = sample(tiny_policy, PROMPTS, 4, max_new_tokens=12, temperature=1.0, seed=3)
    example = Example("a", "?", "1", "math")
    return [Group(example, tuple(p), tuple(e)) for p, e in zip(PROMPTS, drawn, strict=True)]


def gradients(policy):
    return torch.cat([p.grad.flatten() for p in policy.trainable()])


def plain_gradients(policy, groups, config):
    """One completion at a time, full logits, autograd through log_softmax."""
    total = sum(len(e) for g in groups for e in g.episodes)
    for group, row in zip(groups, ADVANTAGES, strict=True):
        for episode, advantage in zip(group.episodes, row, strict=True):
            ids = torch.tensor([[*group.prompt_ids, *episode.token_ids]])
            logits = policy.model(ids).logits[0, len(group.prompt_ids) - 1 : -1] / config.temperature
            logp = logits.log_softmax(-1).gather(1, torch.tensor(episode.token_ids)[:, None]).squeeze(1)
            a = torch.full_like(logp, float(advantage))
            policy_loss(logp, torch.tensor(episode.logp), a, tokens=total, clip=config.clip).loss.backward()
    got = gradients(policy)
    policy.model.zero_grad()
    return got


@pytest.mark.parametrize("size", [1, 3, 100])
def test_gradient_equals_the_plain_one_for_any_micro_batch(tiny_policy, groups, size):
    config = Train(micro_batch=size, max_grad_norm=1e9)
    expected = plain_gradients(tiny_policy, groups, config)
    optimise(tiny_policy, torch.optim.SGD(tiny_policy.trainable(), lr=0.0), groups, ADVANTAGES, config)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(gradients(tiny_policy), expected, atol=1e-6, rtol=1e-4)


def test_prompt_tokens_and_padding_are_not_trained_and_the_end_token_is(tiny_policy, groups):
    (batch,) = batches(groups, ADVANTAGES, 100, tiny_policy, all_rows=True)
    here = (batch.source % batch.input_ids.shape[1]).tolist()
    rows = batch.source // batch.input_ids.shape[1]
    assert len(batch.targets) == sum(len(e) for g in groups for e in g.episodes)
    assert batch.segments[rows, here].min() == 0 and (batch.input_ids[batch.segments == -1] == 0).all()
    trained = sorted(batch.targets.tolist())
    assert trained == sorted(t for g in groups for e in g.episodes for t in e.token_ids)
    completions = {tuple(row[part == k].tolist()) for row, part in zip(batch.input_ids, batch.segments, strict=True)
                   for k in range(1, int(part.max()) + 1)}  # fmt: skip
    assert completions == {e.token_ids for g in groups for e in g.episodes}


def test_on_policy_ratio_is_one(tiny_policy, groups):
    (batch,) = batches(groups, ADVANTAGES, 100, tiny_policy, all_rows=True)
    with torch.no_grad():
        new = token_logp(tiny_policy, batch, 1.0)
    assert torch.allclose(new, batch.old_logp, atol=1e-4)


def test_passes_over_a_rollout_move_the_ratio_and_clip(tiny_policy, groups):
    optimizer = torch.optim.AdamW(tiny_policy.trainable(), lr=0.05)
    for _ in range(6):
        record = optimise(tiny_policy, optimizer, groups, ADVANTAGES, Train(kl=0.1))
    assert record.clip_fraction > 0 and record.kl > 0


def test_kl_is_zero_at_the_start_and_without_it_the_start_model_is_not_run(tiny_policy, groups):
    optimizer = torch.optim.SGD(tiny_policy.trainable(), lr=0.0)
    assert optimise(tiny_policy, optimizer, groups, ADVANTAGES, Train(kl=0.5)).kl == pytest.approx(0, abs=1e-9)
    tiny_policy.adapter_off = None
    optimise(tiny_policy, optimizer, groups, ADVANTAGES, Train())


def test_all_equal_groups_change_nothing(tiny_policy, groups):
    before = [p.detach().clone() for p in tiny_policy.trainable()]
    optimizer = torch.optim.AdamW(tiny_policy.trainable(), lr=0.1, weight_decay=0.1)
    record = optimise(tiny_policy, optimizer, groups, torch.zeros_like(ADVANTAGES), Train())
    assert record.loss == 0 and record.grad_norm == 0
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_policy.trainable(), strict=True))


@pytest.mark.parametrize("where", ["advantage", "weights"])
def test_nothing_non_finite_reaches_the_weights(tiny_policy, groups, where):
    advantages = ADVANTAGES.clone()
    if where == "advantage":
        advantages[0, 0] = float("nan")
    else:
        tiny_policy.trainable()[0].data[0, 0] = float("inf")
    before = [p.detach().clone() for p in tiny_policy.trainable()]
    with pytest.raises(NonFinite, match="gradient norm"):
        optimise(tiny_policy, torch.optim.AdamW(tiny_policy.trainable()), groups, advantages, Train())
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_policy.trainable(), strict=True))


def test_a_completion_without_an_advantage_is_computed_only_where_it_counts(tiny_policy, groups):
    def trained(all_rows: bool) -> int:
        return sum(len(batch.targets) for batch in batches(groups, ADVANTAGES, 3, tiny_policy, all_rows))

    rows = [(e, a) for g, row in zip(groups, ADVANTAGES, strict=True) for e, a in zip(g.episodes, row, strict=True)]
    assert trained(False) == sum(len(e) for e, a in rows if a) < trained(True) == sum(len(e) for e, _ in rows)
