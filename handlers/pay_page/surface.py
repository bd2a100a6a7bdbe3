"""The surface of the payment page: a person with a browser calls, sends forms and reads pages, refusals included."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote

import structlog
from aiohttp import hdrs, web

from core.access.rates import RateLimited
from core.errors import Refusal, Unavailable
from core.identity.tokens import Claims, Tokens, counts
from handlers.http.decoding import body_at_hand, check_text, path_text, read_body
from handlers.http.middleware import EXCHANGE
from handlers.http.route import Call, Route
from handlers.http.surface import Handler, Surface
from handlers.pay_page.brand import make_brand
from handlers.pay_page.languages import load_languages
from handlers.pay_page.site import HOME, Site
from handlers.pay_page.visit import SESSION, Visit, tell_when
from handlers.pay_page.words import broken_words, heading_of, sentence_of
from handlers.wallets.problems import problem_type, refused
from handlers.wallets.surface import PAGE_SIGN_IN, admit

if TYPE_CHECKING:
    from core.settings import Settings
    from handlers.http.parts import Parts

_log = structlog.get_logger(__name__)

# Bounds in bytes, fields and characters; no form of ours is larger.
BODY_LIMIT: Final = 8 * 1024
MAX_FIELDS: Final = 10
MAX_VALUE: Final = 100


class PageSurface(Surface):
    """Routes for a person with a browser: forms in, HTML out. Refusals and errors are pages, too."""

    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`."""
        handle = route.handler
        names = route.path_names
        site = site_of(parts.settings)

        async def dispatch(request: web.Request) -> web.StreamResponse:
            visit = _visit(parts, site, request)
            try:
                return await handle(await _checked(route, parts, visit, names))
            except Refusal as refusal:
                if isinstance(refusal, RateLimited):
                    request[EXCHANGE].rate_headers = refusal.headers
                return _told(visit, refusal)
            except (web.HTTPException, ConnectionError):
                raise
            except Exception:  # noqa: BLE001 - the last net, which tells a person
                _log.exception("request failed")
                heading, sentence = broken_words(request[EXCHANGE].request_id, visit.language)
                return visit.show(500, "trouble.html", heading=heading, sentence=sentence, back=None)

        return dispatch

    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer a refusal that comes before there is a visit. None does: each route here waits for no service."""
        return refused(refusal)


def site_of(settings: Settings) -> Site:
    """Return the site of the settings. Applications of one process with the same brand share it."""
    brand = (settings.brand_name, settings.brand_logo, settings.brand_color, settings.brand_help_url)
    return _site(*brand, settings.brand_languages_dir)


def _told(visit: Visit, refusal: Refusal) -> web.Response:
    """Answer with a page that tells of a refusal, and has a way back to the payment."""
    code = visit.request.match_info.get("code", "")
    back = f"{HOME}/{quote(code, safe='')}" if code and refusal.code != "code_not_found" else None
    response = visit.show(
        problem_type(refusal.code).status,
        "trouble.html",
        heading=heading_of(refusal, visit.language),
        sentence=sentence_of(refusal, visit.language),
        back=back,
    )
    tell_when(response, refusal)
    return response


def _visit(parts: Parts, site: Site, request: web.Request) -> Visit:
    settings = parts.settings
    secure = request.secure or settings.env == "prod" or str(settings.public_base_url).startswith("https:")
    return Visit(request, site, parts.tokens.keys, secure=secure)


async def _checked(route: Route, parts: Parts, visit: Visit, names: tuple[str, ...]) -> Call:
    """Return the call that a request makes. Refuses first where there are no wallets, then by the rate limit."""
    request, tokens = visit.request, parts.tokens
    address = parts.address_of(request)
    if not tokens.enabled:
        raise Refusal("not_found", "There is no payment page here.")
    if parts.missing is not None:
        raise Unavailable
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
        if visit.foreign:
            # It is refused here, since it comes without our cookies, and its answer would tell of a visitor unknown.
            raise Refusal("form_too_old", "This form was sent by another site.")
        visit.fields = _fields(request, raw)
    if claims is not None:
        user = await parts.platform.users.by_id(claims.user_id, claims.session_id)
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


@lru_cache(maxsize=8)
def _site(name: str, logo: str, color: str, help_url: str, languages_dir: str) -> Site:
    folder = Path(languages_dir).expanduser() if languages_dir else None
    return Site(make_brand(name, logo, color, help_url), load_languages(folder))
