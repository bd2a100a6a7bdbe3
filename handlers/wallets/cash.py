"""Cash agents."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from core.payables import cash
from core.payables.cash import CashRequest, Direction
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import Body, Cents, Detail, header_key, ignorable_key, platform_of, timestamp

# The contract's words for a payable's states.
STATUSES: Final = {"open": "pending", "paid": "completed"}


class CashIn(Body):
    """An amount of cash, in minor units."""

    amount_cents: Cents


class CashOut(msgspec.Struct, frozen=True):
    """A cash request. Its agent is known once it is completed."""

    id: str
    type: str
    user_phone: str
    agent_phone: str | None
    amount_cents: int
    currency_code: str
    status: str
    created_at: str


class CashRequests(msgspec.Struct, frozen=True):
    """The caller's own requests, newest first, and for an agent everybody's pending ones, oldest first."""

    my: list[CashOut]
    incoming: list[CashOut]


async def become_agent(call: Call) -> web.Response:
    """Make the caller an agent, in development."""
    await cash.become_agent(platform_of(call), call.user)
    return answer(200, Detail("agent enabled"))


async def request_cash_in(call: Call) -> web.Response:
    """Ask an agent to take cash in."""
    return await _ask(call, "cash_in")


async def request_cash_out(call: Call) -> web.Response:
    """Ask an agent to pay cash out."""
    return await _ask(call, "cash_out")


async def list_requests(call: Call) -> web.Response:
    """List cash requests."""
    mine, incoming = await cash.requests(platform_of(call), call.user)
    return answer(200, CashRequests([_shown(one) for one in mine], [_shown(one) for one in incoming]))


async def accept(call: Call) -> web.Response:
    """Complete a request, as an agent."""
    found = await cash.accept(platform_of(call), call.user, _id(call), ignorable_key(call))
    return answer(200, Detail("completed" if found == "open" else _already(found)))


async def reject(call: Call) -> web.Response:
    """Turn a request down, as an agent."""
    found = await cash.reject(platform_of(call), call.user, _id(call))
    return answer(200, Detail("rejected" if found == "open" else _already(found)))


async def cancel(call: Call) -> web.Response:
    """Take a request back."""
    found = await cash.cancel(platform_of(call), call.user, _id(call))
    return answer(200, Detail("canceled" if found == "open" else _already(found)))


async def _ask(call: Call, direction: Direction) -> web.Response:
    body: CashIn = call.body
    key = header_key(call)
    return answer(
        200, _shown(await cash.ask(platform_of(call), call.user, direction, body.amount_cents, key=key))
    )


def _already(state: str) -> str:
    return f"already {STATUSES.get(state, state)}"


def _id(call: Call) -> UUID | None:
    """Return the id in the path, None for a text that is no id. A caller without the right is refused before that."""
    try:
        return UUID(call.path("request_id"))
    except ValueError:
        return None


def _shown(request: CashRequest) -> CashOut:
    return CashOut(
        str(request.id),
        request.kind.replace("_", ""),
        request.phone,
        request.agent_phone,
        request.amount,
        request.currency,
        STATUSES.get(request.state, request.state),
        timestamp(request.created_at),
    )


ROUTES = table(
    Route(
        "POST", "/cash/agents/dev/become_agent", become_agent, "become_agent", "Become an agent (development)",
        problems=("not_allowed",),
    ),
    Route(
        "POST", "/cash/cashin/request", request_cash_in, "request_cash_in", "Ask to pay cash in",
        body=CashIn, key_header="Idempotency-Key",
        answers={200: CashOut}, problems=("idempotency_conflict", "idempotency_key_too_long"),
    ),
    Route(
        "POST", "/cash/cashout/request", request_cash_out, "request_cash_out", "Ask for cash",
        body=CashIn, key_header="Idempotency-Key", answers={200: CashOut},
        problems=(
            "insufficient_funds", "transfer_limit_exceeded", "daily_amount_exceeded", "idempotency_conflict",
            "idempotency_key_too_long",
        ),
        description="The amount and the fee are set aside until the request is completed or ends otherwise.",
    ),
    Route(
        "GET", "/cash/requests", list_requests, "list_cash_requests", "List cash requests",
        answers={200: CashRequests},
    ),
    Route(
        "POST", "/cash/requests/{request_id}/accept", accept, "accept_cash_request", "Complete a cash request",
        key_header="Idempotency-Key",
        problems=("not_an_agent", "request_not_found", "agent_insufficient_funds", "account_frozen"),
    ),
    Route(
        "POST", "/cash/requests/{request_id}/reject", reject, "reject_cash_request", "Reject a cash request",
        problems=("not_an_agent", "request_not_found"),
    ),
    Route(
        "POST", "/cash/requests/{request_id}/cancel", cancel, "cancel_cash_request", "Cancel my cash request",
        problems=("request_not_found", "not_owner"),
    ),
    tag="cash", caller="user", answers={200: Detail},
)  # fmt: skip
