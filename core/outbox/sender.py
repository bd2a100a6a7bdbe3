"""The sender of due deliveries: a claim with a lease, its commit, only then the request, at last the record of it.

A delivery may be sent twice, when a worker dies after the receiver has answered, always with the same ids and bytes; it
is never lost. No receiver holds up another: each has a share of the slots, a claim visits the receivers in turn, and
a slow or dead one gets a small share (`core.outbox.breakers`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog

from core import ids, metrics, tasks
from core.database import queries
from core.outbox.backlog import Backlog, Share
from core.outbox.batching import Message, carriers_of, carry, messages_of
from core.outbox.breakers import FIRST_SLOTS, SLOTS_OF_OTHER, Breakers
from core.outbox.callbacks import Courier
from core.outbox.egress import GONE_STATUS, TOTAL_TIMEOUT_SECONDS, UNREAD, Reply
from core.outbox.fanout import Room
from core.outbox.health import Patience, note_failure, note_success
from core.outbox.ordering import Turn
from core.outbox.recording import Records, Result, Written, result_of
from core.outbox.schedule import Schedule
from core.outbox.signing import Sealed, Signers, message_id
from core.outbox.wire.sending import sent
from core.vault import SealedError, Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.database import Database, Row
    from core.outbox.egress import Egress
    from core.work.leases import Worker

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# A request ends within TOTAL_TIMEOUT_SECONDS and the second for the excerpt; the rest is for the record of the result.
LEASE_SECONDS: Final = 30.0
assert LEASE_SECONDS > 3 * TOTAL_TIMEOUT_SECONDS  # noqa: S101 - a relation between two constants
# A result is written down again and again until so long before the lease may end.
RECORD_SECONDS: Final = 8.0
# Requests that a process has under way at once. Receivers that are not known to be swift share a half of these slots.
SLOTS: Final = 200
SLOTS_OF_OTHERS: Final = 100
# Slots that no receiver gets beside its first ones: a few that have got many, and hang all at once, leave these.
SLOTS_KEPT: Final = 50
# Swift receivers that the fan-out is told of by name, those that answered last; others get what any receiver gets.
KNOWN_SWIFT: Final = 128
# Endpoints that the fan-out is told of because nothing may be handed over to them: they wait, or are left alone.
MOST_EXCLUDED: Final = 256
# Once all slots were taken, a claim is worth its round trip when so many are free again.
SLOTS_AT_ONCE: Final = 16
# Deliveries that are given up in one statement when their endpoint is off.
GIVE_UP_BATCH: Final = 1_000


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
        courier: Courier | None = None,
        on_free: Callable[[], None] = lambda: None,
        on_event: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._egress = egress
        self._worker = worker
        self._schedule = schedule
        self._breakers = breakers or Breakers(0)
        self._patience = patience or Patience(0, 0)
        self._signers = Signers(vault or Vault())
        self._courier = courier or Courier()
        self.callbacks: Counter[str] = Counter()
        """The results of callbacks, by the state that they gave."""
        self._lease_seconds = LEASE_SECONDS + self._courier.longer_seconds
        self._log = log.bind()  # a logger that is bound once knows which lines nobody wants
        self._on_free = on_free
        self._on_event = on_event
        self._sending: set[asyncio.Task[None]] = set()
        # Requests under way, by endpoint, and of those to endpoints that are not swift.
        self._of_endpoint: Counter[UUID] = Counter()
        self._others = 0
        # Slots that a fan-out has been offered and has not yet used, and those for few deliveries, by token.
        self._offered = 0
        self._few: dict[UUID, int] = {}
        self._waits: asyncio.Future[None] | None = None
        # The number of requests to end until the next look, if the last claim left deliveries for want of slots.
        self._held_back = 0
        self._forsaken: set[UUID] = set()  # tokens under which deliveries may be leased that nobody sends
        self._backlog = Backlog(database)
        self._records = Records(database, most_waiting=2 * SLOTS, on_release=on_free)

    async def step(self) -> int:
        """Claim due deliveries, as many as there are free slots, start sending them, and return how many that was."""
        if forsaken := [*self._forsaken]:
            await self._database.execute(_sql.give_back_deliveries, self._worker.id, forsaken)
            self._forsaken.difference_update(forsaken)
        await self._some_are_free()
        token = ids.new_uuid()
        rows = await self._claim(token) if self._backlog.is_fresh else []
        if not rows:
            await self._backlog.look()
            rows = await self._claim(token)
        self._held_back = SLOTS_AT_ONCE if self._backlog and not rows else 0
        try:
            messages = await messages_of(self._database, rows, token)
        except BaseException:
            self.give_back(token)
            raise
        for message in messages:
            self._start(message, token)
        return len(rows)

    def give_back(self, token: UUID) -> None:
        """Give back, with the next step, what is leased under a token that nobody works on."""
        self._forsaken.add(token)
        self._on_free()

    def offer(self, most: int | None = None) -> Room:
        """Return the room for deliveries that a fan-out hands over: those of endpoints for which none waits.

        Endpoints that wait for a claim get their share of the slots first. The room is for `most` deliveries, if given:
        beside that of a fan-out, which takes all there is and mostly finds no event, and so bounded by itself.
        """
        kept = self._offered if most is None else sum(self._few.values())
        free = SLOTS - len(self._sending) - kept
        free -= sum(share.batches for share in self._choose().values())
        free = 0 if self._waits is not None else max(0, free)
        free_of_many = max(0, free - SLOTS_KEPT)
        free = free if most is None else max(0, min(free, most, SLOTS_KEPT - kept))
        # Any room that is kept already may be for receivers that are not swift.
        free_of_others = max(0, min(free, SLOTS_OF_OTHERS - self._others - kept))
        self._offered += free
        token = ids.new_uuid()
        self._few[token] = 0 if most is None else free
        nothing, one = self._breakers.left_alone()
        excluded = {*nothing, *one, *self._backlog}
        known = {*self._breakers.latest_swift(KNOWN_SWIFT), *self._of_endpoint}
        # The list would cost more than a claim does; only those that are known to be swift are worth it.
        many = len(excluded) > MOST_EXCLUDED
        swift = {name for name in known if self._breakers.is_swift(name)}
        known = swift - excluded if many else known | excluded
        rooms = {name: 0 if name in excluded else self._room_of(name, SLOTS) for name in known}
        return Room(
            self._worker.id,
            token,
            self._lease_seconds,
            list(rooms),
            list(rooms.values()),
            [min(room, FIRST_SLOTS - self._of_endpoint[name]) for name, room in rooms.items()],
            [self._breakers.is_swift(name) for name in rooms],
            0 if many else SLOTS_OF_OTHER,
            free,
            min(free, free_of_many),
            free_of_others,
        )

    def take(self, room: Room, rows: Sequence[Row]) -> None:
        """Begin to send what a fan-out has handed over, and take the rest of the room back."""
        self._offered -= room.free
        del self._few[room.token]
        for row in rows:
            self._start(Message(row, message_id(row["event_id"]), row["event_type"], row["body"]), room.token)
        if self._choose():
            self._on_free()

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for the requests that are under way, then give back the deliveries that are not done."""
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=timeout_seconds)
            await tasks.end(*late)
        await self._records.close()
        await self._database.execute(_sql.release_deliveries, self._worker.id)

    async def _some_are_free(self) -> None:
        """Wait, where no slot is free, until so many are that a claim is worth it."""
        if len(self._sending) >= SLOTS:
            self._waits = asyncio.get_running_loop().create_future()
            await self._waits

    async def _claim(self, token: UUID) -> list[Row]:
        """Claim from endpoints that wait until a delivery is found or no endpoint is left whose turn it could be."""
        while asked := self._choose():
            with metrics.CLAIM_SECONDS.timed("deliveries"):
                rows = await self._database.fetch(
                    _sql.claim_deliveries,
                    list(asked),
                    *map(list, zip(*asked.values(), strict=True)),
                    [self._backlog[endpoint_id].since for endpoint_id in asked],
                    self._worker.id,
                    token,
                    self._lease_seconds,
                )
            self._backlog.note(asked, rows)
            if rows:
                return rows
        return []

    def _choose(self) -> dict[UUID, Share]:
        """Return how many deliveries to claim from each endpoint: in turn, as far as the slots reach."""
        nothing, one = self._breakers.left_alone()
        free = SLOTS - len(self._sending) - self._offered
        free_of_others = SLOTS_OF_OTHERS - self._others
        asked: dict[UUID, Share] = {}
        for endpoint_id, waiting in self._backlog.items():
            if free <= 0:
                break
            swift = self._breakers.is_swift(endpoint_id)
            if endpoint_id in nothing or not self._is_worth_a_claim(endpoint_id):
                continue
            trial = endpoint_id in one
            slots = 1 if trial else self._room_of(endpoint_id, free)
            slots = min(slots, free if swift else free_of_others)
            if slots > 0:
                # An endpoint of batches gets one batch at a time, which takes one slot.
                batched = waiting.batch_size > 1 and not trial
                asked[endpoint_id] = Share(waiting.batch_size if batched else slots, slots)
                free -= slots
                free_of_others -= 0 if swift else slots
        return asked

    def _room_of(self, endpoint_id: UUID, free: int | None = None) -> int:
        """Return how many more requests the receiver may be sent, where `free` slots are left (None: as there are)."""
        under_way, most = self._of_endpoint[endpoint_id], self._breakers.slots_of(endpoint_id)
        free = SLOTS - len(self._sending) - self._offered if free is None else free
        return max(0, min(most, FIRST_SLOTS) - under_way, min(most - under_way, free - SLOTS_KEPT))

    def _is_worth_a_claim(self, endpoint_id: UUID) -> bool:
        """Say whether a quarter of the receiver's slots is free: one at a time would be a claim for each answer."""
        free = SLOTS - len(self._sending) - self._offered
        most = min(self._breakers.slots_of(endpoint_id), max(FIRST_SLOTS, free - SLOTS_KEPT))
        return self._room_of(endpoint_id) >= max(1, most // 4)

    def _start(self, message: Message, token: UUID) -> None:
        endpoint_id = message.row["endpoint_id"]
        swift = self._breakers.is_swift(endpoint_id)
        self._of_endpoint[endpoint_id] += 1
        self._others += not swift
        trial = self._breakers.started(endpoint_id)
        task = asyncio.create_task(self._send_and_record(message, token, swift=swift, trial=trial))
        self._sending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if self._held_back:
            # A look at all receivers that wait, for each slot that is free, would cost more than the requests.
            self._held_back -= 1
            if (self._held_back == 0 or not self._sending) and not self._call_for_a_claim():
                self._held_back = SLOTS_AT_ONCE
        if self._waits is not None and len(self._sending) <= SLOTS - SLOTS_AT_ONCE:
            if not self._waits.done():
                self._waits.set_result(None)
            self._waits = None

    def _call_for_a_claim(self) -> bool:
        """Call for a claim if one would find something, and say so."""
        if not self._choose():
            return False
        self._held_back = 0
        self._on_free()
        return True

    async def _send_and_record(self, message: Message, token: UUID, *, swift: bool, trial: bool) -> None:
        row = message.row
        endpoint_id = row["endpoint_id"]
        until = time.monotonic() + self._lease_seconds - RECORD_SECONDS
        try:
            try:
                result = await self._send(message, token)
            finally:
                # The receiver is free for another request; the record takes its time.
                self._let_go(endpoint_id, swift=swift, trial=trial)
            again = result.state == "pending" and message.request is not None
            ends = row["ordered_object"] is not None and (again or result.state != "pending")
            turn = Turn(endpoint_id, row["ordered_object"]) if ends else None
            if not await self._records.add(Written(result, turn, message.is_batch, again), until=until):
                log.warning("delivery.lease_lost", delivery_id=str(row["id"]), state=result.state)
            if result.sent_at is not None:
                await self._note_health(message, result)
            else:  # the endpoint is off or gone; its backlog need not be claimed to learn that
                await self._give_up_backlog(endpoint_id, result.last_error)
        except Exception:  # the lease will run out, and the delivery is sent again
            log.exception("delivery.not_recorded", delivery_id=str(row["id"]))

    def _let_go(self, endpoint_id: UUID, *, swift: bool, trial: bool) -> None:
        """Free the slot of a request, and call for a claim where that lets one begin which the slot has held back."""
        self._breakers.abandoned(endpoint_id)
        held_back = trial or self._others >= SLOTS_OF_OTHERS or not self._is_worth_a_claim(endpoint_id)
        self._others -= not swift
        self._of_endpoint[endpoint_id] -= 1
        if not self._of_endpoint[endpoint_id]:
            del self._of_endpoint[endpoint_id]
        if held_back and self._backlog and self._is_worth_a_claim(endpoint_id):
            self._on_free()

    async def _send(self, message: Message, token: UUID) -> Result:
        row = message.row
        if row["url"] is None or row["disabled"]:
            reason = "endpoint_missing" if row["url"] is None else "endpoint_disabled"
            return Result(row["id"], token, "failed", reason)
        sent_at = datetime.now(UTC)
        reply = await self._post(message)
        full = not self._room_of(row["endpoint_id"])
        self._breakers.note(row["endpoint_id"], good=reply.well, seconds=reply.seconds, full=full)
        judge = partial(
            result_of,
            row,
            token,
            sent_at=sent_at,
            schedule=self._courier.schedule_of(message.request, self._schedule),
            ends_gone=message.request is None,
        )
        try:
            result = judge(reply)
        except Exception:
            # An answer that breaks our code is a failed attempt like any other, or it would come again without an end.
            log.exception("delivery.answer_unread", delivery_id=str(row["id"]))
            reply = Reply(None, UNREAD, reply.seconds)
            result = judge(reply)
        metrics.DELIVERY_ATTEMPTS.add("success" if reply.succeeded else "error")
        metrics.DELIVERY_SECONDS.observe(reply.seconds)
        if result.state != "pending":
            metrics.DELIVERIES.add(result.state)
        # A line for each delivery would cost more than the delivery; the metrics count successes.
        (self._log.debug if reply.succeeded else self._log.warning)(
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
            own, signer = self._signers.of(
                row["endpoint_id"], Sealed(row["headers"], row["secrets"], row["signing_keys"])
            )
        except SealedError as error:
            return Reply(None, error.detail, 0.0)
        signed = signer.headers(
            identity=message.identity,
            event_type=message.event_type,
            delivery_id=row["id"],
            body=message.body,
            timestamp=int(time.time()),
        )
        return await sent(self._egress, self._courier, message, own, signed)

    async def _note_health(self, message: Message, result: Result) -> None:
        row = message.row
        if message.request is not None:
            self.callbacks[result.state] += 1  # nobody could switch their receiver on again
            return
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
