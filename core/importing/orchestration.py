"""The orchestration's database (MySQL 8): its payments, under the numbers and request ids that their callers hold.

The old service did not know which key had made a payment, so the owner is the calling service's own word. A request
id that comes again finds its payment, whatever the rest of the request says, as it did before.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from core.database import queries
from core.importing.payments import OldPayment, store
from core.importing.running import NEW, Known, Step, known
from core.importing.values import ValueProblemError
from core.money import MAX_AMOUNT_MINOR, decimals
from core.payments.orchestration.desk import SURFACE
from core.payments.payments import Details
from core.payments.states import OPEN_STATES, State
from core.provider_units import UnknownUnitError, to_ledger
from core.providers.protocol import Recurrence

if TYPE_CHECKING:
    from core.importing.running import Context
    from core.importing.values import Values

_sql = queries(__name__)

_STRIPE: Final = "stripe"
_STATES: Final = {
    1: State.UNKNOWN,
    2: State.PENDING,
    3: State.PROCESSING,
    10: State.PAID,
    20: State.FAILED,
    30: State.CANCELED,
    40: State.EXPIRED,
}
_METHODS: Final = {1: "hosted_card", 2: "payment_link"}
_RECURRING: Final = 2
_PENDING_DELIVERY: Final = 1


async def write_payment(context: Context, old: Values) -> Known:
    """Store a payment with the contract's side of it."""
    payment = _payment_of(old, timedelta(minutes=context.settings.payments_pending_timeout_minutes))
    stored = await store(context, payment)
    number, callback_hash = old.whole("id", 1), old.text("provider_callback_hash", 128)
    made = await context.connection.fetchval(
        _sql.import_orchestration,
        number,
        payment.id,
        payment.caller,
        payment.request_id,
        old.text("resource_type", 128),
        old.text("resource_id", 255),
        old.text_or_none("customer_ref", 255),
        old.whole("payment_type", 1, _RECURRING),
        old.text_or_none("recurring_interval", 16),
        old.whole_or_none("recurring_interval_count"),
        callback_hash,
        old.text_or_none("provider_callback_url", 1024) or "",
        old.text("status_callback_url", 1024),
    )
    if made is None:
        if stored.new:
            raise ValueProblemError("its number, request id or hash is another payment's here")
        return known(
            await context.connection.fetchrow(_sql.known_orchestration, number),
            payment_id=payment.id,
            caller_service=payment.caller,
            request_id=payment.request_id,
            callback_hash=callback_hash,
        )
    note = None
    if old.whole("callback_delivery_status") == _PENDING_DELIVERY:
        note = f"its status ({payment.state}) was to be told to the caller, and is not told again"
    return Known(note, new=True) if note else NEW


def _payment_of(old: Values, pending: timedelta) -> OldPayment:
    state, method = _STATES.get(old.whole("status")), _METHODS.get(old.whole("payment_method"))
    if state is None or method is None or old.whole("provider") != 1:
        raise ValueProblemError("its status, method or provider is not known")
    provider_id = old.text_or_none("provider_payment_id", 255)
    if provider_id is None and state in OPEN_STATES:
        state = State.UNKNOWN  # the call to the provider may have been lost
    currency = old.text("currency", 3).upper()
    try:
        amount = to_ledger(_STRIPE, old.whole("amount_cents", 1, MAX_AMOUNT_MINOR), currency)
    except UnknownUnitError as error:
        raise ValueProblemError(str(error)) from None
    subscription = old.text_or_none("provider_subscription_id", 255)
    resource = f"{old.text('resource_type')}-{old.text('resource_id')}"
    recurrence = None
    if old.whole("payment_type") == _RECURRING:
        count = old.whole_or_none("recurring_interval_count") or 1
        recurrence = Recurrence(old.text("recurring_interval", 16), count)
    metadata = old.json("metadata_json")
    details = Details(
        resource,
        old.text("request_id", 128),
        recurrence=recurrence,
        metadata={str(name): str(value) for name, value in metadata.items()}
        if isinstance(metadata, dict)
        else {},
    )
    return OldPayment(
        str(old.whole("id", 1)),
        SURFACE,
        old.text("caller_service", 128),
        old.text("request_id", 128),
        amount,
        decimals(currency),
        currency,
        method,
        state,
        _STRIPE,
        old.time("created_at"),
        old.time("updated_at"),
        details,
        provider_id,
        {"subscription": subscription} if subscription else {},
        old.text_or_none("checkout_url", 4096),
        "carried over",
        old.time("created_at") + pending,
    )


STEPS: Final = (
    Step(
        "payments",
        frozenset({"payments"}),
        _sql.old_payments,
        write_payment,
        lambda old: f"id={old.row['id']}",
        _sql.after_payments,
    ),
)
