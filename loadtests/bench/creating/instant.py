"""A provider that answers at once, by which the engine's own time is measured."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

from core.payments.flow import Payments, Route
from core.payments.payments import NewPayment
from core.providers.protocol import Handle, Method, Notice, Order, RefundSight, Sight, Standing
from core.service import open_service
from core.settings import load_settings
from loadtests.bench.clients.workload import CURRENCY


class Instant:
    """See `core.providers.protocol.Provider`."""

    name = "simulator"
    repeats = True

    async def create(self, order: Order) -> Sight:
        """Take the order."""
        return Sight(
            Standing.OPEN,
            provider_id=f"sim_{order.attempt.hex}",
            amount=order.amount,
            currency=order.currency,
            url=f"http://127.0.0.1/pay/{order.attempt}",
            word="open",
        )

    async def look(self, handle: Handle) -> Sight:
        """Show the order."""
        return await self.create(handle.order)

    cancel = look

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:  # noqa: ARG002 - the protocol's
        """Give back."""
        return RefundSight(True, amount=amount)

    def read(self, event_type: str, body: bytes) -> Notice | None:  # noqa: ARG002 - the protocol's
        """Read nothing."""
        return None

    async def close(self) -> None:
        """Close nothing."""


@contextlib.asynccontextmanager
async def creating(database_url: str, redis_url: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Open an engine with this provider alone; a call creates one payment."""
    settings = load_settings(env_file=None, env="test", database_url=database_url, redis_url=redis_url)

    async def routes(_new: NewPayment, _payment_id: UUID) -> Route:
        return Route([Instant.name])

    async with open_service(settings) as service:
        payments = Payments(service.database, service.ledger, {Instant.name: Instant()}, routes)
        numbers = itertools.count()

        async def create() -> object:
            return await payments.create(
                NewPayment(
                    surface="bench",
                    caller="bench",
                    request_id=f"own-{next(numbers)}",
                    amount=1_250,
                    currency=CURRENCY,
                    method=Method.HOSTED_CARD,
                    title="Tea",
                    reference="bench",
                )
            )

        yield create
        await payments.close()
