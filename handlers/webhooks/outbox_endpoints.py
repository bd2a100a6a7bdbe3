"""Webhooks out: the endpoints of principals, to which our events are delivered."""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import UUID

import msgspec
import structlog
from aiohttp import web

from core.errors import Refusal
from core.outbox import endpoints, trials
from core.outbox.signing import message_id
from handlers.http.conditions import etag, expected_revision
from handlers.http.route import Call, Route, answer, cut, table
from handlers.webhooks.outbox_bodies import (
    EndpointBody,
    EndpointChange,
    EndpointPage,
    EndpointQuery,
    EndpointView,
    NewEndpointView,
    Rotation,
    SecretView,
    TestView,
)

log = structlog.get_logger(__name__)


async def create_endpoint(call: Call) -> web.Response:
    """Create an endpoint of the caller's principal."""
    body: EndpointBody = call.body
    endpoint, secret = await endpoints.create(
        call.service.database,
        call.parts.outbound.destinations,
        call.parts.outbound.vault,
        principal_id=call.caller.id,
        wanted=endpoints.NewEndpoint(**msgspec.structs.asdict(body)),
    )
    if endpoint.verify:
        endpoint = await _challenged(call, endpoint)
    view = NewEndpointView(**_fields(endpoint), secret=secret)
    return answer(201, view, {"Location": f"/v1/webhook-endpoints/{endpoint.id}", **etag(endpoint.revision)})


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
    return _shown(await _found(call, call.path("endpoint_id")))


async def update_endpoint(call: Call) -> web.Response:
    """Change one endpoint."""
    body: EndpointChange = call.body
    endpoint = await endpoints.update(
        call.service.database,
        call.parts.outbound.destinations,
        call.parts.outbound.vault,
        principal_id=call.caller.id,
        endpoint_id=call.path("endpoint_id"),
        changes=endpoints.EndpointChanges(**msgspec.structs.asdict(body)),
        expected_revision=expected_revision(call.request),
    )
    if (body.url is not None or body.verify) and endpoint.verify and endpoint.verified_at is None:
        endpoint = await _challenged(call, endpoint)
    return _shown(endpoint)


async def challenge_endpoint(call: Call) -> web.Response:
    """Have the URL of one endpoint prove itself."""
    endpoint_id = call.path("endpoint_id")
    expected = expected_revision(call.request)
    await call.parts.outbound.challenge(call.service, call.caller.id, endpoint_id, expected)
    return _shown(await _found(call, endpoint_id))


async def delete_endpoint(call: Call) -> web.Response:
    """Delete one endpoint."""
    await endpoints.delete(
        call.service.database,
        principal_id=call.caller.id,
        endpoint_id=call.path("endpoint_id"),
        expected_revision=expected_revision(call.request),
    )
    return web.Response(status=204)


async def rotate_secret(call: Call) -> web.Response:
    """Give an endpoint a new secret."""
    body: Rotation = call.body
    rotated = await endpoints.rotate_secret(
        call.service.database,
        call.parts.outbound.vault,
        principal_id=call.caller.id,
        endpoint_id=call.path("endpoint_id"),
        secret=body.secret,
        overlap_seconds=body.overlap_seconds,
        expected_revision=expected_revision(call.request),
    )
    return answer(200, SecretView(**rotated._asdict()), etag(rotated.revision))


async def send_test(call: Call) -> web.Response:
    """Send an endpoint an event `webhook.test`."""
    event_id, delivery_id = await trials.send_test(
        call.service.database, principal_id=call.caller.id, endpoint_id=call.path("endpoint_id")
    )
    call.parts.outbound.wake()
    return answer(
        202,
        TestView(message_id(event_id), delivery_id),
        {"Location": f"/v1/webhook-deliveries/{delivery_id}"},
    )


async def _found(call: Call, endpoint_id: UUID) -> endpoints.Endpoint:
    return await endpoints.find(call.service.database, principal_id=call.caller.id, endpoint_id=endpoint_id)


async def _challenged(call: Call, endpoint: endpoints.Endpoint) -> endpoints.Endpoint:
    """Challenge an endpoint and return it as it is then; as it was, when that cannot be known.

    The change is made in any case, and its answer has a secret that is never shown again. An endpoint that has not
    passed stays off, and can be challenged again.
    """
    try:
        with contextlib.suppress(Refusal):
            await call.parts.outbound.challenge(call.service, call.caller.id, endpoint.id)
        return await _found(call, endpoint.id)
    except Exception:
        log.exception("endpoint.not_challenged", endpoint_id=str(endpoint.id))
        return endpoint


def _shown(endpoint: endpoints.Endpoint) -> web.Response:
    return answer(200, _view(endpoint), etag(endpoint.revision))


def _view(endpoint: endpoints.Endpoint) -> EndpointView:
    return EndpointView(**_fields(endpoint))


def _fields(endpoint: endpoints.Endpoint) -> dict[str, Any]:
    return endpoint._asdict() | {"enabled": endpoint.disabled_at is None}


_ENDPOINT_ID: dict[str, Any] = {"endpoint_id": UUID}

ROUTES = table(
    Route(
        "POST", "/v1/webhook-endpoints", create_endpoint, "create_webhook_endpoint",
        "Create an endpoint that events are delivered to", scope="webhooks:write", body=EndpointBody,
        answers={201: NewEndpointView},
        description="Deliveries are signed in both forms: Standard Webhooks (`webhook-id`, `webhook-timestamp`, "
        "`webhook-signature`) and `X-Webhook-Ts`, `X-Webhook-Event`, `X-Webhook-Sign`, `X-Delivery-ID`. The secret "
        "is shown in this answer only.",
        example={"url": "https://shop.example.com/hooks", "event_types": ["payment.*"]},
    ),
    Route(
        "GET", "/v1/webhook-endpoints", list_endpoints, "list_webhook_endpoints", "List endpoints",
        scope="webhooks:read", query=EndpointQuery, answers={200: EndpointPage},
    ),
    Route(
        "GET", "/v1/webhook-endpoints/{endpoint_id}", get_endpoint, "get_webhook_endpoint", "Show an endpoint",
        scope="webhooks:read", answers={200: EndpointView}, problems=("not_found",),
    ),
    Route(
        "PATCH", "/v1/webhook-endpoints/{endpoint_id}", update_endpoint, "update_webhook_endpoint",
        "Change an endpoint, or switch it off and on", scope="webhooks:write", body=EndpointChange,
        answers={200: EndpointView}, problems=("not_found", "endpoint_unverified"),
        conditional=True,
        description="While an endpoint is off its events are kept as failed deliveries; after switching it on, "
        "recover them.",
        example={"enabled": True},
    ),
    Route(
        "DELETE", "/v1/webhook-endpoints/{endpoint_id}", delete_endpoint, "delete_webhook_endpoint",
        "Delete an endpoint", scope="webhooks:write", answers={204: None}, problems=("not_found",),
        conditional=True,
        description="Deliveries that are still due to it are not sent any more.",
    ),
    Route(
        "POST", "/v1/webhook-endpoints/{endpoint_id}/secret/rotate", rotate_secret, "rotate_webhook_secret",
        "Give an endpoint a new secret", scope="webhooks:write", body=Rotation, answers={200: SecretView},
        problems=("not_found", "too_many_secrets"), conditional=True,
        description="For `overlap_seconds` deliveries carry the signatures of both secrets in `webhook-signature`, "
        "and `X-Webhook-Sign` is made with the old one. At most four secrets overlap; a fifth is refused.",
        example={"overlap_seconds": 3600},
    ),
    Route(
        "POST", "/v1/webhook-endpoints/{endpoint_id}/challenge", challenge_endpoint, "challenge_webhook_endpoint",
        "Have the URL of an endpoint prove itself", scope="webhooks:write", answers={200: EndpointView},
        problems=("not_found", "challenge_failed", "busy"), conditional=True,
        description="We send `webhook.challenge` to the URL, which answers 2xx with `data.challenge` as its body, "
        'plain or as `{"challenge": ...}`, within five seconds. An endpoint that is off as `unverified` is on '
        "then.",
    ),
    Route(
        "POST", "/v1/webhook-endpoints/{endpoint_id}/test", send_test, "test_webhook_endpoint",
        "Send an endpoint a test event", scope="webhooks:write", answers={202: TestView},
        problems=("not_found", "endpoint_disabled"),
        description="An event `webhook.test` for this endpoint alone, whatever types it wants.",
    ),
    tag="webhooks out", parameters=_ENDPOINT_ID,
)  # fmt: skip
