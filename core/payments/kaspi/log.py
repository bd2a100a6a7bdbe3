"""The audit log: a row for each order, each refund and each look of a job, in the transaction that writes its end.

A caller who asks for a status leaves no row, as before, unless the bank's answer made no sense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from core.database import queries
from core.payments.kaspi.words import (
    FAILED_CALL,
    LABEL,
    LINKED,
    REFUND,
    STATUS,
    SUCCESS,
    WAIT,
    operation_of,
    shop_of,
    status_of,
)
from core.payments.states import Seen, State
from core.providers import kaspi_words as kaspi
from core.providers.calling import UNREADABLE
from core.providers.kaspi_words import BIN
from core.providers.protocol import Method, Sight

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from core.database import Connection, Database
    from core.payments.payments import Attempt, Payment

_sql = queries(__name__)

# The bounds of the table.
MAX_STATUS: Final = 50
MAX_ERROR: Final = 500
MAX_LISTED: Final = 1_000
# Rows that are skipped cost a read each.
MAX_SKIPPED: Final = 100_000
CALLER: Final = "caller"
"""The actor of a look that a caller waits for."""

_DONE: Final = "done"
_FAILED: Final = "failed"


class NewRow(NamedTuple):
    """A row to be written; `amount` is in hundredths of a tenge."""

    shop_id: int
    organization_bin: str
    operation_type: str
    external_id: str | None
    amount: int | None
    status: str | None
    error_message: str | None
    provider: str = kaspi.NAME
    payment_id: UUID | None = None


class LogRow(NamedTuple):
    """A row as it stands."""

    shop_id: int
    organization_bin: str
    operation_type: str
    external_id: str | None
    amount: int | None
    status: str | None
    error_message: str | None
    provider: str
    id: int
    created_at: datetime


class LogFilter(NamedTuple):
    """The rows that are wanted; None means all."""

    shop_id: int | None = None
    operation_type: str | None = None


async def listed(database: Database, wanted: LogFilter, *, limit: int, skip: int) -> list[LogRow]:
    """Return up to `limit` rows after the first `skip`, newest first; both are cut to their bounds."""
    bounds = (min(limit, MAX_LISTED), min(skip, MAX_SKIPPED))
    if wanted.shop_id is None:
        rows = await database.fetch(_sql.log_rows, wanted.operation_type, *bounds)
    else:
        rows = await database.fetch(_sql.log_rows_of_shop, *wanted, *bounds)
    return [LogRow(*row) for row in rows]


async def add(source: Connection | Database, row: NewRow) -> LogRow:
    """Write a row."""
    written = await source.fetchrow(_sql.add_log_row, *row)
    if written is None:
        raise LookupError("a row of the log was written and is gone")
    return LogRow(*written)


async def applied(
    connection: Connection,
    before: Attempt,
    payment: Payment,
    seen: object,
    error: str | None,
    actor: str,
) -> None:
    """Write the row of a call that has ended: `seen` of the attempt that was as `before`, by `actor`."""
    first = before.state is State.CREATED
    if seen is Seen.CANCEL_ASKED or seen is Seen.EXPIRE_ASKED or (first and seen is Seen.ABSENT):
        return
    if not first and actor == CALLER and not is_unreadable(error):
        return
    attempt = payment.attempt(before.id)
    sight = seen if isinstance(seen, Sight) else None
    known = attempt.provider_id
    if sight is None and first and seen is Seen.UNKNOWN:
        status, known = WAIT, str(payment.id)  # the id under which the caller knows it
    elif sight is None:
        status = FAILED_CALL
    else:
        # The simulator, in the bank's place, has words of its own.
        word = sight.word if attempt.provider == kaspi.NAME else None
        status = LINKED if first and payment.method is Method.PAYMENT_LINK else word or status_of(payment)
    operation = operation_of(payment) if first else STATUS
    await _write(
        connection, payment, operation, known, payment.amount, status, error if sight is None else None
    )


async def refunded(
    connection: Connection, payment: Payment, attempt: Attempt, amount: int, state: str, error: str | None
) -> None:
    """Write the row of a refund whose call has ended so."""
    status = {_DONE: SUCCESS, _FAILED: FAILED_CALL}.get(state, WAIT)
    known = attempt.provider_id or str(payment.id)
    await _write(connection, payment, REFUND, known, amount, status, error)


async def refund_refused(
    source: Connection | Database, payment: Payment, external_id: str, amount: int, error: str
) -> None:
    """Write the row of a refund that was refused here, under the id that was asked with."""
    await _write(source, payment, REFUND, external_id, amount, FAILED_CALL, error)


def is_unreadable(error: str | None) -> bool:
    """Whether the error of a call says that the bank's answer could not be read."""
    return error is not None and error.startswith(f"{UNREADABLE}: ")


def sentence_of(error: str | None) -> str:
    """Return the sentence of an error, which is kept as a code and a sentence."""
    return (error or "").partition(": ")[2]


async def _write(
    source: Connection | Database,
    payment: Payment,
    operation: str,
    external_id: str | None,
    amount: int,
    status: str,
    error: str | None,
) -> None:
    told = payment.details.metadata
    row = NewRow(
        shop_of(payment),
        told.get(BIN, ""),
        operation,
        external_id,
        amount,
        status[:MAX_STATUS],
        sentence_of(error)[:MAX_ERROR] or None,
        told.get(LABEL, kaspi.NAME),
        payment.id,
    )
    await add(source, row)
