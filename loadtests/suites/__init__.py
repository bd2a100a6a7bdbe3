"""The suites of the load tests: a file for each surface, and the requests that each makes.

This module knows nothing of Locust, which replaces the sockets of the process that imports it. Budgets are read, and
data is prepared, by processes that keep theirs.
"""

from typing import NamedTuple


class Suite(NamedTuple):
    """One suite: a line about it, its class of users, and its requests by the names under which they are measured."""

    about: str
    user: str
    requests: tuple[str, ...]


_LEDGER = (
    "POST /v1/transfers",
    "POST /v1/transfers/batch",
    "GET /v1/accounts/{code}",
    "GET /v1/accounts/{code}/entries",
    "POST /v1/holds",
    "POST /v1/holds/{id}/capture",
)
_WALLETS = (
    "POST /auth/request_otp",
    "POST /auth/verify_otp",
    "POST /wallet/transfer",
    "GET /wallet",
    "GET /wallet/transactions/page",
)
_QR = (
    "POST /payments/merchant/pay",
    "POST /payments/merchant/qr",
    "POST /payments/merchant/pay (once)",
    "GET /payments/merchant/qr_status",
)
_WEBHOOKS = ("POST /webhooks/stripe", "POST /webhooks/stripe (again)")
_PAYMENTS = (
    "POST /api/v1/payments",
    "POST /api/v1/payments (again)",
    "GET /api/v1/payments/{id}/show",
    "POST /payments",
    "GET /payments/{id}",
    # The payer's click. The simulator tells of it by a webhook, of merchants' links before it answers.
    "simulator: pay link",
    "simulator: pay",
)

SUITES = {
    "transfers": Suite("the ledger: transfers, batches, holds, balances, statements", "Program", _LEDGER),
    "wallets": Suite("people: sign in, pay each other, look at their wallet", "Customer", _WALLETS),
    "qr": Suite("a peak at one merchant: everybody pays one code, tills make more", "Payer", _QR),
    "webhooks": Suite("signed events of Stripe, one in five sent again", "Stripe", _WEBHOOKS),
    "payments": Suite("orders and services' payments, paid at the simulator", "Shop", _PAYMENTS),
    "mixed": Suite(
        "a day: all of these by weight", "Anybody", (*_LEDGER, *_WALLETS, *_QR, *_WEBHOOKS, *_PAYMENTS)
    ),
}
