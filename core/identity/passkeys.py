"""Passkeys (WebAuthn): registration and use are each proven by a signature over a challenge of ours, good once.

https://www.w3.org/TR/webauthn-3/, sections 7.1 and 7.2; the verification itself is py_webauthn's. py_webauthn is
imported with the first proof: it brings CBOR and ASN.1, which are a tenth of what a process imports at its start.
"""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from uuid import UUID

from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from core.database import Database
    from core.identity.memory import Memory
    from core.settings import Settings
    from core.wallets.users import User

T = TypeVar("T")

_sql = queries(__name__)

CHALLENGE_BYTES: Final = 32  # 43 characters
LEAST_ID_CHARACTERS: Final = 8  # of the contract
MAX_OF_USER: Final = 20


class Challenge(NamedTuple):
    """A challenge that an authenticator has to sign, with the id and the name of the relying party."""

    text: str
    rp_id: str
    rp_name: str


class Passkey(NamedTuple):
    """A passkey as its owner sees it; `id` is base64url without padding, as browsers write it."""

    id: str
    created_at: datetime
    used_at: datetime | None


class Passkeys:
    """The passkeys of all users. Every method raises Refusal `passkeys_disabled` when PASSKEYS_ENABLED is off."""

    def __init__(self, settings: Settings, database: Database, memory: Memory) -> None:
        self._settings = settings
        self._database = database
        self._memory = memory

    async def challenge(self, kind: str, user: User | None) -> Challenge:
        """Return a challenge for `kind` (register or login), bound to `user` where there is one.

        Raises Refusal `sign_in_waits`.
        """
        self.check_enabled()
        text = _text_of(secrets.token_bytes(CHALLENGE_BYTES))
        await self._memory.keep_challenge(kind, text, "" if user is None else str(user.id))
        return Challenge(text, self._settings.passkeys_rp_id, self._settings.passkeys_rp_name)

    async def register(self, user: User, given: Mapping[str, Any]) -> None:
        """Store the passkey whose attestation is in `given`, as browsers write it (RegistrationResponseJSON).

        Raises Refusal `passkey_invalid` without an id, `passkey_not_verified`, `sign_in_waits`, and `token_invalid`
        where all sign-ins of the user were ended meanwhile.
        """
        self.check_enabled()
        import webauthn  # noqa: PLC0415 - see above

        credential = _credential(given)
        challenge = await self._challenge_of("register", credential, user.id)
        found = _proven(
            lambda: webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._settings.passkeys_rp_id,
                expected_origin=list(self._settings.passkeys_origin),
                require_user_verification=True,
            )
        )
        async with self._database.transaction() as connection:
            # The end of all sign-ins locks the same row, so a passkey comes before it, and goes with it, or not at all.
            if await connection.fetchrow(_sql.lock_signed_in, user.id, user.tokens_valid_from) is None:
                raise Refusal("token_invalid", "This sign-in was ended. Sign in again.")
            added = await connection.fetchrow(
                _sql.add_passkey,
                found.credential_id,
                user.id,
                found.credential_public_key,
                found.sign_count,
                MAX_OF_USER,
            )
            if added is None:
                raise _not_verified("It is registered already, or there are as many as one may have.")
            data = {"credential_id": _text_of(found.credential_id)}
            await record(connection, audited("auth.passkey_added", by_user(user.id), data, user_id=user.id))

    async def of_user(self, user: User) -> list[Passkey]:
        """Return the passkeys of a user, newest first."""
        self.check_enabled()
        rows = await self._database.fetch(_sql.passkeys_of, user.id)
        return [Passkey(_text_of(row["credential_id"]), row["created_at"], row["used_at"]) for row in rows]

    async def remove(self, user: User, passkey_id: str) -> None:
        """Remove one of a user's passkeys, which then signs nobody in. Raises Refusal `passkey_not_found`."""
        self.check_enabled()
        try:
            credential_id = _bytes_of(passkey_id.rstrip("="))
        except ValueError:
            raise _unknown() from None
        async with self._database.transaction() as connection:
            if await connection.fetchrow(_sql.remove_passkey, credential_id, user.id) is None:
                raise _unknown()
            data = {"credential_id": _text_of(credential_id)}
            await record(connection, audited("auth.passkey_removed", by_user(user.id), data, user_id=user.id))

    async def check(self, given: Mapping[str, Any]) -> UUID:
        """Return the user whose passkey has signed `given`, as browsers write it (AuthenticationResponseJSON).

        Raises Refusal `passkey_invalid` without an id, `passkey_not_found`, `passkey_not_verified`, `sign_in_waits`.
        """
        self.check_enabled()
        import webauthn  # noqa: PLC0415 - see above

        credential = _credential(given)
        credential_id = _proven(lambda: _bytes_of(credential["rawId"]))
        row = await self._database.fetchrow(_sql.find_passkey, credential_id)
        if row is None:
            raise _unknown()
        user_id: UUID = row["user_id"]
        challenge = await self._challenge_of("login", credential, user_id)
        found = _proven(
            lambda: webauthn.verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._settings.passkeys_rp_id,
                expected_origin=list(self._settings.passkeys_origin),
                credential_public_key=row["public_key"],
                credential_current_sign_count=row["sign_count"],
                require_user_verification=True,
            )
        )
        if await self._database.fetchrow(_sql.use_passkey, credential_id, found.new_sign_count) is None:
            raise _not_verified("It has been used with this count before.")
        return user_id

    def check_enabled(self) -> None:
        """Raise Refusal `passkeys_disabled` when passkeys are off."""
        if not self._settings.passkeys_enabled:
            raise Refusal("passkeys_disabled", "Passkeys are off here.")

    async def _challenge_of(self, kind: str, credential: Mapping[str, Any], user_id: UUID) -> bytes:
        """Take the challenge that the client claims to have signed; a bad proof uses it up, too."""
        from webauthn.helpers import parse_client_data_json  # noqa: PLC0415 - see above

        response = credential.get("response")
        if not isinstance(response, dict):
            raise _not_verified("Send the whole answer of the authenticator, with its `response`.")
        signed = _proven(lambda: parse_client_data_json(_bytes_of(response["clientDataJSON"])).challenge)
        whose = await self._memory.take_challenge(kind, _text_of(signed))
        if whose is None or whose not in {"", str(user_id)}:
            raise _not_verified("Its challenge is not ours, was used, or is too old.")
        return signed


def _text_of(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes_of(text: str) -> bytes:
    # The decoder wants padding, which base64url leaves out, and takes no offence at too much of it.
    return base64.urlsafe_b64decode(f"{text}===")


def _credential(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the credential in the standard's names; the contract's clients call its id `credentialId`."""
    name = given.get("credentialId") or given.get("id")
    if not isinstance(name, str) or len(name) < LEAST_ID_CHARACTERS:
        raise Refusal("passkey_invalid", "A credential has an id of 8 characters or more.")
    name = name.rstrip("=")
    raw = given.get("rawId")
    return {
        "id": name,
        "rawId": raw.rstrip("=") if isinstance(raw, str) else name,
        "type": given.get("type") or "public-key",
        "response": given.get("response"),
    }


def _proven(check: Callable[[], T]) -> T:
    """Return the result of a check. The check reads a stranger's bytes, so any error is the stranger's fault."""
    try:
        return check()
    except Exception as error:
        raise _not_verified("The proof does not hold.") from error


def _unknown() -> Refusal:
    return Refusal("passkey_not_found", "There is no such passkey.")


def _not_verified(why: str) -> Refusal:
    return Refusal("passkey_not_verified", f"The passkey was not verified. {why}")
