"""Schedules: faults of every kind at once, and at the end the ledger and the provider agree to the unit."""

import asyncio
import random
from typing import Any

import pytest

from core.payments.accounts import clearing_account
from core.payments.flow import Payments
from core.payments.payments import Payment, find, find_by_name
from core.payments.reconciling import expire, reconcile
from core.payments.states import OPEN_STATES, State
from core.payments.writing import Report
from core.providers.protocol import DeclinedError, Order, Sight, Standing, UnknownError, UnsentError
from tests.core.payments.conftest import Desk, Scripted

PAYMENTS = 24
AMOUNT = 100


class Faulty(Scripted):
    """A provider whose calls get lost on either way, whose payers pay, and whose events are told as a test likes."""

    def __init__(self, name: str, chance: random.Random, *, repeats: bool) -> None:
        super().__init__(name, repeats=repeats)
        self.chance = chance
        self.charges: dict[str, int] = {}
        self.events: list[tuple[str, Sight]] = []

    async def create(self, order: Order) -> Sight:
        """Take the order, or lose it, and be paid sometimes; lose the answer in a fifth of all calls."""
        fate = self.chance.random()
        if fate < 0.1:
            raise UnsentError("It did not go out.") if order.key not in self.orders else UnknownError("?")
        if fate < 0.2:
            raise UnknownError("It was lost on the way there.")
        if order.key not in self.orders:
            if fate < 0.3:
                raise DeclinedError("No.")
            self.orders[order.key] = Standing.OPEN
            if self.chance.random() < 0.7:
                self.pay(order.key)
        if self.chance.random() < 0.2:
            raise UnknownError("The answer was lost.")
        return self.sight(order.key)

    async def _answer(self, call: str, key: str) -> Sight:
        self.calls.append(call)
        if self.chance.random() < 0.2:
            raise UnknownError("The answer was lost.")
        return self.sight(key)

    def pay(self, key: str) -> None:
        """Let the payer pay: it is charged here, once for each order that is open."""
        self.orders[key] = Standing.PAID
        self.charges[key] = self.charges.get(key, 0) + AMOUNT
        self.events += [(key, Sight(Standing.OPEN)), (key, self.sight(key))]

    def sight(self, key: str) -> Sight:
        """Tell the truth."""
        standing = self.orders.get(key, Standing.ABSENT)
        name = f"id-{key}" if standing is not Standing.ABSENT else None
        amount = AMOUNT if standing is Standing.PAID else None
        return Sight(standing, name, amount=amount, currency="EUR" if amount else None)


async def created(payments: Payments, desk: Desk, chance: random.Random, **more: Any) -> None:
    """Create a payment, by a process that dies at any moment in a fifth of all cases."""
    task = asyncio.create_task(payments.create(desk.new(**more)))
    if chance.random() < 0.2:
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        for call in [*payments._calls.values()][-1:]:
            call.cancel()
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def deliver(payments: Payments, desk: Desk, provider: Faulty, chance: random.Random) -> None:
    """Tell events twice, never, or out of order."""
    told = [event for event in provider.events for _ in range(chance.choice((0, 1, 2)))]
    chance.shuffle(told)
    provider.events.clear()
    for key, sight in told:
        found = await find_by_name(desk.service.database, provider.name, [f"id-{key}"])
        if found is not None:
            await payments.applier.apply(*found, Report(sight, "event:e"))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("events", [True, False])
async def test_every_payment_comes_to_its_true_end(desk: Desk, seed: int, *, events: bool) -> None:
    chance = random.Random(f"{seed}{events}")
    one, two = Faulty("one", chance, repeats=True), Faulty("two", chance, repeats=False)
    desk.one, desk.two = one, two
    engines = [desk.engine(), desk.engine()]
    account = await desk.account()
    await asyncio.gather(
        *(created(engines[n % 2], desk, chance, account=account) for n in range(PAYMENTS // 2)),
        *(
            created(engines[n % 2], desk, chance, account=account, provider=("one", "two")[n % 2])
            for n in range(PAYMENTS // 2)
        ),
    )
    for round_ in range(30):
        for provider in (one, two):
            if events:
                await deliver(engines[0], desk, provider, chance)
            for key in [key for key, standing in provider.orders.items() if standing is Standing.OPEN]:
                if chance.random() < 0.1:
                    provider.pay(key)
        # Time goes on: everything is due again, and after a while all payments have been open for too long.
        await desk.owner.execute(
            "UPDATE payment_attempts SET next_look_at = now(), created_at = created_at - interval '5 minutes'"
            " WHERE next_look_at IS NOT NULL"
        )
        if round_ == 10:
            await desk.owner.execute("UPDATE payments SET expires_at = now()")
            await expire(engines[0])
        await asyncio.gather(*(reconcile(engine) for engine in engines))
        states = [row["state"] for row in await desk.owner.fetch("SELECT state FROM payments")]
        if round_ > 10 and not OPEN_STATES & {*states}:
            break
    await check(desk, account, one, two)


async def check(desk: Desk, account: str, *providers: Faulty) -> None:
    rows = await desk.owner.fetch("SELECT id FROM payments")
    payments: list[Payment] = [await find(desk.service.database, row["id"]) for row in rows]
    charged = {
        name: sum(provider.charges.values()) for name, provider in zip(("one", "two"), providers, strict=True)
    }
    assert all(amount == AMOUNT for provider in providers for amount in provider.charges.values())
    for payment in payments:
        keys = [f"tallystick-{attempt.id}" for attempt in payment.attempts]
        charges = [provider.charges.get(key, 0) for provider in providers for key in keys]
        assert sum(charges) <= AMOUNT, "charged twice"
        assert (payment.state is State.PAID) == (sum(charges) == AMOUNT), payment
        assert payment.state not in OPEN_STATES
    balances = await desk.balance(account, clearing_account("one", "EUR"), clearing_account("two", "EUR"))
    assert balances == [sum(charged.values()), -charged["one"], -charged["two"]]
    assert sum(charged.values()) > 0
