"""The webhook routes as their callers see them: answers, refusals, and what is stored when they answer."""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import pytest
import stripe
from aiohttp import web
from aiohttp.test_utils import TestClient

from core.service import Service
from core.settings import Settings
from ops.embedded import EmbeddedServers

ApiClient = TestClient[web.Request, web.Application]
ApiKey = Callable[..., Awaitable[str]]
OLD, NEW = "whsec_old", "whsec_new"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"stripe_signing_secrets": (NEW, OLD), "outbound_allow_hosts": ("10.9.0.0/16",)}
    )


def event(event_id: str = "evt_1", **changes: Any) -> bytes:
    return json.dumps(
        {
            "id": event_id,
            "type": "customer.created",
            "created": 1_700_000_000,
            "data": {"object": {"id": "cus_1"}},
        }
        | changes
    ).encode()


async def send(api: ApiClient, body: bytes, *, secret: str = NEW, **headers: str) -> tuple[int, Any]:
    signature = stripe.WebhookSignature.generate_signature_header(body.decode(), secret)
    answer = await api.post(
        "/webhooks/stripe", data=BytesIO(body), headers={"Stripe-Signature": signature} | headers
    )
    return answer.status, await answer.json(content_type=None)


async def stored(service: Service) -> list[Any]:
    return list(
        await service.database.connections.pool.fetch(
            "SELECT *, inbox_body(id, body) AS body FROM inbox_events ORDER BY event_id"
        )
    )


async def test_first_and_second_time(api: ApiClient, service: Service) -> None:
    body = event()
    assert await send(api, body) == (200, {"status": "ok", "message": "received", "event_id": "evt_1"})
    assert await send(api, body) == (
        200,
        {"status": "ok", "message": "duplicate ignored", "event_id": "evt_1"},
    )
    (row,) = await stored(service)
    assert row["body"] == body
    assert (row["provider"], row["event_type"], row["object_id"], row["state"]) == (
        "stripe",
        "customer.created",
        "cus_1",
        "pending",
    )
    # The stored form can be verified again.
    header = json.loads(row["headers"])["stripe-signature"]
    assert stripe.WebhookSignature.verify_header(row["body"].decode(), header, NEW, 300)


async def test_many_at_once_are_stored_once_each(api: ApiClient, service: Service) -> None:
    bodies = [event(f"evt_{number % 20}") for number in range(200)]
    answers = await asyncio.gather(*(send(api, body) for body in bodies))
    messages = [answer["message"] for _, answer in answers]
    assert {status for status, _ in answers} == {200}
    assert (messages.count("received"), messages.count("duplicate ignored")) == (20, 180)
    assert len(await stored(service)) == 20


async def test_both_secrets_of_a_rotation_are_good(api: ApiClient) -> None:
    assert (await send(api, event("evt_1"), secret=OLD))[0] == 200
    assert (await send(api, event("evt_2"), secret=NEW))[0] == 200


async def test_the_content_type_is_not_looked_at(api: ApiClient) -> None:
    assert (await send(api, event(), **{"Content-Type": "text/plain"}))[0] == 200


async def test_a_header_that_a_proxy_has_split(api: ApiClient) -> None:
    body = event()
    time_part, _, signature = stripe.WebhookSignature.generate_signature_header(body.decode(), NEW).partition(
        ","
    )
    headers = [("Stripe-Signature", time_part), ("Stripe-Signature", signature)]
    assert (await api.post("/webhooks/stripe", data=body, headers=headers)).status == 200


@pytest.mark.shared
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Stripe-Signature": ""},
        {"Stripe-Signature": "t=1,v1=" + "0" * 64},
        {"Stripe-Signature": f"t={int(time.time())},v1=" + "0" * 64},
        {"Stripe-Signature": "t=１,v1=é"},
        {"Stripe-Signature": "," * 4000},
        {
            "Stripe-Signature": stripe.WebhookSignature.generate_signature_header(
                event().decode(), "whsec_else"
            )
        },
        {"Stripe-Signature": stripe.WebhookSignature.generate_signature_header(event().decode(), NEW, 1_000)},
    ],
)
async def test_what_is_not_signed_by_us_leaves_nothing(
    api: ApiClient, service: Service, headers: dict[str, str]
) -> None:
    answer = await api.post("/webhooks/stripe", data=event(), headers=headers)
    assert answer.status == 400
    problem = await answer.json(content_type=None)
    assert problem["detail"] == "Invalid signature"
    assert problem["error"]["code"] == "invalid_signature"
    assert await stored(service) == []


@pytest.mark.shared
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "Invalid JSON payload"),
        (b"{", "Invalid JSON payload"),
        (b"[1]", "Invalid JSON payload"),
        (event(id=5), "Invalid JSON payload"),
        (event("x" * 300), "Invalid JSON payload"),
        (event(""), "Missing required fields"),
        (event(type=""), "Missing required fields"),
    ],
)
async def test_signed_but_not_an_event(api: ApiClient, service: Service, body: bytes, detail: str) -> None:
    status, problem = await send(api, body)
    assert (status, problem["detail"]) == (400, detail)
    assert await stored(service) == []


async def test_bounds_of_the_body(api: ApiClient, service: Service) -> None:
    status, problem = await send(api, event(padding="x" * 1_100_000))
    assert (status, problem["error"]["code"]) == (413, "payload_too_large")
    assert (await send(api, event(padding="x" * 900_000)))[0] == 200

    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 100_000

    answer = await api.post("/webhooks/stripe", data=chunks(), headers={"Stripe-Signature": "t=1,v1=0"})
    assert answer.status == 413
    assert len(await stored(service)) == 1


async def test_without_the_database_nobody_is_told_that_it_is_stored(
    api: ApiClient, servers: EmbeddedServers, eventually: Callable[..., Awaitable[Any]]
) -> None:
    assert (await send(api, event("evt_1")))[0] == 200
    await asyncio.to_thread(servers.postgres.stop)
    try:
        answer = await api.post(
            "/webhooks/stripe",
            data=event("evt_2"),
            headers={
                "Stripe-Signature": stripe.WebhookSignature.generate_signature_header(
                    event("evt_2").decode(), NEW
                )
            },
        )
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
    finally:
        await asyncio.to_thread(servers.postgres.start)

    async def comes_again() -> bool:
        return (await send(api, event("evt_2")))[0] == 200

    await eventually(comes_again)


async def test_an_endpoints_life(api: ApiClient, api_key: ApiKey) -> None:
    headers = {"Authorization": f"Bearer {await api_key('webhooks:read', 'webhooks:write')}"}
    body = {
        "url": "https://shop.example.com/hooks",
        "event_types": ["requests.*", "payment.succeeded", "requests.*"],
    }
    answer = await api.post("/v1/webhook-endpoints", json=body, headers=headers)
    assert answer.status == 201
    created = await answer.json()
    assert created.pop("secret").startswith("whsec_")
    assert (created["url"], created["event_types"]) == (body["url"], ["payment.succeeded", "requests.*"])
    path = f"/v1/webhook-endpoints/{created['id']}"
    assert answer.headers["Location"] == path
    assert await (await api.get(path, headers=headers)).json() == created
    assert (await (await api.get("/v1/webhook-endpoints", headers=headers)).json()) == {
        "data": [created],
        "next": None,
    }
    assert (await api.delete(path, headers=headers)).status == 204
    assert (await api.delete(path, headers=headers)).status == 404
    assert (await api.get(path, headers=headers)).status == 404
    assert (await (await api.get("/v1/webhook-endpoints", headers=headers)).json())["data"] == []


async def test_a_given_secret_is_kept_and_a_weak_one_refused(api: ApiClient, api_key: ApiKey) -> None:
    headers = {"Authorization": f"Bearer {await api_key('webhooks:write')}"}
    body = {"url": "https://shop.example.com/"}
    good = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    answer = await api.post("/v1/webhook-endpoints", json=body | {"secret": good}, headers=headers)
    assert (await answer.json())["secret"] == good
    for weak in (
        "",
        "x" * 32,
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_!!!!",
        "whsec_" + "A" * 90,
        "whsec_é" + "A" * 31,
    ):
        answer = await api.post("/v1/webhook-endpoints", json=body | {"secret": weak}, headers=headers)
        assert answer.status == 400, weak


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example.com",
        "ftp://shop.example.com/",
        "https://",
        "https:///path",
        "https://user:password@shop.example.com/",
        "https://shop.example.com/#part",
        "https://shop.example.com:0/",
        "https://shop.example.com:99999/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://shop example.com/",
        "https://shop.example.com\\@10.0.0.1/",
        "https://shöp.example.com/",
        "https://shop.example.com/" + "x" * 2048,
    ],
)
async def test_urls_that_lead_nowhere_we_would_go(api: ApiClient, api_key: ApiKey, url: str) -> None:
    headers = {"Authorization": f"Bearer {await api_key('webhooks:write')}"}
    answer = await api.post("/v1/webhook-endpoints", json={"url": url}, headers=headers)
    assert answer.status == 400
    assert (await answer.json(content_type=None))["error"]["code"] == "invalid_request"


async def test_a_private_network_that_is_allowed(api: ApiClient, api_key: ApiKey) -> None:
    headers = {"Authorization": f"Bearer {await api_key('webhooks:write')}"}
    answer = await api.post("/v1/webhook-endpoints", json={"url": "http://10.9.1.2/hooks"}, headers=headers)
    assert answer.status == 201


async def test_endpoints_belong_to_their_principal_and_need_their_scope(
    api: ApiClient, api_key: ApiKey
) -> None:
    mine = {"Authorization": f"Bearer {await api_key('webhooks:read', 'webhooks:write')}"}
    others = {
        "Authorization": f"Bearer {await api_key('webhooks:read', 'webhooks:write', principal='another')}"
    }
    reader = {"Authorization": f"Bearer {await api_key('webhooks:read')}"}
    body = {"url": "https://shop.example.com/"}
    created = await (await api.post("/v1/webhook-endpoints", json=body, headers=mine)).json()
    path = f"/v1/webhook-endpoints/{created['id']}"
    assert (await api.get(path, headers=others)).status == 404
    assert (await api.delete(path, headers=others)).status == 404
    assert (await (await api.get("/v1/webhook-endpoints", headers=others)).json())["data"] == []
    assert (await api.get(path, headers=reader)).status == 200
    assert (await api.delete(path, headers=reader)).status == 403
    assert (await api.post("/v1/webhook-endpoints", json=body, headers=reader)).status == 403
    assert (await api.post("/v1/webhook-endpoints", json=body)).status == 401
    assert (await api.get("/v1/webhook-endpoints/nonsense", headers=mine)).status in {400, 404}
    assert (await api.get(f"/v1/webhook-endpoints/{uuid.uuid4()}", headers=mine)).status == 404


async def test_the_list_pages_and_the_number_is_bounded(api: ApiClient, api_key: ApiKey) -> None:
    headers = {"Authorization": f"Bearer {await api_key('webhooks:read', 'webhooks:write')}"}
    for number in range(100):
        answer = await api.post(
            "/v1/webhook-endpoints", json={"url": f"https://shop.example.com/{number}"}, headers=headers
        )
        assert answer.status == 201
    answer = await api.post(
        "/v1/webhook-endpoints", json={"url": "https://shop.example.com/"}, headers=headers
    )
    assert answer.status == 400
    seen: list[str] = []
    query = "?limit=30"
    while query:
        page = await (await api.get(f"/v1/webhook-endpoints{query}", headers=headers)).json()
        seen += [endpoint["url"] for endpoint in page["data"]]
        query = f"?limit=30&after={page['next']}" if page["next"] else ""
    assert seen == [f"https://shop.example.com/{number}" for number in range(100)]
