"""The handlers of API routes, made once when the application is built, so that a request meets no reflection.

The order of the checks is fixed: the key, its scope, the body; then, in one Redis round trip, the rate limits and the
idempotency key; then the handler. A request that is refused before the round trip makes one for its address alone, so
that guessing keys and sending rubbish is limited, too.

A handler is not cancelled when its client hangs up (`handlers.app` holds aiohttp to that), and a posting runs in the
lane's own task: a commit in progress ends, and the retry gets the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from aiohttp import hdrs, web
from multidict import CIMultiDictProxy, istr

from core.access.keys import kept_spellings, plain_key
from core.access.marks import StoredAnswer, request_fingerprint
from core.access.rates import RateLimited
from core.errors import Refusal
from handlers.http import problems
from handlers.http.accepting import wants_text_numbers, with_text_numbers
from handlers.http.decoding import (
    BEARER,
    authorization_of,
    body_at_hand,
    body_decoder,
    check_json_headers,
    explained,
    path_text,
    query_decoder,
    read_body,
    text_reader,
)
from handlers.http.middleware import EXCHANGE, Exchange
from handlers.http.problems import (
    MEDIA_TYPE,
    PROBLEM_SCHEMA,
    PROBLEMS,
    Problem,
    ProblemType,
    problem_details,
    problem_of,
)
from handlers.http.route import MAX_PATH_VALUE, Call, Route
from handlers.http.surface import Handler, Json, Surface

if TYPE_CHECKING:
    from core.access.api_keys import Principal
    from core.access.guard import Admission, Guard
    from handlers.http.parts import Parts

IDEMPOTENCY_KEY = istr("Idempotency-Key")
API_KEY = istr("X-API-Key")

_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
_NO_PATH: Mapping[str, Any] = {}


class _NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an operation that takes none."""


@dataclass(frozen=True, eq=False)
class ApiSurface(Surface):
    """Routes for callers with API keys or the admin token: JSON in, JSON or a problem out.

    A `strict` surface refuses unknown query parameters, and a body where none is read. A contract's ignores both.
    `write` makes the body of a refusal.
    """

    strict: bool = field(default=True, kw_only=True)
    write: Callable[[Problem], bytes] = field(default=problem_details, kw_only=True)

    problem_types: ClassVar[Mapping[str, ProblemType]] = PROBLEMS
    schemas: ClassVar[Mapping[str, Json]] = {"Problem": PROBLEM_SCHEMA}

    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`."""
        dispatch = _dispatcher(self, route, parts)
        if not self.strict:
            return dispatch

        async def with_texts(request: web.Request) -> web.StreamResponse:
            return with_text_numbers(await dispatch(request))

        def in_the_wanted_form(request: web.Request) -> Awaitable[web.StreamResponse]:
            accept = request.headers.get(hdrs.ACCEPT)
            # A parse of the header would cost each request a few microseconds, and so would a coroutine around all.
            wants_texts = accept is not None and "numbers" in accept and wants_text_numbers(accept)
            return with_texts(request) if wants_texts else dispatch(request)

        return in_the_wanted_form

    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer with a problem."""
        return problems.refused(refusal, self.write)

    def codes(self, route: Route) -> Iterator[str]:
        """Return the codes of keys, tokens, bodies and idempotency, as far as `route` has them."""
        if route.scope is not None:
            yield "forbidden"
        if route.admin or route.scope is not None:
            yield from ("unauthorized", "database_unavailable", "busy", "overloaded", "shutting_down")
        if route.path_names or (self.strict and not route.raw) or route.body is not None:
            yield "invalid_request"
        if route.body is not None:
            yield from ("malformed_json", "duplicate_json_key")
        if route.body is not None or (route.raw and route.method != hdrs.METH_GET) or self.strict:
            yield from ("unsupported_media_type", "payload_too_large", "request_timeout")
        if route.conditional:
            yield from ("precondition_failed", "invalid_request")
        if route.idempotent:
            yield from ("idempotency_key_required", "idempotency_key_invalid", "idempotency_conflict")

    def refusals(self, codes: Sequence[str]) -> Json:
        """Return problem details with an example for each of `codes`."""
        examples = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
        return {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}}

    def example(self, code: str) -> Json | None:
        """Return a problem with the code's title for its detail."""
        title = PROBLEMS[code].title
        value = msgspec.json.decode(problem_details(problem_of(code, f"{title}.")))
        return {"summary": title, "value": value}

    def security(self, route: Route) -> list[Json]:
        """Return what `route` asks for: the admin token, a key, either, or nothing."""
        return [
            *([{"admin_token": []}, {"admin_bearer": []}] if route.admin else ()),
            *([{"bearer": []}, {"api_key": []}] if route.scope else ()),
        ]


def _dispatcher(surface: ApiSurface, route: Route, parts: Parts) -> Handler:
    scope, admin = route.scope, route.admin
    limited = route.limited
    handle = _keyed(route.handler) if route.idempotent else route.handler
    limit = parts.body_limit(route, surface.body_limit)
    checked = _checker(surface, route, parts)
    administrators = parts.administrators

    async def dispatch(request: web.Request) -> web.StreamResponse:
        exchange = request[EXCHANGE]
        address = parts.address_of(request)
        principal: Principal | None = None
        try:
            if admin and (scope is None or administrators.includes(request)):
                _check_administrator(route, parts, request)
            elif scope is not None:
                token = _token(request.headers)
                principal = parts.api_keys.peek(token) or await _look_up(parts, exchange, token, address)
                _check_scope(principal, scope)
            if (raw := body_at_hand(request, limit)) is None:
                raw = await read_body(request, limit)
            call = checked(request, principal, address, raw, exchange.request_id)
            if not limited:
                return await handle(call)
            admission = await _admit(route, parts.guard, call)
        except Refusal as refusal:
            if limited:
                refusal = await _counted(parts.guard, exchange, address, refusal)
            return surface.refuse(refusal)
        exchange.rate_headers = admission.headers
        if admission.replay is not None:
            return _replayed(admission.replay)
        try:
            response = await handle(call)
        except Refusal as refusal:
            response = surface.refuse(refusal)
        except BaseException:
            admission.release()
            raise
        if call.frozen and isinstance(response, web.Response):
            admission.finish(_stored(response))
        else:
            admission.release()
        return response

    return dispatch


def refusing(
    handle: Callable[[Call], Awaitable[web.StreamResponse]],
    checked: Callable[[web.Request], Awaitable[Call]],
    refuse: Callable[[Refusal], web.Response],
) -> Handler:
    """Return the aiohttp handler of a contract's route: `checked` makes the call, and `refuse` answers refusals."""

    async def dispatch(request: web.Request) -> web.StreamResponse:
        try:
            return await handle(await checked(request))
        except RateLimited as limited:
            request[EXCHANGE].rate_headers = limited.headers
            return refuse(limited)
        except Refusal as refusal:
            return refuse(refusal)

    return dispatch


def _check_administrator(route: Route, parts: Parts, request: web.Request) -> None:
    if not (route.trusting and parts.trusts(request)):
        parts.administrators.check(request)


def _check_scope(principal: Principal, scope: str) -> None:
    if scope not in principal.scopes:
        raise Refusal("forbidden", f"This API key lacks the scope {scope}.", scope=scope)


async def _look_up(parts: Parts, exchange: Exchange, token: str | None, address: str) -> Principal:
    """Return the principal of a key that is not in memory. The query costs, so the address is counted first."""
    admission = await parts.guard.admit(principal=None, address=address)
    exchange.rate_headers, exchange.counted = admission.headers, True
    admission.release()
    return await parts.api_keys.authenticate(token)


def _admit(route: Route, guard: Guard, call: Call) -> Awaitable[Admission]:
    cost = 1 if route.cost is None else route.cost(call.body)
    key = call.idempotency_key
    if key is None:
        return guard.admit(principal=call.principal, address=call.address, cost=cost)
    operation = f"{route.method} {call.request.raw_path}"
    if (
        call.spelled_key != key
    ):  # another spelling may stand for an older call, so their answers are not exchanged
        operation = f"{operation} {call.spelled_key}"
    fingerprint = request_fingerprint(operation, call.raw)
    return guard.admit(
        principal=call.principal, address=call.address, key=key, fingerprint=fingerprint, cost=cost
    )


def _keyed(handler: Callable[[Call], Awaitable[web.StreamResponse]]) -> Callable[[Call], Awaitable[Any]]:
    """Let a call be named by the spelling of its key, if something was stored under that before keys had one rule."""

    async def handle_spelled(call: Call, spelled: str) -> web.StreamResponse:
        if await kept_spellings(call.service.database, call.caller.id, [spelled]):
            call.idempotency_key = spelled
        return await handler(call)

    def handle(call: Call) -> Awaitable[web.StreamResponse]:
        spelled = call.spelled_key or ""
        return handler(call) if spelled == call.idempotency_key else handle_spelled(call, spelled)

    return handle


async def _counted(guard: Guard, exchange: Exchange, address: str, refusal: Refusal) -> Refusal:
    """Count a refused request against its address. Return its refusal, or that of the rate limit."""
    if not isinstance(refusal, RateLimited):
        if exchange.counted:
            return refusal
        try:
            admission = await guard.admit(principal=None, address=address)
        except RateLimited as limited:
            refusal = limited
        else:
            exchange.rate_headers = admission.headers
            admission.release()
            return refusal
    exchange.rate_headers = refusal.headers
    return refusal


def _checker(
    surface: ApiSurface, route: Route, parts: Parts
) -> Callable[[web.Request, Principal | None, str, bytes, str], Call]:
    """Return a function that makes a Call of a request that arrived in full, or refuses it."""
    read_path = _path_reader(route)
    read_query = None if route.raw or not surface.strict else _query_reader(route)
    decode = None if route.body is None else body_decoder(route.body).decode

    def checked(
        request: web.Request, principal: Principal | None, address: str, raw: bytes, request_id: str
    ) -> Call:
        path = read_path(request) if read_path is not None else _NO_PATH
        query = read_query(request) if read_query is not None else None
        body = None
        if decode is not None:
            if raw:
                check_json_headers(request.headers)
            body = decode(raw)
        elif raw and not route.raw and surface.strict:
            raise Refusal("invalid_request", "This operation takes no body.")
        spelled = _spelled_key(request.headers) if route.idempotent else None
        key = None if spelled is None else _idempotency_key(spelled)
        call = Call(request, parts, principal, address, path, query, body, raw, key, request_id)
        call.spelled_key = spelled
        return call

    return checked


def _path_reader(route: Route) -> Callable[[web.Request], Mapping[str, Any]] | None:
    names = route.path_names
    if not names:
        return None
    kinds = [(name, route.parameters.get(name)) for name in names]
    types = tuple((name, kind, None if kind is None else text_reader(kind)) for name, kind in kinds)

    def read(request: web.Request) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for name, kind, to_kind in types:
            value: Any = path_text(request, name)
            if len(value) > MAX_PATH_VALUE:
                raise Refusal(
                    "invalid_request", f"{name} in the path is longer than {MAX_PATH_VALUE} characters."
                )
            if to_kind is not None:
                try:
                    value = msgspec.convert(to_kind(value), kind)
                except msgspec.ValidationError as error:
                    raise explained(error, root=f"{name} in the path") from None
            found[name] = value
        return found

    return read


def _query_reader(route: Route) -> Callable[[web.Request], Any]:
    decode = query_decoder(route.query or _NoQuery).decode

    def read(request: web.Request) -> Any:
        return decode(tuple(request.query.items()) if "?" in request.raw_path else ())

    return read


def _token(headers: CIMultiDictProxy[str]) -> str | None:
    """Return the key that the caller presents: `Authorization: Bearer`, or else `X-API-Key`."""
    presented = authorization_of(headers)
    if presented is None:
        return headers.get(API_KEY)
    scheme, token = presented
    if scheme != BEARER:
        raise Refusal(
            "unauthorized", "Send the API key as `Authorization: Bearer tsk_...`, not by another scheme."
        )
    return token


def _spelled_key(headers: CIMultiDictProxy[str]) -> str:
    keys = headers.getall(IDEMPOTENCY_KEY, ())
    if not keys:
        raise Refusal(
            "idempotency_key_required",
            "Send an Idempotency-Key header, new for each new request and the same when you repeat one.",
        )
    if len(keys) > 1:
        raise _invalid_key()
    return keys[0]


def _idempotency_key(spelled: str) -> str:
    key = plain_key(spelled)
    if _PRINTABLE.fullmatch(spelled) is None or not key:
        raise _invalid_key()
    return key


def _invalid_key() -> Refusal:
    return Refusal(
        "idempotency_key_invalid", "Send one Idempotency-Key of 1 to 255 printable ASCII characters."
    )


def _stored(response: web.Response) -> StoredAnswer:
    body = response.body
    return StoredAnswer(
        response.status, response.headers[hdrs.CONTENT_TYPE], body if isinstance(body, bytes) else b""
    )


def _replayed(answer: StoredAnswer) -> web.Response:
    headers = {hdrs.CONTENT_TYPE: answer.content_type, problems.REPLAYED: "true"}
    return web.Response(status=answer.status, body=answer.body, headers=headers)
