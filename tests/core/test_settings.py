from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.settings import SettingsError, load_settings
from core.settings.kinds import names_of
from core.settings.load import Settings
from core.settings.retired import BACK_DOORS, RETIRED
from tests.core.test_settings_prod import PROD, STRONG

ROOT = Path(__file__).parents[2]
# The environment tables of the contracts, name by name.
CONTRACT_KEYS = [
    line for line in Path(__file__).with_name("contract_keys.txt").read_text().splitlines() if line[0] != "#"
]


def problems(**overrides: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(env_file=None, **overrides)
    return str(caught.value)


def defaults(env: str = "test") -> Settings:
    return load_settings(env_file=None, env=env)


def test_nothing_set_is_a_working_development_setting() -> None:
    settings = load_settings(env_file=None)
    assert (settings.env, settings.app_host, settings.app_port) == ("dev", "0.0.0.0", 8080)  # noqa: S104
    assert settings.allowed_origins == ("*",)
    assert settings.starting_credit_cents == 10_000_000
    assert "127.0.0.0/8" in settings.outbound_allow_hosts
    assert (settings.database_url, settings.redis_url, settings.notices) == ("", "", ())


def test_what_development_opens_is_closed_elsewhere() -> None:
    for env in ("test", "prod"):
        settings = load_settings(env_file=None, **PROD | {"env": env})
        assert not settings.dev_enable_topup
        assert not settings.passkeys_dev_unsafe
        assert settings.starting_credit_cents == 0
        assert settings.outbound_allow_hosts == ()
        assert settings.jwt_secret == ""


def test_a_certificate_without_its_key_is_refused() -> None:
    for one in ("grpc_tls_cert_file", "grpc_tls_key_file"):
        assert "belong together" in problems(**{one: "x.pem"})


@pytest.mark.parametrize("name", CONTRACT_KEYS)
def test_every_key_of_the_contracts_is_known(name: str) -> None:
    read = {name for attribute, field in Settings.model_fields.items() for name in names_of(attribute, field)}
    retired = {name for row in RETIRED for name in row.names}
    assert name in read | retired or name.startswith(BACK_DOORS)


def test_no_two_keys_share_a_name() -> None:
    names = [
        name for attribute, field in Settings.model_fields.items() for name in names_of(attribute, field)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("attribute", "names", "values"),
    [
        ("env", ("ENV", "APP_ENV"), ("test", "dev")),
        ("database_url", ("DATABASE_URL", "DB_URL", "PAYMENTS_DB_URL"), ("a", "b", "c")),
        ("app_port", ("APP_PORT", "HTTP_PORT", "PORT"), ("1", "2", "3")),
        ("app_host", ("APP_HOST", "HTTP_HOST"), ("a", "b")),
        (
            "stripe_timestamp_tolerance",
            ("STRIPE_TIMESTAMP_TOLERANCE", "STRIPE_SIGNATURE_TOLERANCE_SECONDS"),
            "12",
        ),
        ("stripe_signing_secrets", ("STRIPE_SIGNING_SECRET", "STRIPE_WEBHOOK_SECRET"), "ab"),
        ("allowed_origins", ("ALLOWED_ORIGINS", "CORS_ORIGINS"), "ab"),
        ("serve_workers", ("SERVE_WORKERS", "UVICORN_WORKERS"), "12"),
        ("log_level", ("LOG_LEVEL", "UVICORN_LOG_LEVEL"), ("debug", "error")),
    ],
)
def test_of_several_names_the_first_one_set_counts(
    monkeypatch: pytest.MonkeyPatch, attribute: str, names: tuple[str, ...], values: tuple[str, ...]
) -> None:
    for position in reversed(range(len(names))):
        value = f"postgresql://{values[position]}" if attribute == "database_url" else values[position]
        monkeypatch.setenv(names[position], value)
        found = getattr(load_settings(env_file=None), attribute)
        assert str(found[0] if isinstance(found, tuple) else found) == value


def test_overrides_win_over_the_environment_and_it_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    # An older name in the environment wins over the newer one in the file, too.
    file.write_text("APP_PORT=1111\nLOG_LEVEL=error\nUNKNOWN_KEY=x\nGRPC_PORT=4444\n")
    monkeypatch.setenv("HTTP_PORT", "2222")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("GRPC_PORT", " ")
    settings = load_settings(env_file=file, log_level="warning", app_host=None)
    assert (settings.app_port, settings.log_level, settings.grpc_port) == (2222, "warning", 4444)
    assert settings.app_host == defaults().app_host


def test_an_override_that_is_no_setting_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="app_prot"):
        load_settings(env_file=None, app_prot=1)


def test_the_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"OTP_SMS_TEMPLATE=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings(env_file=file)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("postgresql+psycopg2://u:p@h:5433/payments", "postgresql://u:p@h:5433/payments"),
        ("postgresql+asyncpg://u@h/x?sslmode=require", "postgresql://u@h/x?sslmode=require"),
        ("postgres://h/x", "postgresql://h/x"),
        ("postgresql:///x?host=/run/postgresql", "postgresql:///x?host=/run/postgresql"),
    ],
)
def test_driver_suffixes_of_a_database_url_are_dropped(given: str, meant: str) -> None:
    assert load_settings(env_file=None, database_url=given).database_url == meant


@pytest.mark.parametrize(
    "url", ["sqlite:///./books.db", "mysql://u:hunter2@h/x", "mysql+pymysql://h/x", "h/x"]
)
def test_a_database_that_is_not_postgresql_is_refused_with_what_to_set(url: str) -> None:
    text = problems(database_url=url)
    assert "DATABASE_URL=" in text
    assert "postgresql://user:password@host:5432/database" in text
    assert "hunter2" not in text


def test_the_sqlite_url_that_the_inbox_had_by_itself_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DB_URL"):
        monkeypatch.setenv(name, "sqlite+aiosqlite:///./payments.db")
        settings = load_settings(env_file=None)
        assert settings.database_url == ""
        assert (
            f"{name}=sqlite+aiosqlite:///./payments.db is not used: data is kept in PostgreSQL."
            in " ".join(settings.notices)
        )


def test_keys_that_nothing_reads_get_one_sentence_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_DSN", "u:hunter2@tcp(h)/x")
    monkeypatch.setenv("RABBITMQ_URL", "amqp://guest:hunter2@rabbitmq")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://redis:6379/0")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "amqp://h")
    monkeypatch.setenv("QUEUE_NAME", "")
    notices = load_settings(env_file=None, dlq_backend="redis").notices
    assert [notice.split()[0] for notice in notices] == [
        "MYSQL_DSN", "RABBITMQ_URL", "CELERY_RESULT_BACKEND", "DLQ_BACKEND=redis",
    ]  # fmt: skip
    assert "hunter2" not in " ".join(notices)


@pytest.mark.parametrize("name", ["STATIC_OTP_CODES", "MASTER_OTP_CODE", "BACKDOOR_PHONE"])
def test_back_doors_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "424242")
    text = problems()
    assert f"{name}: fixed sign-in codes were a back door" in text
    assert "424242" not in text
    monkeypatch.setenv(name, "")
    load_settings(env_file=None)


@pytest.mark.parametrize("word", ["1", "true", "YES", "On"])
def test_words_for_on(word: str) -> None:
    assert load_settings(env_file=None, fraud_risk_enabled=word).fraud_risk_enabled is True


@pytest.mark.parametrize("word", ["0", "false", "NO", "Off"])
def test_words_for_off(word: str) -> None:
    assert load_settings(env_file=None, internal_require_hmac=word).internal_require_hmac is False


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("debug", "maybe", "DEBUG=maybe: expected 1/true/yes/on or 0/false/no/off"),
        ("app_port", "70000", "APP_PORT=70000: expected a whole number from 0 to 65535"),
        ("app_port", "8080.5", "APP_PORT=8080.5: expected a whole number from 0 to 65535"),
        ("serve_workers", "0", "SERVE_WORKERS=0: expected a whole number from 1 to 256"),
        ("shutdown_timeout_secs", "x", "expected a whole number from 0 to 300 (seconds)"),
        ("webhook_backoff_factor", "-1", "WEBHOOK_BACKOFF_FACTOR=-1: expected a number from 0 to 100"),
        ("payments_job_batch_size", "99999", "expected a whole number up to 10000 (payments)"),
        ("rl_auth_boost_override", "x", "expected a whole number from 1 to 1000"),
        ("otp_mode", "rediss", "OTP_MODE=rediss: expected dev or redis"),
        ("database_pooler", "session", "DATABASE_POOLER=session: expected transaction"),
        (
            "otp_sms_provider",
            "mtn",
            "OTP_SMS_PROVIDER=mtn: expected log or http; an operator (mtn) is reached by http",
        ),
        ("otp_sms_fallback_provider", "syriatel", "an operator (mtn) is reached by http: write http here"),
        ("trusted_proxies", "proxy", "TRUSTED_PROXIES=proxy: expected addresses or networks"),
        ("stripe_api_base", "api.stripe.com", "expected a URL like https://"),
        ("stripe_api_base", "http://[::1", "expected a URL like https://"),
        ("redis_url", "amqp://u:hunter2@h", "REDIS_URL=amqp://u:***@h: expected Redis or Valkey"),
        ("admin_token_sha256", "abc", "expected SHA-256 digests"),
        ("default_currency", "syp", "expected 3 to 12 upper-case letters or digits"),
        ("jwt_secret", 5, "JWT_SECRET=***: expected a text"),
    ],
)
def test_a_value_that_cannot_be_read_names_the_key_and_what_is_expected(
    attribute: str, value: Any, expected: str
) -> None:
    assert expected in problems(**{attribute: value})


def test_a_word_that_counts_as_prod_is_said_as_it_was_given() -> None:
    assert "OTP_MODE=dev: ENV=staging counts as prod, which expects " in problems(
        **PROD | {"env": "Staging", "otp_mode": "dev"}
    )
    assert "OTP_MODE=dev: ENV=prod expects " in problems(**PROD | {"otp_mode": "dev"})


def test_all_problems_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PORT", "abc")
    monkeypatch.setenv("ENV", "staging")
    monkeypatch.setenv("JWT_SECRET", "dev_secret")
    monkeypatch.setenv("BACKDOOR_CODE", "1")
    monkeypatch.setenv("OTP_MODE", "rediss")
    with pytest.raises(SettingsError) as caught:
        load_settings(env_file=None)
    assert [line.partition("=")[0].split()[0].rstrip(":") for line in caught.value.problems] == [
        "BACKDOOR_CODE", "HTTP_PORT", "OTP_MODE", "JWT_SECRET", "ADMIN_TOKEN", "ALLOWED_ORIGINS", "RATE_LIMIT_BACKEND",
        "FEE_WALLET_PHONE", "PASSKEYS_ORIGIN",
    ]  # fmt: skip
    assert "dev_secret" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ['"whsec_a"', "'whsec_a", "\ufeffwhsec_a", "\u201cwhsec_a\u201d", 'whsec_a,"whsec_b"']
)
def test_a_secret_in_quotes_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", value)
    monkeypatch.setenv("DEMO_HMAC_SECRET", value)
    notices = load_settings(env_file=None).notices
    assert [notice.split()[0] for notice in notices] == ["STRIPE_WEBHOOK_SECRET", "DEMO_HMAC_SECRET"]
    assert all("quote or a byte-order mark" in notice and "whsec" not in notice for notice in notices)


def test_an_env_file_behind_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b'\xef\xbb\xbfSTRIPE_SIGNING_SECRET="whsec_a"\n')
    settings = load_settings(env_file=file)
    assert (settings.stripe_signing_secrets, settings.notices) == (("whsec_a",), ())


def test_what_prod_does_without_keys_and_with_test_events_is_told() -> None:
    told = load_settings(env_file=None, **PROD | {"secrets_keys": None, "stripe_livemode": "both"}).notices
    assert [notice.split()[0] for notice in told] == ["SECRETS_KEYS", "STRIPE_LIVEMODE=both:"]
    assert "SECRETS_KEYS=***" in problems(**PROD | {"secrets_keys": f"{STRONG},short"})


@pytest.mark.parametrize(
    ("name", "value", "attribute", "read"),
    [
        ("WEBHOOK_BASE_DELAY_SECS", "0", "webhook_base_delay_secs", 0),
        ("WEBHOOK_BACKOFF_FACTOR", "0.5", "webhook_backoff_factor", 0.5),
        ("RATE_LIMIT_BACKEND", "REDIS", "rate_limit_backend", "redis"),
        ("JWT_ALG", "rs256", "jwt_alg", "RS256"),
        ("OTP_MODE", "Redis", "otp_mode", "redis"),
        ("OTP_SMS_PROVIDER", "LOG", "otp_sms_provider", "log"),
        ("PAYPAL_MODE", "LIVE", "paypal_mode", "live"),
        ("DLQ_BACKEND", "Redis", "dlq_backend", "redis"),
        ("OTP_TTL_SECS", "1", "otp_ttl_secs", 1),
        ("RL_LIMIT_PER_MINUTE_OVERRIDE", "0", "rl_limit_per_minute_override", None),
        ("RL_AUTH_BOOST_OVERRIDE", "0", "rl_auth_boost_override", None),
        ("MAX_REQUEST_SIZE", "100", "max_request_size", 100),
    ],
)
def test_values_that_the_services_before_took(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, attribute: str, read: object
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(env_file=None, env="test"), attribute) == read


@pytest.mark.parametrize(
    ("attribute", "default"),
    [
        ("stripe_timestamp_tolerance", 300),
        ("stripe_http_timeout_seconds", 10),
        ("payments_job_batch_size", 100),
        ("payments_callback_max_attempts", 1),
        ("payments_callback_retry_interval_minutes", 5),
        ("payments_callback_http_timeout_seconds", 10),
    ],
)
@pytest.mark.parametrize("value", ["0", "-3"])
def test_zero_and_below_mean_the_default_where_the_contract_says_so(
    attribute: str, default: int, value: str
) -> None:
    assert getattr(load_settings(env_file=None, **{attribute: value}), attribute) == default


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_SIGNING_SECRET", "whsec_new, whsec_old,")
    monkeypatch.setenv("TRUSTED_PROXIES", "10.1.2.3/8,::1")
    settings = load_settings(env_file=None)
    assert settings.stripe_signing_secrets == ("whsec_new", "whsec_old")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1/128")


def test_secrets_are_in_no_representation() -> None:
    hidden = "hunter2hunter2hunter2"
    settings = load_settings(
        env_file=None,
        jwt_secret=hidden,
        admin_token=hidden,
        stripe_signing_secrets=hidden,
        database_url=f"postgresql://u:{hidden}@h/x",
        redis_url=f"redis://:{hidden}@h",
    )
    assert hidden not in f"{settings!r} {settings}"
    assert "postgresql://u:***@h/x" in repr(settings)
    assert settings.jwt_secret.encode() == hidden.encode()
    assert hidden in settings.database_url


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        defaults().app_port = 1  # type: ignore[misc]
