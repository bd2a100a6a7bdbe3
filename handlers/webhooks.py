"""Webhooks in and out: where providers send their events, and where principals say where they want ours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from aiohttp import web

from core import metrics
from core.errors import Refusal, Unavailable
from core.inbox import stripe
from core.inbox.intake import Intake
from core.inbox.rules import RULES
from core.outbox import endpoints
from core.outbox.destinations import MAX_URL_LENGTH, Destinations
from core.outbox.events import EVENT_TYPE_PATTERN, MAX_EVENT_TYPE
from core.service import Service
from core.wakeup import Waker
from handlers.api import Call, Route, answer, cut

log = structlog.get_logger(__name__)

STRIPE_SIGNATURE = "Stripe-Signature"
# What the existing dashboards call every event; types that we do not know would make a series each.
OTHER_TYPE = "webhook"


@dataclass(frozen=True, slots=True)
class Inbound:
    """What the routes of this module share in one process."""

    intake: Intake
    destinations: Destinations
    refusals: RefusalLog


class RefusalLog:
    """Says in the log that signatures are refused: once a second, since a line costs more than the refusal itself."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._unsaid = 0

    def note(self, provider: str, reason: str) -> None:
        """Count a refusal, and write a line unless one was written within the last second."""
        now = time.monotonic()
        self._unsaid += 1
        if now >= self._silent_until:
            log.warning("webhook.refused", provider=provider, reason=reason, refused=self._unsaid)
            self._silent_until, self._unsaid = now + 1.0, 0


INBOUND: web.AppKey[Inbound] = web.AppKey("inbound", Inbound)


@asynccontextmanager
async def open_inbound(service: Service) -> AsyncIterator[Inbound]:
    """Open it; at the end store what was accepted and send the last wake-up."""
    settings = service.settings
    waker = Waker(service.redis, service.epoch)
    intake = Intake(service.database, waker)
    try:
        destinations = Destinations.of(settings.outbound_allow_hosts, require_https=settings.env == "prod")
        yield Inbound(intake, destinations, RefusalLog())
    finally:
        await intake.close()
        await waker.close()


class WebhookAnswer(msgspec.Struct, frozen=True):
    """What a provider is told: the event is stored, now or before."""

    status: str
    message: str
    event_id: str | None


async def receive_stripe(call: Call) -> web.Response:
    """Verify, store, answer; nothing else happens before the answer."""
    started = time.perf_counter()
    status, event_type = "failed", OTHER_TYPE
    try:
        # A proxy may have split the header in two; joining them is what RFC 9110, section 5.3, says they mean.
        header = ",".join(call.request.headers.getall(STRIPE_SIGNATURE, ()))
        _check_stripe_signature(call, header)
        receipt = stripe.read_event(call.raw, header)
        if (receipt.provider, receipt.event_type) in RULES:
            event_type = receipt.event_type
        new = await call.request.app[INBOUND].intake.receive(receipt)
        status = "processed" if new else "duplicate"
        message = "processed" if new else "duplicate ignored"
        return answer(200, WebhookAnswer("ok", message, receipt.event_id))
    except Unavailable:
        status = "error"
        raise
    finally:
        metrics.observe_webhook(stripe.PROVIDER, event_type, status, time.perf_counter() - started)


def _check_stripe_signature(call: Call, header: str) -> None:
    settings = call.service.settings
    verdict = stripe.verify(
        call.raw,
        header,
        secrets=settings.stripe_signing_secrets,
        tolerance_seconds=settings.stripe_timestamp_tolerance,
        now=time.time(),
    )
    valid = isinstance(verdict, stripe.Genuine)
    metrics.observe_signature(stripe.PROVIDER, valid=valid)
    if isinstance(verdict, stripe.Refused):
        call.request.app[INBOUND].refusals.note(stripe.PROVIDER, verdict.reason)
        # The sender is told no more: what exactly is wrong would help nobody but a forger.
        raise Refusal("invalid_signature", "Invalid signature")


EventType = Annotated[str, msgspec.Meta(pattern=f"^{EVENT_TYPE_PATTERN}$", max_length=MAX_EVENT_TYPE)]


class EndpointBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint to create."""

    url: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=MAX_URL_LENGTH,
            description="Where deliveries are posted to; https, and a public address.",
        ),
    ]
    event_types: Annotated[
        list[EventType],
        msgspec.Meta(
            max_length=100, description="The types it wants, such as payment.succeeded; none means all."
        ),
    ] = []
    secret: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=100,
                description="whsec_ and 24 to 64 random bytes in base64; left out, one is made.",
            ),
        ]
        | None
    ) = None


class EndpointView(msgspec.Struct, frozen=True):
    """An endpoint as it is shown."""

    id: UUID
    url: str
    event_types: list[str]
    created_at: datetime


class NewEndpointView(msgspec.Struct, frozen=True):
    """An endpoint just created, with its secret: this is the only time that it is shown."""

    id: UUID
    url: str
    event_types: list[str]
    created_at: datetime
    secret: str


class EndpointPage(msgspec.Struct, frozen=True):
    """A page of endpoints, oldest first; `next` continues the list as `after`, null at its end."""

    data: list[EndpointView]
    next: UUID | None


class EndpointQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of the list."""

    after: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50


async def create_endpoint(call: Call) -> web.Response:
    """Create an endpoint of the caller's principal."""
    body: EndpointBody = call.body
    endpoint, secret = await endpoints.create(
        call.service.database,
        call.request.app[INBOUND].destinations,
        principal_id=call.caller.id,
        url=body.url,
        event_types=body.event_types,
        secret=body.secret,
    )
    view = NewEndpointView(endpoint.id, endpoint.url, list(endpoint.event_types), endpoint.created_at, secret)
    return answer(201, view, {"Location": f"/v1/webhook-endpoints/{endpoint.id}"})


async def list_endpoints(call: Call) -> web.Response:
    """List the endpoints of the caller's principal."""
    query: EndpointQuery = call.query
    found = await endpoints.list_page(
        call.service.database,
        principal_id=call.caller.id,
        after=query.after,
        limit=query.limit + 1,
    )
    page, more = cut(found, query.limit)
    return answer(200, EndpointPage([_view(endpoint) for endpoint in page], page[-1].id if more else None))


async def get_endpoint(call: Call) -> web.Response:
    """Show one endpoint."""
    endpoint = await endpoints.find(
        call.service.database, principal_id=call.caller.id, endpoint_id=call.path("endpoint_id")
    )
    return answer(200, _view(endpoint))


async def delete_endpoint(call: Call) -> web.Response:
    """Delete one endpoint."""
    await endpoints.delete(
        call.service.database, principal_id=call.caller.id, endpoint_id=call.path("endpoint_id")
    )
    return web.Response(status=204)


def _view(endpoint: endpoints.Endpoint) -> EndpointView:
    return EndpointView(endpoint.id, endpoint.url, list(endpoint.event_types), endpoint.created_at)


_ENDPOINT_ID: dict[str, Any] = {"endpoint_id": UUID}

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/webhooks/stripe",
        receive_stripe,
        "receive_stripe_event",
        "Take in an event of Stripe",
        "webhooks in",
        raw=True,
        answers={200: WebhookAnswer},
        problems=("invalid_signature", "malformed_json", "invalid_request"),
        description=(
            "The raw bytes are verified against `Stripe-Signature` with every active secret, stored once by the event's"
            " id, and acknowledged when they are durable. What the event does is done afterwards, by a worker."
        ),
    ),
    Route(
        "POST",
        "/v1/webhook-endpoints",
        create_endpoint,
        "create_webhook_endpoint",
        "Create an endpoint that events are delivered to",
        "webhooks out",
        scope="webhooks:write",
        body=EndpointBody,
        answers={201: NewEndpointView},
        description=(
            "Deliveries are signed in both forms: Standard Webhooks (`webhook-id`, `webhook-timestamp`,"
            " `webhook-signature`) and `X-Webhook-Ts`, `X-Webhook-Event`, `X-Webhook-Sign`, `X-Delivery-ID`."
            " The secret is shown in this answer only."
        ),
        example={"url": "https://shop.example.com/hooks", "event_types": ["payment.succeeded"]},
    ),
    Route(
        "GET",
        "/v1/webhook-endpoints",
        list_endpoints,
        "list_webhook_endpoints",
        "List endpoints",
        "webhooks out",
        scope="webhooks:read",
        query=EndpointQuery,
        answers={200: EndpointPage},
    ),
    Route(
        "GET",
        "/v1/webhook-endpoints/{endpoint_id}",
        get_endpoint,
        "get_webhook_endpoint",
        "Show an endpoint",
        "webhooks out",
        scope="webhooks:read",
        parameters=_ENDPOINT_ID,
        answers={200: EndpointView},
        problems=("not_found",),
    ),
    Route(
        "DELETE",
        "/v1/webhook-endpoints/{endpoint_id}",
        delete_endpoint,
        "delete_webhook_endpoint",
        "Delete an endpoint",
        "webhooks out",
        scope="webhooks:write",
        parameters=_ENDPOINT_ID,
        answers={204: None},
        problems=("not_found",),
        description="What is still due to it is not sent any more.",
    ),
)
