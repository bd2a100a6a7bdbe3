"""Words of Kaspi, which its proxy and the bank itself share: terms of a merchant, statuses, amounts, links."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus, urlsplit

import structlog

from core.inbox.verifying import read_moment
from core.provider_units import from_ledger
from core.providers import reading
from core.providers.calling import unreadable
from core.providers.protocol import EXPIRE_DATE, Sight, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

log = structlog.get_logger(__name__)

NAME: Final = "kaspi"
BIN: Final = "organization_bin"
TOKEN: Final = "device_token"  # noqa: S105 - the name of one
"""Names in an order's `terms`: the merchant's BIN, and the token of its trade point's device."""

# The statuses that the bank documents, and those seen of remote payments. A word that is not here is no end: a wrong
# guess would give up a payment whose money is on its way.
_STANDINGS: Final[Mapping[str, Standing]] = {
    "QrTokenCreated": Standing.OPEN,
    "Wait": Standing.OPEN,
    "RemotePaymentCreated": Standing.OPEN,
    "Created": Standing.OPEN,
    "Processing": Standing.PROCESSING,
    "Processed": Standing.PAID,
    "RemotePaymentPaid": Standing.PAID,
    "Error": Standing.FAILED,
    "Rejected": Standing.FAILED,
    "RemotePaymentRejected": Standing.FAILED,
    "QrTokenDiscarded": Standing.CANCELED,
    "CancelledByUser": Standing.CANCELED,
    "RemotePaymentCanceled": Standing.CANCELED,
    "Expired": Standing.EXPIRED,
    "RemotePaymentExpired": Standing.EXPIRED,
}
# The bank's codes that say nothing of what was done: it was away, or a refund went wrong at its side.
UNSURE: Final = frozenset({"-999", "-99000006"})
# Addresses, and tokens in the query of one, also where the sign before them is percent-encoded.
_ADDRESS: Final = re.compile(r"(?:https?(?::|%3a)|//|token(?:=|%3d))\S+", re.IGNORECASE)
# A shorter token is none, and its letters stand in innocent words.
_LEAST_SECRET: Final = 4
HIDDEN: Final = "***"
_OFFSET: Final = re.compile(r"(?:Z|[+-]\d\d(?::?\d\d)?)$", re.ASCII)


def amount_text(amount: int, currency: str) -> str | None:
    """Return hundredths of KZT as the proxy's clients write them, `19.9` and `100.0`; None for other money.

    >>> amount_text(1_990, "KZT"), amount_text(10_000, "KZT"), amount_text(10_001, "KZT")
    ('19.9', '100.0', '100.01')
    """
    try:
        whole, part = divmod(from_ledger(NAME, amount, currency), 100)
    except ValueError:
        return None
    return f"{whole}.{part // 10}" if part % 10 == 0 else f"{whole}.{part:02}"


def hiding(address: str, *secrets: str | None) -> Callable[[str], str]:
    """Return the function that takes addresses, the host of `address` and `secrets` out of a text of the bank's side.

    A refusal may quote the call that it refuses, and its words go to callers, into rows and into logs.

    >>> hiding("https://proxy.example/api", "t0ken/1")("proxy.example has no t0ken%2F1, see http://x/?a=b")
    '*** has no ***, see ***'
    """
    parts = urlsplit(address)
    # A host of one word, such as `kaspi`, is hidden with its port alone.
    hosts = [one for one in (parts.netloc, parts.hostname or "") if {".", ":"} & set(one)]

    def hide(text: str) -> str:
        text = _ADDRESS.sub(HIDDEN, text)
        for secret in (*secrets, *hosts):
            if secret and len(secret) >= _LEAST_SECRET:
                text = re.sub("".join(map(_spellings, secret)), HIDDEN, text, flags=re.IGNORECASE)
        return text

    return hide


def _spellings(sign: str) -> str:
    """Return the pattern of a sign: as it is, percent-encoded (also twice), as queries, HTML and JSON write it."""
    coded = "".join(f"%(?:25)*{byte:02x}" for byte in sign.encode())
    ways = [
        re.escape(sign),
        coded,
        re.escape(quote_plus(sign)),
        re.escape(html.escape(sign)),
        re.escape(f"\\{sign}"),
    ]
    return f"(?:{'|'.join(ways)})"


def sight_of(status: str, external_id: str | int, hide: Callable[[str], str]) -> Sight:
    """Return what a status tells. Raises UnknownError for an id that is none."""
    standing = _STANDINGS.get(status)
    if standing is None:
        status = hide(status)
        log.warning("kaspi.unknown_status", status=reading.word(status))
        standing = Standing.PROCESSING
    try:
        name = reading.name(external_id)
    except ValueError:
        problem = unreadable(NAME)
    else:
        return Sight(standing, provider_id=name, word=reading.word(status))
    raise problem


def _moment(text: str) -> datetime | None:
    """Return a time that tells its offset. The bank's clock is hours away from UTC, so one without it is none."""
    return read_moment(text) if _OFFSET.search(text) else None


def linked_sight(payment_id: str | int, payment_link: str, expire_date: str | None) -> Sight:
    """Return what a new link tells. Raises UnknownError for one that nobody could pay by, or ask for."""
    expires = reading.word(expire_date)
    try:
        sight = Sight(
            Standing.OPEN,
            provider_id=reading.name(payment_id),
            url=reading.page(payment_link),
            expires_at=_moment(expire_date or ""),
            word="QrTokenCreated",
            names={EXPIRE_DATE: expires} if expires else {},
        )
    except ValueError:
        sight = None
    if sight is None or sight.url is None:  # nobody could pay without an address
        raise unreadable(NAME)
    return sight
