"""The administrator: a caller with a token of ADMIN_TOKEN or ADMIN_TOKEN_SHA256. Without a token there is none."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from multidict import istr

from core.errors import Refusal
from core.rotation import uses
from handlers.http.decoding import BEARER, authorization_of

if TYPE_CHECKING:
    from aiohttp import web

    from core.settings import Settings

ADMIN_TOKEN = istr("X-Admin-Token")
# The actor of the audit records about calls with the token.
ACTOR = "admin"


class Administrators:
    """The digests of the active tokens. All digests have one length, so that no comparison tells a token's."""

    def __init__(self, settings: Settings) -> None:
        tokens = [hashlib.sha256(str(token).encode()).digest() for token in settings.admin_token if token]
        digests = [bytes.fromhex(known) for known in settings.admin_token_sha256]
        self._active = (*tokens, *digests)
        # Either list begins with its current token.
        self._places = (*range(len(tokens)), *range(len(digests)))

    @property
    def active(self) -> bool:
        """Whether there are administrators at all."""
        return bool(self._active)

    def includes(self, request: web.Request) -> bool:
        """Whether `request` presents an active token, as X-Admin-Token or as a bearer token."""
        presented = request.headers.get(ADMIN_TOKEN)
        if presented is None:
            scheme, token = authorization_of(request.headers) or ("", "")
            presented = token if scheme == BEARER else ""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._active]
        if True not in matches:
            return False
        uses.used(uses.ADMIN_TOKEN, self._places[matches.index(True)])
        return True

    def check(self, request: web.Request) -> None:
        """Raise Refusal `unauthorized` for a caller who is no administrator."""
        if not self.active:
            raise Refusal(
                "unauthorized", "No ADMIN_TOKEN is set, so nobody may do this. Set one and start again."
            )
        if not self.includes(request):
            raise Refusal(
                "unauthorized", f"This call wants the admin token, as {ADMIN_TOKEN} or as a bearer token."
            )
