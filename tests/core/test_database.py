"""The pool and the named queries: what they say when the server is away, slow or busy, and what they may not do."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from core import database as database_module
from core.database import SERVING_ROLE, Database, Query, open_database, queries, session_settings
from core.errors import Refusal, Unavailable
from core.log import configure_logging
from core.settings import Settings, load_settings
from ops.process import choose_port
from tests.queries import MODULES, OF_SOURCES, QUERIES, TEMPORARY

Wait = Callable[..., Awaitable[Any]]

SLEEP = Query("sleep", "SELECT pg_sleep($1)")
TERMINATE = Query("terminate", "SELECT pg_terminate_backend($1, 5000)")
ASLEEP = Query(
    "asleep",
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND query ~ 'pg_sleep' AND state = 'active')",
)
PID = Query("pid", "SELECT pg_backend_pid()")
INSERT = Query("insert", "INSERT INTO epochs (epoch, reason) VALUES ($1, 'test')")
COUNT = Query("count", "SELECT count(*) FROM epochs")


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = await open_database(settings)
    yield opened
    await opened.close()


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Database]:
    opened = await open_database(settings, role=None, size=4)
    yield opened
    await opened.close()


@pytest.mark.usefixtures("logging_as_before")
async def test_debug_logs_each_statement_but_not_its_values(settings: Settings) -> None:
    stream = io.BytesIO()
    debug = settings.model_copy(update={"debug": True, "log_level": "error"})
    configure_logging(debug, stream)
    opened = await open_database(debug)
    try:
        for _ in range(2):  # a connection that was given back and taken again
            await opened.fetchrow(Query("secret", "SELECT $1::text"), "hunter2")
    finally:
        await opened.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines if line.get("statement") == "SELECT $1::text"] == ["sql", "sql"]
    assert b"hunter2" not in stream.getvalue()


def test_queries_are_found_by_module_and_name_and_say_what_they_return() -> None:
    assert {"core.access.api_keys", "core.ledger.posting"} <= set(MODULES)
    for module in MODULES:
        for query in queries(module):
            lines = query.text.splitlines()
            assert lines[0] == f"-- {module.removeprefix('core.').replace('.', '/')}.{query.name}"
            assert re.match(r"-- [A-Z]\S* .+", lines[1]), query.name
            assert not query.text.endswith(";")
    assert queries("core.ledger.posting") is queries("core.ledger.posting")
    with pytest.raises(AttributeError, match="no_such_query"):
        _ = queries("core.ledger.posting").no_such_query


def test_a_query_has_one_name() -> None:
    """Metrics and logs know a query by its name alone."""
    assert len(QUERIES) == sum(1 for module in MODULES for _ in queries(module))


async def test_every_query_is_one_that_the_database_understands(owner: Database) -> None:
    async with owner.connections.pool.acquire() as connection, connection.transaction():
        for query in TEMPORARY:
            await connection.execute(query.text)
        for query in QUERIES.values():
            if query.name not in OF_SOURCES and query not in TEMPORARY:
                await connection.prepare(query.text)


async def test_session_is_set_up(database: Database, settings: Settings) -> None:
    row = await database.fetchrow(
        Query(
            "session",
            "SELECT current_user AS role, current_setting('timezone') AS timezone, current_setting('jit') AS jit,"
            " current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement,"
            " current_setting('transaction_isolation') AS isolation",
        )
    )
    assert row is not None
    assert dict(row) == {
        "role": SERVING_ROLE, "timezone": "UTC", "jit": "off", "lock": "2s", "statement": "10s",
        "isolation": "read committed",
    }  # fmt: skip
    assert (settings.database_lock_timeout_ms, settings.database_statement_timeout_ms) == (2_000, 10_000)


async def test_session_behind_a_pooler_is_looked_at_and_not_set(settings: Settings, owner: Database) -> None:
    """The login of this server stands for the one behind a pooler: no session of it has our settings by itself."""
    behind = settings.model_copy(update={"database_pooler": "transaction"})
    with pytest.raises(Refusal) as refused:
        await open_database(behind)
    assert refused.value.code == "session_not_set"
    assert "enable_seqscan = on in place of off" in refused.value.detail
    name = settings.database_url.rsplit("/", 1)[1]
    for setting, value in {"role": SERVING_ROLE, **session_settings(settings, SERVING_ROLE)}.items():
        await owner.execute(
            Query("set", f"ALTER ROLE tallystick IN DATABASE {name} SET {setting} = '{value}'")
        )
    opened = await open_database(behind)
    try:
        assert await opened.fetchval(Query("role", "SELECT current_user")) == SERVING_ROLE
        assert await opened.fetchval(Query("kept", "SELECT count(*) FROM pg_prepared_statements")) == 0
        # A session that is set up no more is an outage, of which callers are not told how the login differs.
        await owner.execute(Query("reset", f"ALTER ROLE tallystick IN DATABASE {name} RESET ALL"))
        await owner.execute(Query("end", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"))  # fmt: skip
        with pytest.raises(Unavailable):  # the session that has ended
            await opened.fetchval(Query("role", "SELECT current_user"))
        with pytest.raises(Unavailable) as away:
            await opened.fetchval(Query("role", "SELECT current_user"))
        assert (away.value.code, away.value.retry_after) == ("session_not_set", 5.0)
        assert "enable_seqscan" not in away.value.detail
    finally:
        await opened.close()


async def test_serving_role_cannot_change_what_was_written(database: Database) -> None:
    for table in (
        *("accounts", "entries", "transfers", "batches", "keys", "refusals", "holds", "hold_events", "feed"),
        *("account_events", "reversed_amounts", "backdated_entries", "window_usage", "feed_head", "epochs"),
    ):
        for text in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"INSERT INTO {table} DEFAULT VALUES"):  # noqa: S608 - the names above
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await database.execute(Query("forbidden", text))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute(Query("forbidden", "UPDATE entries SET amount = 0"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute(Query("forbidden", "CREATE TABLE mine ()"))


async def test_transaction_commits_at_its_end_or_not_at_all(owner: Database) -> None:
    async with owner.transaction() as connection:
        assert await connection.execute(INSERT, "one") == 1
        assert await owner.fetchval(COUNT) == 1
    assert await owner.fetchval(COUNT) == 2

    async def change_my_mind() -> None:
        async with owner.transaction() as connection:
            await connection.execute(INSERT, "two")
            raise Refusal("changed_my_mind", "No.")

    with pytest.raises(Refusal, match="changed_my_mind"):
        await change_my_mind()
    assert await owner.fetchval(COUNT) == 2
    with pytest.raises(asyncpg.UniqueViolationError):
        await owner.execute(INSERT, "one")
    assert [row["count"] for row in await owner.fetch(COUNT)] == [2]


async def test_session_that_was_cut_off(database: Database, owner: Database, eventually: Wait) -> None:
    pid = await database.fetchval(PID)
    sleeping = asyncio.create_task(database.fetchval(SLEEP, 60.0))
    await eventually(lambda: owner.fetchval(ASLEEP, pid))
    assert await owner.fetchval(TERMINATE, pid)
    with pytest.raises(Unavailable) as gone:
        await sleeping
    assert (gone.value.code, gone.value.retry_after) == ("database_unavailable", 1.0)
    assert await database.fetchval(PID) != pid
    await database.ping()


async def test_transaction_that_was_cut_off_leaves_nothing(owner: Database) -> None:
    async def cut_off() -> None:
        async with owner.transaction() as connection:
            await connection.execute(INSERT, "half")
            await owner.fetchval(TERMINATE, await connection.fetchval(PID))
            await connection.execute(INSERT, "other half")

    with pytest.raises(Unavailable):
        await cut_off()
    assert await owner.fetchval(COUNT) == 1


async def test_server_that_is_not_there(tmp_path: Any) -> None:
    url = f"postgresql://tallystick:x@127.0.0.1:{choose_port(None)}/none"
    settings = load_settings(env_file=None, env="test", database_url=url, state_dir=str(tmp_path))
    with pytest.raises(Unavailable) as gone:
        await open_database(settings)
    assert gone.value.code == "database_unavailable"
    assert "127.0.0.1" not in gone.value.detail


async def test_statement_that_takes_too_long(settings: Settings) -> None:
    impatient = settings.model_copy(update={"database_statement_timeout_ms": 100})
    database = await open_database(impatient)
    try:
        with pytest.raises(Unavailable):
            await database.fetchval(SLEEP, 30.0)
        await database.ping()
    finally:
        await database.close()


async def test_row_that_stays_locked_is_busy(settings: Settings, owner: Database) -> None:
    impatient = settings.model_copy(update={"database_lock_timeout_ms": 50})
    database = await open_database(impatient, role=None)
    lock = Query("lock", "SELECT FROM epochs FOR UPDATE")
    try:
        async with owner.transaction() as connection:
            await connection.execute(lock)
            with pytest.raises(Unavailable) as busy:
                await database.execute(lock)
        assert (busy.value.code, busy.value.retry_after) == ("busy", 0.1)
        await database.execute(lock)
    finally:
        await database.close()


async def test_pool_that_is_exhausted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await open_database(settings, size=2)
    try:
        async with database.transaction(), database.transaction():
            monkeypatch.setattr(database_module, "ACQUIRE_TIMEOUT_SECONDS", 0.05)
            with pytest.raises(Unavailable):
                await database.ping()
        await database.ping()
    finally:
        await database.close()


async def test_many_callers_share_a_small_pool(settings: Settings) -> None:
    database = await open_database(settings, size=2)
    try:
        pids = await asyncio.gather(*(database.fetchval(PID) for _ in range(100)))
    finally:
        await database.close()
    assert len(set(pids)) <= 2


async def test_caller_that_goes_away_leaves_a_working_pool(
    settings: Settings, owner: Database, eventually: Wait
) -> None:
    database = await open_database(settings, size=2)
    try:
        pid = await database.fetchval(PID)
        task = asyncio.create_task(database.fetchval(SLEEP, 60.0))
        await eventually(lambda: owner.fetchval(ASLEEP, pid))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(4):
            await database.ping()
    finally:
        await database.close()
