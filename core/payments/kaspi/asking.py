"""Asking: how a payment stands at the bank, by the id that its order has answered.

The bank is asked when somebody wants to know and the end is not known here: one question at a time for a payment,
whose answer all get who ask meanwhile. An end that is known is told from the database, since the bank does not take
it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from core import ids
from core.errors import Refusal
from core.payments.calls import called
from core.payments.kaspi.log import CALLER, is_unreadable, sentence_of
from core.payments.kaspi.ordering import away, unreadable
from core.payments.kaspi.words import CURRENCY, SURFACE, status_of
from core.payments.payments import find, find_by_name
from core.payments.states import OPEN_STATES, Seen, State
from core.providers import kaspi_words as kaspi
from core.providers import simulator
from core.providers.calling import CANNOT_TELL
from core.providers.protocol import Handle, Method, Order, Sight, Standing

if TYPE_CHECKING:
    from core.payments.flow import Payments
    from core.payments.payments import Payment

# The providers whose ids clients of this surface know: the bank, and in development its stand-in.
_PROVIDERS: Final = (kaspi.NAME, simulator.NAME)


async def find_payment(payments: Payments, external_id: str) -> Payment | None:
    """Return the payment that the bank, or our own answer, has given this id; None if it is none of this surface.

    Raises Refusal `kaspi_payment_not_found` for a payment of another surface, which is none of its callers' business.
    """
    payment_id = await _id_of(payments, external_id)
    if payment_id is None:
        return None
    try:
        payment = await find(payments.database, payment_id)
    except Refusal:
        return None
    if payment.surface != SURFACE:
        raise not_found(external_id)
    return payment


async def status(payments: Payments, external_id: str) -> str:
    """Return the status of a payment.

    Raises Refusal `kaspi_refused` with the bank's words, `kaspi_away`, `kaspi_unreadable`, `kaspi_payment_not_found`.
    """
    payment = await find_payment(payments, external_id)
    if payment is None:
        return await _foreign_status(payments, external_id)
    attempt = payment.current
    if payment.state not in OPEN_STATES or payment.state is State.CREATED or attempt.provider_id is None:
        return status_of(payment)
    payment = await payments.look_now(payment, CALLER)
    error = payment.attempt(attempt.id).error
    if error is not None and payment.state in OPEN_STATES:
        raise unanswered(error)
    return status_of(payment)


def not_found(external_id: str) -> Refusal:
    """Return the refusal for an id that names no payment of the caller's."""
    return Refusal("kaspi_payment_not_found", f"Payment not found for external_id={external_id}")


async def _id_of(payments: Payments, external_id: str) -> UUID | None:
    if "\0" in external_id:
        return None
    for provider in _PROVIDERS:
        found = await find_by_name(payments.database, provider, [external_id])
        if found is not None:
            return found[0]
    try:
        return UUID(external_id)
    except ValueError:
        return None


async def _foreign_status(payments: Payments, external_id: str) -> str:
    """Ask the bank about a payment that was ordered elsewhere, such as by the service before."""
    name = next((one for one in _PROVIDERS if one in payments.providers), None)
    if name is None:
        raise not_found(external_id)
    key = ids.new_uuid()
    handle = Handle(Order(key, str(key), 0, CURRENCY, Method.PHONE, "", ""), external_id)
    ended = await called(payments.providers, name, lambda provider: provider.look(handle))
    if isinstance(ended.seen, Sight) and ended.seen.standing is not Standing.ABSENT:
        return ended.seen.word
    if isinstance(ended.seen, Sight) or ended.seen is Seen.DECLINED:
        raise not_found(external_id)
    raise unanswered(ended.error or "")


def unanswered(error: str) -> Refusal:
    """Return the refusal for a question that has no answer."""
    if is_unreadable(error):
        return unreadable(error)
    if error.startswith(f"{CANNOT_TELL}: "):
        return Refusal("kaspi_refused", f"Failed to check status: {sentence_of(error)}")
    return away(error)
