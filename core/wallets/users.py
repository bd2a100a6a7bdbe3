"""Users: each has a phone, a wallet and, for the events that concern them, a principal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from core import ids
from core.audit import audited, record
from core.database import queries
from core.ledger.items import SYSTEM_PRINCIPAL, Leg, Posting, operation_id
from core.lookup import Lookup
from core.phones import masked, normalized, spellings
from core.wallets import names
from core.wallets.books import PROMOTIONS, open_system_accounts, open_wallet, system_account, wallet_account
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime
    from uuid import UUID

    from core.database import Connection, Database, Row
    from core.ledger.ledger import Ledger
    from core.settings import Settings

_sql = queries(__name__)

# Clocks of machines that serve the same users differ by less, whatever JWT_CLOCK_SKEW_SECS says.
CLOCKS_DIFFER_SECONDS: Final = 5.0


class User(NamedTuple):
    """A user as stored. `live` is False when the sign-in of the call was ended."""

    id: UUID
    principal_id: int
    wallet_id: UUID
    phone: str
    username: str | None
    name: str | None
    is_merchant: bool
    is_agent: bool
    merchant_status: str
    merchant_fee_bps: int | None
    merchant_since: datetime | None
    kyc_level: int
    kyc_status: str
    created_at: datetime
    tokens_valid_from: datetime | None
    phone_proven_at: datetime | None
    live: bool = True

    @property
    def sells(self) -> bool:
        """Whether the user may be paid as a merchant now: not suspended, and verification was not taken back."""
        return self.is_merchant and self.merchant_status != "suspended" and self.kyc_status != "rejected"

    @property
    def approved(self) -> bool:
        """Whether the platform vouches for the user as a merchant, which others are shown."""
        return self.sells and self.merchant_status == "approved"

    @property
    def shown_name(self) -> str | None:
        """The name as others may see it, without characters that nobody sees; None where none can be read."""
        return names.shown(self.name)

    @property
    def masked_phone(self) -> str:
        """The phone as others may see it."""
        return masked(self.phone)

    @property
    def account(self) -> str:
        """The code of the wallet's account in the ledger."""
        return wallet_account(self.wallet_id)


def seconds_ahead(settings: Settings) -> float:
    """Return the seconds by which the clock of another machine may be ahead of ours: a token may be so young."""
    return max(float(settings.jwt_clock_skew_secs), CLOCKS_DIFFER_SECONDS)


def user_of(row: Row) -> User:
    """Read a user out of a row that has the columns of one."""
    return User(*(row[name] for name in User._fields))


async def users_of(source: Connection | Database, user_ids: Iterable[UUID]) -> dict[UUID, User]:
    """Return the users of these ids; an unknown id is left out."""
    rows = await source.fetch(_sql.find_users, list(set(user_ids)))
    return {row["id"]: user_of(row) for row in rows}


class Users:
    """A reader and maker of users, which reads for many callers in one statement."""

    def __init__(self, database: Database, ledger: Ledger, settings: Settings) -> None:
        self._database = database
        self._ledger = ledger
        self._currency = settings.default_currency
        self._starting_credit = settings.starting_credit_cents
        self._accounts_opened = False
        self._by_id: Lookup[User] = Lookup(database, _sql.users_by_id, user_of)
        self._by_phone: Lookup[User] = Lookup(database, _sql.users_by_phone, user_of)

    async def by_id(self, user_id: UUID, session_id: UUID | None = None) -> User | None:
        """Return a user, None for an unknown id; `live` is False when the sign-in `session_id` was ended."""
        return await self._by_id.find(user_id, session_id)

    async def by_phone(self, phone: str) -> User | None:
        """Return the user of a phone in any spelling, None for an unknown phone."""
        return await self._by_phone.find(*spellings(phone))

    async def by_ids(self, user_ids: Iterable[UUID]) -> dict[UUID, User]:
        """Return the users of these ids; an unknown id is left out."""
        return await users_of(self._database, user_ids)

    async def ensure(self, phone: str, *, name: str | None = None, actor: str = "system") -> User:
        """Return the user of `phone`; a new phone gets a user, a wallet and the starting credit.

        The caller has validated `phone`; a new one is stored in its one form. `name` counts for a new user only.
        """
        found = await self.by_phone(phone)
        while found is None:  # ends with the second turn: users are never deleted
            await self._create(phone, name, actor)
            found = await self.by_phone(phone)
        return found

    async def open_system_accounts(self) -> None:
        """Open the platform's own accounts, once a process."""
        if not self._accounts_opened:
            await open_system_accounts(self._database, [self._currency])
            self._accounts_opened = True

    async def close(self) -> None:
        """Refuse new calls, and answer those that were accepted."""
        await self._by_id.close()
        await self._by_phone.close()

    async def create(
        self,
        phone: str,
        *,
        name: str | None = None,
        actor: str = "system",
        also: Callable[[Connection, UUID], Awaitable[None]] | None = None,
        credited: bool = True,
    ) -> User | None:
        """Make the user of `phone`, and do `also` in the same transaction; None where the phone has a user.

        A user who is not `credited` gets the starting credit with the first code, see `credit_late`.
        """
        made = await self._create(phone, name, actor, also, credited=credited)
        return await self.by_phone(phone) if made else None

    async def _create(
        self,
        phone: str,
        name: str | None,
        actor: str,
        also: Callable[[Connection, UUID], Awaitable[None]] | None = None,
        *,
        credited: bool = True,
    ) -> bool:
        user_id, wallet_id = ids.new_uuid(), ids.new_uuid()
        stored = normalized(phone) or phone
        await self.open_system_accounts()

        async def created(connection: Connection) -> bool:
            row = await connection.fetchrow(_sql.create_user, user_id, wallet_id, stored, name)
            if row is None:
                return False
            if also is not None:
                await also(connection, user_id)
            await open_wallet(connection, wallet_id, self._currency)
            await record(connection, audited("user.created", actor, {"phone": stored}, user_id=user_id))
            if credited and self._starting_credit > 0:
                gift = credit(user_id, wallet_id, self._starting_credit, self._currency)
                (outcome,) = await self._ledger.post_within(connection, [gift])
                if not outcome.posted:
                    raise outcome.refusal()
            return True

        return await in_transaction(self._database, created)

    async def credit_late(self, user: User) -> None:
        """Give the starting credit, once, to a user who was made without it. Raises the ledger's Refusal."""
        if self._starting_credit > 0:
            await self.open_system_accounts()
            gift = credit(user.id, user.wallet_id, self._starting_credit, self._currency)
            outcome = await self._ledger.poster.submit(gift)
            if not outcome.posted:
                raise outcome.refusal()


def credit(user_id: UUID, wallet_id: UUID, amount: int, currency: str) -> Posting:
    """Return the posting of a starting credit; its id comes from the user, so a user gets it at most once."""
    return Posting(
        operation_id(SYSTEM_PRINCIPAL, f"airdrop:{user_id}"),
        SYSTEM_PRINCIPAL,
        (Leg(system_account(PROMOTIONS, currency), -amount), Leg(wallet_account(wallet_id), amount)),
        kind="wallet.airdrop",
        currency=currency,
        unfrozen=True,
        identity=("airdrop", str(user_id)),
    )
