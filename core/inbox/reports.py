"""Reports on the inbox: a summary of the last hours with its anomalies, the newest events, and the fate of each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from core import ids, metrics
from core.database import queries
from core.inbox.dead_letters import NEWEST
from core.inbox.rules import APPLIED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Database

_sql = queries(__name__)

# More events of one type than this in one summary are unusual.
HIGH_FREQUENCY: Final = 1_000
# An event that has been due for longer than this waits for something else than its turn.
LATE_SECONDS: Final = 300.0
# States that no worker changes.
FINISHED: Final = frozenset({"done", "dead"})


class Summary(msgspec.Struct, frozen=True):
    """The counts of events received within a period; each anomaly has `type`, `description` and `count` at least."""

    period_start: datetime
    period_end: datetime
    total_events: int
    events_by_provider: dict[str, int]
    events_by_type: dict[str, int]
    anomalies: list[dict[str, Any]]
    generated_at: datetime


class ReceivedEvent(msgspec.Struct, frozen=True):
    """An event as lists show it."""

    id: UUID
    provider: str
    event_id: str
    event_type: str
    received_at: datetime


class Arrived(msgspec.Struct, frozen=True):
    """An event as it came in and as it stands now. `outcome` and `last_error` say what became of it, and why."""

    id: UUID
    provider: str
    event_id: str
    type: str
    object_id: str | None
    received_at: datetime
    state: str
    outcome: str | None
    attempts: int
    last_error: str | None
    finished_at: datetime | None


class Tidings(msgspec.Struct, frozen=True):
    """Our events about one object: their number, those not looked at yet, and the deliveries by state."""

    events: int = 0
    unsent: int = 0
    delivered: int = 0
    failed: int = 0
    waiting: int = 0


class Fate(msgspec.Struct, frozen=True):
    """An event with what we told of its object. `settled` means that nothing more will come without a person."""

    event: Arrived
    told: Tidings

    @property
    def settled(self) -> bool:
        """Whether the event is finished, and everything that it led to has been sent or given up."""
        if self.event.state not in FINISHED:
            return False
        return self.event.outcome != APPLIED or not (self.told.unsent or self.told.waiting)


async def summarize(database: Database, *, hours_back: int, keep: bool = False) -> Summary:
    """Return the counts and anomalies of the last `hours_back` hours; `keep` stores the summary, too."""
    now = datetime.now(UTC)
    start = now - timedelta(hours=hours_back)
    rows = await database.fetch(_sql.inbox_counts, ids.span_of(start, None)[0], start, now)
    by_provider: dict[str, int] = {}
    by_type: dict[str, int] = {}
    for row in rows:
        by_provider[row["provider"]] = by_provider.get(row["provider"], 0) + row["events"]
        by_type[row["event_type"]] = by_type.get(row["event_type"], 0) + row["events"]
    summary = Summary(
        period_start=start,
        period_end=now,
        total_events=sum(by_provider.values()),
        events_by_provider=by_provider,
        events_by_type=by_type,
        anomalies=[*_frequent(by_type), *await _troubles(database)],
        generated_at=datetime.now(UTC),
    )
    if keep:
        await database.execute(_sql.keep_summary, ids.new_uuid(), msgspec.json.encode(summary).decode())
    for provider, events in by_provider.items():
        metrics.RECONCILIATION_EVENTS.add(provider, by=events)
    for anomaly in summary.anomalies:
        metrics.RECONCILIATION_ANOMALIES.add(anomaly["type"])
    metrics.RECONCILIATION_LAST_RUN.set(now.timestamp())
    return summary


async def recent_events(database: Database, *, provider: str | None, limit: int) -> list[ReceivedEvent]:
    """Return the newest events, of one provider or of all."""
    if provider is None:
        rows = await database.fetch(_sql.recent_inbox_events, limit)
    else:
        rows = await database.fetch(_sql.recent_inbox_events_of, provider, limit)
    return [ReceivedEvent(**row) for row in rows]


async def list_arrivals(
    database: Database,
    *,
    provider: str | None = None,
    event_type: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    limit: int,
) -> list[Arrived]:
    """Return at most `limit` events, the newest first, narrowed by what is not None."""
    rows = await database.fetch(_sql.list_arrivals, NEWEST, provider, event_type, state, since, limit)
    return [Arrived(**row) for row in rows]


async def arrivals_after(database: Database, after: UUID, limit: int) -> list[Arrived]:
    """Return at most `limit` events with ids above `after`, the oldest first."""
    return [Arrived(**row) for row in await database.fetch(_sql.arrivals_after, after, limit)]


async def fates(database: Database, event_ids: Sequence[UUID]) -> list[Fate]:
    """Return how the events stand now, the oldest first."""
    events = [Arrived(**row) for row in await database.fetch(_sql.arrivals_by_id, event_ids)]
    applied = {event.object_id for event in events if event.outcome == APPLIED and event.object_id}
    told: dict[str, Tidings] = {}
    if applied:
        for row in await database.fetch(_sql.tidings_of_objects, sorted(applied)):
            fields = dict(row)
            object_id = fields.pop("object_id")
            told[object_id] = Tidings(**fields)
    return [Fate(event, told.get(event.object_id or "", Tidings())) for event in events]


def _frequent(by_type: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "type": "high_frequency_event",
            "description": f"More than {HIGH_FREQUENCY} events of type {event_type}",
            "event_type": event_type,
            "count": events,
        }
        for event_type, events in by_type.items()
        if events > HIGH_FREQUENCY
    ]


async def _troubles(database: Database) -> list[dict[str, Any]]:
    row = await database.fetchrow(_sql.inbox_troubles, LATE_SECONDS)
    found = {} if row is None else dict(row)
    said = {
        "dead": ("dead_letters", "Events that were given up and wait for a person"),
        "late": ("late_events", f"Events that have been due for more than {LATE_SECONDS:.0f} seconds"),
    }
    return [
        {"type": kind, "description": description, "count": found[name]}
        for name, (kind, description) in said.items()
        if found.get(name)
    ]
