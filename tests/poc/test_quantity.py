"""Quantities with units: a table of verdicts worked by hand, and what no text may do."""

import time
from functools import lru_cache

import pint
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc.records import Example
from poc.tasks import quantity, science

CASES = [  # marked text, gold, verdict at a relative tolerance of 1e-6
    ("168 N", "168 N", "correct"),
    ("168N", "168 N", "correct"),
    ("0.168 kN", "168 N", "correct"),
    ("168000 mN", "168 N", "correct"),
    ("168 kg*m/s^2", "168 N", "correct"),
    ("168 kg m s^-2", "168 N", "correct"),
    ("168 kg·m/s²", "168 N", "correct"),
    ("168 kg⋅m⋅s⁻²", "168 N", "correct"),
    ("168 m*kg/s/s", "168 N", "correct"),
    ("168 newtons", "168 N", "correct"),
    ("168 Newton", "168 N", "correct"),
    ("F = 168 N", "168 N", "correct"),
    ("≈ 168 N", "168 N", "correct"),
    ("168 N.", "168 N", "correct"),
    ("168.0 N", "168 N", "correct"),
    ("+168 N", "168 N", "correct"),
    ("1.68e2 N", "168 N", "correct"),
    ("1.68 x 10^2 N", "168 N", "correct"),
    ("1.68 × 10² N", "168 N", "correct"),
    ("1.68 \\times 10^{2}\\,\\text{N}", "168 N", "correct"),
    ("168\\ \\mathrm{kg}\\cdot\\mathrm{m}/\\mathrm{s}^{2}", "168 N", "correct"),
    ("168\\,\\mathrm{\\frac{kg\\cdot m}{s^2}}", "168 N", "correct"),
    ("$168~\\text{N}$", "168 N", "correct"),
    ("-168 N", "168 N", "wrong"),
    ("168 J", "168 N", "wrong"),
    ("168 kg*m/s", "168 N", "wrong"),
    ("168 mN", "168 N", "wrong"),
    ("168.001 N", "168 N", "wrong"),
    ("168.0001 N", "168 N", "correct"),  # 6e-7 off
    ("1.68e3 N", "168 N", "wrong"),
    ("168", "168 N", "unparsable"),
    ("N", "168 N", "unparsable"),
    ("168 apples", "168 N", "unparsable"),
    ("168 N or 169 N", "168 N", "unparsable"),
    ("168 N, 169 N", "168 N", "unparsable"),
    ("24*7 N", "168 N", "unparsable"),
    ("336/2 N", "168 N", "unparsable"),
    ("1,68 N", "168 N", "unparsable"),
    ("16 8 N", "168 N", "unparsable"),
    ("168 ± 1 N", "168 N", "unparsable"),
    ("١٦٨ N", "168 N", "unparsable"),
    ("168 Ｎ", "168 N", "unparsable"),
    ("168 Ν", "168 N", "unparsable"),  # a Greek capital Nu
    ("nan N", "168 N", "unparsable"),
    ("inf N", "168 N", "unparsable"),
    ("168e999 N", "168 N", "unparsable"),
    ("168 N^99", "168 N", "unparsable"),
    ("9^9^9^9 N", "168 N", "unparsable"),
    ("__import__('os') N", "168 N", "unparsable"),
    ("10,000 m", "10 km", "correct"),
    ("36 km/h", "10 m/s", "correct"),
    ("600 m/min", "10 m/s", "correct"),
    ("10 meters per second", "10 m/s", "correct"),
    ("10 m s", "10 m/s", "wrong"),
    ("3.6 MJ", "1 kWh", "correct"),
    ("3600000 W*s", "1 kWh", "correct"),
    ("20 degC", "293.15 K", "correct"),
    ("20 °C", "293.15 K", "correct"),
    ("20^\\circ\\text{C}", "293.15 K", "correct"),
    ("20 degrees Celsius", "293.15 K", "correct"),
    ("68 °F", "20 degC", "correct"),
    ("293.15 K", "20 degC", "correct"),
    ("20 K", "20 degC", "wrong"),
    ("0 degC", "20 degC", "wrong"),
    ("4186 J/(kg*K)", "4.186 kJ/(kg*K)", "correct"),
    ("4186 J/kg/K", "4.186 kJ/(kg*K)", "correct"),
    ("4.186 J/(g °C)", "4.186 kJ/(kg*K)", "correct"),  # a difference, so 1 °C is 1 K
    ("4186 J/kg*K", "4.186 kJ/(kg*K)", "unparsable"),  # read in two ways
    ("5 kΩ", "5000 ohm", "correct"),
    ("5\\,\\mathrm{k}\\Omega", "5000 ohm", "correct"),
    ("5000 V/A", "5000 ohm", "correct"),
    ("5 µm", "5e-6 m", "correct"),
    ("5 \\mu\\text{m}", "5e-6 m", "correct"),
    ("5 um", "5e-6 m", "correct"),
    ("5 mm", "5e-6 m", "wrong"),
    ("5 Mm", "5 mm", "wrong"),
    ("50 Hz", "50 1/s", "correct"),
    ("50 s^{-1}", "50 1/s", "correct"),
    ("1.602176634e-19 J", "1 eV", "correct"),
    ("101325 Pa", "1 atm", "correct"),
    ("0.5 L", "500 cm^3", "correct"),
    ("1000 kg/m3", "1 g/cm^3", "correct"),
    ("0.25", "0.25", "correct"),
    ("2.5 × 10⁻¹", "0.25", "correct"),
    ("25 %", "0.25", "correct"),
    ("25", "0.25", "wrong"),
    ("0.25 m", "0.25", "wrong"),
    ("10^{-3} m", "1 mm", "correct"),
]


@lru_cache
def own_registry():
    return pint.UnitRegistry()


@pytest.mark.parametrize("text,gold,status", CASES)
@pytest.mark.parametrize("frame", ["so #{}", "\\boxed{{{}}}", "<answer>{}</answer>"])
def test_verdicts(text, gold, status, frame):
    verdict = science.score(Example("x", "?", gold, "science"), frame.format(text))
    assert verdict.status == status
    assert verdict.formatted == (status != "unparsable")


def test_the_table_is_long_enough():
    assert len(CASES) >= 60 and {status for *_, status in CASES} == {"correct", "wrong", "unparsable"}


@pytest.mark.parametrize("name,unit", [*(quantity.SCALED | quantity.PLAIN).items()])
def test_every_symbol_is_worth_what_pint_says(name, unit):
    registry = own_registry()
    for number in (1.0, 37.5):
        base = registry.Quantity(number, unit).to_base_units().magnitude
        assert float(quantity.parse(f"{number} {name}").base) == pytest.approx(base, rel=1e-11)


@settings(max_examples=100, deadline=None)
@given(
    st.decimals(-(10**6), 10**6, places=4), st.sampled_from(list(quantity.PREFIXES)), st.sampled_from("m s N V".split())
)
def test_one_spelling_whatever_the_prefix(number, prefix, unit):
    scaled = number.scaleb(-quantity.PREFIXES[prefix])
    one, other = quantity.parse(f"{number:f} {unit}"), quantity.parse(f"{scaled:f} {prefix}{unit}")
    assert quantity.spell(one) == quantity.spell(other)
    assert quantity.same(other, one, 0.0)


@pytest.mark.parametrize(
    "text,spelled",
    [
        ("168 N", "168 kg*m/s^2"),
        ("0.168 kN", "168 kg*m/s^2"),
        ("20 degC", "293.15 K"),
        ("50 Hz", "50 1/s"),
        ("6.62607015e-34 J*s", "6.62607e-34 kg*m^2/s"),
        ("-0 m", "0 m"),
        ("1234567 m", "1234570 m"),
        ("25 %", "0.25"),
    ],
)
def test_the_spelling_is_in_base_units_and_six_digits(text, spelled):
    assert quantity.spell(quantity.parse(text)) == spelled


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="0123456789.,eE+-^*/() xmsNkgµΩ°%²⁻·\\{}textfrac", max_size=60))
def test_no_text_raises_and_what_is_read_can_be_spelled_and_read_again(text):
    found = quantity.parse(text)
    quantity.parse_end(text)
    if found:
        again = quantity.parse(quantity.spell(found, 30))
        assert again is not None and again.unit.powers == found.unit.powers


@pytest.mark.parametrize(
    "text",
    [
        "9" * 200_000 + " N",
        "168 " + "N" * 200_000,
        "168 " + "m*" * 100_000 + "m",
        "168 " + "m/" * 90 + "m",
        "168 " + "(" * 200,
        "1e99 " + "km^12*" * 6,
        "1e99 Tm^12*Tm^12*Tm^12",
        "\\frac{" * 30 + "}" * 30,
        "1" + "^9" * 90,
        "1 " * 100,
        "-" * 199,
        "1,000" * 39,
        "1e-99 fm^12",
    ],
)
def test_hostile_texts_are_judged_at_once_and_never_right(text):
    start = time.perf_counter()
    verdict = science.score(Example("x", "?", "168 N", "science"), f"#{text}")
    assert verdict.status in ("wrong", "unparsable")
    assert time.perf_counter() - start < 0.25


def test_a_gold_that_is_no_quantity_is_the_callers_mistake():
    with pytest.raises(ValueError, match="'much' of x is no quantity"):
        science.score(Example("x", "?", "much", "science"), "#1 N")
