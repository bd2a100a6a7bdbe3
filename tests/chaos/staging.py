"""How a race is staged: a posting function without one of its guards, and calls that meet at the worst moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, TypeAlias

import asyncpg

from core.database import SERVING_ROLE, Connection
from core.ledger.items import Outcome, Posting
from core.ledger.posting import post

Raw: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Wait = Callable[..., Awaitable[Any]]

LEDGER_POST = resources.files("sql").joinpath("functions", "ledger_post.sql").read_text()

# The guards, as they stand in the function.
LOCK = (
    "    PERFORM FROM accounts AS a WHERE a.code = ANY (account_codes) ORDER BY a.id FOR NO KEY UPDATE;\n"
    "    GET DIAGNOSTICS locked = ROW_COUNT;\n"
)
PAYABLE_LOCK = (
    "        PERFORM FROM payables AS p WHERE p.id = ANY (payable_ids) ORDER BY p.id FOR NO KEY UPDATE;\n"
)
OPENED = "    IF read <> locked THEN\n"
# For a function without its lock: it has counted no locks then.
UNGUARDED = (OPENED, "    IF FALSE THEN\n")
KEY_LOOKUP = "INNER JOIN keys AS k ON wanted.id = k.id\n"
KEY_CLAIM = "IF stored <> keyed THEN"
KEY_ORDER = "        ORDER BY k.id\n        ON CONFLICT DO NOTHING;"
CLOCK = "    now_at := clock_timestamp();\n"

# Whoever comes here waits until the test lets everybody go on; likewise, later, at the second one.
BARRIER, SECOND_BARRIER = (
    f"PERFORM pg_advisory_lock_shared({number}); PERFORM pg_advisory_unlock_shared({number});"
    for number in (1, 2)
)

# In the place of the lock: each leg's account in turn, so that crossing transfers deadlock.
PAYER_FIRST = f"""
    FOR leg IN 1..leg_count LOOP
        PERFORM FROM accounts AS a WHERE a.code = account_codes[leg_account[leg]] FOR NO KEY UPDATE;
        {BARRIER}
    END LOOP;
"""


async def install(owner: Raw, *changes: tuple[str, str]) -> None:
    """Replace the posting function of this database by one with these changes; without any, by the real one."""
    text = LEDGER_POST
    for old, new in changes:
        assert text.count(old) == 1, f"ledger_post.sql reads differently now: {old}"
        text = text.replace(old, new)
    await owner.execute(text)


def moved(begin: str, end: str, ahead_of: str) -> tuple[str, str]:
    """The change that moves the text from `begin` to just before `end` ahead of `ahead_of`, all as they stand now."""
    first, last, target = (LEDGER_POST.index(text) for text in (begin, end, ahead_of))
    assert target < first < last
    return LEDGER_POST[target:last], LEDGER_POST[first:last] + LEDGER_POST[target:first]


@asynccontextmanager
async def connected(database_url: str, **settings: str) -> AsyncIterator[Raw]:
    """A connection as a process of the service has one, with settings of its own."""
    raw = await asyncpg.connect(database_url, server_settings=settings)
    try:
        await raw.execute(f"SET ROLE {SERVING_ROLE}")
        yield raw
    finally:
        await raw.close()


async def post_on(raw: Raw, *postings: Posting) -> list[Outcome]:
    """Post on a connection, in its transaction or in one of its own."""
    return await post(Connection(raw), postings)  # type: ignore[arg-type] # a pool's proxy has the same methods


async def waiting(owner: Raw, count: int = 1) -> bool:
    """Whether so many sessions of this database wait for a lock."""
    found: int = await owner.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return found >= count


async def overlap(
    owner: Raw, first: Raw, postings: Sequence[Posting], second: Awaitable[Any], until: Wait
) -> Any:
    """Let `second` begin while the transaction that posts `postings` is not committed yet.

    Returns the outcomes of the first and what became of the second: its result, or its exception.
    """
    async with first.transaction():
        outcomes = await post_on(first, *postings)
        task = asyncio.ensure_future(second)
        await until(lambda: _settled_or_waiting(owner, task))
    result = (await asyncio.gather(task, return_exceptions=True))[0]
    return outcomes, result


async def at_barrier(
    owner: Raw,
    calls: Sequence[Awaitable[Any]],
    until: Wait,
    meanwhile: Awaitable[Any] | None = None,
    *,
    second: bool = False,
) -> list[Any]:
    """Start calls of a function with a BARRIER, let go when all stand there or behind one who does; their results.

    With `second` they are let go from a SECOND_BARRIER only when all stand there.
    """
    await owner.execute("SELECT pg_advisory_lock(1)")
    if second:
        await owner.execute("SELECT pg_advisory_lock(2)")
    tasks = [asyncio.ensure_future(call) for call in calls]
    await until(lambda: waiting(owner, len(tasks)))
    if meanwhile is not None:
        await meanwhile
    await owner.execute("SELECT pg_advisory_unlock(1)")
    if second:
        await until(lambda: _at_second_barrier(owner, len(tasks)))
        await owner.execute("SELECT pg_advisory_unlock(2)")
    return await asyncio.gather(*tasks, return_exceptions=True)


async def _at_second_barrier(owner: Raw, count: int) -> bool:
    found: int = await owner.fetchval("""
        SELECT count(*) FROM pg_locks
        WHERE locktype = 'advisory' AND objid = 2 AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """)
    return found == count


async def _settled_or_waiting(owner: Raw, task: "asyncio.Future[Any]") -> bool:
    return task.done() or await waiting(owner)
