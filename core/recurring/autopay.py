"""Mandates pay due invoices: each invoice in a transaction of its own, so that a failure touches no other invoice.

Any number of sweepers may run at once. Each locks an invoice, and skips those that another one has locked. The ledger's
key `auto-invoice-<id>` belongs to the invoice, so a sweeper that died after its commit pays nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from core.audit import audited, by_user
from core.database import queries
from core.errors import Refusal, Unavailable
from core.ledger.items import SYSTEM_PRINCIPAL, operation_id
from core.payables import invoices
from core.payables.pay import check, prepare
from core.payables.payables import ToPay, payable_of
from core.payables.payments import post_within
from core.wallets.notifications import tell_all, write
from core.wallets.users import users_of
from core.work.progress import Progress
from core.work.retries import in_transaction, reason_of, retry_in

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection, Row
    from core.ledger.items import Audited, Told
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# The contract's bound for a call of a payer; as a step of the job about half a second.
BATCH: Final = 100
ACTOR: Final = "system:autopay"
NOTICE: Final = "invoices.autopay_notice"
# An invoice that is due in ten days, as by default, is announced three days before the money is taken.
NOTICE_AHEAD_HOURS: Final = 72


class Swept(NamedTuple):
    """The outcome of a sweep: the ids of paid invoices, and those of the others with the refusal of each."""

    processed: list[UUID]
    errors: list[tuple[UUID, Refusal]]


async def step(platform: Platform) -> Progress:
    """Pay up to 100 due invoices that a mandate covers; a failed one is tried again, after a longer time each time.

    Their payers are told before.
    """
    while await give_notices(platform) == BATCH:
        pass
    swept = await sweep(platform)
    return Progress(len(swept.processed), len(swept.errors))


async def give_notices(platform: Platform) -> int:
    """Tell the payers of up to 100 invoices when a mandate will pay them, and return the number.

    Money is taken when an invoice is due, and not before the notice of its mandate, or AUTOPAY_NOTICE_HOURS, is over.
    """

    async def noticed(connection: Connection) -> tuple[int, bool]:
        least = platform.settings.autopay_notice_hours
        rows = await connection.fetch(_sql.give_notices, BATCH, least, NOTICE_AHEAD_HOURS)
        if not rows:
            return 0, False
        sides = await users_of(connection, (row[side] for row in rows for side in ("payer_id", "payee_id")))
        events: list[Told] = []
        records: list[Audited] = []
        for row in rows:
            data = {
                "id": str(row["id"]),
                "amount_cents": row["amount"],
                "pays_at": row["pays_at"].isoformat().replace("+00:00", "Z"),
            }
            both = (sides[row["payee_id"]], sides[row["payer_id"]])
            events += tell_all(both, NOTICE, data, object_id=data["id"])
            records.append(audited(NOTICE, ACTOR, data, user_id=row["payer_id"], object_id=data["id"]))
        return len(rows), await write(connection, events, records)

    count, told = await in_transaction(platform.database, noticed)
    platform.wake(told)
    return count


async def sweep(platform: Platform, payer: User | None = None) -> Swept:
    """Pay up to 100 due invoices that a mandate covers, longest due first.

    A `payer` asks by hand: only the payer's invoices are paid, and failed ones need not wait, but come last.
    """
    rows = await platform.database.fetch(_sql.invoices_to_autopay, None if payer is None else payer.id, BATCH)
    users = await platform.users.by_ids(row[side] for row in rows for side in ("payer_id", "payee_id"))
    swept = Swept([], [])
    for row in rows:
        try:
            if await _pay(platform, row["id"], users):
                swept.processed.append(row["id"])
        except Unavailable as error:
            # An unreachable PostgreSQL is no failure of an invoice, and all invoices are safe to repeat.
            if error.code != "busy":
                raise
            _log.info("autopay.postponed", invoice=str(row["id"]))
        except Exception as error:  # noqa: BLE001 - no failure of one invoice stops the others
            refusal = await _failed(platform, row, error)
            swept.errors.append((row["id"], refusal))
    if swept.processed:
        platform.wake()
    return swept


async def force_due(platform: Platform, user: User, invoice_id: UUID) -> None:
    """Make an open invoice due now, and let mandates try it at once.

    Raises Refusal `forbidden`, also outside development, and `invoice_not_found`.
    """
    if platform.settings.env != "dev":
        raise Refusal("forbidden", "Due times can be moved in development only.")
    claim = await invoices.get(platform, user, invoice_id)
    async with platform.database.transaction() as connection:
        await connection.execute(_sql.force_invoice_due, claim.payable.id)
        await connection.execute(_sql.forget_autopay_failure, claim.payable.id)
        data = {"id": str(claim.payable.id)}
        entry = audited("invoices.dev_force_due", by_user(user.id), data, object_id=data["id"])
        await write(connection, (), [entry])


async def _pay(platform: Platform, invoice_id: UUID, users: dict[UUID, User]) -> bool:
    """Pay an invoice; return False for one that is not due any more, has lost its mandate, or is locked by others."""

    async def paid(connection: Connection) -> bool:
        # The mandate's lock makes a revocation wait for this payment, or this payment find the mandate revoked.
        row = await connection.fetchrow(_sql.lock_invoice_to_autopay, invoice_id)
        if row is None:
            return False
        payer, issuer = users[row["payer_id"]], users[row["payee_id"]]
        order = invoices.order_of(ToPay(payable_of(row), issuer), payer, issuer)._replace(actor=ACTOR)
        check(platform, order)
        if await connection.fetchval(_sql.spend_of_mandate, row["mandate_id"], row["amount"]) is None:
            raise Refusal("mandate_cap_reached", "The mandate has paid as much as it may in this period.")
        key = operation_id(SYSTEM_PRINCIPAL, f"auto-invoice-{invoice_id}")
        payment = await prepare(platform, order, key)
        await connection.execute(_sql.forget_autopay_failure, invoice_id)
        # The posting comes last, because all payments to the same issuer wait for its locks.
        await post_within(connection, platform, payment)
        return True

    return await in_transaction(platform.database, paid)


async def _failed(platform: Platform, row: Row, error: Exception) -> Refusal:
    refusal = reason_of(error)
    if refusal is not error:
        _log.error("autopay.failed", invoice=str(row["id"]), exc_info=error)
    retry = retry_in(row["attempts"] + 1)
    await platform.database.execute(_sql.note_autopay_failure, row["id"], refusal.code, retry)
    return refusal
