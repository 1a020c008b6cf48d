"""Sections of the report: reward against accuracy, calibration, samples, events of the guard, what people found."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import pytest

from poc.config import PilotConfig
from poc.report import calibration, figures, write
from poc.report.arms import collect
from poc.report.divergence import divergence
from poc.report.groups import grouped
from poc.report.language import load
from poc.report.read import Completion, Evaluation, Prompt, read
from poc.report.samples import changed_answers

_spec = importlib.util.spec_from_file_location("fake_runs", Path(__file__).with_name("fake_runs.py"))
fake_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_runs)
HOSTILE, Page, harmless = fake_runs.HOSTILE, fake_runs.Page, fake_runs.harmless
EN = load("en")
ARMS = ("base-self_certainty", "base-verifiable")


def edit(path: Path, **changes) -> None:
    fake_runs.write_json(path, json.loads(path.read_text()) | changes)


def arm_of(folder: Path, label: str):
    return next(j.arm for j in collect(read(folder)) if j.arm.label == label)


@pytest.fixture
def pilot(tmp_path):
    return fake_runs.pilot(tmp_path / "p", 40, arms=ARMS)


def page(folder: Path, tmp_path: Path) -> str:
    return write([folder], tmp_path / "r.html").read_text("utf-8")


def test_reward_up_and_accuracy_down_is_found_where_it_is(pilot, tmp_path):
    found = divergence(arm_of(pilot, "base-self_certainty"))
    assert found.reward[0] < found.reward[1] and found.change.high < 0 and not found.undone
    assert divergence(arm_of(pilot, "base-verifiable")) is None
    text = Page(page(pilot, tmp_path)).text
    assert "base-self_certainty : reward" in text and "In no arm did the reward rise" not in text


def test_a_falling_reward_is_no_divergence(pilot):
    path = pilot / "arms/base-self_certainty-seed0/steps.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"reward": -line["step"] / 9}) + "\n" for line in lines))
    assert divergence(arm_of(pilot, "base-self_certainty")) is None


def test_a_divergence_that_was_undone_is_still_told(pilot, tmp_path):
    run = pilot / "arms/base-self_certainty-seed0"
    kept = json.loads((run / "evaluations/step-000010.json").read_text())
    fake_runs.write_json(run / "evaluations/kept/step-000010.json", kept)
    edit(run / "outcome.json", status="stopped", kept=10)
    assert divergence(arm_of(pilot, "base-self_certainty")).undone
    assert "The guard has undone that." in Page(page(pilot, tmp_path)).text


def evaluation(pairs) -> Evaluation:
    """One prompt whose sampled answers have these (confidence, right)."""
    answers = tuple(Completion("x", "correct" if y else "wrong", True, y, c) for c, y in pairs)
    return Evaluation(0, 1.0, len(answers), {}, {"k": Prompt("k", "q", "1", None, answers)})


def test_bins_by_hand():
    pairs = [(0.31, True)] * 5 + [(0.39, False)] * 5 + [(0.4, True)] * 10 + [(0.95, True)] * 9
    assert calibration.bins(evaluation(pairs)) == [  # (0.3, 0.4] holds 0.4; nine answers are too few
        calibration.Bin(pytest.approx((5 * 0.31 + 5 * 0.39 + 10 * 0.4) / 20), 0.75, 20)
    ]
    assert [b.answers for b in calibration.bins(evaluation([(0.0, True)] * 10 + [(1.0, False)] * 10))] == [10, 10]
    assert calibration.bins(evaluation([(None, True)] * 20)) == []


def test_calibration_is_drawn_before_and_after(pilot, tmp_path):
    names = Page(page(pilot, tmp_path)).charts
    assert any(n.startswith("base-verifiable: right answers by confidence") and "ECE 0.11 before" in n for n in names)


def test_samples_are_what_their_titles_say_and_no_question_comes_twice(pilot):
    arm = arm_of(pilot, "base-verifiable")
    found = changed_answers(arm, EN)

    assert len({s["question"] for s in found}) == len(found)
    first, last = arm.first.evaluations[0], arm.first.final
    share = lambda e: e.per_prompt(lambda c: c.correct)  # noqa: E731
    moved = {first.prompts[k].question: share(last)[k] - share(first)[k] for k in first.prompts}
    best = next(s for s in found if s["title"] == EN("sample.best"))
    assert moved[best["question"]] == max(moved.values()) > 0
    worst = [s for s in found if s["title"] == EN("sample.worst")]
    assert all(moved[s["question"]] == min(v for q, v in moved.items() if q != best["question"]) < 0 for s in worst)
    assert found == changed_answers(arm, EN)


def test_events_of_the_guard_stand_on_the_curve(pilot, tmp_path):
    run = pilot / "arms/base-self_certainty-seed0"
    told = [{"rule": "past_peak", "action": "warn", "step": 25}, {"rule": "canary_drop", "action": "stop", "step": 60}]
    edit(run / "outcome.json", guard=told)
    (group,) = [g for g in grouped(collect(read(pilot))) if g.first.role == "base"]
    events = figures.marked(group.charts[0])
    assert [(e.number, e.arm.label, e.alarm.step) for e in events] == [
        (1, "base-self_certainty", 25), (2, "base-self_certainty", 60),
    ]  # fmt: skip
    arm = events[0].arm
    before, after = (i.value for s, i in arm.curve if s in (20, 30))
    assert figures._height(arm, 25) == pytest.approx((before + after) / 2)
    text = Page(page(pilot, tmp_path)).text
    assert re.search(
        r"2: step 60, base-self_certainty ?: it is forgetting the task \( ?canary_drop ?; it stopped", text
    )


def test_what_people_found_is_shown_with_both_hashes(pilot, tmp_path):
    run = pilot / "arms/base-verifiable-seed0"
    fake_runs.write_json(run / "review.json", fake_runs.review())
    fake_runs.write_text(run / "checkpoints/step-000060/adapter_model.safetensors", "weights")
    fake_runs.write_text(run / "checkpoints/step-000050/adapter_model.safetensors", "older")
    text = Page(page(pilot, tmp_path)).text
    for part in ("judged 40 answers on", "95.0\u00a0% as the verifier did", "0.90 (0.70 to 0.97)", "ab" * 32, "cd" * 32,
                 hashlib.sha256(b"weights").hexdigest(), "not the one that was reviewed",
                 "verifier wrong, person correct", "the model said 42"):  # fmt: skip
        assert " ".join(part.split()) in text, part
    edit(run / "review.json", adapter_sha256=hashlib.sha256(b"weights").hexdigest())
    assert "not the one that was reviewed" not in page(pilot, tmp_path)
    edit(run / "outcome.json", kept=50)  # went back: that checkpoint counts
    assert "not the one that was reviewed" in page(pilot, tmp_path)


@pytest.mark.parametrize(
    "broken", ["", "[]", '{"n": 3}', '{"n": "x", "by_model": {}}',
               '{"n": 1, "by_model": {"end": {"human": 7, "n": 1}}}',
               '{"n": 1, "by_model": {}, "disagreements": "none"}', '{"n": 1, "by_model": {}, "kappa": [1]}'],
)  # fmt: skip
def test_a_damaged_review_is_told(broken, pilot, tmp_path):
    (pilot / "arms/base-verifiable-seed0/review.json").write_text(broken)
    text = Page(page(pilot, tmp_path)).text
    assert "base-verifiable-seed0: review.json: unreadable" in text and "What people found" not in text


def test_without_a_review_nothing_is_said_of_it(pilot, tmp_path):
    assert "What people found" not in page(pilot, tmp_path) and "review.json" not in page(pilot, tmp_path)


def few_charts(run: Path) -> Path:
    """The same run with next to nothing to draw: charts are what takes the time."""
    (run / "steps.jsonl").write_text("")
    for path in (run / "evaluations").iterdir():
        edit(path, summary={})
    return run


def test_sixty_hostile_strings():
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_hostile_in_reviews_reasons_and_rules_survives(hostile, tmp_path):
    run = few_charts(
        fake_runs.run(tmp_path / "run", PilotConfig().arms[3], 0, 8, text=lambda s: hostile, curve=(0.4, 0.6))
    )
    fake_runs.write_json(run / "review.json", fake_runs.review(hostile))
    guard = [{"rule": hostile, "action": hostile, "step": 30}]
    edit(run / "outcome.json", guard=guard, status="stopped", reason=hostile, audit_head=hostile)
    harmless(page(run, tmp_path))


def test_what_is_folded_is_printed():
    css = (Path(write.__code__.co_filename).with_name("page.css")).read_text()
    printed = css[css.index("@media print") :]
    assert "details::details-content" in printed and "content-visibility: visible" in printed


def test_the_way_to_prices_is_told_once_and_only_where_there_are_none(tmp_path):
    free = fake_runs.pilot(tmp_path / "free", 8, arms=ARMS)
    assert page(free, tmp_path).count("cost.per_hour=0.80") == 1
    arms = [arm for arm in PilotConfig().arms if arm.label in ARMS]
    config = PilotConfig(arms=arms, cost={"per_hour": 1.0})
    priced = fake_runs.write_pilot(tmp_path / "priced", config, {label: (0.4, 0.5) for label in ARMS}, 8)
    text = page(priced, tmp_path)
    assert "cost.per_hour=0.80" not in text and "0.014 USD" in text  # 51.3 s at 1.00 an hour


def test_configurations_are_told_by_what_differs(pilot, tmp_path):
    text = page(pilot, tmp_path)
    first, other = (re.findall(r'<details class="config">.*?</details>', text, re.S) + [""])[:2]
    assert "Configuration of base-self_certainty</summary>" in first and "max_new_tokens" in first
    assert "-  self_certainty: 1.0" in other and "+  verifiable: 1.0" in other and "max_new_tokens" not in other
