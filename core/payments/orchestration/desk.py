"""The desk: payments of internal services are created, shown, listed and cancelled.

A payment belongs to the service whose key has made it. `caller_service` is a word of that service's own choice, with
the request id the contract's key: another owner's key is taken, and nobody is told more about it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

import structlog

from core.database import queries
from core.errors import Refusal
from core.payments.orchestration.asking import LISTED, is_utf8
from core.payments.orchestration.shown import METHODS, RECURRING, STRIPE, shown
from core.payments.payments import NewPayment
from core.payments.states import State
from core.providers.protocol import Method, Recurrence

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection, Database, Row
    from core.payments.flow import Payments
    from core.payments.orchestration.asking import NewOrder, Wanted
    from core.payments.orchestration.shown import PaymentOut
    from core.settings import Settings

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

SURFACE: Final = "orchestration"
PROVIDER: Final = "stripe"
LARGEST_ID: Final = 2**63 - 1


class Viewer(NamedTuple):
    """The service that calls, and whether it sees what others have made."""

    name: str
    sees_all: bool = False

    def sees(self, row: Row) -> bool:
        """Whether a payment is there for it."""
        return self.sees_all or row["owner"] == self.name


class Desk:
    """The operations of the contract that both transports call."""

    def __init__(self, payments: Payments, settings: Settings) -> None:
        self._payments = payments
        self._database = payments.database
        self._callback_base = settings.payments_provider_callback_base_url
        self._pending = timedelta(minutes=settings.payments_pending_timeout_minutes)

    async def create(self, viewer: Viewer, order: NewOrder) -> PaymentOut:
        """Create a payment, once for each service and request id, and return it as it stands then.

        A payment whose order no provider has taken is tried again at each repetition. Raises Refusal `invalid_request`,
        `payment_exists` for a key that is another's or was used with another request, and `payment_failed`.
        """
        order = order.tidied()
        order.check()
        known = await self._database.fetchrow(
            _sql.orchestration_by_key, order.caller_service, order.request_id
        )
        if known is not None:
            _require_same(viewer, known, order)
            if known["asked"] is None:  # an older service's payment, whose request nobody knows in full
                return shown(known)
        else:
            order.check_new()
        row = await self._ordered(viewer, order)
        if row["state"] == State.FAILED and row["error"] and not row["provider_id"]:
            _log.warning("orchestration.not_ordered", payment=str(row["payment_id"]), error=row["error"])
            raise Refusal("payment_failed", "internal server error")
        return shown(row)

    async def show(self, viewer: Viewer, number: int) -> PaymentOut:
        """Return a payment. Raises Refusal `invalid_request` for the number 0, and `payment_not_found`."""
        return shown(await self._find(viewer, number))

    async def list(self, viewer: Viewer, wanted: Wanted) -> list[PaymentOut]:
        """Return payments, the newest first. Raises Refusal `invalid_request`."""
        wanted.check()
        texts = (wanted.caller_service, wanted.request_id, wanted.resource_type, wanted.resource_id)
        if wanted.provider not in {0, STRIPE} or any("\0" in text or not is_utf8(text) for text in texts):
            return []
        rows = await self._database.fetch(
            _sql.orchestration_listed,
            None if viewer.sees_all else viewer.name,
            *(text or None for text in texts),
            wanted.states(),
            wanted.limit or LISTED,
            wanted.offset,
        )
        return [shown(row) for row in rows]

    async def cancel(self, viewer: Viewer, number: int) -> PaymentOut:
        """Let nobody pay any more; return the payment as it stands then. A closed one stays as it is.

        Raises Refusal `invalid_request`, `payment_not_found`, and `payment_paid` where money has come.
        """
        row = await self._find(viewer, number)
        try:
            await self._payments.cancel(row["payment_id"], "caller")
        except Refusal as refusal:
            if refusal.code != "payment_paid":
                raise
            paid = Refusal(refusal.code, "invalid status: paid payments cannot be canceled")
        else:
            return shown(await self.row_of(row["payment_id"]))
        raise paid

    async def row_of(self, payment_id: UUID) -> Row:
        """Return the row of a payment that the engine knows."""
        row = await row_of_payment(self._database, payment_id)
        if row is None:
            raise LookupError(f"payment {payment_id} has no row of the contract")
        return row

    async def row_of_hash(self, provider: int, callback_hash: str) -> Row | None:
        """Return the row of the payment with this hash, or None."""
        if "\0" in callback_hash or not is_utf8(callback_hash):
            return None
        row: Row | None = await self._database.fetchrow(_sql.orchestration_by_hash, provider, callback_hash)
        return row

    async def _find(self, viewer: Viewer, number: int) -> Row:
        if number <= 0:
            raise Refusal("invalid_request", "invalid payment id")
        row = (
            await self._database.fetchrow(_sql.orchestration_by_id, number) if number <= LARGEST_ID else None
        )
        if row is None or not viewer.sees(row):
            raise Refusal("payment_not_found", "payment not found")
        return row

    async def _ordered(self, viewer: Viewer, order: NewOrder) -> Row:
        """Order a payment, or find it ordered, and return its row."""

        async def beside(connection: Connection, payment_id: UUID) -> None:
            await self._store(connection, payment_id, viewer, order)

        try:
            created = await self._payments.create(self._new(order), beside)
        except Refusal as refusal:
            raise _in_the_contracts_words(refusal) from None
        row = await self.row_of(created.payment.id)
        _require_same(viewer, row, order)
        if created.replayed and created.payment.state is State.FAILED:
            await self._payments.try_again(created.payment, "caller")
            row = await self.row_of(created.payment.id)
        return row

    def _new(self, order: NewOrder) -> NewPayment:
        once = order.payment_type != RECURRING
        return NewPayment(
            surface=SURFACE,
            caller=order.caller_service,
            request_id=order.request_id,
            amount=order.amount_cents,
            currency=order.currency,
            method=Method(METHODS[order.payment_method]),
            title=f"{order.resource_type}-{order.resource_id}",
            reference=order.request_id,
            recurrence=None if once else Recurrence(order.recurring_interval, order.recurring_interval_count),
            success_url=order.success_url or None,
            cancel_url=order.cancel_url or None,
            metadata=order.metadata,
            provider=PROVIDER,
            expires_at=datetime.now(UTC) + self._pending,
        )

    async def _store(self, connection: Connection, payment_id: UUID, viewer: Viewer, order: NewOrder) -> None:
        callback_hash = str(uuid4())
        await connection.execute(
            _sql.store_orchestration,
            payment_id,
            viewer.name,
            order.caller_service,
            order.request_id,
            order.digest(),
            order.resource_type,
            order.resource_id,
            order.customer_ref,
            order.payment_type,
            order.recurring_interval,
            order.recurring_interval_count,
            callback_hash,
            f"{self._callback_base}/{callback_hash}",
            order.status_callback_url,
        )


async def row_of_payment(source: Connection | Database, payment_id: UUID) -> Row | None:
    """Return the row of a payment, None for a renewal, which the contract does not show."""
    row: Row | None = await source.fetchrow(_sql.orchestration_by_payment, payment_id)
    return row


def _require_same(viewer: Viewer, row: Row, order: NewOrder) -> None:
    if not viewer.sees(row) or row["asked"] not in {None, order.digest()}:
        raise Refusal("payment_exists", "payment already exists")


def _in_the_contracts_words(refusal: Refusal) -> Refusal:
    """Return the contract's word for a refusal of the engine."""
    if refusal.code == "idempotency_conflict":
        return Refusal("payment_exists", "payment already exists")
    if refusal.code == "invalid_request":
        return Refusal("invalid_request", "invalid request")
    if refusal.code == "no_provider":
        _log.warning("orchestration.no_provider", reason=refusal.detail)
        return Refusal("payment_failed", "internal server error")
    return refusal
