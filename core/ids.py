"""Identifiers: UUIDv7 for rows, request ids, and W3C trace contexts."""

from __future__ import annotations

import hashlib
import os
import random
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from asyncpg.pgproto import pgproto

_RANDOM_BITS = 74
_COUNTER_STEP_BITS = 32
# Ids are made by the clock of a process, the times of rows by that of the database; they differ by less.
CLOCK_SLACK: Final = timedelta(hours=1)
_EARLIEST, _LATEST = UUID(int=0), UUID(int=2**128 - 1)
_FIRST_MOMENT, _LAST_MOMENT = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
# A request id is visible ASCII and bounded, because it is echoed in a header and stands in every log line.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
# https://www.w3.org/TR/trace-context-1/#traceparent-header; a later version may append fields, version ff is invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?"
)
_MOST_TRACEPARENT = 512

# Ids are names and not secrets, and the Mersenne Twister is ten times as fast as the kernel. A forked child must not
# continue its parent's sequence.
_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)

# A trace or a span of zeros is invalid, so the last bit of each is set.
_NOT_ZERO = 1 << 64 | 1
_lock = threading.Lock()
_last_millisecond = 0
_last_random = 0


def new_uuid() -> UUID:
    """Return a UUIDv7 (RFC 9562 section 5.7) greater than every one that this process made before."""
    return UUID(int=_next_uuid())


def new_row_id() -> UUID:
    """Return the same as `new_uuid` in the driver's own kind, which is made and printed in a tenth of the time.

    It is a uuid.UUID for all but orjson, so it stays between us and the database.
    """
    return pgproto.UUID(_next_uuid().to_bytes(16, "big"))


def _next_uuid() -> int:
    """Return the number of the next UUIDv7.

    Within a millisecond the random part grows by a random step (section 6.2, method 2); a clock that stands or goes
    back keeps the last millisecond, and a random part that is used up takes the next one.
    """
    global _last_millisecond, _last_random
    with _lock:
        millisecond = time.time_ns() // 1_000_000
        if millisecond > _last_millisecond:
            tail = _random.getrandbits(_RANDOM_BITS)
        else:
            millisecond = _last_millisecond
            tail = _last_random + 1 + _random.getrandbits(_COUNTER_STEP_BITS)
            if tail >> _RANDOM_BITS:
                millisecond += 1
                tail = _random.getrandbits(_RANDOM_BITS)
        _last_millisecond, _last_random = millisecond, tail
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return (millisecond << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low


def first_uuid_at(moment: datetime) -> UUID:
    """Return the least UUIDv7 that can have been made at `moment` or later."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)


def derived_uuid(name: str, moment: datetime) -> UUID:
    """Return a UUIDv7 of `moment`, the same for the same name and time: a row of before has its place by id, too."""
    digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    return UUID(int=first_uuid_at(moment).int | 0x7 << 76 | 0b10 << 62 | digest & (1 << 62) - 1)


def span_of(since: datetime | None, until: datetime | None) -> tuple[UUID, UUID]:
    """Return ids between which all rows lie that the database wrote from `since` to `until`.

    The bounds save a look at all rows. A row's own time decides, since the clock that made its id is another one.
    """
    first = _EARLIEST if since is None else first_uuid_at(within_calendar(since) - CLOCK_SLACK)
    last = _LATEST if until is None else first_uuid_at(within_calendar(until) + CLOCK_SLACK)
    return first, last


def within_calendar(moment: datetime) -> datetime:
    """Return `moment`, or the nearest time from which an hour or an offset does not lead out of the calendar.

    PostgreSQL's driver writes the ends of the calendar as infinite. No row is older or newer than these bounds.
    """
    return min(max(moment, _FIRST_MOMENT), _LAST_MOMENT)


def short_number(id_: UUID) -> int:
    """Return a number of 53 bits that grows with the time of a UUIDv7, for clients that know integers only.

    It has 41 bits of milliseconds, which last until 2039, and 12 random bits; two ids of one millisecond rarely agree.
    """
    return (id_.int >> 80 & (1 << 41) - 1) << 12 | (id_.int >> 64 & 0xFFF)


def new_request_id() -> str:
    """Return 32 random hex digits."""
    return f"{_random.getrandbits(128):032x}"


def new_exchange() -> tuple[str, str]:
    """Return a new request id, and the `traceparent` of a new trace: one draw and one text for all three of them."""
    digits = (_random.getrandbits(320) | _NOT_ZERO).to_bytes(40, "big").hex()
    return digits[:32], f"00-{digits[32:64]}-{digits[64:]}-00"


def request_id_of(header: str | None) -> str:
    """Return the caller's request id, or a new one if it is absent, longer than 128 or not visible ASCII."""
    return header if header and _REQUEST_ID.fullmatch(header) else new_request_id()


def trace_id_of(header: str | None, traceparent: str | None) -> str | None:
    """Return the trace id for the answer: the caller's X-Trace-Id if it is sane, else that of `traceparent`.

    `traceparent` comes from `continue_trace`; None where the caller sent none.
    """
    if header is not None and _REQUEST_ID.fullmatch(header):
        return header
    return None if traceparent is None else traceparent[3:35]


def continue_trace(traceparent: str | None) -> str:
    """Return the `traceparent` of a span of our own, in the caller's trace, or in a new one if that is unreadable.

    A later version is read as far as version 00 goes, as the specification asks, and passed on as version 00.
    """
    match = (
        _TRACEPARENT.fullmatch(traceparent) if traceparent and len(traceparent) <= _MOST_TRACEPARENT else None
    )
    span_id = _random.getrandbits(64) | 1  # all zeros is invalid
    if match is None or (match[1] == "00" and match[4] is not None):
        return f"00-{_random.getrandbits(128) | 1:032x}-{span_id:016x}-00"
    return f"00-{match[2]}-{span_id:016x}-{int(match[3], 16) & 1:02x}"
