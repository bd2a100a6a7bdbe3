"""Events as they arrive, and what becomes of each, read from the database every half second."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

from core import ids
from core.inbox.reports import FINISHED, arrivals_after, fates, list_arrivals
from core.inbox.rules import APPLIED
from ops.commands.printing import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from core.database import Database
    from core.inbox.reports import Arrived, Fate

# A person sees no delay, and the database no load.
LOOK_SECONDS: Final = 0.5
# An id is made by the clock of a process, and its row is there some milliseconds later: rows may come in behind newer
# ones by as much as the clocks of the machines differ.
BEHIND: Final = timedelta(seconds=10)
PAGE: Final = 500
# An event whose fate is still open after this is followed no longer; so are the oldest ones of more than so many.
FOLLOWED_SECONDS: Final = 600.0
MOST_FOLLOWED: Final = 1_000

COLOURS: Final = {"applied": "green", "already_applied": "green", "ignored": "yellow"}


@dataclass(slots=True)
class Watch:
    """A look at the inbox from `since` on. `follow` tells fates, too, until each is settled."""

    database: Database
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    follow: bool = True
    _seen: dict[UUID, None] = field(default_factory=dict)
    _open: dict[UUID, tuple[str, float]] = field(default_factory=dict)

    async def news(self) -> AsyncIterator[Arrived | Fate]:
        """Yield each event that arrives and, if fates are followed, each change of its fate; for ever."""
        while True:
            for event in await self.arrivals():
                yield event
            if self.follow:
                for fate in await self.changes():
                    yield fate
            await asyncio.sleep(LOOK_SECONDS)

    async def arrivals(self) -> list[Arrived]:
        """Return the events that have arrived since the last look, the oldest first."""
        found: list[Arrived] = []
        start = after = ids.first_uuid_at(self.since - BEHIND)
        while True:
            page = await arrivals_after(self.database, after, PAGE)
            found += [event for event in page if event.id not in self._seen]
            if len(page) < PAGE:
                break
            after = page[-1].id
        self._seen |= dict.fromkeys(event.id for event in found)
        self.since = datetime.now(UTC)
        for id_ in [id_ for id_ in self._seen if id_ < start]:
            del self._seen[id_]
        for event in found:
            self._open[event.id] = ("", time.monotonic())
        while len(self._open) > MOST_FOLLOWED:
            del self._open[next(iter(self._open))]
        return found

    async def changes(self) -> list[Fate]:
        """Return the fates that read otherwise than at the last look."""
        changed: list[Fate] = []
        for fate in await fates(self.database, list(self._open)) if self._open else []:
            told, followed_from = self._open[fate.event.id]
            sentence = fate_of(fate)
            if sentence not in {told, PENDING}:
                changed.append(fate)
            if fate.settled or time.monotonic() - followed_from > FOLLOWED_SECONDS:
                del self._open[fate.event.id]
            else:
                self._open[fate.event.id] = (sentence, followed_from)
        return changed

    async def remember(self) -> None:
        """Take the events that are there already for seen, so that only later ones are told."""
        start = self.since - BEHIND
        self._seen |= dict.fromkeys(
            event.id for event in await list_arrivals(self.database, since=start, limit=PAGE)
        )


PENDING: Final = "waiting for a worker"


def fate_of(fate: Fate) -> str:
    """Return what has become of an event, in words."""
    event, told = fate.event, fate.told
    why = f": {printable(event.last_error)}" if event.last_error else ""
    if event.state not in FINISHED:
        return f"to be tried again{why}" if event.last_error else PENDING
    if event.state == "dead":
        return f"dead ({event.outcome}){why}. See: tallystick dlq show {event.id}"
    if event.outcome != APPLIED:
        return f"{event.outcome}{why}"
    if not told.events:
        return "applied"
    count = told.delivered + told.failed + told.waiting
    if told.unsent or told.waiting:
        return f"applied, {told.delivered} of {count} deliveries made" if count else "applied"
    if not count:
        return "applied; no endpoint asks for its event"
    return f"applied, delivered to {told.delivered} of {count} endpoints"


def line(event: Arrived, said: str) -> str:
    """Return a line about an event, with colours that `click.echo` takes away where nobody sees them."""
    colour = "red" if event.state == "dead" else COLOURS.get(event.outcome or "", "cyan")
    moment = f"{event.received_at.astimezone(UTC):%H:%M:%S}"
    name = f"{event.provider:<8} {printable(event.event_id)}  {printable(event.type)}"
    return f"{click.style(moment, dim=True)}  {name}  {click.style(said, fg=colour)}"
