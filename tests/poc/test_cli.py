"""The command line: wrong input is exit 2 and one line before any weights load; Ctrl-C leaves a whole run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from poc import cli

BAD = {
    "unknown key": (["train", "--set", "train.stepz=3"], "stepz"),
    "wrong type": (["train", "--set", "train.steps=soon"], "soon"),
    "group of one": (["pilot", "--set", "train.group_size=1"], "group_size = 1"),
    "missing config": (["pilot", "nowhere.yaml"], "nowhere.yaml"),
    "missing data": (["train", "--set", "data.file=nowhere.csv"], "nowhere.csv"),
    "empty csv": (["train", "--set", "data.file=empty.csv"], "empty.csv"),
    "unknown reward": (["train", "--set", "reward={self_certanty: 1}"], "self_certainty"),
    "unknown lab model": (["train", "--set", "model=lab:bass"], "lab:base"),
    "unknown wheel": (["train", "--set", "model=wheel:smollm"], "wheel:smollm2-135m-instruct"),
    "no such folder": (["train", "--set", "model=./nowhere"], "nowhere"),
    "mismatched mix": (["train", "--set", "model=mix:lab:base+other@0.5"], "hidden_size"),
    "share out of range": (["train", "--set", "model=mix:lab:base+lab:instruct@1.5"], "1.5"),
    "no labels to verify": (["train", "--set", "data.file=few.csv", "--set", "reward={verifiable: 1}"], "verifiable"),
    "no labels for a share": (
        ["train", "--set", "data.file=few.csv", "--set", "label_fraction=0.001", "--set", "reward={verifiable: 1}"],
        "label_fraction = 0.001: that is none of the",
    ),
    "a switch to no label": (
        [
            "train",
            "--set",
            "reward={self_certainty: 1, verifiable: 1}",
            "--set",
            "label_fraction=0",
            "--set",
            "switch.step=1",
        ],
        "no training question keeps a label, but switch hands over to verifiable",
    ),
    "nothing but no label": (
        ["train", "--set", "reward={verifiable: 1}", "--set", "label_fraction=0"],
        "but the only reward is verifiable",
    ),
    "less than one label": (
        ["train", "--set", "reward={random: 1, verifiable: 1}", "--set", "label_fraction=0.0005"],
        "that is none of the 512 labelled",
    ),
    "entailment without a model": (["train", "--set", "semantic.cluster=entailment"], "set semantic.judge to policy"),
    "no such judge": (["train", "--set", "semantic={cluster: entailment, judge: ./nli}"], "'./nli' is neither policy"),
    "thresholds crossed": (["pilot", "--set", "semantic={low: 0.9, high: 0.1}"], "crossed"),
    "unknown schedule": (["train", "--set", "schedule={self_certainty: {shape: step}}"], "'step'"),
    "no weight ever": (["train", "--set", "reward={random: 0}"], "all weights are 0"),
    "mix of nothing": (["pilot", "--mix", "a,b"], "write shares such as 0,0.1"),
    "mix beyond": (["pilot", "--mix", "0,1.5"], "1.5 is not a share"),
    "mix of a run": (["plan", "--mix", "0,1", "--set", "reward={random: 1}"], "--mix: for a pilot"),
    "plan of nothing": (["plan", "nowhere.yaml"], "nowhere.yaml"),
    "too many questions": (["train", "--set", "data.holdout=99999"], "data.holdout"),
    "folder in use": (["train", "--out", "."], "not empty"),
    "not a run": (["report", "."], "."),
    "option unknown": (["train", "--stepz", "3"], "--stepz"),
}


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").write_text("")
    rows = [f"question {i},{i if i < 30 else ''}" for i in range(60)]
    (tmp_path / "few.csv").write_text("\n".join(["prompt,answer", *rows]))
    (tmp_path / "other").symlink_to(tiny_folder)
    return tmp_path


@pytest.mark.parametrize("arguments, names", BAD.values(), ids=BAD)
def test_bad_input_is_exit_2_and_one_line(arguments, names, place, monkeypatch, capsys):
    import poc.models

    monkeypatch.setattr(poc.models, "load_policy", lambda *a, **k: pytest.fail("weights were loaded"))
    monkeypatch.setattr(sys, "argv", ["poc", *arguments])
    before = {p.name for p in place.iterdir()}
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert names in error and "Traceback" not in error
    if "--stepz" not in arguments:
        assert error.count("\n") == 1
    assert {p.name for p in place.iterdir()} == before  # nothing was started


def test_a_full_disk_is_one_line_and_exit_1(place, monkeypatch, capsys, tiny_folder):
    from poc.runfolder import RunFolder

    def full(*_):
        raise OSError(28, "No space left on device", "checkpoints/x")

    monkeypatch.setattr(RunFolder, "save_checkpoint", full)
    small = ["train.steps=1", "data.train=4", "data.holdout=2", "data.canary=0", "train.max_new_tokens=2"]
    arguments = [part for option in (f"model={tiny_folder}", *small) for part in ("--set", option)]
    monkeypatch.setattr(sys, "argv", ["poc", "train", "--out", "run", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and error.count("\n") == 1 and "No space left on device" in error
    assert json.loads((place / "run" / "outcome.json").read_text())["status"] == "failed"


def test_a_mistake_found_after_loading_leaves_nothing(place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["poc", "train", "--out", "run", "--set", "train.max_new_tokens=100000"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2 and "do not fit" in capsys.readouterr().err
    assert not (place / "run").exists()


def test_help_is_light():
    code = (
        "import sys; from poc import cli; assert not {'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("signals, limit", [(1, 60), (2, 10)])
def test_ctrl_c(tmp_path, tiny_folder, signals, limit):
    """One ends after the step with checkpoint and report (exit 130); a second one at once, still with an outcome."""
    options = ["train.steps=5000", "data.train=16", "data.holdout=4", "data.canary=2", "evaluate.every=1000"]
    command = [
        sys.executable,
        "-m",
        "poc.cli",
        "train",
        "--out",
        str(tmp_path / "run"),
        "--set",
        f"model={tiny_folder}",
    ]
    command += [part for option in options for part in ("--set", option)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    steps = tmp_path / "run" / "steps.jsonl"
    until = time.monotonic() + 60
    while not (steps.exists() and steps.read_text().count("\n") >= 2):
        assert time.monotonic() < until and process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    output, _ = process.communicate(timeout=limit)
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert outcome["status"] == "interrupted" and process.returncode == 130
    lines = [json.loads(line) for line in steps.read_text().splitlines()]
    assert lines[-1]["step"] == len(lines)
    if signals == 1:
        assert "stopping after this step" in output
        assert (tmp_path / "run" / "checkpoints" / f"step-{len(lines):06d}").is_dir()
        assert (tmp_path / "run" / "report.html").is_file()
