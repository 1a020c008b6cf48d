"""What a stage has cost and what going on would: seconds and labels of its runs, money where a price is set. Pure.

Measured: the seconds in outcome.json, those of stopped and failed runs included. Going on means the steps of the named
arm once more, with one seed. Prices are `cost` of the named arm's configuration; poc.money has the sums. A label that a
reward did not use counts as saved: its price against the machine's is the break-even.
Not here: people's time, the machine before the pilot, what a better answer is worth.
"""

from dataclasses import dataclass

from pydantic import ValidationError

from poc import money
from poc.config import Cost
from poc.report.arms import Arm
from poc.report.decision import Decision, uses_labels
from poc.report.read import number


@dataclass(frozen=True)
class Spent:
    """Seconds of all the stage's runs, and of the named arm once more; labelled training questions used and spared.

    Money is in `cost.currency`; None where it is not known.
    """

    seconds: float | None
    again: float | None
    used: int | None
    saved: int | None
    cost: Cost

    @property
    def money(self) -> float | None:
        return None if self.seconds is None else money.of_time(self.seconds, self.cost)

    @property
    def money_again(self) -> float | None:
        return None if self.again is None else money.of_time(self.again, self.cost)

    @property
    def money_labels(self) -> float | None:
        return None if self.used is None else money.of_labels(self.used, self.cost)

    @property
    def money_saved(self) -> float | None:
        return None if self.saved is None else money.of_labels(self.saved, self.cost)

    @property
    def break_even(self) -> float | None:
        """Labels that cost as much as the stage's machine time."""
        return None if self.seconds is None else money.break_even(self.seconds, self.cost)


def spent(decision: Decision) -> Spent | None:
    """Of one stage; None where nothing was tried."""
    if decision.named is None:
        return None
    known = [s for j in decision.candidates if (s := j.arm.seconds()) is not None]
    arm = decision.named.arm
    used, trained = labels_used(arm), _trained(arm)
    return Spent(
        seconds=sum(known) if known else None,
        again=_once(arm),
        used=used,
        saved=None if used is None or trained is None else max(0, trained - used),
        cost=prices(arm),
    )


def prices(arm: Arm) -> Cost:
    """The prices in an arm's configuration; none where they cannot be read."""
    try:
        return Cost.model_validate(arm.first.config.get("cost") or {})
    except ValidationError:
        return Cost()


def labels_used(arm: Arm) -> int | None:
    """Labelled training questions that a reward may look at; None where the run does not say."""
    if not uses_labels(arm):
        return 0
    found = arm.first.environment.get("labels")
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 10**9 else None


def _trained(arm: Arm) -> int | None:
    """Training questions."""
    data = arm.first.environment.get("data")
    counts = data.get("counts") if isinstance(data, dict) else None
    found = number(counts.get("train")) if isinstance(counts, dict) else None
    return None if found is None else int(found)


def _once(arm: Arm) -> float | None:
    """Mean seconds of one of the arm's runs."""
    measured = sum(isinstance(r.outcome.get("seconds"), dict) for r in arm.runs)
    total = arm.seconds()
    return total / measured if total is not None and measured else None
