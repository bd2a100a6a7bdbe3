"""Sources: databases of the services before this one, read in one snapshot: PostgreSQL, MySQL and SQLite.

The statements of `sql/queries/importing` keep to SQL that all three know. They are read as streams, so memory does not
grow with a table, and nothing is ever written to a source.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, unquote, urlsplit

import asyncpg

from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from core.database import Query

    Page = list[Mapping[str, Any]]

_sql = queries(__name__)

# Rows in memory at once, and in one transaction of the target.
PAGE_ROWS: Final = 500
_GO_ADDRESS: Final = re.compile(r"([^:@/]+)(?::(.*))?@tcp\(([^)]+)\)/([^?]*)(?:\?.*)?")
CONNECT_SECONDS: Final = 10
# One statement reads a whole table; the old service is stopped meanwhile.
READ_SECONDS: Final = 3_600


class Source(Protocol):
    """An open database, in the snapshot of one transaction."""

    def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """Yield the rows of a statement, up to PAGE_ROWS at once."""

    async def tables(self) -> set[str]:
        """Return the names of the tables."""


@asynccontextmanager
async def open_source(url: str) -> AsyncIterator[Source]:
    """Open the database at `url`: postgresql://…, mysql://… or sqlite:///path. Raises Refusal `source_unreachable`."""
    url = _of_go(url)
    scheme = url.partition("://")[0].split("+")[0]
    opener = _OPENERS.get(scheme)
    if opener is None:
        raise Refusal(
            "source_unreachable", "The address of a source begins with postgresql://, mysql:// or sqlite:///."
        )
    async with opener(url) as source:
        yield source


def _of_go(address: str) -> str:
    """Return an address as the orchestration's MYSQL_DSN has it (`user:password@tcp(host:port)/database`) as a URL."""
    found = _GO_ADDRESS.fullmatch(address)
    if found is None:
        return address
    user, password, server, database = found.groups()
    return f"mysql://{quote(user, safe='')}:{quote(password or '', safe='')}@{server}/{database}"


class _Postgres:
    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        page: Page = []
        async for row in self._connection.cursor(query.text, prefetch=PAGE_ROWS):
            page.append(dict(row))
            if len(page) == PAGE_ROWS:
                yield page
                page = []
        if page:
            yield page

    async def tables(self) -> set[str]:
        rows = await self._connection.fetch(_sql.postgres_tables.text)
        return {row["name"] for row in rows}


@asynccontextmanager
async def _open_postgres(url: str) -> AsyncIterator[Source]:
    address = "postgresql://" + url.partition("://")[2]
    try:
        connection = await asyncpg.connect(address, timeout=CONNECT_SECONDS, command_timeout=READ_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
        raise _unreachable(error) from None
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield _Postgres(connection)
    finally:
        await connection.close()


class _Stepped:
    """A database of a driver that blocks (DB-API 2.0): each step runs in a thread, one at a time."""

    def __init__(self, connection: Any, tables: Query) -> None:
        self._connection = connection
        self._tables = tables

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        cursor = self._connection.cursor()
        try:
            await asyncio.to_thread(cursor.execute, query.text)
            names = [column[0] for column in cursor.description]
            while rows := await asyncio.to_thread(cursor.fetchmany, PAGE_ROWS):
                yield [dict(zip(names, row, strict=True)) for row in rows]
        finally:
            cursor.close()  # the connection's own end is near where the run was cut off

    async def tables(self) -> set[str]:
        return {row["name"] async for page in self.pages(self._tables) for row in page}


@asynccontextmanager
async def _open_sqlite(url: str) -> AsyncIterator[Source]:
    # sqlite:///relative and sqlite:////absolute, as the old services write it.
    path = Path(unquote(url.partition("://")[2].removeprefix("/").partition("?")[0]))
    connection = await asyncio.to_thread(_connect_sqlite, path)
    try:
        connection.execute("BEGIN")
        source = _Stepped(connection, _sql.sqlite_tables)
        try:
            await source.tables()
        except sqlite3.Error as error:
            raise _unreachable(error) from None
        yield source
    finally:
        connection.close()


def _connect_sqlite(path: Path) -> sqlite3.Connection:
    """Open a file that is there, to be read only."""
    if not path.is_file():
        raise Refusal("source_unreachable", f"There is no file {path}.")
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)


@asynccontextmanager
async def _open_mysql(url: str) -> AsyncIterator[Source]:
    import pymysql  # noqa: PLC0415 - for imports alone
    from pymysql.cursors import SSCursor  # noqa: PLC0415

    try:
        parts = urlsplit(url)
        connection = await asyncio.to_thread(
            pymysql.connect,
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.lstrip("/")),
            charset="utf8mb4",
            # A cursor that streams, and a session whose times are UTC, as the old service wrote them.
            cursorclass=SSCursor,
            init_command="SET time_zone = '+00:00'",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
        )
    except (OSError, pymysql.Error, ValueError, RuntimeError) as error:
        raise _unreachable(error) from None
    try:
        await asyncio.to_thread(connection.begin)  # InnoDB's default is REPEATABLE READ: one snapshot
        yield _Stepped(connection, _sql.mysql_tables)
    finally:
        await asyncio.to_thread(connection.close)


def _unreachable(error: BaseException) -> Refusal:
    if isinstance(error, ValueError):
        return Refusal(
            "source_unreachable", "The address of the source cannot be read; `%` codes for its signs help."
        )
    # A driver's words do not repeat the password, and those of a parser might.
    return Refusal("source_unreachable", f"The source cannot be read: {type(error).__name__}: {error}")


_OPENERS: Final = {
    "postgresql": _open_postgres,
    "postgres": _open_postgres,
    "mysql": _open_mysql,
    "mariadb": _open_mysql,
    "sqlite": _open_sqlite,
}
