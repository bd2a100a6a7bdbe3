"""The flow: a payment is stored before its provider is called, and what the provider says is applied afterwards.

Each call of a provider stands between two transactions. A process that dies before the call, in it or before its
answer is stored leaves an attempt that is CREATED and whose call is over: `look_at` then takes it for UNKNOWN, and
finds out. It orders again under the same key where the provider makes one order of both, and else asks.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from core import ids
from core.database import queries
from core.errors import Refusal
from core.payments.applying import Applier, Report, add_step
from core.payments.looking import CALL_SECONDS, LEASE_SECONDS
from core.payments.payments import find, find_by_key
from core.payments.states import OPEN_STATES, Effect, Seen, State
from core.providers.protocol import DeclinedError, UnknownError, UnsentError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from uuid import UUID

    from core.database import Connection, Database
    from core.ledger.ledger import Ledger
    from core.payments.payments import Attempt, NewPayment, Payment
    from core.providers.protocol import Provider, Sight

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# A call that takes longer ends as unknown. It ends well before CALL_SECONDS, when others may look.
MOST_CALL_SECONDS: Final = CALL_SECONDS - 15
# Providers keep idempotency keys for a day at least (Stripe: 24 hours); a later repetition would be a second order.
REPEAT_FOR: Final = timedelta(hours=12)
# A twin of a request whose call another process makes asks so often how it stands, and answers after so long at last.
POLL_SECONDS: Final = 0.05
MOST_WAIT_SECONDS: Final = 20.0


class Route(NamedTuple):
    """The providers for a payment, the first choice first, and the reasons of the choice."""

    providers: Sequence[str]
    reasons: str = "{}"


class Created(NamedTuple):
    """The answer to a creation. A `replayed` one repeats a payment that was asked for before."""

    payment: Payment
    replayed: bool


async def _no_terms(_payment: Payment, _provider: str) -> Mapping[str, str]:
    return {}


class Payments:
    """Creates, cancels and looks at payments. `close` waits for the calls that are under way.

    `routes` chooses the providers of a new payment and raises Refusal where there is none. `terms` returns a merchant's
    own settings at a provider; they are secrets, so an attempt does not keep them.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        routes: Callable[[NewPayment, UUID], Awaitable[Route]],
        *,
        wake: Callable[[], None] = lambda: None,
        terms: Callable[[Payment, str], Awaitable[Mapping[str, str]]] = _no_terms,
        noted: Callable[[str, Report], None] = lambda _provider, _report: None,
    ) -> None:
        self.database = database
        self.providers = providers
        self.applier = Applier(database, ledger, wake)
        self._routes = routes
        self._terms = terms
        self._noted = noted
        self._calls: dict[UUID, asyncio.Task[Payment]] = {}

    async def create(self, new: NewPayment) -> Created:
        """Create a payment and order it at a provider, once for each surface, caller and request id.

        A repetition gets the payment as it stands, and waits for the first call while that is under way. Raises Refusal
        `idempotency_conflict` for another request under the same id, `invalid_request`, and those of `routes`.
        """
        known = await find_by_key(self.database, new.surface, new.caller, new.request_id)
        if known is None:
            scale = new.check()
            payment_id = ids.new_uuid()
            route = await self._routes(new, payment_id)
            if await self._store(new, payment_id, scale, route):
                return Created(await self._call_once(payment_id), False)
            known = await find_by_key(self.database, new.surface, new.caller, new.request_id)
            if known is None:
                raise LookupError(f"payment {new.request_id!r} of {new.caller!r} was stored and is gone")
        if known.fingerprint != new.fingerprint():
            raise Refusal("idempotency_conflict", "This request id was used before for another payment.")
        return Created(await self._settled(known), True)

    async def cancel(self, payment_id: UUID, actor: str, *, seen: Seen = Seen.CANCEL_ASKED) -> Payment:
        """Let nobody pay any more: ask the provider to close what is open, and return the payment as it stands then.

        A closed payment stays as it is. The payment may still be open in the end, until the provider has answered.
        Raises Refusal `payment_not_found`, and `payment_paid` where money has come.
        """
        payment = await find(self.database, payment_id)
        attempt = next((one for one in payment.attempts if one.state in OPEN_STATES), payment.latest)
        applied = await self.applier.apply(payment_id, attempt.id, Report(seen, actor))
        if Effect.REFUSE in applied.effects:
            raise Refusal("payment_paid", "The payment was paid before.", state=str(applied.payment.state))
        if Effect.GIVE_UP in applied.effects and await self._claim(attempt.id):
            return await self.look_at(payment_id, attempt.id, actor)
        return applied.payment

    async def look_at(self, payment_id: UUID, attempt_id: UUID, actor: str) -> Payment:
        """Ask the provider how an attempt stands, or to close it, and apply the answer. The caller has claimed it."""
        payment = await find(self.database, payment_id)
        attempt = payment.attempt(attempt_id)
        if attempt.state is State.CREATED:
            error = "interrupted: The process that called the provider was lost."
            payment = (
                await self.applier.apply(payment_id, attempt_id, Report(Seen.UNKNOWN, actor, error))
            ).payment
            attempt = payment.attempt(attempt_id)
        report = await self._look(payment, attempt, actor)
        return (await self.applier.apply(payment_id, attempt_id, report)).payment

    async def close(self) -> None:
        """Wait until the calls that are under way have ended and are stored."""
        if self._calls:
            await asyncio.wait(self._calls.values(), timeout=MOST_CALL_SECONDS)

    async def _store(self, new: NewPayment, payment_id: UUID, scale: int, route: Route) -> bool:
        """Store payment and first attempt. Returns False where the key was taken meanwhile."""
        async with self.database.transaction() as connection:
            return await self._insert(connection, new, payment_id, scale, route)

    async def _insert(
        self, connection: Connection, new: NewPayment, payment_id: UUID, scale: int, route: Route
    ) -> bool:
        stored = await connection.fetchval(
            _sql.store_payment,
            payment_id,
            new.surface,
            new.caller,
            new.request_id,
            new.fingerprint(),
            new.principal_id,
            new.amount,
            scale,
            new.currency,
            new.method,
            new.account,
            new.details(),
            list(route.providers),
            new.expires_at,
        )
        if stored is None:
            return False
        attempt_id = ids.new_uuid()
        await connection.execute(
            _sql.store_attempt, attempt_id, payment_id, route.providers[0], route.reasons, CALL_SECONDS
        )
        data = {
            "amount": new.amount,
            "scale": scale,
            "currency": new.currency,
            "routes": list(route.providers),
        }
        await add_step(connection, payment_id, 1, attempt_id, "created", "caller", State.CREATED, data)
        return True

    async def _call_once(self, payment_id: UUID) -> Payment:
        """Call the provider in a task of its own: a caller who hangs up ends nothing, and twins wait for the same."""
        task = asyncio.create_task(self._call(payment_id))
        self._calls[payment_id] = task
        task.add_done_callback(lambda _: self._calls.pop(payment_id, None))
        return await asyncio.shield(task)

    async def _call(self, payment_id: UUID) -> Payment:
        payment = await find(self.database, payment_id)
        for _ in payment.routes:
            attempt = payment.latest
            if attempt.state is not State.CREATED:
                break
            report = await self._order(payment, attempt, f"provider:{attempt.provider}")
            payment = (await self.applier.apply(payment.id, attempt.id, report)).payment
        return payment

    async def _settled(self, payment: Payment) -> Payment:
        """Return the payment of a repeated request, after its first call."""
        deadline = asyncio.get_running_loop().time() + MOST_WAIT_SECONDS
        while payment.state is State.CREATED and asyncio.get_running_loop().time() < deadline:
            task = self._calls.get(payment.id)
            if task is not None:
                return await asyncio.shield(task)
            due = payment.latest.next_look_at
            if due is not None and due <= datetime.now(UTC) and await self._claim(payment.latest.id):
                return await self.look_at(payment.id, payment.latest.id, "caller")
            await asyncio.sleep(POLL_SECONDS)
            payment = await find(self.database, payment.id)
        return payment

    async def _claim(self, attempt_id: UUID) -> bool:
        """Take an attempt that is due for a look of our own; False where another has it."""
        return bool(await self.database.execute(_sql.claim_attempt, attempt_id, LEASE_SECONDS))

    async def _order(self, payment: Payment, attempt: Attempt, actor: str, *, look: bool = False) -> Report:
        order = payment.order(attempt, await self._terms(payment, attempt.provider))
        return await self._report(attempt.provider, lambda provider: provider.create(order), actor, look=look)

    async def _look(self, payment: Payment, attempt: Attempt, actor: str) -> Report:
        provider = self.providers.get(attempt.provider)
        fresh = datetime.now(UTC) - attempt.created_at < REPEAT_FOR
        if attempt.state is State.UNKNOWN and provider is not None and provider.repeats and fresh:
            return await self._order(payment, attempt, actor, look=True)
        handle = payment.handle(attempt, await self._terms(payment, attempt.provider))
        closes = attempt.giving_up and attempt.state is not State.UNKNOWN
        report = await self._report(
            attempt.provider,
            lambda provider: provider.cancel(handle) if closes else provider.look(handle),
            actor,
            look=True,
        )
        # The provider has refused to tell or to close, and not the order.
        return report._replace(seen=Seen.UNKNOWN) if report.seen is Seen.DECLINED else report

    async def _report(
        self, name: str, call: Callable[[Provider], Awaitable[Sight]], actor: str, *, look: bool
    ) -> Report:
        """Call a provider, and return how that ended. Whatever is no clear answer is unknown."""
        provider = self.providers.get(name)
        if provider is None:
            return Report(Seen.UNSENT, actor, f"provider_not_configured: {name} is not configured.", look)
        try:
            async with asyncio.timeout(MOST_CALL_SECONDS):
                report = Report(await call(provider), actor, None, look)
        except DeclinedError as error:
            report = Report(Seen.DECLINED, actor, f"{error.code}: {error.detail}", look)
        except UnsentError as error:
            report = Report(Seen.UNSENT, actor, f"{error.code}: {error.detail}", look)
        except UnknownError as error:
            report = Report(Seen.UNKNOWN, actor, f"{error.code}: {error.detail}", look)
        except Exception as error:  # noqa: BLE001 - a fault, or a time-out: nobody knows
            _log.exception("payments.call_failed", provider=name)
            report = Report(Seen.UNKNOWN, actor, f"internal_error: {type(error).__name__}", look)
        self._noted(name, report)
        return report
