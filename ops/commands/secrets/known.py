"""The table of secrets that settings hold: how a fresh one is made, and the steps by which it takes over.

ops/secrets/ROTATION.md has a section for each, and for those that are rows of the database; a test compares them.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# 32 bytes as hex have 64 characters, twice what the rules of prod want of a key.
KEY_BYTES: Final = 32
RSA_BITS: Final = 2_048

_REPLACE: Final = "replace the processes (SIGHUP to `serve`, a restart of each worker; see ROTATION.md)"

PRESENTED: Final = (
    "Set {name}=new,old, and " + _REPLACE + ": both count.",
    "Give the new one to everybody who presents or signs with the old one.",
    'Wait until increase(secret_used_total{{secret="{name}",age="previous"}}[1d]) is 0.',
    "Set {name}=new, and " + _REPLACE + ": the old one is refused.",
)
SEALS: Final = (
    "Set {name}=old,new, and " + _REPLACE + ": every process knows the new one before any uses it.",
    "Set {name}=new,old, and " + _REPLACE + ": the new one signs or seals, both are read.",
    "{last}",
    "Set {name}=new, and " + _REPLACE + ".",
)
GIVEN: Final = (
    "Make a second one at the other side, where both count from then on.",
    "Put it in the place of {name}, and "
    + _REPLACE
    + ": processes of before go on with the old one until they end.",
    "End the old one at the other side, once that shows no use of it.",
)
LOGIN: Final = (
    "Make a second login or password at the server, where both count from then on.",
    "Put it into {name}, and " + _REPLACE + ".",
    "Take the old one away at the server, once it has no session.",
)
DEVELOPMENT: Final = ("Change {name} and restart: it is for development, and no rule holds for it.",)


class Known(NamedTuple):
    """One secret: its settings by attribute, its steps, and how a fresh value is made; None: somebody else makes it."""

    attributes: tuple[str, ...]
    steps: tuple[str, ...]
    make: Callable[[], str] | None = None
    last: str = ""
    """The third step of a secret that signs or seals."""


def _key() -> str:
    return secrets.token_hex(KEY_BYTES)


def _rsa() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


_JWT: Final = (
    "Set JWT_SECRET_PREVIOUS=new beside JWT_SECRET=old, and " + _REPLACE + ".",
    "Set JWT_SECRET=new and JWT_SECRET_PREVIOUS=old, and " + _REPLACE + ": the new one signs, both are read.",
    "{last}",
    "Leave JWT_SECRET_PREVIOUS out, and " + _REPLACE + ".",
)
_RESEAL: Final = "Run `tallystick keys reseal` until it tells 0 under a key that is not set."
_TOKENS: Final = (
    "Wait for JWT_EXPIRES_MINUTES, until no token of the old one is left. Without SECRETS_KEYS and MERCHANT_SECRET_KEYS"
    " run `tallystick keys reseal`, too."
)

KNOWN: Final = {
    "ADMIN_TOKEN": Known(("admin_token",), PRESENTED, _key),
    "INTERNAL_API_SECRET": Known(("internal_api_secret",), PRESENTED, _key),
    "INTERNAL_WEBHOOK_SECRET": Known(("internal_webhook_secret",), PRESENTED, _key),
    "STRIPE_SIGNING_SECRET": Known(("stripe_signing_secrets",), PRESENTED),
    "CLOUDPAYMENTS_API_SECRET": Known(("cloudpayments_api_secrets",), PRESENTED),
    "JWT_SECRET": Known(("jwt_secret", "jwt_secret_previous"), _JWT, _key, _TOKENS),
    "JWT_RS_PRIVATE_PEM": Known(("jwt_rs_private_pem",), SEALS, _rsa, _TOKENS),
    "OTP_STORAGE_SECRET": Known(
        ("otp_storage_secret",), SEALS, _key, "Wait for OTP_TTL_SECS, until no code of the old one is left."
    ),
    "SECRETS_KEYS": Known(("secrets_keys",), SEALS, _key, _RESEAL),
    "MERCHANT_SECRET_KEYS": Known(("merchant_secret_keys",), SEALS, _key, _RESEAL),
    "STRIPE_SECRET_KEY": Known(("stripe_secret_key",), GIVEN),
    "PAYPAL_CLIENT_SECRET": Known(("paypal_client_secret",), GIVEN),
    "KASPI_ACCESS_TOKEN": Known(("kaspi_access_token",), GIVEN),
    "KASPI_API_KEY_PASSWORD": Known(("kaspi_api_key_password",), GIVEN),
    "APP_API_KEY": Known(("app_api_key",), GIVEN, _key),
    "OTP_SMS_HTTP_AUTH_TOKEN": Known(("otp_sms_http_auth_token",), GIVEN, _key),
    "OTEL_EXPORTER_OTLP_HEADERS": Known(("otel_exporter_otlp_headers",), GIVEN),
    "DATABASE_URL": Known(("database_url",), LOGIN, _key),
    "DATABASE_DIRECT_URL": Known(("database_direct_url",), LOGIN, _key),
    "DATABASE_REPLICA_URL": Known(("database_replica_url",), LOGIN, _key),
    "REDIS_URL": Known(("redis_url",), LOGIN, _key),
    "DEMO_HMAC_SECRET": Known(("demo_hmac_secret",), DEVELOPMENT, _key),
    "SIMULATOR_WEBHOOK_SECRET": Known(("simulator_webhook_secret",), DEVELOPMENT),
    "OTP_DEV_CODE": Known(("otp_dev_code",), DEVELOPMENT),
}


def steps_of(name: str) -> list[str]:
    """Return the steps of a rotation as sentences."""
    known = KNOWN[name]
    return [step.format(name=name, last=known.last) for step in known.steps]
