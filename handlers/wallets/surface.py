"""The aiohttp handlers of wallet routes, with the contract's callers, leniency and order of checks.

The order is: rate limit, JSON, the user's token, the admin token, the fields, the handler. JSON comes before the token
because the contract says so; until the token has been checked a body costs its bounds and a parser in C, and no look at
its values. Signatures of internal services and of merchants' keys are checked in the handlers, since a signature covers
the parsed body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import hdrs, web

from core.access.rates import a_minute
from core.errors import Refusal
from core.identity.tokens import Claims, Tokens, counts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.payables.codes import bare, is_code
from core.payables.payables import ToPay
from core.wallets.users import User
from handlers.http.admin_token import ADMIN_TOKEN
from handlers.http.decoding import BEARER, authorization_of, body_at_hand, path_text, read_body
from handlers.http.dispatch import IDEMPOTENCY_KEY, refusing
from handlers.http.middleware import EXCHANGE
from handlers.http.problems import ProblemType
from handlers.http.route import MAX_PATH_VALUE, Call, Route
from handlers.http.surface import Handler, Json, Surface
from handlers.http.validation import invalid, pairs, parse_json, refuse_nul_in, validator_of
from handlers.wallets.contract import find_kept_keys
from handlers.wallets.problems import JSON_TYPE, PROBLEM_SCHEMA, PROBLEM_TYPES, refused

if TYPE_CHECKING:
    from core.access.guard import Admission
    from handlers.http.parts import Parts

_NO_PATH: Mapping[str, Any] = {}
# The contract's requests a minute from one address to the routes that sign in.
AUTH_PER_MINUTE: Final = 20
BEARER_CALLERS: Final = frozenset({"user", "user+admin"})
ADMIN_CALLERS: Final = frozenset({"admin", "user+admin"})
OTP_ROUTES: Final = frozenset({"request_otp", "verify_otp"})
# The two steps of a sign-in on the payment page.
PAGE_SIGN_IN: Final = frozenset({"pay_page_phone", "pay_page_code"})


# The document's alternative security schemes for each caller.
_SECURITY: Final[Mapping[str, list[Json]]] = {
    "anyone": [],
    "user": [{"user_token": []}],
    "user+admin": [{"user_token": [], "admin_token": []}],
    "admin": [{"admin_token": []}, {"admin_bearer": []}],
    "internal": [{"internal_signature": []}, {"internal_secret": []}],
    "merchant_key": [{"merchant_signature": []}],
}


@dataclass(frozen=True, eq=False)
class WalletSurface(Surface):
    """Routes of the wallet contract, with its callers, its leniency and its refusals."""

    problem_types: ClassVar[Mapping[str, ProblemType]] = PROBLEM_TYPES
    schemas: ClassVar[Mapping[str, Json]] = {"WalletProblem": PROBLEM_SCHEMA}
    # A body of the contract has a few fields, of which the terms of an escrow are the longest.
    body_limit: ClassVar[int] = 64 * 1024
    pydantic: ClassVar[bool] = True

    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`."""
        return refusing(route.handler, _checker(route, parts), refused)

    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer with the contract's sentence, inside problem details."""
        return refused(refusal)

    def codes(self, route: Route) -> Iterator[str]:
        """Return the codes of bodies, tokens and fields, as far as `route` has them."""
        yield from (
            "database_unavailable",
            "busy",
            "overloaded",
            "shutting_down",
            "invalid_request",
            "not_found",
        )
        yield from ("payload_too_large", "unsupported_media_type", "request_timeout")
        if route.caller in BEARER_CALLERS:
            yield from ("not_authenticated", "bad_credentials", "token_expired", "token_invalid")
            yield from ("token_issuer_invalid", "user_not_found_for_token")
        if route.caller in ADMIN_CALLERS:
            yield "admin_token_invalid"
        if route.body is not None or route.query is not None or route.path_names:
            yield "validation_failed"

    def refusals(self, codes: Sequence[str]) -> Json:  # noqa: ARG002 - all have one form
        """Return the contract's form of a refusal."""
        return {JSON_TYPE: {"schema": {"$ref": "#/components/schemas/WalletProblem"}}}

    def security(self, route: Route) -> list[Json]:
        """Return the credentials of the route's caller."""
        return _SECURITY[route.caller or "anyone"]


def _checker(route: Route, parts: Parts) -> Callable[[web.Request], Awaitable[Call]]:
    """Return a function that makes a Call of a request, or refuses it."""
    limit = parts.body_limit(route, WalletSurface.body_limit)
    tokens, administrators = parts.tokens, parts.administrators
    with_token, with_admin = route.caller in BEARER_CALLERS, route.caller in ADMIN_CALLERS
    # Administrators and other services have secrets of their own. All other routes need users' tokens.
    needs_tokens = route.caller not in {"admin", "internal"}
    body = None if route.body is None else validator_of(route.body, "body")
    query = None if route.query is None else validator_of(route.query, "query")
    read_path = _path_reader(route)

    async def checked(request: web.Request) -> Call:
        exchange = request[EXCHANGE]
        address = parts.address_of(request)
        if (needs_tokens and not tokens.enabled) or (with_admin and not administrators.active):
            raise Refusal("not_found", f"There is nothing at {request.path[:200]}.")
        claims = _claims(tokens, request) if with_token else None
        if route.limited:
            admission = await admit(route, parts, claims, address)
            if admission is not None:
                exchange.rate_headers = admission.headers
        if (raw := body_at_hand(request, limit)) is None:
            raw = await read_body(request, limit)
        parsed = parse_json(raw, request.headers.get(hdrs.CONTENT_TYPE)) if body is not None else None
        if route.key_in_header:
            parsed = _with_key(parsed, request)
        code = _code_in(parsed) if route.pays_code else None
        user, to_pay = (None, None) if claims is None else await _user(parts, claims, code)
        if with_admin and not administrators.includes(request):
            raise Refusal("admin_token_invalid", f"This call wants the admin token, as {ADMIN_TOKEN}.")
        if b"\\u0000" in raw:
            refuse_nul_in(raw, parsed)
        # All faults are told at once, in the contract's order: path, query, body.
        errors: list[Mapping[str, Any]] = []
        path = read_path(request, errors) if read_path is not None else _NO_PATH
        asked = query.read(pairs(request), errors) if query is not None else None
        value = body.read(parsed, errors) if body is not None else None
        if errors:
            raise invalid(errors)
        call = Call(request, parts, None, address, path, asked, value, raw, None, exchange.request_id)
        if user is not None:
            call.user, call.to_pay = user, to_pay
        await find_kept_keys(call, SYSTEM_PRINCIPAL if user is None else user.principal_id)
        return call

    return checked


def _claims(tokens: Tokens, request: web.Request) -> Claims | Refusal:
    """Return the claims of the token, or its refusal, which is told after the rate limit and the body's JSON."""
    try:
        return tokens.read(_bearer(request))
    except Refusal as refusal:
        return refusal


def _with_key(parsed: Any, request: web.Request) -> Any:
    """Return a body whose key's field has the header's key where it is left out."""
    key = request.headers.get(IDEMPOTENCY_KEY)
    if not key or not isinstance(parsed, dict) or parsed.get("idempotency_key") is not None:
        return parsed
    return {**parsed, "idempotency_key": key}


def _code_in(parsed: object) -> str | None:
    """Return the code that a body seems to have. The route checks it later."""
    found = parsed.get("code") if isinstance(parsed, dict) else None
    code = bare(found) if isinstance(found, str) else ""
    return code if is_code(code) else None


async def _user(parts: Parts, claims: Claims | Refusal, code: str | None) -> tuple[User, ToPay | None]:
    if isinstance(claims, Refusal):
        raise claims
    platform, to_pay = parts.platform, None
    if code is None:
        user = await platform.users.by_id(claims.user_id, claims.session_id)
    else:
        paying = await platform.payables.paying(claims.user_id, claims.session_id, code)
        user, to_pay = (None, None) if paying is None else paying
    if user is None:
        raise Refusal("user_not_found_for_token", "The user of this token does not exist.")
    if not counts(user, claims):
        raise Refusal("token_invalid", "This sign-in was ended. Sign in again.")
    return user, to_pay


def _bearer(request: web.Request) -> str:
    presented = authorization_of(request.headers)
    if presented is None:
        raise Refusal("not_authenticated", "Send the token as `Authorization: Bearer ...`.")
    scheme, token = presented
    if scheme != BEARER or not token:
        raise Refusal("bad_credentials", "Send the token as `Authorization: Bearer ...`.")
    return token


async def admit(
    route: Route, parts: Parts, claims: Claims | Refusal | None, address: str
) -> Admission | None:
    """Count the request for its user if the token is good, else for its address, as forged tokens get no bucket."""
    settings = parts.settings
    config = parts.platform.config.current
    per_minute = config.rate_limit_per_minute or settings.rate_limit_per_minute
    if route.caller in {"internal", "admin", "merchant_key"}:
        return await parts.guard.admit(principal=None, address=address)
    if isinstance(claims, Claims):
        boost = config.rate_limit_auth_boost or settings.rate_limit_auth_boost
        return await parts.guard.admit_client(f"user:{claims.user_id}", a_minute(per_minute * boost, "user"))
    if route.path.startswith("/auth/") or route.operation in PAGE_SIGN_IN:
        if settings.env == "dev" and config.rate_limit_exempt_otp and route.operation in OTP_ROUTES:
            return None
        limit = a_minute(min(per_minute, AUTH_PER_MINUTE), "address")
        return await parts.guard.admit_address("auth", address, limit)
    return await parts.guard.admit_address("address", address, a_minute(per_minute, "address"))


def _path_reader(
    route: Route,
) -> Callable[[web.Request, list[Mapping[str, Any]]], Mapping[str, Any]] | None:
    names = route.path_names
    if not names:
        return None
    validators = {name: validator_of(route.parameters.get(name, str), "path", name) for name in names}

    def read(request: web.Request, errors: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        found = {}
        for name, validator in validators.items():
            found[name] = validator.read(path_text(request, name)[: MAX_PATH_VALUE + 1], errors)
        return found

    return read
