"""Phones in the spelling of the wallet contract, section 1.1."""

import pytest

from core.identity.phones import masked, may_get_messages, normalized


@pytest.mark.parametrize(
    ("text", "phone"),
    [
        ("+963944123456", "+963944123456"),
        (" +963 (944) 123-456 ", "+963944123456"),
        ("00963944123456", "+963944123456"),
        ("0944123456", "+963944123456"),
        ("094412345", "+96394412345"),
        ("09441234", "09441234"),
        ("944123456", "944123456"),
        ("", ""),
        ("none", ""),
        ("+", ""),
        ("00", ""),
        ("12+34", ""),
        ("1" * 40, ""),
        ("\u0660\u0661\u0662\u0663", ""),  # digits of another script are no digits here
    ],
)
def test_normalized(text: str, phone: str) -> None:
    assert normalized(text) == phone


def test_who_may_get_messages() -> None:
    assert may_get_messages("+963944123456")
    assert may_get_messages("+14155552671")
    for phone in ("+19005551234", "+99912345678", "+9639441234567890", "0944123456", "", "+"):
        assert not may_get_messages(phone), phone


def test_masked() -> None:
    assert masked("+963944123456") == "+963…56"
