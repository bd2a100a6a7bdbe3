"""`verify`: clean on what the ledger writes, also beside traffic, and every planted corruption is found and named."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from core.database import Connection
from core.ledger import holds
from core.ledger.accounts import change_account
from core.ledger.verify import CHECKS, Finding, Progress, read_seal, verify
from tests.core.ledger.book import Book, codes, condition, pay, posting

LONG_AGO = datetime(2020, 2, 29, 12, tzinfo=UTC)


@pytest.fixture
async def rich(book: Book) -> Book:
    """A ledger that holds a row of every kind, all of it sealed."""
    await book.open("a", "b", "c", "limited", day_amount_max=10_000, hour_count_max=100)
    await book.open("euros", "more euros", currency="EUR", floor=None)
    await book.fund(1_000, "a", "b", "limited")
    await book.post(
        *(pay(f"pay {number}", "a", "b", 10 + number) for number in range(5)),
        posting("split", ("a", -10), ("b", 4), ("c", 6)),
        posting("exchange", ("a", -10), ("b", 10), ("euros", 9), ("more euros", -9)),
        pay("late", "b", "c", 5, effective_at=LONG_AGO),
        pay("limited", "limited", "c", 50, metadata={"order": "7"}, reference="r-1"),
    )
    refused = await book.post(
        pay("too much", "c", "a", 5_000), pay("stale", "a", "b", 1, conditions=(condition("a", version=99),))
    )
    assert codes(refused) == ["insufficient_funds", "version_mismatch"]
    captured = await book.hold("captured", ("a", -100), ("b", 90), ("c", 10))
    await book.capture("part", captured, 33)
    await book.capture("rest", captured)
    await book.hold("open", ("a", -50), ("b", 50))
    await book.void("void", await book.hold("voided", ("b", -40), ("c", 40)))
    await book.hold("over", ("b", -30), ("c", 30), expires_at=LONG_AGO)
    assert await holds.expire_due(book.database) == 1
    await book.reverse("back", "pay 3", 6)
    await book.reverse("back more", "pay 3")
    await change_account(book.database, "c", metadata={"name": "Carla"})
    await book.seal()
    assert await book.faults() == []
    return book


SWAP = (
    "UPDATE accounts SET code = 'aside' WHERE code = 'a'; UPDATE accounts SET code = 'a' WHERE code = 'b';"
    " UPDATE accounts SET code = 'b' WHERE code = 'aside'"
)
# A kind of fault, how to plant it, and the row that is named for it. Account 1 is `a`.
CORRUPTIONS = [
    ("account_balance", "UPDATE accounts SET balance = balance + 1 WHERE code = 'b'", "b"),
    ("conservation", "UPDATE accounts SET balance = balance + 1 WHERE code = 'euros'", "EUR"),
    ("account_terms", "UPDATE accounts SET floor = NULL WHERE code = 'b'", "b"),
    ("account_terms", "UPDATE accounts SET transfer_max = 5 WHERE code = 'c'", "c"),
    ("account_terms", "UPDATE accounts SET state = 1 WHERE code = 'b'", "b"),
    ("account_terms", "UPDATE accounts SET currency = 'EUR' WHERE code = 'b'", "b"),
    ("account_terms", "UPDATE accounts SET has_windows = FALSE WHERE code = 'limited'", "limited"),
    ("account_terms", "UPDATE account_windows SET day_amount_max = 10001", "a"),
    ("account_terms", "DELETE FROM account_windows", "a"),
    ("account_terms", "UPDATE account_profiles SET metadata = '{}' WHERE metadata <> '{}'", "c"),
    ("account_terms", "DELETE FROM account_profiles WHERE account_id = 1", "a"),
    ("account_terms", "DELETE FROM account_events WHERE account_id = 1", "a"),
    ("version_gap", "UPDATE accounts SET version = version + 1 WHERE code = 'b'", "b"),
    ("version_gap", "DELETE FROM entries WHERE version = 3 AND account_id = 1", "a version 4"),
    ("version_gap", "DELETE FROM entries WHERE version = 1 AND account_id = 1", "a version 2"),
    ("running_balance", "UPDATE entries SET balance = balance - 1 WHERE version = 2 AND account_id = 1", "a version 2"),
    ("entry_order", "UPDATE entries SET no = no % 4194304 + (1 << 22) WHERE version = 5 AND account_id = 1", "a "),
    ("entry_without_account", "DELETE FROM accounts WHERE code = 'c'", "version 1"),
    ("entry_without_transfer", "DELETE FROM transfers WHERE metadata IS NOT NULL", "item "),
    ("transfer_without_entries", "DELETE FROM entries WHERE no >> 12 = (SELECT max(no) >> 12 FROM transfers)", "item "),
    ("legs_unbalanced", "UPDATE entries SET amount = amount + 1 WHERE no = (SELECT max(no) FROM transfers)", "item "),
    ("held", "UPDATE accounts SET held = held + 1 WHERE code = 'a'", "a"),
    ("held", "UPDATE holds SET captured = 1 WHERE state = 0", "a"),
    ("incoming", "UPDATE accounts SET incoming = incoming + 1 WHERE code = 'b'", "b"),
    ("incoming", "UPDATE accounts SET incoming = 0", "b"),
    ("hold", "UPDATE holds SET captured = 1 WHERE state = 0", "hold "),
    ("hold", "UPDATE holds SET state = 3 WHERE state = 2", "hold "),
    ("hold", "UPDATE holds SET expires_at = NULL WHERE state = 3", "hold "),
    ("hold", "UPDATE holds SET leg_amounts[2] = leg_amounts[2] + 1 WHERE state = 1", "hold "),
    ("hold", "DELETE FROM holds WHERE state = 2", "item "),
    ("hold", "DELETE FROM transfers WHERE no = (SELECT min(no) FROM hold_events WHERE operation = 2)", "item "),
    ("reversed_amount", "UPDATE reversed_amounts SET amount = amount - 1", "item "),
    ("reversed_amount", "DELETE FROM reversed_amounts", "item "),
    ("reversed_amount", "INSERT INTO reversed_amounts VALUES (5, 5)", "item 5"),
    ("backdated", "DELETE FROM backdated_entries WHERE amount > 0", "entry "),
    ("backdated", "UPDATE backdated_entries SET recorded_at = now()", "entry "),
    ("backdated", "INSERT INTO backdated_entries VALUES (1, now(), now(), 99, 5)", "entry 99"),
    ("key", "DELETE FROM keys WHERE no = (SELECT max(no) FROM transfers)", "item "),
    ("key", "UPDATE keys SET no = no + 4096 WHERE no = (SELECT max(no) FROM transfers)", "item "),
    ("key", "INSERT INTO keys VALUES (gen_random_uuid(), 99, 0, 0)", "key "),
    ("key", "DELETE FROM refusals", "key "),
    ("key", "INSERT INTO refusals VALUES (gen_random_uuid(), 71, NULL, NULL, now())", "refusal "),
    ("batch_events", "UPDATE batches SET events = events + 1 WHERE seq = 3", "batch 3"),
    ("batch_events", "DELETE FROM batches WHERE seq = (SELECT max(seq) FROM batches)", "batch "),
    ("batch_events", "DELETE FROM account_events WHERE no = (SELECT min(no) FROM account_events)", "batch 1"),
    ("feed_missing", "DELETE FROM feed WHERE batch = 4", "batch 4"),
    ("feed_late", "INSERT INTO feed_gaps VALUES (4)", "batch 4"),
    ("feed_order", "UPDATE feed SET position = position + 1 WHERE batch = (SELECT max(batch) FROM feed)", "position "),
    ("feed_order", "DELETE FROM feed WHERE position = (SELECT max(position) FROM feed)", "position "),
    ("feed_order", "DELETE FROM feed WHERE position = 1", "position "),
    ("feed_order", "UPDATE feed_head SET position = position + 5", "position "),
    ("chain", "UPDATE feed_head SET digest = '\\x00'; UPDATE feed SET digest = '\\x00' WHERE batch = 3", "position "),
    ("chain", "UPDATE transfers SET metadata = NULL WHERE metadata IS NOT NULL", "position "),
    ("chain", "UPDATE transfers SET effective_at = effective_at + interval '1 us'", "position "),
    ("chain", "UPDATE batches SET recorded_at = recorded_at - interval '1 us' WHERE seq = 2", "position "),
    ("chain", "DELETE FROM account_events WHERE kind = 'account.updated'", "position "),
    ("chain", "UPDATE hold_events SET id = gen_random_uuid() WHERE operation = 5", "position "),
    ("chain", "UPDATE holds SET reference = 'other' WHERE state = 2", "position "),
    ("chain", SWAP, "position 1"),
    ("chain", "UPDATE accounts SET currency = 'EUR' WHERE code = 'c'", "position 1"),
]  # fmt: skip


async def test_planted_corruptions_are_found_and_named(rich: Book) -> None:
    for check, corruption, subject in CORRUPTIONS:
        transaction = rich.owner.transaction()
        await transaction.start()
        await rich.owner.execute(corruption)
        findings = await verify(Connection(rich.owner), late_after_seconds=0.0)  # type: ignore[arg-type] # not a pool's
        found = {finding.check: finding for finding in findings}
        assert check in found, (corruption, found)
        assert subject in found[check].subject, (corruption, found[check])
        assert found[check].detail
        assert found[check].count >= 1
        await transaction.rollback()
    assert await rich.faults() == []


def test_every_check_is_shown_to_fail() -> None:
    assert {check for check, _, _ in CORRUPTIONS} == set(CHECKS)


async def test_first_row_is_named_and_all_are_counted(rich: Book) -> None:
    await rich.owner.execute("UPDATE accounts SET held = held + 7 WHERE code IN ('c', 'a', 'limited')")
    assert await rich.faults() == [
        Finding(check="held", subject="a", detail="held 57, but its open holds sum to 50", count=3)
    ]


async def test_batch_that_nobody_seals_is_late(rich: Book) -> None:
    await rich.one(pay("unsealed", "a", "b", 1))
    assert await rich.faults() == []
    [finding] = await verify(rich.database, late_after_seconds=0.0)
    assert finding.check == "feed_late"
    await rich.seal()
    assert await verify(rich.database, late_after_seconds=0.0) == []


async def test_seal_changes_with_everything_that_is_sealed(rich: Book) -> None:
    before = await read_seal(rich.database)
    assert len(bytes.fromhex(before.digest)) == 32
    await rich.one(pay("another", "a", "b", 1))
    assert await read_seal(rich.database) == before
    await rich.seal()
    after = await read_seal(rich.database)
    assert (after.position, after.digest != before.digest) == (before.position + 1, True)


async def test_digests_do_not_depend_on_the_session(rich: Book) -> None:
    text = "SELECT string_agg(ledger_batch_content(b.seq), '' ORDER BY b.seq) FROM batches AS b"
    usual = await rich.owner.fetchval(text)
    await rich.owner.execute(
        "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'; SET extra_float_digits = 0"
    )
    assert await rich.owner.fetchval(text) == usual


async def test_a_later_column_does_not_break_the_chain(rich: Book) -> None:
    for table in ("batches", "entries", "transfers", "hold_events", "holds", "account_events"):
        await rich.owner.execute(f"ALTER TABLE {table} ADD COLUMN added_later text DEFAULT 'x'")
    assert await rich.faults() == []


async def test_empty_ledger_is_clean(book: Book) -> None:
    seen: list[Progress] = []
    assert await verify(book.database, on_progress=seen.append) == []
    assert (await read_seal(book.database)).position == 0


async def test_progress_reaches_its_end_in_every_stage(rich: Book) -> None:
    seen: list[Progress] = []
    await verify(rich.database, on_progress=seen.append)
    last = {progress.stage: progress for progress in seen}
    assert set(last) >= {"accounts", "entries", "batches", "holds", "keys", "refusals", "feed"}
    assert all(progress.done == progress.total > 0 for progress in last.values()), last
    rows = await rich.owner.fetchrow(
        "SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM entries) AS entries,"
        " (SELECT count(*) FROM batches) AS batches, (SELECT count(*) FROM holds) AS holds"
    )
    assert rows is not None
    assert {stage: last[stage].total for stage in rows.keys()} == dict(rows)  # noqa: SIM118 - a Record


async def test_ranges_and_pages_hang_together(rich: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANGE_ACCOUNTS", "RANGE_BATCHES", "RANGE_EVENTS", "PAGE_ROWS", "PAGE_FEED_ROWS"):
        monkeypatch.setattr(f"core.ledger.verify.{name}", 2)
    assert await rich.faults() == []
    await rich.owner.execute("UPDATE entries SET balance = balance + 1 WHERE version = 4")
    assert "running_balance" in {finding.check for finding in await rich.faults()}


async def test_clean_beside_traffic(rich: Book) -> None:
    done = asyncio.Event()
    await rich.open("d", "e")
    await rich.fund(1_000, "d", "e")

    async def trade(trader: int) -> None:
        for number in range(25):
            key = f"{trader}/{number}"
            await rich.post(pay(key, "d", "e", 2), pay(f"{key} back", "e", "d", 2, effective_at=LONG_AGO))
            hold = await rich.hold(f"{key} hold", ("d", -4), ("e", 3), ("cash", 1))
            await rich.capture(f"{key} capture", hold, 3)
            await rich.void(f"{key} void", hold)
            await rich.reverse(f"{key} reverse", key, 1)

    async def seal() -> None:
        while not done.is_set():
            await rich.seal()
            await asyncio.sleep(0)

    async def look() -> int:
        looks = 0
        while not done.is_set():
            assert await rich.faults() == []
            looks += 1
        return looks

    async def trade_all() -> None:
        try:
            await asyncio.gather(*(trade(trader) for trader in range(4)))
        finally:
            done.set()

    looks, _, _ = await asyncio.gather(look(), seal(), trade_all())
    assert looks >= 2
    assert await rich.faults() == []


APPEND_ONLY = ("entries", "transfers", "keys", "refusals", "batches", "feed", "hold_events", "account_events")
OWNED_BY_FUNCTIONS = (
    "accounts",
    "holds",
    "reversed_amounts",
    "window_usage",
    "backdated_entries",
    "feed_head",
)


@pytest.mark.parametrize("verb", ["UPDATE", "DELETE FROM", "TRUNCATE", "INSERT INTO"])
async def test_serving_role_writes_through_functions_only(book: Book, verb: str) -> None:
    for table in APPEND_ONLY + OWNED_BY_FUNCTIONS:
        column = await book.owner.fetchval(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 2", table
        )
        tail = {"UPDATE": f"SET {column} = {column}", "INSERT INTO": "DEFAULT VALUES"}.get(verb, "")
        async with book.database.transaction() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.raw.execute(f"{verb} {table} {tail}")


async def test_serving_role_cannot_call_the_parts(book: Book) -> None:
    async with book.database.transaction() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.raw.execute("SELECT ledger_lapsed(1, now(), NULL, NULL, NULL, NULL)")
