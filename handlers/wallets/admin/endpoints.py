"""Administration: users' webhook endpoints, and the deliveries to them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web

from core.errors import Refusal
from core.outbox import deliveries
from core.outbox.deliveries import NEWEST, Filter
from core.wallets import merchant_endpoints
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import Body, Detail, platform_of, timestamp
from handlers.wallets.merchant_endpoints import contract_state

TAG = "administration"
MAX_PAGE = 200
# The largest offset. A list goes on by `before` behind it, which costs the same however far it is.
MAX_OFFSET = 100_000

Limit = Annotated[int, pydantic.Field(ge=1, le=MAX_PAGE)]
Offset = Annotated[int, pydantic.Field(ge=0, le=MAX_OFFSET)]


class EndpointsQuery(Body):
    """The length of the list; `before` continues it behind the id of its last endpoint."""

    limit: Limit = MAX_PAGE
    before: UUID | None = None


class DeliveriesQuery(Body):
    """A part of the list; `before` continues it behind the id of its last delivery."""

    limit: Limit = 50
    offset: Offset = 0
    before: UUID | None = None


class ToggleIn(Body):
    """The wanted state of an endpoint: whether deliveries are sent to it."""

    active: bool


class ToggleOut(msgspec.Struct, frozen=True):
    """An endpoint after the change."""

    id: str
    active: bool


class EndpointOut(msgspec.Struct, frozen=True):
    """An endpoint and the user who owns it."""

    id: str
    user_id: str
    user_phone: str
    url: str
    active: bool
    created_at: str


class AdminDeliveryOut(msgspec.Struct, frozen=True):
    """A delivery; `status` is pending, delivered or failed, `attempt_count` how often it has failed."""

    id: str
    event_type: str
    status: str
    attempt_count: int
    last_error: str | None
    created_at: str


class AdminDeliveries(msgspec.Struct, frozen=True):
    """Deliveries, newest first."""

    items: list[AdminDeliveryOut]
    limit: int
    offset: int


async def list_endpoints(call: Call) -> web.Response:
    """List all users' endpoints, newest first."""
    query: EndpointsQuery = call.query
    found = await merchant_endpoints.list_endpoints(
        platform_of(call), before=query.before or NEWEST, limit=query.limit
    )
    return answer(
        200,
        [
            EndpointOut(
                str(one.id), str(one.user_id), one.user_phone, one.url, one.active, timestamp(one.created_at)
            )
            for one in found
        ],
    )


async def toggle(call: Call) -> web.Response:
    """Switch an endpoint on or off."""
    body: ToggleIn = call.body
    endpoint_id: UUID = call.path("endpoint_id")
    await merchant_endpoints.switch(platform_of(call), endpoint_id, active=body.active)
    return answer(200, ToggleOut(str(endpoint_id), body.active))


async def list_deliveries(call: Call) -> web.Response:
    """List the deliveries to an endpoint, newest first."""
    query: DeliveriesQuery = call.query
    found = await deliveries.list_deliveries(
        call.service.database,
        Filter(principal_id=None, endpoint_id=call.path("endpoint_id")),
        before=query.before,
        limit=query.limit,
        offset=query.offset,
    )
    items = [
        AdminDeliveryOut(
            str(one.id), one.type, *contract_state(one), one.last_error, timestamp(one.created_at)
        )
        for one in found
    ]
    return answer(200, AdminDeliveries(items, query.limit, query.offset))


async def requeue_delivery(call: Call) -> web.Response:
    """Send one delivery to any endpoint again."""
    try:
        await deliveries.resend(
            call.service.database, principal_id=None, delivery_id=call.path("delivery_id")
        )
    except Refusal as refusal:
        if refusal.code != "not_found":
            raise
        raise Refusal("delivery_not_found", refusal.detail) from None
    call.parts.outbound.wake()
    return answer(200, Detail("requeued"))


_ENDPOINT_ID = {"endpoint_id": UUID}

ROUTES = table(
    Route(
        "GET", "/admin/webhooks/endpoints", list_endpoints, "admin_list_endpoints", "List users' endpoints",
        query=EndpointsQuery, answers={200: list[EndpointOut]},
    ),
    Route(
        "POST", "/admin/webhooks/endpoints/{endpoint_id}/toggle", toggle, "admin_toggle_endpoint",
        "Switch an endpoint on or off", body=ToggleIn, answers={200: ToggleOut},
        problems=("endpoint_not_found", "endpoint_unverified"),
    ),
    Route(
        "GET", "/admin/webhooks/endpoints/{endpoint_id}/deliveries", list_deliveries,
        "admin_list_endpoint_deliveries", "List the deliveries to an endpoint", query=DeliveriesQuery,
        answers={200: AdminDeliveries},
    ),
    Route(
        "POST", "/admin/webhooks/deliveries/{delivery_id}/requeue", requeue_delivery, "requeue_delivery",
        "Send a delivery to any endpoint again", parameters={"delivery_id": UUID}, answers={200: Detail},
        problems=("delivery_not_found", "endpoint_missing", "endpoint_disabled", "delivery_in_progress"),
    ),
    tag=TAG, caller="admin", parameters=_ENDPOINT_ID,
)  # fmt: skip
