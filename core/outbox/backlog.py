"""Which endpoints have something due, as one worker process knows it, and from when on to look for it.

Kept so that a claim asks for a few endpoints by name and begins behind what it took before: see `core.horizon`.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Final
from uuid import UUID

from core.database import statements
from core.horizon import Horizon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from core.database import Database, Row

_sql = statements("outbox")

# Endpoints that one look finds at most; the next one goes on.
FOUND: Final = 10_000
# A look serves the claims of so long: work that is known keeps a process busy meanwhile.
LOOK_SECONDS: Final = 0.01

_START: Final = UUID(int=0)


class Backlog:
    """The endpoints that wait, in the order of their turns."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._horizon = Horizon()
        self._since: OrderedDict[UUID, datetime] = OrderedDict()
        self._looked_at = float("-inf")
        self._cursor = _START

    def __iter__(self) -> Iterator[UUID]:
        """Go through those that wait, whose turn it is first."""
        return iter(self._since)

    def since(self, endpoint_id: UUID) -> datetime:
        """Return the time before which nothing of this endpoint is due."""
        return self._since[endpoint_id]

    @property
    def is_fresh(self) -> bool:
        """Whether the last look was just now."""
        return time.monotonic() < self._looked_at + LOOK_SECONDS

    async def look(self) -> None:
        """Find who has something due."""
        look = self._horizon.look()
        if look.seconds is None:
            rows = await self._database.fetch(_sql.endpoints_due, self._cursor, FOUND)
            self._cursor = rows[-1]["endpoint_id"] if len(rows) == FOUND else _START
        else:
            rows = await self._database.fetch(_sql.endpoints_due_lately, look.seconds, FOUND)
        for row in rows:
            endpoint_id, since = row["endpoint_id"], row["since"]
            self._since[endpoint_id] = min(since, self._since.get(endpoint_id, since))
        self._looked_at = time.monotonic()
        if look.seconds is None or len(rows) < FOUND:
            self._horizon.seen(look)

    def note(self, asked: Mapping[UUID, int], rows: Sequence[Row]) -> None:
        """Note what a claim has found of those that it asked for, so many deliveries of each at most."""
        due: defaultdict[UUID, list[datetime]] = defaultdict(list)
        for row in rows:
            due[row["endpoint_id"]].append(row["due_at"])
        for endpoint_id, most in asked.items():
            if len(due[endpoint_id]) < most:
                del self._since[endpoint_id]
            else:
                self._since[endpoint_id] = max(due[endpoint_id])
                self._since.move_to_end(endpoint_id)
