"""What a run takes, counted by hand and against what the sampler and the packing really do."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import poc.decode
from poc import cost
from poc.cost import Pass, Speed, View, Work
from poc.packing import PADDING, batches
from poc.records import Episode, Example, Group

SPEED = Speed(
    merge=1.0, step=2.0, row=3.0, column=0.5, move=0.25, prompt=0.1, part=5.0, token=0.01, pair=0.001, trained=0.02,
    score=0.3, question=0.7, save=4.0,
)  # fmt: skip
WORK = Work(
    steps=10, prompts_per_step=2, group_size=2, prompts=(3,), lengths=(2,), views=(View((3, 3)), View((3,), True)),
    samples=2, evaluations=3, saves=4, rows={"update": 4, "rollout": 8, "evaluate": 8},
)  # fmt: skip
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def test_a_call_by_hand():
    """One prompt of 4 tokens, completions of 1, 3 and 3 tokens: 3 draws, then 2 go on, 2 of them twice."""
    found = cost.sampling([4], [[1, 3, 3]], 8)
    assert (found.steps, found.rows, found.passes, found.prompt_tokens, found.prefill) == (3, 3 + 2 + 2, 1, 4, 4)
    assert found.cells == 2 * 5 + 2 * 6 + 0  # after the first and the second token; after the third nobody goes on
    assert found.moved == 2 * (5 + cost.ROOM)  # as the first row leaves; afterwards there is room
    later = cost.sampling([4], [[2, 3, 3]], 8)
    assert later.moved == 3 * (5 + cost.ROOM) + 2 * (6 + cost.ROOM)  # at the start, and as the first row leaves
    assert found.widest == (3, 4) and cost.sampling([4], [[1, 4, 4]], 8).widest == (2, 7)


def test_prompts_are_padded_to_the_longest_and_wait_for_room():
    """Two rows at once, three prompts with one completion each: the third starts when both have ended, or one has."""
    found = cost.sampling([2, 5, 3], [[2], [2], [2]], 2)
    assert (found.steps, found.passes) == (4, 2) and found.prompt_tokens == 2 * 5 + 3
    early = cost.sampling([2, 5, 3], [[1], [3], [2]], 2)  # the first row leaves: half of the room is free at once
    assert (early.steps, early.rows) == (3, 6) and early.passes == 2


def test_a_large_prompt_takes_a_pass_of_its_own():
    found = cost.sampling([cost.PREFILL] * 3, [[1]] * 3, 8)
    assert (found.passes, found.prompt_tokens, found.prefill) == (3, 3 * cost.PREFILL, cost.PREFILL)


def test_plain_sampling_computes_every_row_to_the_end():
    found = cost.sampling([4], [[1, 3]], 8, shares=False)
    assert (found.steps, found.rows, found.prompt_tokens) == (3, 6, 8)


def test_the_constants_of_the_sampler():
    assert (cost.PREFILL, cost.ROOM) == (poc.decode.PREFILL, poc.decode.ROOM)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=12, max_size=12),
    prompts=st.lists(st.integers(1, 9), min_size=12, max_size=12), at_once=st.sampled_from([2, 4, 8, 16]),
    copies=st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_counts_are_those_of_the_sampler(policy_that_ends, lengths, prompts, at_once, copies):
    """A real call whose completions end where we say: the rows of every draw, its columns, and the prompt passes."""
    groups = cost.in_groups(lengths, copies)
    prompts = prompts[: len(groups)]
    seen = policy_that_ends(prompts, groups, at_once)
    found = cost.sampling(prompts, groups, at_once)
    assert (found.steps, found.rows) == (len(seen["drawn"]), sum(seen["drawn"]))
    assert (found.passes, found.prompt_tokens) == (len(seen["prompts"]), sum(seen["prompts"]))
    assert found.cells == sum(rows * columns for rows, columns in seen["steps"])
    assert found.moved == seen["moved"]


@pytest.fixture(scope="module")
def policy_that_ends(tiny_folder):
    """decode() with the tiny model, in which token 0 ends a completion and is drawn exactly where it is to end."""
    from poc.models import load_policy

    policy = load_policy(str(tiny_folder), quantization="none", lora_rank=2, lora_alpha=2)
    policy = replace(policy, stop_ids=frozenset({0}))

    def call(prompts, groups, at_once) -> dict:
        seen = {"drawn": [], "prompts": [], "steps": [], "moved": 0}
        flat = [length for group in groups for length in group]

        def drawn_next(policy, rows, going, drawn, temperature, uniform):
            seen["drawn"].append(len(rows.index))
            tokens = [0 if len(drawn[i].token_ids) + 1 == flat[i] else 5 for i in rows.index]
            [drawn[i].add(t, 0.0, 0.0, 0.0) for on, i, t in zip(going, rows.index, tokens, strict=True) if on]
            return torch.tensor(tokens)

        def go_on(rows, policy, tokens):
            before = rows.cache.layers[0].store
            real(rows, policy, tokens)
            seen["steps"].append((len(rows.index), rows.mask.shape[1]))
            after = rows.cache.layers[0].store
            seen["moved"] += len(rows.index) * after[0].shape[-2] * (before is not after)

        def prefilled(policy, numbers, asked, copies):
            seen["prompts"].append(len(asked) * max(map(len, asked)))
            return filled(policy, numbers, asked, copies)

        real, filled = poc.decode.Rows.go_on, poc.decode.prefilled
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(poc.decode, "_draw_next", drawn_next)
            patch.setattr(poc.decode.Rows, "go_on", go_on)
            patch.setattr(poc.decode, "prefilled", prefilled)
            uniform = torch.zeros(len(flat), 200, dtype=torch.float64)  # no finished row outgrows that
            poc.decode.decode(policy, [[7] * n for n in prompts], len(groups[0]), 1.0, uniform, at_once)
        return seen

    return call


def test_packs_and_passes_by_hand():
    """Prompts of 10 and 4 tokens, three completions each, six at once: all behind one prompt, both in one pass."""
    (one,) = cost.passes([10, 4], [[1, 2, 3], [5, 5, 5]], 6, 0.0)
    assert one == Pass(rows=2, length=19, trained=21, together=3)  # 10 + 6 and 4 + 15 tokens
    assert (one.tokens, one.pairs) == (2 * 19, 2 * 19**2)
    apart = cost.passes([10, 4], [[1, 2, 3], [5, 5, 5]], 1, 0.0)
    assert [p.length for p in apart] == [9, 9, 9, 11, 12, 13] and {p.together for p in apart} == {1}
    assert cost.passes([10], [[1, 2, 3, 4]], 2, 0.0) == [Pass(1, 13, 3, 2), Pass(1, 17, 7, 2)]


@given(groups=st.lists(st.lists(st.integers(1, 40), min_size=4, max_size=4), min_size=1, max_size=6),
       prompt=st.integers(1, 60), size=st.integers(1, 30), attention=st.sampled_from([0.0, 1e-3, 0.1]))  # fmt: skip
def test_passes_are_those_of_the_packing(groups, prompt, size, attention):
    policy = SimpleNamespace(packs=True, attention_cost=attention, device="cpu")
    made = batches([_group(prompt + i, lengths) for i, lengths in enumerate(groups)], torch.ones(len(groups), 4), size,
                   policy, all_rows=True)  # fmt: skip
    counted = cost.passes([prompt + i for i in range(len(groups))], groups, size, attention)
    assert [(p.rows, p.length, p.trained) for p in counted] == [(*b.input_ids.shape, len(b.targets)) for b in made]
    assert sum(int((b.segments != PADDING).sum()) for b in made) <= sum(p.tokens for p in counted)


def _group(prompt: int, lengths) -> Group:
    episodes = tuple(Episode((5,) * n, "", True, *((0.0,) * n,) * 3) for n in lengths)
    return Group(Example("q", "?", None, "math"), (7,) * prompt, episodes)


def test_seconds_by_hand():
    found = cost.sampling([4], [[1, 3, 3]], 8)
    cache = 22 * 0.5 + 2 * (5 + cost.ROOM) * 0.25
    assert cost.sampling_seconds(found, SPEED) == pytest.approx(1 + (1 * 2 + 4 * 0.1) + 3 * 2 + 7 * 3 + cache)
    one = Pass(rows=2, length=19, trained=21, together=3)
    assert cost.update_seconds([one, one], SPEED) == pytest.approx(2 * (5 + 38 * 0.01 + 722 * 0.001 + 21 * 0.02))
    assert cost.forward_seconds([one], SPEED) == pytest.approx(2 + 38 * 0.1 + 21 * 0.02)


def test_a_run_is_the_sum_of_its_parts():
    found = cost.predict(WORK, SPEED)
    rollout = cost.sampling_seconds(cost.sampling([3, 3], [[2, 2], [2, 2]], 8), SPEED) + 4 * 0.3
    update = cost.update_seconds(cost.passes([3, 3], [[2, 2], [2, 2]], 4, 0.0), SPEED)
    drawn = [cost.sampling([3] * n, [[2] * copies] * n, 8) for n in (2, 1) for copies in (1, 2)]
    distance = cost.forward_seconds(cost.passes([3], [[2, 2]], 4, 0.0), SPEED)
    evaluation = sum(cost.sampling_seconds(d, SPEED) for d in drawn) + distance + 3 * (3 * 0.3 + 0.7)
    seconds = {"rollout": 10 * rollout, "update": 10 * update, "evaluate": 3 * evaluation, "save": 16.0}
    assert found.seconds == pytest.approx(seconds) and found.total == pytest.approx(sum(seconds.values()))
    assert found.tokens == 2
    assert cost.predict(WORK, SPEED, 100.0).seconds["evaluate"] == 300


def test_reuse_epochs_kl_and_groups_that_teach_nothing():
    plain = cost.predict(WORK, SPEED).seconds
    reused = cost.predict(replace(WORK, reuse=2, epochs=2), SPEED).seconds
    call = cost.sampling_seconds(cost.sampling([3] * 4, [[2, 2]] * 4, 8), SPEED)
    assert reused["rollout"] == pytest.approx(3 * (call + 8 * 0.3)) and reused["update"] == plain["update"]
    packed = cost.passes([3, 3], [[2, 2], [2, 2]], 4, 0.0)
    kl = cost.predict(replace(WORK, kl=True), SPEED).seconds
    assert kl["update"] - plain["update"] == pytest.approx(10 * cost.forward_seconds(packed, SPEED))
    assert cost.predict(replace(WORK, trained=0.5), SPEED).seconds["update"] == pytest.approx(plain["update"] / 2)


def test_an_architecture_that_cannot_pack():
    alone = cost.update_of(replace(WORK, packs=False))
    assert alone == [Pass(rows=4, length=5, trained=8, together=1)]
    plain = replace(WORK, shares_prefix=False)
    assert cost.rollout_of(plain).prompt_tokens == 2 * cost.rollout_of(WORK).prompt_tokens == 2 * 6
    assert cost.measured_of(plain, View((3, 3)))[1].prompt_tokens == 2 * 6


def test_how_likely_a_group_is_all_of_one_kind():
    """After n of one kind the next one is of that kind with chance (n + 1) / (n + 2)."""
    assert cost.all_alike(4, 1) == pytest.approx(5 / 6)
    assert cost.all_alike(4, 3) == pytest.approx(5 / 6 * 6 / 7 * 7 / 8)
    assert cost.all_alike(1000, 8) > 0.99


@given(LENGTHS, st.integers(1, 200))
def test_typical_values_are_spread_as_the_given_ones(values, count):
    found = cost.typical(values, count)
    assert len(found) == count and set(found) <= set(values) and found == cost.typical(values[::-1], count)
    if count % len(values) == 0:
        assert sorted(found) == sorted(values * (count // len(values)))


@given(LENGTHS, st.integers(0, 39), st.integers(1, 30))
def test_longer_completions_are_never_cheaper(lengths, which, more):
    longer = [n + more * (i == which % len(lengths)) for i, n in enumerate(lengths)]
    calls = [cost.sampling([5], [some], 64) for some in (lengths, longer)]
    assert cost.sampling_seconds(calls[0], replace(SPEED, move=0.0)) < cost.sampling_seconds(calls[1], SPEED)
    one, other = (
        cost.predict(replace(WORK, lengths=tuple(some)), replace(SPEED, move=0.0)) for some in (lengths, longer)
    )
    assert one.tokens < other.tokens


@given(LENGTHS, st.integers(1, 8), st.integers(1, 8))
def test_more_of_anything_takes_longer(lengths, prompts, more):
    work = replace(WORK, lengths=tuple(lengths), prompts_per_step=prompts)
    least = cost.predict(work, SPEED).total
    for changed in (
        {"steps": 10 + more}, {"samples": 2 + more}, {"evaluations": 3 + more}, {"saves": 4 + more}, {"kl": True},
    ):  # fmt: skip
        assert cost.predict(replace(work, **changed), SPEED).total > least
    for name in Speed.__slots__:
        assert cost.predict(work, replace(SPEED, **{name: 2 * getattr(SPEED, name)})).total >= least


@given(LENGTHS)
def test_every_token_is_drawn_and_trained_once(lengths):
    found = cost.sampling([3] * len(lengths), [[n] for n in lengths], 8)
    assert sum(lengths) <= found.rows <= sum(lengths) / cost.KEEP + len(lengths)  # finished ones leave together
    assert max(lengths) <= found.steps <= sum(lengths)
    assert sum(p.trained for p in cost.passes([3], [lengths], 5, 1e-3)) == sum(lengths)


def test_nothing_heavy_is_imported():
    import subprocess
    import sys

    code = "import sys, poc.cost; print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "[]"
