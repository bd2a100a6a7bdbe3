"""Merchants' webhook endpoints and deliveries."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web

from core import metrics
from core.errors import Refusal
from core.outbox import deliveries, endpoints, trials
from core.outbox.deliveries import Delivery, Filter
from core.outbox.endpoints import MAX_ENDPOINTS
from core.outbox.send_now import send_all_due, send_due
from core.wallets import merchant_endpoints
from handlers.http.conditions import reader
from handlers.http.route import Call, Route, answer, table
from handlers.http.validation import invalid
from handlers.wallets.contract import MAX_PAGE, Body, Detail, PageQuery, cut, linked, platform_of, timestamp

LISTED: Final = 200
MAX_ROUNDS: Final = 50

Url = Annotated[str, pydantic.Field(min_length=1, max_length=512)]
Secret = Annotated[str, pydantic.Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]


Events = Annotated[str, pydantic.Field(max_length=2000)]


class MerchantEndpointQuery(Body):
    """An endpoint to make; the body gives the fields that are missing here.

    `events` are types or patterns of events, separated by commas; without them the four of the contract come.
    """

    url: Url | None = None
    secret: Secret | None = None
    events: Events | None = None


class MerchantEndpointIn(Body):
    """An endpoint to make, as a body."""

    url: Url | None = None
    secret: Secret | None = None
    events: Events | list[str] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _nothing_is_empty(cls, value: Any) -> Any:
        return {} if value is None else value


class DeliveriesQuery(Body):
    """A part of the list; `before` continues it behind the id of its last delivery."""

    limit: Annotated[int, pydantic.Field(ge=1, le=MAX_PAGE)] | None = None
    before: UUID | None = None


class RoundsQuery(Body):
    """The most rounds of deliveries. `batch_size` is read and has no effect, since the sender chooses its batches."""

    max_cycles: Annotated[int, pydantic.Field(ge=0)] = 5
    batch_size: int = 50


class MerchantEndpointOut(msgspec.Struct, frozen=True):
    """A new endpoint."""

    id: str
    url: str
    active: bool


class ListedEndpointOut(msgspec.Struct, frozen=True):
    """An endpoint as it is listed; only an active one is sent events."""

    id: str
    url: str
    active: bool
    created_at: str


class TestsOut(msgspec.Struct, frozen=True):
    """The ids of the deliveries of a test, one for each active endpoint."""

    deliveries: list[str]


class DeliveryOut(msgspec.Struct, frozen=True):
    """A delivery; `status` is pending, delivered or failed, `attempt_count` how often it has failed."""

    id: str
    endpoint_id: str
    event_type: str
    status: str
    attempt_count: int
    created_at: str


class RoundsOut(msgspec.Struct, frozen=True):
    """The word `ok`, and the number of rounds that had anything to send."""

    detail: str
    cycles: int


async def create_endpoint(call: Call) -> web.Response:
    """Make an endpoint."""
    url, secret = _given(call, "url"), _given(call, "secret")
    events = call.query.events or call.body.events
    endpoint = await merchant_endpoints.create_endpoint(
        platform_of(call),
        call.parts.outbound.destinations,
        call.user,
        url=url,
        secret=secret,
        event_types=_types(events) or merchant_endpoints.CONTRACT_EVENTS,
    )
    return answer(200, MerchantEndpointOut(str(endpoint.id), endpoint.url, active=True))


async def list_endpoints(call: Call) -> web.Response:
    """List the caller's endpoints, newest first."""
    found = await endpoints.list_page(
        call.service.database, principal_id=call.user.principal_id, after=None, limit=MAX_ENDPOINTS
    )
    query: PageQuery = call.query
    # A user has few endpoints, so that a part of the list is cut here.
    wanted = [
        ListedEndpointOut(str(one.id), one.url, one.disabled_at is None, timestamp(one.created_at))
        for one in reversed(found)
        if (query.before is None or one.id < query.before)
        and (query.status is None or (query.status == "active") == (one.disabled_at is None))
    ]
    items, last = cut(wanted, query.limit or MAX_ENDPOINTS)
    return linked(call, answer(200, items), None if last is None else last.id)


async def send_tests(call: Call) -> web.Response:
    """Send a test to each of the caller's endpoints."""
    sent = await trials.send_test_to_all(
        call.service.database, principal_id=call.user.principal_id, data={"user": str(call.user.id)}
    )
    if sent:
        metrics.DELIVERIES.add("created", by=len(sent))
        call.parts.outbound.wake()
    return answer(200, TestsOut([str(delivery_id) for delivery_id in sent]))


async def list_deliveries(call: Call) -> web.Response:
    """List the newest deliveries to the caller's endpoints."""
    query: DeliveriesQuery = call.query
    most = (query.limit or LISTED) + 1
    wanted = Filter(principal_id=call.user.principal_id)
    found = await deliveries.list_deliveries(reader(call, "list"), wanted, before=query.before, limit=most)
    items, last = cut(found, most - 1)
    said = answer(200, [_shown(delivery) for delivery in items])
    return linked(call, said, str(last.id)) if query.model_fields_set and last is not None else said


async def process_once(call: Call) -> web.Response:
    """Send the deliveries that are due, in development, and answer when they are sent, also by a worker."""
    _development_only(call)
    settings, destinations = platform_of(call).settings, call.parts.outbound.destinations
    await send_all_due(call.service.database, settings, destinations)
    return answer(200, Detail("ok"))


async def process_pending(call: Call) -> web.Response:
    """Send due deliveries round by round, in development."""
    query: RoundsQuery = call.query
    return answer(200, RoundsOut("ok", await _process(call, min(query.max_cycles, MAX_ROUNDS))))


async def requeue_delivery(call: Call) -> web.Response:
    """Send one of the caller's deliveries again, in any state."""
    database, delivery_id = call.service.database, call.path("delivery_id")
    try:
        await deliveries.resend(database, principal_id=call.user.principal_id, delivery_id=delivery_id)
    except Refusal as refusal:
        if refusal.code != "not_found":
            raise
        await _refuse_delivery(call, delivery_id)
    call.parts.outbound.wake()
    return answer(200, Detail("requeued"))


async def _refuse_delivery(call: Call, delivery_id: UUID) -> None:
    try:
        await deliveries.find_delivery(call.service.database, principal_id=None, delivery_id=delivery_id)
    except Refusal:
        raise Refusal("delivery_not_found", "There is no such delivery.") from None
    raise Refusal("forbidden", "This delivery is to somebody else's endpoint.")


def _development_only(call: Call) -> None:
    if platform_of(call).settings.env != "dev":
        raise Refusal("forbidden", "This call is for development only. Elsewhere the workers send.")


async def _process(call: Call, rounds: int) -> int:
    _development_only(call)
    settings, destinations = platform_of(call).settings, call.parts.outbound.destinations
    return await send_due(call.service.database, settings, destinations, most_rounds=rounds)


def _types(given: str | list[str] | None) -> list[str]:
    found = given.split(",") if isinstance(given, str) else given or []
    return [one.strip() for one in found if one.strip()]


def _given(call: Call, name: str) -> str:
    """Return a field of the query, or else of the body. A field that is in neither is an error of the query."""
    value: str | None = getattr(call.query, name) or getattr(call.body, name)
    if value is None:
        raise invalid([{"type": "missing", "loc": ["query", name], "msg": "Field required", "input": None}])
    return value


def contract_state(delivery: Delivery) -> tuple[str, int]:
    """Return the status of a delivery (pending, delivered or failed) and how often it has failed.

    The contract counts failures. Our attempts also count the one that is under way, and the last one if it was good.
    """
    failures = delivery.attempts - (delivery.state in {"sending", "delivered"})
    return "pending" if delivery.state in {"sending", "waiting"} else delivery.state, max(failures, 0)


def _shown(delivery: Delivery) -> DeliveryOut:
    created_at = timestamp(delivery.created_at)
    return DeliveryOut(
        str(delivery.id), str(delivery.endpoint), delivery.type, *contract_state(delivery), created_at
    )


_DELIVERY_ID: dict[str, Any] = {"delivery_id": UUID}

ROUTES = table(
    Route(
        "POST", "/webhooks/endpoints", create_endpoint, "create_merchant_endpoint", "Make an endpoint",
        query=MerchantEndpointQuery, body=MerchantEndpointIn, answers={200: MerchantEndpointOut},
        problems=("merchant_only", "invalid_request"),
    ),
    Route(
        "GET", "/webhooks/endpoints", list_endpoints, "list_merchant_endpoints", "My endpoints",
        query=PageQuery, answers={200: list[ListedEndpointOut]},
    ),
    Route(
        "POST", "/webhooks/test", send_tests, "test_merchant_endpoints", "Send a test to my endpoints",
        answers={200: TestsOut},
    ),
    Route(
        "GET", "/webhooks/deliveries", list_deliveries, "list_merchant_deliveries", "List the newest deliveries",
        query=DeliveriesQuery, answers={200: list[DeliveryOut]},
    ),
    Route(
        "POST", "/webhooks/process_once", process_once, "process_webhooks_once", "Send due deliveries (development)",
        answers={200: Detail}, problems=("forbidden",),
    ),
    Route(
        "POST", "/webhooks/process_pending", process_pending, "process_pending_webhooks",
        "Send due deliveries in rounds (development)", query=RoundsQuery, answers={200: RoundsOut},
        problems=("forbidden",),
    ),
    Route(
        "POST", "/webhooks/deliveries/{delivery_id}/requeue", requeue_delivery, "requeue_merchant_delivery",
        "Send a delivery again", parameters=_DELIVERY_ID, answers={200: Detail},
        problems=("delivery_not_found", "endpoint_missing", "endpoint_disabled", "delivery_in_progress", "forbidden"),
    ),
    tag="merchant webhooks", caller="user",
)  # fmt: skip
