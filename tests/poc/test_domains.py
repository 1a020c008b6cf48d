"""`poc domains`: the pages, and the exit code of an attack."""

import pytest

from poc import domains, siege, tasks
from poc.records import InputError, Verdict
from poc.redteam import standing
from poc.scoring import pool, sandbox
from poc.siege import Siege

LETTERS = next(example for example in standing() if example.id == "science-letter")


@pytest.fixture
def scorer(monkeypatch):
    """Puts a verifier in place of all the real ones, and few questions in place of all."""

    def put(judge):
        def grade(examples, texts, limit):
            right = [judge(example, text) for example, text in zip(examples, texts, strict=True)]
            return [pool.Grade(None, False, Verdict("correct" if r else "wrong", False, r)) for r in right]

        monkeypatch.setattr(pool, "grade", grade)
        monkeypatch.setattr(domains, "_targets", lambda names: [(name, "0", lambda: [LETTERS]) for name in names])

    return put


def test_every_level_of_every_domain_is_listed(capsys):
    domains.show(None, None, 0)
    lines = capsys.readouterr().out.splitlines()
    for name, module in tasks.DOMAINS.items():
        for level in module.LEVELS:
            row = next(line for line in lines if line.startswith(f"{name} · {level} · "))
            assert module.DESCRIPTIONS[level] in row
            assert row.endswith("· needed" if name == "code" else "· no")
    assert "Right only if every hidden test passes · needed" in next(line for line in lines if line.startswith("code"))


def test_one_domain_alone(capsys):
    domains.show("table", None, 0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" · ")[0] for line in lines[1:-1]] == ["table"] * len(tasks.DOMAINS["table"].LEVELS)


def test_a_level_shows_three_questions_in_full_and_how_many_there_are(capsys):
    domains.show("math", 2, 7)
    said = capsys.readouterr().out
    for index in range(3):
        example, _ = tasks.draw("math", 7, index, 2)
        assert f"Question {index + 1}\n{example.question}\nWorked answer\n" in said
        assert f"#{example.answer}\n" in said
    assert tasks.DOMAINS["math"].instruction(2) in said
    assert "Different questions among 1,000 draws: 536 (53.6%)" in said
    assert "Different questions found in 5,000 draws: 446 train, 171 holdout, 100 canary" in said


def test_drawing_ends_when_every_split_is_large_enough():
    different, splits, draws = domains.reachable("simulation", 1, 0)
    assert different > 900 and 1000 <= draws < 2000
    assert splits["train"] >= 512 and splits["holdout"] >= 256 and splits["canary"] >= 64


def test_what_a_question_holds_cannot_reach_the_terminal(monkeypatch, capsys):
    from poc.tasks.problem import Problem

    evil = Problem("\x1b]0;owned\x07\u202equestion", "1", "\x1b[2J#1", "key")
    monkeypatch.setattr(tasks.DOMAINS["math"], "make", lambda rng, level: evil)
    domains.show("math", None, 0)
    domains.show("math", 0, 0)
    said = capsys.readouterr().out
    assert "\\x1b]0;owned\\x07\\u202equestion" in said and "\\x1b[2J#1" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)


@pytest.mark.parametrize(
    "name,level,words",
    [
        ("maths", None, "unknown 'maths'; did you mean 'math'?"),
        ("\x1b", None, "unknown '\\\\x1b'; valid: math, code"),
        (None, 3, "--level 3: of which domain? One of math, code"),
        ("math", 6, "--level 6: math has levels 0 to 5"),
        ("math", -1, "--level -1: math has levels 0 to 5"),
        ("own", 0, "unknown 'own'"),
    ],
)
def test_wrong_input_is_one_line(name, level, words):
    with pytest.raises(InputError) as caught:
        domains.show(name, level, 0)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_attack_on_an_unknown_domain_is_wrong_input():
    with pytest.raises(InputError, match="unknown 'maht'; did you mean 'math'"):
        domains.attack("maht")


def test_a_good_scorer_gives_0(scorer, capsys):
    scorer(tasks_score)
    assert domains.attack("science") == 0
    said = capsys.readouterr().out
    assert "science · 0 · " in said and said.rstrip().endswith("attacks on 1 questions: all held")


def tasks_score(example, text):
    return tasks.score(example, text).correct


def test_an_attack_that_passes_gives_1_and_is_named_without_its_escapes(scorer, capsys):
    scorer(lambda example, text: tasks_score(example, text) or "\x1b[31m" in text or len(text) >= 200_000)
    assert domains.attack("science") == 1
    said = capsys.readouterr().out
    assert "PASSED: lookalike: colours: #\\x1b[31mB\\x1b[0m" in said
    assert "\x1b" not in said
    losses = [line for line in said.splitlines() if "PASSED" in line]
    assert len(losses) > 20 and max(map(len, losses)) < 250
    assert said.rstrip().endswith("1 questions were not defended")


def test_an_honest_answer_that_is_refused_gives_1(scorer, capsys):
    scorer(lambda example, text: tasks_score(example, text) and "Let me think" not in text)
    assert domains.attack("science") == 1
    assert capsys.readouterr().out.count("HONEST, REFUSED: honest: ") == 3


@pytest.mark.parametrize("what", ["paid", "raised", "effects"])
def test_whatever_else_goes_wrong_gives_1(monkeypatch, scorer, capsys, what):
    found = Siege(LETTERS, 1, [], [], [], [], [(0.1, LETTERS)], [])
    lost = {"paid": [("format", ("echo: x", "y"))], "raised": [("bomb: x", "y")], "effects": ["files changed"]}
    scorer(tasks_score)
    monkeypatch.setattr(siege, "besiege", lambda example: found._replace(**{what: lost[what]}))
    assert domains.attack("science") == 1
    assert {"paid": "PAID by format: echo: x: y", "raised": "RAISED: bomb: x", "effects": "files changed"}[
        what
    ] in capsys.readouterr().out


def test_a_late_verdict_is_shown_but_a_busy_machine_is_no_failure(monkeypatch, scorer, capsys):
    scorer(tasks_score)
    slow = Siege(LETTERS, 2, [], [], [], [], [(2.4, LETTERS), (0.2, LETTERS)], [])
    monkeypatch.setattr(siege, "besiege", lambda example: slow)
    assert domains.attack("science") == 0
    assert "2.40 s LATE · 1300.0 ms" in capsys.readouterr().out


def test_without_a_sandbox_code_is_skipped_for_all_to_see(monkeypatch, scorer, capsys):
    scorer(tasks_score)
    monkeypatch.setattr(sandbox, "level", lambda: "none")
    assert domains.attack("code") == 0
    said = capsys.readouterr().out
    assert f"SKIPPED: no sandbox on this machine: {sandbox.INSTALL}" in said and "0 attacks on 0 questions" in said


def test_every_domain_and_the_users_own_are_attacked():
    targets = [(name, level) for name, level, _ in domains._targets([*tasks.DOMAINS, "own"])]
    assert {name for name, _ in targets} == {*tasks.DOMAINS, "own"}
    assert len(targets) == sum(len(module.LEVELS) for module in tasks.DOMAINS.values()) + 3
    assert {name for name, level in targets if level == "file"} == {"math", "science", "own"}
