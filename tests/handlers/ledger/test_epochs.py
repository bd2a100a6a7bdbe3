"""Readers after a restore: both cursors tell what is not the same history any more, and where to go on."""

from collections.abc import Awaitable, Callable

import asyncpg
from aiohttp.test_utils import TestClient, TestServer

from core.ledger import history
from core.service import Service, open_service
from core.settings import Settings
from handlers.app import create_app
from ops.backups.taking import session
from tests.ops.backups.books import open_books, post, seal

TOLD = """
    INSERT INTO outbox_events (id, principal_id, event_type, body, fanned_out_at, position)
    SELECT gen_random_uuid(), p.id, 't', '{"data":{}}', clock_timestamp(), 1 + coalesce(o.last_position, 0)
    FROM principals AS p LEFT JOIN outbox_positions AS o ON o.principal_id = p.id WHERE p.name = 'test'
"""
COUNTED = """
    INSERT INTO outbox_positions (principal_id, last_position)
    SELECT e.principal_id, max(e.position) FROM outbox_events AS e GROUP BY e.principal_id
    ON CONFLICT (principal_id) DO UPDATE SET last_position = excluded.last_position
"""


async def tell(url: str) -> None:
    """Write one event for the principal, with its position."""
    connection = await asyncpg.connect(url)
    await connection.execute(TOLD)
    await connection.execute(COUNTED)
    await connection.close()


async def lived(settings: Settings, work: Callable[[Service], Awaitable[object]]) -> str:
    """Do something in the present history, tell an event, and return the epoch."""
    async with open_service(settings) as service:
        await work(service)
        await seal(service)
        await tell(str(settings.database_url))
        return service.epoch


async def restored(settings: Settings) -> None:
    async with session(str(settings.database_url)) as connection, connection.raw.transaction():
        # The statement alone: the fixtures keep sessions of their own, beside which no epoch is begun.
        await connection.fetchrow(history.SQL.begin_epoch, "test")


async def test_readers_of_three_histories(settings: Settings, api_key: Callable[..., Awaitable[str]]) -> None:
    key = await api_key()
    first = await lived(settings, open_books)  # the feed ends at 2, the principal's events at 1
    await restored(settings)
    second = await lived(settings, lambda service: post(service, 1))  # at 3 and 2
    await restored(settings)
    async with (
        open_service(settings) as service,
        TestClient(TestServer(create_app(settings, service))) as api,
    ):
        third = service.epoch
        assert len({first, second, third}) == 3
        # The path, the position that a reader has, the epoch that it names, and the position that it is sent back to.
        for path, after, epoch, back in (
            ("/v1/feed", 2, first, None),
            ("/v1/feed", 3, first, 2),
            ("/v1/feed", 3, second, None),
            ("/v1/feed", 4, second, 3),
            ("/v1/feed", 4, third, None),
            ("/v1/feed", 1, "unknown", 0),
            ("/v1/feed", 0, "unknown", None),
            ("/v1/feed", 3, None, None),
            ("/v1/feed", 4, None, 3),
            ("/v1/events", 1, first, None),
            ("/v1/events", 2, first, 1),
            ("/v1/events", 2, second, None),
            ("/v1/events", 3, second, 2),
            ("/v1/events", 3, third, None),
            ("/v1/events", 1, "unknown", 0),
            ("/v1/events", 2, None, None),
            ("/v1/events", 3, None, 2),
        ):  # fmt: skip
            query = {"after": str(after)} | ({"epoch": epoch} if epoch else {})
            answer = await api.get(path, params=query, headers={"Authorization": f"Bearer {key}"})
            told = await answer.json()
            assert told["epoch"] == third, (path, after, epoch)
            found = told["position"] if answer.status == 409 else None
            assert found == back, (path, after, epoch, answer.status)
