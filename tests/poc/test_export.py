"""`poc export`: it says what the run says, token by token, loads without the kit, and is whole or not there."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from safetensors.torch import load_file, save_file

from poc import cli, pilot, tasks
from poc.audit_check import verify_run
from poc.config import DEFAULT_ARMS
from poc.export import card, folder, merge, parity, taken
from poc.export.folder import export
from poc.models import load_policy
from poc.records import InputError, RunError
from poc.report.arms import collect
from poc.report.read import read as read_runs
from poc.rollout import sample
from poc.sources import LAB
from tests.poc import fake_runs
from tests.poc.runs import job, run

RUN = ["train.steps=3", "train.checkpoint_every=1", "evaluate.every=1", "data.holdout=12", "train.max_new_tokens=12"]
FIGURES = parity.Parity(0.987, 11, 12, 32, "bfloat16", "float32", "cpu")
HOSTILE = "Say it.\n```\n</pre><script>alert(1)</script> [x](https://evil.example) | `` {{ 7 }} *b* \x1b]0;t\x07\u202e"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of lab:base, with a bare prompt."""
    place = tmp_path_factory.mktemp("ran") / "run"
    run([job(place, "lab:base", RUN)])
    return place


@pytest.fixture
def mine(ran, tmp_path):
    """A copy of it that a test may change and export."""
    shutil.copytree(ran, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def agreed(monkeypatch):
    """No other process: it would say what the run says."""
    monkeypatch.setattr(parity, "replay", lambda place, asked, base, dtype: (asked.answers, [None]))


@pytest.fixture(scope="module")
def adapter(ran):
    """An exported adapter, checked by another process."""
    export(ran, "adapter", ran.parent / "adapter")
    return ran.parent / "adapter"


def python(code: str) -> str:
    """What a new interpreter prints that knows nothing of the kit's folder."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@contextmanager
def held(lock: Path):
    """Another process holds this lock."""
    code = f"from filelock import FileLock; x = FileLock({str(lock)!r}); x.acquire(); print(1, flush=True); input()"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        other.stdout.readline()
        yield
        other.communicate("\n")


def left_beside(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir() if "export" in path.name or path == place)


# ---- what is written


def test_the_adapter_is_the_checkpoints(adapter, ran):
    assert {path.name for path in adapter.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "README.md",
    }  # fmt: skip
    last = ran / "checkpoints" / "step-000003"
    name = "adapter_model.safetensors"
    assert (adapter / name).read_bytes() == (last / name).read_bytes()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "lab:base"
    assert json.loads((adapter / "generation_config.json").read_text())["eos_token_id"] == [1]


def test_the_cards_own_code_gives_the_runs_answer(adapter, ran):
    question = taken.read(ran).holdout[0].question
    code = re.search("```python\n(.*?)\n```", (adapter / "README.md").read_text(), re.S)[1]
    for name, value in (
        ("PATH/TO/THIS/FOLDER", adapter), ("PATH/TO/THE/START/MODEL", LAB / "base"), ("YOUR QUESTION", question)
    ):  # fmt: skip
        assert name in code
        code = code.replace(name, str(value))
    policy = load_policy("lab:base", lora_rank=2, lora_alpha=32.0, adapter=ran / "checkpoints" / "step-000003")
    ids = policy.tokenizer(f"{question}\n")["input_ids"]
    [[episode]] = sample(policy, [ids], 1, max_new_tokens=12, temperature=0.0, seed=0)
    assert 'dtype="float32"' in code  # as it was checked, whatever the start model is stored in
    assert python(code) == episode.text + "\n"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_merged_weights_are_the_sum_rounded_once(dtype, mine, tmp_path, request):
    if dtype == "float16":
        request.getfixturevalue("agreed")  # one other process is enough
    lines = export(mine, "merged", tmp_path / "out", None if dtype == "bfloat16" else dtype)
    assert "checked: " in lines[1]
    found, start = load_file(tmp_path / "out" / "model.safetensors"), load_file(LAB / "base" / "model.safetensors")
    lora = load_file(mine / "checkpoints" / "step-000003" / "adapter_model.safetensors")
    assert found.keys() == start.keys()  # the head stays tied: it is in neither
    adapted = 0
    for name, weight in start.items():
        a, b = (lora.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{x}.weight") for x in "AB")
        moved = weight if a is None else weight + 32 / 2 * (b @ a)
        adapted += a is not None
        assert torch.equal(found[name], moved.to(getattr(torch, dtype))), name
    assert adapted == 7 * 4
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    assert told["dtype"] == dtype and told["tie_word_embeddings"] is True and "quantization_config" not in told


def test_no_path_of_this_machine_is_in_a_merged_folder(mine, tiny_folder, tmp_path, agreed):
    run([job(tmp_path / "own", tiny_folder, ["train.steps=1"])])
    export(tmp_path / "own", "gguf", tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert str(tiny_folder.parent).encode() not in path.read_bytes(), path.name
    export(tmp_path / "own", "adapter", tmp_path / "adapter")
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(tiny_folder)  # never what could be a name on the Hub
    assert str(tiny_folder.parent) not in (tmp_path / "adapter" / "README.md").read_text()


def test_gguf_is_the_merged_folder_and_a_command(mine, tmp_path, agreed):
    lines = export(mine, "gguf", tmp_path / "my out", "float16")
    assert "no GGUF file was written" in lines[-1]
    assert lines[-1].endswith(f"'{tmp_path}/my out' --outtype f16 --outfile '{tmp_path}/my out.gguf'")
    assert (tmp_path / "my out" / "model.safetensors").is_file()


def test_a_weight_that_float16_cannot_hold(ran, tmp_path):
    shutil.copytree(LAB / "base", tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e6
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    last = ran / "checkpoints" / "step-000003"
    with pytest.raises(InputError, match="float16: model.layers.1.mlp.up_proj.weight .* take bfloat16"):
        merge.write(tmp_path / "base", last, "float16", None, tmp_path / "out")


# ---- the gate


def test_agreement():
    assert parity.agreement([1, 2, 3], [1, 2, 3]) == 1
    assert parity.agreement([1, 2, 3, 4], [1, 2]) == 0.5
    assert parity.agreement([1, 9, 3], [1, 2, 3]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("gap, kind, says", [
    (0.1, "merged", "near ties that float16 rounds"), (9.0, "merged", "another model.* up to 9.00 nats"),
    (float("nan"), "merged", "beyond float16: try --dtype bfloat16"), (0.1, "adapter", "another model"),
    (None, "merged", "another model"),
])  # fmt: skip
def test_why_the_gate_is_shut(gap, kind, says):
    assert re.search(says, parity._likely(replace(FIGURES, dtype="float16", gap=gap), kind))


def test_another_model_does_not_pass_the_gate(ran):
    found = taken.read(ran)
    asked = parity.reference(found, "none")
    assert len(asked.prompts) == 12 and asked.tokens == 32 and asked.dtype == "float32"
    with pytest.raises(RunError, match=r"agrees with the run on [0-9.]+% of the first 32 .* but another model.*nats"):
        parity.check(found, LAB / "instruct", asked, None, "float32")


def test_what_fails_the_gate_is_not_there(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        parity, "replay", lambda place, asked, *_: ([a[:1] for a in asked.answers], [0.25, 0.125, None])
    )
    log = (mine / "audit.jsonl").read_bytes()
    monkeypatch.setattr(sys, "argv", ["poc", "export", str(mine), "--to", "merged", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and error.count("\n") == 1 and "bfloat16 against float32" in error
    assert "near ties that bfloat16 rounds the other way" in error and "at most 0.25 nats" in error
    assert left_beside(tmp_path / "out") == [] and (mine / "audit.jsonl").read_bytes() == log


def test_a_tokenizer_that_reads_otherwise_does_not_pass(ran, adapter, tmp_path, agreed):
    shutil.copytree(adapter, tmp_path / "out")
    path = tmp_path / "out" / "tokenizer.json"
    told = json.loads(path.read_text())
    vocabulary = told["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    path.write_text(json.dumps(told))
    found = taken.read(ran)
    with pytest.raises(RunError, match="tokenizer"):
        parity.check(found, tmp_path / "out", parity.reference(found, "none"), LAB / "base", "float32")


def test_what_does_not_load_is_told_in_one_line(ran, adapter, tmp_path, monkeypatch):
    (tmp_path / "replay.py").write_text("raise SystemExit('a\\nValueError: it is \\x1b[2J broken')")
    monkeypatch.setattr(parity, "REPLAY", tmp_path / "replay.py")
    found = taken.read(ran)
    with pytest.raises(
        RunError, match=r"^transformers cannot load what was written: ValueError: it is \\x1b\[2J broken$"
    ):
        parity.check(found, adapter, parity.reference(found, "none"), LAB / "base", "float32")


def test_a_run_on_four_bits_is_compared_with_both(mine, tmp_path, agreed, monkeypatch):
    asked, original = [], parity.reference

    def reference(found, quantization):
        asked.append(quantization)
        known = original(found, "none")
        return known if quantization == "none" else replace(known, answers=[a[:1] for a in known.answers])

    monkeypatch.setattr(parity, "reference", reference)
    monkeypatch.setattr(taken.Taken, "quantization", "nf4")
    assert any("4 bits" in line for line in export(mine, "merged", tmp_path / "out"))
    assert asked == ["none", "nf4"]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "in 4 bits, and was measured so" in page and "which these weights are not" in page.split("\n\n")[2]


# ---- half-written, interrupted, logged


def test_a_disk_that_is_too_small_is_told_before(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(InputError, match=r"takes 2 MiB and 1 MiB are free"):
        export(mine, "merged", tmp_path / "out")
    assert left_beside(tmp_path / "out") == []


def full(*_) -> None:
    raise OSError(ENOSPC, os.strerror(ENOSPC))


@pytest.mark.parametrize("where", ["weights", "card", "log"])
def test_a_disk_that_fills_up_leaves_nothing(where, mine, tmp_path, monkeypatch, agreed):
    name = {"weights": (merge, "write"), "card": (card, "render"), "log": (folder.Audit, "append")}[where]
    monkeypatch.setattr(*name, full)
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="No space left on device; nothing was left there"):
        export(mine, "merged", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")) and not list(tmp_path.glob(".export-*"))


def test_an_interrupt_leaves_nothing(mine, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(parity, "replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(mine, "adapter", tmp_path / "out")
    assert left_beside(tmp_path / "out") == []


def test_what_a_kill_left_is_removed_by_the_next_and_what_writes_is_not(mine, tmp_path, agreed):
    for name in ("dead", "alive"):
        (tmp_path / f".export-{name}.staged").mkdir()
        (tmp_path / f".export-{name}.staged" / "model.safetensors").write_bytes(b"half")
    with held(tmp_path / ".export-alive.staged" / ".lock"):
        export(mine, "adapter", tmp_path / "out")
        assert [path.name for path in tmp_path.glob(".export-*")] == [".export-alive.staged"]
        with pytest.raises(InputError, match="another export is writing there"):
            export(mine, "adapter", tmp_path / "alive")


def test_another_process_that_writes_the_run_is_told_of(mine, tmp_path):
    with held(mine / ".lock"), pytest.raises(InputError, match="another process is writing there"):
        export(mine, "adapter", tmp_path / "out")


def test_the_log_binds_every_file_and_the_figures(mine, tmp_path, agreed):
    lines = export(mine, "adapter", tmp_path / "out")
    event = json.loads((mine / "audit.jsonl").read_text().splitlines()[-1])
    assert event["event"] == "export" and event["data"]["parity"]["agreement"] == 1.0
    assert f"audit head {event['seq']}:{event['hash']}" in "\n".join(lines)
    assert set(event["data"]["files"]) == {f"../out/{path.name}" for path in (tmp_path / "out").iterdir()}
    assert f"`{event['seq'] - 1}:{event['prev']}`" in (tmp_path / "out" / "README.md").read_text()
    assert verify_run(mine).ok
    (tmp_path / "out" / "README.md").write_text("better")
    assert not verify_run(mine).ok


# ---- which weights, and what is said of them


def test_a_run_without_an_end_says_so_and_is_not_measured_where_it_was_not(ran, tmp_path, agreed):
    run([job(tmp_path / "run", "lab:base", [*RUN, "evaluate.every=3"])], stop_after=2)
    lines = export(tmp_path / "run", "adapter", tmp_path / "out")
    first = (tmp_path / "out" / "README.md").read_text().split("\n\n")[2]
    assert "the run has not ended: these weights are its last whole checkpoint, of step 2 of 3" in first
    assert any("has not ended" in line for line in lines)


def test_only_what_was_measured_up_to_the_exported_step_counts(ran):
    whole = read_runs(ran)[0]
    assert [e.step for e in taken.as_exported(whole, 2).evaluations] == [0, 1, 2]
    without = replace(whole, evaluations=tuple(e for e in whole.evaluations if e.step != 2))
    assert taken.as_exported(without, 2).evaluations == ()


def test_the_checkpoint_that_the_guard_went_back_to(mine, tmp_path, agreed):
    outcome = json.loads((mine / "outcome.json").read_text())
    decision = {"rule": "canary_drop", "action": "rollback", "step": 3, "message": "it <b>fell</b>", "values": {}}
    told = outcome | {"status": "stopped", "kept": 2, "reason": "it <b>fell</b>", "guard": [decision]}
    (mine / "outcome.json").write_text(json.dumps(told))
    assert taken.read(mine).step == 2
    export(mine, "adapter", tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert "the guard ended the run: it \\<b\\>fell\\</b\\>" in page.split("\n\n")[2]
    assert "- step `3`, `canary_drop` (`rollback`): `it <b>fell</b>`" in page
    (mine / "checkpoints" / "step-000002" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        taken.read(mine)


@pytest.mark.parametrize("label, word", [("base-self_certainty", "hurts"), ("base-verifiable", "helps")])
def test_the_first_paragraph_has_the_verdict(label, word, ran, tmp_path):
    arm = next(arm for arm in DEFAULT_ARMS if arm.label == label)
    fake = read_runs(fake_runs.run(tmp_path / "fake", arm, 0, 200))[0]
    found = replace(taken.read(ran), run=fake, judged=collect([fake])[0])
    page = card.render(found, "adapter", FIGURES, "7:" + "0" * 64)
    first = page.split("\n\n")[2]
    assert first.startswith(f"**Verdict on the hold-out: {word}.** Accuracy")
    assert ("this run made the model worse" in first) == (word == "hurts")
    row = next(line for line in page.splitlines() if line.startswith("| right, sampled"))
    change = collect([fake])[0].arm.change
    assert f"{100 * change.value:+.1f}".replace("-", "\u2212") in row and row.endswith("| 200 |")


def test_the_arms_verdict_over_all_seeds_is_told(ran, tmp_path):
    fake_runs.pilot(tmp_path / "pilot", 60, seeds=(0, 1), arms=["base-self_certainty"])
    arm = taken._in_pilot(tmp_path / "pilot" / "arms" / "base-self_certainty-seed1")
    assert len(arm.arm.runs) == 2 and arm.verdict.word == "hurts"
    page = card.render(replace(taken.read(ran), in_pilot=arm), "adapter", FIGURES, "7:" + "0" * 64)
    first = page.split("\n\n")[2]
    assert "over all its seeds this arm made the model worse: Accuracy fell" in first
    assert "**In its pilot, over 2 seeds: hurts.** Accuracy fell" in first
    assert taken._in_pilot(ran) is None


@pytest.fixture
def hostile(mine):
    """The run, as if its names and texts were an attacker's."""
    found = taken.read(mine)
    prompt = found.config.prompt.model_copy(update={"format": "plain", "instruction": HOSTILE})
    config = found.config.model_copy(update={"prompt": prompt})
    told = found.run.environment | {"packages": {HOSTILE: HOSTILE}, "started": HOSTILE, "labels": HOSTILE}
    decision = {"rule": HOSTILE, "action": HOSTILE, "step": HOSTILE, "message": HOSTILE}
    outcome = found.run.outcome | {"guard": [decision], "reason": HOSTILE}
    changed = replace(found.run, name=HOSTILE, environment=told, outcome=outcome, status="stopped")
    return replace(found, config=config, run=changed)


def test_nothing_that_somebody_named_becomes_markdown_html_or_yaml(hostile):
    page = card.render(hostile, "merged", FIGURES, "7:" + "0" * 64)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
    front, _, rest = page.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front) == {
        "base_model": "lab:base", "library_name": "transformers", "pipeline_tag": "text-generation",
        "tags": ["reinforcement-learning", "label-free"], "license": "other",
    }  # fmt: skip
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(rest)
    inline = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in [*tokens, *inline]}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open"}
    fences = [token for token in tokens if token.type == "fence"]
    assert [fence.info for fence in fences] == ["python", "text"]
    shown = re.sub("[\x1b\x07\u202e]", "<unk>", HOSTILE)  # what this tokenizer makes of them
    assert fences[1].content == f"{shown}\n\nQuestion: {{question}}\nAnswer:\n"
    compile(fences[0].content, "card", "exec")
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", rest, flags=re.S)
    assert "://" not in outside.replace("\\://", "")


def test_an_adapter_on_four_bits_is_loaded_as_it_was_checked(ran):
    four_bit = {
        "bnb_4bit_compute_dtype": "float32",
        "llm_int8_skip_modules": ["lm_head", "model.layers.0.mlp.down_proj"],
    }
    page = card.render(taken.read(ran), "adapter", FIGURES, "7:" + "0" * 64, four_bit)
    code = re.search("```python\n(.*?)\n```", page, re.S)[1]
    compile(code, "card", "exec")
    assert "BitsAndBytesConfig, GenerationConfig" in code and 'dtype="bfloat16", quantization_config=four_bit' in code
    assert "bnb_4bit_compute_dtype='float32'" in code and "'model.layers.0.mlp.down_proj']" in code


@pytest.mark.parametrize("source, shown", [
    ("lab:base", "lab:base"), ("owner/name", "owner/name"), ("{}/deep/mine", "mine"),
    ("mix:lab:base+{}/deep/mine@0.25", "mix:lab:base+mine@0.25"),
])  # fmt: skip
def test_of_a_folder_its_own_name_is_told_only(source, shown, tmp_path):
    (tmp_path / "deep" / "mine").mkdir(parents=True)
    assert card.public_name(source.format(tmp_path)) == shown


def test_a_trained_instruction_is_in_the_prompt_that_is_shown(ran):
    found = taken.read(ran)
    prompt = found.config.prompt.model_copy(update={"format": "plain", "instruction": None})
    found = replace(found, config=found.config.model_copy(update={"prompt": prompt}))
    encode, _ = pilot.prompt_encoder(pilot.Job(Path(), "", None, found.config), SimpleNamespace(
        source="lab:base", tokenizer=card_tokenizer(found)))  # fmt: skip
    question = found.holdout[0]
    page = card.render(found, "merged", FIGURES, "7:" + "0" * 64)
    shown = re.search("```text\n(.*?)\n```", page, re.S)[1]
    assert shown.replace("{question}", question.question) == card_tokenizer(found).decode(encode(question))


def test_each_instruction_is_told_with_its_questions(ran):
    found = taken.read(ran)
    prompt = found.config.prompt.model_copy(update={"format": "plain", "instruction": None})
    asked = [tasks.generate(name, 0, "holdout", 1, 0)[0] for name in ("math", "logic")]
    found = replace(found, config=found.config.model_copy(update={"prompt": prompt}), holdout=asked)
    page = card.render(found, "merged", FIGURES, "7:" + "0" * 64)
    for example in asked:
        assert f"{example.domain}, level 0:\n\n```text\n{tasks.instruction(example)}\n```\n" in page


def card_tokenizer(found):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(found.located.folder)


# ---- wrong input

BAD = {
    "no such folder": (["nowhere"], "nowhere: there is no such folder"),
    "no run": (["empty"], "empty: no config.yaml in it"),
    "not begun": (["young"], "young: was stopped before it began"),
    "another target": (["run", "--to", "onnx"], "--to onnx: unknown"),
    "another dtype": (["run", "--to", "merged", "--dtype", "bfloat17"], "unknown; did you mean 'bfloat16'?"),
    "a dtype of an adapter": (["run", "--dtype", "float16"], "an adapter stays in float32"),
    "folder in use": (["run", "--out", "pilot"], "pilot: exists and is not empty"),
    "a pilot": (["pilot"], "name one of its arms, the best is"),
    "an empty pilot": (["bare"], "none has begun"),
    "no checkpoint": (["lost"], "no checkpoint in it is whole"),
    "no log": (["silent"], "audit.jsonl: is missing"),
    "other data": (["other"], "the questions of holdout are not those"),
    "other weights": (["moved"], "the weights of lab:base are not those"),
}


@pytest.mark.parametrize("arguments, says", BAD.values(), ids=BAD)
def test_bad_input_is_exit_2_and_one_line(arguments, says, ran, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _make_bad(arguments[0] if "--out" not in arguments else "pilot", ran, tmp_path)
    if arguments[0] == "run":
        shutil.copytree(ran, tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["poc", "export", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and says in error and error.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))
    if arguments == ["pilot"]:
        assert "pilot/arms/base-verifiable-seed0 (helps, +" in error


def _make_bad(name: str, ran: Path, place: Path) -> None:
    if name in ("empty", "young", "bare"):
        (place / name).mkdir()
    if name == "young":
        (place / name / "config.yaml").write_text("reward: {random: 1.0}\n")
    if name == "bare":
        (place / name / "config.yaml").write_text("arms:\n- {model: base, reward: {random: 1.0}}\n")
    if name == "pilot":
        fake_runs.pilot(place / name, 60, arms=["base-self_certainty", "base-verifiable"])
    if name in ("lost", "silent", "other", "moved"):
        shutil.copytree(ran, place / name)
    if name == "lost":
        shutil.rmtree(place / name / "checkpoints")
    if name == "silent":
        (place / name / "audit.jsonl").unlink()
    if name in ("other", "moved"):
        path = place / name / "environment.json"
        told = json.loads(path.read_text())
        told["data" if name == "other" else "model"]["holdout" if name == "other" else "fingerprint"] = "0"
        path.write_text(json.dumps(told))
