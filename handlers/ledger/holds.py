"""Holds over HTTP: made, captured, voided, extended and found."""

from __future__ import annotations

from uuid import UUID

import msgspec
from aiohttp import web

from core.ledger import accounts, holds, movements, transfers
from core.ledger.holds import Hold, HoldState, StoredHold
from core.ledger.items import Outcome, Posting, operation_id
from core.ledger.transfers import Transfer
from handlers.http.conditions import etag, expected_revision
from handlers.http.route import Call, Route, answer, cut, table
from handlers.ledger.access import check_debits
from handlers.ledger.bodies import (
    AccountCode,
    CaptureBody,
    ExtendBody,
    HoldBody,
    VoidBody,
    movement,
)
from handlers.ledger.transfers import REPLAYED, Cursor, Limit, position

TAG = "Holds"

_OPENING = (
    "idempotency_conflict", "account_not_found", "account_closed", "account_frozen", "currency_mismatch",
    "legs_unbalanced", "version_mismatch", "revision_mismatch", "balance_too_low", "balance_too_high",
    "available_too_low", "available_too_high", "transfer_limit_exceeded",
    "insufficient_funds", "ceiling_exceeded", "hourly_amount_exceeded", "hourly_count_exceeded",
    "daily_amount_exceeded", "daily_count_exceeded", "balance_overflow",
)  # fmt: skip
_CHANGING = ("idempotency_conflict", "hold_not_found", "hold_not_open", "hold_expired")


class Captured(msgspec.Struct, frozen=True):
    """The hold after the capture, and the transfer that the capture posted."""

    hold: Hold
    transfer: Transfer


class HoldPage(msgspec.Struct, frozen=True):
    """A page of holds, newest first; `next` is null on the last page."""

    data: list[Hold]
    next: str | None


class HoldQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of a list of holds; `account` is the source's code."""

    account: AccountCode | None = None
    state: HoldState | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


async def create_hold(call: Call) -> web.Response:
    """Make a hold."""
    body: HoldBody = call.body
    posting = movements.hold(
        call.caller.id, call.idempotency_key or "", movement(body), expires_at=body.expires_at,
        expires_in_secs=body.expires_in,
    )  # fmt: skip
    outcome = await _post(call, posting)
    return _answer(201, holds.describe(posting, outcome), outcome)


async def capture_hold(call: Call) -> web.Response:
    """Capture a hold, whole or in part."""
    body: CaptureBody = call.body
    stored = await _stored(call)
    posting = holds.capture(
        stored, id_=_id(call), principal_id=call.caller.id, amount=body.amount, reference=body.reference,
        metadata=body.metadata, expected_revision=expected_revision(call.request),
    )  # fmt: skip
    outcome = await _post(call, posting)
    captured = Captured(holds.after(stored, posting, outcome), transfers.describe(posting, outcome))
    return _answer(201, captured, outcome)


async def void_hold(call: Call) -> web.Response:
    """Give back the rest of a hold."""
    stored = await _stored(call)
    posting = holds.void(
        stored,
        id_=_id(call),
        principal_id=call.caller.id,
        expected_revision=expected_revision(call.request),
    )
    outcome = await _post(call, posting)
    return _answer(200, holds.after(stored, posting, outcome), outcome)


async def extend_hold(call: Call) -> web.Response:
    """Move a hold's end."""
    body: ExtendBody = call.body
    until = movements.new_hold_end(body.expires_at, body.expires_in)
    stored = await _stored(call)
    posting = holds.extend(
        stored, id_=_id(call), principal_id=call.caller.id, expires_at=until, expires_in_secs=body.expires_in,
        expected_revision=expected_revision(call.request),
    )  # fmt: skip
    outcome = await _post(call, posting)
    return _answer(200, holds.after(stored, posting, outcome), outcome)


async def get_hold(call: Call) -> web.Response:
    """Show a hold as it is now."""
    stored = await _stored(call)
    return answer(200, stored.hold, etag(stored.revision))


async def list_holds(call: Call) -> web.Response:
    """List holds."""
    query: HoldQuery = call.query
    service = call.service
    account = (
        await accounts.get_account(service.database, query.account) if query.account is not None else None
    )
    found = await holds.list_holds(
        service.database,
        account_id=account.id if account is not None else None,
        state=query.state,
        before=position(query.cursor),
        limit=query.limit + 1,
    )
    page, more = cut(found, query.limit)
    return answer(200, HoldPage([stored.hold for stored in page], str(page[-1].no) if more else None))


def _id(call: Call) -> UUID:
    return operation_id(call.caller.id, call.idempotency_key or "")


async def _stored(call: Call) -> StoredHold:
    return await holds.get_hold(call.service.database, call.path("hold"))


async def _post(call: Call, posting: Posting) -> Outcome:
    await check_debits(call, [posting])
    outcome = await call.service.ledger.poster.submit(posting)
    call.frozen = outcome.kind.freezes
    if not outcome.posted:
        raise outcome.refusal()
    return outcome


def _answer(status: int, value: Hold | Captured, outcome: Outcome) -> web.Response:
    return answer(status, value, REPLAYED if outcome.replayed else None)


_HOLD = {"hold": UUID}

ROUTES = table(
    Route(
        "POST", "/v1/holds", create_hold, "create_hold", "Make a hold",
        scope="holds:write", body=HoldBody, answers={201: Hold}, idempotent=True, problems=_OPENING,
        example={"from": "customer:17", "to": "merchant:4", "amount": 5000, "expires_in": 604800},
        description="The hold counts against the source's limits at once, so that a capture cannot fail for "
        "lack of funds. Source, destinations and fee legs are fixed here.",
    ),
    Route(
        "GET", "/v1/holds", list_holds, "list_holds", "List holds, newest first",
        scope="holds:read", query=HoldQuery, answers={200: HoldPage}, problems=("account_not_found",),
    ),
    Route(
        "GET", "/v1/holds/{hold}", get_hold, "get_hold", "Show a hold",
        scope="holds:read", answers={200: Hold}, problems=("hold_not_found",),
    ),
    Route(
        "POST", "/v1/holds/{hold}/capture", capture_hold, "capture_hold", "Capture a hold",
        scope="holds:write", body=CaptureBody, answers={201: Captured}, idempotent=True, conditional=True,
        problems=(*_CHANGING, "exceeds_hold", "account_closed", "account_frozen", "balance_overflow"),
        description="A hold may be captured in parts until nothing remains. A part takes its share of every leg.",
    ),
    Route(
        "POST", "/v1/holds/{hold}/void", void_hold, "void_hold", "Void a hold",
        scope="holds:write", body=VoidBody, answers={200: Hold}, idempotent=True, conditional=True, problems=_CHANGING,
    ),
    Route(
        "POST", "/v1/holds/{hold}/extend", extend_hold, "extend_hold", "Extend a hold",
        scope="holds:write", body=ExtendBody, answers={200: Hold}, idempotent=True, conditional=True,
        problems=_CHANGING,
    ),
    tag=TAG, parameters=_HOLD,
)  # fmt: skip
