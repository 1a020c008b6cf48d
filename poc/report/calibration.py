"""Does the model know when it is right? Confidence against accuracy of sampled answers, before and after. Pure.

Confidence of an answer: exp of the mean log-probability of its tokens, as for ECE and AUROC (poc.evaluate). In every
tenth of confidence: the mean confidence and the share of right answers; on the diagonal both are equal.
"""

import math
from typing import NamedTuple

from poc.report.arms import Arm
from poc.report.read import Evaluation

BINS = 10
FEWEST = 10  # answers in a bin that is shown: fewer say nothing


class Bin(NamedTuple):
    confidence: float
    accuracy: float
    answers: int


def before_and_after(arm: Arm) -> tuple[list[Bin], list[Bin]] | None:
    """Of the first measured seed, at the start and under the weights it leaves; None where nothing can be shown."""
    if not arm.measured:
        return None
    run = arm.measured[0]
    found = bins(run.evaluations[0]), bins(run.final)
    return found if all(found) else None


def bins(evaluation: Evaluation) -> list[Bin]:
    """By rising confidence, bins ((m-1)/10, m/10]; answers without a label or a confidence are left out."""
    answers = [c for prompt in evaluation.prompts.values() for c in prompt.sampled]
    known = [(c.confidence, c.correct) for c in answers if c.confidence is not None and c.correct is not None]
    sorted_in: dict[int, list[tuple[float, float]]] = {}
    for confidence, right in known:
        sorted_in.setdefault(min(BINS, max(1, math.ceil(confidence * BINS))), []).append((confidence, right))
    return [_bin(sorted_in[i]) for i in sorted(sorted_in) if len(sorted_in[i]) >= FEWEST]


def _bin(pairs: list[tuple[float, float]]) -> Bin:
    n = len(pairs)
    return Bin(sum(p for p, _ in pairs) / n, sum(y for _, y in pairs) / n, n)
