"""The benchmark through its real main, on lab:base: what a line says, that parity can fail, that ratios are right.

What needs TRL is skipped where it is not installed; everything else runs without it.
"""

import json
import os
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from benchmarks import peers, rollout, timing, train_step
from benchmarks.rollout import load
from benchmarks.train_step import Gradient, Ours, Turn, Work, disagreement, off

TINY = ["--model", "lab:base", "--prompts", "2", "--group", "2", "--tokens", "4", "--steps", "2"]
WORK = Work("lab:base", "forced", 2, 2, 4, 4, 3e-5)
KEYS = {
    "command", "git", "device", "cpu", "cores", "torch_threads", "versions", "date", "model", "dtype", "mode", "lora",
    "seed", "prompt_tokens", "group", "max_tokens", "micro_batch", "learning_rate", "steps", "load_before", "left_out",
    "trl_settings", "parity", "tolerance", "turns", "warm_up_s", "mean_length", "ratio", "memory_steps", "memory",
    "memory_ratio",
}  # fmt: skip
MEMORY = {
    "ours": {"loaded": 100, "peak": 150, "peak_of_loading": 120, "workers": 30},
    "trl": {"loaded": 110, "peak": 310, "peak_of_loading": 120, "workers": 0},
}
FRESH = train_step._memory_in_fresh_process
on_linux = pytest.mark.skipif(not timing.CLEAR.exists(), reason="the peak of a process can be reset on Linux only")
needs_trl = pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Settings of the whole process stay as they are; no fresh processes, which take seconds each."""
    monkeypatch.setattr(rollout, "quiet", lambda: None)
    monkeypatch.setattr(train_step, "_memory_in_fresh_process", lambda name, *_: MEMORY.get(name))


@pytest.fixture
def bench(tmp_path):
    """Runs main; its exit code and the lines it wrote."""

    def run(*words):
        out = tmp_path / "new" / "out.jsonl"
        code = train_step.main([*TINY, "--out", str(out), *words])
        return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    return run


def test_without_trl_ours_alone_is_timed_and_the_line_says_so(bench, monkeypatch, capsys):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    code, (record, free) = bench()
    assert code == 0 and "trl is left out: trl is not installed" in capsys.readouterr().out
    assert set(record) >= KEYS and set(record["left_out"]) == {"trl", "trl_2048"} and free["mode"] == "free"
    assert list(record["turns"]) == ["ours"] and len(record["turns"]["ours"]) == 2
    assert record["ratio"] == record["memory_ratio"] == {} and record["parity"] is None


def test_the_parts_of_our_step_are_the_step_and_it_moves_the_weights():
    policy = load("lab:base")
    before = [p.detach().clone() for p in policy.trainable()]
    turn = Ours(policy, WORK).step(seed=1)
    assert turn.seconds == pytest.approx(turn.generation + turn.scoring + turn.update) and turn.update > 0
    assert turn.tokens == 2 * 2 * 4 and turn.idle == 0
    assert any(not torch.equal(old, new) for old, new in zip(before, policy.trainable(), strict=True))


def test_every_completion_has_a_reward_of_its_own():
    rewards = train_step.text_rewards(["a", "a", "b"])
    assert len(set(rewards)) == 3 and all(0 <= x < 1 for x in rewards) and rewards == train_step.text_rewards("aab")
    assert train_step._trl_rewards(["a", "b"]) == train_step._trl_rewards([[{"content": "a"}], [{"content": "b"}]])


def test_ratios_are_of_the_same_round():
    ours = [Turn(2.0, 1.0, 0.5, 0.5, 10, 0), Turn(6.0, 3.0, 1.0, 2.0, 20, 0)]
    theirs = [Turn(4.0, 4.0, 0.5, 1.0, 40, 0), Turn(6.0, 1.0, 2.0, 4.0, 40, 0)]
    found = train_step.ratios(ours, theirs)
    assert found["seconds"] == {"median": 0.75, "min": 0.5, "max": 1.0}
    assert found["generation"] == {"median": 1.625, "min": 0.25, "max": 3.0}
    assert found["scoring"]["median"] == 0.75 and found["update"] == {"median": 0.5, "min": 0.5, "max": 0.5}
    assert found["seconds_per_token"] == {"median": 2.0, "min": 2.0, "max": 2.0}


def test_ratios_of_memory():
    found = train_step.memory_ratios(MEMORY["ours"], MEMORY["trl"])
    assert found == {"peak": 150 / 310, "peak_with_workers": 180 / 310, "beside_loaded": 50 / 200}
    assert train_step.memory_ratios(MEMORY["ours"], None) is None


def test_a_disagreement_is_found():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    same = disagreement(Gradient(1.0, {"a": a, "b": b}), Gradient(1.0, {"b": b, "a": a}))
    assert same == {"loss": 0.0, "gradient": 0.0} and off(same) == []
    assert disagreement(Gradient(1.0, {"a": 1.01 * a, "b": b}), Gradient(1.0, {"a": a, "b": b})) == {
        "loss": 0.0, "gradient": pytest.approx(0.03 / 5),
    }  # fmt: skip
    assert off(disagreement(Gradient(1.1, {"a": a}), Gradient(1.0, {"a": a}))) == ["loss"]
    for ours in ({"a": a}, {"a": a, "b": b * float("nan")}, {}):
        assert off(disagreement(Gradient(1.0, ours), Gradient(1.0, {"a": a, "b": b}))) == ["gradient"]
    assert off(disagreement(Gradient(1.0, {}), Gradient(1.0, {}))) == ["gradient"]


def test_parity_is_checked_off_policy_with_clipped_tokens_and_unlike_advantages():
    policy, config = load("lab:base"), train_step.Train()
    groups, advantage = train_step.moved_groups(policy, replace(WORK, tokens=12))
    optimizer = torch.optim.SGD(policy.trainable(), lr=0.0)
    assert train_step.gradients(policy, optimizer, groups, advantage, config, 4).clip_fraction > 0.1
    assert (advantage != 0).all() and policy.stop_ids


def test_trl_is_given_every_token_once():
    policy = load("lab:base")
    groups, advantage = train_step.moved_groups(policy, replace(WORK, tokens=12))
    inputs = train_step.trl_inputs(groups, advantage)
    rows = [(group.prompt_ids, e) for group in groups for e in group.episodes]
    for i, (prompt, episode) in enumerate(rows):
        assert tuple(inputs["prompt_ids"][i][inputs["prompt_mask"][i] == 1].tolist()) == prompt
        mask = inputs["completion_mask"][i] == 1
        assert tuple(inputs["completion_ids"][i][mask].tolist()) == episode.token_ids
        assert inputs["old_per_token_logps"][i][mask].tolist() == pytest.approx(episode.logp)
    assert inputs["num_items_in_batch"] == inputs["completion_mask"].sum() == sum(len(e) for _, e in rows)


def test_options_that_cannot_be_are_refused(bench):
    for words in (["--group", "1"], ["--micro-batch", "3"], ["--only", "verl"]):
        with pytest.raises(SystemExit) as ended:
            bench(*words)
        assert ended.value.code == 2


@needs_trl
def test_a_line_says_what_a_reader_needs(bench, monkeypatch, tmp_path):
    from trl.trainer import utils

    ticks = []
    monkeypatch.setattr(train_step.Steps, "tick", lambda self, what: ticks.append(what))
    code, (record,) = bench("--mode", "forced")
    assert code == 0 and set(record) >= KEYS and record["left_out"] == {} and record["prompt_tokens"] == [45, 55]
    assert ticks == ["parity", *["ours", "trl", "trl_2048"] * 3]
    assert utils._CHUNKED_LOGPROB_CHUNK_SIZE == train_step.TILES["trl"]  # TRL's own, as it was before
    assert off(record["parity"]) == [] and record["parity"]["gradient"] < 1e-4
    for turns in record["turns"].values():
        assert [turn["tokens"] for turn in turns] == [16, 16] and not any(turn["idle"] for turn in turns)
        assert all(min(turn[part] for part in train_step.PARTS) > 0 for turn in turns)
        assert all(turn["seconds"] == pytest.approx(sum(turn[p] for p in train_step.PARTS)) for turn in turns)
    seconds = {name: [turn["seconds"] for turn in turns] for name, turns in record["turns"].items()}
    assert record["ratio"]["trl"]["seconds"]["max"] == max(
        a / b for a, b in zip(seconds["ours"], seconds["trl"], strict=True)
    )
    assert record["memory"]["trl"] == MEMORY["trl"] and record["memory_ratio"]["trl_2048"] is None
    assert record["trl_settings"]["loss_type"] == "dapo" and record["trl_settings"]["beta"] == 0.0
    assert record["mean_length"] == {"ours": 4.0, "trl": 4.0, "trl_2048": 4.0}
    text = json.dumps(record)
    assert str(tmp_path) not in text and str(timing.ROOT) not in text and os.uname().nodename not in text


@needs_trl
def test_free_and_in_micro_batches(bench):
    code, (record,) = bench("--mode", "free", "--micro-batch", "2", "--only", "trl", "--steps", "1", "--tokens", "12")
    assert code == 0 and record["trl_settings"]["gradient_accumulation_steps"] == 2
    assert record["parity"]["gradient"] < 1e-4 and list(record["turns"]) == ["ours", "trl"]
    assert record["command"].endswith("--mode free --micro-batch 2 --learning-rate 3e-05 --steps 1 --only trl")


@needs_trl
@pytest.mark.parametrize("wrong", ["loss", "gradient", "nan"])
def test_ours_off_is_an_error_and_writes_nothing(bench, monkeypatch, capsys, wrong):
    right = train_step.our_gradient

    def broken(*arguments):
        found = right(*arguments)
        if wrong == "loss":
            return found._replace(loss=found.loss + 1e-3)
        factor = 1.01 if wrong == "gradient" else float("nan")
        return found._replace(of={name: factor * value for name, value in found.of.items()})

    monkeypatch.setattr(train_step, "our_gradient", broken)
    assert bench("--mode", "free") == (1, [])
    assert f"OFF {'loss' if wrong == 'loss' else 'gradient'}: ours against TRL" in capsys.readouterr().out


@needs_trl
def test_another_clip_is_off(bench, monkeypatch):
    """A defect of the loss, not of the numbers: the moved log-probabilities make it show."""
    right = train_step.gradients
    monkeypatch.setattr(
        train_step,
        "gradients",
        lambda p, o, g, a, config, m: right(p, o, g, a, config.model_copy(update={"clip": 0.4}), m),
    )
    assert bench("--mode", "free") == (1, [])


@needs_trl
def test_other_tokens_of_the_prompts_are_refused(bench, monkeypatch, capsys):
    monkeypatch.setattr(train_step, "_question", lambda policy, place: "another question?\n")
    assert bench("--mode", "free") == (2, []) and "TRL makes other tokens" in capsys.readouterr().out


@needs_trl
def test_both_start_from_the_same_weights_and_parity_moves_neither(tmp_path):
    policy, other = load("lab:base"), load("lab:base")
    before = [p.detach().clone() for p in policy.trainable()]
    trainer = train_step.build_trainer(other, WORK, 1, str(tmp_path))
    train_step.parity(policy, trainer, WORK)
    for mine, theirs, old in zip(policy.trainable(), other.trainable(), before, strict=True):
        assert torch.equal(mine, theirs) and torch.equal(mine, old) and mine.grad is theirs.grad is None


@on_linux
def test_memory_of_ours_in_a_fresh_process():
    found = FRESH("ours", "forced", train_step._options(TINY), train_step.Steps(1, None))
    assert found["peak"] > found["loaded"] > 2**26 and found["peak_of_loading"] > 2**26 and found["workers"] > 0


@needs_trl
@on_linux
def test_memory_of_trl():
    """The part that the fresh process runs."""
    found = train_step._measure_memory(WORK, "trl")
    assert found["peak"] > found["loaded"] > 2**26


@on_linux
def test_a_peak_is_of_the_call_and_what_was_before_it_is_told_apart():
    held = torch.ones(2**26, dtype=torch.uint8)
    found = timing.resident(lambda: torch.ones(2**27, dtype=torch.uint8))
    assert found.peak - found.before == pytest.approx(2**27, rel=0.05) and found.earlier > 2**26 and len(held)
