"""The router, and the parts of payments put together: rules of routing, health of providers, providers, ledger."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from core.payments.flow import Payments, Route, no_terms
from core.payments.health import Health
from core.payments.observing import prepare
from core.payments.orchestration import desk as orchestration
from core.payments.orchestration import status_callbacks
from core.payments.orders.orders import SURFACE as ORDERS
from core.payments.orders.telling import armed
from core.payments.routing import Rule, Wanted, route
from core.payments.rules import NO_CURRENCY
from core.payments.telling import Arming
from core.payments.terms import Terms
from core.providers import kaspi_words as kaspi
from core.providers import links, simulator
from core.providers.known import providers_of
from core.providers.protocol import Method
from core.settings import SettingsError
from core.vault import Vault
from core.work import wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
    from uuid import UUID

    from core.payments.onward import Onward
    from core.payments.payments import NewPayment, Payment
    from core.payments.telling import Armed
    from core.providers.protocol import Provider
    from core.service import Service
    from core.settings import Settings
    from core.work.wakeup import Waker

# The rules that hold where PAYMENT_ROUTES is unset, for providers that cannot take everything.
_OWN_RULES: Final = {
    kaspi.NAME: Rule(
        provider=kaspi.NAME,
        currencies=frozenset({"KZT"}),
        methods=frozenset({Method.PHONE, Method.PAYMENT_LINK}),
    ),
    # Links have no currency.
    links.NAME: Rule(provider=links.NAME, currencies=frozenset({NO_CURRENCY})),
    # The simulator comes last: whoever has set a real provider up wants to try that.
    simulator.NAME: Rule(provider=simulator.NAME, rank=9),
}

# By the surface of a payment: the function that returns the callbacks which tell of a change.
CALLBACKS: Final[Mapping[str, Armed]] = {orchestration.SURFACE: status_callbacks.armed}


def rules_of(settings: Settings, providers: Mapping[str, Provider]) -> list[Rule]:
    """Return the rules of PAYMENT_ROUTES, or one rule for each provider. Raises SettingsError."""
    if not settings.payment_routes:
        return [_OWN_RULES.get(name) or Rule(provider=name) for name in providers]
    try:
        return msgspec.json.decode(settings.payment_routes, type=list[Rule])
    except msgspec.MsgspecError as error:
        raise SettingsError([f"PAYMENT_ROUTES: {error}"]) from None


class Router:
    """Chooses the providers of new payments, for `core.payments.flow.Payments`.

    `stand_in` takes the payments of a provider that a caller names and that is not set up: in development everything
    can be tried without an account anywhere.
    """

    def __init__(self, rules: Sequence[Rule], health: Health, stand_in: str | None = None) -> None:
        self._rules = rules
        self._health = health
        self._stand_in = stand_in

    async def routes(self, new: NewPayment, payment_id: UUID) -> Route:
        """Return the providers for a payment, and why. Raises Refusal `no_provider`."""
        named = new.provider
        if named is not None and self._stand_in and all(rule.provider != named for rule in self._rules):
            named = self._stand_in
        wanted = Wanted(new.amount, new.currency, new.method, new.account or new.caller, named)
        failing = await self._health.failing({rule.provider for rule in self._rules})
        decision = route(self._rules, wanted, payment_id, failing)
        return Route(decision.providers, decision.told())

    async def failing(self, providers: Collection[str]) -> frozenset[str]:
        """Return those of `providers` that are better left alone now."""
        return await self._health.failing(providers)

    async def noted(self, provider: str, answered: bool) -> None:  # noqa: FBT001 - the two halves of a note
        """Note whether a provider has answered a call."""
        await self._health.note(provider, answered=answered)


@asynccontextmanager
async def open_payments(
    service: Service,
    waker: Waker,
    providers: Mapping[str, Provider],
    rules: Sequence[Rule],
    *,
    terms: Callable[[Payment, str], Awaitable[Mapping[str, str]]] = no_terms,
    health: Health | None = None,
    stand_in: str | None = None,
) -> AsyncIterator[Payments]:
    """Open payments over a service; at the end wait for the calls that are under way, and close the providers."""
    router = Router(rules, health or Health(service.redis, service.epoch), stand_in)

    def wake() -> None:
        waker.wake(wakeup.OUTBOX)
        waker.wake(wakeup.DELIVERIES)

    payments = Payments(
        service.database,
        service.ledger,
        providers,
        router.routes,
        wake=wake,
        terms=terms,
        noted=router.noted,
        arming=Arming({ORDERS: armed(service.settings), **CALLBACKS}, Vault.of(service.settings)),
        longest_look=service.settings.payments_reconcile_stale_after_minutes * 60.0,
    )
    payments.failing = router.failing
    prepare(providers)
    try:
        yield payments
    finally:
        await payments.close()
        for provider in providers.values():
            await provider.close()


@asynccontextmanager
async def open_engine(
    service: Service, waker: Waker, onward: Mapping[str, Onward] | None = None
) -> AsyncIterator[Payments]:
    """Open payments with the providers and rules of the settings. Raises SettingsError for rules that are none.

    Every process that applies sights needs the same `onward`: what surfaces do with the money of their payments.
    """
    providers = providers_of(service.settings)
    async with open_payments(
        service,
        waker,
        providers,
        rules_of(service.settings, providers),
        terms=Terms(service.database, Vault.of(service.settings)).of,
        stand_in=simulator.NAME if simulator.NAME in providers else None,
    ) as payments:
        payments.applier.onward = onward or {}
        yield payments
