"""In-context motivation: the training prompt tells the model how it is scored (MeRF, arXiv 2506.18485).

The text is written from the rules of the reward objects that score, so the two cannot drift. Only training prompts
carry it: evaluation is done without, and no score depends on it. Conditions of the paper:

    full         every rule of every reward
    score_only   the rules about the answer alone ("suboptimal")
    adverse      every rule with its value negated: the text lies, the score does not
    none         no text

Rewards that are no sums of rules (self-certainty, ...) are passed over in silence. The paper's exact wording is not
public; the structure is its.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from poc.records import Group, InputError
from poc.rewards.rules import Rule, RuleReward

Condition = Literal["full", "score_only", "adverse", "none"]

HEADING = "Evaluation Scoring Rules:"
ENDING = "The final score is the sum."


def motivation(rewards: Sequence[RuleReward | Callable[[Group], list[float]]], condition: Condition) -> str:
    """The text for the training prompt; "" for the condition none or without rewards.

    Raises InputError for an unknown condition and when there is nothing to tell: no reward has rules (of the answer,
    for score_only).
    """
    if condition not in get_args(Condition):
        raise InputError(f"motivation.condition: unknown {condition!r}; valid: {', '.join(get_args(Condition))}")
    if condition == "none" or not rewards:
        return ""
    rules = [rule for reward in rewards if isinstance(reward, RuleReward) for rule in reward.rules]
    told = [rule for rule in rules if rule.aspect == "answer" or condition != "score_only"]
    if not told:
        valid = "verifiable or knights_knaves" if rules else "verifiable, format or knights_knaves"
        about = "rules about the answer" if rules else "rules"
        raise InputError(f"motivation.condition: {condition} needs a reward with {about}: {valid}")
    sign = -1 if condition == "adverse" else 1
    return "\n".join((HEADING, *(_line(rule, sign) for rule in told), ENDING))


def _line(rule: Rule, sign: int) -> str:
    value = sign * rule.value
    shown = f"{float(value):+}".removesuffix(".0") if value else "0"  # the shortest digits that give back the value
    return f"{rule.aspect} {shown}: {rule.when}"
