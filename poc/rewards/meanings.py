"""Which answers of a group mean the same: the stage between rollout and the rewards that count agreement.

A clustering is a function Group -> one label per episode: equal labels mean the same, None is no answer. No label, gold
or order of the completions enters.

    exact        the same number, or the same text but for case, spacing and a final full stop
    math         the same mathematical object: 1/2, 0.5 and \\frac{1}{2} (poc.scoring.math_equality)
    entailment   each entails the other in the eyes of a judge (poc.judges): for free text, marked or not

What has no answer gets None: nothing readable, or an answer that repeats the question (own questions only: the answers
of generated domains are read as numbers and assignments).
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace

from poc.records import Episode, Group
from poc.tasks import own
from poc.tasks.answers import normalise, parse_number, says_something, spell

Labels = Sequence[int | None]
Clustering = Callable[[Group], Labels]

COPIED = 0.8  # ROUGE-L precision of an answer against its question from which on it is a copy (EMPO's code)
LONG_COPY = 12  # words; a shorter answer is a copy only if it has half the question's words: options repeat a few
LOOKED_AT = 2_000  # characters
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")  # letters and digits; CJK by character
FORMULA = re.compile(r"[*+^=/]")
FRACTION_OR_DATE = re.compile(r"[0-9]+(?:/[0-9]+)+")


def with_meanings(group: Group, cluster: Clustering) -> Group:
    """The group with its labels, checked: a wrong count is a ValueError."""
    labels = tuple(cluster(group))
    if len(labels) != len(group.episodes):
        raise ValueError(f"{len(labels)} meanings for {len(group.episodes)} completions of {group.example.id}")
    return replace(group, meanings=labels)


def exact(group: Group) -> list[int | None]:
    """Equal spelling, after `normalise` and one spelling for numbers."""
    spelled = [answer and _spelled(answer) for answer in answers(group)]
    found = {text: label for label, text in enumerate(dict.fromkeys(filter(None, spelled)))}
    return [found.get(text) for text in spelled]


def mathematical(group: Group) -> list[int | None]:
    """Equal as mathematics."""
    from poc.scoring.math_equality import classes

    return classes(answers(group))


def entailed(judge) -> Clustering:
    """A clustering by mutual entailment; an unmarked answer is the whole text of a finished completion."""
    from poc.judges import entailment_classes

    def cluster(group: Group) -> list[int | None]:
        return entailment_classes(group.example.text, answers(group, unmarked=True), judge)

    return cluster


def answers(group: Group, unmarked: bool = False) -> list[str | None]:
    """Answer of each episode, None for a copy of the question; `unmarked`: the whole text stands in for a mark."""
    given = [_given(episode, unmarked) for episode in group.episodes]
    if group.example.domain != own.NAME:
        return given
    return [None if answer and copies(answer, group.example.text) else answer for answer in given]


def copies(answer: str, question: str) -> bool:
    """Whether `answer` repeats `question`: it is made of the question's words, or holds them all, in their order.

    A formula of the question is no answer to it either. A short span of a question is not a copy of it: one may be
    asked for a span of a text, or for one of several options.
    """
    said, asked = _words(answer), _words(question)
    if _repeats_formula(answer, question):
        return True
    if len(said) < min(LONG_COPY, max(4, len(asked) / 2)):
        return bool(said) and said == asked
    common = _common(said, asked)
    whole = common > COPIED * len(asked) and len(said) <= 2 * len(asked)
    return whole or common > COPIED * len(said)


def _repeats_formula(answer: str, question: str) -> bool:
    compact = "".join(answer.split())
    is_formula = FORMULA.search(compact) and not FRACTION_OR_DATE.fullmatch(compact) and len(compact) > 2
    return bool(is_formula) and compact.strip("$.") in "".join(question.split())


def _given(episode: Episode, unmarked: bool) -> str | None:
    whole = episode.text.strip() if unmarked and episode.finished else ""
    return episode.answer or (whole if says_something(whole) else None)


def _spelled(answer: str) -> str:
    number = parse_number(answer)
    return normalise(answer) if number is None else spell(number)


def _words(text: str) -> list[str]:
    shown = unicodedata.normalize("NFKC", text[-LOOKED_AT:]).replace("\\text", " ")
    return WORD.findall("".join(char for char in shown if unicodedata.category(char) != "Cf").casefold())


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    best = [0] * (len(b) + 1)
    for word in a:
        row = [0]
        for j, other in enumerate(b):
            row.append(best[j] + 1 if word == other else max(row[j], best[j + 1]))
        best = row
    return best[-1]
