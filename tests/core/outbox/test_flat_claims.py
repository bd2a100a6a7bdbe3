"""Claims while a foreign transaction keeps everything that was taken from being cleaned: what they read, and miss."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core import ids
from core.database import Query
from core.inbox.processing import BATCH, Processor
from core.inbox.rules import Admission
from core.outbox.fanout import waiting_since
from core.service import Service
from core.settings import Settings
from core.work.due_window import DueWindow
from core.work.leases import Worker
from tests.core.outbox.office import Office
from tests.jobs.merchant import Receiver
from tests.queries import QUERIES

pytestmark = pytest.mark.fresh

TAKEN = 4_000
# Pages that a claim of a single row reads where nothing is in its way: some levels of some indexes.
FEW = 60


@pytest.fixture
async def foreign(settings: Settings) -> AsyncIterator[None]:
    """A transaction of somebody else that saw everything and does not end."""
    connection = await asyncpg.connect(str(settings.database_url))
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT pg_current_xact_id(), count(*) FROM inbox_events")
        yield
    finally:
        await connection.close()


async def pages(office: Office, statement: Query, *arguments: object) -> int:
    """Return how many pages a statement reads; its effects are rolled back."""
    async with office.service.database.connections.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        plan = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}", *arguments
        )
        await transaction.rollback()
    top: dict[str, Any] = json.loads(plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"]) + int(top["Shared Read Blocks"])


async def take_deliveries(office: Office, endpoint_id: str) -> None:
    await office.sql(
        "WITH made AS (INSERT INTO outbox_events (id, principal_id, event_type, body, fanned_out_at)"
        " SELECT gen_random_uuid(), $1, 'a.b', '{}', now() FROM generate_series(1, $3) RETURNING id)"
        " INSERT INTO webhook_deliveries (id, event_id, endpoint_id, due_at)"
        " SELECT gen_random_uuid(), id, $2, now() - make_interval(secs => 60 + random()) FROM made",
        office.principal_id,
        endpoint_id,
        TAKEN,
    )
    await office.sql("UPDATE webhook_deliveries SET state = 'delivered', finished_at = now()")
    await office.sql("ANALYZE webhook_deliveries")


@pytest.mark.usefixtures("foreign")
async def test_a_claim_of_deliveries_does_not_walk_over_what_was_taken(office: Office) -> None:
    endpoint = await office.endpoint("http://127.0.0.1:1/closed")
    await take_deliveries(office, endpoint["id"])
    await office.emit()
    await office.fan_out()
    worker, token = ids.new_uuid(), ids.new_uuid()

    def claim(since: datetime) -> tuple[object, ...]:
        return [endpoint["id"]], [8], [8], [since], worker, token, 30.0

    now = datetime.now(UTC)
    assert await pages(office, QUERIES["endpoints_due"], UUID(int=0), 9) > 1000
    assert await pages(office, QUERIES["claim_deliveries"], *claim(now - timedelta(days=1))) > 1000
    assert await pages(office, QUERIES["endpoints_due_lately"], 5.0, 9) < FEW
    assert await pages(office, QUERIES["claim_deliveries"], *claim(now - timedelta(seconds=5))) < FEW


async def fan_out_before(office: Office, ago: timedelta) -> None:
    await office.sql(
        "INSERT INTO outbox_events (id, principal_id, event_type, body) SELECT"
        " (left($1::text, 19) || right(gen_random_uuid()::text, 17))::uuid, $2, 'a.b', '{}'"
        " FROM generate_series(1, $3)",
        str(ids.first_uuid_at(datetime.now(UTC) - ago)),
        office.principal_id,
        TAKEN,
    )
    await office.sql("UPDATE outbox_events SET fanned_out_at = now()")
    await office.sql("ANALYZE outbox_events")


@pytest.mark.usefixtures("foreign")
async def test_a_fan_out_does_not_walk_over_what_was_fanned_out(office: Office) -> None:
    await fan_out_before(office, timedelta(hours=1))
    await office.emit()
    nobody: tuple[object, ...] = (UUID(int=0), UUID(int=0), 0.0, [], [], [], [], 0, 0, 0, 0)
    seen = ids.first_uuid_at(datetime.now(UTC) - timedelta(seconds=5))
    # The first call on a connection reads the catalogue, too.
    _, few = [await pages(office, QUERIES["fan_out"], 200, seen, *nobody) for _ in range(2)]
    assert few < FEW
    assert await pages(office, QUERIES["fan_out"], 200, UUID(int=0), *nobody) > few + 1000


@pytest.mark.usefixtures("foreign")
async def test_a_posting_does_not_walk_over_what_was_fanned_out(office: Office) -> None:
    """The look for events that wait is made while accounts are locked."""
    await fan_out_before(office, timedelta(seconds=20))
    await office.endpoint("http://127.0.0.1:1/closed")
    tells = Query(
        "tells",
        "SELECT posting_tells_at_once("
        "'{0}', '{1}', ARRAY[$1::uuid], ARRAY[$2::int], '{a.b}', '{o}', '{x}', $3::uuid)",
    )
    about = ids.new_uuid(), office.principal_id
    _, few = [await pages(office, tells, *about, waiting_since()) for _ in range(2)]
    assert few < FEW
    assert await pages(office, tells, *about, UUID(int=0)) > few + 1000


@pytest.mark.usefixtures("foreign")
async def test_a_claim_of_the_inbox_does_not_walk_over_what_was_taken(office: Office) -> None:
    store = (
        "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, due_at)"
        " SELECT gen_random_uuid(), 'stripe', gen_random_uuid(), 'a.b', '{}', '{}',"
        " now() - make_interval(secs => $2 + random()) FROM generate_series(1, $1)"
    )
    await office.sql(store, TAKEN, 60.0)
    await office.sql("UPDATE inbox_events SET state = 'done', outcome = 'ignored', finished_at = now()")
    await office.sql("ANALYZE inbox_events")
    await office.sql(store, 1, 1.0)
    claim = (64, ids.new_uuid(), ids.new_uuid(), 60.0)
    assert await pages(office, QUERIES["claim_inbox_events"], *claim, None) > 1000
    assert await pages(office, QUERIES["claim_inbox_events"], *claim, 5.0) < FEW


@pytest.mark.parametrize(("late", "found_after"), [("0.6 s", 0.25), ("1 min", 5.0)])
async def test_what_was_committed_late_is_found_by_a_look_that_goes_further_back(
    office: Office, receiver: Receiver, service: Service, late: str, found_after: float
) -> None:
    """Both a delivery and an event of the inbox bear a time of before their commit, and of before the last look.

    A little late they are found by the look that they are called for, else by the next one at everything.
    """
    now = 1000.0
    await office.listen(receiver)
    sender = office.sender()
    sender._backlog._due_window = DueWindow(clock=lambda: now)
    processor = Processor(
        service.database,
        service.ledger,
        Worker(),
        admission=Admission.of(service.settings),
        wake=lambda topic: None,
    )
    processor._due_window = DueWindow(clock=lambda: now)
    try:
        assert (await sender.step(), await processor.step()) == (0, 0)
        await office.emit()
        await office.fan_out()
        await office.sql(
            "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body)"
            " VALUES (gen_random_uuid(), 'stripe', 'evt_1', 'a.b', '{}', '{}')"
        )
        await office.sql("UPDATE webhook_deliveries SET due_at = now() - $1::text::interval", late)
        await office.sql("UPDATE inbox_events SET due_at = now() - $1::text::interval", late)
        if found_after > 1.0:
            assert (await sender.step(), await processor.step()) == (0, 0)
        now += found_after
        assert (await sender.step(), await processor.step()) == (1, 1)
    finally:
        await office.close(sender)
    assert [row["state"] for row in await office.deliveries()] == ["delivered"]


async def test_a_backlog_is_claimed_to_its_end_and_in_order(office: Office, service: Service) -> None:
    """More than one claim takes, of events that were due long ago and of some that have just come."""
    await office.sql(
        "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, due_at)"
        " SELECT gen_random_uuid(), 'stripe', number, 'a.b', '{}', '{}', now() - make_interval(secs => 500 - number)"
        " FROM generate_series(1, $1) AS number",
        2 * BATCH + 8,
    )
    processor = Processor(
        service.database,
        service.ledger,
        Worker(),
        admission=Admission.of(service.settings),
        wake=lambda topic: None,
    )
    claimed = []
    while found := await processor.step():
        claimed.append(found)
    assert claimed == [BATCH, BATCH, 8]
    rows = await office.sql("SELECT event_id::int AS number FROM inbox_events ORDER BY finished_at")
    batches = [{row["number"] for row in rows[start : start + BATCH]} for start in (0, BATCH)]
    assert batches == [set(range(first, first + BATCH)) for first in (1, BATCH + 1)]


async def test_events_are_finished_by_their_ids_whatever_waits_beside_them(office: Office) -> None:
    """Statistics say that hardly any event is pending, and a backlog of some pages for each event has come since."""
    store = (
        "INSERT INTO inbox_events (id, provider, event_id, event_type, headers)"
        " SELECT gen_random_uuid(), 'stripe', gen_random_uuid(), 'a.b', jsonb_build_object('x', repeat('y', $2))"
        " FROM generate_series(1, $1)"
    )
    await office.sql(store, 5 * TAKEN, 1)
    await office.sql("UPDATE inbox_events SET state = 'done', outcome = 'ignored', finished_at = now()")
    owner = await asyncpg.connect(str(office.service.settings.database_url))
    await owner.execute("VACUUM ANALYZE inbox_events")
    await owner.close()
    await office.sql(store, TAKEN, 1_600)
    token = ids.new_uuid()
    rows = await office.sql("SELECT id FROM inbox_claim(20, $1, $2, 60, NULL)", ids.new_uuid(), token)
    finish = Query(
        "finish",
        "SELECT inbox_finish($1, $2, array_fill(0, ARRAY[20]), array_fill('a'::text, ARRAY[20]), TRUE, '{}')",
    )
    assert await pages(office, finish, token, [row["id"] for row in rows]) < TAKEN // 6
