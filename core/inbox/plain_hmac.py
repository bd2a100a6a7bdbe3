"""Plain signatures: one header with the HMAC of the raw body, in hex or base64, behind a fixed prefix.

Most senders outside Standard Webhooks sign so. Such a signature covers no time: a recorded request stays genuine for
ever, and only its event id shows that it is a repetition.
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from core.inbox.verifying import NotGenuine, tokens_of
from core.rotation import uses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The key is a text of so many characters; a shorter one can be guessed from one recorded request.
MIN_SECRET_LENGTH: Final = 16
MAX_SECRET_LENGTH: Final = 256
MAX_PREFIX_LENGTH: Final = 32

_SIZES: Final = {"sha256": 32, "sha512": 64}
_SECRET = re.compile(rf"[\x21-\x7e]{{{MIN_SECRET_LENGTH},{MAX_SECRET_LENGTH}}}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")


class Scheme(msgspec.Struct, frozen=True):
    """The form of one source's signatures. SHA-1 is not among the algorithms, because it is broken."""

    header: str
    algorithm: Literal["sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""


def verify(body: bytes, headers: Mapping[str, str], scheme: Scheme, secrets: Sequence[str]) -> None:
    """Check a request's signature under every secret. Raises NotGenuine."""
    header = headers.get(scheme.header.lower(), "")
    if not header:
        raise NotGenuine("header_missing")
    signatures = _signatures(header, scheme)
    if not signatures:
        raise NotGenuine("header_malformed")
    for place, secret in enumerate(secrets):
        expected = hmac.digest(secret.encode(), body, scheme.algorithm)
        if any(hmac.compare_digest(expected, signature) for signature in signatures):
            uses.used(uses.SOURCE, place)
            return
    raise NotGenuine("signature_mismatch")


def check_secret(secret: str) -> None:
    """Raise ValueError for a secret that is too short or too long, or has characters other than visible ASCII."""
    if _SECRET.fullmatch(secret) is None:
        raise ValueError(f"it has {MIN_SECRET_LENGTH} to {MAX_SECRET_LENGTH} visible ASCII characters")


def _signatures(header: str, scheme: Scheme) -> list[bytes]:
    """Return the signatures of this form. The whole header comes first, as a prefix may hold blanks and commas."""
    found = [_decoded(token, scheme) for token in (header, *tokens_of(header))]
    return [raw for raw in found if raw is not None and len(raw) == _SIZES[scheme.algorithm]]


def _decoded(header: str, scheme: Scheme) -> bytes | None:
    # 64 bytes have 128 hex digits; nothing longer can be a signature.
    if not header.startswith(scheme.prefix) or len(header) > MAX_PREFIX_LENGTH + 128:
        return None
    text = header.removeprefix(scheme.prefix)
    if scheme.encoding == "hex":
        return bytes.fromhex(text) if _HEX.fullmatch(text) else None
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one; other characters than ASCII are another
        return None
