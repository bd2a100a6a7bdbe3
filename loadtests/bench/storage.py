"""Bytes a transfer, and how many of the updates on accounts were HOT."""

import msgspec

from loadtests.bench.measures import BASE, STORAGE
from loadtests.bench.meter import Meter
from loadtests.bench.stand import STOP_SECONDS, Stand, StandError, wait_until
from loadtests.bench.subject import Connection

SIZES = """
    SELECT
        whole.relname, sum(pg_table_size(c.oid))::bigint AS table_bytes,
        sum(pg_indexes_size(c.oid))::bigint AS index_bytes
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_inherits AS part ON part.inhrelid = c.oid
    JOIN pg_class AS whole ON whole.oid = coalesce(part.inhparent, c.oid)
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    GROUP BY whole.relname
"""
UPDATES = "SELECT coalesce(sum(n_tup_upd), 0) AS updates, coalesce(sum(n_tup_hot_upd), 0) AS hot"
ACCOUNT_UPDATES = f"{UPDATES} FROM pg_stat_user_tables WHERE relname = 'accounts'"
#: A session that ends hands in its statistics before it leaves this view.
OTHER_SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """The growth of one relation, in bytes a transfer."""

    table: float
    indexes: float


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """The growth of the database by `transfers` two-leg transfers over HTTP."""

    transfers: int
    bytes_per_transfer: float | None
    by_relation: dict[str, Growth]
    account_updates: int
    hot_update_share: float | None


async def storage(stand: Stand, meter: Meter) -> Storage:
    """Posts single transfers over HTTP on a fresh copy and measures what all tables and indexes grew by."""
    plan = stand.plan
    url = await stand.create_database(STORAGE, BASE)
    connections = min(plan.connections)
    async with stand.connect(STORAGE) as connection:
        # Statistics are not copied with a database, so they start at nothing.
        sizes, counts = await _sizes(connection), await stand.subject.books(url)
        async with stand.api(STORAGE) as api:
            await meter.http(
                f"storage.single@{connections}",
                api.single(),
                api,
                connections=connections,
                seconds=plan.storage_seconds,
            )
            # Numbering and sealing what was posted is a part of its cost.
            await stand.wait_settled(STORAGE)
        grown, posted = await _sizes(connection), await stand.subject.books(url)
        updates, hot = await _account_updates(connection)
    transfers = posted.transfers - counts.transfers
    by_relation = (
        {
            name: Growth(table=(table - before[0]) / transfers, indexes=(indexes - before[1]) / transfers)
            for name, (table, indexes) in grown.items()
            if (table, indexes) != (before := sizes.get(name, (0, 0)))
        }
        if transfers
        else {}
    )
    return Storage(
        transfers=transfers,
        bytes_per_transfer=sum(growth.table + growth.indexes for growth in by_relation.values())
        if transfers
        else None,
        by_relation=by_relation,
        account_updates=updates,
        hot_update_share=hot / updates if updates else None,
    )


async def _sizes(connection: Connection) -> dict[str, tuple[int, int]]:
    return {row["relname"]: (row["table_bytes"], row["index_bytes"]) for row in await connection.fetch(SIZES)}


async def _account_updates(connection: Connection) -> tuple[int, int]:
    """All updates on accounts and the HOT ones, once the sessions that made them have ended."""

    async def alone() -> bool:
        return not await connection.fetchval(OTHER_SESSIONS)

    if not await wait_until(alone, STOP_SECONDS):
        raise StandError("a session on the database that storage was measured on did not end")
    row = await connection.fetchrow(ACCOUNT_UPDATES)
    return (int(row["updates"]), int(row["hot"])) if row else (0, 0)
