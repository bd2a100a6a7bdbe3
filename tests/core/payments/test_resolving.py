"""A named person's word: what it may be about, what it moves, and who is named for it."""

from typing import Any

import pytest

from core.errors import Refusal
from core.payments.accounts import clearing_account, suspense_account
from core.payments.payments import Payment
from core.payments.refunds import refund
from core.payments.resolving import Said, Word, list_payments, list_refunds, resolve, resolve_refund
from core.payments.states import State
from core.payments.writing import Report
from core.providers.protocol import Sight, Standing, UnknownError
from tests.core.payments.conftest import Desk

pytestmark = pytest.mark.shared

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
    ],
)
async def test_money_in_suspense_goes_where_a_person_says(
    desk: Desk, sights: list[int], word: Word, state: State, balances: list[int]
) -> None:
    account = await desk.account()
    codes = account, SUSPENSE, CLEARING
    before = await desk.balance(*codes)
    seen = [Sight(Standing.PAID, amount=amount, currency="EUR") for amount in sights]
    payment = await see(desk, await desk.create(account=account), *seen)
    resolved = await say(desk, payment, word)
    assert (resolved.state, await moved(desk, before, *codes)) == (state, balances)
    assert any(
        step.actor == "person:Ann Lee" and step.data.get("reason") for step in await desk.steps(payment)
    )
    assert ("refund" in desk.one.calls) == (word is Word.REFUNDED)
    with pytest.raises(Refusal):
        await say(desk, payment, word)
    # What is told again, without an amount too, moves nothing.
    again = Sight(Standing.PAID, amount=sights[-1], currency="EUR")
    await see(desk, payment, again, Sight(Standing.PAID))
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
