"""Administration: refunds of any payment, out of its receiver's wallet."""

from __future__ import annotations

from uuid import UUID

import msgspec
from aiohttp import web

from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR
from core.payables import refunds
from core.wallets.administration import ADMIN
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.admin_endpoints import TAG
from handlers.wallets.contract import Body, header_key, platform_of


class AdminRefundIn(Body):
    """The transfer to refund, and the amount in minor units."""

    original_transfer_id: str
    amount_cents: int


class AdminRefundOut(msgspec.Struct, frozen=True):
    """The transfer that gives the money back; the refund's id is the same."""

    transfer_id: str
    refund_id: str


async def refund(call: Call) -> web.Response:
    """Give back some or all of a payment. All refunds together never exceed it, by receiver or administrator."""
    body: AdminRefundIn = call.body
    key = header_key(call)
    if not 0 < body.amount_cents <= MAX_AMOUNT_MINOR:
        raise Refusal("invalid_amount", "An amount is a positive number of minor units.")
    try:
        original_id = UUID(body.original_transfer_id)
    except ValueError:
        raise Refusal("original_not_found", "There is no transfer with this id.") from None
    paid = await refunds.refund(platform_of(call), original_id, body.amount_cents, actor=ADMIN, key=key)
    transfer_id = str(paid.transfer_id)
    return answer(200, AdminRefundOut(transfer_id, transfer_id))


ROUTES = table(
    Route(
        "POST", "/admin/refunds", refund, "admin_refund", "Refund a payment",
        caller="admin", body=AdminRefundIn, answers={200: AdminRefundOut},
        problems=(
            "invalid_amount", "original_not_found", "original_invalid", "exceeds_reversible", "already_reversed",
            "merchant_insufficient_funds", "idempotency_conflict", "idempotency_key_too_long",
            "idempotency_key_invalid", "account_frozen",
        ),
        description="An Idempotency-Key in the header is taken; without one each call is a new refund.",
    ),
    tag=TAG,
)  # fmt: skip
