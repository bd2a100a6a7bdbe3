"""Words of the Kaspi contract: its name in the engine, its statuses, and amounts in hundredths of a tenge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.payments.states import State
from core.providers import kaspi_words as kaspi
from core.providers.protocol import Method

if TYPE_CHECKING:
    from core.payments.payments import Payment

SURFACE: Final = "kaspi"
CURRENCY: Final = "KZT"
LABEL: Final = "label"
"""The name in a payment's metadata of the `provider` that the shop's config had."""

CREATE: Final = "create"
CREATE_LINK: Final = "create-link"
STATUS: Final = "status"
REFUND: Final = "refund"

WAIT: Final = "Wait"
LINKED: Final = "QrTokenCreated"
PROCESSED: Final = "Processed"
ERROR: Final = "Error"
"""The bank has said that a payment failed."""
FAILED_CALL: Final = "error"
"""A call went wrong, which says nothing about the payment."""
SUCCESS: Final = "success"

# The contract has no word for "nobody knows" and for money that is not what was asked for: both wait for an answer.
_UNTOLD: Final = frozenset({State.CREATED, State.UNKNOWN, State.MISMATCHED})


def caller_of(shop_id: int) -> str:
    """Return the caller under which the engine keeps a shop's payments."""
    return f"shop:{shop_id}"


def shop_of(payment: Payment) -> int:
    """Return the shop of a payment of this surface."""
    return int(payment.caller.removeprefix("shop:"))


def operation_of(payment: Payment) -> str:
    """Return the log's word for the order of a payment."""
    return CREATE_LINK if payment.method is Method.PAYMENT_LINK else CREATE


def status_of(payment: Payment) -> str:
    """Return the status that clients see: the bank's own word where it has told one that is not over."""
    if payment.state in _UNTOLD:
        return WAIT
    if payment.state is State.PAID:
        return PROCESSED
    attempt = payment.current
    if attempt.provider == kaspi.NAME and attempt.word:
        return attempt.word
    if payment.state in {State.FAILED, State.CANCELED, State.EXPIRED}:
        return ERROR
    return LINKED if payment.method is Method.PAYMENT_LINK and payment.state is State.PENDING else WAIT


def tenge(hundredths: int) -> str:
    """Return hundredths of a tenge as the contract writes them in JSON.

    >>> tenge(5_000), tenge(1_999), tenge(10)
    ('50.0', '19.99', '0.1')
    """
    text = kaspi.amount_text(hundredths, CURRENCY)
    if text is None:
        raise ValueError("the amount is no amount of tenge")
    return text
