"""The metrics of money: the ledger, wallets, refunds, subscriptions, merchants, and payments through providers."""

from __future__ import annotations

from core.metrics.instruments import FAST_BOUNDS, HTTP_BOUNDS, Count, Spread, each, level

LEDGER_TRANSFERS = Count("ledger_transfers_total", "Transfers by outcome", ("outcome",))
LEDGER_BATCH_ITEMS = Spread(
    "ledger_batch_items",
    "Transfers posted by one call of the database",
    (),
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
TRANSACTION_RETRIES = Count(
    "transaction_retries_total",
    "Transactions run again, by what they met",
    ("reason",),
    each(("DeadlockDetectedError", "SerializationError")),
)
LEDGER_LANE_WAITING = level("ledger_lane_waiting", "Calls that wait for the lane", share="livesum")
LEDGER_LANE_ROOM = level(
    "ledger_lane_room", "Calls that may wait for the lane; any more are refused", share="livesum"
)
LEDGER_LANE_WAIT = Spread(
    "ledger_lane_wait_seconds", "Time that the first transfer of a batch waited for the lane", (), FAST_BOUNDS
)
LEDGER_LANE_REFUSED = Count("ledger_lane_refused_total", "Calls refused because the lane was full")
HOLDS_OPEN = level("ledger_holds_open", "Open holds that have an end, up to 10,000")
HOLDS_OVERDUE = level(
    "ledger_holds_overdue_seconds", "For how long the hold whose time ended first is overdue"
)
FEED_LAG_SECONDS = level(
    "feed_lag_seconds", "Age of the oldest transfer not yet numbered and sealed in the feed"
)

TRANSFERS = Count(
    "payments_transfers_total",
    "Top-ups (topup) and payments between persons (p2p)",
    ("kind", "status"),
    each(("topup", "p2p"), ("completed",)),
)
REFUNDS = Count("payments_refunds_total", "Refunds by status: completed", ("status",), each(("completed",)))
REFUND_CENTS = Count("payments_refunds_cents_total", "Minor units refunded", ("currency",))
PAYMENT_REQUESTS = Count(
    "payments_requests_total", "Payment requests by action", ("action",),
    each(("create", "accept", "reject", "cancel")),
)  # fmt: skip
PAYMENT_LINKS = Count("payments_links_total", "Payment links by action", ("action",), each(("create", "pay")))
SUBSCRIPTIONS = Count(
    "payments_subscriptions_total",
    "Subscriptions: created, charged, canceled",
    ("action",),
    each(("created", "charged", "canceled")),
)
SUBSCRIPTION_CENTS = Count(
    "payments_subscriptions_cents_total", "Minor units charged by subscriptions", ("currency",)
)
QR_PAYMENTS = Count(
    "payments_qr_total",
    "Payments of merchants' QR codes by status: completed",
    ("status",),
    each(("completed",)),
)
MERCHANT_GROSS = Count(
    "payments_merchant_gross_cents_total",
    "Sums that merchants were paid by QR code, in minor units",
    ("currency",),
)
MERCHANT_FEES = Count("payments_merchant_fees_cents_total", "Fees on that, in minor units", ("currency",))

PAYMENT_STATES = Count(
    "provider_payments_total",
    "Payments through providers that have come into a state, by the surface that asked for them",
    ("surface", "provider", "state"),
)
PROVIDER_CALLS = Count(
    "provider_calls_total",
    "Calls of payment providers by outcome: answered, declined, unsent or unknown",
    ("provider", "outcome"),
)
PROVIDER_SECONDS = Spread(
    "provider_call_seconds", "Time of a call of a payment provider", ("provider",), HTTP_BOUNDS
)
PROVIDER_BREAKER = level(
    "provider_breaker_open", "1 while a payment provider fails and is chosen last", ("provider",)
)
PAYMENTS_UNKNOWN = level(
    "provider_payments_unknown", "Attempts at payments whose end nobody knows, up to 10,000"
)
PAYMENTS_UNKNOWN_AGE = level("provider_payments_unknown_age_seconds", "Age of the oldest of them")
PAYMENTS_LOOK_LAG = level(
    "provider_look_lag_seconds", "For how long the look at a payment that has been due longest has waited"
)
REFUND_STATES = Count(
    "provider_refunds_total",
    "Refunds that calls of providers have brought into a state",
    ("surface", "provider", "state"),
)
REFUNDS_UNKNOWN = level("provider_refunds_unknown", "Refunds whose end nobody knows, up to 10,000")
REFUNDS_UNKNOWN_AGE = level("provider_refunds_unknown_age_seconds", "Age of the oldest of them")
REFUNDS_LOOK_LAG = level(
    "provider_refund_look_lag_seconds", "For how long the refund that has been due longest has waited"
)
ORDERS = Count(
    "order_payments_total",
    "Orders asked for by outcome: created, repeated, or the code of a refusal",
    ("outcome",),
    each(("created", "repeated")),
)


def begin_currency(currency: str) -> None:
    """Show that nothing was paid in `currency` yet."""
    for metric in (REFUND_CENTS, SUBSCRIPTION_CENTS, MERCHANT_GROSS, MERCHANT_FEES):
        metric.begin(currency)
