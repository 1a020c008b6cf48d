"""The user's own files: what is read, what is refused and how, and who lands in which split."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.config import Data
from poc.records import Example, InputError
from poc.tasks import own

SHARED = Path(__file__).parents[3] / "shared" / "data"
GSM8K, KNIGHTS = SHARED / "gsm8k_test.jsonl", SHARED / "kk_3_people_test.parquet"
TEN = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(10)]
COUNTS = {"train": 4, "holdout": 3, "canary": 3}


def jsonl(folder, rows, name="my.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(file, **data):
    return own.load(Data(file=str(file), **{**COUNTS, **data}))


def everything(splits):
    return {e.question: e.answer for part in splits.values() for e in part}


def refusal(folder, content, name="my.jsonl", **data):
    """The error for a file of this content, with the folder's own path taken out."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        load(path, **data)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    return message.replace(str(path), name)


def test_the_same_rows_from_every_format(tmp_path):
    texts = [f'Is "{n}, {n}"\neven?  é' for n in range(10)]
    rows = [{"id": n, "prompt": text, "answer": n} for n, text in enumerate(texts)]
    with open(tmp_path / "my.CSV", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["id", "prompt", "answer"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "my.parquet")
    loaded = load(jsonl(tmp_path, rows))
    assert everything(loaded) == {text: str(n) for n, text in enumerate(texts)}
    assert load(tmp_path / "my.CSV") == load(tmp_path / "my.parquet") == loaded
    assert {k: len(v) for k, v in loaded.items()} == COUNTS


def test_a_dataset_folder(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    file = jsonl(tmp_path / "set", TEN, "train.jsonl")
    assert own.load(Data(dataset=str(tmp_path / "set"), **COUNTS)) == load(file)


def test_a_dataset_gets_its_subset_and_split_and_errors_stay_one_line(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        raise KeyError("no such thing\nand a long story")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(InputError, match=r"^a/b: cannot be loaded .*'main'.*'test' \(KeyError: .*\): correct .*split$"):
        own.load(Data(dataset="a/b", subset="main", split="test"))
    assert asked == [(("a/b",), {"name": "main", "split": "test"})]


def test_chat_messages(tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?", "name": "Al"}]
    loaded = load(jsonl(tmp_path, [{"prompt": turns, "answer": 4}, *TEN]))
    chat = next(e for part in loaded.values() for e in part if not isinstance(e.question, str))
    assert chat.question == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"})
    assert chat.answer == "4" and chat.domain == "own"


@pytest.mark.parametrize(
    "given_,gold",
    [
        (4, "4"),
        (4.5, "4.5"),
        (1e22, "1" + "0" * 22),
        (1e-7, "0.0000001"),
        (" x ", "x"),
        ("", None),
        (" ", None),
        (None, None),
    ],
)
def test_answers_become_text_or_nothing(tmp_path, given_, gold):
    loaded = load(jsonl(tmp_path, [{"prompt": "new", "answer": given_}, *TEN]), train=5)
    assert everything(loaded)["new"] == gold


def test_the_answer_after_the_last_marker(tmp_path):
    rows = [{**row, "answer": f"a #### 7 so\n#### {row['answer']} "} for row in TEN]
    assert everything(load(jsonl(tmp_path, rows), answer_after="####")) == everything(load(jsonl(tmp_path, TEN)))


def test_long_prompts_and_odd_line_ends_are_no_errors(tmp_path):
    body = "".join(f'"{n} {"x" * 200_000} \u2028",{n}\r\n\r\n' for n in range(10))
    (tmp_path / "my.csv").write_bytes(("prompt,answer\r\n" + body).encode())
    loaded = everything(load(tmp_path / "my.csv"))
    assert len(loaded) == 10 and all(len(question) > 200_000 for question in loaded)
    (tmp_path / "my.jsonl").write_text("\r\n\r\n".join(f'{{"prompt": "{n} \u2028", "answer": {n}}}' for n in range(10)))
    assert len(everything(load(tmp_path / "my.jsonl"))) == 10


OK = '{"prompt": "p", "answer": "a"}\n'
BAD_JSONL = [
    (OK + '{"prompt": "p\n', 'my.jsonl line 2: \'{"prompt": "p\' is not JSON (Unterminated string'),
    (OK + "[1]\n", "my.jsonl line 2: [1] is not an object: write one {...} per line"),
    ("[" * 100_000, "is not JSON (maximum recursion depth"),
    ('{"prompt": "p", "answer": ' + "9" * 5000 + "}", "is not JSON (Exceeds the limit"),
    (
        OK.encode() + b'\n{"prompt": "caf\xe9"}',
        "my.jsonl line 3: the byte b'\\xe9' is not UTF-8: save the file as UTF-8",
    ),
    (OK.encode("utf-16"), "my.jsonl line 1: the byte b'\\xff' is not UTF-8"),
    (OK + OK[:5] + "\0", "my.jsonl line 2: holds a NUL byte"),
    (OK + '{"prompt": "a\\u0000b"}', "my.jsonl line 2, column 'prompt': 'a\\x00b' holds a NUL"),
    (OK + '{"prompt": "x", "answer": "\\u0000"}', "my.jsonl line 2, column 'answer': '\\x00' holds a NUL"),
    (OK + '{"prompt": "\\ud800"}', "my.jsonl line 2, column 'prompt': '\\ud800' holds a NUL or half a surrogate pair"),
    (OK + '{"prompt": " \\n"}', "my.jsonl line 2, column 'prompt': ' \\n' is empty: write the question or delete"),
    (OK + '{"prompt": null}', "my.jsonl line 2, column 'prompt': None is empty"),
    (OK + '{"prompt": 7}', "my.jsonl line 2, column 'prompt': 7 is neither text nor a list of chat messages"),
    (OK + '{"prompt": {"a": 1}}', "column 'prompt': {'a': 1} is neither text nor"),
    (OK + '{"promt": "q"}', "my.jsonl line 2: no column 'prompt'; did you mean 'promt'?"),
    (OK + '{"prompt": []}', "my.jsonl line 2, column 'prompt': [] is an empty list"),
    (OK + '{"prompt": ["hi"]}', "my.jsonl line 2, column 'prompt': 'hi' is not a chat message such as"),
    (OK + '{"prompt": [{"role": "bot", "content": "x"}]}', "'bot' is not a role: use one of system, user, assistant"),
    (OK + '{"prompt": [{"role": ["user"], "content": "x"}]}', "['user'] is not a role"),
    (OK + '{"prompt": [{"role": "user"}]}', "{'role': 'user'} has no content, or content that is not text"),
    (OK + '{"prompt": [{"role": "user", "content": ""}]}', "has no content"),
    (OK + '{"prompt": [{"role": "user", "content": ["x"]}]}', "content that is not text"),
    (OK + '{"prompt": [{"role": "assistant", "content": "x"}]}', "must be the user's message, as the last one"),
    (OK + '{"prompt": "q", "answer": ["a"]}', "my.jsonl line 2, column 'answer': ['a'] is neither text nor a number"),
    (OK + '{"prompt": "q", "answer": {"a": 1}}', "column 'answer': {'a': 1} is neither text nor a number"),
    (OK + '{"prompt": "q", "answer": true}', "my.jsonl line 2, column 'answer': True is neither text nor a number"),
    (OK + '{"prompt": "q", "answer": NaN}', "my.jsonl line 2, column 'answer': nan is not an answer: leave it empty"),
    (OK + '{"prompt": "q", "answer": 1e999}', "column 'answer': inf is not an answer"),
    (OK + '{"prompt": "q", "answer": "..."}', "column 'answer': '...' holds no answer"),
    (
        OK + '\n\n{"prompt": " p ", "answer": "b"}',
        "line 4: the same question as my.jsonl line 1, but the answer 'b' contradicts",
    ),
    ('{"question": "q", "answer": "a"}', "my.jsonl: no column 'prompt' (data.prompt); valid: question, answer"),
    ('{"prompt": "q", "anwser": "a"}', "my.jsonl: no column 'answer' (data.answer); did you mean 'anwser'?"),
    ('{"prom\\npt": "q", "answer": "a"}', "did you mean 'prom\\\\npt'?"),
    (OK + '{"prompt": "q", "answer": ["' + "x" * 500 + '"]}', "['" + "x" * 57 + "… is neither"),
    ("", "my.jsonl: is empty"),
    (" \n\n", "my.jsonl: is empty"),
]


@pytest.mark.parametrize("content,expected", BAD_JSONL, ids=lambda x: ascii(x[-40:]))
def test_bad_jsonl(tmp_path, content, expected):
    assert expected in refusal(tmp_path, content)


BAD_CSV = [
    ("", "my.csv: is empty"),
    ("\ufeffprompt,answer\n", "my.csv: has a header but no rows"),
    ("question,answer\nq,a\n", "my.csv: no column 'prompt' (data.prompt); valid: question, answer"),
    ("promt,answer\nq,a\n", "my.csv: no column 'prompt' (data.prompt); did you mean 'promt'?"),
    ("prompt\nq\n", "my.csv: no column 'answer' (data.answer); valid: prompt"),
    (
        "prompt;answer\nq;a\n",
        "my.csv: no column 'prompt' (data.prompt); it holds one column: separate the columns with commas",
    ),
    (
        "prompt,answer\nq,a,b\n",
        "my.csv line 2: 3 fields, but the header has 2: put the text around the comma before 'b' in",
    ),
    ('prompt,answer\n"a\nb\nc",1\n\n,2\n', "my.csv line 6, column 'prompt': '' is empty"),
    ('prompt,answer\n"a\nb",1\n"c\n\nd",2,3\n', "my.csv line 4: 3 fields"),
    ('prompt,answer\nq,a\n"r,b\ns,c\n', "my.csv line 3: not CSV (unexpected end of data): check the quotes"),
    ('prompt,answer\n"q"r,a\n', "my.csv line 2: not CSV ("),
    ("prompt,answer,prompt\nq,a,r\n", "my.csv line 1: the header names 'prompt' twice"),
    ("prompt,answer\nq,nan\n", "my.csv line 2, column 'answer': 'nan' is not an answer"),
    (b"prompt,answer\nq,\xff\n", "my.csv line 2: the byte b'\\xff' is not UTF-8"),
    (b"prompt,answer\nq,a\nr\0,b\n", "my.csv line 3: holds a NUL byte"),
]


@pytest.mark.parametrize("content,expected", BAD_CSV, ids=lambda x: ascii(x[-40:]))
def test_bad_csv(tmp_path, content, expected):
    assert expected in refusal(tmp_path, content, "my.csv")


def test_a_short_csv_row_is_unlabelled(tmp_path):
    (tmp_path / "my.csv").write_text("prompt,answer\nq\n" + "".join(f"p{n},{n}\n" for n in range(10)))
    assert everything(load(tmp_path / "my.csv", train=5))["q"] is None


def test_bad_files(tmp_path):
    assert "cannot read .txt; valid: .jsonl, .csv, .parquet" in refusal(tmp_path, "x", "my.txt")
    assert "cannot read .json; valid" in refusal(tmp_path, "[]", "my.json")
    assert "cannot read a file without an ending" in refusal(tmp_path, "x", "my")
    assert "is not a parquet file" in refusal(tmp_path, "prompt,answer", "my.parquet")
    with pytest.raises(InputError, match="none.jsonl: no such file"):
        load(tmp_path / "none.jsonl")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a directory: name the file"):
        load(tmp_path / "folder.csv")
    with pytest.raises(InputError, match="cannot be read"):
        load("a\0.csv")


def test_bad_parquet(tmp_path):
    path = tmp_path / "my.parquet"
    pq.write_table(pa.table({"prompt": pa.array([], pa.string()), "answer": pa.array([], pa.string())}), path)
    with pytest.raises(InputError, match="has columns but no rows"):
        load(path)
    pq.write_table(pa.table({"promt": ["q"], "answer": ["a"]}), path)
    with pytest.raises(InputError, match="did you mean 'promt'"):
        load(path)
    pq.write_table(pa.table({"prompt": ["p", "q"], "answer": [1.0, float("nan")]}), path)
    with pytest.raises(InputError, match="my.parquet row 2, column 'answer': nan is not an answer"):
        load(path)


def test_a_labelled_row_without_the_marker(tmp_path):
    rows = '{"prompt": "p", "answer": ""}\n{"prompt": "q", "answer": "#### "}\n'
    assert "line 2, column 'answer': '#### ' holds no answer" in refusal(tmp_path, rows, answer_after="####")
    rows = OK + '{"prompt": "q", "answer": "so 7"}\n'
    expected = "line 1, column 'answer': 'a' does not hold '####' (data.answer_after)"
    assert expected in refusal(tmp_path, rows, answer_after="####")


def test_duplicates_keep_the_first_text_and_any_label(tmp_path):
    rows = [
        {"prompt": "a b"},
        {"prompt": " a\n b", "answer": "18"},
        {"prompt": "a  b", "answer": "18.0"},
        {"prompt": "a b", "answer": None},
        {"prompt": [{"role": "user", "content": "a b"}], "answer": "18"},
        *TEN,
    ]
    loaded = everything(load(jsonl(tmp_path, rows), train=5))
    assert loaded["a b"] == "18" and len(loaded) == 11


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text("abc \n", min_size=1), st.booleans()), min_size=12, max_size=40), st.randoms())
def test_the_order_of_the_rows_changes_nothing(tmp_path_factory, rows, rng):
    rows = [
        {"prompt": f"{n} {text}", "answer": f"A{n}" if known or n < 6 else None} for n, (text, known) in enumerate(rows)
    ]
    shuffled = rng.sample(rows, len(rows))
    folder = tmp_path_factory.mktemp("own")
    counts = {"train": 3, "holdout": 3, "canary": 2}
    one, other = load(jsonl(folder, rows), **counts), load(jsonl(folder, shuffled), **counts)
    assert one == other
    assert all(e.answer is not None for e in one["holdout"] + one["canary"])
    assert len(everything(one)) == 8


def test_more_train_rows_do_not_move_the_measured_ones(tmp_path):
    rows = [{"prompt": f"q{n}", "answer": "a"} for n in range(100)]
    few, many = (load(jsonl(tmp_path, rows), train=train) for train in (5, 90))
    assert few["holdout"] == many["holdout"] and few["canary"] == many["canary"]
    assert few["train"] == many["train"][:5]


def test_membership_does_not_depend_on_the_answers(tmp_path):
    changed = [{**row, "answer": "other"} for row in TEN]
    one, other = load(jsonl(tmp_path, TEN)), load(jsonl(tmp_path, changed))
    assert {k: [e.id for e in v] for k, v in one.items()} == {k: [e.id for e in v] for k, v in other.items()}


def too_few(folder, total, labelled, **counts):
    rows = [{"prompt": f"q{n}", "answer": "a" if n < labelled else ""} for n in range(total)]
    return own.load(Data(file=jsonl(folder, rows), **counts))


@pytest.mark.parametrize(
    "total,labelled", [(3, 2), (4, 4), (10, 3), (100, 100), (100, 20), (600, 600), (831, 2), (900, 300)]
)
def test_too_few_rows_name_counts_that_fit(tmp_path, total, labelled):
    with pytest.raises(InputError) as caught:
        too_few(tmp_path, total, labelled, train=1000)
    message = str(caught.value)
    assert f"{total} different questions ({labelled} labelled, {total - labelled} unlabelled)" in message
    assert "hold-out and canary need 320 labelled ones" in message
    fitting = too_few(tmp_path, total, labelled, **_proposed(message))
    assert {k: len(v) for k, v in fitting.items()} == _proposed(message)


def _proposed(message):
    words = [
        word.removeprefix("data.")
        for word in message.replace(",", "").split()
        if word.startswith("data.") and "=" in word
    ]
    return {key: int(value) for key, value in (word.split("=") for word in words)}


def test_the_proposal_is_a_quarter_a_tenth_and_the_rest(tmp_path):
    with pytest.raises(InputError, match="--set data.holdout=25 --set data.canary=10 --set data.train=65, or add rows"):
        too_few(tmp_path, 100, 100, train=1000)


def test_default_counts_shrink(tmp_path):
    sizes = {k: len(v) for k, v in too_few(tmp_path, 100, 100).items()}
    assert sizes == {"holdout": 25, "canary": 10, "train": 65}
    sizes = {k: len(v) for k, v in too_few(tmp_path, 2000, 70).items()}
    assert sizes == {"holdout": 50, "canary": 20, "train": 512}
    assert {k: len(v) for k, v in too_few(tmp_path, 832, 832).items()} == {"train": 512, "holdout": 256, "canary": 64}


@pytest.mark.parametrize("total,labelled", [(1, 1), (2, 2), (5, 0), (5, 1)])
def test_next_to_nothing_cannot_be_divided(tmp_path, total, labelled):
    with pytest.raises(InputError, match="needs at least 3, 2 of them labelled"):
        too_few(tmp_path, total, labelled)


@pytest.mark.parametrize(
    "gold,text,status,formatted,anyhow",
    [
        ("42", "6*7=42 #42.0", "correct", True, True),
        ("42", "# 42 or 43", "unparsable", False, False),
        ("42", "#１２", "unparsable", False, False),
        ("Paris", "It is #paris.", "correct", True, True),
        ("Paris", "\\boxed{\\text{Paris}}", "correct", True, True),
        ("Paris", "#Paris\nas everyone knows", "correct", False, True),
        ("Paris", "#Paris or Rome", "wrong", True, False),
        ("Paris", "#Rome or Paris", "wrong", True, True),
        ("Paris", "#Paris, Paris", "wrong", True, True),
        ("Paris", "The capital is Paris.\n", "unparsable", False, True),
        ("Paris", "Paris it is", "unparsable", False, False),
        ("Paris", "by Montparis", "unparsable", False, False),
        ("Paris", "#", "unparsable", False, False),
        ("Paris", "Paris #", "unparsable", False, False),
        ("B", "#(B", "wrong", True, True),
        ("C#", "it is #C#", "correct", True, True),
        ("C#", "it is #C", "wrong", True, False),
        ("#ff0000", "##ff0000", "correct", True, True),
        ("a\nb", "#a\nb", "correct", True, True),
        ("a\nb", "#a", "wrong", True, False),
        ("New  York", "# new york", "correct", True, True),
        ("٣", "#٣", "correct", True, True),
        ("٣", "#3", "wrong", True, False),
    ],
)
def test_verdicts(gold, text, status, formatted, anyhow):
    verdict = own.score(Example("x", "q", gold, "own"), text)
    assert (verdict.status, verdict.formatted, verdict.correct_anyhow) == (status, formatted, anyhow)


@pytest.mark.skipif(not GSM8K.exists(), reason=f"{GSM8K.name} is not here")
def test_gsm8k(tmp_path):
    data = Data(file=str(GSM8K), prompt="question", answer_after="####", train=1000, holdout=255, canary=64)
    loaded = own.load(data)
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    golds = everything(loaded)
    assert len(rows) == len(golds) == 1319
    assert golds[rows[0]["question"]] == "18"
    worked = {row["question"]: row["answer"] for row in rows}
    for example in (e for part in loaded.values() for e in part):
        verdict = tasks.score(example, worked[example.question])
        assert verdict.correct and verdict.formatted and verdict.correct_anyhow
        assert not tasks.score(example, worked[example.question] + "1").correct


@pytest.mark.skipif(not KNIGHTS.exists(), reason=f"{KNIGHTS.name} is not here")
def test_public_knights_as_own_data():
    data = Data(file=str(KNIGHTS), prompt="quiz", answer="solution_text_format")
    loaded = tasks.load(data, 0)
    assert {k: len(v) for k, v in loaded.items()} == {"train": 65, "holdout": 25, "canary": 10}
    for example in loaded["holdout"]:
        assert tasks.score(example, f"Thinking.\n#### {example.answer}").correct
        assert (
            not tasks.score(example, f"#### {example.answer.replace('knight', 'knave')}").correct
            or "knight" not in example.answer
        )
