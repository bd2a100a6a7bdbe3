"""The rules of ENV=prod: one row per rule; the start is refused with all broken rows at once.

The rules refuse development toggles and guessable secrets. A secret that is unset switches its surface off and so
breaks no rule; one that is set must be good.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from core.phones import normalized
from core.settings import strength
from core.settings.hosts import is_own_name, leads_to, name_in, network_in, spellings
from core.settings.metadata import METADATA
from core.settings.providers import PAYPAL_CERT_HOSTS
from core.settings.wallets import FEE_WALLET_PHONE

if TYPE_CHECKING:
    from core.settings.load import Settings

# HMAC-SHA256 keys shorter than the digest weaken it (RFC 2104 section 3).
LEAST_KEY_CHARACTERS = 32
# A token is guessed online only, behind a rate limit; 16 characters are out of reach there.
LEAST_TOKEN_CHARACTERS = 16
# Random hex digits have more: 32 of them about 115 bits by our estimate, 16 about 50.
LEAST_KEY_BITS = 80.0
LEAST_TOKEN_BITS = 36.0

_PAYPAL_HOSTS = frozenset(host for hosts in PAYPAL_CERT_HOSTS.values() for host in hosts)
_METADATA_NAMES = frozenset({"metadata.google.internal", "metadata", "instance-data"})
# Loopback, the address that means it to many systems, and metadata servers, each in all spellings.
_CLOSED = tuple(
    spelled
    for text in ("127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128", *map(str, METADATA))
    for spelled in spellings(ipaddress.ip_network(text))
)
# A network whose prefix is shorter than this is no list of hosts but an open door.
_WIDEST_IPV4, _WIDEST_IPV6 = 8, 7
# The largest that a registry gives to one provider.
_WIDEST_PUBLIC_IPV6 = 16
# More wrong tries at one sign-in code than a person needs: each is a chance in a million.
MOST_OTP_ATTEMPTS = 10
# A code that lives longer than this can be read from a phone that was left lying.
MOST_OTP_SECONDS = 3_600

# Stripe's libraries take five minutes; a queue before us may need some more.
MOST_TOLERANCE_SECONDS = 3_600
_TEST_KEYS = ("sk_test_", "rk_test_")


class Rule(NamedTuple):
    """One rule: the attribute that it looks at, a test that tells when it is broken, and the wanted value in words."""

    attribute: str
    broken: Callable[["Settings"], bool]
    wanted: str


def _weak(secrets: Iterable[str], least: int, bits: float) -> bool:
    """Whether one of the secrets that are set has fewer characters or can hold fewer bits."""
    return any(
        len(secret) < least or strength.placeholder(secret) or strength.bits(secret) < bits
        for secret in secrets
        if secret
    )


def _weak_key(*secrets: str) -> bool:
    return _weak(secrets, LEAST_KEY_CHARACTERS, LEAST_KEY_BITS)


def _weak_token(*secrets: str) -> bool:
    return _weak(secrets, LEAST_TOKEN_CHARACTERS, LEAST_TOKEN_BITS)


def _plain(url: str) -> bool:
    """Whether a URL sends in clear what it sends. Loopback, where a proxy of this machine listens, is no network."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return leads_to(ipaddress.ip_address(name_in(host))).is_loopback
    except ValueError:
        return is_own_name(host)


def _no_https_origin(origin: str) -> bool:
    """Whether a text is no bare origin of pages that came over TLS: `null` is that of any page in a sandbox."""
    try:
        parts = urlsplit(origin)
        return (
            parts.scheme != "https"
            or not parts.hostname
            or parts.port == 0
            or parts.username is not None
            or parts.path not in {"", "/"}
            or any(sign in origin for sign in "*?#")
        )
    except ValueError:
        return True


def _no_passkey_origin(origin: str) -> bool:
    """Whether no page or app of ours in the world has this origin."""
    return _no_https_origin(origin) or _is_loopback(urlsplit(origin).hostname or "")


def everybody(network: str) -> bool:
    """Whether a network is wider than any that one operator has."""
    read = ipaddress.ip_network(network, strict=False)
    if read.version == 4:
        return read.prefixlen < _WIDEST_IPV4
    return read.prefixlen < (_WIDEST_IPV6 if read.is_private else _WIDEST_PUBLIC_IPV6)


def open_door(host: str) -> bool:
    """Whether an entry of OUTBOUND_ALLOW_HOSTS lets calls through to anywhere, ourselves or a cloud's metadata."""
    if "*" in host or name_in(host) in _METADATA_NAMES or is_own_name(host):
        return True
    network = network_in(host)
    if network is None:
        return False
    return everybody(str(network)) or any(
        network.version == closed.version and network.overlaps(closed) for closed in _CLOSED
    )


_KEY = f"unset, or a random text of {LEAST_KEY_CHARACTERS} or more characters"

_NETWORKS = "the addresses or networks of your own machines and proxies, none as wide as the Internet"
# Addresses to which we send codes, tokens and payments.
_PROVIDERS_URLS = (
    "stripe_api_base", "paypal_api_base", "cloudpayments_api_base", "provider_url", "payment_url_base_webhook",
    "merchant_callback_url", "production_api_url", "kaspi_api_base", "payments_provider_callback_base_url",
    "otp_sms_http_url",
)  # fmt: skip


def _guessed_digest(digest: str) -> bool:
    """Whether a digest is none of a random token: that of a common word, or digits that somebody typed."""
    return strength.bits(digest) < LEAST_KEY_BITS or digest in strength.common_digests()


def _in_clear(attribute: str) -> Rule:
    return Rule(attribute, lambda s: _plain(getattr(s, attribute)), "an https address")


def _has_wallets(settings: "Settings") -> bool:
    return bool(settings.jwt_secret or settings.jwt_rs_private_pem)


RULES: tuple[Rule, ...] = (
    Rule("jwt_secret", lambda s: _weak_key(s.jwt_secret), _KEY),
    Rule("jwt_secret_previous", lambda s: _weak_key(*s.jwt_secret_previous), _KEY),
    Rule("internal_api_secret", lambda s: _weak_key(*s.internal_api_secret), _KEY),
    Rule("secrets_keys", lambda s: _weak_key(*s.secrets_keys), _KEY),
    Rule("merchant_secret_keys", lambda s: _weak_key(*s.merchant_secret_keys), _KEY),
    Rule(
        "admin_token",
        lambda s: not (s.admin_token or s.admin_token_sha256) or _weak_token(*s.admin_token),
        f"ADMIN_TOKEN ({LEAST_TOKEN_CHARACTERS} or more random characters) or ADMIN_TOKEN_SHA256",
    ),
    Rule(
        "allowed_origins",
        lambda s: not s.allowed_origins or any(map(_no_https_origin, s.allowed_origins)),
        "the https origins of your pages, comma separated, without * and null",
    ),
    Rule("auto_create_schema", lambda s: s.auto_create_schema, "false; run tallystick migrate"),
    Rule("dev_enable_topup", lambda s: s.dev_enable_topup, "false"),
    Rule("dev_reset_user_state_on_login", lambda s: s.dev_reset_user_state_on_login, "false"),
    Rule("dev_disable_otp", lambda s: s.dev_disable_otp, "false"),
    Rule("otp_mode", lambda s: s.otp_mode != "redis", "redis"),
    Rule("otp_storage_secret", lambda s: _weak_key(*s.otp_storage_secret), _KEY),
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
        lambda s: _has_wallets(s) and normalized(s.fee_wallet_phone) == FEE_WALLET_PHONE,
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
    Rule("simulator_url", lambda s: bool(s.simulator_url), "unset: the simulator takes no money"),
    Rule(
        "simulator_webhook_secret",
        lambda s: bool(s.simulator_webhook_secret),
        "unset: the simulator takes no money",
    ),
    *(_in_clear(attribute) for attribute in _PROVIDERS_URLS),
    Rule(
        "cloudpayments_api_secrets",
        lambda s: _weak_token(*s.cloudpayments_api_secrets),
        "unset, or the API secrets that CloudPayments shows",
    ),
    Rule(
        "stripe_signing_secrets",
        lambda s: _weak_token(*s.stripe_signing_secrets),
        "unset, or the secrets that Stripe shows for the endpoint",
    ),
    Rule("internal_webhook_secret", lambda s: _weak_key(*s.internal_webhook_secret), _KEY),
    Rule(
        "outbound_allow_hosts",
        lambda s: any(open_door(host) for host in s.outbound_allow_hosts),
        "single hosts and networks, without wildcards, loopback and metadata addresses",
    ),
    Rule("trusted_proxies", lambda s: any(map(everybody, s.trusted_proxies)), _NETWORKS),
    Rule("trusted_networks", lambda s: any(map(everybody, s.trusted_networks)), _NETWORKS),
    Rule(
        "passkeys_origin",
        lambda s: _has_wallets(s) and s.passkeys_enabled and any(map(_no_passkey_origin, s.passkeys_origin)),
        "the https origins of your pages and apps, or PASSKEYS_ENABLED=false",
    ),
    Rule(
        "otp_max_attempts",
        lambda s: s.otp_max_attempts > MOST_OTP_ATTEMPTS,
        f"{MOST_OTP_ATTEMPTS} tries or fewer",
    ),
    Rule("otp_ttl_secs", lambda s: s.otp_ttl_secs > MOST_OTP_SECONDS, f"{MOST_OTP_SECONDS} seconds or fewer"),
    Rule(
        "admin_token_sha256",
        lambda s: any(map(_guessed_digest, s.admin_token_sha256)),
        "the digests of random tokens",
    ),
)


def doubts(settings: "Settings") -> Iterator[str]:
    """Yield a sentence for each setting of prod that may be meant and is seldom right."""
    if settings.public_base_url and _plain(settings.public_base_url):
        yield "PUBLIC_BASE_URL is http: what clients send to that address can be read on the way."
    if not settings.secrets_keys:
        yield "SECRETS_KEYS is unset: secrets of endpoints and sources stand readable in the database and its backups."
    yield from _doubts_of_money(settings)
    yield from _doubts_of_networks(settings)
    if settings.internal_api_secret and not settings.internal_require_hmac:
        yield "INTERNAL_REQUIRE_HMAC=false: the secret of /internal itself travels with each call."
    for name, value in (
        ("LOGIN_MAX_FAILURES", settings.login_max_failures),
        ("OTP_CLIENT_FAILURES", settings.otp_client_failures),
    ):
        if not value and _has_wallets(settings):
            yield f"{name}=0: guesses are not counted there."


def _doubts_of_money(settings: "Settings") -> Iterator[str]:
    for provider, mode in (
        ("Stripe", settings.stripe_livemode),
        ("CloudPayments", settings.cloudpayments_livemode),
    ):
        if mode in {"test", "both"}:
            yield f"{provider.upper()}_LIVEMODE={mode}: test events of {provider} post to the books."
    if settings.stripe_secret_key.startswith(_TEST_KEYS):
        yield "STRIPE_SECRET_KEY is a key of Stripe's test mode: no real payment is found with it."
    if settings.stripe_timestamp_tolerance > MOST_TOLERANCE_SECONDS:
        yield (
            f"STRIPE_TIMESTAMP_TOLERANCE={settings.stripe_timestamp_tolerance}: a recorded event of Stripe counts for"
            " longer than an hour."
        )
    if settings.starting_credit_cents > 0:
        yield f"STARTING_CREDIT_CENTS={settings.starting_credit_cents}: each new wallet begins with money."


def _doubts_of_networks(settings: "Settings") -> Iterator[str]:
    for network in settings.trusted_networks:
        if ipaddress.ip_network(network).is_global:
            yield f"TRUSTED_NETWORKS={network} is a public network: everybody there is let in without a token."
    for network in settings.trusted_proxies:
        if ipaddress.ip_network(network).is_global:
            yield f"TRUSTED_PROXIES={network} is a public network: everybody there may claim any address."
