"""Passkeys: registered, listed and removed by their owner, and used to sign in."""

from __future__ import annotations

from typing import Any

import msgspec
import pydantic
from aiohttp import hdrs, web

from core.errors import Refusal
from core.identity import sign_in
from core.identity.tokens import counts
from core.wallets.users import User
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.auth.parts import (
    SignInIn,
    TokenOut,
    claims_of,
    client_of,
    identity_of,
    token_out,
)
from handlers.wallets.contract import Detail, maybe_timestamp, platform_of, timestamp


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


async def passkey_register_challenge(call: Call) -> web.Response:
    """Give out a challenge for a new passkey of the caller."""
    user = call.user
    challenge = await identity_of(call).passkeys.challenge("register", user)
    told = RegisterChallengeOut(
        challenge.rp_id, challenge.rp_name, challenge.text, PasskeyUserOut(str(user.id), user.phone)
    )
    return answer(200, told)


async def passkey_register_verify(call: Call) -> web.Response:
    """Register a passkey of the caller."""
    await identity_of(call).passkeys.register(call.user, call.body.given())
    return answer(200, Detail("registered"))


async def list_passkeys(call: Call) -> web.Response:
    """List the caller's passkeys."""
    found = await identity_of(call).passkeys.of_user(call.user)
    listed = [PasskeyOut(one.id, timestamp(one.created_at), maybe_timestamp(one.used_at)) for one in found]
    return answer(200, PasskeysOut(listed))


async def remove_passkey(call: Call) -> web.Response:
    """Remove one of the caller's passkeys."""
    await identity_of(call).passkeys.remove(call.user, call.path("passkey"))
    return answer(200, Detail("removed"))


async def passkey_login_challenge(call: Call) -> web.Response:
    """Give out a challenge for a sign-in: for the caller's passkeys or, without a token, for any passkey."""
    challenge = await identity_of(call).passkeys.challenge("login", await _caller(call))
    return answer(200, LoginChallengeOut(challenge.text, challenge.rp_id))


async def passkey_login_verify(call: Call) -> web.Response:
    """Sign in with a passkey."""
    signed_in = await sign_in.passkey_log_in(identity_of(call), call.body.given(), client_of(call))
    return answer(200, token_out(signed_in))


async def _caller(call: Call) -> User | None:
    """Return the user who calls a route for anybody. A token that does not count is refused here, too."""
    if hdrs.AUTHORIZATION not in call.request.headers:
        return None
    claims = claims_of(call)
    user = await platform_of(call).users.by_id(claims.user_id, claims.session_id)
    if user is None or not counts(user, claims):
        raise Refusal("token_invalid", "This sign-in was ended. Sign in again.")
    return user


_PASSKEY = ("passkeys_disabled", "sign_in_waits")
_PROOF = ("passkey_invalid", "passkey_not_verified", *_PASSKEY)

ROUTES = table(
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
    tag="auth", caller="anyone", answers={200: TokenOut},
)  # fmt: skip
