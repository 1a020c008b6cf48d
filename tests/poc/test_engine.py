"""The fast ways against the plain ones, architecture by architecture: same tokens, statistics, losses, gradients."""

from dataclasses import replace

import pytest
import torch
from vocab_kernels import linear_token_stats

import poc.update
from poc import abilities, decode
from poc.config import Train
from poc.packing import PADDING, batches, best_size, masks, pack
from poc.records import Episode, Example, Group
from poc.rollout import sample
from poc.update import gradients
from tests.poc.architectures import KINDS, WINDOW, random_policy, warm

FAST = ["Llama", "Qwen2", "Qwen3", "Mistral", "Gemma2", "Gemma3", "GPT2"]
PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31], [30], [40, 41, 42, 43]]
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")


@pytest.fixture(scope="module", params=list(KINDS))
def any_policy(request, tmp_path_factory):
    return request.param, random_policy(request.param, tmp_path_factory.mktemp(request.param))


def drawn(policy, prompts=PROMPTS, copies=5, **options):
    options = {"max_new_tokens": 24, "temperature": 1.0, "seed": 5, "max_rows": 7} | options
    return [e for group in sample(policy, prompts, copies, **options) for e in group]


def ending_often(policy):
    """Some letters end an answer as well."""
    return replace(policy, stop_ids=policy.stop_ids | set(range(5, 14)))


def groups_of(policy, copies=4):
    found = sample(policy, PROMPTS, copies, max_new_tokens=12, temperature=1.0, seed=3)
    return [Group(Example("a", "?", "1", "math"), tuple(p), tuple(e)) for p, e in zip(PROMPTS, found, strict=True)]


ADVANTAGES = torch.tensor([[1.0, -1.0, 0.0, 0.5], [0.3, 0.0, -2.0, 1.0], [0.0] * 4, [0.1, 0.2, 0.3, -4.0]]).double()


def test_who_can_take_the_fast_ways(any_policy):
    kind, policy = any_policy
    expected = {"Bloom": (True, False), "GPTNeo": (True, False), "Lfm2": (False, False)}.get(kind, (True, True))
    assert (policy.shares_prefix, policy.packs) == expected
    assert len(policy.notes) == 2 - sum(expected) and all("slower" in note for note in policy.notes)


def test_the_same_tokens_and_statistics_as_generate(any_policy):
    """Rows leave, others join with longer or shorter prompts, windows end: 4 prompts, 5 copies, 7 rows at once."""
    fast, plain = (drawn(ending_often(any_policy[1]), plain=plain) for plain in (False, True))
    assert [e.token_ids for e in fast] == [e.token_ids for e in plain]
    assert len({len(e) for e in fast}) > 3
    for name in ("logp", "entropy", "self_certainty"):
        ours, theirs = (torch.tensor([x for e in rows for x in getattr(e, name)]) for rows in (fast, plain))
        assert (ours - theirs).abs().max() < 1e-4, name


@torch.no_grad()
def test_what_is_sampled_is_what_is_scored(any_policy):
    """One completion at a time, no padding, no cache, the adapter beside the weights, reference statistics."""
    policy = any_policy[1]
    for i, episode in enumerate(drawn(policy, temperature=0.8)):
        prompt = PROMPTS[i // 5]
        ids = torch.tensor([[*prompt, *episode.token_ids]])
        hidden, head = policy.body(ids)[0][0, len(prompt) - 1 : -1], policy.head
        stats = linear_token_stats(
            hidden, head.weight, ids[0, len(prompt) :], bias=head.bias, temperature=0.8, softcap=head.softcap,
            vocab_size=head.vocab_size, backend="reference",
        )  # fmt: skip
        for name in ("logp", "entropy", "self_certainty"):
            assert (torch.tensor(getattr(episode, name)) - getattr(stats, name)).abs().max() < 1e-4, name


@pytest.mark.parametrize("rows", [1, 5, 6, 11, 1000])
def test_how_many_rows_are_written_at_once_changes_nothing(tiny_policy, rows):
    assert [e.token_ids for e in drawn(tiny_policy, max_rows=rows)] == [e.token_ids for e in drawn(tiny_policy)]


def test_prompts_are_computed_once_and_waiting_ones_join_before_the_rest_has_ended(tiny_policy, monkeypatch):
    seen, at_once = [], []
    prefilled, go_on = decode.prefilled, decode.Rows.go_on
    monkeypatch.setattr(
        decode, "prefilled", lambda p, n, prompts, c: seen.append(list(prompts)) or prefilled(p, n, prompts, c)
    )
    monkeypatch.setattr(decode.Rows, "go_on", lambda self, p, t: at_once.append(len(self.index)) or go_on(self, p, t))
    drawn(tiny_policy, copies=4, max_rows=8)
    assert sorted(p for some in seen for p in some) == sorted(PROMPTS) and len(seen) > 1
    assert max(at_once) <= 8 and at_once.count(0) == 0
    later = at_once.index(max(at_once[3:])) if at_once[3:] else 0
    assert any(b > a for a, b in zip(at_once, at_once[1:], strict=False)), (at_once, later)


def test_finished_rows_leave_together_and_never_outgrow_the_longest():
    assert not decode.leaves([True] * 9 + [False], [3] * 10, 20)
    assert decode.leaves([True] * 8 + [False] * 2, [3] * 10, 20)
    assert decode.leaves([True] * 9 + [False], [3] * 9 + [19], 20)
    assert not decode.leaves([True] * 10, [18] * 10, 20)


def test_a_finished_row_that_stays_changes_nothing(tiny_policy, monkeypatch):
    """Whether rows leave at once or when all have finished: the same completions."""
    found = []
    for keep in (1.0, 0.0):
        monkeypatch.setattr(decode, "KEEP", keep)
        found.append([e.token_ids for e in drawn(tiny_policy, copies=4, max_rows=8)])
    assert found[0] == found[1]


def test_a_long_list_of_prompts_is_prefilled_a_part_at_a_time(tiny_policy, monkeypatch):
    monkeypatch.setattr(decode, "PREFILL", 13)
    expected = drawn(tiny_policy, max_rows=1000)
    monkeypatch.undo()
    assert [e.token_ids for e in expected] == [e.token_ids for e in drawn(tiny_policy, max_rows=1000)]


def test_merging_is_undone_to_the_last_bit(tiny_policy):
    policy = warm(tiny_policy)
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    storages = [p.data_ptr() for p in policy.model.parameters()]
    ids = torch.tensor([[5, 6, 7, 8]])
    apart = policy.body(ids)[0]
    with policy.merged(), policy.merged():
        changed = [not torch.equal(before[name], p) for name, p in policy.model.named_parameters()]
        together = policy.body(ids)[0]
        with pytest.raises(RuntimeError, match="merged"), policy.adapter_off():
            pass
    assert any(changed) and not torch.equal(apart, together) and torch.allclose(apart, together, atol=1e-5)
    assert all(torch.equal(before[name], p) for name, p in policy.model.named_parameters())
    assert storages == [p.data_ptr() for p in policy.model.parameters()]
    assert torch.equal(policy.body(ids)[0], apart)


def test_merging_is_undone_when_sampling_fails(tiny_policy):
    before = [p.clone() for p in warm(tiny_policy).model.parameters()]
    with pytest.raises(ZeroDivisionError), tiny_policy.merged():
        raise ZeroDivisionError
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_policy.model.parameters(), strict=True))


def test_a_quantised_or_16_bit_base_is_not_merged(tiny_policy, tmp_path):
    assert tiny_policy.merges
    assert not replace(tiny_policy, dtype=torch.bfloat16).merges
    assert not random_policy("Llama", tmp_path, "nf4", hidden_size=64, intermediate_size=64, head_dim=32).merges


@pytest.mark.parametrize("size", [2, 100])
def test_packed_and_plain_updates_are_equal(any_policy, monkeypatch, size):
    """Loss to 1e-5 relative, gradient to 1e-4 of its largest entry."""
    kind, policy = any_policy
    if kind not in FAST:
        pytest.skip("takes the plain way only")
    groups, config, found = groups_of(policy), Train(kl=0.1, max_grad_norm=1e9), {}
    for packed in (True, False):
        monkeypatch.setattr(poc.update, "batches", lambda *a, packed=packed, **k: batches(*a, **k, packed=packed))
        record = gradients(policy, torch.optim.SGD(policy.trainable()), groups, ADVANTAGES, config, size)
        found[packed] = record, torch.cat([p.grad.flatten() for p in policy.trainable()])
        monkeypatch.undo()
    (fast, ours), (plain, theirs) = found[True], found[False]
    assert fast.loss == pytest.approx(plain.loss, rel=1e-5) and fast.kl == pytest.approx(plain.kl, rel=1e-4)
    assert theirs.abs().max() > 1e-3 and (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_rows_really_share_their_prompt(any_policy):
    policy = any_policy[1]
    made = batches(groups_of(policy), ADVANTAGES, 100, replace(policy, packs=True), all_rows=True)
    assert max(int(batch.segments.max()) for batch in made) == 4
    plain = batches(groups_of(policy), ADVANTAGES, 100, policy, all_rows=True, packed=False)
    assert all(batch.segments.max() == 1 for batch in plain)
    assert sum(int((b.segments != PADDING).sum()) for b in made) < sum(
        int((b.segments != PADDING).sum()) for b in plain
    )


def test_a_mask_by_hand(any_policy):
    """Prompt of 2, completions of 2 and 1, a row of padding behind the second pack."""
    kind, policy = any_policy
    if kind not in FAST:
        pytest.skip("takes no mask of ours")
    episode = lambda *ids: Episode(ids, "", True, *((0.0,) * len(ids),) * 3)  # noqa: E731
    batch = pack([((1, 2), [episode(3, 4), episode(5)], (1.0, 1.0)), ((1, 2), [episode(6), episode(7)], (1.0, 1.0))])
    made = masks(policy, batch)
    made = made if isinstance(made, dict) else {next(iter(policy.windows)): made}
    rows = ["x....", "xx...", "xxx..", "xxxx.", "xx..x"], ["x....", "xx...", "xxx..", "xx.x.", "....x"]
    for mask in made.values():
        assert ["".join("x" if x == 0 else "." for x in row) for row in mask[0, 0]] == rows[0]
        assert ["".join("x" if x == 0 else "." for x in row) for row in mask[1, 0]] == rows[1]
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 2] and batch.source[:3].tolist() == [1, 2, 1]


def test_a_window_by_hand(tmp_path):
    policy = random_policy("Mistral", tmp_path)
    ids = tuple(range(5, 5 + WINDOW + 1))
    batch = pack([((1, 2), [Episode(ids, "", True, *((0.0,) * len(ids),) * 3)] * 2, (1.0, 1.0))])
    last = masks(policy, batch)[0, 0, -1] == 0  # of the second completion: its own last WINDOW tokens, itself included
    assert last.nonzero().flatten().tolist() == list(range(2 + len(ids) + 1, 2 + 2 * len(ids)))


def test_the_balance_of_packing():
    assert best_size(100, [10] * 8, 8, 0.0) == 8  # attention is free: the prompt is computed once
    assert best_size(100, [10] * 8, 3, 0.0) == 3  # or as seldom as may be
    assert best_size(1, [500] * 8, 8, 0.01) == 1  # a short prompt, long answers, dear attention
    assert best_size(500, [100] * 8, 8, 3e-4) == 8


@pytest.mark.parametrize("kind", FAST)
def test_computing_layers_again_changes_no_bit(tmp_path, kind):
    policy = random_policy(kind, tmp_path)
    groups, found = groups_of(policy), []
    for again in (False, True):
        with policy.recomputing(again):
            record = gradients(policy, torch.optim.SGD(policy.trainable()), groups, ADVANTAGES, Train(), 4)
        found.append((record, [p.grad.clone() for p in policy.trainable()]))
    (a, ours), (b, theirs) = found
    assert a == b and all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
    with policy.recomputing(), policy.recomputing():
        assert "forward" in vars(policy.layers()[0])
    assert "forward" not in vars(policy.layers()[0])


def test_a_wrong_fast_way_is_found_out(tiny_policy, monkeypatch):
    """A cache that mixes up its rows, and a mask that lets completions see each other."""
    monkeypatch.setattr(decode.Roomy, "batch_select_indices", lambda self, indices: None)
    assert not abilities.check(tiny_policy).shares_prefix
    monkeypatch.undo()
    monkeypatch.setattr(
        "poc.packing._mask", lambda batch, window, dtype: torch.zeros(1, 1, *[batch.segments.shape[1]] * 2)
    )
    found = abilities.check(tiny_policy)
    assert not found.packs and found.shares_prefix and len(found.notes) == 1
