"""Merchants' orders: their contract on the common port, and alone on ORDERS_PORT."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from aiohttp import web

from core import metrics
from core.errors import Refusal
from core.outbox.callbacks import ORDERS as ORDERS_CALLBACKS
from core.outbox.callbacks import dispatches_of
from core.payments.orders.amounts import units_of
from core.payments.orders.creating import NewOrder, create_order
from core.payments.orders.orders import Order, Page, find_order, list_orders
from core.payments.orders.tracking import events_of
from core.payments.orders.webhooks import take_webhook
from core.payments.payments import find, timeline
from handlers.http import health
from handlers.http.conditions import reader
from handlers.http.dispatch import ApiSurface
from handlers.http.docs import documented
from handlers.http.route import Call, Route, answer, table
from handlers.http.surface import Listener
from handlers.payments.orders.bodies import (
    OrderOfCaller,
    OrderPage,
    OrderPlaced,
    OrderShown,
    PageQuery,
    Pong,
    TrackedEvent,
    Tracking,
    TrustedOrder,
    WebhookBody,
    WebhookResult,
    WebhookTaken,
    item,
    shown,
)
from handlers.payments.orders.surface import CreateSurface, OrderSurface

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = "/api/v1/payments"


async def ping(_call: Call) -> web.Response:
    """Answer that the service is there."""
    return answer(200, Pong(True))


async def create(call: Call) -> web.Response:
    """Ask for the payment of an order, and for the page where the customer pays.

    An order of a merchant has one payment: a repetition gets the first one, whatever else it says. A payment whose
    provider has not answered in time is pending, without a page for now. A token of the subscription is used, and
    comes back when the payment has certainly failed. Refusals are 400, 401 or 502.
    """
    merchant_id, body = call.merchant_id, call.body
    if merchant_id is None:
        raise Refusal("unauthorized", "Send an API key as X-API-Key.")
    trusted = isinstance(body, TrustedOrder)
    asked = NewOrder(
        merchant_id,
        body.order_id,
        units_of(body.amount, "amount"),
        units_of(body.price, "price"),
        body.alias,
        body.subscription_id if trusted else None,
        body.event_id if trusted else None,
    )
    try:
        placed = await create_order(call.parts.payments, call.parts.settings, asked)
    except Refusal as refusal:
        metrics.ORDERS.add(refusal.code)
        raise
    metrics.ORDERS.add("repeated" if placed.replayed else "created")
    if placed.replayed:
        again = "payment already exists"
        return answer(200, OrderPlaced(message=again, payment_id=placed.number, status=placed.status.name))
    url = placed.payment.current.url
    return answer(200, OrderPlaced(payment_id=placed.number, status=placed.status.name, payment_url=url))


async def list_payments(call: Call) -> web.Response:
    """Show the merchant's payments, the newest first."""
    merchant_id, page, limit = call.merchant_id, call.query.page, call.query.limit
    found = Page([], 0)
    if merchant_id is not None:
        found = await list_orders(reader(call, "list"), merchant_id, page, limit)
    items = [item(order) for order in found.orders]
    return answer(200, OrderPage(page, limit, found.total, page * limit < found.total, items))


async def show(call: Call) -> web.Response:
    """Show one of the merchant's payments."""
    return answer(200, shown(await _order(call)))


async def track(call: Call) -> web.Response:
    """Show everything that has happened to one of the merchant's payments, the oldest first."""
    order = await _order(call)
    database = call.service.database
    payment, steps, dispatches = await asyncio.gather(
        find(database, order.payment_id),
        timeline(database, order.payment_id),
        dispatches_of(database, ORDERS_CALLBACKS, str(order.payment_id)),
    )
    events = [
        TrackedEvent(event.event_type, event.message, event.payload, event.at.isoformat())
        for event in events_of(order, payment, steps, dispatches)
    ]
    return answer(200, Tracking(order.number, order.status.name, events))


async def receive(call: Call) -> web.Response:
    """Take a webhook of the provider of links, signed over its bytes. It is applied before the answer.

    A webhook that comes again changes nothing. Money that comes for a payment that has failed is money all the same.
    """
    intake = call.parts.inbound.intake
    told = await take_webhook(call.parts.payments, intake, call.body.payment_id, call.body.status)
    if told is None:
        return answer(200, WebhookTaken("ok", WebhookResult("payment not found")))
    if not told.changed:
        return answer(200, WebhookTaken("ok", WebhookResult("already processed", status=int(told.status))))
    updated = WebhookResult("payment updated", call.body.payment_id, int(told.status))
    return answer(200, WebhookTaken("ok", updated))


async def show_health(call: Call) -> web.Response:
    """Answer whether PostgreSQL and Redis answer, in the words of the old edge."""
    database, redis = await asyncio.gather(health.has_database(call), health.has_redis(call))
    if database and redis:
        return web.Response(text="OK")
    return web.Response(status=503, text="Service Unavailable")


async def _order(call: Call) -> Order:
    """Return the order of the path, if it is the caller's. Raises Refusal `order_not_found`."""
    number = call.path("payment_id")
    order = None
    if number is not None:
        order = await find_order(call.service.database, number, call.merchant_id)
    if order is None:
        raise Refusal("order_not_found", "There is no such payment.")
    return order


def _both(*routes: Route) -> Iterator[Route]:
    """Yield each route as it is and with a slash at its end, as the old edge called the old core."""
    for route in routes:
        yield route
        yield replace(route, path=f"{route.path}/", hidden=True, example=None)


_CREATE = tuple(
    _both(
        *table(
            Route(
                "POST", BASE, create, "create_order_payment", "Ask for the payment of an order",
                body=OrderOfCaller, answers={200: OrderPlaced},
                problems=(
                    "alias_not_found", "subscription_not_active", "quota_exceeded", "event_used", "no_provider",
                    "provider_declined", "provider_unreachable",
                ),
                example={"order_id": 1042, "amount": 2, "price": "19.99", "alias": "stripe"},
            ),
            tag="orders", caller="order_merchant",
        )
    )
)  # fmt: skip
_OTHERS = (
    *table(
        Route(
            "GET", f"{BASE}/ping", ping, "ping_orders", "Whether the service is there",
            caller="anyone", answers={200: Pong}, needs_service=False, limited=False,
        ),
        tag="orders",
    ),
    *_both(
        *table(
            Route(
                "GET", BASE, list_payments, "list_order_payments", "List payments of orders",
                query=PageQuery, answers={200: OrderPage},
            ),
            Route(
                "GET", f"{BASE}/{{payment_id}}/show", show, "get_order_payment", "Show the payment of an order",
                answers={200: OrderShown}, problems=("order_not_found",),
            ),
            Route(
                "GET", f"{BASE}/{{payment_id}}/tracking", track, "track_order_payment",
                "Show what has happened to the payment of an order",
                answers={200: Tracking}, problems=("order_not_found",),
            ),
            Route(
                "POST", f"{BASE}/webhook", receive, "receive_link_webhook", "Take a webhook of the provider of links",
                caller="order_provider", body=WebhookBody, answers={200: WebhookTaken},
                example={"payment_id": 41, "status": "finished"},
            ),
            tag="orders", caller="order_merchant",
        )
    ),
)  # fmt: skip
_SERVICE = table(
    Route(
        "GET", "/health", show_health, "get_health", "Whether PostgreSQL and Redis answer",
        answers={200: None}, media=("text/plain",), needs_service=False,
    ),
    tag="Service", limited=False,
)  # fmt: skip
_CONTRACT = (
    CreateSurface("orders' create route", _CREATE, core=True),
    OrderSurface("orders", _OTHERS, core=True, forgives_slash=True),
    ApiSurface("orders' service", _SERVICE, strict=False, forgives_slash=True),
)
_DOCUMENTED = documented(_CONTRACT, "/redoc", title="Payments API", version="0.1.0")
CREATE = CreateSurface("orders' create route", _CREATE)
_PORT = Listener("orders_port", (*_CONTRACT, _DOCUMENTED), own_request_ids=True)
ORDERS = OrderSurface("orders", _OTHERS, forgives_slash=True, listener=_PORT)
