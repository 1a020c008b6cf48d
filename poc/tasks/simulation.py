"""Predict what a short program or process gives, as JSON, compared strictly; at the last level, find an input.

Level 0: two operations on a word of four letters ('s="bade": reverse, drop first'), worked state by state:
'edab dab #"dab"'. 1: three or four operations on 6 to 8 letters; 2: a Python program of one loop over integers, lists,
strings or a dict; 3: a grid that lives, falls or turns, as a list of lists; 4: an input from which three operations
give a stated word. Any word of a to z that gives it is right, judged by running the operations on it: `check` holds
{"operations": [...], "output": "..."}. Neither the output itself nor the empty word is ever such an input.

Golds have no capitals, so that readings can be compared with case aside. How strict JSON is: poc.tasks.strict_json.
"""

import json
import re
from random import Random

from poc.config import DOMAIN_LEVELS
from poc.records import Example, Verdict
from poc.tasks.answers import MAX_TEXT, Reading, marked_answer
from poc.tasks.problem import Problem
from poc.tasks.processes import LETTERS, grid_process, program, run, word_operation
from poc.tasks.strict_json import canonical, dump

NAME = "simulation"
LEVELS = range(DOMAIN_LEVELS[NAME])
DESCRIPTIONS = (
    "two operations on a word of 4 letters",
    "three or four operations on a word of 6 to 8 letters",
    "what a short Python program prints",
    "what a small grid becomes: life, falling sand, turns",
    "find an input that gives a stated output",
)
CLUSTER = "exact"  # how semantic_entropy compares its answers (poc.config.Semantic)
INSTRUCTION = 'Go step by step, then end with # and the result as JSON, like this: #"abc"'
INSTRUCTIONS = {
    2: "Go step by step, then end with # and what is printed, as JSON on one line, like this: #[0, 1]",
    3: "Go step by step, then end with # and the grid as JSON on one line, row by row, like this: #[[7, 8], [9, 9]]",
    4: 'Go backwards step by step, then end with # and the word as JSON, like this: #"xyz"',
}
MAX_NEW_TOKENS = 32
LONGEST = (MAX_NEW_TOKENS, 160, 384, 160, 96)  # characters of a worked solution, and the end token, by level
LINES = 32  # that an answer may span
WORD_OPERATIONS = {
    "reverse": lambda s: s[::-1],
    "rotate left": lambda s: s[1:] + s[:1],
    "swap first two": lambda s: s[1:2] + s[:1] + s[2:],
    "drop first": lambda s: s[1:],
    "drop last": lambda s: s[:-1],
}

LONE = r"\b[a-h]\b"  # a letter that an operation speaks of

_INPUT = re.compile(r'"[a-z]{1,32}"')


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level` (0-4)."""
    return (_word, _longer_word, _program, _grid, _input)[level](rng)


def instruction(level: int) -> str:
    """What a model with room for it is told beside the question."""
    return INSTRUCTIONS.get(level, INSTRUCTION)


def max_new_tokens(level: int) -> int:
    """Enough for a worked solution, one token a character (lab models)."""
    return LONGEST[level]


def score(example: Example, text: str) -> Verdict:
    """Right only if the whole marked answer is JSON of the gold's value, or an input that gives the output.

    Raises ValueError for a gold that is no JSON: not the model's fault.
    """
    gold = canonical(example.answer)
    if gold is None:
        raise ValueError(f"the gold answer {example.answer!r} of {example.id} is not JSON")
    said, marked, last = _marked(text)
    status = "unparsable" if said is None else "correct" if _right(example.check, gold, said) else "wrong"
    tail = canonical(text[-MAX_TEXT:].rstrip().rpartition("\n")[2])
    anyhow = status == "correct" or (tail is not None and _right(example.check, gold, tail))
    return Verdict(status, said is not None and last, anyhow, marked)


def read(question: str, text: str) -> Reading:
    """The marked JSON in its one spelling: sorted keys, no spaces."""
    said, _, last = _marked(text)
    return Reading(None, False) if said is None else Reading(said, last)


def _right(check: str, gold: str, said: str) -> bool:
    """`gold` and `said` in their one spelling."""
    if not check:
        return said == gold
    wanted = json.loads(check)
    return bool(_INPUT.fullmatch(said)) and run(wanted["operations"], json.loads(said))[-1] == wanted["output"]


def _marked(text: str) -> tuple[str | None, str | None, bool]:
    """(the marked JSON in its one spelling, the marked text, whether it ends the completion)."""
    for lines in (1, LINES):
        marked, last = marked_answer(text, lines)
        said = None if marked is None else canonical(marked)
        if said is not None:
            return said, marked, last
    return None, marked, last


def _word(rng: Random) -> Problem:
    word = "".join(rng.sample(LETTERS, 4))
    names = rng.sample(list(WORD_OPERATIONS), 2)
    states = [word]
    for name in names:
        states.append(WORD_OPERATIONS[name](states[-1]))
    question, answer = f's="{word}": {", ".join(names)}', json.dumps(states[-1])
    return Problem(question, answer, f"{' '.join(states[1:])} #{answer}", question)


def _drawn(rng: Random, operations: int) -> tuple[str, list[str], list[str]]:
    """A word, operations each of which changes it, and the states they give, none empty or very long."""
    while True:
        word = "".join(rng.choices(LETTERS, k=rng.randint(6, 8)))
        texts = [word_operation(rng) for _ in range(operations)]
        states = run(texts, word)
        if all(a != b and 2 <= len(b) <= 20 for a, b in zip([word, *states], states, strict=False)):
            return word, texts, states


def _longer_word(rng: Random) -> Problem:
    word, texts, states = _drawn(rng, rng.randint(3, 4))
    question, answer = f's="{word}": {", ".join(texts)}', dump(states[-1])
    return Problem(question, answer, f"{' '.join(states)} #{answer}", _renamed(f"{word}: {', '.join(texts)}"))


def _program(rng: Random) -> Problem:
    while True:
        text, states = program(rng)
        if states[-1] != states[-2] and len(dump(states[-1])) > 1:  # not a lone digit, which is easily guessed
            break
    question, answer = f"What does this program print?\n{text}", dump(states[-1])
    return Problem(question, answer, f"{' '.join(dump(state) for state in states)} #{answer}", text)


def _grid(rng: Random) -> Problem:
    while True:
        words, grid, states = grid_process(rng)
        if states[-1] != grid and any(map(any, states[-1])):
            break
    question, answer = f"Grid: {json.dumps(grid)}\nProcess: {words}. What is the grid then?", dump(states[-1])
    return Problem(question, answer, f"{' '.join(map(dump, states))} #{answer}", question)


def _input(rng: Random) -> Problem:
    while True:
        word, texts, states = _drawn(rng, 3)
        output = states[-1]
        if run(texts, output)[-1] != output != run(texts, "")[-1]:
            break
    listed, check = ", ".join(texts), dump({"operations": texts, "output": output})
    question = f"Find a word s of letters a to z that becomes {json.dumps(output)} by these steps: {listed}"
    backwards = " ".join(reversed([word, *states]))
    return Problem(question, dump(word), f"{backwards} #{dump(word)}", _renamed(f"{output}: {listed}"), check)


def _renamed(text: str) -> str:
    """With the letters of the word and of the operations renamed in order of appearance: names do not matter."""
    word, _, operations = text.partition(": ")
    names: dict[str, str] = {}
    renamed = _letters(word, names)
    return f"{renamed}: {re.sub(LONE, lambda letter: _letters(letter[0], names), operations)}"


def _letters(word: str, names: dict[str, str]) -> str:
    return "".join(names.setdefault(letter, chr(65 + len(names))) for letter in word)
