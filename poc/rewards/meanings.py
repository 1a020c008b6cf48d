"""Which answers of a group mean the same: the stage between rollout and the rewards that count agreement.

A clustering is a function Group -> one label per episode: equal labels mean the same, None is no answer. No label, gold
or order of the completions enters.

    exact        the same number, or the same text but for case, spacing and a final full stop
    math         the same mathematical object: 1/2, 0.5 and \\frac{1}{2} (poc.scoring.math_equality)
    entailment   each entails the other in the eyes of a judge (poc.judges): for free text, marked or not

What has no answer gets None: nothing readable, or an answer that repeats the question.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace

from poc.records import Episode, Group
from poc.tasks.answers import normalise, parse_number, says_something, spell

Labels = Sequence[int | None]
Clustering = Callable[[Group], Labels]

COPIED = 2 / 3  # of the question's words, from which on an answer that adds none of its own is a copy
LOOKED_AT = 2_000  # characters
LONGEST_SUM = 100  # characters: the pattern takes quadratic time
ASIDE = 8  # words beside a sum in a question that asks for nothing but its value
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")  # letters and digits; CJK by character
SUM = re.compile(r"[-0-9.+*/^!()√]*[0-9)!][-+*/^!√][-0-9.+*/^!()√]*|√[0-9.()]+")
PLAIN = {
    "\\times": "*",
    "\\cdot": "*",
    "×": "*",
    "·": "*",
    "\\div": "/",
    "÷": "/",
    "−": "-",
    "\\sqrt": "√",
    "{": "(",
    "}": ")",
}


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
    return [None if answer and copies(answer, group.example.text) else answer for answer in given]


def copies(answer: str, question: str) -> bool:
    """Whether `answer` repeats `question`: two thirds of its words in their order and none beside them.

    A sum that the question asks for the value of is no answer either. A span of a question is not a copy of it (texts
    are asked about, options are listed), nor is a sentence that says something new.
    """
    said, asked = _words(answer), _words(question)
    if _repeats_sum(answer, question):
        return True
    news = set(said) - set(asked) or all(word.isdigit() for word in said)
    return not news and _common(said, asked) == len(said) > COPIED * len(asked)


def _repeats_sum(answer: str, question: str) -> bool:
    said, asked = _plain(answer).rstrip("=.?"), _plain(question)
    said = said[1:-1] if said.startswith("(") and said.endswith(")") else said
    if len(said) > LONGEST_SUM or said not in asked or not SUM.fullmatch(said) or parse_number(said) is not None:
        return False
    aside = asked.replace(said, " ")
    return not any(char.isdigit() for char in aside) and len(WORD.findall(question)) <= ASIDE + len(
        WORD.findall(answer)
    )


def _plain(text: str) -> str:
    for sign, plain in PLAIN.items():
        text = text.replace(sign, plain)
    return re.sub(r"[\s$]|\\[()]", "", text)


def _given(episode: Episode, unmarked: bool) -> str | None:
    whole = episode.text.strip() if unmarked and episode.finished else ""
    return episode.answer or (whole if says_something(whole) else None)


def _spelled(answer: str) -> str:
    number = parse_number(answer)
    return normalise(answer) if number is None else spell(number)


def _words(text: str) -> list[str]:
    shown = unicodedata.normalize("NFKC", text[-LOOKED_AT:]).replace("\\text", " ")
    return WORD.findall("".join(" " if unicodedata.category(char) == "Cf" else char for char in shown).casefold())


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    best = [0] * (len(b) + 1)
    for word in a:
        row = [0]
        for j, other in enumerate(b):
            row.append(best[j] + 1 if word == other else max(row[j], best[j + 1]))
        best = row
    return best[-1]
