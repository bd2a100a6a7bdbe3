"""The posting lane: postings of many callers go to the database as one call, and each gets its own outcome.

A process has one lane: it beat two in every measurement, since two calls at once mostly wait for each other's rows.
"""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING

import asyncpg
import structlog

from core import metrics
from core.database import queries
from core.errors import Refusal, Unavailable
from core.lane import Lane
from core.ledger.items import MAX_CALL_ITEMS, MAX_CALL_LEGS, Outcome, Posting
from core.ledger.posting import EffectiveSpan, post
from core.work.retries import repeated, wait_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from core.database import Database

SQL = queries(__name__)
logger = structlog.get_logger("ledger")

# A batch is sent so often when the connection is lost, since the server may be back soon; keys tell what was done.
LOST_TRIES = 3
# A client's batch goes in parts of this many items, so that single items of others get in between.
CHUNK_ITEMS = 500
# An item weighs as much as four legs or conditions, or more, so 1,000 items or 4,000 legs fill one call.
ITEM_WEIGHT = 4

# A call takes at most so many units, or a quarter of those that wait. Measured at 64 connections, side by side: 15 %
# more transfers a second than without; 24 is as good, 16 and 48 are worse.
SHARE = 32

Unit = list[Posting]


class Poster:
    """Submits postings through one lane. `max_waiting` bounds the units that wait; more callers get `overloaded`.

    Items that take effect outside of `effective_span` are refused; None: at any time.
    """

    def __init__(
        self, database: Database, *, max_waiting: int, effective_span: EffectiveSpan | None = None
    ) -> None:
        self._database = database
        self._effective_span = effective_span
        # Accounts whose rows somebody kept locked for longer than the bound. A unit that names one goes aside, so
        # that all others do not wait with it; the first call that gets through takes its accounts out again.
        self._locked: set[str] = set()
        metrics.LEDGER_LANE_ROOM.set(max_waiting)
        self._lane, self._aside = (
            Lane[Unit, list[Outcome]](
                self._send,
                max_batch=MAX_CALL_LEGS,
                max_waiting=max_waiting,
                weigh=_weight,
                share=SHARE,
                name="ledger.post",
                waited=metrics.LEDGER_LANE_WAIT.observe,
            )
            for _ in range(2)
        )

    @property
    def waiting(self) -> int:
        """Return the number of units that wait for the next call."""
        return self._lane.waiting + self._aside.waiting

    async def submit(self, posting: Posting) -> Outcome:
        """Post one item; a caller that goes away does not cancel it.

        Raises Refusal `overloaded` or `shutting_down`, and Unavailable when it cannot be known whether it was done:
        a later call with the same key tells.
        """
        return (await self._submit([posting]))[0]

    async def submit_many(self, postings: Sequence[Posting]) -> list[Outcome]:
        """Post items in order, in parts between which others get their turn; a group is never split."""
        outcomes: list[Outcome] = []
        for chunk in chunks(postings):
            outcomes += await self._submit(chunk)
        return outcomes

    async def _submit(self, unit: Unit) -> list[Outcome]:
        try:
            queued = self._lane_of(unit).enqueue(unit)
        except Refusal as refusal:
            if refusal.code == "overloaded":
                metrics.LEDGER_LANE_REFUSED.add()
            raise
        return await queued

    async def dry_run(self, postings: Sequence[Posting]) -> list[Outcome]:
        """Return the outcomes of these items if they came next; nothing is kept and no key is used up.

        Raises Refusal `invalid_request` for more than one call of the posting function takes.
        """
        if len(postings) > MAX_CALL_ITEMS or sum(len(posting.legs) for posting in postings) > MAX_CALL_LEGS:
            raise Refusal(
                "invalid_request", f"A dry run takes at most {MAX_CALL_ITEMS} items and {MAX_CALL_LEGS} legs."
            )
        return await self._post(postings, dry_run=True)

    async def close(self) -> None:
        """Refuse new items and wait for those that were accepted."""
        await self._lane.close()
        await self._aside.close()

    async def _send(self, units: Sequence[Unit]) -> list[list[Outcome] | BaseException]:
        postings = [posting for unit in units for posting in unit]
        metrics.LEDGER_BATCH_ITEMS.observe(len(postings))
        metrics.LEDGER_LANE_WAITING.set(self.waiting)
        try:
            outcomes = await self._post(postings)
        except Unavailable as refusal:
            if not isinstance(refusal.__cause__, asyncpg.LockNotAvailableError):
                raise
            return await self._without_locked(units, refusal)
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception as error:
            # One item has failed in a way that no check foresaw. Its neighbours are tried again in smaller calls.
            if len(units) == 1:
                logger.exception("posting failed", items=len(postings))
                raise Refusal("internal_error", "The posting failed; nothing of it was done.") from error
            middle = len(units) // 2
            return [*await self._apart(units[:middle]), *await self._apart(units[middle:])]
        if self._locked:
            self._locked.difference_update(_codes(postings))
        results: list[list[Outcome] | BaseException] = []
        place = 0
        for unit in units:
            results.append(outcomes[place : place + len(unit)])
            place += len(unit)
        return results

    async def _without_locked(
        self, units: Sequence[Unit], refusal: Unavailable
    ) -> list[list[Outcome] | BaseException]:
        """Refuse the units that name a locked account, and post the others."""
        locked = await locked_accounts(self._database, [posting for unit in units for posting in unit])
        self._locked |= locked
        free = [unit for unit in units if locked.isdisjoint(_codes(unit))]
        if len(free) == len(units):
            raise refusal  # the lock is on something else than an account
        results = iter(await self._apart(free) if free else [])
        return [next(results) if locked.isdisjoint(_codes(unit)) else refusal for unit in units]

    def _lane_of(self, unit: Unit) -> Lane[Unit, list[Outcome]]:
        return self._aside if self._locked and not self._locked.isdisjoint(_codes(unit)) else self._lane

    async def _apart(self, units: Sequence[Unit]) -> list[list[Outcome] | BaseException]:
        try:
            return await self._send(units)
        except Refusal as refusal:
            return [refusal] * len(units)

    async def _post(self, postings: Sequence[Posting], *, dry_run: bool = False) -> list[Outcome]:
        lost = 0
        while True:
            try:
                return await repeated(
                    lambda: post(
                        self._database, postings, dry_run=dry_run, effective_span=self._effective_span
                    )
                )
            except Unavailable as error:
                lost += 1
                if error.code != "database_unavailable" or lost == LOST_TRIES:
                    raise
                metrics.TRANSACTION_RETRIES.add(type(error.__cause__).__name__)
            await asyncio.sleep(wait_seconds(lost))


def chunks(postings: Sequence[Posting]) -> Iterator[list[Posting]]:
    """Cut a client's batch into parts of about 500 items and at most 4,000 legs; groups stay whole."""
    chunk: list[Posting] = []
    legs = 0
    for _, members in groupby(enumerate(postings), key=lambda pair: pair[1].group or -1 - pair[0]):
        unit = [posting for _, posting in members]
        unit_legs = _weight(unit)
        if chunk and (len(chunk) + len(unit) > CHUNK_ITEMS or legs + unit_legs > MAX_CALL_LEGS):
            yield chunk
            chunk, legs = [], 0
        chunk += unit
        legs += unit_legs
    if chunk:
        yield chunk


async def locked_accounts(database: Database, postings: Sequence[Posting]) -> set[str]:
    """Return the codes of the accounts of these items whose rows another transaction has locked at this moment."""
    return {row["code"] for row in await database.fetch(SQL.locked_accounts, list(_codes(postings)))}


def _codes(postings: Sequence[Posting]) -> set[str]:
    return {leg.account for posting in postings for leg in posting.legs} | {
        condition.account for posting in postings for condition in posting.conditions
    }


def _weight(unit: Unit) -> int:
    return sum([max(ITEM_WEIGHT, len(posting.legs) + len(posting.conditions)) for posting in unit])
