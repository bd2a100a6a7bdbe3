"""Merchants: applications, QR codes, scanned customers, statements."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
import pydantic
from aiohttp import hdrs, web

from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR
from core.payables import cpm, qr
from core.payables.cpm import Scanned
from core.payables.payables import Purpose
from core.wallets import merchants, statements
from core.wallets.kyc import require_kyc
from core.wallets.statements import Line
from handlers.http.conditions import reader
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    Body,
    Cents,
    CurrencyCode,
    Detail,
    Reference,
    Text,
    TransferOut,
    header_key,
    platform_of,
    required_key,
    timestamp,
    transfer_out,
)

# Lines in one JSON answer. A CSV has all lines.
MAX_ROWS: Final = 1_000
# Lines of a CSV that are written at once.
CSV_ROWS: Final = 500
DEFAULT_SPAN: Final = timedelta(days=30)
DEFAULT_SCALE: Final = 8
CSV_COLUMNS: Final = ("created_at", "direction", "amount_cents", "currency_code", "transfer_id")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class QrIn(Body):
    """A code to make, in the currency of new wallets unless it says another. The amount of a static code is ignored.

    Payers see the description and the reference (order).
    """

    amount_cents: Cents
    currency_code: CurrencyCode | None = None
    mode: Annotated[Literal["dynamic", "static"], pydantic.BeforeValidator(_lower)] = "dynamic"
    description: Text | None = None
    reference: Reference | None = None


class QrPayIn(Body):
    """A code to pay. The amount counts for a static code only; a key in the header counts before the one here."""

    code: str
    idempotency_key: str
    amount_cents: Cents | None = None


class QrQuery(Body):
    """The code that is asked for."""

    code: str


class QrImageQuery(Body):
    """The code, the format of its image, and the pixels of a module (1 to 20)."""

    code: str
    format: str = "svg"
    scale: int = DEFAULT_SCALE


class CpmQuery(Body):
    """The content of the code: phone or id."""

    format: str = "phone"


class MerchantStatementQuery(Body):
    """The span of a statement, in either spelling of the names. A time without an offset is in UTC."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    from_ts: str | None = None
    to_ts: str | None = None
    since: str | None = pydantic.Field(default=None, alias="from")
    until: str | None = pydantic.Field(default=None, alias="to")
    format: str = "json"


class MerchantOut(msgspec.Struct, frozen=True):
    """The state of a merchant's application."""

    is_merchant: bool
    merchant_status: str


class QrOut(msgspec.Struct, frozen=True):
    """A new code."""

    code: str
    expires_at: str


class QrStatusOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a code: `status` is active, used or expired, a static code's amount 0. The purpose if it has one."""

    status: str
    mode: str
    amount_cents: int
    currency_code: str
    expires_at: str
    description: str | None = None
    reference: str | None = None


class CpmOut(msgspec.Struct, frozen=True):
    """The text that a customer shows."""

    qr_text: str


class CpmRequestOut(msgspec.Struct, frozen=True):
    """The payment request that the customer is to accept."""

    id: str
    deeplink: str


class LineOut(msgspec.Struct, frozen=True):
    """One line of a statement. `direction` is in, fee or refund; an amount that left is negative."""

    created_at: str
    direction: str
    amount_cents: int
    currency_code: str
    transfer_id: str


class MerchantStatementOut(msgspec.Struct, frozen=True):
    """A statement. The gross is the sum of sales, the net the rest after fees and refunds."""

    since: str = msgspec.field(name="from")
    until: str = msgspec.field(name="to")
    gross_cents: int
    fees_cents: int
    net_cents: int
    rows: list[LineOut]


async def become_merchant(call: Call) -> web.Response:
    """Make the caller a merchant, in development."""
    await merchants.become_merchant(platform_of(call), call.user)
    return answer(200, Detail("merchant enabled"))


async def apply(call: Call) -> web.Response:
    """Ask to become a merchant."""
    return answer(200, Detail(await merchants.apply(platform_of(call), call.user)))


async def get_status(call: Call) -> web.Response:
    """Show the state of the caller's application."""
    return answer(200, MerchantOut(call.user.is_merchant, call.user.merchant_status))


async def create_qr(call: Call) -> web.Response:
    """Make a QR code."""
    body: QrIn = call.body
    platform = platform_of(call)
    code, expires_at = await qr.create_qr(
        platform,
        call.user,
        body.amount_cents,
        body.currency_code or platform.currency,
        body.mode,
        Purpose.of(body.description, body.reference),
    )
    return answer(200, QrOut(code, timestamp(expires_at)))


async def pay_qr(call: Call) -> web.Response:
    """Pay a QR code."""
    body: QrPayIn = call.body
    platform = platform_of(call)
    try:
        key = required_key(call, body.idempotency_key)
    except Refusal:
        # The contract refuses by the level before it refuses a bad key.
        require_kyc(call.user, platform.settings.kyc_min_level_for_merchant_pay)
        raise
    paid = await qr.pay_qr(platform, call.user, body.code, body.amount_cents, key, known=call.to_pay)
    return answer(200, transfer_out(paid))


async def get_qr_status(call: Call) -> web.Response:
    """Show the state of one of the caller's codes."""
    query: QrQuery = call.query
    found = await qr.find_qr(platform_of(call), call.user, query.code)
    view = QrStatusOut(
        found.status, found.mode, found.amount, found.currency, timestamp(found.expires_at), *found.purpose
    )
    return answer(200, view)


async def get_qr_image(call: Call) -> web.Response:
    """Draw one of the caller's codes."""
    query: QrImageQuery = call.query
    kind = query.format.lower()
    if kind not in {"svg", "png"}:
        raise Refusal("invalid_format", "The formats are svg and png.")
    await qr.find_qr(platform_of(call), call.user, query.code)
    if kind == "svg":
        return web.Response(body=qr.draw(query.code, "svg", query.scale), content_type="image/svg+xml")
    return web.Response(body=qr.draw(query.code, "png", query.scale), content_type="image/png")


async def get_cpm_code(call: Call) -> web.Response:
    """Show the code that the caller shows at a till."""
    query: CpmQuery = call.query
    return answer(200, CpmOut(cpm.customer_code(call.user, query.format.lower())))


def _scanned(body: Mapping[str, Any]) -> Scanned:
    """Return the body that a till sends. The amount must be a whole JSON number. Raises Refusal `invalid_payload`."""
    amount, text = body.get("amount_cents"), body.get("code") or body.get("scanned_text")
    if type(amount) is not int or not 0 < amount <= MAX_AMOUNT_MINOR:  # true would be 1
        raise Refusal("invalid_payload", "Send amount_cents, a whole number above 0.")
    if not isinstance(text, str) or not text:
        raise Refusal("invalid_payload", "Send the scanned text.")
    return Scanned(amount, text)


async def request_by_cpm(call: Call) -> web.Response:
    """Ask the customer whose code was scanned for money."""
    body: dict[str, Any] = call.body
    try:
        scanned = _scanned(body)
    except Refusal:
        # The contract refuses by the caller before it refuses a bad body.
        merchants.require_merchant(call.user)
        raise
    request_id = await cpm.request_payment(platform_of(call), call.user, scanned, header_key(call))
    return answer(200, CpmRequestOut(str(request_id), f"payments://request/{request_id}"))


async def get_statement(call: Call) -> web.StreamResponse:
    """Show sales, fees and refunds."""
    query: MerchantStatementQuery = call.query
    merchants.require_merchant(call.user)
    until = _moment(query.to_ts or query.until) or datetime.now(UTC)
    since = _moment(query.from_ts or query.since) or until - DEFAULT_SPAN
    if since > until:
        raise Refusal("invalid_time_range", "The span begins after its end.")
    database = reader(call, "report", until)
    span = await statements.span_of(database, call.user.account, since, until)
    lines = statements.lines_of(database, span)
    if query.format.lower() == "csv":
        return await _stream(call, span.currency, lines)
    totals = await statements.totals_of(database, span)
    rows: list[LineOut] = []
    async with aclosing(lines):
        async for line in lines:
            rows.append(_shown(line, span.currency))
            if len(rows) == MAX_ROWS:
                break
    view = MerchantStatementOut(
        timestamp(since), timestamp(until), totals.gross, totals.fees, totals.net, rows
    )
    return answer(200, view)


async def _stream(call: Call, currency: str, lines: AsyncGenerator[Line, None]) -> web.StreamResponse:
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/csv; charset=utf-8"})
    await response.prepare(call.request)
    if call.request.method == hdrs.METH_HEAD:
        return response
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    waiting = 0
    async with aclosing(lines):
        async for line in lines:
            writer.writerow(msgspec.structs.astuple(_shown(line, currency)))
            waiting += 1
            if waiting == CSV_ROWS:
                await response.write(text.getvalue().encode())
                text.seek(text.truncate(0))
                waiting = 0
    await response.write(text.getvalue().encode())
    await response.write_eof()
    return response


def _shown(line: Line, currency: str) -> LineOut:
    return LineOut(timestamp(line.recorded_at), line.direction, line.amount, currency, str(line.transfer_id))


def _moment(text: str | None) -> datetime | None:
    """Return a time from a text of ISO 8601. Raises Refusal `invalid_time_range`."""
    if not text:
        return None
    # An unencoded plus arrives as a blank.
    date, blank, offset = text.strip().partition(" ")
    repaired = f"{date}+{offset}" if blank and "T" in date.upper() else text.strip()
    try:
        moment = datetime.fromisoformat(repaired)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refusal("invalid_time_range", "A time looks like 2026-01-31T12:00:00Z.") from None


_PAYING = (
    "kyc_level_required",
    "missing_idempotency_key",
    "idempotency_key_too_long",
    "idempotency_conflict",
    "invalid_qr_format",
    "qr_not_active",
    "qr_expired",
    "qr_amount_required",
    "currency_mismatch",
    "insufficient_funds",
    "transfer_limit_exceeded",
    "daily_amount_exceeded",
    "hourly_count_exceeded",
    "risk_blocked",
)

ROUTES = table(
    Route(
        "POST", "/payments/dev/become_merchant", become_merchant, "become_merchant",
        "Become a merchant (development)", answers={200: Detail}, problems=("not_allowed",),
    ),
    Route(
        "POST", "/payments/merchant/apply", apply, "apply_as_merchant", "Apply as a merchant",
        answers={200: Detail}, problems=("kyc_approval_required", "not_allowed"),
    ),
    Route(
        "GET", "/payments/merchant/status", get_status, "get_merchant_status", "Show my application",
        answers={200: MerchantOut},
    ),
    Route(
        "POST", "/payments/merchant/qr", create_qr, "create_qr", "Make a QR code",
        body=QrIn, answers={200: QrOut},
        problems=("kyc_level_required", "not_a_merchant", "currency_mismatch"),
    ),
    Route(
        "POST", "/payments/merchant/pay", pay_qr, "pay_qr", "Pay a QR code",
        pays_code=True, body=QrPayIn, key_header="Idempotency-Key", key_in_header=True,
        answers={200: TransferOut}, problems=_PAYING,
    ),
    Route(
        "GET", "/payments/merchant/qr_status", get_qr_status, "get_qr_status", "Show the state of a code",
        query=QrQuery, answers={200: QrStatusOut}, problems=("not_a_merchant", "invalid_qr_format", "qr_not_found"),
    ),
    Route(
        "GET", "/payments/merchant/qr/image", get_qr_image, "get_qr_image", "Show a code as an image",
        query=QrImageQuery, answers={200: None}, media=("image/svg+xml", "image/png"),
        problems=("not_a_merchant", "invalid_qr_format", "invalid_format", "qr_not_found"),
    ),
    Route(
        "GET", "/payments/cpm_qr", get_cpm_code, "get_cpm_code", "Show my code for a till",
        query=CpmQuery, answers={200: CpmOut}, problems=("invalid_format",),
    ),
    Route(
        "POST", "/payments/merchant/cpm_request", request_by_cpm, "request_by_cpm", "Ask a scanned customer",
        body=dict[str, Any], key_header="Idempotency-Key", answers={200: CpmRequestOut},
        problems=(
            "not_a_merchant", "invalid_payload", "invalid_phone_format", "target_not_found",
            "unsupported_cpm_format", "idempotency_conflict",
        ),
    ),
    Route(
        "GET", "/payments/merchant/statement", get_statement, "get_merchant_statement", "My statement",
        query=MerchantStatementQuery, answers={200: MerchantStatementOut}, media=("text/csv",),
        problems=("not_a_merchant", "invalid_time_range"),
    ),
    tag="merchants", caller="user",
)  # fmt: skip
