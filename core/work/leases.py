"""Leases: a worker proves by its heartbeat that it lives; rows that a dead one held are free within seconds.

A lease is a hint and not a lock: a worker may be slow rather than dead. The token makes it safe: every claim has a new
one, and a worker that finishes a row presents it in the same transaction as the effect.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from core import ids
from core.database import queries

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Database

_sql = queries(__name__)

HEARTBEAT_SECONDS: Final = 1.0
# Five missed heartbeats: a pause of the garbage collector or of the database is shorter, a person's patience longer.
DEAD_AFTER_SECONDS: Final = 5.0
# Rows of workers that died are kept for people to see, then removed.
PRUNE_AFTER_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Worker:
    """This process as the holder of leases. `name` says for people where it runs."""

    id: UUID = field(default_factory=ids.new_uuid)
    name: str = field(default_factory=lambda: f"{socket.gethostname()[:150]}:{os.getpid()}")

    async def beat(self, database: Database) -> None:
        """Record that this worker lives; the worker does so every HEARTBEAT_SECONDS."""
        await database.execute(_sql.beat, self.id, self.name)

    async def retire(self, database: Database) -> None:
        """Record that this worker is gone: rows that it still holds are free at once."""
        await database.execute(_sql.retire_worker, self.id)


async def prune_workers(database: Database) -> int:
    """Remove workers that were not seen for an hour; return how many."""
    return await database.execute(_sql.prune_workers, PRUNE_AFTER_SECONDS)
