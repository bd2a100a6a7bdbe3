"""The bodies and answers that all ways to sign in share, and the client and the claims of a call."""

from __future__ import annotations

import msgspec
from aiohttp import hdrs

from core.identity.identity import Identity
from core.identity.sessions import SignedIn
from core.identity.sign_in import Client
from core.identity.tokens import Claims
from handlers.http.decoding import authorization_of
from handlers.http.route import Call
from handlers.wallets.contract import Body


class SignInIn(Body):
    """A sign-in. With `refresh` it gets a short access token and a refresh token in the place of a long token."""

    refresh: bool = False


class TokenOut(msgspec.Struct, frozen=True):
    """The token; `expires_in` (seconds) and `refresh_token` for callers who asked for them."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - RFC 6750's word
    expires_in: int | msgspec.UnsetType = msgspec.UNSET
    refresh_token: str | msgspec.UnsetType = msgspec.UNSET


def identity_of(call: Call) -> Identity:
    """Return the parts of the process that sign users in."""
    return call.parts.identity


def client_of(call: Call) -> Client:
    """Return the client of a call."""
    wants_refresh = isinstance(call.body, SignInIn) and call.body.refresh
    return Client(call.address, call.request.headers.get(hdrs.USER_AGENT, ""), wants_refresh)


def token_out(signed_in: SignedIn) -> TokenOut:
    """Return the tokens of a sign-in as they are answered."""
    if signed_in.refresh_token is None or signed_in.expires_in is None:
        return TokenOut(signed_in.access_token)
    return TokenOut(
        signed_in.access_token, expires_in=signed_in.expires_in, refresh_token=signed_in.refresh_token
    )


def claims_of(call: Call) -> Claims:
    """Return the claims of the caller's token."""
    _, token = authorization_of(call.request.headers) or ("", "")
    return call.parts.tokens.read(token)
