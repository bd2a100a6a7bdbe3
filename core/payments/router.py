"""The router, and the parts of payments put together: rules of routing, health of providers, providers, ledger."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from core.payments.flow import Payments, Route, no_terms
from core.payments.health import Health
from core.payments.routing import Wanted, route
from core.work import wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from uuid import UUID

    from core.payments.payments import NewPayment, Payment
    from core.payments.routing import Rule
    from core.providers.protocol import Provider
    from core.service import Service
    from core.work.wakeup import Waker


class Router:
    """Chooses the providers of new payments, for `core.payments.flow.Payments`."""

    def __init__(self, rules: Sequence[Rule], health: Health) -> None:
        self._rules = rules
        self._health = health

    async def routes(self, new: NewPayment, payment_id: UUID) -> Route:
        """Return the providers for a payment, and why. Raises Refusal `no_provider`."""
        wanted = Wanted(new.amount, new.currency, new.method, new.account or new.caller, new.provider)
        failing = await self._health.failing({rule.provider for rule in self._rules})
        decision = route(self._rules, wanted, payment_id, failing)
        return Route(decision.providers, decision.told())

    async def noted(self, provider: str, answered: bool) -> None:  # noqa: FBT001 - the two halves of a note
        """Note whether a provider has answered a call."""
        await self._health.note(provider, answered=answered)


@asynccontextmanager
async def open_payments(
    service: Service,
    waker: Waker,
    providers: Sequence[Provider],
    rules: Sequence[Rule],
    *,
    terms: Callable[[Payment, str], Awaitable[Mapping[str, str]]] = no_terms,
    health: Health | None = None,
) -> AsyncIterator[Payments]:
    """Open payments over a service; at the end wait for the calls that are under way, and close the providers."""
    router = Router(rules, health or Health(service.redis, service.epoch))
    payments = Payments(
        service.database,
        service.ledger,
        {provider.name: provider for provider in providers},
        router.routes,
        wake=lambda: waker.wake(wakeup.OUTBOX),
        terms=terms,
        noted=router.noted,
    )
    try:
        yield payments
    finally:
        await payments.close()
        for provider in providers:
            await provider.close()
