"""Rewards made of rules: the same few lines decide the score and are read out to the model (poc.motivation).

A rule has a value and the words that say when it applies. `fired` names the rules that apply to one completion, and

    score = sum of the values of the rules that fired

so a changed value changes score and text together. Whether the words tell the truth about `fired` no program can see:
that is what the tests of each reward are for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from poc.records import Episode, Group

Aspect = Literal["answer", "format"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`value` is paid `when` something holds of a completion; `when` is one line of words for the model.

    Raises ValueError for an unknown aspect, for words that are not one line, and for a value that is not finite.
    """

    key: str
    aspect: Aspect
    when: str
    value: float

    def __post_init__(self):
        if self.aspect not in get_args(Aspect):
            raise ValueError(f"rule {self.key}: aspect {self.aspect!r} is none of {', '.join(get_args(Aspect))}")
        if self.when.strip().splitlines() != [self.when]:
            raise ValueError(f"rule {self.key}: the words {self.when!r} are not one line")
        if not math.isfinite(self.value):
            raise ValueError(f"rule {self.key}: the value {self.value!r} is not a finite number")


@dataclass(frozen=True, slots=True)
class RuleReward:
    """A reward function of a Group whose scores are sums over `rules`; `fired(group, episode)` gives their keys.

    Raises ValueError when two rules have one key, and, called, when a key that no rule has is fired.
    """

    name: str
    rules: tuple[Rule, ...]
    fired: Callable[[Group, Episode], tuple[str, ...]]

    def __post_init__(self):
        keys = [rule.key for rule in self.rules]
        if len(set(keys)) < len(keys):
            raise ValueError(f"reward {self.name}: two rules have one key in {', '.join(keys)}")

    def __call__(self, group: Group) -> list[float]:
        """One score per episode."""
        return [self._score(group, episode) for episode in group.episodes]

    def _score(self, group: Group, episode: Episode) -> float:
        values = {rule.key: rule.value for rule in self.rules}
        fired = self.fired(group, episode)
        for key in fired:
            if key not in values:
                raise ValueError(f"reward {self.name}: rule {key!r} fired, but there are only {', '.join(values)}")
        return float(sum(values[key] for key in fired))
