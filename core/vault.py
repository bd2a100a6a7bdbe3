"""Secrets at rest: texts that we have to know ourselves, encrypted under keys that are not in the database.

A signature is computed with the secret itself, so a hash would not do. AES-256-GCM binds each text to its owner, so
that nobody who can write rows can hand one endpoint the secret of another. Without any key texts are stored as they
are: in development, and in a service from before there were keys, whose texts are read as before.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import Unavailable
from core.rotation import uses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.settings import Settings

log = structlog.get_logger(__name__)

# A stored text that begins so is sealed. No secret may begin so: see `core.outbox.signing.check_own_secret`.
PREFIX: Final = "sealed:v1:"
# Rows that one statement reads when all are sealed anew.
RESEALED: Final = 500
_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"secrets-at-rest"


class Resealed(NamedTuple):
    """The counts of a run that seals all secrets anew: rows that were, and rows that no key opens."""

    done: int
    lost: int


class SealedError(Unavailable):
    """The text is sealed under a key that is not set any more."""

    def __init__(self) -> None:
        super().__init__("A secret is sealed under a key that is not among SECRETS_KEYS.", retry_after=60.0)


class Vault:
    """The keys of one deployment: the first seals, all open."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._ciphers = [
            AESGCM(hashlib.blake2b(key.encode(), digest_size=32, person=_PURPOSE).digest()) for key in keys
        ]

    @classmethod
    def of(cls, settings: Settings) -> Vault:
        """Read SECRETS_KEYS."""
        return cls(settings.secrets_keys)

    @property
    def has_keys(self) -> bool:
        """Whether texts are sealed at all."""
        return bool(self._ciphers)

    def seal(self, text: str, owner: str) -> str:
        """Return `text` as it is stored for `owner` alone, a name such as `endpoint:<id>`."""
        if not self._ciphers:
            return text
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._ciphers[0].encrypt(nonce, text.encode(), owner.encode())
        return PREFIX + base64.b64encode(sealed).decode()

    def open(self, stored: str, owner: str) -> str:
        """Return the text of `owner`; one that was stored as it is comes back as it is. Raises SealedError."""
        if not stored.startswith(PREFIX):
            return stored
        for place, cipher in enumerate(self._ciphers):
            try:
                sealed = base64.b64decode(stored.removeprefix(PREFIX), validate=True)
                text = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode()).decode()
            except (InvalidTag, ValueError):  # another key, or a text that was cut or altered
                continue
            uses.used(uses.SECRETS_KEYS, place)
            return text
        log.error("secret.sealed_under_another_key", owner=owner)
        raise SealedError

    def reseal(self, stored: str, owner: str) -> str:
        """Return a stored text sealed anew under the first key. Raises SealedError for one that no key opens."""
        return self.seal(self.open(stored, owner), owner)
