"""Taking events in: a duplicate waits for the fate of the first, and one bad event fails alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from core import ids
from core.inbox.intake import Intake, NewEvent
from core.service import Service
from core.settings import Settings
from core.work.wakeup import Waker

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
async def intakes(service: Service) -> AsyncIterator[list[Intake]]:
    """Two of them, as two processes have."""
    waker = Waker(service.redis, service.epoch)
    found = [Intake(service.database, waker) for _ in range(2)]
    yield found
    for intake in found:
        await intake.close()
    await waker.close()


def new_event(event_id: str, **changes: Any) -> NewEvent:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return NewEvent("stripe", event_id, "a", None, moment, {}, b"{}")._replace(**changes)


@pytest.mark.parametrize(("fate", "new"), [("COMMIT", False), ("ROLLBACK", True)])
async def test_a_duplicate_waits_for_what_becomes_of_the_first(
    intakes: list[Intake],
    settings: Settings,
    service: Service,
    eventually: Eventually,
    fate: str,
    *,
    new: bool,
) -> None:
    other = await asyncpg.connect(str(settings.database_url))
    try:
        await other.execute("BEGIN")
        await other.execute(
            "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body)"
            " VALUES ($1, 'stripe', 'evt_1', 'a', '{}', '{}')",
            ids.new_uuid(),
        )
        waiting = asyncio.create_task(intakes[0].receive(new_event("evt_1")))
        await eventually(lambda: other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        assert not waiting.done()
        await other.execute(fate)
        assert await waiting is new
    finally:
        await other.close()
    assert await service.database.connections.pool.fetchval("SELECT count(*) FROM inbox_events") == 1


async def test_two_processes_store_the_same_events_once(intakes: list[Intake], service: Service) -> None:
    names = [f"evt_{number}" for number in range(100)]
    answers = await asyncio.gather(
        *(intakes[0].receive(new_event(name)) for name in names),
        *(intakes[1].receive(new_event(name)) for name in reversed(names)),
    )
    assert sum(answers) == len(names)
    assert await service.database.connections.pool.fetchval("SELECT count(*) FROM inbox_events") == 100


async def test_an_event_that_cannot_be_stored_fails_alone(intakes: list[Intake], service: Service) -> None:
    answers = await asyncio.gather(
        intakes[0].receive(new_event("evt_1")),
        intakes[0].receive(new_event("evt_2", event_type="a\x00b")),
        intakes[0].receive(new_event("evt_3")),
        return_exceptions=True,
    )
    assert [answers[0], answers[2]] == [True, True]
    assert isinstance(answers[1], Exception)
    assert await service.database.connections.pool.fetchval("SELECT count(*) FROM inbox_events") == 2
