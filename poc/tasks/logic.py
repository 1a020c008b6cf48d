"""Puzzles with one solution each; every person, place, cell and node of it must be right.

Levels 0-6: Knights and Knaves of 2 to 8 people (poc.tasks.knights); 7, 8: who stands where in a line of 4 or 6
(ordering); 9, 10: zebra puzzles, 3 houses with 3 attributes, 4 with 4 (zebra); 11, 12: the shortest way in a weighted
graph of 6 or 9 nodes (graphs). From level 7 on a kind of puzzle is a module with `canonical(question, answer)`: the one
spelling of a full answer, or None for one that lacks, repeats or adds anything; right is what is spelled as the gold.
"""

from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks import graphs, knights, ordering, zebra
from poc.tasks.answers import MAX_TEXT, Reading, marked_answer
from poc.tasks.knights import INSTRUCTION, MAX_NEW_TOKENS, TAGS_INSTRUCTION  # noqa: F401 (what poc.pilot asks for)
from poc.tasks.problem import Problem

NAME = "logic"
LEVELS = range(DOMAIN_LEVELS[NAME])
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
DESCRIPTIONS = (
    *(f"Knights and Knaves, {people} people" for people in range(2, 9)),
    *(f"who stands where in a line of {people}" for people in (4, 6)),
    *(f"zebra puzzle, {size} houses with {size} attributes" for size in (3, 4)),
    *(f"the shortest way in a weighted graph of {nodes} nodes" for nodes in (6, 9)),
)
KINDS = {7: (ordering, 4), 8: (ordering, 6), 9: (zebra, 3), 10: (zebra, 4), 11: (graphs, 6), 12: (graphs, 9)}
LONGEST = {ordering: 160, zebra: 384, graphs: 96}  # characters of a worked solution, and the end token
MAX_ANSWER = 1_000  # characters; a longer answer is unreadable
LINES = 8  # that an answer may span, from the line of the mark on


def make(rng: Random, level: int) -> Problem:
    """Draw a puzzle of `level` that has exactly one solution."""
    if level not in KINDS:
        return knights.make(rng, level)
    kind, size = KINDS[level]
    return kind.make(rng, size)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return KINDS[level][0].INSTRUCTION if level in KINDS else INSTRUCTION


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return LONGEST[KINDS[level][0]] if level in KINDS else MAX_NEW_TOKENS


def score(example: Example, text: str) -> Verdict:
    """Right only if every part of the solution is there and right, and nothing else is.

    Raises ValueError for a gold that is no solution of the kind that the level has: not the model's fault.
    """
    if example.level not in KINDS:
        return knights.score(example, text)
    kind, question = KINDS[example.level][0], example.text
    gold = kind.canonical(question, example.answer)
    if gold is None:
        raise ValueError(f"the gold answer {example.answer!r} of {example.id} is no full answer")
    said, marked, last = _marked(kind, question, text)
    status = "unparsable" if said is None else "correct" if said == gold else "wrong"
    anyhow = status == "correct" or _last_line(kind, question, text) == gold
    return Verdict(status, said is not None and last, anyhow, marked)


def read(question: str, text: str) -> Reading:
    """The marked answer in its one spelling; what kind of puzzle it is, the question says."""
    for kind in (ordering, zebra, graphs):
        if kind.MARK in question:
            said, _, last = _marked(kind, question, text)
            return Reading(None, False) if said is None else Reading(said, last)
    return knights.read(question, text)


def _marked(kind, question: str, text: str) -> tuple[str | None, str | None, bool]:
    """(the answer in its one spelling, the marked text, whether it ends the completion)."""
    for lines in (1, LINES):  # all on the line of the mark, or one part a line from there or below
        marked, last = marked_answer(text, lines)
        said = kind.canonical(question, marked) if marked and len(marked) <= MAX_ANSWER else None
        if said is not None:
            return said, marked, last
    return None, marked, last


def _last_line(kind, question: str, text: str) -> str | None:
    line = text[-MAX_TEXT:].rstrip().rpartition("\n")[2]
    return kind.canonical(question, line) if len(line) <= MAX_ANSWER else None
