"""Races, each first shown to do harm without its guard: in a posting function that lacks it, at the worst moment."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.errors import Refusal
from core.ledger import holds, transfers
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import Leg, Operation, Outcome, Posting, operation_id
from core.ledger.poster import Poster
from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from tests.chaos.staging import (
    BARRIER,
    CLOCK,
    KEY_CLAIM,
    KEY_LOOKUP,
    KEY_ORDER,
    LOCK,
    OPENED,
    PAYER_FIRST,
    SECOND_BARRIER,
    UNGUARDED,
    Raw,
    Wait,
    at_barrier,
    connected,
    install,
    moved,
    overlap,
    post_on,
)
from tests.handlers.ledger.ledger_client import Answer, Shop
from tests.invariants import faults

_keys = itertools.count()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Raw]:
    """The test's own connection. A deadlock is found out within 50 ms in this database."""
    raw = await asyncpg.connect(database_url)
    await raw.execute(
        f"ALTER DATABASE {await raw.fetchval('SELECT current_database()')} SET deadlock_timeout = '50ms'"
    )
    yield raw
    await raw.close()


@pytest.fixture
async def one(owner: Raw, database_url: str) -> AsyncIterator[Raw]:
    """What another process of the service has: a connection of its own."""
    async with connected(database_url) as raw:
        yield raw


@pytest.fixture
async def two(owner: Raw, database_url: str) -> AsyncIterator[Raw]:
    async with connected(database_url) as raw:
        yield raw


@pytest.fixture
async def accounts(service: Service) -> None:
    """Cash without a floor, and four accounts with 1,000 each."""
    await open_accounts(service.database, [Opening("cash", "USD", Limits(floor=None))], 1)
    await open_accounts(service.database, [Opening(code, "USD") for code in "abcd"], 1)
    for code in "abcd":
        assert (await service.ledger.poster.submit(transfer("cash", code, 1_000))).posted


def transfer(source: str, target: str, amount: int, key: str | None = None) -> Posting:
    identity = operation_id(1, key or f"race-{next(_keys)}")
    return Posting(identity, 1, (Leg(source, -amount), Leg(target, amount)))


def code_of(result: Any) -> str:
    """What became of a call: the outcome's or the refusal's code, or the error's name."""
    if isinstance(result, list):
        (result,) = result
    if isinstance(result, Outcome):
        return result.kind.code
    return result.code if isinstance(result, Refusal) else type(result).__name__


# --- Crossing transfers


async def test_crossing_transfers(
    accounts: None, owner: Raw, one: Raw, two: Raw, database_url: str, eventually: Wait
) -> None:
    async def cross() -> list[str]:
        calls = [post_on(one, transfer("a", "b", 1)), post_on(two, transfer("b", "a", 1))]
        return sorted(map(code_of, await at_barrier(owner, calls, eventually)))

    await install(owner, (LOCK, PAYER_FIRST), UNGUARDED)
    assert await cross() == ["DeadlockDetectedError", "posted"]
    await install(owner, (LOCK, LOCK + BARRIER))
    assert await cross() == ["posted", "posted"]
    assert await faults(database_url) == {}


# --- One account that everybody wants


async def test_hot_account(
    accounts: None, owner: Raw, one: Raw, service: Service, database_url: str, eventually: Wait
) -> None:
    async def both() -> tuple[str, str]:
        second = service.ledger.poster.submit(transfer("b", "c", 1))
        first, result = await overlap(owner, one, [transfer("a", "c", 1)], second, eventually)
        return code_of(first), code_of(result)

    # Both read the same balance and version; that two entries cannot have one version is all that saves the books.
    await install(owner, (LOCK, ""), UNGUARDED)
    assert await both() == ("posted", "internal_error")
    await install(owner)
    assert await both() == ("posted", "posted")
    assert await owner.fetchval("SELECT balance FROM accounts WHERE code = 'c'") == 1_003
    assert await faults(database_url) == {}


# --- An account that is opened when the locks have been taken already


async def test_account_opened_after_the_locks(
    accounts: None, owner: Raw, service: Service, database_url: str, eventually: Wait
) -> None:
    posters = [Poster(service.database, max_waiting=10) for _ in range(2)]

    async def both(code: str, *, second: bool = False) -> list[str]:
        calls = [poster.submit(transfer(payer, code, 1)) for poster, payer in zip(posters, "ab", strict=True)]
        opening = open_accounts(service.database, [Opening(code, "USD")], 1)
        return sorted(map(code_of, await at_barrier(owner, calls, eventually, opening, second=second)))

    # Neither holds the new account's lock, and both have read it before one of them commits.
    await install(owner, (LOCK, LOCK + BARRIER), (OPENED, SECOND_BARRIER + UNGUARDED[1]))
    assert await both("new", second=True) == ["internal_error", "posted"]
    await install(owner, (LOCK, LOCK + BARRIER))
    assert await both("newer") == ["posted", "posted"]
    assert await faults(database_url) == {}


# --- One key in the batches of two processes


async def test_same_key_and_body_in_two_batches(
    accounts: None, owner: Raw, one: Raw, service: Service, database_url: str, eventually: Wait
) -> None:
    async def twins(key: str) -> tuple[str, Any]:
        second = service.ledger.poster.submit(transfer("a", "b", 7, key))
        first, result = await overlap(owner, one, [transfer("a", "b", 7, key)], second, eventually)
        return code_of(first), result

    await install(owner, (KEY_LOOKUP, KEY_LOOKUP + " AND FALSE "), (KEY_CLAIM, "IF FALSE THEN"))
    first, second = await twins("k-1")
    assert (first, code_of(second), second.replayed) == ("posted", "posted", False)
    assert "a transfer or a hold's event has no key, or an id occurs twice" in await faults(database_url)
    await owner.execute("DELETE FROM transfers WHERE id = $1", operation_id(1, "k-1"))
    await install(owner)
    first, second = await twins("k-2")
    assert (first, code_of(second), second.replayed) == ("posted", "posted", True)
    assert await owner.fetchval("SELECT count(*) FROM transfers WHERE id = $1", operation_id(1, "k-2")) == 1


async def test_same_key_for_other_accounts_in_two_batches(
    accounts: None, owner: Raw, one: Raw, service: Service, database_url: str, eventually: Wait
) -> None:
    """No account is locked by both, so that the key alone stands between them."""

    async def twins(key: str) -> tuple[str, str]:
        second = service.ledger.poster.submit(transfer("c", "d", 7, key))
        first, result = await overlap(owner, one, [transfer("a", "b", 7, key)], second, eventually)
        return code_of(first), code_of(result)

    await install(owner, (KEY_CLAIM, "IF FALSE THEN"))
    assert await twins("k-1") == ("posted", "posted")
    assert await faults(database_url) != {}
    await install(owner)
    assert await twins("k-2") == ("posted", "idempotency_conflict")


async def test_keys_of_two_batches_in_opposite_order(
    accounts: None, owner: Raw, one: Raw, two: Raw, service: Service, eventually: Wait
) -> None:
    # Stops each batch between its first key and its second.
    await owner.execute(f"""
        CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE place integer := coalesce(nullif(current_setting('race.keys', TRUE), ''), '0')::integer + 1;
        BEGIN
            PERFORM set_config('race.keys', place::text, TRUE);
            IF place = 2 THEN {BARRIER} END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER pause BEFORE INSERT ON keys FOR EACH ROW EXECUTE FUNCTION pause();
    """)

    def batch(source: str, target: str, keys: list[str]) -> list[Posting]:
        return [transfer(source, target, 1, key) for key in keys]

    await install(owner, (KEY_ORDER, KEY_ORDER.replace("k.id", "k.item")))
    calls = [post_on(one, *batch("a", "b", ["x", "y"])), post_on(two, *batch("c", "d", ["y", "x"]))]
    results = await at_barrier(owner, calls, eventually)
    assert sorted(type(result).__name__ for result in results) == ["DeadlockDetectedError", "list"]
    await install(owner)
    posters = [Poster(service.database, max_waiting=10) for _ in range(2)]
    pairs = zip(posters, (batch("a", "b", ["v", "w"]), batch("c", "d", ["w", "v"])), strict=True)
    results = await at_barrier(
        owner, [poster.submit_many(postings) for poster, postings in pairs], eventually
    )
    codes = sorted([outcome.kind.code for outcome in result] for result in results)
    assert codes == [["idempotency_conflict"] * 2, ["posted"] * 2]


# --- The end of a hold


async def test_capture_against_expiry(
    accounts: None, owner: Raw, service: Service, database_url: str, eventually: Wait
) -> None:
    """A capture in time whose commit comes late, when the hold is due already."""
    over = await owner.fetchval("SELECT clock_timestamp() - interval '1 minute'")

    async def race() -> tuple[str, int]:
        made = Posting(
            operation_id(1, f"hold-{next(_keys)}"),
            1,
            (Leg("a", -100), Leg("b", 100)),
            Operation.HOLD,
            expires_at=over,
        )
        assert (await service.ledger.poster.submit(made)).posted
        stored = await holds.get_hold(service.database, made.id)
        capture = holds.capture(
            stored, id_=operation_id(1, f"capture-{next(_keys)}"), principal_id=1, amount=None
        )
        async with connected(database_url, **{"race.late": "1 hour"}) as late:
            expiry = holds.expire_due(service.database)
            first, expired = await overlap(owner, late, [capture], expiry, eventually)
        return code_of(first), expired

    on_time = "coalesce(nullif(current_setting('race.late', TRUE), ''), '0')::interval"
    clock = (CLOCK, f"    now_at := clock_timestamp() - {on_time};\n")
    await install(owner, clock)
    assert await race() == ("posted", 0)
    assert await faults(database_url) == {}
    await install(owner, clock, (LOCK, ""), UNGUARDED)
    assert await race() == ("posted", 1)
    assert set(await faults(database_url)) >= {
        "a balance is not the sum of its entries, or a version not their number",
        "a hold was captured for more or less than its captures moved",
    }


# --- Reversals


async def test_reverse_against_reverse(
    accounts: None, owner: Raw, one: Raw, service: Service, database_url: str, eventually: Wait
) -> None:
    poster = service.ledger.poster

    async def reversal(original: UUID) -> Posting:
        identity = operation_id(1, f"reversal-{next(_keys)}")
        return await transfers.prepare_reversal(
            service.database, original, id_=identity, principal_id=1, amount=60
        )

    async def race() -> tuple[str, str]:
        original = transfer("a", "b", 100)
        await poster.submit(original)
        second = poster.submit(await reversal(original.id))
        first, result = await overlap(owner, one, [await reversal(original.id)], second, eventually)
        return code_of(first), code_of(result)

    # What was reversed is read before the lock, and so before the other one has committed.
    read_first = moved(
        "    IF has_targets THEN\n        SELECT\n",
        "    -- Keys are looked at before the state",
        "    -- Locks come first, reads next",
    )
    await install(owner)
    assert await race() == ("posted", "exceeds_reversible")
    assert await faults(database_url) == {}
    await install(owner, read_first)
    assert await race() == ("posted", "posted")
    assert list(await faults(database_url)) == [
        "a transfer was reversed for more than it was, or what was noted of it is wrong"
    ]


# --- The same from outside: many clients, two processes


@pytest.fixture
async def shops(
    settings: Settings, service: Service, accounts: None, api_key: Callable[..., Awaitable[str]]
) -> AsyncIterator[list[Shop]]:
    """The same caller at two processes of the service, each with its own pool, lane and guard."""
    key = await api_key()
    async with (
        TestClient(TestServer(create_app(settings))) as one,
        TestClient(TestServer(create_app(settings))) as two,
    ):
        yield [Shop(one, key), Shop(two, key)]


@pytest.fixture
async def sound_books(database_url: str, shops: list[Shop]) -> AsyncIterator[None]:
    yield
    assert await faults(database_url) == {}


def codes(answers: list[Answer]) -> dict[str, int]:
    found: dict[str, int] = {}
    for answer in answers:
        code = str(answer.status) if answer.status < 300 else answer.code
        found[code] = found.get(code, 0) + 1
    return found


async def test_64_clients_cross(shops: list[Shop], sound_books: None) -> None:
    async def client(number: int) -> list[Answer]:
        shop, (source, target) = shops[number % 2], ("ab", "ba", "bc", "ca")[number // 2 % 4]
        return [await shop.transfer(source, target, 1, key=f"cross-{number}-{n}") for n in range(8)]

    answers = await asyncio.gather(*(client(number) for number in range(64)))
    assert codes([answer for some in answers for answer in some]) == {"201": 512}
    balances = [await shops[0].balance(code) for code in "abc"]
    assert balances == [1_000 - 128 + 256, 1_000 + 128 - 256, 1_000]


async def test_64_clients_of_one_account(shops: list[Shop], sound_books: None) -> None:
    async def client(number: int) -> list[Answer]:
        shop = shops[number % 2]
        if number % 4 == 3:
            return [await shop.transfer("c", "d", 3, key=f"out-{number}-{n}") for n in range(8)]
        return [await shop.transfer("cash", "c", 2, key=f"in-{number}-{n}") for n in range(8)]

    answers = [answer for some in await asyncio.gather(*map(client, range(64))) for answer in some]
    assert codes(answers) == {"201": 512}
    assert await shops[0].balance("c") == 1_000 + 2 * 384 - 3 * 128
    versions = [
        entry["version"] for answer in answers for entry in answer.json["entries"] if entry["account"] == "c"
    ]
    assert sorted(versions) == list(range(2, 514))


async def test_many_reversals_of_one_transfer(shops: list[Shop], sound_books: None) -> None:
    original = (await shops[0].transfer("a", "b", 100, key="original")).json["id"]
    answers = await asyncio.gather(
        *(
            shops[n % 2].post(f"/v1/transfers/{original}/reversals", {"amount": 9}, key=f"reversal-{n}")
            for n in range(32)
        )
    )
    assert codes(answers) == {"201": 11, "exceeds_reversible": 21}
    assert await shops[0].balance("a") == 999
    answers = await asyncio.gather(
        *(shops[n % 2].post(f"/v1/transfers/{original}/reversals", key=f"rest-{n}") for n in range(16))
    )
    assert codes(answers) == {"201": 1, "already_reversed": 15}


async def test_many_captures_voids_and_extensions_of_one_hold(shops: list[Shop], sound_books: None) -> None:
    hold = (await shops[0].post("/v1/holds", {"from": "a", "to": "b", "amount": 100}, key="hold")).json["id"]
    answers = await asyncio.gather(
        *(
            shops[n % 2].post(f"/v1/holds/{hold}/capture", {"amount": 9}, key=f"capture-{n}")
            for n in range(32)
        ),
        *(
            shops[n % 2].post(f"/v1/holds/{hold}/extend", {"expires_in": 600}, key=f"extend-{n}")
            for n in range(8)
        ),
    )
    assert codes(answers) == {"201": 11, "exceeds_hold": 21, "200": 8}
    answers = await asyncio.gather(
        *(
            shops[n % 2].post(f"/v1/holds/{hold}/{('void', 'capture')[n % 2]}", key=f"end-{n}")
            for n in range(32)
        )
    )
    found = codes(answers)
    assert found.pop("hold_not_open") == 31
    assert list(found.values()) == [1]
    account = await shops[0].account("a")
    assert (account["held"], account["available"]) == (0, account["balance"])
