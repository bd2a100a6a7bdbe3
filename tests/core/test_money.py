from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import money
from core.errors import Refusal

AMOUNTS = st.integers(1, money.MAX_AMOUNT_MINOR)


def test_amounts_are_what_a_bigint_holds() -> None:
    assert money.check_amount(1) == 1
    assert money.check_amount(2**63 - 1) == 2**63 - 1
    for bad in (0, -1, 2**63):
        with pytest.raises(Refusal, match="from 1 to 9223372036854775807") as caught:
            money.check_amount(bad, "legs[1].amount")
        assert caught.value.extra == {"field": "legs[1].amount"}


@pytest.mark.parametrize("code", ["EUR", "SYP", "USDT", "POINTS2024", "A1B2C3D4E5F6"])
def test_currencies(code: str) -> None:
    assert money.check_currency(code) == code


@pytest.mark.parametrize(
    "code", ["", "EU", "eur", "EUR ", "EUR\n", "\N{CYRILLIC CAPITAL LETTER IE}UR", "EU-R", "A" * 13]
)
def test_what_is_no_currency(code: str) -> None:
    with pytest.raises(Refusal, match="currency is 3 to 12"):
        money.check_currency(code)


@pytest.mark.parametrize(
    ("amount", "bps", "fee"),
    [
        (10_000, 150, 150),
        (1, 5_000, 1),  # half a unit is rounded up
        (1, 4_999, 0),
        (33, 150, 0),
        (34, 150, 1),
        (100, 0, 0),
        (100, -5, 0),
        (0, 150, 0),
        (-100, 150, 0),
        (money.MAX_AMOUNT_MINOR, 10_000, money.MAX_AMOUNT_MINOR),
    ],
)
def test_fee(amount: int, bps: int, fee: int) -> None:
    assert money.fee(amount, bps) == fee


@settings(deadline=None)
@given(AMOUNTS, st.integers(1, 10_000))
def test_fee_is_half_up_and_never_above_the_amount(amount: int, bps: int) -> None:
    exact = Decimal(amount * bps).scaleb(-4)
    assert money.fee(amount, bps) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))
    assert 0 <= money.fee(amount, bps) <= amount


@pytest.mark.parametrize(
    ("text", "exponent", "minor"),
    [
        ("19.99", 2, 1999),
        ("4.35", 2, 435),  # 434 as a binary float
        ("-0.01", 2, -1),
        ("100", 2, 10_000),
        ("1.500", 2, 150),
        ("007.1", 3, 7_100),
        ("12", 0, 12),
        ("12.0", 0, 12),
        ("0.00000001", 8, 1),
        ("92233720368547758.07", 2, 2**63 - 1),
    ],
)
def test_decimal_text_to_minor_units(text: str, exponent: int, minor: int) -> None:
    assert money.minor_of(text, exponent) == minor


@pytest.mark.parametrize(
    ("text", "exponent"),
    [
        ("", 2), ("1.", 2), (".5", 2), ("1.005", 2), ("1.5", 0), ("1e2", 2), ("+1", 2), ("1,5", 2), ("1_000", 2),
        (" 1", 2), ("1\n", 2), ("NaN", 2), ("Infinity", 2), ("\N{ARABIC-INDIC DIGIT ONE}", 2), ("--1", 2),
        ("92233720368547758.08", 2), ("9" * 20, 0), ("0." + "0" * 19, 2),
    ],
)  # fmt: skip
def test_what_is_no_amount(text: str, exponent: int) -> None:
    with pytest.raises(Refusal) as caught:
        money.minor_of(text, exponent)
    assert caught.value.code == "invalid_request"


@settings(deadline=None)
@given(st.integers(-money.MAX_AMOUNT_MINOR, money.MAX_AMOUNT_MINOR), st.integers(0, money.MAX_EXPONENT))
def test_minor_units_survive_the_way_through_text(minor: int, exponent: int) -> None:
    text = money.decimal_of(minor, exponent)
    assert money.minor_of(text, exponent) == minor
    assert Decimal(text) == Decimal(minor).scaleb(-exponent)
