"""Top-ups by card: the payer gets the address of the provider's page, and the money comes when it is paid."""

from __future__ import annotations

from uuid import UUID

import msgspec
from aiohttp import web

from core.payables.cards import topups as card_topups
from core.payments.payments import Payment
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import platform_of, required_key, timestamp
from handlers.wallets.wallet import TopUpIn


class CardTopUpOut(msgspec.Struct, frozen=True):
    """A top-up by card. `url` is the page on which it is paid; null where the provider has none to show (yet).

    `state` is pending until the payer has paid, then processing, and in the end paid, mismatched, failed, canceled or
    expired. `paid_cents` is what has come, before the provider's fee.
    """

    id: str
    state: str
    url: str | None
    amount_cents: int
    paid_cents: int
    currency_code: str
    created_at: str


async def start(call: Call) -> web.Response:
    """Start a top-up by card."""
    body: TopUpIn = call.body
    key = required_key(call, body.idempotency_key)
    made = await card_topups.start(call.parts.payments, platform_of(call), call.user, body.amount_cents, key)
    return answer(200, _shown(made))


async def show(call: Call) -> web.Response:
    """Show how a top-up by card stands."""
    return answer(200, _shown(await card_topups.show(call.parts.payments, call.user, call.path("topup_id"))))


def _shown(payment: Payment) -> CardTopUpOut:
    return CardTopUpOut(
        str(payment.id),
        card_topups.state_of(payment),
        payment.current.url,
        payment.amount,
        payment.paid,
        payment.currency,
        timestamp(payment.created_at),
    )


ROUTES = table(
    Route(
        "POST", "/wallet/topup/card", start, "start_card_top_up", "Top up by card",
        description="The answer has the address of the page on which the payer pays. The money is in the wallet when "
        "the provider has told that it was paid, less the provider's fee.",
        body=TopUpIn, key_header="Idempotency-Key", key_in_header=True, answers={200: CardTopUpOut},
        problems=("no_provider", "idempotency_conflict", "missing_idempotency_key", "idempotency_key_too_long"),
    ),
    Route(
        "GET", "/wallet/topup/card/{topup_id}", show, "get_card_top_up", "Show a top-up by card",
        parameters={"topup_id": UUID}, answers={200: CardTopUpOut}, problems=("payment_not_found",),
    ),
    tag="wallet", caller="user",
)  # fmt: skip
