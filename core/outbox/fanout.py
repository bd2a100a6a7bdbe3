"""Fan-out: one event becomes one delivery for each endpoint that wants it.

Fan-out is a step of its own after the commit, and not part of the money transaction: that one must not grow with the
number of a merchant's endpoints nor wait for them. Nothing is lost in between: an index finds every event without its
mark, and the mark and the deliveries are one transaction.

The same step numbers the events of each principal, for those who read them instead of receiving them. Ids would not do:
an id is drawn before the commit, and an event that is committed late would lie behind a reader's cursor for ever.

A worker hands deliveries over to its own sender (`Handover`): they are born with its lease, and need neither a claim
nor a second look. A worker that dies between the commit and the request leaves a lease like any other.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from uuid import UUID

from core import ids, metrics
from core.database import queries
from core.outbox.ordering import Turn, release
from core.work.due_window import WHOLE_SECONDS, DueWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from core.database import Connection, Database, Row

_sql = queries(__name__)

# Events of one step. With a handful of endpoints each, the transaction stays under about 20 ms.
BATCH: Final = 200
# An id bears the time of the process that wrote the event, whose clock may be behind ours; beside the slack for late
# commits (`core.work.due_window`), a look goes back as far as clocks that are kept by NTP can differ.
CLOCKS_APART: Final = timedelta(seconds=4)

# Events of so long that wait are looked for before a later one is fanned out at once. Each look is made under locks of
# accounts, and walks over all that was fanned out since, while a backup or a report keeps the dead entries.
WAITING_FOR: Final = timedelta(seconds=WHOLE_SECONDS) + CLOCKS_APART

_START: Final = UUID(int=0)


class NewDelivery(NamedTuple):
    """A delivery to make: one to a `disabled` endpoint fails at once, one with `ordered_object` waits for its turn."""

    event_id: UUID
    endpoint_id: UUID
    disabled: bool = False
    ordered_object: str | None = None


class Room(NamedTuple):
    """The room that a sender has for deliveries which are handed over to it, and the lease that they are born with.

    `known` are endpoints, with how many each may be sent (`rooms`) and whether each is swift; any other may be sent
    `default`. In all there is room for `free`, of which endpoints that are not swift get `free_of_others` at most. Room
    beyond `free_of_many` is for the first slots of each endpoint alone (`firsts`).
    """

    worker: UUID
    token: UUID
    lease_seconds: float
    known: Sequence[UUID] = ()
    rooms: Sequence[int] = ()
    firsts: Sequence[int] = ()
    swift: Sequence[bool] = ()
    default: int = 0
    free: int = 0
    free_of_many: int = 0
    free_of_others: int = 0


class Handover(Protocol):
    """A sender that takes deliveries from the fan-out of its own process."""

    def offer(self, most: int | None = None) -> Room:
        """Return the room there is, for `most` deliveries (None: any); it is kept until `take`, which comes anyway."""

    def take(self, room: Room, rows: Sequence[Row]) -> None:
        """Begin to send the deliveries that were handed over; none if the fan-out has failed."""

    def give_back(self, token: UUID) -> None:
        """Give back, soon, what may be leased under a token that nobody works on."""


class Handed:
    """The deliveries that a transaction hands over within `room`: the rows of `outbox_deliver` behind the first."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.rows: Sequence[Row] = ()


@contextmanager
def handing_over(sender: Handover, most: int | None = None) -> Iterator[Handed]:
    """Keep room of the sender for the transaction inside, and have it send what that has handed over.

    After an exception it gives back what may be leased: the commit may have come through, and its deliveries would wait
    for the end of their lease.
    """
    handed = Handed(sender.offer(most))
    try:
        yield handed
    except BaseException:
        sender.give_back(handed.room.token)
        raise
    finally:
        sender.take(handed.room, handed.rows)


class _FannedOut(NamedTuple):
    """The events of a step: how many, the last of them, how many deliveries are due, the turns to be released."""

    events: int = 0
    last: UUID | None = None
    due: int = 0
    turns: frozenset[Turn] = frozenset()


def waiting_since() -> UUID:
    """Return the id from which an event that waits for its fan-out keeps later ones from being fanned out at once.

    An older one waits in a backlog, and does not.
    """
    return ids.first_uuid_at(datetime.now(UTC) - WAITING_FOR)


async def create_deliveries(connection: Connection, new: Sequence[NewDelivery]) -> list[UUID]:
    """Write deliveries in the caller's transaction; return their ids."""
    delivery_ids = [ids.new_uuid() for _ in new]
    columns = [[one[place] for one in new] for place in range(len(NewDelivery._fields))]
    await connection.execute(_sql.create_deliveries, delivery_ids, *columns)
    return delivery_ids


async def fan_out(database: Database, *, limit: int = BATCH) -> int:
    """Create the deliveries of up to `limit` committed events and return how many events that were."""
    done, _ = await _fan_out(database, limit, _START, Room(_START, _START, 0.0))
    await release(database, done.turns)
    return done.events


class FanOut:
    """The fan-out of one worker. A look for events begins where the last one has ended, as far as that is safe.

    `on_due` is called when there are deliveries that a claim has to find.
    """

    def __init__(
        self, database: Database, sender: Handover, *, on_due: Callable[[], None], limit: int = BATCH
    ) -> None:
        self._database = database
        self._sender = sender
        self._on_due = on_due
        self._limit = limit
        self._due_window = DueWindow()
        self._look = self._due_window.look()
        self._after: UUID | None = None
        self._began = -math.inf

    async def step(self) -> int:
        """Create the deliveries of the next events, hand over what there is room for, and return how many events."""
        if self._after is None or time.monotonic() > self._began + WHOLE_SECONDS:
            # A long backlog is left for a while: an event that was committed late lies at its beginning.
            self._look = self._due_window.look()
            self._began = time.monotonic()
            self._after = None
        with handing_over(self._sender) as handed:
            done, handed.rows = await _fan_out(self._database, self._limit, self._since(), handed.room)
        if done.due:
            self._on_due()
        # A full step may have left events behind it, and the next one goes on there.
        self._after = done.last if done.events == self._limit else None
        if self._after is None:
            self._due_window.seen(self._look)
        # The release comes after the commit: only then does every process see which events have their deliveries.
        # `core.outbox.ordering.Stalled` finds turns whose release has failed.
        if await release(self._database, done.turns):
            self._on_due()
        return done.events

    def _since(self) -> UUID:
        """Return the id from which the next look begins: of a time that all events from before were seen."""
        if self._after is not None:
            return self._after
        if self._look.seconds is None:
            return _START
        return ids.first_uuid_at(datetime.now(UTC) - timedelta(seconds=self._look.seconds) - CLOCKS_APART)


async def _fan_out(
    database: Database, limit: int, since: UUID, room: Room
) -> tuple[_FannedOut, Sequence[Row]]:
    """Do one step; return what was done, and the deliveries that were handed over."""
    with metrics.CLAIM_SECONDS.timed("fan_out"):
        rows = await database.fetch(_sql.fan_out, limit, since, *room)
    if not rows:
        return _FannedOut(), ()
    whole = rows[0]
    turns = frozenset(map(Turn, whole["turn_endpoints"] or (), whole["turn_objects"] or ()))
    return _FannedOut(whole["events"], whole["last"], whole["due"], turns), rows[1:]
