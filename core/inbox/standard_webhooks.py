"""Standard Webhooks (https://www.standardwebhooks.com, v1.0.0) on the receiving side: v1 (HMAC) and v1a (ed25519).

The signed content is `{id}.{timestamp}.{body}`. The public library is not used: it knows no v1a, takes one secret, and
raises ValueError for a signature without a comma.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets as randomness
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from core.inbox.verifying import NotGenuine
from core.rotation import uses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
# Svix, whose form became the standard, still sends names with this prefix.
_OLD_PREFIX: Final = "svix-"
HEADERS: Final = (
    ID, TIMESTAMP, SIGNATURE,
    *(name.replace("webhook-", _OLD_PREFIX) for name in (ID, TIMESTAMP, SIGNATURE)),
)  # fmt: skip

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
PUBLIC_PREFIX: Final = "whpk_"
# The standard's bounds for the key of an HMAC, in bytes.
MIN_KEY_BYTES: Final = 24
MAX_KEY_BYTES: Final = 64
NEW_KEY_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32

TOLERANCE_SECONDS: Final = 300
# A sender that rotates signs with two keys; nobody has more than eight of each version.
MAX_SIGNATURES: Final = 16
MAX_HEADER_LENGTH: Final = 2048

_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,255}")
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}")
# One signature of a version that we know, with the length that it has in base64: 32 bytes of HMAC, 64 of ed25519. The
# comma within a signature also stands between two, where a proxy has joined a header that came twice.
_SIGNATURES = re.compile(r"(?<![^ \t,])(?:(v1),([A-Za-z0-9+/]{43}=)|(v1a),([A-Za-z0-9+/]{86}==))(?![^ \t,])")

Check: TypeAlias = Callable[[bytes, bytes], bool]


class Key(NamedTuple):
    """One key of a source: the version of its signatures, and the check of (signature, content)."""

    version: str
    matches: Check


class Signed(NamedTuple):
    """The id of a genuine message, and the time of this attempt at it in Unix seconds."""

    message_id: str
    timestamp: int


def secret_key(secret: str) -> Key:
    """Return the key of a `whsec_` secret. Raises ValueError for any other text."""
    key = _decoded(secret, SECRET_PREFIX)
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"a secret is whsec_ and {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random bytes in base64")

    def matches(signature: bytes, content: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(key, content, "sha256"), signature)

    return Key("v1", matches)


def public_key(text: str) -> Key:
    """Return the key of a `whpk_` public key. Raises ValueError for any other text."""
    raw = _decoded(text, PUBLIC_PREFIX)
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ValueError(f"a public key is whpk_ and {PUBLIC_KEY_BYTES} bytes in base64")
    key = Ed25519PublicKey.from_public_bytes(raw)

    def matches(signature: bytes, content: bytes) -> bool:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            return False
        return True

    return Key("v1a", matches)


def new_secret() -> str:
    """Return a random secret: `whsec_` and 32 bytes in base64."""
    return SECRET_PREFIX + base64.b64encode(randomness.token_bytes(NEW_KEY_BYTES)).decode()


def verify(body: bytes, headers: Mapping[str, str], keys: Sequence[Key], now: float) -> Signed:
    """Check a request and return its id and time. Raises NotGenuine.

    Every key is tried with every signature of its version; other versions are ignored. The time of the attempt may be
    TOLERANCE_SECONDS away from `now` (Unix seconds) on either side.
    """
    message_id, timestamp, signature = (_header(headers, name) for name in (ID, TIMESTAMP, SIGNATURE))
    if not (message_id and timestamp and signature):
        raise NotGenuine("header_missing")
    if _ID.fullmatch(message_id) is None or _TIMESTAMP.fullmatch(timestamp) is None:
        raise NotGenuine("header_malformed")
    if abs(int(now) - int(timestamp)) > TOLERANCE_SECONDS:
        raise NotGenuine("timestamp_outside_tolerance")
    signatures = _signatures(signature)
    content = f"{message_id}.{timestamp}.".encode() + body
    for place, key in enumerate(keys):
        if any(key.version == version and key.matches(raw, content) for version, raw in signatures):
            uses.used(uses.SOURCE, place)
            return Signed(message_id, int(timestamp))
    raise NotGenuine("signature_mismatch")


def _header(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name) or headers.get(name.replace("webhook-", _OLD_PREFIX), "")


def _signatures(header: str) -> list[tuple[str, bytes]]:
    """Return every signature of a known version. All else is ignored, because the standard may grow versions."""
    if len(header) > MAX_HEADER_LENGTH:
        raise NotGenuine("header_too_long")
    found = [
        (match[1] or match[3], base64.b64decode(match[2] or match[4]))
        for match in _SIGNATURES.finditer(header)
    ]
    if not 1 <= len(found) <= MAX_SIGNATURES:
        raise NotGenuine("header_malformed")
    return found


def _decoded(text: str, prefix: str) -> bytes:
    if not text.startswith(prefix):
        raise ValueError(f"it begins with {prefix}")
    try:
        return base64.b64decode(text.removeprefix(prefix), validate=True)
    except ValueError:  # binascii.Error is one
        raise ValueError(f"what follows {prefix} is not base64") from None
