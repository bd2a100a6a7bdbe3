"""Another try: what meets a deadlock, a serialization failure or a taken key is run again, and has its effect once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import pytest

from core.database import Connection, Database, Query, open_database
from core.errors import Unavailable
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import Leg, Outcome, Posting, operation_id
from core.service import Service
from core.settings import Settings
from core.work.retries import MAX_TRIES, full_jitter, half_jitter, in_transaction
from tests.chaos.staging import connected, overlap

Raw: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Wait = Callable[..., Awaitable[Any]]
Work = Callable[[Connection], Awaitable[Any]]
Runner = Callable[[Database, Work], Awaitable[Any]]

# The server looks for a deadlock after a second by default.
HASTE = Query("haste", "SET LOCAL deadlock_timeout = '20ms'")
REPEATABLE = Query("repeatable", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
ADD = Query("add", "UPDATE counters SET value = value + 1 WHERE name = $1")
READ = Query("read", "SELECT value FROM counters WHERE name = $1")
DEADLOCK = Query("deadlock", "DO $$ BEGIN RAISE EXCEPTION 'met' USING ERRCODE = '40P01'; END $$")
CUT = Query("cut", "SELECT pg_terminate_backend(pg_backend_pid())")


async def once(database: Database, work: Work) -> Any:
    """A transaction without another try."""
    async with database.transaction() as connection:
        return await work(connection)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The database as its owner, with two counters."""
    opened = await open_database(settings, role=None, size=4)
    await opened.execute(
        Query("make", "CREATE TABLE counters (name text PRIMARY KEY, value integer NOT NULL)")
    )
    await opened.execute(Query("fill", "INSERT INTO counters VALUES ('a', 0), ('b', 0)"))
    yield opened
    await opened.close()


async def values(database: Database) -> list[int]:
    return [await database.fetchval(READ, name) for name in "ab"]


def codes(results: list[Any]) -> list[str]:
    return sorted(result.code if isinstance(result, Unavailable) else "done" for result in results)


@pytest.mark.parametrize(
    ("run", "became", "left"), [(once, ["busy", "done"], [1, 1]), (in_transaction, ["done"] * 2, [2, 2])]
)
async def test_deadlock(database: Database, run: Runner, became: list[str], left: list[int]) -> None:
    both = asyncio.Barrier(2)

    def crossing(first: str, second: str) -> Work:
        tries = iter([both.wait])

        async def work(connection: Connection) -> None:
            await connection.execute(HASTE)
            await connection.execute(ADD, first)
            for meet in tries:
                await meet()
            await connection.execute(ADD, second)

        return work

    calls = [run(database, crossing("a", "b")), run(database, crossing("b", "a"))]
    assert codes(await asyncio.gather(*calls, return_exceptions=True)) == became
    assert await values(database) == left


@pytest.mark.parametrize(
    ("run", "became", "left"), [(once, ["busy", "done"], [1, 0]), (in_transaction, ["done"] * 2, [2, 0])]
)
async def test_serialization_failure(
    database: Database, run: Runner, became: list[str], left: list[int]
) -> None:
    both = asyncio.Barrier(2)

    def reading_first() -> Work:
        tries = iter([both.wait])

        async def work(connection: Connection) -> None:
            await connection.execute(REPEATABLE)
            await connection.fetchval(READ, "a")
            for meet in tries:
                await meet()
            await connection.execute(ADD, "a")

        return work

    calls = [run(database, reading_first()) for _ in range(2)]
    assert codes(await asyncio.gather(*calls, return_exceptions=True)) == became
    assert await values(database) == left


@pytest.mark.parametrize(
    ("run", "became"), [(once, ["busy"]), (in_transaction, ["idempotency_conflict", "posted"])]
)
async def test_taken_key(
    service: Service, database_url: str, eventually: Wait, run: Runner, became: list[str]
) -> None:
    """No account is locked by both, so the call sees the key of the other only when it takes it."""
    await open_accounts(service.database, [Opening(code, "USD", Limits(floor=None)) for code in "abcd"], 1)

    def transfer(key: str, source: str, target: str) -> Posting:
        return Posting(operation_id(1, key), 1, (Leg(source, -1), Leg(target, 1)))

    async def work(connection: Connection) -> list[Outcome]:
        postings = [transfer("same", "c", "d"), transfer("own", "c", "d")]
        return await service.ledger.post_within(connection, postings)

    owner = await asyncpg.connect(database_url)
    async with connected(database_url) as first:
        call = run(service.database, work)
        _, result = await overlap(owner, first, [transfer("same", "a", "b")], call, eventually)
    if isinstance(result, Unavailable):
        assert [result.code] == became
    else:
        assert [outcome.kind.code for outcome in result] == became
    assert await owner.fetchval("SELECT count(*) FROM transfers") == len(became)
    await owner.close()


@pytest.mark.parametrize(
    ("meets", "runs", "code"), [(DEADLOCK, MAX_TRIES, "busy"), (CUT, 1, "database_unavailable")]
)
async def test_tries_are_bounded_and_a_lost_connection_is_for_the_caller(
    database: Database, meets: Query, runs: int, code: str
) -> None:
    """After a lost connection the outcome may be unknown, so only a caller with a key may repeat it."""
    ran = 0

    async def work(connection: Connection) -> None:
        nonlocal ran
        ran += 1
        await connection.execute(ADD, "a")
        await connection.execute(meets)

    with pytest.raises(Unavailable) as refused:
        await in_transaction(database, work)
    assert (refused.value.code, ran) == (code, runs)
    assert refused.value.retry_after
    assert await values(database) == [0, 0]


async def test_a_row_that_stays_locked_is_waited_for_once(settings: Settings, database: Database) -> None:
    impatient = await open_database(
        settings.model_copy(update={"database_lock_timeout_ms": 20}), role=None, size=1
    )
    ran = 0

    async def work(connection: Connection) -> None:
        nonlocal ran
        ran += 1
        await connection.execute(ADD, "a")

    async with database.transaction() as holder:
        await holder.execute(ADD, "a")
        with pytest.raises(Unavailable, match="busy"):
            await in_transaction(impatient, work)
    await impatient.close()
    assert ran == 1


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(0, 2.0), (1, 2.0), (2, 4.0), (5, 32.0), (9, 60.0), (10_000, 60.0)]
)
def test_waits_stay_within_their_bounds(attempt: int, ceiling: float) -> None:
    full = [full_jitter(attempt, base_seconds=2.0, cap_seconds=60.0) for _ in range(500)]
    half = [half_jitter(attempt, base_seconds=2.0, cap_seconds=60.0) for _ in range(500)]
    assert all(0 <= wait <= ceiling for wait in full)
    assert all(ceiling / 2 <= wait <= ceiling for wait in half)
    # They spread: nearly nothing of the range is left out.
    assert max(full) - min(full) > ceiling * 0.8
    assert max(half) - min(half) > ceiling * 0.4
