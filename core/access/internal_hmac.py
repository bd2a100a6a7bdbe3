"""Signatures of sibling services (the wallet contract, section 1.13), and what each of them was used for.

Signed are a text that the caller sends as a time, and the payload as compact JSON. That text may be anything, and the
operation and the idempotency key are not signed. So the first use of a signature settles both, for good: with a key,
the same call may come again and gets the stored answer; anything else is refused. PostgreSQL remembers it, since no
cache that may lose it can decide whether money moves twice.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Database
    from core.settings import Settings

_sql = queries(__name__)

# Seconds since 1970, of this century; what sibling services send in its place are UUIDs and hex digits.
_UNIX_SECONDS: Final = re.compile(r"[0-9]{9,10}(\.[0-9]{1,9})?", re.ASCII)
# Of the operation's text: a method and a path.
MAX_OPERATION: Final = 100
FORGET_BATCH: Final = 1_000
FORGET_SECONDS: Final = 60.0


class Credentials(NamedTuple):
    """What a caller sends: X-Internal-Sign, X-Internal-Ts, X-Internal-Secret."""

    sign: str | None
    ts: str | None
    secret: str | None


class Signature(NamedTuple):
    """A good signature; `forget_at` is when it is too old to be accepted again, None for one that has no time."""

    digest: bytes
    forget_at: datetime | None


def signature_of(secret: str, ts: str, payload: Any) -> str:
    """Return the signature of a payload: hex HMAC-SHA256 over the text of `ts` and the payload as compact JSON.

    >>> signature_of("secret", "1700000000", {"phone": "+963900000001"})[:16]
    'b88a8754c2a97b7c'
    """
    message = _bytes(ts) + json.dumps(payload, separators=(",", ":")).encode("ascii")
    return hmac.new(_bytes(secret), message, hashlib.sha256).hexdigest()


def check(
    settings: Settings, credentials: Credentials, payloads: Sequence[Any], *, now: datetime
) -> Signature | None:
    """Return the signature of one of `payloads`; None for a caller who may come with the plain secret, and does.

    Where both halves of a signature are there, nothing else counts. Raises Refusal `forbidden`.
    """
    secret = str(settings.internal_api_secret)
    if not secret:
        raise Refusal("not_found", "There is no internal API here.")
    sign, ts, plain = credentials
    if not sign or not ts:
        if plain and not settings.internal_require_hmac and _same(plain, secret):
            return None
        raise _forbidden()
    good = [expected for payload in payloads if _same(sign, expected := signature_of(secret, ts, payload))]
    if not good:
        raise _forbidden()
    forget_at = None
    if _UNIX_SECONDS.fullmatch(ts):
        life = timedelta(seconds=settings.internal_hmac_ttl_secs)
        sent_at = datetime.fromtimestamp(float(ts), UTC)
        if abs(now - sent_at) > life:
            raise _forbidden()
        forget_at = sent_at + 2 * life
    return Signature(bytes.fromhex(good[0]), forget_at)


async def use(
    database: Database,
    settings: Settings,
    signature: Signature,
    operation: str,
    key: str | None,
    *,
    writes: bool,
) -> None:
    """Use a signature for `operation` under a key: once, or again for the same under the same key.

    What `writes` is remembered for as long as the signature could be accepted, so for good where it has no time; a
    read, which does no harm, for INTERNAL_HMAC_TTL_SECS. Raises Refusal `forbidden` for any other second use.
    """
    forget_at = signature.forget_at
    if forget_at is None and not writes:
        forget_at = datetime.now(UTC) + timedelta(seconds=settings.internal_hmac_ttl_secs)
    row = await database.fetchrow(_sql.use_internal_signature, signature.digest, operation, key, forget_at)
    if row is None:
        raise LookupError("an upsert has a row")
    again = row["uses"] > 1
    if again and (key is None or (row["operation"], row["idempotency_key"]) != (operation, key)):
        raise _forbidden()


async def forget_signatures(database: Database) -> int:
    """Forget what is too old to be accepted again, a bounded number at a time; return how many."""
    return await database.execute(_sql.forget_signatures, FORGET_BATCH)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(_bytes(given), _bytes(expected))


def _bytes(text: str) -> bytes:
    """Return the bytes that a header's text came as."""
    return text.encode("utf-8", "surrogateescape")


def _forbidden() -> Refusal:
    return Refusal("forbidden", "This call is not signed as it should be, or its signature was used before.")
