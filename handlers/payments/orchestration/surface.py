"""The aiohttp handlers of the routes: the contract's order of checks, its refusals, and its dialect on its own port.

On every route the request id is asked for first, then the key, then its access. On the contract's own port that holds
for unknown paths and methods, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from aiohttp import hdrs, web

from core.access.rates import RateLimited
from core.errors import Refusal, Unavailable
from core.payments.orchestration.desk import Viewer
from core.payments.orchestration.shown import contract_json
from handlers.http.decoding import body_at_hand, path_text, read_body
from handlers.http.dispatch import API_KEY
from handlers.http.middleware import EXCHANGE, X_REQUEST_ID
from handlers.http.problems import ProblemType, seconds_to_wait
from handlers.http.route import Call, Route, json_answer
from handlers.http.surface import Handler, Json, Surface
from handlers.payments.orchestration.front_door import UNSHOWN, enter

if TYPE_CHECKING:
    from handlers.http.parts import Parts

_log = structlog.get_logger(__name__)

VIEWER: web.RequestKey[Viewer] = web.RequestKey("viewer", Viewer)
MISSING: web.RequestKey[Refusal] = web.RequestKey("missing", Refusal)

# An id of a request that is longer, has control characters or is not UTF-8 is answered by one of ours.
_ECHOED: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,1024}")

# The status of each code. The text of a refusal is the contract's, and the code is for logs and for gRPC.
PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {
    "request_id_required": ProblemType(400, "X-Request-ID is required"),
    "invalid_request": ProblemType(400, "The request is not valid"),
    "payment_paid": ProblemType(400, "The payment is paid"),
    "callback_rejected": ProblemType(400, "The event was rejected"),
    "unsupported_media_type": ProblemType(400, "The media type is not supported"),
    "api_key_required": ProblemType(401, "X-API-Key is required"),
    "unauthorized": ProblemType(401, "The key is not valid"),
    "forbidden": ProblemType(403, "The key may not call this service"),
    "payment_not_found": ProblemType(404, "There is no such payment"),
    "request_timeout": ProblemType(408, "The body came too slowly"),
    "payment_exists": ProblemType(409, "The key is taken"),
    "payload_too_large": ProblemType(413, "The body is too large"),
    "rate_limited": ProblemType(429, "Too many requests"),
    "payment_failed": ProblemType(500, "No provider has taken the order"),
    "internal_error": ProblemType(500, "Internal error"),
    "auth_service_away": ProblemType(503, "The auth service cannot be reached"),
    "busy": ProblemType(503, "Busy"),
    "database_unavailable": ProblemType(503, "The database cannot be reached"),
    "not_migrated": ProblemType(503, "The database is not migrated"),
    "overloaded": ProblemType(503, "Overloaded"),
    "session_not_set": ProblemType(503, "The database's login is not set up for its pooler"),
    "shutting_down": ProblemType(503, "Shutting down"),
}
LATER: Final = ("database_unavailable", "busy", "overloaded", "shutting_down", "auth_service_away")

_PROBLEM_SCHEMA: Final[Json] = {
    "type": "object",
    "description": "A refusal.",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "The reason, in the contract's words."}},
}

_REQUEST_ID: Final[Json] = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "The caller's id of the request, which the answer repeats.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
    "example": "req-1001",
}


def refused(refusal: Refusal) -> web.Response:
    """Answer a refusal with the contract's body."""
    kind = PROBLEM_TYPES.get(refusal.code)
    if kind is None:
        _log.error("code without a type", code=refusal.code)
        return broken()
    text = "invalid request body" if refusal.code == "unsupported_media_type" else refusal.detail
    response = json_answer(kind.status, contract_json({"error": text}))
    if refusal.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = seconds_to_wait(refusal.retry_after)
    return response


def broken() -> web.Response:
    """Answer an unknown error without a word about it."""
    return json_answer(500, contract_json({"message": "Internal Server Error"}))


def contract_refusal(error: web.HTTPException, _path: str, _method: str) -> web.Response:
    """Answer the framework's own refusals on the contract's port."""
    response = json_answer(error.status, contract_json({"message": error.reason}))
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers[hdrs.ALLOW] = allow_of(error.allowed_methods)
    return response


def allow_of(methods: Iterable[str]) -> str:
    """Return the methods of a path as the contract tells them."""
    return ", ".join(["OPTIONS", *sorted(set(methods) - {"HEAD"})])


async def gate(request: web.Request, parts: Parts) -> web.Response | None:
    """Return the refusal of a request for a path or method that is none, before that is told; None lets it go on."""
    try:
        if parts.missing is not None:
            raise Unavailable("The service waits for its database.")
        await _count(request, parts)
        await _enter(request, parts)
    except Refusal as refusal:
        return refused(refusal)
    return None


@dataclass(frozen=True, eq=False)
class OrchestrationSurface(Surface):
    """Routes for internal services. An `exact` one stands on the contract's own port, where HEAD is no GET."""

    _: KW_ONLY
    exact: bool = False

    problem_types: ClassVar[Mapping[str, ProblemType]] = PROBLEM_TYPES
    schemas: ClassVar[Mapping[str, Json]] = {"OrchestrationProblem": _PROBLEM_SCHEMA}

    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`."""
        handle, limit = route.handler, parts.body_limit(route, self.body_limit)
        of_path = {other.method for other in self.routes if other.path == route.path}

        async def dispatch(request: web.Request) -> web.StreamResponse:
            try:
                await _count(request, parts)
                try:
                    request[VIEWER] = await _enter(request, parts)
                except Refusal as refusal:
                    # The provider itself has no key; the handler looks at its signature.
                    if not route.raw or refusal.code not in UNSHOWN:
                        raise
                    request[MISSING] = refusal
                if self.exact and request.method == hdrs.METH_HEAD:
                    raise web.HTTPMethodNotAllowed(request.method, of_path)
                if (raw := body_at_hand(request, limit)) is None:
                    raw = await read_body(request, limit)
                path = {name: path_text(request, name) for name in route.path_names}
                exchange = request[EXCHANGE]
                address = parts.address_of(request)
                call = Call(
                    request, parts, None, address, path, request.query, None, raw, None, exchange.request_id
                )
                return await handle(call)
            except RateLimited as limited:
                request[EXCHANGE].rate_headers = limited.headers
                return refused(limited)
            except Refusal as refusal:
                return refused(refusal)
            except (web.HTTPException, ConnectionError):
                raise
            except Exception:  # noqa: BLE001 - a mistake of ours; the contract has a body of its own for it
                _log.exception("request failed")
                return broken()

        return dispatch

    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer with the contract's sentence."""
        return refused(refusal)

    def codes(self, route: Route) -> Iterator[str]:
        """Return the codes of request id, key, access and body."""
        yield from ("request_id_required", "api_key_required", "unauthorized", "forbidden", *LATER)
        yield "invalid_request"
        if route.method != hdrs.METH_GET:
            yield from ("unsupported_media_type", "payload_too_large", "request_timeout")

    def parameters(self, route: Route) -> list[Json]:
        """Return the request id, which the provider's own events do without."""
        return [{**_REQUEST_ID, "required": not route.raw}]

    def refusals(self, codes: Sequence[str]) -> Json:  # noqa: ARG002 - all have one form
        """Return the contract's form of a refusal."""
        return {"application/json": {"schema": {"$ref": "#/components/schemas/OrchestrationProblem"}}}

    def security(self, route: Route) -> list[Json]:
        """Return the key of an internal service, or for the provider's events nothing, which a signature stands for."""
        return [{"internal_key": []}, *([{}] if route.raw else [])]


async def _count(request: web.Request, parts: Parts) -> None:
    """Count a request against its address, before anybody is asked whose its key is."""
    admission = await parts.guard.admit(principal=None, address=parts.address_of(request))
    admission.release()
    request[EXCHANGE].rate_headers = admission.headers


async def _enter(request: web.Request, parts: Parts) -> Viewer:
    headers, exchange = request.headers, request[EXCHANGE]
    given = headers.get(X_REQUEST_ID, "").strip()
    if _ECHOED.fullmatch(given):
        # The contract repeats the id as it came, and none where none came.
        exchange.request_id = given
    return await enter(parts, given, headers.get(API_KEY), "header")


def viewer_of(call: Call) -> Viewer:
    """Return the service that calls."""
    viewer: Any = call.request[VIEWER]
    return viewer  # type: ignore[no-any-return]
