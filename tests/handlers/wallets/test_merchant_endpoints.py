"""Merchants' webhooks: endpoints, tests, deliveries in the contract's bytes, sending them again."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core import metrics
from core.settings import Settings
from jobs.worker import work
from ops.receiving import Receiver
from tests.handlers.wallets.conftest import MakePerson, Person, Said, new_key

DEV = {"env": "dev", "outbound_allow_hosts": ("127.0.0.0/8",), "webhook_max_attempts": 2}
ENDPOINTS = "/webhooks/endpoints"
SECRET = "a secret of ours: ключ"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    async with one.listening():
        yield one


async def subscribe(shop: Person, url: str, secret: str = SECRET) -> str:
    said = await shop.ask("POST", ENDPOINTS, params={"url": url, "secret": secret})
    assert said.status == 200, said
    endpoint: str = said.json["id"]
    return endpoint


async def process(shop: Person) -> Said:
    return await shop.post("/webhooks/process_once")


async def deliveries(shop: Person) -> list[tuple[str, str, int]]:
    found = (await shop.get("/webhooks/deliveries")).json
    return [(one["event_type"], one["status"], one["attempt_count"]) for one in found]


# --- Endpoints


async def test_an_endpoint_by_query_or_by_body(person: MakePerson, owner: Any) -> None:
    shop = await person(merchant=True)
    url = "https://shop.example.com/hook?a=b"
    first = await shop.ask("POST", ENDPOINTS, params={"url": url, "secret": "s"})
    assert first.json == {"id": first.json["id"], "url": url, "active": True}
    second = await shop.post(ENDPOINTS, {"url": url, "secret": "x" * 64})
    assert second.status == 200
    found = (await shop.get(ENDPOINTS)).json
    assert [one["id"] for one in found] == [second.json["id"], first.json["id"]]
    assert list(found[0]) == ["id", "url", "active", "created_at"]
    audit = await owner.fetchval("SELECT data FROM audit_events WHERE object_id = $1", first.json["id"])
    assert json.loads(audit) == {"url": url}
    assert (await (await person(merchant=True)).get(ENDPOINTS)).body == b"[]"


async def test_what_is_no_endpoint(person: MakePerson) -> None:
    shop, ann = await person(merchant=True), await person()
    good = {"url": "https://shop.example.com/", "secret": "s"}
    assert (await ann.post(ENDPOINTS, good)).refusal == (403, "Merchant only")
    for missing in ("url", "secret"):
        said = await shop.post(ENDPOINTS, {name: good[name] for name in good if name != missing})
        assert (said.status, said.json["detail"][0]["loc"]) == (422, ["query", missing])
    too_long = {"url": "https://shop.example.com/" + "x" * 512}, {"secret": "x" * 65}
    for bad in (*too_long, {"secret": ""}, {"secret": 5}):
        assert (await shop.post(ENDPOINTS, good | bad)).status == 422
    said = await shop.ask("POST", ENDPOINTS, params={"url": "https://shop.example.com/", "secret": "a\x00"})
    assert said.status == 422
    for nowhere in ("ftp://shop.example.com/", "http://169.254.169.254/", "http://10.0.0.1/", "nonsense"):
        assert (await shop.post(ENDPOINTS, good | {"url": nowhere})).refusal[0] == 400
    assert (await shop.get(ENDPOINTS)).json == []


# --- Deliveries


@pytest.mark.parametrize("changed", [DEV])
async def test_the_bytes_of_a_delivery(person: MakePerson, receiver: Receiver) -> None:
    shop = await person(merchant=True)
    endpoint = await subscribe(shop, receiver.url)
    sent = (await shop.post("/webhooks/test")).json["deliveries"]
    assert len(sent) == 1
    assert (await process(shop)).body == b'{"detail":"ok"}'
    (got,) = receiver.deliveries
    headers, body = got.headers, got.body
    assert body == b'{"type":"webhook.test","data":{"user":"%s"}}' % str(shop.user.id).encode()
    seconds = headers["X-Webhook-Ts"]
    assert abs(int(seconds) - time.time()) < 10
    signed = f"{seconds}webhook.test".encode() + body
    assert headers["X-Webhook-Sign"] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert (headers["X-Webhook-Event"], headers["X-Delivery-ID"]) == ("webhook.test", sent[0])
    assert (headers["Content-Type"], headers["User-Agent"]) == ("application/json", "Payments-Webhooks/0.1")
    # A secret that is not of Standard Webhooks' form signs its form, too: the text is the key.
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(SECRET.encode(), content, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    (delivery,) = (await shop.get("/webhooks/deliveries")).json
    assert delivery == {
        "id": sent[0],
        "endpoint_id": endpoint,
        "event_type": "webhook.test",
        "status": "delivered",
        "attempt_count": 0,
        "created_at": delivery["created_at"],
    }
    await process(shop)
    assert len(receiver.deliveries) == 1


@pytest.mark.parametrize("changed", [DEV])
async def test_only_the_events_of_the_contract_come_unless_others_are_asked_for(
    person: MakePerson, receiver: Receiver, owner: Any
) -> None:
    shop = await person(merchant=True)
    good = {"url": receiver.url, "secret": SECRET}
    chosen = {
        "plain": await shop.ask("POST", ENDPOINTS, params=good),
        "query": await shop.ask("POST", ENDPOINTS, params=good | {"events": "links.pay, kyc.*"}),
        "body": await shop.post(ENDPOINTS, good | {"events": ["*"]}),
        "empty": await shop.post(ENDPOINTS, good | {"events": []}),
    }
    contract = ["payments.qr_pay", "refunds.create", "requests.accept", "webhook.test"]
    wanted = {"plain": contract, "query": ["kyc.*", "links.pay"], "body": ["*"], "empty": contract}
    for name, said in chosen.items():
        assert said.status == 200, said
        found = await owner.fetchval(
            "SELECT event_types FROM webhook_endpoints WHERE id = $1", said.json["id"]
        )
        assert found == wanted[name]
    for bad in ("transfer.*", "links.pay,nonsense"):
        status, sentence = (await shop.post(ENDPOINTS, good | {"events": bad})).refusal
        assert (status, "No event has the type" in sentence) == (400, True)
    # A request that is made is told to whoever asked for all, and to none of the contract's receivers.
    other = await person()
    made = await other.post("/requests", {"to_phone": shop.phone, "amount_cents": 5})
    assert made.status == 200, made
    await process(shop)
    assert [delivery.event["type"] for delivery in receiver.deliveries] == ["requests.create"]


@pytest.mark.parametrize("changed", [DEV])
async def test_process_once_waits_for_what_a_worker_has_in_hand(
    person: MakePerson, settings: Settings, owner: Any, eventually: Callable[..., Awaitable[Any]]
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        arrived.set()
        await go_on.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", slow)
    async with TestServer(app) as server:
        shop = await person(merchant=True)
        await subscribe(shop, str(server.make_url("/hook")))
        stopping = asyncio.Event()
        worker = asyncio.create_task(work(settings, stopping))
        await shop.post("/webhooks/test")
        await arrived.wait()
        asked = asyncio.create_task(process(shop))
        # The call has begun when it beats like a worker; without the wait it would be answered soon after.
        await eventually(lambda: owner.fetchval("SELECT count(*) = 2 FROM workers"))
        go_on.set()
        assert (await asked).body == b'{"detail":"ok"}'
        assert await deliveries(shop) == [("webhook.test", "delivered", 0)]
        stopping.set()
        await worker


@pytest.mark.parametrize("changed", [DEV])
async def test_a_sale_is_told(person: MakePerson, receiver: Receiver) -> None:
    shop, other = await person(kyc=1, merchant=True), await person(merchant=True)
    ann = await person(kyc=1, balance=1_000)
    await subscribe(shop, receiver.url)
    await subscribe(other, receiver.url)
    code = (await shop.post("/payments/merchant/qr", {"amount_cents": 70})).json["code"]
    body = {"code": code, "idempotency_key": new_key()}
    for _ in range(2):
        assert (await ann.post("/payments/merchant/pay", body)).status == 200
    pending = await shop.ask("POST", "/webhooks/process_pending", params={"max_cycles": "9"})
    assert (pending.json["detail"], pending.json["cycles"] >= 1) == ("ok", True)
    bodies = sorted(got.body for got in receiver.deliveries)
    assert b'{"type":"payments.qr_pay","data":{"amount_cents":70}}' in bodies
    assert len(bodies) == 1  # that it was paid, once, and to its merchant alone; not that the code was made
    assert await deliveries(other) == []


@pytest.mark.parametrize("changed", [DEV])
async def test_failing_and_sending_again(person: MakePerson, receiver: Receiver, owner: Any) -> None:
    shop = await person(merchant=True)
    await subscribe(shop, receiver.url)
    receiver.status = 500
    (sent,) = (await shop.post("/webhooks/test")).json["deliveries"]
    await process(shop)
    assert await deliveries(shop) == [("webhook.test", "pending", 1)]
    await owner.execute("UPDATE webhook_deliveries SET due_at = now()")
    await process(shop)
    assert await deliveries(shop) == [("webhook.test", "failed", 2)]
    receiver.status = 200
    for _ in range(2):  # from any state, the delivered one too
        assert (await shop.post(f"/webhooks/deliveries/{sent}/requeue")).json == {"detail": "requeued"}
        assert await deliveries(shop) == [("webhook.test", "pending", 0)]
        await process(shop)
        assert await deliveries(shop) == [("webhook.test", "delivered", 0)]
    assert {got.headers["X-Delivery-ID"] for got in receiver.deliveries} == {sent}
    assert len(receiver.deliveries) == 4
    assert 'payments_webhook_deliveries_total{status="created"}' in metrics.render().decode()


@pytest.mark.parametrize("changed", [DEV])
async def test_a_receiver_that_is_none(person: MakePerson) -> None:
    shop = await person(merchant=True)
    await subscribe(shop, "app://echo")
    await shop.post("/webhooks/test")
    await process(shop)
    assert await deliveries(shop) == [("webhook.test", "delivered", 0)]


@pytest.mark.parametrize("changed", [DEV])
async def test_one_delivery_for_many_who_process(person: MakePerson, receiver: Receiver) -> None:
    shop = await person(merchant=True)
    await subscribe(shop, receiver.url)
    for _ in range(5):
        await shop.post("/webhooks/test")
    await asyncio.gather(*(process(shop) for _ in range(8)))
    ids = [got.headers["X-Delivery-ID"] for got in receiver.deliveries]
    assert len(ids) == len(set(ids)) == 5


@pytest.mark.parametrize("changed", [DEV])
async def test_whoever_is_switched_off_gets_nothing(
    person: MakePerson, receiver: Receiver, owner: Any
) -> None:
    shop = await person(merchant=True)
    await subscribe(shop, receiver.url)
    (sent,) = (await shop.post("/webhooks/test")).json["deliveries"]
    await owner.execute("UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'by_owner'")
    assert (await shop.post("/webhooks/test")).body == b'{"deliveries":[]}'
    assert (await shop.get(ENDPOINTS)).json[0]["active"] is False
    await process(shop)
    assert receiver.deliveries == []
    assert (await shop.post(f"/webhooks/deliveries/{sent}/requeue")).refusal[0] == 409
    await owner.execute("UPDATE webhook_endpoints SET deleted_at = now()")
    said = await shop.post(f"/webhooks/deliveries/{sent}/requeue")
    assert said.refusal == (404, "Endpoint missing")


async def test_whose_delivery_it_is(person: MakePerson) -> None:
    shop, other = await person(merchant=True), await person(merchant=True)
    await shop.post(ENDPOINTS, {"url": "https://shop.example.com/", "secret": "s"})
    (sent,) = (await shop.post("/webhooks/test")).json["deliveries"]
    assert (await other.post(f"/webhooks/deliveries/{sent}/requeue")).refusal == (403, "Forbidden")
    assert (await shop.post(f"/webhooks/deliveries/{uuid4()}/requeue")).refusal == (404, "Not found")
    assert (await shop.post("/webhooks/deliveries/nonsense/requeue")).status == 422
    assert (await other.get("/webhooks/deliveries")).body == b"[]"


async def test_elsewhere_the_workers_send(person: MakePerson, nobody: Person) -> None:
    shop = await person(merchant=True)
    for path in ("/webhooks/process_once", "/webhooks/process_pending"):
        assert (await shop.post(path)).refusal == (403, "Forbidden")
        assert (await nobody.post(path)).refusal == (403, "Not authenticated")
