"""Sending what is due: claim with a lease, commit, and only then HTTP; afterwards write down what came of it.

A delivery may be sent twice (a worker that dies after the receiver has answered), always with the same ids and bytes;
it is never lost. No receiver holds up another: each has a share of the slots, and a claim visits them in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import structlog

from core import ids, metrics
from core.backoff import half_jitter
from core.database import statements
from core.lane import Lane
from core.leases import DEAD_AFTER_SECONDS
from core.outbox.egress import TOTAL_TIMEOUT_SECONDS
from core.outbox.signing import signed_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.database import Database, Row
    from core.leases import Worker
    from core.outbox.egress import Attempt, Egress
    from core.settings import Settings

log = structlog.get_logger(__name__)
_sql = statements("outbox")

# A send ends within TOTAL_TIMEOUT_SECONDS and the second for the excerpt; the rest is for writing down the result.
LEASE_SECONDS: Final = 30.0
assert LEASE_SECONDS > 3 * TOTAL_TIMEOUT_SECONDS  # noqa: S101 - a relation between two constants
# Deliveries of a process under way at once; and a receiver that has this many of them gets no more, while one claim may
# bring as many again.
SLOTS: Final = 100
SLOTS_OF_ENDPOINT: Final = 8
# With factors set for it, a wait could grow to years.
MAX_RETRY_SECONDS: Final = 86_400.0
TAKE_OVER_BATCH: Final = 1000
# Results written in one statement.
RECORD_BATCH: Final = 200

_START: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a delivery is tried and how long is waited: about `base * factor ** (attempt - 1)` seconds."""

    base_seconds: float
    factor: float
    max_attempts: int

    @classmethod
    def of(cls, settings: Settings) -> Schedule:
        """Read the schedule of WEBHOOK_BASE_DELAY_SECS, WEBHOOK_BACKOFF_FACTOR and WEBHOOK_MAX_ATTEMPTS."""
        return cls(
            settings.webhook_base_delay_secs, settings.webhook_backoff_factor, settings.webhook_max_attempts
        )


class Result(NamedTuple):
    """What is to be written down about one claimed delivery."""

    id: UUID
    token: UUID
    state: str
    status: int | None
    error: str | None
    retry_seconds: float


class Deliverer:
    """The sending of one worker process. `step` starts what can be started; `drain` waits for what is under way.

    `on_free` is called when a receiver that had all its slots has one again, so that its backlog goes on at once.
    """

    def __init__(
        self,
        database: Database,
        egress: Egress,
        worker: Worker,
        schedule: Schedule,
        *,
        on_free: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._egress = egress
        self._worker = worker
        self._schedule = schedule
        self._on_free = on_free
        self._sending: set[asyncio.Task[None]] = set()
        self._of_endpoint: Counter[UUID] = Counter()
        self._cursor = _START
        self._results: Lane[Result, bool] = Lane(self._record, max_batch=RECORD_BATCH, max_waiting=2 * SLOTS)

    async def step(self) -> int:
        """Claim what is due, as much as there are free slots, start sending it, and return how much that was."""
        while len(self._sending) >= SLOTS:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
        token = ids.new_uuid()
        rows = await self._claim(token, SLOTS - len(self._sending))
        for row in rows:
            self._of_endpoint[row["endpoint_id"]] += 1
            task = asyncio.create_task(self._deliver(row, token))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return len(rows)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for what is under way, then give back what is not done."""
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._results.close()
        await self._database.execute(_sql.release_deliveries, self._worker.id)

    async def _claim(self, token: UUID, free: int) -> list[Row]:
        """Go round the endpoints from where the last claim ended; begin anew when the round is over."""
        rows = await self._claim_after(self._cursor, token, free)
        if len(rows) == free:
            self._cursor = rows[-1]["endpoint_id"]
        elif self._cursor != _START:
            self._cursor = _START
            if not rows:
                rows = await self._claim_after(_START, token, free)
        return rows

    async def _claim_after(self, cursor: UUID, token: UUID, free: int) -> list[Row]:
        busy = [endpoint for endpoint, count in self._of_endpoint.items() if count >= SLOTS_OF_ENDPOINT]
        return await self._database.fetch(
            _sql.claim_deliveries,
            free,
            SLOTS_OF_ENDPOINT,
            busy,
            self._worker.id,
            token,
            LEASE_SECONDS,
            cursor,
        )

    async def _deliver(self, row: Row, token: UUID) -> None:
        try:
            result = await self._send(row, token)
            held = await self._results.submit(result)
            if not held:
                log.warning("delivery.lease_lost", delivery_id=str(row["id"]), state=result.state)
        except Exception:  # the lease runs out and the delivery is sent again
            log.exception("delivery.not_recorded", delivery_id=str(row["id"]))
        finally:
            self._release_slot(row["endpoint_id"])

    def _release_slot(self, endpoint_id: UUID) -> None:
        was_full = self._of_endpoint[endpoint_id] >= SLOTS_OF_ENDPOINT
        self._of_endpoint[endpoint_id] -= 1
        if not self._of_endpoint[endpoint_id]:
            del self._of_endpoint[endpoint_id]
        if was_full:
            self._on_free()

    async def _send(self, row: Row, token: UUID) -> Result:
        if row["url"] is None:
            return Result(row["id"], token, "failed", None, "endpoint_missing", 0.0)
        headers = signed_headers(
            event_id=row["event_id"],
            event_type=row["event_type"],
            delivery_id=row["id"],
            body=row["body"],
            secrets=row["secrets"],
            timestamp=int(time.time()),
        )
        attempt = await self._egress.post(row["url"], body=row["body"], headers=headers)
        result = self._judge(row, token, attempt)
        metrics.DELIVERY_ATTEMPTS.add("success" if attempt.succeeded else "error")
        metrics.DELIVERY_SECONDS.observe(attempt.seconds)
        if result.state != "pending":
            metrics.DELIVERIES.add(result.state)
        # A line a delivery would cost more than the delivery; successes are counted by the metrics.
        (log.debug if attempt.succeeded else log.warning)(
            "delivery.attempt",
            delivery_id=str(row["id"]),
            event_id=str(row["event_id"]),
            event_type=row["event_type"],
            attempt=row["attempts"],
            status=attempt.status,
            error=attempt.error,
            state=result.state,
            seconds=round(attempt.seconds, 4),
        )
        return result

    def _judge(self, row: Row, token: UUID, attempt: Attempt) -> Result:
        if attempt.succeeded:
            return Result(row["id"], token, "delivered", attempt.status, None, 0.0)
        error = attempt.error or f"answered {attempt.status}: {attempt.excerpt}"[:500]
        if row["attempts"] >= self._schedule.max_attempts:
            return Result(row["id"], token, "failed", attempt.status, error, 0.0)
        wait = half_jitter(
            row["attempts"],
            base_seconds=self._schedule.base_seconds,
            cap_seconds=MAX_RETRY_SECONDS,
            factor=self._schedule.factor,
        )
        return Result(row["id"], token, "pending", attempt.status, error, wait)

    async def _record(self, results: Sequence[Result]) -> list[bool]:
        columns: list[list[Any]] = [list(column) for column in zip(*results, strict=True)]
        held = {row["id"] for row in await self._database.fetch(_sql.record_deliveries, *columns)}
        return [result.id in held for result in results]


async def take_over_deliveries(database: Database, schedule: Schedule) -> int:
    """Free the deliveries of workers that are gone or too slow; return how many."""
    rows = await database.fetch(
        _sql.take_over_deliveries, DEAD_AFTER_SECONDS, schedule.max_attempts, TAKE_OVER_BATCH
    )
    return len(rows)
