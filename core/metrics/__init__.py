"""The metrics of the service, under the names that existing dashboards and alerts read.

`docs/metrics.md` tells what each means. Labels are bounded: their values come from tables of this project, and from
settings. The series of all values that are known here are there with 0 from the start, so that a rate over the first
change is seen; a module that knows values of its own begins their series itself, as `core.payments.observing` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import __version__
from core.metrics.instruments import (
    CONTENT_TYPE,
    DEFINED,
    FAST_BOUNDS,
    HTTP_BOUNDS,
    REGISTRY,
    Copy,
    Count,
    Spread,
    each,
    flush,
    forget_process,
    level,
    render,
    totals,
)
from core.metrics.money import (
    FEED_LAG_SECONDS,
    HOLDS_OPEN,
    HOLDS_OVERDUE,
    LEDGER_BATCH_ITEMS,
    LEDGER_LANE_REFUSED,
    LEDGER_LANE_ROOM,
    LEDGER_LANE_WAIT,
    LEDGER_LANE_WAITING,
    LEDGER_TRANSFERS,
    MERCHANT_FEES,
    MERCHANT_GROSS,
    ORDERS,
    PAYMENT_LINKS,
    PAYMENT_REQUESTS,
    PAYMENT_STATES,
    PAYMENTS_LOOK_LAG,
    PAYMENTS_UNKNOWN,
    PAYMENTS_UNKNOWN_AGE,
    PROVIDER_BREAKER,
    PROVIDER_CALLS,
    PROVIDER_SECONDS,
    QR_PAYMENTS,
    REFUND_CENTS,
    REFUND_STATES,
    REFUNDS,
    REFUNDS_LOOK_LAG,
    REFUNDS_UNKNOWN,
    REFUNDS_UNKNOWN_AGE,
    SUBSCRIPTION_CENTS,
    SUBSCRIPTIONS,
    TRANSACTION_RETRIES,
    TRANSFERS,
    begin_currency,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

# fmt: off
__all__ = [
    "CONTENT_TYPE",
    "DEFINED",
    "FEED_LAG_SECONDS",
    "HOLDS_OPEN",
    "HOLDS_OVERDUE",
    "LEDGER_BATCH_ITEMS",
    "LEDGER_LANE_REFUSED",
    "LEDGER_LANE_ROOM",
    "LEDGER_LANE_WAIT",
    "LEDGER_LANE_WAITING",
    "LEDGER_TRANSFERS",
    "MERCHANT_FEES",
    "MERCHANT_GROSS",
    "ORDERS",
    "PAYMENTS_LOOK_LAG",
    "PAYMENTS_UNKNOWN",
    "PAYMENTS_UNKNOWN_AGE",
    "PAYMENT_LINKS",
    "PAYMENT_REQUESTS",
    "PAYMENT_STATES",
    "PROVIDER_BREAKER",
    "PROVIDER_CALLS",
    "PROVIDER_SECONDS",
    "QR_PAYMENTS",
    "REFUNDS",
    "REFUNDS_LOOK_LAG",
    "REFUNDS_UNKNOWN",
    "REFUNDS_UNKNOWN_AGE",
    "REFUND_CENTS",
    "REFUND_STATES",
    "REGISTRY",
    "SUBSCRIPTIONS",
    "SUBSCRIPTION_CENTS",
    "TRANSACTION_RETRIES",
    "TRANSFERS",
    "Count",
    "Spread",
    "begin_currency",
    "each",
    "flush",
    "forget_process",
    "level",
    "render",
    "totals",
]
# fmt: on

# --- Names. Contract names stand as they are; `path` and `endpoint` both carry the route's template.

_JOBS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600)
_BYTES = (256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304)
_COARSE = (0.001, 0.01, 0.1, 1, 5)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Providers that send webhooks to routes of their own; all sources that principals register are `source` together.
_SENDERS = ("stripe", "paypal", "cloudpayments", "source")
_ENDS = ("success", "failed")

HTTP_REQUESTS = Count(
    "http_requests_total", "Requests answered", ("method", "path", "endpoint", "status", "status_code")
)
HTTP_SECONDS = Spread(
    "http_request_duration_seconds", "Time to answer", ("method", "path", "endpoint"), HTTP_BOUNDS
)
HTTP_BYTES = Spread(
    "http_request_size_bytes", "Size of requests' bodies", ("method", "path", "endpoint"), _BYTES
)

GRPC_REQUESTS = Count("grpc_requests_total", "gRPC calls answered", ("method", "code"))
GRPC_SECONDS = Spread("grpc_request_duration_seconds", "Time to answer a gRPC call", ("method",), HTTP_BOUNDS)

WEBHOOK_EVENTS = Count(
    "webhook_events_total",
    "Webhooks received",
    ("provider", "event_type", "status"),
    each(_SENDERS, ("webhook",), ("processed", "duplicate", "failed", "error")),
)
WEBHOOK_SECONDS = Spread(
    "webhook_processing_duration_seconds",
    "Time to take a webhook in",
    ("provider", "event_type"),
    FAST_BOUNDS,
    each(_SENDERS, ("webhook",)),
)
WEBHOOK_SIGNATURES = Count(
    "webhook_signature_validations_total",
    "Signatures checked",
    ("provider", "valid", "result"),
    [(sender, *words) for sender in _SENDERS for words in (("true", "valid"), ("false", "invalid"))],
)

DATABASE_UP = level("database_up", "1 when PostgreSQL has answered the last questions of a scrape in time")
DATABASE_OPERATIONS = Count("database_operations_total", "Statements run", ("operation", "table", "status"))
DATABASE_OPERATION_SECONDS = Spread(
    "database_operation_duration_seconds",
    "Time of a named statement, under the contract's name and in few steps",
    ("operation", "table"),
    _COARSE,
)
DATABASE_SECONDS = Spread(
    "database_query_seconds",
    "Time of a named statement",
    ("query",),
    FAST_BOUNDS,
    also=Copy(DATABASE_OPERATION_SECONDS, lambda labels: (*labels, "")),
)
DATABASE_CONNECTIONS = level("database_connections_active", "Connections in use", share="livesum")
POOL_SIZE = level("database_pool_size", "Connections that the pools may open", share="livesum")
POOL_WAITING = level("database_pool_waiting", "Calls that wait for a connection", share="livesum")
POOL_WAIT = Spread(
    "database_pool_wait_seconds",
    "Time that calls waited for a connection where none was at hand",
    (),
    FAST_BOUNDS,
)
POOL_TIMEOUTS = Count("database_pool_timeouts_total", "Calls that got no connection in time")
MIGRATIONS_PENDING = level(
    "migrations_pending", "Files of this version's schema that the database does not have; NaN if unknown"
)
LOOP_LAG = Spread(
    "event_loop_lag_seconds", "By how much the event loop was late for a timer that rings once a second", (),
    _LAG,
)  # fmt: skip

JOB_RUNS = Count("job_runs_total", "Runs of jobs that found something to do, and runs that failed",
    ("job_name", "status"), each(("reconciliation",), _ENDS),
)  # fmt: skip
JOB_SECONDS = Spread(
    "job_duration_seconds", "Time of a job's run", ("job_name",), _JOBS, each(("reconciliation",))
)
JOB_LAST_SUCCESS = level(
    "job_last_success_timestamp_seconds",
    "When a job last ended well, also where nothing was due; before the first time, when its worker started",
    ("job_name",),
)
JOB_INTERVAL = level(
    "job_interval_seconds", "The longest time between two runs of a job that is planned", ("job_name",)
)
CLAIM_SECONDS = Spread(
    "claim_seconds",
    "Time in which a worker claims due work",
    ("work",),
    FAST_BOUNDS,
    each(("inbox", "fan_out", "deliveries", "payments", "refunds")),
)
INBOX_PENDING = level("inbox_pending_events", "Events that are due and not applied, up to 10,000")
INBOX_OLDEST = level("inbox_oldest_seconds", "For how long the event that is due longest has waited")
OUTBOX_PENDING = level("outbox_pending_events", "Events without their deliveries, up to 10,000")
OUTBOX_OLDEST = level("outbox_oldest_seconds", "Age of the oldest of them")
DELIVERIES_PENDING = level("deliveries_pending", "Deliveries that are due and not under way, up to 10,000")
DELIVERIES_OLDEST = level(
    "deliveries_oldest_seconds", "For how long the delivery that is due longest has waited"
)
BREAKERS = level(
    "webhook_breakers",
    "Receivers that this worker leaves alone (open), or will try with one delivery (trial)",
    ("state",),
    share="livesum",
)
DLQ_MESSAGES = Count(
    "dlq_messages_total",
    "Dead letters by action: added, retried, failed (again) or discarded",
    ("action",),
    each(("added", "retried", "failed", "discarded")),
)
DLQ_PENDING = level("dlq_messages_pending", "Dead letters that wait for a person, up to 10,000")
DLQ_OLDEST = level("dlq_oldest_seconds", "For how long the dead letter that came first has waited")

RECONCILIATION_EVENTS = Count(
    "reconciliation_events_processed_total",
    "Events that summaries have counted",
    ("provider",),
    each(_SENDERS),
)
RECONCILIATION_ANOMALIES = Count(
    "reconciliation_anomalies_detected_total",
    "Anomalies that summaries have found",
    ("anomaly_type",),
    each(("high_frequency_event", "dead_letters", "late_events")),
)
RECONCILIATION_LAST_RUN = level(
    "reconciliation_last_run_timestamp", "When the last summary was made", share="mostrecent"
)

DELIVERIES = Count(
    "payments_webhook_deliveries_total",
    "Deliveries by status: delivered or failed, and created for tests",
    ("status",),
    each(("created", "delivered", "failed")),
)
DELIVERY_ATTEMPTS = Count(
    "payments_webhook_attempts_total",
    "Attempts at deliveries: success or error",
    ("result",),
    each(("success", "error")),
)
DELIVERY_SECONDS = Spread(
    "payments_webhook_attempt_seconds", "Time of an attempt at a delivery", (), HTTP_BOUNDS
)

SIGN_INS = Count(
    "sign_ins_total",
    "Sign-ins by way (otp, password, dev and so on) and result",
    ("method", "result"),
    each(("otp", "register", "password", "passkey", "dev", "refresh"), ("success", "refused")),
)
SIGN_IN_MESSAGES = Count(
    "sign_in_messages_total",
    "Sign-in codes by sender: sent or failed",
    ("sender", "result"),
    each(("log", "http"), ("sent", "failed")),
)
RECONCILE_FINDINGS = level(
    "reconcile_findings",
    "Balances that are not the sum of their entries, and transfers that do not balance, at the last look",
    ("kind",),
)
RECONCILE_LAST_RUN = level("reconcile_last_run_timestamp", "When that look ended, 0 before the first")
PROVIDER_REPORT_ROWS = level(
    "provider_report_rows",
    "Rows of the last report of a provider that was compared, by class",
    ("provider", "class"),
)
PROVIDER_REPORT_LAST_RUN = level(
    "provider_report_last_run_timestamp", "When a report of a provider was last compared", ("provider",)
)
WORKER_HEARTBEAT_AGE = level(
    "worker_heartbeat_age_seconds", "Time since any worker's last heartbeat; infinite without a worker"
)
BACKUP_AGE = level("backup_age_seconds", "Age of what the newest finished backup holds; infinite without one")

_UP = level("application_up", "1 while the process runs", share="livemax")
_READY = level("application_ready", "1 after /ready said so")
_BUILD = level(
    "payments_api_build_info", "The version that runs", ("environment", "name", "version"), share="livemax"
)


def mark_started(environment: str) -> None:
    """Record that the process is up; `environment` is ENV."""
    _UP.set(1)
    _READY.set(0)
    _BUILD.labels(environment, "payments-api", __version__).set(1)


def mark_ready(*, ready: bool) -> None:
    """Record the last answer of /ready."""
    _READY.set(int(ready))


def observe_request(method: str, path: str, status: int, seconds: float, size: int = 0) -> None:
    """Record an answered request: `path` is the route's template, `size` the body's bytes (0: no body)."""
    known = method if method in _METHODS else "OTHER"
    code = str(status)
    HTTP_REQUESTS.add(known, path, path, code, code)
    HTTP_SECONDS.observe(seconds, known, path, path)
    if size:
        HTTP_BYTES.observe(size, known, path, path)


def observe_grpc(method: str, code: str, seconds: float) -> None:
    """Record an answered gRPC call: the method's own name, and the name of its status."""
    GRPC_REQUESTS.add(method, code)
    GRPC_SECONDS.observe(seconds, method)


def observe_query(query: str, seconds: float, *, ok: bool = True) -> None:
    """Record a run of the statement named `query`."""
    DATABASE_SECONDS.observe(seconds, query)
    DATABASE_OPERATIONS.add(query, "", "success" if ok else "error")


def observe_webhook(provider: str, event_type: str, status: str, seconds: float) -> None:
    """Record an incoming webhook; `status`: processed, duplicate, failed or error. Pass known event types only."""
    sender = _sender(provider)
    WEBHOOK_EVENTS.add(sender, event_type, status)
    WEBHOOK_SECONDS.observe(seconds, sender, event_type)


def observe_signature(provider: str, *, valid: bool) -> None:
    """Record a signature check."""
    word = "true" if valid else "false"
    WEBHOOK_SIGNATURES.add(_sender(provider), word, "valid" if valid else "invalid")


def begin_route(method: str, path: str) -> None:
    """Show that no request of a route has failed yet, since the first one that does must show as a change."""
    for status in ("500", "503"):
        HTTP_REQUESTS.begin(method, path, path, status, status)


def begin_grpc(methods: Iterable[str], codes: Iterable[str]) -> None:
    """Show that no method of gRPC was called yet."""
    for method, code in each(methods, codes):
        GRPC_REQUESTS.begin(method, code)


def begin_job(name: str) -> None:
    """Show that a job has not run yet."""
    for end in _ENDS:
        JOB_RUNS.begin(name, end)
    JOB_SECONDS.begin(name)


def _sender(provider: str) -> str:
    """Return the label for a provider. Principals register as many sources as they like: these are one together."""
    return provider.partition(":")[0]
