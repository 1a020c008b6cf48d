"""What a domain draws: a question with its gold, and a worked solution for the lab models to learn from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `worked` ends with the marked answer.

    `key` is the structure by which it is assigned to a split: equal for problems that are the same up to names or the
    order of summands. `check`: see poc.records.Example.
    """

    question: str
    answer: str
    worked: str
    key: str
    check: str = ""
