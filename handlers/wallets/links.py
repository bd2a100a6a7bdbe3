"""Payment links, and the lists of a user's links and codes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pydantic
from aiohttp import web

from core.errors import Refusal
from core.payables import codes, links, qr
from core.payables.payables import Purpose
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    MAX_PAGE,
    Body,
    Cents,
    CurrencyCode,
    PageQuery,
    Reference,
    Text,
    TransferOut,
    cut,
    maybe_timestamp,
    optional_key,
    platform_of,
    timestamp,
    transfer_out,
)

MAX_EXPIRY_MINUTES = 10_080
# The contract's words for the states of a code.
STATUSES = {"open": "active", "paid": "used"}
STATES = {status: state for state, status in STATUSES.items()}

Minutes = Annotated[int, pydantic.Field(ge=1, le=MAX_EXPIRY_MINUTES)]


class CodesQuery(PageQuery):
    """A part of the list: a status."""

    status: Literal["active", "used", "canceled", "expired"] | None = None


class LinkIn(Body):
    """A link, paid once with an amount and any number of times without. The default currency is that of new wallets.

    Payers see the description, and the reference (the number of an order).
    """

    amount_cents: Cents | None = None
    currency_code: CurrencyCode | None = None
    expires_in_minutes: Minutes | None = None
    description: Text | None = None
    reference: Reference | None = None


class LinkPayIn(Body):
    """A payment of a link; the amount counts for a link without one. Only the key in the body is read."""

    code: Text
    idempotency_key: str
    amount_cents: Cents | None = None


class LinkOut(msgspec.Struct, frozen=True):
    """A new link."""

    code: str
    expires_at: str | None


class CodeOut(msgspec.Struct, frozen=True):
    """A code of the caller: `status` is active, used or expired, a null amount is the payer's to say."""

    id: str
    code: str
    status: str
    amount_cents: int | None
    currency_code: str
    created_at: str
    expires_at: str | None
    transfer_id: str | None


class CodesOut(msgspec.Struct, frozen=True):
    """Codes, newest first; `next` continues the list as `before`, null at its end."""

    items: list[CodeOut]
    next: str | None


async def create_link(call: Call) -> web.Response:
    """Make a link."""
    body: LinkIn = call.body
    platform = platform_of(call)
    currency = body.currency_code or platform.currency
    purpose = Purpose.of(body.description, body.reference)
    link = await links.create(
        platform, call.user, body.amount_cents, currency, body.expires_in_minutes, purpose
    )
    return answer(200, LinkOut(link.text, maybe_timestamp(link.expires_at)))


async def pay_link(call: Call) -> web.Response:
    """Pay a link."""
    body: LinkPayIn = call.body
    key = optional_key(body.idempotency_key, call.kept_keys)
    if key is None:
        raise Refusal("missing_idempotency_key", "Send an idempotency key, new for each new payment.")
    paid = await links.pay_link(
        platform_of(call), call.user, body.code, body.amount_cents, key, known=call.to_pay
    )
    return answer(200, transfer_out(paid))


async def list_links(call: Call) -> web.Response:
    """List the links that the caller has made."""
    return answer(200, await _own_codes(call, "link", links.PREFIX))


async def list_qr(call: Call) -> web.Response:
    """List the QR codes that the caller has made."""
    return answer(200, await _own_codes(call, "qr", qr.PREFIX))


async def _own_codes(call: Call, kind: Literal["qr", "link"], prefix: str) -> CodesOut:
    """Return the part of the caller's codes that the query asks for."""
    query: CodesQuery = call.query
    most = query.most(MAX_PAGE)
    state = STATES.get(query.status or "", query.status)
    found = await codes.list_mine(
        platform_of(call), call.user, kind, state=state, before=query.before, limit=most
    )
    items, last = cut(found, most - 1)
    shown = [
        CodeOut(
            str(one.id),
            f"{prefix}{one.code}",
            STATUSES.get(one.state, one.state),
            one.amount,
            one.currency,
            timestamp(one.created_at),
            maybe_timestamp(one.expires_at),
            None if one.transfer_id is None else str(one.transfer_id),
        )
        for one in items
    ]
    return CodesOut(shown, None if last is None else str(last.id))


ROUTES = table(
    Route(
        "POST", "/payments/links", create_link, "create_link", "Make a payment link",
        body=LinkIn, answers={200: LinkOut}, problems=("kyc_level_required", "currency_mismatch"),
    ),
    Route(
        "GET", "/payments/links", list_links, "list_links", "List my payment links",
        query=CodesQuery, answers={200: CodesOut},
    ),
    Route(
        "GET", "/payments/merchant/qr", list_qr, "list_qr", "List my QR codes",
        tag="merchants", query=CodesQuery, answers={200: CodesOut},
    ),
    Route(
        "POST", "/payments/links/pay", pay_link, "pay_link", "Pay a payment link",
        pays_code=True, body=LinkPayIn, answers={200: TransferOut},
        problems=(
            "kyc_level_required", "invalid_link_format", "link_not_active", "link_expired", "link_amount_required",
            "idempotency_conflict", "missing_idempotency_key", "idempotency_key_too_long", "currency_mismatch",
            "transfer_limit_exceeded", "daily_amount_exceeded", "risk_blocked", "insufficient_funds",
        ),
    ),
    tag="links", caller="user",
)  # fmt: skip
