"""Payments as the contract shows them: its numbers for states, its fields, and its way of writing JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from core.payments.states import CLOSED_STATES, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.database import Row

# MISMATCHED is shown as PROCESSING: money has come, but not as asked. It is not paid, and not closed without money.
STATUSES: Final[Mapping[State, int]] = {
    State.CREATED: 1,
    State.PENDING: 2,
    State.PROCESSING: 3,
    State.UNKNOWN: 3,
    State.MISMATCHED: 3,
    State.PAID: 10,
    State.FAILED: 20,
    State.CANCELED: 30,
    State.EXPIRED: 40,
}
METHODS: Final[Mapping[int, str]] = {1: "hosted_card", 2: "payment_link"}
METHOD_NUMBERS: Final[Mapping[str, int]] = {word: number for number, word in METHODS.items()}
ONE_TIME: Final = 1
RECURRING: Final = 2
STRIPE: Final = 1
PROVIDERS: Final[Mapping[str, int]] = {"stripe": STRIPE, "1": STRIPE}

_encode = msgspec.json.Encoder().encode
# These stand in texts alone, where the contract's encoder writes them as escapes.
_ESCAPES: Final = (
    (b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026"),
    ("\u2028".encode(), rb"\u2028"), ("\u2029".encode(), rb"\u2029"),
)  # fmt: skip


class PaymentOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """A payment. Members that are zero or empty are left out; `status` and the other kinds are the contract's numbers.

    Amounts are in the currency's smallest unit, times are RFC 3339 in UTC, to the second.
    """

    id: int = 0
    request_id: str = ""
    caller_service: str = ""
    resource_type: str = ""
    resource_id: str = ""
    customer_ref: str = ""
    amount_cents: int = 0
    currency: str = ""
    status: int = 0
    payment_method: int = 0
    payment_type: int = 0
    provider: int = 0
    recurring_interval: str = ""
    recurring_interval_count: int = 0
    provider_payment_id: str = ""
    provider_subscription_id: str = ""
    checkout_url: str = ""
    provider_callback_hash: str = ""
    provider_callback_url: str = ""
    status_callback_url: str = ""
    refunded_cents: int = 0
    refundable_cents: int = 0
    metadata: dict[str, str] = {}
    created_at: str = ""
    updated_at: str = ""


class Envelope(msgspec.Struct, frozen=True):
    """One payment."""

    payment: PaymentOut


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """Payments, the newest first; without any the member is left out."""

    payments: list[PaymentOut] = []


def contract_json(value: object) -> bytes:
    """Write a value as the contract's encoder does."""
    text = _encode(value)
    for plain, escape in _ESCAPES:
        text = text.replace(plain, escape)
    return text + b"\n"


def shown(row: Row) -> PaymentOut:
    """Return a row of `orchestration_shown` as the contract shows it."""
    metadata: dict[str, str] = msgspec.json.decode(row["metadata"] or "{}")
    return PaymentOut(
        id=row["id"],
        request_id=row["request_id"],
        caller_service=row["caller_service"],
        resource_type=row["resource_type"],
        resource_id=row["resource_id"],
        customer_ref=row["customer_ref"] or "",
        amount_cents=row["amount"],
        currency=row["currency"],
        status=STATUSES[State(row["state"])],
        payment_method=METHOD_NUMBERS[row["method"]],
        payment_type=row["payment_type"],
        provider=row["provider"],
        recurring_interval=row["recurring_interval"] or "",
        recurring_interval_count=row["recurring_interval_count"] or 0,
        provider_payment_id=row["provider_id"] or "",
        provider_subscription_id=row["subscription_id"] or "",
        checkout_url=row["url"] or "",
        provider_callback_hash=row["callback_hash"],
        provider_callback_url=row["callback_url"],
        status_callback_url=row["status_callback_url"],
        refunded_cents=row["refunded"],
        refundable_cents=_refundable(row),
        metadata=dict(sorted(metadata.items())),
        created_at=_moment(row["created_at"]),
        updated_at=_moment(row["updated_at"]),
    )


def _refundable(row: Row) -> int:
    """Return the part that can be given back: of an open payment its amount, since that is so once it is paid."""
    state = State(row["state"])
    if state in CLOSED_STATES:
        return 0
    if state in {State.PAID, State.MISMATCHED}:
        return max(int(row["paid"] - row["refunded"] - row["disputed"]), 0)
    return int(row["amount"])


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
