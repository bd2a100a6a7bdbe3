"""The routes of the contract on the common port, and alone on ORCHESTRATION_PORT."""

from __future__ import annotations

import msgspec
from aiohttp import web

from core.errors import Refusal
from core.payments.orchestration.provider_events import PROCESSED, unwrapped
from core.payments.orchestration.shown import Envelope, Page, contract_json
from handlers.http.middleware import X_REQUEST_ID
from handlers.http.route import Call, Route, json_answer, table
from handlers.http.surface import Listener
from handlers.payments.orchestration.binding import (
    CancelBody,
    ListQuery,
    OrderBody,
    bound_body,
    bound_id,
    bound_query,
)
from handlers.payments.orchestration.surface import (
    MISSING,
    OrchestrationSurface,
    allow_of,
    contract_refusal,
    gate,
    viewer_of,
)


class Alive(msgspec.Struct, frozen=True):
    """The answer of a process that is alive."""

    status: str


class Message(msgspec.Struct, frozen=True):
    """The answer to an event of the provider."""

    message: str


def _answer(status: int, value: object) -> web.Response:
    return json_answer(status, contract_json(value))


async def show_health(_call: Call) -> web.Response:
    """Answer without asking any other part."""
    return _answer(200, Alive("ok"))


async def create(call: Call) -> web.Response:
    """Ask for a payment, once for each service and request id; a repetition answers the payment as it stands."""
    body = bound_body(call.raw, call.request.headers, OrderBody)
    order = body.order(call.request.headers.get(X_REQUEST_ID, "").strip())
    return _answer(201, Envelope(await call.parts.desk.create(viewer_of(call), order)))


async def show(call: Call) -> web.Response:
    """Show a payment."""
    number = bound_id(call.path("id"))
    return _answer(200, Envelope(await call.parts.desk.show(viewer_of(call), number)))


async def show_list(call: Call) -> web.Response:
    """List payments, the newest first."""
    return _answer(200, Page(await call.parts.desk.list(viewer_of(call), bound_query(call.query))))


async def cancel(call: Call) -> web.Response:
    """Let nobody pay any more: the provider is asked to close what is open; the payment is answered as it stands."""
    number = bound_id(call.path("id"))
    bound_body(call.raw, call.request.headers, CancelBody, "invalid request")
    return _answer(200, Envelope(await call.parts.desk.cancel(viewer_of(call), number)))


async def take_event(call: Call) -> web.Response:
    """Take in an event of the provider, from itself or passed on in an envelope."""
    events = call.parts.provider_events
    headers = call.request.headers
    signature = headers.get("Stripe-Signature", "").strip() or headers.get("X-Provider-Signature", "")
    event = unwrapped(call.path("provider"), call.path("hash"), signature, call.raw)
    missing = call.request.get(MISSING)
    try:
        event.check()
        genuine = await events.verified(event)
    except Refusal as refusal:
        if missing is not None and refusal.retry_after is None:
            raise missing from None
        raise
    await events.take(event, genuine)
    return _answer(200, Message(PROCESSED))


_TAG = "orchestration"
_EXAMPLE = {
    "request_id": "req-1001",
    "caller_service": "checkout",
    "resource_type": "order",
    "resource_id": "1001",
    "amount_cents": 1250,
    "currency": "USD",
    "payment_method": 1,
    "payment_type": 1,
    "status_callback_url": "https://checkout.example/payments/status",
}
ROUTES = table(
    Route(
        "POST", "/payments", create, "create_provider_payment", "Ask for a payment", body=OrderBody,
        answers={201: Envelope}, problems=("payment_exists", "payment_failed"), example=_EXAMPLE,
    ),
    Route(
        "GET", "/payments", show_list, "list_provider_payments", "List payments", query=ListQuery,
        answers={200: Page},
    ),
    Route(
        "GET", "/payments/{id}", show, "get_provider_payment", "Show a payment", answers={200: Envelope},
        problems=("payment_not_found",),
    ),
    Route(
        "POST", "/payments/{id}/cancel", cancel, "cancel_provider_payment", "Cancel a payment",
        body=CancelBody, answers={200: Envelope}, problems=("payment_not_found", "payment_paid"),
    ),
    Route(
        "POST", "/webhooks/providers/{provider}/{hash}", take_event, "receive_provider_event",
        "Take in an event of a payment's provider", raw=True, answers={200: Message},
        problems=("payment_not_found", "callback_rejected"),
        description="The provider may call by itself: a signature that holds stands for request id and key. A gateway "
        'may pass the event on as it came, or as `{"payload": "<the event\'s text>", "signature": "<the header>"}`.',
    ),
    tag=_TAG,
)  # fmt: skip
_HEALTH = Route("GET", "/health", show_health, "get_health", "Whether the process is alive", "Service",
    answers={200: Alive})  # fmt: skip
_CONTRACT = OrchestrationSurface("orchestration contract", (_HEALTH, *ROUTES), exact=True)
ORCHESTRATION = OrchestrationSurface(
    "orchestration",
    ROUTES,
    listener=Listener(
        "orchestration_port", (_CONTRACT,), refuse=contract_refusal, gate=gate, tell_methods=allow_of
    ),
)
