"""Every way in which the user's file can be wrong, and the one line that says so."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poc.config import Data
from poc.records import InputError
from poc.tasks import own


def load(file, **data):
    return own.load(Data(file=str(file), train=1, holdout=2, canary=0, **data))


def refusal(folder, content, name="my.jsonl", **data):
    """The error for a file of this content, with the folder's own path taken out."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        load(path, **data)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    return message.replace(str(path), name)


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
