"""Archived partitions: they are listed, brought back for a while, and removed again. Only the tables' owner may."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from core.database import queries
from core.errors import Refusal
from core.partitions.archiving import Tally, check, plain_lines
from core.partitions.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from core.database import Connection, Database

_sql = queries(__name__)


class Partition(NamedTuple):
    """A partition that there is or was. `state`: attached, detached, archived (and gone), removed or restored."""

    name: str
    parent: str
    state: str
    from_at: datetime | None
    to_at: datetime | None
    row_count: int | None
    sha256: str | None
    location: str | None


async def list_partitions(database: Database) -> list[Partition]:
    """Return all partitions, by table and time."""
    return [Partition(**row) for row in await database.fetch(_sql.list_partitions)]


async def restore(
    database: Database, name: str, *, attach: bool, on_page: Callable[[int], None] = lambda _: None
) -> int:
    """Bring an archived partition back; return its rows. With `attach` its table has them again, else they stand alone.

    No job removes it, until `forget`. Raises Refusal `not_archived` for a partition that is not in the archive or still
    there, `archive_damaged` when its bytes are not those that were written, and `rows_in_the_way` when newer rows have
    a time of its own: nothing is brought back then.
    """
    found = next((part for part in await list_partitions(database) if part.name == name), None)
    if found is None or found.state != "archived" or found.location is None:
        raise Refusal("not_archived", f"{name} is no partition that lies in the archive alone.")
    folder, _, file = found.location.rpartition("/")
    store = open_store(folder)
    await check(store, file, found.row_count or 0, found.sha256 or "")
    read = Tally()
    async with database.transaction() as connection:
        await connection.fetchval(_sql.reopen_partition, name)
        async for lines in plain_lines(store.get(file), read):
            await connection.fetchval(_sql.fill_partition, name, [line.decode() for line in lines])
            on_page(read.rows)
        if attach:
            await _attach(connection, found)
    return read.rows


async def _attach(connection: Connection, part: Partition) -> None:
    try:
        await connection.fetchval(_sql.attach_partition, part.name)
    except asyncpg.CheckViolationError as error:
        # They stay where they are: in the partition they would be gone once it is forgotten, and in no archive.
        raise Refusal(
            "rows_in_the_way",
            f"{part.parent}_rest has rows of that time, which came after {part.name} was taken off. Say --beside.",
        ) from error


async def forget(database: Database, name: str) -> None:
    """Remove a partition that was brought back; it stays in the archive. Raises Refusal `not_restored` for others."""
    try:
        await database.fetchval(_sql.forget_partition, name)
    except asyncpg.NoDataFoundError as error:
        raise Refusal("not_restored", f"{name} is no partition that was brought back.") from error
