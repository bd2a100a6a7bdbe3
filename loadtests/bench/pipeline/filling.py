"""A database that looks like one through which a million events went: filled by sets, quickly.

The rows are copies of one that the pipeline itself has written, with ids, times and objects of their own, so that a new
column comes along by itself. A table that the pipeline writes to and that is not named here stops the run.
"""

import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple

from core.inbox.rules import clearing_account
from loadtests.bench import posting
from loadtests.bench.clients.workload import CURRENCY
from loadtests.bench.stand import StandError
from loadtests.bench.subject import Connection

#: Rows of one statement: progress is seen, and a statement stays under a few seconds.
ROWS = 20_000
#: Between two events of the past.
EVENT_MS = 1
#: The last of them lies so far back.
AGE_SECONDS = 60


class Copied(NamedTuple):
    """A table whose rows are copied: a query for rows to begin with, and what is different in each copy, by column.

    In the expressions `t` is the row, with the `object_id` that it is about, and `n` the number of the copy.
    """

    row: str
    differs: Mapping[str, str]


# Ids in the order of time (UUID version 7), made of the number alone, so that every table knows those of the others.
_ID = (
    "(lpad(to_hex($3::bigint + n), 12, '0') || '7' || substr(md5('{kind}' || n), 1, 3)"
    " || '8' || substr(md5('{kind}' || n), 4, 15))::uuid"
)
_AT = "to_timestamp(($3::bigint + n) / 1000.0)"
# As long as the intent that it stands for.
_INTENT = "rpad('pi_' || md5('intent' || n) || n, length(t.object_id), 'x')"
_BODY = f"convert_to(replace(convert_from(t.body, 'UTF8'), t.object_id, {_INTENT}), 'UTF8')"

COPIED: Mapping[str, Copied] = {
    "inbox_events": Copied(
        "SELECT * FROM inbox_events WHERE outcome = 'applied'",
        {
            "id": _ID.format(kind="inbox"),
            "event_id": "rpad('evt_' || md5('event' || n) || n, length(t.event_id), 'x')",
            "object_id": _INTENT,
            "occurred_at": _AT,
            "received_at": _AT,
            "due_at": _AT,
            "finished_at": _AT,
            "body": _BODY,
        },
    ),
    "inbox_bodies": Copied(
        "SELECT b.*, e.object_id FROM inbox_bodies AS b JOIN inbox_events AS e USING (id) WHERE e.outcome = 'applied'",
        {"id": _ID.format(kind="inbox"), "body": _BODY},
    ),
    "outbox_events": Copied(
        "SELECT * FROM outbox_events WHERE fanned_out_at IS NOT NULL AND object_id LIKE 'pi\\_%'",
        {
            "id": _ID.format(kind="outbox"),
            "object_id": _INTENT,
            "created_at": _AT,
            "fanned_out_at": _AT,
            "position": "(SELECT last_position FROM outbox_positions AS p WHERE p.principal_id = t.principal_id) + n",
            "body": _BODY,
        },
    ),
    "webhook_deliveries": Copied(
        "SELECT * FROM webhook_deliveries WHERE state = 'delivered'",
        {
            "id": _ID.format(kind="delivery"),
            "event_id": _ID.format(kind="outbox"),
            "created_at": _AT,
            "due_at": _AT,
            "finished_at": _AT,
        },
    ),
    "webhook_attempts": Copied(
        "SELECT * FROM webhook_attempts WHERE status = 204",
        {"delivery_id": _ID.format(kind="delivery"), "at": _AT},
    ),
}
#: The posting function fills these, and the sequencer the last.
POSTED = frozenset({"keys", "batches", "transfers", "entries", "feed"})

_TABLES = """
    SELECT relname FROM pg_class
    WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace
"""
_COLUMNS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY attnum
"""
_POSITIONS = """
    UPDATE outbox_positions AS known SET last_position = last.position
    FROM (SELECT principal_id, max(position) AS position FROM outbox_events GROUP BY principal_id) AS last
    WHERE known.principal_id = last.principal_id AND known.last_position < last.position
"""


async def counted(connection: Connection) -> dict[str, int]:
    """The rows of every table."""
    names = [row["relname"] for row in await connection.fetch(_TABLES)]
    return {name: await connection.fetchval(f'SELECT count(*) FROM "{name}"') for name in names}  # noqa: S608


def check_known(before: Mapping[str, int], after: Mapping[str, int], events: int) -> None:
    """Raise StandError unless the tables that got a row of each event are the ones that are filled here."""
    written = {name for name, rows in after.items() if rows - before.get(name, 0) >= events}
    known = COPIED.keys() | POSTED
    if strange := sorted((written - known) | (COPIED.keys() - written)):
        raise StandError(
            f"loadtests/bench/pipeline/filling.py does not know what the pipeline writes: {', '.join(strange)}"
        )


async def fill_copies(connection: Connection, events: int, done: Callable[[int], None]) -> None:
    """Fill every table but the ledger's with so many events that are done; `done` hears of the rows of each step."""
    first_ms = int((time.time() - AGE_SECONDS) * 1000) - events * EVENT_MS
    for table, copied in COPIED.items():
        statement = await _statement(connection, table, copied)
        for first in range(1, events + 1, ROWS):
            last = min(first + ROWS - 1, events)
            written = await connection.execute(statement, first, last, first_ms)
            if not written.endswith(f" {last - first + 1}"):
                raise StandError(f"{table} has no row to begin with")
            done(last - first + 1)
    await connection.execute(_POSITIONS)


async def _statement(connection: Connection, table: str, copied: Copied) -> str:
    columns = [row["attname"] for row in await connection.fetch(_COLUMNS, table)]
    if strange := copied.differs.keys() - set(columns):
        raise StandError(f"{table} has no {', '.join(sorted(strange))}")
    values = [copied.differs.get(column, f't."{column}"') for column in columns]
    names = ", ".join(f'"{column}"' for column in columns)
    # Every part is ours or the catalogue's.
    return (
        f'INSERT INTO "{table}" ({names}) SELECT {", ".join(values)} '  # noqa: S608
        f"FROM ({copied.row} LIMIT 1) AS t "
        "CROSS JOIN generate_series($1::integer, $2::integer) AS n"
    )


async def fill_ledger(
    connection: Connection, accounts: int, events: int, done: Callable[[int], None]
) -> None:
    """Post as many payments from the clearing account, in calls as large as those of the pipeline, and seal them."""
    draw, clearing = random.Random(events), clearing_account(CURRENCY)
    left = events
    while left > 0:
        items = min(posting.FILL_ITEMS, left)
        payments = [
            posting.Payment(
                uuid.UUID(int=draw.getrandbits(128), version=4),
                clearing,
                posting.code(draw.randint(1, accounts)),
                draw.randint(100, 9_999),
                f"pi_filled_{draw.getrandbits(96):024x}",
            )
            for _ in range(items)
        ]
        await posting.post_payments(connection, "stripe.payment", payments)
        left -= items
        done(items)
    await posting.seal_all(connection)
