"""Accounts over HTTP: opened by their own code, changed, read now and as of any time, and their statements."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from core.ledger import accounts
from core.ledger.accounts import Account, AccountState, Limits, Opening, PastBalance, StatementLine
from core.ledger.movements import moment
from core.ledger.transfers import NEWEST
from core.money import MAX_AMOUNT_MINOR
from handlers.http.accepting import JSON_TYPE, preferred
from handlers.http.conditions import etag, expected_revision, reader
from handlers.http.route import Call, Route, answer, cut, table
from handlers.http.times import Time
from handlers.ledger.access import check_reserved
from handlers.ledger.bodies import ACCOUNT_CODE, AccountCode, Balance, Currency, Metadata, MetadataChange
from handlers.ledger.transfers import Limit

TAG = "Accounts"

# The beginnings of cells that spreadsheets run as formulas, and the apostrophe that keeps them from it.
_RUN_OR_QUOTED = ("=", "+", "-", "@", "'")

Positive = Annotated[int, Meta(ge=1, le=MAX_AMOUNT_MINOR)]
NotNegative = Annotated[int, Meta(ge=0, le=MAX_AMOUNT_MINOR)]


class LimitsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds of an account, in minor units and numbers of transfers; null: no bound.

    `floor` bounds balance minus held, `ceiling` the balance. The others bound the amounts that leave the account in one
    transfer, within an hour, and on one UTC day.
    """

    floor: Balance | None = 0
    ceiling: Balance | None = None
    transfer_max: Positive | None = None
    hour_amount_max: NotNegative | None = None
    hour_count_max: NotNegative | None = None
    day_amount_max: NotNegative | None = None
    day_count_max: NotNegative | None = None


class LimitsChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits to change. An absent limit stays as it is, null lifts a limit."""

    floor: Balance | msgspec.UnsetType | None = msgspec.UNSET
    ceiling: Balance | msgspec.UnsetType | None = msgspec.UNSET
    transfer_max: Positive | msgspec.UnsetType | None = msgspec.UNSET
    hour_amount_max: NotNegative | msgspec.UnsetType | None = msgspec.UNSET
    hour_count_max: NotNegative | msgspec.UnsetType | None = msgspec.UNSET
    day_amount_max: NotNegative | msgspec.UnsetType | None = msgspec.UNSET
    day_count_max: NotNegative | msgspec.UnsetType | None = msgspec.UNSET


class AccountBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account to open. A system account, such as a provider's clearing account, has no floor: `"floor": null`."""

    code: AccountCode
    currency: Currency
    limits: LimitsBody = LimitsBody()
    metadata: Metadata = {}


class AccountChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The changes to an account. The state `closed` is for good and needs a balance and holds of zero."""

    state: AccountState | None = None
    limits: LimitsChange | None = None
    metadata: MetadataChange | None = None


class AccountPage(msgspec.Struct, frozen=True):
    """A page of accounts in the order of their codes; `next` is null on the last page."""

    data: list[Account]
    next: str | None


class AccountQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of a list of accounts; `prefix` is the beginning of the code."""

    currency: Currency | None = None
    state: AccountState | None = None
    prefix: AccountCode | None = None
    cursor: AccountCode | None = None
    limit: Limit = 100


class BalanceQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The moment of the balance (now when absent), by the times at which entries were recorded or took effect."""

    at: Time | None = None
    by: Literal["recorded", "effective"] = "recorded"


class StatementQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The entries of a page: by version, or by the time of recording (`recorded_from` on, before `recorded_before`)."""

    order: Literal["ascending", "descending"] = "ascending"
    cursor: (
        Annotated[int, Meta(ge=0, le=NEWEST, description="The version after which the page begins.")] | None
    ) = None
    recorded_from: Time | None = None
    recorded_before: Time | None = None
    limit: Limit = 100
    format: (
        Annotated[Literal["json", "csv"], Meta(description="When absent: the form that `Accept` prefers.")]
        | None
    ) = None


class StatementPage(msgspec.Struct, frozen=True):
    """A page of entries; `next` is null on the last page."""

    code: str
    currency: str
    data: list[StatementLine]
    next: int | None


async def open_account(call: Call) -> web.Response:
    """Open an account."""
    body: AccountBody = call.body
    check_reserved(call.caller, [body.code])
    limits = msgspec.convert(msgspec.to_builtins(body.limits), Limits)
    opening = Opening(body.code, body.currency, limits, dict(body.metadata))
    account, opened = await accounts.open_account(call.service.database, opening, call.caller.id)
    return answer(201 if opened else 200, account, etag(account.revision))


async def change_account(call: Call) -> web.Response:
    """Change limits, state or metadata."""
    body: AccountChange = call.body
    check_reserved(call.caller, [call.path("account")])
    changed = await accounts.change_account(
        call.service.database,
        call.path("account"),
        state=body.state,
        limits=msgspec.to_builtins(body.limits) if body.limits is not None else None,
        metadata=body.metadata,
        expected_revision=expected_revision(call.request),
    )
    return answer(200, changed, etag(changed.revision))


async def get_account(call: Call) -> web.Response:
    """Show an account."""
    account = await accounts.get_account(call.service.database, call.path("account"))
    return answer(200, account, etag(account.revision))


async def list_accounts(call: Call) -> web.Response:
    """List accounts."""
    query: AccountQuery = call.query
    found = await accounts.list_accounts(
        reader(call, "list"), after=query.cursor, currency=query.currency, state=query.state, prefix=query.prefix,
        limit=query.limit + 1,
    )  # fmt: skip
    page, more = cut(found, query.limit)
    return answer(200, AccountPage(page, page[-1].code if more else None))


async def get_balance(call: Call) -> web.Response:
    """Show a balance, now or at a past time."""
    query: BalanceQuery = call.query
    database = call.service.database
    at = moment(query.at) or datetime.now(UTC)
    return answer(200, await accounts.balance_at(database, call.path("account"), at, query.by))


async def get_entries(call: Call) -> web.StreamResponse:
    """Show an account's statement."""
    query: StatementQuery = call.query
    database = reader(call, "report" if _wants_csv(call) else "list", moment(query.recorded_before))
    account = await accounts.get_account(database, call.path("account"))
    descending = query.order == "descending"
    after, before = await accounts.statement_span(
        database,
        account,
        query.recorded_from,
        query.recorded_before,
        cursor=query.cursor,
        newest_first=descending,
    )
    if _wants_csv(call):
        pages = accounts.statement_pages(
            database, account.id, after=after, before=before, newest_first=descending
        )
        return await _stream_csv(call, account, pages)
    entries = await accounts.statement_page(
        database, account.id, after=after, before=before, limit=query.limit + 1, newest_first=descending
    )
    page, more = cut(entries, query.limit)
    shown = StatementPage(account.code, account.currency, page, page[-1].version if more else None)
    return answer(200, shown, {hdrs.VARY: hdrs.ACCEPT})


def _wants_csv(call: Call) -> bool:
    query: StatementQuery = call.query
    if query.format is not None:
        return query.format == "csv"
    return preferred(call.request.headers.get(hdrs.ACCEPT), (JSON_TYPE, "text/csv")) == "text/csv"


async def _stream_csv(
    call: Call, account: Account, pages: AsyncIterator[list[StatementLine]]
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Vary": hdrs.ACCEPT,
            "Content-Disposition": f'attachment; filename="{account.code.replace(":", "_")}.csv"',
        }
    )
    await response.prepare(call.request)
    if call.request.method == hdrs.METH_HEAD:
        return response  # aiohttp would write the rows after these headers
    names = StatementLine.__struct_fields__
    await response.write((",".join((*names, "account", "currency")) + "\r\n").encode())
    async for page in pages:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows(
            [*(_cell(getattr(line, name)) for name in names), account.code, account.currency] for line in page
        )
        await response.write(text.getvalue().encode())
    await response.write_eof()
    return response


def _cell(value: object) -> object:
    """Return the text of a cell. A text that a spreadsheet would run gets an apostrophe before it.

    So does a text that begins with an apostrophe: a reader that takes one away has the text as it was.
    """
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, str) and value.startswith(_RUN_OR_QUOTED):
        return f"'{value}"
    return "" if value is None else value


_ACCOUNT = {"account": Annotated[str, Meta(min_length=1, max_length=128, pattern=ACCOUNT_CODE)]}

ROUTES = table(
    Route(
        "POST", "/v1/accounts", open_account, "open_account", "Open an account",
        scope="accounts:write", body=AccountBody, answers={201: Account, 200: Account}, problems=("account_exists",),
        example={"code": "customer:17", "currency": "USD"},
        description="The `code` makes it idempotent: the same body again answers 200 with the account as it is now.",
    ),
    Route(
        "GET", "/v1/accounts", list_accounts, "list_accounts", "List accounts",
        scope="accounts:read", query=AccountQuery, answers={200: AccountPage},
    ),
    Route(
        "GET", "/v1/accounts/{account}", get_account, "get_account", "Show an account",
        scope="accounts:read", answers={200: Account}, problems=("account_not_found",),
    ),
    Route(
        "PATCH", "/v1/accounts/{account}", change_account, "change_account", "Change an account",
        scope="accounts:write", body=AccountChange, answers={200: Account},
        problems=("account_not_found", "account_closed", "account_not_empty"),
        description="Limits, state and metadata. An absent field stays as it is. Metadata are merged: null removes "
        "a name.",
        conditional=True,
    ),
    Route(
        "GET", "/v1/accounts/{account}/balance", get_balance, "get_balance", "Show a balance at a time",
        scope="accounts:read", query=BalanceQuery, answers={200: PastBalance}, problems=("account_not_found",),
    ),
    Route(
        "GET", "/v1/accounts/{account}/entries", get_entries, "get_entries", "Show a statement",
        scope="accounts:read", query=StatementQuery, answers={200: StatementPage}, media=("text/csv",),
        problems=("account_not_found",),
        description="The statement comes in pages by version as JSON, or whole as CSV, with `format=csv` or "
        "`Accept: text/csv`. In CSV a text that begins with one of `= + - @ '` has one more `'` before it.",
    ),
    tag=TAG, parameters=_ACCOUNT,
)  # fmt: skip
