"""Ordering: a message to a payer's phone, or a link, for the organization of a shop. A repeated order is one order.

The contract has no idempotency key, and its clients send a call again after every failure, up to three times within
130 seconds. An order that is identical to an open one is therefore that order:

- to a phone for a day: the bank has asked this payer already, and a second message would let the payer pay twice;
- a link for a minute, which covers a client's time-out and its next try. A link is for nobody in particular: two
  customers who buy the same would else share one link, and the second would have paid by the money of the first.

A closed payment is never given for a new order. A caller who sends an Idempotency-Key decides by it alone.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from core.database import queries
from core.errors import Refusal
from core.payments.kaspi.log import is_unreadable, sentence_of
from core.payments.kaspi.words import CURRENCY, LABEL, SURFACE, caller_of
from core.payments.payments import NewPayment, find_by_key
from core.payments.states import OPEN_STATES, State
from core.providers import kaspi_words as kaspi
from core.providers.kaspi_words import BIN
from core.providers.protocol import Method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.payments.flow import Payments
    from core.payments.kaspi.configs import Configs
    from core.payments.payments import Payment

_sql = queries(__name__)

TO_PHONE: Final = timedelta(hours=24)
BY_LINK: Final = timedelta(seconds=60)
# Codes of an attempt's error by which the bank, or its table in our file, has said no.
_REFUSED: Final = frozenset({"provider_declined", "provider_unsupported"})
# Seconds that a caller waits before the next try at a bank that was not reached.
RETRY_SECONDS: Final = 5.0
MAX_KEY: Final = 250


class Wanted(NamedTuple):
    """An order: `amount` in hundredths of a tenge; without a phone it is for a link."""

    shop_id: int
    amount: int
    message: str
    phone: str | None = None
    key: str | None = None


async def order(payments: Payments, configs: Configs, wanted: Wanted) -> Payment:
    """Order a payment, once for all identical orders; return it as it stands.

    Raises Refusal `kaspi_shop_unknown`, `kaspi_shop_inactive`, `kaspi_no_device`, `kaspi_refused` with the bank's
    words, `kaspi_away` where the bank was not reached or nobody knows of a link, `kaspi_unreadable`, and
    `idempotency_conflict`.
    """
    caller = caller_of(wanted.shop_id)
    if wanted.key is not None:
        request_id = keyed(wanted.key)
        known = await find_by_key(payments.database, SURFACE, caller, request_id)
        if known is not None:
            new = _new(wanted, request_id, known.details.metadata)
            return _told((await payments.create(new)).payment, repeated=True)
    config = await configs.to_pay(wanted.shop_id)
    if wanted.phone is None and not config.device_token:
        raise Refusal(
            "kaspi_no_device",
            f"Device token not configured for shop_id={wanted.shop_id}. Payment links require device token.",
        )
    new = _new(wanted, "same:0", {BIN: config.organization_bin, LABEL: config.provider})
    request_id = await _request_id(payments, new) if wanted.key is None else keyed(wanted.key)
    created = await payments.create(_new(wanted, request_id, new.metadata))
    return _told(created.payment, repeated=created.replayed)


def keyed(key: str) -> str:
    """Return the request id of an Idempotency-Key; one that is too long for the table counts by its digest."""
    return f"key:{key}" if len(key) <= MAX_KEY else f"key-digest:{hashlib.sha256(key.encode()).hexdigest()}"


def next_id(latest: str | None, prefix: str = "same:") -> str:
    """Return the request id of the next order of a kind, after the latest one.

    >>> next_id(None), next_id("same:7"), next_id("same:5000:1", "same:5000:")
    ('same:1', 'same:8', 'same:5000:2')
    """
    return f"{prefix}{int((latest or '0').rpartition(':')[2]) + 1}"


async def _request_id(payments: Payments, new: NewPayment) -> str:
    """Return the request id of the identical order that is open, or a new one.

    The id is made of the order itself and counts upwards. Twins that come at the same time, in any processes, thus get
    the same id, and the engine makes one payment of them.
    """
    digest = new.fingerprint()
    prefix = f"same:{digest.hex()[:32]}:"
    row = await payments.database.fetchrow(_sql.latest_twin, new.caller, digest)
    if row is None:
        return next_id(None, prefix)
    by_link = new.method is Method.PAYMENT_LINK
    young = row["age"] < (BY_LINK if by_link else TO_PHONE).total_seconds()
    # A link that nobody knows of can be given to nobody, and paid by nobody. A new one may take its place.
    open_ = State(row["state"]) in OPEN_STATES and not (by_link and row["state"] == State.UNKNOWN)
    request_id: str = row["request_id"]
    return request_id if open_ and young else next_id(request_id, prefix)


def _new(wanted: Wanted, request_id: str, metadata: Mapping[str, str]) -> NewPayment:
    return NewPayment(
        surface=SURFACE,
        caller=caller_of(wanted.shop_id),
        request_id=request_id,
        amount=wanted.amount,
        currency=CURRENCY,
        method=Method.PAYMENT_LINK if wanted.phone is None else Method.PHONE,
        title=wanted.message,
        reference="",
        phone=wanted.phone,
        metadata=dict(metadata),
        provider=kaspi.NAME,
    )


def _told(payment: Payment, *, repeated: bool) -> Payment:
    """Return a payment that its caller may be told of. Raises Refusal."""
    attempt = payment.current
    if payment.state in {State.UNKNOWN, State.CREATED}:
        if is_unreadable(attempt.error) and not repeated:
            raise unreadable(attempt.error)
        if payment.method is Method.PAYMENT_LINK:
            raise away(attempt.error)
    elif payment.state is State.FAILED and attempt.provider_id is None:
        code = (attempt.error or "").partition(": ")[0]
        if code not in _REFUSED:
            raise away(attempt.error)
        what = "payment link" if payment.method is Method.PAYMENT_LINK else "payment"
        raise Refusal("kaspi_refused", f"Failed to create {what}: {sentence_of(attempt.error)}")
    return payment


def away(error: str | None) -> Refusal:
    """Return the refusal for a bank that was not reached, or whose answer did not come."""
    sentence = sentence_of(error) or "the bank has not answered yet."
    return Refusal("kaspi_away", f"Max retries exceeded: {sentence}", retry_after=RETRY_SECONDS)


def unreadable(error: str | None) -> Refusal:
    """Return the refusal for an answer of the bank that cannot be read."""
    return Refusal("kaspi_unreadable", sentence_of(error))
