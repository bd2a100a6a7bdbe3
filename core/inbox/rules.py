"""Rules: from an event to what shall happen, without a database, a connection or a wait.

A rule works in two steps, both of them pure. The first reads the event and says which accounts it names; the second
decides, with the rows of those accounts, which are read for a whole batch at once. So a rule is tested without a
server, and a batch is applied as a set.

An effect is keyed by the object and the effect, not by the event, because a provider may tell one change in two events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Protocol, TypeAlias
from uuid import UUID

import msgspec

from core.errors import Refusal
from core.inbox.cloudpayments import read_fields
from core.inbox.verifying import is_storable, read_object
from core.ledger.items import SYSTEM_PRINCIPAL, Effects, Leg, Posting, operation_id
from core.money import MAX_AMOUNT_MINOR
from core.outbox.events import new_event
from core.provider_units import UnknownUnitError, to_ledger

if TYPE_CHECKING:
    from core.settings import Settings

MAX_ACCOUNT_CODE: Final = 128

# The outcomes of events that are done, beside `discarded`.
APPLIED: Final = "applied"
ALREADY_APPLIED: Final = "already_applied"
IGNORED: Final = "ignored"

Owners: TypeAlias = Mapping[str, int]
"""The principal who opened each account, by the account's code; an account that does not exist is missing."""


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


class Post(NamedTuple):
    """The decision to post. The posting's refusals are not kept, so that the event may be tried again.

    `opens` are the system accounts, as codes and currencies, that are opened if the posting does not find them.
    """

    posting: Posting
    opens: Mapping[str, str] = {}


class Ignored(NamedTuple):
    """The decision that an event has no effect here. The reason is a code and a sentence."""

    reason: str


class Failed(NamedTuple):
    """The decision that an event cannot be applied now; a `final` one can never be. The code is stable."""

    code: str
    detail: str
    final: bool = False


class Target(NamedTuple):
    """The payment and the attempt that an event is about."""

    payment: UUID
    attempt: UUID


class Told(Protocol):
    """The part of an event that is about a payment through a provider: the names by which its attempt is found."""

    @property
    def names(self) -> Sequence[str]:
        """The names, those that say most first."""


class Transition(NamedTuple):
    """The decision that an event moves a payment: `told` is for the engine of payments, which alone reads it."""

    target: Target
    told: Told


Decision: TypeAlias = Post | Transition | Ignored | Failed


class Reading(Protocol):
    """An event as its rule has read it."""

    @property
    def accounts(self) -> tuple[str, ...]:
        """The codes of the accounts whose owners the decision needs."""

    def decide(self, owners: Owners) -> Decision:
        """Decide what shall happen."""


class Named(NamedTuple):
    """An event that tells of a payment through a provider. If none of its names is known here, a rule decides."""

    told: Told
    otherwise: Reading | Ignored | Failed

    def decide(self, target: Target | None, owners: Owners) -> Decision:
        """Decide what shall happen: `target` is what one of the names is known for."""
        if target is not None:
            return Transition(target, self.told)
        return (
            self.otherwise if isinstance(self.otherwise, Ignored | Failed) else self.otherwise.decide(owners)
        )


Rule: TypeAlias = Callable[[Mapping[str, Any]], Reading | Ignored]
"""The first step of a rule: it reads the fields of an event, and raises UnusableEventError."""


class UnusableEventError(Exception):
    """The event's content makes no sense, and no further attempt can help."""


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
    """A paid intent that names an account of ours; `amount` is in the ledger's minor units.

    (https://docs.stripe.com/api/payment_intents/object)
    """

    intent: str
    account: str
    amount: int
    currency: str

    @property
    def accounts(self) -> tuple[str, ...]:
        """The account that is paid: its owner is told."""
        return (self.account,)

    def decide(self, owners: Owners) -> Decision:
        """Post the intent, once: from the clearing account to the account that its metadata names."""
        owner = owners.get(self.account)
        if owner is None:
            return Failed("account_not_found", f"Account {self.account!r} does not exist.")
        clearing = clearing_account(self.currency)
        transfer = operation_id(SYSTEM_PRINCIPAL, f"stripe:{self.intent}:succeeded")
        data = {
            "id": self.intent,
            "provider": "stripe",
            "account": self.account,
            "amount": self.amount,
            "currency": self.currency,
            "transfer": str(transfer),
        }
        told = new_event(owner, "payment.succeeded", data, object_id=self.intent)
        posting = Posting(
            id=transfer,
            principal_id=SYSTEM_PRINCIPAL,
            legs=(Leg(clearing, -self.amount), Leg(self.account, self.amount)),
            currency=self.currency,
            kind="stripe.payment",
            reference=self.intent,
            effects=Effects(told=(told,)),
            unfrozen=True,
        )
        return Post(posting, {clearing: self.currency})


def read_payment(fields: Mapping[str, Any]) -> Payment | None:
    """Return the payment that a succeeded intent tells of, or None for an intent that names no account of ours.

    An intent that names no account is none of our business, whatever else it holds or lacks. Raises UnusableEventError.
    """
    try:
        found = _intent(fields)
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


def _intent(fields: Mapping[str, Any]) -> dict[str, Any]:
    return msgspec.convert(fields, _Event).data.object


def _account_named(intent: dict[str, Any]) -> Any:
    """Return what stands for an account, or None. Empty metadata of PHP is a list, and an empty text is no name."""
    named = msgspec.convert(intent.get("metadata") or None, dict[str, Any] | None)
    account = (named or {}).get("account")
    return None if account == "" else account


def stripe_payment_succeeded(fields: Mapping[str, Any]) -> Reading | Ignored:
    """Read a paid intent. Raises UnusableEventError."""
    return read_payment(fields) or Ignored("no_account_named: The intent's metadata names no account.")


def named_account(event_type: str, body: bytes) -> str | None:
    """Return the code of the account that an event of Stripe wants to pay, None where it names none."""
    if ("stripe", event_type) not in RULES:
        return None
    try:
        account = _account_named(_intent(read_object(body)))
    except (msgspec.ValidationError, Refusal):
        return None
    good = isinstance(account, str) and account.isprintable() and 0 < len(account) <= MAX_ACCOUNT_CODE
    return account if good else None


RULES: Final[Mapping[tuple[str, str], Rule]] = {
    ("stripe", "payment_intent.succeeded"): stripe_payment_succeeded,
}


READERS: Final[Mapping[str, Callable[[bytes], Mapping[str, Any]]]] = {"cloudpayments": read_fields}
"""How the bodies of a provider are read that are no JSON objects."""


ReadTold: TypeAlias = Callable[[str, str, bytes], Told | None]
"""The reader of providers' events, by provider and type: None for one that is about no payment. Raises ValueError."""


def _tells_nothing(_provider: str, _event_type: str, _body: bytes) -> None:
    return None


def read_event(
    event: InboxEvent, admission: Admission, read_told: ReadTold = _tells_nothing
) -> Named | Reading | Ignored | Failed:
    """Read an event by its provider's file and by the rule of its type, and everything that needs neither."""
    told: Told | None = None
    otherwise: Ignored | Failed = Ignored("no_attempt: The event names no payment of ours.")
    rule = RULES.get((event.provider, event.event_type))
    try:
        told = read_told(event.provider, event.event_type, event.body)
    except ValueError as error:
        otherwise = Failed("unusable_payload", str(error), final=True)
    else:
        if rule is None and told is None:
            return Ignored(f"no_rule: {event.event_type} has no effect here.")
    try:
        fields = READERS.get(event.provider, read_object)(event.body)
        if objection := admission.objection(event.provider, fields):
            return Ignored(objection)
        found = otherwise if rule is None else rule(fields)
    except Refusal as refusal:
        found = Failed("unusable_payload", refusal.detail, final=True)
    except UnusableEventError as error:
        found = Failed("unusable_payload", str(error), final=True)
    return found if told is None else Named(told, found)


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
    simulator: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Admission:
        """Read STRIPE_LIVEMODE, STRIPE_ACCOUNTS, CLOUDPAYMENTS_LIVEMODE and PAYPAL_MODE."""
        unset = LIVE if settings.env == "prod" else BOTH
        return cls(
            stripe=settings.stripe_livemode or unset,
            stripe_accounts=frozenset(settings.stripe_accounts),
            paypal=settings.env != "prod" or settings.paypal_mode == LIVE,
            cloudpayments=settings.cloudpayments_livemode or unset,
            simulator=settings.env != "prod",
        )

    def objection(self, provider: str, fields: Mapping[str, Any]) -> str | None:
        """Return the reason why an event has no effect here, or None."""
        if provider == "paypal" and not self.paypal:
            return "test_event: The event is of PayPal's sandbox, as PAYPAL_MODE says."
        if provider == "simulator" and not self.simulator:
            return "test_event: The simulator takes no money."
        if provider == "stripe":
            return self._objection_to_stripe(fields)
        if provider == "cloudpayments":
            test = fields.get("TestMode", "").lower() in _TRUE
            return _objection_to_mode("CLOUDPAYMENTS_LIVEMODE", self.cloudpayments, live=not test)
        return None

    def _objection_to_stripe(self, fields: Mapping[str, Any]) -> str | None:
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
