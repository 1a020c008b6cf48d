"""The difficulty filter: the rule by hand, the cache after a kill, and the whole on the toy models."""

import json

import pytest

from poc import difficulty, difficulty_cache, pilot, tasks
from poc.config import Data, Prompt, RunConfig
from poc.difficulty import decide
from poc.difficulty_page import lines
from poc.records import Episode, Example, Group, InputError, Verdict
from poc.tasks import dropped, own

BOTH, GAP = "nearly solved", "gap too small"
HARD, ODD, EASY = "noisy or too hard", "suspicious label", "too easy"
RULES = [  # weak, strong, n: any domain, math, science; by hand from the paper's 15/16, 6/16, .75, .5
    (16, 16, 16, EASY, EASY, EASY),
    (15, 16, 16, EASY, EASY, EASY),
    (15, 0, 16, EASY, EASY, EASY),
    (14, 16, 16, None, BOTH, GAP),
    (14, 13, 16, ODD, ODD, ODD),
    (1, 0, 16, HARD, HARD, HARD),
    (0, 0, 16, HARD, HARD, HARD),
    (0, 1, 16, None, None, GAP),
    (0, 7, 16, None, None, GAP),
    (0, 8, 16, None, None, None),
    (4, 11, 16, None, None, GAP),
    (5, 11, 16, None, None, GAP),
    (6, 12, 16, None, BOTH, GAP),
    (5, 12, 16, None, None, GAP),
    (4, 12, 16, None, None, None),
    (12, 12, 16, None, BOTH, GAP),
    (11, 11, 16, None, None, GAP),
    (10, 16, 16, None, BOTH, GAP),
    (9, 16, 16, None, None, GAP),
    (8, 16, 16, None, None, None),
    (4, 4, 4, EASY, EASY, EASY),  # 15/16 of 4 is 3.75
    (3, 4, 4, None, BOTH, GAP),
    (2, 4, 4, None, None, None),  # a gap of 2 is over 1.5 and not under 2
    (2, 3, 4, None, BOTH, GAP),
    (1, 2, 4, None, None, GAP),
    (30, 32, 32, EASY, EASY, EASY),
    (29, 32, 32, None, BOTH, GAP),
    (19, 32, 32, None, None, GAP),
    (20, 32, 32, None, BOTH, GAP),
    (12, 23, 32, None, None, GAP),
    (12, 24, 32, None, BOTH, GAP),
    (9, 10, 10, None, BOTH, GAP),  # 15/16 of 10 is 9.375
    (10, 10, 10, EASY, EASY, EASY),
    (4, 8, 10, None, None, GAP),  # a gap of 4 is over 3.75
    (5, 8, 10, None, BOTH, GAP),
    (0, 5, 10, None, None, None),
]


@pytest.mark.parametrize("weak,strong,n,plain,math,science", RULES)
def test_the_rule_by_hand(weak, strong, n, plain, math, science):
    for domain in ("code", "logic", "simulation", "table", "own"):
        assert decide(domain, weak, strong, n) == plain
    assert decide("math", weak, strong, n) == math
    assert decide("science", weak, strong, n) == science


@pytest.mark.parametrize(
    "agree,n,reason",
    [(16, 16, EASY), (15, 16, EASY), (14, 16, None), (2, 16, None), (1, 16, "noisy"), (0, 16, "noisy"), (3, 4, None)],
)
def test_the_rule_without_labels(agree, n, reason):
    assert {decide(domain, agree, None, n) for domain in ("math", "science", "own")} == {reason}


def group(*answers, statuses=()):
    verdicts = [Verdict(status, True, False) for status in statuses] or [None] * len(answers)
    episodes = tuple(
        Episode((1,), "", True, (0.0,), (0.0,), (0.0,), verdict, answer, True)
        for answer, verdict in zip(answers, verdicts, strict=True)
    )
    return Group(Example("x", "q", "1", "math"), (1,), episodes)


def test_counts_by_hand():
    from poc.rewards.meanings import exact

    agreeing = difficulty._agreeing(exact)
    assert agreeing(group("7", "7.0", "8", None)) == (2, 0)
    assert agreeing(group("7", "8", None, None)) == (1, 0)
    assert agreeing(group(None, None)) == (0, 0)
    statuses = ("correct", "wrong", "unparsable", "timeout", "error", "correct")
    assert difficulty._right(group(*"abcdef", statuses=statuses)) == (2, 1)


def config(**data):
    return pilot.resolve(RunConfig(data=Data(**{"train": 40, "holdout": 4, "canary": 0, **data})))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run with both toys: its folder and summary."""
    out = tmp_path_factory.mktemp("filter") / "whole"
    return out, difficulty.run(config(), "lab:instruct", 4, out)


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_the_toys_end_to_end(whole):
    out, summary = whole
    kept, left = rows(out, "kept.jsonl"), rows(out, "dropped.jsonl")
    questions = {e.id: e for e in tasks.load(config().data, 0)["train"]}
    assert len(kept) == summary["kept"] > 0 and len(left) == sum(summary["dropped"].values()) > 0
    assert {row["id"] for row in kept + left} == questions.keys() and summary["questions"] == 40
    for row in kept + left:
        assert row["reason"] == decide("math", row["weak"], row["strong"], 4)
        assert row["question"] == questions[row["id"]].question and row["hash"] == own.digest(row["question"])
    weak, strong = (sum(row[side] for row in kept + left) / 160 for side in ("weak", "strong"))
    assert 0.2 < weak < 0.7 < strong < 1  # LOG.md: 43 % and 88 %
    assert json.loads((out / "summary.json").read_text()) == summary
    assert lines(summary)[0].startswith(f"math level 0: 40 questions, {len(kept)} kept ({len(kept) / 40:.0%}), dropped")


def no_sampling(monkeypatch):
    monkeypatch.setattr(difficulty, "_ask", lambda *_: pytest.fail("asked again"))


def test_a_second_run_asks_nothing(whole, monkeypatch):
    before = files(whole[0])
    no_sampling(monkeypatch)
    assert difficulty.run(config(), "lab:instruct", 4, whole[0]) == whole[1]
    assert files(whole[0]) == before


@pytest.mark.parametrize("share", [0.0, 0.37, 0.5, 0.99])
def test_a_kill_at_any_byte_changes_nothing_in_the_end(whole, tmp_path, share):
    """Everything after a byte of the weak counts is lost, as if the machine had stopped there."""
    content = (whole[0] / "counts-weak.jsonl").read_bytes()
    (tmp_path / "counts-weak.jsonl").write_bytes(content[: int(share * len(content))])
    difficulty.run(config(), "lab:instruct", 4, tmp_path)
    assert files(tmp_path) == files(whole[0])


def test_ctrl_c_keeps_what_was_counted(whole, tmp_path, monkeypatch, capsys):
    sample, calls = difficulty._sample, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(*args)

    monkeypatch.setattr(difficulty, "_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        difficulty.run(config(), "lab:instruct", 4, tmp_path)
    assert "stopped: 32 of 80 questions were counted and kept" in capsys.readouterr().out
    assert len(difficulty_cache.read(tmp_path / "counts-weak.jsonl")) == 32
    monkeypatch.setattr(difficulty, "_sample", sample)
    difficulty.run(config(), "lab:instruct", 4, tmp_path)
    assert files(tmp_path) == files(whole[0])


def test_what_changed_is_asked_and_nothing_else(whole, monkeypatch):
    asked = []
    monkeypatch.setattr(difficulty, "_ask", lambda side, missing, *_: asked.append((side.name, len(missing))))
    monkeypatch.setattr(difficulty, "_write", lambda *_: {})
    monkeypatch.setattr(difficulty, "show", lambda *_: None)

    def missing(changed, strong="lab:instruct", samples=4):
        asked.clear()
        difficulty.run(changed, strong, samples, whole[0])
        return dict(asked)

    assert missing(config()) == {}
    assert missing(config(train=50)) == {"weak": 10, "strong": 10}
    assert missing(config(), samples=8) == {"weak": 40, "strong": 40}
    assert missing(config(), strong="mix:lab:base+lab:instruct@0.5") == {"strong": 40}
    assert missing(config(), strong=None) == {"weak": 40}
    plain = config().model_copy(update={"prompt": Prompt(format="plain", instruction="Think.")})
    assert missing(plain) == {"weak": 40, "strong": 40}
    longer = config().model_copy(update={"train": config().train.model_copy(update={"max_new_tokens": 33})})
    assert missing(longer) == {"weak": 40, "strong": 40}


def test_another_gold_is_another_count_unless_no_label_is_looked_at():
    one, other = Example("x", "q", "1", "math"), Example("x", "q", "2", "math")
    tested = Example("x", "q", "1", "math", check="tests")
    for judged, different in (("verdict", 3), (["math", None], 1)):
        keys = {difficulty._key(example, config(), "f", 4, judged) for example in (one, other, tested)}
        assert len(keys) == different


def test_without_a_strong_model_no_label_is_seen(tmp_path, monkeypatch):
    sampled = []
    inner = difficulty._sample
    monkeypatch.setattr(difficulty, "_sample", lambda *args: sampled.extend(g := inner(*args)) or g)
    summary = difficulty.run(config(train=20), None, 4, tmp_path)
    assert all(g.example.answer is None and e.verdict is None for g in sampled for e in g.episodes)
    assert summary["models"].keys() == {"weak"} and summary["dropped"].keys() <= {"too easy", "noisy"}
    found = [row for name in ("kept.jsonl", "dropped.jsonl") for row in rows(tmp_path, name)]
    assert all(row["strong"] is None and row["answer"] for row in found) and len(found) == 20


def test_a_verifier_that_fails_is_no_wrong_answer():
    row = difficulty._row(Example("x", "q", "1", "math"), [{"count": 0, "errors": 1}, {"count": 0, "errors": 0}], 4)
    assert row["reason"] == "not judged"


def test_wrong_input_is_one_line(tmp_path, whole):
    with pytest.raises(InputError, match="samples = 1: a share needs 2 to 1024"):
        difficulty.run(config(), None, 1, tmp_path)
    with pytest.raises(InputError, match="the strong model lab:base is the start model"):
        difficulty.run(config(), "lab:base", 4, tmp_path)
    with pytest.raises(InputError, match="unknown 'lab:bse'"):
        difficulty.run(config(), "lab:bse", 4, tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and holds something else"):
        difficulty.run(config(), None, 4, tmp_path)
    file = tmp_path / "my.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"q{i}", "answer": "a" if i < 4 else None}) + "\n" for i in range(9)))
    unlabelled = config(file=str(file), train=5, holdout=2, canary=2)
    with pytest.raises(InputError, match="5 of 5 training questions have no answer: label them"):
        difficulty.run(unlabelled, "lab:instruct", 4, tmp_path / "out")


def test_what_was_kept_can_be_trained_on_and_what_was_dropped_left_out(whole):
    out, summary = whole
    loaded = tasks.load(Data(file=str(out / "kept.jsonl"), format="kit"), 0)
    assert {e.id for part in loaded.values() for e in part} == {row["id"] for row in rows(out, "kept.jsonl")}
    train = tasks.load(config().data, 0)["train"]
    kept, note = dropped.leave_out(train, str(out / "dropped.jsonl"))
    assert [e.id for e in kept] == [row["id"] for row in rows(out, "kept.jsonl")]
    assert note["left_out"] == note["named"] == 40 - summary["kept"]


def test_a_file_of_dropped_questions_must_fit(whole, tmp_path):
    train = tasks.load(config().data, 0)["train"]
    file = tmp_path / "dropped.jsonl"

    def refusal(text, match):
        file.write_text(text)
        with pytest.raises(InputError, match=match) as caught:
            dropped.leave_out(train, str(file))
        assert "\n" not in str(caught.value)

    def lines(*hashes):
        return "".join(json.dumps({"hash": digest, "reason": "too easy"}) + "\n" for digest in hashes)

    refusal(lines("0"), "names none of the 40 training questions")
    refusal(lines(*(own.digest(e.question) for e in train)), "names all of the 40")
    refusal(lines("0") + '{"id": "x"}\n', 'line 2: \'{"id": "x"}\' has no hash of a question')
    refusal("[" * 100_000, "line 1: .* has no hash")
    with pytest.raises(InputError, match="cannot be read"):
        dropped.leave_out(train, str(tmp_path / "none.jsonl"))
    messages = [Example("c", ({"role": "user", "content": " 1 +\n1"},), "2", "own"), *train]
    file.write_text(lines(own.digest("1 + 1")))
    assert dropped.leave_out(messages, str(file))[0] == train
