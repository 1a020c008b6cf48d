"""Whether a fall of uncertainty is capability, or shorter answers (an independent re-analysis of the paper found both).

U = L u with L tokens an answer and u nats a token, so a change splits exactly (Bennet 1920) into

    U_1 - U_0 = (L_1 - L_0) (u_0 + u_1) / 2  +  (u_1 - u_0) (L_0 + L_1) / 2
                 shorter answers                more certain tokens

with the means L and u = U / L over all answers. Accuracy is what counts: where labels are there, a fall of uncertainty
without a gain of accuracy is said to be that. Pure functions of the measurements (poc.gap.measure).
"""

from typing import Literal, NamedTuple

Word = Literal["better", "worse", "no change seen", "not measured"]


class Split(NamedTuple):
    """Nats of the change of U from the first to the last measurement."""

    whole: float
    length: float
    certainty: float

    @property
    def by_length(self) -> float | None:
        """Share of a fall that is shorter answers, 0 to 1 or beyond; None where U did not fall."""
        return self.length / self.whole if self.whole < 0 else None


def split(first: dict, last: dict) -> Split:
    """Of the solver's uncertainty; `first`, `last`: summaries of measurements, {name: {"value", ...}}."""
    u = [of["solver"]["value"] for of in (first, last)]
    length = [of["solver_length"]["value"] for of in (first, last)]
    each = [a / b for a, b in zip(u, length, strict=True)]
    shorter = (length[1] - length[0]) * (each[0] + each[1]) / 2
    return Split(u[1] - u[0], shorter, (each[1] - each[0]) * (length[0] + length[1]) / 2)


def accuracy_word(first: list[dict], last: list[dict]) -> Word:
    """Of the solver's right answers, question by question: the paired 95 % interval decides."""
    from poc.statistics import paired_difference

    before, after = ([row["solver_accuracy"] for row in rows] for rows in (first, last))
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if a is not None and b is not None]
    if not pairs:
        return "not measured"
    found = paired_difference([a for _, a in pairs], [b for b, _ in pairs])
    if found.low is not None and found.low > 0:
        return "better"
    return "worse" if found.high is not None and found.high < 0 else "no change seen"
