"""What the lab models learned from: arithmetic (levels 0-2) and Knights and Knaves (2-3 people), train split only.

Base text is the bare question and a worked solution; instruct text is the same in the chat template, after the
instruction. Hold-out and canary questions never occur, so that a gain on them is not memory.
"""

from random import Random

from poc.tasks import DOMAINS, split_of

MIX = (("math", 0, 0.45), ("math", 1, 0.1), ("math", 2, 0.1), ("logic", 0, 0.2), ("logic", 1, 0.15))


def draw(rng: Random) -> tuple[str, str, str]:
    """(domain, question, worked solution) of one train-split problem."""
    domain, level, _ = rng.choices(MIX, weights=[share for *_, share in MIX])[0]
    while True:
        problem = DOMAINS[domain].make(rng, level)
        if split_of(problem.key) == "train":
            return domain, problem.question, problem.worked
