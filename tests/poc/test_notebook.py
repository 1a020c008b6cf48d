"""What notebooks call: quiet, complete, and loud when something is wrong."""

import pytest

from poc import cli, pilot, rewards
from poc.notebook import run, start
from poc.records import InputError, RunError

SMALL = [
    "data.train=16", "data.holdout=6", "data.canary=2", "train.prompts_per_step=2", "train.group_size=4",
    "train.steps=2", "train.max_new_tokens=6", "evaluate.every=2", "evaluate.samples=2", "lora.rank=2",
    "guard.action=warn",
]  # fmt: skip


def test_a_start_model_and_its_configuration(tiny_folder):
    config, policy = start(f"model={tiny_folder}", "data.domain=logic", "lora.rank=2")
    assert config.train.max_new_tokens == 112 and config.lora.rank == 2  # resolved: the domain's own
    assert policy.source == str(tiny_folder) and policy.model.peft_config["default"].r == 2
    with pytest.raises(InputError, match="stepps"):
        start("train.stepps=3")


def two_arms(model) -> list[str]:
    arms = "arms=[{model: base, reward: {random: 1.0}}, {model: base, reward: {format: 1.0}}]"
    return [f"models={{base: {model}}}", arms, *SMALL]


def test_a_pilot_without_a_word(tmp_path, tiny_folder, capsys):
    arms = run(cli.pilot, tmp_path / "out", *two_arms(tiny_folder))
    assert [judged.arm.label for judged in arms] == ["base-random", "base-format"]
    assert all(judged.arm.change.n == 6 and judged.arm.curve[-1][0] == 2 for judged in arms)
    assert arms[0].verdict.word in ("steady", "drift")
    assert (tmp_path / "out" / "report.html").is_file()
    assert capsys.readouterr().out == ""


def test_a_run_of_its_own_that_the_guard_ended(tmp_path, tiny_folder, monkeypatch):
    """Exit code 3 is a finding."""
    whole = pilot.run
    monkeypatch.setattr(pilot, "run", lambda *given, **more: whole(*given, **more) and "stopped")
    (judged,) = run(cli.improve, tmp_path / "out", f"model={tiny_folder}", "gap.questions=4", "gap.every=2", *SMALL)
    assert judged.arm.first.gap.times == [0, 2]


def test_a_failed_run_is_no_result(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "random", lambda group: None)
    with pytest.raises(RunError, match=r"base-random-seed0: .*reward random of .*poc resume .*out goes on"):
        run(cli.pilot, tmp_path / "out", *two_arms(tiny_folder))


def test_wrong_input_is_told_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="train.stepps"):
        run(cli.pilot, tmp_path / "out", "train.stepps=3")
    assert not (tmp_path / "out").exists()
