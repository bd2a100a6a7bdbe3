"""Amounts as people write and read them; everywhere else an amount is a whole number of minor units."""

from __future__ import annotations

import re
from typing import Final

from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR, decimals

# A longer text is no amount.
MAX_CHARACTERS: Final = 40

_BLANKS = re.compile(r"[\s\u00a0\u202f\u2009'\u2019\u066c]")


def shown(amount: int, currency: str) -> str:
    """Return `amount` minor units as a text for people, with a space that does not break.

    >>> shown(123456, "SYP").replace(chr(0xA0), " "), shown(5, "JPY").replace(chr(0xA0), " ")
    ('SYP 1,234.56', 'JPY 5')
    """
    places = decimals(currency)
    whole, rest = divmod(abs(amount), 10**places)
    fraction = f".{rest:0{places}}" if places else ""
    sign = "−" if amount < 0 else ""
    return f"{currency}\u00a0{sign}{whole:,}{fraction}"


def read(text: str, currency: str) -> int:
    """Return a typed amount in minor units. Digits of any script count, a point or a comma begins the fraction.

    A text with two meanings is refused: 1,250 is 1250 or, in a currency with thousandths, 1.25.
    Raises Refusal `invalid_amount` with the `fault`: `too_large`, `decimals`, `separators`, empty for any other.

    >>> read("1 250,5", "SYP"), read("1,250", "SYP"), read("0.05", "SYP")
    (125050, 125000, 5)
    """
    plain = _BLANKS.sub("", text[:MAX_CHARACTERS]).replace("\u066b", ".")
    plain = "".join(str(int(character)) if character.isdecimal() else character for character in plain)
    places = decimals(currency)
    fraction = rf"(?:[.,](?P<rest>[0-9]{{1,{places}}}))?" if places else ""
    point = rf"(?:\.(?P<rest>[0-9]{{1,{places}}}))?" if places else ""
    simple = re.fullmatch(rf"(?P<whole>[0-9]{{1,18}}){fraction}", plain)
    grouped = re.fullmatch(rf"(?P<whole>[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,5}}){point}", plain)
    found = simple or grouped
    if found is None or (simple and grouped) or len(text) > MAX_CHARACTERS:
        raise Refusal("invalid_amount", _example(places), fault=_fault(plain, places))
    parts = found.groupdict()
    rest = (parts.get("rest") or "").ljust(places, "0")
    amount = int(parts["whole"].replace(",", "") + rest)
    if not 0 < amount <= MAX_AMOUNT_MINOR:
        raise Refusal("invalid_amount", _example(places), fault="too_large" if amount else "")
    return amount


def _fault(plain: str, places: int) -> str:
    if re.fullmatch(r"[0-9]{19,}|[0-9]{19,}[.,][0-9]*", plain):
        return "too_large"
    if re.fullmatch(
        rf"[0-9]+\.[0-9]{{{places + 1},}}|[0-9]{{1,3}}(?:,[0-9]{{3}})+\.[0-9]{{{places + 1},}}", plain
    ):
        return "decimals"
    if re.fullmatch(r"[0-9][0-9.,]*", plain):
        return "decimals" if re.fullmatch(rf"[0-9]+,[0-9]{{{places + 1},}}", plain) else "separators"
    return ""


def _example(places: int) -> str:
    return f"Write an amount above zero, such as {'12.' + '5'.ljust(places, '0') if places else '12'}."
