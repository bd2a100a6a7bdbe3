"""Money that an administrator gives: the starting credit for everybody, and the balance of demo users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import msgspec
import structlog

from core.audit import audited, record
from core.database import queries
from core.errors import Refusal
from core.ledger.items import SYSTEM_PRINCIPAL, Effects, operation_id
from core.payables.payments import Payment, post
from core.wallets.administration import ADMIN
from core.wallets.books import PROMOTIONS, system_account
from core.wallets.notifications import tell
from core.wallets.users import credit, user_of

if TYPE_CHECKING:
    from core.ledger.items import Posting
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# A batch is one call of the ledger: long enough to be cheap, short enough that payments get in between.
BATCH: Final = 250
_FIRST: Final = UUID(int=0)


class Airdrop(NamedTuple):
    """Numbers of users: looked at, credited now, and skipped since they had the credit or could not get it."""

    processed: int
    credited: int
    skipped: int


class Demo(NamedTuple):
    """The terms of a demo user; `fee_bps` is the own fee in basis points, None for the platform's fee."""

    phone: str
    name: str | None
    kyc_level: int
    kyc_status: str
    is_merchant: bool
    fee_bps: int | None


async def airdrop(platform: Platform, amount: int, *, limit: int, offset: int) -> Airdrop:
    """Give the starting credit of `amount` minor units to `limit` users behind the first `offset`, oldest first.

    Each user gets the credit once in all: at sign-up, from here or from two calls at once. Each batch is committed by
    itself, so the same call continues one that broke off.
    """
    await platform.users.open_system_accounts()
    done = Airdrop(0, 0, 0)
    start = _FIRST if offset == 0 else await platform.database.fetchval(_sql.user_at, offset)
    while start is not None and done.processed < limit:
        size = min(BATCH, limit - done.processed)
        # The next batch begins with one more user.
        rows = await platform.database.fetch(_sql.users_from, start, size + 1)
        users = [user_of(row) for row in rows[:size]]
        credited = await _credit(platform, users, amount)
        done = Airdrop(
            done.processed + len(users), done.credited + credited, done.skipped + len(users) - credited
        )
        _log.info("airdrop.progress", processed=done.processed, credited=done.credited, limit=limit)
        start = rows[size]["id"] if len(rows) > size else None
    return done


async def _credit(platform: Platform, users: list[User], amount: int) -> int:
    outcomes = await platform.ledger.poster.submit_many([_gift(platform, user, amount) for user in users])
    credited = [
        user for user, outcome in zip(users, outcomes, strict=True) if outcome.posted and not outcome.replayed
    ]
    if any(user.is_merchant for user in credited):
        platform.wake()
    return len(credited)


def _gift(platform: Platform, user: User, amount: int) -> Posting:
    posting = credit(user.id, user.wallet_id, amount, platform.currency)
    data = {"transfer_id": str(posting.id), "amount_cents": amount}
    effects = Effects(
        told=tell(user, "wallet.airdrop", data, object_id=str(posting.id)),
        audited=(audited("wallet.airdrop.admin", ADMIN, data, user_id=user.id, object_id=str(posting.id)),),
    )
    return msgspec.structs.replace(posting, effects=effects)


async def seed_demo(platform: Platform, demo: Demo, balance: int) -> User:
    """Make or change a demo user, and give `balance` minor units; the same balance is given once.

    Raises Refusal `not_allowed` outside development and tests, since money and a sign-in are given away.
    """
    if platform.settings.env not in {"dev", "test"}:
        raise Refusal("not_allowed", "Demo users are for development and tests.")
    user = await platform.users.ensure(demo.phone, name=demo.name, actor=ADMIN)
    async with platform.database.transaction() as connection:
        await connection.execute(_sql.seed_user, user.id, *demo[1:])
        data = {**demo._asdict(), "balance_cents": balance}
        await record(connection, audited("wallet.seed_demo", ADMIN, data, user_id=user.id))
    if balance:
        await platform.users.open_system_accounts()
        await post(platform, _seed(platform, user, balance))
    found = await platform.users.by_id(user.id)
    if found is None:
        raise LookupError(f"user {user.id} has gone")
    return found


def _seed(platform: Platform, user: User, balance: int) -> Payment:
    return Payment(
        id=operation_id(SYSTEM_PRINCIPAL, f"seed:{user.id}:{balance}"),
        principal_id=SYSTEM_PRINCIPAL,
        kind="wallet.seed_demo",
        source=system_account(PROMOTIONS, platform.currency),
        target=user.account,
        amount=balance,
        currency=platform.currency,
        identity=(str(user.id), balance),
    )
