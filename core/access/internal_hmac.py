"""Signatures of sibling services (the wallet contract, section 1.13), and the one use of each.

A signature covers a text that the caller sends as a time, and the payload as compact JSON. That text may be anything,
and the operation and the idempotency key are not signed. So the first use of a signature settles both, for good: the
same call under the same key gets the stored answer, and any other use is refused. PostgreSQL keeps the use, since a
cache that may lose it cannot decide whether money moves twice.
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
from core.rotation import uses
from core.times import from_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Database
    from core.settings import Settings

_sql = queries(__name__)

# A time is seconds since 1970, in this century. Sibling services also send UUIDs and hex digits in its place.
_UNIX_SECONDS: Final = re.compile(r"[0-9]{9,10}(\.[0-9]{1,9})?", re.ASCII)
# An operation is a method and a path, of so many characters at most.
MAX_OPERATION: Final = 100
FORGET_BATCH: Final = 1_000
FORGET_SECONDS: Final = 60.0


class Credentials(NamedTuple):
    """The headers of a caller: X-Internal-Sign, X-Internal-Ts, X-Internal-Secret."""

    sign: str | None
    ts: str | None
    secret: str | None


class Signature(NamedTuple):
    """A good signature. It is too old to be accepted again at `forget_at`; None: it has no time."""

    digest: bytes
    forget_at: datetime | None


def signature_of(secret: str, ts: str, payload: Any) -> str:
    """Return the signature of a payload: hex HMAC-SHA256 over the text of `ts` and the payload as compact JSON.

    >>> signature_of("secret", "1700000000", {"phone": "+963900000001"})[:16]
    'b88a8754c2a97b7c'
    """
    return _signature_of(_bytes(secret), ts, payload)


def check(
    settings: Settings, credentials: Credentials, payloads: Sequence[Any], *, now: datetime
) -> Signature | None:
    """Return the signature of one of `payloads`; None for a caller with the plain secret, where that is allowed.

    The plain secret does not count beside a signature with its time. Raises Refusal `forbidden`.
    """
    secrets = settings.internal_api_secret
    if not secrets:
        raise Refusal("not_found", "There is no internal API here.")
    sign, ts, plain = credentials
    if not sign or not ts:
        if (
            plain
            and not settings.internal_require_hmac
            and uses.matching(
                uses.INTERNAL_API, secrets, lambda secret: hmac.compare_digest(_bytes(plain), secret)
            )
        ):
            return None
        raise _forbidden()
    good: list[str] = []

    def signs(secret: bytes) -> bool:
        found = [_signature_of(secret, ts, payload) for payload in payloads]
        right = [expected for expected in found if _same(sign, expected)]
        good.extend(right)
        return bool(right)

    if uses.matching(uses.INTERNAL_API, secrets, signs) is None:
        raise _forbidden()
    forget_at = None
    if _UNIX_SECONDS.fullmatch(ts):
        life = timedelta(seconds=settings.internal_hmac_ttl_secs)
        sent_at = from_seconds(ts)
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
    """Use a signature for `operation` under a key, once, or again for the same operation under the same key.

    The use of an operation that `writes` is kept for as long as the signature can be accepted, so for good where it has
    no time; a read, which does no harm, for INTERNAL_HMAC_TTL_SECS. Raises Refusal `forbidden` for another use.
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
    """Forget signatures that are too old to be accepted again, a bounded number at a time; return the number."""
    return await database.execute(_sql.forget_signatures, FORGET_BATCH)


def _signature_of(secret: bytes, ts: str, payload: Any) -> str:
    message = _bytes(ts) + json.dumps(payload, separators=(",", ":")).encode("ascii")
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(_bytes(given), _bytes(expected))


def _bytes(text: str) -> bytes:
    """Return the bytes in which a header's text came."""
    return text.encode("utf-8", "surrogateescape")


def _forbidden() -> Refusal:
    return Refusal("forbidden", "This call is not signed as it should be, or its signature was used before.")
