"""The probe: measurements by hand, warnings at their thresholds, and a plan that writes nothing."""

import pytest

from poc import cli, pilot, probe
from poc.config import RunConfig
from poc.configfile import load
from poc.records import Episode, Example, Group, Verdict
from poc.rewards.meanings import exact

CONFIG = RunConfig()


def group(answers, gold=None, entropy=0.9, finished=True):
    def episode(answer):
        verdict = gold and Verdict("correct" if answer == gold else "wrong", True, False)
        return Episode((1, 2), "", finished, (-1.0,) * 2, (entropy,) * 2, (2.0,) * 2, verdict, answer)

    labels = {answer: i for i, answer in enumerate(sorted({a for a in answers if a}))}
    episodes = tuple(map(episode, answers))
    return Group(Example("q", "?", gold, "math"), (1,), episodes, meanings=tuple(labels.get(a) for a in answers))


def summary(*groups, chat=False):
    return probe.summarise(groups, CONFIG, chat, 0.5)


def test_measurements_by_hand():
    found = summary(group("1123", gold="1"), group("4444", gold="5", entropy=0.3), group(["1", "2", "3", None]))
    assert (found.prompts, found.group_size, found.labelled) == (3, 4, 2)
    assert found.entropy.value == pytest.approx(0.7) and found.length.value == 2
    assert found.agreement.value == pytest.approx((0.5 + 1 + 0.25) / 3)
    assert found.lengths == (2,) * 12 and found.score == 0.5
    assert (found.all_equal, found.all_different, found.unreadable) == pytest.approx((1 / 3, 1 / 3, 1 / 12))
    assert found.dropped == pytest.approx(2 / 3)
    assert found.accuracy == 0.25 and found.majority == 0.5  # the first group's majority is right, the second's wrong
    assert dict(probe.lines(found))["most frequent answer right"] == "50.0%"


def test_without_labels_nothing_is_said_of_right_and_wrong():
    found = summary(group("1123"), group("11"))
    assert found.accuracy is found.majority is None
    assert not any("right" in name for name, _ in probe.lines(found))


WARNED = {
    "entropy 0.499 nats": ("policy entropy 0.499", [group("1123", entropy=0.499)]),
    "chat": ("tuned to follow instructions", [group("1123")]),
    "all agree": ("in 67% of the groups all answers agree", [group("1111"), group("2222"), group("12")]),
    "none agree": ("in 100% of the groups no two answers agree", [group("1234")]),
    "majority wrong": ("right in only 0% of 1 labelled", [group("1123", gold="2")]),
    "cut off": ("100% of the completions are cut off", [group("1123", finished=False)]),
    "unreadable": ("75% of the completions hold no answer", [group(["1", None, None, None])]),
}


@pytest.mark.parametrize("name", WARNED)
def test_each_reason_to_worry_is_said_once(name):
    text, groups = WARNED[name]
    found = probe.warnings(summary(*groups, chat=name == "chat"))
    assert sum(text in warning for warning in found) == 1 and len(found) == 1


def test_nothing_is_said_where_there_is_nothing_to_say():
    assert probe.warnings(summary(group("1123", gold="1", entropy=0.5))) == []


def test_a_probe_changes_no_weight(tiny_folder, tiny_policy):
    config = pilot.resolve(load(RunConfig, None, [f"model={tiny_folder}", "data.train=6", "train.max_new_tokens=6"]))
    job = pilot.Job(None, "toy", None, config)
    encode, _ = pilot.prompt_encoder(job, tiny_policy)
    before = [p.detach().clone() for p in tiny_policy.trainable()]
    found = probe.probe(
        tiny_policy, pilot.prepare([job]).of(job)["train"], config, encode=encode, cluster=exact, chat=True
    )  # fmt: skip
    assert found.prompts == 6 and found.score > 0 and len(found.lengths) == 48 and max(found.lengths) <= 6
    assert all((p == b).all() and p.grad is None for p, b in zip(tiny_policy.trainable(), before, strict=True))


def test_plan_prints_the_arms_and_writes_nothing(tmp_path, monkeypatch, capsys, tiny_folder):
    monkeypatch.chdir(tmp_path)
    models = f"models={{base: {tiny_folder}}}"
    arms = "arms=[{model: base, reward: {self_certainty: 1, verifiable: 1}, label_fraction: 0.5}]"
    small = ["data.train=10", "data.holdout=4", "data.canary=0", "train.max_new_tokens=6", "train.steps=3"]
    monkeypatch.setattr("sys.argv", ["poc", "plan", "--probe", *(f"--set={o}" for o in (models, arms, *small))])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    out = capsys.readouterr().out
    assert "base-self_certainty-verifiable-labels0.5-seed0" in out and "384 · 2,304 · 5" in out
    assert "policy entropy, nats per token" in out and "hold no answer that can be read" in out
    assert not list(tmp_path.iterdir())
