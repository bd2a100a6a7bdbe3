"""Amounts as people write and read them: what is read is exact or refused, never guessed."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR
from core.wallets.amounts import read, shown

CURRENCIES = st.sampled_from(["SYP", "USD", "JPY", "KWD"])


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [
        ("12", "SYP", 1_200),
        ("12.5", "SYP", 1_250),
        ("12,05", "SYP", 1_205),
        ("1,250", "SYP", 125_000),
        ("1,250.50", "SYP", 125_050),
        ("1 250,50", "SYP", 125_050),
        ("1\u202f250\u00a0000", "SYP", 125_000_000),
        ("1'250.5", "SYP", 125_050),
        ("\u0661\u0662\u066b\u0665", "SYP", 1_250),
        ("12", "JPY", 12),
        ("1,200", "JPY", 1_200),
        ("1.250", "KWD", 1_250),
    ],
)
def test_what_people_type(text: str, currency: str, amount: int) -> None:
    assert read(text, currency) == amount


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        *(
            (text, "SYP")
            for text in ("", " ", "0", "0.00", "-1", "+1", "1.234", "1..2", "1,2,3", "12,34,567", "1e3")
        ),
        *(
            (text, "SYP")
            for text in ("0x10", "SYP 5", "½", "²", "1.2.3", "9" * 19, "9" * 41, "1\x005", "nan", "1_000")
        ),
        ("12.5", "JPY"),
        ("1,250", "KWD"),  # 1250 or 1.25: not ours to say
    ],
)
def test_what_is_no_amount(text: str, currency: str) -> None:
    with pytest.raises(Refusal, match="invalid_amount"):
        read(text, currency)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("12.505", "decimals"), ("12,5055", "decimals"), ("1,234.567", "decimals"), ("1.234,50", "separators"),
        ("1,2,3", "separators"), ("9" * 19, "too_large"), ("9" * 18, "too_large"), ("0", ""), ("abc", ""), ("-1", ""),
    ],
)  # fmt: skip
def test_the_fault_of_an_amount(text: str, fault: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(text, "SYP")
    assert refused.value.extra["fault"] == fault


@given(st.integers(1, MAX_AMOUNT_MINOR), CURRENCIES)
def test_what_is_shown_is_read_back(amount: int, currency: str) -> None:
    text = shown(amount, currency).removeprefix(f"{currency}\u00a0")
    try:
        assert read(text, currency) == amount
    except Refusal:
        # More digits than are read, or thousandths without a fraction to tell them from thousands.
        assert amount > 10**17 or currency == "KWD"


@given(st.text(max_size=60), CURRENCIES)
def test_any_text_is_an_amount_or_refused(text: str, currency: str) -> None:
    with contextlib.suppress(Refusal):
        assert 0 < read(text, currency) <= MAX_AMOUNT_MINOR


def test_shown() -> None:
    assert shown(123_456_789, "SYP") == "SYP\u00a01,234,567.89"
    assert shown(5, "KWD") == "KWD\u00a00.005"
    assert shown(-5, "JPY") == "JPY\u00a0\u22125"
