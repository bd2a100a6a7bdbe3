"""A visit to the payment page: the visitor, the form they send, and the proof that no other site sent it for them.

A visitor has a random name in a cookie, and every form a token made of it and of the sign-in: a form of another site,
of another visitor, or from before a sign-in or sign-out does nothing. The sign-in is a token of minutes in a second
cookie. The cookies go to /pay only, and are HttpOnly and SameSite=Lax: no script sees them, and another site has them
sent when it links to us, which changes nothing, but not when it sends a form.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from aiohttp import hdrs, web

from core.errors import Refusal
from core.wallets.users import User
from handlers.http.problems import seconds_to_wait
from handlers.pay_page.site import HOME
from handlers.wallets.problems import problem_type

if TYPE_CHECKING:
    from core.identity.keys import KeyRing
    from core.payables.codes import Offer
    from handlers.pay_page.languages import Language
    from handlers.pay_page.site import Site
    from handlers.pay_page.words import Trouble

# The page loads our own files only, has no script or style inside, and sends its forms nowhere else.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
VISITOR: Final = "pay_visitor"
SESSION: Final = "pay_session"
PHONE: Final = "pay_phone"
LANGUAGE: Final = "pay_language"
VISITOR_BYTES: Final = 16
MAX_COOKIE: Final = 4_096
# The values of Sec-Fetch-Site for our own forms (Fetch Metadata). Older browsers send none, and the token decides.
_OURS: Final = frozenset({"same-origin", "none"})
# The names and the bound in characters of what stays in the query when its reader changes the language.
_KEPT: Final = ("code", "proof")
MAX_KEPT: Final = 100
_NAME = re.compile(r"[A-Za-z0-9_-]{22}")
_YEAR_SECONDS: Final = 365 * 86_400
_FORMS: Final = "forms of the payment page"
_RECEIPTS: Final = "receipts of the payment page"


class Visit:
    """One request to the page, which a handler gets as the `body` of its call."""

    __slots__ = (
        "_keys", "_set", "fields", "foreign", "language", "request", "secure", "session_id", "site", "user", "visitor",
    )  # fmt: skip

    def __init__(self, request: web.Request, site: Site, keys: KeyRing, *, secure: bool) -> None:
        self.request = request
        self.site = site
        self.secure = secure
        self.user: User | None = None
        self.session_id: UUID | None = None
        self.fields: Mapping[str, str] = {}
        self._keys = keys
        # The cookies that the answer sets: name, value (empty: delete), seconds.
        self._set: list[tuple[str, str, int | None]] = []
        # A form of another site arrives without our cookies, and must not have them replaced: open pages need them.
        self.foreign = (
            request.method == hdrs.METH_POST
            and request.headers.get("Sec-Fetch-Site", "same-origin") not in _OURS
        )
        self.language = self._chosen_language()
        self.visitor = request.cookies.get(VISITOR, "")
        if _NAME.fullmatch(self.visitor) is None:
            self.renew()

    @property
    def token(self) -> str:
        """The proof in our forms that they were given to this visitor, in this sign-in."""
        return self._form_proof(self._keys.derive(_FORMS))

    def check_form(self) -> None:
        """Raise Refusal `form_too_old` unless the request sends a form that this visitor got from us."""
        given = self.fields.get("form", "").encode()
        # A form may have been given out under the tokens' key of before.
        proofs = [self._form_proof(key).encode() for key in self._keys.derive_all(_FORMS)]
        if self.foreign or True not in [hmac.compare_digest(given, proof) for proof in proofs]:
            raise Refusal("form_too_old", "This form is not one that we gave to this browser.")

    def _form_proof(self, key: bytes) -> str:
        return hmac.new(key, f"{self.visitor} {self.session_id}".encode(), hashlib.sha256).hexdigest()

    def renew(self) -> None:
        """Give the visitor another name, so that forms from before do nothing."""
        self.visitor = secrets.token_urlsafe(VISITOR_BYTES)
        self.set_cookie(VISITOR, self.visitor)

    def receipt_path(self, offer: Offer, transfer_id: UUID) -> str:
        """Return the address of a receipt with the proof that its holder may see it."""
        proof = _receipt_proof(self._keys.derive(_RECEIPTS), offer, transfer_id)
        return f"{HOME}/{offer.code}/receipt/{transfer_id}?proof={proof}"

    def holds_receipt(self, offer: Offer, transfer_id: UUID) -> bool:
        """Whether the request has the proof of `receipt_path`, made with a key in force or with one before."""
        given = self.request.query.get("proof", "").encode()
        proofs = [_receipt_proof(key, offer, transfer_id) for key in self._keys.derive_all(_RECEIPTS)]
        return any(hmac.compare_digest(given, proof.encode()) for proof in proofs)

    def cookie(self, name: str) -> str:
        """Return the value of a cookie, empty where there is none or where it is too long for one of ours."""
        value = self.request.cookies.get(name, "")
        return value if len(value) <= MAX_COOKIE else ""

    def set_cookie(self, name: str, value: str, seconds: int | None = None) -> None:
        """Have the answer set a cookie for `seconds` (None: until the browser closes). An empty one is deleted."""
        self._set.append((name, value, seconds))

    def show(self, status: int, template: str, **values: Any) -> web.Response:
        """Answer a page."""
        body = self.site.page(template, self.language, self._switches(), **values)
        headers = {
            hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
            hdrs.CONTENT_LANGUAGE: self.language.tag,
            "Content-Security-Policy": POLICY,
            hdrs.CACHE_CONTROL: "no-store",
        }
        response = web.Response(status=status, body=body, headers=headers)
        self._dress(response)
        return response

    def show_offer(
        self, template: str, offer: Offer, trouble: Trouble | None, refusal: Refusal | None, **values: Any
    ) -> web.Response:
        """Answer a page about an offer, which tells of a refusal if there is one."""
        status = 200 if refusal is None else problem_type(refusal.code).status
        response = self.show(
            status,
            template,
            offer=offer,
            home=f"{HOME}/{offer.code}",
            token=self.token,
            trouble=trouble,
            payer=self.user,
            **values,
        )
        if refusal is not None:
            tell_when(response, refusal)
        return response

    def go(self, *steps: str) -> web.Response:
        """Send the browser on with GET, so that going back or reloading sends no form again."""
        return self.go_to("/".join((HOME, *steps)))

    def go_to(self, path: str) -> web.Response:
        """Send the browser on to a path of ours."""
        response = web.Response(status=303, headers={hdrs.LOCATION: path})
        self._dress(response)
        return response

    def _switches(self) -> dict[str, str]:
        """Return the address of this page in each language."""
        here, query = self.request.rel_url, self.request.query
        kept = {name: query[name][:MAX_KEPT] for name in _KEPT if name in query}
        return {code: str(here.with_query(kept | {"lang": code})) for code in self.site.languages.all}

    def _chosen_language(self) -> Language:
        """Return the language of the query, which the browser then keeps, of the cookie, or of the browser."""
        asked = self.request.query.get("lang", "")
        if asked in self.site.languages.all and self.request.method in {hdrs.METH_GET, hdrs.METH_HEAD}:
            self.set_cookie(LANGUAGE, asked, _YEAR_SECONDS)
        else:
            asked = self.request.cookies.get(LANGUAGE, "")
        return self.site.languages.chosen(asked, self.request.headers.get(hdrs.ACCEPT_LANGUAGE, ""))

    def _dress(self, response: web.Response) -> None:
        if self.foreign:
            return
        for name, value, seconds in self._set:
            response.set_cookie(
                name,
                value,
                max_age=seconds if value else 0,
                path=HOME,
                httponly=True,
                samesite="Lax",
                secure=self.secure,
            )


def _receipt_proof(key: bytes, offer: Offer, transfer_id: UUID) -> str:
    return hmac.new(key, f"{offer.code} {transfer_id}".encode(), hashlib.sha256).hexdigest()[:32]


def tell_when(response: web.Response, refusal: Refusal) -> None:
    """Say in a header when a refused call may work."""
    if refusal.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = seconds_to_wait(refusal.retry_after)
