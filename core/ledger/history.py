"""The identity of the history: its epochs, the point that they share, and a picture that a restored one is held to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from datetime import datetime

    from core.database import Connection, Database

SQL = queries(__name__)

# The server needs a moment to end a session whose client has gone, our own of the step before included.
SESSIONS_END_WITHIN_LOOKS = 30
LOOK_SECONDS = 0.1


class Epoch(NamedTuple):
    """One history of the database. Up to `position` of the feed it has the events of the epoch before it."""

    name: str
    position: int


class Balances(msgspec.Struct, frozen=True, kw_only=True):
    """The accounts of a currency: their number, the sum of the balances above zero, and a sum that tells any change."""

    accounts: int
    owed: str
    fingerprint: str


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a database at one moment, as far as numbers tell it."""

    position: int
    digest: str
    rows: dict[str, int]
    balances: dict[str, Balances]


async def check_reader(database: Database, present: str, named: str | None, after: int, head: int) -> None:
    """Raise Refusal `epoch_changed` for a reader of the feed who has read what a restore has taken back.

    The reader names the epoch of its last page, or none; `present` is the epoch of the database. A reader without an
    epoch is found out while it is ahead of the feed, which it can be in a restored history alone.
    """
    if named is not None and named != present:
        expect_shared(present, after, await database.fetchval(SQL.shared, named))
    elif named is None and after > head:
        begin = await database.fetchrow(SQL.present)
        expect_shared(present, after, after if begin is None else begin["position"])


async def parted_at(database: Database, present: str, named: str | None, *, ahead: bool) -> datetime | None:
    """Return the time until which a reader of events has read the same history; None where it still does.

    The reader names the epoch of its last page, or none; `ahead` says that it has read beyond the last event.
    """
    if named is not None and named != present:
        parted: datetime = await database.fetchval(SQL.parted_at, named)
        return parted
    if named is None and ahead:
        begin = await database.fetchrow(SQL.present)
        return None if begin is None else begin["started_at"]
    return None


def expect_shared(present: str, after: int, shared: int) -> None:
    """Raise Refusal `epoch_changed` unless all that a reader has read is in the present history, too."""
    if after > shared:
        raise Refusal(
            "epoch_changed",
            f"A backup was restored: positions above {shared} mean other events now. Undo what was read above it,"
            f" and go on with `after={shared}` and `epoch={present}`.",
            epoch=present,
            position=shared,
        )


async def begin_epoch(connection: Connection, reason: str, lineage: str = "[]") -> Epoch:
    """Begin a new epoch at the end of the feed, after those of `lineage` (JSON, see `read_lineage`); return it.

    Raises Refusal `database_in_use` while anybody else is connected.
    """
    await expect_alone(connection)
    await connection.execute(SQL.adopt_lineage, lineage)
    await connection.execute(SQL.forget_gaps)
    row = await connection.fetchrow(SQL.begin_epoch, reason)
    if row is None:
        raise RuntimeError("the feed has no head")
    return Epoch(row["epoch"], row["position"])


async def expect_alone(connection: Connection) -> None:
    """Raise Refusal `database_in_use` while other sessions are connected to the database."""
    if others := await strangers(connection):
        raise Refusal(
            "database_in_use",
            f"{others} other sessions are connected to the database. Stop the service first: its processes know the"
            " old epoch.",
        )


async def strangers(connection: Connection) -> int:
    """Return the number of other sessions in the database, once those that are just ending have had their time."""
    count = 0
    for _ in range(SESSIONS_END_WITHIN_LOOKS):
        count = await connection.fetchval(SQL.strangers)
        if not count:
            break
        # A transaction sees the sessions of its first look until it is told to look again.
        await connection.fetchval(SQL.look_again)
        await asyncio.sleep(LOOK_SECONDS)
    return count


async def read_lineage(connection: Connection) -> str:
    """Return the epochs of the database, oldest first, as JSON."""
    lineage: str = await connection.fetchval(SQL.lineage)
    return lineage


async def take_picture(connection: Connection) -> Picture:
    """Return the picture of the database as the transaction of `connection` sees it. Every table is counted."""
    moment = await connection.fetchrow(SQL.moment)
    if moment is None:
        raise Refusal("not_migrated", "The database has no ledger that could be looked at.")
    rows: dict[str, int] = {}
    for table in await connection.fetch(SQL.tables):
        rows[table["name"]] = await connection.raw.fetchval(table["statement"])
    return Picture(
        position=moment["position"],
        digest=moment["digest"],
        rows=rows,
        balances={
            row["currency"]: Balances(
                accounts=row["accounts"], owed=row["owed"], fingerprint=row["fingerprint"]
            )
            for row in await connection.fetch(SQL.balances)
        },
    )


def differences(told: Picture, found: Picture) -> list[str]:
    """Return a sentence for each number in which the found picture is not the one that was told."""
    said = [
        f"Table {name} has {found.rows.get(name, 0):,} rows in place of {rows:,}."
        for name, rows in told.rows.items()
        if found.rows.get(name, 0) != rows
    ]
    said += [
        f"The accounts in {currency} are not those of the backup."
        for currency in sorted(told.balances.keys() | found.balances.keys())
        if told.balances.get(currency) != found.balances.get(currency)
    ]
    if (told.position, told.digest) != (found.position, found.digest):
        said.append(f"The feed ends at {found.position} in place of {told.position}, or with another seal.")
    return said


async def note_backup(
    connection: Connection, place: str, name: str, moment: datetime, figures: tuple[int, int]
) -> None:
    """Remember a finished backup of `moment`; `figures` are its position in the feed and its bytes."""
    await connection.execute(SQL.note_backup, place, name, moment, *figures)
