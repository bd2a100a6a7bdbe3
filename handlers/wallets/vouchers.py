"""Vouchers."""

from __future__ import annotations

import csv
import io
import re
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
import pydantic
from aiohttp import hdrs, web

from core.errors import Refusal
from core.payables import vouchers
from core.payables.vouchers import MAX_BULK, MAX_MINE, MAX_UNITS, QR_PREFIX, Filter, Voucher, unit_of
from handlers.http.route import Call, Route, answer, table
from handlers.http.spreadsheets import cell
from handlers.wallets.contract import (
    Body,
    CurrencyCode,
    PageQuery,
    cut,
    header_key,
    key_id,
    maybe_timestamp,
    platform_of,
    timestamp,
)

# The contract's words for a payable's states, and back.
STATUSES: Final = {"open": "active", "paid": "redeemed", "canceled": "revoked"}
STATES: Final = {status: state for state, status in STATUSES.items()}
MAX_LIST: Final = 1_000
EXPORT_PAGE: Final = 1_000
PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{0,10}")
NOBODY: Final = UUID(int=0)

Units = Annotated[int, pydantic.Field(gt=0, le=MAX_UNITS)]
Limit = Annotated[int, pydantic.Field(ge=1, le=MAX_LIST)]
Word = Annotated[str, pydantic.Field(max_length=64)]


class VoucherIn(Body):
    """A voucher over whole units of its currency, whatever the field's name. The default is that of new wallets."""

    amount_syp: Units
    currency_code: CurrencyCode | None = None


class BulkIn(VoucherIn):
    """Many vouchers of one value."""

    count: Annotated[int, pydantic.Field(ge=1, le=MAX_BULK)]
    prefix: str | None = None


class SummaryQuery(Body):
    """The maker of the vouchers: `me`, a phone or a user's id."""

    created_by: Word | None = None


class ExportQuery(SummaryQuery):
    """The filters of a list of vouchers."""

    status: Word | None = None
    prefix: Word | None = None


class ListQuery(ExportQuery):
    """The filters and the length of a list of vouchers."""

    limit: Limit = 200


class FeesQuery(Body):
    """The length of a list."""

    limit: Limit = 200


class VoucherOut(msgspec.Struct, frozen=True):
    """A voucher. `amount_cents` is in minor units, `amount_syp` in whole ones."""

    id: str
    code: str
    amount_cents: int
    amount_syp: int
    currency_code: str
    status: str
    qr_text: str
    created_at: str
    redeemed_at: str | None


class MineQuery(PageQuery):
    """A part of the list: a status."""

    status: Literal["active", "redeemed", "revoked", "expired"] | None = None


class VouchersOut(msgspec.Struct, frozen=True):
    """Vouchers, newest first; where a part was asked for, `next` continues the list as `before`, null at its end."""

    items: list[VoucherOut]
    next: str | msgspec.UnsetType | None = msgspec.UNSET


class ListedVoucher(msgspec.Struct, frozen=True):
    """A voucher as an administrator sees it."""

    id: str
    code: str
    amount_syp: int
    status: str
    created_at: str
    redeemed_at: str | None
    created_by_phone: str | None
    redeemed_by_phone: str | None


class ListedVouchers(msgspec.Struct, frozen=True):
    """Vouchers of everybody, newest first."""

    items: list[ListedVoucher]


class SummaryOut(msgspec.Struct, frozen=True):
    """The numbers of vouchers and their value in whole units, rounded down."""

    total_count: int
    active_count: int
    redeemed_count: int
    revoked_count: int
    total_syp: int
    redeemed_total_syp: int
    fees_syp: int
    net_syp: int


class FeeEntryOut(msgspec.Struct, frozen=True):
    """The fee of one redemption; `amount_syp` is rounded down."""

    transfer_id: str
    code: str
    amount_cents: int
    amount_syp: int
    created_at: str


class FeeEntries(msgspec.Struct, frozen=True):
    """Fees, newest first."""

    items: list[FeeEntryOut]


async def create_voucher(call: Call) -> web.Response:
    """Make a voucher, out of the caller's wallet."""
    body: VoucherIn = call.body
    currency = body.currency_code or platform_of(call).currency
    made = await vouchers.issue(
        platform_of(call),
        call.user,
        body.amount_syp * unit_of(currency),
        currency=currency,
        funding_id=key_id(call.user.principal_id, header_key(call)),
    )
    return answer(200, _shown(made))


async def list_vouchers(call: Call) -> web.Response:
    """List the vouchers that the caller has made."""
    query: MineQuery = call.query
    most = query.most(MAX_MINE)
    found = await vouchers.list_mine(
        platform_of(call),
        call.user,
        state=STATES.get(query.status or "", query.status),
        before=query.before,
        limit=most,
    )
    items, last = cut(found, most - 1)
    said = VouchersOut([_shown(one) for one in items])
    if query.given:
        said = msgspec.structs.replace(said, next=None if last is None else str(last.id))
    return answer(200, said)


async def redeem_voucher(call: Call) -> web.Response:
    """Pay a voucher into the caller's wallet."""
    redeemed = await vouchers.redeem(platform_of(call), call.user, call.path("code"), header_key(call))
    return answer(200, _shown(redeemed))


async def create_bulk(call: Call) -> web.Response:
    """Make many vouchers, out of the promotions account."""
    body: BulkIn = call.body
    prefix = body.prefix or ""
    if PREFIX.fullmatch(prefix) is None:
        raise Refusal("invalid_prefix", "A prefix has at most ten letters, digits, underscores and hyphens.")
    currency = body.currency_code or platform_of(call).currency
    made = await vouchers.issue_bulk(
        platform_of(call),
        call.user,
        body.amount_syp * unit_of(currency),
        count=body.count,
        currency=currency,
        prefix=prefix,
        funding_id=key_id(call.user.principal_id, header_key(call)),
    )
    return answer(200, VouchersOut([_shown(one) for one in made]))


async def revoke_voucher(call: Call) -> web.Response:
    """End a voucher, and give its money back."""
    return answer(200, _shown(await vouchers.revoke(platform_of(call), call.user, call.path("code"))))


async def summarize(call: Call) -> web.Response:
    """Count vouchers."""
    query: SummaryQuery = call.query
    found = await vouchers.summary(platform_of(call), await _creator(call, query.created_by))
    unit = unit_of(platform_of(call).currency)
    redeemed, fees = found.redeemed_total // unit, found.fees // unit
    return answer(200, SummaryOut(*found[:4], found.total // unit, redeemed, fees, redeemed - fees))


async def list_all(call: Call) -> web.Response:
    """List vouchers of everybody."""
    query: ListQuery = call.query
    page = await vouchers.list_page(platform_of(call), await _filter(call), limit=query.limit)
    return answer(200, ListedVouchers([_listed(one) for one in page]))


async def export_all(call: Call) -> web.StreamResponse:
    """Export vouchers of everybody as CSV (RFC 4180), page by page."""
    wanted = await _filter(call)
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "text/csv; charset=utf-8",
            hdrs.CONTENT_DISPOSITION: "attachment; filename=vouchers.csv",
        }
    )
    await response.prepare(call.request)
    if call.request.method == hdrs.METH_HEAD:
        return response
    names = [*ListedVoucher.__struct_fields__[1:], "qr_text"]
    await response.write((",".join(names) + "\r\n").encode())
    async for page in vouchers.pages(platform_of(call), wanted, size=EXPORT_PAGE):
        text = io.StringIO(newline="")
        csv.writer(text).writerows(
            [cell(value) for value in (*msgspec.structs.astuple(_listed(one))[1:], _qr_text(one))]
            for one in page
        )
        await response.write(text.getvalue().encode())
    await response.write_eof()
    return response


async def list_fees(call: Call) -> web.Response:
    """List the newest fees of redemptions."""
    query: FeesQuery = call.query
    unit = unit_of(platform_of(call).currency)
    found = await vouchers.fee_entries(platform_of(call), query.limit)
    return answer(
        200,
        FeeEntries(
            [
                FeeEntryOut(
                    str(one.transfer_id), one.code, one.amount, one.amount // unit, timestamp(one.recorded_at)
                )
                for one in found
            ]
        ),
    )


async def _filter(call: Call) -> Filter:
    query: ExportQuery = call.query
    # An unknown status becomes an unknown state, which no voucher has.
    state = None if query.status is None else STATES.get(query.status, query.status)
    return Filter(state, query.prefix, await _creator(call, query.created_by))


async def _creator(call: Call, created_by: str | None) -> UUID | None:
    """Return the maker of the vouchers to list, None for everybody. An unknown maker becomes NOBODY, who has none."""
    if not created_by:
        return None
    if created_by == "me":
        return call.user.id
    try:
        return UUID(created_by)
    except ValueError:
        # An unencoded plus arrives as a blank.
        phone = f"+{created_by[1:]}" if created_by.startswith(" ") else created_by
        user = await platform_of(call).users.by_phone(phone)
        return NOBODY if user is None else user.id


def _qr_text(voucher: Voucher) -> str:
    return f"{QR_PREFIX}{voucher.code}"


def _shown(voucher: Voucher) -> VoucherOut:
    return VoucherOut(
        str(voucher.id),
        voucher.code,
        voucher.amount,
        voucher.amount // unit_of(voucher.currency),
        voucher.currency,
        STATUSES.get(voucher.state, voucher.state),
        _qr_text(voucher),
        timestamp(voucher.created_at),
        maybe_timestamp(voucher.redeemed_at),
    )


def _listed(voucher: Voucher) -> ListedVoucher:
    return ListedVoucher(
        str(voucher.id),
        voucher.code,
        voucher.amount // unit_of(voucher.currency),
        STATUSES.get(voucher.state, voucher.state),
        timestamp(voucher.created_at),
        maybe_timestamp(voucher.redeemed_at),
        voucher.created_by_phone,
        voucher.redeemed_by_phone,
    )


_KEYED = ("currency_mismatch", "idempotency_conflict", "idempotency_key_too_long")

ROUTES = table(
    Route(
        "POST", "/vouchers", create_voucher, "create_voucher", "Make a voucher out of my wallet",
        caller="user", body=VoucherIn, key_header="Idempotency-Key", answers={200: VoucherOut},
        problems=("insufficient_funds", "transfer_limit_exceeded", "daily_amount_exceeded", *_KEYED),
    ),
    Route(
        "GET", "/vouchers", list_vouchers, "list_vouchers", "List my newest vouchers",
        caller="user", query=MineQuery, answers={200: VouchersOut},
    ),
    Route(
        "POST", "/vouchers/{code}/redeem", redeem_voucher, "redeem_voucher", "Redeem a voucher",
        caller="user", key_header="Idempotency-Key",
        answers={200: VoucherOut}, problems=("voucher_not_found", "voucher_not_active", *_KEYED[1:]),
    ),
    Route(
        "POST", "/vouchers/admin/vouchers/bulk", create_bulk, "create_vouchers", "Make many vouchers",
        body=BulkIn, key_header="Idempotency-Key",
        answers={200: VouchersOut}, problems=("invalid_prefix", "balance_overflow", *_KEYED),
    ),
    Route(
        "GET", "/vouchers/admin/summary", summarize, "summarize_vouchers", "Count vouchers",
        query=SummaryQuery, answers={200: SummaryOut},
    ),
    Route(
        "GET", "/vouchers/admin/list", list_all, "list_all_vouchers", "List vouchers of everybody",
        query=ListQuery, answers={200: ListedVouchers},
    ),
    Route(
        "GET", "/vouchers/admin/export", export_all, "export_vouchers", "Export vouchers as CSV",
        query=ExportQuery, answers={200: None}, media=("text/csv",),
    ),
    Route(
        "GET", "/vouchers/admin/fees/entries", list_fees, "list_voucher_fees", "List the newest fees",
        caller="admin", query=FeesQuery, answers={200: FeeEntries},
    ),
    Route(
        "POST", "/vouchers/admin/{code}/revoke", revoke_voucher, "revoke_voucher", "Revoke a voucher",
        answers={200: VoucherOut}, problems=("voucher_not_found", "voucher_not_revocable"),
    ),
    tag="vouchers", caller="user+admin",
)  # fmt: skip
