"""Cash agents."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web

from core.payables.cash import asking, lists, settling
from core.payables.cash.lists import CashRequest, Direction, Wanted
from core.wallets import agents
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    Body,
    Cents,
    Detail,
    PageQuery,
    Phone,
    PhoneFilter,
    Text,
    cut,
    header_key,
    ignorable_key,
    maybe_timestamp,
    platform_of,
    timestamp,
    whole_phone,
)

# The contract's words for a payable's states.
STATUSES: Final = {"open": "pending", "paid": "completed"}
STATES: Final = {status: state for state, status in STATUSES.items()}
DIRECTIONS: Final[dict[str, Direction]] = {"cashin": "cash_in", "cashout": "cash_out"}
MAX_OFFSET: Final = 100_000


class CashIn(Body):
    """An amount of cash, in minor units. With `agent_phone` that agent alone sees and completes the request."""

    amount_cents: Cents
    agent_phone: Phone | None = None


class ClaimIn(Body):
    """The code of a request, as the customer shows it or reads it out, or the text of its QR code."""

    code: Text


class CashQuery(PageQuery):
    """A part of the lists. `status` and `before` are about the caller's own, `phone` and `offset` about the others'."""

    type: Literal["cashin", "cashout"] | None = None
    phone: PhoneFilter | None = None
    status: Literal["pending", "completed", "canceled", "rejected", "expired"] | None = None
    offset: Annotated[int, pydantic.Field(ge=0, le=MAX_OFFSET)] = 0


class CashOut(msgspec.Struct, frozen=True):
    """A cash request. `agent_phone` is known once it is completed; `named_agent_phone` is that of the agent who may.

    The customer shows `code` to an agent. Agents who are not named see neither the code nor the whole phone.
    """

    id: str
    type: str
    user_phone: str
    agent_phone: str | None
    amount_cents: int
    currency_code: str
    status: str
    created_at: str
    expires_at: str | None
    code: str | None
    named_agent_phone: str | None


class CashRequests(msgspec.Struct, frozen=True):
    """The caller's own requests, newest first, and for an agent the open ones.

    Those that name the agent come first, oldest first; of the others each customer's first comes before anybody's
    second. Where a part was asked for, `next` continues the caller's own as `before`, and `next_offset` the open ones
    as `offset`; each is null at its end.
    """

    my: list[CashOut]
    incoming: list[CashOut]
    next: str | msgspec.UnsetType | None = msgspec.UNSET
    next_offset: int | msgspec.UnsetType | None = msgspec.UNSET


async def become_agent(call: Call) -> web.Response:
    """Make the caller an agent, in development."""
    await agents.become_agent(platform_of(call), call.user)
    return answer(200, Detail("agent enabled"))


async def request_cash_in(call: Call) -> web.Response:
    """Ask an agent to take cash in."""
    return await _ask(call, "cash_in")


async def request_cash_out(call: Call) -> web.Response:
    """Ask an agent to pay cash out."""
    return await _ask(call, "cash_out")


async def list_requests(call: Call) -> web.Response:
    """List cash requests."""
    query: CashQuery = call.query
    wanted = Wanted(
        None if query.type is None else DIRECTIONS[query.type],
        STATES.get(query.status or "", query.status),
        whole_phone(query.phone),
        query.before,
        query.offset,
        query.limit,
    )
    mine, incoming = await lists.requests(platform_of(call), call.user, wanted)
    mine, more = cut(mine, wanted.own_limit)
    incoming, others = cut(incoming, wanted.incoming_limit)
    said = CashRequests([_shown(one) for one in mine], [_shown(one) for one in incoming])
    if query.given:
        behind = wanted.offset + len(incoming)
        goes_on = others is not None and behind <= MAX_OFFSET
        said = msgspec.structs.replace(
            said, next=None if more is None else str(more.id), next_offset=behind if goes_on else None
        )
    return answer(200, said)


async def claim(call: Call) -> web.Response:
    """Take on the request whose code the customer shows, as an agent."""
    body: ClaimIn = call.body
    return answer(200, _shown(await lists.claim(platform_of(call), call.user, body.code)))


async def accept(call: Call) -> web.Response:
    """Complete a request, as an agent."""
    found = await settling.accept(platform_of(call), call.user, _id(call), ignorable_key(call))
    return answer(200, Detail("completed" if found == "open" else _already(found)))


async def reject(call: Call) -> web.Response:
    """Turn a request down, as an agent."""
    found = await settling.reject(platform_of(call), call.user, _id(call))
    return answer(200, Detail("rejected" if found == "open" else _already(found)))


async def cancel(call: Call) -> web.Response:
    """Take a request back."""
    found = await settling.cancel(platform_of(call), call.user, _id(call))
    return answer(200, Detail("canceled" if found == "open" else _already(found)))


async def _ask(call: Call, direction: Direction) -> web.Response:
    body: CashIn = call.body
    made = await asking.ask(
        platform_of(call),
        call.user,
        direction,
        body.amount_cents,
        agent_phone=body.agent_phone,
        key=header_key(call),
    )
    return answer(200, _shown(made))


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
        maybe_timestamp(request.expires_at),
        request.code,
        request.named_phone,
    )


ROUTES = table(
    Route(
        "POST", "/cash/agents/dev/become_agent", become_agent, "become_agent", "Become an agent (development)",
        problems=("not_allowed",),
    ),
    Route(
        "POST", "/cash/cashin/request", request_cash_in, "request_cash_in", "Ask to pay cash in",
        body=CashIn, key_header="Idempotency-Key", answers={200: CashOut},
        problems=(
            "agent_not_found", "idempotency_conflict", "idempotency_key_too_long", "too_many_open_items",
        ),
    ),
    Route(
        "POST", "/cash/cashout/request", request_cash_out, "request_cash_out", "Ask for cash",
        body=CashIn, key_header="Idempotency-Key", answers={200: CashOut},
        problems=(
            "agent_not_found", "insufficient_funds", "transfer_limit_exceeded", "daily_amount_exceeded",
            "idempotency_conflict", "idempotency_key_too_long", "too_many_open_items",
        ),
        description="The amount and the fee are set aside until the request is completed or ends otherwise.",
    ),
    Route(
        "GET", "/cash/requests", list_requests, "list_cash_requests", "List cash requests",
        query=CashQuery, answers={200: CashRequests},
    ),
    Route(
        "POST", "/cash/requests/claim", claim, "claim_cash_request", "Take on a cash request by its code",
        body=ClaimIn, answers={200: CashOut}, problems=("not_an_agent", "request_not_found", "own_cash_request"),
    ),
    Route(
        "POST", "/cash/requests/{request_id}/accept", accept, "accept_cash_request", "Complete a cash request",
        key_header="Idempotency-Key",
        problems=(
            "not_an_agent", "request_not_found", "own_cash_request", "not_your_cash_request", "agent_limit_exceeded",
            "agent_insufficient_funds", "account_frozen", "kyc_level_required",
        ),
    ),
    Route(
        "POST", "/cash/requests/{request_id}/reject", reject, "reject_cash_request", "Reject a cash request",
        problems=("not_an_agent", "request_not_found", "not_your_cash_request"),
    ),
    Route(
        "POST", "/cash/requests/{request_id}/cancel", cancel, "cancel_cash_request", "Cancel my cash request",
        problems=("request_not_found", "not_owner"),
    ),
    tag="cash", caller="user", answers={200: Detail},
)  # fmt: skip
