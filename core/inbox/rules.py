"""Rules: one function for each type of event with an effect, run in the transaction that finishes the event.

An effect is keyed by the object and the effect, not by the event, because a provider may tell one change in two events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import msgspec

from core.database import queries
from core.errors import Refusal
from core.inbox.cloudpayments import read_fields
from core.inbox.verifying import is_storable, read_object
from core.ledger.items import SYSTEM_PRINCIPAL, Leg, Posting, operation_id
from core.money import MAX_AMOUNT_MINOR
from core.outbox.events import new_event, write_events
from core.provider_units import UnknownUnitError, to_ledger

if TYPE_CHECKING:
    from core.database import Connection
    from core.ledger.ledger import Ledger
    from core.settings import Settings

_sql = queries(__name__)

MAX_ACCOUNT_CODE: Final = 128


class Outcome(NamedTuple):
    """The outcome of an event that is done: a word, and for one without an effect the reason why."""

    word: str
    reason: str | None = None


APPLIED: Final = Outcome("applied")
ALREADY_APPLIED: Final = Outcome("already_applied")


def ignored(reason: str) -> Outcome:
    """Return the outcome of an event without an effect. The reason is a code and a sentence."""
    return Outcome("ignored", reason)


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


Rule: TypeAlias = Callable[["Connection", "Ledger", InboxEvent], Awaitable[Outcome]]


class _Data(msgspec.Struct):
    object: dict[str, Any]


class _Event(msgspec.Struct):
    data: _Data


class _PaymentIntent(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    amount_received: Annotated[int, msgspec.Meta(gt=0, le=MAX_AMOUNT_MINOR)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z]{3}$")]


def clearing_account(currency: str) -> str:
    """Return the code of the account whose balance is the debt of Stripe to us in `currency`."""
    return f"provider:stripe:clearing:{currency}"


class Payment(NamedTuple):
    """A paid intent that names an account of ours; `amount` is in the ledger's minor units."""

    intent: str
    account: str
    amount: int
    currency: str


def read_payment(body: bytes) -> Payment | None:
    """Return the payment that a succeeded intent tells of, or None for an intent that names no account of ours.

    An intent that names no account is none of our business, whatever else it holds or lacks. Raises UnusableEventError.
    """
    try:
        found = _intent(body)
        account = _account_named(found)
        if account is None:
            return None
        intent = msgspec.convert(found, _PaymentIntent)
        currency = intent.currency.upper()
        amount = to_ledger("stripe", intent.amount_received, currency)
    except (msgspec.ValidationError, UnknownUnitError, Refusal) as error:
        raise UnusableEventError(str(error)) from None
    if not isinstance(account, str) or not account.isprintable() or not 0 < len(account) <= MAX_ACCOUNT_CODE:
        raise UnusableEventError("metadata.account is not the code of an account")
    if not is_storable(intent.id):
        raise UnusableEventError("the intent's id is no id")
    if account == clearing_account(currency):
        raise UnusableEventError("metadata.account is the account that the payment comes from")
    return Payment(intent.id, account, amount, currency)


def _intent(body: bytes) -> dict[str, Any]:
    return msgspec.convert(read_object(body), _Event).data.object


def _account_named(intent: dict[str, Any]) -> Any:
    """Return what stands for an account, or None. Empty metadata of PHP is a list, and an empty text is no name."""
    named = msgspec.convert(intent.get("metadata") or None, dict[str, Any] | None)
    account = (named or {}).get("account")
    return None if account == "" else account


async def stripe_payment_succeeded(connection: Connection, ledger: Ledger, event: InboxEvent) -> Outcome:
    """Post a paid intent, once: from the clearing account to the account that its metadata names.

    (https://docs.stripe.com/api/payment_intents/object)
    """
    payment = read_payment(event.body)
    if payment is None:
        return ignored("no_account_named: The intent's metadata names no account.")
    clearing = clearing_account(payment.currency)
    posting = Posting(
        id=operation_id(SYSTEM_PRINCIPAL, f"stripe:{payment.intent}:succeeded"),
        principal_id=SYSTEM_PRINCIPAL,
        legs=(Leg(clearing, -payment.amount), Leg(payment.account, payment.amount)),
        currency=payment.currency,
        kind="stripe.payment",
        reference=payment.intent,
    )
    (outcome,) = await ledger.post_within(connection, [posting])
    if not outcome.posted:
        if outcome.kind.code == "account_not_found" and outcome.account == clearing:
            raise AccountNeededError(clearing, payment.currency)
        raise outcome.refusal()
    if outcome.replayed:
        return ALREADY_APPLIED
    owner = await connection.fetchval(_sql.account_owner, payment.account)
    data = {
        "id": payment.intent,
        "provider": event.provider,
        "account": payment.account,
        "amount": payment.amount,
        "currency": payment.currency,
        "transfer": str(posting.id),
    }
    await write_events(connection, [new_event(owner, "payment.succeeded", data, object_id=payment.intent)])
    return APPLIED


def named_account(event_type: str, body: bytes) -> str | None:
    """Return the code of the account that an event of Stripe wants to pay, None where it names none."""
    if ("stripe", event_type) not in RULES:
        return None
    try:
        account = _account_named(_intent(body))
    except (msgspec.ValidationError, Refusal):
        return None
    good = isinstance(account, str) and account.isprintable() and 0 < len(account) <= MAX_ACCOUNT_CODE
    return account if good else None


RULES: Final[Mapping[tuple[str, str], Rule]] = {
    ("stripe", "payment_intent.succeeded"): stripe_payment_succeeded,
}


LIVE: Final = "live"
TEST: Final = "test"
BOTH: Final = "both"

_TRUE: Final = frozenset({"1", "true"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The events that may have an effect here: real or test ones, and those of which accounts.

    Providers sign their test events like real ones, and Stripe sends the events of connected accounts to the platform's
    endpoint. Anybody with a test card would else make money. The defaults are those of production.
    """

    stripe: str = LIVE
    stripe_accounts: frozenset[str] = frozenset()
    paypal: bool = False
    """Whether the events of PAYPAL_MODE count: they carry no flag, and their signature tells which PayPal it was."""
    cloudpayments: str = LIVE

    @classmethod
    def of(cls, settings: Settings) -> Admission:
        """Read STRIPE_LIVEMODE, STRIPE_ACCOUNTS, CLOUDPAYMENTS_LIVEMODE and PAYPAL_MODE."""
        unset = LIVE if settings.env == "prod" else BOTH
        return cls(
            stripe=settings.stripe_livemode or unset,
            stripe_accounts=frozenset(settings.stripe_accounts),
            paypal=settings.env != "prod" or settings.paypal_mode == LIVE,
            cloudpayments=settings.cloudpayments_livemode or unset,
        )

    def objection(self, event: InboxEvent) -> str | None:
        """Return the reason why an event has no effect here, or None. Raises UnusableEventError for no event at all."""
        if event.provider == "paypal" and not self.paypal:
            return "test_event: The event is of PayPal's sandbox, as PAYPAL_MODE says."
        try:
            if event.provider == "stripe":
                return self._objection_to_stripe(event.body)
            if event.provider == "cloudpayments":
                test = read_fields(event.body).get("TestMode", "").lower() in _TRUE
                return _objection_to_mode("CLOUDPAYMENTS_LIVEMODE", self.cloudpayments, live=not test)
        except Refusal as error:
            raise UnusableEventError(error.detail) from None
        return None

    def _objection_to_stripe(self, body: bytes) -> str | None:
        fields = read_object(body)
        if fields.get("object") == "v2.core.event":
            return "thin_event: The event tells that something has changed, and not what."
        # A thin event of a connected account has it in `context`.
        for name in ("account", "context"):
            whose = fields.get(name)
            if whose is not None and not (isinstance(whose, str) and whose in self.stripe_accounts):
                return f"other_account: The event's {name} is not among STRIPE_ACCOUNTS."
        live = fields.get("livemode")
        return _objection_to_mode(
            "STRIPE_LIVEMODE", self.stripe, live=live if isinstance(live, bool) else None
        )


def _objection_to_mode(setting: str, wanted: str, *, live: bool | None) -> str | None:
    """Return the reason against an event that is `live` or not; one that does not say (None) counts as neither."""
    if wanted == BOTH or (live is not None and live == (wanted == LIVE)):
        return None
    what = "unmarked_event" if live is None else "live_event" if live else "test_event"
    return f"{what}: {setting} is {wanted}."
