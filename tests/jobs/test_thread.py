"""A signed event in, a transfer in the ledger, a signed event out: what happens on the way, and what must not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.jobs.merchant import Thread, payment

Eventually = Callable[..., Awaitable[Any]]
StartWorker = Callable[..., asyncio.Event]


async def test_from_a_signed_event_to_a_verified_delivery(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    await thread.open_account("shop:main")
    await thread.subscribe(event_types=("payment.succeeded",))
    start_worker()
    status, answer = await thread.send(payment("pi_1", "shop:main", 1500))
    assert (status, answer) == (200, {"status": "ok", "message": "received", "event_id": "evt_pi_1"})
    (delivery,) = await eventually(lambda: thread.receiver.deliveries)
    thread.receiver.verify(delivery)
    assert delivery.event == {
        "type": "payment.succeeded",
        "data": {
            "id": "pi_1",
            "provider": "stripe",
            "account": "shop:main",
            "amount": 1500,
            "currency": "USD",
            "transfer": delivery.event["data"]["transfer"],
        },
    }
    assert delivery.body.isascii()
    assert b" " not in delivery.body
    assert await thread.balance("shop:main") == 1500
    assert await thread.balance("provider:stripe:clearing:USD") == -1500
    row = await thread.inbox("evt_pi_1")
    assert (row["state"], row["outcome"], row["attempts"], row["object_id"]) == ("done", "applied", 1, "pi_1")
    await eventually(lambda: _states(thread, ["delivered"]))


async def test_duplicates_and_twin_events_have_one_effect(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    await thread.open_account("shop:main")
    await thread.subscribe()
    event, twin = payment("pi_1", "shop:main"), payment("pi_1", "shop:main", event_id="evt_twin")
    answers = await asyncio.gather(*(thread.send(event) for _ in range(32)), thread.send(twin))
    messages = [answer["message"] for _, answer in answers]
    assert {status for status, _ in answers} == {200}
    assert (messages.count("received"), messages.count("duplicate ignored")) == (2, 31)
    start_worker()
    start_worker()
    await eventually(lambda: _finished(thread, "evt_pi_1", "evt_twin"))
    outcomes = sorted([(await thread.inbox(event_id))["outcome"] for event_id in ("evt_pi_1", "evt_twin")])
    assert outcomes == ["already_applied", "applied"]
    assert await thread.balance("shop:main") == 1500
    await eventually(lambda: _states(thread, ["delivered"]))
    assert len(thread.receiver.deliveries) == 1


async def test_retries_carry_the_same_ids_and_bytes(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    async def unwell(request: web.Request) -> web.Response:
        return web.Response(status=500, text="not now")

    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    thread.receiver.answers += [unwell, elsewhere]
    await thread.open_account("shop:main")
    await thread.subscribe()
    start_worker()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: _states(thread, ["delivered"]))
    assert len(thread.receiver.deliveries) == 3
    for delivery in thread.receiver.deliveries:
        thread.receiver.verify(delivery)
    for name in ("webhook-id", "X-Delivery-ID"):
        assert len({delivery.headers[name] for delivery in thread.receiver.deliveries}) == 1
    assert len({delivery.body for delivery in thread.receiver.deliveries}) == 1
    assert [row["attempts"] for row in await thread.deliveries()] == [3]


async def test_a_receiver_that_never_accepts_fails_and_holds_up_nobody(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    go_on = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response()

    await thread.open_account("shop:main")
    refusing = await thread.subscribe(url="http://127.0.0.1:1/closed")
    await thread.subscribe()
    thread.receiver.answers.append(hang)
    start_worker()
    for number in range(40):
        await thread.send(payment(f"pi_{number}", "shop:main", 1))
    await eventually(lambda: len(thread.receiver.deliveries) == 40)
    rows = await eventually(lambda: _failed_of(thread, refusing["id"], 40))
    assert {row["attempts"] for row in rows} == {3}
    assert all("ClientConnectorError" in row["last_error"] for row in rows)
    go_on.set()


async def test_an_endpoint_only_gets_what_it_wants_and_nothing_of_others(
    thread: Thread, start_worker: StartWorker, eventually: Eventually, api_key: Callable[..., Awaitable[str]]
) -> None:
    await thread.open_account("shop:main")
    await thread.subscribe(event_types=("refunds.create",))
    other = Thread(thread.api, thread.service, await api_key(principal="another shop"), thread.receiver)
    await other.subscribe()
    await thread.subscribe(event_types=("payment.succeeded",))
    start_worker()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: _states(thread, ["delivered"]))
    (delivery,) = thread.receiver.deliveries
    thread.receiver.verify(delivery)


async def test_what_is_due_to_a_deleted_endpoint_fails(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    await thread.open_account("shop:main")
    endpoint = await thread.subscribe()
    await thread.service.database.connections.pool.execute(
        "INSERT INTO outbox_events (id, principal_id, event_type, body)"
        " SELECT gen_random_uuid(), principal_id, 'a.b', '{}' FROM webhook_endpoints"
    )
    await thread.service.database.connections.pool.execute(
        "INSERT INTO webhook_deliveries (id, event_id, endpoint_id)"
        " SELECT gen_random_uuid(), o.id, e.id FROM outbox_events AS o, webhook_endpoints AS e"
    )
    await thread.service.database.connections.pool.execute("UPDATE outbox_events SET fanned_out_at = now()")
    answer = await thread.api.delete(
        f"/v1/webhook-endpoints/{endpoint['id']}", headers={"Authorization": f"Bearer {thread.key}"}
    )
    assert answer.status == 204
    start_worker()
    await eventually(lambda: _states(thread, ["failed"]))
    assert [row["last_error"] for row in await thread.deliveries()] == ["endpoint_missing"]
    assert thread.receiver.deliveries == []


async def test_an_account_that_comes_late_is_paid_then(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    start_worker(base_seconds=0.02, cap_seconds=0.1, max_attempts=1000)
    await thread.send(payment("pi_1", "shop:late"))
    row = await eventually(lambda: _failed_once(thread, "evt_pi_1"))
    assert row["last_error"] == "account_not_found: Account 'shop:late' does not exist."
    await thread.open_account("shop:late")
    await eventually(lambda: _finished(thread, "evt_pi_1"))
    assert await thread.balance("shop:late") == 1500


async def test_an_account_that_never_comes_leaves_a_dead_letter(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    start_worker(base_seconds=0.01, max_attempts=3)
    await thread.send(payment("pi_1", "shop:nowhere"))
    row = await eventually(lambda: _dead(thread, "evt_pi_1"))
    assert (row["outcome"], row["attempts"]) == ("account_not_found", 3)
    assert row["last_error"] == "account_not_found: Account 'shop:nowhere' does not exist."


async def test_what_makes_no_sense_is_dead_at_once_and_what_is_unknown_is_done(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    start_worker()
    await thread.open_account("shop:main")
    for event_id, amount in (("evt_zero", 0), ("evt_negative", -5), ("evt_float", 1.5), ("evt_text", "15")):
        await thread.send(payment(event_id, "shop:main", amount, event_id=event_id))
        row = await eventually(lambda event_id=event_id: _dead(thread, event_id))
        assert (row["outcome"], row["attempts"]) == ("unusable_payload", 1)
    await thread.send(payment("pi_1", None))
    await thread.send(payment("pi_2", "shop:main") | {"type": "customer.created"})
    for event_id in ("evt_pi_1", "evt_pi_2"):
        row = await eventually(lambda event_id=event_id: _finished(thread, event_id))
        assert (await thread.inbox(event_id))["outcome"] == "ignored"
    assert await thread.balance("shop:main") == 0


async def test_another_amount_for_the_same_intent_is_not_posted(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    await thread.open_account("shop:main")
    start_worker(base_seconds=0.01, max_attempts=2)
    await thread.send(payment("pi_1", "shop:main", 1500))
    await eventually(lambda: _finished(thread, "evt_pi_1"))
    await thread.send(payment("pi_1", "shop:main", 9900, event_id="evt_other"))
    row = await eventually(lambda: _dead(thread, "evt_other"))
    assert row["outcome"] == "idempotency_conflict"
    assert await thread.balance("shop:main") == 1500


async def _states(thread: Thread, states: list[str]) -> bool:
    return [row["state"] for row in await thread.deliveries()] == states


async def _finished(thread: Thread, *event_ids: str) -> bool:
    return all([(await thread.inbox(event_id))["state"] == "done" for event_id in event_ids])


async def _dead(thread: Thread, event_id: str) -> dict[str, Any] | None:
    row = await thread.inbox(event_id)
    return row if row["state"] == "dead" else None


async def _failed_once(thread: Thread, event_id: str) -> dict[str, Any] | None:
    row = await thread.inbox(event_id)
    return row if row.get("last_error") else None


async def _failed_of(thread: Thread, endpoint_id: str, count: int) -> list[dict[str, Any]] | None:
    rows = [row for row in await thread.deliveries() if str(row["endpoint_id"]) == endpoint_id]
    return rows if [row["state"] for row in rows] == ["failed"] * count else None
