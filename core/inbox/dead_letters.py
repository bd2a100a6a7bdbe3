"""Dead letters: events that were given up, and wait for a person to look at, replay or discard them.

A dead letter stays in the inbox (state `dead`), so that nothing can be lost between two places. It does not hold up the
other events of its object.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
import structlog
from redis.exceptions import RedisError

from core import metrics
from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from core.database import Database, Row

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# This id is above every id that can be made; a list of the newest begins here.
NEWEST: Final = UUID(int=2**128 - 1)
# The stream keeps about so many entries. A reader that is further behind asks PostgreSQL.
STREAM_LENGTH: Final = 10_000
# One letter shows at most so many failures, and so many actions of people, the newest first.
SHOWN_NOTES: Final = 100


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A choice of dead letters; None: any. `reason` is the code of the last failure; `received_from` is included."""

    provider: str | None = None
    event_type: str | None = None
    reason: str | None = None
    received_from: datetime | None = None
    received_before: datetime | None = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was given up. `reason` is a code; `replays` counts how often a person had the letter put back."""

    id: UUID
    provider: str
    event_id: str
    type: str
    object_id: str | None
    reason: str
    last_error: str | None
    attempts: int
    replays: int
    received_at: datetime
    dead_at: datetime


class FailedAttempt(msgspec.Struct, frozen=True):
    """A failed attempt to apply an event; `code` is the reason, `error` its sentence."""

    attempt: int
    failed_at: datetime
    code: str
    error: str
    worker: UUID | None


class Action(msgspec.Struct, frozen=True):
    """One thing that a person did with a letter: `action` is `replayed` or `discarded`."""

    action: str
    done_at: datetime
    actor: str
    reason: str | None
    replay: UUID | None


class Letter(DeadLetter, frozen=True, kw_only=True):
    """A letter with its body, failures and actions. Bytes of `payload` that are not UTF-8 are escaped."""

    payload: str
    failures: list[FailedAttempt]
    actions: list[Action]


class DeadLetterStream:
    """The Redis stream of DLQ_BACKEND=redis: one entry a letter. Entries may be lost; PostgreSQL has the letters."""

    def __init__(self, redis: Redis, epoch: str) -> None:
        self._redis = redis
        self.key = f"ts:{epoch}:dead-letters"

    async def add(self, letter: Row) -> None:
        """Announce one letter without its payload, which a reader may only get with the admin token."""
        names = ("id", "provider", "event_id", "event_type", "attempts")
        fields: dict[Any, Any] = {name: str(letter[name]) for name in names}
        fields["reason"] = letter["outcome"]
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._redis.xadd(self.key, fields, maxlen=STREAM_LENGTH, approximate=True)


async def say_dead(letters: Sequence[Row], stream: DeadLetterStream | None) -> None:
    """Count, log and announce events that have just died."""
    for letter in letters:
        metrics.DLQ_MESSAGES.add("added")
        if letter["replays"]:
            metrics.DLQ_MESSAGES.add("failed")
        log.error(
            "inbox.event_dead",
            inbox_id=str(letter["id"]),
            event_id=letter["event_id"],
            event_type=letter["event_type"],
            reason=letter["outcome"],
            attempts=letter["attempts"],
        )
        if stream is not None:
            await stream.add(letter)


async def list_page(database: Database, wanted: Filter, *, before: UUID, limit: int) -> list[DeadLetter]:
    """Return up to `limit` letters with ids below `before`, the newest receipt first."""
    rows = await database.fetch(_sql.list_dead_letters, *_arguments(wanted), before, limit)
    return [DeadLetter(**row) for row in rows]


async def find(database: Database, letter_id: UUID) -> Letter:
    """Return a letter with what happened to it; raise Refusal `not_found`, also for an event that is not dead."""
    row = await database.fetchrow(_sql.find_dead_letter, letter_id)
    if row is None:
        raise _not_there(letter_id)
    fields = dict(row)
    payload = fields.pop("body").decode("utf-8", "backslashreplace")
    return Letter(
        **fields,
        payload=payload,
        failures=await failures_of(database, letter_id),
        actions=await actions_of(database, letter_id),
    )


async def failures_of(database: Database, inbox_id: UUID) -> list[FailedAttempt]:
    """Return the newest failed attempts at an event, newest first."""
    return [
        FailedAttempt(**row) for row in await database.fetch(_sql.inbox_failures_of, inbox_id, SHOWN_NOTES)
    ]


async def actions_of(database: Database, inbox_id: UUID) -> list[Action]:
    """Return what people did with an event, newest first."""
    return [Action(**row) for row in await database.fetch(_sql.inbox_actions_of, inbox_id, SHOWN_NOTES)]


async def replay(database: Database, letter_id: UUID, *, actor: str) -> None:
    """Put one letter back, due at once and with all attempts before it. Raises Refusal `not_dead`, `not_found`."""
    if await database.fetchval(_sql.replay_dead_letter, letter_id, actor) is None:
        raise await _refusal(database, letter_id)
    metrics.DLQ_MESSAGES.add("retried")
    log.info("inbox.letter_replayed", inbox_id=str(letter_id), actor=actor)


async def discard(database: Database, letter_id: UUID, *, actor: str, reason: str) -> None:
    """Close one letter without its effect; the reason is kept. Raises Refusal `not_dead` and `not_found`."""
    if await database.fetchval(_sql.discard_dead_letter, letter_id, actor, reason) is None:
        raise await _refusal(database, letter_id)
    metrics.DLQ_MESSAGES.add("discarded")
    log.info("inbox.letter_discarded", inbox_id=str(letter_id), actor=actor)


async def count(database: Database, wanted: Filter, *, most: int) -> int:
    """Return the number of letters that `wanted` chooses, counted up to `most`."""
    found: int = await database.fetchval(_sql.count_dead_letters, *_arguments(wanted), most)
    return found


def _arguments(wanted: Filter) -> tuple[str | datetime | None, ...]:
    return (
        wanted.provider,
        wanted.event_type,
        wanted.reason,
        wanted.received_from,
        wanted.received_before,
    )


async def _refusal(database: Database, letter_id: UUID) -> Refusal:
    state = await database.fetchval(_sql.inbox_state, letter_id)
    if state is None:
        return _not_there(letter_id)
    return Refusal("not_dead", f"The event {letter_id} is not among the dead letters: it is {state}.")


def _not_there(letter_id: UUID) -> Refusal:
    return Refusal("not_found", f"There is no dead letter {letter_id}.")
