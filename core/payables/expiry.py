"""The end of payables whose time is over: they are marked, their holds are voided, and their users are told.

A read shows one as expired at once (`core.payables.payables.payable_of`); the mark is for lists and receivers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from core.audit import audited
from core.database import queries
from core.ledger.holds import get_hold, void
from core.ledger.items import SYSTEM_PRINCIPAL, operation_id
from core.payables.kinds import KINDS
from core.payables.limits import give_limits_back
from core.wallets.notifications import tell_all, write
from core.wallets.users import users_of
from core.work.progress import Progress
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.database import Connection
    from core.ledger.items import Audited, Posting, Told
    from core.platform import Platform

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# A batch takes about 10 ms of the database and locks the payables, which nobody could pay anyway.
BATCH: Final = 100
ACTOR: Final = "system:expire"
SIDES: Final = ("payee_id", "payer_id")


async def expire(platform: Platform) -> Progress:
    """Mark up to 100 payables whose time is over, and void their holds."""

    async def expired(connection: Connection) -> tuple[int, bool]:
        rows = await connection.fetch(_sql.expire_payables, BATCH)
        if not rows:
            return 0, False
        held = [row for row in rows if row["hold_id"]]
        await _give_back(platform, connection, [row["hold_id"] for row in held])
        await give_limits_back(connection, [row["id"] for row in held])
        sides = await users_of(connection, (row[side] for row in rows for side in SIDES if row[side]))
        events: list[Told] = []
        records: list[Audited] = []
        for row in rows:
            event, data = KINDS[row["kind"]].expired, {"id": str(row["id"])}
            concerned = [sides[key] for key in (row[side] for side in SIDES) if key is not None]
            events += tell_all(concerned, event, data, object_id=data["id"])
            records.append(audited(event, ACTOR, data, user_id=concerned[0].id, object_id=data["id"]))
        return len(rows), await write(connection, events, records)

    count, told = await in_transaction(platform.database, expired)
    platform.wake(told)
    return Progress(count)


async def _give_back(platform: Platform, connection: Connection, hold_ids: Sequence[UUID]) -> None:
    """Void holds. The payables are locked before the accounts, as everywhere."""
    voids: list[Posting] = []
    for hold_id in hold_ids:
        stored = await get_hold(connection, hold_id)
        id_ = operation_id(SYSTEM_PRINCIPAL, f"expire-payable:{hold_id}")
        voids.append(void(stored, id_=id_, principal_id=SYSTEM_PRINCIPAL))
    for posting, outcome in zip(voids, await platform.ledger.post_within(connection, voids), strict=True):
        if not outcome.posted:  # the hold has expired or was voided before
            _log.info("expiry.hold_not_open", hold=str(posting.target_id), code=outcome.kind.code)
