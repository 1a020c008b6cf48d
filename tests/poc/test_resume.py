"""Exact resume: a run that was interrupted after any step ends as the straight run does, to the last bit."""

import hashlib
import json
import random
import shutil

import numpy as np
import pytest
import torch

import poc.session
from poc import pilot
from poc.config import RunConfig
from poc.records import InputError
from poc.resume import left
from tests.poc.runs import SMALL, essence, job, resume, run

REWARDS = {
    "verifiable": "{verifiable: 1.0}",
    "self_certainty": "{self_certainty: 1.0}",
    "semantic_entropy": "{semantic_entropy: 1.0}",
    "hybrid": "{self_certainty: 1.0, semantic_entropy: 1.0, verifiable: 0.5}",
}
STEPS = 12
ANSWERING = ["train.max_new_tokens=20", "train.learning_rate=3.0e-4", "train.checkpoint_every=1"]  # it knows sums


@pytest.fixture
def texts(monkeypatch):
    """Hash of every rollout that was drawn: order of the prompts, tokens, text and statistics."""
    drawn = []

    def watched(*arguments, **options):
        groups = original(*arguments, **options)
        told = [[g.example.id, g.prompt_ids, [[e.token_ids, e.text, e.logp] for e in g.episodes]] for g in groups]
        drawn.append(hashlib.sha256(json.dumps(told).encode()).hexdigest())
        return groups

    original = poc.session.rollout
    monkeypatch.setattr(poc.session, "rollout", watched)
    return drawn


@pytest.fixture
def snapshots(monkeypatch, tmp_path):
    """The run folder as a kill right after each step's checkpoint would leave it."""

    def saved(session, state, optimizer):
        save(session, state, optimizer)
        if session.folder.path.parent == tmp_path:
            shutil.copytree(session.folder.path, tmp_path / f"{state.step}" / "run")

    save = poc.session.Session.save
    monkeypatch.setattr(poc.session.Session, "save", saved)


@pytest.mark.parametrize("reward", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize("reuse", [1, 4])
@pytest.mark.parametrize("epochs", [1, 2])
def test_killed_after_any_step_a_run_ends_as_the_straight_one(tmp_path, texts, snapshots, reward, reuse, epochs):
    overrides = [f"reward={reward}", f"train.rollout_reuse={reuse}", f"train.inner_epochs={epochs}", *ANSWERING]
    assert run([job(tmp_path / "run", "lab:base", overrides)]) == "done"
    straight, expected = essence(tmp_path / "run"), list(texts)
    assert len(straight["steps"]) == STEPS and len(expected) == -(-STEPS // (reuse * epochs))
    assert len({s["loss"] for s in straight["steps"]}) > STEPS / 3  # something is learned, or equality says nothing
    for k in range(1, STEPS):
        folder = tmp_path / f"{k}" / "run"
        assert len((folder / "steps.jsonl").read_text().splitlines()) == k
        texts.clear()
        assert resume(folder) == "done"
        assert texts == expected[-(-k // (reuse * epochs)) :]  # what was drawn is not drawn again
        assert essence(folder) == straight


def test_what_the_optimizer_and_the_rollout_remember_matters(tmp_path, tiny_folder):
    """The test above could not fail if a fresh optimizer or a new rollout did as well."""
    overrides = ["reward={self_certainty: 1.0}", "train.rollout_reuse=4"]
    run([job(tmp_path / "run", tiny_folder, overrides)])
    for name, content in (("optimizer.safetensors", None), ("rollouts.json", b"[]")):
        folder = tmp_path / name / "run"
        run([job(folder, tiny_folder, overrides)], stop_after=5)
        broken = folder / "checkpoints" / "step-000005" / name
        broken.write_bytes(content or (folder / "checkpoints/step-000000" / name).read_bytes())
        assert resume(folder) == "done"  # from step 0, because the damage is found ...
        assert essence(folder) == essence(tmp_path / "run")
        assert (folder / "checkpoints" / "step-000005.damaged").is_dir()


def test_interrupted_again_and_again(tmp_path, tiny_folder):
    overrides = ["reward={semantic_entropy: 1.0, random: 1.0}", "train.rollout_reuse=3", "evaluate.every=4"]
    run([job(tmp_path / "run", tiny_folder, overrides)])
    folder = tmp_path / "again" / "run"
    run([job(folder, tiny_folder, overrides)], stop_after=1)
    states = [resume(folder, stop_after=1) for _ in range(STEPS - 1)]
    assert states == ["interrupted"] * (STEPS - 2) + ["done"]
    assert essence(folder) == essence(tmp_path / "run")


def test_a_switch_and_a_schedule_go_on(tmp_path, tiny_folder):
    overrides = [
        "reward={self_certainty: 1.0, verifiable: 1.0}", "switch={step: 5}", "label_fraction=0.5",
        "schedule={self_certainty: {to: 0.2}}", "train.kl=0.1", "train.inner_epochs=2",
    ]  # fmt: skip
    run([job(tmp_path / "run", tiny_folder, overrides)])
    for k in (3, 4, 5, 6, 7):
        run([job(tmp_path / f"{k}" / "run", tiny_folder, overrides)], stop_after=k)
        assert resume(tmp_path / f"{k}" / "run") == "done"
        assert essence(tmp_path / f"{k}" / "run") == essence(tmp_path / "run")


def test_no_global_random_stream_is_used(tmp_path, tiny_folder):
    """Which is why a checkpoint holds none."""
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    run([job(tmp_path / "run", tiny_folder, ["train.steps=3", "reward={random: 1.0, self_certainty: 1.0}"])])
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_a_pilot_goes_on_with_the_arm_it_was_in(tmp_path, tiny_folder, monkeypatch):
    from poc.config import PilotConfig
    from poc.configfile import load

    small = [x for x in SMALL if not x.startswith("train.seed")]
    config = load(
        PilotConfig, None, [f"models={{base: {tiny_folder}}}", *small, "train.steps=4",
        "arms=[{model: base, reward: {random: 1.0}}, {model: base, reward: {self_certainty: 1.0}}]"],
    )  # fmt: skip
    from poc import runfolder

    for name, stop in (("straight", None), ("cut", 6)):
        (tmp_path / name).mkdir()
        runfolder.write_config(tmp_path / name, config)
        run(pilot.jobs_of(config, tmp_path / name), stop)
    arms = ("base-random-seed0", "base-self_certainty-seed0")
    first = tmp_path / "cut" / "arms" / arms[0]
    touched = (first / "outcome.json").stat().st_mtime_ns
    assert resume(tmp_path / "cut") == "done"
    assert (first / "outcome.json").stat().st_mtime_ns == touched  # what had ended was left alone
    for arm in arms:
        assert essence(tmp_path / "cut" / "arms" / arm) == essence(tmp_path / "straight" / "arms" / arm)
    assert left(tmp_path / "cut").open == []


def other_config(place):
    path = place / "run" / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.01", "learning_rate: 0.02"))


def other_weights(place):
    from safetensors.torch import load_file, save_file

    path = place / "model" / "model.safetensors"
    save_file({name: tensor + 0.001 for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def other_data(place):
    path = place / "own.csv"
    path.write_text(path.read_text().replace("7 + 1 =,8", "7 + 1 =,9"))


CHANGES = {
    "config": (other_config, "was changed after the run began"),
    "model": (other_weights, "the weights of .* are not those the run began with"),
    "data": (other_data, "the questions of (train|holdout|canary) are not those the run began with"),
}


@pytest.mark.parametrize("change, said", CHANGES.values(), ids=CHANGES)
def test_another_run_than_the_one_that_began_is_refused(tmp_path, tiny_folder, change, said):
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "own.csv").write_text("\n".join(["prompt,answer", *(f"{i} + 1 =,{i + 1}" for i in range(90))]))
    own = f"data={{file: {tmp_path / 'own.csv'}, train: 60, holdout: 20, canary: 8}}"
    made = job(tmp_path / "run", tmp_path / "model", [own], small=[x for x in SMALL if not x.startswith("data.")])
    run([made], stop_after=2)
    change(tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=said):
        resume(tmp_path / "run")
    assert before == {p: p.read_bytes() for p in before}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "something").write_text("else")
    with pytest.raises(InputError, match="no config.yaml"):
        left(tmp_path)


def test_the_configuration_says_what_a_step_is():
    train = RunConfig().train
    assert (train.rollout_reuse, train.inner_epochs, train.checkpoint_every) == (1, 1, 5)
