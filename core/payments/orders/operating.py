"""Merchants of orders as an operator sees and changes them, with the owner's role."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from core.database import queries
from core.errors import Refusal
from core.outbox.destinations import MAX_URL_LENGTH
from core.payments.orders.merchants import hash_of

if TYPE_CHECKING:
    from core.database import Database

_sql = queries(__name__)


class Merchant(NamedTuple):
    """A merchant with one of its subscriptions, or without any. An inactive subscription has no tokens left."""

    merchant_id: int
    name: str
    active: bool
    subscription_id: int | None
    plan: str | None
    tokens_left: int | None
    callback_url: str | None


async def merchants(database: Database, after: int, limit: int) -> list[Merchant]:
    """Return up to `limit` merchants behind the number `after`, with a row for each subscription."""
    return [Merchant(*row) for row in await database.fetch(_sql.list_order_merchants, after, limit)]


async def new_key(database: Database, merchant_id: int, *, only: bool = False) -> str:
    """Make a key for a merchant, and end all others if `only`. Raises Refusal `not_found`."""
    key = secrets.token_urlsafe(32)
    async with database.transaction() as connection:
        if only:
            await connection.execute(_sql.end_keys, merchant_id)
        if not await connection.execute(_sql.add_key, hash_of(key), merchant_id):
            raise _nobody(merchant_id)
    return key


async def set_address(database: Database, merchant_id: int, url: str | None) -> None:
    """Set where a merchant is told; None: at the common address. Raises Refusal `invalid_request`, `not_found`."""
    if url is not None:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and url.isascii() and url.isprintable()
        if not usable or len(url) > MAX_URL_LENGTH:
            raise Refusal("invalid_request", f"{url[:200]!r} is no URL that can be called.")
    if not await database.execute(_sql.set_address, merchant_id, url):
        raise _nobody(merchant_id)


def _nobody(merchant_id: int) -> Refusal:
    return Refusal("not_found", f"There is no merchant {merchant_id}. `tallystick orders list` shows them.")
