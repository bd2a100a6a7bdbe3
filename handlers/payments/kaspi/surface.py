"""The handlers of Kaspi routes: who may call, how much, and pydantic's leniency, in which the contract is written.

Callers from TRUSTED_NETWORKS need nothing on the contract's own port, as nobody did before; administration is open to
them in development alone. Everybody else sends an API key, or the admin token for administration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import hdrs, web

from core.errors import Refusal
from handlers.http.decoding import BEARER, authorization_of, body_at_hand, path_text, read_body
from handlers.http.dispatch import API_KEY, refusing
from handlers.http.middleware import EXCHANGE
from handlers.http.problems import MEDIA_TYPE, ProblemType
from handlers.http.route import MAX_PATH_VALUE, Call, Route
from handlers.http.surface import Handler, Json, Surface
from handlers.http.validation import invalid, pairs, refuse_nul, validator_of
from handlers.payments.kaspi.bodies import read_json
from handlers.payments.kaspi.problems import PROBLEM_SCHEMA, PROBLEM_TYPES, refused

if TYPE_CHECKING:
    from core.access.api_keys import Principal
    from handlers.http.parts import Parts

_EVERYWHERE: Final = ("database_unavailable", "busy", "overloaded", "shutting_down", "rate_limited")


@dataclass(frozen=True, eq=False)
class KaspiSurface(Surface):
    """Routes of the Kaspi contract. The `own_port` is the contract's, where trusted networks need no key."""

    own_port: bool = field(default=False, kw_only=True)

    problem_types: ClassVar[Mapping[str, ProblemType]] = PROBLEM_TYPES
    schemas: ClassVar[Mapping[str, Json]] = {"KaspiProblem": PROBLEM_SCHEMA}
    # A body has a few fields, of which the message to the payer is the longest.
    body_limit: ClassVar[int] = 64 * 1024
    pydantic: ClassVar[bool] = True

    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`."""
        return refusing(route.handler, _checker(route, parts, own_port=self.own_port), self.refuse)

    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer with the contract's sentence in `detail`."""
        return refused(refusal, bare=self.own_port)

    def codes(self, route: Route) -> Iterator[str]:
        """Return the codes of keys, bodies and fields, as far as `route` has them."""
        if not route.limited:
            return
        yield from _EVERYWHERE
        if route.admin or route.scope:
            yield "unauthorized"
        if route.scope:
            yield "forbidden"
        yield from ("payload_too_large", "request_timeout", "invalid_request")
        if route.body is not None or route.query is not None or route.path_names:
            yield "validation_failed"

    def refusals(self, codes: Sequence[str]) -> Json:  # noqa: ARG002 - all have one form
        """Return the form of a refusal."""
        return {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/KaspiProblem"}}}

    def security(self, route: Route) -> list[Json]:
        """Return the credentials of the route's caller."""
        if route.admin:
            return [{"admin_token": []}, {"admin_bearer": []}]
        return [{"bearer": []}, {"api_key": []}] if route.scope else []


def trusting(route: Route, parts: Parts, *, own_port: bool) -> bool:
    """Whether a trusted network needs no key for `route`: on the contract's port, and in production for no admin's."""
    return own_port and not (route.admin and parts.settings.env == "prod")


def _checker(route: Route, parts: Parts, *, own_port: bool) -> Callable[[web.Request], Awaitable[Call]]:
    """Return a function that makes a Call of a request, or refuses it."""
    limit = parts.body_limit(route, KaspiSurface.body_limit)
    open_to_trusted = trusting(route, parts, own_port=own_port)
    body = None if route.body is None else validator_of(route.body, "body")
    query = None if route.query is None else validator_of(route.query, "query")
    paths = {name: validator_of(route.parameters.get(name, str), "path", name) for name in route.path_names}

    async def checked(request: web.Request) -> Call:
        exchange = request[EXCHANGE]
        address = parts.address_of(request)
        principal = None
        if route.limited:
            trusted = open_to_trusted and parts.trusts(request)
            principal = await _admitted(route, parts, request, address, trusted=trusted)
        if (raw := body_at_hand(request, limit)) is None:
            raw = await read_body(request, limit)
        # All faults are told at once, in the order of the contract's framework: path, query, body.
        errors: list[Mapping[str, Any]] = []
        path = {
            name: kind.read(path_text(request, name)[: MAX_PATH_VALUE + 1], errors)
            for name, kind in paths.items()
        }
        refuse_nul(path, "path")
        asked = None if query is None else query.read(pairs(request), errors)
        value = None
        if body is not None:
            parsed = read_json(raw, request.headers.get(hdrs.CONTENT_TYPE))
            refuse_nul(parsed, "body")
            value = body.read(parsed, errors)
        if errors:
            raise invalid(errors)
        return Call(request, parts, principal, address, path, asked, value, raw, None, exchange.request_id)

    return checked


async def _admitted(
    route: Route, parts: Parts, request: web.Request, address: str, *, trusted: bool
) -> Principal | None:
    """Count the request against its rate limits, and return the principal of its key if it needs one."""
    exchange = request[EXCHANGE]
    principal = None
    token = _token(request)
    if not route.admin and route.scope is not None and not trusted:
        principal = parts.api_keys.peek(token)
    admission = await parts.guard.admit(principal=principal, address=address)
    exchange.rate_headers = admission.headers
    admission.release()
    if trusted:
        return None
    if route.admin:
        parts.administrators.check(request)
    elif route.scope is not None:
        principal = principal or await parts.api_keys.authenticate(token)
        if route.scope not in principal.scopes:
            raise Refusal("forbidden", f"This API key lacks the scope {route.scope}.", scope=route.scope)
    return principal


def _token(request: web.Request) -> str | None:
    scheme, token = authorization_of(request.headers) or ("", None)
    return token if scheme == BEARER else request.headers.get(API_KEY)
