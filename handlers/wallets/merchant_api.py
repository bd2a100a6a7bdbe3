"""Merchants' API keys and the requests that they sign."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import pydantic
from aiohttp import web
from multidict import istr

from core.errors import Refusal
from core.wallets import merchant_keys
from core.wallets.balances import read_balance, read_entries
from core.wallets.merchant_keys import READ_TRANSACTIONS, Signed
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    MAX_PAGE,
    Body,
    Counterparty,
    Detail,
    counterparty_of,
    cut,
    linked,
    platform_of,
    timestamp,
)

API_KEY: Final = istr("X-API-Key")
API_TS: Final = istr("X-API-Ts")
API_SIGN: Final = istr("X-API-Sign")
LISTED: Final = 100
TRANSACTIONS: Final = "/merchant/api/transactions"


class NewKeyOut(msgspec.Struct, frozen=True):
    """A new key; the secret is shown this once."""

    key_id: str
    secret: str


class KeyOut(msgspec.Struct, frozen=True):
    """A key."""

    key_id: str
    created_at: str


class KeysQuery(Body):
    """A part of the list; `before` continues it behind the id of its last key."""

    limit: Annotated[int, pydantic.Field(ge=1, le=MAX_PAGE)] | None = None
    before: Annotated[str, pydantic.Field(max_length=64)] | None = None


class ApiEntryOut(msgspec.Struct, frozen=True):
    """One line of a statement, as `EntryOut`. The amount is in minor units, positive for money that came."""

    transfer_id: str
    amount_cents_signed: int
    created_at: str
    kind: str
    fee: bool
    counterparty: Counterparty | None
    purpose: str | None


class ApiEntriesOut(msgspec.Struct, frozen=True):
    """The newest lines of a wallet."""

    wallet_id: str
    entries: list[ApiEntryOut]


async def create_key(call: Call) -> web.Response:
    """Make a key."""
    return answer(200, NewKeyOut(*await merchant_keys.create_key(platform_of(call), call.user)))


async def list_keys(call: Call) -> web.Response:
    """List the caller's keys, newest first."""
    query: KeysQuery = call.query
    found = await merchant_keys.list_keys(platform_of(call), call.user)
    places = [place for place, key in enumerate(found, 1) if key.key_id == query.before]
    # A merchant has few keys, so that a part of the list is cut here.
    behind = found[places[0] if places else len(found) :] if query.before is not None else found
    items, last = cut(behind, query.limit or len(found))
    said = answer(200, [KeyOut(key.key_id, timestamp(key.created_at)) for key in items])
    return linked(call, said, None if last is None else last.key_id)


async def delete_key(call: Call) -> web.Response:
    """End one of the caller's keys."""
    await merchant_keys.delete_key(platform_of(call), call.user, call.path("key_id"))
    return answer(200, Detail("deleted"))


async def list_transactions(call: Call) -> web.Response:
    """List the newest lines of the wallet whose merchant has signed the request."""
    headers = call.request.headers
    key_id, seconds, signature = (headers.get(name) for name in (API_KEY, API_TS, API_SIGN))
    if not key_id or not seconds or not signature:
        raise Refusal("missing_headers", f"Send {API_KEY}, {API_TS} and {API_SIGN}.")
    platform = platform_of(call)
    signed = Signed(key_id, seconds, signature, TRANSACTIONS, call.raw)
    user = await merchant_keys.authenticate(platform, signed, READ_TRANSACTIONS)
    newest = (await read_balance(platform, user)).entries
    found = await read_entries(platform, user, newest=newest, count=LISTED)
    lines = [
        ApiEntryOut(
            str(one.transfer_id),
            one.amount,
            timestamp(one.recorded_at),
            one.kind,
            one.is_fee,
            counterparty_of(one),
            one.purpose,
        )
        for one in found
    ]
    return answer(200, ApiEntriesOut(str(user.wallet_id), lines))


ROUTES = table(
    Route(
        "POST", "/merchant/api/keys", create_key, "create_merchant_key", "Make an API key",
        answers={200: NewKeyOut}, problems=("merchant_only", "invalid_request"),
    ),
    Route(
        "GET", "/merchant/api/keys", list_keys, "list_merchant_keys", "List my API keys",
        query=KeysQuery, answers={200: list[KeyOut]}, problems=("merchant_only",),
    ),
    Route(
        "DELETE", "/merchant/api/keys/{key_id}", delete_key, "delete_merchant_key", "End an API key",
        answers={200: Detail}, problems=("merchant_only", "merchant_key_not_found"),
    ),
    Route(
        "POST", TRANSACTIONS, list_transactions, "list_merchant_transactions", "List the newest 100 lines",
        caller="merchant_key", answers={200: ApiEntriesOut},
        problems=("missing_headers", "invalid_signature", "insufficient_scope"),
        description="The key signs it: `X-API-Sign` is the hex HMAC-SHA256, under the secret, of `X-API-Ts` (Unix "
        "seconds) and the path, or of these and the body. Each signature counts once.",
    ),
    tag="merchant API", caller="user",
)  # fmt: skip
