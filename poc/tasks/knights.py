"""Knights and Knaves: knights always tell the truth, knaves always lie; who is what? 2 to 8 people, one solution each.

Level n has n + 2 people. A puzzle is drawn as statements over people numbered in order and kept only if exactly one of
the 2^n assignments satisfies "X is a knight iff what X says is true" (checked by trying them all). The worked solution
tries assignments in a fixed order, t(ruth) or l(ie) per person: it writes what each statement would then be and goes on
until both agree: "tt:lt- tl:tl+ #Ann knight, Bob knave".
"""

import re
from collections.abc import Collection
from itertools import permutations, product
from random import Random

from poc.records import Example, Verdict
from poc.tasks.answers import MAX_TEXT, Reading, marked_answer
from poc.tasks.problem import Problem

NAMES = ("Ann", "Bob", "Cid", "Dee", "Eve", "Fay", "Gus", "Hal")
MOST_NUMBERED = 5  # people: 120 numberings
INSTRUCTION = "Knights tell the truth, knaves lie. Who is what? End like this: #Ann knight, Bob knave"
TAGS_INSTRUCTION = (
    "Knights tell the truth, knaves lie. Who is what? First reason between <think> and </think>, then give the answer "
    "between <answer> and </answer>, like this: <answer> (1) Ann is a knight (2) Bob is a knave </answer>"
)
MAX_NEW_TOKENS = 112  # enough for a worked solution, one token a character (lab models), at levels 0 and 1

# "Ann knight" or "Ann: a knight" or "Ann is a knight"; not "Ann knight or ...", which asserts nothing of Ann.
_ASSERTED = re.compile(r"\b([A-Z][a-z]{1,20})(?::| is)?(?: an?)? (knight|knave)\b(?! or\b)")
_SPEAKER = re.compile(r"(?:^|\. )([A-Z][a-z]{1,20}):")
_BETWEEN = re.compile(r"[\s,;.]|\band\b|\(?\b[0-9]{1,2}[.)]")  # what may stand between the pairs of an answer

Atom = tuple[int, bool]  # (person, is said to be a knight)
Statement = tuple[str, Atom, Atom | None]  # (connective, first, second)
CONNECTIVES = {
    "is": lambda p, q: p,
    "and": lambda p, q: p and q,
    "or": lambda p, q: p or q,
    "implies": lambda p, q: not p or q,
    "iff": lambda p, q: p == q,
}
PHRASES = {
    "is": "{p}",
    "and": "{p} and {q}",
    "or": "{p} or {q}",
    "implies": "if {p} then {q}",
    "iff": "{p} if and only if {q}",
}


def make(rng: Random, level: int) -> Problem:
    """Draw a puzzle of `level` + 2 people that has exactly one solution."""
    n = level + 2
    while True:
        statements = tuple(_statement(rng, speaker, n) for speaker in range(n))
        found = solutions(statements)
        if len(found) == 1:
            return _puzzle(statements, found[0], rng.sample(NAMES, n))


def solutions(statements: tuple[Statement, ...]) -> list[tuple[bool, ...]]:
    """Every assignment (True = knight) under which each statement is true exactly if its speaker is a knight."""
    return [a for a in product((True, False), repeat=len(statements)) if _truths(statements, a) == a]


def score(example: Example, text: str) -> Verdict:
    """Right only if every person of the gold, and nobody else, is named once with the right kind."""
    gold = read_assignment(example.answer)
    if not gold:
        raise ValueError(f"the gold answer {example.answer!r} of {example.id} names nobody")
    said, marked, last = _marked_assignment(text, gold.keys())
    status = "unparsable" if said is None else "correct" if said == gold else "wrong"
    anyhow = status == "correct" or _last_assignment(text, len(gold)) == gold
    return Verdict(status, said is not None and last, anyhow, marked)


def read(question: str, text: str) -> Reading:
    """The marked assignment of everybody in the question, in the question's order."""
    people = _SPEAKER.findall(question)
    said, _, last = _marked_assignment(text, set(people))
    return Reading(None, False) if said is None else Reading(", ".join(f"{x} {said[x]}" for x in people), last)


def read_assignment(text: str) -> dict[str, str] | None:
    """{"Ann": "knight", ...} from "Ann knight, Bob is a knave" or "(1) Ann is a knight\\n(2) Bob is a knave".

    None if somebody is named twice or anything else is said: an answer that hedges is no answer.
    """
    text = " ".join(text[-MAX_TEXT:].split())
    pairs = _ASSERTED.findall(text)
    said_more = _BETWEEN.sub("", _ASSERTED.sub("", text))
    return None if said_more or len({name for name, _ in pairs}) < len(pairs) else dict(pairs)


def _marked_assignment(text: str, people: Collection[str]) -> tuple[dict[str, str] | None, str | None, bool]:
    """(who is what or None unless exactly `people` are named, the marked text, whether it ends the completion)."""
    for lines in (1, len(people) + 1):  # all on the line of the mark, or one person a line from there or below
        marked, last = marked_answer(text, lines)
        said = None if marked is None else read_assignment(marked)
        if said is not None and said.keys() == set(people):
            return said, marked, last
    return None, marked, last


def _last_assignment(text: str, people: int) -> dict[str, str]:
    return dict(_ASSERTED.findall(text[-MAX_TEXT:])[-people:])


def _statement(rng: Random, speaker: int, n: int) -> Statement:
    connective = rng.choice(list(CONNECTIVES))
    first = rng.choice([i for i in range(n) if i != speaker])
    second = rng.choice([i for i in range(n) if i != first])
    pair = (second, rng.random() < 0.5) if connective != "is" else None
    return connective, (first, rng.random() < 0.5), pair


def _holds(statement: Statement, assignment: tuple[bool, ...]) -> bool:
    connective, p, q = statement
    return CONNECTIVES[connective](assignment[p[0]] == p[1], q is not None and assignment[q[0]] == q[1])


def _truths(statements: tuple[Statement, ...], assignment: tuple[bool, ...]) -> tuple[bool, ...]:
    return tuple(_holds(statement, assignment) for statement in statements)


def _letters(truths: tuple[bool, ...]) -> str:
    return "".join("t" if truth else "l" for truth in truths)


def _say(atom: Atom, names: list[str]) -> str:
    return f"{names[atom[0]]} is a {'knight' if atom[1] else 'knave'}"


def _puzzle(statements: tuple[Statement, ...], solution: tuple[bool, ...], names: list[str]) -> Problem:
    lines = [
        f"{name}: {PHRASES[c].format(p=_say(p, names), q=_say(q, names) if q else '')}."
        for name, (c, p, q) in zip(names, statements, strict=True)
    ]
    answer = ", ".join(
        f"{name} {'knight' if knight else 'knave'}" for name, knight in zip(names, solution, strict=True)
    )
    order = list(product((True, False), repeat=len(statements)))
    tried = [f"{_letters(a)}:{_letters(_truths(statements, a))}" for a in order[: order.index(solution) + 1]]
    return Problem(" ".join(lines), answer, f"{'- '.join(tried)}+ #{answer}", _key(statements))


def _key(statements: tuple[Statement, ...]) -> str:
    """Equal for puzzles that differ in who speaks first and in the order within and, or, iff, besides the names.

    Every numbering of the people is tried, up to MOST_NUMBERED; with more, twins by chance do not occur.
    """
    people = range(len(statements))
    if len(people) > MOST_NUMBERED:
        return repr(statements)
    return min(repr(_renumbered(statements, order)) for order in permutations(people))


def _renumbered(statements: tuple[Statement, ...], order: tuple[int, ...]) -> list[Statement]:
    """The statements of the people in `order`, who become 0, 1, 2, ..."""
    number = {person: i for i, person in enumerate(order)}
    found = []
    for connective, p, q in (statements[person] for person in order):
        atoms = [(number[person], kind) for person, kind in (p, *([q] if q else []))]
        found.append((connective, *(atoms if connective == "implies" else sorted(atoms))))
    return found
