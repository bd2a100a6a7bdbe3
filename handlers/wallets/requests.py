"""Payment requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web

from core.payables import requests
from core.payables.demands import LISTED, Demand, Wanted
from core.payables.payables import metadata_of
from core.payables.requests import Terms
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    Body,
    Cents,
    Detail,
    PageQuery,
    Phone,
    PhoneFilter,
    cut,
    header_key,
    ignorable_key,
    maybe_timestamp,
    platform_of,
    timestamp,
    whole_phone,
)

# Bounds of the metadata in bytes and levels: a list shows a hundred requests, each with its metadata.
MAX_METADATA_BYTES = 4_096
MAX_METADATA_DEPTH = 8
MAX_EXPIRY_MINUTES = 10_080

# The contract's words for the states of a payable.
STATES = {"open": "pending", "paid": "accepted"}
STATES_BACK = {status: state for state, status in STATES.items()}


def _bounded(metadata: dict[str, Any]) -> dict[str, Any]:
    if _deeper(metadata, MAX_METADATA_DEPTH):
        raise ValueError(f"metadata is nested more than {MAX_METADATA_DEPTH} levels deep")
    if len(msgspec.json.encode(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata is longer than {MAX_METADATA_BYTES} bytes")
    return metadata


def _deeper(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _deeper(part, levels - 1) for part in parts)


Metadata = Annotated[dict[str, Any], pydantic.AfterValidator(_bounded)]
Minutes = Annotated[int, pydantic.Field(ge=1, le=MAX_EXPIRY_MINUTES)]


class RequestIn(Body):
    """A request to the user of a phone."""

    to_phone: Phone
    amount_cents: Cents
    expires_in_minutes: Minutes | None = None
    metadata: Metadata | None = None


class RequestsQuery(PageQuery):
    """A part of the lists: one side of them, a status, the phone of the other side."""

    side: Literal["incoming", "outgoing"] | None = None
    phone: PhoneFilter | None = None
    status: Literal["pending", "accepted", "canceled", "rejected", "expired"] | None = None


class RequestOut(msgspec.Struct, frozen=True):
    """A request."""

    id: str
    requester_phone: str
    target_phone: str
    amount_cents: int
    currency_code: str
    status: str
    created_at: str
    expires_at: str | None
    metadata: dict[str, Any] | None


class RequestsOut(msgspec.Struct, frozen=True):
    """Requests to the caller and requests from the caller, newest first.

    Where a part was asked for, the two `next_` fields continue the lists as `before`, null at the end.
    """

    incoming: list[RequestOut]
    outgoing: list[RequestOut]
    next_incoming: str | msgspec.UnsetType | None = msgspec.UNSET
    next_outgoing: str | msgspec.UnsetType | None = msgspec.UNSET


class AcceptedOut(msgspec.Struct, frozen=True):
    """An accepted request and its payment, or a word for how the request had ended before."""

    detail: str
    transfer_id: str | msgspec.UnsetType = msgspec.UNSET


async def create_request(call: Call) -> web.Response:
    """Ask somebody for money."""
    body: RequestIn = call.body
    asked = Terms(body.amount_cents, body.expires_in_minutes, body.metadata)
    demand = await requests.create(platform_of(call), call.user, body.to_phone, asked, key=header_key(call))
    return answer(200, request_out(demand))


async def list_requests(call: Call) -> web.Response:
    """List the newest requests of each side."""
    query: RequestsQuery = call.query
    wanted = Wanted(
        query.side,
        STATES_BACK.get(query.status or "", query.status),
        whole_phone(query.phone),
        before=query.before,
        limit=query.most(LISTED),
    )
    found = await requests.of_user(platform_of(call), call.user, wanted)
    incoming, next_incoming = cut(found.incoming, wanted.limit - 1)
    outgoing, next_outgoing = cut(found.outgoing, wanted.limit - 1)
    said = RequestsOut([*map(request_out, incoming)], [*map(request_out, outgoing)])
    if query.given:
        ends = (id_of(next_incoming), id_of(next_outgoing))
        said = msgspec.structs.replace(said, next_incoming=ends[0], next_outgoing=ends[1])
    return answer(200, said)


async def get_request(call: Call) -> web.Response:
    """Show a request to one of its sides."""
    demand = await requests.get(platform_of(call), call.user, call.path("request_id"))
    return answer(200, request_out(demand))


async def accept_request(call: Call) -> web.Response:
    """Pay a request."""
    accepted = await requests.accept(
        platform_of(call), call.user, call.path("request_id"), ignorable_key(call)
    )
    if accepted.transfer_id is None:
        return _already(accepted.state)
    return answer(200, AcceptedOut("accepted", str(accepted.transfer_id)))


async def reject_request(call: Call) -> web.Response:
    """Reject a request."""
    was = await requests.reject(platform_of(call), call.user, call.path("request_id"))
    return answer(200, Detail("rejected")) if was is None else _already(was)


async def cancel_request(call: Call) -> web.Response:
    """Take a request back."""
    was = await requests.cancel(platform_of(call), call.user, call.path("request_id"))
    return answer(200, Detail("canceled")) if was is None else _already(was)


def id_of(demand: Demand | None) -> str | None:
    """Return the id of a demand, if there is one."""
    return None if demand is None else str(demand.payable.id)


def request_out(demand: Demand) -> RequestOut:
    """Return a request as the contract shows it."""
    payable = demand.payable
    return RequestOut(
        id=str(payable.id),
        requester_phone=demand.payee_phone,
        target_phone=demand.payer_phone,
        amount_cents=payable.amount or 0,
        currency_code=payable.currency,
        status=STATES.get(payable.state, payable.state),
        created_at=timestamp(payable.created_at),
        expires_at=maybe_timestamp(payable.expires_at),
        metadata=metadata_of(payable),
    )


def _already(state: str) -> web.Response:
    return answer(200, Detail(f"already {STATES.get(state, state)}"))


_REQUEST = {"request_id": UUID}

ROUTES = table(
    Route(
        "POST", "/requests", create_request, "create_request", "Ask somebody for money",
        body=RequestIn, key_header="Idempotency-Key", answers={200: RequestOut},
        problems=(
            "target_not_found", "request_to_self", "idempotency_conflict", "idempotency_key_too_long",
            "idempotency_key_invalid", "sender_blocked", "too_many_open_items",
        ),
    ),
    Route(
        "GET", "/requests", list_requests, "list_requests", "List the newest requests to me, and mine",
        query=RequestsQuery, answers={200: RequestsOut},
    ),
    Route(
        "GET", "/requests/{request_id}", get_request, "get_request", "Show a request",
        answers={200: RequestOut}, problems=("request_not_found", "forbidden"),
    ),
    Route(
        "POST", "/requests/{request_id}/accept", accept_request, "accept_request", "Pay a request",
        key_header="Idempotency-Key", answers={200: AcceptedOut},
        problems=(
            "request_not_found", "not_yours_to_accept", "currency_mismatch", "transfer_limit_exceeded",
            "daily_amount_exceeded", "insufficient_funds",
        ),
    ),
    Route(
        "POST", "/requests/{request_id}/reject", reject_request, "reject_request",
        "Reject a request, as one of its two sides", answers={200: Detail},
        problems=("request_not_found", "not_allowed"),
    ),
    Route(
        "POST", "/requests/{request_id}/cancel", cancel_request, "cancel_request", "Take a request back",
        answers={200: Detail}, problems=("request_not_found", "only_requester_can_cancel"),
    ),
    tag="requests", caller="user", parameters=_REQUEST,
)  # fmt: skip
