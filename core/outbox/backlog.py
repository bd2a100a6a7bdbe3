"""The endpoints with due deliveries, as one worker process knows them, and the time from which to look for more.

A claim asks for a few endpoints by name and begins behind the deliveries it took before: see `core.work.due_window`.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core.database import queries
from core.work.due_window import DueWindow

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, Mapping, Sequence
    from datetime import datetime

    from core.database import Database, Row
    from core.work.due_window import Look

_sql = queries(__name__)

# Endpoints that one look finds at most; the next one goes on.
FOUND: Final = 10_000
# A look serves the claims of this time: known work keeps a process busy meanwhile.
LOOK_SECONDS: Final = 0.01

_START: Final = UUID(int=0)


class Share(NamedTuple):
    """The share of one endpoint in a claim: the most deliveries, and the most of them that carry a batch."""

    most: int
    batches: int


@dataclass(slots=True)
class Waiting:
    """An endpoint that waits: none of its deliveries is due from before `since`."""

    since: datetime
    batch_size: int


class Backlog:
    """The endpoints that wait to be sent to, in the order of their turns."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._due_window = DueWindow()
        self._waiting: OrderedDict[UUID, Waiting] = OrderedDict()
        self._looked_at = float("-inf")
        self._cursor = _START

    def items(self) -> ItemsView[UUID, Waiting]:
        """Return the endpoints that wait, in the order of their turns."""
        return self._waiting.items()

    def __len__(self) -> int:
        """Return how many endpoints wait."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[UUID]:
        """Return the endpoints that wait."""
        return iter(self._waiting)

    def __getitem__(self, endpoint_id: UUID) -> Waiting:
        """Return one endpoint that waits."""
        return self._waiting[endpoint_id]

    @property
    def is_fresh(self) -> bool:
        """Whether the last look was just now."""
        return time.monotonic() < self._looked_at + LOOK_SECONDS

    async def look(self) -> None:
        """Find endpoints with due deliveries."""
        look = self._due_window.look()
        rows = await self._find(look)
        if not rows and (further := self._due_window.again(look)) is not None:
            look = further
            rows = await self._find(look)
        if look.seconds is None:
            self._cursor = rows[-1]["endpoint_id"] if len(rows) == FOUND else _START
        for row in rows:
            known = self._waiting.get(row["endpoint_id"])
            since = row["since"] if known is None else min(row["since"], known.since)
            self._waiting[row["endpoint_id"]] = Waiting(since, row["batch_size"])
        self._looked_at = time.monotonic()
        if look.seconds is None or len(rows) < FOUND:
            self._due_window.seen(look)

    async def _find(self, look: Look) -> list[Row]:
        if look.seconds is None:
            return await self._database.fetch(_sql.endpoints_due, self._cursor, FOUND)
        return await self._database.fetch(_sql.endpoints_due_lately, look.seconds, FOUND)

    def note(self, asked: Mapping[UUID, Share], rows: Sequence[Row]) -> None:
        """Note what a claim has found of the endpoints that it asked for."""
        found: defaultdict[UUID, list[Row]] = defaultdict(list)
        for row in rows:
            found[row["endpoint_id"]].append(row)
        for endpoint_id, share in asked.items():
            due = found[endpoint_id]
            batches = sum(row["batch_id"] is not None for row in due)
            if len(due) < share.most and batches < share.batches:
                del self._waiting[endpoint_id]
            else:
                self._waiting[endpoint_id].since = max(row["due_at"] for row in due)
                self._waiting.move_to_end(endpoint_id)
