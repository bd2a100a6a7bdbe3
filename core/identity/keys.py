"""The keys of users' tokens: the one that signs, those that are believed, and the public halves as a JWK set."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from core.pem import LEAST_RSA_BITS, blocks_of, private_keys
from core.rotation import uses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.settings import Settings

DEV_KEY_FILE: Final = "jwt-rs256.pem"


class Key(NamedTuple):
    """A key of users' tokens. With HS256 `verifying` is the secret again, and there is no key id."""

    algorithm: str
    signing: Any
    verifying: Any
    key_id: str | None


class KeyRing(NamedTuple):
    """The keys in force: the first signs, and each one's tokens count. `material` is the secret of derived keys.

    `earlier` are the secrets that it was before, as long as they count.
    """

    keys: tuple[Key, ...]
    material: bytes
    earlier: tuple[bytes, ...] = ()

    def derive(self, purpose: str) -> bytes:
        """Return a key of 32 bytes for another purpose; processes with the same settings derive the same one."""
        return hmac.new(self.material, f"tallystick {purpose}".encode(), hashlib.sha256).digest()

    def derive_all(self, purpose: str) -> tuple[bytes, ...]:
        """Return the key of `derive`, and those that it returned under the earlier secrets that still count."""
        rings = (self._replace(material=material) for material in self.earlier if material != self.material)
        return (self.derive(purpose), *(ring.derive(purpose) for ring in rings))

    def note_use(self, key: Key) -> None:
        """Count that a token was signed with a key; of each kind the first one is current."""
        kind = [one for one in self.keys if one.algorithm == key.algorithm]
        # After a change of the algorithm all secrets of the other one are previous.
        later = self.keys[0].algorithm != key.algorithm
        uses.used(uses.JWT if key.algorithm == "HS256" else uses.JWT_RSA, kind.index(key) + later)

    def candidates(self, algorithm: str | None, key_id: str | None) -> list[Key]:
        """Return the keys that a token with this header may be signed with, the likeliest first."""
        fitting = [key for key in self.keys if key.algorithm == algorithm]
        # Keys with another id are candidates, too: a key that took an id over must not make the old tokens worthless.
        return sorted(fitting, key=lambda key: key.key_id != key_id)

    def jwks(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517); a shared secret has no public half."""
        return {
            "keys": [
                {**_public(key.verifying), "alg": "RS256", "use": "sig", "kid": key.key_id}
                for key in self.keys
                if key.algorithm == "RS256"
            ]
        }


def load_keys(settings: Settings) -> KeyRing:
    """Return the keys of the settings; no keys where none is set.

    RS256 without a key gets one outside prod, made once and kept in STATE_DIR for all processes. Raises OSError when
    that cannot be, and ValueError for a key that is no RSA private key of 2,048 bits or more.
    """
    secret = str(settings.jwt_secret)
    previous = [Key("HS256", None, str(old), None) for old in settings.jwt_secret_previous]
    if settings.jwt_alg == "HS256":
        keys = [Key("HS256", secret, secret, None), *previous] if secret else []
        return KeyRing(tuple(keys), secret.encode(), _bytes_of(settings.jwt_secret_previous))
    pem = str(settings.jwt_rs_private_pem)
    if not pem and settings.env != "prod":
        pem = _dev_key(Path(settings.state_dir).expanduser())
    names = [name.strip() for name in settings.jwt_key_id.split(",")]
    found = private_keys(pem)
    names += ["" for _ in found[len(names) :]]
    keys = [
        Key("RS256", private, private.public_key(), name or thumbprint(private.public_key()))
        for private, name in zip(found, names, strict=False)
    ]
    # After a change to RS256, tokens of HS256 count only as long as their secret is named as a previous one.
    # A key's own text, and not that of all keys: another one beside it must not change what is derived from it.
    current, *earlier = [secret] if secret else blocks_of(pem) or [pem]
    return KeyRing(
        (*keys, *previous) if keys else (),
        current.encode(),
        _bytes_of((*earlier, *settings.jwt_secret_previous)),
    )


def _bytes_of(texts: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(str(text).encode() for text in texts)


def thumbprint(key: rsa.RSAPublicKey) -> str:
    """Return the key's own name (RFC 7638)."""
    public = _public(key)
    members = {name: public[name] for name in sorted(public)}
    text = json.dumps(members, separators=(",", ":")).encode()
    return _base64url(hashlib.sha256(text).digest())


def _public(key: rsa.RSAPublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    return {
        "kty": "RSA",
        "n": _base64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
        "e": _base64url(numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8)),
    }


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _dev_key(folder: Path) -> str:
    """Return the key that all processes share; the first of them makes it, whole or not at all."""
    path = folder / DEV_KEY_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        private = rsa.generate_private_key(public_exponent=65537, key_size=LEAST_RSA_BITS)
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        handle, partial = tempfile.mkstemp(dir=folder)  # its owner's alone, 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
            os.link(partial, path)  # refuses where another process was faster, whose key we then read
        except FileExistsError:
            pass
        finally:
            Path(partial).unlink()
    return path.read_text()
