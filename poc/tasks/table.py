"""Questions over real tables; the gold is computed by pandas.

Level 0: four rows of a restaurant's bills (`tips`, which plotly ships), day and size of the party; highest, lowest, sum
or how many rows of a day. Levels 1 to 3 (poc.tasks.table_questions) ask about bills, countries in a year, election
districts, share prices, flowers and an experiment. A number must equal the gold exactly, rounded as the question says;
a text up to case and spacing. The user's own tables: poc.own_table.
"""

from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks import table_questions
from poc.tasks.answers import Reading, marked_answer, normalise, parse_number, read_number, says_something
from poc.tasks.math import score_number
from poc.tasks.problem import Problem
from poc.tasks.table_questions import Source, markdown

NAME = "table"
LEVELS = range(DOMAIN_LEVELS[NAME])
DESCRIPTIONS = (
    "highest, lowest, sum or a count over four rows",
    "filter, then aggregate; six rows",
    "compare, share, second highest; six to eight rows",
    "two conditions, aggregate, compare; eight to twelve rows",
)
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = "Answer from the table, then end with # and the answer alone."
MAX_NEW_TOKENS = (40, 160, 192, 224)
# table: (its label, categories, numbers with the decimals that are shown)
SHIPPED = {
    "tips": ((), ("sex", "smoker", "day", "time"), {"total_bill": 2, "tip": 2, "size": 0}),
    "gapminder": (("country",), ("continent",), {"lifeExp": 1, "pop": 0, "gdpPercap": 0}),
    "election": (("district",), ("winner", "result"), {"Coderre": 0, "Bergeron": 0, "Joly": 0, "total": 0}),
    "stocks": (("date",), (), {"GOOG": 2, "AAPL": 2, "AMZN": 2, "NFLX": 2, "MSFT": 2}),
    "iris": ((), ("species",), {"sepal_length": 1, "sepal_width": 1, "petal_length": 1, "petal_width": 1}),
    "experiment": ((), ("gender", "group"), {"experiment_1": 1, "experiment_2": 1, "experiment_3": 1}),
}


@lru_cache
def shipped(name: str):
    """A table of plotly's package data as a DataFrame."""
    import pandas

    return pandas.read_csv(files("plotly") / "package_data" / "datasets" / f"{name}.csv.gz")


@lru_cache
def sources() -> tuple[Source, ...]:
    """The shipped tables of levels 1 to 3; countries of one year at a time."""
    frames = [(name, shipped(name)) for name in SHIPPED if name != "gapminder"]
    frames += [("gapminder", part) for _, part in shipped("gapminder").groupby("year")]
    return tuple(_source(name, frame) for name, frame in frames)


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level` (0-3)."""
    if level == 0:
        return _small(rng)
    name = rng.choice(sorted(SHIPPED))
    source = rng.choice([source for source in sources() if source.name == name])
    kinds = table_questions.feasible(source, level)
    while True:
        found = table_questions.draw(rng, source, level, kinds)
        if found:
            return Problem(found.text, found.answer, found.worked, found.key)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return MAX_NEW_TOKENS[level]


def score(example: Example, text: str) -> Verdict:
    """Number against number where the gold is one, else the whole marked text against the gold."""
    if parse_number(example.answer) is not None:
        return score_number(example.answer, text)
    said, last = _text(text)
    target = normalise(example.answer)
    status = "unparsable" if said is None else "correct" if said == target else "wrong"
    words = " ".join(normalise(text[-len(target) - 100 :]).split())
    anyhow = status == "correct" or words == target or words.endswith(f" {target}")
    return Verdict(status, said is not None and last, anyhow, marked_answer(text)[0])


def read(question: str, text: str) -> Reading:
    """The marked number in its one spelling; the marked text, normalised, where the question asks "Which ...?"."""
    if not question.rpartition("\n")[2].startswith("Which "):
        return read_number(text)
    said, last = _text(text)
    return Reading(said, said is not None and last)


def _text(text: str) -> tuple[str | None, bool]:
    """(the marked text, normalised; None where it says nothing or is a row of a table; whether it ends the text)."""
    marked, last = marked_answer(text)
    if not marked or not says_something(marked) or "|" in marked.replace("\\|", ""):
        return None, False
    return normalise(marked), last


def _source(name: str, frame) -> Source:
    labels, categories, numbers = SHIPPED[name]
    text = {c: [str(value) for value in frame[c]] for c in (*labels, *categories)}
    shown = {c: [f"{Decimal(repr(float(v))):.{d}f}" for v in frame[c]] for c, d in numbers.items()}
    values = {c: [float(v) for v in cells] for c, cells in shown.items()}
    return table_questions.source(name, text | shown, values, categories, labels)


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
    rows = list(zip(days, sizes, strict=True))
    question = f"{markdown(['day', 'size'], rows)}\n{asked}"
    return Problem(question, answer, f"{worked} #{answer}", f"{sorted(rows)} {asked}")
