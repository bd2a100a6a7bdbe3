"""Events about payments: a change that matters to the owner is told once, by the transaction that makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from core.outbox.events import new_event
from core.payments.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.ledger.items import Told
    from core.payments.payments import Payment

STATES: Final[Mapping[State, str]] = {
    State.PAID: "payment.paid",
    State.MISMATCHED: "payment.mismatched",
    State.FAILED: "payment.failed",
    State.CANCELED: "payment.canceled",
    State.EXPIRED: "payment.expired",
}
REFUNDED: Final = "payment.refunded"
DISPUTED: Final = "payment.disputed"
TYPES: Final = frozenset({*STATES.values(), REFUNDED, DISPUTED})


def told_of(before: Payment, after: Payment) -> list[Told]:
    """Return the events that tell of the way from `before` to `after`; none for a payment that has no owner."""
    if after.principal_id is None:
        return []
    types = [STATES[after.state]] if after.state != before.state and after.state in STATES else []
    types += [REFUNDED] if after.refunded > before.refunded else []
    types += [DISPUTED] if after.disputed != before.disputed else []
    data = shown(after)
    return [new_event(after.principal_id, one, data, object_id=str(after.id)) for one in types]


def shown(payment: Payment) -> dict[str, Any]:
    """Return a payment as an event shows it: amounts in units of 10 ** -`scale` of the currency."""
    return {
        "id": str(payment.id),
        "state": str(payment.state),
        "amount": payment.amount,
        "scale": payment.scale,
        "currency": payment.currency,
        "paid": payment.paid,
        "refunded": payment.refunded,
        "disputed": payment.disputed,
        "account": payment.account,
        "reference": payment.details.reference,
        "request_id": payment.request_id,
        "provider": payment.latest.provider,
        "revision": payment.revision,
    }
