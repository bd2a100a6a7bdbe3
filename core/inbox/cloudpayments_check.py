"""The answer to CloudPayments' `check`: before it takes a payment, it asks whether this payer may pay this amount.

(https://developers.cloudpayments.ru/en/#check)

It is answered from one indexed read and stored nowhere, as nothing has happened yet.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from core.errors import Refusal, Unavailable
from core.inbox.cloudpayments import ACCEPTED
from core.ledger.accounts import get_account

if TYPE_CHECKING:
    from core.database import Database
    from core.inbox.cloudpayments import Fields

BAD_ACCOUNT: Final = 11
BAD_AMOUNT: Final = 12
NOT_NOW: Final = 13

MAX_ACCOUNT_CODE: Final = 128


async def answer_check(database: Database, fields: Fields) -> int:
    """Return CloudPayments' code for a payment to the account that `AccountId` names.

    11 means that there is no such account, 12 that the amount is not positive or in another currency than the account,
    13 that the account is frozen or closed, or that the database cannot be asked. Codes 10 (no such order) and 20
    (expired) are never answered, because orders are not looked up.
    """
    code = fields.get("AccountId", "")
    if not code.isprintable() or not 0 < len(code) <= MAX_ACCOUNT_CODE:
        return BAD_ACCOUNT
    try:
        account = await get_account(database, code)
    except Unavailable:
        return NOT_NOW
    except Refusal:
        return BAD_ACCOUNT
    if account.state != "open":
        return NOT_NOW
    if (
        not _is_positive(fields.get("Amount", ""))
        or fields.get("Currency", account.currency) != account.currency
    ):
        return BAD_AMOUNT
    return ACCEPTED


def _is_positive(amount: str) -> bool:
    try:
        value = Decimal(amount)
    except InvalidOperation:
        return False
    return value.is_finite() and value > 0
