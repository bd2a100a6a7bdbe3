"""Refusals over HTTP: the one table from code to status and title, and the problem details (RFC 9457) made from it."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy, istr

from handlers.http.route import json_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.errors import Refusal

_log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
REPLAYED = istr("Idempotent-Replayed")


class ProblemType(NamedTuple):
    """The form of a code over HTTP. The title is the same for every occurrence; the detail is the occurrence's own."""

    status: int
    title: str


PROBLEMS: Mapping[str, ProblemType] = {
    # The request itself.
    "invalid_request": ProblemType(400, "The request is not valid"),
    "malformed_json": ProblemType(400, "The body is not valid JSON"),
    "duplicate_json_key": ProblemType(400, "A key occurs twice"),
    "idempotency_key_required": ProblemType(400, "An Idempotency-Key is required"),
    "idempotency_key_invalid": ProblemType(400, "The Idempotency-Key is not valid"),
    "invalid_signature": ProblemType(400, "The signature is not valid"),
    "unauthorized": ProblemType(401, "Authentication is required"),
    "forbidden": ProblemType(403, "The key may not do this"),
    "not_found": ProblemType(404, "Not found"),
    "method_not_allowed": ProblemType(405, "The method is not allowed here"),
    "request_timeout": ProblemType(408, "The body came too slowly"),
    "payload_too_large": ProblemType(413, "The body is too large"),
    "unsupported_media_type": ProblemType(415, "The media type is not supported"),
    "invalid_query": ProblemType(422, "The query is not valid"),
    # The inbox.
    "source_exists": ProblemType(409, "The source's name is taken"),
    "not_dead": ProblemType(409, "The event is not among the dead letters"),
    "ambiguous_event": ProblemType(409, "Several events have this id"),
    # The outbox.
    "endpoint_missing": ProblemType(409, "The endpoint is gone"),
    "epoch_changed": ProblemType(409, "A backup was restored, and the events are other ones"),
    "events_removed": ProblemType(410, "The events are not kept any more"),
    "endpoint_disabled": ProblemType(409, "The endpoint is switched off"),
    "endpoint_unverified": ProblemType(409, "The endpoint's URL is not verified"),
    "challenge_failed": ProblemType(409, "The URL has not passed the challenge"),
    "too_many_secrets": ProblemType(409, "Too many secrets count at once"),
    "delivery_in_progress": ProblemType(409, "The delivery is being sent"),
    # Keys and rates.
    "idempotency_conflict": ProblemType(409, "The key was used with another request"),
    "rate_limited": ProblemType(429, "Too many requests"),
    # The ledger, whose codes core.ledger.outcomes explains: things that are not there,
    "transfer_not_found": ProblemType(404, "There is no such transfer"),
    "hold_not_found": ProblemType(404, "There is no such hold"),
    "account_not_found": ProblemType(404, "There is no such account"),
    # things that a state forbids,
    "account_closed": ProblemType(409, "The account is closed"),
    "account_frozen": ProblemType(409, "The account is frozen"),
    "account_exists": ProblemType(409, "The account's code is taken"),
    "account_not_empty": ProblemType(409, "The account is not empty"),
    "not_reversible": ProblemType(409, "The transfer cannot be reversed"),
    "hold_not_open": ProblemType(409, "The hold is not open"),
    "hold_expired": ProblemType(409, "The hold has expired"),
    "already_reversed": ProblemType(409, "The transfer is reversed already"),
    "version_mismatch": ProblemType(409, "The account has another version"),
    "revision_mismatch": ProblemType(409, "The account has another revision"),
    "period_closed": ProblemType(409, "The period is closed"),
    "precondition_failed": ProblemType(412, "It was changed since"),
    "balance_too_low": ProblemType(409, "The balance would be too low for the condition"),
    "balance_too_high": ProblemType(409, "The balance would be too high for the condition"),
    "available_too_low": ProblemType(409, "Too little would be available for the condition"),
    "available_too_high": ProblemType(409, "Too much would be available for the condition"),
    # and amounts that are not possible.
    "currency_mismatch": ProblemType(422, "The currencies differ"),
    "legs_unbalanced": ProblemType(422, "The legs do not sum to zero"),
    "effective_time_out_of_range": ProblemType(422, "The effective time is too far away"),
    "effective_before_original": ProblemType(422, "The reversal is before the transfer"),
    "exceeds_hold": ProblemType(422, "More than the hold has left"),
    "exceeds_reversible": ProblemType(422, "More than is left to reverse"),
    "insufficient_funds": ProblemType(422, "Insufficient funds"),
    "ceiling_exceeded": ProblemType(422, "Above the account's ceiling"),
    "transfer_limit_exceeded": ProblemType(422, "Above the account's limit for one transfer"),
    "hourly_amount_exceeded": ProblemType(422, "Above the account's amount for an hour"),
    "hourly_count_exceeded": ProblemType(422, "Above the account's number of transfers for an hour"),
    "daily_amount_exceeded": ProblemType(422, "Above the account's amount for a day"),
    "daily_count_exceeded": ProblemType(422, "Above the account's number of transfers for a day"),
    "balance_overflow": ProblemType(422, "Beyond the range of a balance"),
    "group_failed": ProblemType(422, "Another item of the group was refused"),
    # The service itself, for now.
    "internal_error": ProblemType(500, "Internal error"),
    "busy": ProblemType(503, "Busy"),
    "database_unavailable": ProblemType(503, "The database cannot be reached"),
    "session_not_set": ProblemType(503, "The database's login is not set up for its pooler"),
    "overloaded": ProblemType(503, "Overloaded"),
    "shutting_down": ProblemType(503, "Shutting down"),
}

# The JSON Schema of problem details.
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Problem details (RFC 9457). Some codes add members of their own.",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Leads to the code's meaning."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for a person, about this occurrence."},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "A stable word for a machine."},
                "message": {"type": "string", "description": "The same as `detail`."},
            },
        },
    },
}

# Bodies of refusals that are kept, since most come again. A sentence with a stranger's word pushes an old one out.
MAX_KEPT = 500
# A longer sentence holds more than ours, so its body is not kept.
MAX_KEPT_SENTENCE = 300

_OF_PROBLEM = CIMultiDictProxy(CIMultiDict({hdrs.CONTENT_TYPE: MEDIA_TYPE}))
_OF_UNAUTHORIZED = CIMultiDictProxy(CIMultiDict({**_OF_PROBLEM, hdrs.WWW_AUTHENTICATE: "Bearer"}))

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
    """Return the problem of a code. A code that the table lacks is a mistake of ours and becomes a 500."""
    kind = PROBLEMS.get(code)
    if kind is None:
        _log.error("code without a type", code=code)
        kind, code = PROBLEMS["internal_error"], "internal_error"
    return Problem(code, kind.status, kind.title, detail, extra or {})


def problem_details(problem: Problem) -> bytes:
    """Return the strict form of `/v1`. Equal problems give equal bytes, so that a frozen refusal can be repeated."""
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


def refused(refusal: Refusal, write: Callable[[Problem], bytes] = problem_details) -> web.Response:
    """Answer an expected refusal, with the body that `write` makes of it."""
    if refusal.extra or refusal.code not in PROBLEMS or len(refusal.detail) > MAX_KEPT_SENTENCE:
        response = problem_response(problem_of(refusal.code, refusal.detail, refusal.extra), write)
    else:
        response = _answer(*_kept_problem(refusal.code, refusal.detail, write))
    if refusal.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = seconds_to_wait(refusal.retry_after)
    if refusal.replayed:
        response.headers[REPLAYED] = "true"
    return response


def seconds_to_wait(seconds: float) -> str:
    """Return the value of Retry-After: whole seconds, one at least."""
    return str(max(1, math.ceil(seconds)))


def problem_response(problem: Problem, write: Callable[[Problem], bytes] = problem_details) -> web.Response:
    """Answer with a problem."""
    return _answer(problem.status, write(problem))


@functools.lru_cache(MAX_KEPT)
def _kept_problem(code: str, detail: str, write: Callable[[Problem], bytes]) -> tuple[int, bytes]:
    """Return the status and the body of a refusal that has nothing but its code and its sentence."""
    problem = problem_of(code, detail)
    return problem.status, write(problem)


def _answer(status: int, body: bytes) -> web.Response:
    headers = _OF_UNAUTHORIZED if status == web.HTTPUnauthorized.status_code else _OF_PROBLEM
    return web.Response(status=status, body=body, headers=headers)


def from_http_exception(error: web.HTTPException, path: str, method: str) -> web.Response:
    """Answer the framework's own refusals (no such route, wrong method) in our form. Redirects pass as they are."""
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


def contract_http_exception(error: web.HTTPException, _path: str, _method: str) -> web.Response:
    """Answer the framework's own refusals on a contract's port, in the one form that the contracts have for them."""
    if error.status < web.HTTPBadRequest.status_code:
        return web.Response(status=error.status, headers=error.headers)
    response = json_answer(error.status, msgspec.json.encode({"detail": error.reason}))
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers[hdrs.ALLOW] = ", ".join(sorted(error.allowed_methods))
    return response


def internal_error(request_id: str) -> web.Response:
    """Answer an unknown error without a word about it. The request id leads to its log line."""
    return problem_response(
        problem_of(
            "internal_error",
            "Something went wrong on our side. Name the request id when you ask about it.",
            {"request_id": request_id},
        )
    )
