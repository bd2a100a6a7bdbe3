"""The feed: everything that happened to the ledger, in commit order, numbered without gaps, read by a cursor."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from core.database import queries
from core.ledger.transfers import PAGE_ENTRIES, Transfer, get_transfers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Database, Row

SQL = queries(__name__)

HOLD_EVENTS = ("", "hold.created", "hold.captured", "hold.voided", "hold.extended", "hold.expired")
# Most events of a page. Each batch of the feed holds at least one event, so as many batches fill any page.
MAX_PAGE_EVENTS = 1_000
# Most batches that one page looks at, since their entries are counted.
MAX_PAGE_BATCHES = 250


class FeedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `position` counts from 1 without gaps; `data` is what the event's type says."""

    position: int
    type: str
    recorded_at: datetime
    data: dict[str, Any]


async def read_feed(database: Database, *, after: int, limit: int) -> list[FeedEvent]:
    """Return up to `limit` (1 to 1,000) events with positions above `after`, ascending; fewer of large ones."""
    batches = await database.fetch(SQL.feed_page, after + 1, min(limit + 1, MAX_PAGE_BATCHES))
    if not batches:
        return []
    chosen = _cover(batches, after, limit)
    numbered = await _events_of(database, [row["batch"] for row in chosen])
    events: list[FeedEvent] = []
    for row in chosen:
        for place, (_, kind, recorded_at, data) in enumerate(numbered[row["batch"]]):
            position = row["position"] + place
            if after < position <= after + limit:
                events.append(FeedEvent(position=position, type=kind, recorded_at=recorded_at, data=data))
    return events


async def feed_head(database: Database) -> int:
    """Return the position of the feed's last event; 0 for an empty feed."""
    position: int = await database.fetchval(SQL.feed_head)
    return position


def _cover(batches: Sequence[Row], after: int, limit: int) -> list[Row]:
    """Return the batches that hold the wanted positions: the first, and more while the page has room for entries."""
    chosen: list[Row] = []
    entries = 0
    for row in batches:
        if row["position"] + row["events"] > after + 1 and row["position"] <= after + limit:
            entries += row["entries"]
            if chosen and entries > PAGE_ENTRIES:
                break
            chosen.append(row)
    return chosen


async def _events_of(
    database: Database, batches: list[int]
) -> dict[int, list[tuple[int, str, datetime, dict[str, Any]]]]:
    events: list[tuple[int, str, datetime, dict[str, Any]]] = []
    for row in await database.fetch(SQL.feed_account_events, batches):
        data = {"account": row["code"], **msgspec.json.decode(row["data"])}
        events.append((row["no"], row["kind"], row["recorded_at"], data))
    hold_data = {}
    for row in await database.fetch(SQL.feed_hold_events, batches):
        data = hold_data[row["no"]] = _hold_data(row)
        events.append((row["no"], HOLD_EVENTS[row["operation"]], row["recorded_at"], data))
    numbers = [row["no"] for row in await database.fetch(SQL.feed_transfers, batches)]
    for no, transfer in await get_transfers(database, numbers):
        if no in hold_data:  # one item, one event: a capture's transfer is part of it
            hold_data[no]["transfer"] = _transfer_data(transfer)
        else:
            kind = "transfer.reversed" if transfer.reverses is not None else "transfer.posted"
            events.append((no, kind, transfer.recorded_at, _transfer_data(transfer)))
    found: dict[int, list[tuple[int, str, datetime, dict[str, Any]]]] = {batch: [] for batch in batches}
    for event in sorted(events, key=lambda event: event[0]):
        found[event[0] >> 22].append(event)
    return found


def _transfer_data(transfer: Transfer) -> dict[str, Any]:
    # The amount reversed since is left out: an event says what happened then.
    data: dict[str, Any] = {
        name: getattr(transfer, name) for name in Transfer.__struct_fields__ if name != "entries"
    }
    data["entries"] = [msgspec.structs.asdict(entry) for entry in transfer.entries]
    return data


def _hold_data(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "hold": str(row["hold"]),
        "source": row["code"],
        "amount": row["amount"],
        "hold_amount": row["hold_amount"],
        "captured": row["captured"],
        "expires_at": row["expires_at"],
    }
