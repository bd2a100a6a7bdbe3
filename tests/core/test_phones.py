"""Phones: one form for each SIM, in whatever way it was written."""

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.phones import cleaned, masked, may_get_messages, normalized, spellings

SYRIAN = "+963944123456"


@pytest.mark.parametrize(
    ("text", "phone"),
    [
        (SYRIAN, SYRIAN),
        (" +963 (944) 123-456 ", SYRIAN),
        ("00963944123456", SYRIAN),
        ("0944123456", SYRIAN),
        ("944123456", SYRIAN),
        ("963944123456", SYRIAN),
        ("+963 (0) 944 123 456", SYRIAN),
        ("+9630944123456", SYRIAN),
        ("+96300944123456", SYRIAN),
        ("tel:+963-944-123-456", SYRIAN),
        ("+٩٦٣ ٩٤٤ ١٢٣ ٤٥٦", SYRIAN),
        ("+९६३९४४१२३४५६", SYRIAN),
        ("\uff0b\uff19\uff16\uff13\u3000944\u2011123\u2013456", SYRIAN),
        ("\u202a+963944123456\u202c", SYRIAN),
        ("+44 (0)20 7946 0018", "+442079460018"),
        ("+39 06 1234 5678", "+390612345678"),
        ("+39 (0)6 1234 5678", "+390612345678"),
        ("+7 8 912 345-67-89", "+79123456789"),
        ("+54 11 15 2345 6789", "+5491123456789"),
        ("+٩٦٣ (٠) ٩٤٤ ١٢٣ ٤٥٦", SYRIAN),
        # Extensions, in any way of writing them, are no part of a number.
        ("+963944123456 ext. 12", ""),
        ("+963944123456x12", ""),
        ("+963944123456;ext=12", ""),
        ("+963944123456,,12", ""),
        ("+963944123456#12", ""),
        # One slash may stand within a number; two numbers are none.
        ("0944/123456", SYRIAN),
        ("+49 30/123456", "+4930123456"),
        ("+963955200102 / 963955200103", ""),
        ("+963955200102/3", ""),
        ("0944/123/456", ""),
        ("+963955200102 963955200103", ""),
        ("0955 200 102 - 0955 200 103", ""),
        ("+14155552671\n14155552672", ""),
        ("+963944~123456", ""),
        # Unknown to the library: as they were spelled.
        ("+999 123 456", "+999123456"),
        ("+9639441234567890123", "+9639441234567890123"),
        ("094412345", "+96394412345"),
        ("09441234", "09441234"),
        ("", ""),
        ("none", ""),
        ("+", ""),
        ("00", ""),
        ("12+34", ""),
        ("++963944123456", ""),
        ("1" * 40, ""),
        ("+963944123456" + " " * 60, ""),
    ],
)
def test_normalized(text: str, phone: str) -> None:
    assert normalized(text) == phone


REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(REGIONS), st.sampled_from(["mobile", "fixed"]), st.randoms(use_true_random=False))
def test_one_number_has_one_form(region: str, kind: str, random: object) -> None:
    """Each way of writing a number of each country is one form, and the form is its own."""
    of_kind = (
        phonenumbers.PhoneNumberType.MOBILE if kind == "mobile" else phonenumbers.PhoneNumberType.FIXED_LINE
    )
    number = phonenumbers.example_number_for_type(region, of_kind)
    if number is None:
        return
    form = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    trunk = phonenumbers.ndd_prefix_for_region(region, True) or ""
    national = phonenumbers.national_significant_number(number)
    spaced = " - ".join(form[1:])
    for text in (form, f"00{form[1:]}", f"+{spaced}"):
        assert normalized(text) == form
    assert normalized(f"+{number.country_code}{trunk}{national}") in {
        form,
        f"+{number.country_code}{trunk}{national}",
    }
    assert normalized(form) == form
    assert spellings(form).normalized == form


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="0123456789+-() ext#٣۴", max_size=24))
def test_a_form_stays(text: str) -> None:
    form = normalized(text)
    assert normalized(form) == form
    assert form == "" or cleaned(form) == form


def test_who_may_get_messages() -> None:
    assert may_get_messages("+963944123456")
    assert may_get_messages("+14155552671")
    for phone in ("+19005551234", "+99912345678", "+9639441234567890", "0944123456", "", "+"):
        assert not may_get_messages(phone), phone


def test_masked() -> None:
    assert masked("+963944123456") == "+963…56"
