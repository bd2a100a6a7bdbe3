"""A named person's word: what it may be about, what it moves, and who is named for it."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from core import metrics
from core.errors import Refusal
from core.ids import new_uuid
from core.payments import observing
from core.payments.accounts import clearing_account, suspense_account
from core.payments.notices import take
from core.payments.payments import Payment
from core.payments.refunds import ask, find_refund, refund
from core.payments.resolving import Said, Word, list_payments, list_refunds, resolve, resolve_refund
from core.payments.rules import Dispute
from core.payments.states import State
from core.payments.writing import Report
from core.providers.protocol import REMEMBERED, Notice, RefundSight, Sight, Standing, UnknownError
from tests.core.payments.conftest import Desk

pytestmark = pytest.mark.shared

# A payment with up to two attempts, one that is unknown and another that is none; the minutes are their ages.
AGED = """
WITH made AS (
    INSERT INTO payments
        (id, surface, caller, request_id, fingerprint, amount, scale, currency, method, routes, state, created_at)
    VALUES ($1::uuid, 'ages', 'shop', ($1::uuid)::text, decode(repeat('00', 32), 'hex'), 100, 2, 'EUR',
        'hosted_card', '{one,two}', $2, now() - make_interval(mins => $3))
    RETURNING id
)
INSERT INTO payment_attempts (id, payment_id, number, provider, state, created_at)
SELECT gen_random_uuid(), made.id, one.number, 'one', one.state, now() - make_interval(mins => one.minutes)
FROM made, (VALUES (1, 'unknown', $4::integer), (2, 'failed', $5::integer)) AS one (number, state, minutes)
WHERE one.minutes IS NOT NULL
"""
CLEARING, SUSPENSE = clearing_account("one", "EUR"), suspense_account("EUR")


async def say(desk: Desk, payment: Payment, word: Word, **more: Any) -> Payment:
    return await resolve(desk.payments, payment.id, Said(word, "Ann Lee", "OPS-17", **more))


async def see(desk: Desk, payment: Payment, *sights: Sight) -> Payment:
    for sight in sights:
        await desk.payments.applier.apply(payment.id, payment.latest.id, Report(sight, "event:1"))
    return await desk.again(payment)


async def unknown(desk: Desk, **more: Any) -> Payment:
    desk.one.says("create", UnknownError("?"))
    payment = await desk.create(**more)
    assert payment.state is State.UNKNOWN
    return payment


async def moved(desk: Desk, before: list[int], *codes: str) -> list[int]:
    return [now - then for now, then in zip(await desk.balance(*codes), before, strict=True)]


@pytest.mark.parametrize(
    ("word", "more", "state", "balances"),
    [
        (Word.PAID, {}, State.PAID, [100, 0]),
        (Word.PAID, {"amount": 100, "provider_id": "pi_1"}, State.PAID, [100, 0]),
        (Word.PAID, {"amount": 60}, State.MISMATCHED, [0, 60]),
        (Word.FAILED, {}, State.FAILED, [0, 0]),
        (Word.CANCELED, {}, State.CANCELED, [0, 0]),
        (Word.EXPIRED, {}, State.EXPIRED, [0, 0]),
    ],
)
async def test_an_unknown_attempt_gets_the_end_that_a_person_knows(
    desk: Desk, word: Word, more: dict[str, Any], state: State, balances: list[int]
) -> None:
    account = await desk.account()
    before = await desk.balance(account, SUSPENSE)
    payment = await unknown(desk, account=account)
    resolved = await say(desk, payment, word, **more)
    assert resolved.state is state
    assert await moved(desk, before, account, SUSPENSE) == balances
    last = (await desk.steps(payment))[-1]
    assert (last.actor, last.data["reason"]) == ("person:Ann Lee", "OPS-17")
    audit = await desk.owner.fetch(
        "SELECT type, actor, data::text AS data FROM audit_events WHERE object_id = $1", str(payment.id)
    )
    assert [(row["type"], row["actor"]) for row in audit] == [("payments.resolved", "person:Ann Lee")]
    assert "OPS-17" in audit[0]["data"]
    if "provider_id" in more:
        assert resolved.latest.provider_id == "pi_1"
    # It is no longer unknown, and the provider is believed as ever.
    with pytest.raises(Refusal):
        await say(desk, payment, Word.FAILED)
    right = Sight(Standing.PAID, amount=100, currency="EUR")
    assert (await see(desk, payment, right)).state is State.PAID
    assert await moved(desk, before, account, SUSPENSE) == [100, 0]


@pytest.mark.parametrize(
    ("sights", "word", "state", "balances"),
    [
        # Less than was asked for, then the rest; more; the same in suspense of a paid one.
        ([60], Word.ACCEPTED, State.PAID, [60, 0, -60]),
        ([150], Word.ACCEPTED, State.PAID, [150, 0, -150]),
        ([100, 150], Word.ACCEPTED, State.PAID, [150, 0, -150]),
        ([60], Word.RETURNED, State.MISMATCHED, [0, 0, 0]),
        ([100, 150], Word.RETURNED, State.PAID, [100, 0, -100]),
        ([60], Word.REFUNDED, State.MISMATCHED, [0, 0, 0]),
        ([100, 150], Word.REFUNDED, State.PAID, [100, 0, -100]),
        # A bank has taken a part back for the payer.
        ([150, -50], Word.ACCEPTED, State.PAID, [100, 0, -100]),
        ([150, -50], Word.RETURNED, State.MISMATCHED, [0, 0, 0]),
        ([150, -50], Word.REFUNDED, State.MISMATCHED, [0, 0, 0]),
    ],
)
async def test_money_in_suspense_goes_where_a_person_says(
    desk: Desk, sights: list[int], word: Word, state: State, balances: list[int]
) -> None:
    account = await desk.account()
    codes = account, SUSPENSE, CLEARING
    before = await desk.balance(*codes)
    seen = [Sight(Standing.PAID, amount=amount, currency="EUR") for amount in sights if amount > 0]
    payment = await see(desk, await desk.create(account=account), *seen)
    for amount in sights:
        if amount < 0:
            await desk.payments.applier.apply(
                payment.id, payment.latest.id, Report(Dispute("dp_1", -amount), "event:2")
            )
    resolved = await say(desk, payment, word)
    assert (resolved.state, await moved(desk, before, *codes)) == (state, balances)
    assert any(
        step.actor == "person:Ann Lee" and step.data.get("reason") for step in await desk.steps(payment)
    )
    assert ("refund" in desk.one.calls) == (word is Word.REFUNDED)
    with pytest.raises(Refusal):
        await say(desk, payment, word)
    # A dispute that is told again, without an amount too, moves nothing.
    await see(desk, payment, seen[-1], Sight(Standing.PAID))
    assert await moved(desk, before, *codes) == balances


async def test_money_in_another_currency_can_only_be_returned(desk: Desk) -> None:
    codes = suspense_account("USD"), clearing_account("one", "USD")
    before = await desk.balance(*codes)
    foreign = Sight(Standing.PAID, amount=70, currency="USD")
    payment = await see(desk, await desk.create(account=await desk.account()), foreign)
    assert await moved(desk, before, *codes) == [70, -70]
    for word in (Word.ACCEPTED, Word.REFUNDED):
        with pytest.raises(Refusal, match="USD"):
            await say(desk, payment, word)
    await say(desk, payment, Word.RETURNED)
    await see(desk, payment, foreign)
    assert await moved(desk, before, *codes) == [0, 0]


async def test_a_dispute_is_in_the_currency_that_was_paid(desk: Desk) -> None:
    codes = suspense_account("JPY"), clearing_account("one", "JPY"), SUSPENSE, CLEARING
    before = await desk.balance(*codes)
    foreign = Sight(Standing.PAID, amount=90, currency="JPY", names={"dispute": "dp_7"})
    payment = await desk.create(account=await desk.account())
    name = str(payment.latest.provider_id)
    await see(desk, payment, foreign)

    async def disputed(amount: int, event: str, currency: str = "JPY") -> None:
        notice = Notice([name], foreign, dispute=amount, dispute_currency=currency)
        assert await take(desk.payments, "one", f"{name}-{event}", notice) is not None

    for amount, event, left in ((60, "1", 30), (60, "2", 30), (-60, "3", 90), (60, "4", 90)):
        await disputed(amount, event)
        assert await moved(desk, before, *codes) == [left, -left, 0, 0], event
    assert (await desk.steps(payment))[-1].data["currency"] == "JPY"
    await say(desk, payment, Word.RETURNED)
    assert await moved(desk, before, *codes) == [0, 0, 0, 0]
    # All of it has gone back, so there is nothing that a person could return.
    foreign = foreign._replace(names={"dispute": "dp_8"})
    other = await see(desk, await desk.create(), foreign)
    name = str(other.latest.provider_id)
    await disputed(90, "5")
    assert await moved(desk, before, *codes) == [0, 0, 0, 0]
    with pytest.raises(Refusal):
        await say(desk, other, Word.RETURNED)
    assert (await desk.again(payment)).disputed == 0


async def test_money_that_came_twice_is_given_back_alone(desk: Desk) -> None:
    """The word is about the attempt with money in suspense, and not about the one that is paid."""
    account = await desk.account()
    desk.one.says("create", UnknownError("?"))
    payment = await desk.create(account=account)
    await desk.owner.execute(
        "INSERT INTO payment_attempts (id, payment_id, number, provider, state)"
        " VALUES (gen_random_uuid(), $1, 2, 'two', 'pending')",
        payment.id,
    )
    payment = await desk.again(payment)
    before = await desk.balance(account, SUSPENSE)
    paid = Sight(Standing.PAID, amount=100, currency="EUR")
    for attempt in payment.attempts:
        await desk.payments.applier.apply(payment.id, attempt.id, Report(paid, "event:1"))
    assert await moved(desk, before, account, SUSPENSE) == [100, 100]
    await say(desk, payment, Word.REFUNDED)
    assert (desk.one.calls.count("refund"), desk.two.calls.count("refund")) == (0, 1)
    assert await moved(desk, before, account, SUSPENSE) == [100, 0]


async def test_a_refund_that_nobody_knows_of(desk: Desk) -> None:
    for done, state, left in ((True, "done", 60), (False, "failed", 100)):
        payment = await see(
            desk,
            await desk.create(account=await desk.account()),
            Sight(Standing.PAID, amount=100, currency="EUR"),
        )
        desk.one.refund_script.append(UnknownError("?"))
        asked = await refund(desk.payments, payment.id, "r-1", 40, "caller")
        assert asked.state == "unknown"
        assert asked in await list_refunds(desk.service.database, before=None, limit=10)
        with pytest.raises(Refusal):
            await resolve_refund(desk.payments, payment.id, "another", "Ann", "OPS-1", done=done)
        told = await resolve_refund(desk.payments, payment.id, "r-1", "Ann", "OPS-1", done=done)
        assert told.state == state
        after = await desk.again(payment)
        assert after.paid - after.refunded == left
        assert (await desk.balance(str(payment.account)))[0] == left
        with pytest.raises(Refusal):
            await resolve_refund(desk.payments, payment.id, "r-1", "Ann", "OPS-1", done=not done)


async def test_a_word_on_a_refund_that_is_being_asked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused while the first call is out; the provider's word on a later call beats it."""
    monkeypatch.setitem(REMEMBERED, "one", timedelta(hours=24))
    payment = await see(
        desk,
        await desk.create(account=await desk.account()),
        Sight(Standing.PAID, amount=100, currency="EUR"),
    )
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> RefundSight:
        begun.set()
        await go.wait()
        return RefundSight(True, "re_1")

    desk.one.refund_script.append(slow)
    calling = asyncio.create_task(refund(desk.payments, payment.id, "slow-1", 30, "caller"))
    await begun.wait()
    with pytest.raises(Refusal, match="created"):
        await resolve_refund(desk.payments, payment.id, "slow-1", "Ann", "OPS-1", done=False)
    go.set()
    assert (await calling).state == "done"

    desk.one.refund_script.extend([UnknownError("?"), slow])
    asked = await refund(desk.payments, payment.id, "slow-2", 50, "caller")
    begun.clear()
    go.clear()
    calling = asyncio.create_task(ask(desk.payments, asked, "reconcile"))
    await begun.wait()
    told = await resolve_refund(desk.payments, payment.id, "slow-2", "Ann", "OPS-1", done=False)
    assert told.state == "failed"
    go.set()
    assert (await calling).state == "done"
    known = await find_refund(desk.payments, payment.id, "slow-2")
    assert known is not None
    assert (known.state, (await desk.again(payment)).refunded) == ("done", 80)
    (line,) = [step for step in await desk.steps(payment) if step.data.get("note")]
    assert (line.kind, line.data["note"]) == ("refund_done", "failed was seen as done afterwards")


@pytest.mark.parametrize("said", [("", "why"), ("Ann", " "), ("Ann", "two\nlines"), ("A" * 101, "why")])
async def test_a_word_without_a_name_or_a_reason_is_none(desk: Desk, said: tuple[str, str]) -> None:
    payment = await unknown(desk)
    with pytest.raises(Refusal):
        await resolve(desk.payments, payment.id, Said(Word.FAILED, *said))
    assert (await desk.again(payment)).state is State.UNKNOWN


async def test_payments_are_listed_by_state_in_pages(desk: Desk) -> None:
    made = [await unknown(desk, request_id=f"listed-{number}") for number in range(3)]
    await desk.create()
    wanted: dict[str, Any] = {"states": ["unknown"], "surface": "tests", "until": None, "limit": 2}
    first = await list_payments(desk.service.database, before=None, **wanted)
    rest = await list_payments(desk.service.database, before=first[-1].id, **wanted)
    assert [one.id for one in (*first, *rest)][:3] == [one.id for one in reversed(made)]
    young = wanted | {"until": made[0].created_at}
    assert made[0].id not in [
        one.id for one in await list_payments(desk.service.database, before=None, **young)
    ]


async def test_the_list_has_what_the_alert_counts(desk: Desk) -> None:
    """The minutes are the ages of a payment, of an unknown attempt, and of one that has failed."""
    made: dict[str, UUID] = {}
    for name, state, minutes, of_unknown, of_other in (
        ("young payment", "unknown", 5, 120, None),
        ("young attempt", "unknown", 300, 30, 290),
        ("both", "unknown", 90, 89, None),
        ("paid elsewhere", "paid", 1_200, 1_199, 100),
        ("paid", "paid", 200, None, 199),
        ("failed", "failed", 10, None, 500),
        ("mismatched", "mismatched", 240, None, 240),
    ):
        made[name] = new_uuid()
        await desk.owner.execute(AGED, made[name], state, minutes, of_unknown, of_other)

    async def listed(
        minutes: int | None, *states: str, before: UUID | None = None, limit: int = 50
    ) -> set[str]:
        until = None if minutes is None else datetime.now(UTC) - timedelta(minutes=minutes)
        found = await list_payments(
            desk.service.database,
            states=states or None,
            surface="ages",
            until=until,
            before=before,
            limit=limit,
        )
        assert [one.id for one in found] == sorted((one.id for one in found), reverse=True)
        return {name for one in found for name, known in made.items() if one.id == known}

    waiting = {"young payment", "young attempt", "both", "paid elsewhere"}
    assert await listed(60, "unknown") == waiting - {"young attempt"}
    assert await listed(None, "unknown") == waiting
    assert await listed(60, "unknown", "mismatched") == waiting - {"young attempt"} | {"mismatched"}
    assert await listed(60, "paid") == {"paid elsewhere", "paid"}
    assert await listed(60) == set(made) - {"failed"}
    assert await listed(None) == set(made)
    assert await listed(60, "unknown", limit=1) == {"paid elsewhere"}
    assert await listed(60, "unknown", before=made["paid elsewhere"]) == {"young payment", "both"}
    await observing.measure(desk.payments)
    age = re.search(rb"^provider_payments_unknown_age_seconds (\S+)$", metrics.render(), re.MULTILINE)
    assert age is not None
    oldest = int(float(age[1])) // 60
    assert (await listed(oldest, "unknown"), await listed(oldest + 1, "unknown")) == (
        {"paid elsewhere"},
        set(),
    )
