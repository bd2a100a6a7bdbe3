"""Holds: captured in parts that add up, voided, extended, expired, and what has changed since they were made."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Refusal
from core.ledger import holds
from core.ledger.accounts import change_account
from core.ledger.items import Leg, Operation, Posting, operation_id
from core.ledger.posting import post
from core.ledger.transfers import describe
from core.money import MAX_AMOUNT_MINOR
from tests.core.ledger.book import PRINCIPAL, Book, codes, pay, posting
from tests.core.ledger.parts import shares

LONG_AGO = datetime(2020, 2, 29, 12, tzinfo=UTC)
FAR_AHEAD = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
async def shop(book: Book) -> Book:
    await book.open("buyer", "seller", "fees")
    await book.fund(1_000, "buyer")
    return book


async def expire_all(book: Book) -> int:
    expired = 0
    while found := await holds.expire_due(book.database):
        expired += found
    return expired


async def state(book: Book, key: str) -> tuple[str, int, int]:
    hold = (await book.stored(key)).hold
    return hold.state, hold.captured, hold.remaining


async def test_hold_counts_against_what_is_available_at_once(shop: Book) -> None:
    await shop.hold("h", ("buyer", -900), ("seller", 900))
    account = await shop.account("buyer")
    assert (account.balance, account.held, account.available, account.version) == (1_000, 900, 100, 1)
    outcomes = await shop.call(
        pay("1", "buyer", "seller", 101),
        posting("2", ("buyer", -101), ("seller", 101), operation=Operation.HOLD),
        pay("3", "buyer", "seller", 100),
    )
    assert [(outcome.kind.code, outcome.figure) for outcome in outcomes] == [
        ("insufficient_funds", 100),
        ("insufficient_funds", 100),
        ("posted", None),
    ]


async def test_captures_add_up_to_the_whole(shop: Book) -> None:
    hold = await shop.hold("h", ("buyer", -100), ("seller", 97), ("fees", 3))
    moved = []
    for number, amount in enumerate((50, 1, 48, None)):
        outcome = await shop.capture(f"c{number}", hold, amount)
        assert outcome.posted
        moved.append({line.account: line.amount for line in outcome.entries})
    assert moved == [
        {"buyer": -50, "seller": 49, "fees": 1},
        {"buyer": -1, "seller": 1},
        {"buyer": -48, "seller": 47, "fees": 1},
        {"buyer": -1, "fees": 1},
    ]
    assert await shop.balances("buyer", "seller", "fees") == [900, 97, 3]
    assert await state(shop, "h") == ("captured", 100, 0)
    assert (await shop.capture("more", hold, 1)).kind.code == "hold_not_open"
    assert await shop.faults() == []


async def test_no_capture_takes_back_from_a_destination(shop: Book) -> None:
    """Shares rounded leg by leg would have the first destination give one back at the third unit."""
    await shop.open("x", "y", "z")
    hold = await shop.hold("h", ("buyer", -5), ("x", 1), ("y", 2), ("z", 2))
    for number in range(5):
        outcome = await shop.capture(f"{number}", hold, 1)
        assert all(line.amount > 0 for line in outcome.entries[1:]), outcome
    assert await shop.balances("x", "y", "z") == [1, 2, 2]


SMALL = st.integers(1, 12)
LARGE = st.integers(1, MAX_AMOUNT_MINOR // 8)


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    legs=st.lists(st.one_of(SMALL, LARGE), min_size=1, max_size=6),
    others=st.lists(SMALL, max_size=2),
    cuts=st.lists(st.integers(0, 2**63), max_size=6),
    sign=st.sampled_from([1, -1]),
)
async def test_shares(book: Book, legs: list[int], others: list[int], cuts: list[int], sign: int) -> None:
    """`legs` receive what the first leg and `others` give: what each has moved by a cut never falls back."""
    given_by_others = min(sum(others), sum(legs) - 1)
    givers = [sum(legs) - given_by_others, *([given_by_others] if given_by_others else [])]
    whole = [sign * -giver for giver in givers] + [sign * leg for leg in legs]
    before = [0] * len(whole)
    for part in sorted({cut % (givers[0] + 1) for cut in cuts} | {givers[0]}):
        moved = await book.owner.fetchval("SELECT ledger_part($1, $2)", whole, part)
        assert moved == shares(whole, part)
        assert sum(moved) == 0
        assert abs(moved[0]) == part
        for leg, now, then in zip(whole, moved, before, strict=True):
            assert abs(then) <= abs(now) <= abs(leg)
            assert now * leg >= 0
        for leg, now in zip(whole, moved, strict=True):
            assert abs(abs(now) * givers[0] - abs(leg) * part) <= len(whole) * givers[0]
        before = moved
    assert before == whole


async def test_capture_is_a_transfer(shop: Book) -> None:
    hold = await shop.hold(
        "h", ("buyer", -100), ("seller", 100), kind="order", reference="o-1", metadata={"a": "b"}
    )
    item = holds.capture(hold, id_=operation_id(PRINCIPAL, "c"), principal_id=PRINCIPAL, amount=40)
    outcome = await shop.one(item)
    transfer = describe(item, outcome)
    assert (transfer.kind, transfer.reference, transfer.metadata) == ("order", "o-1", {"a": "b"})
    assert (transfer.captures, transfer.reverses) == (hold.hold.id, None)
    again = await shop.one(item)
    assert (again.replayed, describe(item, again)) == (True, transfer)
    assert holds.after(hold, item, again) == holds.after(hold, item, outcome)


async def test_reversal_of_a_capture_does_not_open_the_hold(shop: Book) -> None:
    hold = await shop.hold("h", ("buyer", -100), ("seller", 97), ("fees", 3))
    await shop.capture("c", hold, 33)
    assert (await shop.reverse("r1", "c", 10)).posted
    assert (await shop.reverse("r2", "c")).posted
    assert (await shop.reverse("r3", "c")).kind.code == "already_reversed"
    assert await shop.balances("buyer", "seller", "fees") == [1_000, 0, 0]
    assert await state(shop, "h") == ("open", 33, 67)
    assert (await shop.account("buyer")).held == 67
    assert await shop.faults() == []


async def test_void_gives_back_what_is_left(shop: Book) -> None:
    hold = await shop.hold("h", ("buyer", -100), ("seller", 100))
    await shop.capture("c", hold, 30)
    outcome = await shop.void("v", hold)
    assert (outcome.amount, outcome.captured) == (70, 30)
    assert (await shop.account("buyer")).available == 970
    refused = await shop.void("again", hold)
    assert refused.refusal().detail == "The hold was voided before."
    assert (await shop.void("v", hold)).replayed
    assert await state(shop, "h") == ("voided", 30, 0)


async def test_accounts_that_changed_since_the_hold_was_made(shop: Book) -> None:
    await shop.open("partner")
    hold = await shop.hold("h", ("buyer", -100), ("seller", 90), ("partner", 10))
    await change_account(shop.database, "seller", limits={"ceiling": 5})
    assert (await shop.capture("c1", hold, 20)).posted
    await change_account(
        shop.database, "buyer", limits={"floor": 5_000, "transfer_max": 1, "day_amount_max": 0}
    )
    assert (await shop.capture("c2", hold, 20)).posted
    for frozen in ("buyer", "seller"):
        await change_account(shop.database, frozen, state="frozen")
        refused = await shop.capture("c3", hold, 20)
        assert (refused.kind.code, refused.account) == ("account_frozen", frozen)
        await change_account(shop.database, frozen, state="open")
    await shop.call(pay("away", "partner", "cash", 4))
    await change_account(shop.database, "partner", state="closed")
    refused = await shop.capture("c3", hold, 20)
    assert (refused.kind.code, refused.account) == ("account_closed", "partner")
    with pytest.raises(Refusal) as caught:
        await change_account(shop.database, "buyer", state="closed")
    assert caught.value.code == "account_not_empty"
    assert (await shop.void("v", hold)).posted
    assert await shop.faults() == []


async def test_time_is_over_before_the_job_has_come(shop: Book) -> None:
    hold = await shop.hold("h", ("buyer", -100), ("seller", 100), expires_at=LONG_AGO)
    assert await state(shop, "h") == ("open", 0, 100)
    assert (await shop.capture("c", hold, 1)).kind.code == "hold_expired"
    extension = holds.extend(
        hold, id_=operation_id(PRINCIPAL, "e"), principal_id=PRINCIPAL, expires_at=FAR_AHEAD
    )
    assert (await shop.one(extension)).kind.code == "hold_expired"
    assert (await shop.account("buyer")).held == 100
    assert (await shop.void("v", hold)).posted
    assert await expire_all(shop) == 0
    assert await state(shop, "h") == ("voided", 0, 0)


async def test_extension(shop: Book, eventually: object) -> None:
    hold = await shop.hold("h", ("buyer", -100), ("seller", 100), expires_at=FAR_AHEAD)
    for key, until in (("later", FAR_AHEAD + timedelta(days=1)), ("never", None), ("over", LONG_AGO)):
        item = holds.extend(hold, id_=operation_id(PRINCIPAL, key), principal_id=PRINCIPAL, expires_at=until)
        outcome = await shop.one(item)
        assert holds.after(hold, item, outcome).expires_at == until
        assert (await shop.stored("h")).hold.expires_at == until
        assert holds.after(hold, item, await shop.one(item)).expires_at == until
    assert await expire_all(shop) == 1
    assert await state(shop, "h") == ("expired", 0, 0)
    assert (await shop.capture("c", hold)).refusal().detail == "The hold was expired before."


def expiry(number: int) -> Posting:
    return posting(
        f"hold {number}", ("buyer", -1), ("seller", 1), operation=Operation.HOLD, expires_at=LONG_AGO
    )


async def test_thousands_expire_in_batches(shop: Book) -> None:
    await shop.fund(3_000, "seller")
    await shop.call(pay("more", "seller", "buyer", 2_000))
    assert set(codes(await shop.post(*(expiry(number) for number in range(3_000))))) == {"posted"}
    kept = await shop.owner.fetchval("SELECT count(*) FROM holds WHERE state = 0")
    assert (kept, (await shop.account("buyer")).held) == (3_000, 3_000)
    rounds = [await holds.expire_due(shop.database) for _ in range(4)]
    assert rounds == [1_000, 1_000, 1_000, 0]
    assert (await shop.account("buyer")).held == 0
    await shop.seal()
    assert await shop.faults() == []


async def test_two_jobs_expire_at_once(shop: Book) -> None:
    await shop.post(*(expiry(number) for number in range(300)))
    rounds = await asyncio.gather(*(holds.expire_due(shop.database) for _ in range(4)))
    assert sum(rounds) == 300
    assert await shop.owner.fetchval("SELECT count(*) FROM hold_events WHERE operation = 5") == 300
    assert await shop.faults() == []


async def test_extended_after_the_job_has_seen_it(shop: Book) -> None:
    hold = await shop.hold("h", ("buyer", -100), ("seller", 100), expires_at=FAR_AHEAD)
    late = Posting(
        id=operation_id(0, f"expire:{hold.hold.id}"),
        principal_id=0,
        legs=(Leg("buyer", -100), Leg("seller", 100)),
        operation=Operation.EXPIRE,
        target_no=hold.no,
    )
    [outcome] = await post(shop.database, [late])
    assert (outcome.kind.code, outcome.posted) == ("hold_not_due", False)
    await shop.void("v", hold)
    # An expiry keeps no key, refused or not, and a batch may hold anything beside it.
    outcomes = await post(shop.database, [late, pay("no", "buyer", "seller", 10**6)])
    assert codes(outcomes) == ["hold_not_open", "insufficient_funds"]
    assert codes(await shop.call(pay("no", "buyer", "seller", 10**6))) == ["again insufficient_funds"]
    assert await shop.faults() == []


async def test_expiry_beside_a_refusal(shop: Book) -> None:
    hold = await shop.hold("h", ("buyer", -100), ("seller", 100), expires_at=LONG_AGO)
    due = Posting(
        id=operation_id(0, "due"),
        principal_id=0,
        legs=(Leg("buyer", -100), Leg("seller", 100)),
        operation=Operation.EXPIRE,
        target_no=hold.no,
    )
    no = pay("no", "buyer", "seller", 10**6)
    assert codes(await shop.call(due, no)) == ["posted", "insufficient_funds"]
    assert codes(await shop.call(no)) == ["again insufficient_funds"]
    assert await shop.faults() == []


async def test_ceiling_of_a_destination_counts_all_its_legs(shop: Book) -> None:
    await change_account(shop.database, "seller", limits={"ceiling": 100})
    outcomes = await shop.call(
        posting("1", ("buyer", -120), ("seller", 60), ("seller", 60), operation=Operation.HOLD),
        posting("2", ("buyer", -100), ("seller", 60), ("seller", 40), operation=Operation.HOLD),
    )
    assert codes(outcomes) == ["ceiling_exceeded", "posted"]


async def test_amounts_that_are_no_amounts(shop: Book) -> None:
    """The API refuses them; whoever calls the core gets no further."""
    hold = await shop.hold("h", ("buyer", -100), ("seller", 100))
    for amount in (0, -5):
        assert (await shop.capture(f"c{amount}", hold, amount)).kind.code == "exceeds_hold"
    await shop.one(pay("p", "buyer", "seller", 10))
    assert (await shop.reverse("r", "p", -5)).kind.code == "exceeds_reversible"


async def test_unknown_holds(shop: Book) -> None:
    await shop.one(pay("p", "buyer", "seller", 10))
    for key in ("never", "p"):
        with pytest.raises(Refusal) as caught:
            await shop.stored(key)
        assert caught.value.code == "hold_not_found"


async def test_lists(shop: Book) -> None:
    for number in range(5):
        await shop.hold(f"{number}", ("buyer", -10), ("seller", 10))
    await shop.void("v", await shop.stored("2"))
    everything = await holds.list_holds(shop.database, limit=3)
    rest = await holds.list_holds(shop.database, before=everything[-1].no, limit=3)
    ids = [str(operation_id(PRINCIPAL, str(number))) for number in (4, 3, 2, 1, 0)]
    assert [stored.hold.id for stored in (*everything, *rest)] == ids
    voided = await holds.list_holds(shop.database, state="voided")
    assert [stored.hold.id for stored in voided] == [ids[2]]
    buyer = await shop.account("buyer")
    assert len(await holds.list_holds(shop.database, account_id=buyer.id, state="open")) == 4
