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


def test_the_same_rows_from_every_format(tmp_path):
    texts = [f'Is "{n}, {n}"\neven?  é' for n in range(10)]
    rows = [{"id": n, "prompt": text, "answer": n} for n, text in enumerate(texts)]
    with open(tmp_path / "my.CSV", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["prompt", "id", "answer"])
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


def test_a_short_csv_row_is_unlabelled(tmp_path):
    (tmp_path / "my.csv").write_text("prompt,answer\nq\n" + "".join(f"p{n},{n}\n" for n in range(10)))
    assert everything(load(tmp_path / "my.csv", train=5))["q"] is None


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


def test_training_questions_that_copy_a_measured_one_are_left_out_and_told(tmp_path):
    rows = [{"prompt": f"Name the {n}th letter of the row, please", "answer": "a"} for n in range(30)]
    whole = load(jsonl(tmp_path, rows), train=20, holdout=5, canary=5)
    measured = [e.question for e in whole["holdout"] + whole["canary"]]
    added = [{"prompt": question.upper()} for question in measured[:4]]  # unlabelled, so they can only be trained on
    splits, notes = own.load_with_notes(Data(file=jsonl(tmp_path, rows + added), train=24, holdout=5, canary=5))
    assert splits["holdout"] == whole["holdout"] and splits["canary"] == whole["canary"]
    assert sorted(e.id for e in splits["train"]) == sorted(e.id for e in whole["train"])
    leaks = notes["leaks"]
    assert leaks["left_out"] == leaks["exact"] == 4 and leaks["copies_within_train"] == 0
    ids = {e.id for part in whole.values() for e in part}
    assert len(leaks["examples"]) == 3 and all(
        train not in ids and other in ids for train, other, _ in leaks["examples"]
    )


def test_a_leak_makes_room_for_the_next_question(tmp_path):
    rows = [{"prompt": f"Name the {n}th letter of the row, please", "answer": "a"} for n in range(30)]
    added = [{"prompt": row["prompt"].upper()} for row in rows]
    splits, notes = own.load_with_notes(Data(file=jsonl(tmp_path, rows + added), train=20, holdout=5, canary=5))
    assert len(splits["train"]) == 20 and notes["leaks"]["left_out"] > 0
    measured = {e.question.upper() for e in splits["holdout"] + splits["canary"]}
    assert not measured & {e.question.upper() for e in splits["train"]}


def test_only_copies_to_train_on_is_an_error(tmp_path):
    rows = [{"prompt": "who is it", "answer": "a"}, {"prompt": "Who is it?", "answer": "a"}, {"prompt": "WHO is it"}]
    with pytest.raises(InputError, match="every question that is left for training copies a measured one"):
        load(jsonl(tmp_path, rows), train=1, holdout=2, canary=0)
