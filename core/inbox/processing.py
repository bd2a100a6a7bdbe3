"""Applying events: a batch is claimed, decided on without the database, and applied in one transaction.

A claim is one row, which names its events; the transaction that finishes them holds it. That transaction finds no claim
when the lease has gone to another worker, and then nothing of it happens.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from core import ids, metrics, tasks, tracing
from core.database import ClaimGoneError, queries
from core.errors import Refusal, Unavailable
from core.inbox.applying import Batch, BatchApplier, Idle, Posted, failure_of
from core.inbox.dead_letters import say_dead
from core.inbox.rules import Failed, Ignored, InboxEvent, Named, Post, Transition, read_event
from core.inbox.traced import traced
from core.inbox.transitions import Moved, apply_transitions
from core.work import wakeup
from core.work.due_window import DueWindow
from core.work.leases import DEAD_AFTER_SECONDS
from core.work.retries import full_jitter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self
    from uuid import UUID

    from core.database import Database, Row
    from core.inbox.dead_letters import DeadLetterStream
    from core.inbox.rules import Admission, Decision, Owners, Reading, Target
    from core.inbox.transitions import Engine
    from core.ledger.ledger import Ledger
    from core.outbox.fanout import Handover
    from core.settings import Settings
    from core.work.due_window import Look
    from core.work.leases import Worker

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# One claim takes so many events: a tenth of a second of work, so that a second worker soon finds some, too.
BATCH: Final = 200
# One worker applies so many batches at once: while one waits for the database, the next one is read and decided on. A
# batch that leaves nothing due is waited for: what arrives meanwhile makes a larger one, which costs less.
MOST_UNDER_WAY: Final = 3
# One that takes longer than this waits for a lock or a slow disk.
ALONE_SECONDS: Final = 0.1
# The wait before another look for an event whose object another worker has in hand.
SKIPPED_SECONDS: Final = 0.05
# The lease is many times as long as a batch takes; it only matters for a worker that lives and hangs.
LEASE_SECONDS: Final = 60.0
# Claims of lost workers that are ended in one statement.
TAKE_OVER_BATCH: Final = 10
# An error is a code and a sentence; so many characters of it are kept.
MAX_ERROR: Final = 500
# The owners of so many accounts are remembered, since an account never changes hands.
REMEMBERED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Retries:
    """The number of attempts at a failing event, and the bounds of the random waits between them in seconds.

    A wait is below `base * 2 ** (attempt - 1)`. The defaults try for about half an hour before a person has to look.
    """

    max_attempts: int = 12
    base_seconds: float = 1.0
    cap_seconds: float = 900.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read INBOX_MAX_ATTEMPTS, INBOX_RETRY_BASE_SECS and INBOX_RETRY_CAP_SECS."""
        return cls(settings.inbox_max_attempts, settings.inbox_retry_base_secs, settings.inbox_retry_cap_secs)


class Processor:
    """The part of one worker that applies events. `wake` gets the topics that have work after a commit.

    With an `engine` the events of its payments are transitions of theirs; without one they have no effect. A `sender`
    gets what few events tell with their commit; without one that is left to the fan-out.
    """

    def __init__(  # noqa: PLR0913 - the tools of a worker; most have a harmless default
        self,
        database: Database,
        ledger: Ledger,
        worker: Worker,
        *,
        admission: Admission,
        wake: Callable[[str], None],
        engine: Engine | None = None,
        retries: Retries | None = None,
        stream: DeadLetterStream | None = None,
        sender: Handover | None = None,
    ) -> None:
        self._database = database
        self._worker = worker
        self._wake = wake
        self._retries = retries or Retries()
        self._admission = admission
        self._engine = engine
        self._applier = BatchApplier(database, ledger, sender)
        self._stream = stream
        self._left_behind = False
        self._has_skipped = False
        # The number of batches that have ended so far.
        self._ended = 0
        self._under_way: set[asyncio.Task[None]] = set()
        # The batch that was begun last, if others should wait for it.
        self._last: asyncio.Task[None] | None = None
        self._due_window = DueWindow()
        self._owners: OrderedDict[str, int] = OrderedDict()

    async def step(self) -> int:
        """Claim and apply one batch; return the number of its events.

        Another look is called for where this one has left something that was due.
        """
        batch = await self._claim()
        if batch is None:
            return 0
        await self._work_off(batch)
        return len(batch.events)

    async def start(self) -> int:
        """Claim a batch and begin to apply it; return the number of its events.

        A call waits where MOST_UNDER_WAY others are being applied, and for the last one if that has left nothing due.
        """
        # One that takes longer holds up this look, and no other.
        last, self._last = self._last, None
        if last is not None and not last.done():
            await asyncio.wait([last], timeout=ALONE_SECONDS)
        if len(self._under_way) >= MOST_UNDER_WAY:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        batch = await self._claim()
        if batch is None:
            return 0
        task = asyncio.create_task(self._work_off(batch))
        self._under_way.add(task)
        self._last = None if batch.leaves_more else task
        task.add_done_callback(self._under_way.discard)
        return len(batch.events)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for the batches that are under way, then give back what was claimed and not applied."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=timeout_seconds)
            await tasks.end(*late)
        await self.release()

    async def _claim(self) -> Batch | None:
        if self._left_behind:
            # The database went away under the last batch; its events would else wait for their leases to end.
            await self.release()
        token = ids.new_uuid()
        look = self._due_window.look()
        ended = self._ended
        try:
            rows = await self._look(look, token)
            if not rows and (further := self._due_window.again(look)) is not None:
                look = further
                rows = await self._look(look, token)
        except BaseException:
            self._left_behind = True
            raise
        more = bool(rows) and rows[0]["more"]
        # Another batch has the object of an event that was skipped; its end calls for another look, unless it has ended
        # meanwhile or is another worker's.
        self._has_skipped = bool(rows) and rows[0]["skipped"]
        if self._has_skipped and (self._ended != ended or not self._under_way):
            asyncio.get_running_loop().call_later(SKIPPED_SECONDS, self._wake, wakeup.INBOX)
        rows = [row for row in rows if row["id"] is not None]
        if not self._has_skipped:
            self._due_window.seen(look, min(row["waited_seconds"] for row in rows) if more and rows else 0.0)
        if more:
            self._wake(wakeup.INBOX)
        if not rows:
            return None
        return Batch(
            token, [InboxEvent(*[row[name] for name in InboxEvent._fields]) for row in rows], leaves_more=more
        )

    async def _look(self, look: Look, token: UUID) -> list[Row]:
        with metrics.CLAIM_SECONDS.timed("inbox"):
            return await self._database.fetch(
                _sql.claim_inbox_events, BATCH, self._worker.id, token, LEASE_SECONDS, look.seconds
            )

    async def release(self) -> None:
        """Give back the events that were claimed and not applied."""
        self._left_behind = False
        try:
            if await self._database.execute(_sql.release_inbox_events, self._worker.id):
                self._due_window.forget()
        except BaseException:
            self._left_behind = True
            raise

    async def _work_off(self, batch: Batch) -> None:
        async with traced(batch):
            await self._apply_and_tell(batch)

    async def _apply_and_tell(self, batch: Batch) -> None:
        word = "left_behind"
        try:
            await self._apply(batch)
            if not batch.has_ended:
                await self._put_back(batch)
        except ClaimGoneError:
            word = "lease_lost"
        except Unavailable:
            self._left_behind = True
        except Exception:
            # The events wait until the lease runs out. Giving them back now would try them again at once.
            log.exception("inbox.not_recorded", events=len(batch.events))
            word = "not_recorded"
        if batch.wakes:
            self._wake(wakeup.OUTBOX)
        if batch.has_due:
            self._wake(wakeup.DELIVERIES)
        for event in batch.events:
            batch.words.setdefault(event.id, word)
        log.info("inbox.batch", events=len(batch.events), **Counter(batch.words.values()))
        self._ended += 1
        if self._has_skipped:
            self._has_skipped = False
            self._wake(wakeup.INBOX)

    async def _apply(self, batch: Batch) -> None:
        posts: list[Posted] = []
        idle: list[Idle] = []
        moved: list[Moved] = []
        for event, decision in await self._decide(batch):
            if isinstance(decision, Post):
                posts.append(Posted(event, decision))
            elif isinstance(decision, Ignored):
                idle.append(Idle(event, decision))
            elif isinstance(decision, Transition):
                moved.append(Moved(event, decision))
            else:
                batch.fail(event, decision)
        if moved and self._engine is not None:
            await apply_transitions(self._engine, batch, moved, last=not (posts or idle))
        await self._applier.apply(batch, posts, idle)

    async def _decide(self, batch: Batch) -> list[tuple[InboxEvent, Decision]]:
        """Read all events, then the rows that they name, then decide on each."""
        read = [(event, self._read(event)) for event in batch.events]
        targets, owners = await self._known(read)
        decided = []
        for event, found in read:
            with tracing.within(batch.spans.get(event.id)):
                decided.append((event, _decision(event, found, targets.get(event.id), owners)))
        return decided

    def _read(self, event: InboxEvent) -> Named | Reading | Ignored | Failed:
        try:
            if self._engine is None:
                return read_event(event, self._admission)
            return read_event(event, self._admission, self._engine.read)
        except Exception as error:  # noqa: BLE001 - a body that breaks our code fails its own event alone
            return failure_of(event, error)

    async def _known(
        self, read: Sequence[tuple[InboxEvent, Named | Reading | Ignored | Failed]]
    ) -> tuple[dict[UUID, Target], Owners]:
        """Return what events of payments are about, and the owners of accounts, as far as both are known here.

        That is one round trip. Owners are remembered; meanwhile another batch may make this worker forget some.
        """
        codes = {code for _, found in read for code in _accounts_of(found)}
        owners = {code: self._owners[code] for code in codes if code in self._owners}
        missing = [code for code in codes if code not in owners]
        opened: Owners = {}
        named = [(event, found) for event, found in read if isinstance(found, Named)]
        targets: dict[UUID, Target] = {}
        if named and self._engine is not None:
            wanted = [(event.provider, one.told.names) for event, one in named]
            known, opened = await self._engine.known(wanted, missing)
            for (event, _), target in zip(named, known, strict=True):
                if target is not None:
                    targets[event.id] = target
        elif missing:
            rows = await self._database.fetch(_sql.account_owners, missing)
            opened = {row["code"]: row["created_by"] for row in rows}
        self._owners.update(opened)
        while len(self._owners) > REMEMBERED:
            self._owners.popitem(last=False)
        return targets, {**owners, **opened}

    async def _put_back(self, batch: Batch) -> None:
        """End the claim; put its failed events back for another attempt, or give them up when none can help."""
        rows = [(event, failure, self._wait_seconds(event, failure)) for event, failure in batch.failed]
        errors = [_error(failure) for _, failure, _ in rows]
        letters = await self._database.fetch(
            _sql.put_back_inbox_events,
            batch.token,
            self._worker.id,
            [event.id for event, _, _ in rows],
            [failure.code for _, failure, _ in rows],
            errors,
            [wait for _, _, wait in rows],
        )
        for (event, _, wait), error in zip(rows, errors, strict=True):
            batch.words[event.id] = "dead" if wait is None else "put_back"
            if wait is not None:
                log.warning(
                    "inbox.event_put_back", event_id=event.event_id, attempt=event.attempts, error=error
                )
        await say_dead(letters, self._stream)

    def _wait_seconds(self, event: InboxEvent, failure: Failed) -> float | None:
        """Return how long a failed event waits, or None when it is given up."""
        if failure.final or event.attempts >= self._retries.max_attempts:
            return None
        return full_jitter(
            event.attempts, base_seconds=self._retries.base_seconds, cap_seconds=self._retries.cap_seconds
        )


def _accounts_of(found: Named | Reading | Ignored | Failed) -> tuple[str, ...]:
    rule = found.otherwise if isinstance(found, Named) else found
    return () if isinstance(rule, Ignored | Failed) else rule.accounts


def _decision(
    event: InboxEvent, found: Named | Reading | Ignored | Failed, target: Target | None, owners: Owners
) -> Decision:
    if isinstance(found, Ignored | Failed):
        return found
    try:
        return found.decide(target, owners) if isinstance(found, Named) else found.decide(owners)
    except Refusal as refusal:
        return Failed(refusal.code, refusal.detail)
    except Exception as error:  # noqa: BLE001 - a body that breaks our code fails its own event alone
        return failure_of(event, error)


def _error(failure: Failed) -> str:
    # PostgreSQL's text holds neither NUL nor half of a surrogate pair, and the detail may quote the body.
    text = f"{failure.code}: {failure.detail}".replace("\x00", "\ufffd")
    return text.encode(errors="replace").decode()[:MAX_ERROR]


async def take_over_inbox_events(
    database: Database, retries: Retries | None = None, stream: DeadLetterStream | None = None
) -> int:
    """Free the events of workers that are gone or hang; return the number of events."""
    limit = (retries or Retries()).max_attempts
    rows = await database.fetch(_sql.take_over_inbox_events, DEAD_AFTER_SECONDS, limit, TAKE_OVER_BATCH)
    await say_dead([row for row in rows if row["state"] == "dead"], stream)
    return len(rows)
