"""Top-ups by card: a payment through a provider, whose money goes to the wallet of the user who asked for it.

The engine of payments posts it when the money has come, whatever process sees that. The wallet is asked then: if it is
frozen, closed or too full by that time, the money lies on the suspense account, and the next sight of the payment
brings it in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.errors import Refusal
from core.payments.payments import NewPayment, find
from core.payments.states import State
from core.providers.protocol import Method

if TYPE_CHECKING:
    from uuid import UUID

    from core.payments.flow import Payments
    from core.payments.payments import Payment
    from core.platform import Platform
    from core.wallets.users import User

SURFACE: Final = "wallets"
TITLE: Final = "Top-up"
# A person waits for the end of these, and nobody shall pay a second time because of a word.
_WAITING: Final = frozenset({State.CREATED, State.PROCESSING, State.UNKNOWN})


async def start(payments: Payments, platform: Platform, user: User, amount: int, key: str) -> Payment:
    """Ask for a payment of `amount` minor units into the user's own wallet, once under `key`.

    Raises Refusal `idempotency_conflict`, `no_provider` and `invalid_request`.
    """
    new = NewPayment(
        surface=SURFACE,
        caller=str(user.id),
        request_id=f"topup:{key}",
        amount=amount,
        currency=platform.currency,
        method=Method.HOSTED_CARD,
        title=TITLE,
        reference=str(user.wallet_id),
        account=user.account,
        principal_id=user.principal_id,
    )
    return (await payments.create(new)).payment


async def show(payments: Payments, user: User, payment_id: UUID) -> Payment:
    """Return a top-up of the user. Raises Refusal `payment_not_found`, also for one of somebody else."""
    payment = await find(payments.database, payment_id)
    if (payment.surface, payment.caller) != (SURFACE, str(user.id)):
        raise Refusal("payment_not_found", "There is no such payment.")
    return payment


def state_of(payment: Payment) -> str:
    """Return the state as a payer reads it: `processing` also while nobody knows, so that nobody pays again."""
    return str(State.PROCESSING if payment.state in _WAITING else payment.state)
