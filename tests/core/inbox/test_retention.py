"""The removal of old events: the finished ones go with all that is about them, and nothing else goes."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from core import ids
from core.inbox.retention import prune_events
from core.service import Service

NOW = datetime.now(UTC)
# An event is `name`, its state, and the days since it was finished (or came, while it is not).
EVENTS = (
    ("old", "done", 100),
    ("late", "done", 6),
    ("young", "done", 20),
    ("dead", "dead", 100),
    ("due", "pending", 100),
)


@pytest.fixture
async def owner(service: Service) -> asyncpg.Connection:
    connection = await asyncpg.connect(str(service.settings.database_url))
    for place, (name, state, days) in enumerate(EVENTS):
        # The late one came long ago, and was finished after a person had put it back.
        came = NOW - timedelta(days=100 if name == "late" else days)
        id_ = ids.first_uuid_at(came - timedelta(seconds=place + 1))
        finished = NOW - timedelta(days=days) if state in {"done", "dead"} else None
        await connection.execute(
            "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, state, outcome, finished_at)"
            " VALUES ($1, 'stripe', $2, 'a.b', '{}', $3, $4, $5)",
            id_, name, state, finished and "test", finished,
        )  # fmt: skip
        await connection.execute("INSERT INTO inbox_bodies (id, body) VALUES ($1, '{}')", id_)
        await connection.execute(
            "INSERT INTO inbox_failures (inbox_id, attempt, code, error) VALUES ($1, 1, 'busy', '')", id_
        )
        await connection.execute(
            "INSERT INTO inbox_actions (inbox_id, action, actor) VALUES ($1, 'replayed', 'admin')", id_
        )
    return connection


@pytest.mark.parametrize(("days", "gone"), [(0, set()), (1, {"old", "young"}), (30, {"old"}), (200, set())])
async def test_finished_events_go_after_their_time(
    service: Service, owner: asyncpg.Connection, days: int, gone: set[str]
) -> None:
    try:
        assert await prune_events(service.database, days) == len(gone)
        assert await prune_events(service.database, days) == 0
        left = await owner.fetch("SELECT id, event_id FROM inbox_events")
        assert {row["event_id"] for row in left} == {name for name, _, _ in EVENTS} - gone
        for table, column in (
            ("inbox_bodies", "id"),
            ("inbox_failures", "inbox_id"),
            ("inbox_actions", "inbox_id"),
        ):
            about = await owner.fetch(f"SELECT {column} AS id FROM {table}")  # noqa: S608 - names from above
            assert {row["id"] for row in about} == {row["id"] for row in left}
    finally:
        await owner.close()
