"""Applying what was seen: money and state in one transaction, once, in whatever order it is told."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from core.database import Connection
from core.errors import Refusal
from core.ledger.accounts import Limits, Opening, change_account, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.outbox.callbacks import PENDING, Callback, standings_of
from core.payments.accounts import clearing_account, collected_account, suspense_account
from core.payments.applying import Applier
from core.payments.payments import Payment
from core.payments.reconciling import expire, reconcile
from core.payments.rules import Dispute
from core.payments.states import MONEY_STATES, Seen, State
from core.payments.telling import Arming
from core.payments.writing import Report
from core.providers.protocol import Sight, Standing, UnknownError, UnsentError
from tests.core.payments.conftest import Desk, gate

CLEARING, SUSPENSE = clearing_account("one", "EUR"), suspense_account("EUR")


def paid(amount: int = 100, **more: Any) -> Sight:
    return Sight(Standing.PAID, amount=amount, currency="EUR")._replace(**more)


async def see(
    desk: Desk, payment: Payment, *sights: Sight | Seen | Dispute, actor: str = "event:1"
) -> Payment:
    for sight in sights:
        await desk.payments.applier.apply(payment.id, payment.latest.id, Report(sight, actor))
    return await desk.again(payment)


async def told(desk: Desk, payment: Payment) -> list[str]:
    rows = await desk.owner.fetch(
        "SELECT event_type FROM outbox_events WHERE object_id = $1 ORDER BY id", str(payment.id)
    )
    return [row["event_type"] for row in rows]


async def test_money_is_posted_once_with_fee_and_refunds(desk: Desk) -> None:
    account = await desk.account()
    payment = await desk.create(account=account, principal_id=SYSTEM_PRINCIPAL)
    payment = await see(
        desk, payment, paid(fee=3), paid(fee=3), Sight(Standing.OPEN), Sight(Standing.EXPIRED)
    )
    assert (payment.state, payment.paid) == (State.PAID, 100)
    assert await desk.balance(account, CLEARING, SUSPENSE) == [97, -97, 0]
    # A statement shows the whole and the fee.
    entries = await desk.owner.fetch(
        "SELECT e.amount FROM entries AS e JOIN accounts AS a ON a.id = e.account_id WHERE a.code = $1 ORDER BY e.no",
        account,
    )
    assert [row["amount"] for row in entries] == [100, -3]
    payment = await see(desk, payment, paid(refunded=40), paid(refunded=40), paid(), paid(refunded=97))
    assert (payment.state, payment.paid, payment.refunded) == (State.PAID, 100, 97)
    assert await desk.balance(account, CLEARING, SUSPENSE) == [0, 0, 0]
    assert await told(desk, payment) == ["payment.paid", "payment.refunded", "payment.refunded"]
    kinds = [(step.kind, step.state) for step in await desk.steps(payment)]
    assert kinds == [
        ("created", "created"), ("open", "pending"), ("paid", "paid"), ("expired", "paid"), ("paid", "paid"),
        ("paid", "paid"),
    ]  # fmt: skip


async def test_reports_at_once_post_once(desk: Desk) -> None:
    """Without the lock of the payment both would read it unpaid, and the loser would fail or write over the winner."""
    account = await desk.account()
    payment = await desk.create(account=account, principal_id=SYSTEM_PRINCIPAL)
    reports: list[Sight | Seen] = [
        paid(),
        paid(),
        Sight(Standing.EXPIRED),
        Sight(Standing.OPEN),
        paid(refunded=10),
        Seen.UNKNOWN,
    ]
    await asyncio.gather(*(see(desk, payment, one) for one in reports * 4))
    payment = await desk.again(payment)
    assert (payment.state, payment.paid, payment.refunded) == (State.PAID, 100, 10)
    assert await desk.balance(account, CLEARING) == [90, -90]
    events = await told(desk, payment)
    assert (events.count("payment.paid"), events.count("payment.refunded")) == (1, 1)


@pytest.mark.parametrize(
    ("sight", "suspense", "currency"),
    [(paid(99), 99, "EUR"), (paid(101), 101, "EUR"), (paid(100, currency="USD"), 100, "USD")],
)
async def test_other_money_than_asked_for_is_no_success(
    desk: Desk, sight: Sight, suspense: int, currency: str
) -> None:
    account = await desk.account()
    payment = await see(desk, await desk.create(account=account, principal_id=SYSTEM_PRINCIPAL), sight, sight)
    assert payment.state is State.MISMATCHED
    assert await desk.balance(account, suspense_account(currency)) == [0, suspense]
    assert await told(desk, payment) == ["payment.mismatched"]
    (step,) = [one for one in await desk.steps(payment) if one.state == "mismatched"][:1]
    assert "100 EUR was asked for" in step.data["note"]


async def test_a_payer_who_pays_twice_at_two_providers_gives_the_merchant_nothing_twice(desk: Desk) -> None:
    account = await desk.account()
    desk.one.says("create", UnsentError("Away, it said."))
    payment = await desk.create(account=account)
    first, second = payment.attempts
    # The first money is the payment; the other provider is asked to close, and is paid meanwhile all the same.
    await desk.payments.applier.apply(payment.id, second.id, Report(Sight(Standing.OPEN), "event:1"))
    for attempt in (second, first):
        await desk.payments.applier.apply(payment.id, attempt.id, Report(paid(), "event:2"))
    payment = await desk.again(payment)
    assert [one.state for one in payment.attempts] == [State.MISMATCHED, State.PAID]
    assert (payment.state, payment.paid) == (State.PAID, 200)
    assert await desk.balance(account, SUSPENSE) == [100, 100]


async def test_once_the_money_has_come_other_attempts_are_closed(desk: Desk) -> None:
    desk.one.says("create", UnsentError("Away, it said."))
    payment = await desk.create()
    await desk.payments.applier.apply(payment.id, payment.attempts[0].id, Report(paid(), "event:2"))
    assert (await reconcile(desk.payments)).done == 1
    payment = await desk.again(payment)
    assert [one.state for one in payment.attempts] == [State.PAID, State.EXPIRED]
    assert (payment.state, desk.two.calls) == (State.PAID, ["create", "cancel"])
    with pytest.raises(Refusal) as refused:
        await desk.payments.cancel(payment.id, "caller")
    assert refused.value.code == "payment_paid"


@pytest.mark.parametrize("state", ["frozen", "full", "missing", "other currency"])
async def test_an_account_that_takes_nothing_does_not_undo_what_was_paid(desk: Desk, state: str) -> None:
    account = await desk.account()
    if state == "frozen":
        await change_account(desk.service.database, account, state="frozen")
    elif state == "full":
        await change_account(desk.service.database, account, limits={"ceiling": 50})
    elif state == "missing":
        account = "nobody"
    else:
        await open_accounts(desk.service.database, [Opening("dollars", "USD", Limits())], SYSTEM_PRINCIPAL)
        account = "dollars"
    payment = await see(desk, await desk.create(account=account), paid(fee=3))
    assert payment.state is State.PAID
    assert await desk.balance(account, SUSPENSE) == [0, 97]
    payment = await see(desk, payment, paid(fee=3, refunded=10))
    assert await desk.balance(account, SUSPENSE) == [0, 87]
    if state in {"frozen", "full"}:
        # The money that was kept back follows as soon as the account takes it.
        change: Any = {"state": "open"} if state == "frozen" else {"limits": {"ceiling": None}}
        await change_account(desk.service.database, account, **change)
        await see(desk, payment, paid())
        assert await desk.balance(account, SUSPENSE) == [87, 0]


async def test_a_refund_that_the_merchant_cannot_pay_is_owed(desk: Desk) -> None:
    account, payment = await desk.account(), None
    payment = await see(desk, await desk.create(account=account), paid(fee=3), paid(refunded=100))
    assert payment.refunded == 100
    assert await desk.balance(account, SUSPENSE, CLEARING) == [97, -100, 3]


async def test_each_dispute_counts_once(desk: Desk) -> None:
    account = await desk.account()
    payment = await see(desk, await desk.create(account=account, principal_id=SYSTEM_PRINCIPAL), paid())
    payment = await see(desk, payment, Dispute("dp_1", 100), Dispute("dp_1", 100))
    assert (payment.disputed, await desk.balance(account, CLEARING)) == (100, [0, 0])
    payment = await see(desk, payment, Dispute("dp_1", -100), Dispute("dp_1", -100), Dispute("dp_1", 100))
    assert (payment.disputed, await desk.balance(account, CLEARING)) == (0, [100, -100])
    assert (await told(desk, payment)).count("payment.disputed") == 2


async def test_a_name_of_one_order_never_pays_another(desk: Desk) -> None:
    desk.one.says("create", *[Sight(Standing.OPEN, provider_id="777")] * 2)
    both = await asyncio.gather(desk.create(), desk.create())
    first, second = sorted(both, key=lambda one: one.state)
    assert (first.state, second.state) == (State.PENDING, State.UNKNOWN)
    assert second.latest.provider_id is None
    assert "another payment" in str((await desk.steps(second))[-1].data["error"])
    for payment, expected in ((second, State.UNKNOWN), (first, State.PAID), (second, State.UNKNOWN)):
        assert (await see(desk, payment, paid(provider_id="777"))).state is expected
    assert (await see(desk, second, paid(provider_id="778"))).state is State.PAID


async def test_money_and_state_are_one_transaction(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.account()
    payment = await desk.create(account=account, principal_id=SYSTEM_PRINCIPAL)

    def fails(*_: object) -> None:
        raise RuntimeError("the last statement of the transaction fails")

    await see(desk, await desk.create(account=account), paid())  # the accounts are open then
    with monkeypatch.context() as patched:
        patched.setattr("core.payments.writing.told_of", fails)
        with pytest.raises(RuntimeError):
            await see(desk, payment, paid())
    assert (await desk.again(payment)).state is State.PENDING
    assert await desk.balance(account, CLEARING) == [100, -100]


async def test_a_payment_without_a_currency_is_exact_and_not_in_the_ledger(desk: Desk) -> None:
    payment = await desk.create(amount=1_000_000_001, currency="XXX")
    payment = await see(desk, payment, Sight(Standing.PAID))
    assert (payment.state, payment.paid, payment.scale) == (State.PAID, 1_000_000_001, 8)
    assert await desk.owner.fetchval("SELECT count(*) FROM entries") == 0
    with pytest.raises(Refusal, match="account"):
        await desk.create(currency="XXX", account="shop")
    with pytest.raises(Refusal, match="decimals"):
        await desk.create(scale=8)
    with pytest.raises(Refusal, match="platform"):
        await desk.create(account=CLEARING)


async def test_a_payment_without_an_account_is_collected(desk: Desk) -> None:
    await see(desk, await desk.create(), paid())
    assert await desk.balance(collected_account("EUR"), CLEARING) == [100, -100]


async def test_an_order_that_the_provider_denies_is_noted_once_and_closed_once_unwanted(desk: Desk) -> None:
    payment, absent = await desk.create(), Sight(Standing.ABSENT)
    lines = len(await desk.steps(payment))
    payment = await see(desk, payment, absent, absent, absent)
    assert (payment.state, len(await desk.steps(payment))) == (State.PENDING, lines + 1)
    await desk.age(payment)
    desk.one.says("cancel", absent)
    assert (await desk.payments.cancel(payment.id, "caller")).state is State.CANCELED
    # Money that comes all the same is in sight.
    assert (await see(desk, payment, paid())).state is State.PAID


async def test_cancelling_asks_the_provider_and_takes_its_word(desk: Desk) -> None:
    payment = await desk.create(principal_id=SYSTEM_PRINCIPAL)
    canceled = await desk.payments.cancel(payment.id, "caller")
    assert (canceled.state, desk.one.calls) == (State.CANCELED, ["create", "cancel"])
    assert await desk.payments.cancel(payment.id, "caller") == canceled
    # The same end under the provider's own word, told late.
    assert (await see(desk, payment, Sight(Standing.EXPIRED))).state is State.CANCELED
    assert await told(desk, payment) == ["payment.canceled"]

    desk.one.says("cancel", paid())
    payment = await desk.payments.cancel((await desk.create()).id, "caller")
    assert (payment.state, payment.paid) == (State.PAID, 100)
    with pytest.raises(Refusal) as refused:
        await desk.payments.cancel(payment.id, "caller")
    assert refused.value.code == "payment_paid"


async def test_a_cancellation_that_nobody_answers_leaves_the_payment_open(desk: Desk) -> None:
    desk.one.says("cancel", UnknownError("?"), UnknownError("?"))
    payment = await desk.payments.cancel((await desk.create()).id, "caller")
    assert (payment.state, payment.wish) == (State.PENDING, "cancel")
    assert (await desk.look(payment)).state is State.PENDING
    assert (await desk.look(payment)).state is State.CANCELED


async def test_a_cancellation_of_what_is_unknown_waits_for_it(desk: Desk) -> None:
    desk.one.says("create", UnknownError("?"))
    payment = await desk.payments.cancel((await desk.create()).id, "caller")
    assert payment.state is State.PENDING  # ordered again under its key, and so found
    assert (await desk.look(payment)).state is State.CANCELED


async def test_what_is_closed_here_and_open_there_is_closed_there(desk: Desk) -> None:
    payment = await desk.create()
    payment = await see(desk, payment, Sight(Standing.EXPIRED), Sight(Standing.OPEN))
    assert (payment.state, payment.latest.giving_up) == (State.EXPIRED, True)
    payment = await desk.look(payment)
    assert (payment.state, payment.latest.giving_up, payment.latest.next_look_at) == (
        State.EXPIRED,
        False,
        None,
    )
    assert desk.one.calls[-1] == "cancel"


async def test_expiry_asks_before_it_closes(desk: Desk) -> None:
    past = datetime(2026, 1, 1, tzinfo=UTC)
    open_, taken = await desk.create(expires_at=past), await desk.create(expires_at=past)
    desk.one.orders[desk.one.keys[-1]] = Standing.PAID
    desk.one.says("create", UnknownError("?"))
    unknown = await desk.create(expires_at=past)
    desk.one.says("create", UnknownError("?"))
    assert (await expire(desk.payments)).done == 3
    assert [one.state for one in [await desk.again(one) for one in (open_, taken, unknown)]] == [
        "pending", "pending", "unknown",
    ]  # fmt: skip
    assert not (await expire(desk.payments)).any
    assert await reconcile(desk.payments) == (2, 1), "a look that tells nothing has failed"
    assert [one.state for one in [await desk.again(one) for one in (open_, taken, unknown)]] == [
        "expired", "paid", "unknown",
    ]  # fmt: skip
    assert (await desk.look(unknown, rounds=2)).state is State.EXPIRED


async def test_looks_have_a_budget_and_an_order_and_fail_alone(desk: Desk) -> None:
    payments = [await desk.create() for _ in range(4)] + [await desk.create(provider="two")]
    for minutes, payment in enumerate(payments):
        await desk.owner.execute(
            "UPDATE payment_attempts SET next_look_at = now() - make_interval(mins => $2) WHERE payment_id = $1",
            payment.id,
            10 - minutes,
        )
    desk.one.says("look", RuntimeError("a fault in the provider's file"), paid())
    desk.two.orders[desk.two.keys[-1]] = Standing.PAID
    assert await reconcile(desk.payments, budget=2) == (2, 1)
    states = [(await desk.again(one)).state for one in payments]
    # Looks go on beside each other, so either of the two that were due for the longest has met the fault.
    assert (sorted(states[:2]), states[2:]) == (["paid", "pending"], ["pending", "pending", "paid"])
    assert (await reconcile(desk.payments, budget=2)).done == 2
    assert not (await reconcile(desk.payments, budget=2)).any
    looks = [(await desk.again(one)).latest.looks for one in payments[:4]]
    assert (sorted(looks[:2]), looks[2:]) == ([0, 1], [1, 1])  # a new state begins its looks anew


async def test_a_slow_provider_holds_up_itself_alone(desk: Desk, eventually: Any) -> None:
    begun, go, answer = gate()
    slow, quick = await desk.create(), await desk.create(provider="two")
    await desk.owner.execute("UPDATE payment_attempts SET next_look_at = now()")
    desk.one.says("look", answer(paid()))
    assert (await reconcile(desk.payments, patience=0.01)).failed == 0
    await begun.wait()
    desk.two.orders[desk.two.keys[-1]] = Standing.PAID

    async def found() -> bool:
        await desk.owner.execute("UPDATE payment_attempts SET next_look_at = now() WHERE provider = 'two'")
        await reconcile(desk.payments, patience=0.01)
        return (await desk.again(quick)).state is State.PAID

    await eventually(found)
    assert (await desk.again(slow)).state is State.PENDING
    go.set()
    await reconcile(desk.payments)
    assert ((await desk.again(slow)).state, desk.one.calls.count("look")) == (State.PAID, 1)


async def test_workers_look_once_at_each_attempt(desk: Desk) -> None:
    payments = [await desk.create() for _ in range(6)]
    await desk.owner.execute("UPDATE payment_attempts SET next_look_at = now()")
    steps = await asyncio.gather(*(reconcile(engine) for engine in (desk.payments, desk.engine())))
    assert (sum(step.done for step in steps), desk.one.calls.count("look")) == (len(payments), len(payments))


async def test_the_serving_role_cannot_rewrite_what_has_happened(desk: Desk) -> None:
    payment = await desk.create()
    for statement in (
        "DELETE FROM payments",
        "DELETE FROM payment_attempts",
        "DELETE FROM payment_timeline",
        "UPDATE payment_timeline SET kind = 'x'",
        "UPDATE payments SET amount = 1",
        "UPDATE payments SET account = 'mine'",
        "UPDATE payment_attempts SET provider = 'x'",
    ):
        async with desk.owner.transaction():
            await desk.owner.execute("SET LOCAL ROLE tallystick_serving")
            with pytest.raises(Exception, match="permission denied"):
                async with desk.owner.transaction():
                    await desk.owner.execute(statement)
    row = await desk.owner.fetchrow("SELECT details::text FROM payments WHERE id = $1", payment.id)
    assert json.loads(row["details"])["title"] == "Tea"


async def test_a_change_arms_the_callbacks_of_its_surface(desk: Desk) -> None:
    """In the transaction of the change, and once: what is seen again changes nothing and arms nothing."""
    calls: list[tuple[State, State]] = []

    async def arm(_connection: Connection, before: Payment, after: Payment) -> list[Callback]:
        calls.append((before.state, after.state))
        if before.state is after.state or after.state not in MONEY_STATES:
            return []
        return [
            Callback("tests", str(after.id), after.caller, "https://shop.test/told", after.state.encode())
        ]

    woken: list[bool] = []
    arming = Arming({"tests": arm})
    applier = Applier(desk.service.database, desk.service.ledger, lambda: woken.append(True), arming)
    payment = await desk.create(account=await desk.account())
    for _ in range(2):
        await applier.apply(payment.id, payment.latest.id, Report(paid(), "event:1"))
    assert (calls, woken) == ([(State.PENDING, State.PAID)], [True])
    found = await standings_of(desk.service.database, "tests", [str(payment.id)])
    assert found[str(payment.id)].state == PENDING

    async def fails(_connection: Connection, _before: Payment, _after: Payment) -> list[Callback]:
        raise ZeroDivisionError

    applier = Applier(desk.service.database, desk.service.ledger, lambda: None, Arming({"tests": fails}))
    other = await desk.create(account=await desk.account())
    with pytest.raises(ZeroDivisionError):
        await applier.apply(other.id, other.latest.id, Report(paid(), "event:2"))
    assert (await desk.again(other)).state is State.PENDING
