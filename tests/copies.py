"""The databases of tests: copies of the migrated schema, emptied and given to the next test instead of made anew.

A copy is 700 files, and a look at what a test has left costs a tenth of making them. A database is used again only if
its schema is as it was made, to the last row of the catalogue; otherwise it goes.
"""

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

# A run of the whole suite fills less than a third of this.
MEMORY_BYTES = 2 * 1024**3
# Deleted rows stay in the files until the database goes, and every look at a table reads them.
MOST_USES = 60
# A connection that its test closed ends a moment later.
ENDING_MILLISECONDS = 2_000

# Rows of the catalogue carry the transaction that wrote them; statistics are written in place.
_SCHEMA = """
SELECT concat_ws(
    ' ',
    (SELECT concat(count(*), '/', sum(xmin::text::bigint), '/', sum(reltuples)) FROM pg_class),
    (SELECT concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_attribute),
    (SELECT concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_attrdef),
    (SELECT concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_constraint),
    (SELECT concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_index),
    (SELECT concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_namespace),
    (SELECT concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_proc),
    (SELECT concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_trigger),
    (SELECT concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_type),
    (
        SELECT count(*) FROM pg_db_role_setting AS s
        INNER JOIN pg_database AS d ON s.setdatabase = d.oid AND d.datname = current_database()
    )
)
"""

_FILLED = """
SELECT c.relname FROM pg_class AS c
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND pg_relation_size(c.oid) > 0
"""

# The rows that the template has come back from copies, which only the connection sees.
_EMPTY = f"""
DO $$
DECLARE
    name text;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR name IN {_FILLED} LOOP
        EXECUTE format('DELETE FROM public.%I', name);
    END LOOP;
    FOR name IN SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = pg_my_temp_schema() AND c.relkind = 'r' LOOP
        EXECUTE format('INSERT INTO public.%1$I OVERRIDING SYSTEM VALUE SELECT * FROM pg_temp.%1$I', name);
    END LOOP;
    PERFORM setval(s.seqrelid, s.seqstart, FALSE) FROM pg_sequence AS s;
END
$$
"""  # noqa: S608 - one of the texts above

_END_OTHERS = f"""
SELECT bool_and(pg_terminate_backend(a.pid, {ENDING_MILLISECONDS})) FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
"""  # noqa: S608 - a number of this file


class _Copy(NamedTuple):
    """A database that waits for a test, with the connection that empties it."""

    template: str
    name: str
    connection: "Connection"
    schema: str
    uses: int


class Copies:
    """Copies of templates. `administer` runs a statement as the superuser; `url` names a database of the server."""

    def __init__(self, administer: Callable[[str], Awaitable[None]], url: Callable[[str], str]) -> None:
        self._administer = administer
        self._url = url
        self._waiting: list[_Copy] = []
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def copy(self, template: str, *, fresh: bool = False) -> AsyncIterator[str]:
        """Give the DSN of a database with the schema and the rows of `template`; a `fresh` one never had others.

        A template with rows wants fresh ones, since the numbers of its sequences are not restored.
        """
        waiting = () if fresh else self._waiting
        copy = next((each for each in waiting if each.template == template), None)
        if copy is not None:
            self._waiting.remove(copy)
            if copy.connection.is_closed():
                await self._drop(copy)
                copy = None
        if copy is None:
            copy = await self._made(template)
        yield self._url(copy.name)
        if await _emptied(copy):
            self._waiting.append(copy._replace(uses=copy.uses + 1))
        else:
            await self._drop(copy)

    async def close(self) -> None:
        """End the connections; the server ends with the databases."""
        for copy in self._waiting:
            copy.connection.terminate()

    async def _made(self, template: str) -> _Copy:
        name = f"test_{next(self._numbers)}"
        await self._administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        connection = await asyncpg.connect(self._url(name))
        await connection.execute("SET jit = off")
        for row in await connection.fetch(_FILLED):
            table = row["relname"]
            await connection.execute(f'CREATE TEMPORARY TABLE "{table}" AS TABLE public."{table}"')
        return _Copy(template, name, connection, await connection.fetchval(_SCHEMA), 1)

    async def _drop(self, copy: _Copy) -> None:
        copy.connection.terminate()
        await self._administer(f"DROP DATABASE {copy.name} WITH (FORCE)")


async def _emptied(copy: _Copy) -> bool:
    """Empty a database for the next test; say whether it is as it was made."""
    if copy.uses >= MOST_USES:
        return False
    try:
        if await copy.connection.fetchval(_END_OTHERS) is False:
            return False
        await copy.connection.execute(_EMPTY)
        same: bool = await copy.connection.fetchval(_SCHEMA) == copy.schema
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False  # the test has stopped the server, or has changed the schema
    return same


def in_memory() -> Path | None:
    """Return a folder whose files cost no disk, if there is room: a disk would slow down the databases of the tests."""
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of our own in it
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MEMORY_BYTES
    return memory if roomy else None
