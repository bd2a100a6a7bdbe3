"""Rules: one function for each type of event with an effect, run in the transaction that finishes the event.

An effect is keyed by the object and the effect, not by the event, because a provider may tell one change in two events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import msgspec

from core.database import queries
from core.ledger.items import SYSTEM_PRINCIPAL, Leg, Posting, operation_id
from core.money import MAX_AMOUNT_MINOR
from core.outbox.events import new_event, write_events

if TYPE_CHECKING:
    from core.database import Connection
    from core.ledger.ledger import Ledger

_sql = queries(__name__)

MAX_ACCOUNT_CODE: Final = 128

APPLIED: Final = "applied"
ALREADY_APPLIED: Final = "already_applied"
IGNORED: Final = "ignored"


class InboxEvent(NamedTuple):
    """An event as a worker has claimed it; `attempts` counts this attempt, too."""

    id: UUID
    provider: str
    event_id: str
    event_type: str
    object_id: str | None
    received_at: datetime
    attempts: int
    body: bytes


class UnusableEventError(Exception):
    """The event's content makes no sense, and no further attempt can help."""


class AccountNeededError(Exception):
    """A system account that the effect needs does not exist yet.

    The caller opens the account outside of the transaction, which may be rolled back, and applies the event again.
    """

    def __init__(self, code: str, currency: str) -> None:
        super().__init__(code)
        self.code = code
        self.currency = currency


Rule: TypeAlias = Callable[["Connection", "Ledger", InboxEvent], Awaitable[str]]


class _PaymentIntent(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    amount_received: Annotated[int, msgspec.Meta(gt=0, le=MAX_AMOUNT_MINOR)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z]{3}$")]
    metadata: dict[str, Any] = {}


class _PaymentIntentData(msgspec.Struct):
    object: _PaymentIntent


class _PaymentIntentEvent(msgspec.Struct):
    data: _PaymentIntentData


class _Named(msgspec.Struct):
    metadata: dict[str, Any] = {}


class _NamedData(msgspec.Struct):
    object: _Named


class _NamedEvent(msgspec.Struct):
    data: _NamedData


_named = msgspec.json.Decoder(_NamedEvent)
_payment_intents = msgspec.json.Decoder(_PaymentIntentEvent)


def clearing_account(currency: str) -> str:
    """Return the code of the account whose balance is the debt of Stripe to us in `currency`."""
    return f"provider:stripe:clearing:{currency}"


async def stripe_payment_succeeded(connection: Connection, ledger: Ledger, event: InboxEvent) -> str:
    """Post a paid intent, once: from the clearing account to the account that its metadata names.

    The intent's `amount_received` is in minor units (https://docs.stripe.com/api/payment_intents/object).
    """
    try:
        intent = _payment_intents.decode(event.body).data.object
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnusableEventError(str(error)) from None
    account = intent.metadata.get("account")
    if account is None:
        return IGNORED
    if not isinstance(account, str) or not account.isprintable() or not 0 < len(account) <= MAX_ACCOUNT_CODE:
        raise UnusableEventError("metadata.account is not the code of an account")
    currency = intent.currency.upper()
    clearing = clearing_account(currency)
    if account == clearing:
        raise UnusableEventError("metadata.account is the account that the payment comes from")
    posting = Posting(
        id=operation_id(SYSTEM_PRINCIPAL, f"stripe:{intent.id}:succeeded"),
        principal_id=SYSTEM_PRINCIPAL,
        legs=(Leg(clearing, -intent.amount_received), Leg(account, intent.amount_received)),
        currency=currency,
        kind="stripe.payment",
        reference=intent.id,
    )
    (outcome,) = await ledger.post_within(connection, [posting])
    if not outcome.posted:
        if outcome.kind.code == "account_not_found" and outcome.account == clearing:
            raise AccountNeededError(clearing, currency)
        raise outcome.refusal()
    if outcome.replayed:
        return ALREADY_APPLIED
    owner = await connection.fetchval(_sql.account_owner, account)
    data = {
        "id": intent.id,
        "provider": event.provider,
        "account": account,
        "amount": intent.amount_received,
        "currency": currency,
        "transfer": str(posting.id),
    }
    await write_events(connection, [new_event(owner, "payment.succeeded", data, object_id=intent.id)])
    return APPLIED


def named_account(event_type: str, body: bytes) -> str | None:
    """Return the code of the account that an event of Stripe wants to pay, None where it names none."""
    if ("stripe", event_type) not in RULES:
        return None
    try:
        account = _named.decode(body).data.object.metadata.get("account")
    except (msgspec.DecodeError, RecursionError):
        return None
    good = isinstance(account, str) and account.isprintable() and 0 < len(account) <= MAX_ACCOUNT_CODE
    return account if good else None


RULES: Final[Mapping[tuple[str, str], Rule]] = {
    ("stripe", "payment_intent.succeeded"): stripe_payment_succeeded,
}
