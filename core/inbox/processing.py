"""Applying events: a batch is claimed with a lease, then each event is applied in one transaction with its effect.

The transaction begins by finishing the event under the token of the claim. That statement finds no row when the lease
has gone to another worker, and nothing happens; otherwise the row stays locked until the effect is committed with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog

from core import ids
from core.database import queries
from core.errors import Refusal, Unavailable
from core.inbox.dead_letters import say_dead
from core.inbox.rules import (
    APPLIED,
    RULES,
    AccountNeededError,
    InboxEvent,
    Outcome,
    UnusableEventError,
    ignored,
)
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.work import wakeup
from core.work.due_window import DueWindow
from core.work.leases import DEAD_AFTER_SECONDS
from core.work.retries import full_jitter, in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from core.database import Connection, Database
    from core.inbox.dead_letters import DeadLetterStream
    from core.inbox.rules import Admission, Rule
    from core.ledger.ledger import Ledger
    from core.settings import Settings
    from core.work.leases import Worker

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# One claim takes so many events: a quarter of a second of work, so that a second worker soon finds some, too.
BATCH: Final = 64
# One worker runs so many transactions at once. They share the pool with everything else that the worker does.
CONCURRENCY: Final = 4
# The lease is many times as long as a batch takes; it only matters for a worker that lives and hangs.
LEASE_SECONDS: Final = 60.0
TAKE_OVER_BATCH: Final = 1000

# A reason or an error is a sentence; so many characters of it are kept.
MAX_REASON: Final = 500
# An event is applied again at once where its effect needed an account that had to be opened first, this often at most.
MAX_OPENINGS: Final = 3


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


class _LeaseLostError(Exception):
    """Another worker has taken the event over, so that worker's transaction counts and ours must not."""


class Processor:
    """The part of one worker that applies events. `wake` gets the topics that have work after a commit."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        worker: Worker,
        *,
        admission: Admission,
        wake: Callable[[str], None],
        retries: Retries | None = None,
        stream: DeadLetterStream | None = None,
    ) -> None:
        self._database = database
        self._worker = worker
        self._wake = wake
        self._retries = retries or Retries()
        self._admission = admission
        self._ledger = ledger
        self._stream = stream
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._left_behind = False
        self._due_window = DueWindow()

    async def step(self) -> int:
        """Claim and apply one batch; return the number of its events."""
        if self._left_behind:
            # The database went away under the last batch; its events would else wait for their leases to end.
            await self.release()
        token = ids.new_uuid()
        look = self._due_window.look()
        self._left_behind = True
        rows = await self._database.fetch(
            _sql.claim_inbox_events, BATCH, self._worker.id, token, LEASE_SECONDS, look.seconds
        )
        self._left_behind = False
        more = len(rows) == BATCH
        self._due_window.seen(look, min(row["waited_seconds"] for row in rows) if more else 0.0)
        if not rows:
            return 0
        # The events of one object go one after the other, in the order of arrival within this batch. That saves waiting
        # for locks; correctness rests on effects that commute.
        of_object: defaultdict[str, list[InboxEvent]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row["received_at"]):
            event = InboxEvent(**{name: row[name] for name in InboxEvent._fields})
            of_object[event.object_id or event.event_id].append(event)
        results = await asyncio.gather(*(self._apply_in_turn(events, token) for events in of_object.values()))
        counts = sum(results, Counter[str]())
        log.info("inbox.batch", events=len(rows), **counts)
        return len(rows)

    async def release(self) -> None:
        """Give back the events that were claimed and not begun."""
        await self._database.execute(_sql.release_inbox_events, self._worker.id)
        self._left_behind = False

    async def _apply_in_turn(self, events: Sequence[InboxEvent], token: UUID) -> Counter[str]:
        counts: Counter[str] = Counter()
        for event in events:
            async with self._slots:
                counts[await self._apply(event, token)] += 1
        return counts

    async def _apply(self, event: InboxEvent, token: UUID) -> str:
        """Apply one event and return the result, a word for the log line of the batch."""
        try:
            outcome = await self._apply_once(event, token)
        except _LeaseLostError:
            result = "lease_lost"
        except UnusableEventError as error:
            result = await self._fail(event, token, "unusable_payload", str(error), final=True)
        except Unavailable as error:
            if error.code == "busy":
                result = await self._fail(event, token, error.code, error.detail)
            else:
                self._left_behind = True
                result = "left_behind"
        except Refusal as refusal:
            result = await self._fail(event, token, refusal.code, refusal.detail)
        except Exception as error:
            log.exception("inbox.event_failed", event_id=event.event_id, event_type=event.event_type)
            result = await self._fail(event, token, "internal_error", f"{type(error).__name__}: {error}")
        else:
            result = outcome
        return result

    async def _apply_once(self, event: InboxEvent, token: UUID) -> str:
        rule = RULES.get((event.provider, event.event_type))
        if rule is None:
            return await self._ignore(event, token, f"no_rule: {event.event_type} has no effect here.")
        if objection := self._admission.objection(event):
            return await self._ignore(event, token, objection)
        for _ in range(MAX_OPENINGS):
            try:
                outcome = await in_transaction(
                    self._database, lambda connection: self._apply_rule(connection, rule, event, token)
                )
            except AccountNeededError as needed:
                opening = Opening(needed.code, needed.currency, Limits(floor=None))
                await open_accounts(self._database, [opening], SYSTEM_PRINCIPAL)
            else:
                self._wake(wakeup.OUTBOX)
                return outcome.word
        raise Refusal("busy", "The effect needs more accounts than are opened at once.")

    async def _ignore(self, event: InboxEvent, token: UUID, reason: str) -> str:
        outcome = ignored(reason[:MAX_REASON])
        if await self._database.fetchval(_sql.finish_inbox_event, event.id, token, *outcome) is None:
            raise _LeaseLostError
        return outcome.word

    async def _apply_rule(
        self, connection: Connection, rule: Rule, event: InboxEvent, token: UUID
    ) -> Outcome:
        if await connection.fetchval(_sql.finish_inbox_event, event.id, token, *APPLIED) is None:
            raise _LeaseLostError
        if event.object_id is not None:
            await connection.fetchval(_sql.lock_inbox_object, event.provider, event.object_id)
        outcome = await rule(connection, self._ledger, event)
        if outcome != APPLIED:
            await connection.execute(_sql.correct_inbox_outcome, event.id, *outcome)
        return outcome

    async def _fail(
        self, event: InboxEvent, token: UUID, code: str, detail: str, *, final: bool = False
    ) -> str:
        """Put the event back for another attempt; give it up when it has had them all, or (`final`) none can help."""
        # PostgreSQL's text holds neither NUL nor half of a surrogate pair, and the detail may quote the body.
        error = f"{code}: {detail}".replace("\x00", "\ufffd").encode(errors="replace").decode()[:MAX_REASON]
        try:
            if final or event.attempts >= self._retries.max_attempts:
                letters = await self._database.fetch(
                    _sql.bury_inbox_event, event.id, token, code, error, self._worker.id
                )
                await say_dead(letters, self._stream)
                return "dead"
            wait = full_jitter(
                event.attempts, base_seconds=self._retries.base_seconds, cap_seconds=self._retries.cap_seconds
            )
            await self._database.execute(
                _sql.retry_inbox_event, event.id, token, wait, code, error, self._worker.id
            )
        except Unavailable:
            self._left_behind = True
            return "left_behind"
        except Exception:
            # The event waits until its lease runs out. Giving it back now would try it again at once.
            log.exception("inbox.not_recorded", event_id=event.event_id)
            return "not_recorded"
        log.warning("inbox.event_put_back", event_id=event.event_id, attempt=event.attempts, error=error)
        return "put_back"


async def take_over_inbox_events(
    database: Database, retries: Retries | None = None, stream: DeadLetterStream | None = None
) -> int:
    """Free the events of workers that are gone or hang; return the number of events."""
    limit = (retries or Retries()).max_attempts
    rows = await database.fetch(_sql.take_over_inbox_events, DEAD_AFTER_SECONDS, limit, TAKE_OVER_BATCH)
    await say_dead([row for row in rows if row["state"] == "dead"], stream)
    return len(rows)
