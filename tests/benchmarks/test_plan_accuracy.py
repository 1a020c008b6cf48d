"""The benchmark of what runs are predicted to take: real small runs through it, and what counts as off."""

import json
import os

import pytest

from benchmarks import plan_accuracy as bench
from benchmarks import timing
from tests.poc.runs import SMALL

KEYS = {"command", "git", "cpu", "cores", "torch_threads", "versions", "date", "load_before", "clock", "limit",
        "settings", "results", "off"}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch, tiny_folder):
    """One setting with the tests' toy model, run in this process."""
    monkeypatch.setattr(bench, "SETTINGS", {"tiny": [f"model={tiny_folder}", *SMALL, f"train.steps={bench.STEPS}"]})
    monkeypatch.setattr(bench, "_in_fresh_process", lambda name, clock: bench.run_one(name, clock))


def test_a_line_says_what_a_reader_needs(tiny, tmp_path, capsys):
    code = bench.main(["--out", str(tmp_path / "new" / "out.jsonl")])
    (record,) = map(json.loads, (tmp_path / "new" / "out.jsonl").read_text().splitlines())
    assert set(record) >= KEYS and record["command"] == "python -m benchmarks.plan_accuracy --clock wall"
    found = record["results"]["tiny"]
    for key in ("seconds", "bytes"):
        assert found["predicted"][key] > 0 and found["measured"][key] > 0
        assert found["error"][key] == pytest.approx(found["predicted"][key] / found["measured"][key] - 1)
    assert set(found["stages"]) == {"rollout", "update", "evaluate", "save"} and found["plan"]["speed"]
    assert code == (1 if record["off"] else 0)
    text = json.dumps(record)
    assert str(tmp_path) not in text and str(timing.ROOT) not in text and os.uname().nodename not in text
    assert "tiny" in capsys.readouterr().out


def test_the_fresh_process_prints_its_result_last(tiny, capsys):
    assert bench.main(["--one", "tiny"]) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])) == {
        "predicted", "measured", "error", "stages", "plan"
    }  # fmt: skip


def test_only_what_is_left_after_the_prediction_counts():
    plan = {"total": 30.0, "spent": 10.0, "peak_bytes": 3 * 2**20, "seconds": {"rollout": 8.0, "update": 4.0}}
    outcome = {"seconds": {"total": 26.0, "rollout": 4.0, "update": 4.0}, "peak_memory_mib": 2.0}
    found = bench.compared(plan, outcome)
    assert found["predicted"]["seconds"] == 20 and found["measured"]["seconds"] == 16
    assert found["error"] == pytest.approx({"seconds": 0.25, "bytes": 0.5})
    assert found["stages"] == {"rollout": [8.0, 4.0], "update": [4.0, 4.0]}


@pytest.mark.parametrize("seconds, size, names", [(0.25, -0.25, []), (0.26, 0.0, ["a"]), (0.0, -0.26, ["a"])])
def test_off_is_by_more_than_the_limit_in_time_or_memory(seconds, size, names):
    assert bench.off({"a": {"error": {"seconds": seconds, "bytes": size}}}) == names


def test_the_settings_can_be_run_and_are_as_various_as_they_say():
    from poc import pilot
    from poc.config import RunConfig
    from poc.configfile import load

    configs = [pilot.resolve(load(RunConfig, None, [*bench.COMMON, *some])) for some in bench.SETTINGS.values()]
    assert len(configs) >= 6 and {c.train.steps for c in configs} == {bench.STEPS}
    for values in ({c.model for c in configs}, {c.train.group_size for c in configs},
                   {c.train.max_new_tokens for c in configs}, {c.train.prompts_per_step for c in configs},
                   {c.train.recompute for c in configs}, {c.train.memory_gib for c in configs}):  # fmt: skip
        assert len(values) > 1


def test_an_unknown_setting_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--only", "lab,none"])
    assert "none: valid are lab" in capsys.readouterr().err
