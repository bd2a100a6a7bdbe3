"""Numbered SQL migrations: applied one at a time over all processes, each in one transaction, never changed after."""

from __future__ import annotations

import asyncio
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING

import asyncpg

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

# The lock's number may be any constant; this is "tallystick" read as a number and cut to a bigint.
ADVISORY_LOCK = 0x7461_6C6C_7973_7469
# A process that finds another one migrating polls for this long in all. A blocking lock would deadlock with
# CREATE INDEX CONCURRENTLY, which waits for every transaction that is older than itself.
LOCK_WAIT_SECONDS = 120.0
LOCK_POLL_SECONDS = 0.1
# A migration that gets no lock within this time gives way to the traffic, and is run again by hand.
LOCK_TIMEOUT = "5s"

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_OVERLOADS = """
SELECT format('DROP FUNCTION %s', p.oid::regprocedure) AS statement
FROM pg_proc AS p
WHERE p.pronamespace = current_schema()::regnamespace AND p.proname = ANY ($1::text [])
"""
_RECORD = """
INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, applied_at = clock_timestamp()
"""


def migration_files() -> dict[str, str]:
    """Return every file in the order of its application: the numbered migrations, then the functions.

    Functions are written `CREATE OR REPLACE` and applied again whenever their text has changed, so that a diff of a
    function reads like a diff.
    """
    root = resources.files("sql")
    found = {}
    for folder in ("migrations", "functions"):
        files = sorted(root.joinpath(folder).iterdir(), key=lambda file: file.name)
        found.update(
            {f"{folder}/{file.name}": file.read_text() for file in files if file.name.endswith(".sql")}
        )
    return found


async def pending(database_url: str) -> list[str]:
    """Return the files that are not applied, or in another version. Raises Refusal on a changed migration."""
    return _outstanding(await _applied(database_url))


def outstanding(applied: dict[str, str]) -> list[str]:
    """Return the files that are not among `applied` (name: checksum), or in another version. Raises as `pending`."""
    return _outstanding(applied)


async def unknown(database_url: str) -> list[str]:
    """Return the applied files that this code does not have, because a later version applied them."""
    return sorted((await _applied(database_url)).keys() - migration_files().keys())


async def migrate(database_url: str, *, on_progress: Callable[[str], None] | None = None) -> list[str]:
    """Apply the outstanding files and return their names. Safe to run from many processes at once.

    Raises Refusal `migration_changed` when a migration that was applied reads differently now, and
    `migration_locked` when another process holds the lock for more than two minutes.
    """
    connection = await asyncpg.connect(
        database_url, timeout=5, server_settings={"lock_timeout": LOCK_TIMEOUT}
    )
    try:
        await _take_lock(connection)
        await connection.execute(_BOOKKEEPING)
        rows = await connection.fetch("SELECT name, checksum FROM schema_migrations")
        applied = []
        files = migration_files()
        for name in _outstanding({row["name"]: row["checksum"] for row in rows}):
            if on_progress is not None:
                on_progress(name)
            async with connection.transaction():
                if name.startswith("functions/"):
                    await _drop_functions(connection, files[name])
                await connection.execute(files[name])
                await connection.execute(_RECORD, name, _checksum(files[name]))
            applied.append(name)
        return applied
    finally:
        await connection.close()  # which gives the advisory lock back


async def _applied(database_url: str) -> dict[str, str]:
    """Return the checksum of each applied file."""
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        known = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
        rows = await connection.fetch("SELECT name, checksum FROM schema_migrations") if known else []
    finally:
        await connection.close()
    return {row["name"]: row["checksum"] for row in rows}


async def _take_lock(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    for _ in range(int(LOCK_WAIT_SECONDS / LOCK_POLL_SECONDS)):
        if await connection.fetchval("SELECT pg_try_advisory_lock($1)", ADVISORY_LOCK):
            return
        await asyncio.sleep(LOCK_POLL_SECONDS)
    raise Refusal("migration_locked", "Another process has been migrating this database for two minutes.")


async def _drop_functions(connection: asyncpg.Connection[asyncpg.Record], text: str) -> None:
    """Drop the functions that the file creates, since a version with other parameters would stay beside the new one."""
    names = re.findall(r"^CREATE OR REPLACE FUNCTION (\w+)", text, flags=re.MULTILINE)
    for row in await connection.fetch(_OVERLOADS, names):
        await connection.execute(row["statement"])


def _outstanding(applied: dict[str, str]) -> list[str]:
    names = []
    for name, text in migration_files().items():
        known = applied.get(name)
        if known == _checksum(text):
            continue
        if known is not None and name.startswith("migrations/"):
            raise Refusal(
                "migration_changed", f"{name} was applied and reads differently now. Add a new one instead."
            )
        names.append(name)
    return names


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
