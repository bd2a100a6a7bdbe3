"""Events and callbacks about payments: a change that matters is told once, by the transaction that makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from core.outbox.callbacks import write_callback
from core.outbox.events import new_event
from core.payments.states import State
from core.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from core.database import Connection
    from core.ledger.items import Told
    from core.outbox.callbacks import Callback
    from core.payments.payments import Payment

    Armed = Callable[[Connection, Payment, Payment], Awaitable[Sequence[Callback]]]

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


class Arming:
    """The callbacks of payments. `surfaces` has a function for each surface whose callers are called back.

    It gets the transaction, the payment before a change and the payment after it, and returns what is to be sent. The
    payment is locked, so that what it writes besides belongs to the change, and nothing that it raises may be expected:
    it would keep the payment from changing.
    """

    def __init__(self, surfaces: Mapping[str, Armed] | None = None, vault: Vault | None = None) -> None:
        self._surfaces = surfaces or {}
        self._vault = vault or Vault()

    async def arm(self, connection: Connection, before: Payment, after: Payment) -> bool:
        """Write the callbacks that tell of the way from `before` to `after`; return whether there are any."""
        surface = self._surfaces.get(after.surface)
        callbacks = () if surface is None else await surface(connection, before, after)
        for callback in callbacks:
            await write_callback(connection, self._vault, callback)
        return bool(callbacks)
