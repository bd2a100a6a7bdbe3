"""Webhooks out: where principals say where they want our events."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web

from core.outbox import endpoints
from core.outbox.destinations import MAX_URL_LENGTH
from core.outbox.events import EVENT_TYPE_PATTERN, MAX_EVENT_TYPE
from handlers.api import Call, Route, answer, cut
from handlers.inbound import INBOUND

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
