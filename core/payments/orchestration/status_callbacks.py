"""Status callbacks: the address that a caller has named is told when its payment comes to an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.outbox.callbacks import Callback
from core.payments.orchestration.desk import SURFACE, row_of_payment
from core.payments.orchestration.shown import Envelope, contract_json, shown
from core.payments.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Connection
    from core.payments.payments import Payment

ENDS: Final = frozenset({State.PAID, State.FAILED, State.CANCELED, State.EXPIRED})


async def armed(connection: Connection, before: Payment, after: Payment) -> Sequence[Callback]:
    """Return the callback that tells of the way from `before` to `after`; its body is the answer to a look.

    A payment whose order nobody has taken is not told of: the answer to its creation was an error, and the key is free.
    One that was unknown before was shown to its caller, who hears of its end.
    """
    if after.state is before.state or after.state not in ENDS:
        return ()
    refused = all(one.error and not one.provider_id for one in after.attempts)
    if before.state is State.CREATED and after.state is State.FAILED and refused:
        return ()
    row = await row_of_payment(connection, after.id)
    if row is None:  # a renewal, which the contract does not show
        return ()
    return (
        Callback(
            SURFACE,
            str(after.id),
            row["owner"],
            row["status_callback_url"],
            contract_json(Envelope(shown(row))),
            {"X-Request-ID": row["request_id"]},
        ),
    )
