"""What users' receivers are told of, under the names and in the bytes of the wallet contract (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core import ids
from core.database import queries
from core.ledger.items import Told
from core.outbox.events import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from core.database import Connection
    from core.ledger.items import Audited
    from core.wallets.users import User

_sql = queries(__name__)


def tell(
    user: User, event_type: str, data: Mapping[str, Any], *, object_id: str | None = None
) -> tuple[Told, ...]:
    """Return the event for `user`, to be written by the posting that it is about; none for whoever cannot receive any.

    Only merchants have endpoints (contract, section 1.12); an event for anybody else would be work for nothing.
    """
    if not user.is_merchant:
        return ()
    return (Told(user.principal_id, event_type, object_id, encode(event_type, data)),)


def tell_all(
    users: Iterable[User], event_type: str, data: Mapping[str, Any], *, object_id: str | None = None
) -> tuple[Told, ...]:
    """Return the event for each of `users` who can receive it, once for one who stands on both sides."""
    different = {user.id: user for user in users}.values()
    return tuple(told for user in different for told in tell(user, event_type, data, object_id=object_id))


async def write(connection: Connection, told: Iterable[Told], audited: Iterable[Audited] = ()) -> bool:
    """Write events and audit records in the transaction that they are about; return whether there are events.

    If there are, wake `core.work.wakeup.OUTBOX` after the commit.
    """
    events, records = list(told), list(audited)
    if events:
        columns = zip(*((ids.new_uuid(), *event) for event in events), strict=True)
        await connection.execute(_sql.write_events, *map(list, columns))
    if records:
        columns = zip(*((ids.new_uuid(), *record) for record in records), strict=True)
        await connection.execute(_sql.write_audit_events, *map(list, columns))
    return bool(events)
