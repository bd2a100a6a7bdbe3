"""Callbacks: bytes about one object to an address of its own, the latest state last, and nobody's secret astray."""

import asyncio
import dataclasses
import itertools
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from core import ids
from core.errors import Refusal
from core.outbox import deliveries
from core.outbox.callbacks import (
    DISPATCH_FAILED,
    DISPATCHED,
    FAILED,
    MAX_BODY_BYTES,
    NONE,
    ORCHESTRATION,
    ORDERS,
    PENDING,
    SUCCESS,
    SUPERSEDED,
    Callback,
    Courier,
    Kind,
    Standing,
    dispatches_of,
    receivers,
    secret_of,
    standings_of,
    write_callback,
)
from core.outbox.destinations import Destinations
from core.outbox.ordering import Stalled
from core.outbox.recording import take_over_deliveries
from core.outbox.retention import Outworn
from core.outbox.schedule import Schedule
from core.settings import Settings
from core.settings.kinds import Secret
from core.vault import Vault
from core.work.leases import Worker
from ops.receiving import standard_problem
from tests.core.outbox.office import Office, says
from tests.jobs.merchant import Receiver

_objects = itertools.count(1)
KEY = "the key of this service"
AT_ONCE = Schedule(0.0, 1.0, 3)
LATER = Schedule(600.0, 1.0, 3, (600.0,))


@pytest.fixture
def office(office: Office) -> Office:
    kind = Kind(schedule=AT_ONCE)
    office.courier = Courier({ORCHESTRATION: kind, ORDERS: kind})
    office.vault = Vault(["a key that seals"])
    return office


def kind(office: Office, **changes: Any) -> None:
    """Change the rules of both surfaces."""
    office.courier = Courier(
        {name: dataclasses.replace(one, **changes) for name, one in office.courier.kinds.items()}
    )


async def arm(office: Office, receiver: Receiver | str, body: Any, object_id: str = "", **more: Any) -> str:
    """Write a callback as a surface does; return its object."""
    object_id = object_id or f"payment-{next(_objects)}"
    url = receiver if isinstance(receiver, str) else receiver.url
    callback = Callback(ORCHESTRATION, object_id, "gateway", url, json.dumps(body).encode())
    async with office.service.database.transaction() as connection:
        await write_callback(connection, office.vault, callback._replace(**more))
    return object_id


async def standing(office: Office, object_id: str) -> Standing:
    return (await standings_of(office.service.database, ORCHESTRATION, [object_id]))[object_id]


async def secret(office: Office, url: str, owner: str = "gateway", **more: Any) -> str:
    async with office.service.database.transaction() as connection:
        return await secret_of(connection, office.vault, ORCHESTRATION, owner, url, **more)


async def test_the_bytes_and_headers_are_those_that_were_given(office: Office, receiver: Receiver) -> None:
    receiver.answers += [says(500), says(202)]
    body = {"payment": {"id": 7, "currency": "EUR"}}
    more: dict[str, Any] = {"headers": {"X-Request-ID": "réq-1\r\nX-Evil: 1\x85"}}
    object_id = await arm(office, f"{receiver.url}?of=7", body, **more)
    assert await standing(office, object_id) == Standing(
        PENDING, next_at=(await standing(office, object_id)).next_at
    )
    await office.deliver()
    first, second = receiver.deliveries
    assert first.body == second.body == json.dumps(body).encode()
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["X-Request-ID"] == "réq-1??X-Evil: 1?"
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert standard_problem(await secret(office, receiver.url), second.headers, second.body) == ""
    assert [
        name for name in first.headers if name.startswith(("X-Webhook", "X-Api", "X-Evil", "X-Deliv"))
    ] == []
    told = await standing(office, object_id)
    assert (told.state, told.attempts, told.last_error) == (SUCCESS, 2, None)
    lines = await dispatches_of(office.service.database, ORCHESTRATION, object_id)
    assert [(one.kind, one.number, one.status, one.error) for one in lines] == [
        (DISPATCH_FAILED, 1, 500, "callback endpoint returned status=500"),
        (DISPATCHED, 2, 202, None),
    ]
    assert [(one.is_last, one.is_over) for one in lines] == [(False, False), (True, True)]
    assert (await standing(office, "another")).state == NONE


async def test_nobody_owns_or_sees_the_receiver_and_secrets_are_sealed(
    office: Office, receiver: Receiver
) -> None:
    await arm(office, receiver, {"n": 1})
    await arm(office, f"{receiver.url}/2", {"n": 2})
    await arm(office, receiver, {"n": 3}, owner="somebody else")
    await office.emit()
    await office.deliver()
    assert len(receiver.deliveries) == 2, "the event of a principal is not for them; /2 is not served"
    assert (await office.get("/v1/webhook-endpoints"))["data"] == []
    assert await office.deliveries() == []
    found = await receivers(office.service.database)
    assert [(one.owner, one.origin) for one in found] == [
        (owner, receiver.url.removesuffix("/hooks")) for owner in ("gateway", "somebody else")
    ]
    rows = await office.sql("SELECT secrets[1] AS secret FROM webhook_endpoints WHERE surface IS NOT NULL")
    assert all(row["secret"].startswith("sealed:") for row in rows)
    mine, theirs = [await secret(office, receiver.url, one) for one in ("gateway", "somebody else")]
    assert mine != theirs
    assert await secret(office, receiver.url, new=True) not in {mine, theirs}
    assert await secret(office, receiver.url, secret="their own") == await secret(office, receiver.url)


async def test_a_later_state_takes_the_place_of_one_that_waits(office: Office, receiver: Receiver) -> None:
    kind(office, schedule=LATER)
    receiver.answers.append(says(503))
    object_id = await arm(office, receiver, "pending")
    await office.deliver()
    await arm(office, receiver, "paid", object_id)
    await office.deliver()
    assert [one.event for one in receiver.deliveries] == ["pending", "paid"]
    assert (await standing(office, object_id)).state == SUCCESS
    old, _ = await office.sql("SELECT id, state, last_error FROM webhook_deliveries ORDER BY created_at")
    assert (old["state"], old["last_error"]) == ("failed", SUPERSEDED)
    # No operator sends it again, alone or with all others.
    with pytest.raises(Refusal):
        await deliveries.resend(office.service.database, principal_id=None, delivery_id=old["id"])
    wanted = deliveries.Filter(principal_id=None, states=("failed",))
    assert (await deliveries.replay(office.service.database, wanted)).replayed == 0


async def test_whatever_fails_no_state_comes_after_a_later_one(office: Office, receiver: Receiver) -> None:
    """Two workers send while the payment changes; the receiver is slow, and fails in every way."""
    object_id, last, chance = f"payment-{next(_objects)}", 30, random.Random(5)

    async def moody(_request: web.Request) -> web.Response:
        await asyncio.sleep(chance.random() / 100)
        return web.Response(status=chance.choice([200, 500, 429]))

    receiver.answers += [moody] * 3 * last
    changes = asyncio.Event()

    async def change() -> None:
        for number in range(1, last + 1):
            await arm(office, receiver, number, object_id)
            await asyncio.sleep(chance.random() / 100)
        changes.set()

    async def work() -> None:
        while not changes.is_set():
            await office.deliver()
        await office.deliver()

    await asyncio.gather(change(), work(), work())
    await Stalled(office.service.database).step()
    await office.deliver()
    seen = [one.event for one in receiver.deliveries]
    assert seen == sorted(seen)
    assert seen[-1] == last
    rows = await office.sql("SELECT state, count(*) AS n FROM webhook_deliveries GROUP BY state")
    assert {row["state"] for row in rows} <= {"delivered", "failed"}
    assert sum(row["n"] for row in rows) == last


@pytest.mark.parametrize(("status", "ends"), [(500, ("failed", 1)), (200, ("delivered", 1))])
async def test_one_under_way_goes_first_and_is_not_tried_again(
    office: Office, receiver: Receiver, status: int, ends: tuple[str, int]
) -> None:
    kind(office, schedule=LATER)
    object_id = f"payment-{next(_objects)}"

    async def meanwhile(_request: web.Request) -> web.Response:
        await arm(office, receiver, "paid", object_id)
        await arm(office, receiver, "refunded", object_id)
        states = await office.sql("SELECT state FROM webhook_deliveries ORDER BY created_at")
        assert [row["state"] for row in states] == ["leased", "failed", "waiting"]
        return web.Response(status=status)

    receiver.answers.append(meanwhile)
    await arm(office, receiver, "pending", object_id)
    await office.deliver()
    assert [one.event for one in receiver.deliveries] == ["pending", "refunded"]
    first = (await office.sql("SELECT state, attempts FROM webhook_deliveries ORDER BY created_at"))[0]
    assert (first["state"], first["attempts"]) == ends
    assert (await standing(office, object_id)).state == SUCCESS


async def test_each_kind_has_its_schedule_and_ends_failed(office: Office, receiver: Receiver) -> None:
    """The schedule of endpoints, and an answer that would end one, say nothing here; the receiver is never off."""
    office.schedule = Schedule(0.0, 1.0, 1)
    receiver.answers += [says(410), says(404), says(302)]
    object_id = await arm(office, receiver, 1)
    await office.deliver()
    told = await standing(office, object_id)
    assert (told.state, told.attempts) == (FAILED, 3)
    assert told.last_error == "callback endpoint returned status=302"
    await arm(office, receiver, 2)
    await office.deliver()
    assert receiver.deliveries[-1].event == 2
    # A worker that dies leaves a callback to the schedule of its kind, too.
    kind(office, schedule=Schedule(0.0, 1.0, 1))
    await arm(office, receiver, 3)
    worker = Worker()
    await office.sql(
        "UPDATE webhook_deliveries SET state = 'leased', attempts = 1, lease_worker = $1, lease_token = $1,"
        " lease_until = now() WHERE state = 'pending'",
        worker.id,
    )
    assert await take_over_deliveries(office.service.database, Schedule(0.0, 1.0, 9), office.courier) == 1
    assert (await office.sql("SELECT count(*) AS n FROM webhook_deliveries WHERE state = 'pending'"))[0][
        "n"
    ] == 0


UNUSABLE = {
    "not a URL": "it is not well-formed.",
    "ftp://127.0.0.1/x": "it is not well-formed.",
    "http://127.0.0.1:99999/": "it is not well-formed.",
    "": "it is not well-formed.",
    "http://\0\ud800/": "it is not well-formed.",
    f"https://{'a' * 300}.example/": "it is not well-formed.",
    f"http://127.0.0.1/{'a' * 2048}": "it is longer than 2048 characters.",
    "http://10.1.2.3/x": "its address is not a public one.",
    "http://169.254.169.254/latest": "its address is not a public one.",
    "http://user:word@127.0.0.1/": "it carries a user name or password.",
}


async def test_an_address_that_cannot_be_used_fails_and_hinders_nothing(
    office: Office, receiver: Receiver
) -> None:
    found = {url: await arm(office, url, 1) for url in UNUSABLE}
    long = await arm(office, receiver, "x" * MAX_BODY_BYTES)
    for owner in ("", "\0", "\ud800", "\u20ac" * 300):
        await arm(office, "nowhere", 1, owner=owner)
    await office.deliver()
    for url, object_id in found.items():
        told = await standing(office, object_id)
        assert (told.state, told.last_error) == (FAILED, f"The URL cannot be used: {UNUSABLE[url]}")
    assert (await standing(office, long)).state == FAILED
    assert receiver.deliveries == []


async def test_our_key_goes_to_the_operators_hosts_alone(
    office: Office, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = receiver.url.removeprefix("http://").removesuffix("/hooks")
    nothing = Destinations.of((), require_https=True)
    monkeypatch.setattr("tests.core.outbox.office.HERE", nothing)
    for hosts, gets in (((), None), (("127.0.0.1",), KEY), ((host,), KEY), (("127.0.0.1:1",), None)):
        given = {
            "app_api_key": Secret(KEY),
            "payments_callback_trusted_hosts": hosts,
            "payments_callback_max_attempts": 1,
        }
        office.courier = Courier.of(settings.model_copy(update=given))
        await arm(office, receiver, 1)
        await office.deliver()
        # An address that nobody has named gets nothing at all in production.
        seen = [one.headers.get("X-API-Key") for one in receiver.deliveries]
        assert seen == ([] if gets is None else [KEY]), hosts
        receiver.deliveries.clear()
    rows = await office.sql("SELECT request::text AS request FROM outbox_events")
    assert all(KEY not in row["request"] for row in rows)
    metadata = await arm(office, "http://169.254.169.254/", 1)
    kind(office, trusted_hosts=frozenset({"169.254.169.254"}))
    await office.deliver()
    assert (await standing(office, metadata)).state == FAILED


async def test_the_operators_own_address_of_merchants_is_exempt(
    office: Office, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.core.outbox.office.HERE", Destinations.of((), require_https=True))
    office.courier = Courier.of(settings.model_copy(update={"merchant_callback_url": receiver.url}))
    await arm(office, receiver, "to the operator's", surface=ORDERS)
    await arm(office, f"{receiver.url}?x=1", "to a merchant's own", surface=ORDERS)
    await office.deliver()
    assert [one.event for one in receiver.deliveries] == ["to the operator's"]


async def test_a_slow_receiver_has_the_time_of_its_kind(office: Office, receiver: Receiver) -> None:
    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response()

    receiver.answers += [slow]
    kind(office, schedule=Schedule(0.0, 1.0, 1), timeout_seconds=0.05)
    object_id = await arm(office, receiver, 1)
    await office.deliver()
    assert (await standing(office, object_id)).last_error == "no answer within 0.05 s"
    courier = Courier({ORCHESTRATION: Kind(schedule=AT_ONCE, timeout_seconds=120)})
    assert courier.longer_seconds == 115


async def test_the_end_is_remembered_when_its_delivery_is_removed(
    office: Office, receiver: Receiver, settings: Settings
) -> None:
    kind(office, schedule=Schedule(0.0, 1.0, 1))
    receiver.answers += [says(500)]
    object_id = await arm(office, receiver, 1)
    await office.deliver()
    owner = await asyncpg.connect(str(settings.database_url))
    old = ids.first_uuid_at(datetime.now(UTC) - timedelta(days=365))
    await owner.execute(
        "UPDATE webhook_deliveries SET finished_at = finished_at - interval '1 year', id = $1", old
    )
    await owner.execute("UPDATE callbacks SET delivery_id = $1", old)
    await owner.close()
    await Outworn(office.service.database, settings).step()
    assert (await office.sql("SELECT count(*) AS n FROM webhook_deliveries"))[0]["n"] == 0
    told = await standing(office, object_id)
    assert (told.state, told.attempts, told.last_error) == (
        FAILED,
        1,
        "callback endpoint returned status=500",
    )


async def test_the_schedules_are_those_of_before(settings: Settings) -> None:
    """Defaults of the old service: ten attempts, five minutes apart, ten seconds each; orders: five, half an hour."""
    kinds = Courier.of(settings).kinds
    assert (kinds[ORCHESTRATION].schedule.max_attempts, kinds[ORCHESTRATION].timeout_seconds) == (10, 10)
    waits = [kinds[ORCHESTRATION].schedule.wait_seconds(attempt) for attempt in (1, 9, 10)]
    assert waits[2] is None
    assert all(270 <= wait <= 330 for wait in waits[:2] if wait is not None)
    assert (kinds[ORDERS].schedule.max_attempts, kinds[ORDERS].timeout_seconds) == (5, 5)
