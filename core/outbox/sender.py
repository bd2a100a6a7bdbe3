"""The sender of due deliveries: a claim with a lease, its commit, only then the request, at last the record of it.

A delivery may be sent twice, when a worker dies after the receiver has answered, always with the same ids and bytes; it
is never lost. No receiver holds up another: each has a share of the slots, a claim visits the receivers in turn, and
a slow or dead one gets a small share (`core.outbox.breakers`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import structlog

from core import ids, metrics, tasks
from core.database import queries
from core.lane import Lane
from core.masking import mask_text
from core.outbox.backlog import Backlog, Share
from core.outbox.batching import carriers_of, carry, messages_of
from core.outbox.breakers import Breakers
from core.outbox.egress import EXCERPT_BYTES, GONE_STATUS, TOTAL_TIMEOUT_SECONDS, UNREAD, Reply
from core.outbox.health import Patience, note_failure, note_success
from core.outbox.ordering import Turn, lock, release, release_locked, turns_of
from core.outbox.schedule import Schedule
from core.outbox.signing import opened_secrets, signed_headers
from core.vault import SealedError, Vault
from core.work.leases import DEAD_AFTER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.database import Database, Row
    from core.outbox.batching import Message
    from core.outbox.egress import Egress
    from core.work.leases import Worker

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# A request ends within TOTAL_TIMEOUT_SECONDS and the second for the excerpt; the rest is for the record of the result.
LEASE_SECONDS: Final = 30.0
assert LEASE_SECONDS > 3 * TOTAL_TIMEOUT_SECONDS  # noqa: S101 - a relation between two constants
# Requests that a process has under way at once. Receivers that are not known to be swift share a half of these slots.
SLOTS: Final = 200
SLOTS_OF_OTHERS: Final = 100
# A receiver with this many of them gets no more; one claim may bring as many again.
SLOTS_OF_ENDPOINT: Final = 8
SLOTS_OF_OTHER_ENDPOINT: Final = 2
TAKE_OVER_BATCH: Final = 1000
# Results written in one statement.
RECORD_BATCH: Final = 200
PRUNE_BATCH: Final = 5_000
# Deliveries that are given up in one statement when their endpoint is off.
GIVE_UP_BATCH: Final = 1_000


class Result(NamedTuple):
    """The result of one claimed delivery, to be written down. Without `sent_at` nothing was sent.

    `status`, `excerpt` and `error` are the attempt's; `last_error` is the delivery's, which a list shows.
    """

    id: UUID
    token: UUID
    state: str
    last_error: str | None = None
    retry_seconds: float = 0.0
    sent_at: datetime | None = None
    latency_ms: int = 0
    status: int | None = None
    excerpt: str = ""
    error: str | None = None


class Written(NamedTuple):
    """A result to be written down, the turn that it ends, and whether the delivery carries others that share it."""

    result: Result
    turn: Turn | None
    carries: bool


class Sender:
    """The sender of one worker process. `step` starts requests, as many as there are slots; `drain` ends them.

    `on_free` is called when a receiver may be sent more than before, so that its deliveries go on at once; `on_event`
    is called when an event was written.
    """

    def __init__(  # noqa: PLR0913 - the tools of a worker; most have a harmless default
        self,
        database: Database,
        egress: Egress,
        worker: Worker,
        schedule: Schedule,
        *,
        breakers: Breakers | None = None,
        patience: Patience | None = None,
        vault: Vault | None = None,
        on_free: Callable[[], None] = lambda: None,
        on_event: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._egress = egress
        self._worker = worker
        self._schedule = schedule
        self._breakers = breakers or Breakers(0)
        self._patience = patience or Patience(0, 0)
        self._vault = vault or Vault()
        self._on_free = on_free
        self._on_event = on_event
        self._sending: set[asyncio.Task[None]] = set()
        self._of_endpoint: Counter[UUID] = Counter()
        self._others = 0
        self._backlog = Backlog(database)
        self._results: Lane[Written, bool] = Lane(self._record, max_batch=RECORD_BATCH, max_waiting=2 * SLOTS)

    async def step(self) -> int:
        """Claim due deliveries, as many as there are free slots, start sending them, and return how many that was."""
        while len(self._sending) >= SLOTS:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
        token = ids.new_uuid()
        rows: list[Row] = []
        if self._backlog.is_fresh:
            rows = await self._claim(token)
        if not rows:
            await self._backlog.look()
            rows = await self._claim(token)
        for message in await messages_of(self._database, rows, token):
            endpoint_id = message.row["endpoint_id"]
            swift = self._breakers.is_swift(endpoint_id)
            self._of_endpoint[endpoint_id] += 1
            self._others += not swift
            trial = self._breakers.started(endpoint_id)
            task = asyncio.create_task(self._send_and_record(message, token, swift=swift, trial=trial))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return len(rows)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for the requests that are under way, then give back the deliveries that are not done."""
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=timeout_seconds)
            await tasks.end(*late)
        await self._results.close()
        await self._database.execute(_sql.release_deliveries, self._worker.id)

    async def _claim(self, token: UUID) -> list[Row]:
        """Claim from endpoints that wait until a delivery is found or no endpoint is left whose turn it could be."""
        while asked := self._choose():
            rows = await self._database.fetch(
                _sql.claim_deliveries,
                list(asked),
                [share.most for share in asked.values()],
                [share.batches for share in asked.values()],
                [self._backlog[endpoint_id].since for endpoint_id in asked],
                self._worker.id,
                token,
                LEASE_SECONDS,
            )
            self._backlog.note(asked, rows)
            if rows:
                return rows
        return []

    def _choose(self) -> dict[UUID, Share]:
        """Return how many deliveries to claim from each endpoint: in turn, as far as the slots reach."""
        nothing, one = self._breakers.left_alone()
        free = SLOTS - len(self._sending)
        free_of_others = SLOTS_OF_OTHERS - self._others
        asked: dict[UUID, Share] = {}
        for endpoint_id, waiting in self._backlog.items():
            if free <= 0:
                break
            swift = self._breakers.is_swift(endpoint_id)
            if endpoint_id in nothing or self._is_full(endpoint_id, swift=swift):
                continue
            trial = endpoint_id in one
            slots = 1 if trial else SLOTS_OF_ENDPOINT if swift else SLOTS_OF_OTHER_ENDPOINT
            slots = min(slots, free if swift else free_of_others)
            if slots > 0:
                # An endpoint of batches gets one batch at a time, which takes one slot.
                batched = waiting.batch_size > 1 and not trial
                asked[endpoint_id] = Share(waiting.batch_size if batched else slots, slots)
                free -= slots
                free_of_others -= 0 if swift else slots
        return asked

    def _is_full(self, endpoint_id: UUID, *, swift: bool) -> bool:
        return self._of_endpoint[endpoint_id] >= (SLOTS_OF_ENDPOINT if swift else SLOTS_OF_OTHER_ENDPOINT)

    async def _send_and_record(self, message: Message, token: UUID, *, swift: bool, trial: bool) -> None:
        row = message.row
        endpoint_id = row["endpoint_id"]
        try:
            result = await self._send(message, token)
            finished = result.state != "pending" and row["ordered_object"] is not None
            turn = Turn(endpoint_id, row["ordered_object"]) if finished else None
            if not await self._results.submit(Written(result, turn, message.is_batch)):
                log.warning("delivery.lease_lost", delivery_id=str(row["id"]), state=result.state)
            if result.sent_at is not None:
                await self._note_health(row, result)
            else:  # the endpoint is off or gone; its backlog need not be claimed to learn that
                await self._give_up_backlog(endpoint_id, result.last_error)
        except Exception:  # the lease will run out, and the delivery is sent again
            log.exception("delivery.not_recorded", delivery_id=str(row["id"]))
        finally:
            self._breakers.abandoned(endpoint_id)
            held_back = trial or self._others >= SLOTS_OF_OTHERS or self._is_full(endpoint_id, swift=swift)
            self._others -= not swift
            self._of_endpoint[endpoint_id] -= 1
            if not self._of_endpoint[endpoint_id]:
                del self._of_endpoint[endpoint_id]
            if held_back:
                self._on_free()

    async def _send(self, message: Message, token: UUID) -> Result:
        row = message.row
        if row["url"] is None or row["disabled"]:
            reason = "endpoint_missing" if row["url"] is None else "endpoint_disabled"
            return Result(row["id"], token, "failed", reason)
        sent_at = datetime.now(UTC)
        reply = await self._post(message)
        self._breakers.note(row["endpoint_id"], good=reply.well, seconds=reply.seconds)
        try:
            result = self._judge(row, token, reply, sent_at)
        except Exception:
            # An answer that breaks our code is a failed attempt like any other, or it would come again without an end.
            log.exception("delivery.answer_unread", delivery_id=str(row["id"]))
            reply = Reply(None, UNREAD, reply.seconds)
            result = self._judge(row, token, reply, sent_at)
        metrics.DELIVERY_ATTEMPTS.add("success" if reply.succeeded else "error")
        metrics.DELIVERY_SECONDS.observe(reply.seconds)
        if result.state != "pending":
            metrics.DELIVERIES.add(result.state)
        # A line for each delivery would cost more than the delivery; the metrics count successes.
        (log.debug if reply.succeeded else log.warning)(
            "delivery.attempt",
            delivery_id=str(row["id"]),
            webhook_id=message.identity,
            event_type=message.event_type,
            attempt=row["attempts"],
            status=reply.status,
            error=reply.error,
            state=result.state,
            seconds=round(reply.seconds, 4),
        )
        return result

    async def _post(self, message: Message) -> Reply:
        row = message.row
        try:
            opened = opened_secrets(self._vault, row["endpoint_id"], row["secrets"], row["signing_keys"])
        except SealedError as error:
            return Reply(None, error.detail, 0.0)
        headers = json.loads(row["headers"]) | signed_headers(
            identity=message.identity,
            event_type=message.event_type,
            delivery_id=row["id"],
            body=message.body,
            timestamp=int(time.time()),
            **opened,
        )
        return await self._egress.post(row["url"], body=message.body, headers=headers)

    def _judge(self, row: Row, token: UUID, reply: Reply, sent_at: datetime) -> Result:
        excerpt = mask_text(reply.excerpt)[:EXCERPT_BYTES]
        wait = None if reply.gone else self._schedule.wait_seconds(row["attempts"], reply.retry_after)
        state = "delivered" if reply.succeeded else "failed" if wait is None else "pending"
        error = None
        if not reply.succeeded:
            error = (reply.error or f"answered {reply.status}: {excerpt}")[:500]
        return Result(
            row["id"],
            token,
            state,
            error,
            wait or 0.0,
            sent_at,
            round(reply.seconds * 1000),
            reply.status,
            excerpt,
            reply.error,
        )

    async def _note_health(self, row: Row, result: Result) -> None:
        if result.state == "delivered":
            if row["failing"]:
                await note_success(self._database, row["endpoint_id"])
            return
        disabled = await note_failure(
            self._database,
            self._patience,
            row["endpoint_id"],
            given_up=result.state == "failed",
            gone=result.status == GONE_STATUS,
        )
        if disabled:
            self._on_event()

    async def _give_up_backlog(self, endpoint_id: UUID, reason: str | None) -> None:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_sql.fail_backlog, endpoint_id, reason, GIVE_UP_BATCH)
            await carry(connection, carriers_of(rows))

    async def _record(self, written: Sequence[Written]) -> list[bool]:
        results = [one.result for one in written]
        columns: list[list[Any]] = [list(column) for column in zip(*results, strict=True)]
        turns = {one.turn for one in written if one.turn is not None}
        carriers = {one.result.id for one in written if one.carries}
        if turns or carriers:
            async with self._database.transaction() as connection:
                await lock(connection, turns)
                rows = await connection.fetch(_sql.record_deliveries, *columns)
                await carry(connection, carriers)
                released = await release_locked(connection, turns)
            if released:
                self._on_free()
        else:
            rows = await self._database.fetch(_sql.record_deliveries, *columns)
        held = {row["id"] for row in rows}
        return [result.id in held for result in results]


async def prune_attempts(database: Database, days: int) -> int:
    """Remove attempts that are older than `days`, up to PRUNE_BATCH of them; return how many that was."""
    return await database.execute(_sql.prune_attempts, days, PRUNE_BATCH)


async def take_over_deliveries(database: Database, schedule: Schedule) -> int:
    """Free the deliveries of workers that are gone or too slow; return how many that was."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            _sql.take_over_deliveries, DEAD_AFTER_SECONDS, schedule.max_attempts, TAKE_OVER_BATCH
        )
        await carry(connection, carriers_of(rows))
    await release(database, turns_of(row for row in rows if row["state"] == "failed"))
    return len(rows)
