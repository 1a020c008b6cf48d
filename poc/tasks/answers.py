"""Finding and comparing answers in text that nobody trusts: nothing here evaluates, every pattern is linear.

A completion marks its answer with `#` (or GSM8K's `####`) at the end, with \\boxed{...} or with <answer>...</answer>;
the last mark counts. The last number or the last full assignment in the text is read as well, so that "right regardless
of format" can be told apart from "knows how to mark an answer". A number is plain decimal notation in ASCII digits:
`1e9`, `1/2`, other scripts' digits and lists such as `1,2,3` are not numbers here, so that nothing is right by a lucky
reading.
"""

import re
import unicodedata
from decimal import Decimal
from typing import NamedTuple

MAX_TEXT = 20_000  # characters of a completion that are looked at, from its end
MAX_DIGITS = 64  # a longer number is not an answer
MAX_COMPOSED = 1_000  # characters up to which accents are composed: that takes quadratic time on hostile text

_NUMBER = re.compile(r"(?<![A-Za-z0-9_.,])[-−]?(?:[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"[+-]?(?:(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3})\.?[0-9]*|\.[0-9]+)")
_SPACING = re.compile(  # LaTeX and HTML that show nothing by themselves
    r"\\[hv]?phantom\*?\{[^{}]*\}|\\[hv]space\*?\{[^{}]*\}|\\(?:begin|end)\{[^{}]*\}|&[a-z]{2,8};|</?[a-z]{1,10} ?/?>"
    r"|\\(?:text[a-z]*|math[a-z]+|q?quad|[a-z]*space|hfill|displaystyle|[lc]?dots|d?frac|[^A-Za-z])"
)
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800\u0640"  # letters or signs to Unicode, blank to the eye
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")


class Reading(NamedTuple):
    """What a completion gives as its answer, read without any gold.

    `answer`: the marked answer, numbers and assignments in one spelling (None: nothing that this task can read);
    `formatted`: it is marked, can be read and ends the text.
    """

    answer: str | None
    formatted: bool


def marked_answer(text: str, lines: int = 1) -> tuple[str | None, bool]:
    """The marked answer of `text` and whether it ends the text: ("42", True) for "6*7=42 #42\\n".

    (None, False) if nothing is marked. `lines`: how many lines a `#` answer may span, for answers that have several.
    """
    text = text[-MAX_TEXT:].rstrip()
    hashes, boxed, tagged = text.rfind("#"), text.rfind("\\boxed{"), text.rfind("<answer>")
    if max(hashes, boxed, tagged) < 0:
        return None, False
    if tagged > max(hashes, boxed):
        inside, closed, after = text[tagged + len("<answer>") :].partition("</answer>")
        return (_bare(inside), not after.strip()) if closed else (None, False)
    if boxed > hashes:
        return _braced(text[boxed + len("\\boxed{") :])
    after = text[hashes + 1 :].split("\n", lines)
    return _bare("\n".join(after[:lines])), not any(after[lines:])


def _braced(text: str) -> tuple[str | None, bool]:
    depth = 1
    for i, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return _bare(text[:i]), not text[i + 1 :].strip(" .$\n\\])}*")
    return None, False


def _bare(answer: str) -> str:
    """Without the emphasis, code or \\text{...} that chat models put around it."""
    answer = answer.strip(" \t\r\n*`")
    inside = _WRAPPER.fullmatch(answer)
    return inside[1].strip() if inside else answer


def parse_number(text: str) -> Decimal | None:
    """The number that `text` is, give or take a currency sign, thousands commas, a percent sign or a full stop."""
    bare = text.strip().strip("$€£%\\").strip().rstrip(".").replace("\\!", "").replace("−", "-")
    bare = re.sub(r"^([+-]?)[$€£]", r"\1", bare)
    if len(bare) > MAX_DIGITS or not _PLAIN.fullmatch(bare):
        return None
    return Decimal(bare.replace(",", ""))


def says_something(text: str) -> bool:
    """Whether there is a letter, a digit or a sign that may be an answer, a lone minus too; brackets are none."""
    shown = "".join(char for char in _SPACING.sub("", text) if char not in _FILLERS).strip()
    return shown == "-" or any(char.isalnum() or unicodedata.category(char) in ("Sm", "So") for char in shown)


def read_number(text: str) -> Reading:
    """The marked number of a completion, spelled without commas, signs of currency and idle zeros."""
    marked, last = marked_answer(text)
    value = None if marked is None else parse_number(marked)
    return Reading(None, False) if value is None else Reading(spell(value), last)


def spell(number: Decimal) -> str:
    """One spelling for equal numbers: 007, 7.0 and +7 are all "7"."""
    plain = format(number, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


def last_number(text: str) -> Decimal | None:
    """The last number anywhere in `text`, or None; in "5-3" it is 3, in "1e9" or "1,2,3" there is none."""
    found = _NUMBER.findall(text[-MAX_TEXT:])
    return parse_number(found[-1]) if found else None


def normalise(text: str) -> str:
    """Lower case, single spaces, composed accents, no final full stop: how free-text answers are compared."""
    if len(text) <= MAX_COMPOSED:
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.casefold().split()).rstrip(".").strip()
