"""What users' receivers are told of, under the names and in the bytes of the wallet contract (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.ledger.items import Told
from core.outbox.events import emit, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.database import Connection
    from core.wallets.users import User


def tell(
    user: User, event_type: str, data: Mapping[str, Any], *, object_id: str | None = None
) -> tuple[Told, ...]:
    """Return the event for `user`, to be written by the posting that it is about; none for whoever cannot receive any.

    Only merchants have endpoints (contract, section 1.12); an event for anybody else would be work for nothing.
    """
    if not user.is_merchant:
        return ()
    return (Told(user.principal_id, event_type, encode(event_type, data), object_id),)


async def tell_within(
    connection: Connection,
    user: User,
    event_type: str,
    data: Mapping[str, Any],
    *,
    object_id: str | None = None,
) -> None:
    """Write the event for `user` in a transaction that posts nothing; none for whoever cannot receive any."""
    if user.is_merchant:
        await emit(
            connection,
            principal_id=user.principal_id,
            event_type=event_type,
            data=data,
            object_id=object_id,
        )
