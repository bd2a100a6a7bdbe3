"""Mappings: the columns, words and units of a provider's report. The presets are those of Stripe, Kaspi and ours.

A file in TOML changes a preset: its keys take the place of the preset's. Columns are lists of names, tried in their
order, since providers rename them between kinds of report.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping as Table

Names = tuple[str, ...]


class Part(StrEnum):
    """The part of a provider's money that a row is about."""

    PAID = "paid"
    REFUNDED = "refunded"
    DISPUTED = "disputed"
    PAYOUT = "payout"
    FEE = "fee"
    """A fee that belongs to no payment."""
    OTHER = "other"
    NONE = "none"
    """No money: an order that nobody has paid. Such rows are counted and not compared."""


OF_PAYMENTS: Final = frozenset({Part.PAID, Part.REFUNDED, Part.DISPUTED})


class Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The columns of a report. `names` are all columns that may name a payment; of others the first that there is."""

    amount: Names = ("amount",)
    names: Names = ("id", "reference")
    row: Names = ()
    """The provider's own id of the row. Without one, rows with the same content are duplicates."""
    type: Names = ("type",)
    fee: Names = ("fee",)
    refunded: Names = ()
    """An amount beside that of the payment, where a row tells both."""
    currency: Names = ("currency",)
    time: Names = ("time", "date", "created")


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The form of a report."""

    columns: Columns = Columns()
    types: dict[str, Part] = {}
    """The part for each word of the type column, in lower case. Without that column the sign of the amount decides."""
    unit: Literal["major", "minor"] = "major"
    decimal: Literal[".", ",", "auto"] = "auto"
    signed: bool = False
    """Whether a negative amount leaves us: a refund's is negative then, and a positive one is a refund undone."""
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] | None = None
    """The currency of rows that name none."""
    encoding: str | None = None
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] | None = None
    timezone: str = "UTC"
    time_formats: Names = ()
    """Forms of `strptime`, tried after ISO 8601."""
    ignore: Names = ()
    """Words that begin a line without a row, such as a total."""

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of times without an offset."""
        return ZoneInfo(self.timezone)


_STRIPE: Final = Mapping(
    # The itemised balance reports first, then the balance history of the dashboard (docs.stripe.com/reports).
    columns=Columns(
        amount=("customer_facing_amount", "Customer Facing Amount", "gross", "Amount"),
        names=(
            "payment_metadata[attempt]", "attempt (metadata)", "charge_id", "payment_intent_id", "source_id", "Source",
            "invoice_id",
        ),
        row=("balance_transaction_id", "id"),
        type=("reporting_category", "Type"),
        fee=("fee", "Fee"),
        currency=("customer_facing_currency", "Customer Facing Currency", "currency", "Currency"),
        time=("created_utc", "created", "Created (UTC)"),
    ),
    types={
        **dict.fromkeys(("charge", "payment"), Part.PAID),
        **dict.fromkeys(
            (
                "refund", "payment_refund", "refund_failure", "payment_failure_refund", "partial_capture_reversal",
                "payment_reversal",
            ),
            Part.REFUNDED,
        ),
        # The dashboard's word for a dispute is `adjustment`; one that names no payment is missing here.
        **dict.fromkeys(("dispute", "dispute_reversal", "adjustment"), Part.DISPUTED),
        **dict.fromkeys(("payout", "payout_cancel", "payout_failure", "payout_reversal"), Part.PAYOUT),
        **dict.fromkeys(
            ("stripe_fee", "fee", "network_cost", "tax_fee", "tax", "stripe_fx_fee", "application_fee"), Part.FEE
        ),
    },
    decimal=".",
    signed=True,
    time_formats=("%Y-%m-%d %H:%M",),
)  # fmt: skip
_KASPI: Final = Mapping(
    columns=Columns(
        amount=("Сумма операции", "Сумма операции (тг)", "Сумма", "Amount"),
        names=("Номер операции", "Номер платежа", "ID платежа", "PaymentId", "Номер заказа", "ExternalId"),
        row=("ID операции", "TransactionId"),
        type=("Тип операции", "Операция", "Type"),
        fee=("Комиссия за операции", "Комиссия за операции (тг)", "Комиссия", "Fee"),
        currency=("Валюта", "Currency"),
        time=("Дата и время", "Дата операции", "Дата", "Date"),
    ),
    types={
        **dict.fromkeys(("покупка", "оплата", "payment", "purchase"), Part.PAID),
        **dict.fromkeys(("возврат", "возврат покупки", "refund"), Part.REFUNDED),
        **dict.fromkeys(("выплата", "перечисление", "payout"), Part.PAYOUT),
        **dict.fromkeys(("комиссия", "fee"), Part.FEE),
    },
    currency="KZT",
    timezone="Asia/Almaty",
    time_formats=("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y"),
    ignore=("Итого", "Всего"),  # noqa: RUF001 - Cyrillic it is
)
_GENERIC: Final = Mapping(
    types={
        **dict.fromkeys(("payment", "charge", "sale", "paid"), Part.PAID),
        **{word: Part(word.rstrip("s")) for word in ("payout", "payouts", "fee", "fees")},
        **dict.fromkeys(("refund", "refunded"), Part.REFUNDED),
        **dict.fromkeys(("dispute", "chargeback", "disputed"), Part.DISPUTED),
    }
)
_SIMULATOR: Final = Mapping(
    columns=Columns(
        names=("id", "attempt"), row=("id",), type=("standing",), refunded=("refunded",), time=("paid_at",)
    ),
    types={
        "paid": Part.PAID,
        **dict.fromkeys(("open", "processing", "failed", "canceled", "expired"), Part.NONE),
    },
    unit="minor",
)
PRESETS: Final[Table[str, Mapping]] = {
    "stripe": _STRIPE, "kaspi": _KASPI, "simulator": _SIMULATOR, "generic": _GENERIC
}  # fmt: skip


def preset(provider: str) -> Mapping:
    """Return the preset of a provider, the generic one where it has none of its own."""
    return PRESETS.get(provider, _GENERIC)


def changed(base: Mapping, text: bytes) -> Mapping:
    """Return `base` with the changes of a TOML file. Raises Refusal `invalid_request` with the place of a mistake."""
    try:
        given: dict[str, Any] = msgspec.toml.decode(text)
        known = msgspec.to_builtins(base)
        columns = {
            name: [names] if isinstance(names, str) else names
            for name, names in given.get("columns", {}).items()
        }
        types = {str(word).casefold(): part for word, part in given.get("types", {}).items()}
        both = {
            **known,
            **given,
            "columns": {**known["columns"], **columns},
            "types": {**known["types"], **types},
        }
        mapping = msgspec.convert(both, Mapping)
        _ = mapping.zone
        "".encode(mapping.encoding or "utf-8")
    except (msgspec.DecodeError, AttributeError, LookupError, ValueError, OSError) as error:
        raise Refusal("invalid_request", f"The mapping is not right: {error}") from None
    return mapping
