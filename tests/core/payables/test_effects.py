"""What comes with a posting: written once, with what was posted and with nothing else."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from core.ledger.items import Outcome, Posting
from core.ledger.outcomes import PAYABLE_STATES
from core.payables import payables
from tests.core.payables.conftest import Bank, codes, payment


async def test_once_for_a_key(bank: Bank) -> None:
    ann, bob = await bank.user(1_000), await bank.user()
    assert codes(await bank.call(payment(ann, bob, 10, "a"))) == ["posted"]
    assert codes(await bank.call(payment(ann, bob, 10, "a"))) == ["again posted"]
    assert codes(await bank.call(payment(ann, bob, 11, "a"))) == ["idempotency_conflict"]
    assert await bank.written() == (["a"], ["a"])
    assert await bank.balances(ann, bob) == [990, 10]


async def test_nothing_for_a_refusal(bank: Bank) -> None:
    ann, bob = await bank.user(5), await bank.user()
    payable = await bank.payable(bob, 10)
    assert codes(await bank.call(payment(ann, bob, 10, "a", payable=payable))) == ["insufficient_funds"]
    assert await bank.written() == ([], [])
    assert await bank.state(payable) == ("open", None, None)


async def test_a_refused_key_is_free(bank: Bank) -> None:
    """An unfrozen item leaves no trace: the key works later, and for another body, too; a frozen one stays refused."""
    ann, bob = await bank.user(5), await bank.user()
    free, frozen = payment(ann, bob, 10, "a"), payment(ann, bob, 10, "b", unfrozen=False)
    assert codes(await bank.call(free, frozen)) == ["insufficient_funds"] * 2
    await bank.call(payment(await bank.user(100), ann, 100, "more"))
    assert codes(await bank.call(free, frozen)) == ["posted", "again insufficient_funds"]
    assert codes(await bank.call(payment(ann, bob, 500, "c"))) == ["insufficient_funds"]
    assert codes(await bank.call(payment(ann, bob, 1, "c"))) == ["posted"]
    assert (await bank.written())[0] == ["a", "c", "more"]


async def test_a_mixed_batch(bank: Bank) -> None:
    ann, bob, eve = await bank.user(100), await bank.user(), await bank.user(3)
    await bank.call(payment(ann, bob, 1, "before"))
    outcomes = await bank.call(
        payment(ann, bob, 1, "before"),
        payment(eve, bob, 10, "too much"),
        payment(ann, eve, 10, "one"),
        payment(ann, eve, 11, "one"),
        payment(ann, eve, 10, "one"),
        payment(eve, bob, 13, "two"),
        payment(eve, bob, 1, "gone", payable=uuid4()),
    )
    assert codes(outcomes) == [
        "again posted",
        "insufficient_funds",
        "posted",
        "idempotency_conflict",
        "again posted",
        "posted",
        "payable_not_found",
    ]
    assert await bank.written() == (["before", "one", "two"],) * 2
    principals = await bank.owner.fetch("SELECT object_id, principal_id FROM outbox_events")
    assert {row["object_id"]: row["principal_id"] for row in principals} == {
        "before": bob.principal_id,
        "one": eve.principal_id,
        "two": bob.principal_id,
    }


async def test_a_group_that_fails_tells_nothing(bank: Bank) -> None:
    ann, bob = await bank.user(100), await bank.user()
    payable = await bank.payable(bob)
    outcomes = await bank.call(
        payment(ann, bob, 10, "a", payable=payable, group=1),
        payment(ann, bob, 500, "b", group=1),
        payment(ann, bob, 20, "c"),
    )
    assert codes(outcomes) == ["group_failed", "insufficient_funds", "posted"]
    assert await bank.written() == (["c"], ["c"])
    assert await bank.state(payable) == ("open", None, None)
    # What a failed group had paid is open again for whoever comes behind it in the same call.
    outcomes = await bank.call(
        payment(ann, bob, 10, "d", payable=payable, group=2),
        payment(ann, bob, 500, "e", group=2),
        payment(ann, bob, 10, "f", payable=payable, group=3),
        payment(ann, bob, 1, "g", group=3),
        payment(ann, bob, 10, "h", payable=payable),
    )
    assert codes(outcomes) == ["group_failed", "insufficient_funds", "posted", "posted", "payable_not_open"]
    assert (await bank.state(payable))[0] == "paid"
    assert await bank.written() == (["c", "f", "g"],) * 2


async def test_twins_on_one_payable_in_one_call(bank: Bank) -> None:
    """The same key is the same payment; another key finds it paid, whoever pays."""
    ann, eve, bob = await bank.user(1_000), await bank.user(1_000), await bank.user()
    payable = await bank.payable(bob)
    first = payment(ann, bob, 100, "a", payable=payable)
    outcomes = await bank.call(
        first,
        first,
        payment(ann, bob, 100, "b", payable=payable),
        payment(eve, bob, 100, "a", payable=payable),
    )
    assert codes(outcomes) == ["posted", "again posted", "payable_not_open", "payable_not_open"]
    assert {PAYABLE_STATES[outcome.figure or 0] for outcome in outcomes[2:]} == {"paid"}
    assert await bank.state(payable) == ("paid", first.id, ann.id)
    assert await bank.balances(ann, eve, bob) == [900, 1_000, 100]
    # Idempotency comes before state: the payer's own repetition finds the payment, and not that it is paid.
    assert codes(await bank.call(first)) == ["again posted"]
    assert await bank.written() == (["a"], ["a"])


async def test_whoever_cannot_pay_leaves_it_to_the_next(bank: Bank) -> None:
    poor, rich, bob = await bank.user(1), await bank.user(1_000), await bank.user()
    payable = await bank.payable(bob)
    outcomes = await bank.call(
        payment(poor, bob, 100, "a", payable=payable), payment(rich, bob, 100, "a", payable=payable)
    )
    assert codes(outcomes) == ["insufficient_funds", "posted"]
    assert (await bank.state(payable))[2] == rich.id


async def test_reusable_payables_stay_open(bank: Bank) -> None:
    ann, bob = await bank.user(1_000), await bank.user()
    payable = await bank.payable(bob, None, reusable=True)
    outcomes = await bank.call(*(payment(ann, bob, 10, f"k{n}", payable=payable) for n in range(3)))
    assert codes(outcomes) == ["posted"] * 3
    assert await bank.state(payable) == ("open", None, None)


@pytest.mark.parametrize("state", ["canceled", "rejected"])
async def test_ended_payables_are_not_paid(bank: Bank, state: Any) -> None:
    ann, bob = await bank.user(1_000), await bank.user()
    payable = await bank.payable(bob)
    async with bank.database.transaction() as connection:
        assert await payables.end(connection, payable, state, by=bob.id)
        assert not await payables.end(connection, payable, state, by=bob.id)
    (outcome,) = await bank.call(payment(ann, bob, 100, "a", payable=payable))
    assert (outcome.kind.code, PAYABLE_STATES[outcome.figure or 0]) == ("payable_not_open", state)


async def test_time_is_over_whether_marked_or_not(bank: Bank) -> None:
    ann, bob = await bank.user(1_000), await bank.user()
    now = datetime.now(UTC)
    over = await bank.payable(bob, expires_at=now - timedelta(seconds=1))
    in_time = await bank.payable(bob, expires_at=now + timedelta(minutes=1))
    outcomes = await bank.call(
        payment(ann, bob, 100, "a", payable=over), payment(ann, bob, 100, "b", payable=in_time)
    )
    assert codes(outcomes) == ["payable_not_open", "posted"]
    assert PAYABLE_STATES[outcomes[0].figure or 0] == "expired"
    found = await bank.platform.payables.by_id(over)
    assert found is not None
    assert found.state == "expired"


async def test_paid_or_canceled_but_never_both(bank: Bank) -> None:
    """Whoever locks the row first wins: 20 payables, each paid and canceled at once."""
    ann, bob = await bank.user(10_000), await bank.user()

    async def cancel(payable: Any) -> bool:
        async with bank.database.transaction() as connection:
            return await payables.end(connection, payable, "canceled", by=bob.id)

    for number in range(20):
        payable = await bank.payable(bob)
        item = payment(ann, bob, 100, f"k{number}", payable=payable)
        paid, canceled = await asyncio.gather(bank.platform.ledger.poster.submit(item), cancel(payable))
        assert paid.posted is not canceled
        assert (await bank.state(payable))[0] == ("paid" if paid.posted else "canceled")


async def test_many_payers_of_one_payable(bank: Bank) -> None:
    """In one process and beside it, through the lane and not: one of sixteen pays."""
    payers, bob = [await bank.user(1_000) for _ in range(16)], await bank.user()
    payable = await bank.payable(bob)
    items = [payment(payer, bob, 100, "k", payable=payable) for payer in payers]

    async def beside(item: Posting) -> Outcome:
        return (await bank.call(item))[0]

    found = await asyncio.gather(
        *(bank.platform.ledger.poster.submit(item) for item in items[::2]),
        *(beside(item) for item in items[1::2]),
    )
    assert sorted(codes(found)) == ["payable_not_open"] * 15 + ["posted"]
    assert await bank.balances(bob) == [100]
    assert await bank.written() == (["k"], ["k"])


async def test_events_that_nobody_could_receive_want_no_fan_out(bank: Bank) -> None:
    """They are kept like all others, and wake no worker.

    Who has an endpoint or a key, or had one switched off, gets them later.
    """
    ann, alone, shop, program = [await bank.user(1_000 * (n == 0), merchant=n > 0) for n in range(4)]
    await bank.owner.execute(
        "INSERT INTO webhook_endpoints (id, principal_id, url, event_types, secrets, disabled_at, disabled_reason)"
        " VALUES ($1, $2, 'https://shop.example.com/', '{}', '{whsec_x}', now(), 'failing')",
        uuid4(),
        shop.principal_id,
    )
    await bank.owner.execute(
        "INSERT INTO api_keys (key_id, principal_id, secret_hash, scopes, created_by)"
        " VALUES ('abcdefghijkl', $1, decode(repeat('00', 32), 'hex'), '{accounts:read}', 'test')",
        program.principal_id,
    )
    payees = {"alone": alone, "shop": shop, "program": program}
    woken = [await bank.call(payment(ann, payee, 1, name)) for name, payee in payees.items()]
    assert [outcome.wakes for (outcome,) in woken] == [False, True, True]
    (repeated,) = await bank.call(payment(ann, shop, 1, "shop"))
    assert repeated.replayed
    assert not repeated.wakes
    rows = await bank.owner.fetch(
        "SELECT object_id FROM outbox_events WHERE fanned_out_at IS NULL ORDER BY 1"
    )
    assert [row["object_id"] for row in rows] == ["program", "shop"]
    assert (await bank.written())[0] == ["alone", "program", "shop"]
