"""Multiple-choice questions: rows of GPQA, MMLU and MMLU-Pro as problems, and the verdict on a marked letter.

The question lists "A) ..." to at most "J) ..." and asks for the letter; the gold is the letter. Exactly one letter
must be marked: B, (B), B), "B." or "B) text" where the text is that option's, in upper or lower case. "A or B", a
letter that no option has, the text alone, or different letters in several marks are no answer; no letter is ever
guessed, and a letter in a sentence counts for `correct_anyhow` alone.
"""

import hashlib
import json
import re
from typing import Any, NoReturn

from poc.records import Example, InputError, Verdict
from poc.tasks.answers import MAX_TEXT, Reading, marked_answer, normalise
from poc.tasks.problem import Problem
from poc.tasks.rows import show

LETTERS = "ABCDEFGHIJ"
INSTRUCTION = "Work it out, then end with # and the letter of one option."
ASKED = "Which option is right? End with # and its letter, like this: #X"
GPQA = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")

_OPTION = re.compile(r"([A-J])\) (.*)")
_LETTER = re.compile(r"\(?([A-Ja-j])(?:\)|\.|:)*(?: (.+))?", re.DOTALL)
_MARKS = re.compile(
    r"(?:#|\\boxed\{|<answer>)[^A-Za-z#\\<]{0,9}(?:\\(?:text[a-z]*|math[a-z]+)\{)?\(?([A-Ja-j])(?![A-Za-z])"
)
_ALONE = re.compile(r"(?<![A-Za-z'’])([A-J])(?![A-Za-z'’])")


def gpqa(values: dict[str, Any]) -> Problem:
    """A row of GPQA: `Question`, `Correct Answer`, `Incorrect Answer 1` to `3`.

    The options stand in the order of a hash of question and option: the place of the right one carries nothing, and
    is the same in every run. Raises InputError when a column is missing or empty.
    """
    question = _text(values, "Question")
    right, *wrong = (_text(values, column) for column in GPQA)
    options = sorted([right, *wrong], key=lambda o: hashlib.sha256(f"{question}\n{o}".encode()).digest())
    return _problem(question, options, options.index(right))


def mmlu(values: dict[str, Any]) -> Problem:
    """A row of MMLU (`question`, `choices`, `answer` as a number from 0) or MMLU-Pro (`options`, `answer` as a letter).

    The options keep their order: some speak of others ("both A and B"). Raises InputError for a row that is not so.
    """
    question = _text(values, "question")
    options = _options(values.get("choices", values.get("options")))
    return _problem(question, options, _index(values.get("answer"), len(options)))


def asked(question: str) -> bool:
    """Whether `question` is one of these."""
    return question.endswith(f"\n{ASKED}") and len(choices(question)) > 1


def choices(question: str) -> dict[str, str]:
    """{"A": "first option", ...}: the block of options above the last line; {} where there is none."""
    found: dict[str, str] = {}
    for line in reversed(question.split("\n")[:-1]):
        option = _OPTION.fullmatch(line)
        if option is None:
            return {}
        found[option[1]] = option[2]
        if option[1] == "A":
            break
    in_order = dict(reversed(found.items()))
    return in_order if "".join(in_order) == LETTERS[: len(in_order)] else {}


def score(example: Example, text: str) -> Verdict:
    """Right if the one marked letter is the gold. Raises ValueError for a gold that is none of the options' letters."""
    options = choices(example.text)
    if example.answer not in options:
        raise ValueError(f"the gold answer {example.answer!r} of {example.id} is not one of {', '.join(options)}")
    said, last = _letter(options, text)
    status = "unparsable" if said is None else "correct" if said == example.answer else "wrong"
    alone = [letter for letter in _ALONE.findall(text[-MAX_TEXT:]) if letter in options]
    anyhow = status == "correct" or (said is None and alone[-1:] == [example.answer])
    return Verdict(status, said is not None and last, anyhow, marked_answer(text)[0])


def read(question: str, text: str) -> Reading:
    """The marked letter, in upper case."""
    said, last = _letter(choices(question), text)
    return Reading(said, said is not None and last)


def _letter(options: dict[str, str], text: str) -> tuple[str | None, bool]:
    """(the letter that is marked, and the only one that is; whether it ends the text)."""
    marked, last = marked_answer(text)
    found = _LETTER.fullmatch(marked or "")
    letter = found[1].upper() if found else ""
    if letter not in options or (found[2] and normalise(found[2]) != normalise(options[letter])):
        return None, False
    marks = {mark.upper() for mark in _MARKS.findall(text[-MAX_TEXT:])}
    return (letter, last) if marks <= {letter} else (None, False)


def _problem(question: str, options: list[str], right: int) -> Problem:
    if options.count(options[right]) > 1:
        raise InputError(f"{show(question)}: the right option {show(options[right])} stands there twice: drop the row")
    lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    key = " ".join(f"{question} {' '.join(sorted(options))}".split())
    check = json.dumps({"choices": len(options)})
    return Problem("\n".join([question, *lines, ASKED]), LETTERS[right], f"#{LETTERS[right]}", key, check)


def _text(values: dict[str, Any], column: str) -> str:
    value = values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"column {column!r} of a multiple-choice row holds {show(value)}: it needs a text")
    return value.strip() if column.lower() == "question" else _line(value)


def _line(option: Any) -> str:
    """On one line: an option must not be able to forge the next one."""
    return " ".join(str(option).split())


def _options(value: Any) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            _refuse("choices or options", value, 'a list such as ["4", "5"]')
    if not isinstance(value, (list, tuple)) or not 2 <= len(value) <= len(LETTERS):
        _refuse("choices or options", value, f"a list of 2 to {len(LETTERS)}")
    options = [_line(option) for option in value]
    if not all(options):
        _refuse("choices or options", value, "a text for each")
    return options


def _index(answer: Any, count: int) -> int:
    """The place of an answer given as a number from 0 or as a letter."""
    if isinstance(answer, str) and answer.strip().upper() in tuple(LETTERS):
        answer = LETTERS.index(answer.strip().upper())
    if isinstance(answer, str) and answer.strip() in tuple("0123456789"):
        answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < count:
        _refuse("answer", answer, f"a number from 0 to {count - 1} or a letter from A to {LETTERS[count - 1]}")
    return answer


def _refuse(column: str, value: Any, needed: str) -> NoReturn:
    raise InputError(f"column {column} of a multiple-choice row holds {show(value)}: it needs {needed}")
