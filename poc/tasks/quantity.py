"""Reading quantities with units from text that nobody trusts: "1.2 x 10^-3 kg*m/s^2", "37 degC", "5\\,\\Omega".

A number is plain or scientific decimal notation in ASCII digits with an exponent of at most two; a unit is a product of
known symbols (`SCALED` with prefixes, `PLAIN`, `WORDS`) with powers of at most `MAX_POWER`. After a slash stands one
factor or a bracket: "J/mol*K", which people read in two ways, is no unit here. Nothing else gets through, so nothing
is evaluated and nothing can take long. What a symbol is worth comes from pint, asked once, by names written here; pint
never sees a text of a model.

    value in base units = number * up / down + offset          (offset: only of a lone degC or degF; else a difference)
"""

import re
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from math import prod
from typing import NamedTuple

from poc.tasks.answers import spell as spell_number

MAX_TEXT = 200  # characters of an answer, LaTeX included
MAX_UNIT = 40  # characters of its unit, once LaTeX is gone
MAX_POWER = 12
EXACT = Context(prec=60)  # products and quotients of answers are exact or right to 60 digits
DIGITS = 6  # of a canonical spelling

BASE = ("kilogram", "meter", "second", "ampere", "kelvin", "mole", "candela")
SYMBOLS = ("kg", "m", "s", "A", "K", "mol", "cd")
PREFIXES = {
    "f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "m": -3, "c": -2, "d": -1, "h": 2, "k": 3, "M": 6, "G": 9, "T": 12,
}  # fmt: skip
SCALED = {
    "m": "meter", "g": "gram", "s": "second", "A": "ampere", "K": "kelvin", "mol": "mole", "cd": "candela",
    "N": "newton", "J": "joule", "W": "watt", "Pa": "pascal", "V": "volt", "C": "coulomb", "F": "farad", "ohm": "ohm",
    "Ω": "ohm", "Hz": "hertz", "T": "tesla", "Wb": "weber", "S": "siemens", "L": "liter", "l": "liter",
    "eV": "electron_volt", "bar": "bar", "cal": "calorie", "Wh": "watt_hour", "Ws": "joule", "Ah": "ampere_hour",
}  # fmt: skip
PLAIN = {
    "min": "minute", "h": "hour", "hr": "hour", "d": "day", "yr": "year", "degC": "degC", "°C": "degC",
    "degF": "degF", "°F": "degF", "%": "percent", "rad": "radian", "atm": "atmosphere", "mmHg": "mmHg", "torr": "torr",
    "ha": "hectare", "t": "metric_ton", "u": "dalton", "Da": "dalton", "M": "mole/liter", "H": "henry",
    "ft": "foot", "in": "inch", "mi": "mile", "lb": "pound", "mph": "mile/hour", "kph": "kilometer/hour",
    "Nm": "newton*meter",
}  # fmt: skip
WORDS = {  # spelled out, any case, with or without an s
    "meter": "m", "metre": "m", "gram": "g", "second": "s", "sec": "s", "ampere": "A", "amp": "A", "kelvin": "K",
    "mole": "mol", "newton": "N", "joule": "J", "watt": "W", "pascal": "Pa", "volt": "V", "coulomb": "C", "farad": "F",
    "ohm": "ohm", "hertz": "Hz", "tesla": "T", "liter": "L", "litre": "L", "electronvolt": "eV", "calorie": "cal",
    "minute": "min", "hour": "h", "day": "d", "year": "yr", "celsius": "degC", "fahrenheit": "degF", "percent": "%",
}  # fmt: skip
PREFIX_WORDS = {"kilo": "k", "mega": "M", "giga": "G", "centi": "c", "milli": "m", "micro": "u", "nano": "n"}

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_TEXT = (r"\\(?:text|textrm|textup|mathrm|mathbf|rm)\{([^{}]*)\}", r"\1")
_LATEX = (  # in this order
    (r"\\(?:cdot|times)(?![A-Za-z])|[·⋅×]", "*"),
    (r"\\mu(?![A-Za-z]) ?|\u03bc", "µ"),
    (r"\\Omega(?![A-Za-z])|\u2126", "Ω"),
    (r"\^?\{?\\(?:circ|degree)(?![A-Za-z])\}? ?|º", "°"),
    (r"\\approx(?![A-Za-z])|≈", "="),
    (r"\\[,;:! ]|~", " "),
    _TEXT,
    (r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)"),
    _TEXT,  # once more: it may have stood around the fraction
    (r"\{,\}", ","),
    (r"\\%", "%"),
    (r"−", "-"),
    (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]{1,3}", lambda m: "^" + m[0].translate(_SUPERSCRIPTS)),
    (r"\*\*", "^"),
    (r"\^ ?[({] ?([+-]?[0-9]{1,2}) ?[)}]", r"^\1"),
    (r"(?i)\bdegrees? (c)(?:elsius)?\b|\bdegrees? (f)(?:ahrenheit)?\b", lambda m: f"deg{(m[1] or m[2]).upper()}"),
    (r"° (?=[CF]\b)", "°"),
)
_REPLACE = tuple((re.compile(pattern), by) for pattern, by in _LATEX)
_NAMED = re.compile(r"(?:\\?[A-Za-z][A-Za-z0-9_]{0,9} ?)?= ?")  # "F = 168 N", "≈ 168 N"
_NUMBER = re.compile(
    r"10\^([+-]?[0-9]{1,2})(?![0-9])|([+-]?(?:(?:[0-9]{1,3}(?:,[0-9]{3}){1,9}|[0-9]{1,40})(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))"
    r"(?:[eE]([+-]?[0-9]{1,2})(?![0-9])| ?[x*] ?10\^([+-]?[0-9]{1,2})(?![0-9]))?"
)
_FACTOR = r"[A-Za-zµΩ°%]{1,20}(?:\^?[+-]?[0-9]{1,2})?"
_PRODUCT = rf"{_FACTOR}(?:\*{_FACTOR})*"
_BELOW = rf"/(?:{_FACTOR}|\({_PRODUCT}\))"
_UNIT = re.compile(rf"(?:(?:{_PRODUCT}|\({_PRODUCT}\))(?:{_BELOW})*|(?:1|\(1\))?(?:{_BELOW})+)?")
_PART = re.compile(r"([A-Za-zµΩ°%]+)\^?([+-]?[0-9]+)?")


class Unit(NamedTuple):
    """One factor of a unit, or a whole unit: its worth in base units and its powers of `BASE`."""

    up: Decimal
    down: Decimal
    powers: tuple[int, ...]
    offset: Decimal


class Quantity(NamedTuple):
    """`number` as it was written; `written`: whether a unit stands beside it."""

    number: Decimal
    unit: Unit
    written: bool

    @property
    def base(self) -> Decimal:
        with localcontext(EXACT):
            return self.number * self.unit.up / self.unit.down + self.unit.offset


NO_UNIT = Unit(Decimal(1), Decimal(1), (0,) * len(BASE), Decimal(0))


def parse(text: str) -> Quantity | None:
    """The quantity that the whole of `text` is, or None. "168 N", "F = 168 N", "1.68e2 kg m s^-2", "0.5", "25 %"."""
    if len(text) > MAX_TEXT:
        return None
    text = _plain(text)
    named = _NAMED.match(text)
    text = text[named.end() :] if named else text
    found = _NUMBER.match(text) if text.isprintable() else None
    unit = read_unit(text[found.end() :]) if found else None
    return Quantity(_value(found), unit, bool(text[found.end() :].strip())) if unit else None


def parse_end(text: str) -> Quantity | None:
    """The longest quantity that `text` ends with, if its last line ends with one: "So the force is 168 N."."""
    line = _plain(text[-MAX_TEXT:].rstrip().rpartition("\n")[2])
    starts = (match.start() for match in re.finditer(r"(?<![A-Za-z0-9.,^])[+-]?\.?[0-9]", line))
    return next((found for start in starts if (found := parse(line[start:])) is not None), None)


def read_unit(text: str) -> Unit | None:
    """The unit that `text` is ("" is none: dimensionless); None if it holds anything that is not a known unit."""
    text = re.sub(r" ?([*/]) ?| per | (?=[A-Za-zµΩ°%])", lambda m: m[1] or ("/" if "per" in m[0] else "*"), text)
    text = text.strip().removeprefix("*")
    if len(text) > MAX_UNIT or not _UNIT.fullmatch(text):
        return None
    return _multiply(text)


def same(answer: Quantity, gold: Quantity, tolerance: float) -> bool:
    """Whether they are of one dimension and |answer - gold| <= tolerance * |gold|, both in the unit of `gold`."""
    if answer.unit.powers != gold.unit.powers:
        return False
    with localcontext(EXACT):
        converted = (answer.base - gold.unit.offset) * gold.unit.down / gold.unit.up
        return abs(converted - gold.number) <= Decimal(repr(tolerance)) * abs(gold.number)


def same_scale(one: Unit, other: Unit) -> bool:
    """Whether a number means the same with either unit: N and kg*m/s^2, not m/s and km/h."""
    with localcontext(EXACT):
        return one.powers == other.powers and one.offset == other.offset and one.up * other.down == other.up * one.down


def spell(quantity: Quantity, digits: int = DIGITS) -> str:
    """One spelling for equal quantities, in base units, rounded: "168 N" and "0.168 kN" are both "168 kg*m/s^2"."""
    value = Context(prec=digits).plus(quantity.base).normalize()
    number = spell_number(value) if -5 < value.adjusted() < 12 else f"{value:e}"
    top = "*".join(_power(s, p) for s, p in zip(SYMBOLS, quantity.unit.powers, strict=True) if p > 0)
    bottom = "".join(f"/{_power(s, -p)}" for s, p in zip(SYMBOLS, quantity.unit.powers, strict=True) if p < 0)
    return f"{number} {top or '1'}{bottom}" if top or bottom else number


def _power(symbol: str, power: int) -> str:
    return symbol if power == 1 else f"{symbol}^{power}"


def _plain(text: str) -> str:
    """Without LaTeX, with ASCII signs and single spaces."""
    text = " ".join(text.strip(" \t\r\n$").split())
    for pattern, by in _REPLACE:
        text = pattern.sub(by, text)
    return " ".join(text.split()).removesuffix(".").rstrip()


def _value(found: re.Match) -> Decimal:
    ten, mantissa, e, times = found.groups()
    with localcontext(EXACT):
        return Decimal((mantissa or "1").replace(",", "")).scaleb(int(e or times or ten or 0))


def _multiply(text: str) -> Unit | None:
    """The product of the factors of a unit that has the right form, or None if one is unknown."""
    parts = []
    for i, side in enumerate(text.split("/")):  # brackets hold no slash
        for symbol, power in _PART.findall(side):
            factor, p = symbols().get(symbol), int(power or 1)
            if factor is None or abs(p) > MAX_POWER:
                return None
            parts.append((factor, p if i == 0 else -p))
    if len(parts) == 1 and parts[0][1] == 1:
        return parts[0][0]
    powers = tuple(sum(f.powers[i] * p for f, p in parts) for i in range(len(BASE)))
    with localcontext(EXACT):
        up = prod((f.up if p > 0 else f.down) ** abs(p) for f, p in parts)
        down = prod((f.down if p > 0 else f.up) ** abs(p) for f, p in parts)
    return Unit(Decimal(up), Decimal(down), powers, Decimal(0))


@lru_cache
def symbols() -> dict[str, Unit]:
    """Every symbol and word that is known, and its unit. Asks pint, the first time; opens no file after that."""
    import pint

    registry = pint.UnitRegistry()
    plain = {s: _ask(registry, n) for s, n in (SCALED | PLAIN).items()}
    known = {f"{p}{s}": _scale(plain[s], k) for s in SCALED for p, k in PREFIXES.items()} | plain
    words = {f"{p}{word}": f"{k}{s}" for word, s in WORDS.items() if s in SCALED for p, k in PREFIX_WORDS.items()}
    words |= WORDS | {f"deg{word}": WORDS[word] for word in ("celsius", "fahrenheit")}
    spelled = {word + end: known[s] for word, s in words.items() for end in ("", "s")}
    return {form: u for w, u in spelled.items() for form in (w, w.capitalize(), w.upper())} | known


def _ask(registry, name: str) -> Unit:
    """What pint says of one unit. Twelve digits: floats such as 0.1**3 are 0.001 again."""
    zero, one = (registry.Quantity(x, name).to_base_units() for x in (0.0, 1.0))
    powers = tuple(int(zero.units._units.get(base, 0)) for base in BASE)
    up = Decimal(f"{one.magnitude - zero.magnitude:.12g}")
    return Unit(up, Decimal(1), powers, Decimal(f"{zero.magnitude:.12g}"))


def _scale(unit: Unit, power: int) -> Unit:
    return unit._replace(up=unit.up.scaleb(power))
