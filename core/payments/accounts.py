"""The accounts of payments, and the postings that move their money."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.ledger.items import SYSTEM_PRINCIPAL, Leg, Posting, operation_id
from core.payments.rules import Place

if TYPE_CHECKING:
    from core.payments.payments import Attempt, Payment
    from core.payments.rules import Movement


def clearing_account(provider: str, currency: str) -> str:
    """Return the code of the account whose negative balance is the debt of a provider to us in `currency`."""
    return f"provider:{provider}:clearing:{currency}"


def suspense_account(currency: str) -> str:
    """Return the code of the account of money that is not what was asked for, until a person has decided on it."""
    return f"system:payments_suspense:{currency}"


def collected_account(currency: str) -> str:
    """Return the code of the account of payments that name no account of a merchant."""
    return f"system:payments_collected:{currency}"


def accounts_of(payment: Payment, attempt: Attempt, currency: str) -> dict[Place, str]:
    """Return the code of the account of each place, for money in `currency`."""
    return {
        Place.CLEARING: clearing_account(attempt.provider, currency),
        Place.MERCHANT: payment.account or collected_account(currency),
        Place.SUSPENSE: suspense_account(currency),
    }


def system_accounts(payment: Payment, attempt: Attempt, currency: str) -> dict[str, str]:
    """Return those of the accounts that are the platform's own, with their currency: they are opened when needed."""
    codes = accounts_of(payment, attempt, currency).values()
    return {code: currency for code in codes if code != payment.account}


def posting_of(payment: Payment, attempt: Attempt, movement: Movement) -> Posting:
    """Return the posting of a movement. Its id comes from attempt and level, so that it is posted once for all."""
    codes = accounts_of(payment, attempt, movement.currency)
    legs: list[Leg] = []
    for source, target, amount in movement.pairs:
        legs += [Leg(codes[source], -amount), Leg(codes[target], amount)]
    return Posting(
        operation_id(SYSTEM_PRINCIPAL, f"payment:{attempt.id}:{movement.level}"),
        SYSTEM_PRINCIPAL,
        tuple(legs),
        kind=movement.kind,
        currency=movement.currency,
        reference=str(payment.id),
        metadata={"provider": attempt.provider, "attempt": str(attempt.id)},
        unfrozen=True,
        identity=(movement.kind, movement.level),
    )
