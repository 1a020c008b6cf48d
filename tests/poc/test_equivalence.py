"""Rank correlations and gradient cosines of rewards: hand-worked and float64 truths, and a run that does not notice."""

import itertools
import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from vocab_kernels import token_stats

from poc import cli, equivalence, pilot
from poc.config import RunConfig, Train
from poc.configfile import load
from poc.display import Watch
from poc.equivalence import NAMES, PAIRS, cosine, gradient, measure, rank_agreement, rank_correlation, tied
from poc.equivalence_page import page, rows
from poc.objective import advantages, policy_loss
from poc.records import Episode, Example, Group, InputError, RunError, Verdict
from poc.rewards import REWARDS
from poc.rewards.meanings import exact, with_meanings
from poc.rollout import sample
from poc.update import optimise

SMALL = [
    "data.train=16", "data.holdout=4", "data.canary=2", "train.prompts_per_step=4", "train.group_size=6",
    "train.max_new_tokens=8", "evaluate.every=2", "evaluate.samples=2", "lora.rank=4", "train.steps=4",
]  # fmt: skip
PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30, 31]]
ANSWERS = ("1", "1", "2", "3", None, "1")


@pytest.fixture
def config(tiny_folder):
    return pilot.resolve(load(RunConfig, None, [f"model={tiny_folder}", *SMALL]))


def warm(policy):
    """Away from the fresh adapter, where half of the gradient is 0."""
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.trainable():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return policy


def made(policy, answers=ANSWERS, gold="1"):
    """Sampled groups with answers laid over them."""
    drawn = sample(policy, PROMPTS, len(answers), max_new_tokens=10, temperature=1.0, seed=3)
    groups = []
    for i, (prompt, episodes) in enumerate(zip(PROMPTS, drawn, strict=True)):
        told = [replace(e, answer=a, verdict=_verdict(a, gold)) for e, a in zip(episodes, answers, strict=True)]
        groups.append(with_meanings(Group(Example(f"q{i}", "?", gold, "math"), tuple(prompt), tuple(told)), exact))
    return groups


def _verdict(answer, gold):
    return None if gold is None else Verdict("correct" if answer == gold else "wrong", True, True)


def in_float64(policy):
    policy.model.double()
    policy.head = replace(policy.head, weight=policy.head.weight.double())
    return policy


def advantage_of(name, groups):
    part = torch.tensor([REWARDS[name](group) for group in groups], dtype=torch.float64)
    return advantages({name: part}, {name: 1.0})


def full_logits_loss(policy, groups, advantage, config):
    """One completion at a time through the model's own logits."""
    total = sum(len(e) for g in groups for e in g.episodes)
    loss = 0
    for group, row in zip(groups, advantage, strict=True):
        for episode, value in zip(group.episodes, row, strict=True):
            ids = torch.tensor([[*group.prompt_ids, *episode.token_ids]])
            logits = policy.model(ids).logits[0, len(group.prompt_ids) - 1 : -1] / config.temperature
            logp = logits.log_softmax(-1).gather(1, torch.tensor(episode.token_ids)[:, None]).squeeze(1)
            old = torch.tensor(episode.logp).to(logp.dtype)
            a = torch.full_like(logp, float(value))
            loss = loss + policy_loss(logp, old, a, tokens=total, clip=config.clip).loss
    return loss


def test_self_certainty_and_entropy_both_rise_in_the_worked_counter_example():
    logits = torch.tensor([[0.98, 0.01, 0.01], [0.5, 0.4999, 0.0001]], dtype=torch.float64).log()
    seen = token_stats(logits, torch.tensor([0, 0]))
    assert seen.entropy.tolist() == pytest.approx([0.112, 0.694], abs=5e-4)
    assert seen.self_certainty.tolist() == pytest.approx([1.978, 2.434], abs=5e-4)
    columns = [column.tolist() for column in seen]
    episodes = tuple(
        Episode((i,), "", True, (x,), (h,), (c,)) for i, (x, h, c) in enumerate(zip(*columns, strict=True))
    )
    group = Group(Example("q", "?", None, "math"), (1,), episodes)
    certainty, entropy, trajectory = (REWARDS[name](group) for name in NAMES[:3])
    assert rank_correlation(certainty, entropy) == -1
    assert rank_correlation(certainty, trajectory) == -1 and rank_correlation(entropy, trajectory) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=10))
def test_rank_correlation_is_spearmans_with_ties(pairs):
    a, b = ([float(x) for x in column] for column in zip(*pairs, strict=True))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert rank_correlation(a, b) is None
    else:
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
        assert rank_correlation(a, a) == pytest.approx(1, abs=1e-12)
        assert rank_correlation(a, [-x for x in a]) == pytest.approx(-1, abs=1e-12)


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)  # 1 - 6 (0+1+1+0) / (4 * 15)
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))  # ranks 1.5 1.5 3


def test_rank_agreement_counts_only_groups_that_vary_in_both():
    a, b = [[1, 2, 3], [1, 1, 1], [1, 2, 3], [3, 2, 1]], [[1, 2, 3], [1, 2, 3], [5, 5, 5], [1, 2, 3]]
    found = rank_agreement(a, b)
    assert found["groups"] == 2 and found["value"] == 0 and -1 <= found["low"] < 0 < found["high"] <= 1
    assert rank_agreement(a[1:3], b[1:3]) == {"value": None, "low": None, "high": None, "groups": 0}
    assert all(rank_agreement(*zip(*order, strict=True)) == found for order in itertools.permutations(zip(a, b)))  # noqa: B905


def test_equal_completions_are_ties_whatever_rounding_says():
    episodes = [Episode(ids, "", True, (0.0,), (0.0,), (0.0,)) for ids in ((1,), (2,), (1,), (1, 2))]
    group = Group(Example("q", "?", None, "math"), (1,), tuple(episodes))
    ((a, b, c, d),) = tied(torch.tensor([[0.3, 0.1, 0.3 + 1e-9, 0.2]], dtype=torch.float64), [group])
    assert a == c != b and (b, d) == (0.1, 0.2)


def test_measured_ranks_do_not_see_rounding_between_equal_completions(tiny_policy, config):
    def with_copies(noise):
        one, two, *rest = group.episodes
        copies = [replace(one, self_certainty=tuple(x + k * noise for x in one.self_certainty)) for k in (0, 1, -1)]
        return replace(group, episodes=(*copies, two, *rest[:-2]))

    group = made(tiny_policy)[1]
    plain, noisy = (measure(1, [with_copies(noise)], tiny_policy, config)["rank"] for noise in (0, 1e-12))
    assert plain == noisy


def test_cosine_with_itself_its_negation_and_by_hand():
    a = torch.tensor([3.0, 4.0])
    assert cosine(a, a) == pytest.approx(1, abs=1e-12) and cosine(a, -2 * a) == pytest.approx(-1, abs=1e-12)
    assert cosine(a, torch.tensor([4.0, 3.0])) == pytest.approx(0.96)
    assert cosine(a, torch.zeros(2)) is cosine(a, None) is None
    huge = torch.tensor([3e25, 4e25])  # squares that float32 does not hold
    assert cosine(huge, a) == pytest.approx(1, abs=1e-6)


def test_negated_reward_has_the_opposite_gradient(tiny_policy):
    groups, train = made(warm(tiny_policy)), Train()
    advantage = advantage_of("self_certainty", groups)
    plus, minus = (gradient(tiny_policy, groups, sign * advantage, train) for sign in (1, -1))
    assert plus.norm() > 1e-3 and cosine(plus, minus) == pytest.approx(-1, abs=1e-9)


@pytest.mark.parametrize("name", ["self_certainty", "trajectory_entropy", "semantic_entropy", "verifiable"])
@pytest.mark.parametrize("size, temperature", [(2, 1.0), (100, 0.7)])
def test_gradient_is_that_of_full_logits_in_float64(tiny_policy, name, size, temperature):
    groups, train = made(in_float64(warm(tiny_policy))), Train(micro_batch=size, temperature=temperature)
    advantage = advantage_of(name, groups)
    loss = full_logits_loss(tiny_policy, groups, advantage, train)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, tiny_policy.trainable())])
    got = gradient(tiny_policy, groups, advantage, train)
    assert expected.norm() > 1e-3 and torch.allclose(got, expected, atol=1e-6 * expected.norm(), rtol=1e-5)


def test_gradient_is_the_slope_of_the_loss(tiny_policy):
    groups, train = made(in_float64(warm(tiny_policy))), Train()
    advantage, parameters = advantage_of("token_entropy", groups), tiny_policy.trainable()
    slopes = gradient(tiny_policy, groups, advantage, train).split([p.numel() for p in parameters])
    move = 1e-3  # the norms of the model compute in float32: a smaller one drowns in their rounding

    def loss():
        with torch.no_grad():
            return full_logits_loss(tiny_policy, groups, advantage, train).item()

    for parameter, slope in list(zip(parameters, slopes, strict=True))[::5]:
        parameter.data[0, 0] += move
        above = loss()
        parameter.data[0, 0] -= 2 * move
        below = loss()
        parameter.data[0, 0] += move
        assert slope[0].item() == pytest.approx((above - below) / (2 * move), rel=0.02, abs=1e-4)


def test_gradient_is_what_the_trainer_would_use_and_leaves_no_trace(tiny_policy):
    groups, train = made(warm(tiny_policy)), Train(max_grad_norm=1e9)
    advantage = advantage_of("self_certainty", groups)
    before, state = [p.detach().clone() for p in tiny_policy.trainable()], torch.get_rng_state()
    got = gradient(tiny_policy, groups, advantage, train)
    assert all(p.grad is None for p in tiny_policy.model.parameters()) and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_policy.trainable(), strict=True))
    record = optimise(tiny_policy, torch.optim.SGD(tiny_policy.trainable(), lr=0.0), groups, advantage, train)
    used = torch.cat([p.grad.flatten() for p in tiny_policy.trainable()])
    assert torch.equal(got, used) and record.grad_norm == pytest.approx(got.norm().item(), rel=1e-5)


def test_measured_values_are_those_of_the_rewards(tiny_policy, config):
    groups = made(warm(tiny_policy))
    found = measure(7, groups, tiny_policy, config)
    assert (found["step"], found["groups"]) == (7, 3) and set(found["norm"]) == set(NAMES)
    assert list(found["rank"]) == list(found["cosine"]) == [f"{a}/{b}" for a, b in PAIRS] and len(PAIRS) == 21
    for a, b in PAIRS:
        each = [spearmanr(REWARDS[a](group), REWARDS[b](group)).statistic for group in groups]
        rank = found["rank"][f"{a}/{b}"]
        assert rank["groups"] == 3 and rank["value"] == pytest.approx(sum(each) / 3, abs=1e-9)
        one, two = (gradient(tiny_policy, groups, advantage_of(name, groups), config.train) for name in (a, b))
        assert found["cosine"][f"{a}/{b}"] == pytest.approx(cosine(one, two), abs=1e-6)
    # answers 1 1 2 3 - 1 with gold 1: the majority is right, so the two rewards are one
    assert found["rank"]["majority_vote/verifiable"]["value"] == pytest.approx(1)
    assert found["cosine"]["majority_vote/verifiable"] == pytest.approx(1)
    assert found["entropy"] == pytest.approx(
        sum(sum(e.entropy) for g in groups for e in g.episodes) / sum(len(e) for g in groups for e in g.episodes)
    )


def test_what_is_undefined_is_none_and_json_has_no_nan(tiny_policy, config):
    found = measure(1, made(tiny_policy, ("2",) * 6), tiny_policy, config)
    json.dumps(found, allow_nan=False)
    for other in ("semantic_entropy", "majority_vote", "verifiable"):  # constant: all give the same wrong answer
        assert found["norm"][other] == 0 and found["rank"][f"self_certainty/{other}"]["value"] is None
        assert found["cosine"][f"self_certainty/{other}"] is None
    assert found["cosine"]["self_certainty/token_entropy"] is not None
    html = page([found], config.model_dump())
    assert (
        "None" not in html
        and "nan" not in html.lower()
        and dict((r[0], r[1]) for r in rows([found]))["self_certainty/verifiable"] == "-"
    )


def test_without_every_label_verifiable_has_no_gradient_but_ranks_where_it_can(tiny_policy, config):
    groups = made(tiny_policy)
    bare = replace(groups[0], example=replace(groups[0].example, answer=None),
                   episodes=tuple(replace(e, verdict=None) for e in groups[0].episodes))  # fmt: skip
    found = measure(1, [bare, *groups[1:]], tiny_policy, config)
    assert found["norm"]["verifiable"] is None and found["cosine"]["token_entropy/verifiable"] is None
    assert found["rank"]["token_entropy/verifiable"]["groups"] == 2
    assert found["rank"]["token_entropy/majority_vote"]["groups"] == 3


def test_labels_given_to_a_share_do_not_silence_the_other_rewards(tiny_policy, config):
    groups = made(tiny_policy)
    routed = config.model_copy(update={"reward": {"self_certainty": 1.0, "verifiable": 1.0}, "label_fraction": 1.0})
    assert measure(1, groups, tiny_policy, routed) == measure(1, groups, tiny_policy, config)


def test_order_of_groups_does_not_matter(tiny_policy, config):
    groups = made(warm(tiny_policy))
    one, two = measure(1, groups, tiny_policy, config), measure(1, groups[::-1], tiny_policy, config)
    assert one["rank"] == two["rank"]
    assert one["cosine"] == pytest.approx(two["cosine"], abs=1e-5) and one["norm"] == pytest.approx(two["norm"], 1e-5)


def test_a_gradient_that_is_not_finite_ends_the_run(tiny_policy, config):
    groups = made(tiny_policy)
    tiny_policy.trainable()[0].data[0, 0] = float("inf")
    with pytest.raises(RunError, match="step 3.*self_certainty"):
        measure(3, groups, tiny_policy, config)


def test_measuring_does_not_change_the_training(tmp_path, config):
    """Same steps, same samples, same adapter, to the bit, with every option that touches the update."""
    config = config.model_copy(update={"train": config.train.model_copy(update={"kl": 0.1, "inner_epochs": 2})})
    for name, observer in (("plain", None), ("measured", equivalence.observer)):
        job = pilot.Job(tmp_path / name, "toy", None, config)
        state = torch.get_rng_state()
        assert pilot.run([job], pilot.prepare([job]), Watch(4, live=False), lambda: False, observer) == "done"
        assert torch.equal(state, torch.get_rng_state())
    for path in ("samples.jsonl", "checkpoints/step-000004/adapter_model.safetensors"):
        assert (tmp_path / "plain" / path).read_bytes() == (tmp_path / "measured" / path).read_bytes()
    plain, measured = ([json.loads(x) for x in (tmp_path / n / "steps.jsonl").open()] for n in ("plain", "measured"))
    assert all(one | {"timing": 0} == two | {"timing": 0} for one, two in zip(plain, measured, strict=True))
    found = [json.loads(line) for line in (tmp_path / "measured" / equivalence.FILE).open()]
    assert [line["step"] for line in found] == [1, 2, 4] and not (tmp_path / "plain" / equivalence.FILE).exists()
    assert [line["entropy"] for line in found] == [plain[i]["entropy"] for i in (0, 1, 3)]


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["poc", "equivalence", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, capsys.readouterr()


def test_the_command_leaves_table_and_page(tmp_path, tiny_folder, monkeypatch, capsys):
    sets = [x for key in [f"model={tiny_folder}", *SMALL] for x in ("--set", key)]
    code, shown = command(monkeypatch, capsys, "--out", str(tmp_path / "run"), *sets)
    assert code == 0 and "self_certainty/token_entropy: rank correlation " in shown.out
    html = (tmp_path / "run" / "equivalence.html").read_text()
    assert html.count("<svg") == 11 and "<script" not in html and "self_certainty/verifiable" in html
    assert [p.name for p in (tmp_path / "run").glob(".*")] == [".lock"]


def test_bad_input_starts_and_overwrites_nothing(tmp_path, monkeypatch, capsys):
    code, shown = command(monkeypatch, capsys, "--set", "train.group_size=2", "--out", str(tmp_path / "run"))
    assert code == 2 and "group_size = 2" in shown.err and shown.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    (tmp_path / equivalence.FILE).write_text("{}")
    code, shown = command(monkeypatch, capsys, "--out", str(tmp_path))
    assert code == 2 and "not empty" in shown.err and [p.name for p in tmp_path.iterdir()] == [equivalence.FILE]
    equivalence.check(load(RunConfig, None, ["train.group_size=3"]))
    with pytest.raises(InputError):
        equivalence.check(load(RunConfig, None, ["train.group_size=2"]))


def test_names_from_outside_stay_text_on_the_page(tiny_policy, config):
    found = measure(1, made(tiny_policy), tiny_policy, config)
    html = page([found], config.model_dump() | {"model": "<script>alert(1)</script>\u202e{css}"})
    assert "<script" not in html and "\u202e" not in html and "{css}" in html
