"""Questions over real tables; the gold is computed by pandas.

Level 0: four rows of a restaurant's bills (`tips`, which plotly ships), day and size of the party; highest, lowest, sum
or how many rows of a day.
"""

from functools import lru_cache
from importlib.resources import files
from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks.answers import Reading, read_number
from poc.tasks.math import score_number
from poc.tasks.problem import Problem

NAME = "table"
LEVELS = range(DOMAIN_LEVELS[NAME])
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Answer from the table, then end with # and the answer alone."
MAX_NEW_TOKENS = 40


@lru_cache
def shipped(name: str):
    """A table of plotly's package data as a DataFrame."""
    import pandas

    return pandas.read_csv(files("plotly") / "package_data" / "datasets" / f"{name}.csv.gz")


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level`."""
    return _small(rng)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return MAX_NEW_TOKENS


def score(example: Example, text: str) -> Verdict:
    """TODO"""
    return score_number(example.answer, text)


def read(question: str, text: str) -> Reading:
    """TODO"""
    return read_number(text)


def markdown(columns, rows) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _small(rng: Random) -> Problem:
    tips = shipped("tips")[["day", "size"]]
    part = tips.iloc[rng.sample(range(len(tips)), 4)]
    sizes, days = part["size"].tolist(), part["day"].tolist()
    kind = rng.choice(("highest size?", "lowest size?", "sum of size?", "how many rows with day {}?"))
    day = rng.choice(sorted(set(days)))
    asked = kind.format(day)
    if kind.startswith("sum"):
        total, steps = int(part["size"].sum()), []
        for i in range(1, 4):
            steps.append(f"{sum(sizes[:i])}+{sizes[i]}={sum(sizes[: i + 1])}")
        answer, worked = str(total), " ".join(steps)
    elif kind.startswith("how"):
        found = part[part["day"] == day]
        answer, worked = str(len(found)), " ".join(found["day"])
    else:
        answer = str(int(part["size"].max() if kind.startswith("highest") else part["size"].min()))
        worked = " ".join(map(str, sizes))
    question = f"{markdown(['day', 'size'], zip(days, sizes, strict=True))}\n{asked}"
    return Problem(question, answer, f"{worked} #{answer}", question)
