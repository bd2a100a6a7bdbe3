"""PayPal's access tokens: one for all calls of a process, fetched when it is needed and kept until it ends."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Final

import msgspec

from core.inbox.paypal.client import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.inbox.paypal.client import Client

# A token is not used in the last minute of its life, and after a failure to get one nobody asks again for a while.
MARGIN_SECONDS: Final = 60.0
NO_TOKEN_SECONDS: Final = 5.0
MAX_SECONDS: Final = 86_400.0


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 0.0


class Tokens:
    """The tokens of one client at one PayPal."""

    def __init__(
        self,
        client: Client,
        *,
        base_url: str,
        client_id: str,
        client_secret: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._clock = clock
        self._token = ""
        self._token_until = 0.0
        self._no_token_until = 0.0
        self._getting = asyncio.Lock()

    async def current(self) -> str:
        """Return a token that is good by the clock. Raises UnreachableError."""
        async with self._getting:
            if self._token_until > self._clock():
                return self._token
            if self._no_token_until > self._clock():
                raise UnreachableError("there was no token a moment ago")
            try:
                token = await self._new()
            except UnreachableError:
                self._no_token_until = self._clock() + NO_TOKEN_SECONDS
                raise
            self._token = token.access_token
            self._token_until = self._clock() + min(token.expires_in, MAX_SECONDS) - MARGIN_SECONDS
            return self._token

    def forget(self, token: str) -> None:
        """Drop a token that PayPal has refused before its time."""
        if self._token == token:
            self._token_until = 0.0

    async def _new(self) -> _Token:
        credentials = base64.b64encode(f"{self._client_id}:{self._client_secret}".encode()).decode()
        status, answer = await self._client.call(
            "POST",
            f"{self._base_url}/v1/oauth2/token",
            headers={
                "Authorization": f"Basic {credentials}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            body=b"grant_type=client_credentials",
        )
        if status != 200:
            raise UnreachableError(f"the token was refused with {status}")
        try:
            token = msgspec.json.decode(answer, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnreachableError(f"the token cannot be read: {type(error).__name__}") from None
        if not (token.access_token.isascii() and token.access_token.isprintable() and token.access_token):
            raise UnreachableError("the token cannot be sent")
        return token
