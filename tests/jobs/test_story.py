"""The story of one event, as an administrator and as its owner read it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core import ids
from core.inbox.intake import NewEvent
from core.inbox.processing import Processor, Retries
from core.inbox.rules import Admission
from core.outbox.fanout import fan_out
from core.settings import Settings
from core.work.leases import Worker
from tests.jobs.merchant import Thread, payment

ApiKey = Callable[..., Awaitable[str]]
TOKEN = "an-admin-token-of-these-tests"
ADMIN = {"X-Admin-Token": TOKEN}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"admin_token": (TOKEN,)})


async def story(thread: Thread, event: str, status: int = 200, headers: Any = None) -> Any:
    answer = await thread.api.get(f"/events/{event}", headers=ADMIN if headers is None else headers)
    body = await answer.json(content_type=None)
    assert answer.status == status, body
    return body


async def process(thread: Thread) -> None:
    service = thread.service
    worker = Processor(
        service.database,
        service.ledger,
        Worker(),
        admission=Admission.of(service.settings),
        wake=lambda topic: None,
        retries=Retries(max_attempts=1),
    )
    while await worker.step():
        pass
    await fan_out(service.database)


async def test_from_the_receipt_to_the_deliveries(thread: Thread) -> None:
    endpoint = await thread.subscribe()
    await thread.open_account("shop:main")
    await thread.send(payment("pi_1", "shop:main"))
    await thread.send(payment("pi_1", "shop:main", event_id="evt_twin"))
    await process(thread)
    told = await story(thread, "evt_pi_1")

    assert (told["receipt"]["provider"], told["receipt"]["event_id"], told["receipt"]["object_id"]) == (
        "stripe",
        "evt_pi_1",
        "pi_1",
    )
    assert json.loads(told["receipt"]["payload"])["data"]["object"]["id"] == "pi_1"
    assert told["verification"]["by"] == "signature"
    assert told["verification"]["headers"]["stripe-signature"].startswith("t=")
    processing = told["processing"]
    assert (processing["state"], processing["attempts"], processing["failures"]) == ("done", 1, [])
    (transfer,) = told["transfers"]
    assert {entry["account"]: entry["amount"] for entry in transfer["entries"]} == {
        "shop:main": 1500,
        "provider:stripe:clearing:USD": -1500,
    }
    (emitted,) = told["emitted"]
    assert (emitted["type"], emitted["message_id"][:4]) == ("payment.succeeded", "msg_")
    (delivery,) = emitted["deliveries"]
    assert (delivery["endpoint_id"], delivery["url"], delivery["state"]) == (
        endpoint["id"],
        endpoint["url"],
        "pending",
    )
    assert {(item["event_id"], item["state"]) for item in told["same_object"]} == {
        ("evt_pi_1", "done"),
        ("evt_twin", "done"),
    }
    assert sorted(item["outcome"] for item in told["same_object"]) == ["already_applied", "applied"]

    # The same by our own id, by the event we told, and for its owner.
    assert await story(thread, told["receipt"]["id"]) == told
    assert await story(thread, emitted["message_id"]) == told
    assert await story(thread, emitted["id"]) == told
    assert await story(thread, "evt_pi_1?provider=stripe") == told
    key = {"Authorization": f"Bearer {thread.key}"}
    assert await story(thread, "evt_pi_1", headers=key) == told
    # The twin did nothing, but what was done shows.
    assert (await story(thread, "evt_twin"))["transfers"] == told["transfers"]


async def test_another_principal_learns_nothing(thread: Thread, api_key: ApiKey) -> None:
    await thread.open_account("shop:main")
    await thread.send(payment("pi_1", "shop:main"))
    await thread.send(payment("pi_2", "nobody's"))
    await process(thread)
    other = {"Authorization": f"Bearer {await api_key(principal='another shop')}"}
    told = await story(thread, "evt_pi_1")
    for event in ("evt_pi_1", told["receipt"]["id"], told["emitted"][0]["id"], "evt_unknown"):
        refused = await story(thread, event, 404, headers=other)
        assert refused["error"]["code"] == "not_found"
    # What failed has told nobody yet; it is the administrator's.
    await story(thread, "evt_pi_2", 404, headers={"Authorization": f"Bearer {thread.key}"})
    failed = await story(thread, "evt_pi_2")
    assert failed["processing"]["state"] == "dead"
    assert [failure["code"] for failure in failed["processing"]["failures"]] == ["account_not_found"]
    await story(thread, "evt_pi_1", 401, headers={})
    narrow = {"Authorization": f"Bearer {await api_key('feed:read', principal='shop')}"}
    await story(thread, "evt_pi_1", 403, headers=narrow)


async def test_the_owner_of_an_account_reads_what_pays_it_whatever_became_of_it(
    thread: Thread, api_key: ApiKey
) -> None:
    await thread.open_account("shop:main")
    await thread.open_account("shop:euros", "EUR")
    owner = {"Authorization": f"Bearer {thread.key}"}
    other = {"Authorization": f"Bearer {await api_key(principal='another shop')}"}
    await thread.send(payment("pi_waits", "shop:main"))
    waiting = await story(thread, "evt_pi_waits", headers=owner)
    assert (waiting["processing"]["state"], waiting["transfers"]) == ("pending", [])
    await story(thread, "evt_pi_waits", 404, headers=other)

    await thread.send(payment("pi_wrong", "shop:euros"))
    await thread.send(payment("pi_nobody", None))
    await thread.send(payment("pi_odd", "\t"))
    await process(thread)
    told = await story(thread, "evt_pi_wrong", headers=owner)
    assert told["processing"]["state"] == "dead"
    assert told["processing"]["failures"][0]["code"] == "currency_mismatch"
    for event in ("evt_pi_wrong", "evt_pi_waits"):
        await story(thread, event, 404, headers=other)
    # Without an account it is the administrator's alone.
    for event in ("evt_pi_nobody", "evt_pi_odd"):
        await story(thread, event, 404, headers=owner)
        await story(thread, event)


async def test_the_owner_of_a_source_reads_what_it_sent(thread: Thread, api_key: ApiKey) -> None:
    pool = thread.service.database.connections.pool
    await pool.execute(
        "INSERT INTO inbox_sources (id, principal_id, name, kind, options, secret)"
        " SELECT $1, id, 'crm', 'hmac', '{}', 'x' FROM principals WHERE name = 'shop'",
        ids.new_uuid(),
    )
    await pool.execute(
        "INSERT INTO inbox_events (id, provider, event_id, event_type, object_id, headers, body)"
        " VALUES ($1, 'source:crm', 'lead-1', 'lead', 'pi_1', '{}', '{}')",
        ids.new_uuid(),
    )
    # An object of the same name that another provider tells of is none of theirs.
    await thread.open_account("shop:main")
    other = {"Authorization": f"Bearer {await api_key(principal='another shop')}"}
    await thread.send(payment("pi_1", "shop:main"))
    await process(thread)
    told = await story(thread, "lead-1", headers={"Authorization": f"Bearer {thread.key}"})
    assert told["receipt"]["provider"] == "source:crm"
    assert [item["event_id"] for item in told["same_object"]] == ["lead-1"]
    assert told["transfers"] == []
    await story(thread, "lead-1", 404, headers=other)

    # Nor does naming their object make them readers of it, or it a part of their story.
    hidden = {"Authorization": f"Bearer {await api_key(principal='owner of another source')}"}
    await other_source(thread, "owner of another source")
    await story(thread, "lead-2", 404, headers={"Authorization": f"Bearer {thread.key}"})
    assert (await story(thread, "lead-2", headers=hidden))["emitted"] == []
    message = (await story(thread, "evt_pi_1"))["emitted"][0]["message_id"]
    assert (await story(thread, message))["receipt"]["event_id"] == "evt_pi_1"


async def other_source(thread: Thread, principal: str) -> None:
    """An event of another's source that names the object of a payment."""
    pool = thread.service.database.connections.pool
    await pool.execute(
        "INSERT INTO inbox_sources (id, principal_id, name, kind, options, secret)"
        " SELECT $1, id, 'elsewhere', 'hmac', '{}', 'x' FROM principals WHERE name = $2",
        ids.new_uuid(),
        principal,
    )
    await pool.execute(
        "INSERT INTO inbox_events (id, provider, event_id, event_type, object_id, headers, body)"
        " VALUES ($1, 'source:elsewhere', 'lead-2', 'lead', 'pi_1', '{}', '{}')",
        ids.new_uuid(),
    )


async def test_one_id_of_two_providers(thread: Thread) -> None:
    await thread.send(payment("pi_1", None))
    pool = thread.service.database.connections.pool
    event = NewEvent("other", "evt_pi_1", "a", "pi_1", None, {}, b"\xff not UTF-8")
    await pool.execute(
        "INSERT INTO inbox_events (id, provider, event_id, event_type, object_id, headers, body)"
        " VALUES ($1, $2, $3, $4, $5, '{}', $6)",
        ids.new_uuid(),
        event.provider,
        event.event_id,
        event.event_type,
        event.object_id,
        event.body,
    )
    refused = await story(thread, "evt_pi_1", 409)
    assert refused["error"]["code"] == "ambiguous_event"
    assert (await story(thread, "evt_pi_1?provider=stripe"))["receipt"]["provider"] == "stripe"
    other = await story(thread, "evt_pi_1?provider=other")
    assert other["receipt"]["payload"] == "\\xff not UTF-8"
    assert [item["provider"] for item in other["same_object"]] == ["other"]
    await story(thread, "evt_pi_1?provider=third", 404)


@pytest.mark.parametrize("event", ["evt_unknown", "msg_", "msg_" + "0" * 32, "%F0%9F%92%B8", "x" * 255])
async def test_what_there_is_not(thread: Thread, event: str) -> None:
    assert (await story(thread, event, 404))["error"]["code"] == "not_found"


@pytest.mark.parametrize("event", ["x" * 256, "a%00b", "evt_1?unknown=1", "evt_1?provider="])
async def test_bad_input(thread: Thread, event: str) -> None:
    assert (await story(thread, event, 400))["error"]["code"] == "invalid_request"
