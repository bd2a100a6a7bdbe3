"""Accounts: opened once by their own code, changed under their lock, read now and at any past time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from core.database import queries
from core.errors import Refusal
from core.ledger.items import encode_metadata, listed
from core.ledger.movements import moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from core.database import Connection, Database, Row

SQL = queries(__name__)

AccountState = Literal["open", "frozen", "closed"]
STATES: tuple[AccountState, ...] = ("open", "frozen", "closed")
MAX_OPENINGS = 1_000
MAX_METADATA = 50
# The beginnings of the codes of the platform's own accounts.
RESERVED: Final = ("system:", "wallet:", "provider:", "source:")
# A statement that is read whole is read in pages of so many lines: each is a transaction of a few milliseconds.
STREAM_PAGE = 1_000


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds of an account, in minor units; None: no bound. `floor` bounds the available, `ceiling` the balance."""

    floor: int | None = 0
    ceiling: int | None = None
    transfer_max: int | None = None
    hour_amount_max: int | None = None
    hour_count_max: int | None = None
    day_amount_max: int | None = None
    day_count_max: int | None = None

    def check(self) -> None:
        """Raise Refusal `invalid_request` when no balance could satisfy the limits."""
        if self.floor is not None and self.ceiling is not None and self.floor > self.ceiling:
            raise Refusal("invalid_request", "The floor must not be above the ceiling.")

    @property
    def windows(self) -> list[int | None]:
        """Return the four window limits in the order of the database function."""
        return [self.hour_amount_max, self.hour_count_max, self.day_amount_max, self.day_count_max]


class Opening(NamedTuple):
    """An account to open. A system account is an ordinary one whose limits have no floor."""

    code: str
    currency: str
    limits: Limits = Limits()
    metadata: dict[str, str] = {}  # noqa: RUF012 - a default that nothing changes

    def data(self) -> str:
        """Return the data of the account's first event, with keys in one order."""
        data = {
            "currency": self.currency,
            "limits": msgspec.to_builtins(self.limits),
            "metadata": self.metadata,
        }
        return msgspec.json.encode(data, order="deterministic").decode()


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it stands.

    `version` is the number of its entries, and `revision` rises with every change. `available` is `balance` - `held`,
    and `incoming` is what open holds will bring.
    """

    id: int
    code: str
    currency: str
    state: AccountState
    balance: int
    held: int
    available: int
    incoming: int
    version: int
    revision: int
    limits: Limits
    metadata: dict[str, str]
    created_at: datetime


async def open_accounts(
    source: Connection | Database, openings: Sequence[Opening], principal_id: int
) -> dict[str, bool]:
    """Open up to 1,000 accounts; return for each code whether this call opened it (False: it was there)."""
    rows = await source.fetch(
        SQL.open_accounts,
        [opening.code for opening in openings],
        [opening.currency for opening in openings],
        [opening.limits.floor for opening in openings],
        [opening.limits.ceiling for opening in openings],
        [opening.limits.transfer_max for opening in openings],
        [limit for opening in openings for limit in opening.limits.windows],
        [encode_metadata(opening.metadata) for opening in openings],
        [opening.data() for opening in openings],
        principal_id,
    )
    return {row["account_code"]: row["opened"] for row in rows}


async def open_account(database: Database, opening: Opening, principal_id: int) -> tuple[Account, bool]:
    """Open one account; return it, and whether it is new. A repetition with the same body returns it as it is now.

    Raises Refusal `account_exists` when the code was opened with another body, naming what differs, and
    `invalid_request` for limits that contradict each other.
    """
    opening.limits.check()
    opened = (await open_accounts(database, [opening], principal_id))[opening.code]
    account = await get_account(database, opening.code)
    if not opened:
        first = msgspec.json.decode(await database.fetchval(SQL.account_opening, account.id))
        given = msgspec.json.decode(opening.data())
        differs = sorted(name for name in given if given[name] != first.get(name))
        if differs:
            raise Refusal(
                "account_exists",
                f"Account {opening.code!r} was opened before by a request that differs in {listed(differs)}.",
                account=opening.code,
                differs=differs,
            )
    return account, opened


async def get_account(source: Connection | Database, code: str) -> Account:
    """Return an account, or raise Refusal `account_not_found`."""
    row = await source.fetchrow(SQL.get_account, code)
    if row is None:
        raise _not_found(code)
    return _account(row)


async def list_accounts(
    database: Database,
    *,
    after: str | None = None,
    currency: str | None = None,
    state: AccountState | None = None,
    prefix: str | None = None,
    limit: int = 100,
) -> list[Account]:
    """Return a page of accounts in the order of their codes."""
    number = STATES.index(state) if state is not None else None
    rows = await database.fetch(SQL.list_accounts, after, currency, number, prefix, limit)
    return [_account(row) for row in rows]


async def change_account(
    database: Connection | Database,
    code: str,
    *,
    state: AccountState | None = None,
    limits: dict[str, int | None] | None = None,
    metadata: Mapping[str, str | None] | None = None,
    expected_revision: int | None = None,
) -> Account:
    """Change the given parts and leave the rest; return the account after the change. None removes one of the metadata.

    Raises Refusal `account_not_found`, `precondition_failed` when the account has another revision than the expected
    one, `account_closed` (for good) and `account_not_empty` (only an account without balance and holds can be closed),
    `invalid_request` when the floor would be above the ceiling, and for more than 50 metadata.
    """
    account = await get_account(database, code)
    refused = await database.fetchval(
        SQL.change_account,
        account.id,
        STATES.index(state) if state is not None else None,
        msgspec.json.encode(limits).decode() if limits else None,
        msgspec.json.encode(metadata).decode() if metadata is not None else None,
        expected_revision,
        MAX_METADATA,
    )
    if refused == "precondition":
        raise Refusal("precondition_failed", f"Account {code!r} was changed since.", account=code)
    if refused == "metadata":
        raise Refusal("invalid_request", f"An account has at most {MAX_METADATA} metadata.")
    if refused == "contradiction":
        raise Refusal("invalid_request", "The floor must not be above the ceiling.")
    if refused == "closed":
        raise Refusal("account_closed", f"Account {code!r} is closed.", account=code)
    if refused == "not_empty":
        raise Refusal(
            "account_not_empty",
            f"Account {code!r} has a balance or open holds, so it cannot be closed.",
            account=code,
        )
    return await get_account(database, code)


class PastBalance(msgspec.Struct, frozen=True, kw_only=True):
    """A balance at a past time, in minor units. `version` is that of the last entry recorded by then."""

    code: str
    currency: str
    at: datetime
    by: Literal["recorded", "effective"]
    balance: int
    version: int


async def balance_at(
    database: Database, code: str, at: datetime, by: Literal["recorded", "effective"] = "recorded"
) -> PastBalance:
    """Return the balance as it had been recorded by `at`, or as it took effect by `at` with all that is known today."""
    statement = SQL.balance_at_recorded if by == "recorded" else SQL.balance_at_effective
    row = await database.fetchrow(statement, code, at.astimezone(UTC))
    if row is None:
        raise _not_found(code)
    return PastBalance(
        code=code,
        currency=row["currency"],
        at=at,
        by=by,
        balance=int(row["balance"]),
        version=row["version"],
    )


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an account's statement, in minor units."""

    version: int
    amount: int
    balance_after: int
    recorded_at: datetime
    effective_at: datetime
    transfer: str
    kind: str
    reference: str | None


async def statement_page(
    database: Database, account_id: int, *, after: int, before: int, limit: int, newest_first: bool = False
) -> list[StatementLine]:
    """Return the entries with `after` < version < `before`, up to `limit`."""
    if newest_first:
        rows = await database.fetch(SQL.statement_down, account_id, after, before, limit)
    else:
        rows = await database.fetch(SQL.statement_up, account_id, after, before - 1, limit)
    return [
        StatementLine(
            version=row["version"],
            amount=row["amount"],
            balance_after=row["balance"],
            recorded_at=row["recorded_at"],
            effective_at=row["effective_at"],
            transfer=str(row["transfer"]),
            kind=row["kind"],
            reference=row["reference"],
        )
        for row in rows
    ]


async def statement_pages(
    database: Database, account_id: int, *, after: int, before: int, newest_first: bool = False
) -> AsyncIterator[list[StatementLine]]:
    """Read the entries in pages, each in a short transaction of its own: a slow reader holds nothing open."""
    while page := await statement_page(
        database, account_id, after=after, before=before, limit=STREAM_PAGE, newest_first=newest_first
    ):
        yield page
        if newest_first:
            before = page[-1].version
        else:
            after = page[-1].version


async def statement_span(
    database: Database,
    account: Account,
    recorded_from: datetime | None,
    recorded_before: datetime | None,
    *,
    cursor: int | None = None,
    newest_first: bool = False,
) -> tuple[int, int]:
    """Return the versions that a statement lies between, both exclusive, continued from the version `cursor`.

    Raises Refusal `invalid_request` for a time at the ends of the calendar.
    """
    after, before = 0, account.version + 1
    if (start := moment(recorded_from)) is not None:
        after = await version_before(database, account.id, start)
    if (end := moment(recorded_before)) is not None:
        before = await version_before(database, account.id, end) + 1
    if cursor is not None:
        after, before = (after, min(before, cursor)) if newest_first else (max(after, cursor), before)
    return after, before


async def version_before(database: Database, account_id: int, at: datetime) -> int:
    """Return the version of the account's last entry recorded before `at`; 0 when there is none."""
    version: int = await database.fetchval(SQL.version_at, account_id, at - timedelta(microseconds=1))
    return version


def _not_found(code: str) -> Refusal:
    return Refusal("account_not_found", f"Account {code!r} does not exist.", account=code)


def _account(row: Row) -> Account:
    limits = Limits(**{name: row[name] for name in Limits.__struct_fields__})
    return Account(
        id=row["id"],
        code=row["code"],
        currency=row["currency"],
        state=STATES[row["state"]],
        balance=row["balance"],
        held=row["held"],
        available=row["balance"] - row["held"],
        incoming=row["incoming"],
        version=row["version"],
        revision=row["revision"],
        limits=limits,
        metadata=msgspec.json.decode(row["metadata"], type=dict[str, str]),
        created_at=row["created_at"],
    )
