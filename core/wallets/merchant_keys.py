"""Merchants' API keys, and the signatures made with them (the wallet contract, section 1.14).

The check of an HMAC needs the secret itself, not a hash, so the secret is stored encrypted (AES-256-GCM) under
SECRETS_KEYS, or else MERCHANT_SECRET_KEYS, or JWT_SECRET where those are unset, and bound to its key's id.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal, Unavailable
from core.pem import blocks_of
from core.vault import RESEALED, Resealed
from core.wallets.merchants import require_merchant
from core.wallets.notifications import tell, write
from core.wallets.users import User, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from core.database import Database
    from core.platform import Platform
    from core.settings import Settings

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

READ_TRANSACTIONS: Final = "transactions:read"
# A merchant has a key for each till, and room for replacements.
MAX_KEYS: Final = 100
# The contract's bound on how far the time of a signature may be off.
WINDOW_SECONDS: Final = 300
# A time that lies WINDOW_SECONDS ahead is valid for twice as long; 60 s are for clocks that differ.
REMEMBERED_SECONDS: Final = 2 * WINDOW_SECONDS + 60

_NONCE_BYTES: Final = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,12}")
_PURPOSE: Final = b"merchant-secrets"


class MerchantKey(NamedTuple):
    """A merchant's key without its secret."""

    key_id: str
    created_at: datetime


class Signed(NamedTuple):
    """A signed call: its three headers, the path without its query, the body."""

    key_id: str
    seconds: str
    signature: str
    path: str
    body: bytes


async def create_key(platform: Platform, user: User) -> tuple[str, str]:
    """Make a key; return its id and its secret, which is never shown again.

    Raises Refusal `merchant_only`, and `invalid_request` when there are MAX_KEYS.
    """
    require_merchant(user, "merchant_only")
    key_id, secret = secrets.token_hex(8), secrets.token_hex(16)
    sealed = seal(platform.settings, key_id, secret)
    async with platform.database.transaction() as connection:
        made = await connection.fetchval(_sql.create_merchant_key, key_id, user.id, sealed, MAX_KEYS)
        if made is None:
            raise Refusal("invalid_request", f"There are {MAX_KEYS} keys already. Delete one first.")
        data = {"key_id": key_id}
        await record(connection, audited("merchant_keys.create", by_user(user.id), data, user_id=user.id))
        await write(connection, tell(user, "merchant_keys.create", data, object_id=key_id))
    platform.wake()
    return key_id, secret


async def list_keys(platform: Platform, user: User) -> list[MerchantKey]:
    """Return the merchant's keys, newest first. Raises Refusal `merchant_only`."""
    require_merchant(user, "merchant_only")
    rows = await platform.database.fetch(_sql.list_merchant_keys, user.id, MAX_KEYS)
    return [MerchantKey(row["key_id"], row["created_at"]) for row in rows]


async def delete_key(platform: Platform, user: User, key_id: str) -> None:
    """End a key. Raises Refusal `merchant_only`, and `merchant_key_not_found`, for another merchant's key too."""
    require_merchant(user, "merchant_only")
    async with platform.database.transaction() as connection:
        if await connection.fetchval(_sql.delete_merchant_key, key_id, user.id) is None:
            raise Refusal("merchant_key_not_found", "You have no such key.")
        data = {"key_id": key_id}
        await record(connection, audited("merchant_keys.delete", by_user(user.id), data, user_id=user.id))
        await write(connection, tell(user, "merchant_keys.delete", data, object_id=key_id))
    platform.wake()


async def authenticate(platform: Platform, call: Signed, scope: str) -> User:
    """Return the user whose key has signed a call, once: the same signature does not count again.

    The contract signs time and path; a signature over time, path and body is accepted, too. PostgreSQL keeps the used
    signatures, so that the rule holds while Redis is away. Raises Refusal `invalid_signature`, and
    `insufficient_scope`.
    """
    if not _KEY_ID.fullmatch(call.key_id) or not _SECONDS.fullmatch(call.seconds):
        raise _invalid()
    if abs(time.time() - int(call.seconds)) > WINDOW_SECONDS:
        raise _invalid()
    row = await platform.database.fetchrow(_sql.find_merchant_key, call.key_id)
    # An unknown key takes as long as a known one, and fails at the same place.
    secret = "" if row is None else unseal(platform.settings, call.key_id, row["sealed_secret"])
    good = is_signed(secret or secrets.token_hex(16), call)
    if row is None or not secret or not good:
        raise _invalid()
    digest = hashlib.sha256(f"{call.key_id}\0{call.signature}".encode()).digest()
    if await platform.database.fetchval(_sql.use_signature, digest, float(REMEMBERED_SECONDS)) is None:
        raise _invalid()
    user = user_of(row)
    if scope not in row["scope"].replace(",", " ").split() or not user.is_merchant:
        raise Refusal("insufficient_scope", f"This key does not have the scope {scope}.")
    return user


def is_signed(secret: str, call: Signed) -> bool:
    """Whether the signature is the hex HMAC-SHA256 of time and path, or of time, path and body."""
    given = call.signature.encode("utf-8", "surrogateescape")
    message = f"{call.seconds}{call.path}".encode()
    plain, whole = (
        hmac.compare_digest(hmac.digest(secret.encode(), text, "sha256").hex().encode(), given)
        for text in (message, message + call.body)
    )
    return plain or whole


def seal(settings: Settings, key_id: str, secret: str) -> bytes:
    """Encrypt a secret under the newest key, for the row of `key_id` alone. Raises Unavailable without any key."""
    key = next(_keys(settings), None)
    if key is None:
        raise Unavailable("Merchants' keys are off: SECRETS_KEYS is not set.")
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret.encode(), key_id.encode())


def unseal(settings: Settings, key_id: str, sealed: bytes) -> str:
    """Decrypt a secret with the key that it was encrypted under; return "" when that key is not set any more."""
    for key in _keys(settings):
        try:
            plain = AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key_id.encode())
        except InvalidTag:
            continue
        return plain.decode()
    _log.error("merchant_key.sealed_under_another_key", key_id=key_id)
    return ""


async def reseal(database: Database, settings: Settings) -> Resealed:
    """Seal all secrets anew under the newest key."""
    done = lost = 0
    after = ""
    while rows := await database.fetch(_sql.sealed_merchant_keys, after, RESEALED):
        for row in rows:
            after = row["key_id"]
            secret = unseal(settings, after, row["sealed_secret"])
            if not secret:
                lost += 1
                continue
            sealed = seal(settings, after, secret)
            done += await database.execute(_sql.reseal_merchant_key, after, row["sealed_secret"], sealed)
    return Resealed(done, lost)


def _keys(settings: Settings) -> Iterator[bytes]:
    """Yield the keys, newest first; the tokens' keys come last, for secrets sealed before there were others."""
    pem = settings.jwt_rs_private_pem
    keys = (*settings.secrets_keys, *settings.merchant_secret_keys, settings.jwt_secret)
    # Once secrets were sealed under the text of all RSA keys together.
    for text in (*keys, *blocks_of(pem), pem, *settings.jwt_secret_previous):
        if text:
            yield hashlib.blake2b(text.encode(), digest_size=32, person=_PURPOSE).digest()


def _invalid() -> Refusal:
    return Refusal(
        "invalid_signature", "The key, the time or the signature is wrong, or the signature was used before."
    )
