"""Equations and word problems by reasoning_gym's generators; its scorers are never called.

Only items whose gold we can vouch for are used. Of the simple equations those that have lost their variable ("0 = 0",
about one in a thousand) are drawn again. Of the 85 story templates the 13 of STORIES: in others divisions are cut off
(104/16=6), shares exceed the whole, or the wording allows two answers. Counts of weekdays are kept where our own count
agrees and both dates are of the year that is named: a span into the next year is told as if it were of one. The
animals are those whose legs nobody disputes.

A key is the template and its numbers: equal for problems that differ in names only.
"""

import re
from datetime import date, timedelta
from functools import cache
from random import Random

from poc.records import InputError
from poc.tasks.answers import parse_number, spell
from poc.tasks.problem import Problem

ENDING = " Give the number alone."  # of every question
STORIES = (0, 1, 5, 7, 8, 9, 10, 11, 12, 16, 20, 33, 34)
DISPUTED = (
    "starfish", "woodlouse", "leech", "flatworm", "sea slug", "jellyfish", "crab", "lobster", "shrimp", "scorpion",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_EQUATION = re.compile(r"(?:(-?[0-9]+) ([+-]) )?(-?)(?:([0-9]+)\*)?([a-z])(?: ([+-]) ([0-9]+))? = (-?[0-9]+)")
_WEEKDAY = re.compile(rf"\b({'|'.join(DAYS)})s?\b(?!,)")  # one with a comma after it belongs to a date


def equation(rng: Random) -> Problem:
    """A linear equation in one letter with an integer solution, solved in two steps."""
    while True:
        item = _item("simple_equations", rng)
        found = _EQUATION.fullmatch(item["metadata"]["equation"])
        problem = found and _solved(item, found)
        if problem and problem.answer == item["answer"]:
            return problem


def story(rng: Random) -> Problem:
    """A word problem: a story of several steps (13 templates), legs of animals, or days of a calendar."""
    family = rng.choice((*(_told for _ in range(6)), _legs, _days, _days))
    while True:
        problem = family(rng)
        if problem:
            return problem


def _solved(item: dict, found: re.Match) -> Problem:
    before, plus, minus, factor, name, sign, after, right = found.groups()
    slope = int(factor or 1) * (-1 if "-" in (minus, plus) else 1)
    constant = int(before or 0) + int(f"{sign or '+'}{after or 0}")
    rest = int(right) - constant
    answer = str(rest // slope)
    moved = f"{right} - {constant} = " if constant > 0 else f"{right} + {-constant} = " if constant else ""
    steps = f"{slope}*{name} = {moved}{rest}"
    return Problem(
        f"{item['question']}.{ENDING}", answer, f"{steps}, {name} = {answer} #{answer}",
        f"{slope}*x + {constant} = {right}",
    )  # fmt: skip


def _told(rng: Random) -> Problem | None:
    """None where the numbers give no natural one."""
    number = rng.choice(STORIES)
    item = _stories()[number](Random(rng.getrandbits(32)), 1.0)
    question, gold = item["question"], parse_number(item["answer"])
    if gold is None or gold < 1 or gold != int(gold):
        return None
    worked = " ".join(item["metadata"]["answer_cot"].rpartition("####")[0].split()).replace("#", "")
    numbers = " ".join(re.findall(r"[0-9]+", question))
    return Problem(f"{question}{ENDING}", spell(gold), f"{worked} #{spell(gold)}", f"story {number}: {numbers}")


def _legs(rng: Random) -> Problem | None:
    item = _item("leg_counting", rng)
    animals = item["metadata"]["animals"]
    if any(name in DISPUTED for name in animals):
        return None
    legs = {name: int(_legs_of()[name]) for name in animals}
    steps = " + ".join(f"{count}*{legs[name]}" for name, count in animals.items())
    question = f"{item['question'].strip().rpartition(chr(10))[2].removeprefix('Now, ').capitalize()}{ENDING}"
    return Problem(
        question, item["answer"], f"{steps} = {item['answer']} #{item['answer']}", repr(sorted(animals.items()))
    )


def _days(rng: Random) -> Problem | None:
    """None where our own count of the days differs, or the dates are not of the year that the question names."""
    item = _item("calendar_arithmetic", rng, tasks=["count_days", "count_business_days"])
    question, facts = item["question"], item["metadata"]
    first, last = (date.fromisoformat(facts[key]) for key in ("start_date", "end_date"))
    years = re.findall(r"\b20[0-9]{2}\b", question)  # only the later date may have one
    asked = _WEEKDAY.search(question) if facts["task"] == "count_days" else None
    wanted = [DAYS.index(asked[1])] if asked else range(5)
    days = [day for i in range((last - first).days + 1) if (day := first + timedelta(i)).weekday() in wanted]
    if str(len(days)) != item["answer"] or not days or {first.year, last.year} != {int(year) for year in years}:
        return None
    weeks, rest = divmod((last - first).days + 1, 7)
    extra = len(days) - weeks * len(wanted)
    worked = f"{weeks} weeks and {rest} days: {weeks}*{len(wanted)} + {extra} = {len(days)} #{len(days)}"
    return Problem(f"{question}{ENDING}", str(len(days)), worked, f"days {first} {last} {list(wanted)}")


def _item(name: str, rng: Random, **options) -> dict:
    return _gym()(name, seed=rng.getrandbits(32), size=1, **options)[0]


@cache
def _gym():
    try:
        from reasoning_gym.factory import create_dataset
    except ImportError:
        raise InputError(
            "math levels 4 and 5 need reasoning_gym, which is missing: pip install reasoning-gym, or use levels 0 to 3"
        ) from None
    import reasoning_gym  # noqa: F401 (registers the generators)

    return create_dataset


@cache
def _stories() -> dict:
    return _gym()("gsm_symbolic", seed=0, size=1).generators


@cache
def _legs_of() -> dict[str, int]:
    _gym()
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return ANIMALS
