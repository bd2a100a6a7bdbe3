"""Sign-ins: made by a code, a password or a passkey, renewed, listed and ended; the public keys of tokens."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
import pydantic
from aiohttp import hdrs, web

from core.errors import Refusal
from core.identity import sessions, sign_in
from core.identity.identity import Identity
from core.identity.sessions import SignedIn
from core.identity.sign_in import Client
from core.identity.tokens import Claims, counts
from core.wallets.users import User
from handlers.http.decoding import authorization_of
from handlers.http.parts import CONTRACT
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    Body,
    Detail,
    Name,
    Phone,
    maybe_timestamp,
    platform_of,
    timestamp,
)


class SignInIn(Body):
    """A sign-in. With `refresh` it gets a short access token and a refresh token in the place of a long token."""

    refresh: bool = False


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


class PasskeyIn(SignInIn):
    """The JSON that the browser's call returned. The contract's clients write `credentialId` for `id`."""

    credential_id: Any = pydantic.Field(None, alias="credentialId")
    id: Any = None
    raw_id: Any = pydantic.Field(None, alias="rawId")
    type: Any = None
    response: Any = None

    def given(self) -> dict[str, Any]:
        """Return the fields by the standard's names and the contract's."""
        return self.model_dump(by_alias=True, exclude={"refresh"})


class PasskeyOut(msgspec.Struct, frozen=True):
    """A passkey; `id` is the credential's, as the browser writes it."""

    id: str
    created_at: str
    used_at: str | None


class PasskeysOut(msgspec.Struct, frozen=True):
    """Passkeys, newest first."""

    passkeys: list[PasskeyOut]


class CodeOut(msgspec.Struct, frozen=True):
    """The answer when the code is on its way; `dev_code` is the fixed code of development."""

    detail: str
    otp_session: str
    dev_code: str | msgspec.UnsetType = msgspec.UNSET


class TokenOut(msgspec.Struct, frozen=True):
    """The token; `expires_in` (seconds) and `refresh_token` for callers who asked for them."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - RFC 6750's word
    expires_in: int | msgspec.UnsetType = msgspec.UNSET
    refresh_token: str | msgspec.UnsetType = msgspec.UNSET


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


class PasskeyUserOut(msgspec.Struct, frozen=True):
    """The user that the passkey is for."""

    id: str
    name: str


class RegisterChallengeOut(msgspec.Struct, frozen=True, rename={"rp_id": "rpId", "rp_name": "rpName"}):
    """The challenge that a new passkey signs."""

    rp_id: str
    rp_name: str
    challenge: str
    user: PasskeyUserOut


class LoginChallengeOut(msgspec.Struct, frozen=True, rename={"rp_id": "rpId"}):
    """The challenge that a passkey signs for a sign-in."""

    challenge: str
    rp_id: str


async def request_otp(call: Call) -> web.Response:
    """Send a code."""
    sent = await sign_in.request_code(_identity(call), call.body.phone, _client(call))
    dev_code = msgspec.UNSET if sent.dev_code is None else sent.dev_code
    return answer(200, CodeOut("OTP sent", sent.session, dev_code))


async def verify_otp(call: Call) -> web.Response:
    """Sign in with a code."""
    body: VerifyIn = call.body
    signed_in = await sign_in.verify_code(
        _identity(call),
        body.phone,
        body.otp,
        body.session_id,
        body.name,
        _client(call),
        resets=_resets(call),
    )
    return answer(200, _token(signed_in))


async def register(call: Call) -> web.Response:
    """Make a user with a password, and sign in."""
    body: RegisterIn = call.body
    signed_in = await sign_in.register(
        _identity(call), body.username, body.password, body.phone, body.name, _client(call)
    )
    return answer(200, _token(signed_in))


async def log_in(call: Call) -> web.Response:
    """Sign in with a password."""
    body: LoginIn = call.body
    return answer(
        200, _token(await sign_in.log_in(_identity(call), body.username, body.password, _client(call)))
    )


async def dev_log_in(call: Call) -> web.Response:
    """Sign in to an account of development."""
    body: LoginIn = call.body
    signed_in = await sign_in.dev_log_in(
        _identity(call), body.username, body.password, _client(call), resets=_resets(call)
    )
    return answer(200, _token(signed_in))


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
    return answer(200, _token(signed_in))


async def log_out(call: Call) -> web.Response:
    """End this sign-in. A token of the old service names no sign-in, so all of its user's end."""
    session_id = _claims(call).session_id
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
    current = _claims(call).session_id
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


async def passkey_register_challenge(call: Call) -> web.Response:
    """Give out a challenge for a new passkey of the caller."""
    user = call.user
    challenge = await _identity(call).passkeys.challenge("register", user)
    told = RegisterChallengeOut(
        challenge.rp_id, challenge.rp_name, challenge.text, PasskeyUserOut(str(user.id), user.phone)
    )
    return answer(200, told)


async def passkey_register_verify(call: Call) -> web.Response:
    """Register a passkey of the caller."""
    await _identity(call).passkeys.register(call.user, call.body.given())
    return answer(200, Detail("registered"))


async def list_passkeys(call: Call) -> web.Response:
    """List the caller's passkeys."""
    found = await _identity(call).passkeys.of_user(call.user)
    listed = [PasskeyOut(one.id, timestamp(one.created_at), maybe_timestamp(one.used_at)) for one in found]
    return answer(200, PasskeysOut(listed))


async def remove_passkey(call: Call) -> web.Response:
    """Remove one of the caller's passkeys."""
    await _identity(call).passkeys.remove(call.user, call.path("passkey"))
    return answer(200, Detail("removed"))


async def passkey_login_challenge(call: Call) -> web.Response:
    """Give out a challenge for a sign-in: for the caller's passkeys or, without a token, for any passkey."""
    challenge = await _identity(call).passkeys.challenge("login", await _caller(call))
    return answer(200, LoginChallengeOut(challenge.text, challenge.rp_id))


async def passkey_login_verify(call: Call) -> web.Response:
    """Sign in with a passkey."""
    signed_in = await sign_in.passkey_log_in(_identity(call), call.body.given(), _client(call))
    return answer(200, _token(signed_in))


async def jwks(call: Call) -> web.Response:
    """Show the public keys of tokens."""
    return answer(200, call.parts.tokens.keys.jwks())


def _identity(call: Call) -> Identity:
    return call.parts.identity


def _client(call: Call) -> Client:
    wants_refresh = isinstance(call.body, SignInIn) and call.body.refresh
    return Client(call.address, call.request.headers.get(hdrs.USER_AGENT, ""), wants_refresh)


def _resets(call: Call) -> bool | None:
    """Return True on the contract's port, whose clients expect the reset of development; else the setting holds."""
    return True if call.request.app.get(CONTRACT) == "wallet_port" else None


def _token(signed_in: SignedIn) -> TokenOut:
    if signed_in.refresh_token is None or signed_in.expires_in is None:
        return TokenOut(signed_in.access_token)
    return TokenOut(
        signed_in.access_token, expires_in=signed_in.expires_in, refresh_token=signed_in.refresh_token
    )


def _claims(call: Call) -> Claims:
    """Return the claims of the caller's token."""
    _, token = authorization_of(call.request.headers) or ("", "")
    return call.parts.tokens.read(token)


async def _caller(call: Call) -> User | None:
    """Return the user who calls a route for anybody. A token that does not count is refused here, too."""
    if hdrs.AUTHORIZATION not in call.request.headers:
        return None
    claims = _claims(call)
    user = await platform_of(call).users.by_id(claims.user_id, claims.session_id)
    if user is None or not counts(user, claims):
        raise Refusal("token_invalid", "This sign-in was ended. Sign in again.")
    return user


_PASSKEY = ("passkeys_disabled", "sign_in_waits")
_PROOF = ("passkey_invalid", "passkey_not_verified", *_PASSKEY)

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
        "POST", "/auth/passkey/register_challenge", passkey_register_challenge, "passkey_register_challenge",
        "Begin to register a passkey", caller="user", answers={200: RegisterChallengeOut}, problems=_PASSKEY,
    ),
    Route(
        "POST", "/auth/passkey/register_verify", passkey_register_verify, "passkey_register_verify",
        "Register a passkey", caller="user", body=PasskeyIn, answers={200: Detail}, problems=_PROOF,
    ),
    Route(
        "GET", "/auth/passkeys", list_passkeys, "list_passkeys", "My passkeys",
        caller="user", answers={200: PasskeysOut}, problems=("passkeys_disabled",),
    ),
    Route(
        "DELETE", "/auth/passkeys/{passkey}", remove_passkey, "remove_passkey", "Remove one of my passkeys",
        caller="user", answers={200: Detail}, problems=("passkey_not_found", "passkeys_disabled"),
    ),
    Route(
        "POST", "/auth/passkey/login_challenge", passkey_login_challenge, "passkey_login_challenge",
        "Begin to sign in with a passkey", answers={200: LoginChallengeOut},
        problems=("bad_credentials", "token_expired", "token_invalid", "token_issuer_invalid", *_PASSKEY),
    ),
    Route(
        "POST", "/auth/passkey/login_verify", passkey_login_verify, "passkey_login_verify",
        "Sign in with a passkey", body=PasskeyIn, problems=("passkey_not_found", *_PROOF),
    ),
    Route(
        "GET", "/.well-known/jwks.json", jwks, "jwks", "The public keys of users' tokens",
        answers={200: dict[str, list[dict[str, str]]]},
    ),
    tag="auth", caller="anyone", answers={200: TokenOut},
)  # fmt: skip
