"""PostgreSQL: named statements from `sql/queries`, a bounded pool, and one meaning for every way to lose the server."""

from __future__ import annotations

import asyncio
import functools
import re
import sys
import time
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import asyncpg
import structlog

from core import metrics, tracing
from core.errors import Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from core.settings import Settings

    RawConnection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

log = structlog.get_logger(__name__)

Row = asyncpg.Record
Result = TypeVar("Result")

# The roles of sql/migrations/0001: the serving role can neither update nor delete what is append-only.
SERVING_ROLE = "tallystick_serving"
# No connection within this time means that the pool is exhausted or the server is gone.
ACQUIRE_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 3.0
# Somebody has to run statements by hand before a session without our settings is another one.
NOT_SET_RETRY_SECONDS = 5.0
# The posting lane and a few readers beside it keep so many connections busy.
MAX_AT_HAND = 4

# A connection keeps a plan until statistics are gathered anew, and a plan for an empty table reads a full one from end
# to end. Every statement of the serving role has an index; administration may read whole tables.
_FIRM_PLANS = {"enable_seqscan": "off"}

_LOST = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # The driver raises this when a pooled connection had died unseen ("cannot switch to state ...").
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    # This class covers too many connections, a full disk, no memory left.
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
# The posting function raises it when a key or an account of its call was taken or opened by another meanwhile.
KEY_TAKEN = "TS001"
# The functions about claims raise it when the claim that a call presents is not there any more.
CLAIM_GONE = "TS002"
_RETRIABLE = frozenset(
    {asyncpg.DeadlockDetectedError.sqlstate, asyncpg.SerializationError.sqlstate, KEY_TAKEN}
)


class ClaimGoneError(Exception):
    """The claim's events belong to another worker by now, so nothing of this transaction has happened."""


class Query(NamedTuple):
    """One SQL statement, with its name in metrics and logs."""

    name: str
    text: str


class Queries:
    """The statements of one file of `sql/queries`, as attributes."""

    def __init__(self, found: dict[str, Query]) -> None:
        self._found = found

    def __getattr__(self, name: str) -> Query:
        try:
            return self._found[name]
        except KeyError:
            raise AttributeError(name) from None

    def __iter__(self) -> Iterator[Query]:
        return iter(self._found.values())


@functools.cache
def queries(module: str) -> Queries:
    """Return the queries of a module of core: those of `core.ledger.feed` stand in `sql/queries/ledger/feed.sql`.

    A file is blocks that begin with `-- name: <name>`; parameters are `$1`, `$2`, ... A query belongs to one module;
    other modules call that module's functions.
    """
    parts = module.split(".")[1:]
    file = "/".join(parts)
    text = resources.files("sql").joinpath("queries", *parts[:-1], f"{parts[-1]}.sql").read_text()
    blocks = re.split(r"^-- name: (\w+)\s*$", text, flags=re.MULTILINE)[1:]
    found = {}
    for name, body in zip(blocks[::2], blocks[1::2], strict=True):
        found[name] = Query(name, f"-- {file}.{name}\n{body.strip().rstrip(';')}")
    return Queries(found)


def is_lost(error: BaseException) -> bool:
    """Whether `error` means that the server or the connection went away; the call's outcome may then be unknown."""
    return isinstance(error, _LOST)


def is_retriable(error: BaseException | None) -> bool:
    """Whether the transaction was certainly rolled back, for a cause that another try may not meet."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in _RETRIABLE


class Connection:
    """One connection inside one transaction. Inner code takes it and never commits."""

    __slots__ = ("raw",)

    def __init__(self, raw: RawConnection) -> None:
        self.raw = raw

    async def fetch(self, statement: Query, *args: Any) -> list[Row]:
        """Return all rows."""
        return await _timed(statement.name, self.raw.fetch(statement.text, *args))

    async def fetchrow(self, statement: Query, *args: Any) -> Row | None:
        """Return the first row, or None."""
        return await _timed(statement.name, self.raw.fetchrow(statement.text, *args))

    async def fetchval(self, statement: Query, *args: Any) -> Any:
        """Return the first column of the first row, or None."""
        return await _timed(statement.name, self.raw.fetchval(statement.text, *args))

    async def execute(self, statement: Query, *args: Any) -> int:
        """Run the statement and return how many rows it touched."""
        status = await _timed(statement.name, self.raw.execute(statement.text, *args))
        tail = status.rsplit(" ", 1)[-1]
        return int(tail) if tail.isdigit() else 0


class Connections:
    """The connections of a pool. The last used ones stay at hand, because the pool takes 100 us of CPU to lend one."""

    __slots__ = ("_at_hand", "_waiting", "pool")

    def __init__(self, pool: asyncpg.Pool[Row]) -> None:
        self.pool = pool
        self._at_hand: list[RawConnection] = []
        self._waiting = 0
        metrics.POOL_SIZE.inc(pool.get_max_size())

    async def take(self) -> RawConnection:
        """Return a connection for one use. Raises TimeoutError after ACQUIRE_TIMEOUT_SECONDS."""
        while self._at_hand:
            raw = self._at_hand.pop()
            if not raw.is_closed():
                return raw
            await self.pool.release(raw)
        self._waiting += 1
        metrics.POOL_WAITING.inc()
        started = time.perf_counter()
        try:
            return await self.pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        except TimeoutError:
            metrics.POOL_TIMEOUTS.add()
            raise
        finally:
            self._waiting -= 1
            metrics.POOL_WAITING.dec()
            metrics.POOL_WAIT.observe(time.perf_counter() - started)

    async def give_back(self, raw: RawConnection, *, sound: bool) -> None:
        """Take a connection back. A connection whose use failed goes to the pool, which checks it."""
        if sound and not self._waiting and len(self._at_hand) < MAX_AT_HAND:
            self._at_hand.append(raw)
        else:
            await self.pool.release(raw)

    async def close(self) -> None:
        """End all connections; those that do not end within five seconds are cut."""
        metrics.POOL_SIZE.dec(self.pool.get_max_size())
        try:
            async with asyncio.timeout(5.0):
                while self._at_hand:
                    await self.pool.release(self._at_hand.pop())
                await self.pool.close()
        except (TimeoutError, *_LOST):
            self.pool.terminate()


class Database:
    """A pool of connections of one role. Every method raises Unavailable when the server cannot be reached."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    async def fetch(self, statement: Query, *args: Any) -> list[Row]:
        """Return all rows of a statement that is its own transaction."""
        return await self._once(lambda connection: connection.fetch(statement, *args))

    async def fetchrow(self, statement: Query, *args: Any) -> Row | None:
        """Return the first row, or None, of a statement that is its own transaction."""
        return await self._once(lambda connection: connection.fetchrow(statement, *args))

    async def fetchval(self, statement: Query, *args: Any) -> Any:
        """Return the first value, or None, of a statement that is its own transaction."""
        return await self._once(lambda connection: connection.fetchval(statement, *args))

    async def execute(self, statement: Query, *args: Any) -> int:
        """Run a statement that is its own transaction; return how many rows it touched."""
        return await self._once(lambda connection: connection.execute(statement, *args))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a READ COMMITTED transaction; it commits at the end of the block and rolls back on any exception."""
        with translated():
            async with self._acquired() as raw, raw.transaction():
                yield Connection(raw)

    async def ping(self) -> None:
        """Raise Unavailable unless the server answers."""
        await self.fetchval(Query("ping", "SELECT 1"))

    async def close(self) -> None:
        """End all connections; those that do not end within five seconds are cut."""
        await self.connections.close()

    async def _once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        with translated():
            async with self._acquired() as raw:
                return await work(Connection(raw))

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[RawConnection]:
        raw = await self.connections.take()
        metrics.DATABASE_CONNECTIONS.inc()
        sound = False
        try:
            yield raw
            sound = True
        finally:
            metrics.DATABASE_CONNECTIONS.dec()
            await self.connections.give_back(raw, sound=sound)


class translated:  # noqa: N801 - reads as a word: `with translated():`
    """Turn the driver's ways of saying that the server is gone, or busy beyond its bounds, into Unavailable."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, Refusal):
            return
        if is_lost(error):
            raise Unavailable from error
        if isinstance(error, asyncpg.PostgresError) and error.sqlstate == CLAIM_GONE:
            raise ClaimGoneError from error
        if is_retriable(error) or isinstance(error, asyncpg.LockNotAvailableError):
            raise Unavailable(
                "The rows of this call are busy at the moment. Nothing happened; repeat the call.",
                code="busy",
                retry_after=0.1,
            ) from error
        if isinstance(error, asyncpg.QueryCanceledError):
            raise Unavailable(
                "The database took too long over this call and gave it up. Nothing happened; ask for less, or"
                " repeat the call.",
                code="busy",
            ) from error


async def _timed(name: str, work: Awaitable[Result]) -> Result:
    started = time.perf_counter()
    span = None if tracing.active is None else tracing.active.query(name)
    ok = False
    try:
        result = await work
        ok = True
        return result
    finally:
        metrics.observe_query(name, time.perf_counter() - started, ok=ok)
        if span is not None:
            if not ok:
                span.set_attribute("error.type", _kind_of_error())
            span.end()


def _kind_of_error() -> str:
    """Return a word for the error that is being handled; its text may have values in it."""
    error = sys.exception()
    return getattr(error, "sqlstate", None) or type(error).__name__


def _log_statement(ran: asyncpg.connection.LoggedQuery) -> None:
    # The values stay out of the log: they are people's data.
    log.debug("sql", statement=ran.query, duration_ms=round(ran.elapsed * 1000, 3))


def session_settings(settings: Settings, role: str | None) -> dict[str, str]:
    """Return what every session of `role` has set, in PostgreSQL's names and own units."""
    return {
        "timezone": "UTC",
        "statement_timeout": str(settings.database_statement_timeout_ms),
        "lock_timeout": str(settings.database_lock_timeout_ms),
        "idle_in_transaction_session_timeout": "60000",
        # Our statements are short; compiling them costs more than it saves.
        "jit": "off",
        **({} if role is None else _FIRM_PLANS),
    }


async def _check_session(connection: asyncpg.Connection[Row], wanted: dict[str, str], *, told: bool) -> None:
    """Raise Unavailable `session_not_set` unless the session has what is wanted, and tell the difference if asked."""
    rows = await connection.fetch(queries(__name__).session.text, list(wanted))
    found = {row["name"].lower(): row["setting"] for row in rows}
    missing = [
        f"{name} = {found.get(name, '')} in place of {value}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if missing:
        log.error("database.session_not_set", missing=missing)
        sentence = (
            f"The login behind the pooler has {', '.join(missing)}. Run the statements of `tallystick pooler LOGIN`,"
            " then RECONNECT the pooler."
            if told
            else "The database's login is not set up for its pooler. Nothing happened; repeat the call later."
        )
        raise Unavailable(sentence, code="session_not_set", retry_after=NOT_SET_RETRY_SECONDS)


async def open_database(
    settings: Settings, *, role: str | None = SERVING_ROLE, size: int | None = None
) -> Database:
    """Open a pool whose connections take on `role` (None keeps the login role, for administration).

    Behind a pooler nothing can be set for a session, because the next transaction has another one. The login brings
    the settings there, and a connection that meets a session without them raises Unavailable `session_not_set`. The
    difference is told here, to operators; callers of an open service get a sentence without it, and the log has it.
    """
    # Administration keeps state for a session, so it goes past the pooler.
    pooled = bool(settings.database_pooler) and role is not None
    wanted = session_settings(settings, role)
    opening = True

    async def prepare(connection: asyncpg.Connection[Row]) -> None:
        if settings.debug:
            connection.add_query_logger(_log_statement)
        if pooled:
            await _check_session(connection, {"role": str(role), **wanted}, told=opening)
        elif role is not None:
            await connection.execute(f'SET ROLE "{role}"')

    async def keep(_connection: asyncpg.Connection[Row]) -> None:
        # The pool's own RESET ALL costs a round trip a use; no statement of ours leaves session state behind.
        return

    prepared = settings.database_prepared_statements and (
        not pooled or "database_prepared_statements" in settings.model_fields_set
    )
    with translated():
        pool = await asyncpg.create_pool(
            str(settings.owner_url if role is None else settings.database_url),
            min_size=1,
            max_size=size or settings.database_pool_size,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=settings.database_statement_timeout_ms / 1000 + 1,
            statement_cache_size=100 if prepared else 0,
            max_inactive_connection_lifetime=300,
            # These two a pooler carries from one session to the next; others it refuses or forgets.
            server_settings={"application_name": "tallystick", "timezone": "UTC"}
            if pooled
            else {"application_name": "tallystick", **wanted},
            init=prepare,
            reset=keep,
        )
    opening = False
    return Database(Connections(pool))
