"""Vouchers: money in a code, for the first user who redeems it.

The creator pays for a voucher at once: the money waits in a system account until it is redeemed or, when the voucher is
revoked, given back. The promotions account pays for an administrator's bulk. So no voucher makes money, and the balance
of that system account is the worth of all active vouchers.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import msgspec

from core.audit import audited, by_user
from core.database import queries
from core.errors import Refusal
from core.ledger.items import SYSTEM_PRINCIPAL, operation_id
from core.money import MAX_AMOUNT_MINOR, decimals
from core.payables.codes import as_typed
from core.payables.kinds import KINDS, Order
from core.payables.limits import payer_limits
from core.payables.pay import Key, pay, require_proven_payer
from core.payables.payables import end
from core.payables.payments import Payment, post_within
from core.wallets.books import PROMOTIONS, VOUCHERS, system_account
from core.wallets.notifications import announce, tell
from core.wallets.users import User, user_of
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.database import Connection, Row
    from core.platform import Platform

_sql = queries(__name__)

REDEEM: Final = KINDS["voucher"].event
# 64 bits in the 16 characters of the contract; the rate limit slows down guessing.
CODE_BYTES: Final = 8
# Bounds of the contract.
MAX_MINE: Final = 200
MAX_BULK: Final = 1_000
# Whole units in one voucher, in which the contract counts them. A currency decides how many minor units one has.
UNIT: Final = 100
MAX_UNITS: Final = MAX_AMOUNT_MINOR // UNIT
# The text of a voucher's QR code begins with it.
QR_PREFIX: Final = "VCHR|"

# A list of the newest vouchers begins here, behind every possible voucher.
_NEWEST: Final = (datetime(9000, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1))


class Voucher(NamedTuple):
    """A voucher, in minor units; `state` is the payable's. Only an administrator's lists have the two phones."""

    id: UUID
    code: str
    amount: int
    currency: str
    state: str
    created_at: datetime
    redeemed_at: datetime | None = None
    created_by_phone: str | None = None
    redeemed_by_phone: str | None = None


class Filter(NamedTuple):
    """The state, prefix and creator of the vouchers in a list; None: any."""

    state: str | None = None
    prefix: str | None = None
    creator: UUID | None = None


class Summary(NamedTuple):
    """Numbers of vouchers, and sums in minor units: of all, of the redeemed ones, and of the fees on those."""

    total_count: int
    active_count: int
    redeemed_count: int
    revoked_count: int
    total: int
    redeemed_total: int
    fees: int


class FeeEntry(NamedTuple):
    """The fee of a redemption, in minor units."""

    transfer_id: UUID
    code: str
    amount: int
    recorded_at: datetime


class _Known(NamedTuple):
    """A voucher with its creator, and the account that paid for it."""

    voucher: Voucher
    creator: User
    funded_by: str


def unit_of(currency: str) -> int:
    """Return the minor units of a whole unit: 100 for SYP, 1 for JPY, 1000 for KWD."""
    unit: int = 10 ** decimals(currency)
    return unit


async def issue(
    platform: Platform, creator: User, amount: int, *, currency: str, funding_id: UUID
) -> Voucher:
    """Make a voucher over `amount` minor units, paid for by its creator, whose KYC limits count.

    `funding_id` is the id of the key (`core.ledger.items.operation_id`), or a new one: an equal call under it returns
    the first voucher. Raises Refusal `phone_not_proven`, `insufficient_funds`, `currency_mismatch`,
    `idempotency_conflict`, and those of the KYC limits.
    """
    payment = Payment(
        id=funding_id,
        principal_id=creator.principal_id,
        kind="vouchers.create",
        source=creator.account,
        target=system_account(VOUCHERS, currency),
        amount=amount,
        currency=currency,
        identity=(amount, currency),
        payer=creator,
        limits=payer_limits(platform.settings, creator),
    )
    await require_proven_payer(platform, creator, Key(funding_id))
    (made,) = await _issue(platform, creator, amount, 1, "", payment, actor=by_user(creator.id))
    return made


async def issue_bulk(
    platform: Platform,
    creator: User,
    amount: int,
    *,
    count: int,
    currency: str,
    prefix: str,
    funding_id: UUID,
) -> list[Voucher]:
    """Make `count` vouchers, 1 to MAX_BULK, over `amount` minor units each, paid for by the promotions account.

    The codes begin with `prefix`. Raises Refusal `balance_overflow`, `currency_mismatch`, `idempotency_conflict`.
    """
    if amount * count > MAX_AMOUNT_MINOR:
        raise Refusal("balance_overflow", "The vouchers are worth more than one account can have.")
    payment = Payment(
        id=funding_id,
        principal_id=creator.principal_id,
        kind="vouchers.create",
        source=system_account(PROMOTIONS, currency),
        target=system_account(VOUCHERS, currency),
        amount=amount * count,
        currency=currency,
        identity=("bulk", amount, count, currency, prefix),
    )
    return await _issue(platform, creator, amount, count, prefix, payment, actor="admin")


async def redeem(platform: Platform, user: User, code: str, key: str | None) -> Voucher:
    """Pay a voucher into the wallet of `user`, less the fee (VOUCHER_FEE_BPS), in one transfer; the creator may, too.

    The code may be typed in any case, with blanks and hyphens, or be the text of the QR code.

    Raises Refusal `voucher_not_found`, `voucher_not_active`, and as `core.payables.pay.pay`.
    """
    known = await _known(platform, code)
    voucher = known.voucher
    code = voucher.code

    async def find() -> Order:
        return Order(
            "voucher",
            user,
            user,
            voucher.amount,
            voucher.currency,
            (code,),
            payable_id=voucher.id,
            state=voucher.state,
            source=system_account(VOUCHERS, voucher.currency),
            creator=known.creator,
            object_id=str(voucher.id),
        )

    paid = await pay(platform, "voucher", user, Key.of(user, key), find)
    return voucher._replace(state="paid", redeemed_at=paid.recorded_at)


async def revoke(platform: Platform, admin: User, code: str) -> Voucher:
    """End a voucher and give its money back to the account that paid for it, in one transaction.

    Raises Refusal `voucher_not_found`, `voucher_not_revocable` for one that is not active.
    """
    known = await _known(platform, code)
    voucher = known.voucher
    data = {"id": str(voucher.id), "amount_cents": voucher.amount, "by": str(admin.id)}
    payment = Payment(
        id=operation_id(SYSTEM_PRINCIPAL, f"voucher-revoke:{voucher.id}"),
        principal_id=SYSTEM_PRINCIPAL,
        kind="vouchers.revoke",
        source=system_account(VOUCHERS, voucher.currency),
        target=known.funded_by,
        amount=voucher.amount,
        currency=voucher.currency,
        identity=(str(voucher.id),),
    )

    async def revoked(connection: Connection) -> None:
        if not await end(connection, voucher.id, "canceled", by=admin.id):
            raise Refusal("voucher_not_revocable", "Only an active voucher can be revoked.")
        await post_within(connection, platform, payment)
        creator = known.creator
        await announce(connection, "vouchers.revoke", data, [creator], actor="admin", about=creator.id)

    await in_transaction(platform.database, revoked)
    platform.wake()
    return voucher._replace(state="canceled")


async def list_mine(
    platform: Platform,
    user: User,
    *,
    state: str | None = None,
    before: UUID | None = None,
    limit: int = MAX_MINE,
) -> list[Voucher]:
    """Return the newest vouchers that a user has made, newest first: in a state, before an id (None: any)."""
    rows = await platform.database.fetch(_sql.vouchers_of, user.id, limit, state, before)
    return [_voucher(row) for row in rows]


async def list_page(
    platform: Platform, wanted: Filter, *, limit: int, after: Voucher | None = None
) -> list[Voucher]:
    """Return up to `limit` vouchers of everybody, newest first, from the one that follows `after` on."""
    begin = _NEWEST if after is None else (after.created_at, after.id)
    rows = await platform.database.fetch(_sql.vouchers_page, *begin, *wanted, limit)
    return [_voucher(row) for row in rows]


async def pages(platform: Platform, wanted: Filter, *, size: int) -> AsyncIterator[list[Voucher]]:
    """Yield all vouchers of a filter in pages, each read by itself: a slow reader keeps no transaction open."""
    after: Voucher | None = None
    while page := await list_page(platform, wanted, limit=size, after=after):
        yield page
        after = page[-1]


async def summary(platform: Platform, creator: UUID | None) -> Summary:
    """Count all vouchers, or those of one creator."""
    row = await platform.database.fetchrow(_sql.voucher_summary, creator)
    if row is None:
        raise LookupError("a count has a row")
    return Summary(*(int(row[name]) for name in Summary._fields))


async def fee_entries(platform: Platform, limit: int) -> list[FeeEntry]:
    """Return the newest fees of redemptions, newest first."""
    rows = await platform.database.fetch(_sql.voucher_fees, REDEEM, limit)
    return [FeeEntry(*(row[name] for name in FeeEntry._fields)) for row in rows]


async def _issue(
    platform: Platform,
    creator: User,
    amount: int,
    count: int,
    prefix: str,
    payment: Payment,
    *,
    actor: str,
) -> list[Voucher]:
    """Store vouchers and post their payment, both or neither.

    The vouchers' ids are derived from the payment's, so a repeated call finds them. The rows come first, so that the
    accounts, for which others wait, are locked for the shorter time.
    """
    platform.require_currency(payment.currency)
    if payment.amount > MAX_AMOUNT_MINOR:
        raise Refusal("balance_overflow", "The voucher is worth more than one account can have.")
    await platform.users.open_system_accounts()
    voucher_ids = [operation_id(SYSTEM_PRINCIPAL, f"voucher:{payment.id}:{place}") for place in range(count)]
    data: dict[str, Any] = {"amount_cents": amount, "transfer_id": str(payment.id)}
    data |= {"id": str(voucher_ids[0])} if actor != "admin" else {"count": count, "prefix": prefix}
    object_id = str(payment.id)
    payment = payment._replace(
        told=tell(creator, payment.kind, data, object_id=object_id),
        audited=(audited(payment.kind, actor, data, user_id=creator.id, object_id=object_id),),
    )
    details = msgspec.json.encode({"funded_by": payment.source}).decode()

    async def issued(connection: Connection) -> list[Row]:
        codes = [f"{prefix}{secrets.token_hex(CODE_BYTES)}" for _ in voucher_ids]
        rows = await connection.fetch(
            _sql.issue_vouchers, voucher_ids, codes, creator.id, amount, payment.currency, details
        )
        paid = await post_within(connection, platform, payment)
        return await connection.fetch(_sql.vouchers_issued, voucher_ids) if paid.replayed else rows

    rows = await in_transaction(platform.database, issued)
    platform.wake()
    return [
        Voucher(row["id"], row["code"], amount, payment.currency, "open", row["created_at"]) for row in rows
    ]


async def _known(platform: Platform, code: str) -> _Known:
    exact = code[len(QR_PREFIX) :] if code.upper().startswith(QR_PREFIX) else code
    rows = await platform.database.fetch(_sql.vouchers_of_code, exact, as_typed(code, QR_PREFIX))
    # The exact code comes first. If several read alike, none is meant for sure.
    row = rows[0] if rows and (len(rows) == 1 or rows[0]["code"] == exact) else None
    if row is None:
        raise Refusal("voucher_not_found", "There is no voucher with this code.")
    voucher = Voucher(
        row["voucher_id"], row["code"], row["amount"], row["currency"], row["state"], row["issued_at"]
    )
    return _Known(voucher, user_of(row), msgspec.json.decode(row["details"])["funded_by"])


def _voucher(row: Row) -> Voucher:
    return Voucher(*(row[name] for name in Voucher._fields))
