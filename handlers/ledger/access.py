"""The platform's own accounts under /v1: only a key with the scope `accounts:system` opens, changes or debits them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import Refusal
from core.ledger.accounts import RESERVED
from core.ledger.items import Operation
from core.ledger.stored import load_outcomes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from core.access.api_keys import Principal
    from core.ledger.items import Posting
    from handlers.http.route import Call

SYSTEM_SCOPE = "accounts:system"
# These operations change the source of the hold with it.
_OF_HOLDS = frozenset({Operation.HOLD, Operation.CAPTURE, Operation.VOID, Operation.EXTEND})


def check_reserved(caller: Principal, codes: Iterable[str]) -> None:
    """Raise Refusal `forbidden` for an account of the platform's own, if the caller's key lacks the scope."""
    if SYSTEM_SCOPE not in caller.scopes:
        for code in codes:
            if code.startswith(RESERVED):
                raise _forbidden(code)


async def check_debits(call: Call, postings: Sequence[Posting]) -> None:
    """Raise Refusal `forbidden` for a posting that takes from an account of the platform's own without the scope.

    A posting whose key was used before passes, since it moves nothing: the ledger answers it as it did then.
    """
    if SYSTEM_SCOPE in call.caller.scopes:
        return
    found = {posting.id: code for posting in postings if (code := _reserved_debit(posting)) is not None}
    if found:
        used = await load_outcomes(call.service.database, list(found))
        for id_, code in found.items():
            if id_ not in used:
                raise _forbidden(code)


def _reserved_debit(posting: Posting) -> str | None:
    """Return the account of the platform's own that the posting takes from, or whose hold it changes."""
    legs = posting.legs[:1] if posting.operation in _OF_HOLDS else posting.legs
    for code, amount in legs:
        if amount < 0 and code.startswith(RESERVED):
            return code
    return None


def _forbidden(code: str) -> Refusal:
    return Refusal(
        "forbidden",
        f"Account {code!r} is the platform's own, and this API key lacks the scope {SYSTEM_SCOPE}.",
        scope=SYSTEM_SCOPE,
        account=code,
    )
