"""The posting lane: what gathers, what is tried again, and whose fault is whose."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import pytest
from structlog.testing import capture_logs

from core.database import Database, Query, Row, translated
from core.errors import Refusal, Unavailable
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import MAX_CALL_LEGS, Leg, Outcome, Posting, operation_id
from core.ledger.poster import CHUNK_ITEMS, LOST_TRIES, SHARE, Poster, chunks
from core.service import Service, open_service
from core.settings import Settings
from core.work.retries import MAX_TRIES
from tests.chaos.staging import BARRIER, LOCK, PAYER_FIRST, UNGUARDED, at_barrier, install
from tests.invariants import faults

Raw: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Wait = Callable[..., Awaitable[Any]]

_keys = itertools.count()


@pytest.fixture(autouse=True)
async def accounts(service: Service) -> None:
    """Cash and four accounts, none of which can run dry."""
    limits = Limits(floor=None)
    codes = ("cash", "a", "b", "c", "d")
    await open_accounts(service.database, [Opening(code, "USD", limits) for code in codes], 1)


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Raw]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def poster(service: Service) -> Poster:
    return service.ledger.poster


def transfer(
    source: str = "cash", target: str = "a", amount: int = 1, key: str | None = None, **more: Any
) -> Posting:
    identity = operation_id(1, key or f"poster-{next(_keys)}")
    return Posting(identity, 1, (Leg(source, -amount), Leg(target, amount)), **more)


class Faulty(Database):
    """The database with a line that breaks: `fails` says what happens to the next calls of the posting function."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connections)
        self.fails: list[tuple[str, BaseException]] = []
        self.calls = 0

    async def fetchrow(self, statement: Query, *args: Any) -> Row | None:
        if statement.name != "post":
            return await super().fetchrow(statement, *args)
        self.calls += 1
        if not self.fails:
            return await super().fetchrow(statement, *args)
        when, cause = self.fails.pop(0)
        if when == "after":  # it was committed; the answer was lost
            await super().fetchrow(statement, *args)
        with translated():
            raise cause


@pytest.fixture
def faulty(service: Service) -> Faulty:
    return Faulty(service.database)


@pytest.fixture
def over_faulty(faulty: Faulty) -> Poster:
    return Poster(faulty, max_waiting=100)


class Counting(Database):
    """The database, noting the name of each statement that it is sent."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connections)
        self.sent: list[str] = []

    async def fetch(self, statement: Query, *args: Any) -> list[Row]:
        self.sent.append(statement.name)
        return await super().fetch(statement, *args)

    async def fetchrow(self, statement: Query, *args: Any) -> Row | None:
        self.sent.append(statement.name)
        return await super().fetchrow(statement, *args)


async def test_one_statement_a_batch(service: Service) -> None:
    database = Counting(service.database)
    poster = Poster(database, max_waiting=1_000)
    await poster.submit(transfer(key="first"))
    assert database.sent == ["post"]
    database.sent.clear()
    await asyncio.gather(*(poster.submit(transfer("a", "cash")) for _ in range(SHARE)))
    assert database.sent == ["post"]
    database.sent.clear()
    await poster.submit(transfer(key="first"))
    assert database.sent == ["post", "stored_outcomes", "stored_entries"]


async def batches(owner: Raw) -> int:
    found: int = await owner.fetchval(
        "SELECT count(*) FROM batches WHERE seq IN (SELECT no >> 22 FROM transfers)"
    )
    return found


async def test_what_comes_together_goes_together_in_order(poster: Poster, owner: Raw) -> None:
    outcomes = await asyncio.gather(*(poster.submit(transfer(amount=n + 1)) for n in range(300)))
    assert all(outcome.posted and not outcome.replayed for outcome in outcomes)
    assert [outcome.entries[1].version for outcome in outcomes] == list(range(1, 301))
    assert [outcome.entries[1].balance_after for outcome in outcomes] == [
        n * (n + 1) // 2 for n in range(1, 301)
    ]
    assert await batches(owner) < 10


async def test_one_alone_goes_at_once(poster: Poster, owner: Raw) -> None:
    for _ in range(5):
        await poster.submit(transfer())
    assert await batches(owner) == 5


async def test_chunks_keep_groups_whole_and_fit_a_call() -> None:
    def sizes(*postings: Posting) -> list[int]:
        found = list(chunks(postings))
        assert [posting for chunk in found for posting in chunk] == list(postings)
        for chunk in found:
            assert sum(len(posting.legs) for posting in chunk) <= MAX_CALL_LEGS
        return [len(chunk) for chunk in found]

    def singles(count: int) -> list[Posting]:
        return [transfer() for _ in range(count)]

    def group(number: int, count: int) -> list[Posting]:
        return [transfer(group=number) for _ in range(count)]

    assert sizes() == []
    assert sizes(*singles(1)) == [1]
    assert sizes(*singles(CHUNK_ITEMS)) == [500]
    assert sizes(*singles(1_201)) == [500, 500, 201]
    assert sizes(*singles(499), *group(1, 2), *singles(499)) == [499, 500, 1]
    assert sizes(*group(1, 1_000), *group(2, 1_000)) == [1_000, 1_000]
    assert sizes(*group(1, 300), *group(2, 200), *group(3, 1)) == [500, 1]
    wide = Posting(operation_id(1, "wide"), 1, (Leg("cash", -3_999), *[Leg("a", 1)] * 3_999))
    assert sizes(transfer(), wide, transfer()) == [1, 1, 1]


async def test_strangers_poison_fails_nobody_else(poster: Poster, owner: Raw, database_url: str) -> None:
    """What no check foresaw: one that the driver cannot send, and one that the server cannot store."""
    poison = {
        7: transfer(kind="a\0b"),
        40: Posting(operation_id(1, "x"), 2**40, (Leg("cash", -1), Leg("a", 1))),
    }
    postings = [poison.get(n, transfer()) for n in range(64)]
    with capture_logs() as lines:
        results = await asyncio.gather(
            *(poster.submit(posting) for posting in postings), return_exceptions=True
        )
    assert [(line["event"], line["items"]) for line in lines] == [("posting failed", 1)] * 2
    for place, result in enumerate(results):
        if place in poison:
            assert isinstance(result, Refusal)
            assert result.code == "internal_error"
        else:
            assert isinstance(result, Outcome)
            assert result.posted
    assert await owner.fetchval("SELECT balance FROM accounts WHERE code = 'a'") == 62
    assert await faults(database_url) == {}


async def test_poison_in_a_batch_fails_its_part_only(poster: Poster, owner: Raw) -> None:
    batch = [transfer(key=f"b-{n}") for n in range(20)]
    batch[3] = transfer(kind="a\0b")
    calls = [poster.submit_many(batch), poster.submit(transfer()), poster.submit(transfer())]
    with capture_logs() as lines:
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [line["event"] for line in lines] == ["posting failed"]
    assert isinstance(results[0], Refusal)
    assert all(isinstance(result, Outcome) for result in results[1:])
    assert await owner.fetchval("SELECT balance FROM accounts WHERE code = 'a'") == 2


async def test_deadlock_is_tried_again(
    service: Service, owner: Raw, database_url: str, eventually: Wait
) -> None:
    await install(owner, (LOCK, PAYER_FIRST), UNGUARDED)
    posters = [Poster(service.database, max_waiting=10) for _ in range(2)]
    calls = [posters[0].submit(transfer("a", "b")), posters[1].submit(transfer("b", "a"))]
    results = await at_barrier(owner, calls, eventually)
    assert [result.posted for result in results] == [True, True]
    assert await faults(database_url) == {}


async def test_a_locked_account_holds_up_nobody_else(
    settings: Settings, accounts: None, owner: Raw, database_url: str
) -> None:
    impatient = settings.model_copy(update={"database_lock_timeout_ms": 1_000})
    async with open_service(impatient) as service:
        poster = service.ledger.poster
        lock = await asyncpg.connect(database_url)
        async with lock.transaction():
            await lock.execute("SELECT FROM accounts WHERE code = 'a' FOR UPDATE")
            results = await asyncio.gather(
                *(poster.submit(transfer("cash", code)) for code in "bacad"), return_exceptions=True
            )
            assert [getattr(result, "code", None) for result in results] == [None, "busy", None, "busy", None]
            # From now on who names it waits aside, and the others do not even notice.
            stuck = asyncio.ensure_future(poster.submit(transfer("a", "b")))
            other = asyncio.ensure_future(poster.submit(transfer("c", "d")))
            done, _ = await asyncio.wait([stuck, other], return_when=asyncio.FIRST_COMPLETED)
            assert done == {other}
            with pytest.raises(Unavailable):
                await stuck
        await lock.close()
        assert (await poster.submit(transfer("a", "b"))).posted
    assert await faults(database_url) == {}


async def test_a_dry_run_while_its_account_is_opened(service: Service, owner: Raw, eventually: Wait) -> None:
    await install(owner, (LOCK, LOCK + BARRIER))
    opening = open_accounts(service.database, [Opening("new", "USD")], 1)
    calls = [service.ledger.poster.dry_run([transfer("a", "new")])]
    [[outcome]] = await at_barrier(owner, calls, eventually, meanwhile=opening)
    assert outcome.posted


async def test_session_that_is_cut_off_while_it_posts(
    poster: Poster, owner: Raw, database_url: str, eventually: Wait
) -> None:
    waiter = """
        SELECT pid FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database() AND query ~ 'ledger_post'
    """
    async with asyncio.timeout(60):
        lock = await asyncpg.connect(database_url)
        async with lock.transaction():
            await lock.execute("SELECT FROM accounts WHERE code = 'a' FOR UPDATE")
            posted = asyncio.create_task(poster.submit(transfer(key="cut-off")))
            pid = await eventually(lambda: owner.fetchval(waiter))
            assert await owner.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
            assert await eventually(lambda: owner.fetchval(waiter)) != pid
        outcome = await posted
        await lock.close()
    assert (outcome.posted, outcome.replayed) == (True, False)
    assert await owner.fetchval("SELECT count(*) FROM transfers") == 1


async def test_answer_that_is_lost_after_the_commit(over_faulty: Poster, faulty: Faulty, owner: Raw) -> None:
    faulty.fails = [("after", ConnectionResetError())]
    postings = [transfer(amount=n + 1) for n in range(20)]
    outcomes = await asyncio.gather(*(over_faulty.submit(posting) for posting in postings))
    assert all(outcome.posted for outcome in outcomes)
    assert outcomes[0].replayed
    assert outcomes[0].entries[1].version == 1
    assert faulty.calls >= 2
    assert await owner.fetchval("SELECT balance FROM accounts WHERE code = 'a'") == 210
    assert await owner.fetchval("SELECT count(*) FROM transfers") == 20


async def test_server_that_stays_away(over_faulty: Poster, faulty: Faulty) -> None:
    faulty.fails = [("before", ConnectionRefusedError())] * LOST_TRIES
    with pytest.raises(Unavailable) as gone:
        await over_faulty.submit(transfer())
    assert (gone.value.code, gone.value.retry_after, faulty.calls) == (
        "database_unavailable",
        1.0,
        LOST_TRIES,
    )
    assert (await over_faulty.submit(transfer())).posted


async def test_rows_that_stay_busy(over_faulty: Poster, faulty: Faulty) -> None:
    faulty.fails = [("before", asyncpg.DeadlockDetectedError())] * MAX_TRIES
    with pytest.raises(Unavailable) as busy:
        await over_faulty.submit(transfer())
    assert (busy.value.code, busy.value.retry_after, faulty.calls) == ("busy", 0.1, MAX_TRIES)
    assert (await over_faulty.submit(transfer())).posted


async def test_full_lane_refuses_before_anything_happens(service: Service, owner: Raw) -> None:
    poster = Poster(service.database, max_waiting=3)
    results = await asyncio.gather(*(poster.submit(transfer()) for _ in range(10)), return_exceptions=True)
    posted = [result for result in results if isinstance(result, Outcome)]
    refused = [result for result in results if isinstance(result, Refusal)]
    assert (len(posted), {refusal.code for refusal in refused}) == (3, {"overloaded"})
    assert await owner.fetchval("SELECT count(*) FROM transfers") == 3


async def test_close_posts_what_was_accepted(service: Service, owner: Raw) -> None:
    poster = Poster(service.database, max_waiting=100)
    tasks = [asyncio.create_task(poster.submit(transfer())) for _ in range(50)]
    await asyncio.sleep(0)
    await poster.close()
    assert all(outcome.posted for outcome in await asyncio.gather(*tasks))
    with pytest.raises(Refusal, match="shutting_down"):
        await poster.submit(transfer())
    assert await owner.fetchval("SELECT count(*) FROM transfers") == 50


async def test_caller_that_goes_away_cancels_nothing(poster: Poster, owner: Raw, eventually: Wait) -> None:
    tasks = [asyncio.create_task(poster.submit(transfer())) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 10
    await eventually(lambda: _has(owner, 20))


async def _has(owner: Raw, transfers: int) -> bool:
    found: int = await owner.fetchval("SELECT count(*) FROM transfers")
    return found == transfers


async def test_dry_run_keeps_nothing(poster: Poster, owner: Raw) -> None:
    posting = transfer("a", "b", 5)
    (outcome,) = await poster.dry_run([posting])
    assert (outcome.posted, outcome.entries[0].balance_after) == (True, -5)
    assert await owner.fetchval("SELECT count(*) FROM keys") == 0
    assert (await poster.submit(posting)).entries[0].version == 1
