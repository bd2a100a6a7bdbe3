"""The aiohttp handlers of orders' routes: who calls, the contract's leniency, and refusals that its clients know.

The order is: the address's rate limit, the caller, the body's JSON, the fields, the handler. A caller is a merchant by
its API key, as at the old edge; or, from TRUSTED_NETWORKS alone, the one that X-Merchant-Id names, as at the old core.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from aiohttp import hdrs, web
from multidict import istr

from core.errors import Refusal
from core.payments.orders.merchants import merchant_of_key
from core.payments.orders.orders import MOST_NUMBER
from core.rotation import uses
from handlers.http.decoding import body_at_hand, path_text, read_body
from handlers.http.dispatch import API_KEY, refusing
from handlers.http.middleware import EXCHANGE
from handlers.http.problems import ProblemType
from handlers.http.route import Call, Route
from handlers.http.surface import Handler, Json, Surface
from handlers.http.validation import invalid, missing, pairs, refuse_nul_in, validator_of
from handlers.payments.orders.bodies import OrderBody, OrderOfCaller, TrustedOrder, parse_exactly
from handlers.payments.orders.problems import (
    CREATE_TYPES,
    CREATE_WORDS,
    EDGE_WORDS,
    JSON_TYPE,
    PROBLEM_SCHEMA,
    PROBLEM_TYPES,
    refused,
)

if TYPE_CHECKING:
    from handlers.http.parts import Parts

_log = structlog.get_logger(__name__)

MERCHANT_ID: Final = istr("X-Merchant-Id")
SIGNATURE: Final = istr("X-Internal-Signature")
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_MERCHANT: Final = "order_merchant"
_SIGNED: Final = "order_provider"


@dataclass(frozen=True, eq=False)
class OrderSurface(Surface):
    """Routes of the orders' contract.

    On the contract's own port (`core`) callers from trusted networks meet the old core, which let them read any payment
    without saying who they are. Elsewhere everybody says it.
    """

    core: bool = field(default=False, kw_only=True)

    problem_types: ClassVar[Mapping[str, ProblemType]] = PROBLEM_TYPES
    words: ClassVar[Mapping[str, str]] = EDGE_WORDS
    schemas: ClassVar[Mapping[str, Json]] = {"OrderProblem": PROBLEM_SCHEMA}
    # The old edge's bound.
    body_limit: ClassVar[int] = 256 * 1024
    pydantic: ClassVar[bool] = True

    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`."""
        return refusing(route.handler, _checker(route, parts, core=self.core), self.refuse)

    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer with the contract's sentence, inside problem details."""
        return refused(refusal, self.problem_types, self.words)

    def codes(self, route: Route) -> Iterator[str]:
        """Return the codes of callers, bodies and fields, as far as `route` has them."""
        if route.caller == "anyone":
            return
        yield from ("database_unavailable", "busy", "overloaded", "shutting_down")
        yield from (
            ("unauthorized", "merchant_key_invalid")
            if route.caller == _MERCHANT
            else ("webhook_not_genuine",)
        )
        if route.body is not None:
            yield from ("payload_too_large", "request_timeout", "unsupported_media_type", "invalid_request")
        if route.body is not None or route.query is not None:
            yield "validation_failed"

    def refusals(self, codes: Sequence[str]) -> Json:  # noqa: ARG002 - all have one form
        """Return the form of a refusal."""
        return {JSON_TYPE: {"schema": {"$ref": "#/components/schemas/OrderProblem"}}}

    def security(self, route: Route) -> list[Json]:
        """Return the credentials of the route's caller."""
        if route.caller == _MERCHANT:
            return [{"api_key": []}, {"merchant_id": []}]
        return [{"order_signature": []}] if route.caller == _SIGNED else []


@dataclass(frozen=True, eq=False)
class CreateSurface(OrderSurface):
    """The create route, whose refusals are 400, 401 or 502, always as JSON: old shops take all else for a payment."""

    problem_types: ClassVar[Mapping[str, ProblemType]] = CREATE_TYPES
    words: ClassVar[Mapping[str, str]] = CREATE_WORDS

    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`, which answers even a mistake of ours so."""
        inner = super().handler(route, parts)

        async def dispatch(request: web.Request) -> web.StreamResponse:
            try:
                return await inner(request)
            except (ConnectionError, web.HTTPException):
                raise
            except Exception:  # noqa: BLE001 - a 500 would be taken for a payment
                _log.exception("request failed")
                return self.refuse(Refusal("internal_error", "Something went wrong on our side."))

        return dispatch


def _checker(route: Route, parts: Parts, *, core: bool) -> Callable[[web.Request], Awaitable[Call]]:
    """Return a function that makes a Call of a request, or refuses it."""
    limit = parts.body_limit(route, OrderSurface.body_limit)
    query = None if route.query is None else validator_of(route.query, "query")
    # Routes that name a payment were open to everybody at the old core.
    anyone = core and bool(route.path_names)

    async def checked(request: web.Request) -> Call:
        exchange = request[EXCHANGE]
        address = parts.address_of(request)
        if route.limited:
            admission = await parts.guard.admit(principal=None, address=address)
            exchange.rate_headers = admission.headers
        merchant_id, by_key = None, False
        if route.caller == _MERCHANT:
            merchant_id, by_key = await _merchant(request, parts, core=core, anyone=anyone)
        raw, body = b"", None
        if route.body is not None:
            if (found := body_at_hand(request, limit)) is None:
                found = await read_body(request, limit)
            raw = found
            if route.caller == _SIGNED:
                _require_signed(parts.settings.internal_webhook_secret, request, raw)
            body = _body(route, raw, request.headers.get(hdrs.CONTENT_TYPE), by_key=by_key)
        asked = None
        if query is not None:
            errors: list[Mapping[str, Any]] = []
            asked = query.read(pairs(request), errors)
            if errors:
                raise invalid(errors)
        path = {name: _number_in(path_text(request, name)) for name in route.path_names}
        call = Call(request, parts, None, address, path, asked, body, raw, None, exchange.request_id)
        call.merchant_id = merchant_id
        return call

    return checked


async def _merchant(
    request: web.Request, parts: Parts, *, core: bool, anyone: bool
) -> tuple[int | None, bool]:
    """Return the merchant who calls, and whether by a key. None: a trusted caller of a route for anyone."""
    if key := request.headers.get(API_KEY):
        return await merchant_of_key(parts.service.database, key), True
    if parts.trusts(request):
        named = request.headers.getall(MERCHANT_ID, ())
        if len(named) == 1:
            number = _number_in(named[0].strip())
            if number is None:
                raise invalid([_bad_merchant(named[0])])
            return number, False
        if core and not named:
            if anyone:
                return None, False
            raise invalid([missing("header", str(MERCHANT_ID))])
    raise Refusal("unauthorized", "Send an API key as X-API-Key.")


def _bad_merchant(given: str) -> dict[str, Any]:
    return {
        "type": "int_parsing",
        "loc": ["header", str(MERCHANT_ID)],
        "msg": "Input should be a valid integer, unable to parse string as an integer",
        # A byte that is no text would be none in the answer either.
        "input": given[:64].encode(errors="replace").decode(),
    }


def _number_in(text: str) -> int | None:
    """Return the number of a payment or a merchant that a text names, None for other texts."""
    if _NUMBER.fullmatch(text) is None or not 0 < int(text) <= MOST_NUMBER:
        return None
    return int(text)


def _require_signed(secrets: Sequence[str], request: web.Request, raw: bytes) -> None:
    """Raise Refusal `webhook_not_genuine` unless the body is signed: hex HMAC-SHA256. Without a secret nothing is."""
    try:
        given = bytes.fromhex(request.headers.get(SIGNATURE, ""))
    except ValueError:
        given = b""

    def signs(secret: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(secret, raw, "sha256"), given)

    if uses.matching(uses.INTERNAL_WEBHOOK, secrets, signs) is None:
        raise Refusal("webhook_not_genuine", "The signature is not valid.")


def _body(route: Route, raw: bytes, content_type: str | None, *, by_key: bool) -> Any:
    parsed = parse_exactly(raw, content_type)
    if b"\\u0000" in raw:
        refuse_nul_in(raw, parsed)
    kind = route.body
    if kind is OrderOfCaller:
        kind = OrderBody if by_key else TrustedOrder
    errors: list[Mapping[str, Any]] = []
    value = validator_of(kind, "body").read(parsed, errors)
    if errors:
        raise invalid(errors)
    return value
