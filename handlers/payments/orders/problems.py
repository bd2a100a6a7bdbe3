"""Refusals of the orders' surface: status and sentence of the contract for each code, in one table.

The body is problem details (RFC 9457) with what both old parts answered: `detail`, the sentence of the old core or its
list of faults, and `error`, the word of the old edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import hdrs, web

from handlers.http.problems import PROBLEMS, ProblemType, seconds_to_wait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.errors import Refusal

JSON_TYPE: Final = "application/json"

# The titles are the contract's sentences.
ORDER_PROBLEMS: Final[Mapping[str, ProblemType]] = {
    "alias_not_found": ProblemType(400, "Provider not found"),
    "subscription_not_active": ProblemType(400, "Active subscription not found"),
    "quota_exceeded": ProblemType(400, "Active subscription not found"),
    "event_used": ProblemType(400, "event_id already used for another order"),
    "unauthorized": ProblemType(401, "Send an API key as X-API-Key"),
    "merchant_key_invalid": ProblemType(401, "Invalid API key"),
    "webhook_not_genuine": ProblemType(403, "Invalid signature"),
    "order_not_found": ProblemType(404, "Payment not found"),
    "validation_failed": ProblemType(422, "The request is not valid"),
    "provider_declined": ProblemType(502, "Provider URL generation failed"),
    "provider_unreachable": ProblemType(502, "Provider unreachable"),
    "no_provider": ProblemType(502, "Provider unreachable"),
}
# The edge's own words; other codes are words themselves.
_AWAY: Final = "payments_unavailable"
EDGE_WORDS: Final[Mapping[str, str]] = {
    "merchant_key_invalid": "invalid api key",
    "webhook_not_genuine": "invalid_signature",
    "internal_error": "gateway_error",
    "database_unavailable": _AWAY,
    "busy": _AWAY,
    "overloaded": _AWAY,
    "session_not_set": _AWAY,
    "shutting_down": _AWAY,
}
PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {**PROBLEMS, **ORDER_PROBLEMS}

# Members of a refusal beside its sentence: the list of faults, and the field that is at fault.
_TOLD: Final = ("errors", "field")

# The old shop takes 400, 401 and 502 of the create route for failures, and everything else for a payment.
_FAILURES: Final = frozenset({400, 401, 502})
_PASSING: Final = frozenset({408, 429})


def _failing(status: int) -> int:
    if status in _FAILURES:
        return status
    return 502 if status >= 500 or status in _PASSING else 400


CREATE_TYPES: Final[Mapping[str, ProblemType]] = {
    code: kind._replace(status=_failing(kind.status)) for code, kind in PROBLEM_TYPES.items()
}
CREATE_WORDS: Final = {
    code: "payments_unreachable" if word == _AWAY else word for code, word in EDGE_WORDS.items()
}


def refused(refusal: Refusal, types: Mapping[str, ProblemType], words: Mapping[str, str]) -> web.Response:
    """Answer an expected refusal."""
    code = refusal.code if refusal.code in types else "internal_error"
    kind, extra = types[code], dict(refusal.extra)
    sentence = refusal.detail
    if code in ORDER_PROBLEMS:
        # A shop does not learn how payments are routed.
        sentence, extra = kind.title, {name: extra[name] for name in _TOLD if name in extra}
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": extra.pop("errors", sentence),
        "code": code,
        "error": words.get(code, code),
        **extra,
    }
    headers = {hdrs.CONTENT_TYPE: JSON_TYPE}
    if refusal.retry_after is not None:
        headers[hdrs.RETRY_AFTER] = seconds_to_wait(refusal.retry_after)
    return web.Response(status=kind.status, body=msgspec.json.encode(body), headers=headers)


# The JSON Schema of a refusal.
PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
            "description": "A sentence; with `validation_failed` a list of faults, each with its place.",
        },
        "code": {"type": "string", "description": "A stable word."},
        "error": {"type": "string", "description": "The word of the old edge, such as `invalid api key`."},
    },
}
