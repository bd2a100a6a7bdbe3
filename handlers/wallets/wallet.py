"""The wallet: its balance, its statement, top-ups, payments from person to person."""

from __future__ import annotations

import csv
import io
from typing import Annotated

import msgspec
import pydantic
from aiohttp import web

from core.errors import Refusal
from core.payables import p2p
from core.wallets.balances import Entry, read_balance, read_entries
from handlers.http.route import Call, Route, answer, table
from handlers.http.spreadsheets import cell
from handlers.wallets.contract import (
    Body,
    Cents,
    Counterparty,
    Phone,
    TransferOut,
    counterparty_of,
    platform_of,
    required_key,
    timestamp,
    transfer_out,
)

LIST_ENTRIES = 100
MAX_PAGE_ENTRIES = 500
EXPORT_ENTRIES = 1_000
MAX_PAGE = 2**31
CSV_COLUMNS = ("created_at", "transfer_id", "wallet_id", "amount_cents_signed")
CSV_DETAILS = ("kind", "fee", "counterparty", "counterparty_phone", "purpose")


class TopUpIn(Body):
    """A top-up. A key in the header counts before the one here."""

    amount_cents: Cents
    idempotency_key: str


class TransferIn(Body):
    """A payment to the wallet of a phone."""

    to_phone: Phone
    amount_cents: Cents
    idempotency_key: str


class PageQuery(Body):
    """The number and the size of a page; a size is brought within 1 to 500."""

    page: Annotated[int, pydantic.Field(le=MAX_PAGE)] = 1
    page_size: int = 50


class ExportQuery(Body):
    """The format of an export; any word but csv is JSON. With `details` a CSV has kind, counterparty and purpose."""

    format: str = "csv"
    details: bool = False


class UserOut(msgspec.Struct, frozen=True):
    """The owner of the wallet."""

    id: str
    phone: str
    name: str | None
    is_merchant: bool


class WalletOut(msgspec.Struct, frozen=True):
    """The balance of the wallet, in minor units."""

    id: str
    balance_cents: int
    currency_code: str


class WalletView(msgspec.Struct, frozen=True):
    """A user and their wallet."""

    user: UserOut
    wallet: WalletOut


class EntryOut(msgspec.Struct, frozen=True):
    """One line of a statement. The amount is in minor units, positive for money that came.

    `kind` names the operation, `fee` tells its fee from its amount, and `purpose` is the text of what was paid.
    """

    transfer_id: str
    wallet_id: str
    amount_cents_signed: int
    created_at: str
    kind: str
    fee: bool
    counterparty: Counterparty | None
    purpose: str | None


class EntriesOut(msgspec.Struct, frozen=True):
    """Lines, newest first."""

    entries: list[EntryOut]


class EntryPage(msgspec.Struct, frozen=True):
    """A page of lines, newest first; `total` is the number of all."""

    page: int
    page_size: int
    total: int
    entries: list[EntryOut]


async def get_wallet(call: Call) -> web.Response:
    """Show the caller and their wallet."""
    user = call.user
    found = await read_balance(platform_of(call), user)
    view = WalletView(
        UserOut(str(user.id), user.phone, user.name, user.is_merchant),
        WalletOut(str(user.wallet_id), found.balance, found.currency),
    )
    return answer(200, view)


async def top_up(call: Call) -> web.Response:
    """Put money into the caller's wallet, in development."""
    body: TopUpIn = call.body
    platform = platform_of(call)
    try:
        key = required_key(call, body.idempotency_key)
    except Refusal:
        # The contract refuses a top-up that is off before it refuses a bad key.
        if not platform.settings.dev_enable_topup:
            raise Refusal("topup_disabled", "Top-ups are off here.") from None
        raise
    return answer(200, transfer_out(await p2p.top_up(platform, call.user, body.amount_cents, key)))


async def transfer(call: Call) -> web.Response:
    """Pay somebody."""
    body: TransferIn = call.body
    # The contract refuses one's own phone before it refuses a bad key.
    if body.to_phone == call.user.phone:
        raise Refusal("transfer_to_self", "This is your own phone.")
    key = required_key(call, body.idempotency_key)
    paid = await p2p.transfer(platform_of(call), call.user, body.to_phone, body.amount_cents, key)
    return answer(200, transfer_out(paid))


async def list_transactions(call: Call) -> web.Response:
    """List the newest lines."""
    return answer(200, EntriesOut(await _newest(call, LIST_ENTRIES)))


async def page_transactions(call: Call) -> web.Response:
    """Show a page of lines. Versions of a wallet are dense, so a page is a range of them, however far back."""
    query: PageQuery = call.query
    page, size = max(query.page, 1), min(max(query.page_size, 1), MAX_PAGE_ENTRIES)
    platform = platform_of(call)
    total = (await read_balance(platform, call.user)).entries
    found = await read_entries(platform, call.user, newest=total - (page - 1) * size, count=size)
    return answer(200, EntryPage(page, size, total, [_shown(call, entry) for entry in found]))


async def export_transactions(call: Call) -> web.Response:
    """Export the newest lines as CSV (RFC 4180), or as JSON."""
    query: ExportQuery = call.query
    lines = await _newest(call, EXPORT_ENTRIES)
    if query.format.lower() != "csv":
        return answer(200, EntriesOut(lines))
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([*CSV_COLUMNS, *(CSV_DETAILS if query.details else ())])
    writer.writerows(_row(line, details=query.details) for line in lines)
    headers = {"Content-Disposition": "attachment; filename=transactions.csv"}
    return web.Response(text=out.getvalue(), content_type="text/csv", charset="utf-8", headers=headers)


async def _newest(call: Call, count: int) -> list[EntryOut]:
    platform = platform_of(call)
    newest = (await read_balance(platform, call.user)).entries
    return [
        _shown(call, entry) for entry in await read_entries(platform, call.user, newest=newest, count=count)
    ]


def _shown(call: Call, entry: Entry) -> EntryOut:
    return EntryOut(
        str(entry.transfer_id),
        str(call.user.wallet_id),
        entry.amount,
        timestamp(entry.recorded_at),
        entry.kind,
        entry.is_fee,
        counterparty_of(entry),
        entry.purpose,
    )


def _row(line: EntryOut, *, details: bool) -> list[object]:
    row: list[object] = [line.created_at, line.transfer_id, line.wallet_id, line.amount_cents_signed]
    if not details:
        return row
    other = line.counterparty
    named = (None, None) if other is None else (other.name, other.phone)
    return [*row, *map(cell, (line.kind, line.fee, *named, line.purpose))]


_PAYING = (
    "insufficient_funds",
    "transfer_limit_exceeded",
    "daily_amount_exceeded",
    "hourly_amount_exceeded",
    "hourly_count_exceeded",
    "currency_mismatch",
    "idempotency_conflict",
    "missing_idempotency_key",
    "idempotency_key_too_long",
)

ROUTES = table(
    Route("GET", "/wallet", get_wallet, "get_wallet", "Show my wallet", answers={200: WalletView}),
    Route(
        "POST", "/wallet/topup", top_up, "top_up", "Top up (development)",
        body=TopUpIn, key_header="Idempotency-Key", key_in_header=True,
        answers={200: TransferOut}, problems=("topup_disabled", *_PAYING[-3:]),
    ),
    Route(
        "POST", "/wallet/transfer", transfer, "transfer_to_phone", "Pay somebody",
        body=TransferIn, key_header="Idempotency-Key", key_in_header=True, answers={200: TransferOut},
        problems=("transfer_to_self", "recipient_not_found", "risk_blocked", *_PAYING),
    ),
    Route(
        "GET", "/wallet/transactions", list_transactions, "list_transactions", "List the newest 100 lines",
        answers={200: EntriesOut},
    ),
    Route(
        "GET", "/wallet/transactions/page", page_transactions, "page_transactions", "Show a page of lines",
        query=PageQuery, answers={200: EntryPage},
    ),
    Route(
        "GET", "/wallet/transactions/export", export_transactions, "export_transactions",
        "Export the newest 1,000 lines as CSV", query=ExportQuery, answers={200: EntriesOut}, media=("text/csv",),
    ),
    tag="wallet", caller="user",
)  # fmt: skip
