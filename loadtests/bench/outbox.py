"""The benchmark's own statements on inbox and outbox; no other file here knows their tables."""

import datetime as dt
import uuid

import orjson

from loadtests.bench.clients.workload import ACCOUNT_PREFIX, CURRENCY
from loadtests.bench.subject import Connection
from ops.stripe_events import payment_intent_succeeded

#: The type of the events that make a backlog; the traffic that is measured is of another.
BACKLOG_TYPE = "payment.succeeded"

_EMIT = """
INSERT INTO outbox_events (id, principal_id, event_type, object_id, body)
SELECT id, (SELECT id FROM principals WHERE name = $1), $2, object_id, body
FROM unnest($3::uuid[], $4::text[], $5::bytea[]) AS given (id, object_id, body)
"""
_WRITTEN = "SELECT object_id, created_at FROM outbox_events WHERE object_id = ANY ($1)"
_SINCE = "SELECT object_id FROM outbox_events WHERE event_type = 'payment.succeeded' AND created_at >= $1"
_NOT_FANNED_OUT = "SELECT count(*) FROM outbox_events WHERE fanned_out_at IS NULL"
_NOT_APPLIED = "SELECT count(*) FROM inbox_events WHERE state = 'pending'"
_STORE = """
INSERT INTO inbox_events (id, provider, event_id, event_type, object_id, headers, body)
SELECT gen_random_uuid(), 'stripe', name, 'customer.created', name, '{}', '{}'
FROM unnest($1::text[]) AS given (name)
"""
_STORE_PAYMENTS = """
WITH given AS MATERIALIZED (
    SELECT gen_random_uuid() AS id, name, body FROM unnest($1::text[], $2::bytea[]) AS sent (name, body)
),

stored AS (
    INSERT INTO inbox_events (id, provider, event_id, event_type, object_id, headers)
    SELECT id, 'stripe', 'evt_' || name, 'payment_intent.succeeded', 'pi_' || name, '{}' FROM given
)

INSERT INTO inbox_bodies (id, body) SELECT id, body FROM given
"""
_NOT_SENT = "SELECT count(*) FROM webhook_deliveries WHERE state IN ('pending', 'leased', 'waiting')"
_LAST_WORKER = "SELECT max(extract(epoch FROM started_at))::double precision FROM workers"
#: A transaction with an id and a snapshot: while it is open, nothing that dies after it may be cleaned away.
FOREIGN = "SELECT pg_current_xact_id(), count(*) FROM inbox_events"


async def emit(connection: Connection, principal: str, count: int) -> None:
    """Writes events of a principal, as transactions of the service would."""
    ids = [uuid.uuid4() for _ in range(count)]
    objects = [f"backlog_{identity.hex}" for identity in ids]
    bodies = [orjson.dumps({"type": BACKLOG_TYPE, "data": {"id": name}}) for name in objects]
    await connection.execute(_EMIT, principal, BACKLOG_TYPE, ids, objects, bodies)


async def written_since(connection: Connection, moment: dt.datetime) -> list[str]:
    """Returns the payments that events were written about since then."""
    return [row["object_id"] for row in await connection.fetch(_SINCE, moment)]


async def written_at(connection: Connection, objects: list[str]) -> dict[str, float]:
    """Returns the Unix times at which the events of these objects were written, a little before the commit."""
    rows = await connection.fetch(_WRITTEN, objects)
    return {row["object_id"]: row["created_at"].timestamp() for row in rows}


async def clock(connection: Connection) -> dt.datetime:
    """The server's time."""
    moment: dt.datetime = await connection.fetchval("SELECT clock_timestamp()")
    return moment


async def is_applied(connection: Connection) -> bool:
    """Whether every event of the inbox is finished."""
    return not await connection.fetchval(_NOT_APPLIED)


async def is_fanned_out(connection: Connection) -> bool:
    """Whether every event has its deliveries."""
    return not await connection.fetchval(_NOT_FANNED_OUT)


async def is_sent(connection: Connection) -> bool:
    """Whether every event has its deliveries, and the end of each of them is written down."""
    return await is_fanned_out(connection) and not await connection.fetchval(_NOT_SENT)


async def last_worker_began(connection: Connection) -> float:
    """The Unix time at which the youngest of the workers that run began."""
    moment: float = await connection.fetchval(_LAST_WORKER)
    return moment


async def store_payments(connection: Connection, names: list[str]) -> None:
    """Puts payments to some account into the inbox, as they are there when their signatures were checked."""
    bodies = [
        orjson.dumps(
            payment_intent_succeeded(
                f"{ACCOUNT_PREFIX}{number:06}",
                event_id=f"evt_{name}",
                intent=f"pi_{name}",
                currency=CURRENCY.lower(),
            )
        )
        for number, name in enumerate(names, start=1)
    ]
    await connection.execute(_STORE_PAYMENTS, names, bodies)


async def store(connection: Connection, names: list[str]) -> None:
    """Puts events without an effect into the inbox."""
    await connection.execute(_STORE, names)
