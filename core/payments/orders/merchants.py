"""Merchants of orders: who calls by which key, and what a demonstration needs."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.database import Connection, Database

_sql = queries(__name__)

MOST_KEY: Final = 512
# The data of the old service's seeds: aliases with the names of providers; plans with their price in cents and tokens.
ALIASES: Final = {"stripe": "Stripe", "paypal": "PayPal", "adyen": "Adyen"}
PLANS: Final = {
    "Basic": (999, 1_000_000),
    "Premium": (1_999, 10_000_000),
    "Enterprise": (4_999, 100_000_000),
}


class Seeded(NamedTuple):
    """A merchant that was made, with a key that is shown this once."""

    merchant_id: int
    subscription_id: int
    api_key: str


def hash_of(key: str) -> bytes:
    """Return the SHA-256 by which a key is known. Bytes that are no UTF-8 are no key's, and no reason to fail."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


async def merchant_of_key(database: Database, key: str) -> int:
    """Return the merchant of a key. Raises Refusal `merchant_key_invalid`."""
    found: int | None = None
    if 0 < len(key) <= MOST_KEY:
        found = await database.fetchval(_sql.merchant_by_key, hash_of(key))
    if found is None:
        raise Refusal("merchant_key_invalid", "This API key is not valid.")
    return found


async def seed(database: Database, said: Callable[[str], None] = lambda _line: None) -> None:
    """Make the aliases and plans that are missing; `database` is opened with the owner's role."""
    async with database.transaction() as connection:
        for alias, name in ALIASES.items():
            new = await connection.fetchval(_sql.ensure_alias, alias, name)
            said(f"Provider {alias}: {'made' if new else 'was there'}.")
        for name, (price_cents, tokens) in PLANS.items():
            await _plan(connection, name, price_cents, tokens, said)


async def seed_merchant(
    database: Database,
    tokens: int | None,
    name: str | None = None,
    said: Callable[[str], None] = lambda _line: None,
) -> Seeded:
    """Make a merchant with a key and a subscription: to Basic, or to a plan of so many `tokens`."""
    await seed(database, said)
    key = secrets.token_urlsafe(32)
    async with database.transaction() as connection:
        plan, (price_cents, number) = ("Basic", PLANS["Basic"])
        if tokens is not None:
            plan, price_cents, number = f"{tokens} tokens", 0, tokens
        plan_id = await _plan(connection, plan, price_cents, number, said)
        merchant_id: int = await connection.fetchval(_sql.new_merchant_id)
        principal = f"orders:merchant:{merchant_id}"
        await connection.execute(
            _sql.store_merchant, merchant_id, principal, name or f"Merchant {merchant_id}"
        )
        await connection.execute(_sql.store_subscription, merchant_id, plan_id)
        await connection.execute(_sql.store_key, hash_of(key), merchant_id)
    said(f"Merchant {merchant_id}: made, with a key and a subscription to {plan!r}.")
    return Seeded(merchant_id, plan_id, key)


async def _plan(
    connection: Connection, name: str, price_cents: int, tokens: int, said: Callable[[str], None]
) -> int:
    row = await connection.fetchrow(_sql.ensure_plan, name, price_cents, tokens)
    if row is None:
        raise LookupError("an upsert has a row")
    said(f"Plan {name}: {'made' if row['new'] else 'was there'}.")
    found: int = row["id"]
    return found
