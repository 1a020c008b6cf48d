"""Studies in the report: labels, mixed starts, other views, many arms, and the Markdown table."""

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from poc.cli import app
from poc.config import REWARDS, Arm, PilotConfig
from poc.records import InputError
from poc.report import figures, groups, scatter, table, verdicts, words, write
from poc.report.arms import collect
from poc.report.charts import CONTROL, STYLES, spread
from poc.report.language import LANGUAGES, load
from poc.report.read import read
from poc.statistics import Interval
from poc.text import visible

_spec = importlib.util.spec_from_file_location("fake_runs", Path(__file__).with_name("fake_runs.py"))
fake_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_runs)
HOSTILE, Page, harmless = fake_runs.HOSTILE, fake_runs.Page, fake_runs.harmless
EN = load("en")
ONE = ("base-verifiable",)
WORDS = {"label": "x", "details": "y", "xlabel": "x", "ylabel": "y", "names": ("end", "best")}


def page(folder: Path, tmp_path: Path) -> str:
    return write([folder], tmp_path / "report.html").read_text("utf-8")


def arm_of(folder: Path, label: str):
    return next(j.arm for j in collect(read(folder)) if j.arm.label == label)


def edit(path: Path, **changes) -> None:
    fake_runs.write_json(path, json.loads(path.read_text()) | changes)


def studies(folder: Path) -> list:
    return [study for group in groups.grouped(collect(read(folder))) for study in groups.label_studies(group)]


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return fake_runs.label_pilot(tmp_path_factory.mktemp("labels"), 40)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return fake_runs.mixed_pilot(tmp_path_factory.mktemp("mixed"), 40)


@pytest.fixture(scope="module")
def viewed(tmp_path_factory):
    folder = fake_runs.pilot(tmp_path_factory.mktemp("viewed"), 24, seeds=(0, 1, 2), arms=ONE)
    for run in (folder / "arms").iterdir():
        fake_runs.add_view(run, "level-2", (0.2, 0.5, 0.45))
        fake_runs.add_view(run, "motivated", (0.4, 0.7))
    return folder


def test_best_is_the_highest_step_after_the_first():
    curve = {s: [{"a": v, "b": v}] for s, v in {0: 0.9, 10: 0.6, 20: 0.4}.items()}
    assert verdicts.best_step(curve) == 10
    assert verdicts.best_step({0: curve[0]}) is verdicts.best_step({}) is None


def test_best_may_be_the_end_and_its_change_is_paired(labels):
    rising = arm_of(labels, "base-verifiable-labels1")
    assert rising.best.step == 60 and rising.best.change == rising.change and rising.best.accuracy == rising.ends[1]
    falling = arm_of(labels, "base-self_certainty-verifiable-labels0")
    assert falling.best.step == 20 and falling.best.change.value > 0 > falling.change.value


def test_labels_are_studied_from_none_to_all(labels, tmp_path):
    (study,) = studies(labels)
    assert study.internal == ("self_certainty",) and [a.labels for a in study.arms] == [0, 26, 51, 256, 512]
    assert study.arms[-1].label == "base-verifiable-labels1"  # where every hybrid ends
    text = Page(page(labels, tmp_path)).text
    assert "How many labels it takes" in text and "Base model: lab:base, self_certainty" in text
    first = study.arms[0]
    end, best = words.accuracy(first.ends[1], EN), words.accuracy(first.best.accuracy, EN)
    shown = f"0 {end} {words.signed(first.change.value)} 20 {best}"
    assert " ".join(shown.split()) in text


def test_each_internal_part_has_its_own_study(tmp_path):
    folder = fake_runs.label_pilot(tmp_path / "p", 16, seeds=(0, 1, 2), internal=("self_certainty", "majority_vote"))
    found = studies(folder)
    assert [s.internal for s in found] == [("self_certainty",), ("majority_vote",)]
    assert all(len(s.arms) == 5 and all(len(a.runs) == 3 for a in s.arms) for s in found)
    for run in (folder / "arms").glob("base-self_certainty*"):
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["reward"]["self_certainty"] = 1.0 if "labels0-" in run.name else 2.0
        (run / "config.yaml").write_text(json.dumps(config))
    assert [len(s.arms) for s in studies(folder)] == [2, 4, 5]  # other weights are another line


@pytest.mark.parametrize("lost", ["label_fraction", "labels"])
def test_arms_without_rationed_labels_are_in_no_study(lost, tmp_path):
    folder = fake_runs.label_pilot(tmp_path / "p", 12)
    for run in (folder / "arms").iterdir():
        config = run / "config.yaml"
        if lost == "labels":
            edit(run / "environment.json", labels={"0": "many"})
        else:
            config.write_text(re.sub(r"(?m)^label_fraction:.*", "label_fraction: null", config.read_text()))
    assert studies(folder) == []
    assert "How many labels" not in page(folder, tmp_path)


def test_mixed_starts_are_one_group_with_one_curve_and_the_picture_of_starts(mixed, tmp_path):
    (group,) = groups.grouped(collect(read(mixed)))
    assert group.mixed and [groups.mixture(j.arm).share for j in group.arms] == [0, 0.1, 0.2, 0.5, 1]
    assert len(group.charts) == 1 and len(figures.starts(group, "k", EN)) == 1
    parsed = Page(page(mixed, tmp_path))
    assert parsed.text.count("Mixed starts: lab:base + lab:instruct") >= 2
    assert "Model: mix" not in parsed.text and "mixes of lab:base and lab:instruct on math" in parsed.text
    names = parsed.charts
    assert any("m = 0.5 at 0.48 nats" in n and "at the best step" in n for n in names)
    assert not any(n.startswith("Change in accuracy by initial entropy") for n in names)  # said once
    assert all(f"m = {m}" in parsed.text for m in ("0", "0.1", "0.2", "0.5", "1"))


@pytest.mark.parametrize(
    "model", ["mix:A+B@nan", "mix:A+B@2", "mix:A+B@-1", "mix:A+B@x", "mix:A@0", "lab:base", "mix:"]
)
def test_what_is_no_mix_is_an_ordinary_model(model, tmp_path):
    folder = fake_runs.mixed_pilot(tmp_path / "p", 6, shares=(0.0, 1.0))
    for run in (folder / "arms").iterdir():
        environment = json.loads((run / "environment.json").read_text())
        edit(run / "environment.json", model=environment["model"] | {"source": model})
    assert not any(g.mixed for g in groups.grouped(collect(read(folder))))


def test_one_mix_alone_is_an_ordinary_model(tmp_path):
    folder = fake_runs.mixed_pilot(tmp_path / "p", 6, shares=(0.5,))
    assert not groups.grouped(collect(read(folder)))[0].mixed


def test_starts_have_filled_and_hollow_markers():
    intervals = [Interval(value, value - 0.1, value + 0.1, 9) for value in (-0.3, 0.3)]
    points = [scatter.Start(m, 0.5, *intervals) for m in (0.0, 0.1)]  # one entropy: names move apart
    drawn = scatter.starts("k", points, **WORDS)
    assert drawn.count("fill: #ffffff; stroke: #d55e00") >= 1 and "m = 0" in drawn and ">0.1<" in drawn
    alone = scatter.starts("k", [points[0]._replace(best=None)], **WORDS)
    assert "#d55e00" not in alone


def test_names_never_overlap():
    placed = spread([0.1, 0.1, 0.11, 0.9], [0.1, 0.2, 0.1, 0.1])
    gaps = [b - a for a, b in zip(placed, placed[1:], strict=False)]
    assert all(g >= need - 1e-9 for g, need in zip(gaps, (0.15, 0.15, 0.1), strict=True))


def test_views_are_read_beside_the_holdout(viewed):
    run = read(viewed)[0]
    assert {k: [e.step for e in v] for k, v in run.views.items()} == {"level-2": [0, 30, 60], "motivated": [0, 60]}
    assert [e.step for e in run.evaluations] == [0, 10, 20, 30, 40, 50, 60]
    arm = arm_of(viewed, "base-verifiable")
    level, told = arm.view("level-2"), arm.view("motivated")
    assert level.best.step == 30 and level.change.n == told.change.n == 24 and level.change != told.change
    assert arm.view("nothing").change is None


def test_views_are_shown_in_words(viewed, tmp_path):
    text = Page(page(viewed, tmp_path)).text
    level = arm_of(viewed, "base-verifiable").view("level-2")
    shown = f"level 2, never trained on {words.accuracies(level, EN)} {words.change(level.change, EN)}"
    assert " ".join(shown.split()) in text
    assert "asked with the reward's rules in the prompt" in text


def test_a_torn_view_is_said_and_the_rest_is_read(tmp_path):
    run = fake_runs.pilot(tmp_path / "p", 12, arms=ONE) / "arms" / "base-verifiable-seed0"
    fake_runs.add_view(run, "level-2", (0.2, 0.5))
    (run / "evaluations/level-2/step-000060.json").write_text('{"step": 60, "summ')
    (run / "evaluations/empty").mkdir()
    fake_runs.write_json(run / "evaluations/level-3/step-000000.json", {"step": 10**400, "summary": {}})
    found = read(run)[0]
    assert {k: len(v) for k, v in found.views.items()} == {"level-2": 1}
    text = Page(page(run, tmp_path)).text
    assert "level-2/step-000060.json: unreadable" in text and "level-3/step-000000.json: unreadable" in text
    assert "level 2, never trained on – –" in text


@pytest.mark.parametrize("hostile", [h for h in HOSTILE if "/" not in h and "\0" not in h and len(h) < 100])
def test_nothing_hostile_in_view_names_survives(hostile, tmp_path):
    name = hostile.encode("utf-8", "replace").decode()
    run = fake_runs.run(tmp_path / "run", PilotConfig().arms[3], 0, 12)
    fake_runs.add_view(run, name, (0.2, 0.5), 8)
    parsed = harmless(page(run, tmp_path))
    assert visible(name)[:20].split("<")[0].strip()[:8] in parsed.text
    assert_one_table(table([run]))


@pytest.mark.parametrize("hostile", [*HOSTILE, "a|b", "a\\|b\\", "x\n| y | z |", "`code`", "[a](b)", "*b*", "|" * 99])
def test_nothing_hostile_in_names_gets_into_the_table(hostile, tmp_path):
    run = fake_runs.run(tmp_path / "run", PilotConfig().arms[3], 0, 12)
    edit(run / "environment.json", arm=hostile, command=hostile, commit=hostile, hardware={"cpu": hostile})
    edit(run / "outcome.json", reason=hostile)
    assert_one_table(table([run]))


def assert_one_table(text: str) -> None:
    """Rows of eight cells, no line that is none of ours, nothing that a renderer would read as HTML or a link."""
    assert visible(text) == text
    text = re.sub(r"(?m)^- Command: `[^`\n]+`$", "- Command", text)
    lines = text.split("\n")
    rows = [line for line in lines if line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows]
    assert len(rows) >= 3 and set(cells) == {9}
    assert all(not line or line.startswith(("| ", "- ", "\\* ")) for line in lines)
    assert not re.search(r"(?<!\\)(?:\\\\)*[<`\[]", text)


def test_the_table_has_what_a_log_needs_and_no_model_text(tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 24, seeds=(0, 1, 2), arms=("base-verifiable",), text=lambda s: "MODELTEXT")
    for run in (folder / "arms").iterdir():
        fake_runs.add_view(run, "level-2", (0.2, 0.5))
    before = sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))
    text = table([folder])
    assert before == sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))
    assert "MODELTEXT" not in text and text == table([folder, folder])
    rows = {line.split(" | ")[0][2:]: line.strip("| ").split(" | ") for line in text.split("\n") if line[:1] == "|"}
    row, arm = rows["base-verifiable"], arm_of(folder, "base-verifiable")
    per_seed = [i.value for _, i in arm.per_seed]
    spread_text = f"{words.signed(min(per_seed))} to {words.signed(max(per_seed))}"
    assert row[1] == "3" and row[3] == words.change(arm.change, EN) and row[4] == spread_text and row[7] == "helps"
    assert row[2] == f"{100 * arm.ends[0].value:.1f} → {100 * arm.ends[1].value:.1f}" and row[6] == "0.720 → 0.300"
    best = arm.best
    assert row[5] == f"{best.step}, {100 * best.accuracy.value:.1f}, {words.change(best.change, EN)}"
    level = rows["base-verifiable, level-2"]
    assert level[3] == words.change(arm.view("level-2").change, EN) and level[7] == "–"
    assert rows["instruct-verifiable"][2:7] == ["–"] * 5  # planned, never run
    for part in ("it flatters", "commit 3f9c1e2a7b", "poc pilot --seed 0", "AMD EPYC", "Seeds: 0; 1; 2",
                 "24 questions, 4 samples", "in all", "instruct-verifiable-seed0 not started"):  # fmt: skip
        assert part in text, part
    assert_one_table(text)


def test_one_seed_has_no_spread(labels):
    row = next(line for line in table([labels]).split("\n") if line.startswith("| base-verifiable-labels1 "))
    assert row.split(" | ")[1] == "1" and row.split(" | ")[4] == "–"


def test_the_command_prints_the_table_and_writes_nothing(labels):
    result = CliRunner().invoke(app, ["report", str(labels), "--table"])
    assert result.exit_code == 0 and result.stdout == table([labels]) and not (labels / "report.html").exists()
    refused = CliRunner().invoke(app, ["report", str(labels), "--table", "--out", str(labels / "x.html")])
    assert isinstance(refused.exception, InputError) and not (labels / "x.html").exists()


@pytest.mark.parametrize("make", [fake_runs.many_arms, fake_runs.label_pilot, fake_runs.mixed_pilot, fake_runs.pilot])
def test_styles_differ_within_a_chart(make, tmp_path):
    found = groups.grouped(collect(read(make(tmp_path / "p", 6))))
    given = figures.styles(found)
    charts = [chart for group in found for chart in group.charts]
    assert sum(map(len, charts)) == sum(len(g.arms) for g in found) and max(map(len, charts)) <= len(STYLES)
    for chart in charts:
        for kind in ("color", "line", "marker"):
            assert len({getattr(given[a.label], kind) for a in chart}) == len(chart), kind
        assert all((given[a.label] == CONTROL) == a.is_control for a in chart)
    if make is fake_runs.many_arms:
        assert [len(chart) for chart in charts] == [7, 7]
    if make is fake_runs.pilot:
        assert given["base-verifiable"] == given["instruct-verifiable"] != given["base-random"]


def test_arms_of_one_internal_part_share_a_chart(tmp_path):
    folder = fake_runs.label_pilot(tmp_path / "p", 6, internal=("self_certainty", "majority_vote"))
    charts = groups.grouped(collect(read(folder)))[0].charts
    assert [len(chart) for chart in charts] == [4, 6] and {a.internal for a in charts[0]} == {("self_certainty",)}


@given(st.integers(0, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_charts_hold_every_arm_once_and_few_enough(n, data):
    parts = data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    arms = [SimpleNamespace(internal=part) for part in parts]
    chunks = groups._even_chunks(arms)
    assert [arm for chunk in chunks for arm in chunk] == arms
    assert all(0 < len(chunk) <= groups.LINES_PER_CHART for chunk in chunks)


def test_long_names_keep_the_end_that_tells_them_apart(tmp_path):
    labels = ["x" * 50 + str(i) for i in range(3)]
    arms = [Arm(model="base", reward={"verifiable": 1.0}, name=label) for label in labels]
    folder = fake_runs.write_pilot(tmp_path / "p", PilotConfig(arms=arms), dict.fromkeys(labels, (0.4, 0.5)), 6)
    shortened = f"{'x' * 20} … {'x' * 19}"  # as in the accuracy chart's description
    drawn = " ".join(Page(page(folder, tmp_path)).charts)
    assert all(f"{shortened}{i}: " in drawn for i in range(3))


def test_a_planned_stop_is_told_and_is_no_warning(tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 12, arms=ONE)
    run = folder / "arms" / "base-verifiable-seed0"
    edit(run / "outcome.json", reason="switch: stopped after step 37, policy entropy 0.049 nats per token")
    judged = next(j for j in collect(read(folder)) if j.arm.label == "base-verifiable")
    assert any("ended as planned: <code" in r and "stopped after step 37" in r for r in words.remarks(judged, EN))
    assert words.states(judged, EN) == []
    assert "ended as planned: switch: stopped after step 37" in Page(page(folder, tmp_path)).text


def test_seeds_that_end_at_different_steps_are_compared_at_their_ends(tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 24, seeds=(0, 1), arms=ONE)
    for step in (50, 60):
        (folder / f"arms/base-verifiable-seed1/evaluations/step-{step:06d}.json").unlink()
    arm = arm_of(folder, "base-verifiable")
    assert arm.curve[-1][0] == 40 and arm.ends[1].value - arm.ends[0].value == pytest.approx(arm.change.value)
    assert arm.ends[1].value != pytest.approx(arm.curve[-1][1].value)


def test_an_arm_with_one_evaluation_is_no_line(tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 12, arms=("base-verifiable", "base-random"))
    for path in sorted((folder / "arms/base-random-seed0/evaluations").iterdir())[1:]:
        path.unlink()
    group = groups.grouped(collect(read(folder)))[0]
    assert [[a.label for a in chart] for chart in group.charts] == [["base-verifiable"]]
    harmless(page(folder, tmp_path))


def test_agreement_is_drawn_only_where_the_reward_looks_at_it(tmp_path):
    folder = fake_runs.many_arms(tmp_path / "p", 6)
    names = [n for n in Page(page(folder, tmp_path)).charts if n.endswith("by training step")]
    for arm in (j.arm for j in collect(read(folder))):
        own = [n for n in names if n.startswith(f"{arm.label}: ") and "reward and" not in n]
        voting = bool({"semantic_entropy", "majority_vote"} & set(arm.rewards))
        assert len(own) == (8 if voting else 5), arm.label
        assert any("Agreement" in n for n in own) == any("Semantic entropy" in n for n in own) == voting


def test_numbers_that_are_none_do_no_harm(tmp_path):
    run = fake_runs.run(tmp_path / "run", PilotConfig().arms[3], 0, 12)
    odd = [{"step": 61, "reward": 10**400}, {"step": 62, "reward": None}, {"step": 10**300, "reward": 1.0}]
    with (run / "steps.jsonl").open("a") as lines:
        lines.write("".join(json.dumps(o) + "\n" for o in odd) + '{"step": 63, "reward": 1e999}\n')
    assert arm_of(run, "base-verifiable").step_curve("reward")[-1][0] == 60
    harmless(page(run, tmp_path))


def test_every_reward_has_a_sentence():
    assert all(set(language.rewards) == {*REWARDS, "own choices"} for language in LANGUAGES.values())


def test_a_scheduled_reward_counts_though_it_starts_at_nothing(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        "reward: {self_certainty: 1.0, verifiable: 0.0, random: 0.0}\nschedule: {verifiable: {to: 1.0}}\n"
    )
    assert arm_of(run, "run").rewards == ("self_certainty", "verifiable")
