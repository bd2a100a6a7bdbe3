"""The proof that the ledger's records agree with each other, read in short transactions beside the live traffic.

Each check of one range is one statement, so it sees one moment: a posting meanwhile cannot look like a fault. Rows
that are never changed are read page by page in the order of their keys; the last page's end carries over to the next.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from core.database import queries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from core.database import Connection, Database, Query, Row

SQL = queries(__name__)

# Each check with the statement that it proves, in the order of the report.
CHECKS: Mapping[str, str] = {
    "account_balance": "an account's balance is the sum of its entries",
    "account_terms": "an account's currency, state, limits and metadata are what its events say",
    "version_gap": "an account's entries are numbered from 1 without gaps, and its version is the last",
    "running_balance": "an entry's balance is the one before it plus its amount",
    "entry_order": "an account's entries are in the order of their items",
    "entry_without_account": "every entry has its account",
    "entry_without_transfer": "every entry has its transfer",
    "transfer_without_entries": "every transfer has entries",
    "legs_unbalanced": "a transfer's entries sum to zero in each currency",
    "conservation": "all balances of a currency sum to zero",
    "held": "an account's held amount is what its open holds have left",
    "incoming": "an account's incoming amount is what open holds will bring to it",
    "hold": "a hold is what its events have made of it",
    "reversed_amount": "what is reversed of a transfer is the sum of its reversals, and no more than the transfer",
    "backdated": "entries that take effect at another time are listed as such, and no others",
    "key": "every item has its idempotency key, and every key its item or its refusal",
    "batch_events": "a batch contains as many events as it says",
    "feed_missing": "every batch is in the feed, or waits for it",
    "feed_late": "no batch waits for the feed for long",
    "feed_order": "the feed's positions are dense, and each row covers its batch",
    "chain": "the rows are those that were sealed: none was altered, removed or moved",
}

# One range is read in a fraction of a second, whatever the size of the ledger.
RANGE_ACCOUNTS = 5_000
RANGE_BATCHES = 500
RANGE_EVENTS = 10_000
PAGE_ROWS = 20_000
# The chain is computed from every row of these batches, so there are fewer of them.
PAGE_FEED_ROWS = 500
# A batch is sealed within a second; five minutes mean that no sequencer works.
LATE_AFTER_SECONDS = 300.0

LAST_BATCH = (2**63 - 1) >> 22


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A check that failed: the first row that breaks it, why, and the number of such rows."""

    check: str
    subject: str
    detail: str
    count: int


class Progress(NamedTuple):
    """The progress of one stage: `done` of `total` rows or, where `rows` is False, of `total` equal parts."""

    stage: str
    done: int
    total: int
    rows: bool = True


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the feed. A copy kept elsewhere shows a history that was rewritten as a whole."""

    position: int
    digest: str


async def verify(
    source: Connection | Database,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    late_after_seconds: float = LATE_AFTER_SECONDS,
) -> list[Finding]:
    """Run every check of CHECKS over the whole ledger; return one finding for each that failed, none when all is well.

    Ten million entries take some minutes, a bounded amount of memory and no lock in the database. The connection's
    statement time-out has to allow for seconds on a slow disk. Raises Unavailable when the server goes away.
    """
    run = _Run(source, on_progress, late_after_seconds)
    extents = await source.fetchrow(SQL.extents)
    if extents is None:
        raise RuntimeError("the extents query returned no row")
    await _check_accounts(run, extents["last_account"], extents["accounts"])
    await _check_entries(run, extents["entries"])
    run.add(await source.fetch(SQL.conservation))
    await _check_batches(run, extents["last_batch"], extents["batches"])
    await _check_holds(run, extents["holds"])
    await _check_reversals_and_backdated(run)
    await _check_keys(run)
    await _check_feed(run, extents["last_position"])
    return run.findings()


async def end_of_range(source: Connection | Database, low: int, batches: int, events: int) -> int | None:
    """Return the last batch of the range behind `low`: at most so many batches and events; None behind the last one."""
    end: int | None = await source.fetchval(SQL.next_batches, low, batches, events)
    return end


async def read_seal(source: Connection | Database) -> Seal:
    """Return the feed's last position and the digest of all of it, to be kept out of the database owner's reach."""
    row = await source.fetchrow(SQL.last_seal)
    if row is None:
        raise RuntimeError("the seal query returned no row")
    return Seal(position=row["position"], digest=row["digest"].hex())


class _Run:
    """One verification: where it reads, whom it tells its progress, and its findings so far."""

    def __init__(
        self,
        source: Connection | Database,
        on_progress: Callable[[Progress], None] | None,
        late_after_seconds: float,
    ) -> None:
        self.source = source
        self.late_after_seconds = late_after_seconds
        self._on_progress = on_progress
        self._found: dict[str, Finding] = {}

    def progress(self, stage: str, done: int, total: int, *, rows: bool = True) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(stage, min(done, total), total, rows))

    def add(self, rows: Iterable[Row | dict[str, Any]]) -> None:
        for row in rows:
            check = row["kind"]
            earlier = self._found.get(check)
            self._found[check] = (
                msgspec.structs.replace(earlier, count=earlier.count + row["found"])
                if earlier is not None
                else Finding(check=check, subject=row["subject"], detail=row["detail"], count=row["found"])
            )

    async def pages(
        self, statement: Query, cursor: Sequence[Any], names: Sequence[str], size: int = PAGE_ROWS
    ) -> AsyncIterator[Row]:
        """Read page after page; the columns `names` of a page's row are where the next page begins."""
        while (row := await self.source.fetchrow(statement, *cursor, size)) is not None:
            if row["bad"] is not None:
                self.add(msgspec.json.decode(row["bad"]))
            yield row
            cursor = [row[name] for name in names]

    def findings(self) -> list[Finding]:
        return [self._found[check] for check in CHECKS if check in self._found]


# Ids and numbers have gaps, so a range's end among them tells only which share of the rows is done.
async def _check_accounts(run: _Run, last_account: int, accounts: int) -> None:
    for low in range(0, last_account, RANGE_ACCOUNTS):
        high = min(low + RANGE_ACCOUNTS, last_account)
        run.add(await run.source.fetch(SQL.accounts, low, high))
        run.add(await run.source.fetch(SQL.account_terms, low, high))
        run.progress("accounts", accounts * high // last_account, accounts)


async def _check_entries(run: _Run, entries: int) -> None:
    done = 0
    names = ("account_id", "version", "balance", "no")
    async for row in run.pages(SQL.entries, (0, 0, 0, 0), names):
        done += row["entries"]
        run.progress("entries", done, entries)


async def _check_batches(run: _Run, last_batch: int, batches: int) -> None:
    low: int | None = 0
    while low is not None:
        following = await end_of_range(run.source, low, RANGE_BATCHES, RANGE_EVENTS)
        # The last range is open, so that rows without a batch are found too.
        high = LAST_BATCH if following is None else following
        run.add(await run.source.fetch(SQL.items, low, high))
        run.add(await run.source.fetch(SQL.backdated, low, high))
        run.add(await run.source.fetch(SQL.batches, low, high, run.late_after_seconds))
        if last_batch:
            run.progress("batches", batches * high // last_batch, batches)
        low = following


async def _check_holds(run: _Run, holds: int) -> None:
    done = 0
    async for row in run.pages(SQL.holds, (0,), ("no",)):
        done += row["holds"]
        run.progress("holds", done, holds)
    run.add(await run.source.fetch(SQL.incoming))


async def _check_reversals_and_backdated(run: _Run) -> None:
    reversals = backdated = 0
    async for row in run.pages(SQL.reversed_amounts, (0,), ("no",)):
        reversals += row["originals"]
        run.progress("reversals", reversals, reversals)
    start = (0, datetime(1970, 1, 1, tzinfo=UTC), 0)
    async for row in run.pages(SQL.backdated_list, start, ("account_id", "effective_at", "no")):
        backdated += row["entries"]
        run.progress("backdated entries", backdated, backdated)


async def _check_keys(run: _Run) -> None:
    # Ids are hashes, so the place of one among all of them tells the share that is done, here in thousandths.
    for stage, statement in (("keys", SQL.keys), ("refusals", SQL.refusals)):
        async for row in run.pages(statement, (UUID(int=0),), ("id",)):
            run.progress(stage, row["id"].int * 1_000 >> 128, 1_000, rows=False)
        run.progress(stage, 1_000, 1_000, rows=False)


async def _check_feed(run: _Run, last_position: int) -> None:
    names = ("position", "digest", "expected")
    async for row in run.pages(SQL.feed, (0, b"", 1), names, PAGE_FEED_ROWS):
        run.progress("feed", row["expected"] - 1, last_position)
    run.add(await run.source.fetch(SQL.feed_end))
