"""The kinds of payables, one row each: who may pay and be paid, which cause is told first, the fee, and the words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from core import metrics
from core.payables.fees import fee, merchant_fee
from core.payables.limits import FUNDS_FIRST, LIMITS_FIRST, VELOCITY_FIRST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from core.ledger.items import Condition, ItemLimits
    from core.payables.limits import Velocity
    from core.payables.payments import Held, Payment
    from core.platform import Platform
    from core.settings import Settings
    from core.wallets.users import User

Kind = Literal["p2p", "qr", "link", "request", "invoice", "cash_in", "cash_out", "voucher", "subscription"]
Side = Literal["asker", "payer", "payee", "creator"]
# An issuer of invoices has been identified, whatever the settings say of codes (wallet contract, section 3).
ISSUER_LEVEL: Final = 1


def _no_level(_settings: Settings) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Collects:
    """The payees whom a payable may pay: a merchant or anybody, of at least this KYC level."""

    merchant: bool = False
    level: Callable[[Settings], int] = _no_level


class Order(NamedTuple):
    """One payment to make: `asker` asks for it and settles the payable; the money goes from `payer` to `payee`.

    `amount` is in minor units, None where nobody has said how much; a repeated key is compared by `identity`. The money
    of a cash-out is `held`. The money of a voucher waits in the account `source`, and its `creator` hears of the
    payment. `level` (of the payer) and `collects` replace those of the kind where the payable has its own. The audit
    names `actor` (None: the asker). Events and audit records are about `object_id`. `limits` and `conditions` bound an
    agent's part in a cash request.
    """

    kind: Kind
    asker: User
    payee: User
    amount: int | None
    currency: str
    identity: tuple[Any, ...]
    payer: User | None = None
    payable_id: UUID | None = None
    state: str = "open"
    source: str | None = None
    held: Held | None = None
    creator: User | None = None
    level: int = 0
    collects: Collects | None = None
    actor: str | None = None
    object_id: str | None = None
    limits: ItemLimits | None = None
    conditions: tuple[Condition, ...] = ()

    def side(self, name: Side) -> User | None:
        """Return one of the users of the payment."""
        user: User | None = getattr(self, name)
        return user


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules by which one kind is paid.

    `event` names its events and audit records, and its postings where `posts` does not; `expired` names those of a
    payable whose time is over. `level` is the KYC level that its asker needs. `collects` is the rule for its payee, and
    `not_collectable` the refusal of a payee who does not meet it any more.
    `closed` has the refusals of a payable that is not open, by its state, "" for any other state; without one the
    refusal is `payable_not_open`. `limits` names the velocity limits of the payer, None where the payer has no limits;
    `causes` is the order in which causes are told. `fee` returns the fee in minor units, which leaves the wallet of
    `bears`, or is kept back from the source. The risk of `assessed` kinds is scored. `tells` are the users who hear of
    the payment, `told` and `noted` the members of the event and of the audit record, `about` the user whom the record
    concerns. `words` are the kind's own codes for causes of the payer, `payee_words` those for causes of the payee.
    `counted` counts the payment in the metrics.
    """

    event: str
    posts: str | None = None
    expired: str = ""
    level: Callable[[Settings], int] = _no_level
    collects: Collects = Collects()
    not_collectable: tuple[str, str] = ("payee_not_verified", "The payee may not be paid at the moment.")
    closed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    amount_required: str = "invalid_amount"
    limits: Velocity | None = "none"
    causes: Sequence[str] = FUNDS_FIRST
    fee: Callable[[Platform, Order, int], int] = lambda _platform, _order, _amount: 0
    bears: Literal["payee", "payer", "source"] = "payee"
    assessed: bool = False
    tells: tuple[Side, ...] = ("payee",)
    told: tuple[str, ...] = ("id", "transfer_id", "amount_cents")
    noted: tuple[str, ...] = ("id", "transfer_id", "amount_cents")
    about: Side = "payee"
    words: Mapping[str, str] = field(default_factory=dict)
    payee_words: Mapping[str, str] = field(default_factory=dict)
    counted: Callable[[Payment], None] = lambda _payment: None


def _pays_merchants(settings: Settings) -> int:
    return settings.kyc_min_level_for_merchant_pay


def _is_paid_by_code(settings: Settings) -> int:
    return settings.kyc_min_level_for_merchant_qr


def _issues_invoices(_settings: Settings) -> int:
    return ISSUER_LEVEL


def _merchants_rate(platform: Platform, order: Order, amount: int) -> int:
    return merchant_fee(platform.config.current, order.payee, amount)


def _cash_in_rate(platform: Platform, _order: Order, amount: int) -> int:
    return fee(amount, platform.config.current.cashin_fee_bps)


def _voucher_rate(platform: Platform, _order: Order, amount: int) -> int:
    return fee(amount, platform.settings.voucher_fee_bps)


def _count_qr(payment: Payment) -> None:
    metrics.QR_PAYMENTS.add("completed")
    metrics.MERCHANT_GROSS.add(payment.currency, by=payment.amount)
    metrics.MERCHANT_FEES.add(payment.currency, by=payment.fee)


def _count_subscription(payment: Payment) -> None:
    metrics.SUBSCRIPTIONS.add("charged")
    metrics.SUBSCRIPTION_CENTS.add(payment.currency, by=payment.amount)


QR_GONE: Final = ("qr_not_active", "This code is unknown, or was paid or withdrawn.")
LINK_GONE: Final = ("link_not_active", "This link is unknown, or was paid.")
_CASH: Final = ("id", "type", "amount_cents")

KINDS: Final[Mapping[Kind, Rules]] = {
    "p2p": Rules(
        event="wallet.transfer",
        limits="p2p",
        assessed=True,
        told=("transfer_id", "amount_cents"),
        noted=("transfer_id", "amount_cents"),
        counted=lambda _payment: metrics.TRANSFERS.add("p2p", "completed"),
    ),
    "qr": Rules(
        event="payments.qr_pay",
        expired="payments.qr_expire",
        level=_pays_merchants,
        collects=Collects(merchant=True, level=_is_paid_by_code),
        not_collectable=QR_GONE,
        closed={"expired": ("qr_expired", "This code has expired."), "": QR_GONE},
        amount_required="qr_amount_required",
        limits="qr",
        causes=VELOCITY_FIRST,
        fee=_merchants_rate,
        assessed=True,
        told=("amount_cents",),
        noted=("transfer_id", "qr_id", "amount_cents", "fee_cents"),
        counted=_count_qr,
    ),
    "link": Rules(
        event="links.pay",
        expired="links.expire",
        level=_pays_merchants,
        collects=Collects(level=_is_paid_by_code),
        not_collectable=LINK_GONE,
        closed={"expired": ("link_expired", "This link has expired."), "": LINK_GONE},
        amount_required="link_amount_required",
        causes=LIMITS_FIRST,
        fee=_merchants_rate,
        assessed=True,
        counted=lambda _payment: metrics.PAYMENT_LINKS.add("pay"),
    ),
    "request": Rules(
        event="requests.accept",
        expired="requests.expire",
        causes=LIMITS_FIRST,
        told=("id", "transfer_id"),
        noted=("id", "transfer_id"),
        counted=lambda _payment: metrics.PAYMENT_REQUESTS.add("accept"),
    ),
    "invoice": Rules(
        event="invoices.pay",
        expired="invoices.expire",
        collects=Collects(merchant=True, level=_issues_invoices),
        assessed=True,
        tells=("payee", "payer"),
    ),
    "cash_in": Rules(
        event="cash.accept",
        expired="cash.expire",
        posts="cash.in",
        limits=None,
        fee=_cash_in_rate,
        bears="payer",
        tells=("payee", "payer"),
        told=_CASH,
        noted=_CASH,
        words={
            "insufficient_funds": "agent_insufficient_funds",
            "transfer_limit_exceeded": "agent_limit_exceeded",
            "daily_amount_exceeded": "agent_limit_exceeded",
        },
    ),
    "cash_out": Rules(
        event="cash.accept",
        expired="cash.expire",
        posts="cash.out",
        limits=None,
        tells=("payer", "payee"),
        told=_CASH,
        noted=_CASH,
        about="payer",
        payee_words={"balance_too_high": "agent_limit_exceeded"},
    ),
    "voucher": Rules(
        event="vouchers.redeem",
        expired="vouchers.expire",
        closed={"": ("voucher_not_active", "This voucher was redeemed or revoked.")},
        limits=None,
        fee=_voucher_rate,
        bears="source",
        tells=("creator",),
        told=("id", "amount_cents", "transfer_id"),
        noted=("id", "amount_cents", "transfer_id"),
    ),
    "subscription": Rules(
        event="subscriptions.charge",
        collects=Collects(merchant=True),
        not_collectable=("target_not_a_merchant", "The payee of this subscription is no merchant any more."),
        fee=_merchants_rate,
        tells=("payee", "payer"),
        about="payer",
        counted=_count_subscription,
    ),
}
