"""A visit to the payment page: the visitor, the form they send, and the proof that no other site sent it for them.

A visitor has a random name in a cookie, and every form a token made of it: a form of another site, or of another
visitor, does nothing. The sign-in is a token of minutes in a second cookie. Both are HttpOnly, SameSite=Strict and go
to /pay only, so neither a script nor another site sees or sends them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl
from uuid import UUID

import structlog
from aiohttp import hdrs, web

from core.access.rates import RateLimited
from core.errors import Refusal
from core.identity.tokens import Claims, Tokens, counts
from core.wallets.users import User
from handlers.http.decoding import body_at_hand, check_text, path_text, read_body
from handlers.http.middleware import EXCHANGE
from handlers.http.problems import seconds_to_wait
from handlers.http.route import Call, Route
from handlers.http.surface import Handler, Surface
from handlers.pay_page.html import HOME, trouble_page
from handlers.pay_page.words import is_away, trouble_of
from handlers.wallets.problems import problem_type
from handlers.wallets.surface import PAGE_SIGN_IN, admit

if TYPE_CHECKING:
    from handlers.http.parts import Parts

_log = structlog.get_logger(__name__)

# The page loads our own files only, has no script or style inside, and sends its forms nowhere else.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
VISITOR: Final = "pay_visitor"
SESSION: Final = "pay_session"
PHONE: Final = "pay_phone"
VISITOR_BYTES: Final = 16
MAX_COOKIE: Final = 4_096
# Bounds in bytes, fields and characters; no form of ours is larger.
BODY_LIMIT: Final = 8 * 1024
MAX_FIELDS: Final = 10
MAX_VALUE: Final = 100
_AWAY: Final = "A part of the service is away for the moment. Reload the page soon: nothing is paid twice."
# The values of Sec-Fetch-Site for our own forms (Fetch Metadata). Older browsers send none, and the token decides.
_OURS: Final = frozenset({"same-origin", "none"})
_NAME = re.compile(r"[A-Za-z0-9_-]{22}")


class Visit:
    """One request to the page, which a handler gets as the `body` of its call."""

    __slots__ = ("_key", "_set", "fields", "request", "secure", "session_id", "user", "visitor")

    def __init__(self, request: web.Request, key: bytes, *, secure: bool) -> None:
        self.request = request
        self.secure = secure
        self.user: User | None = None
        self.session_id: UUID | None = None
        self.fields: Mapping[str, str] = {}
        self._key = key
        # The cookies that the answer sets: name, value (empty: delete), seconds.
        self._set: list[tuple[str, str, int | None]] = []
        self.visitor = request.cookies.get(VISITOR, "")
        if _NAME.fullmatch(self.visitor) is None:
            self.visitor = secrets.token_urlsafe(VISITOR_BYTES)
            self.set_cookie(VISITOR, self.visitor)

    @property
    def token(self) -> str:
        """The token of this visitor's forms."""
        return hmac.new(self._key, self.visitor.encode(), hashlib.sha256).hexdigest()

    @property
    def genuine(self) -> bool:
        """Whether the request sends a form that this visitor got from us."""
        site = self.request.headers.get("Sec-Fetch-Site", "same-origin")
        given = self.fields.get("form", "").encode()
        return site in _OURS and hmac.compare_digest(given, self.token.encode())

    def cookie(self, name: str) -> str:
        """Return the value of a cookie, empty where there is none or where it is too long for one of ours."""
        value = self.request.cookies.get(name, "")
        return value if len(value) <= MAX_COOKIE else ""

    def set_cookie(self, name: str, value: str, seconds: int | None = None) -> None:
        """Have the answer set a cookie for `seconds` (None: until the browser closes). An empty one is deleted."""
        self._set.append((name, value, seconds))

    def show(self, status: int, body: bytes) -> web.Response:
        """Answer a page."""
        response = html_response(status, body)
        self._dress(response)
        return response

    def refuse(self, refusal: Refusal, body: bytes) -> web.Response:
        """Answer a page that tells of a refusal."""
        response = self.show(problem_type(refusal.code).status, body)
        _tell_when(response, refusal)
        return response

    def go(self, *steps: str) -> web.Response:
        """Send the browser on with GET, so that going back or reloading sends no form again."""
        response = web.Response(status=303, headers={hdrs.LOCATION: "/".join((HOME, *steps))})
        self._dress(response)
        return response

    def _dress(self, response: web.Response) -> None:
        for name, value, seconds in self._set:
            response.set_cookie(
                name,
                value,
                max_age=seconds if value else 0,
                path=HOME,
                httponly=True,
                samesite="Strict",
                secure=self.secure,
            )


def html_response(status: int, body: bytes) -> web.Response:
    """Answer HTML under the page's policy, with a header that forbids copies."""
    headers = {
        hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
        "Content-Security-Policy": POLICY,
        hdrs.CACHE_CONTROL: "no-store",
    }
    return web.Response(status=status, body=body, headers=headers)


class PageSurface(Surface):
    """Routes for a person with a browser: forms in, HTML out. Refusals and errors are pages, too."""

    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`."""
        handle = route.handler
        names = route.path_names

        async def dispatch(request: web.Request) -> web.StreamResponse:
            try:
                return await handle(await _checked(route, parts, request, names))
            except Refusal as refusal:
                if isinstance(refusal, RateLimited):
                    request[EXCHANGE].rate_headers = refusal.headers
                return self.refuse(refusal)
            except (web.HTTPException, ConnectionError):
                raise
            except Exception:  # noqa: BLE001 - the last net, which tells a person
                _log.exception("request failed")
                sentence = f"Something went wrong on our side. Its number is {request[EXCHANGE].request_id}."
                return html_response(500, trouble_page("Something went wrong", sentence))

        return dispatch

    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer with a page that tells of the refusal."""
        kind = problem_type(refusal.code)
        sentence = _AWAY if is_away(refusal) else trouble_of(refusal).sentence
        response = html_response(kind.status, trouble_page(kind.title, sentence))
        _tell_when(response, refusal)
        return response


async def _checked(route: Route, parts: Parts, request: web.Request, names: tuple[str, ...]) -> Call:
    """Return the call that a request makes. Refuses first where there are no wallets, then by the rate limit."""
    tokens, platform = parts.tokens, parts.platform
    address = parts.address_of(request)
    if not tokens.enabled:
        raise Refusal("not_found", "There is no payment page here.")
    settings = platform.settings
    secure = request.secure or settings.env == "prod" or str(settings.public_base_url).startswith("https:")
    visit = Visit(request, tokens.keys.derive("forms of the payment page"), secure=secure)
    claims = _claims(tokens, visit)
    if route.limited:
        counted = None if route.operation in PAGE_SIGN_IN else claims
        admission = await admit(route, parts, counted, address)
        if admission is not None:
            request[EXCHANGE].rate_headers = admission.headers
    path = {name: path_text(request, name) for name in names}
    if any(len(value) > MAX_VALUE for value in path.values()):
        raise Refusal("code_not_found", "There is no such code.")
    if (raw := body_at_hand(request, BODY_LIMIT)) is None:
        raw = await read_body(request, BODY_LIMIT)
    if request.method == hdrs.METH_POST:
        visit.fields = _fields(request, raw)
    if claims is not None:
        user = await platform.users.by_id(claims.user_id, claims.session_id)
        if user is not None and counts(user, claims):
            visit.user, visit.session_id = user, claims.session_id
    exchange = request[EXCHANGE]
    return Call(request, parts, None, address, path, None, visit, raw, None, exchange.request_id)


def _claims(tokens: Tokens, visit: Visit) -> Claims | None:
    token = visit.cookie(SESSION)
    try:
        return tokens.read(token) if token else None
    except Refusal:
        return None


def _fields(request: web.Request, raw: bytes) -> dict[str, str]:
    """Read a form (WHATWG URL, section 5.1). Raises Refusal `unsupported_media_type`, `invalid_request`."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise Refusal("unsupported_media_type", "This page takes its own forms only.")
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        raise Refusal("invalid_request", "This page takes its own forms only.") from None
    for name, value in pairs:
        check_text(value, f"the field {name[:MAX_VALUE]!r}")
    return dict(pairs)


def _tell_when(response: web.Response, refusal: Refusal) -> None:
    if refusal.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = seconds_to_wait(refusal.retry_after)
