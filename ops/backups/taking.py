"""A backup is taken: one snapshot of the database, dumped by pg_dump and counted by us: each proves the other."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import msgspec

from core import __version__
from core.database import Connection
from core.ledger import history
from core.migrations import no_schema
from ops.backups.keeping import Keep, kept
from ops.backups.manifest import DUMP, PARTIAL, Manifest, digest_of, name_of
from ops.backups.places import Folder, sync
from ops.backups.tools import Address, find_tool, run_tool
from ops.process import PRIVATE, StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ops.backups.places import Place
    from ops.backups.progress import Progress

# A dump of a large database takes hours; no bound of the service's sessions may end it.
UNBOUNDED = {
    "application_name": "tallystick backup",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "timezone": "UTC",
    "jit": "off",
}
CONNECT_TIMEOUT_SECONDS = 10
# A migration holds locks for moments; one that waits longer than this would make the traffic wait behind it.
LOCK_WAIT = "30s"
# Schemas that a restore has set aside are no part of the books.
ASIDE = "replaced_*"


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Connection]:
    """Open one session of the owner's, without the service's bounds of time."""
    raw = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS, server_settings=UNBOUNDED)
    try:
        yield Connection(cast("Any", raw))
    finally:
        await raw.close(timeout=CONNECT_TIMEOUT_SECONDS)


async def take(url: str, place: Place, staging: Path, progress: Progress) -> Manifest:
    """Take a backup of the database at `url` into `place`, and return its manifest.

    The dump is written in `staging`, or in the place itself where that is a folder. A run that is broken off leaves no
    backup behind. Raises StartError, and Refusal `not_migrated` for a database without a schema.
    """
    folder = place if isinstance(place, Folder) else Folder(staging)
    folder.create()
    taken = (
        place.names()
    )  # a bucket that does not answer is found out before hours of work, and not after them
    began = time.monotonic()
    async with (
        session(url) as connection,
        connection.raw.transaction(isolation="repeatable_read", readonly=True),
    ):
        manifest = await _described(connection)
        if manifest.name in taken:
            raise StartError(
                f"{place.title} has a backup {manifest.name} already, which is not written over."
            )
        part = folder.path / f"{manifest.name}{DUMP}{PARTIAL}"
        try:
            # A second run within the same second finds the file and gives way.
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
        except FileExistsError:
            raise StartError(f"Another backup is being written to {part}.") from None
        try:
            picture = await _dumped(url, connection, part, manifest, progress)
            progress.stage("Reading the dump back")
            sync(part)
            size = part.stat().st_size
            manifest = msgspec.structs.replace(
                manifest,
                picture=picture,
                bytes=size,
                sha256=digest_of(part, lambda done: progress.bytes(done, size)),
                seconds=round(time.monotonic() - began, 1),
            )
            progress.stage(f"Storing it in {place.title}")
            place.keep(part, manifest, progress.bytes)
        finally:
            part.unlink(missing_ok=True)
    progress.done()
    return manifest


async def note(url: str, place: Place, manifest: Manifest) -> bool:
    """Remember in the database that the backup was finished, for `backup_age_seconds`; False where that cannot be."""
    figures = (manifest.picture.position, manifest.bytes)
    try:
        async with session(url) as connection:
            await history.note_backup(connection, place.title, manifest.name, manifest.taken_at, figures)
    except (
        asyncpg.UndefinedTableError,  # a schema of an older version
        asyncpg.ReadOnlySQLTransactionError,  # a standby
        asyncpg.InsufficientPrivilegeError,  # a login that may only read
    ):
        return False
    return True


def prune(place: Place, taken: Manifest, keep: Keep) -> list[str]:
    """Remove the backups of the database of `taken` that `keep` does not name, and return their names.

    Only whole backups count, and only they are removed: the newest whole one always stays, `taken` does even where a
    clock has put others behind it, and a damaged one is left for a person to look at. Two databases may have one name
    and one place (a stage and production): epochs that `taken` does not know tell another one's backups.
    """
    whole = {}
    for name in place.names():
        try:
            manifest = place.manifest(name)
        except StartError:
            continue
        ours = manifest.database == taken.database and manifest.epochs <= taken.epochs
        if ours and place.size(name) == manifest.bytes:
            whole[name] = manifest.taken_at
    staying = kept(whole.values(), keep)
    removed = [name for name, taken_at in whole.items() if taken_at not in staying and name != taken.name]
    for name in removed:
        place.remove(name)
    return removed


async def _described(connection: Connection) -> Manifest:
    """Return what can be said of the backup before it is there."""
    try:
        moment = await connection.fetchrow(history.SQL.moment)
        applied = await connection.fetch(history.SQL.applied)
    except asyncpg.UndefinedTableError:
        raise no_schema() from None
    if moment is None:
        raise no_schema()
    taken_at: datetime = moment["taken_at"].astimezone(UTC)
    return Manifest(
        name=name_of(moment["database"], taken_at),
        database=moment["database"],
        taken_at=taken_at,
        seconds=0,
        version=__version__,
        server_major=moment["server_major"],
        migrations={row["name"]: row["checksum"] for row in applied},
        roles=[row["name"] for row in await connection.fetch(history.SQL.roles)],
        lineage=msgspec.json.decode(await history.read_lineage(connection)),
        picture=history.Picture(position=moment["position"], digest=moment["digest"], rows={}, balances={}),
        bytes=0,
        sha256="",
    )


async def _dumped(
    url: str, connection: Connection, part: Path, manifest: Manifest, progress: Progress
) -> history.Picture:
    """Dump the connection's snapshot into `part` while its rows are counted; return the picture of it."""
    snapshot = await connection.fetchval(history.SQL.export_snapshot)
    tool = find_tool("pg_dump", manifest.server_major)
    progress.stage(f"Dumping {manifest.database} with pg_dump {tool.major}")
    tables = 0

    def on_line(line: str) -> None:
        nonlocal tables
        tables += "dumping contents of table" in line
        progress.moved(f"{tables} tables, {part.stat().st_size / 1024**2:,.0f} MiB")

    arguments = (
        "--format=custom",
        f"--file={part}",
        f"--snapshot={snapshot}",
        f"--lock-wait-timeout={LOCK_WAIT}",
        f"--exclude-schema={ASIDE}",
    )
    dump = asyncio.create_task(run_tool(tool, Address.of(url), *arguments, on_line=on_line))
    picture = asyncio.create_task(history.take_picture(connection))
    try:
        await asyncio.wait({dump, picture}, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in (dump, picture):
            if not task.done():
                task.cancel()
        await asyncio.gather(dump, picture, return_exceptions=True)
    if dump.cancelled():
        await picture  # which has failed first
    await dump
    return await picture
