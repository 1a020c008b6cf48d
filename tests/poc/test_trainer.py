"""The loop on a random toy model: order of prompts, records, determinism, and that training moves what it should."""

import json
import math
from dataclasses import replace

import pytest
import torch

from poc import pilot
from poc.config import RunConfig
from poc.configfile import load
from poc.display import Watch
from poc.order import derived_seed, place_of, prompts_of_step, share_of
from poc.records import Episode, Example, Group, StepRecord, Verdict
from poc.trainer import Scores, step_record
from poc.update import UpdateRecord

EXAMPLES = [Example(f"q{i}", str(i), "1", "math") for i in range(10)]
SMALL = [
    "data.train=16", "data.holdout=4", "data.canary=2", "train.prompts_per_step=4", "train.group_size=4",
    "train.max_new_tokens=8", "evaluate.every=2", "evaluate.samples=2", "lora.rank=4",
]  # fmt: skip


def run(folder, tiny_folder, overrides, stop_after=None):
    """Train the toy model into `folder`; the state and the lines of steps.jsonl."""
    config = load(RunConfig, None, [f"model={tiny_folder}", *SMALL, *overrides])
    job = pilot.Job(folder, "toy", None, pilot.resolve(config))
    watch = Watch(config.train.steps, live=False)
    interrupted = lambda: stop_after is not None and watch.done >= stop_after  # noqa: E731
    state = pilot.run([job], pilot.prepare([job]), watch, interrupted)
    return state, [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_every_prompt_once_an_epoch_in_an_order_of_the_seed():
    steps = [prompts_of_step(EXAMPLES, 4, 0, step) for step in range(1, 6)]  # 20 prompts: two epochs
    ids = [example.id for step in steps for example in step]
    assert sorted(ids[:10]) == sorted(ids[10:]) == sorted(e.id for e in EXAMPLES)
    assert ids[:10] != ids[10:]
    assert prompts_of_step(EXAMPLES, 4, 0, 3) == steps[2]  # of the step number alone: nothing to remember for a resume
    assert prompts_of_step(EXAMPLES, 4, 1, 3) != steps[2]


def test_seeds_of_purposes_and_steps_are_apart():
    seeds = {derived_seed(s, p, t) for s in range(3) for p in ("rollout", "other") for t in range(50)}
    assert len(seeds) == 300 and all(0 <= s < 2**63 for s in seeds)


def test_step_record_by_hand():
    def episode(n, finished, status, entropy):
        return Episode((5,) * n, "", finished, (-1.0,) * n, (entropy,) * n, (2.0,) * n, Verdict(status, True, True))

    groups = [
        Group(EXAMPLES[0], (1,), (episode(3, True, "correct", 0.5), episode(1, False, "wrong", 1.5))),
        Group(EXAMPLES[1], (1,), (episode(2, True, "wrong", 0.1), episode(2, True, "wrong", 0.1))),
    ]
    groups = [replace(group, meanings=meanings) for group, meanings in zip(groups, ((0, None), (1, 1)), strict=True)]
    parts = {"verifiable": torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)}
    volume = {"verifiable": torch.tensor([[2.0], [2.0]], dtype=torch.float64)}
    config = pilot.resolve(load(RunConfig, None, ["reward={verifiable: 2.0}"]))
    advantage = torch.tensor([[0.7, -0.7], [0.0, 0.0]])
    update, timing = UpdateRecord(0.1, 2.0, 0.25, 0.0), {"rollout": 1.0}
    scores = Scores(parts, volume, {"verifiable": 2.0}, False, advantage)
    record = step_record(3, groups, scores, config, update, None, 16, timing)
    assert record.reward == 0.5 and record.rewards == {"verifiable": 0.25} and record.accuracy == 0.25
    assert (record.agreement, record.dropped, record.labelled) == (0.75, None, 1.0)  # semantic_entropy was not asked
    assert record.semantic_entropy == pytest.approx(math.log(2) / 2)
    assert record.reward_std["verifiable"] == pytest.approx(0.5**0.5 / 2)
    assert record.entropy == pytest.approx((3 * 0.5 + 1.5 + 4 * 0.1) / 8)  # every token counts alike
    assert (record.length, record.truncated, record.zero_variance, record.tokens) == (2.0, 0.25, 0.5, 8)
    assert (record.skipped, record.micro_batch, record.repetition, record.foreign) == (None, 16, 0.0, 0.0)


def test_a_rollout_serves_passes_of_shares():
    config = load(RunConfig, None, ["train.rollout_reuse=3", "train.inner_epochs=2", "train.prompts_per_step=2"])
    places = [place_of(step, config) for step in range(1, 9)]
    assert places == [0, 1, 2, 3, 4, 5, 0, 1]
    drawn = list("abcdef")
    assert ["".join(share_of(drawn, place, config)) for place in places[:6]] == ["ab", "cd", "ef"] * 2


def test_same_seed_same_steps_apart_from_times(tmp_path, tiny_folder):
    overrides = ["train.steps=3", "reward={self_certainty: 1.0, random: 0.5}", "train.inner_epochs=2", "train.kl=0.01"]
    _, one = run(tmp_path / "a", tiny_folder, overrides)
    _, two = run(tmp_path / "b", tiny_folder, overrides)
    _, three = run(tmp_path / "c", tiny_folder, [*overrides, "train.seed=1"])
    for line in (*one, *two, *three):
        assert line.pop("timing").keys() == {"rollout", "reward", "update"}
    assert one == two != three
    assert (tmp_path / "a" / "samples.jsonl").read_bytes() == (tmp_path / "b" / "samples.jsonl").read_bytes()
    for name in ("step-000000", "step-000003"):
        one, two = (json.loads((tmp_path / x / "evaluations" / f"{name}.json").read_text()) for x in "ab")
        assert one["prompts"] == two["prompts"]


@pytest.mark.parametrize(
    "reward, field, direction", [("token_entropy", "entropy", -1), ("self_certainty", "self_certainty", 1)]
)
def test_training_moves_what_is_rewarded(tmp_path, tiny_folder, reward, field, direction):
    overrides = ["train.steps=12", f"reward={{{reward}: 1.0}}", "train.learning_rate=0.02", "train.group_size=16"]
    _, steps = run(tmp_path / "run", tiny_folder, [*overrides, "guard.action=off"])  # which would end it early
    change = steps[-1][field] - steps[0][field]
    assert change * direction > 0.1


def test_run_folder_is_whole(tmp_path, tiny_folder):
    state, steps = run(tmp_path / "run", tiny_folder, ["train.steps=5"])
    folder = tmp_path / "run"
    assert state == "done" and set(steps[0]) == set(StepRecord.__dataclass_fields__)
    assert [p.name for p in sorted(folder.glob("evaluations/*.json"))] == [f"step-00000{i}.json" for i in (0, 2, 4, 5)]
    canary = [p.name for p in sorted(folder.glob("evaluations/canary/*"))]
    assert canary == [f"step-00000{i}.json" for i in (0, 2, 4, 5)]
    assert {p.name for p in folder.glob("checkpoints/*")} >= {"step-000000", "step-000004", "step-000005"}
    assert json.loads((folder / "outcome.json").read_text())["status"] == "done"
    assert load(RunConfig, str(folder / "config.yaml")).train.max_new_tokens == 8
    assert not list(folder.rglob(".*staged*"))


def test_an_interrupted_run_ends_after_its_step_with_a_checkpoint(tmp_path, tiny_folder):
    state, steps = run(tmp_path / "run", tiny_folder, ["train.steps=9"], stop_after=3)
    assert state == "interrupted" and len(steps) == 3
    assert (tmp_path / "run" / "checkpoints" / "step-000003" / "adapter_model.safetensors").is_file()
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["status"] == "interrupted"
