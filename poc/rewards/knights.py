"""The Knights and Knaves reward of Logic-RL (kk.py), which MeRF (arXiv 2506.18485) trains with and tells the model.

    score = format (+1 right, -1 wrong) + answer (+2 all right, -1.5 readable but wrong, -2 unreadable)

The answer is read only where the format is right, so the totals are 3, -0.5, -1 and -3. Two layouts of a completion:

    tags    <think> ... </think> <answer> (1) Ann is a knight (2) Bob is a knave </answer>, as in Logic-RL
    mark    ... #Ann knight, Bob knave, as the lab models write

Text outside the answer is free in both, as in kk.py; in mark the answer ends the text. Here <think> must be in the
completion: no prompt of ours begins the answer for the model. Stricter than kk.py, where a hedge would be paid: that
searches the answer for "NAME is a knight" and so pays "Ann is a knight or not" and "it is false that Ann is a knight".
Here an answer lists every person of the gold once and says nothing else. Capitals matter, as to the verifier of the
hold-out; letters of other scripts that look alike are others.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from poc.records import Episode, Example, Group
from poc.rewards.rules import Rule, RuleReward
from poc.rewards.verifiable import check_gold

NAME = "knights_knaves"
MAX_ANSWER = 2_000  # characters; a longer answer is unreadable, whatever it says
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

_TAGS_BETWEEN = re.compile(r"(?:[\s,;.]|and\s)+")  # what may stand between two people, one character at a time: linear
_GOLD_ITEM = re.compile(r"(?:\([0-9]{1,2}\)\s*)?([^\W\d_][\w'-]*)(?: is a)? (knight|knave)")


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a completion is read: `cut` gives its answer (None: bad format), `item` is the pattern of one person."""

    cut: Callable[[str], str | None]
    item: str
    between: re.Pattern
    rules: tuple[Rule, ...]


def knights_knaves(layout: Literal["tags", "mark"]) -> RuleReward:
    """The reward for completions in one layout. Raises ValueError for another.

    Called with a group: ValueError where its example has no gold, or one that is no list of knights and knaves.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"reward {NAME}: layout {layout!r} is none of {', '.join(_LAYOUTS)}")
    return RuleReward(NAME, _LAYOUTS[layout].rules, partial(_fired, _LAYOUTS[layout]))


def _fired(layout: _Layout, group: Group, episode: Episode) -> tuple[str, str]:
    check_gold(NAME, group, group.example.answer is not None)
    gold = _gold(group.example)
    answer = layout.cut(episode.text)
    if answer is None:
        return "format_wrong", "unreadable"
    said = _read(layout, answer, tuple(gold))
    return "format_right", "unreadable" if said is None else "right" if said == gold else "wrong"


def _gold(example: Example) -> dict[str, str]:
    answer = example.answer.strip().rstrip(".")
    gold = _identities(answer, _GOLD_ITEM, _TAGS_BETWEEN) if len(answer) <= MAX_ANSWER else None
    if gold is None:
        raise ValueError(f"reward {NAME}: the gold answer of {example.id} is no list such as 'Ann knight, Bob knave'")
    return gold


def _read(layout: _Layout, answer: str, names: tuple[str, ...]) -> dict[str, str] | None:
    """{"ann": "knight", ...} if exactly `names` are listed, each once, and nothing else is said; else None."""
    if len(answer) > MAX_ANSWER:
        return None
    pattern = layout.item.replace("NAME", "|".join(map(re.escape, names)))
    said = _identities(answer, re.compile(pattern, re.ASCII), layout.between)
    return said if said is not None and said.keys() == set(names) else None


def _identities(text: str, item: re.Pattern, between: re.Pattern) -> dict[str, str] | None:
    """The people of a text that is nothing but items with `between` in between; None if one is named twice."""
    parts = item.split(text)  # around, name, kind, around, name, kind, around
    if len(parts) == 1 or parts[0] or parts[-1] or not all(between.fullmatch(part) for part in parts[3:-1:3]):
        return None
    said = dict(zip(parts[1::3], parts[2::3], strict=True))
    return said if len(said) == len(parts) // 3 else None


def _cut_tags(text: str) -> str | None:
    places = [text.find(tag) for tag in TAGS]
    if any(text.count(tag) != 1 for tag in TAGS) or places != sorted(places):
        return None
    return text[places[2] + len(TAGS[2]) : places[3]].strip().rstrip(".")


def _cut_mark(text: str) -> str | None:
    before, mark, answer = text.partition("#")
    return answer.strip() if mark and "#" not in answer else None


def _rules(answer: tuple[str, str, str], form: tuple[str, str]) -> tuple[Rule, ...]:
    keys, values = ("right", "wrong", "unreadable"), (2.0, -1.5, -2.0)
    return (
        *(Rule(key, "answer", words, value) for key, words, value in zip(keys, answer, values, strict=True)),
        Rule("format_right", "format", form[0], 1.0),
        Rule("format_wrong", "format", form[1], -1.0),
    )


_LAYOUTS = {
    "tags": _Layout(
        _cut_tags,
        r"(?:\(?[0-9]{1,2}[.)]\s*)?(NAME)\s+is\s+a\s+(knight|knave)",
        _TAGS_BETWEEN,
        _rules(
            (
                "<think>reasoning</think><answer>(1) Ann is a knight (2) Bob is a knave</answer>, in the answer "
                "everybody once and nothing else, all right",
                "such an answer, not all right",
                "no such answer",
            ),
            (
                "<think> </think> <answer> </answer>: each exactly once, in this order",
                "a tag missing, repeated or out of order",
            ),
        ),
    ),
    "mark": _Layout(
        _cut_mark,
        r"(NAME) (knight|knave)",
        re.compile(r"\s*,\s*"),
        _rules(
            (
                "after the only #, up to the end, a list like Ann knight, Bob knave: everybody once, all right",
                "such a list, not all right",
                "no such list",
            ),
            ("exactly one # in the text", "no # or several"),
        ),
    ),
}
