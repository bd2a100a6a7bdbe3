"""From a route to an aiohttp handler, made once when the application is built, so that a request meets no reflection.

The order of the checks is fixed: who calls, may they, what do they send; then, in one Redis round trip, whether they
come too often and whether this is a request that was answered before; then the handler. A request that is refused
before the round trip makes one for its address alone, so that guessing keys and sending rubbish is limited, too.

A handler is not cancelled when its client hangs up (`handlers.app` holds aiohttp to that), and what posts to the ledger
runs in the lane's own task: a commit in progress ends, and the retry gets the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import hdrs, web
from multidict import CIMultiDictProxy, istr

from core.access.addresses import UNKNOWN, Addresses
from core.access.marks import StoredAnswer, request_fingerprint
from core.access.rates import RateLimited
from core.errors import Refusal
from handlers.http import problems
from handlers.http.admin_token import Administrators
from handlers.http.decoding import (
    body_at_hand,
    body_decoder,
    check_json_headers,
    check_text,
    explained,
    query_decoder,
    read_body,
    text_reader,
)
from handlers.http.middleware import EXCHANGE, Exchange
from handlers.http.route import MIB, Call, Route
from handlers.pay_page.visit import page_dispatcher
from handlers.wallets.dispatch import wallet_dispatcher

if TYPE_CHECKING:
    from core.access.api_keys import ApiKeys, Principal
    from core.access.guard import Admission, Guard
    from core.service import Service
    from core.settings import Settings

IDEMPOTENCY_KEY = istr("Idempotency-Key")
API_KEY = istr("X-API-Key")
FORWARDED_FOR = istr("X-Forwarded-For")
# Long enough for a UUID with a prefix or a hash, short enough for an index.
MAX_PATH_VALUE = 255

# The surface that refuses what it does not know: query parameters, a body where none is read. Contracts ignore them.
STRICT = "v1"
# The surface with callers and leniency of its own.
WALLETS = "wallet"
# The payment page: forms in, HTML out.
PAGES = "page"

_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
_NO_PATH: Mapping[str, Any] = {}

WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an operation that takes none."""


class Desk:
    """What every request is checked with: filled when the application starts, since its parts need the running loop."""

    __slots__ = (
        "addresses",
        "administrators",
        "api_keys",
        "behind_proxies",
        "guard",
        "max_request_size",
        "service",
    )

    api_keys: ApiKeys
    guard: Guard
    service: Service

    def __init__(self, settings: Settings) -> None:
        self.max_request_size = settings.max_request_size
        self.addresses = Addresses(settings.trusted_proxies)
        self.administrators = Administrators(settings)
        self.behind_proxies = bool(settings.trusted_proxies)

    def address_of(self, request: web.Request) -> str:
        """Return the client's address."""
        if not self.behind_proxies:
            return request.remote or UNKNOWN
        return self.addresses.client(request.remote, request.headers.getall(FORWARDED_FOR, ()))


def dispatcher(route: Route, desk: Desk) -> WebHandler:
    """Return the aiohttp handler of `route`."""
    if route.surface == PAGES:
        return page_dispatcher(route, desk)
    return wallet_dispatcher(route, desk) if route.surface == WALLETS else _strict_dispatcher(route, desk)


def _strict_dispatcher(route: Route, desk: Desk) -> WebHandler:
    scope, admin = route.scope, route.admin
    limited = route.limited
    handle = route.handler
    limit = route.body_limit * desk.max_request_size // MIB
    checked = _checker(route, desk)

    async def dispatch(request: web.Request) -> web.StreamResponse:
        exchange = request[EXCHANGE]
        address = desk.address_of(request)
        principal: Principal | None = None
        try:
            if admin and (scope is None or desk.administrators.includes(request)):
                desk.administrators.check(request)
            elif scope is not None:
                token = _token(request.headers)
                principal = desk.api_keys.peek(token) or await _look_up(desk, exchange, token, address)
                _check_scope(principal, scope)
            raw = body_at_hand(request, limit)
            if raw is None:
                raw = await read_body(request, limit)
            call = checked(request, principal, address, raw, exchange.request_id)
            if not limited:
                return await handle(call)
            admission = await _admit(route, desk.guard, call)
        except Refusal as refusal:
            if limited:
                refusal = await _counted(desk.guard, exchange, address, refusal)
            return problems.refused(refusal, route.surface)
        exchange.rate_headers = admission.headers
        if admission.replay is not None:
            return _replayed(admission.replay)
        try:
            response = await handle(call)
        except Refusal as refusal:
            response = problems.refused(refusal, route.surface)
        except BaseException:
            admission.release()
            raise
        if call.frozen and isinstance(response, web.Response):
            admission.finish(_stored(response))
        else:
            admission.release()
        return response

    return dispatch


def _check_scope(principal: Principal, scope: str) -> None:
    if scope not in principal.scopes:
        raise Refusal("forbidden", f"This API key lacks the scope {scope}.", scope=scope)


async def _look_up(desk: Desk, exchange: Exchange, token: str | None, address: str) -> Principal:
    """Ask for a key that is not remembered: it costs a query, so its address pays first."""
    admission = await desk.guard.admit(principal=None, address=address)
    exchange.rate_headers, exchange.counted = admission.headers, True
    admission.release()
    return await desk.api_keys.authenticate(token)


def _admit(route: Route, guard: Guard, call: Call) -> Awaitable[Admission]:
    cost = 1 if route.cost is None else route.cost(call.body)
    key = call.idempotency_key
    if key is None:
        return guard.admit(principal=call.principal, address=call.address, cost=cost)
    fingerprint = request_fingerprint(f"{route.method} {call.request.raw_path}", call.raw)
    return guard.admit(
        principal=call.principal, address=call.address, key=key, fingerprint=fingerprint, cost=cost
    )


async def _counted(guard: Guard, exchange: Exchange, address: str, refusal: Refusal) -> Refusal:
    """Count a request that was refused at the door against its address, which may make another refusal of it."""
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


def _checker(route: Route, desk: Desk) -> Callable[[web.Request, Principal | None, str, bytes, str], Call]:
    """Return what makes a Call of a request that arrived in full, or refuses it."""
    read_path = _path_reader(route)
    read_query = _query_reader(route)
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
        elif raw and not route.raw and route.surface == STRICT:
            raise Refusal("invalid_request", "This operation takes no body.")
        key = _idempotency_key(request.headers) if route.idempotent else None
        return Call(request, desk.service, principal, address, path, query, body, raw, key, request_id)

    return checked


def _path_reader(route: Route) -> Callable[[web.Request], Mapping[str, Any]] | None:
    names = tuple(re.findall(r"\{(\w+)", route.path))
    if not names:
        return None
    kinds = [(name, route.parameters.get(name)) for name in names]
    types = tuple((name, kind, None if kind is None else text_reader(kind)) for name, kind in kinds)

    def read(request: web.Request) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for name, kind, to_kind in types:
            value: Any = request.match_info[name]
            if len(value) > MAX_PATH_VALUE:
                raise Refusal(
                    "invalid_request", f"{name} in the path is longer than {MAX_PATH_VALUE} characters."
                )
            check_text(value, f"{name} in the path")
            if to_kind is not None:
                try:
                    value = msgspec.convert(to_kind(value), kind)
                except msgspec.ValidationError as error:
                    raise explained(error, root=f"{name} in the path") from None
            found[name] = value
        return found

    return read


def _query_reader(route: Route) -> Callable[[web.Request], Any] | None:
    if route.raw or route.surface != STRICT:
        return None
    decode = query_decoder(route.query or _NoQuery).decode

    def read(request: web.Request) -> Any:
        return decode(tuple(request.query.items()) if "?" in request.raw_path else ())

    return read


def _token(headers: CIMultiDictProxy[str]) -> str | None:
    """Return what the caller presents as its key: `Authorization: Bearer`, or else `X-API-Key`."""
    authorization = headers.get(hdrs.AUTHORIZATION)
    if authorization is None:
        return headers.get(API_KEY)
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Refusal(
            "unauthorized", "Send the API key as `Authorization: Bearer tsk_...`; this is another scheme."
        )
    return token.strip()


def _idempotency_key(headers: CIMultiDictProxy[str]) -> str:
    keys = headers.getall(IDEMPOTENCY_KEY, ())
    if not keys:
        raise Refusal(
            "idempotency_key_required",
            "Send an Idempotency-Key header, new for each new request and the same when you repeat one.",
        )
    if len(keys) > 1 or _PRINTABLE.fullmatch(keys[0]) is None:
        raise Refusal(
            "idempotency_key_invalid", "The Idempotency-Key has 1 to 255 printable ASCII characters, once."
        )
    return keys[0]


def _stored(response: web.Response) -> StoredAnswer:
    body = response.body
    return StoredAnswer(
        response.status, response.headers[hdrs.CONTENT_TYPE], body if isinstance(body, bytes) else b""
    )


def _replayed(answer: StoredAnswer) -> web.Response:
    headers = {hdrs.CONTENT_TYPE: answer.content_type, problems.REPLAYED: "true"}
    return web.Response(status=answer.status, body=answer.body, headers=headers)
