"""Finite or nothing: NaN and infinity in six places at five steps, bad rewards, and what is told and kept of each."""

import json
import math
from dataclasses import replace

import pytest
import torch

import poc.session
import poc.update
from poc import rewards
from tests.poc.runs import essence, job, resume, run, sha256

PLACES = ("logp", "entropy", "self_certainty", "reward", "loss", "gradient")
STEPS = 5
OPTIONS = [f"train.steps={STEPS}", "train.checkpoint_every=1", "reward={random: 1.0, self_certainty: 1.0}"]


def inject(monkeypatch, place: str, at: int, value: float) -> None:
    """`value` in that place of step `at` (each step draws its own rollout here)."""
    if place in ("logp", "entropy", "self_certainty"):
        monkeypatch.setattr(poc.session, "rollout", _spoilt_rollout(place, at, value))
    elif place == "reward":
        calls = _counted(
            lambda group, now: [value] + [1.0] * (len(group.episodes) - 1) if now else None, at, per_step=2
        )
        real = rewards.REWARDS["random"]
        monkeypatch.setitem(rewards.REWARDS, "random", lambda group: calls(group) or real(group))
    else:
        monkeypatch.setattr(poc.update, "_loss", _spoilt_loss(place, at, value))


def _counted(function, at: int, per_step: int = 1):
    seen = []

    def call(argument):
        seen.append(argument)
        return function(argument, len(seen) == (at - 1) * per_step + 1)

    return call


def _spoilt_rollout(place: str, at: int, value: float):
    real, seen = poc.session.rollout, []

    def rollout(*arguments, **options):
        groups = real(*arguments, **options)
        seen.append(1)
        if len(seen) != at:
            return groups
        first = groups[1].episodes[2]
        spoilt = replace(first, **{place: (value, *getattr(first, place)[1:])})
        episodes = (*groups[1].episodes[:2], spoilt, *groups[1].episodes[3:])
        return [groups[0], replace(groups[1], episodes=episodes)]

    return rollout


def _spoilt_loss(place: str, at: int, value: float):
    real, seen = poc.update._loss, []

    def loss(*arguments):
        found = real(*arguments)
        seen.append(1)
        if len(seen) != at:
            return found
        if place == "gradient":
            found.loss.register_hook(lambda gradient: gradient * value)
            return found
        return found._replace(loss=found.loss.detach() * 0 + value + found.loss * 0)

    return loss


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_folder):
    """A whole run, and the hash of the adapter after each step of it."""
    folder, adapters = tmp_path_factory.mktemp("straight") / "run", {}
    save = poc.session.Session.save

    def saved(session, state, optimizer):
        save(session, state, optimizer)
        path = folder / "checkpoints" / f"step-{state.step:06d}"
        adapters[state.step] = sha256(path / "adapter_model.safetensors")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poc.session.Session, "save", saved)
        assert run([job(folder, tiny_folder, OPTIONS)]) == "done"
    assert len(set(adapters.values())) == STEPS + 1  # every step changes the weights
    return folder, adapters


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("place", PLACES)
def test_stopped_before_the_weights_change(tmp_path, tiny_folder, straight, place, step, value):
    whole, adapters = straight
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        inject(patch, place, step, value)
        assert run([job(folder, tiny_folder, OPTIONS)]) == "failed"
    reason = json.loads((folder / "outcome.json").read_text())["reason"]
    assert f"step {step}: " in reason and ("nan" in reason or ("inf" in reason and value == math.inf)), reason
    assert {"gradient": "gradient norm", "reward": "reward random of "}.get(place, place) in reason
    last = sorted(folder.glob("checkpoints/step-*"))[-1]
    assert last.name == f"step-{step - 1:06d}" and sha256(last / "adapter_model.safetensors") == adapters[step - 1]
    lines = (folder / "steps.jsonl").read_text().splitlines() if step > 1 else []
    assert len(lines) == step - 1  # a step that did not happen is not shown as one that did
    if step in (1, 4):  # the cause gone, nothing was lost
        assert resume(folder) == "done" and essence(folder) == essence(whole)


@pytest.mark.parametrize("place", PLACES)
def test_a_skipped_step_changes_nothing_and_says_so(tmp_path, tiny_folder, place, monkeypatch, capsys):
    inject(monkeypatch, place, 3, math.nan)
    options = [*OPTIONS, "train.nonfinite=skip"]
    assert run([job(tmp_path / "run", tiny_folder, options)]) == "done"
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if s["skipped"]] == [3] and "nan" in steps[2]["skipped"]
    assert steps[2]["loss"] is steps[2]["grad_norm"] is None and steps[3]["loss"] is not None  # never 0, never cleaned
    assert place not in steps[2] or place in ("reward", "loss") or steps[2][place] is None
    assert "skipped step 3" in capsys.readouterr().out
    audit = (tmp_path / "run" / "audit.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["event"] == "skip" for line in audit) == 1


def test_a_skipped_step_leaves_weights_and_optimizer(tmp_path, tiny_folder, monkeypatch):
    taken = {}
    save = poc.session.Session.save

    def saved(session, state, optimizer):
        save(session, state, optimizer)
        path = session.folder.path / "checkpoints" / f"step-{state.step:06d}"
        taken[state.step] = [sha256(path / f"{name}.safetensors") for name in ("adapter_model", "optimizer")]

    monkeypatch.setattr(poc.session.Session, "save", saved)
    inject(monkeypatch, "loss", 3, math.inf)
    run([job(tmp_path / "run", tiny_folder, [*OPTIONS, "train.nonfinite=skip"])])
    assert taken[2] == taken[3] != taken[4]


@pytest.mark.parametrize("policy, state", [("stop", "failed"), ("skip", "done")])
def test_what_is_not_finite_in_a_rollout_that_serves_later_steps(tmp_path, tiny_folder, monkeypatch, policy, state):
    """The second of two steps on one rollout meets it; the checkpoint between them holds it."""
    real = poc.session.rollout

    def rollout(*arguments, **options):
        *groups, last = real(*arguments, **options)
        first = last.episodes[0]
        return [*groups, replace(last, episodes=(replace(first, logp=(math.nan,) * len(first)), *last.episodes[1:]))]

    monkeypatch.setattr(poc.session, "rollout", rollout)
    options = [*OPTIONS, "train.steps=4", "train.rollout_reuse=2", f"train.nonfinite={policy}"]
    assert run([job(tmp_path / "run", tiny_folder, options)]) == state
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [bool(s["skipped"]) for s in steps] == ([False] if policy == "stop" else [False, True] * 2)
    reason = json.loads((tmp_path / "run" / "outcome.json").read_text())["reason"]
    assert policy == "skip" or reason.startswith("step 2: logp nan of token 0 of completion 0")


def test_skipping_has_a_cap(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "random", lambda group: [math.nan] * len(group.episodes))
    options = [*OPTIONS, "train.nonfinite=skip", "train.nonfinite_cap=2"]
    assert run([job(tmp_path / "run", tiny_folder, options)]) == "failed"
    reason = json.loads((tmp_path / "run" / "outcome.json").read_text())["reason"]
    assert reason.startswith("step 3: ") and "2 steps were skipped before" in reason


def test_weights_that_a_step_ruins_are_not_kept(tmp_path, tiny_folder, straight):
    """A finite gradient is not enough: the step itself can overflow."""
    whole, adapters = straight
    real, taken = torch.optim.AdamW.step, []

    def step(optimizer):
        real(optimizer)
        taken.append(1)
        if len(taken) == 3:
            optimizer.param_groups[0]["params"][1].data[0, 0] = math.inf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        assert run([job(tmp_path / "run", tiny_folder, OPTIONS)]) == "failed"
    assert "not finite after the step" in json.loads((tmp_path / "run" / "outcome.json").read_text())["reason"]
    last = sorted((tmp_path / "run").glob("checkpoints/step-*"))[-1]
    assert last.name == "step-000002" and sha256(last / "adapter_model.safetensors") == adapters[2]
    assert resume(tmp_path / "run") == "done" and essence(tmp_path / "run") == essence(whole)


def raising(group):
    raise KeyError("\x1b]0;title\x07")


BAD = {
    "raises": (raising, "the group as a whole raises KeyError"),
    "NaN": (lambda group: [0.0] * 3 + [math.nan], "nan for completion 3"),
    "None": (lambda group: None, "None, a NoneType, is no list of numbers"),
    "None in a row": (lambda group: [0.0, None, 0.0, 0.0], "None for completion 1 is a NoneType, not a number"),
    "wrong length": (lambda group: [0.0] * 3, "3 values for 4 completions"),
    "a string": (lambda group: "1111", "'1111', a str, is no list of numbers"),
    "a string in a row": (lambda group: [0.0, 0.0, "1", 0.0], "'1' for completion 2 is a str, not a number"),
}


@pytest.mark.parametrize("bad, said", BAD.values(), ids=BAD)
def test_a_bad_reward_is_one_error_that_names_it_and_nothing_is_lost(tmp_path, tiny_folder, straight, bad, said):
    whole, adapters = straight
    folder, real = tmp_path / "run", rewards.REWARDS["random"]
    with pytest.MonkeyPatch.context() as patch:
        calls = _counted(lambda group, now: bad if now else real, 3, per_step=2)
        patch.setitem(rewards.REWARDS, "random", lambda group: calls(group)(group))
        assert run([job(folder, tiny_folder, OPTIONS)]) == "failed"
    reason = json.loads((folder / "outcome.json").read_text())["reason"]
    assert "reward random of math-" in reason and said in reason, reason
    assert "\n" not in reason and "\x1b" not in reason
    assert resume(folder) == "done" and essence(folder) == essence(whole)
