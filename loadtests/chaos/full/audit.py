"""The audit of the movers' book, and of the ledger's own promises that a moved clock could break."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from loadtests.bench.subject import Connection
from loadtests.chaos.audit import EXAMPLES, Finding
from loadtests.chaos.full.movers import ACCOUNTS, Book, Moved

#: A row, by the names of its columns.
Row = asyncpg.Record | Mapping[str, Any]
#: The possible findings, each the opposite of a promise.
CHECKS = {
    "move_not_answered": "a request that was repeated again and again was never answered",
    "move_unexpected": "an answer was neither the work done nor a temporary refusal",
    "move_changed": "a repeated request was answered otherwise than the first time",
    "move_lost": "an answered transfer, hold, capture or void is not in the ledger as it was answered",
    "move_twice": "a request was done more than once",
    "move_unasked": "the ledger has a movement that nobody asked for",
    "move_balance": "a balance is not the sum of what was answered",
    "hold_left": "a hold whose time is over is still open",
    "hold_ended_twice": "a hold ended more than once",
    "time_ran_back": "an account's entries are not recorded in the order of time",
    "feed_gap": "the feed has a gap, a double or an event too few",
    "reconcile": "`tallystick reconcile` found a fault",
}

_TRANSFERS = """
    SELECT t.reference, t.id::text AS id, e.amount FROM transfers AS t
    JOIN entries AS e ON (e.no >> 12) << 12 = t.no AND e.amount > 0
    WHERE t.reference LIKE 'move-%'
"""
_HOLDS = """
    SELECT h.reference, h.id::text AS id, h.state, h.captured, count(e.no) FILTER (WHERE e.hold IS NOT NULL) AS ends
    FROM holds AS h LEFT JOIN hold_events AS e ON e.hold = h.no AND e.operation = ANY ($1::smallint[])
    WHERE h.reference LIKE 'move-%' GROUP BY h.no
"""
_BALANCES = "SELECT code, balance, held FROM accounts WHERE code = ANY ($1::text[])"
_BACKWARDS = """
    SELECT x.account_id, x.version, x.before, x.recorded_at FROM (
        SELECT e.account_id, e.version, b.recorded_at, lag(b.recorded_at) OVER w AS before
        FROM entries AS e JOIN batches AS b ON b.seq = e.no >> 22
        WINDOW w AS (PARTITION BY e.account_id ORDER BY e.version)
    ) AS x WHERE x.recorded_at < x.before LIMIT 5
"""
_EVENTS = "SELECT coalesce(sum(events), 0) FROM batches"
OPEN, CAPTURED, VOIDED, EXPIRED = range(4)
#: Operations of a hold's events that end it: void and expiry. A capture is a transfer.
_ENDING = (3, 5)


@dataclass
class Ledger:
    """The rows of the movers, as they stand."""

    transfers: Sequence[Row]
    holds: Sequence[Row]
    balances: Sequence[Row] = ()
    backwards: Sequence[str] = ()
    events: int = 0


async def look(connection: Connection) -> Ledger:
    """Read the rows."""
    return Ledger(
        await connection.fetch(_TRANSFERS),
        await connection.fetch(_HOLDS, _ENDING),
        await connection.fetch(_BALANCES, ACCOUNTS),
        events=int(await connection.fetchval(_EVENTS)),
    )


async def ran_back(connection: Connection) -> list[str]:
    """Return entries that are recorded before the one before them; the question goes through the whole history."""
    return [str(tuple(row)) for row in await connection.fetch(_BACKWARDS)]


def on_the_way(answered: Collection[Moved], book: Book, ledger: Ledger) -> dict[str, list[str]]:
    """Hold the ledger against what had been answered before it was read; more may have come since."""
    transfers: defaultdict[str, list[Row]] = defaultdict(list)
    for row in ledger.transfers:
        transfers[row["reference"]].append(row)
    holds = {row["id"]: row for row in ledger.holds}
    times = Counter(row["reference"] for row in ledger.holds)
    lost = [
        f"{one.key}: {one.deed} answered {one.status}"
        for one in answered
        if not _stands(one, transfers, holds)
    ]
    twice = [f"{name}: {len(rows)} transfers" for name, rows in transfers.items() if len(rows) > 1]
    twice += [f"{name}: {count} holds" for name, count in times.items() if count > 1]
    return {
        "move_unexpected": list(book.unexpected),
        "move_changed": list(book.changed),
        "move_lost": lost,
        "move_twice": twice,
        "move_unasked": [name for name in (*transfers, *times) if name not in book.moved],
        "hold_ended_twice": [
            f"{row['reference']}: {row['ends']} ends" for row in ledger.holds if row["ends"] > 1
        ],
        "feed_gap": list(book.gaps),
    }


def _stands(one: Moved, transfers: Mapping[str, Sequence[Row]], holds: Mapping[str, Row]) -> bool:
    """Whether the ledger agrees with an answer."""
    posted = transfers.get(one.key, ())
    if one.code:
        return not posted
    if one.deed in {"transfer", "capture"}:
        return [(row["id"], row["amount"]) for row in posted] == [(one.id, one.amount)]
    hold = holds.get(one.id)
    return hold is not None and (one.deed == "hold" or hold["state"] == VOIDED)


def in_the_end(book: Book, ledger: Ledger, reconciled: Iterable[str]) -> dict[str, list[str]]:
    """Hold the ledger against the whole book, when everything is answered and over."""
    expected: Counter[str] = Counter()
    for one in book.moved.values():
        if one.deed in {"transfer", "capture"} and one.status and not one.code:
            expected[one.source] -= one.amount
            expected[one.target] += one.amount
    wrong = [
        f"{row['code']} has {row['balance']}, {row['balance'] - expected[row['code']]:+} of what it should have,"
        f" {row['held']} held"
        for row in ledger.balances
        if row["balance"] != expected[row["code"]] or row["held"]
    ]
    fed = [] if book.position == ledger.events else [f"read to {book.position} of {ledger.events}"]
    found = on_the_way([one for one in book.moved.values() if one.status], book, ledger)
    return {
        **found,
        "move_not_answered": [one.key for one in book.moved.values() if not one.status],
        "move_balance": wrong,
        "hold_left": [row["reference"] for row in ledger.holds if row["state"] == OPEN],
        "time_ran_back": list(ledger.backwards),
        "feed_gap": [*found["feed_gap"], *fed],
        "reconcile": list(reconciled),
    }


def findings(broken: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Return the promises that were broken."""
    return [
        Finding(check=check, count=len(cases), examples=sorted(cases)[:EXAMPLES])
        for check in CHECKS
        if (cases := broken.get(check))
    ]
