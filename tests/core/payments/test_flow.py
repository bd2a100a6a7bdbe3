"""The flow of a payment: stored before it is called, once under its key, and found out after a crash."""

import asyncio
from typing import Any

import msgspec
import pytest

from core.errors import Refusal
from core.payments.payments import find
from core.payments.reconciling import reconcile
from core.payments.states import State
from core.providers.protocol import DeclinedError, Sight, Standing, UnknownError, UnsentError
from tests.core.payments.conftest import Desk, gate

pytestmark = pytest.mark.shared

PAID = Sight(Standing.PAID, amount=100, currency="EUR")


async def test_sixty_four_equal_creations_are_one_payment_and_one_call(desk: Desk) -> None:
    begun, go, answer = gate()
    desk.one.says("create", answer(Sight(Standing.OPEN, "cs_64", url="https://pay.test/64")))
    engines, new = [desk.payments, desk.engine()], desk.new()
    calls = [asyncio.create_task(engines[n % 2].create(new)) for n in range(64)]
    await begun.wait()
    go.set()
    created = await asyncio.gather(*calls)
    assert len({one.payment.id for one in created}) == 1
    assert {(one.payment.state, one.payment.latest.url) for one in created} == {
        (State.PENDING, "https://pay.test/64")
    }
    assert [one.replayed for one in created].count(False) == 1
    assert desk.one.calls == ["create"]


async def test_a_payment_is_stored_before_its_provider_is_called(desk: Desk) -> None:
    seen: list[Any] = []

    async def answer() -> Sight:
        seen.extend(await desk.owner.fetch("SELECT p.state, a.provider FROM payments AS p JOIN payment_attempts AS a"
            " ON a.payment_id = p.id WHERE p.request_id = $1", new.request_id))  # fmt: skip
        return PAID

    desk.one.says("create", answer)
    new = desk.new()
    await desk.payments.create(new)
    assert [tuple(row) for row in seen] == [("created", "one")]


async def test_another_request_under_the_same_id_is_refused_before_any_rule(desk: Desk) -> None:
    new = desk.new()
    first = await desk.payments.create(new)
    for field, value in (("amount", 101), ("currency", "USD"), ("reference", "other"), ("amount", -1)):
        other = msgspec.structs.replace(new, **{field: value})
        with pytest.raises(Refusal) as refused:
            await desk.payments.create(other)
        assert refused.value.code == "idempotency_conflict"
    assert (await desk.payments.create(new)).payment.id == first.payment.id
    # The id counts for a caller of a surface alone.
    elsewhere = await desk.create(request_id=new.request_id, caller="another")
    assert elsewhere.id != first.payment.id


@pytest.mark.parametrize(
    "bad",
    [
        {"request_id": ""}, {"request_id": "r" * 256}, {"request_id": "r\0"}, {"caller": "c" * 129},
        {"title": "\0"}, {"metadata": {"a": "\0"}}, {"metadata": {"\0": "a"}}, {"account": ""}, {"amount": 0},
        {"amount": 2**62},
    ],
)  # fmt: skip
async def test_a_request_that_cannot_be_stored_is_refused(desk: Desk, bad: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        await desk.create(**bad)
    assert (refused.value.code, desk.one.calls) == ("invalid_request", [])


async def test_texts_of_a_provider_that_the_database_cannot_hold_stop_nothing(desk: Desk) -> None:
    odd = Sight(
        Standing.OPEN,
        "id\0" + "x" * 300,
        url="https://pay.test/\0",
        word="\0" * 300,
        names={"n": "y\0" * 200},
    )
    desk.one.says("create", odd, UnknownError("\0" * 600))
    assert (await desk.create()).state is State.PENDING
    assert (await desk.create()).state is State.UNKNOWN


@pytest.mark.parametrize("no", [DeclinedError("No."), UnsentError("Away.")])
async def test_another_provider_is_tried_only_after_a_certain_no(desk: Desk, no: Exception) -> None:
    desk.one.says("create", no)
    payment = await desk.create()
    assert [(one.provider, one.state) for one in payment.attempts] == [("one", "failed"), ("two", "pending")]
    assert payment.state is State.PENDING
    desk.one.says("create", UnknownError("?"))
    payment = await desk.create()
    assert [(one.provider, one.state) for one in payment.attempts] == [("one", "unknown")]
    desk.one.says("create", RuntimeError("a fault in the provider's file"))
    assert (await desk.create()).state is State.UNKNOWN
    desk.one.says("create", DeclinedError("No.", word="do_not_honor"))
    desk.two.says("create", no)
    payment = await desk.create()
    assert payment.state is State.FAILED
    assert str(payment.latest.error) == str(no)


async def test_a_charge_that_timed_out_is_found_out_by_repeating_the_order_under_its_key(desk: Desk) -> None:
    desk.one.says("create", UnknownError("The answer did not come."))
    payment = await desk.create()
    desk.one.orders[desk.one.keys[-1]] = Standing.PAID
    found = await desk.look(payment)
    assert (found.state, found.paid) == (State.PAID, 100)
    assert desk.one.keys[-1] == desk.one.keys[-2]
    assert desk.one.calls == ["create", "create"]


async def test_a_charge_that_timed_out_is_looked_for_where_orders_cannot_be_repeated(desk: Desk) -> None:
    desk.two.says("create", UnknownError("The answer did not come."))
    desk.two.says(
        "look", UnknownError("Still not."), DeclinedError("You may not look."), UnsentError("Away.")
    )
    payment = await desk.create(provider="two")
    assert (await desk.look(payment, rounds=3)).state is State.UNKNOWN
    assert (await desk.look(payment)).state is State.PENDING
    desk.two.says("create", UnknownError("Lost on the way there."))
    lost = await desk.create(provider="two")
    del desk.two.orders[desk.two.keys[-1]]
    # The order may still be on its way, so the provider's word counts only after a while.
    assert (await desk.look(lost)).state is State.UNKNOWN
    await desk.age(lost)
    assert (await desk.look(lost)).state is State.FAILED
    assert desk.two.calls.count("create") == 2


@pytest.mark.parametrize("provider", ["one", "two"])
@pytest.mark.parametrize("called", [False, True])
async def test_a_process_that_dies_around_the_call_leaves_nothing_unclear(
    desk: Desk, provider: str, *, called: bool
) -> None:
    """The task is ended where a kill would end it: before the provider has the order, or before we have its answer."""
    begun, _, answer = gate()
    scripted = desk.one if provider == "one" else desk.two
    scripted.says("create", answer(PAID))
    call = asyncio.create_task(desk.payments.create(desk.new(provider=provider)))
    await begun.wait()
    (task,) = desk.payments._calls.values()
    task.cancel()
    await asyncio.gather(call, return_exceptions=True)
    key = scripted.keys[-1]
    if called:
        scripted.orders[key] = Standing.PAID
    else:
        del scripted.orders[key]
    row = await desk.owner.fetchrow("SELECT id, state FROM payments ORDER BY created_at DESC LIMIT 1")
    assert row["state"] == "created"
    payment = await desk.look(await find(desk.service.database, row["id"]))
    await desk.age(payment)
    payment = await desk.look(payment)
    expected = {("one", False): "pending", ("two", False): "failed"}.get((provider, called), "paid")
    assert payment.state == expected
    assert scripted.keys.count(key) == (2 if provider == "one" else 1)
    assert "interrupted" in str([step.data.get("error") for step in await desk.steps(payment)])


@pytest.mark.alone
async def test_nobody_looks_while_the_first_call_may_be_under_way(desk: Desk) -> None:
    """A look then would truly find nothing, and close what is being opened."""
    begun, go, answer = gate()
    desk.two.says("create", answer(Sight(Standing.OPEN, "late")))
    call = asyncio.create_task(desk.payments.create(desk.new(provider="two")))
    await begun.wait()
    attempt = await desk.owner.fetchrow("SELECT * FROM payment_attempts ORDER BY created_at DESC LIMIT 1")
    assert attempt["next_look_at"] > attempt["created_at"]
    assert not (await reconcile(desk.payments)).any
    go.set()
    assert (await call).payment.state is State.PENDING


async def test_a_caller_who_hangs_up_ends_nothing(desk: Desk) -> None:
    begun, go, answer = gate()
    desk.one.says("create", answer(PAID))
    new = desk.new()
    call = asyncio.create_task(desk.payments.create(new))
    await begun.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    go.set()
    created = await desk.payments.create(new)
    assert (created.payment.state, created.replayed, desk.one.calls) == (State.PAID, True, ["create"])


async def test_an_order_that_nobody_has_taken_is_tried_again_and_no_other(desk: Desk) -> None:
    desk.one.says("create", UnsentError("nobody there"), DeclinedError("no"))
    payment = await desk.create(provider="one")
    assert payment.state is State.FAILED
    payment = await desk.payments.try_again(payment, "caller")
    assert (payment.state, len(payment.attempts)) == (State.FAILED, 2)
    again = await asyncio.gather(*(desk.payments.try_again(payment, "caller") for _ in range(8)))
    assert {(one.state, one.attempts[2].id) for one in again} == {(State.PENDING, again[0].attempts[2].id)}
    payment = again[0]
    assert (payment.state, len(payment.attempts), len(set(desk.one.keys))) == (State.PENDING, 3, 3)
    # An order that may have been taken, and one that was closed after it was taken, are left as they stand.
    desk.one.says("create", UnknownError("lost"), Sight(Standing.FAILED, "cs_x", word="declined later"))
    for state in (State.UNKNOWN, State.FAILED):
        payment = await desk.create(provider="one")
        payment = await desk.payments.try_again(payment, "caller")
        assert (payment.state, len(payment.attempts)) == (state, 1)
