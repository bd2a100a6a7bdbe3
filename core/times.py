"""Times as text and as Unix seconds, floored to the microsecond: rounding up would move one into the next year."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_MORE_DIGITS = re.compile(r"([.,][0-9]{6})[0-9]+", re.ASCII)


def floored(text: str) -> str:
    """Return the text of a time with six digits of a second at most.

    >>> floored("2025-12-31T23:59:59.999999999Z")
    '2025-12-31T23:59:59.999999Z'
    """
    return _MORE_DIGITS.sub(r"\1", text)


def from_seconds(text: str) -> datetime:
    """Return the time of Unix seconds, written as digits with or without a fraction.

    >>> from_seconds("1767225599.999999999").isoformat()
    '2025-12-31T23:59:59.999999+00:00'
    """
    seconds, _, fraction = text.partition(".")
    return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(f"{fraction:0<6}"[:6]))


def seconds_of_retry_after(text: str) -> float | None:
    """Return the seconds that a `Retry-After` asks to wait, given as such or as a date (RFC 9110, section 10.2.3).

    None for a text that is neither.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    # The standard library's reader has an error of its own for each way of writing a date wrongly.
    with contextlib.suppress(Exception):
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # `-0000`, which says that the zone is not known
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return None
