"""Orders over scripted providers: the alias of Stripe itself, ends that are found out later, amounts."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.database import open_database
from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR
from core.payments.flow import Payments, Route
from core.payments.orders.amounts import SCALE, number_of, text_of, units_of
from core.payments.orders.creating import NewOrder, create_order
from core.payments.orders.merchants import Seeded, seed_merchant
from core.payments.orders.orders import Status
from core.payments.orders.telling import armed
from core.payments.payments import NewPayment
from core.payments.states import State
from core.payments.telling import Arming
from core.providers.protocol import DeclinedError, Sight, Standing, UnknownError
from core.settings import Settings
from tests.core.payments.conftest import Desk, Scripted, desk, owner

__all__ = ["desk", "owner"]  # fixtures
UNIT = 10**SCALE


class Till:
    """Orders at two scripted providers, links and Stripe."""

    def __init__(self, desk: Desk, settings: Settings, merchant: Seeded) -> None:
        self.desk, self.settings, self.merchant = desk, settings, merchant
        self.links, self.stripe = Scripted("links"), Scripted("stripe")
        providers = {"links": self.links, "stripe": self.stripe}

        async def routes(new: NewPayment, _payment_id: UUID) -> Route:
            return Route([str(new.provider)])

        service = desk.service
        arming = Arming({"orders": armed(settings)})
        self.payments = Payments(service.database, service.ledger, providers, routes, arming=arming)
        desk.payments = self.payments

    async def create(self, order_id: int, **changes: Any) -> Any:
        fields: dict[str, Any] = {"amount": 20 * UNIT, "price": 5 * UNIT, "alias": "stripe"} | changes
        new = NewOrder(self.merchant.merchant_id, order_id, **fields)
        return await create_order(self.payments, self.settings, new)

    async def used(self) -> int:
        used: int = await self.desk.service.database.connections.pool.fetchval(
            "SELECT used_tokens FROM order_subscriptions WHERE merchant_id = $1", self.merchant.merchant_id
        )
        return used


@pytest.fixture
async def till(desk: Desk, settings: Settings) -> Till:
    database = await open_database(settings, role=None, size=1)
    merchant = await seed_merchant(database, 5)
    await database.close()
    changed = Settings.model_validate(settings.model_dump() | {"orders_currency": "USD"})
    return Till(desk, changed, merchant)


async def test_the_alias_stripe_is_stripe_itself_where_orders_have_a_currency(till: Till) -> None:
    placed = await till.create(1)
    payment = placed.payment
    assert (payment.latest.provider, payment.currency, payment.amount, payment.scale) == (
        "stripe",
        "USD",
        2_000,
        2,
    )
    assert payment.details.reference == str(placed.number)
    till.settings = Settings.model_validate(till.settings.model_dump() | {"orders_charge": "price"})
    assert (await till.create(2)).payment.amount == 500
    other = (await till.create(3, alias="adyen", amount=1)).payment
    assert (other.latest.provider, other.currency, other.amount, other.scale) == ("links", "XXX", 1, SCALE)
    with pytest.raises(Refusal) as refused:
        await till.create(4, price=UNIT // 1_000)
    assert refused.value.code == "invalid_request"
    till.settings = Settings.model_validate(till.settings.model_dump() | {"orders_currency": "XXX"})
    assert (await till.create(5)).payment.latest.provider == "links"
    assert await till.used() == 4


@pytest.mark.parametrize(
    ("later", "state", "used"),
    [
        (DeclinedError("No."), State.FAILED, 0),
        (Sight(Standing.PAID), State.PAID, 1),
        (UnknownError("Who knows?"), State.UNKNOWN, 1),
    ],
)
async def test_a_token_waits_until_the_end_of_a_payment_is_known(
    till: Till, later: Sight | Exception, state: State, used: int
) -> None:
    till.links.says("create", UnknownError("The answer did not come."), later)
    placed = await till.create(1, alias="paypal")
    assert (placed.status, placed.payment.state, await till.used()) == (
        Status.PAYMENT_PENDING,
        State.UNKNOWN,
        1,
    )
    payment = await till.desk.look(placed.payment)
    assert (payment.state, await till.used()) == (state, used)
    again = await till.create(1, amount=7)
    assert (again.number, again.replayed, again.payment.amount) == (placed.number, True, 20 * UNIT)
    assert len(set(till.links.keys)) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, MAX_AMOUNT_MINOR))
def test_amounts_are_exact(units: int) -> None:
    for text in (text_of(units, SCALE), number_of(units, SCALE)):
        assert units_of(Decimal(text), "amount") == units
    assert len(text_of(units, SCALE).partition(".")[2]) == 8


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0.30000000000000004", 30_000_000),
        ("0.000000005", 1),
        ("1e2", 100 * UNIT),
        ("0.000000004", None),
        ("46116860184.27387904", None),
        ("1e999999999", None),
        ("-1", None),
        ("NaN", None),
        ("Infinity", None),
    ],
)
def test_further_digits_are_rounded_and_bounds_hold(text: str, units: int | None) -> None:
    if units is not None:
        assert units_of(Decimal(text), "amount") == units
        return
    with pytest.raises(Refusal):
        units_of(Decimal(text), "amount")
