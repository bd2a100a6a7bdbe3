"""Applying a batch of decisions: one call of the posting function, and smaller ones where something in it fails.

The call posts everything, tells what is to be told and finishes the events, in one transaction. An event that fails in
a way that no check foresaw fails the whole call, so the batch is then cut in halves until that one is found. Events
about an account that somebody keeps locked are left out at once. Refused events stay in the claim. A call that fans out
what it tells is made again without that before anything else, since money must not hang on a receiver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg
import structlog

from core.database import ClaimGoneError, queries
from core.errors import Unavailable
from core.inbox.rules import ALREADY_APPLIED, APPLIED, IGNORED, Failed
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL, Delivering, Finishing
from core.outbox.fanout import handing_over, waiting_since

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from opentelemetry.trace import Span

    from core.database import Database
    from core.inbox.rules import Ignored, InboxEvent, Post
    from core.ledger.items import Outcome
    from core.ledger.ledger import Ledger
    from core.outbox.fanout import Handover

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# A reason is a code and a sentence; so many characters of it are kept.
MAX_REASON: Final = 500
# Events are applied again at once where their effects needed accounts that had to be opened first, this often at most.
MAX_OPENINGS: Final = 3
# A call of so few events fans out what it tells. In a backlog a step of its own does that for 200 at a time, and the
# money does not wait for it.
MOST_AT_ONCE: Final = 32


class Posted(NamedTuple):
    """An event whose rule has decided to post."""

    event: InboxEvent
    post: Post


class Idle(NamedTuple):
    """An event whose rule has decided that it has no effect."""

    event: InboxEvent
    decision: Ignored


class Batch:
    """The events of one claim, and what has become of them so far.

    `words` has a word for each event that is done, `failed` those that are not. Its commits have left events to be
    fanned out where it `wakes`, and deliveries to be claimed where it `has_due`.
    The claim `has_ended` with the last event that was done, if none had failed by then; it `leaves_more` where others
    were due beside its events.
    """

    def __init__(self, token: UUID, events: Sequence[InboxEvent], *, leaves_more: bool = False) -> None:
        self.token = token
        self.events = events
        self.leaves_more = leaves_more
        self.words: dict[UUID, str] = {}
        self.failed: list[tuple[InboxEvent, Failed]] = []
        self.wakes = False
        self.has_due = False
        self.has_ended = False
        # The spans of those events whose traces are kept.
        self.spans: dict[UUID, Span] = {}

    def fail(self, event: InboxEvent, failure: Failed) -> None:
        """Note a failure."""
        self.failed.append((event, failure))


class BatchApplier:
    """Applies decided events. Raises ClaimGoneError, and Unavailable when the server is gone."""

    def __init__(self, database: Database, ledger: Ledger, sender: Handover | None = None) -> None:
        self._database = database
        self._ledger = ledger
        self._sender = sender

    async def apply(self, batch: Batch, posts: Sequence[Posted], idle: Sequence[Idle]) -> None:
        """Post, tell and finish; open the system accounts that are missing, and go on with what needed them."""
        again, needed = await self._once(batch, posts, idle)
        for _ in range(MAX_OPENINGS):
            if not again:
                return
            openings = [Opening(code, currency, Limits(floor=None)) for code, currency in needed.items()]
            await open_accounts(self._database, openings, SYSTEM_PRINCIPAL)
            again, needed = await self._once(batch, again, ())
        for one in again:
            batch.fail(one.event, Failed("busy", "The effect needs more accounts than are opened at once."))

    async def _once(
        self, batch: Batch, posts: Sequence[Posted], idle: Sequence[Idle]
    ) -> tuple[list[Posted], dict[str, str]]:
        """Return the events that need an account which is not open, and the accounts with their currencies."""
        ends = not batch.failed
        if posts:
            outcomes = await self._post(batch, posts, idle, ends=ends)
        else:
            outcomes = []
            await self._finish_idle(batch, idle, ends=ends)
        again: list[Posted] = []
        needed: dict[str, str] = {}
        for one, outcome in zip(posts, outcomes, strict=True):
            if isinstance(outcome, Failed):
                batch.fail(one.event, outcome)
            elif outcome.posted:
                batch.words[one.event.id] = ALREADY_APPLIED if outcome.replayed else APPLIED
                batch.wakes |= outcome.wakes
            elif outcome.kind.code == "account_not_found" and outcome.account in one.post.opens:
                again.append(one)
                needed |= one.post.opens
            else:
                refusal = outcome.refusal()
                batch.fail(one.event, Failed(refusal.code, refusal.detail))
        return again, needed

    async def _post(
        self, batch: Batch, posts: Sequence[Posted], idle: Sequence[Idle], *, ends: bool
    ) -> list[Outcome | Failed]:
        try:
            outcomes = await self._call(batch, posts, idle, ends=ends)
        except Exception as error:
            if concerns_all(error):
                raise
            await self._finish_idle(batch, idle, ends=False)
            return await self._apart(batch, posts, error, told=self._tells_at_once(posts))
        batch.has_ended = ends and all(outcome.posted for outcome in outcomes)
        return [*outcomes]

    async def _part(
        self, batch: Batch, posts: Sequence[Posted], *, tells: bool = True
    ) -> list[Outcome | Failed]:
        try:
            return [*await self._call(batch, posts, (), ends=False, tells=tells)]
        except Exception as error:
            if concerns_all(error):
                raise
            return await self._apart(batch, posts, error, told=tells and self._tells_at_once(posts))

    async def _apart(
        self, batch: Batch, posts: Sequence[Posted], error: Exception, *, told: bool
    ) -> list[Outcome | Failed]:
        """Try parts of the events whose call has failed with `error`, so that one does not fail the others.

        If the call has `told` at once, all are tried without that first.
        """
        if len(posts) == 1 and not told:
            return [failure_of(posts[0].event, error)]
        locked: set[str] = set()
        if isinstance(error.__cause__, asyncpg.LockNotAvailableError):
            locked = await self._ledger.locked([one.post.posting for one in posts])
        free = [one for one in posts if locked.isdisjoint([leg.account for leg in one.post.posting.legs])]
        if told and len(free) == len(posts):
            log.warning("inbox.not_told_at_once", events=len(posts), error=f"{type(error).__name__}: {error}")
            return await self._part(batch, posts, tells=False)
        if len(free) == len(posts):
            middle = len(posts) // 2
            return [*await self._part(batch, posts[:middle]), *await self._part(batch, posts[middle:])]
        found = dict(
            zip([one.event.id for one in free], await self._part(batch, free) if free else [], strict=True)
        )
        return [found.get(one.event.id) or failure_of(one.event, error) for one in posts]

    def _tells_at_once(self, posts: Sequence[Posted]) -> bool:
        return self._sender is not None and len(posts) <= MOST_AT_ONCE

    async def _call(
        self, batch: Batch, posts: Sequence[Posted], idle: Sequence[Idle], *, ends: bool, tells: bool = True
    ) -> list[Outcome]:
        finishing = Finishing(
            batch.token,
            [*[one.event.id for one in posts], *[one.event.id for one in idle]],
            [*range(1, len(posts) + 1), *[0] * len(idle)],
            [*[None] * len(posts), *[_reason(one) for one in idle]],
            ends,
        )
        postings = [one.post.posting for one in posts]
        if self._sender is None or not (tells and self._tells_at_once(posts)):
            outcomes, _ = await self._ledger.post_finishing(postings, finishing)
        else:
            with handing_over(self._sender, 2 * len(posts)) as handed:
                delivering = Delivering(waiting_since(), handed.room)
                outcomes, rows = await self._ledger.post_finishing(postings, finishing, delivering)
                handed.rows = rows[1:]
            batch.has_due |= bool(rows) and rows[0]["due_deliveries"] > 0
        self._note(batch, idle)
        return outcomes

    async def _finish_idle(self, batch: Batch, idle: Sequence[Idle], *, ends: bool) -> None:
        if idle:
            ids = [one.event.id for one in idle]
            await self._database.execute(
                _sql.finish_inbox_events, batch.token, ids, [_reason(one) for one in idle], ends
            )
            batch.has_ended = ends
            self._note(batch, idle)

    @staticmethod
    def _note(batch: Batch, idle: Sequence[Idle]) -> None:
        batch.words.update({one.event.id: IGNORED for one in idle})


def failure_of(event: InboxEvent, error: Exception) -> Failed:
    """Return the failure that an error means for the event that it concerns alone."""
    if isinstance(error, Unavailable):
        return Failed(error.code, error.detail)
    log.error("inbox.event_failed", event_id=event.event_id, event_type=event.event_type, exc_info=error)
    return Failed("internal_error", f"{type(error).__name__}: {error}")


def concerns_all(error: Exception) -> bool:
    """Whether a failure is one of the whole claim, or of the server."""
    return isinstance(error, ClaimGoneError) or (isinstance(error, Unavailable) and error.code != "busy")


def _reason(one: Idle) -> str:
    return one.decision.reason[:MAX_REASON]
