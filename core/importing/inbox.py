"""The inbox's database (SQLite or PostgreSQL): its events, so that one that comes again is known.

The old inbox stored events and did nothing more. Its events have had no effect, and shall have none now: the
money of those payments is in the opening balances. `tallystick backfill` fetches events again that shall count here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from core.database import queries
from core.ids import derived_uuid
from core.importing.running import KNOWN, NEW, Known, Step
from core.importing.values import ValueProblemError

if TYPE_CHECKING:
    from core.importing.running import Context
    from core.importing.values import Values

_sql = queries(__name__)

_MOST: Final = 255


async def write_event(context: Context, old: Values) -> Known:
    """Store an event as done, without an effect."""
    provider, event_id = old.text("provider", 50).lower(), old.text("event_id", _MOST)
    received_at = old.time("received_at")
    made = await context.connection.fetchval(
        _sql.import_event,
        derived_uuid(f"{provider}\0{event_id}", received_at),
        provider,
        event_id,
        old.text("event_type", _MOST),
        _object_of(old.text("payload_json")),
        received_at,
        old.text("payload_json").encode(),
    )
    return KNOWN if made is None else NEW


async def write_dead_letter(_context: Context, old: Values) -> Known:
    """Tell of a message that was never done with. Nothing in the old service wrote any."""
    told = f"{old.text('provider')} {old.text('event_id')} ({old.text('error_kind')})"
    raise ValueProblemError(f"{told} was to be tried again: fetch it anew with `tallystick backfill`")


def _object_of(payload: str) -> str | None:
    """Return the id of the event's object, as far as it has one."""
    try:
        body: Any = msgspec.json.decode(payload)
        found = body["data"]["object"]["id"] if "data" in body else body["resource"]["id"]
    except (msgspec.DecodeError, LookupError, TypeError):
        return None
    return (
        found if isinstance(found, str) and 0 < len(found.encode()) <= _MOST and "\0" not in found else None
    )


STEPS: Final = (
    Step(
        "events",
        frozenset({"payment_events"}),
        _sql.old_events,
        write_event,
        lambda old: f"{old.row['provider']} {old.row['event_id']}",
    ),
    Step(
        "dead_letters",
        frozenset({"dlq_messages"}),
        _sql.old_dead_letters,
        write_dead_letter,
        lambda old: f"id={old.row['id']}",
    ),
)
