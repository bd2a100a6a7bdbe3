"""Closed dates over HTTP: moved by the administrator, and read by whoever reads accounts."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from core import closing
from core.closing import ClosedDate
from handlers.http.admin_token import ACTOR
from handlers.http.conditions import etag, expected_revision
from handlers.http.route import Call, Route, answer, cut, table
from handlers.http.times import Time
from handlers.ledger.bodies import Currency
from handlers.ledger.transfers import Limit

TAG = "Closed dates"


class ClosingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time before which nothing may take effect any more, or null to open all of the past again; and why."""

    closed_before: Time | None
    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class ClosedDateQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page of a list."""

    cursor: Currency | None = None
    limit: Limit = 100


class ClosedDatePage(msgspec.Struct, frozen=True):
    """A page of closed dates in the order of their currencies; `next` is null on the last page."""

    data: list[ClosedDate]
    next: str | None


async def move_closed_date(call: Call) -> web.Response:
    """Move a closed date."""
    body: ClosingBody = call.body
    moved = await closing.move_closed_date(
        call.service.database,
        call.path("currency"),
        body.closed_before,
        actor=ACTOR,
        reason=body.reason,
        expected_revision=expected_revision(call.request),
    )
    return answer(200, moved, etag(moved.revision))


async def get_closed_date(call: Call) -> web.Response:
    """Show a closed date."""
    found = await closing.get_closed_date(call.service.database, call.path("currency"))
    return answer(200, found, etag(found.revision))


async def list_closed_dates(call: Call) -> web.Response:
    """List closed dates."""
    query: ClosedDateQuery = call.query
    found = await closing.list_closed_dates(call.service.database, after=query.cursor, limit=query.limit + 1)
    page, more = cut(found, query.limit)
    return answer(200, ClosedDatePage(page, page[-1].currency if more else None))


ROUTES = table(
    Route(
        "GET", "/v1/closed-dates", list_closed_dates, "list_closed_dates", "List closed dates",
        scope="accounts:read", query=ClosedDateQuery, answers={200: ClosedDatePage},
    ),
    Route(
        "GET", "/v1/closed-dates/{currency}", get_closed_date, "get_closed_date", "Show a closed date",
        scope="accounts:read", answers={200: ClosedDate}, problems=("not_found",),
    ),
    Route(
        "PUT", "/v1/closed-dates/{currency}", move_closed_date, "move_closed_date", "Move a closed date",
        admin=True, body=ClosingBody, answers={200: ClosedDate}, conditional=True,
        example={"closed_before": "2026-01-01T00:00:00Z", "reason": "The books of 2025 are reported."},
        description="Nothing may take effect in the currency before it any more. It must be over for a minute, and "
        "may be moved back. The audit keeps each move.",
    ),
    tag=TAG, parameters={"currency": Currency},
)  # fmt: skip
