"""Senders whom a user has blocked."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web

from core.wallets import blocks
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import MAX_PAGE, Body, Detail, Phone, cut, platform_of, timestamp

_FIRST = UUID(int=0)


class SenderIn(Body):
    """The phone of a sender."""

    phone: Phone


class BlockedQuery(Body):
    """A part of the list; `before` continues it behind the user id of its last sender.

    `after` says the same, for clients of before.
    """

    limit: Annotated[int, pydantic.Field(ge=1, le=MAX_PAGE)] = MAX_PAGE
    before: UUID | None = None
    after: UUID | None = None


class BlockedOut(msgspec.Struct, frozen=True):
    """A blocked sender."""

    user_id: str
    phone: str
    created_at: str


class BlockedSenders(msgspec.Struct, frozen=True):
    """Blocked senders; `next` continues the list as `before`, null at its end."""

    items: list[BlockedOut]
    next: str | None


async def block_sender(call: Call) -> web.Response:
    """Block a sender: requests and invoices from this person are refused, and open ones are not listed."""
    body: SenderIn = call.body
    changed = await blocks.block(platform_of(call), call.user, body.phone)
    return answer(200, Detail("blocked" if changed else "already blocked"))


async def unblock_sender(call: Call) -> web.Response:
    """End the block of a sender."""
    body: SenderIn = call.body
    changed = await blocks.unblock(platform_of(call), call.user, body.phone)
    return answer(200, Detail("unblocked" if changed else "not blocked"))


async def list_blocked(call: Call) -> web.Response:
    """List the senders whom the caller has blocked."""
    query: BlockedQuery = call.query
    found = await blocks.list_blocked(
        platform_of(call), call.user, after=query.before or query.after or _FIRST, limit=query.limit + 1
    )
    items, last = cut(found, query.limit)
    shown = [BlockedOut(str(one.id), one.phone, timestamp(one.created_at)) for one in items]
    return answer(200, BlockedSenders(shown, None if last is None else str(last.id)))


ROUTES = table(
    Route(
        "GET", "/wallet/blocked_senders", list_blocked, "list_blocked_senders", "List blocked senders",
        query=BlockedQuery, answers={200: BlockedSenders},
    ),
    Route(
        "POST", "/wallet/blocked_senders", block_sender, "block_sender", "Block a sender",
        body=SenderIn, answers={200: Detail}, problems=("user_not_found",),
    ),
    Route(
        "POST", "/wallet/blocked_senders/unblock", unblock_sender, "unblock_sender", "End the block of a sender",
        body=SenderIn, answers={200: Detail}, problems=("user_not_found",),
    ),
    tag="wallet", caller="user",
)  # fmt: skip
