"""Equations and word problems against code of this file that reads the text; LaTeX golds; rows of GSM8K and MATH."""

import builtins
import hashlib
import json
import re
from datetime import date, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.records import Example, InputError
from poc.tasks import math, words
from poc.tasks.answers import Reading

GSM8K = Path(__file__).parents[3] / "shared" / "data"
PINNED = {
    0: "6d66d1cb9ca538bc",
    1: "7ba3b1adf04fac83",
    2: "c20b95ab654ab31b",
    3: "8a35ea50ffb81751",
    4: "2f8709dfa0a6f79a",
    5: "c14dc9e42ecdf824",
}  # of reasoning_gym 0.1.25
LEGS = {
    2: "chicken bird human duck", 4: "dog cat cow horse lion elephant giraffe tiger deer sheep", 8: "spider",
    0: "snake",
    6: "insect ant butterfly beetle bee wasp grasshopper cricket cockroach firefly mantis",
}  # fmt: skip
SPELLINGS = ("42", "042", "42.0", "+42", "$42", "42.")
F = Fraction
STORIES = {  # a piece of the text -> the answer from the numbers in it, in their order
    "peel and saute": lambda peel, batch, time, total: F(total, peel) + F(total, batch) * time,
    "bouncy balls": lambda a, b, c, total: total - a - b - c,
    "spend every afternoon": lambda weeks, one, other, left, goal: goal - one - other,
    "potted plant": lambda got, each, ledges, away: got + each * ledges - away * ledges,
    "in the ratio of": lambda sugar, water, total: F(sugar * total, sugar + water),
    "How much money does": lambda n, bill, a, x, b, y: n * bill - a * x - b * y,
    "years old. In": lambda age, years, times: age * times - years,
    "combined total of": lambda times, first, bought, fewer, again: first * (1 + times) + bought + again - fewer,
    "playing these games": lambda one, other, n, m: one * n + other * m,
    "times as many friends on": lambda one, other, friends: F(friends, one) * other,
    "won't": lambda each, total, n: total - each * n,
    "cash register": lambda times, base: base * (times + 1) * 7,
    "twins each found": lambda hidden, each, not_found: hidden - 2 * each - not_found,
}


@cache
def drawn(level: int) -> list[tuple[Example, str]]:
    if level >= 4:
        pytest.importorskip("reasoning_gym")
    return [tasks.draw("math", 0, index, level) for index in range(1000)]


def solved(question: str) -> Fraction:
    """a*x + b = c from the words of the question."""
    left, right = re.search(r"([-+*0-9a-z ]+) = (-?\d+)\. Give", question.split(": ")[-1]).groups()
    slope = constant = 0
    for term in re.findall(r"[-+]?[0-9a-z*]+", left.replace(" ", "")):
        if term[-1].isalpha():
            slope += int({"": 1, "+": 1, "-": -1}.get(term[:-1].rstrip("*"), term[:-1].rstrip("*")))
        else:
            constant += int(term)
    return Fraction(int(right) - constant, slope)


def counted(question: str) -> int:
    """Days from the first to the last date of the question that are of the asked weekday, or working days."""
    months = "January February March April May June July August September October November December".split()
    dates = re.findall(rf"({'|'.join(months)}) (\d+)", question)
    first, last = (date(2022, months.index(month) + 1, int(day)) for month, day in dates)
    names = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
    asked = re.findall(rf"({'|'.join(names)})s? (?:are there|occurs?|does|fall|from|between|in|do )", question)
    occurring = re.search(rf"does ({'|'.join(names)}) occur", question)
    days = [first + timedelta(i) for i in range((last - first).days + 1)]
    if "business" in question or "weekdays" in question:
        return sum(day.weekday() < 5 for day in days)
    return sum(names[day.weekday()] == (occurring[1] if occurring else asked[0]) for day in days)


def told(question: str) -> Fraction | int:
    """The answer to a word problem, from its text."""
    numbers = [int(x) for x in re.findall(r"[0-9]+", question)]
    if question.startswith("How many legs"):
        each = {name + s: legs for legs, names in LEGS.items() for name in names.split() for s in ("", "s")}
        return sum(int(n) * each[name.split(" ")[-1]] for n, name in re.findall(r"(\d+) ([a-z ]+)[,?]", question))
    rules = [rule for piece, rule in STORIES.items() if piece in question]
    return rules[0](*numbers) if rules else counted(question)


@pytest.mark.parametrize("level", math.LEVELS)
def test_a_thousand_items_score_are_reproducible_and_unique(level):
    for index, (example, _) in enumerate(drawn(level)):
        problem = math.make(Random(f"math/0/{level}/{index}"), level)
        assert len(problem.worked) < math.max_new_tokens(level)
        verdict = tasks.score(example, problem.worked)
        assert verdict.correct and verdict.formatted and verdict.correct_anyhow and not math.OWN_PROCESS(example)
        assert tasks.read(example, problem.worked) == Reading(problem.answer, True)
    version = __import__("importlib.metadata").metadata.version("reasoning-gym") if level >= 4 else "0.1.25"
    text = json.dumps([(e.question, e.answer) for e, _ in drawn(level)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PINNED[level] or version != "0.1.25"
    floor = {0: 0.92, 2: 0.5}.get(level, 0.98)  # two digits times one: there are 720 such products
    assert len({e.question for e, _ in drawn(level)}) >= floor * 1000


@pytest.mark.parametrize("level", [0, 1, 3, 4, 5])
def test_every_split_has_enough_questions(level):
    drawn(level)
    for split, count in (("train", 512), ("holdout", 256), ("canary", 64)):
        assert len(tasks.generate("math", level, split, count, 0)) == count


def test_equations_and_stories_have_the_answer_that_their_text_asks_for():
    for example, _ in drawn(4):
        assert solved(example.text) == int(example.answer)
    for example, _ in drawn(5):
        assert told(example.text) == int(example.answer), example.text


def test_word_problems_are_of_many_families_and_end_in_the_words_by_which_they_are_told():
    pieces = {piece for example, _ in drawn(5) for piece in STORIES if piece in example.text}
    assert pieces == set(STORIES)
    assert {key.split(" ")[0] for _, key in drawn(5)} > {"story", "days"}
    assert all(example.text.endswith(words.ENDING) for level in (4, 5) for example, _ in drawn(level))


@pytest.mark.parametrize("level", math.LEVELS)
def test_the_golds_of_others_pass_only_where_they_are_equal(level):
    examples = [example for example, _ in drawn(level)[:50]]
    for example in examples:
        for other in examples:
            assert tasks.score(example, f"#{other.answer}").correct is (int(other.answer) == int(example.answer))


@pytest.mark.parametrize("level", [4, 5])
def test_hostile_answers_never_pass_and_are_not_read(level):
    for example, _ in drawn(level)[:40]:
        gold = example.answer
        for text in (
            "", "#", ":", "#:", "Thought process:", gold, f"it is {gold}", f"#it is {gold}",
            f"#{gold} or {int(gold) + 1}",
            f"#{gold}, {gold}", f"#x = {gold}", f"#{gold} units", f"#{gold}+0", f"#{gold}e0", f"#{gold}**1",
            f"#({gold})",
            f"#{gold}#", f"#{gold}{'0' * 100}", example.text, f"#{example.text}",
            "#" + " ".join(map(str, range(2000))),
            f"#__import__('os')._exit({gold})", "#9**9**9**9", "#" + "9" * 200_000, f"#{gold}/1",
            f"#\\frac{{{gold}}}{{1}}",
            f"#{''.join(chr(ord(c) + 0xFEE0) for c in gold)}", "#sys.exit(0)", "\\boxed{" * 4_000, f"#[{gold}]",
            "#\ud800\0",
        ):  # fmt: skip
            assert not tasks.score(example, text).correct, text
            assert tasks.read(example, text).answer is None or tasks.read(example, text).answer != gold


def test_an_equation_that_lost_its_letter_or_has_another_solution_is_drawn_again(monkeypatch):
    facts = [("0 = 0", "17"), ("5 = 5", "3"), ("2*e + 1 = 7", "4"), ("2*e + 1 = 7", "3")]
    items = iter([{"question": "Solve", "answer": a, "metadata": {"equation": e}} for e, a in facts])
    monkeypatch.setattr(words, "_item", lambda name, rng: next(items))
    assert words.equation(Random(0)).worked == "2*e = 7 - 1 = 6, e = 3 #3"
    assert next(items, None) is None


def test_keys_forget_names_and_nothing_else():
    assert len({key for _, key in drawn(4)}) >= 990
    by_key: dict[str, set[str]] = {}
    for example, key in drawn(5):
        by_key.setdefault(key, set()).add(example.answer)
    assert all(len(golds) == 1 for golds in by_key.values())
    equation = next(e.text for e, _ in drawn(4) if "Solve for" in e.text)
    assert words.equation.__doc__ and equation.endswith(words.ENDING)


def test_without_reasoning_gym_the_way_out_is_said_and_sums_go_on(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **options):
        if name.startswith("reasoning_gym"):
            raise ImportError(name)
        return real(name, *args, **options)

    for cached in (words._gym, words._stories, words._legs_of):
        cached.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    for level in (4, 5):
        with pytest.raises(InputError, match="pip install reasoning-gym"):
            math.make(Random(0), level)
    assert math.make(Random(0), 0).question.endswith("=?")
    monkeypatch.undo()
    words._gym.cache_clear()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([4, 5]))
def test_drawing_again_gives_the_same(seed, level):
    pytest.importorskip("reasoning_gym")
    assert math.make(Random(seed), level) == math.make(Random(seed), level)


@pytest.mark.parametrize("gold", SPELLINGS)
@pytest.mark.parametrize("said", SPELLINGS)
def test_plain_numbers_are_compared_exactly_without_a_process(gold, said):
    example = Example("x", "q", gold, "math")
    assert not math.OWN_PROCESS(example)
    assert math.score(example, f"#{said}").correct and not math.score(example, "#42.0000001").correct


LATEX = [
    (r"\frac{1}{2}", "right", ["\\frac{1}{2}", "1/2", "0.5", "\\dfrac12", "x=1/2", "\\frac{2}{4}",
    "\\left(\\frac{1}{2}\\right)"]),
    (r"\frac{1}{2}", "wrong", [
        "1/3", "2", "-1/2", "1/2, 1/3", "1/3=1/2", "1/2=1/3", "x=1/3=1/2", "1/2 or 1/3", "1/2;1/3",
        "\\frac12\\cup\\frac13",
        "1/2 \\ne 3", "x>1/2", "not 1/2", "the answer is 1/2", "0.49", "0.51", "1/2 = 1/3 = 1/2", "x=y=1/2",
        "1/2\\text{ or }1/3",
        "\\int_0^1 x dx", "9**9**9", "__import__('os')", "(1).__class__", "sys.exit(0)", "1/2" * 100, "1 2",
        "\\frac{1}{2", "½½",
    ]),
    ("(1,2)", "right", ["(1,2)", "(1, 2)", "\\left(1,2\\right)"]),
    ("(1,2)", "wrong", ["(2,1)", "1,2", "\\{1,2\\}", "[1,2]", "(1,2),(2,1)", "(1,2,3)", "12"]),
    ("2\\sqrt{3}", "right", ["2\\sqrt{3}", "\\sqrt{12}", "\\sqrt{3}*2"]),
    ("2\\sqrt{3}", "wrong", ["3.46", "2\\sqrt{2}", "\\pm 2\\sqrt{3}", "2", "3"]),
    ("x^2+1", "right", ["x^2+1", "1+x^2"]),
    ("x^2+1", "wrong", ["x^2", "y^2+1", "x^2+1, x", "x^2+1=0"]),
    ("Evelyn", "right", ["Evelyn", "\\text{Evelyn}", "evelyn."]),
    ("Evelyn", "wrong", ["Carla", "Evelyn or Carla", "not Evelyn", "Evelyn, Carla", "Еvelyn"]),
]  # fmt: skip


@pytest.mark.parametrize(
    "gold,status,answer", [(g, s, a) for g, s, answers in LATEX for a in answers], ids=lambda x: ascii(x)[:20]
)
def test_latex_golds(gold, status, answer):
    example = Example("x", "q", gold, "math")
    assert math.OWN_PROCESS(example)
    verdict = math.score(example, f"so \\boxed{{{answer}}}" if answer.count("{") == answer.count("}") else f"#{answer}")
    assert verdict.status == {"right": "correct"}.get(status, "wrong") or (status == "wrong" and not verdict.correct)
    assert math.read("q", f"#{answer}").answer is not None
    assert not math.score(example, f"it is {answer}").correct


@pytest.mark.parametrize(
    "text", ["", "#", ":", "#:", "Thought process:", "\\boxed{}", "\\boxed{\\quad}", "#...", "#\\text{}", "# $ $"]
)
def test_what_says_nothing_is_unparsable(text):
    assert math.score(Example("x", "q", "\\frac{1}{2}", "math"), text).status == "unparsable"
    assert math.read("q", text).answer is None


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_no_text_raises_and_what_is_correct_was_read(text):
    example = Example("x", "q", "\\frac{1}{2}", "math")
    verdict = math.score(example, f"#{text}")
    assert not verdict.correct or math.read("q", f"#{text}").answer is not None


def test_what_is_read_depends_on_the_question_alone():
    assert math.read("6*7=?", "#forty-two").answer is None
    assert math.read(f"Solve it.{words.ENDING}", "#apples").answer is None
    assert math.read("What is half?", "#\\frac{1}{2}") == Reading("\\frac{1}{2}", True)
    assert math.read("What is half?", "#0.50") == Reading("0.5", True)


def test_rows_of_gsm8k():
    problem = math.gsm8k({"question": " How many? ", "answer": "2*3=<<2*3=6>>6 pens\n#### 1,006"})
    assert (problem.question, problem.answer, problem.worked) == ("How many?", "1006", "2*3=6 pens #1006")
    assert math.score(Example("x", problem.question, problem.answer, "math"), problem.worked).formatted
    assert math.gsm8k({"question": "HOW  many?", "answer": "#### 2"}).key == problem.key
    for row in ({}, {"question": "q"}, {"question": "q", "answer": "no mark"}, {"question": "q",
    "answer": "#### six"},
                {"question": 3, "answer": "#### 6"}, {"question": " ", "answer": "#### 6"}):  # fmt: skip
        with pytest.raises(InputError, match="^column '(question|answer)': .*(write it|correct the row)"):
            math.gsm8k(row)


@pytest.mark.skipif(not (GSM8K / "gsm8k_test.jsonl").exists(), reason="gsm8k_test.jsonl is not here")
def test_real_rows_of_gsm8k():
    rows = [json.loads(line) for line in (GSM8K / "gsm8k_test.jsonl").read_text().splitlines()]
    problems = [math.gsm8k(row) for row in rows]
    assert len(problems) == 1319 and len({problem.key for problem in problems}) == 1319
    for row, problem in zip(rows, problems, strict=True):
        example = Example("x", problem.question, problem.answer, "math")
        assert math.score(example, row["answer"]).correct and math.score(example, problem.worked).formatted
        assert math.read(problem.question, problem.worked) == Reading(problem.answer, True)
        assert "<<" not in problem.worked


@pytest.mark.parametrize(
    "solution,gold",
    [
        ("Thus $\\boxed{\\frac{1}{\\sqrt{2}}}$.", "\\frac{1}{\\sqrt{2}}"), ("\\boxed{3} is no, so $\\boxed{4}$", "4"),
        ("\\boxed{\\text{Evelyn}}", "Evelyn"), ("we get $\\boxed{\\left\\{1, \\frac{1}{2}\\right\\}}$",
        "\\left\\{1, \\frac{1}{2}\\right\\}"),
        ("$x = \\boxed{10}$ and so on", "10"), ("\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}",
        "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    ],
)  # fmt: skip
def test_rows_of_math(solution, gold):
    problem = math.competition({"problem": "What is it?", "solution": solution, "level": "Level 5"})
    assert (problem.answer, problem.key) == (gold, "what is it?")
    example = Example("x", problem.question, problem.answer, "math")
    assert math.score(example, problem.worked).correct
    assert math.read(problem.question, problem.worked) == Reading(gold, True)
    assert math.competition({"problem": "What is it?", "answer": gold}).answer == gold


def test_rows_of_math_that_say_too_little():
    for row in ({}, {"problem": "p"}, {"problem": "p", "solution": "no box"}, {"problem": "p",
    "solution": "\\boxed{}"},
                {"problem": "p", "solution": "\\boxed{1"}, {"problem": "p",
                "answer": 3}, {"solution": "\\boxed{1}"}):  # fmt: skip
        with pytest.raises(InputError, match="^column '(problem|solution|answer)': "):
            math.competition(row)


@pytest.mark.parametrize(
    "gold, answer, right",
    [
        (r"\frac{1}{10^{8}}", "0.0", False),
        (r"\frac{1}{10^{8}}", "-0.00000001", False),
        (r"\frac{1}{10^{8}}", "10^{-8}", True),
        (r"\frac{1}{10^{8}}", "0.00000001", True),
        (r"\frac{1}{3}", "0.333333", True),
        (r"\sqrt{2}-\sqrt{2}+x-x", "0", True),
        (r"\frac{1}{2}", r"\frac{1}{2}\text{ is wrong}", False),
        (r"\frac{1}{2}", r"\frac{1}{2}\text{ or not}", False),
        (r"\frac{1}{2}", r"\frac{1}{2}\text{ not}", False),
        (r"\frac{1}{2}", r"\frac{1}{2}\text{ cm}", True),
        (r"\frac{1}{2}", r"\frac{1}{2}\text{ square units}", True),
        (r"\frac{1}{2}", r"\frac{1}{2}\text{ miles per hour}", True),
    ],
)
def test_tiny_golds_and_words_after_a_formula(gold, answer, right):
    example = Example("m", "What is it?", gold, "math")
    assert tasks.score(example, rf"\boxed{{{answer}}}").correct is right
