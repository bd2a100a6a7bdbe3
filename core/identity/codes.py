"""Sign-in codes, each stored as a digest and good for one sign-in; the wallet contract (section 2) has their states.

The limits are those of the phone. A client's address is only a second, looser bound, because a gateway that does not
name its clients must not lock everybody out. Tries of a code's owner (who knows its session, or has asked for it from
the same address) are counted apart from strangers' guesses, so that no stranger locks an owner out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from typing import TYPE_CHECKING, Final

from core.access.addresses import bucket
from core.errors import Refusal
from core.identity.memory import limited
from core.phones import normalized, western
from core.rotation import uses

if TYPE_CHECKING:
    from core.identity.memory import Memory
    from core.identity.tokens import Tokens
    from core.settings import Settings

DIGITS: Final = 6
SESSION_BYTES: Final = 16  # 22 characters
MAX_SESSION_CHARACTERS: Final = 64
MAX_TYPED: Final = 64
# The contract's numbers: sends to one phone within a window, and the time for which failures are counted.
SENDS: Final = 3
SEND_SECONDS: Final = 900
FAILURE_SECONDS: Final = 3_600

_CODE = re.compile(rf"[0-9]{{{DIGITS}}}")
_RIGHT, _WRONG, _LOCKED, _ABSENT = range(4)  # as in code_check.lua


class Codes:
    """The codes of OTP_MODE=redis. `is_dev_code` knows the fixed code of development."""

    def __init__(self, settings: Settings, tokens: Tokens, memory: Memory) -> None:
        self._settings = settings
        self._memory = memory
        own = tuple(str(secret).encode() for secret in settings.otp_storage_secret)
        # The first key stores; a code that was stored under another one counts as long as that is named.
        self._keys = own or tokens.keys.derive_all("sign-in codes")

    @property
    def dev(self) -> bool:
        """Whether one fixed code is good for every phone; in prod it never is, whatever the mode says."""
        return self._settings.otp_mode == "dev" and self._settings.env != "prod"

    def is_dev_code(self, code: str) -> bool:
        """Whether `code`, in any script's digits, is the fixed code of development."""
        fixed = str(self._settings.otp_dev_code).encode()
        return any(hmac.compare_digest(typed.encode(), fixed) for typed in (code, _plain(code)))

    async def make(self, phone: str, address: str) -> tuple[str, str]:
        """Store a new code for `phone`; return its session and the code.

        Raises Refusal `otp_limited`, `sign_in_waits`.
        """
        settings = self._settings
        wait = await self._memory.bound(
            f"sends:{bucket(address)}", settings.otp_client_sends, SEND_SECONDS, add=True
        )
        if wait > 0:
            raise limited("otp_limited", "Too many codes were sent for this address.", wait)
        session = new_session()
        code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"
        digest = self._digest(phone, code)
        wait_ms: int = await self._memory.run(
            "code_store",
            self._name(phone),
            session,
            digest,
            settings.otp_ttl_secs,
            SENDS,
            SEND_SECONDS,
            self._asker(address),
        )
        if wait_ms > 0:
            raise limited("otp_limited", "Too many codes were sent to this phone.", wait_ms / 1000)
        return session, code

    async def forget(self, phone: str, session: str) -> None:
        """Take back a code that could not be sent, and do not count the send. Raises Refusal `sign_in_waits`."""
        await self._memory.run("code_forget", self._name(phone), session)

    async def check(self, phone: str, code: str, session: str, address: str) -> None:
        """Use up the code of `session`, or of the newest one where `session` is empty: the address's, else the phone's.

        A text that is no code, whatever it is, was a slip of the keyboard and no try.
        Raises Refusal `invalid_otp`, `otp_locked`, `sign_in_waits`.
        """
        settings, typed = self._settings, _plain(code)
        if _CODE.fullmatch(typed) is None:
            raise wrong_code()
        client, most = f"failures:{bucket(address)}", settings.otp_client_failures
        wait = await self._memory.bound(client, most, FAILURE_SECONDS, add=False)
        if wait > 0:
            raise limited("otp_locked", "Too many wrong codes from this address.", wait)
        if len(session) > MAX_SESSION_CHARACTERS:
            raise wrong_code()
        verdict, locked_ms = await self._try(phone, typed, session, address)
        if verdict == _LOCKED:
            raise limited("otp_locked", "Too many wrong codes for this phone.", locked_ms / 1000)
        if verdict != _RIGHT:
            await self._memory.bound(client, most, FAILURE_SECONDS, add=True)
            raise wrong_code()

    async def _try(self, phone: str, typed: str, session: str, address: str) -> tuple[int, int]:
        """Try a code under the first key, and under each earlier one where nothing is stored under those before it."""
        verdict, locked_ms = _ABSENT, 0
        for place, key in enumerate(self._keys):
            verdict, locked_ms = await self._memory.run(
                "code_check",
                self._name(phone, key),
                session,
                self._digest(phone, typed, key),
                self._settings.otp_max_attempts,
                FAILURE_SECONDS,
                self._asker(address, key),
            )
            if verdict == _RIGHT:
                uses.used(uses.OTP_STORAGE, place)
            if verdict != _ABSENT:
                break
        return verdict, locked_ms

    def _name(self, phone: str, key: bytes | None = None) -> str:
        """Return a phone's name in Redis, a digest, because Redis keeps no personal data."""
        return f"phone:{self._mac(normalized(phone), key)[:32]}"

    def _asker(self, address: str, key: bytes | None = None) -> str:
        return self._mac(f"address:{bucket(address)}", key)[:16]

    def _digest(self, phone: str, code: str, key: bytes | None = None) -> str:
        return self._mac(f"{normalized(phone)}|{code}", key)

    def _mac(self, text: str, key: bytes | None = None) -> str:
        return hmac.new(key or self._keys[0], text.encode(), hashlib.sha256).hexdigest()


def _plain(code: str) -> str:
    """Return a typed code with the digits 0 to 9, without blanks, dashes and marks that nobody sees."""
    return "".join(
        character
        for character in western(code[:MAX_TYPED])
        if not character.isspace() and unicodedata.category(character) not in {"Cf", "Pd"}
    )


def new_session() -> str:
    """Return a random name for a sign-in by code: 22 characters that a URL may hold."""
    return secrets.token_urlsafe(SESSION_BYTES)


def wrong_code() -> Refusal:
    """Return the refusal of a code, which does not tell the cause."""
    return Refusal("invalid_otp", "The code is wrong, was used, or is too old. Ask for a new one.")
