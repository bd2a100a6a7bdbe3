"""What the wallet platform counts, under the names of the wallet contract, section 6, which dashboards query.

Each operation calls its function once, when it was done; a repeated call that finds the first one done counts nothing.
`payments_webhook_deliveries_total` and `payments_webhook_attempts_total` stand in `core.metrics`.
"""

from __future__ import annotations

from typing import Literal

from core.metrics import Count

TRANSFERS = Count("payments_transfers_total", "Top-ups and payments between persons", ("kind", "status"))
QR = Count("payments_qr_total", "Payments by QR code", ("status",))
MERCHANT_GROSS = Count(
    "payments_merchant_gross_cents_total", "What merchants got by QR code, in minor units", ("currency",)
)
MERCHANT_FEES = Count(
    "payments_merchant_fees_cents_total", "Fees that merchants paid on it, in minor units", ("currency",)
)
REQUESTS = Count("payments_requests_total", "Payment requests: what became of them", ("action",))
LINKS = Count("payments_links_total", "Payment links: made and paid", ("action",))
SUBSCRIPTIONS = Count("payments_subscriptions_total", "Subscriptions: what became of them", ("action",))
SUBSCRIPTION_CENTS = Count(
    "payments_subscriptions_cents_total", "What subscriptions were charged, in minor units", ("currency",)
)
REFUNDS = Count("payments_refunds_total", "Refunds", ("status",))
REFUND_CENTS = Count("payments_refunds_cents_total", "What was refunded, in minor units", ("currency",))


def count_transfer(kind: Literal["topup", "p2p"]) -> None:
    """Count a top-up, or a payment between persons."""
    TRANSFERS.add(kind, "completed")


def count_qr_payment(amount: int, fee: int, currency: str) -> None:
    """Count a payment by QR code: `amount` and `fee` in minor units."""
    QR.add("completed")
    MERCHANT_GROSS.add(currency, by=amount)
    if fee:
        MERCHANT_FEES.add(currency, by=fee)


def count_request(action: Literal["create", "accept", "reject", "cancel"]) -> None:
    """Count what was done with a payment request."""
    REQUESTS.add(action)


def count_link(action: Literal["create", "pay"]) -> None:
    """Count a link that was made, or a payment by one."""
    LINKS.add(action)


def count_subscription(action: Literal["created", "canceled"]) -> None:
    """Count a subscription that began or ended."""
    SUBSCRIPTIONS.add(action)


def count_charge(amount: int, currency: str) -> None:
    """Count the charge of a subscription, in minor units."""
    SUBSCRIPTIONS.add("charged")
    SUBSCRIPTION_CENTS.add(currency, by=amount)


def count_refund(amount: int, currency: str) -> None:
    """Count a refund, in minor units."""
    REFUNDS.add("completed")
    REFUND_CENTS.add(currency, by=amount)
