"""Events of providers: each finds its attempt by a name, and says no more than it knows."""

from datetime import UTC, datetime

import pytest

from core.payments.accounts import clearing_account, suspense_account
from core.payments.notices import take
from core.payments.payments import Payment, find_with_owners
from core.payments.states import State
from core.providers.protocol import Notice, RefundSight, Sight, Standing, UnknownError
from tests.core.payments.conftest import Desk

PAID = Sight(Standing.PAID, amount=100, currency="EUR", names={"charge": "ch_9"})


async def tell(desk: Desk, payment: Payment, *notices: Notice) -> Payment:
    for number, notice in enumerate(notices):
        assert await take(desk.payments, "one", f"evt_{payment.id}_{number}", notice) is not None
    return await desk.again(payment)


async def test_an_event_finds_its_attempt_by_every_name_that_was_told(desk: Desk) -> None:
    payment = await desk.create()
    name = str(payment.latest.provider_id)
    assert await take(desk.payments, "one", "evt_0", Notice(["nobody"], PAID)) is None
    assert await take(desk.payments, "two", "evt_0", Notice([name], PAID)) is None
    assert (await tell(desk, payment, Notice(["nobody", name], PAID))).state is State.PAID
    assert (await tell(desk, payment, Notice(["ch_9"], PAID._replace(refunded=30)))).refunded == 30
    # A name stays with the attempt that had it first.
    other = await desk.create()
    other = await tell(desk, other, Notice([str(other.latest.provider_id)], PAID._replace(amount=99)))
    assert (await tell(desk, other, Notice(["ch_9"], PAID))).state is State.MISMATCHED


async def test_an_event_of_an_order_whose_answer_was_lost_finds_its_attempt_by_its_own_id(desk: Desk) -> None:
    desk.one.says("create", UnknownError("The answer did not come."))
    payment = await desk.create()
    assert payment.latest.provider_id is None
    own = str(payment.latest.id)
    assert await take(desk.payments, "two", "evt_0", Notice([own], PAID)) is None
    paid = await tell(desk, payment, Notice(["cs_9", own], PAID._replace(provider_id="cs_9")))
    assert (paid.state, paid.latest.provider_id) == (State.PAID, "cs_9")
    assert (await tell(desk, paid, Notice(["cs_9"], PAID._replace(refunded=30)))).refunded == 30


async def test_a_payers_approval_is_followed_by_a_look_at_once(desk: Desk) -> None:
    payment = await desk.create()
    before = payment.latest.next_look_at
    approved = Sight(Standing.OPEN, word="APPROVED")
    told = await tell(desk, payment, Notice([str(payment.latest.provider_id)], approved))
    assert told.state is State.PENDING
    assert before is not None
    assert told.latest.next_look_at is not None
    assert told.latest.next_look_at < before
    assert told.latest.next_look_at <= datetime.now(UTC)


async def test_an_event_about_a_refund_makes_nobody_believe_in_the_amount(desk: Desk) -> None:
    account = await desk.account()
    payment = await desk.create(account=account)
    names = [str(payment.latest.provider_id)]
    refund = Notice(names, Sight(Standing.PAID), RefundSight(True, "re_1", 40))
    payment = await tell(desk, payment, refund, refund)
    assert (payment.state, payment.paid) == (State.PENDING, 0)
    desk.one.says("look", PAID._replace(amount=90, refunded=40))
    payment = await desk.look(payment)
    assert (payment.state, payment.paid, payment.refunded) == (State.MISMATCHED, 90, 40)
    payment = await tell(desk, payment, refund)
    assert (payment.state, payment.paid) == (State.MISMATCHED, 90)
    assert await desk.balance(account, suspense_account("EUR")) == [0, 50]


@pytest.mark.parametrize("named", [True, False])
async def test_twins_of_a_dispute_count_once(desk: Desk, *, named: bool) -> None:
    account = await desk.account()
    payment = await desk.create(account=account)
    name = str(payment.latest.provider_id)
    sight = Sight(Standing.PAID, names={"dispute": "dp_1"} if named else {})
    taken = Notice([name], sight, dispute=100)
    await tell(desk, payment, Notice([name], PAID))
    for _ in range(2):
        await take(desk.payments, "one", "evt_d", taken)
    if named:
        await take(desk.payments, "one", "evt_twin", taken)
    assert (await desk.again(payment)).disputed == 100
    assert await desk.balance(account, clearing_account("one", "EUR")) == [0, 0]


async def test_a_renewal_is_a_payment_of_its_own(desk: Desk) -> None:
    account = await desk.account()
    payment = await desk.create(account=account)
    name = str(payment.latest.provider_id)
    await tell(desk, payment, Notice([name], PAID))
    renewal = Notice([name], PAID, renewal="in_2")
    for _ in range(2):
        renewed = await take(desk.payments, "one", "evt_r", renewal)
        assert renewed is not None
        assert (renewed.id != payment.id, renewed.state, renewed.paid) == (True, State.PAID, 100)
        assert renewed.latest.provider_id == "in_2"
    assert (await desk.again(payment)).paid == 100
    assert await desk.balance(account) == [200]
    assert desk.one.calls == ["create"]


async def test_targets_and_owners_are_told_beside_each_other(desk: Desk) -> None:
    """The first known name counts; of accounts those that are open are told, in whatever number they are asked for."""
    payment = await desk.create()
    target = (payment.id, payment.latest.id)
    name, own = str(payment.latest.provider_id), str(payment.latest.id)
    account = await desk.account()
    database = desk.service.database
    owner = (await find_with_owners(database, [], [account]))[1][account]
    codes = [f"nobody:{number}" for number in range(5_000)]
    wanted = [
        ("one", ["nobody"]),
        ("one", ["nobody", name]),
        ("two", [name, own]),
        ("one", []),
        ("one", [own]),
    ]
    found = [None, target, None, None, target]
    assert await find_with_owners(database, wanted, [*codes, account, account]) == (found, {account: owner})
    assert await find_with_owners(database, wanted, []) == (found, {})
    assert await find_with_owners(database, [], codes) == ([], {})
    assert await find_with_owners(database, [], []) == ([], {})
