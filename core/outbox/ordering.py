"""Order, for endpoints that ask for it: the events of one object go one after the other.

One delivery of an object to an endpoint is in turn at a time; a unique index holds that. The others wait. The
transaction that ends the one in turn lets the next go. All deliveries are born waiting, so that there is one way only
into the turn: `release`, which takes the waiting delivery of the oldest event, under the lock of the endpoint's row,
and not while an older event of the object has yet to be fanned out. So two fan-outs at once, in whatever order they
commit, leave the order as it was.

`Stalled` finds deliveries whose worker died between its commit and the release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core.database import queries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from core.database import Connection, Database, Row

_sql = queries(__name__)

# Objects that one look goes through; the next one goes on behind them.
LOOKED_AT: Final = 1_000

_START: Final = UUID(int=0)


class Turn(NamedTuple):
    """The turn of an object at an endpoint."""

    endpoint_id: UUID
    object_id: str


def turns_of(rows: Iterable[Row]) -> set[Turn]:
    """Return the turns that these deliveries are about; most have none."""
    return {
        Turn(row["endpoint_id"], row["ordered_object"]) for row in rows if row["ordered_object"] is not None
    }


async def lock(connection: Connection, turns: Collection[Turn]) -> None:
    """Lock the endpoints' rows, as the first act of a transaction that finishes deliveries in turn."""
    if turns:
        await connection.fetch(_sql.lock_endpoints, sorted({turn.endpoint_id for turn in turns}))


async def release_locked(connection: Connection, turns: Collection[Turn]) -> int:
    """Let the next delivery of each turn go, unless one is in turn, and return how many do. `lock` comes before."""
    if not turns:
        return 0
    released = await connection.fetch(
        _sql.release_deliveries_in_turn,
        [turn.endpoint_id for turn in turns],
        [turn.object_id for turn in turns],
    )
    return len(released)


async def release(database: Database, turns: Collection[Turn]) -> int:
    """Let the next delivery of each turn go, in a transaction of its own, and return how many do."""
    if not turns:
        return 0
    async with database.transaction() as connection:
        await lock(connection, turns)
        return await release_locked(connection, turns)


class Stalled:
    """The search for deliveries that wait though none is in turn before them, LOOKED_AT objects at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = Turn(_START, "")

    async def step(self) -> int:
        """Look at the next objects that wait, and return how many deliveries go now."""
        rows = await self._database.fetch(_sql.objects_that_wait, *self._after, LOOKED_AT)
        turns = [Turn(row["endpoint_id"], row["object_id"]) for row in rows]
        self._after = turns[-1] if len(turns) == LOOKED_AT else Turn(_START, "")
        return await release(
            self._database, [turn for turn, row in zip(turns, rows, strict=True) if row["stalled"]]
        )
