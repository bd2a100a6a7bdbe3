"""Tokens of subscriptions: one for each payment that is asked for, given back by one that is closed without money.

A token is taken by the transaction that stores the payment, and given back by the one that closes it. A payment whose
end nobody knows keeps its token. Money that comes after all takes the token again, past the plan's number if need be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.database import queries
from core.errors import Refusal
from core.payments.states import CLOSED_STATES

if TYPE_CHECKING:
    from core.database import Connection
    from core.payments.payments import Payment

_sql = queries(__name__)


async def take_token(connection: Connection, merchant_id: int, plan_id: int | None) -> int:
    """Take a token of a merchant's subscription to a plan; without a plan, of the oldest subscription that has one.

    Returns the plan. Raises Refusal `quota_exceeded` where no token is left, and `subscription_not_active`.
    """
    taken: int | None = await connection.fetchval(_sql.take_token, merchant_id, plan_id)
    if taken is not None:
        return taken
    if await connection.fetchval(_sql.has_subscription, merchant_id, plan_id):
        raise Refusal("quota_exceeded", "The subscription has no tokens left.")
    raise Refusal("subscription_not_active", "The merchant has no active subscription of this kind.")


async def keep_token(connection: Connection, after: Payment) -> None:
    """Let a payment hold a token or not, as its state wants; a second call for one state changes nothing."""
    await connection.execute(_sql.hold_token, after.id, after.state not in CLOSED_STATES)
