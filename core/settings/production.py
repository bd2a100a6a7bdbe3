"""The rules of ENV=prod: one row per rule; the start is refused with all broken rows at once.

The rules refuse development toggles and guessable secrets. A secret that is unset switches its surface off and so
breaks no rule; one that is set must be good.
"""

import ipaddress
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from core.settings.metadata import METADATA
from core.settings.providers import PAYPAL_CERT_HOSTS
from core.settings.wallets import FEE_WALLET_PHONE

if TYPE_CHECKING:
    from core.settings.load import Settings

# HMAC-SHA256 keys shorter than the digest weaken it (RFC 2104 section 3).
LEAST_KEY_CHARACTERS = 32
# A token is guessed online only, behind a rate limit; 16 characters are out of reach there.
LEAST_TOKEN_CHARACTERS = 16

_PLACEHOLDERS = frozenset(
    {"change_me_in_prod", "change_me", "changeme", "dev_secret", "secret", "password", "admin", "test", "dev"}
)
_PAYPAL_HOSTS = frozenset(host for hosts in PAYPAL_CERT_HOSTS.values() for host in hosts)
_METADATA_NAMES = frozenset({"metadata.google.internal", "metadata", "instance-data"})
# Each IPv4 address in its IPv6 form, too.
_METADATA_ADDRESSES = (
    *METADATA,
    *(ipaddress.ip_address(f"::ffff:{address}") for address in METADATA if address.version == 4),
)
# A network whose prefix is shorter than this is no list of hosts but an open door.
_WIDEST_IPV4, _WIDEST_IPV6 = 8, 7


class Rule(NamedTuple):
    """One rule: the attribute that it looks at, a test that tells when it is broken, and the wanted value in words."""

    attribute: str
    broken: Callable[["Settings"], bool]
    wanted: str


def _placeholder(secret: str) -> bool:
    return secret.strip().lower() in _PLACEHOLDERS


def _weak(secrets: Iterable[str], least: int) -> bool:
    return any(_placeholder(secret) or len(secret) < least for secret in secrets if secret)


def open_door(host: str) -> bool:
    """Whether an entry of OUTBOUND_ALLOW_HOSTS lets calls through to anywhere or to a cloud's metadata."""
    if "*" in host or host.lower().rstrip(".") in _METADATA_NAMES:
        return True
    try:
        network = ipaddress.ip_network(host, strict=False)
    except ValueError:
        return False
    widest = _WIDEST_IPV4 if network.version == 4 else _WIDEST_IPV6
    return network.prefixlen < widest or any(address in network for address in _METADATA_ADDRESSES)


_KEY = f"unset, or a random text of {LEAST_KEY_CHARACTERS} or more characters"

RULES: tuple[Rule, ...] = (
    Rule("jwt_secret", lambda s: _weak([s.jwt_secret], LEAST_KEY_CHARACTERS), _KEY),
    Rule("jwt_secret_previous", lambda s: _weak(s.jwt_secret_previous, LEAST_KEY_CHARACTERS), _KEY),
    Rule("internal_api_secret", lambda s: _weak([s.internal_api_secret], LEAST_KEY_CHARACTERS), _KEY),
    Rule("secrets_keys", lambda s: _weak(s.secrets_keys, LEAST_KEY_CHARACTERS), _KEY),
    Rule("merchant_secret_keys", lambda s: _weak(s.merchant_secret_keys, LEAST_KEY_CHARACTERS), _KEY),
    Rule(
        "admin_token",
        lambda s: not (s.admin_token or s.admin_token_sha256) or _weak(s.admin_token, LEAST_TOKEN_CHARACTERS),
        f"ADMIN_TOKEN ({LEAST_TOKEN_CHARACTERS} or more random characters) or ADMIN_TOKEN_SHA256",
    ),
    Rule(
        "allowed_origins",
        lambda s: not s.allowed_origins or any("*" in origin for origin in s.allowed_origins),
        "the origins of your pages, comma separated, without *",
    ),
    Rule("auto_create_schema", lambda s: s.auto_create_schema, "false; run tallystick migrate"),
    Rule("dev_enable_topup", lambda s: s.dev_enable_topup, "false"),
    Rule("dev_reset_user_state_on_login", lambda s: s.dev_reset_user_state_on_login, "false"),
    Rule("dev_disable_otp", lambda s: s.dev_disable_otp, "false"),
    Rule("otp_mode", lambda s: s.otp_mode != "redis", "redis"),
    Rule("otp_storage_secret", lambda s: _weak([s.otp_storage_secret], LEAST_KEY_CHARACTERS), _KEY),
    Rule("rate_limit_backend", lambda s: s.rate_limit_backend != "redis", "redis"),
    Rule("rate_limit_enabled", lambda s: not s.rate_limit_enabled, "true"),
    Rule("passkeys_dev_unsafe", lambda s: s.passkeys_dev_unsafe, "false"),
    Rule(
        "jwt_rs_private_pem",
        lambda s: s.jwt_alg == "RS256" and not s.jwt_rs_private_pem,
        "the private key, as JWT_ALG is RS256",
    ),
    Rule(
        "fee_wallet_phone",
        lambda s: bool(s.jwt_secret or s.jwt_rs_private_pem) and s.fee_wallet_phone == FEE_WALLET_PHONE,
        "a phone of your own: the holder of the default one may sign in and take the fees",
    ),
    Rule("debug", lambda s: s.debug, "false"),
    Rule("paypal_mode", lambda s: s.paypal_mode == "demo_hmac", "live or sandbox"),
    Rule("paypal_roots_file", lambda s: bool(s.paypal_roots_file), "unset"),
    Rule(
        "paypal_cert_hosts",
        lambda s: not _PAYPAL_HOSTS.issuperset(s.paypal_cert_hosts),
        "unset, or some of PayPal's own hosts",
    ),
    Rule("paypal_api_base", lambda s: s.paypal_api_base.startswith("http:"), "an https address"),
    Rule(
        "cloudpayments_api_secrets",
        lambda s: any(_placeholder(secret) for secret in s.cloudpayments_api_secrets),
        "unset, or the API secrets that CloudPayments shows",
    ),
    Rule(
        "stripe_signing_secrets",
        lambda s: any(_placeholder(secret) for secret in s.stripe_signing_secrets),
        "unset, or the secrets that Stripe shows for the endpoint",
    ),
    Rule("internal_webhook_secret", lambda s: _weak([s.internal_webhook_secret], LEAST_KEY_CHARACTERS), _KEY),
    Rule(
        "outbound_allow_hosts",
        lambda s: any(open_door(host) for host in s.outbound_allow_hosts),
        "single hosts and networks, without wildcards and metadata addresses",
    ),
)
