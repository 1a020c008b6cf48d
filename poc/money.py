"""What time and labels cost: pure functions of seconds, counts and the configuration's prices.

    money = hours (per_hour + watts / 1000 tariff),   break-even: labels saved times their price against that money

Not here: what an hour of the people costs who run the pilot, or what a better answer is worth.
"""

from poc.config import Cost


def of_time(seconds: float, cost: Cost) -> float | None:
    """Of `seconds` of the machine; None where no price is known."""
    rate = hourly(cost)
    return None if rate is None else seconds / 3600 * rate


def hourly(cost: Cost) -> float | None:
    """Of an hour: the machine and its power, what is known of them."""
    power = None if cost.watts is None else cost.watts / 1000 * cost.tariff
    known = [price for price in (cost.per_hour, power) if price is not None]
    return sum(known) if known else None


def of_labels(count: int, cost: Cost) -> float | None:
    """Of `count` answers by people; None where their price is not known."""
    return None if cost.per_label is None else count * cost.per_label


def break_even(seconds: float, cost: Cost) -> float | None:
    """How many labels cost as much as `seconds` of the machine; None where a price is not known, or labels are free."""
    spent = of_time(seconds, cost)
    return None if spent is None or not cost.per_label else spent / cost.per_label


def said(amount: float, cost: Cost) -> str:
    """ "12.30 EUR", "0.004 EUR" """
    return f"{amount:,.{2 if amount >= 1 or amount == 0 else 3}f} {cost.currency.upper()}"
