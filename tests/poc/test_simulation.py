"""Simulated processes against other ways of running them: Python itself for programs, NumPy for grids, code of this
file for operations on words; and answers that must not pass."""

import contextlib
import hashlib
import io
import json
import re
from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.records import Example
from poc.tasks import processes, simulation
from poc.tasks.answers import Reading
from poc.tasks.strict_json import canonical

SEEDS = st.integers(0, 10**9)
PINNED = {
    0: "ba6f69bbdb5ae8e1",
    1: "7b6e57fa58578a84",
    2: "096859157f79a112",
    3: "b0c8dcdec592c862",
    4: "d9858e37e0ef8c71",
}
HOSTILE = [
    "", " ", "#", "####", ":", "#:", "Thought process:", "#Thought process:", "\\boxed{}", "<answer></answer>",
    "<answer>",
    "#null", "#true", "#[]", "#{}", '#""', "#0", '#"', "#NaN", "#Infinity", "#-1e999",
    "#" + "9" * 100_000, "#9**9**9",
    "#" + "[" * 100_000, "#" + '{"a":' * 100_000, "\\boxed{" + "{" * 100_000, "1 " * 100_000,
    '#"' + "a" * 200_000 + '"',
    "#__import__('os').system('true')", "#().__class__.__base__.__subclasses__()", "#sys.exit(0)", "#\ud800",
    "#\0", "\u202e#1",
]  # fmt: skip


@cache
def drawn(level: int, count: int = 1000, seed: int = 0) -> list[Example]:
    return [tasks.draw("simulation", seed, index, level)[0] for index in range(count)]


def word_after(question: str, word: str) -> str:
    """The word after the steps in the question's text, by lists and loops."""
    for step in question.partition(": ")[2].split(", "):
        letters, *rest = list(word), *step.split(" ")
        match rest:
            case ["reverse"]:
                letters.reverse()
            case ["rotate", way, "by", n]:
                for _ in range(int(n)):
                    letters.insert(0, letters.pop()) if way == "right" else letters.append(letters.pop(0))
            case ["swap", "first", "and", "last"]:
                letters[0], letters[-1] = letters[-1], letters[0]
            case ["swap", "the", "halves"]:
                half = len(letters) - len(letters) // 2
                letters = letters[half:] + letters[:half]
            case ["drop", "the", end, n]:
                letters = [x for i, x in enumerate(letters if end == "first" else letters[::-1]) if i >= int(n)]
                letters = letters if end == "first" else letters[::-1]
            case ["double", "every", a]:
                letters = [x * (2 if x == a else 1) for x in letters]
            case ["delete", "every", a]:
                letters = [x for x in letters if x != a]
            case ["replace", a, "by", b]:
                letters = [b if x == a else x for x in letters]
            case ["append", a]:
                letters.append(a)
            case ["prepend", a]:
                letters.insert(0, a)
            case ["sort", "the", "letters"]:
                letters.sort()
            case ["keep", "every", "second", "letter"]:
                letters = [x for i, x in enumerate(letters) if i % 2 == 0]
            case ["write", "it", "twice"]:
                letters = letters * 2
            case _:
                raise AssertionError(step)
        word = "".join(letters)
    return word


def printed(program: str) -> str:
    """What one of our own programs prints: they are generated, nobody else wrote them."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {})
    return out.getvalue()


def lived(grid: np.ndarray) -> np.ndarray:
    padded = np.pad(grid, 1)
    rows, columns = grid.shape
    near = sum(padded[a : a + rows, b : b + columns] for a in range(3) for b in range(3)) - grid
    return ((near == 3) | ((grid == 1) & (near == 2))).astype(int)


def fallen(grid: np.ndarray) -> np.ndarray:
    """Between two rocks the sand of a column lies at the bottom."""
    columns = []
    for column in grid.T:
        parts = "".join(map(str, column)).split("2")
        columns.append(list("2".join("".join(sorted(part)) for part in parts)))
    return np.array(columns).T.astype(int)


TURNS = {
    "rotate it a quarter turn clockwise": lambda g: np.rot90(g, -1),
    "rotate it a quarter turn anticlockwise": np.rot90,
    "rotate it by half a turn": lambda g: np.rot90(g, 2),
    "transpose it": np.transpose,
    "mirror it left to right": np.fliplr,
    "turn it upside down": np.flipud,
    "move every row one cell to the right, the last cell to the front": lambda g: np.roll(g, 1, axis=1),
    "swap the first and the last row": lambda g: g[[len(g) - 1, *range(1, len(g) - 1), 0]],
}


def grid_after(question: str) -> list:
    found = re.fullmatch(r"Grid: (.*)\nProcess: (.*)\. What is the grid then\?", question)
    grid, process = np.array(json.loads(found[1])), found[2]
    if process.startswith("two generations of Conway"):
        return lived(lived(grid)).tolist()
    if process.startswith("falling sand"):
        return fallen(grid).tolist()
    for name in process.split(", then "):
        grid = TURNS[name](grid)
    return grid.tolist()


@pytest.mark.parametrize("level", simulation.LEVELS)
def test_a_thousand_items_score_are_reproducible_and_unique(level):
    examples = drawn(level)
    for index, example in enumerate(examples):
        problem = simulation.make(Random(f"simulation/0/{level}/{index}"), level)
        assert len(problem.worked) < simulation.max_new_tokens(level)
        verdict = tasks.score(example, problem.worked)
        assert verdict.correct and verdict.formatted and verdict.correct_anyhow
        assert tasks.read(example, problem.worked) == Reading(problem.answer, True)
        assert example.text.casefold() == example.text or level > 1
        assert problem.answer == problem.answer.lower()
    text = json.dumps([(e.question, e.answer, e.check) for e in examples])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PINNED[level]
    assert len({e.question for e in examples}) >= 980


@pytest.mark.parametrize("level", simulation.LEVELS)
def test_every_split_has_enough_questions(level):
    for split, count in (("train", 512), ("holdout", 256), ("canary", 64)):
        assert len(tasks.generate("simulation", level, split, count, 0)) == count


def test_golds_agree_with_another_way_of_running_the_process():
    for example in drawn(1):
        assert json.loads(example.answer) == word_after(example.text, example.text.split('"')[1])
    for example in drawn(2):
        assert canonical(printed(example.text.partition("\n")[2])) == example.answer
    for example in drawn(3):
        assert json.loads(example.answer) == grid_after(example.text)
    for example in drawn(4):
        assert word_after(example.text, json.loads(example.answer)) == example.text.split('"')[1]


@pytest.mark.parametrize("level", simulation.LEVELS)
def test_the_golds_of_others_pass_only_where_they_are_true(level):
    examples = drawn(level)[:50]
    for example in examples:
        for other in examples:
            right = tasks.score(example, f"#{other.answer}").correct
            if level == 4:
                truth = word_after(example.text, json.loads(other.answer)) == example.text.split('"')[1]
            else:
                truth = json.loads(example.answer) == json.loads(other.answer)
            assert right is truth


@pytest.mark.parametrize("level", simulation.LEVELS)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{ascii(text[:12])}x{len(text)}")
def test_hostile_answers_never_pass(level, text):
    for example in drawn(level)[:5]:
        verdict = tasks.score(example, text)
        assert not verdict.correct and verdict.status in ("wrong", "unparsable")
        tasks.read(example, text)


@pytest.mark.parametrize("level", simulation.LEVELS)
def test_gold_in_a_sentence_several_golds_and_echoes_never_pass(level):
    for example in drawn(level)[:100]:
        gold = example.answer
        for text in (
            gold, f"It is {gold}", f"#It is {gold}", f"#{gold} or {gold}", f"#{gold}, {gold}", f"#{gold} {gold}",
            f"#[{gold}]",
            f"#{gold}.", f"#{gold}]", f"#({gold})", f'#{{"answer": {gold}}}', f"#{gold};", f"#not {gold}",
            f"#{gold} {example.text}",
            f"#{json.dumps(gold)}", f"#{gold}\n#", f"# {gold[:-1]}", f"#{example.text}",
            example.text, f"#{json.dumps(example.text)}",
            f"{simulation.instruction(level)}", f"{simulation.instruction(level)} {example.text}", f"#{gold}+0",
            f"#{gold}#{gold} ",
        ):  # fmt: skip
            verdict = tasks.score(example, text)
            assert not verdict.correct or text == f"#{gold}#{gold} "  # the last mark counts, and it is the gold alone


def test_an_input_is_judged_by_what_it_gives():
    example = Example("x", "q", '"abc"', "simulation", 4, '{"operations": ["delete every d"], "output": "abc"}')
    for text, status in (
        ('#"abc"', "correct"), ('#"adbcdd"', "correct"), ('#"dabc"', "correct"), ('#"acb"', "wrong"),
        ('#"ABC"', "wrong"),
        ('#"abc "', "wrong"), ('#["abc"]', "wrong"), ("#abc", "unparsable"), ('#"abc" "abc"', "unparsable"),
        ('#""', "wrong"),
        (f'#"{"d" * 30}abc"', "wrong"), ('#"\\u0061bc"', "correct"), ("#1", "wrong"), ("#null", "wrong"),
        ('#"аbc"', "wrong"),
    ):  # fmt: skip
        assert simulation.score(example, text).status == status, text


def test_neither_the_output_nor_nothing_is_an_input_that_gives_it():
    for example in drawn(4):
        output = json.loads(example.check)["output"]
        assert tasks.score(example, f'#"{output}"').status == "wrong"
        assert processes.run(json.loads(example.check)["operations"], "")[-1] != output


def test_types_of_json_are_exact():
    for gold, wrong in (
        ("1", ("true", "1.0", '"1"', "[1]")),
        ("true", ("1", '"true"')),
        ('{"a":1}', ('{"a":true}', '{"a":1.0}')),
    ):
        example = Example("x", "q", gold, "simulation", 2)
        assert simulation.score(example, f"#{gold}").correct
        for text in wrong:
            assert simulation.score(example, f"#{text}").status == "wrong"


def test_a_grid_over_several_lines_is_read_and_what_follows_is_not_format():
    example = Example("x", "q", "[[1,2],[3,4]]", "simulation", 3)
    for text in (
        "so\n#[[1, 2],\n  [3, 4]]\n",
        "<answer>\n[[1,2],[3,4]]\n</answer>",
        "\\boxed{[[1, 2], [3, 4]]}",
        "####\n[[1,2],\n[3,4]]",
    ):
        verdict = simulation.score(example, text)
        assert verdict.correct and verdict.formatted
        assert simulation.read("q", text) == Reading("[[1,2],[3,4]]", True)
    assert simulation.score(example, "#[[1,2],[3,4]]\nI am sure.").formatted is False
    assert not simulation.score(example, "#[[1,2],\n[3,4]]\nI am sure.").correct


def test_right_anyhow_is_a_last_line_that_is_the_gold():
    example = Example("x", "q", "[1,2]", "simulation", 2)
    assert simulation.score(example, "it prints\n[1, 2]").correct_anyhow
    assert not simulation.score(example, "it prints [1, 2]").correct_anyhow


def test_a_gold_that_is_no_json_is_the_callers_mistake():
    with pytest.raises(ValueError, match="is not JSON"):
        simulation.score(Example("x", "q", "abc", "simulation"), '#"abc"')


@settings(max_examples=100, deadline=None)
@given(st.text(), SEEDS, st.sampled_from(list(simulation.LEVELS)))
def test_no_text_raises_and_what_is_correct_was_read(text, seed, level):
    example, _ = tasks.draw("simulation", seed, 0, level)
    for answer in (text, f"#{text}", f"\\boxed{{{text}}}"):
        verdict = tasks.score(example, answer)
        assert not verdict.correct or tasks.read(example, answer).answer is not None


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_the_key_forgets_the_names_of_letters_and_nothing_of_programs(seed):
    problem = simulation.make(Random(seed), 1)
    renamed = str.maketrans("abcdefgh", "hgfedcba")
    question = re.sub(r'"[a-h]+"|\b[a-h]\b', lambda found: found[0].translate(renamed), problem.question)
    word, operations = question.partition(": ")[0][3:-1], question.partition(": ")[2]
    assert simulation._renamed(f"{word}: {operations}") == problem.key
    assert simulation.make(Random(seed), 2).key in simulation.make(Random(seed), 2).question


def test_unknown_operations_are_refused():
    with pytest.raises(ValueError, match="is no operation on words"):
        processes.run(["explode"], "abc")


@given(st.lists(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=4, max_size=4), min_size=3, max_size=5))
def test_sand_and_life_on_any_grid(grid):
    assert processes.sand(grid) == fallen(np.array(grid)).tolist()
    alive = [[int(cell == 1) for cell in row] for row in grid]
    assert processes.life(alive) == lived(np.array(alive)).tolist()
