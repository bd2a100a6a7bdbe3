"""ENV=prod starts with safe settings only, and tells what is doubtful."""

import base64
import hashlib
import secrets
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import SettingsError, load_settings, strength
from core.settings.production import LEAST_KEY_BITS, LEAST_TOKEN_BITS

STRONG = "7d1f0c6b5a4e39281706f5e4d3c2b1a0"
PROD: dict[str, Any] = {
    "env": "prod",
    "admin_token": STRONG,
    "allowed_origins": "https://pay.example.com/",
    "otp_mode": "redis",
    "rate_limit_backend": "redis",
    "database_url": "postgresql://u:p@db/books",
    "fee_wallet_phone": "+963944000000",
    "passkeys_origin": "https://pay.example.com",
    "secrets_keys": STRONG,
}


@pytest.mark.parametrize("word", ["prod", "production", "staging", "development", "PROD", "devel"])
def test_every_environment_but_dev_and_test_counts_as_prod(word: str) -> None:
    settings = load_settings(env_file=None, **PROD | {"env": word})
    assert settings.env == "prod"
    assert any("the rules of prod apply" in notice for notice in settings.notices) == (
        "prod" not in word.lower()
    )


def test_prod_starts_with_good_settings() -> None:
    assert load_settings(env_file=None, **PROD).notices == ()
    random = hashlib.sha256(STRONG.encode()).hexdigest()
    digest = load_settings(
        env_file=None, **PROD | {"admin_token": None, "admin_token_sha256": random.upper()}
    )
    assert digest.admin_token_sha256 == (random,)


def test_what_signing_in_does_without_is_told() -> None:
    told = load_settings(env_file=None, **PROD | {"jwt_secret": STRONG}).notices
    assert told == ("OTP_SMS_PROVIDER=log: sign-in codes are sent to nobody.",)
    assert load_settings(env_file=None, env="dev", passkeys_dev_unsafe="true").notices == (
        "PASSKEYS_DEV_UNSAFE has no effect: a passkey always proves itself.",
    )
    assert load_settings(env_file=None, env="dev", rate_limit_backend="memory").notices == (
        "RATE_LIMIT_BACKEND=memory has no effect: Redis counts rates, and each process only while Redis is away.",
    )
    assert load_settings(env_file=None, env="dev", rate_limit_backend="redis").notices == ()
    assert load_settings(env_file=None, env="dev").notices == ()


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"jwt_secret": "change_me_in_prod"}, "JWT_SECRET"),
        ({"jwt_secret": "short"}, "JWT_SECRET"),
        ({"jwt_secret_previous": f"{STRONG},short"}, "JWT_SECRET_PREVIOUS"),
        ({"internal_api_secret": "dev_secret"}, "INTERNAL_API_SECRET"),
        ({"internal_api_secret": STRONG[:31]}, "INTERNAL_API_SECRET"),
        ({"admin_token": None}, "ADMIN_TOKEN"),
        ({"admin_token": f"{STRONG},x"}, "ADMIN_TOKEN"),
        ({"allowed_origins": None}, "ALLOWED_ORIGINS"),
        ({"allowed_origins": "https://a.example,*"}, "ALLOWED_ORIGINS"),
        ({"allowed_origins": "https://*.example"}, "ALLOWED_ORIGINS"),
        ({"auto_create_schema": "true"}, "AUTO_CREATE_SCHEMA"),
        ({"dev_enable_topup": "true"}, "DEV_ENABLE_TOPUP"),
        ({"dev_reset_user_state_on_login": "true"}, "DEV_RESET_USER_STATE_ON_LOGIN"),
        ({"dev_disable_otp": "true"}, "DEV_DISABLE_OTP"),
        ({"otp_mode": "dev"}, "OTP_MODE"),
        ({"otp_mode": None}, "OTP_MODE"),
        ({"otp_storage_secret": "short"}, "OTP_STORAGE_SECRET"),
        ({"rate_limit_backend": "memory"}, "RATE_LIMIT_BACKEND"),
        ({"rate_limit_enabled": "off"}, "RATE_LIMIT_ENABLED"),
        ({"passkeys_dev_unsafe": "true"}, "PASSKEYS_DEV_UNSAFE"),
        ({"jwt_alg": "RS256"}, "JWT_RS_PRIVATE_PEM"),
        ({"jwt_secret": STRONG, "fee_wallet_phone": None}, "FEE_WALLET_PHONE"),
        ({"debug": "true"}, "DEBUG"),
        ({"paypal_mode": "demo_hmac"}, "PAYPAL_MODE"),
        ({"paypal_roots_file": "/tmp/roots.pem"}, "PAYPAL_ROOTS_FILE"),  # noqa: S108 - never opened
        ({"paypal_cert_hosts": "api.paypal.com,evil.example"}, "PAYPAL_CERT_HOSTS"),
        ({"paypal_cert_hosts": "api.paypal.com:8443"}, "PAYPAL_CERT_HOSTS"),
        ({"paypal_api_base": "http://api.paypal.com"}, "PAYPAL_API_BASE"),
        ({"simulator_url": "https://simulator.example"}, "SIMULATOR_URL"),
        ({"simulator_webhook_secret": "whsec_1"}, "SIMULATOR_WEBHOOK_SECRET"),
        ({"cloudpayments_api_secrets": "0123456789abcdef,secret"}, "CLOUDPAYMENTS_API_SECRET"),
        ({"stripe_signing_secrets": "whsec_0123456789,secret"}, "STRIPE_SIGNING_SECRET"),
        ({"internal_webhook_secret": "short"}, "INTERNAL_WEBHOOK_SECRET"),
        ({"jwt_secret": "a" * 32}, "JWT_SECRET"),
        ({"jwt_secret": "0123456789abcdefghijklmnopqrstuv"}, "JWT_SECRET"),
        ({"jwt_secret": "passw0rd" * 5}, "JWT_SECRET"),
        ({"jwt_secret": f"change_me_{STRONG}"}, "JWT_SECRET"),
        ({"merchant_secret_keys": f"{STRONG},{'01' * 16}"}, "MERCHANT_SECRET_KEYS"),
        ({"admin_token": "aaaaaaaaaaaaaaaaaaaaaaaa"}, "ADMIN_TOKEN"),
        ({"admin_token_sha256": hashlib.sha256(b"admin").hexdigest()}, "ADMIN_TOKEN_SHA256"),
        ({"stripe_signing_secrets": "x"}, "STRIPE_SIGNING_SECRET"),
        ({"stripe_signing_secrets": "whsec_xxxxxxxxxxxxxxxxxxxxxxx"}, "STRIPE_SIGNING_SECRET"),
        ({"cloudpayments_api_secrets": "short"}, "CLOUDPAYMENTS_API_SECRET"),
        ({"trusted_proxies": "0.0.0.0/0"}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": "10.0.0.0/8,128.0.0.0/1"}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": "::/0"}, "TRUSTED_PROXIES"),
        ({"trusted_networks": "0.0.0.0/0"}, "TRUSTED_NETWORKS"),
        ({"trusted_networks": "2000::/3"}, "TRUSTED_NETWORKS"),
        ({"trusted_networks": "2600::/8"}, "TRUSTED_NETWORKS"),
        ({"allowed_origins": "https://a.example,null"}, "ALLOWED_ORIGINS"),
        ({"allowed_origins": "http://a.example"}, "ALLOWED_ORIGINS"),
        ({"allowed_origins": "a.example"}, "ALLOWED_ORIGINS"),
        ({"otp_sms_http_url": "http://sms.example/send"}, "OTP_SMS_HTTP_URL"),
        ({"stripe_api_base": "http://api.stripe.com"}, "STRIPE_API_BASE"),
        ({"cloudpayments_api_base": "HTTP://api.cloudpayments.ru"}, "CLOUDPAYMENTS_API_BASE"),
        ({"production_api_url": "http://10.1.2.3/api/v2/paymentkaspi"}, "PRODUCTION_API_URL"),
        ({"jwt_secret": STRONG, "passkeys_origin": None}, "PASSKEYS_ORIGIN"),
        ({"jwt_secret": STRONG, "passkeys_origin": "https://a.example,http://a.example"}, "PASSKEYS_ORIGIN"),
        *(
            ({"allowed_origins": origin}, "ALLOWED_ORIGINS")
            for origin in (
                "ftp://a.example",
                "javascript:alert(1)",
                "https://a.example/app",
                "https://a.example:65536",
                "https://a.example?x",
                "https://u@a.example",
                "https://a.example#x",
                "https://",
            )
        ),
        ({"jwt_secret": STRONG, "passkeys_origin": "https://localhost"}, "PASSKEYS_ORIGIN"),
        ({"jwt_secret": STRONG, "passkeys_origin": "https://[::1]:8443"}, "PASSKEYS_ORIGIN"),
        ({"otp_max_attempts": 100}, "OTP_MAX_ATTEMPTS"),
        ({"otp_ttl_secs": 86_400}, "OTP_TTL_SECS"),
        ({"outbound_allow_hosts": "10.0.0.0/8,localhost"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "127.0.0.1"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "127.5.0.0/16"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "::1"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "app.localhost."}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "0.0.0.0"}, "OUTBOUND_ALLOW_HOSTS"),  # noqa: S104 - refused
        ({"outbound_allow_hosts": "::ffff:127.0.0.1"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "*"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "*.internal"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "10.0.0.0/8,0.0.0.0/0"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "128.0.0.0/1"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "::/0"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "169.254.169.254"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "169.254.0.0/16"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "168.63.129.16"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "192.0.0.192/32"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "169.254.170.23"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "fd20:ce::254"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "::ffff:168.63.129.16"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "::ffff:169.254.169.254"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "fd00:ec2::254"}, "OUTBOUND_ALLOW_HOSTS"),
        ({"outbound_allow_hosts": "Metadata.Google.Internal."}, "OUTBOUND_ALLOW_HOSTS"),
        *(
            ({"jwt_secret": guessable}, "JWT_SECRET")
            for guessable in (
                "please-change-this-jwt-secret-key-now",
                "super-secret-change-me-in-production",
                "SuperSecretPassword12345678901234",
                "development-jwt-secret-do-not-use-in-prod",
                "qwertyuiopasdfghjklzxcvbnm1234567890",
                "9876543210zyxwvutsrqponmlkjihgfedcba",
                "MyVerySecretSigningKeyForProduction2026",
                "P4ssw0rd-S3cr3t-Adm1n-T0k3n-Wallet-1",
                f"{STRONG}-do-not-use",
            )
        ),
        ({"admin_token": "admin-token-12345"}, "ADMIN_TOKEN"),
        ({"admin_token": "AdminTokenForStaging2026"}, "ADMIN_TOKEN"),
        ({"admin_token_sha256": "0" * 64}, "ADMIN_TOKEN_SHA256"),
        ({"admin_token_sha256": "0123456789abcdef" * 4}, "ADMIN_TOKEN_SHA256"),
        *(
            ({"admin_token_sha256": hashlib.sha256(word.encode()).hexdigest()}, "ADMIN_TOKEN_SHA256")
            for word in (
                "changeit",
                "Admin123",
                "Welcome1",
                "qwerty",
                "123456",
                "PASSWORD2024",
                "letmein!",
                "",
            )
        ),
        *(
            ({"outbound_allow_hosts": entry}, "OUTBOUND_ALLOW_HOSTS")
            for entry in (
                "[0.0.0.0/0]",
                "[::/0]",
                "[::1]",
                "127.0.0.1]",
                "127.0.0.1.",
                "[Metadata]",
                "ip6-localhost",
                "IP6-loopback.",
                "localhost.localdomain",
                "[localhost]",
                "x.localhost",
                "2002::/16",
                "2002:7f00:1::",
                "64:ff9b::/96",
                "64:ff9b::7f00:1",
                "::7f00:1",
                "2002:a9fe:a9fe::/48",
                "64:ff9b::a9fe:a9fe",
            )
        ),
    ],
)
def test_prod_refuses(bad: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(env_file=None, **PROD | bad)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(named)
    load_settings(env_file=None, **PROD | bad | {"env": "test"})


def test_prod_keeps_private_hosts_that_are_named_one_by_one() -> None:
    hosts = "receiver.internal,10.1.2.3,10.0.0.0/8,fd12::/16,[fd13::1],64:ff9b::a00:0/104"
    assert load_settings(
        env_file=None, **PROD | {"outbound_allow_hosts": hosts}
    ).outbound_allow_hosts == tuple(hosts.split(","))


@given(st.binary(min_size=16, max_size=48))
def test_random_secrets_are_strong_in_each_usual_spelling(random: bytes) -> None:
    """A seed makes the bytes random; hypothesis' own are simple on purpose."""
    drawn = hashlib.sha512(random).digest()
    for spelled in (drawn.hex()[:32], base64.urlsafe_b64encode(drawn).decode()[:32]):
        assert strength.bits(spelled) >= LEAST_KEY_BITS
        assert strength.bits(spelled[:16]) >= LEAST_TOKEN_BITS
        assert not strength.placeholder(spelled)


def test_drawn_secrets_of_32_characters_and_more_pass() -> None:
    for size in range(16, 66):
        drawn = (secrets.token_hex(size), secrets.token_urlsafe(size + 8), secrets.token_hex(size).upper())
        digest = hashlib.sha256(drawn[0].encode()).hexdigest()
        for spelled in (*drawn, base64.b64encode(secrets.token_bytes(size + 8)).decode(), digest):
            assert strength.bits(spelled) >= LEAST_KEY_BITS
            assert not strength.placeholder(spelled)


def test_what_is_doubtful_in_prod_is_told_and_starts() -> None:
    doubtful = {
        "public_base_url": "http://pay.example",
        "trusted_networks": "8.8.8.0/24,10.0.0.0/8",
        "trusted_proxies": "9.9.9.9/32,10.0.0.1/32",
        "stripe_livemode": "test",
        "cloudpayments_livemode": "both",
        "stripe_secret_key": "sk_test_4f3c9e",
        "stripe_timestamp_tolerance": 3_601,
        "starting_credit_cents": 1,
        "internal_api_secret": STRONG,
        "internal_require_hmac": "false",
        # A proxy of the same machine takes the way in clear.
        "otp_sms_http_url": "http://127.0.0.1:9000/sms",
    }
    told = load_settings(env_file=None, **PROD | doubtful).notices
    assert [notice.split()[0].partition("=")[0] for notice in told] == [
        "PUBLIC_BASE_URL", "STRIPE_LIVEMODE", "CLOUDPAYMENTS_LIVEMODE", "STRIPE_SECRET_KEY",
        "STRIPE_TIMESTAMP_TOLERANCE", "STARTING_CREDIT_CENTS", "TRUSTED_NETWORKS", "TRUSTED_PROXIES",
        "INTERNAL_REQUIRE_HMAC",
    ]  # fmt: skip


def test_prod_on_the_embedded_database_says_so() -> None:
    (notice,) = load_settings(env_file=None, **PROD | {"database_url": None}).notices
    assert "DATABASE_URL is unset" in notice
