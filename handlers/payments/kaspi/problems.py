"""Refusals of the Kaspi surface: the contract's sentences in `detail`, where its clients look for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import hdrs, web

from handlers.http.problems import MEDIA_TYPE, PROBLEMS, REPLAYED, ProblemType, seconds_to_wait
from handlers.http.route import json_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.errors import Refusal

# Refusals that the contract has. On its own port their body is `{"detail": ...}` alone, as clients know it.
_CONTRACT: Final[Mapping[str, ProblemType]] = {
    "validation_failed": ProblemType(422, "The request does not fit"),
    "kaspi_shop_unknown": ProblemType(404, "The shop has no config"),
    "kaspi_shop_inactive": ProblemType(403, "The shop's config is inactive"),
    "kaspi_no_device": ProblemType(400, "The shop has no device token"),
    "kaspi_config_missing": ProblemType(404, "There is no such config"),
    "kaspi_config_inactive": ProblemType(403, "The config is inactive"),
    "kaspi_config_exists": ProblemType(400, "The shop has a config"),
    "kaspi_migration_failed": ProblemType(500, "The schema is not up to date"),
    # The bank has said no. The contract has 500 for it, and 400 for a refund that has not enough to give back.
    "kaspi_refused": ProblemType(500, "The bank has refused"),
    "kaspi_not_refundable": ProblemType(400, "There is not so much to give back"),
    "kaspi_payment_not_found": ProblemType(404, "There is no such payment of this shop"),
    # The contract had 500 here, too, from which nobody could tell a refusal from an outage.
    "kaspi_away": ProblemType(503, "The bank was not reached, or its answer did not come"),
}
KASPI_PROBLEMS: Final[Mapping[str, ProblemType]] = {
    **_CONTRACT,
    "kaspi_unreadable": ProblemType(502, "The bank's answer cannot be read"),
    "no_provider": ProblemType(503, "No provider takes the payment"),
}
PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {**PROBLEMS, **KASPI_PROBLEMS}

# The JSON Schema of a refusal.
PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Problem details (RFC 9457), of which the contract's own port has `detail` alone.",
    "required": ["detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Leads to the code's meaning."},
        "title": {"type": "string", "description": "The same for every occurrence."},
        "status": {"type": "integer", "format": "int64", "description": "The status of the answer."},
        "detail": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
            "description": "A sentence; with `validation_failed` a list of faults, each with its place.",
        },
        "code": {"type": "string", "description": "A stable word for a machine."},
    },
}


def refused(refusal: Refusal, *, bare: bool) -> web.Response:
    """Answer a refusal; the contract's own ones with `detail` alone where the answer is `bare`."""
    code = refusal.code if refusal.code in PROBLEM_TYPES else "internal_error"
    kind = PROBLEM_TYPES[code]
    extra = {name: value for name, value in refusal.extra.items() if name not in {"errors", "rules"}}
    detail = refusal.extra["errors"] if code == "validation_failed" else refusal.detail
    if bare and code in _CONTRACT:
        response = json_answer(kind.status, msgspec.json.encode({"detail": detail}))
    else:
        body = {
            "type": f"/problems/{code}",
            "title": kind.title,
            "status": kind.status,
            "detail": detail,
            "code": code,
        }
        response = json_answer(kind.status, msgspec.json.encode({**extra, **body}))
        response.headers[hdrs.CONTENT_TYPE] = MEDIA_TYPE
    if kind.status == web.HTTPUnauthorized.status_code:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if refusal.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = seconds_to_wait(refusal.retry_after)
    if refusal.replayed:
        response.headers[REPLAYED] = "true"
    return response
