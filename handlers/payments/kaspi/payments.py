"""Payments of the Kaspi contract: orders to a phone and by link, statuses, refunds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from core.errors import Refusal
from core.payments.kaspi import asking, ordering, refunding
from core.payments.kaspi.configs import Configs
from core.payments.kaspi.words import status_of, tenge
from core.providers.kaspi_words import BIN
from core.providers.protocol import EXPIRE_DATE
from core.vault import Vault
from handlers.http.dispatch import IDEMPOTENCY_KEY
from handlers.http.route import Call, Route, answer, table
from handlers.payments.kaspi.bodies import (
    ExternalId,
    KaspiLinkIn,
    KaspiPaymentIn,
    KaspiRefundIn,
    KaspiStatusQuery,
)

if TYPE_CHECKING:
    from aiohttp import web

    from core.payments.payments import Payment

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
_ORDER_PROBLEMS: Final = (
    "kaspi_shop_unknown", "kaspi_shop_inactive", "kaspi_refused", "kaspi_away", "kaspi_unreadable", "no_provider",
    "idempotency_conflict", "idempotency_key_invalid",
)  # fmt: skip


class KaspiPaymentOut(msgspec.Struct, frozen=True):
    """A payment that was ordered.

    `external_id` is the bank's id of it, or ours where the bank's answer has not come; `error` is always null.
    """

    success: bool
    external_id: str | None
    status: str
    organization_bin: str
    error: str | None = None


class KaspiLinkOut(msgspec.Struct, frozen=True):
    """A link that was ordered. `payment_id` is the bank's id, `expire_date` the bank's own text; `error` is null."""

    success: bool
    payment_link: str
    payment_id: str
    expire_date: str | None
    organization_bin: str
    error: str | None = None


class KaspiStatusOut(msgspec.Struct, frozen=True):
    """The `status` of a payment, in the bank's word; `external_id` is as it was asked for, and `error` null."""

    success: bool
    external_id: str
    status: str | None
    error: str | None = None


class KaspiRefundOut(msgspec.Struct, frozen=True):
    """A refund that was made. `refunded_amount` is in tenge; `error` is null."""

    success: bool
    external_id: str
    refunded_amount: float
    organization_bin: str
    error: str | None = None


async def create(call: Call) -> web.Response:
    """Ask the payer's phone for a payment.

    An order that is identical to an open one of the last 24 hours is that order. Where the bank's answer does not come,
    the status is `Wait` and the payment stays open until its end is known.
    """
    body: KaspiPaymentIn = call.body
    wanted = ordering.Wanted(body.shop_id, body.amount, body.message, body.phone, header_key(call))
    payment = await ordering.order(call.parts.payments, configs_of(call), wanted)
    external_id = payment.current.provider_id or str(payment.id)
    return answer(200, KaspiPaymentOut(True, external_id, status_of(payment), _bin(payment)))


async def create_link(call: Call) -> web.Response:
    """Make a link by which anybody may pay.

    An order that is identical to an open one of the last minute is that order. Another customer's link wants another
    message, or an Idempotency-Key of its own.
    """
    body: KaspiLinkIn = call.body
    wanted = ordering.Wanted(body.shop_id, body.amount, body.message, None, header_key(call))
    payment = await ordering.order(call.parts.payments, configs_of(call), wanted)
    attempt = payment.current
    expires = attempt.names.get(EXPIRE_DATE)
    if expires is None and attempt.expires_at is not None:
        expires = attempt.expires_at.isoformat()
    url, name = attempt.url or "", attempt.provider_id or str(payment.id)
    return answer(200, KaspiLinkOut(True, url, name, expires, _bin(payment)))


async def show_status(call: Call) -> web.Response:
    """Tell how a payment stands. The bank is asked unless the end is known."""
    return await _show_status(call, call.path("external_id"))


async def show_status_by_query(call: Call) -> web.Response:
    """Tell how a payment stands, its id in the query."""
    query: KaspiStatusQuery = call.query
    return await _show_status(call, query.external_id)


async def refund(call: Call) -> web.Response:
    """Give money back, all of a payment or a part of it.

    The payment must be the shop's, and so much must be left of it. The same amount of the same payment within three
    minutes is the same refund; an Idempotency-Key makes each refund its own.
    """
    body: KaspiRefundIn = call.body
    wanted = refunding.Wanted(body.shop_id, body.external_id, body.amount, header_key(call))
    payment = await refunding.refund(call.parts.payments, configs_of(call), wanted)
    told = {
        "success": True,
        "external_id": body.external_id,
        "refunded_amount": msgspec.Raw(tenge(body.amount).encode()),
        "organization_bin": _bin(payment),
        "error": None,
    }
    return answer(200, told)


def configs_of(call: Call) -> Configs:
    """Return the configs of all shops."""
    return Configs(call.service.database, Vault.of(call.parts.settings))


async def _show_status(call: Call, external_id: str) -> web.Response:
    status = await asking.status(call.parts.payments, external_id)
    return answer(200, KaspiStatusOut(True, external_id, status))


def _bin(payment: Payment) -> str:
    return payment.details.metadata.get(BIN, "")


def header_key(call: Call) -> str | None:
    """Return the key of a caller that has one; the contract's clients have none."""
    key = call.request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise Refusal(
            "idempotency_key_invalid", "An Idempotency-Key has 1 to 255 printable ASCII characters."
        )
    return key


ROUTES = table(
    Route(
        "POST", "/payments/kaspi/create", create, "kaspi_create_payment", "Ask a phone for a payment",
        scope="kaspi:write", body=KaspiPaymentIn, answers={200: KaspiPaymentOut}, problems=_ORDER_PROBLEMS,
        key_header="Idempotency-Key",
        example={"shop_id": 7, "amount": 1990.5, "phone": "+7 701 123 45 67", "message": "Order 1042"},
    ),
    Route(
        "POST", "/payments/kaspi/create-link", create_link, "kaspi_create_link", "Make a link to a payment",
        scope="kaspi:write", body=KaspiLinkIn, answers={200: KaspiLinkOut},
        problems=(*_ORDER_PROBLEMS, "kaspi_no_device"),
        key_header="Idempotency-Key",
        example={"shop_id": 7, "amount": 1990.5, "message": "Order 1042"},
    ),
    Route(
        "GET", "/payments/kaspi/status/{external_id}", show_status, "kaspi_get_status", "How a payment stands",
        scope="kaspi:read", parameters={"external_id": ExternalId}, answers={200: KaspiStatusOut},
        problems=("kaspi_refused", "kaspi_away", "kaspi_unreadable", "kaspi_payment_not_found"),
    ),
    Route(
        "GET", "/payments/kaspi/status", show_status_by_query, "kaspi_find_status",
        "How a payment stands, by its id in the query",
        scope="kaspi:read", query=KaspiStatusQuery, answers={200: KaspiStatusOut},
        problems=("kaspi_refused", "kaspi_away", "kaspi_unreadable", "kaspi_payment_not_found"),
    ),
    Route(
        "POST", "/payments/kaspi/refund", refund, "kaspi_refund", "Give money back",
        scope="kaspi:write", body=KaspiRefundIn, answers={200: KaspiRefundOut},
        problems=(
            "kaspi_shop_unknown", "kaspi_shop_inactive", "kaspi_payment_not_found", "kaspi_not_refundable",
            "kaspi_refused", "kaspi_away", "kaspi_unreadable", "idempotency_conflict", "idempotency_key_invalid",
        ),
        key_header="Idempotency-Key",
        example={"shop_id": 7, "external_id": "15401211", "amount": 50},
    ),
    tag="kaspi",
)  # fmt: skip
