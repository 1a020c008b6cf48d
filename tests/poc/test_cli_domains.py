"""`poc domains`, `difficulty` and `doctor` as they are typed: what is refused, what is written, what is advised."""

import json
import shlex

import pytest
import yaml
from typer.testing import CliRunner

from poc import cli, tasks
from poc.config import Data, RunConfig
from poc.configfile import load
from poc.records import Example, InputError
from poc.tasks import dropped, own

ORDERS = "customer,units\n" + "".join(f"{'ABCD'[i % 4]}x,{i % 17 + 1}\n" for i in range(80))


@pytest.fixture
def orders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my file, x.csv"
    path.write_text(ORDERS)
    return path


def run(*arguments):
    return CliRunner().invoke(cli.app, ["domains", *map(str, arguments)])


def test_questions_on_a_table_train_as_the_command_says(orders):
    result = run("table", "--csv", orders.name, "--count", 40)
    assert result.exit_code == 0, result.output
    command = shlex.split(result.output.splitlines()[-1])
    assert command[:3] == ["poc", "pilot", "--set"]
    config = load(RunConfig, None, [command[3]])
    splits = tasks.load(config.data, 0)
    assert sum(map(len, splits.values())) == 40 and all(e.answer for part in splits.values() for e in part)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--csv", "."], "is no file"),
        (["--csv", "nothing.csv"], "is no file"),
        (["--csv", "my file, x.csv", "--out", "q.txt"], "ends in .jsonl"),
        (["--csv", "my file, x.csv", "--out", "no/q.jsonl"], "folder that exists"),
        (["--csv", "my file, x.csv", "--count", "99999999"], "at most"),
        (["math", "--csv", "my file, x.csv"], "domain table"),
        (["--out", "q.jsonl"], "only with --csv"),
        (["mth"], "mth"),
    ],
)
def test_what_cannot_be_is_one_line(orders, arguments, says):
    result = run(*arguments)
    assert isinstance(result.exception, InputError) and says in str(result.exception)
    assert "\n" not in str(result.exception) and list(orders.parent.iterdir()) == [orders]


def test_the_advice_is_yaml_whatever_the_name(orders):
    out = 'o\'brien "q".jsonl'
    result = run("--csv", orders.name, "--count", 10, "--out", out)
    value = shlex.split(result.output.splitlines()[-1])[3].removeprefix("data=")
    assert yaml.safe_load(value)["file"] == out


def test_doctor_says_whether_code_can_be_judged():
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 0 and "code sandbox" in result.output


def test_what_was_kept_is_not_left_out_by_mistake(tmp_path):
    train = [Example(str(i), f"question {i}?", "1", "own") for i in range(4)]
    row = {"hash": own.digest("question 2?"), "id": "2"}
    (tmp_path / "kept.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="no reason"):
        dropped.leave_out(train, str(tmp_path / "kept.jsonl"))
    (tmp_path / "dropped.jsonl").write_text(json.dumps(row | {"reason": "too easy"}) + "\n")
    kept, note = dropped.leave_out(train, str(tmp_path / "dropped.jsonl"))
    assert [e.id for e in kept] == ["0", "1", "3"] and note["left_out"] == 1
    (tmp_path / "none.jsonl").write_text("")
    assert dropped.leave_out(train, str(tmp_path / "none.jsonl"))[0] == train


@pytest.mark.parametrize("level", [2, 3])
def test_a_table_echoed_into_a_mark_is_no_answer(level):
    asked = [e for e in tasks.generate("table", level, "train", 60, 0) if "\nWhich " in e.text]
    assert asked
    for example in asked:
        assert tasks.read(example, f"#{example.text}").answer is None
        assert tasks.read(example, f"#{example.answer}").answer is not None


@pytest.mark.parametrize(
    "options",
    [{"format": "gsm8k", "prompt": "q"}, {"format": "gsm8k", "answer_after": "x"}, {"domain": "logic"}, {"level": 3}],
)
def test_keys_that_would_be_ignored_are_refused(options):
    with pytest.raises(ValueError, match="would be ignored"):
        Data(file="x.jsonl", **options)
