"""Refunds: once under their request id, never more than came, never again where nobody knows of the first."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from core import metrics
from core.errors import Refusal
from core.payments import observing, refunds
from core.payments.accounts import clearing_account
from core.payments.payments import Payment
from core.payments.refunds import Refund, find_refund, refund
from core.payments.rules import Dispute
from core.payments.states import State
from core.payments.writing import Report
from core.providers.protocol import (
    REMEMBERED,
    DeclinedError,
    RefundSight,
    Sight,
    Standing,
    UnknownError,
    UnsentError,
)
from tests.core.payments.conftest import Desk
from tests.core.payments.test_events import count

PAID = Sight(Standing.PAID, amount=100, currency="EUR")


async def paid(desk: Desk, **more: Any) -> Payment:
    payment = await desk.create(account=await desk.account(), **more)
    return (await desk.payments.applier.apply(payment.id, payment.latest.id, Report(PAID, "event:1"))).payment


async def give_back(desk: Desk, payment: Payment, request_id: str, amount: int | None = None) -> Refund:
    return await refund(desk.payments, payment.id, request_id, amount, "caller")


async def found(desk: Desk, payment: Payment, request_id: str) -> Refund:
    known = await find_refund(desk.payments, payment.id, request_id)
    assert known is not None
    return known


async def due(desk: Desk, age: timedelta = timedelta(0)) -> None:
    await desk.owner.execute(
        "UPDATE payment_refunds SET next_look_at = now(), created_at = created_at - $1::interval"
        " WHERE next_look_at IS NOT NULL",
        age,
    )
    await refunds.step(desk.payments)


async def test_a_refund_is_made_once_and_posted(desk: Desk) -> None:
    payment = await paid(desk)
    calls = await asyncio.gather(*(give_back(desk, payment, "r1", 40) for _ in range(8)))
    assert len({one.id for one in calls}) == 1
    assert desk.one.calls.count("refund") == 1
    payment = await desk.again(payment)
    assert (payment.refunded, await desk.balance(str(payment.account), clearing_account("one", "EUR"))) == (
        40, [60, -60],
    )  # fmt: skip
    with pytest.raises(Refusal) as refused:
        await give_back(desk, payment, "r1", 41)
    assert refused.value.code == "idempotency_conflict"
    # The provider's own sum and ours are one: an event that tells of it moves nothing again.
    applied = await desk.payments.applier.apply(
        payment.id, payment.latest.id, Report(PAID._replace(refunded=40), "event:2")
    )
    assert applied.payment.refunded == 40
    assert (await give_back(desk, payment, "r2")).amount == 60
    assert await desk.balance(str(payment.account)) == [0]
    kinds = [step.kind for step in await desk.steps(payment)]
    assert [kind for kind in kinds if kind.startswith("refund")] == ["refund_asked", "refund_done"] * 2


async def test_refunds_at_once_never_exceed_what_came(desk: Desk) -> None:
    """Without the lock of the payment each would count before the others are stored."""
    payment = await paid(desk)
    ended = await asyncio.gather(
        *(give_back(desk, payment, f"r{n}", 40) for n in range(6)), return_exceptions=True
    )
    assert sorted(one.code for one in ended if isinstance(one, Refusal)) == ["refund_exceeds"] * 4
    assert sum(desk.one.refunds.values()) == (await desk.again(payment)).refunded == 80


async def test_what_was_not_paid_is_not_given_back(desk: Desk) -> None:
    payment = await desk.create()
    with pytest.raises(Refusal) as refused:
        await give_back(desk, payment, "r1")
    assert (refused.value.code, desk.one.calls) == ("payment_not_paid", ["create"])


@pytest.mark.parametrize(
    ("end", "state", "left"),
    [
        (DeclinedError("No."), "failed", 100),
        (UnsentError("Away."), "failed", 100),
        (RefundSight(False, "re_1", word="failed"), "failed", 100),
        (RefundSight(None, "re_1", word="pending"), "pending", 60),
        (UnknownError("?"), "unknown", 60),
    ],
)
async def test_an_end_that_is_not_known_keeps_its_amount_aside(
    desk: Desk, end: RefundSight | Exception, state: str, left: int
) -> None:
    payment = await paid(desk)
    desk.one.refund_script.append(end)
    assert (await give_back(desk, payment, "r1", 40)).state == state
    with pytest.raises(Refusal) as refused:
        await give_back(desk, payment, "r2", 101)
    assert refused.value.extra["left"] == left
    assert (await desk.again(payment)).refunded == 0


@pytest.mark.parametrize(
    ("before", "end", "after", "left"),
    [
        # The level of a provider may count a refund that it has not finished; it is one refund all the same.
        ([], RefundSight(None, "re_1"), [PAID._replace(refunded=40)], 60),
        # One that was made at the provider is another.
        ([PAID._replace(refunded=40)], RefundSight(None, "re_1"), [], 20),
        ([PAID._replace(refunded=40)], UnknownError("?"), [PAID._replace(refunded=80)], 20),
        ([PAID._replace(refunded=40)], RefundSight(True, "re_1"), [PAID._replace(refunded=80)], 20),
        # Money that a bank has taken back for the payer is not there to be given back.
        ([Dispute("dp", 50)], RefundSight(True, "re_1"), [], 10),
        ([Dispute("dp", 50), Dispute("dp", -50)], RefundSight(True, "re_1"), [], 60),
        ([], RefundSight(True, "re_1"), [Dispute("dp", 100)], 0),
    ],
)
async def test_money_goes_back_once_by_whichever_way(
    desk: Desk,
    before: list[Sight | Dispute],
    end: RefundSight | Exception,
    after: list[Sight | Dispute],
    left: int,
) -> None:
    payment = await paid(desk)

    async def see(seen: Sight | Dispute) -> None:
        await desk.payments.applier.apply(payment.id, payment.latest.id, Report(seen, "event:2"))

    for seen in before:
        await see(seen)
    desk.one.refund_script.append(end)
    await give_back(desk, payment, "r1", 40)
    for seen in after:
        await see(seen)
    with pytest.raises(Refusal) as refused:
        await give_back(desk, payment, "r2", left + 1)
    assert (refused.value.code, refused.value.extra["left"]) == ("refund_exceeds", left)
    if left:
        assert (await give_back(desk, payment, "r2")).amount == left


async def test_a_refund_that_timed_out_is_repeated_only_while_its_key_is_known(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REMEMBERED, "one", timedelta(hours=24))
    payment = await paid(desk)
    desk.one.refund_script.extend(
        [UnknownError("?"), UnsentError("Away."), RefundSight(None), RefundSight(True, "re_9")]
    )
    asked = await give_back(desk, payment, "r1", 40)
    for state in ("unknown", "pending", "done"):
        await due(desk)
        assert (await found(desk, payment, "r1")).state == state
    assert ((await found(desk, payment, "r1")).provider_id, list(desk.one.refunds)) == ("re_9", [asked.key])
    assert (await desk.again(payment)).refunded == 40

    desk.one.refund_script.append(UnknownError("?"))
    await give_back(desk, payment, "r2", 10)
    await due(desk, timedelta(hours=13))
    await due(desk)
    assert (await found(desk, payment, "r2")).state == "unknown"
    assert desk.one.calls.count("refund") == 5


async def test_a_process_that_dies_before_the_answer_leaves_a_refund_to_be_found_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REMEMBERED, "one", timedelta(hours=24))
    payment = await paid(desk)
    with monkeypatch.context() as patched:
        patched.setattr(refunds, "ask", lost)
        with pytest.raises(ConnectionAbortedError):
            await give_back(desk, payment, "r1", 40)
    assert (await give_back(desk, payment, "r1", 40)).state == "created"
    await due(desk)
    assert (await desk.again(payment)).refunded == 40
    assert payment.state is State.PAID


async def test_refunds_that_fail_or_that_nobody_knows_of_are_measured(desk: Desk) -> None:
    observing.prepare(["one"])
    names = [
        f'provider_refunds_total{{provider="one",state="{state}",surface="orders"}}'
        for state in ("failed", "unknown", "done", "pending")
    ]
    before = [count(metrics.render(), name) for name in names]
    assert min(before) >= 0
    payment = await paid(desk, surface="orders")
    desk.one.refund_script.extend([DeclinedError("No."), UnknownError("?")])
    for number in range(3):
        await give_back(desk, payment, f"r{number}", 10)
    after = [count(metrics.render(), name) for name in names]
    assert [now - was for now, was in zip(after, before, strict=True)] == [1, 1, 1, 0]
    await desk.owner.execute(
        "UPDATE payment_refunds SET created_at = now() - interval '1 hour', next_look_at = now() - interval '1 minute'"
        " WHERE state = 'unknown'"
    )
    await observing.measure(desk.payments)
    text = metrics.render()
    assert count(text, "provider_refunds_unknown") == 1
    assert 3_600 <= count(text, "provider_refunds_unknown_age_seconds") < 3_700
    assert 60 <= count(text, "provider_refund_look_lag_seconds") < 160


async def lost(*_: object) -> Refund:
    raise ConnectionAbortedError
