"""Notifications of users, under the names and in the bytes of the wallet contract (section 4).

`core.outbox.events` makes and writes the events; this module decides which users get them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.audit import audited, record
from core.outbox.events import new_event, write_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from core.database import Connection
    from core.ledger.items import Audited, Told
    from core.wallets.users import User


def tell(
    user: User, event_type: str, data: Mapping[str, Any], *, object_id: str | None = None
) -> tuple[Told, ...]:
    """Return the event for `user`, to be written by the posting that it is about; none for a user who is no merchant.

    Only merchants have endpoints (contract, section 1.12), so nobody would receive an event of another user. Raises
    Refusal `event_too_large`.
    """
    if not user.is_merchant:
        return ()
    return (new_event(user.principal_id, event_type, data, object_id=object_id),)


def tell_all(
    users: Iterable[User], event_type: str, data: Mapping[str, Any], *, object_id: str | None = None
) -> tuple[Told, ...]:
    """Return the event for each of `users` who can receive it, once for a user who stands on both sides."""
    different = {user.id: user for user in users}.values()
    return tuple(told for user in different for told in tell(user, event_type, data, object_id=object_id))


async def write(connection: Connection, told: Iterable[Told], records: Iterable[Audited] = ()) -> bool:
    """Write events and audit records in the transaction that they are about; return whether there are events.

    The caller then wakes `core.work.wakeup.OUTBOX` after the commit.
    """
    written = await write_events(connection, list(told))
    await record(connection, *records)
    return bool(written)


async def announce(
    connection: Connection,
    event: str,
    data: Mapping[str, Any],
    hearers: Iterable[User],
    *,
    actor: str,
    about: UUID,
) -> bool:
    """Write one audit record, and the event of the same name for each of `hearers` who can receive it, as `write` does.

    `data` has the `id` of the object, `about` is the user whom the record concerns, and `actor` its author.
    """
    object_id = data["id"]
    entry = audited(event, actor, data, user_id=about, object_id=object_id)
    return await write(connection, tell_all(hearers, event, data, object_id=object_id), [entry])
