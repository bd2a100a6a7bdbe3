"""Webhooks out: deliveries and their attempts, deliveries sent again, and events read instead of received."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from core.errors import Refusal
from core.outbox import cursor, deliveries, endpoints
from core.outbox.cursor import MAX_PAGE, Event
from core.outbox.deliveries import REPLAYED, Attempt, Delivery, Filter
from core.outbox.events import check_patterns
from handlers.http.conditions import reader
from handlers.http.route import Call, Route, answer, cut, table
from handlers.http.times import Time
from handlers.webhooks.outbox_parts import EventPattern, EventType

State = Literal["waiting", "pending", "sending", "delivered", "failed"]
EventId = Annotated[
    str, msgspec.Meta(pattern="^msg_[0-9a-f]{32}$", description="The `webhook-id` of the event.")
]
# The largest bigint of PostgreSQL.
NEWEST_POSITION = 2**63 - 1
MOST_TYPES = 20
MAX_WAIT_SECONDS = 30
# Seconds between two looks of a waiting call. An event takes a few hundredths of a second to its position.
WAIT_STEP_SECONDS = 0.25


_Patterns = Annotated[list[EventPattern], msgspec.Meta(max_length=MOST_TYPES)]


class DeliveryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of a list of deliveries. `from` and `to` are times of their making, `to` is not included."""

    endpoint: UUID | None = None
    event: EventId | None = None
    state: State | None = None
    type: EventType | None = None
    since: Time | None = msgspec.field(default=None, name="from")
    until: Time | None = msgspec.field(default=None, name="to")
    after: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50


class DeliveryPage(msgspec.Struct, frozen=True):
    """A page of deliveries, newest first; `next` continues the list as `after`, null at its end."""

    data: list[Delivery]
    next: UUID | None


class DeliveryView(msgspec.Struct, frozen=True):
    """A delivery and its attempts, newest first. Attempts are kept for WEBHOOK_ATTEMPTS_DAYS, 30 days by default."""

    delivery: Delivery
    attempts: list[Attempt]


class Recovery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time since which failed deliveries are sent again; `after` is where an earlier call ended."""

    since: Time
    after: UUID | None = None


class Replay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The deliveries that are to be sent again. `from` and `to` are times of their making, `to` is not included."""

    since: Time = msgspec.field(name="from")
    until: Time | None = msgspec.field(default=None, name="to")
    endpoint: UUID | None = None
    states: (
        Annotated[
            list[Literal["delivered", "failed"]],
            msgspec.Meta(min_length=1, max_length=2, description="When absent: failed deliveries."),
        ]
        | None
    ) = None
    types: Annotated[list[EventType], msgspec.Meta(max_length=MOST_TYPES)] = []
    after: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=REPLAYED)] = REPLAYED


class ReplayView(msgspec.Struct, frozen=True):
    """The number of deliveries that are due again. If `next` is not null, call again with it as `after`."""

    replayed: int
    next: UUID | None


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The position to begin behind, the number of events, and their types (comma separated; requests.* is a pattern).

    With `wait` the call answers as soon as there is anything behind `after`, or after that many seconds. `epoch` is
    that of the page before, by which a reader is told when a backup was restored meanwhile.
    """

    after: Annotated[int, msgspec.Meta(ge=0, le=NEWEST_POSITION)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    types: Annotated[str, msgspec.Meta(max_length=2000)] | None = None
    wait: Annotated[int, msgspec.Meta(ge=0, le=MAX_WAIT_SECONDS, description="Seconds.")] = 0
    epoch: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


class EventPage(msgspec.Struct, frozen=True):
    """Events in order. Pass `next` as `after` to go on, and `epoch`; `head` is the position of the last event."""

    data: list[Event]
    next: int
    head: int
    epoch: str


async def list_deliveries(call: Call) -> web.Response:
    """List deliveries to the caller's endpoints."""
    query: DeliveryQuery = call.query
    if query.type is not None:
        check_patterns((query.type,), field="type")
    wanted = Filter(
        principal_id=call.caller.id,
        endpoint_id=query.endpoint,
        event_id=None if query.event is None else UUID(query.event[4:]),
        states=None if query.state is None else (query.state,),
        types=None if query.type is None else (query.type,),
        since=query.since,
        until=query.until,
    )
    found = await deliveries.list_deliveries(
        reader(call, "list"), wanted, before=query.after, limit=query.limit + 1
    )
    page, more = cut(found, query.limit)
    return answer(200, DeliveryPage(page, page[-1].id if more else None))


async def get_delivery(call: Call) -> web.Response:
    """Show one delivery with its attempts."""
    delivery, attempts = await deliveries.find_delivery(
        call.service.database, principal_id=call.caller.id, delivery_id=call.path("delivery_id")
    )
    return answer(200, DeliveryView(delivery, attempts))


async def resend_delivery(call: Call) -> web.Response:
    """Send one delivery again."""
    await deliveries.resend(
        call.service.database, principal_id=call.caller.id, delivery_id=call.path("delivery_id")
    )
    call.parts.outbound.wake()
    return answer(202, ReplayView(1, None))


async def recover_endpoint(call: Call) -> web.Response:
    """Send an endpoint the deliveries again that have failed since a time."""
    body: Recovery = call.body
    endpoint = await endpoints.find(
        call.service.database, principal_id=call.caller.id, endpoint_id=call.path("endpoint_id")
    )
    if endpoint.disabled_at is not None:
        raise Refusal("endpoint_disabled", "This endpoint is switched off. Enable it first.")
    wanted = Filter(
        principal_id=call.caller.id,
        endpoint_id=endpoint.id,
        states=("failed",),
        failed_since=body.since,
    )
    return await _replay(call, wanted, body.after, REPLAYED)


async def replay_deliveries(call: Call) -> web.Response:
    """Send the deliveries again that a filter finds."""
    body: Replay = call.body
    check_patterns(body.types, field="types")
    wanted = Filter(
        principal_id=call.caller.id,
        endpoint_id=body.endpoint,
        states=("failed",) if body.states is None else tuple(body.states),
        types=tuple(body.types) or None,
        since=body.since,
        until=body.until,
    )
    return await _replay(call, wanted, body.after, body.limit)


async def _replay(call: Call, wanted: Filter, after: UUID | None, limit: int) -> web.Response:
    replayed = await deliveries.replay(call.service.database, wanted, before=after, limit=limit)
    if replayed.replayed:
        call.parts.outbound.wake()
    return answer(202, ReplayView(*replayed))


async def read_events(call: Call) -> web.Response:
    """Read the caller's own events."""
    query: EventQuery = call.query
    types = _patterns(query.types)
    if query.after:
        await cursor.check_reader(
            call.service.database,
            call.service.epoch,
            query.epoch,
            principal_id=call.caller.id,
            after=query.after,
        )
    looks = 1 + int(query.wait / WAIT_STEP_SECONDS)
    while True:
        page = await cursor.read_events(
            call.service.database,
            principal_id=call.caller.id,
            after=query.after,
            types=types,
            limit=query.limit,
        )
        looks -= 1
        if page.head > query.after or not looks:
            break
        await asyncio.sleep(WAIT_STEP_SECONDS)
    return answer(200, EventPage(page.events, page.next, page.head, call.service.epoch))


def _patterns(text: str | None) -> list[str]:
    if text is None:
        return []
    try:
        patterns: list[str] = msgspec.convert(text.split(","), _Patterns)
    except msgspec.ValidationError:
        raise Refusal(
            "invalid_request",
            f"types has up to {MOST_TYPES} types such as payment.succeeded or requests.*, separated by commas.",
        ) from None
    check_patterns(patterns, field="types")
    return patterns


_DELIVERY_ID: dict[str, Any] = {"delivery_id": UUID}

ROUTES = table(
    Route(
        "GET", "/v1/webhook-deliveries", list_deliveries, "list_webhook_deliveries", "List deliveries",
        scope="webhooks:read", query=DeliveryQuery, answers={200: DeliveryPage},
    ),
    Route(
        "POST", "/v1/webhook-deliveries/replay", replay_deliveries, "replay_webhook_deliveries",
        "Send the deliveries again that a filter finds", scope="webhooks:write", body=Replay, answers={202: ReplayView},
        description="Deliveries keep their ids and bytes, so a receiver that has seen one knows it. Deliveries that "
        "are being sent, and those to endpoints that are gone or off, are left out.",
        example={"from": "2026-01-31T12:00:00Z", "states": ["failed"]},
    ),
    Route(
        "GET", "/v1/webhook-deliveries/{delivery_id}", get_delivery, "get_webhook_delivery",
        "Show a delivery with its attempts", scope="webhooks:read", answers={200: DeliveryView},
        problems=("not_found",),
    ),
    Route(
        "POST", "/v1/webhook-deliveries/{delivery_id}/resend", resend_delivery, "resend_webhook_delivery",
        "Send a delivery again", scope="webhooks:write", answers={202: ReplayView},
        problems=("not_found", "endpoint_missing", "endpoint_disabled", "delivery_in_progress"),
        description="The delivery may be in any state. Its id and bytes stay; all its attempts are before it again.",
    ),
    Route(
        "POST", "/v1/webhook-endpoints/{endpoint_id}/recover", recover_endpoint, "recover_webhook_endpoint",
        "Send an endpoint its failed deliveries again", scope="webhooks:write",
        parameters={"endpoint_id": UUID}, body=Recovery, answers={202: ReplayView},
        problems=("not_found", "endpoint_disabled"),
        example={"since": "2026-01-31T12:00:00Z"},
    ),
    Route(
        "GET", "/v1/events", read_events, "read_events", "Read your events by a cursor",
        scope="webhooks:read", query=EventQuery, answers={200: EventPage},
        description="The events that endpoints are sent, for readers that cannot receive. Positions count each "
        "principal's events from 1 and become visible in order: keep `next`, pass it as `after`, and nothing is "
        "missed. Events are kept for WEBHOOK_EVENTS_DAYS, 30 days by default; a reader that comes later is told so.",
        problems=("events_removed", "epoch_changed"),
    ),
    tag="webhooks out", parameters=_DELIVERY_ID,
)  # fmt: skip
