"""What a person sees while a run goes on."""

from dataclasses import replace

from poc.display import Watch, summary
from poc.records import StepRecord

RECORD = StepRecord(
    step=3, reward=0.5, rewards={}, reward_std={}, zero_variance=0.0, entropy=0.25, logp=-0.3, self_certainty=2.0,
    length=12.0, truncated=0.75, repetition=0.0, foreign=0.0,
    accuracy=None, loss=0.0, grad_norm=0.0, clip_fraction=0.0, kl=0.0, learning_rate=1e-3,
    tokens=300, timing={"rollout": 1.0, "update": 0.5}, weights={}, labelled=0.0, agreement=0.5, semantic_entropy=1.0,
    dropped=None,
)  # fmt: skip


def test_a_step_is_one_line_with_reward_entropy_length_speed_and_time_left(capsys):
    watch = Watch(4, live=False)
    watch.start_run("arm", 4)
    watch.step(RECORD)
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and line.startswith("arm step 3/4 · reward 0.500 · entropy 0.250 · length 12.0")
    assert "TRUNCATED 75%" in line and "200 tokens/s" in line and line.endswith("left\n")
    assert "TRUNCATED" not in summary(RECORD.__class__(**{**fields(RECORD), "truncated": 0.1}))


def test_the_time_left_does_not_count_what_came_before_the_first_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("poc.display.time.monotonic", lambda: now[0])
    watch = Watch(11, live=False)
    now[0] = 500.0  # loading and the first evaluation
    watch.evaluated({"step": 0, "seconds": 9.0, "summary": {"entropy": {"value": 1.0}}})
    now[0] = 506.0
    watch.done = 1
    assert watch.left() == "1:00"


def fields(record):
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def test_a_skipped_step_is_shown_as_one():
    record = replace(RECORD, reward=None, entropy=None, loss=None, skipped="loss nan")
    assert summary(record) == "reward – · entropy – · length 12.0 · SKIPPED · TRUNCATED 75% · 200 tokens/s"
