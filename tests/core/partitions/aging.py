"""Days that go by for tables with partitions: their first partition ended long ago, and rows are of any day."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from core import ids

TABLES = {"webhook_attempts": "at", "audit_events": "id"}


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def id_at(moment: datetime) -> UUID:
    return ids.derived_uuid(str(ids.new_uuid()), moment)


async def age(owner: Any, table: str, days: int) -> None:
    """Let the partitions of `table` have begun so many days ago: only the first one is there."""
    ends = days_ago(days).replace(hour=0, minute=0, second=0, microsecond=0)
    bound = ends if table == "webhook_attempts" else ids.first_uuid_at(ends)
    await owner.execute(f"ALTER TABLE {table} DETACH PARTITION {table}_first")
    await owner.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {table}_first FOR VALUES FROM (MINVALUE) TO ('{bound}')"
    )
    await owner.execute("UPDATE partitions SET to_at = $2 WHERE name = $1", f"{table}_first", ends)


async def attempt(source: Any, days: float) -> UUID:
    """Write an attempt of so many days ago, and return the id of its delivery."""
    delivery, at = id_at(days_ago(days)), days_ago(days)
    await source.execute(
        "INSERT INTO webhook_attempts (delivery_id, at, status, latency_ms, excerpt, error)"
        " VALUES ($1, $2, 500, 7, $3, $4)",
        delivery,
        at,
        'a "quoted"\nline \\ with ünïcode',
        None,
    )
    return delivery


async def audited(source: Any, days: float) -> UUID:
    """Write an audit record of so many days ago, and return its id."""
    id_, at = id_at(days_ago(days)), days_ago(days)
    await source.execute(
        "INSERT INTO audit_events (id, type, actor, data, created_at)"
        ' VALUES ($1, \'old\', \'admin\', \'{"before": {"a": [1, null]}, "after": "\\n"}\', $2)',
        id_,
        at,
    )
    return id_


async def rows_of(owner: Any, table: str) -> set[str]:
    """Return the rows of a table, each as text."""
    await owner.execute("SET timezone = 'UTC'")
    found = await owner.fetch(f"SELECT row_to_json(t)::text AS line FROM {table} AS t")  # noqa: S608 - our names
    return {row["line"] for row in found}
