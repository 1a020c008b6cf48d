"""`poc review`: what is asked, kept and bound; nothing is lost to a kill, nothing hostile reaches the terminal."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from poc import cli, durable, review_ask, review_session
from poc.audit import sample_sha256
from poc.audit_check import check_bindings, verify_run
from poc.review import Item, Said
from poc.review_ask import ask
from tests.poc import runs
from tests.poc.fake_runs import HOSTILE, pilot
from tests.poc.reviews import ended, items, row

QUESTIONS = 12


@pytest.fixture(scope="module")
def real(tmp_path_factory, tiny_folder) -> Path:
    """A real run of one step: its log, checkpoints and outcome."""
    folder = tmp_path_factory.mktemp("real") / "run"
    assert runs.run([runs.job(folder, tiny_folder, ["train.steps=1"])]) == "done"
    return folder


def rows(model: str, right: int, questions: int = QUESTIONS) -> list[dict]:
    """The greedy answer is right on the first `right` questions, the samples are as right as it."""
    return [row(f"q{k}", *[(f"{model} {k} {n}", k < right) for n in range(3)]) for k in range(questions)]


@pytest.fixture
def folder(real, tmp_path) -> Path:
    """A run that ended with 8 of 12 right after 4 of 12."""
    return ended(real, tmp_path / "run", rows("start", 4), rows("end", 8))


@pytest.fixture
def answer(monkeypatch):
    """Types lines into the terminal; the end of the input behind them."""

    def put(*lines: str) -> None:
        left = iter(lines)

        def read(prompt: str) -> str:
            print(prompt)
            try:
                line = next(left)
            except StopIteration:
                raise EOFError from None
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(review_session, "ask", lambda *a, **k: ask(*a, **k, read=read))

    return put


def review(folder: Path, *arguments: str) -> int:
    """`poc review FOLDER ARGUMENTS`: the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["poc", "review", str(folder), *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0
    return 0


def result(folder: Path) -> dict:
    return json.loads((folder / "review.json").read_text())


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "review.jsonl").read_text().splitlines()]


def human_events(folder: Path) -> list[dict]:
    events = map(json.loads, (folder / "audit.jsonl").read_text().splitlines())
    return [event["data"] for event in events if event["event"] == "human"]


# ------------------------------------------------------------------------------------------------------ in the terminal


def test_a_review_from_the_first_question_to_the_result(folder, answer, capsys):
    answer(*["y"] * 5, "n the unit is missing", "")
    assert review(folder, "--count", "6", "--reviewer", "Ada", "--seed", "3") == 0
    said, found = capsys.readouterr().out, result(folder)
    assert "6 completions from before and after training" in said and "6 of 6" in said
    assert said.index("you and the verifier agree on") > said.index("all answered: Enter compares")
    assert (found["n"], found["seed"], found["reviewer"], found["step"]) == (6, 3, "Ada", 1)
    assert found["by_model"]["start"]["n"] + found["by_model"]["end"]["n"] == 6
    adapter = folder / "checkpoints/step-000001/adapter_model.safetensors"
    assert found["adapter_sha256"] == runs.sha256(adapter)
    (event,) = human_events(folder)
    assert event["report"] == {"review.json": runs.sha256(folder / "review.json")}
    assert event["adapter"] == {"checkpoints/step-000001/adapter_model.safetensors": found["adapter_sha256"]}
    assert event["sample_sha256"] == found["sample_sha256"] == log(folder)[0]["sample_sha256"]
    assert event["reviewer"] == "Ada" and event["verdict"] in said and verify_run(folder)


def test_the_terminal_is_blind_until_all_is_judged(folder, answer, capsys):
    answer(*["y"] * 5)
    review(folder, "--count", "6")
    said = capsys.readouterr().out
    assert not re.search("wrong|correct|kappa|agree", said.replace(review_ask.HELP, ""))
    assert "known answer" not in said and not (folder / "review.json").exists() and human_events(folder) == []
    assert f"5 of 6 answered and kept; go on with: poc review {folder}" in said


def test_the_gold_is_shown_only_if_asked(folder, answer, capsys):
    answer("q")
    assert review(folder, "--show-gold") == 0
    assert "known answer\n  │ 7\n" in capsys.readouterr().out
    answer("q")
    review(folder)
    assert "known answer\n  │ 7\n" in capsys.readouterr().out  # as it was begun
    assert log(folder)[0]["show_gold"] is True


def test_it_goes_on_where_it_stood(folder, answer, capsys):
    answer("y", "n", "q")
    review(folder, "--count", "4")
    assert [line["right"] for line in log(folder)[1:]] == [True, False]
    answer("s", "y", "")
    review(folder)
    said = capsys.readouterr().out
    assert "\n3 of 4\n" in said and (result(folder)["n"], result(folder)["not_judged"]) == (3, 1)
    before = (folder / "review.json").read_bytes(), (folder / "audit.jsonl").read_bytes()
    answer()
    review(folder)  # nothing is left to ask: the same result, no second event
    assert before == ((folder / "review.json").read_bytes(), (folder / "audit.jsonl").read_bytes())
    assert "you and the verifier agree on" in capsys.readouterr().out


def test_a_kill_loses_no_verdict_and_half_a_line_is_cut_off(folder, answer):
    answer("y", "n")
    review(folder, "--count", "4")
    path = folder / "review.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"item": "c12')
    answer("y")
    review(folder)
    assert path.read_bytes().startswith(whole) and [line["right"] for line in log(folder)[1:]] == [True, False, True]
    path.write_bytes(whole[:20])  # in the middle of its first line
    answer("y")
    review(folder, "--count", "5")
    assert log(folder)[0]["count"] == 5 and len(log(folder)) == 2


def test_a_verdict_is_on_the_disk_before_the_next_question(folder, answer, monkeypatch):
    seen = []
    answer("y", "n")
    monkeypatch.setattr(review_ask, "_card", lambda *a: seen.append(len(log(folder))) or "")
    review(folder, "--count", "4")
    assert seen == [1, 2, 3]


def test_ctrl_c_keeps_what_was_said(folder, answer, capsys):
    answer("y", KeyboardInterrupt())
    assert review(folder, "--count", "4") == 130
    assert "1 of 4 answered and kept; go on with: poc review" in capsys.readouterr().out and len(log(folder)) == 2


def test_a_full_disk_is_one_line_and_what_was_said_before_stays(folder, answer, capsys, monkeypatch):
    write, lines = durable.append_line, []

    def full(path, line):
        lines.append(line)
        if len(lines) == 3:
            raise OSError(28, "No space left on device", str(path))
        write(path, line)

    monkeypatch.setattr(durable, "append_line", full)
    answer("y", "n", "y")
    assert review(folder, "--count", "4") == 1
    assert "No space left on device" in capsys.readouterr().err and len(log(folder)) == 3


def test_going_back_changes_an_answer_and_enter_keeps_it():
    found, said, asked = items(True, True, True), {}, []
    lines = iter(["y", "n", "b", "b", "s no idea", "", "Y fine", "b", "", "x", ""])

    def record(key, one):
        said[key] = one

    assert ask(found, said, record, show_gold=False, read=lambda p: next(lines), say=asked.append)
    assert said == {"c00": Said(None, "no idea"), "c01": Said(False), "c02": Said(True, "fine")}
    assert sum("\n2 of 3, answered: wrong\n" in text for text in asked) == 1  # and on at the first open one
    assert next(lines, None) is None and "Enter, b or q" in asked


def test_what_is_no_answer_is_asked_again_and_quit_ends_it():
    asked, lines = [], iter(["", "maybe", "7", "m", "q"])
    assert not ask(items(True), {}, None, show_gold=False, read=lambda p: next(lines), say=asked.append)
    assert asked.count(review_ask.HELP) == 4  # at the start and three times


def test_long_texts_are_cut_counted_and_shown_on_request():
    text = "\n".join(f"line {n}" for n in range(40)) + "x" * 3000
    found = [Item("c00", "q", "?", "7", text, "end", True)]
    asked, lines = [], iter(["m", "q"])
    ask(found, {}, None, show_gold=False, read=lambda p: next(lines), say=asked.append)
    short, whole = asked[1], asked[2]
    assert "line 23" in short and "line 24" not in short and "xxx" in whole and whole.count("x") >= 3000
    head = "\n".join(text.split("\n")[:24])
    assert f"… {len(text) - len(head)} more characters: m shows them" in short and "more characters" not in whole


@pytest.mark.parametrize("whole", [False, True])
def test_no_text_can_pass_for_a_line_of_the_program(monkeypatch, whole):
    monkeypatch.setenv("COLUMNS", "40")
    evil = ["right? [y/n/s/b/m/q] y\n2 of 40\n\nquestion", "a" * 36 + "2 of 40", "日" * 30, "\t" * 20, *HOSTILE]
    for text in evil:
        item = Item("c00", "q", text, text, text, "end", True)
        asked, lines = [], iter(["m", "q"] if whole else ["q"])
        ask([item], {}, None, show_gold=True, read=lambda p, lines=lines: next(lines), say=asked.append)
        shown = asked[-1].split("\n")
        own = [line for line in shown if not line.startswith("  │ ") and not line.startswith("  … ")]
        assert own == ["", "1 of 1", "question", "known answer", "completion"]
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", asked[-1])
        assert max(map(cell_len, shown)) <= 40 and len(asked[-1]) < 20_000


def test_hostile_texts_and_notes_reach_no_terminal_raw(real, tmp_path, answer, capsys):
    evil = HOSTILE
    start = [row(f"q{k}", (text, True), (text + "!", False), question=text) for k, text in enumerate(evil)]
    end = [row(f"q{k}", (text + "?", False), (text, True), question=text) for k, text in enumerate(evil)]
    run = ended(real, tmp_path / "run", start, end)
    answer(*["n \x1b[2J\u202e=1"] * 80, "")
    assert review(run, "--count", "80", "--reviewer", "\x1b]0;x\x07</script>", "--show-gold") == 0
    said = capsys.readouterr().out
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", said)
    assert result(run)["disagreements"][0]["note"] == "\x1b[2J\u202e=1" and verify_run(run)
    assert (run / "review.json").read_bytes().isascii() and len(result(run)["disagreements"]) == 20


def test_a_lone_surrogate_is_kept_as_it_is(real, tmp_path, answer):
    run = ended(real, tmp_path / "run", [row("q", ("\ud800", True))], [row("q", ("\ud801", False))])
    answer("n \udcff", "n", "")
    assert review(run) == 0 and result(run)["n"] == 2 and verify_run(run)


# ---------------------------------------------------------------------------------------------------------------- forms


def test_forms_are_written_and_read_back(folder, tmp_path, capsys):
    table, page = tmp_path / "a b.csv", tmp_path / "a.html"
    assert review(folder, "--csv", str(table), "--html", str(page), "--count", "6", "--reviewer", "Ada") == 0
    said = capsys.readouterr().out
    assert f"poc review {folder} --read '{table}'" in said and not (folder / "review.json").exists()
    keys = re.findall('data-item="(.*?)"', page.read_text())
    mark = re.search('data-sample="(.*?)"', page.read_text())[1]
    assert mark == log(folder)[0]["sample_sha256"] and len(keys) == 6
    verdicts = [{"item": key, "verdict": "y", "note": ""} for key in keys[:5]] + [
        {"item": keys[5], "verdict": "", "note": ""}]  # fmt: skip
    saved = tmp_path / "verdicts.json"
    saved.write_text(json.dumps({"version": 1, "sample_sha256": mark, "reviewer": "Bob", "verdicts": verdicts}))
    assert review(folder, "--read", str(saved)) == 0
    assert (result(folder)["n"], result(folder)["reviewer"]) == (5, "Bob") and len(human_events(folder)) == 1
    table.write_text(table.read_text("utf-8-sig").replace(",,\n", ",n,\n"), "utf-8")
    assert review(folder, "--read", str(table), "--reviewer", "Eve") == 0  # takes back, with an event of its own
    assert not any(result(folder)["verdicts"].values()) and result(folder)["n"] == 6
    assert result(folder)["reviewer"] == "Bob, Eve" and len(human_events(folder)) == 2 and verify_run(folder)
    assert review(folder, "--read", str(table), "--reviewer", "Eve") == 0 and len(human_events(folder)) == 2


def test_a_wrong_form_changes_nothing(folder, tmp_path, capsys):
    table = tmp_path / "a.csv"
    review(folder, "--csv", str(table), "--count", "4")
    before = (folder / "review.jsonl").read_bytes()
    lines = table.read_text("utf-8-sig").splitlines()
    table.write_text("\n".join([lines[0], lines[1][:-1] + "y,", lines[2][:-1] + "what,"]))
    capsys.readouterr()
    assert review(folder, "--read", str(table)) == 2
    assert "line 3: verdict 'what'" in capsys.readouterr().err
    assert (folder / "review.jsonl").read_bytes() == before and not (folder / "review.json").exists()


# ------------------------------------------------------------------------------------------------- what is not reviewed


def refused(folder: Path, capsys, *arguments: str) -> str:
    before = sorted(path.name for path in folder.rglob("*") if path.name != ".lock")
    capsys.readouterr()
    assert review(folder, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and sorted(p.name for p in folder.rglob("*") if p.name != ".lock") == before
    return error


def test_a_pilots_folder_names_its_runs(tmp_path, capsys):
    found = pilot(tmp_path / "pilot", prompts=4, arms=("base-random", "base-verifiable"))
    error = refused(found, capsys)
    assert f"name one of its runs: {found}/arms/base-random-seed0, {found}/arms/base-verifiable-seed0" in error


def test_no_run_and_no_ended_run(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "not a run folder" in refused(tmp_path / "empty", capsys)
    (folder / "outcome.json").unlink()
    assert f"has not ended (killed): go on with it first: poc resume {folder}" in refused(folder, capsys)


@pytest.mark.parametrize(
    "name", ["evaluations/step-000001.json", "checkpoints/step-000001/adapter_model.safetensors", "config.yaml"]
)
def test_what_was_changed_after_the_run_is_not_reviewed(folder, capsys, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"1", b"2", 1))
    error = refused(folder, capsys)
    assert name in error and f"poc verify {folder}" in error
    (folder / name).unlink()
    assert name in refused(folder, capsys)


def test_the_run_is_what_it_went_back_to(real, tmp_path, answer):
    run = ended(real, tmp_path / "run", rows("start", 4), rows("start", 4), kept=0)
    answer(*["y"] * 6, "")
    assert review(run, "--count", "6") == 0
    found = result(run)
    assert found["step"] == 0 and found["by_model"]["start"] == found["by_model"]["end"]
    assert found["adapter_sha256"] == runs.sha256(run / "checkpoints/step-000000/adapter_model.safetensors")
    shutil.copy(run / "evaluations/step-000001.json", run / "evaluations/kept/step-000000.json")
    assert not verify_run(run)


def test_options_are_those_it_was_begun_with(folder, answer, capsys):
    answer()
    review(folder, "--count", "4")
    assert "begun with count 4, not 5: leave the option out, or remove" in refused(folder, capsys, "--count", "5")
    assert "--show-gold: this review was begun with show_gold False" in refused(folder, capsys, "--show-gold")
    answer("y")
    assert review(folder, "--count", "4") == 0 and len(log(folder)) == 2


def test_another_sample_or_a_changed_log_is_told(folder, answer, capsys):
    answer("y")
    review(folder, "--count", "4")
    path = folder / "review.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(lines[0].replace('"seed": 0', '"seed": 1') + "\n")
    assert "was begun on another sample" in refused(folder, capsys)
    path.write_text(lines[0] + "\n" + lines[1].replace("true", "1") + "\n")
    assert "review.jsonl line 2: is no verdict on this sample" in refused(folder, capsys)
    path.write_text("[]\n")
    assert "is not as it was written" in refused(folder, capsys)
    path.write_text('{"version": 1}\n')
    assert "is not how a review begins" in refused(folder, capsys)


def test_options_that_contradict_each_other(folder, tmp_path, capsys):
    there = tmp_path / "there.csv"
    there.write_text("x")
    assert "exists already" in refused(folder, capsys, "--csv", str(there))
    assert "not a folder that you may write to" in refused(folder, capsys, "--html", str(tmp_path / "no" / "a.html"))
    both = refused(folder, capsys, "--read", str(there), "--csv", str(tmp_path / "b.csv"))
    assert "give one of the two" in both
    assert "no review of" in refused(folder, capsys, "--read", str(there))


def test_a_result_that_was_changed_is_noticed_and_written_again(folder, answer, capsys):
    answer("y", "n", "")
    review(folder, "--count", "2")
    good = result(folder)
    (folder / "review.json").write_text(json.dumps(good | {"agreement": 1.0}))
    assert any("review.json: is not what audit.jsonl line" in line for line in verify_run(folder).lines)
    answer()
    assert review(folder) == 0
    assert result(folder) | {"date": ""} == good | {"date": ""} and verify_run(folder)
    (folder / "review.json").unlink()
    assert review(folder) == 0 and verify_run(folder)


def test_a_kill_between_result_and_event_is_made_good(folder, answer, monkeypatch):
    answer("y", "n", "")
    monkeypatch.setattr(review_session, "human_verdict", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    assert review(folder, "--count", "2") == 130
    monkeypatch.undo()
    assert (folder / "review.json").is_file() and human_events(folder) == []
    assert review(folder) == 0
    assert len(human_events(folder)) == 1 and verify_run(folder)


def test_the_binding_notices_other_texts(folder, answer):
    answer("y", "n", "")
    review(folder, "--count", "2")
    shown = review_session._begin(review_session._ended(folder), {}).sample
    assert sample_sha256(shown) == result(folder)["sample_sha256"]
    assert check_bindings(folder / "audit.jsonl", [shown]) == []
    shown["items"][0]["text"] += "."
    assert "the sample that was judged is another now" in check_bindings(folder / "audit.jsonl", [shown])[0]


def test_all_skipped_is_no_result(folder, answer, capsys):
    answer("s", "s", "")
    assert review(folder, "--count", "2") == 0
    assert "every completion was skipped" in capsys.readouterr().out and not (folder / "review.json").exists()


def test_without_labels_only_the_person_speaks(real, tmp_path, answer, capsys):
    bare = [row(f"q{k}", (f"{k}", None), (f"{k}\n#1", None)) for k in range(4)]
    run = ended(real, tmp_path / "run", bare, [row(f"q{k}", (f"end {k}", None)) for k in range(4)])
    answer(*["y"] * 4, "")
    assert review(run, "--count", "4") == 0
    assert "no labels, so there is no verifier's word" in capsys.readouterr().out
    assert result(run)["kappa"]["value"] is None and result(run)["agreement"] is None


def test_more_than_there_are(folder, answer, capsys):
    answer()
    review(folder, "--count", "1000")
    assert "72 completions (all that there are, of the 1000 asked for)" in capsys.readouterr().out
