"""Fees: half up to a minor unit, never more than the amount, never below zero."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import MAX_AMOUNT_MINOR
from core.payables.fees import BASIS, fee


@pytest.mark.parametrize(
    ("amount", "bps", "expected"),
    [
        (10_000, 150, 150),
        (333, 150, 5),  # 4.995
        (33, 150, 0),  # 0.495
        (34, 150, 1),  # 0.51
        (100, 50, 1),  # 0.5 is rounded up
        (99, 50, 0),
        (1, 10_000, 1),
        (1, 1, 0),
        (5_000, 1, 1),
        (4_999, 1, 0),
        (0, 150, 0),
        (-5, 150, 0),
        (100, 0, 0),
        (100, -1, 0),
        (MAX_AMOUNT_MINOR, 10_000, MAX_AMOUNT_MINOR),
    ],
)
def test_fees(amount: int, bps: int, expected: int) -> None:
    assert fee(amount, bps) == expected


@given(st.integers(1, MAX_AMOUNT_MINOR), st.integers(0, BASIS))
def test_nearest_minor_unit(amount: int, bps: int) -> None:
    exact = Fraction(amount * bps, BASIS)
    found = fee(amount, bps)
    assert 0 <= found <= amount
    assert -Fraction(1, 2) < found - exact <= Fraction(1, 2)
    assert found <= fee(amount + 1, bps)
