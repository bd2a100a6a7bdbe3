"""Refusals over HTTP: the one table from code to status and title, and the problem details (RFC 9457) made from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict, istr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.errors import Refusal

_log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
REPLAYED = istr("Idempotent-Replayed")


class Form(NamedTuple):
    """How a code looks over HTTP. The title is the same for every occurrence; the detail is the occurrence's own."""

    status: int
    title: str


PROBLEMS: Mapping[str, Form] = {
    # The request itself.
    "invalid_request": Form(400, "The request is not valid"),
    "malformed_json": Form(400, "The body is not valid JSON"),
    "duplicate_json_key": Form(400, "A key occurs twice"),
    "idempotency_key_required": Form(400, "An Idempotency-Key is required"),
    "idempotency_key_invalid": Form(400, "The Idempotency-Key is not valid"),
    "invalid_signature": Form(400, "The signature is not valid"),
    "unauthorized": Form(401, "Authentication is required"),
    "forbidden": Form(403, "The key may not do this"),
    "not_found": Form(404, "Not found"),
    "method_not_allowed": Form(405, "The method is not allowed here"),
    "request_timeout": Form(408, "The body came too slowly"),
    "payload_too_large": Form(413, "The body is too large"),
    "unsupported_media_type": Form(415, "The media type is not supported"),
    "invalid_query": Form(422, "The query is not valid"),
    # The inbox.
    "source_exists": Form(409, "The source's name is taken"),
    "not_dead": Form(409, "The event is not among the dead letters"),
    "ambiguous_event": Form(409, "Several events have this id"),
    # The outbox.
    "endpoint_missing": Form(409, "The endpoint is gone"),
    "endpoint_disabled": Form(409, "The endpoint is switched off"),
    "endpoint_unverified": Form(409, "The endpoint's URL is not verified"),
    "challenge_failed": Form(409, "The URL has not passed the challenge"),
    "delivery_in_progress": Form(409, "The delivery is being sent"),
    # Keys and rates.
    "idempotency_conflict": Form(409, "The key was used with another request"),
    "rate_limited": Form(429, "Too many requests"),
    # The ledger (core.ledger.outcomes says what each means): what is not there,
    "transfer_not_found": Form(404, "There is no such transfer"),
    "hold_not_found": Form(404, "There is no such hold"),
    "account_not_found": Form(404, "There is no such account"),
    # what its state forbids,
    "account_closed": Form(409, "The account is closed"),
    "account_frozen": Form(409, "The account is frozen"),
    "account_exists": Form(409, "The account's code is taken"),
    "account_not_empty": Form(409, "The account is not empty"),
    "not_reversible": Form(409, "The transfer cannot be reversed"),
    "hold_not_open": Form(409, "The hold is not open"),
    "hold_expired": Form(409, "The hold has expired"),
    "already_reversed": Form(409, "The transfer is reversed already"),
    "version_mismatch": Form(409, "The account has another version"),
    "balance_too_low": Form(409, "The balance would be too low for the condition"),
    "balance_too_high": Form(409, "The balance would be too high for the condition"),
    # and what cannot be done with these amounts.
    "currency_mismatch": Form(422, "The currencies differ"),
    "legs_unbalanced": Form(422, "The legs do not sum to zero"),
    "exceeds_hold": Form(422, "More than the hold has left"),
    "exceeds_reversible": Form(422, "More than is left to reverse"),
    "insufficient_funds": Form(422, "Insufficient funds"),
    "ceiling_exceeded": Form(422, "Above the account's ceiling"),
    "transfer_limit_exceeded": Form(422, "Above the account's limit for one transfer"),
    "hourly_amount_exceeded": Form(422, "Above the account's amount for an hour"),
    "hourly_count_exceeded": Form(422, "Above the account's number of transfers for an hour"),
    "daily_amount_exceeded": Form(422, "Above the account's amount for a day"),
    "daily_count_exceeded": Form(422, "Above the account's number of transfers for a day"),
    "balance_overflow": Form(422, "Beyond the range of a balance"),
    "group_failed": Form(422, "Another item of the group was refused"),
    # Ours, and for now.
    "internal_error": Form(500, "Internal error"),
    "busy": Form(503, "Busy"),
    "database_unavailable": Form(503, "The database cannot be reached"),
    "overloaded": Form(503, "Overloaded"),
    "shutting_down": Form(503, "Shutting down"),
}

_BY_STATUS = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
}


class Problem(NamedTuple):
    """One refusal, ready to be written down by a surface."""

    code: str
    status: int
    title: str
    detail: str
    extra: Mapping[str, Any]


def problem_of(code: str, detail: str, extra: Mapping[str, Any] | None = None) -> Problem:
    """Look up the code's form; a code that the table lacks is a mistake of ours and becomes a 500."""
    form = PROBLEMS.get(code)
    if form is None:
        _log.error("code without a form", code=code)
        form, code = PROBLEMS["internal_error"], "internal_error"
    return Problem(code, form.status, form.title, detail, extra or {})


def problem_details(problem: Problem) -> bytes:
    """Write the strict form of `/v1`: equal problems give equal bytes, so that a frozen refusal can be repeated."""
    return msgspec.json.encode(
        {
            "type": f"/problems/{problem.code}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "error": {"code": problem.code, "message": problem.detail},
            **problem.extra,
        }
    )


def webhook_problem(problem: Problem) -> bytes:
    """Write what providers are told, in the sentences of the existing contract where it has one."""
    if problem.code == "payload_too_large":
        limit = problem.extra["limit_bytes"]
        problem = problem._replace(detail=f"Request body too large. Maximum size: {limit} bytes")
    elif problem.status >= web.HTTPInternalServerError.status_code:
        problem = problem._replace(detail="Processing failed")
    return problem_details(problem)


# One function a surface: body and media type. A surface with clients of its own writes their body here.
SURFACES: Mapping[str, tuple[Callable[[Problem], bytes], str]] = {
    "service": (problem_details, MEDIA_TYPE),
    "v1": (problem_details, MEDIA_TYPE),
    "webhooks": (webhook_problem, MEDIA_TYPE),
}


def refused(refusal: Refusal, surface: str = "v1") -> web.Response:
    """Answer an expected refusal."""
    response = problem_response(problem_of(refusal.code, refusal.detail, refusal.extra), surface)
    if refusal.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(refusal.retry_after)))
    if refusal.replayed:
        response.headers[REPLAYED] = "true"
    return response


def problem_response(problem: Problem, surface: str = "v1") -> web.Response:
    """Answer with a problem in the form of `surface`."""
    write, media_type = SURFACES[surface]
    headers = CIMultiDict({hdrs.CONTENT_TYPE: media_type})
    if problem.status == web.HTTPUnauthorized.status_code:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return web.Response(status=problem.status, body=write(problem), headers=headers)


def from_http_exception(error: web.HTTPException, path: str, method: str) -> web.Response:
    """Give the framework's own refusals (no such route, wrong method) our form; redirects pass as they are."""
    status = error.status
    if status < web.HTTPBadRequest.status_code:
        return web.Response(status=status, headers=error.headers)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = problem_response(
            problem_of("method_not_allowed", f"{method} is not possible here; possible: {allowed}.")
        )
        response.headers[hdrs.ALLOW] = allowed
        return response
    if status == web.HTTPNotFound.status_code:
        return problem_response(problem_of("not_found", f"There is nothing at {path[:200]}."))
    code = _BY_STATUS.get(status, "invalid_request")
    return problem_response(problem_of(code, error.reason or PROBLEMS[code].title))


def internal_error(request_id: str, surface: str = "v1") -> web.Response:
    """Answer an unknown error: nothing of it leaks; the request id finds its log line."""
    return problem_response(
        problem_of(
            "internal_error",
            "Something went wrong on our side. Name the request id when you ask about it.",
            {"request_id": request_id},
        ),
        surface,
    )
