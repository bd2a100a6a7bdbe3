"""The sizes of all tables with their indexes, and what one event adds to them."""

from collections.abc import Mapping

import msgspec

from loadtests.bench.subject import Connection

# A table's partitions count as the table.
SIZES = """
    SELECT
        whole.relname,
        sum(
            pg_table_size(c.oid) - coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0)
        )::bigint AS heap,
        sum(coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0))::bigint AS toast,
        sum(pg_indexes_size(c.oid))::bigint AS indexes
    FROM pg_class AS c
    LEFT JOIN pg_inherits AS part ON part.inhrelid = c.oid
    JOIN pg_class AS whole ON whole.oid = coalesce(part.inhparent, c.oid)
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    GROUP BY whole.relname
"""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of one table: its rows, what is too long for them, its indexes."""

    heap: float
    toast: float
    indexes: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.heap + self.toast + self.indexes


class EventBytes(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes that each of `events` has left in all tables, from its arrival to the record of its delivery."""

    events: int
    bytes_per_event: float
    by_table: dict[str, Size]


async def sizes(connection: Connection) -> dict[str, Size]:
    """The sizes of all tables, empty pages included."""
    return {
        row["relname"]: Size(heap=row["heap"], toast=row["toast"], indexes=row["indexes"])
        for row in await connection.fetch(SIZES)
    }


def bytes_per_event(before: Mapping[str, Size], after: Mapping[str, Size], events: int) -> EventBytes:
    """The growth by so many events, where there was any."""
    nothing = Size(heap=0, toast=0, indexes=0)
    grown = {
        name: Size(
            heap=(size.heap - old.heap) / events,
            toast=(size.toast - old.toast) / events,
            indexes=(size.indexes - old.indexes) / events,
        )
        for name, size in after.items()
        if (old := before.get(name, nothing)) != size
    }
    total = sum(size.total for size in grown.values())
    return EventBytes(events=events, bytes_per_event=round(total, 1), by_table=grown)
