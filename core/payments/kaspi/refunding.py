"""Refunding: money goes back once for each wish, although the contract's clients repeat a call that has failed.

A refund of the same amount of the same payment is the same refund while its end is not known, and for three minutes
after it was asked for: the last of a client's repetitions comes 130 seconds after its first call. A caller who wants to
give the same amount back twice within that time sends an Idempotency-Key with each.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from core.database import queries
from core.errors import Refusal
from core.payments import refunds
from core.payments.flow import MOST_WAIT_SECONDS, POLL_SECONDS
from core.payments.kaspi import log
from core.payments.kaspi.asking import find_payment, not_found, unanswered
from core.payments.kaspi.log import CALLER, is_unreadable, sentence_of
from core.payments.kaspi.ordering import away, keyed, next_id, unreadable
from core.payments.kaspi.words import caller_of, tenge
from core.payments.refunds import DONE, FAILED, Refund
from core.payments.states import MONEY_STATES, OPEN_STATES

if TYPE_CHECKING:
    from core.payments.flow import Payments
    from core.payments.kaspi.configs import Configs
    from core.payments.payments import Payment

_sql = queries(__name__)

REPEATED_WITHIN: Final = timedelta(minutes=3)
# Codes of a refund that the bank has not got, so that the same call may come again. Any other failed one was refused.
_UNSENT: Final = frozenset(
    {"provider_unreachable", "provider_busy", "provider_credentials", "provider_not_configured"}
)
_POOR: Final = "Insufficient funds"


class Wanted(NamedTuple):
    """A refund: `amount` in hundredths of a tenge."""

    shop_id: int
    external_id: str
    amount: int
    key: str | None = None


async def refund(payments: Payments, configs: Configs, wanted: Wanted) -> Payment:
    """Give money back; return the payment.

    Raises Refusal `kaspi_shop_unknown`, `kaspi_shop_inactive`, `kaspi_payment_not_found` where shop and payment do not
    belong together, `kaspi_not_refundable` where there is not so much to give back, `kaspi_refused` with the bank's
    words, `kaspi_away` where nobody knows whether the money has gone back, `kaspi_unreadable`, `idempotency_conflict`.
    """
    payment = await find_payment(payments, wanted.external_id)
    if payment is not None and payment.caller != caller_of(wanted.shop_id):
        payment = None
    known = None
    if payment is not None and wanted.key is not None:
        known = await refunds.find_refund(payments, payment.id, keyed(wanted.key))
    if known is None:
        await configs.to_pay(wanted.shop_id)
    if payment is None:
        raise not_found(wanted.external_id)
    if payment.state in OPEN_STATES and payment.current.provider_id is not None:
        payment = await payments.look_now(payment, CALLER)  # it may have been paid since the last look
        error = payment.current.error
        if error is not None and payment.state in OPEN_STATES:
            raise unanswered(error)
    if payment.state not in MONEY_STATES:
        raise await _impossible(payments, payment, wanted, "The payment is not paid", "payment_not_paid")
    request_id = await _request_id(payments, payment, wanted) if wanted.key is None else keyed(wanted.key)
    try:
        made = await refunds.refund(payments, payment.id, request_id, wanted.amount, CALLER)
    except Refusal as refusal:
        if refusal.code not in {"refund_exceeds", "payment_not_paid"}:
            raise
        left = refusal.extra.get("left")  # in hundredths, which this surface does not speak
        detail = (
            refusal.detail.rstrip(".") if left is None else f"At most {tenge(left)} tenge can be given back"
        )
        raise await _impossible(payments, payment, wanted, detail, refusal.code) from None
    _require_done(await _settled(payments, made), repeated=known is not None)
    return payment


async def _request_id(payments: Payments, payment: Payment, wanted: Wanted) -> str:
    """Return the request id of the refund that this one repeats, or a new one; twins at the same time get the same."""
    prefix = f"same:{wanted.amount}:"
    row = await payments.database.fetchrow(_sql.latest_refund, payment.id, wanted.amount)
    if row is None:
        return next_id(None, prefix)
    request_id: str = row["request_id"]
    young = row["age"] < REPEATED_WITHIN.total_seconds()
    # A refund that has failed gave nothing back, so the next one is a new try.
    repeats = row["state"] != FAILED and (young or row["state"] != DONE)
    return request_id if repeats else next_id(request_id, prefix)


async def _settled(payments: Payments, made: Refund) -> Refund:
    """Return a refund when its first call has ended, which another request may be making."""
    for _ in range(int(MOST_WAIT_SECONDS / POLL_SECONDS)):
        if made.state != "created":
            break
        await asyncio.sleep(POLL_SECONDS)
        made = await refunds.find_refund(payments, made.payment_id, made.request_id) or made
    return made


def _require_done(made: Refund, *, repeated: bool) -> None:
    """Raise Refusal for a refund that was refused, or whose end nobody knows."""
    if made.state == DONE:
        return
    if made.state != FAILED:
        raise unreadable(made.error) if is_unreadable(made.error) and not repeated else away(made.error)
    if (made.error or "").partition(": ")[0] in _UNSENT:
        raise away(made.error)
    # A refund that was pending, or that a person has told of, has no words of the bank.
    sentence = f"Failed to refund: {sentence_of(made.error) or 'The bank has not given the money back.'}"
    raise Refusal("kaspi_not_refundable" if _POOR in sentence else "kaspi_refused", sentence)


async def _impossible(
    payments: Payments, payment: Payment, wanted: Wanted, sentence: str, code: str
) -> Refusal:
    """Return the refusal of a refund that the bank was not asked for, with its row in the log."""
    error = f"{code}: {sentence}"
    await log.refund_refused(payments.database, payment, wanted.external_id, wanted.amount, error)
    return Refusal("kaspi_not_refundable", f"Failed to refund: {sentence} (code: {code})")
