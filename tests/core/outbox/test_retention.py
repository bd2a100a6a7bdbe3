"""The removal of what is old: what goes, what stays, and what a reader who comes too late is told."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core import ids
from core.outbox import retention
from core.outbox.retention import Outworn
from tests.core.outbox.office import Office
from tests.jobs.merchant import Receiver

_numbers = itertools.count(1)


async def told(
    office: Office,
    endpoint_id: str,
    *,
    days: float,
    state: str = "delivered",
    ended_days: float | None = None,
) -> None:
    """Write an event of so many days ago with its delivery and, if that has ended, an attempt."""
    then = datetime.now(UTC) - timedelta(days=days)
    first = ids.first_uuid_at(then).int
    event, delivery = (type(ids.new_uuid())(int=first + next(_numbers)) for _ in range(2))
    ended = (
        None
        if state == "pending"
        else then
        if ended_days is None
        else datetime.now(UTC) - timedelta(ended_days)
    )
    await office.sql(
        "WITH drawn AS (INSERT INTO outbox_positions VALUES ($2, 1) ON CONFLICT (principal_id)"
        " DO UPDATE SET last_position = outbox_positions.last_position + 1 RETURNING last_position)"
        " INSERT INTO outbox_events (id, principal_id, event_type, body, created_at, fanned_out_at, position)"
        ' SELECT $1, $2, \'a.b\', \'{"type":"a.b","data":{}}\', $3, $3, last_position FROM drawn',
        event,
        office.principal_id,
        then,
    )
    await office.sql(
        "INSERT INTO webhook_deliveries (id, event_id, endpoint_id, state, created_at, finished_at)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        delivery,
        event,
        endpoint_id,
        state,
        then,
        ended,
    )
    if ended is not None:
        await office.sql("INSERT INTO webhook_attempts VALUES ($1, $2, 200, 1, 'ok')", delivery, ended)


async def drain(office: Office, **days: int) -> None:
    settings = office.service.settings.model_copy(update=days)
    outworn = Outworn(office.service.database, settings)
    while await outworn.step():
        pass
    await outworn.step()


async def counts(office: Office) -> tuple[int, ...]:
    (row,) = await office.sql(
        "SELECT (SELECT count(*) FROM outbox_events), (SELECT count(*) FROM webhook_deliveries),"
        " (SELECT count(*) FROM webhook_attempts)"
    )
    return tuple(row)


@pytest.fixture(params=[2, 1_000])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(retention, "PRUNE_BATCH", request.param)
    return int(request.param)


@pytest.mark.usefixtures("batch")
async def test_what_is_done_and_old_goes_and_everything_else_stays(
    office: Office, receiver: Receiver
) -> None:
    endpoint = (await office.listen(receiver))["id"]
    rows: list[dict[str, Any]] = [
        {"days": 50},
        {"days": 45, "state": "failed"},
        {"days": 42, "state": "pending"},
        {"days": 41, "ended_days": 2.0},  # sent again by a person
        {"days": 40, "state": "failed"},
        {"days": 31},
        {"days": 29},
        {"days": 0, "state": "pending"},
    ]
    for row in rows:
        await told(office, endpoint, **row)
    await drain(office, webhook_deliveries_days=0, webhook_events_days=0, webhook_attempts_days=3_650)
    assert await counts(office) == (8, 8, 6), "0 keeps them for ever"
    await drain(office, webhook_deliveries_days=30, webhook_events_days=0)
    assert await counts(office) == (8, 4, 2)
    left = await office.deliveries()
    assert [delivery["state"] for delivery in left] == ["pending", "delivered", "delivered", "pending"]
    assert len((await office.get(f"/v1/webhook-deliveries/{left[2]['id']}"))["attempts"]) == 1
    await drain(office, webhook_deliveries_days=30, webhook_events_days=30)
    assert await counts(office) == (4, 4, 2)
    # The events of 42 and 41 days ago have deliveries yet, and can be sent and shown.
    await office.deliver()
    assert len(receiver.deliveries) == 2
    # Positions count on from where they were.
    await office.emit()
    await office.fan_out()
    page = await office.get("/v1/events")
    assert [event["position"] for event in page["data"]] == [7, 8, 9]


async def test_a_reader_who_comes_too_late_is_told(office: Office, receiver: Receiver) -> None:
    endpoint = (await office.listen(receiver))["id"]
    for days in (50, 45, 40, 20, 10):
        await told(office, endpoint, days=days)
    for after in (0, 1, 2, 3):
        assert len((await office.get(f"/v1/events?after={after}"))["data"]) == 5 - after
    await drain(office)
    for after in (1, 2):
        status, problem = await office.call("GET", f"/v1/events?after={after}")
        assert (status, problem["error"]["code"], problem["earliest"]) == (410, "events_removed", 4)
        assert "position 3" in problem["detail"]
    for after, positions in ((0, [4, 5]), (3, [4, 5]), (4, [5]), (5, [])):
        page = await office.get(f"/v1/events?after={after}")
        assert [event["position"] for event in page["data"]] == positions
        assert page["head"] == 5
    await drain(office, webhook_deliveries_days=1, webhook_events_days=1)
    for query, position in (("", 0), ("?after=5", 5)):
        page = await office.get(f"/v1/events{query}")
        assert page == {"data": [], "next": position, "head": 5, "epoch": office.service.epoch}
    assert (await office.call("GET", "/v1/events?after=4"))[0] == 410
    await office.emit("a.late")
    await office.fan_out()
    for after in (0, 5):
        (event,) = (await office.get(f"/v1/events?after={after}"))["data"]
        assert (event["position"], event["type"]) == (6, "a.late")


async def test_events_that_are_removed_while_they_are_read_are_missed_by_nobody(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal comes between the look at the ends and the look at the events."""
    endpoint = (await office.listen(receiver))["id"]
    for days in (50, 45, 40, 20):
        await told(office, endpoint, days=days)
    database = office.service.database
    fetch = type(database).fetch
    removed = False

    async def late(self: Any, statement: Any, *arguments: Any) -> Any:
        nonlocal removed
        if statement.name == "read_events" and not removed:
            removed = True
            await drain(office)
        return await fetch(self, statement, *arguments)

    for after, seen in ((1, 410), (0, 200)):
        monkeypatch.setattr(type(database), "fetch", late)
        status, page = await office.call("GET", f"/v1/events?after={after}")
        assert status == seen
        if seen == 200:
            assert [event["position"] for event in page["data"]] == [4]


async def test_the_serving_role_removes_nothing_that_is_young(office: Office, receiver: Receiver) -> None:
    await told(office, (await office.listen(receiver))["id"], days=0.5)
    for table in ("deliveries", "events"):
        with pytest.raises(Exception, match="for a day at least"):
            await office.sql(
                f"SELECT outbox_prune_{table}(0, $1, $2, 10)",
                retention._START,
                ids.new_uuid(),
            )
    with pytest.raises(Exception, match="permission denied"):
        await office.sql("DELETE FROM outbox_events")
    with pytest.raises(Exception, match="permission denied"):
        await office.sql("DELETE FROM webhook_deliveries")
