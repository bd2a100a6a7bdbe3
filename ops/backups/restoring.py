"""A backup is restored: into an empty database, compared with its manifest, verified, and given a new epoch at the end.

Until that end the database has no epoch, so that no process of the service opens a half of one.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import msgspec

from core import migrations
from core.database import SERVING_ROLE, open_database
from core.errors import Refusal
from core.ledger import history
from core.ledger.verify import verify
from core.settings import mask_url
from ops.backups.manifest import check_dump
from ops.backups.taking import session
from ops.backups.tools import Address, find_tool, run_tool
from ops.process import StartError

if TYPE_CHECKING:
    from pathlib import Path

    from core.database import Connection
    from core.ledger.history import Epoch
    from core.ledger.verify import Finding
    from core.ledger.verify import Progress as Verified
    from core.settings import Settings
    from ops.backups.manifest import Manifest
    from ops.backups.places import Place
    from ops.backups.progress import Progress
    from ops.backups.tools import Tool

# The line of the dump's contents that names the rows of `epochs`.
EPOCHS = re.compile(r"^\d+; \d+ \d+ TABLE DATA \S+ epochs ", re.MULTILINE)
NEVER_LATE_SECONDS = 100 * 366 * 86_400.0


class Restored(NamedTuple):
    """The end of a restore. With `findings` there is no epoch, so that nobody uses the database."""

    epoch: Epoch | None
    findings: list[Finding]
    aside: str
    migrated: list[str]


class Options(NamedTuple):
    """The wishes of a person: so many jobs at once, and whether a schema that is there is set aside."""

    jobs: int
    replace: bool
    staging: Path


async def restore(
    settings: Settings, place: Place, name: str, options: Options, progress: Progress
) -> Restored:
    """Restore a backup into the database of `settings`, verify it, and begin a new epoch.

    Raises StartError for a backup that is damaged or does not fit this version or this server, and for a database that
    is in use or not empty. Nothing has been changed then.
    """
    url = settings.database_url
    manifest = place.manifest(name)
    _check_version(manifest)
    async with session(url) as connection:
        await _check_target(connection, manifest, options)
    progress.stage(f"Checking {name} of {place.title}")
    with place.fetched(name, options.staging, progress.bytes) as dump:
        if not dump.exists():
            raise StartError(f"The dump of backup {name} is gone from {place.title}.")
        check_dump(manifest, dump, lambda done: progress.bytes(done, manifest.bytes))
        async with session(url) as connection:
            major = await _check_target(connection, manifest, options)
            aside = await _prepare(connection, manifest, options)
        await _load(find_tool("pg_restore", major), url, dump, options, progress)
    progress.stage("Comparing it with what was backed up")
    async with session(url) as connection:
        await _compare(connection, manifest)
    migrated = await migrations.migrate(url, on_progress=lambda file: progress.stage(f"Applying {file}"))
    findings = await _verified(settings, progress)
    epoch = None if findings else await _begin(url, manifest)
    progress.done()
    return Restored(epoch, findings, aside, migrated)


async def recovered(settings: Settings, reason: str, progress: Progress) -> Restored:
    """Verify a database that PostgreSQL itself has recovered to an earlier moment, and begin a new epoch in it.

    Raises Refusal `database_in_use` while the service is connected.
    """
    url = settings.database_url
    async with session(url) as connection:
        await history.expect_alone(connection)
    findings = await _verified(settings, progress)
    if findings:
        return Restored(None, findings, "", [])
    async with session(url) as connection, connection.raw.transaction():
        return Restored(await history.begin_epoch(connection, reason), [], "", [])


def _check_version(manifest: Manifest) -> None:
    known = migrations.migration_files()
    unknown = [name for name in manifest.migrations if name.startswith("migrations/") and name not in known]
    if unknown:
        raise StartError(
            f"Backup {manifest.name} was taken by a later version ({manifest.version}): this one does not know"
            f" {unknown[0]}. Restore it with that version or a newer one."
        )


async def _check_target(connection: Connection, manifest: Manifest, options: Options) -> int:
    """Raise StartError unless the backup may be restored into this database; return the server's major version."""
    major: int = await connection.raw.fetchval("SHOW server_version_num")
    major = int(major) // 10_000
    if major < manifest.server_major:
        raise StartError(
            f"Backup {manifest.name} is of PostgreSQL {manifest.server_major}, and this server is {major}. A dump"
            " cannot be restored into an older server."
        )
    if others := await history.strangers(connection):
        raise StartError(
            f"{others} other sessions are connected to the database. Stop what uses it first: a service that runs"
            " would read a half of it."
        )
    if not options.replace and await connection.fetchval(history.SQL.holds_anything):
        raise StartError(
            "The database is not empty. Restore into a new one (`createdb`), or say --replace: what is there is then"
            " set aside in a schema of another name, and nothing of it is deleted."
        )
    missing = [
        row["name"]
        for row in await connection.fetch(history.SQL.missing_roles, manifest.roles)
        if row["name"] != SERVING_ROLE
    ]
    if missing:
        raise StartError(
            f"The backup gives rights to roles that this server does not have: {', '.join(missing)}. Create them first"
            f" (CREATE ROLE {missing[0]})."
        )
    return major


async def _prepare(connection: Connection, manifest: Manifest, options: Options) -> str:
    """Make room and the serving role; return the name under which a schema was set aside, or an empty text."""
    aside = ""
    async with connection.raw.transaction():
        if await connection.fetch(history.SQL.missing_roles, [SERVING_ROLE]):
            await connection.execute(history.SQL.serving_role)
        if not await connection.fetchval(history.SQL.may_serve):
            await connection.execute(history.SQL.serve_as)
        if options.replace and await connection.fetchval(history.SQL.holds_anything):
            row = await connection.fetchrow(history.SQL.aside)
            if row is None:
                raise RuntimeError(manifest.name)
            await connection.raw.execute(row["statement"])
            await connection.execute(history.SQL.fresh_schema)
            await connection.execute(history.SQL.open_schema)
            aside = row["name"]
    return aside


async def _load(tool: Tool, url: str, dump: Path, options: Options, progress: Progress) -> None:
    """Load everything but the rows of `epochs`, without which no process of the service opens the database."""
    command = [str(tool.path), "--list", str(dump)]
    listed = await asyncio.to_thread(
        lambda: subprocess.run(command, check=False, capture_output=True, text=True)
    )
    contents, without = EPOCHS.subn(lambda found: f";{found[0]}", listed.stdout)
    if listed.returncode != 0 or without != 1:
        raise StartError(f"{dump} is no dump of a ledger: {listed.stderr.strip() or 'it has no epochs'}.")
    options.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = options.staging / f"{dump.name}.contents"
    wanted.write_text(contents)
    items = sum(1 for line in contents.splitlines() if line and not line.startswith(";"))
    progress.stage(f"Restoring {items:,} items with pg_restore {tool.major} in {options.jobs} jobs")
    done = 0

    def on_line(line: str) -> None:
        nonlocal done
        done += any(word in line for word in (": creating ", ": processing data for ", ": executing "))
        progress.moved(f"{min(done, items):,} of {items:,} items")

    arguments = ("--no-owner", "--exit-on-error", f"--jobs={options.jobs}", f"--use-list={wanted}", str(dump))
    try:
        await run_tool(tool, Address.of(url), *arguments, on_line=on_line)
    finally:
        wanted.unlink(missing_ok=True)


async def _compare(connection: Connection, manifest: Manifest) -> None:
    """Raise StartError unless the database holds what the manifest tells. Its statistics are made on the way."""
    await connection.execute(history.SQL.analyze)
    async with connection.raw.transaction(isolation="repeatable_read", readonly=True):
        found = await history.take_picture(connection)
    found.rows["epochs"] = len(manifest.lineage)  # they come at the end
    if told := history.differences(manifest.picture, found):
        raise StartError("The restored database is not what was backed up.\n" + "\n".join(told))


async def _verified(settings: Settings, progress: Progress) -> list[Finding]:
    progress.stage("Verifying the ledger")

    def on_progress(verified: Verified) -> None:
        progress.moved(f"{verified.stage}: {verified.done:,} of {verified.total:,}")

    database = await open_database(settings, size=2)
    try:
        # Nobody has sealed batches since the backup; the age of one that waits says nothing here.
        return await verify(database, on_progress=on_progress, late_after_seconds=NEVER_LATE_SECONDS)
    finally:
        await database.close()


async def _begin(url: str, manifest: Manifest) -> Epoch:
    """Give the database its epochs and a new one. This is the step that makes it usable."""
    lineage = msgspec.json.encode(manifest.lineage).decode()
    async with session(url) as connection, connection.raw.transaction():
        return await history.begin_epoch(connection, f"restored from {manifest.name}", lineage)


def explain(error: Exception, url: str) -> Exception:
    """Return the error that a person reads when the owner's login may not do what a restore needs."""
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return Refusal(
            "not_the_owner",
            f"The login of {mask_url(url)} may not do this ({error}). A restore needs the database's owner.",
        )
    return error
