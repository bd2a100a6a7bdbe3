"""Sign-ins: made by a code or a password, renewed, listed and ended; the public keys of tokens."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web

from core.identity import sessions, sign_in
from handlers.http.parts import CONTRACT
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.auth.parts import (
    SignInIn,
    TokenOut,
    claims_of,
    client_of,
    identity_of,
    token_out,
)
from handlers.wallets.contract import (
    Body,
    Detail,
    Name,
    Phone,
    platform_of,
    timestamp,
)


class CodeIn(Body):
    """The phone that the code goes to."""

    phone: Phone


class VerifyIn(SignInIn):
    """The code of a phone. Without a session the phone's newest one counts; the name is for a new user."""

    phone: Phone
    otp: str
    session_id: str | None = None
    name: Name = None


class RegisterIn(SignInIn):
    """A new user with a password. The phone may have any spelling."""

    username: Annotated[str, pydantic.Field(min_length=3, max_length=64)]
    password: Annotated[str, pydantic.Field(min_length=8, max_length=128)]
    phone: str
    name: Name = None


class LoginIn(SignInIn):
    """A username, in any case, and its password."""

    username: str
    password: str


class RefreshIn(Body):
    """A refresh token that was not used yet."""

    refresh_token: str


class CodeOut(msgspec.Struct, frozen=True):
    """The answer when the code is on its way; `dev_code` is the fixed code of development."""

    detail: str
    otp_session: str
    dev_code: str | msgspec.UnsetType = msgspec.UNSET


class SessionOut(msgspec.Struct, frozen=True):
    """A sign-in; `current` tells that the request was made with it."""

    id: str
    client: str
    created_at: str
    used_at: str
    expires_at: str
    current: bool


class SessionsOut(msgspec.Struct, frozen=True):
    """Sign-ins, newest first."""

    sessions: list[SessionOut]


async def request_otp(call: Call) -> web.Response:
    """Send a code."""
    sent = await sign_in.request_code(identity_of(call), call.body.phone, client_of(call))
    dev_code = msgspec.UNSET if sent.dev_code is None else sent.dev_code
    return answer(200, CodeOut("OTP sent", sent.session, dev_code))


async def verify_otp(call: Call) -> web.Response:
    """Sign in with a code."""
    body: VerifyIn = call.body
    signed_in = await sign_in.verify_code(
        identity_of(call),
        body.phone,
        body.otp,
        body.session_id,
        body.name,
        client_of(call),
        resets=_resets(call),
    )
    return answer(200, token_out(signed_in))


async def register(call: Call) -> web.Response:
    """Make a user with a password, and sign in."""
    body: RegisterIn = call.body
    signed_in = await sign_in.register(
        identity_of(call), body.username, body.password, body.phone, body.name, client_of(call)
    )
    return answer(200, token_out(signed_in))


async def log_in(call: Call) -> web.Response:
    """Sign in with a password."""
    body: LoginIn = call.body
    return answer(
        200, token_out(await sign_in.log_in(identity_of(call), body.username, body.password, client_of(call)))
    )


async def dev_log_in(call: Call) -> web.Response:
    """Sign in to an account of development."""
    body: LoginIn = call.body
    signed_in = await sign_in.dev_log_in(
        identity_of(call), body.username, body.password, client_of(call), resets=_resets(call)
    )
    return answer(200, token_out(signed_in))


async def refresh(call: Call) -> web.Response:
    """Exchange a refresh token for new tokens."""
    platform = platform_of(call)
    signed_in = await sessions.renew(
        platform.database,
        call.parts.tokens,
        platform.settings,
        platform.users,
        call.body.refresh_token,
    )
    return answer(200, token_out(signed_in))


async def log_out(call: Call) -> web.Response:
    """End this sign-in. A token of the old service names no sign-in, so all of its user's end."""
    session_id = claims_of(call).session_id
    database = platform_of(call).database
    if session_id is None:
        await sessions.end_all(database, call.parts.settings, call.user)
    else:
        await sessions.end(database, call.user, session_id)
    return answer(200, Detail("signed out"))


async def log_out_all(call: Call) -> web.Response:
    """End all sign-ins of the caller, and the passkeys, by which others could begin."""
    await sessions.end_all(platform_of(call).database, call.parts.settings, call.user, passkeys=True)
    return answer(200, Detail("signed out"))


async def list_sessions(call: Call) -> web.Response:
    """List the caller's sign-ins."""
    current = claims_of(call).session_id
    found = await sessions.live_sessions(platform_of(call).database, call.user)
    return answer(
        200,
        SessionsOut(
            [
                SessionOut(
                    str(session.id),
                    session.client,
                    timestamp(session.created_at),
                    timestamp(session.used_at),
                    timestamp(session.expires_at),
                    session.id == current,
                )
                for session in found
            ]
        ),
    )


async def end_session(call: Call) -> web.Response:
    """End one of the caller's sign-ins."""
    session_id: UUID = call.path("session")
    await sessions.end(platform_of(call).database, call.user, session_id)
    return answer(200, Detail("signed out"))


async def jwks(call: Call) -> web.Response:
    """Show the public keys of tokens."""
    return answer(200, call.parts.tokens.keys.jwks())


def _resets(call: Call) -> bool | None:
    """Return True on the contract's port, whose clients expect the reset of development; else the setting holds."""
    return True if call.request.app.get(CONTRACT) == "wallet_port" else None


ROUTES = table(
    Route(
        "POST", "/auth/request_otp", request_otp, "request_otp", "Send a sign-in code",
        body=CodeIn, answers={200: CodeOut},
        problems=("otp_limited", "invalid_phone", "sms_failed", "sign_in_waits"),
    ),
    Route(
        "POST", "/auth/verify_otp", verify_otp, "verify_otp", "Sign in with a code",
        body=VerifyIn, problems=("invalid_otp", "otp_locked", "sign_in_waits"),
    ),
    Route(
        "POST", "/auth/register", register, "register", "Register with a password",
        body=RegisterIn,
        problems=("invalid_username", "username_taken", "invalid_phone", "phone_taken", "weak_password"),
    ),
    Route(
        "POST", "/auth/login", log_in, "log_in", "Sign in with a password",
        body=LoginIn, problems=("invalid_credentials", "login_limited"),
    ),
    Route(
        "POST", "/auth/dev_login", dev_log_in, "dev_log_in", "Sign in to an account of development",
        body=LoginIn, problems=("dev_credentials_invalid",),
    ),
    Route(
        "POST", "/auth/refresh", refresh, "refresh_token", "Exchange a refresh token",
        body=RefreshIn, problems=("refresh_token_invalid",),
    ),
    Route(
        "POST", "/auth/logout", log_out, "log_out", "End this sign-in",
        caller="user", answers={200: Detail}, problems=("session_not_found",),
    ),
    Route(
        "POST", "/auth/logout_all", log_out_all, "log_out_all", "End all my sign-ins",
        caller="user", answers={200: Detail},
    ),
    Route(
        "GET", "/auth/sessions", list_sessions, "list_sessions", "My sign-ins",
        caller="user", answers={200: SessionsOut},
    ),
    Route(
        "DELETE", "/auth/sessions/{session}", end_session, "end_session", "End one of my sign-ins",
        caller="user", answers={200: Detail}, parameters={"session": UUID}, problems=("session_not_found",),
    ),
    Route(
        "GET", "/.well-known/jwks.json", jwks, "jwks", "The public keys of users' tokens",
        answers={200: dict[str, list[dict[str, str]]]},
    ),
    tag="auth", caller="anyone", answers={200: TokenOut},
)  # fmt: skip
