"""Rows of public sets (written here, in their columns) and of the kit, from the file to the verdict."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poc import tasks
from poc.config import DOMAIN_LEVELS, FORMATS, Data
from poc.records import Example, InputError
from poc.tasks import formats, own

COUNTS = {"train": 4, "holdout": 3, "canary": 3}


def gsm8k(n):
    return {"question": f"Tom has {n} pens and buys 2.", "answer": f"{n} + 2 = <<{n}+2={n + 2}>>{n + 2}\n#### {n + 2}"}


def competition(n):
    return {"problem": f"Halve $x^{n}$.", "solution": f"It is \\boxed{{\\frac{{x^{n}}}{{2}}}}.", "level": "1"}


def mbpp(n):
    code = f"def add(x):\n    return x + {n}"
    tests = [f"assert add({x}) == {x + n}" for x in (0, 1, 5)]
    return {"task_id": n, "text": f"Write a function that adds {n}.", "code": code, "test_list": tests}


def humaneval(n):
    prompt = f'def add(x):\n    """Add {n} to x."""\n'
    test = f"def check(candidate):\n    assert candidate(0) == {n}\n    assert candidate(7) == {n + 7}\n"
    solution = f"    return x + {n}\n"
    return {"task_id": str(n), "prompt": prompt, "canonical_solution": solution, "test": test, "entry_point": "add"}


def gpqa(n):
    wrong = {f"Incorrect Answer {i}": f"{n + i} kg" for i in (1, 2, 3)}
    return {"Question": f"What is the mass of {n} one-kilogram stones?", "Correct Answer": f"{n} kg"} | wrong


def mmlu(n):
    return {"question": f"Which is {n}?", "choices": [str(n + 1), str(n), "0.5", "none"], "answer": 1}


ROWS = {"gsm8k": gsm8k, "math": competition, "mbpp": mbpp, "humaneval": humaneval, "gpqa": gpqa, "mmlu": mmlu}


def right(form, n, example):
    """An answer that is right, made without the gold."""
    options = [line for line in example.text.splitlines() if line[1:2] == ")"]
    letter = {"gpqa": f" {n} kg", "mmlu": f" {n}"}.get(form)
    return {
        "gsm8k": f"so #{n + 2}",
        "math": f"\\boxed{{x^{n}/2}}",
        "mbpp": f"```python\ndef add(x):\n    return {n} + x\n```",
        "humaneval": f"```python\ndef add(x):\n    return {n} + x\n```",
    }.get(form) or "#" + next(line[0] for line in options if line[2:] == letter)


def jsonl(folder, rows, name="my.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(file, form, **more):
    return tasks.load(Data(file=str(file), format=form, **{**COUNTS, **more}), 0)


def everything(splits):
    return [example for part in splits.values() for example in part]


def sandboxed(form):
    from poc.scoring import sandbox

    if FORMATS[form] == "code" and sandbox.level() == "none":
        pytest.skip(f"no sandbox here: {sandbox.why_not()}")


def test_every_format_of_the_configuration_has_a_reader():
    assert {*formats.READERS, formats.KIT} == FORMATS.keys()
    assert ROWS.keys() == formats.READERS.keys()


@pytest.mark.parametrize("form", ROWS)
def test_public_rows_are_questions_of_a_domain_with_its_verdicts(form, tmp_path):
    sandboxed(form)
    loaded = load(jsonl(tmp_path, [ROWS[form](n) for n in range(20, 30)]), form)
    assert {split: len(part) for split, part in loaded.items()} == COUNTS
    assert {e.domain for e in everything(loaded)} == {FORMATS[form]}
    assert all(e.id == f"{form}-{own.digest(e.question)[:16]}" for e in everything(loaded))
    by_question = {e.question: e for e in everything(loaded)}
    for n in range(20, 23):
        example = next(e for q, e in by_question.items() if str(n) in q.split("\nA)")[0])
        assert tasks.score(example, right(form, n, example)).correct
        for wrong in ("", "#99", f"\\boxed{{{n}}}", "```python\ndef add(x):\n    return 99\n```", "#A or B"):
            assert not tasks.score(example, wrong).correct
    assert "one Python expression" not in tasks.instruction(everything(loaded)[0])


def test_parquet_columns_of_a_format_are_all_read(tmp_path):
    rows = [mmlu(n) for n in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "my.parquet")
    loaded = load(tmp_path / "my.parquet", "mmlu")
    assert loaded == load(jsonl(tmp_path, rows), "mmlu")


def test_a_tenth_of_unusable_rows_is_left_out_and_told(tmp_path):
    bad = {"question": "Nobody knows.", "answer": "x\u202e"}
    rows = [gsm8k(n) for n in range(18)]
    data = dict(train=10, holdout=4, canary=4, format="gsm8k")
    splits, notes = own.load_with_notes(Data(file=jsonl(tmp_path, [bad, *rows[:9], bad, *rows[9:]]), **data))
    assert len(everything(splits)) == 18 and notes["unusable"] == 2
    assert "my.jsonl line 1: " in notes["first_unusable"] and notes["first_unusable"].isprintable()
    with pytest.raises(InputError, match=r"my.jsonl line 2: .* \(as gsm8k, 2 of 19 rows cannot be read") as caught:
        own.load_with_notes(Data(file=jsonl(tmp_path, [rows[0], bad, bad, *rows[1:17]]), **data))
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_another_sets_rows_are_one_line(tmp_path):
    for form in ROWS:
        with pytest.raises(InputError, match="my.jsonl line 1: ") as caught:
            load(jsonl(tmp_path, [{"nothing": 1}] * 10), form)
        assert "\n" not in str(caught.value)


def kit(n, **changed):
    row = {"id": f"k{n}", "question": f"{n}+1=?", "answer": str(n + 1), "domain": "math", "level": 0, "check": ""}
    return row | changed


def test_kit_rows_of_every_domain_come_back_as_they_were(tmp_path):
    drawn = [tasks.draw(domain, 3, i, level)[0] for domain in DOMAIN_LEVELS for level in (0, 1) for i in range(3)]
    drawn = list({e.question: e for e in drawn}.values())
    chat = Example("c", ({"role": "user", "content": "Who?"},), "I", "own")
    file = jsonl(tmp_path, [formats.kit_row(e) for e in (*drawn, chat)])
    loaded = everything(load(file, "kit", train=len(drawn) - 5))
    assert sorted(loaded, key=lambda e: e.id) == sorted([*drawn, chat], key=lambda e: e.id)


def test_kit_rows_from_csv(tmp_path):
    (tmp_path / "my.csv").write_text(
        "id,question,answer,domain,level,check\n" + "".join(f"k{n},{n}+1=?,{n + 1},math,0,\n" for n in range(10))
    )
    assert load(tmp_path / "my.csv", "kit") == load(jsonl(tmp_path, [kit(n) for n in range(10)]), "kit")


@pytest.mark.parametrize(
    "row,expected",
    [
        ({"id": "x"}, "line 2: no column 'question': a kit file has id, question, answer, domain, level, check"),
        (kit(1, domain="maths"), "column 'domain': 'maths' is no domain; did you mean 'math'?"),
        (kit(1, domain=7), "column 'domain': 7 is not text"),
        (kit(1, level=6), "column 'level': 6 is no level of math: 0 to 5"),
        (kit(1, level=True), "column 'level': True is no level"),
        (kit(1, level="0x1"), "column 'level': '0x1' is no level"),
        (kit(1, level=-1), "column 'level': -1 is no level"),
        (kit(1, answer=2), "column 'answer': 2 is not text"),
        (kit(1, answer="\ud800"), "column 'answer': '\\ud800' holds a NUL or half a surrogate"),
        (kit(1, check=None), "column 'check': None is not text"),
        (kit(1, id="a\nb"), "column 'id': 'a\\nb' is not a name of 1 to 200 printable"),
        (kit(1, id=""), "column 'id': '' is not a name"),
        (kit(1, question=""), "column 'question': '' is empty"),
        (kit(1, id="k0"), "line 2: another question than"),
        (kit(0, answer="7"), "the same question as"),
    ],
)
def test_bad_kit_rows_are_one_line(row, expected, tmp_path):
    with pytest.raises(InputError) as caught:
        load(jsonl(tmp_path, [kit(0), row, *map(kit, range(2, 11))]), "kit")
    assert expected in str(caught.value) and "\n" not in str(caught.value)
