"""A wallet platform without HTTP: users with money, and what their payments leave behind."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core.ledger.items import (
    SYSTEM_PRINCIPAL,
    Audited,
    Effects,
    ItemLimits,
    Leg,
    Outcome,
    Posting,
    Told,
    operation_id,
)
from core.ledger.posting import post
from core.payables import payables
from core.payables.payables import NewPayable
from core.platform import Platform, open_platform
from core.service import Service
from core.settings import Settings
from core.wallets.books import TOPUPS, system_account
from core.wallets.users import User
from tests.invariants import faults

CURRENCY = "SYP"
SOURCE = system_account(TOPUPS, CURRENCY)


class Bank:
    """A platform, and short words for what tests do with it."""

    def __init__(self, platform: Platform, owner: Any) -> None:
        self.platform = platform
        self.database = platform.database
        self.owner = owner
        self._users = 0

    async def user(self, balance: int = 0, *, merchant: bool = False) -> User:
        """Make a user with a balance."""
        self._users += 1
        user = await self.platform.users.ensure(f"+9639000{self._users:05}")
        await self.owner.execute(
            "UPDATE users SET phone_proven_at = clock_timestamp() WHERE id = $1", user.id
        )
        user = user._replace(phone_proven_at=user.created_at)
        if merchant:
            await self.owner.execute("UPDATE users SET is_merchant = true WHERE id = $1", user.id)
            user = user._replace(is_merchant=True)
        if balance:
            await self.platform.users.open_system_accounts()
            legs = (Leg(SOURCE, -balance), Leg(user.account, balance))
            gift = Posting(
                operation_id(SYSTEM_PRINCIPAL, f"gift:{user.id}:{balance}"), SYSTEM_PRINCIPAL, legs
            )
            assert [outcome.posted for outcome in await self.call(gift)] == [True]
        return user

    async def call(self, *items: Posting) -> list[Outcome]:
        """Post as one call of the posting function."""
        return await post(self.database, items)

    async def payable(self, payee: User, amount: int | None = 100, **more: Any) -> UUID:
        """Store a payable, a QR code unless it is said otherwise."""
        new = NewPayable(
            **{"kind": "qr", "currency": CURRENCY, "payee_id": payee.id, "amount": amount, **more}
        )
        payable_id, _ = await payables.create(self.database, new)
        return payable_id

    async def state(self, payable_id: UUID) -> tuple[str, UUID | None, UUID | None]:
        """Return a payable's state, the transfer that paid it, and who did."""
        row = await self.owner.fetchrow(
            "SELECT state, transfer_id, settled_by FROM payables WHERE id = $1", payable_id
        )
        return row["state"], row["transfer_id"], row["settled_by"]

    async def balances(self, *users: User) -> list[int]:
        """Return what is in these wallets."""
        codes = [user.account for user in users]
        rows = await self.owner.fetch("SELECT code, balance FROM accounts WHERE code = any($1)", codes)
        found = {row["code"]: row["balance"] for row in rows}
        return [found[code] for code in codes]

    async def written(self) -> tuple[list[str], list[str]]:
        """Return the objects of all events `paid`, and those of all audit records `paid`, in order."""
        events = await self.owner.fetch("SELECT object_id FROM outbox_events WHERE event_type = 'paid'")
        audit = await self.owner.fetch("SELECT object_id FROM audit_events WHERE type = 'paid'")
        return sorted(row["object_id"] for row in events), sorted(row["object_id"] for row in audit)


def payment(
    payer: User,
    payee: User,
    amount: int,
    key: str,
    *,
    payable: UUID | None = None,
    limits: ItemLimits | None = None,
    group: int = 0,
    **more: Any,
) -> Posting:
    """A payment of `payer` that tells of itself, and is audited, under the name of its key."""
    effects = Effects(
        payable,
        payer.id,
        (Told(payee.principal_id, "paid", key, b'{"type":"paid","data":{}}'),),
        (Audited("paid", f"user:{payer.id}", payee.id, key, "{}"),),
    )
    fields: dict[str, Any] = {"unfrozen": True, "identity": (str(payee.id), amount), **more}
    return Posting(
        operation_id(payer.principal_id, key),
        payer.principal_id,
        (Leg(payer.account, -amount), Leg(payee.account, amount)),
        currency=CURRENCY,
        limits=limits,
        group=group,
        effects=effects,
        **fields,
    )


def codes(outcomes: list[Outcome]) -> list[str]:
    """The outcome of each item; a repeated key's outcome is marked."""
    return [f"{'again ' if outcome.replayed else ''}{outcome.kind.code}" for outcome in outcomes]


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Any]:
    """A connection as the owner of the schema."""
    connection = await asyncpg.connect(str(settings.database_url))
    yield connection
    await connection.close()


@pytest.fixture
async def bank(service: Service, owner: Any) -> AsyncIterator[Bank]:
    """An empty platform. After the test the ledger is sound."""
    async with open_platform(service) as platform:
        yield Bank(platform, owner)
    assert not owner.is_in_transaction()
    assert await faults(owner) == {}
