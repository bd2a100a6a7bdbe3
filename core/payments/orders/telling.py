"""The consequences of an order's change: its token, and the notification of its merchant, in the transaction of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.database import queries
from core.outbox.callbacks import EVERYBODY, ORDERS, Callback
from core.payments.orders.orders import Status, order_of_payment, status_of
from core.payments.orders.tokens import keep_token
from core.payments.orders.tracking import notification_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Connection
    from core.payments.payments import Payment
    from core.payments.telling import Armed
    from core.settings import Settings

_sql = queries(__name__)


def armed(settings: Settings) -> Armed:
    """Return what follows from a change of an order's payment, for `core.payments.telling.Arming`."""
    return partial(_follow, settings.merchant_callback_url)


async def _follow(
    common_url: str, connection: Connection, before: Payment, after: Payment
) -> Sequence[Callback]:
    if after.state is before.state:
        return ()
    await keep_token(connection, after)
    status = status_of(after.state)
    if status is Status.PAYMENT_PENDING or status is status_of(before.state):
        return ()
    order = await order_of_payment(connection, after.id)
    if order is None:
        return ()
    own: str | None = await connection.fetchval(_sql.callback_url, order.merchant_id)
    url = own or common_url
    if not url:
        return ()
    owner = EVERYBODY if own is None else str(order.merchant_id)
    return (
        Callback(
            ORDERS, str(after.id), owner, url, notification_of(order._replace(state=after.state), status)
        ),
    )
