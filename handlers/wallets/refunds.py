"""Refunds: of payments that the caller received, and of any payment by an administrator."""

from __future__ import annotations

from uuid import UUID

import msgspec
from aiohttp import web

from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR
from core.payables import refunds
from core.wallets.administration import ADMIN
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.admin.endpoints import TAG
from handlers.wallets.contract import (
    Body,
    Cents,
    TransferOut,
    header_key,
    platform_of,
    timestamp,
    transfer_out,
)


class RefundIn(Body):
    """The transfer to refund, and the amount in minor units."""

    original_transfer_id: str
    amount_cents: Cents


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


class AdminRefundIn(Body):
    """Which transfer, and how much of it, in minor units."""

    original_transfer_id: str
    amount_cents: int


class AdminRefundOut(msgspec.Struct, frozen=True):
    """The transfer that gives the money back; the refund's id is the same."""

    transfer_id: str
    refund_id: str


async def create_refund(call: Call) -> web.Response:
    """Give back some or all of a payment that the caller received."""
    body: RefundIn = call.body
    key = header_key(call)
    original_id = _original_id(body.original_transfer_id)
    paid = await refunds.refund(
        platform_of(call), original_id, body.amount_cents, refunder=call.user, key=key
    )
    shown = msgspec.structs.asdict(transfer_out(paid))
    return answer(200, RefundMade(**shown, refund_id=str(paid.transfer_id)))


async def get_refund(call: Call) -> web.Response:
    """Show a refund to its maker."""
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


async def refund_any(call: Call) -> web.Response:
    """Give back some or all of a payment; of what was paid never more in all, whoever refunds."""
    body: AdminRefundIn = call.body
    key = header_key(call)
    if not 0 < body.amount_cents <= MAX_AMOUNT_MINOR:
        raise Refusal("invalid_amount", "An amount is a positive number of minor units.")
    original_id = _original_id(body.original_transfer_id)
    paid = await refunds.refund(platform_of(call), original_id, body.amount_cents, actor=ADMIN, key=key)
    transfer_id = str(paid.transfer_id)
    return answer(200, AdminRefundOut(transfer_id, transfer_id))


def _original_id(text: str) -> UUID:
    found = _uuid(text)
    if found is None:
        raise Refusal("original_not_found", "There is no transfer with this id.")
    return found


def _uuid(text: str) -> UUID | None:
    """Return an id, None for a text that is none and so names nothing."""
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
        body=RefundIn, key_header="Idempotency-Key",
        answers={200: RefundMade}, problems=("not_owner_of_funds", *_REFUSED),
    ),
    Route(
        "GET", "/refunds/{refund_id}", get_refund, "get_refund", "Show a refund of mine",
        answers={200: RefundOut}, problems=("refund_not_found", "forbidden"),
    ),
    tag="refunds", caller="user",
)  # fmt: skip

ADMIN_ROUTES = table(
    Route(
        "POST", "/admin/refunds", refund_any, "admin_refund", "Refund a payment",
        caller="admin", body=AdminRefundIn, key_header="Idempotency-Key", answers={200: AdminRefundOut},
        problems=(
            "invalid_amount", "original_not_found", "original_invalid", "exceeds_reversible", "already_reversed",
            "merchant_insufficient_funds", "idempotency_conflict", "idempotency_key_too_long",
            "idempotency_key_invalid", "account_frozen",
        ),
        description="An Idempotency-Key in the header is taken; without one each call is a new refund.",
    ),
    tag=TAG,
)  # fmt: skip
