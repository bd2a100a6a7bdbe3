"""Keys of payments through providers: Stripe, PayPal, Kaspi, merchants' orders, orchestration."""

from typing import Annotated, Literal

from pydantic import BaseModel, StringConstraints

from core.settings.hosts import is_this_machine
from core.settings.kinds import BaseUrl, Secret, Secrets, Url, Words, key, zero_means

# Where PayPal keeps the certificates of its webhooks, by PAYPAL_MODE.
PAYPAL_CERT_HOSTS = {
    "live": ("api.paypal.com", "api-m.paypal.com"),
    "sandbox": ("api.sandbox.paypal.com", "api-m.sandbox.paypal.com"),
}


class Upstreams(BaseModel):
    """Providers: addresses and keys."""

    stripe_api_base: BaseUrl = key("https://api.stripe.com", "Base URL of Stripe")
    stripe_secret_key: Secret = key("", "Secret key at Stripe")
    stripe_http_timeout_seconds: Annotated[int, zero_means(10)] = key(
        10, "Time limit of a call to Stripe; 0 and below mean 10", unit="seconds", le=120
    )
    paypal_api_base: BaseUrl = key("", "Base URL of PayPal; unset: by PAYPAL_MODE")
    paypal_verify: Literal["offline", "api"] = key(
        "offline",
        "Verifier of PayPal's events: offline (we do, by PayPal's certificate) or api (PayPal's verification API,"
        " one call an event)",
    )
    paypal_cert_hosts: Words = key(
        "",
        "Hosts, with a port where it is not 443, that PayPal's certificates are fetched from; unset: PayPal's own, by"
        " PAYPAL_MODE; prod refuses others",
    )
    paypal_roots_file: str = key(
        "",
        "Development toggle: a PEM file with the roots that PayPal's certificates and hosts are checked by; unset:"
        " Mozilla's",
    )
    cloudpayments_api_base: BaseUrl = key("https://api.cloudpayments.ru", "Base URL of CloudPayments")
    cloudpayments_api_secrets: Secrets = key(
        "",
        "API secrets of CloudPayments, which sign its notifications, comma separated during a rotation; unset: every"
        " notification is refused",
        names=("CLOUDPAYMENTS_API_SECRET",),
    )
    cloudpayments_livemode: Literal["", "live", "test", "both"] = key(
        "",
        "Which of CloudPayments' notifications have an effect, by their TestMode: live, test or both; unset: live in"
        " prod, both elsewhere",
    )
    cloudpayments_public_id: str = key("", "Public ID at CloudPayments, under which payments are asked for")
    simulator_url: BaseUrl = key(
        "", "Development toggle: base URL of the provider simulator, which charges nobody; unset: none"
    )
    simulator_timeout: float = key(
        10, "Time limit of a call to the provider simulator", unit="seconds", ge=0.1, le=40
    )
    simulator_webhook_url: Url = key("", "Where the provider simulator sends its webhooks")
    simulator_webhook_secret: Secret = key("", "Secret (whsec_...) that the provider simulator signs with")
    payment_routes: str = key(
        "",
        'Rules that choose the providers of a payment, as JSON: [{"provider": "stripe", "currencies": ["USD"]}]; unset:'
        " each provider that is set up takes what it can; docs/payments.md has the fields",
    )
    provider_url: BaseUrl = key("", "Base URL of the provider of payment links for merchants' orders")
    payment_url_base_webhook: Url = key("", "Where the simulator of merchants' links sends its webhooks")
    internal_webhook_secret: Secrets = key(
        "",
        "Keys of X-Internal-Signature on provider webhooks, comma separated during a rotation: all count; the simulator"
        " signs with the first",
    )
    orders_currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = key(
        "XXX",
        "Currency of merchants' orders, in which the alias stripe is asked at Stripe itself; XXX: none, so that every"
        " alias is asked at PROVIDER_URL",
    )
    orders_charge: Literal["amount", "price"] = key(
        "amount", "Which of an order's two amounts is charged there: amount or price"
    )
    merchant_callback_url: Url = key(
        "", "Where merchants' notifications go when a merchant has no own address"
    )
    production_api_url: BaseUrl = key("", "Base URL of the Kaspi proxy, ends in /api/v2/paymentkaspi")
    kaspi_access_token: Secret = key("", "Token at the Kaspi proxy")
    kaspi_api_base: BaseUrl = key(
        "",
        "Base URL of Kaspi's own API (r3), such as https://qrapi-cert-ip.kaspi.kz; it comes before the proxy",
    )
    kaspi_api_cert_file: str = key(
        "",
        "PEM file with the certificate, and the certificates above it, by which the bank's own API knows us",
    )
    kaspi_api_key_file: str = key(
        "", "PEM file with that certificate's key; unset: the key is in the same file"
    )
    kaspi_api_key_password: Secret = key("", "Password of that key, if it has one")
    kaspi_api_roots_file: str = key(
        "", "PEM file with the roots that the bank's own API is checked by; unset: the system's"
    )
    kaspi_api_timeout: float = key(
        30, "Time limit of a call to the Kaspi proxy or the bank", unit="seconds", ge=0.1, le=120
    )
    kaspi_max_retries: int = key(
        3, "Further attempts at a call that may be repeated", unit="attempts", ge=0, le=20
    )
    kaspi_retry_delay: float = key(1, "Wait between those attempts", unit="seconds", ge=0, le=60)


class Orchestration(BaseModel):
    """Providers: orchestration."""

    app_service_name: str = key("payments-service", "Our name in callers' lists of allowed services")
    app_api_key: Secret = key(
        "",
        "Our own key at the auth service, which is not asked without it, and at receivers of status callbacks",
    )
    auth_service_grpc_addr: str = key(
        "",
        "Auth service that is asked for callers' keys that `tallystick keys` has not made, host:port; unset: none is"
        " asked; it is never our own GRPC_PORT",
    )
    grpc_host: str = key(
        "0.0.0.0",  # noqa: S104
        "Address the gRPC API listens on; `up` takes 127.0.0.1 when it is unset",
    )
    grpc_port: int = key(
        9090,
        "Port of the gRPC API; outside prod the default moves on from a busy one and says so; 0: no gRPC",
        ge=0,
        le=65535,
    )
    grpc_tls_cert_file: str = key("", "PEM file of the certificates that the gRPC API shows; unset: no TLS")
    grpc_tls_key_file: str = key("", "PEM file of the private key of GRPC_TLS_CERT_FILE")
    grpc_tls_client_ca_file: str = key(
        "",
        "PEM file of the authorities whose certificates callers of the gRPC API must show; unset: they show none",
    )
    payments_provider_callback_base_url: BaseUrl = key("", "Base URL of providers' callbacks to us")
    payments_callback_trusted_hosts: Words = key(
        "",
        "Hosts (host or host:port, comma separated) of receivers of status callbacks that are your own: they get"
        " APP_API_KEY as X-API-Key, and may be private and without TLS; unset: nobody gets the key",
    )
    payments_callback_max_attempts: Annotated[int, zero_means(1)] = key(
        10, "Attempts at a status callback; 0 and below mean 1", unit="attempts", le=1_000
    )
    payments_callback_retry_interval_minutes: Annotated[int, zero_means(5)] = key(
        5, "Wait between those attempts; 0 and below mean 5", unit="minutes", le=10_080
    )
    payments_callback_http_timeout_seconds: Annotated[int, zero_means(10)] = key(
        10, "Time limit of a status callback; 0 and below mean 10", unit="seconds", le=120
    )
    payments_pending_timeout_minutes: int = key(
        60,
        "Age at which an open payment of orchestration is given up: its provider is asked to close it; 0: at once",
        unit="minutes",
        ge=0,
        le=525_600,
    )
    payments_reconcile_stale_after_minutes: int = key(
        15,
        "The longest time for which an open payment is not asked for at its provider; 0: each minute, and at each run"
        " of `tallystick payments reconcile`",
        unit="minutes",
        ge=0,
        le=525_600,
    )
    payments_job_batch_size: Annotated[int, zero_means(100)] = key(
        100,
        "Payments that one run of `tallystick payments reconcile` or one step of expiring takes; 0 and below mean 100",
        unit="payments",
        le=10_000,
    )
    payments_reconcile_interval_minutes: int = key(
        2,
        "How often `tallystick payments reconcile --worker` runs, which refuses 0 and below; `tallystick worker` looks"
        " by itself",
        unit="minutes",
        le=10_080,
    )
    payments_callback_dispatch_interval_minutes: int = key(
        1,
        "How often `tallystick callbacks dispatch --worker` runs, which refuses 0 and below; `tallystick worker` sends"
        " at once",
        unit="minutes",
        le=10_080,
    )
    payments_expire_pending_interval_minutes: int = key(
        5,
        "How often `tallystick expire pending --worker` runs, which refuses 0 and below; `tallystick worker` expires"
        " by itself",
        unit="minutes",
        le=10_080,
    )

    @property
    def auth_service_problem(self) -> str:
        """A sentence on why AUTH_SERVICE_GRPC_ADDR is not asked though it is set; empty for none."""
        host, _, port = self.auth_service_grpc_addr.rpartition(":")
        name = "AUTH_SERVICE_GRPC_ADDR"
        if not self.auth_service_grpc_addr:
            return ""
        if port == str(self.grpc_port) and is_this_machine(host or "localhost", self.grpc_host):
            return f"{name}={self.auth_service_grpc_addr} is the gRPC API of this service itself, so it is not asked."
        if not self.app_api_key:
            return f"{name} is set without APP_API_KEY, which it wants to see, so it is not asked."
        return ""
