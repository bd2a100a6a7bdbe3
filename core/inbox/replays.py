"""Replays: many dead letters are put back at a bounded rate, so that a cured fault does not become an avalanche.

A replay is a row with a cursor. A worker moves one second's share of letters and the cursor in one transaction. So any
worker can go on where the last one stopped, and no letter is put back twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
import structlog

from core import ids, metrics
from core.database import queries
from core.errors import Refusal
from core.inbox import dead_letters

if TYPE_CHECKING:
    from core.database import Database
    from core.inbox.dead_letters import Filter

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# This rate, in letters a second, is well below one worker's, so that fresh events are hardly slowed down.
DEFAULT_PER_SECOND: Final = 50
MAX_PER_SECOND: Final = 1_000
# `matched` counts no further; a replay of more letters puts them all back.
MAX_COUNTED: Final = 1_000_000


class LetterReplay(msgspec.Struct, frozen=True, kw_only=True):
    """A replay with its filter and progress: so far `replayed` of the `matched` letters that it began with."""

    id: UUID
    state: str
    provider: str | None
    type: str | None
    reason: str | None
    received_from: datetime | None
    received_before: datetime | None
    actor: str
    per_second: int
    matched: int
    replayed: int
    created_at: datetime
    finished_at: datetime | None


async def start(database: Database, wanted: Filter, *, actor: str, per_second: int) -> LetterReplay:
    """Begin a replay of the letters that are dead now and that `wanted` chooses; a worker puts them back."""
    matched = await dead_letters.count(database, wanted, most=MAX_COUNTED)
    row = await database.fetchrow(
        _sql.start_replay,
        ids.new_uuid(),
        wanted.provider,
        wanted.event_type,
        wanted.reason,
        wanted.received_from,
        wanted.received_before,
        actor,
        per_second,
        matched,
    )
    if row is None:
        raise RuntimeError("an insert returned no row")
    replay = LetterReplay(**row)
    log.info("inbox.replay_started", replay_id=str(replay.id), matched=matched, actor=actor)
    return replay


async def find(database: Database, replay_id: UUID) -> LetterReplay:
    """Return a replay; raise Refusal `not_found`."""
    row = await database.fetchrow(_sql.find_replay, replay_id)
    if row is None:
        raise Refusal("not_found", f"There is no replay {replay_id}.")
    return LetterReplay(**row)


async def list_page(database: Database, *, before: UUID, limit: int) -> list[LetterReplay]:
    """Return up to `limit` replays with ids below `before`, the newest first."""
    return [LetterReplay(**row) for row in await database.fetch(_sql.list_replays, before, limit)]


async def stop(database: Database, replay_id: UUID) -> LetterReplay:
    """Stop a replay where it is; one that has ended stays as it is. Raises Refusal `not_found`."""
    await database.execute(_sql.stop_replay, replay_id)
    return await find(database, replay_id)


async def step(database: Database) -> int:
    """Put back one second's share of the longest due replay; return the number of letters, plus one at its end."""
    async with database.transaction() as connection:
        replay = await connection.fetchrow(_sql.take_due_replay)
        if replay is None:
            return 0
        rows = await connection.fetch(
            _sql.next_letters_of_replay,
            replay["provider"],
            replay["event_type"],
            replay["reason"],
            replay["received_from"],
            replay["received_before"],
            replay["created_at"],
            replay["last_id"],
            replay["per_second"],
        )
        letters = [row["id"] for row in rows]
        moved = await connection.execute(_sql.replay_dead_letters, letters, replay["id"], replay["actor"])
        done: bool = len(letters) < replay["per_second"]
        last = letters[-1] if letters else replay["last_id"]
        await connection.execute(_sql.advance_replay, replay["id"], moved, last, done)
    if moved:
        metrics.DLQ_MESSAGES.add("retried", by=moved)
    log.info("inbox.replay_step", replay_id=str(replay["id"]), replayed=moved, done=done)
    return moved + done
