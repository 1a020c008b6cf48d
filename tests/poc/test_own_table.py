"""Questions from a user's CSV: what is read, what is asked, what is refused, and that own.py scores it alike."""

import json
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import own_table, tasks
from poc.config import Data
from poc.records import InputError
from poc.tasks import own, table
from poc.tasks.answers import parse_number


def sales(mark: str = ",", comma: bool = False, rows: int = 120) -> str:
    """Orders: a label, a category, money with commas, a percentage, whole numbers, dates, long notes, gaps."""
    rng = Random(0)
    lines = [mark.join(["order", "region", "net amount", "rebate", "units", "day", "note"])]
    for i in range(rows):
        amount = f"{rng.randint(100_000, 999_999) / 100:.2f}"
        amount = amount.replace(".", ",") if comma else f'"${float(amount):,.2f}"'
        region = rng.choice(["North", "South", "East", "West", ""])
        units = rng.choice([str(rng.randint(1, 90))] * 12 + ["n/a"])
        note = '"' + "long " * 2000 + '"' if i % 7 == 0 else "short"
        lines.append(
            mark.join([f"A-{i}", region, amount, f"{rng.randint(1, 40)}%", units, f"2026-0{i % 9 + 1}-01", note])
        )
    return "\n".join(lines) + "\n"


@pytest.fixture
def csv_of(tmp_path):
    def write(content: str | bytes, name: str = "my.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("mark,comma", [(",", False), (";", False), ("\t", False), (";", True)])
def test_columns_are_told_apart_whatever_separates_them(csv_of, mark, comma):
    source = own_table.read_source(csv_of(sales(mark, comma)))
    assert list(source.numbers) == ["net amount", "rebate", "units"]
    assert source.categories == ("region", "day") and source.labels == ("order",)
    first = source.shown["net amount"][0]
    assert source.numbers["net amount"][0] == float(parse_number(first)) and first.startswith("$") != comma
    assert None in source.shown["region"] and None in source.shown["units"]


@pytest.mark.parametrize("level", [None, 0, 1, 2, 3])
def test_every_gold_is_right_in_both_scorers_and_the_same_by_seed(csv_of, level):
    path = csv_of(sales())
    examples = own_table.make_questions(path, 150, 3, level)
    assert examples == own_table.make_questions(path, 150, 3, level)
    assert examples != own_table.make_questions(path, 150, 4, level)
    assert len({e.question for e in examples}) == len({e.id for e in examples}) == 150
    assert {e.level for e in examples} == ({0, 1, 2, 3} if level is None else {level})
    for example in examples:
        marked = f"I count.\n#{example.answer}"
        assert tasks.score(example, marked).correct and tasks.read(example, marked).answer is not None
        assert table.score(example, marked).correct
        for wrong in ("", f"#{example.answer}1", "#or", example.question, f"#{example.answer} or 7"):
            assert not tasks.score(example, wrong).correct and not table.score(example, wrong).correct


def test_golds_follow_from_the_rows_that_are_shown(csv_of):
    seen = set()
    for example in own_table.make_questions(csv_of(sales()), 300, 0):
        *lines, asked = example.question.split("\n")
        cells = [line.strip("| ").split(" | ") for line in lines]
        rows = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
        assert not any(cell in ("", "n/a") for row in rows for cell in row.values())
        for column in ("net amount", "rebate", "units"):
            name = f'"{column}"' if " " in column else column
            values = [parse_number(row[column]) for row in rows if column in row]
            truths = {
                f"What is the sum of {name}?": lambda v: sum(v),
                f"What is the highest value of {name}?": max,
                f"What is the second highest {name}?": lambda v: sorted(v)[-2],
                f"By how much is the highest {name} above the lowest?": lambda v: max(v) - min(v),
            }
            if asked in truths:
                assert parse_number(example.answer) == truths[asked](values)
                seen.add(asked.partition(name)[0])
    assert len(seen) == 4


def test_the_file_written_is_one_that_a_pilot_reads(csv_of, tmp_path):
    out = own_table.write(csv_of(sales()), tmp_path / "questions.jsonl", 200, 0)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert out.name == "questions.jsonl" and len(rows) == 200 and {*rows[0]} == {"question", "answer"}
    splits = own.load(Data(file=str(out), prompt="question", answer="answer"))
    loaded = [example for part in splits.values() for example in part]
    assert len(loaded) == 200 and all(tasks.score(e, f"#{e.answer}").correct for e in loaded)


def test_columns_of_numbers_alone_are_enough(csv_of):
    path = csv_of("a,b\n" + "\n".join(f"{i * i % 97},{i}" for i in range(40)))
    assert {e.level for e in own_table.make_questions(path, 100, 0)} == {0, 1, 2, 3}


def test_cells_that_could_end_a_row_or_an_answer_do_neither(csv_of):
    names = ["C#", "a|b", "\\boxed{7}", "x\x1b[2Jy", "<answer>7</answer>", "**", "Ünï", "plain", "two\nlines"]
    lines = [f'"{names[i % len(names)]}",{i * 37 % 101},{i}' for i in range(90)]
    for example in own_table.make_questions(csv_of("name,size,age\n" + "\n".join(lines)), 200, 0):
        *table_lines, _ = example.question.split("\n")
        assert all(line.startswith("| ") and line.endswith(" |") for line in table_lines)
        assert "\x1b" not in example.question
        assert example.answer not in ("C#", "a|b", "\\boxed{7}", "<answer>7</answer>", "**")
        assert tasks.score(example, f"#{example.answer}").correct


def test_answers_that_differ_in_case_alone_are_not_asked_for(csv_of):
    lines = [f"{['yes', 'Yes', 'YES'][i % 3]},{i * 37 % 101},{i}" for i in range(60)]
    assert all(
        parse_number(e.answer) is not None
        for e in own_table.make_questions(csv_of("said,size,age\n" + "\n".join(lines)), 100, 0)
    )


@pytest.mark.parametrize(
    "content,message",
    [
        ("", "my.csv: is empty: it needs a header and one row per line"),
        ("\n , \n\n", "is empty"),
        (";;;\n;;\n", "is empty"),
        ("a,b\n", "holds 0 rows below its header: it needs at least 4"),
        ("a,b\n1,2\n", "holds 1 rows"),
        ("a,b\n" + "x,y\nz,w\n" * 4, r"none of its columns \('a', 'b'\) holds numbers .* needs a column of numbers"),
        ("a\n1\n2\n3\n4\n5\n", "only the column 'a' can be asked about: it needs a second one"),
        ("a,a\n1,2\n", "line 1: the header names 'a' twice: rename one of them"),
        ("a,b\n1,\0\n", "holds a NUL byte"),
        ("a,b\n1,2,3\n", "line 2: 3 fields, but the header has 2"),
        ('a,b\n1,"x\n', "line 2: not CSV .* check the quotes"),
        (b"a,b\n\xe9,1\n", "line 2: is not UTF-8"),
    ],
)
def test_what_is_missing_is_said_in_one_line(csv_of, content, message):
    with pytest.raises(InputError, match=message) as error:
        own_table.make_questions(csv_of(content), 5, 0)
    assert "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_a_wrong_level(csv_of, tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read .* name a CSV file"):
            own_table.make_questions(path, 5, 0)
    with pytest.raises(InputError, match="level 4: a table has levels 0 to 3"):
        own_table.make_questions(csv_of(sales()), 5, 0, 4)
    small = csv_of("a,b\n1,2\n3,4\n5,6\n7,8\n")
    assert len(own_table.make_questions(small, 3, 0)) == 3
    with pytest.raises(InputError, match="level 3 needs at least 8 rows .* it has 4 rows"):
        own_table.make_questions(small, 3, 0, 3)


def test_more_questions_than_the_table_has_are_refused_with_their_number(csv_of):
    small = csv_of("a,b\n1,2\n3,4\n5,6\n7,8\n")
    with pytest.raises(InputError, match="1000 questions asked for, but this table allows about 6 different ones"):
        own_table.make_questions(small, 1000, 0)  # sum, highest and lowest of a and of b


def test_a_million_rows_and_ten_kilobytes_a_cell_take_bounded_time(csv_of):
    start = time.perf_counter()
    rows = "".join(f'n{i},c{i % 50},"{i * 7 % 100000:,}",{i % 90}\n' for i in range(1_000_000))
    path = csv_of("name,city,amount,age\n" + rows)
    written = time.perf_counter()
    assert len(own_table.make_questions(path, 50, 0)) == 50
    assert time.perf_counter() - written < 6 and written - start < 20
    wide = csv_of("name,size,text\n" + "".join(f'{i},{i * 37 % 101},"{"y" * 10_000}\n"\n' for i in range(7000)))
    assert len(own_table.make_questions(wide, 20, 0)) == 20


@settings(max_examples=60, deadline=None)
@given(content=st.text(alphabet='ab1290,;\t\n" .%$|#-', max_size=200), head=st.sampled_from(["a,b\n", "a;b\n", ""]))
def test_any_text_gives_questions_or_one_line(tmp_path_factory, content, head):
    path = tmp_path_factory.mktemp("any") / "my.csv"
    path.write_text(head + content)
    try:
        examples = own_table.make_questions(path, 2, 0)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(tasks.score(e, f"#{e.answer}").correct for e in examples)
