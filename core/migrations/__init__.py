"""Numbered SQL migrations: applied one at a time over all processes, each in one transaction, never changed after.

A migration never makes traffic queue behind it: its locks are taken first, all together within a moment, or given up
and tried again. docs/migrations.md says what that means for whoever writes one and for whoever runs it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from importlib import resources
from typing import TYPE_CHECKING, Final

import asyncpg

from core.errors import Refusal
from core.migrations import plan
from core.migrations.plan import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    Raw = asyncpg.Connection[asyncpg.Record]

# The lock's number may be any constant; this is "tallystick" read as a number and cut to a bigint.
ADVISORY_LOCK = 0x7461_6C6C_7973_7469
# A process that finds another one migrating polls for this long in all. A blocking lock would deadlock with
# CREATE INDEX CONCURRENTLY, which waits for every transaction that is older than itself.
LOCK_WAIT_SECONDS = 120.0
LOCK_POLL_SECONDS = 0.1
# All locks of a migration are taken within this time, or none: traffic waits behind a lock that waits. The times take
# turns, because PostgreSQL asks an autovacuum to leave a table only after `deadlock_timeout`, 1 s. All are below the
# 2 s after which a request gives up its own wait (DATABASE_LOCK_TIMEOUT_MS).
LOCK_WAITS_MS: Final = (500, 500, 1_500)
# With the pauses between them, so many tries take about two minutes; traffic catches up in each pause.
LOCK_TRIES = 60
LOCK_PAUSE_SECONDS: Final = (0.5, 2.0)
# Statements of a migration that is online and holds somebody up end within a moment. Others may read all of a table.
ONLINE_STATEMENT_MS = 5_000
STATEMENT_MS = 3_600_000
# The modes for which neither reader nor writer waits need not be taken before.
_FREE_MODES = plan.MODES[:1]

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_FUNCTIONS = """
SELECT
    p.proname AS name, format('DROP FUNCTION %s', p.oid::regprocedure) AS drop, p.ctid::text AS stored,
    pg_get_function_identity_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
FROM pg_proc AS p
WHERE p.pronamespace = current_schema()::regnamespace AND p.proname = ANY ($1::text [])
"""
# An index has no lock of its own to take, and a table may be a view by now.
_TABLES = """
SELECT w.name FROM unnest($1::text []) WITH ORDINALITY AS w (name, place)
INNER JOIN pg_class AS c ON c.oid = to_regclass(quote_ident(w.name)) AND c.relkind IN ('r', 'p')
ORDER BY w.place
"""
_BROKEN_INDEX = """
SELECT format('DROP INDEX CONCURRENTLY %I', $1::text) AS drop FROM pg_index AS i
WHERE i.indexrelid = to_regclass($1::text) AND NOT i.indisvalid
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
    return outstanding(await _applied(database_url))


async def lacking(database_url: str) -> Refusal | None:
    """Return the refusal `not_migrated` of a program that needs all of its schema; None where everything is there.

    Raises as `pending`.
    """
    applied = await _applied(database_url)
    if not applied:
        return no_schema()
    if left := outstanding(applied):
        return Refusal(
            "not_migrated",
            f"The database's schema is older than this program: {left[0]} was not applied"
            f"{f', nor {len(left) - 1} more' if left[1:] else ''}. Run `tallystick migrate` first.",
        )
    return None


def no_schema() -> Refusal:
    """Return the refusal `not_migrated` of a program whose database is empty."""
    return Refusal("not_migrated", "The database has no schema yet. Run `tallystick migrate` first.")


def outstanding(applied: dict[str, str]) -> list[str]:
    """Return the files that are not among `applied` (name: checksum), or in another version. Raises as `pending`.

    Where a later version has migrated, its version of a function is the right one, and is not outstanding.
    """
    if changed := _altered(applied):
        raise Refusal(
            "migration_changed",
            f"{', '.join(changed)} was applied and reads differently now. Add a new one instead.",
        )
    files = migration_files()
    # The functions of a later version serve its schema. Ours would undo what they mend, as a prune that knows of no
    # partitions would; and an old process that starts anew while the new version is rolled out would never be ready.
    theirs = applied.keys() if _is_later(applied, files) else frozenset[str]()
    return [
        name
        for name, text in files.items()
        if applied.get(name) != _checksum(text) and not (name in theirs and name.startswith("functions/"))
    ]


def _is_later(applied: dict[str, str], files: dict[str, str]) -> bool:
    """Whether a migration behind all of ours was applied. Migrations are never taken away, as functions may be."""
    newest = max((name for name in files if name.startswith("migrations/")), default="")
    return any(name.startswith("migrations/") and name > newest for name in applied)


async def altered(database_url: str) -> list[str]:
    """Return the migrations that were applied and read differently now."""
    return _altered(await _applied(database_url))


async def unknown(database_url: str) -> list[str]:
    """Return the applied files that this code does not have, because a later version applied them."""
    return sorted((await _applied(database_url)).keys() - migration_files().keys())


async def planned(database_url: str) -> list[Step]:
    """Return what `migrate` would do, file by file; nothing is written. Raises Refusal on a changed migration."""
    connection = await _connect(database_url)
    try:
        files = migration_files()
        steps = []
        for name in outstanding(await _applied_of(connection)):
            text = files[name]
            names = plan.function_names(text)
            if name.startswith("functions/"):
                there = [
                    (row["name"], row["arguments"], row["result"])
                    for row in await connection.fetch(_FUNCTIONS, names)
                ]
                said = plan.online_functions(text, there)
            else:
                said = plan.online(name, text)
            steps.append(Step(name, said, plan.locks(text), names))
        return steps
    finally:
        await connection.close()


async def migrate(
    database_url: str,
    *,
    on_progress: Callable[[str], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    online_only: bool = False,
) -> list[str]:
    """Apply the outstanding files and return their names. Safe to run from many processes at once.

    `on_wait` is told each time that a file gives way to the traffic. With `online_only` the first migration that is not
    online, and everything after it, stays outstanding.

    Raises Refusal `migration_changed` when a migration that was applied reads differently now, `migration_locked` when
    another process holds the lock for more than two minutes, `migration_busy` when a table stays in use as long, and
    `migration_unfit` when rows do not fit.
    """
    connection = await _connect(database_url)
    try:
        await _take_lock(connection)
        await connection.execute(_BOOKKEEPING)
        applied = []
        files = migration_files()
        for name in outstanding(await _applied_of(connection)):
            text = files[name]
            is_function = name.startswith("functions/")
            if online_only and not is_function and not plan.online(name, text).yes:
                break
            if on_progress is not None:
                on_progress(name)
            if plan.is_concurrent(text):
                await _build_index(connection, name, text)
            else:
                try:
                    await _apply_in_turn(connection, name, text, on_wait)
                except asyncpg.IntegrityConstraintViolationError as error:
                    raise Refusal(
                        "migration_unfit",
                        f"{name} was not applied, since rows that are there do not fit it: {error}."
                        ' docs/migrations.md says what to do, under "Rows that do not fit".',
                    ) from error
            applied.append(name)
        return applied
    finally:
        await connection.close()  # which gives the advisory lock back


async def _apply_in_turn(
    connection: Raw, name: str, text: str, on_wait: Callable[[str], None] | None
) -> None:
    for attempt in range(LOCK_TRIES):
        try:
            async with connection.transaction():
                await _take_table_locks(connection, text, LOCK_WAITS_MS[attempt % len(LOCK_WAITS_MS)])
                await _apply(connection, name, text)
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            # Everything is rolled back, and whoever waited behind us goes on.
            if on_wait is not None:
                on_wait(name)
        await asyncio.sleep(random.uniform(*LOCK_PAUSE_SECONDS))  # noqa: S311 - spreads load
    raise Refusal(
        "migration_busy",
        f"{name} has given way to the traffic {LOCK_TRIES} times: somebody keeps a table of it. Look at"
        " pg_stat_activity for long transactions, and run it again.",
    )


async def _take_table_locks(connection: Raw, text: str, within_ms: int) -> None:
    """Take the locks of a file in one statement, so that one time bounds them all. Raises LockNotAvailableError."""
    await connection.execute(f"SET LOCAL lock_timeout = {within_ms}")
    modes = {table: mode for table, mode in plan.locks(text).items() if mode not in _FREE_MODES}
    there = await connection.fetch(_TABLES, list(modes))
    wanted = [f"LOCK TABLE {row['name']} IN {modes[row['name']]} MODE;" for row in there]
    if wanted:
        await connection.execute(f"SET LOCAL statement_timeout = {within_ms}")
        try:
            await connection.execute(f"DO $$ BEGIN {' '.join(wanted)} END $$")
        except asyncpg.QueryCanceledError as error:
            raise asyncpg.LockNotAvailableError(str(error)) from error


async def _apply(connection: Raw, name: str, text: str) -> None:
    """Run a file within the transaction that has its locks, and write it into the book."""
    is_function = name.startswith("functions/")
    brief = is_function or (plan.online(name, text).yes and not plan.is_gentle(text))
    await connection.execute(
        f"SET LOCAL statement_timeout = {ONLINE_STATEMENT_MS if brief else STATEMENT_MS}"
    )
    if is_function:
        await _replace_functions(connection, text)
    else:
        await connection.execute(text)
    await connection.execute(_RECORD, name, _checksum(text))


async def _build_index(connection: Raw, name: str, text: str) -> None:
    """Build an index beside the traffic, which PostgreSQL does outside of transactions.

    A build that was cut off has left an index that nobody uses, and that has to go before the next one.
    """
    await connection.execute("SET lock_timeout = 0; SET statement_timeout = 0")
    for row in await connection.fetch(_BROKEN_INDEX, plan.concurrent_index(text)):
        await connection.execute(row["drop"])
    await connection.execute(text)
    await connection.execute(_RECORD, name, _checksum(text))


async def _replace_functions(connection: Raw, text: str) -> None:
    """Create the functions of a file. Versions with other parameters or another result go: they would stay beside it.

    A function that keeps both is replaced in place: a session that has just planned a call of it finds it again. One
    that was dropped would be gone for that session.
    """
    names = plan.function_names(text)
    before = {(row["drop"], row["stored"]) for row in await connection.fetch(_FUNCTIONS, names)}
    try:
        async with connection.transaction():
            await connection.execute(text)
    except (asyncpg.InvalidFunctionDefinitionError, asyncpg.AmbiguousFunctionError):
        for statement, _ in sorted(before):
            await connection.execute(statement)
        await connection.execute(text)
        return
    for row in await connection.fetch(_FUNCTIONS, names):
        if (row["drop"], row["stored"]) in before:
            await connection.execute(row["drop"])


async def _connect(database_url: str) -> Raw:
    # Nothing is prepared under a name: /ready asks through the pooler what is pending.
    return await asyncpg.connect(database_url, timeout=5, statement_cache_size=0)


async def _applied(database_url: str) -> dict[str, str]:
    """Return the checksum of each applied file."""
    connection = await _connect(database_url)
    try:
        return await _applied_of(connection)
    finally:
        await connection.close()


async def _applied_of(connection: Raw) -> dict[str, str]:
    known = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
    rows = await connection.fetch("SELECT name, checksum FROM schema_migrations") if known else []
    return {row["name"]: row["checksum"] for row in rows}


async def _take_lock(connection: Raw) -> None:
    for _ in range(int(LOCK_WAIT_SECONDS / LOCK_POLL_SECONDS)):
        if await connection.fetchval("SELECT pg_try_advisory_lock($1)", ADVISORY_LOCK):
            return
        await asyncio.sleep(LOCK_POLL_SECONDS)
    raise Refusal("migration_locked", "Another process has been migrating this database for two minutes.")


def _altered(applied: dict[str, str]) -> list[str]:
    return [
        name
        for name, text in migration_files().items()
        if name.startswith("migrations/") and applied.get(name) not in (None, _checksum(text))
    ]


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
