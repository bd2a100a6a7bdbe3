"""The gauges of partitions. A worker sets them; alarms are documented in docs/retention.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.database import queries
from core.metrics import level

if TYPE_CHECKING:
    from core.database import Database

_sql = queries(__name__)

AHEAD = level("partition_ahead_seconds", "For how long the partitions last that were made ahead", ("table",))
STRAYS = level(
    "partition_stray_rows",
    "Rows that came when there was no partition for their time, up to 1,000",
    ("table",),
)
DETACHED = level(
    "partition_detached", "Partitions that were taken off and wait to be archived and dropped", ("table",)
)


async def measure(database: Database) -> None:
    """Set the gauges."""
    for row in await database.fetch(_sql.partition_state):
        AHEAD.labels(row["parent"]).set(row["ahead_seconds"])
        STRAYS.labels(row["parent"]).set(row["stray_rows"])
        DETACHED.labels(row["parent"]).set(row["detached"])
