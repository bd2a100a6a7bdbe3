"""Refunds."""

from __future__ import annotations

from uuid import UUID

import msgspec
from aiohttp import web

from core.errors import Refusal
from core.ledger.items import MAX_AMOUNT_MINOR
from core.payables import refunds
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.surface import (
    Body,
    Cents,
    TransferOut,
    header_key,
    platform_of,
    timestamp,
    transfer_out,
)


class RefundIn(Body):
    """Which transfer, and how much of it, in minor units."""

    original_transfer_id: str
    amount_cents: Cents


class AdminRefundIn(Body):
    """The same from an administrator, who is told of a bad amount in the contract's own words."""

    original_transfer_id: str
    amount_cents: int


class AdminRefundMade(msgspec.Struct, frozen=True):
    """The transfer that gives the money back; its id is the refund's."""

    transfer_id: str
    refund_id: str


class RefundMade(TransferOut, frozen=True, kw_only=True):
    """The transfer that gives the money back; its id is the refund's."""

    refund_id: str


class RefundOut(msgspec.Struct, frozen=True):
    """A refund."""

    id: str
    original_transfer_id: str
    amount_cents: int
    currency_code: str
    status: str
    created_at: str


async def create_refund(call: Call) -> web.Response:
    """Give back some or all of a payment that the caller received."""
    body: RefundIn = call.body
    key = header_key(call)
    original_id = _uuid(body.original_transfer_id)
    if original_id is None:
        raise Refusal("original_not_found", "There is no transfer with this id.")
    paid = await refunds.refund(
        platform_of(call), original_id, body.amount_cents, refunder=call.user, key=key
    )
    shown = msgspec.structs.asdict(transfer_out(paid))
    return answer(200, RefundMade(**shown, refund_id=str(paid.transfer_id)))


async def admin_refund(call: Call) -> web.Response:
    """Give back some or all of any payment, out of the wallet that received it."""
    body: AdminRefundIn = call.body
    key = header_key(call)
    if not 0 < body.amount_cents <= MAX_AMOUNT_MINOR:
        raise Refusal("invalid_amount", "An amount is above zero.")
    original_id = _uuid(body.original_transfer_id)
    if original_id is None:
        raise Refusal("original_not_found", "There is no transfer with this id.")
    paid = await refunds.refund(platform_of(call), original_id, body.amount_cents, actor="admin", key=key)
    return answer(200, AdminRefundMade(str(paid.transfer_id), str(paid.transfer_id)))


async def get_refund(call: Call) -> web.Response:
    """Show a refund to who made it."""
    refund_id = _uuid(call.path("refund_id"))
    if refund_id is None:
        raise Refusal("refund_not_found", "There is no such refund.")
    found = await refunds.find_refund(platform_of(call), refund_id, call.user)
    return answer(
        200,
        RefundOut(
            str(found.id),
            str(found.original_id),
            found.amount,
            found.currency,
            "completed",
            timestamp(found.created_at),
        ),
    )


def _uuid(text: str) -> UUID | None:
    """Read an id; what is none names nothing, which is all that the caller needs to know."""
    try:
        return UUID(text)
    except ValueError:
        return None


_REFUSED = (
    "original_not_found",
    "original_invalid",
    "exceeds_reversible",
    "already_reversed",
    "insufficient_funds",
    "idempotency_conflict",
    "idempotency_key_too_long",
)

ROUTES = table(
    Route(
        "POST", "/refunds", create_refund, "create_refund", "Refund a payment that I received",
        body=RefundIn, answers={200: RefundMade}, problems=("not_owner_of_funds", *_REFUSED),
    ),
    Route(
        "GET", "/refunds/{refund_id}", get_refund, "get_refund", "Show a refund of mine",
        answers={200: RefundOut}, problems=("refund_not_found", "forbidden"),
    ),
    Route(
        "POST", "/admin/refunds", admin_refund, "admin_refund", "Refund any payment",
        tag="admin", caller="admin", body=AdminRefundIn, answers={200: AdminRefundMade},
        problems=("invalid_amount", "merchant_insufficient_funds", *_REFUSED),
    ),
    tag="refunds", caller="user",
)  # fmt: skip
