"""The two signatures that every delivery carries, and the secrets that make them.

- Standard Webhooks (https://www.standardwebhooks.com, v1.0.0): `webhook-id`, `webhook-timestamp`, `webhook-signature`:
  `v1` (HMAC), and beside it `v1a` (ed25519) for an endpoint that asks for it, whose receiver then holds no secret.
- The wallet service's own form, which its merchants check already: `X-Webhook-Ts`, `X-Webhook-Event`, `X-Webhook-Sign`,
  `X-Delivery-ID`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets as randomness
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core import vault
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.vault import Vault

PREFIX: Final = "whsec_"
SIGNING_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"
# The bounds of Standard Webhooks for the key of an HMAC.
MIN_KEY_BYTES: Final = 24
MAX_KEY_BYTES: Final = 64
NEW_KEY_BYTES: Final = 32

_BEHIND: Final = "|"

# The wallet contract's bound in characters; its merchants bring a secret of their own.
MAX_OWN_SECRET: Final = 64

# Endpoints whose opened secrets a process keeps at hand.
KNOWN_SIGNERS: Final = 4_096

USER_AGENT: Final = "Payments-Webhooks/0.1"


def new_secret() -> str:
    """Return a random secret as it is shown to its owner: `whsec_` and 32 bytes in base64."""
    return PREFIX + _base64(randomness.token_bytes(NEW_KEY_BYTES))


def check_secret(secret: str) -> None:
    """Raise Refusal `invalid_request` unless `secret` is `whsec_` and 24 to 64 bytes in base64."""
    if not MIN_KEY_BYTES <= len(_decoded(secret) or b"") <= MAX_KEY_BYTES:
        raise Refusal(
            "invalid_request",
            f"A secret is whsec_ followed by {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random bytes in base64."
            " Leave it out and one is made for you.",
            field="secret",
        )


def new_signing_key() -> str:
    """Return a random private key of ed25519: `whsk_` and its 32 bytes in base64. It is never shown."""
    return SIGNING_PREFIX + _base64(Ed25519PrivateKey.generate().private_bytes_raw())


def public_key(signing_key: str) -> str:
    """Return the public key of a `whsk_` private one: `whpk_` and its 32 bytes in base64."""
    public = _private_key(signing_key).public_key()
    return PUBLIC_PREFIX + _base64(public.public_bytes_raw())


def sealed_signing_key(keys: Vault, signing_key: str, owner: str) -> str:
    """Return a private key as it is stored: sealed, behind the public one, which every read of an endpoint shows."""
    sealed = keys.seal(signing_key, owner)
    return signing_key if sealed == signing_key else f"{public_key(signing_key)}{_BEHIND}{sealed}"


def stored_public_key(stored: str) -> str:
    """Return the public key of a stored private one."""
    return stored.partition(_BEHIND)[0] if stored.startswith(PUBLIC_PREFIX) else public_key(stored)


def opened_signing_key(keys: Vault, stored: str, owner: str) -> str:
    """Return a stored private key. Raises SealedError."""
    return keys.open(stored.rpartition(_BEHIND)[2], owner)


def opened_secrets(
    keys: Vault, endpoint_id: UUID, secrets: Sequence[str], signing_keys: Sequence[str]
) -> dict[str, list[str]]:
    """Return an endpoint's stored secrets and private keys as `signed_headers` takes them. Raises SealedError."""
    owner = owner_of(endpoint_id)
    return {
        "secrets": [keys.open(stored, owner) for stored in secrets],
        "signing_keys": [opened_signing_key(keys, stored, owner) for stored in signing_keys],
    }


def owner_of(endpoint_id: UUID) -> str:
    """Return the name under which the secrets of an endpoint are sealed."""
    return f"endpoint:{endpoint_id}"


def check_own_secret(secret: str) -> None:
    """Raise Refusal `invalid_request` unless `secret` is what the wallet contract takes: any 1 to 64 characters."""
    if not 1 <= len(secret) <= MAX_OWN_SECRET or "\0" in secret or secret.startswith(vault.PREFIX):
        raise Refusal("invalid_request", f"A secret has 1 to {MAX_OWN_SECRET} characters.", field="secret")


def message_id(event_id: UUID) -> str:
    """Return the id of an event as receivers know it: the same at every endpoint and attempt, without a full stop."""
    return f"msg_{event_id.hex}"


class Signer:
    """An endpoint's opened secrets and private keys, newest first, read once for many deliveries."""

    def __init__(self, secrets: Sequence[str], signing_keys: Sequence[str] = ()) -> None:
        self._keys = [_key(secret) for secret in secrets]
        self._private_keys = [_private_key(key) for key in signing_keys]
        # The key of the wallet form is the whole text of the secret, as it is shown.
        self._wallet_key = secrets[-1].encode()

    def headers(
        self, *, identity: str, event_type: str, delivery_id: UUID, body: bytes, timestamp: int
    ) -> dict[str, str]:
        """Return the headers of one attempt at `timestamp` (Unix seconds, of the attempt and not of the event).

        `identity` is the `webhook-id`. Standard Webhooks carries one signature for each secret and key. The wallet form
        has room for one, made with the oldest secret: during a rotation its receiver still checks with the secret that
        it has.
        """
        content = f"{identity}.{timestamp}.".encode() + body
        signatures = [f"v1,{_base64(hmac.digest(key, content, 'sha256'))}" for key in self._keys]
        signatures += [f"v1a,{_base64(key.sign(content))}" for key in self._private_keys]
        wallet_content = f"{timestamp}{event_type}".encode() + body
        return {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": identity,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
            "X-Webhook-Ts": str(timestamp),
            "X-Webhook-Event": event_type,
            "X-Webhook-Sign": hmac.digest(self._wallet_key, wallet_content, "sha256").hex(),
            "X-Delivery-ID": str(delivery_id),
        }


class Sealed(NamedTuple):
    """The rows of an endpoint that its requests are made from, as they are stored."""

    headers: str
    secrets: Sequence[str]
    signing_keys: Sequence[str]


class Signers:
    """The signers and own headers of endpoints that a process sends to.

    The stored texts are compared each time, so a secret, a key or a header that was changed counts at once.
    """

    def __init__(self, keys: Vault) -> None:
        self._vault = keys
        self._known: OrderedDict[UUID, tuple[Sealed, dict[str, str], Signer]] = OrderedDict()

    def of(self, endpoint_id: UUID, stored: Sealed) -> tuple[dict[str, str], Signer]:
        """Return the headers that an endpoint's owner has added, and its signer. Raises SealedError."""
        known = self._known.get(endpoint_id)
        if known is None or known[0] != stored:
            opened = opened_secrets(self._vault, endpoint_id, stored.secrets, stored.signing_keys)
            known = (stored, json.loads(stored.headers), Signer(**opened))
            self._known[endpoint_id] = known
            if len(self._known) > KNOWN_SIGNERS:
                self._known.popitem(last=False)
        return known[1], known[2]


def signed_headers(
    *,
    identity: str,
    event_type: str,
    delivery_id: UUID,
    body: bytes,
    secrets: Sequence[str],
    signing_keys: Sequence[str] = (),
    timestamp: int,
) -> dict[str, str]:
    """Return the headers of one attempt, as `Signer.headers` does, for a single one."""
    return Signer(secrets, signing_keys).headers(
        identity=identity, event_type=event_type, delivery_id=delivery_id, body=body, timestamp=timestamp
    )


def _key(secret: str) -> bytes:
    """Return the key of Standard Webhooks: the bytes encoded in `whsec_...`, or the text of any other secret."""
    return _decoded(secret) or secret.encode()


def _decoded(secret: str) -> bytes | None:
    if not secret.startswith(PREFIX):
        return None
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None


def _private_key(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text.removeprefix(SIGNING_PREFIX)))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
