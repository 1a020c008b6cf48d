"""What is taken at once: never more than the memory, and the cheapest of what fits."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from poc import budget, memory
from poc.budget import GIB, Fit, choose, said
from poc.config import RunConfig, Train
from poc.memory import Shape
from tests.poc.runs import essence, job, resume, run

# SmolLM2-135M in float32 and a 1.5-billion model in bfloat16.
SMALL = Shape(
    layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64, vocabulary=49_152, itemsize=4,
    weights=540_000_000, linear=106_000_000, rank=16, adapter=4_900_000, masks=1, cost=3.3e-4, merges=True,
)  # fmt: skip
LARGE = Shape(
    layers=28, hidden=1536, intermediate=8960, heads=12, kv_heads=2, head_dim=128, vocabulary=151_000, itemsize=2,
    weights=3_000_000_000, linear=1_300_000_000, rank=64, adapter=74_000_000, masks=1, cost=7e-5,
)  # fmt: skip
TRAIN = Train(prompts_per_step=16, group_size=8, max_new_tokens=256)


def fits(shape, train, prompt, space, cuda) -> Fit:
    """The fit, with what it takes checked against the space."""
    found = choose(shape, train, 4, prompt, space, cuda)
    fixed = memory.weight_bytes(shape)
    taken = train.model_copy(
        update={
            "micro_batch": found.rows["update"], "sample_rows": found.rows["rollout"], "recompute": found.recompute
        }
    )  # fmt: skip
    most = max(memory.step_bytes(shape, taken, prompt, during) for during in ("update", "rollout")) - fixed
    assert (most <= space) == (found.lacking == 0) and found.lacking == max(0, most - space)
    return found


@given(
    shape=st.sampled_from([SMALL, LARGE, replace(LARGE, masks=0)]), prompt=st.integers(1, 2000),
    answer=st.integers(1, 2000), space=st.integers(GIB // 4, 80 * GIB), cuda=st.booleans(),
)  # fmt: skip
def test_what_fits_is_taken_and_what_is_taken_fits(shape, prompt, answer, space, cuda):
    found = fits(shape, TRAIN.model_copy(update={"max_new_tokens": answer}), prompt, space, cuda)
    assert found.rows["rollout"] % 8 == 0 and found.rows["evaluate"] % 4 == 0 and min(found.rows.values()) >= 1
    if found.lacking:  # then everything is as small as it can be, or sampling alone is too much
        least = {"micro_batch": 1, "sample_rows": 8, "recompute": True, "max_new_tokens": answer}
        smallest = TRAIN.model_copy(update=least)
        needed = max(memory.step_bytes(shape, smallest, prompt, d) for d in ("update", "rollout"))
        assert needed - memory.weight_bytes(shape) > space


def test_less_memory_fewer_rows_then_recomputing_then_a_word_about_it():
    sizes = [fits(LARGE, TRAIN, 100, int(gib * GIB), cuda=True) for gib in (500, 80, 30, 12, 6, 4, 2, 0.5)]
    rows = [found.rows["update"] for found in sizes]
    assert rows[0] == 128 and not sizes[0].recompute
    assert any(found.recompute for found in sizes) and sizes[-1].lacking > 0
    assert all(a.lacking <= b.lacking for a, b in zip(sizes, sizes[1:], strict=False))
    assert said(sizes[0], TRAIN) == []
    first = said(next(found for found in sizes if found.recompute), TRAIN)[0]
    assert "computed again" in first and "completions a pass" in first
    assert "may run out of memory: about" in said(sizes[-1], TRAIN)[-1]


def test_on_a_cpu_no_more_than_pays():
    """SmolLM2, 4 prompts of 46 tokens, 8 completions of 32: a pass is one group, however much memory there is."""
    train = Train(prompts_per_step=4, group_size=8, max_new_tokens=32)
    assert choose(SMALL, train, 4, 46, 100 * GIB, cuda=False).rows["update"] == 8
    assert choose(SMALL, train, 4, 46, 100 * GIB, cuda=True).rows["update"] == 128  # all at once


def test_the_users_word_holds():
    assert choose(LARGE, TRAIN.model_copy(update={"recompute": True}), 4, 100, 80 * GIB, True).recompute
    assert not choose(LARGE, TRAIN.model_copy(update={"recompute": False}), 4, 100, 3 * GIB, True).recompute
    few = choose(LARGE, TRAIN.model_copy(update={"micro_batch": 3, "sample_rows": 16}), 4, 100, 80 * GIB, True)
    assert (few.rows["update"], few.rows["rollout"]) == (3, 16)


def test_room_is_what_is_left_of_the_budget():
    cpu = torch.device("cpu")
    whole, half = budget.room(cpu, 1000.0), budget.room(cpu, 500.0)
    assert whole - half == pytest.approx(500 * GIB, rel=0.01) and whole < 1000 * GIB - 100 * 2**20
    assert budget.room(cpu, 0.001) < -100 * 2**20 and budget.room(cpu, None) > 0  # what is held already counts


def test_processes_share_what_is_free(monkeypatch):
    alone = budget.room(torch.device("cpu"), None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert budget.room(torch.device("cpu"), None) == pytest.approx(alone / 2, rel=0.2)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_a_run_with_recomputing_and_8_bit_moments_goes_on_exactly(tmp_path, tiny_folder, optimizer):
    options = ["train.steps=4", "train.recompute=true", f"train.optimizer={optimizer}", "lora.rank=256",
               "train.checkpoint_every=1", "train.micro_batch=2", "reward={self_certainty: 1.0}"]  # fmt: skip
    run([job(tmp_path / "whole", tiny_folder, options)])
    run([job(tmp_path / "cut", tiny_folder, options)], stop_after=2)
    assert resume(tmp_path / "cut") == "done"
    assert essence(tmp_path / "whole") == essence(tmp_path / "cut")
    moments = load_file(tmp_path / "whole" / "checkpoints" / "step-000004" / "optimizer.safetensors")
    assert (torch.uint8 in {value.dtype for value in moments.values()}) == (optimizer == "adamw8bit")


def test_a_small_budget_gives_the_same_run_up_to_rounding(tmp_path, tiny_folder, capsys):
    options = ["train.steps=2", "reward={self_certainty: 1.0}"]
    run([job(tmp_path / "much", tiny_folder, options)])
    run([job(tmp_path / "little", tiny_folder, [*options, "train.memory_gib=0.001"])])
    much, little = essence(tmp_path / "much"), essence(tmp_path / "little")
    assert [s.pop("micro_batch") for s in much["steps"]] == [128, 128]
    assert [s.pop("micro_batch") for s in little["steps"]] == [1, 1]
    for one, other in zip(much["steps"], little["steps"], strict=True):
        assert (one["tokens"], one["agreement"]) == (other["tokens"], other["agreement"])
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    assert "may run out of memory" in capsys.readouterr().out


def test_the_configuration_says_how_much():
    assert RunConfig().train.memory_gib is None and RunConfig().train.recompute is None
