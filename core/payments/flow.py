"""The flow: a payment is stored before its provider is called, and what the provider says is applied afterwards.

Each call of a provider stands between two transactions. A process that dies before the call, in it or before its
answer is stored leaves an attempt that is CREATED and whose call is over: `look_at` then takes it for UNKNOWN, and
finds out. It orders again under the same key where the provider makes one order of both, and else asks.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec
import structlog

from core import ids, tasks
from core.database import queries
from core.errors import Refusal
from core.payments.applying import Applied, Applier
from core.payments.calls import MOST_CALL_SECONDS, called
from core.payments.looking import CALL_SECONDS, LAST_LOOK_SECONDS, LEASE_SECONDS
from core.payments.observing import note_created
from core.payments.payments import UNKNOWN_FINGERPRINT, find, find_by_key
from core.payments.states import Effect, Seen, State
from core.payments.writing import Report, add_trial
from core.providers.protocol import REMEMBERED, Standing
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from uuid import UUID

    from core.database import Connection, Database
    from core.ledger.ledger import Ledger
    from core.payments.payments import Attempt, NewPayment, Payment
    from core.payments.telling import Arming
    from core.providers.protocol import Provider, Sight
    from core.work.progress import Progress

Beside: TypeAlias = "Callable[[Connection, UUID], Awaitable[None]]"

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# An order is repeated for half of the time that its provider remembers a key: a later repetition is a second order. The
# clocks of both sides differ by less, and so does the time from this decision to the provider.
REMEMBERED_BY_OTHERS: Final = timedelta(hours=12)
# A provider that has never heard of an order may hear of it yet, as the call may wait in a proxy or in the provider
# itself. No queue on the way keeps a request for longer than its own time-out, which is minutes at most.
ABSENT_AFTER: Final = timedelta(minutes=10)
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


async def no_terms(_payment: Payment, _provider: str) -> Mapping[str, str]:
    """Return no terms, for providers that need none."""
    return {}


async def _not_noted(_provider: str, _answered: bool) -> None:  # noqa: FBT001 - the two halves of a note
    return


async def _none_fail(_providers: Collection[str]) -> frozenset[str]:
    return frozenset()


class Payments:
    """Creates, cancels and looks at payments. `close` waits for the calls that are under way.

    `routes` chooses the providers of a new payment and raises Refusal where there is none. `terms` returns a merchant's
    own settings at a provider; they are secrets, so an attempt does not keep them. `noted` hears after
    each call whether its provider has answered. `arming` writes the callbacks of changes. An
    open attempt is looked at after `longest_look` seconds at the latest.
    """

    def __init__(  # noqa: PLR0913 - the parts of an engine; most have a harmless default
        self,
        database: Database,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        routes: Callable[[NewPayment, UUID], Awaitable[Route]],
        *,
        wake: Callable[[], None] = lambda: None,
        terms: Callable[[Payment, str], Awaitable[Mapping[str, str]]] = no_terms,
        noted: Callable[[str, bool], Awaitable[None]] = _not_noted,
        arming: Arming | None = None,
        longest_look: float = LAST_LOOK_SECONDS,
    ) -> None:
        self.database = database
        self.providers = providers
        self.applier = Applier(database, ledger, wake, arming, longest_look)
        self._routes = routes
        self.terms = terms
        self.noted = noted
        self.failing: Callable[[Collection[str]], Awaitable[frozenset[str]]] = _none_fail
        """The question which of some providers are better left alone, as the router answers it."""
        self._calls: dict[UUID, asyncio.Task[Payment]] = {}
        self._looks: dict[UUID, asyncio.Task[Payment]] = {}
        self.looks_under_way: dict[str, asyncio.Task[Progress]] = {}
        """The parts of `core.payments.reconciling.reconcile` that have not ended, by the provider."""

    async def create(self, new: NewPayment, beside: Beside | None = None) -> Created:
        """Create a payment and order it at a provider, once for each surface, caller and request id.

        A repetition gets the payment as it stands, and waits for the first call while that is under way. `beside`
        writes what a surface keeps of a payment, in the transaction that stores it. Raises Refusal
        `idempotency_conflict` for another request under the same id, `invalid_request`, and those of `routes`.
        """
        new.require_storable()
        known = await find_by_key(self.database, new.surface, new.caller, new.request_id)
        if known is None:
            scale = new.check()
            payment_id = ids.new_uuid()
            route = await self._routes(new, payment_id)
            started = _now()
            if await self._store(new, payment_id, scale, route, beside):
                note_created(new.surface, route.providers[0])
                return Created(await self._call_once(payment_id, started), False)
            known = await find_by_key(self.database, new.surface, new.caller, new.request_id)
            if known is None:
                raise LookupError(f"payment {new.request_id!r} of {new.caller!r} was stored and is gone")
        if known.fingerprint not in {new.fingerprint(), UNKNOWN_FINGERPRINT}:
            raise Refusal("idempotency_conflict", "This request id was used before for another payment.")
        return Created(await self._settled(known), True)

    async def cancel(self, payment_id: UUID, actor: str, *, seen: Seen = Seen.CANCEL_ASKED) -> Payment:
        """Let nobody pay any more: ask the provider to close what is open, and return the payment as it stands then.

        A closed payment stays as it is. The payment may still be open in the end, until the provider has answered.
        Raises Refusal `payment_not_found`, and `payment_paid` where money has come.
        """
        payment = await find(self.database, payment_id)
        payment, effects, *_ = await self.applier.apply(payment_id, payment.latest.id, Report(seen, actor))
        if Effect.REFUSE in effects:
            raise Refusal("payment_paid", "The payment was paid before.", state=str(payment.state))
        if Effect.GIVE_UP in effects and await self._claim(payment.current.id):
            return await self.look_at(payment_id, payment.current.id, actor)
        return payment

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

    async def look_now(self, payment: Payment, actor: str) -> Payment:
        """Ask the provider how a payment stands, with one question for all who ask for it at the same time."""
        task = self._looks.get(payment.id)
        if task is None:
            task = asyncio.create_task(self.look_at(payment.id, payment.current.id, actor))
            self._looks[payment.id] = task
            task.add_done_callback(lambda ended: _forget(self._looks, payment.id, ended))
        return await asyncio.shield(task)

    async def renew_within(
        self,
        connection: Connection,
        payment_id: UUID,
        attempt_id: UUID,
        renewal: str,
        sight: Sight,
        actor: str,
    ) -> tuple[Applied, bool]:
        """Apply the sight of a later payment of an order that repeats: each renewal is a payment of its own, once.

        Returns what `Applier.within` does, whose transaction this is.
        """
        first = await find(connection, payment_id)
        provider = first.attempt(attempt_id).provider
        new = first.again(f"renewal:{provider}:{renewal}", provider)
        route = Route([provider], msgspec.json.encode({"renews": str(payment_id)}).decode())
        # Nobody ever looks by the first time: there is no order of this payment that could be repeated.
        await self._insert(connection, new, ids.new_uuid(), first.scale, route, look_in=None)
        payment = await find_by_key(connection, new.surface, new.caller, new.request_id)
        if payment is None:
            raise LookupError(f"the renewal {renewal!r} was stored and is gone")
        seen = sight._replace(provider_id=renewal)
        return await self.applier.within(connection, payment.id, payment.latest.id, Report(seen, actor))

    async def settled(self, payment_id: UUID, *, seconds: float = MOST_WAIT_SECONDS) -> Payment:
        """Return a payment once its first call has ended, or after `seconds`. Raises Refusal `payment_not_found`."""
        return await self._settled(await find(self.database, payment_id), seconds)

    async def attempt_of(self, payment_id: UUID, attempt_id: UUID) -> tuple[Payment, Attempt]:
        """Return a payment and one of its attempts. Raises Refusal `payment_not_found`."""
        payment = await find(self.database, payment_id)
        return payment, payment.attempt(attempt_id)

    async def close(self) -> None:
        """Wait until the calls that are under way have ended and are stored; end looks, which others take over."""
        await tasks.end(*self.looks_under_way.values())
        if calls := [*self._calls.values(), *self._looks.values()]:
            await asyncio.wait(calls, timeout=MOST_CALL_SECONDS)

    async def try_again(self, payment: Payment, actor: str) -> Payment:
        """Order a payment anew whose orders have all certainly not been taken; return any other as it stands."""
        started = _now()
        if await in_transaction(self.database, lambda connection: add_trial(connection, payment.id, actor)):
            return await self._call_once(payment.id, started)
        return await self._settled(await find(self.database, payment.id))

    async def _store(
        self, new: NewPayment, payment_id: UUID, scale: int, route: Route, beside: Beside | None
    ) -> bool:
        """Store payment and first attempt. Returns False where the key was taken meanwhile."""
        async with self.database.transaction() as connection:
            stored = await self._insert(connection, new, payment_id, scale, route, look_in=CALL_SECONDS)
            if stored and beside is not None:
                await beside(connection, payment_id)
            return stored

    async def _insert(
        self,
        connection: Connection,
        new: NewPayment,
        payment_id: UUID,
        scale: int,
        route: Route,
        *,
        look_in: float | None,
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
        provider = route.providers[0]
        await connection.execute(
            _sql.store_attempt, ids.new_uuid(), payment_id, provider, route.reasons, look_in
        )
        return True

    async def _call_once(self, payment_id: UUID, started: float) -> Payment:
        """Call the provider in a task of its own: a caller who hangs up ends nothing, and twins wait for the same."""
        task = asyncio.create_task(self._call(payment_id, started))
        self._calls[payment_id] = task
        task.add_done_callback(lambda ended: _forget(self._calls, payment_id, ended))
        return await asyncio.shield(task)

    async def _call(self, payment_id: UUID, started: float) -> Payment:
        """Order at one provider after the other, until one has not certainly said no. `started` was before the storing.

        A process that has slept for too long does not call any more: others may be looking, and would find nothing.
        """
        payment = await find(self.database, payment_id)
        for _ in payment.routes:
            attempt = payment.latest
            if attempt.state is not State.CREATED or _now() - started > CALL_SECONDS - MOST_CALL_SECONDS:
                break
            actor = f"provider:{attempt.provider}"
            if payment.wish is None:
                report = await self._order(payment, attempt, actor)
            else:
                report = Report(Seen.UNSENT, actor, "given_up: Nobody wanted the payment any more.")
            started = _now()
            payment = (await self.applier.apply(payment.id, attempt.id, report)).payment
        return payment

    async def _settled(self, payment: Payment, seconds: float = MOST_WAIT_SECONDS) -> Payment:
        """Return the payment of a repeated request, after its first call."""
        deadline = _now() + seconds
        while payment.state is State.CREATED and _now() < deadline:
            task = self._calls.get(payment.id)
            if task is not None:
                done, _ = await asyncio.wait((task,), timeout=deadline - _now())
                return task.result() if done else payment
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
        return await self._report(
            payment,
            attempt,
            lambda provider, terms: provider.create(payment.order(attempt, terms)),
            Report(Seen.UNKNOWN, actor, look=look),
        )

    async def _look(self, payment: Payment, attempt: Attempt, actor: str) -> Report:
        provider = self.providers.get(attempt.provider)
        age = datetime.now(UTC) - attempt.created_at
        if attempt.state is State.UNKNOWN and provider is not None and provider.repeats:
            remembered = REMEMBERED.get(attempt.provider, REMEMBERED_BY_OTHERS)
            if age < remembered / 2:
                return await self._order(payment, attempt, actor, look=True)
        closes = attempt.giving_up and attempt.state is not State.UNKNOWN
        report = await self._report(
            payment,
            attempt,
            lambda provider, terms: (provider.cancel if closes else provider.look)(
                payment.handle(attempt, terms)
            ),
            Report(Seen.UNKNOWN, actor, look=True),
        )
        if report.sight is not None and report.sight.standing is Standing.ABSENT and age < ABSENT_AFTER:
            return report._replace(
                seen=Seen.UNKNOWN, error="not_heard_of: The provider has not heard of it yet."
            )
        # The provider has refused to tell or to close, and not the order.
        return report._replace(seen=Seen.UNKNOWN) if report.seen is Seen.DECLINED else report

    async def _report(
        self,
        payment: Payment,
        attempt: Attempt,
        call: Callable[[Provider, Mapping[str, str]], Awaitable[Sight]],
        report: Report,
    ) -> Report:
        """Call the provider of an attempt, and return the report with the end of the call."""
        try:
            terms = await self.terms(payment, attempt.provider)
        except Refusal as refusal:
            return report._replace(seen=Seen.UNSENT, error=f"{refusal.code}: {refusal.detail}")
        ended = await called(self.providers, attempt.provider, lambda provider: call(provider, terms))
        await self.noted(attempt.provider, ended.answered)
        return report._replace(seen=ended.seen, error=ended.error)


def _forget(
    under_way: dict[UUID, asyncio.Task[Payment]], payment_id: UUID, ended: asyncio.Task[Payment]
) -> None:
    under_way.pop(payment_id, None)
    if not ended.cancelled() and (error := ended.exception()) is not None:
        # The caller may be gone. The attempt is found out like one whose process was lost.
        _log.warning("payments.call_not_stored", payment=str(payment_id), error=repr(error))


def _now() -> float:
    return asyncio.get_running_loop().time()
