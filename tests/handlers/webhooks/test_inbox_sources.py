"""Sources registered at run time: their life over HTTP, and what is posted to their addresses."""

import asyncio
import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from tests.conftest import ApiClient

ApiKey = Callable[..., Awaitable[str]]
Headers = dict[str, str]
SOURCES = "/v1/webhook-sources"
HUSH = "hush-hush-hush-hush"
HMAC = {
    "name": "shop",
    "kind": "hmac",
    "secret": HUSH,
    "signature": {"header": "X-Shop-Hmac", "encoding": "base64", "prefix": "v0="},
    "event_id": ["header:X-Shop-Event-Id"],
    "event_type": "header:X-Shop-Topic",
    "object_id": "/order/id",
    "occurred_at": "/at",
}


@pytest.fixture
async def key(api_key: ApiKey) -> Headers:
    return {"Authorization": f"Bearer {await api_key('webhooks:read', 'webhooks:write')}"}


async def create(api: ApiClient, key: Headers, **body: Any) -> dict[str, Any]:
    answer = await api.post(SOURCES, json=body, headers=key)
    found: dict[str, Any] = await answer.json(content_type=None)
    assert answer.status == 201, found
    assert answer.headers["Location"] == f"{SOURCES}/{found['id']}"
    return found


def standard(secret: str, body: bytes, event_id: str = "msg_1", *, at: datetime | None = None) -> Headers:
    moment = at or datetime.now(UTC)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign(event_id, moment, body.decode()),
    }


def shop(body: bytes, event_id: str = "e-1", secret: str = HUSH) -> Headers:
    signature = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
    return {"X-Shop-Hmac": f"v0={signature}", "X-Shop-Event-Id": event_id, "X-Shop-Topic": "orders/paid"}


async def send(api: ApiClient, name: str, body: bytes, headers: Headers) -> tuple[int, str]:
    answer = await api.post(f"/webhooks/in/{name}", data=body, headers=headers)
    told = await answer.json(content_type=None)
    return answer.status, told["message"] if answer.status == 200 else told["detail"]


async def stored(service: Service) -> list[Any]:
    return list(
        await service.database.connections.pool.fetch(
            "SELECT *, inbox_body(id, body) AS body FROM inbox_events ORDER BY event_id"
        )
    )


BODY = b'{"type":"invoice.paid","data":{"id":"inv_1"},"timestamp":"2026-11-21T16:00:00Z"}'


async def test_standard_webhooks(api: ApiClient, service: Service, key: Headers) -> None:
    created = await create(
        api, key, name="billing", object_id="/data/id", occurred_at="/timestamp", description="Invoices"
    )
    assert (created["kind"], created["path"], created["enabled"]) == (
        "standard",
        "/webhooks/in/billing",
        True,
    )
    secret = created["secret"]
    headers = standard(secret, BODY)
    assert await send(api, "billing", BODY, headers) == (200, "received")
    assert await send(api, "billing", BODY, standard(secret, BODY)) == (200, "duplicate ignored")
    assert await send(api, "billing", BODY + b" ", headers) == (400, "Invalid signature")
    stale = standard(secret, BODY, at=datetime.now(UTC) - timedelta(minutes=6))
    assert await send(api, "billing", BODY, stale) == (400, "Invalid signature")
    (row,) = await stored(service)
    assert (row["provider"], row["event_id"], row["event_type"], row["object_id"]) == (
        "source:billing",
        "msg_1",
        "invoice.paid",
        "inv_1",
    )
    assert row["occurred_at"] == datetime(2026, 11, 21, 16, tzinfo=UTC)
    assert (row["body"], json.loads(row["headers"])) == (BODY, headers)
    # What was stored can be verified again.
    assert standardwebhooks.Webhook(secret).verify(row["body"].decode(), json.loads(row["headers"]))


async def test_ed25519(api: ApiClient, key: Headers) -> None:
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = "whpk_" + base64.b64encode(raw).decode()
    created = await create(api, key, name="signed", kind="standard_ed25519", secret=public)
    assert created["secret"] == public
    now = int(datetime.now(UTC).timestamp())
    signature = base64.b64encode(private.sign(f"msg_1.{now}.".encode() + BODY)).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": f"v1a,{signature}"}
    assert await send(api, "signed", BODY, headers) == (200, "received")
    assert await send(api, "signed", BODY + b" ", headers) == (400, "Invalid signature")


async def test_plain_hmac(api: ApiClient, service: Service, key: Headers) -> None:
    created = await create(api, key, **HMAC)
    assert created["signature"] == {
        "header": "X-Shop-Hmac",
        "algorithm": "sha256",
        "encoding": "base64",
        "prefix": "v0=",
    }
    body = b'{"order":{"id":17},"at":1795276800}'
    assert await send(api, "shop", body, shop(body)) == (200, "received")
    assert await send(api, "shop", body, shop(body)) == (200, "duplicate ignored")
    assert await send(api, "shop", body, shop(body, secret="stranger")) == (400, "Invalid signature")
    assert await send(api, "shop", body, {}) == (400, "Invalid signature")
    assert await send(api, "shop", body, shop(body, "")) == (400, "Missing required fields")
    assert await send(api, "shop", body, shop(body, "x" * 256)) == (400, "Invalid JSON payload")
    # Id and type stand in headers, so that a body without an object is no reason to refuse.
    assert await send(api, "shop", b"[]", shop(b"[]", "e-2")) == (200, "received")
    row, bare = await stored(service)
    assert (bare["event_id"], bare["object_id"], bare["occurred_at"]) == ("e-2", None, None)
    assert (row["provider"], row["event_id"], row["event_type"], row["object_id"]) == (
        "source:shop",
        "e-1",
        "orders/paid",
        "17",
    )
    assert row["occurred_at"] == datetime.fromtimestamp(1795276800, UTC)
    assert json.loads(row["headers"]) == {name.lower(): value for name, value in shop(body).items()}


async def test_an_id_made_of_two_fields(api: ApiClient, service: Service, key: Headers) -> None:
    await create(
        api, key, name="pay", kind="hmac", secret="x" * 16, signature={"header": "X-Sign", "prefix": "sha256="},
        event_id=["/invoice/id", "/invoice/status"], event_type="/event",
    )  # fmt: skip
    for status in ("paid", "refunded", "paid"):
        body = json.dumps({"event": "invoice", "invoice": {"id": 7, "status": status}}).encode()
        signature = hmac.new(b"x" * 16, body, hashlib.sha256).hexdigest()
        assert (await send(api, "pay", body, {"X-Sign": f"sha256={signature}"}))[0] == 200
    assert [row["event_id"] for row in await stored(service)] == ["7:paid", "7:refunded"]


async def test_many_at_once_are_stored_once_each(api: ApiClient, service: Service, key: Headers) -> None:
    secret = (await create(api, key, name="billing"))["secret"]
    answers = await asyncio.gather(
        *(send(api, "billing", BODY, standard(secret, BODY, f"msg_{number % 10}")) for number in range(100))
    )
    assert [message for _, message in answers].count("received") == 10
    assert len(await stored(service)) == 10


async def test_a_rotation_overlaps(api: ApiClient, key: Headers) -> None:
    created = await create(api, key, name="billing")
    path = f"{SOURCES}/{created['id']}/secret/rotate"
    answer = await api.post(path, json={"overlap_seconds": 3600}, headers=key)
    rotated = await answer.json()
    assert answer.status == 200
    assert rotated["secret"] != created["secret"]
    assert datetime.fromisoformat(rotated["rotating_until"]) > datetime.now(UTC) + timedelta(minutes=59)
    for number, secret in enumerate((created["secret"], rotated["secret"])):
        assert (await send(api, "billing", BODY, standard(secret, BODY, f"msg_{number}")))[0] == 200
    # The next one ends the first at once, and with an overlap of nothing the second, too.
    third = await (await api.post(path, json={"overlap_seconds": 0}, headers=key)).json()
    assert third["rotating_until"] is None
    for secret, status in ((created["secret"], 400), (rotated["secret"], 400), (third["secret"], 200)):
        assert (await send(api, "billing", BODY, standard(secret, BODY, "msg_9")))[0] == status


async def test_an_overlap_ends(
    api: ApiClient, service: Service, key: Headers, eventually: Callable[..., Awaitable[Any]]
) -> None:
    created = await create(api, key, name="billing")
    path = f"{SOURCES}/{created['id']}/secret/rotate"
    assert (await api.post(path, json={"overlap_seconds": 3600}, headers=key)).status == 200
    assert (await send(api, "billing", BODY, standard(created["secret"], BODY)))[0] == 200
    await service.database.connections.pool.execute("UPDATE inbox_sources SET previous_until = now()")

    async def ended() -> bool:
        return (await send(api, "billing", BODY, standard(created["secret"], BODY)))[0] == 400

    await eventually(ended)


async def test_another_process_sees_every_change(
    api: ApiClient,
    settings: Settings,
    service: Service,
    key: Headers,
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    async with TestClient(TestServer(create_app(settings, service))) as other:
        assert (await send(other, "billing", BODY, {}))[0] == 404
        created = await create(api, key, name="billing")
        headers = standard(created["secret"], BODY)

        async def answers(status: int) -> bool:
            return (await send(other, "billing", BODY, headers))[0] == status

        await eventually(lambda: answers(200))
        path = f"{SOURCES}/{created['id']}"
        changed = await api.patch(path, json={"enabled": False}, headers=key)
        assert (changed.status, (await changed.json())["enabled"]) == (200, False)
        # The process that made the change knows it at once.
        assert (await send(api, "billing", BODY, headers))[0] == 404
        await eventually(lambda: answers(404))
        await api.patch(path, json={"enabled": True}, headers=key)
        await eventually(lambda: answers(200))
        assert (await api.delete(path, headers=key)).status == 204
        await eventually(lambda: answers(404))


async def test_a_sources_life(api: ApiClient, key: Headers) -> None:
    created = await create(api, key, **HMAC)
    assert created.pop("secret") == HMAC["secret"]
    path = f"{SOURCES}/{created['id']}"
    assert await (await api.get(path, headers=key)).json() == created
    assert await (await api.get(SOURCES, headers=key)).json() == {"data": [created], "next": None}
    changes: dict[str, Any] = {"description": "The shop", "event_type": "/topic", "object_id": None}
    changed = await (await api.patch(path, json=changes, headers=key)).json()
    assert changed == created | changes | {"revision": 2}
    changes = {"signature": {"header": "X-Other"}, "event_id": ["/id"]}
    changed = await (await api.patch(path, json=changes, headers=key)).json()
    assert changed["signature"] == {
        "header": "X-Other",
        "algorithm": "sha256",
        "encoding": "hex",
        "prefix": "",
    }
    assert (changed["event_id"], changed["event_type"]) == (["/id"], "/topic")
    assert (await api.patch(path, json={}, headers=key)).status == 200
    assert (await api.delete(path, headers=key)).status == 204
    for answer in (
        await api.delete(path, headers=key),
        await api.get(path, headers=key),
        await api.patch(path, json={}, headers=key),
        await api.post(f"{path}/secret/rotate", json={}, headers=key),
    ):
        assert answer.status == 404
    # The name is not given away again: events of its first owner are stored under it.
    again = await api.post(SOURCES, json=HMAC, headers=key)
    assert (again.status, (await again.json(content_type=None))["error"]["code"]) == (409, "source_exists")


GOOD = {"name": "a", "kind": "standard"}


@pytest.mark.shared
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "A"},
        {"name": "1a"},
        {"name": "a/b"},
        {"name": "a" * 41},
        GOOD | {"kind": "sha1"},
        GOOD | {"secret": "whsec_c2hvcnQ="},
        GOOD | {"secret": "not a secret"},
        GOOD | {"signature": HMAC["signature"]},
        GOOD | {"event_id": ["/id"]},
        GOOD | {"event_type": "type"},
        GOOD | {"event_type": "header:a b"},
        GOOD | {"event_type": "/" + "x" * 65},
        GOOD | {"unknown": 1},
        GOOD | {"description": "x" * 501},
        GOOD | {"kind": "standard_ed25519"},
        GOOD | {"kind": "standard_ed25519", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
        HMAC | {"secret": "short"},
        HMAC | {"secret": "with a blank in the middle"},
        HMAC | {"event_id": []},
        HMAC | {"event_id": ["/id"] * 5},
        HMAC | {"signature": None},
        HMAC | {"signature": {"header": "X-Sign", "algorithm": "sha1"}},
        HMAC | {"signature": {"header": "X-Sign", "algorithm": "md5"}},
        HMAC | {"signature": {"header": "X Sign"}},
        HMAC | {"signature": {"header": "X-Sign", "encoding": "base32"}},
        HMAC | {"signature": {"header": "X-Sign", "prefix": "x" * 33}},
    ],
)
async def test_sources_that_are_refused(api: ApiClient, key: Headers, body: dict[str, Any]) -> None:
    answer = await api.post(SOURCES, json=body, headers=key)
    assert answer.status == 400
    assert (await answer.json(content_type=None))["error"]["code"] == "invalid_request"
    assert (await (await api.get(SOURCES, headers=key)).json())["data"] == []


async def test_a_change_keeps_a_source_whole(api: ApiClient, key: Headers) -> None:
    created = await create(api, key, name="billing")
    path = f"{SOURCES}/{created['id']}"
    changes: list[dict[str, Any]] = [
        {"signature": {"header": "X-Sign"}},
        {"event_id": ["/id"]},
        {"event_id": []},
    ]
    for change in changes:
        assert (await api.patch(path, json=change, headers=key)).status == 400
    rotations: list[dict[str, Any]] = [
        {"secret": "short"},
        {"overlap_seconds": -1},
        {"overlap_seconds": 604_801},
    ]
    for rotation in rotations:
        assert (await api.post(f"{path}/secret/rotate", json=rotation, headers=key)).status == 400


async def test_sources_belong_to_their_principal_and_need_their_scope(
    api: ApiClient, api_key: ApiKey
) -> None:
    mine = {"Authorization": f"Bearer {await api_key('webhooks:read', 'webhooks:write')}"}
    others = {
        "Authorization": f"Bearer {await api_key('webhooks:read', 'webhooks:write', principal='another')}"
    }
    reader = {"Authorization": f"Bearer {await api_key('webhooks:read')}"}
    created = await create(api, mine, name="billing")
    path = f"{SOURCES}/{created['id']}"
    assert (await api.get(path, headers=others)).status == 404
    assert (await api.patch(path, json={"enabled": False}, headers=others)).status == 404
    assert (await api.post(f"{path}/secret/rotate", json={}, headers=others)).status == 404
    assert (await api.delete(path, headers=others)).status == 404
    assert (await (await api.get(SOURCES, headers=others)).json())["data"] == []
    assert (await api.post(SOURCES, json={"name": "billing"}, headers=others)).status == 409
    assert (await api.get(path, headers=reader)).status == 200
    assert (await api.delete(path, headers=reader)).status == 403
    assert (await api.patch(path, json={}, headers=reader)).status == 403
    assert (await api.post(SOURCES, json=GOOD, headers=reader)).status == 403
    assert (await api.post(SOURCES, json=GOOD)).status == 401
    assert (await api.get(f"{SOURCES}/{uuid.uuid4()}", headers=mine)).status == 404


async def test_the_list_pages_and_the_number_is_bounded(api: ApiClient, key: Headers) -> None:
    for number in range(100):
        await create(api, key, name=f"source-{number}")
    answer = await api.post(SOURCES, json={"name": "one-too-many"}, headers=key)
    assert answer.status == 400
    seen: list[str] = []
    query = "?limit=30"
    while query:
        page = await (await api.get(f"{SOURCES}{query}", headers=key)).json()
        seen += [source["name"] for source in page["data"]]
        query = f"?limit=30&after={page['next']}" if page["next"] else ""
    assert seen == [f"source-{number}" for number in range(100)]


async def test_names_that_are_no_source(api: ApiClient, service: Service) -> None:
    for name in ("nothing", "stripe", "x" * 255, "%C3%A9", "a%2Fb"):
        assert (await send(api, name, BODY, {}))[0] == 404
    for name in ("x" * 256, "%00"):
        assert (await send(api, name, BODY, {}))[0] == 400
    assert await stored(service) == []


async def test_keys_are_gone_with_their_source(api: ApiClient, service: Service, key: Headers) -> None:
    created = await create(api, key, name="billing")
    await api.delete(f"{SOURCES}/{created['id']}", headers=key)
    row = await service.database.connections.pool.fetchrow("SELECT * FROM inbox_sources")
    assert created["secret"] not in str(dict(row or {}))
