"""The metrics of payments: states, calls of providers, and what a scrape asks the database and the breakers for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from core import metrics
from core.database import queries
from core.payments.states import State
from core.work.gauges import ask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.payments.applying import Applied
    from core.payments.flow import Payments

_sql = queries(__name__)

# Series of what never happened yet are there from the start, so that a rate over them begins at 0.
SURFACES: Final = ("orders", "orchestration", "kaspi", "wallets", "codes")
REFUND_STATES: Final = ("pending", "unknown", "done", "failed")
OUTCOMES: Final = ("answered", "declined", "unsent", "unknown")


def prepare(providers: Iterable[str]) -> None:
    """Let the series of these providers begin at 0."""
    for provider in providers:
        metrics.PROVIDER_SECONDS.begin(provider)
        for outcome in OUTCOMES:
            metrics.PROVIDER_CALLS.begin(provider, outcome)
        for surface in SURFACES:
            for state in State:
                metrics.PAYMENT_STATES.begin(surface, provider, state)
            for ended in REFUND_STATES:
                metrics.REFUND_STATES.begin(surface, provider, ended)


def note_created(surface: str, provider: str) -> None:
    """Count a payment that was stored."""
    metrics.PAYMENT_STATES.add(surface, provider, State.CREATED)


def note(applied: Applied) -> None:
    """Count the state that a payment has come into. The transaction has been committed."""
    payment = applied.payment
    if payment.state is not applied.before:
        metrics.PAYMENT_STATES.add(payment.surface, payment.current.provider, payment.state)


def note_refund(surface: str, provider: str, before: str, state: str) -> None:
    """Count the state that a refund has come into. The transaction has been committed."""
    if state != before:
        metrics.REFUND_STATES.add(surface, provider, state)


def note_call(provider: str, outcome: str, seconds: float) -> None:
    """Count a call of a provider."""
    metrics.PROVIDER_CALLS.add(provider, outcome)
    metrics.PROVIDER_SECONDS.observe(seconds, provider)


async def measure(payments: Payments, *, answers: bool = True) -> None:
    """Set the gauges; to NaN where the database does not answer in time, or is known not to. Raises nothing."""
    failing = await payments.failing(payments.providers)
    for name in payments.providers:
        metrics.PROVIDER_BREAKER.labels(name).set(name in failing)
    row = await ask(payments.database.fetchrow(_sql.payments_waiting)) if answers else None
    metrics.PAYMENTS_UNKNOWN.set(math.nan if row is None else row["unknown"])
    metrics.PAYMENTS_UNKNOWN_AGE.set(math.nan if row is None else row["unknown_seconds"])
    metrics.PAYMENTS_LOOK_LAG.set(math.nan if row is None else row["late_seconds"])
    row = await ask(payments.database.fetchrow(_sql.refunds_waiting)) if answers else None
    metrics.REFUNDS_UNKNOWN.set(math.nan if row is None else row["unknown"])
    metrics.REFUNDS_UNKNOWN_AGE.set(math.nan if row is None else row["unknown_seconds"])
    metrics.REFUNDS_LOOK_LAG.set(math.nan if row is None else row["late_seconds"])
