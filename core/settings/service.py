"""Keys of the service itself: process, storage, limits, ledger, webhooks in and out."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

from core.settings.kinds import (
    BaseUrl,
    Currency,
    Environment,
    LogLevel,
    Lower,
    Networks,
    Secret,
    Secrets,
    Switch,
    Words,
    key,
    zero_is_unset,
    zero_means,
)


class Process(BaseModel):
    """The process."""

    env: Environment = key(
        "dev",
        "Which rules apply: dev, test or prod. Any other word (staging, a typo) counts as prod,"
        " which refuses development toggles and default secrets",
        also=("APP_ENV",),
    )
    app_host: str = key(
        "0.0.0.0",  # noqa: S104
        "Address the HTTP API listens on; `up` takes 127.0.0.1 when it is unset",
        also=("HTTP_HOST",),
    )
    app_port: int = key(
        8080,
        "Port of the HTTP API; outside prod a busy default moves on and says so",
        also=("HTTP_PORT", "PORT"),
        ge=0,
        le=65535,
    )
    serve_workers: int = key(
        1, "Processes that serve the HTTP API on the one port", also=("UVICORN_WORKERS",), ge=1, le=256
    )
    shutdown_timeout_secs: int = key(
        10, "How long requests in progress may take to end at a stop or reload", unit="seconds", ge=0, le=300
    )
    shutdown_drain_secs: int = key(
        0,
        "How long `serve` goes on serving at a stop while /ready says that it stops, so that a load balancer which asks"
        " there sends its requests elsewhere",
        unit="seconds",
        ge=0,
        le=300,
    )
    state_dir: str = key(
        ".state",
        "Folder of the embedded servers' data, of logs and of keys made for development; unset: .state in the"
        " checkout, for root /var/lib/tallystick/<checkout>-<hash>, which the servers' user can enter",
    )
    public_base_url: BaseUrl = key(
        "", "Address under which clients reach the API; unset: http://localhost:APP_PORT"
    )
    log_level: LogLevel = key(
        "info",
        "Least level that is logged: debug, info, warning, error or critical",
        also=("UVICORN_LOG_LEVEL",),
    )
    debug: Switch = key(
        False, "Development toggle: all is logged, whatever LOG_LEVEL says, and each SQL statement"
    )
    max_request_size: int = key(
        1_048_576,
        "Largest body of a request; /v1/transfers/batch allows four times as much, wallets' routes 65536 at most",
        unit="bytes",
        ge=1,
        le=67_108_864,
    )


class Ports(BaseModel):
    """Ports of the contracts: on each, one contract alone answers, as its own service did."""

    wallet_port: int = key(
        0, "Port of APP_HOST on which only the wallets' contract answers; 0: none", ge=0, le=65535
    )
    inbox_port: int = key(
        0, "Port of APP_HOST on which only the inbox's contract answers; 0: none", ge=0, le=65535
    )
    orchestration_port: int = key(
        0, "Port of APP_HOST on which only internal services' payments answer; 0: none", ge=0, le=65535
    )
    kaspi_port: int = key(
        0, "Port of APP_HOST on which only the Kaspi contract answers; 0: none", ge=0, le=65535
    )
    orders_port: int = key(
        0,
        "Port of APP_HOST on which only the contract of merchants' orders answers, as once on 8000; 0: none",
        ge=0,
        le=65535,
    )


class Network(BaseModel):
    """The network: callers that may reach us, and hosts that we may reach."""

    trusted_proxies: Networks = key(
        "", "Proxies whose X-Forwarded-For is believed; addresses or networks, comma separated"
    )
    trusted_networks: Networks = key(
        "",
        "Networks whose requests to a contract's own port need no token where that contract asked for none (reports,"
        " metrics), and whose X-Merchant-Id is believed; comma separated; a proxy's own address never counts",
        dev="127.0.0.0/8,::1/128",
    )
    allowed_origins: Words = key(
        "",
        "Origins that browsers may call from (CORS), comma separated; prod refuses none and *",
        also=("CORS_ORIGINS",),
        dev="*",
    )
    outbound_allow_hosts: Words = key(
        "",
        "Private hosts, addresses and networks that outgoing calls may reach, comma separated; public ones always"
        " may; prod refuses wildcards and metadata addresses",
        dev="localhost,127.0.0.0/8,::1",
    )


class AtRest(BaseModel):
    """Secrets at rest."""

    secrets_keys: Secrets = key(
        "",
        "Keys under which secrets of endpoints, sources and merchants are stored, 32 characters or more, comma"
        " separated: the first encrypts, all decrypt; unset: secrets of endpoints and sources stand readable in the"
        " database and its backups",
    )


class Limits(BaseModel):
    """Rate limits."""

    rate_limit_enabled: Switch = key(True, "Whether rates are limited at all")
    rate_limit_backend: Annotated[Literal["", "memory", "redis"], Lower] = key(
        "",
        "No effect, a key of the old service: Redis counts rates for all processes, and each process for itself while"
        " Redis is away; prod wants redis",
    )
    v1_rate_limit_per_second: int = key(
        5_000, "Requests of one API key under /v1", unit="requests a second", ge=1, le=1_000_000
    )
    v1_rate_limit_burst: int = key(
        10_000, "Requests one API key may make at once after a pause", unit="requests", ge=1, le=10_000_000
    )
    v1_rate_limit_address_per_second: int = key(
        10_000,
        "Requests of one client address under /v1 and /webhooks",
        unit="requests a second",
        ge=1,
        le=1_000_000,
    )
    v1_rate_limit_address_burst: int = key(
        20_000,
        "Requests one client address may make at once after a pause",
        unit="requests",
        ge=1,
        le=10_000_000,
    )
    rate_limit_per_minute: int = key(
        60,
        "Requests of one wallet client over all wallet routes",
        unit="requests a minute",
        ge=1,
        le=10_000_000,
    )
    rate_limit_auth_boost: int = key(2, "Factor on that rate for clients with a token", ge=1, le=1_000)
    rl_limit_per_minute_override: Annotated[int | None, BeforeValidator(zero_is_unset)] = key(
        None,
        "Replaces RATE_LIMIT_PER_MINUTE when set; 0: unset",
        unit="requests a minute",
        ge=1,
        le=10_000_000,
    )
    rl_auth_boost_override: Annotated[int | None, BeforeValidator(zero_is_unset)] = key(
        None, "Replaces RATE_LIMIT_AUTH_BOOST when set; 0: unset", ge=1, le=1_000
    )
    rl_exempt_otp: Switch = key(True, "In dev, sign-in codes are not counted against the rate")


class Ledger(BaseModel):
    """Ledger and access."""

    default_currency: Currency = key("SYP", "Currency of new wallets; 3 to 12 upper-case letters or digits")
    poster_max_waiting: int = key(
        20_000,
        "Transfers that may wait for the posting lane; more are refused",
        unit="transfers",
        ge=1,
        le=1_000_000,
    )
    seal_interval_ms: int = key(
        100, "How often committed transfers are numbered and sealed", unit="milliseconds", ge=10, le=60_000
    )
    hold_expiry_interval_ms: int = key(
        500, "How often holds past their time are released", unit="milliseconds", ge=10, le=60_000
    )
    effective_max_past_days: int = key(
        3_650,
        "How far back a transfer may take effect; the closed date of its currency may be nearer",
        unit="days",
        ge=0,
        le=36_500,
    )
    effective_max_future_days: int = key(
        366, "How far ahead a transfer may take effect", unit="days", ge=0, le=36_500
    )
    idempotency_ttl_secs: int = key(
        600,
        "How long Redis keeps finished answers; PostgreSQL keeps them for ever",
        unit="seconds",
        ge=1,
        le=86_400,
    )
    api_key_cache_secs: int = key(
        5,
        "Time for which a process believes its copy of an API key; a revocation may come so late",
        unit="seconds",
        ge=0,
        le=300,
    )


class Inbox(BaseModel):
    """Webhooks in."""

    stripe_signing_secrets: Secrets = key(
        "",
        "Secrets of Stripe's webhook endpoints, comma separated during a rotation; unset: every event is refused",
        names=("STRIPE_SIGNING_SECRET", "STRIPE_WEBHOOK_SECRET"),
    )
    stripe_livemode: Literal["", "live", "test", "both"] = key(
        "",
        "Which of Stripe's events have an effect: live, test or both; the others are stored and ignored; unset: live in"
        " prod, both elsewhere",
    )
    stripe_accounts: Words = key(
        "",
        "Connected accounts of Stripe (acct_...) whose events have an effect, comma separated; unset: those of the"
        " platform's own account alone",
    )
    stripe_timestamp_tolerance: Annotated[int, zero_means(300)] = key(
        300,
        "How far a signature's time may be from ours, either way; 0 and below mean 300",
        also=("STRIPE_SIGNATURE_TOLERANCE_SECONDS",),
        unit="seconds",
        le=86_400,
    )
    paypal_mode: Annotated[Literal["live", "sandbox", "demo_hmac"], Lower] = key(
        "sandbox", "How PayPal's events are verified: live, sandbox or demo_hmac (a development toggle)"
    )
    paypal_webhook_id: str = key("", "Id of the webhook at PayPal")
    paypal_client_id: str = key("", "Client id at PayPal")
    paypal_client_secret: Secret = key("", "Client secret at PayPal")
    demo_hmac_secret: Secret = key("", "Secret of X-Demo-Signature in the mode demo_hmac")
    inbox_max_attempts: int = key(
        12, "Attempts at an event until it goes to the dead letters", unit="attempts", ge=1, le=100
    )
    inbox_retry_base_secs: float = key(
        1,
        "Longest wait after the first failed attempt; it doubles with each, the wait is drawn below it",
        unit="seconds",
        ge=0.01,
        le=3_600,
    )
    inbox_retry_cap_secs: float = key(
        900, "Longest wait between two attempts", unit="seconds", ge=0.01, le=86_400
    )
    inbox_retention_days: int = key(
        90,
        "How long finished events of providers are kept, at least a week; 0: for ever. Dead letters stay",
        unit="days",
        ge=0,
        le=36_500,
    )
    inbox_backfill_hours: int = key(
        72,
        "How far back the worker asks providers, once an hour, for events that were not delivered; 0: never",
        unit="hours",
        ge=0,
        le=720,
    )
    dlq_backend: Annotated[Literal["db", "redis"], Lower] = key(
        "db",
        "redis: dead letters are announced on a Redis stream, too; they are always kept in PostgreSQL",
    )


class Outbox(BaseModel):
    """Webhooks out."""

    webhook_base_delay_secs: float | None = key(
        None,
        "Wait after the first failed delivery. With this, the factor and the number of attempts all unset, the"
        " example schedule of Standard Webhooks applies: 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h; with one of"
        " them set, the others are 2 seconds, 2 and 5 attempts",
        unit="seconds",
        ge=0,
        le=86_400,
    )
    webhook_backoff_factor: float | None = key(
        None, "Factor on the wait for each further failure; below 1 the waits get shorter", ge=0, le=100
    )
    webhook_max_attempts: int | None = key(
        None, "Attempts until a delivery has failed for good", unit="attempts", ge=1, le=100
    )
    webhook_disable_after_fails: int = key(
        0,
        "An endpoint is switched off after so many deliveries in a row that failed for good; 0: never",
        ge=0,
        le=1_000_000,
    )
    webhook_disable_after_hours: int = key(
        120,
        "An endpoint is switched off when nothing but failures came of it for so long; 0: never",
        unit="hours",
        ge=0,
        le=8_760,
    )
    webhook_breaker_open_secs: float = key(
        30,
        "How long a receiver that mostly fails is left alone before one delivery tries it again; twice as long after"
        " each failed try, up to 16 times; waiting costs no attempt; 0: never left alone",
        unit="seconds",
        ge=0,
        le=3_600,
    )
    webhook_attempts_days: int = key(
        30, "How long the attempts at deliveries are kept", unit="days", ge=1, le=3_650
    )
    webhook_deliveries_days: int = key(
        30,
        "How long a delivery that is delivered or failed is kept, and can be sent again; its attempts go with it"
        " if they are kept for longer; 0: for ever",
        unit="days",
        ge=0,
        le=3_650,
    )
    webhook_events_days: int = key(
        30,
        "How long an outgoing event can be read at /v1/events; one that still has a delivery is kept with it; 0: for"
        " ever",
        unit="days",
        ge=0,
        le=3_650,
    )
    webhook_worker_poll_secs: float = key(
        0,
        "How often the worker looks for due deliveries, woken or not; 0: as often as for lost wake-ups",
        unit="seconds",
        ge=0,
        le=3_600,
    )
    webhook_process_interval_secs: float = key(
        0, "How often the worker sweeps for lost wake-ups; 0: its own 1 s", unit="seconds", ge=0, le=3_600
    )
