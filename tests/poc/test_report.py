"""The report from made-up run folders: verdicts, tolerance of torn files, and nothing that a model wrote left raw."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from poc.config import DEFAULT_ARMS
from poc.records import InputError
from poc.report import verdicts, words, write
from poc.report.arms import collect
from poc.report.language import load
from poc.report.read import read
from poc.report.verdicts import Peak, judge
from poc.statistics import Interval
from poc.text import visible

_spec = importlib.util.spec_from_file_location("fake_runs", Path(__file__).with_name("fake_runs.py"))
fake_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_runs)

UP, DOWN, NONE, FEW = (
    Interval(*v) for v in ((0.1, 0.05, 0.15, 99), (-0.1, -0.2, -0.05, 99), (0.01, -0.1, 0.1, 99), (0.5, 0.2, 0.8, 5))
)
SHORT = ("base-self_certainty", "base-verifiable", "base-random")
HOSTILE, Page, harmless = fake_runs.HOSTILE, fake_runs.Page, fake_runs.harmless
EN = load("en")


def report(folders, tmp_path) -> str:
    return write(folders, tmp_path / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    return fake_runs.pilot(tmp_path_factory.mktemp("pilot"))


@pytest.fixture(scope="module")
def page(pilot, tmp_path_factory):
    return report([pilot], tmp_path_factory.mktemp("out"))


@pytest.mark.parametrize(
    ("change", "facts", "word", "remarks"),
    [
        (UP, {}, "helps", ()),
        (DOWN, {}, "hurts", ()),
        (NONE, {}, "no evidence", ()),
        (None, {}, "not measured", ()),
        (None, {"is_control": True}, "not measured", ()),
        (Interval(0.1, None, None, 50), {}, "no evidence", ()),
        (FEW, {}, "no evidence", ("few prompts",)),
        (UP, {"moved": 5}, "no evidence", ("few prompts",)),
        (DOWN, {"moved": 5}, "no evidence", ("few prompts",)),
        (NONE, {"moved": 5}, "no evidence", ()),
        (UP, {"moved": 5, "is_control": True}, "steady", ()),
        (UP, {"is_control": True}, "drift", ()),
        (DOWN, {"is_control": True}, "drift", ()),
        (NONE, {"is_control": True}, "steady", ()),
        (UP, {"control": NONE, "over_control": UP}, "helps", ()),
        (UP, {"control": UP, "over_control": UP}, "helps", ()),
        (UP, {"control": UP, "over_control": NONE}, "no evidence", ("no more than control",)),
        (UP, {"control": UP, "over_control": DOWN}, "no evidence", ("no more than control",)),
        (UP, {"control": NONE, "over_control": NONE}, "helps", ("not clear of control",)),
        (UP, {"control": DOWN, "over_control": UP}, "helps", ()),
        (DOWN, {"control": DOWN, "over_control": NONE}, "hurts", ()),
        (UP, {"anyhow": UP}, "helps", ()),
        (UP, {"anyhow": NONE}, "helps", ("format only",)),
        (UP, {"anyhow": DOWN}, "helps", ("format only",)),
        (NONE, {"anyhow": NONE}, "no evidence", ()),
        (DOWN, {"peak": Peak(20, UP, DOWN)}, "hurts", ("fell from peak",)),
        (UP, {"peak": Peak(20, UP, DOWN)}, "helps", ("fell from peak",)),
        (UP, {"peak": Peak(20, UP, NONE)}, "helps", ()),
        (DOWN, {"peak": Peak(20, NONE, DOWN)}, "hurts", ()),
    ],
)
def test_verdict_truth_table(change, facts, word, remarks):
    assert judge(change, **facts) == verdicts.Verdict(word, remarks)


def test_seeds_are_averaged_per_prompt_before_the_bootstrap():
    before = [{"a": 0.0, "b": 0.5}, {"a": 0.5, "b": 0.5}]
    after = [{"a": 1.0, "b": 0.5, "new": 1.0}, {"a": 0.5, "b": 0.5}]
    change = verdicts.change(after, before)
    assert (change.value, change.n) == (pytest.approx(0.25), 2)
    assert (verdicts.moved(after, before), verdicts.moved(before, before)) == (1, 0)
    assert verdicts.change([{"x": 1.0}], [{"y": 1.0}]) is None


def test_difference_to_the_control_is_paired():
    arm, control = ([{"a": 1.0, "b": 0.6}], [{"a": 0.0, "b": 0.0}]), ([{"b": 0.5, "c": 1.0}], [{"b": 0.25, "c": 0.0}])
    assert verdicts.difference_of_changes(arm, control)[::3] == (pytest.approx(0.35), 1)


@pytest.mark.parametrize(("turned", "word"), [(5, "no evidence"), (6, "helps")])
def test_a_verdict_needs_six_questions_that_changed(turned, word, tmp_path):
    folder = fake_runs.run(tmp_path / "run", DEFAULT_ARMS[3], 0, 20)
    for step, right in ((0, 0), (60, turned)):
        path = folder / f"evaluations/step-{step:06d}.json"
        data = json.loads(path.read_text())
        for k, prompt in enumerate(data["prompts"]):
            prompt["sampled"] = [{**c, "status": "correct" if k < right else "wrong"} for c in prompt["sampled"]]
        fake_runs.write_json(path, data)
    judged = collect(read(folder))[0]
    assert judged.verdict.word == word and judged.arm.change.low > 0
    assert ("Not enough questions" in words.sentence(judged, EN)) == (turned < 6)


def test_peak_is_the_best_step_and_needs_a_later_one():
    at = {0: 0.2, 10: 0.6, 20: 0.4}
    curve = {s: [{str(k): v for k in range(20)}] for s, v in at.items()}
    found = verdicts.peak(curve)
    assert (found.step, found.change.value, found.fall.value) == (10, pytest.approx(0.4), pytest.approx(-0.2))
    assert verdicts.peak({s: curve[s] for s in (0, 10)}) is None


def test_first_screen_and_arms(page):
    text = Page(page).text
    assert "Of 7 arms: 2 help, 3 hurt, 2 without evidence." in text
    assert "lab:base and lab:instruct on math, level 0" in text and "48 hold-out questions" in text
    assert "It is no statement about your model" in text
    assert re.search(r"base-self_certainty Accuracy fell: .* then fell by", text)
    assert all(arm.label in text for arm in DEFAULT_ARMS)
    assert "Wrong before, right after" in text and "What the reward paid for in training, step 60" in text
    for part in ("a1" * 32, "c3" * 32, "commit 3f9c1e2a7b", "poc pilot --seed 0", "3.11.2", "812 MiB"):
        assert part in text


def test_a_control_counts_only_for_the_model_it_started_from(pilot):
    controls = {j.arm.label: j.control.label if j.control else None for j in collect(read(pilot))}
    assert controls["base-verifiable"] == "base-random"
    assert controls["base-random"] is controls["instruct-verifiable"] is None


def test_every_chart_has_a_name_and_its_own_ids(page):
    charts = re.findall(r"<svg [^>]*>", page)
    assert len(charts) > 40 and all(
        'role="img"' in c and re.search(r'aria-label(ledby)?="[^"]{6,}"', c) for c in charts
    )
    assert all(len(name) > 10 for name in Page(page).charts)
    ids = [v for k, v in Page(page).attributes if k == "id"]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    used |= {name for v in re.findall(r'aria-labelledby="([^"]+)"', page) for name in v.split()}
    assert used and used <= set(ids)


def test_same_folders_same_bytes(pilot, page, tmp_path):
    assert report([pilot], tmp_path) == page
    arm = pilot / "arms" / "base-random-seed0"
    assert report([pilot, arm, pilot], tmp_path) == page  # a run counts once


def test_nothing_hostile_in_texts_survives(tmp_path):
    draws = iter(HOSTILE * 1000)
    folder = fake_runs.pilot(tmp_path / "p", 12, arms=SHORT, text=lambda s: next(draws))
    parsed = harmless(report([folder], tmp_path))
    assert "<svg onload=alert(1)>" in parsed.text or "<script>alert(1)</script>" in parsed.text  # shown, as text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_hostile_in_names_and_settings_survives(hostile, tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 4, arms=("base-verifiable",)) / "arms" / "base-verifiable-seed0"
    environment = json.loads((folder / "environment.json").read_text())
    environment |= {k: hostile for k in ("arm", "command", "commit", "kit", "python", "started", "role")}
    environment |= {
        k: {hostile: hostile, "source": hostile, "cpu": hostile} for k in ("model", "data", "packages", "hardware")
    }
    fake_runs.write_json(folder / "environment.json", environment)
    fake_runs.write_json(folder / "outcome.json", {"status": "failed", "reason": hostile, "seconds": hostile})
    config = {"model": hostile, "reward": {hostile: 1.0}, "data": {"file": hostile}, "train": {"steps": hostile}}
    (folder / "config.yaml").write_text(json.dumps(config))
    for path in (folder / "evaluations").iterdir():
        data = json.loads(path.read_text())
        data["summary"] = {hostile: {"value": 0.5}}
        for prompt in data["prompts"]:
            prompt |= {
                "id": hostile + prompt["id"],
                "gold": hostile,
                "question": [{"role": hostile, "content": hostile}],
            }
        fake_runs.write_json(path, data)
    parsed = harmless(report([folder], tmp_path))
    assert visible(hostile)[:20].split("<")[0].strip()[:8] in parsed.text


def test_torn_and_missing_files_are_said(tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 12, arms=SHORT)
    killed, broken = folder / "arms" / "base-verifiable-seed0", folder / "arms" / "base-random-seed0"
    (killed / "outcome.json").unlink()
    with (killed / "steps.jsonl").open("a") as lines:
        lines.write('{"step": 61, "rew')
    (killed / "evaluations" / "step-000060.json").write_text('{"step": 60, "summ')
    (broken / "environment.json").write_bytes(b"\xff\xfe")
    (broken / "samples.jsonl").write_text('[1]\n{"step": 3, "completions": 5}\n')
    fake_runs.write_json(broken / "outcome.json", {"status": "interrupted", "reason": "Ctrl-C", "seconds": None})
    text = Page(report([folder], tmp_path)).text
    for said in (
        "base-verifiable-seed0: no usable outcome.json: killed or still running, after 60 of 60 steps",
        "base-verifiable-seed0: steps.jsonl: torn last line", "step-000060.json: unreadable",
        "base-random-seed0: interrupted after 60 of 60 steps: Ctrl-C", "environment.json: unreadable",
        "samples.jsonl: line 1 unreadable", "instruct-verifiable-seed0: planned, but it has no run folder",
    ):  # fmt: skip
        assert said in text, said


def test_a_run_with_nothing_but_its_config_is_shown(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: lab:base\nreward: {self_certainty: 1.0}\n")
    text = Page(report([tmp_path / "run"], tmp_path)).text
    assert (
        "No evaluation was written" in text
        and "Nothing could be judged" in text
        and "environment.json: missing" in text
    )


def test_a_run_that_went_back_is_judged_by_what_it_went_back_to(tmp_path):
    """And what was undone is said: a reward that hurt must not look harmless."""
    pilot = fake_runs.pilot(tmp_path / "pilot", arms=SHORT)
    folder = pilot / "arms" / "base-self_certainty-seed0"
    outcome = json.loads((folder / "outcome.json").read_text())
    told = {"status": "stopped", "kept": 10, "reason": "canary_drop: it is forgetting", "audit_head": "9:" + "ab" * 32}
    fake_runs.write_json(folder / "outcome.json", outcome | told)
    kept = json.loads((folder / "evaluations" / "step-000010.json").read_text())
    fake_runs.write_json(folder / "evaluations" / "kept" / "step-000010.json", kept)
    fake_runs.write_json(folder / "evaluations" / "canary" / "step-000010.json", kept)
    (run,) = [run for run in read(pilot) if run.label == "base-self_certainty"]
    assert run.final.step == 10 and run.evaluations[-1].step == 60 and run.views == {}
    text = harmless(report([pilot], tmp_path)).text
    stopped = (
        r"stopped by its guard after 60 of 60 steps: canary_drop: it is forgetting ?. It went back to its checkpoint"
    )
    assert re.search(stopped, text)
    assert re.search(r"Before the guard went back, at step 60: −[0-9.]+.points", text)
    assert re.search(r"base-self_certainty \S+ \(the guard undid −[0-9.]+\)", text) and told["audit_head"] in text
    judged = {j.arm.label: j for j in collect(read(pilot))}["base-self_certainty"]
    assert judged.arm.change.value > judged.arm.undone[1].value + 0.2 and judged.verdict.word != "hurts"


def test_unlabelled_holdout_is_said_and_never_a_verdict(tmp_path):
    run = fake_runs.run(tmp_path / "run", DEFAULT_ARMS[0], 0, 12, labelled=False)
    assert EN("unmeasured.labels") in Page(report([run], tmp_path)).text


def test_seeds_of_an_arm_are_one_arm_with_their_spread(tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 24, seeds=(0, 1, 2), arms=("base-verifiable",))
    judged = collect(read(folder))
    assert [len(j.arm.runs) for j in judged] == [3] * 8 and len(judged[0].arm.per_seed) == 3
    assert judged[0].arm.change.value == pytest.approx(sum(i.value for _, i in judged[0].arm.per_seed) / 3)
    text = Page(report([folder], tmp_path)).text
    assert re.search(r"By seed: 0: \+[\d.]+, 1: \+[\d.]+, 2: \+[\d.]+ points", text) and "has one seed" not in text


@pytest.mark.parametrize("folders", [["nothing"], ["empty"], []])
def test_what_is_no_run_is_named(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=(folders or ["empty list"])[0]):
        write([tmp_path / f for f in folders], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_numbers_in_words():
    assert [words.signed(v) for v in (0.031, -0.2649, 0.0004, -0.0004, None)] == ["+3.1", "−26.5", "0.0", "0.0", "–"]
    assert (
        words.percent(0.41249) == "41.2\u00a0%"
        and words.duration(3725, EN) == "1 h 02 min"
        and words.duration(59.4, EN) == "59 s"
    )


def test_the_report_needs_no_stage_and_no_torch():
    stages = "{'torch', 'transformers', 'poc.trainer', 'poc.evaluate', 'poc.models'}"
    code = f"import sys, poc.report; print({stages} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


def test_samples_before_and_after_are_what_their_title_says(page):
    parsed = Page(page).text
    kinds = re.findall(r"(Wrong|Right) before, (right|wrong) after .*?greedy: (\w+) .*?greedy: (\w+) ", parsed)
    names = {"wrong": "wrong", "right": "correct"}
    assert kinds and all((b, a) == (names[first.lower()], names[last]) for first, last, b, a in kinds)
