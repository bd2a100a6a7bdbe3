"""Payments over a provider that does what a test tells it, with the real ledger and database."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.payments.flow import Payments, Route
from core.payments.payments import NewPayment, Payment, Step, find, timeline
from core.providers.protocol import Handle, Method, Notice, Order, RefundSight, Sight, Standing, UnknownError
from core.service import Service
from core.settings import Settings
from tests.invariants import faults

_numbers = itertools.count(1)

Answer = Sight | Exception | Callable[[], Awaitable[Sight]]


class Scripted:
    """A provider in memory. Each call takes the next answer of its script; without one it tells its own truth."""

    def __init__(self, name: str, *, repeats: bool = True) -> None:
        self.name = name
        self.repeats = repeats
        self.script: dict[str, deque[Answer]] = {"create": deque(), "look": deque(), "cancel": deque()}
        self.calls: list[str] = []
        self.keys: list[str] = []
        self.orders: dict[str, Standing] = {}
        self.refunds: dict[str, int] = {}
        self.refund_script: deque[RefundSight | Exception | Callable[[], Awaitable[RefundSight]]] = deque()

    def says(self, call: str, *answers: Answer) -> None:
        """Let the next calls end so."""
        self.script[call].extend(answers)

    async def create(self, order: Order) -> Sight:
        """Open the order, once under its key, and give the scripted answer."""
        self.keys.append(order.key)
        self.orders.setdefault(order.key, Standing.OPEN)
        return await self._answer("create", order.key)

    async def look(self, handle: Handle) -> Sight:
        """Tell how the order stands."""
        return await self._answer("look", handle.order.key)

    async def cancel(self, handle: Handle) -> Sight:
        """Close the order, unless it is paid."""
        if self.orders.get(handle.order.key) is Standing.OPEN:
            self.orders[handle.order.key] = Standing.EXPIRED
        return await self._answer("cancel", handle.order.key)

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:
        """Give back, once under the key, and give the scripted answer."""
        self.calls.append("refund")
        fresh = key not in self.refunds
        self.refunds.setdefault(key, amount)
        answer = self.refund_script.popleft() if self.refund_script else RefundSight(True)
        if isinstance(answer, Exception):
            if fresh and not isinstance(answer, UnknownError):
                del self.refunds[key]
            raise answer
        return answer if isinstance(answer, RefundSight) else await answer()

    def read(self, event_type: str, body: bytes) -> Notice | None:
        """Events are not read here."""
        return None

    async def close(self) -> None:
        """Nothing is open."""

    async def _answer(self, call: str, key: str) -> Sight:
        self.calls.append(call)
        if not self.script[call]:
            standing = self.orders.get(key, Standing.ABSENT)
            return Sight(standing, provider_id=f"{self.name}_{key[-12:]}", url=f"https://pay.test/{key}")
        answer = self.script[call].popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Sight) else await answer()


class Desk:
    """Payments, their providers `one` and `two`, and short words for what tests do with them."""

    def __init__(self, service: Service, owner: Any) -> None:
        self.service = service
        self.owner = owner
        self.one = Scripted("one")
        self.two = Scripted("two", repeats=False)
        self.payments = self.engine()

    def engine(self) -> Payments:
        """Another process's payments over the same database and providers."""

        async def routes(new: NewPayment, _payment_id: UUID) -> Route:
            return Route([new.provider] if new.provider else ["one", "two"])

        providers = {"one": self.one, "two": self.two}
        return Payments(self.service.database, self.service.ledger, providers, routes)

    async def account(self) -> str:
        """Open a merchant's account."""
        code = f"merchant-{next(_numbers)}"
        await open_accounts(self.service.database, [Opening(code, "EUR", Limits())], SYSTEM_PRINCIPAL)
        return code

    def new(self, **more: Any) -> NewPayment:
        """A payment of 100 cents that nobody has asked for yet."""
        fields: dict[str, Any] = {
            "surface": "tests",
            "caller": "shop",
            "request_id": f"r{next(_numbers)}",
            "amount": 100,
            "currency": "EUR",
            "method": Method.HOSTED_CARD,
            "title": "Tea",
            "reference": "order-1",
            **more,
        }
        return NewPayment(**fields)

    async def create(self, **more: Any) -> Payment:
        """Create a payment."""
        return (await self.payments.create(self.new(**more))).payment

    async def again(self, payment: Payment) -> Payment:
        """Read a payment."""
        return await find(self.service.database, payment.id)

    async def look(self, payment: Payment, *, rounds: int = 1) -> Payment:
        """Look at the attempts of one payment that anybody would look at, as if their time had come."""
        for _ in range(rounds):
            for attempt in (await self.again(payment)).attempts:
                if attempt.next_look_at is not None:
                    await self.payments.look_at(payment.id, attempt.id, "reconcile")
        return await self.again(payment)

    async def age(self, payment: Payment) -> None:
        """Let an hour pass since the attempts of a payment were made."""
        await self.owner.execute(
            "UPDATE payment_attempts SET created_at = created_at - interval '1 hour' WHERE payment_id = $1",
            payment.id,
        )

    async def steps(self, payment: Payment) -> list[Step]:
        """Return the timeline."""
        return await timeline(self.service.database, payment.id)

    async def balance(self, *codes: str) -> list[int]:
        """Return the balances of accounts; 0 for one that is not open."""
        rows = await self.owner.fetch("SELECT code, balance FROM accounts WHERE code = any($1)", codes)
        found = {row["code"]: row["balance"] for row in rows}
        return [found.get(code, 0) for code in codes]


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Any]:
    """A connection as the owner of the schema."""
    connection = await asyncpg.connect(str(settings.database_url))
    yield connection
    await connection.close()


@pytest.fixture
async def desk(service: Service, owner: Any, settings: Settings) -> AsyncIterator[Desk]:
    """Payments without any. After the test the ledger is sound, and each timeline is dense and ends with the state."""
    desk = Desk(service, owner)
    yield desk
    await desk.payments.close()
    assert await faults(str(settings.database_url)) == {}
    assert not await owner.fetch(
        """
        SELECT p.id FROM payments AS p LEFT JOIN payment_timeline AS t ON t.payment_id = p.id
        GROUP BY p.id HAVING p.revision <> count(t.no) OR p.revision <> max(t.no)
            OR (array_agg(t.state ORDER BY t.no DESC))[1] <> p.state
        """
    )


def gate() -> tuple[asyncio.Event, asyncio.Event, Callable[[Sight], Callable[[], Awaitable[Sight]]]]:
    """Return an event that is set when a call has begun, one that lets it end, and a maker of such an answer."""
    begun, go = asyncio.Event(), asyncio.Event()

    def answer(sight: Sight) -> Callable[[], Awaitable[Sight]]:
        async def wait() -> Sight:
            begun.set()
            await go.wait()
            return sight

        return wait

    return begun, go, answer
