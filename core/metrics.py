"""The metrics of the service, under the names that existing dashboards and alerts read.

Hot paths add to plain dictionaries, which `flush` hands over to prometheus_client: at every `render`, and, where
several processes share a port, half a second after the first change. Measured on one core with shared files: counter
1.5 us and histogram 3.3 us when called directly, which is 8 us for a request; `observe_request` takes 2 us with its
share of the flush. A process that is killed loses at most its last half second of counts.

Several processes: PROMETHEUS_MULTIPROC_DIR must be in the environment before this module is imported, since
prometheus_client reads it then. The supervisor empties the folder, starts its children with it, and calls
`forget_process` for each one that ended. All functions belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from bisect import bisect_left
from functools import partial

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import MutexValue, ValueClass

from core import __version__

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
# prometheus_client chose this class by PROMETHEUS_MULTIPROC_DIR when it was imported.
SHARED = ValueClass is not MutexValue
FLUSH_SECONDS = 0.5
# All processes of a machine can never add so many bytes between two looks.
ROOM_BYTES = 4 * 2**20

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
_METRICS: list[Count | Spread] = []
# A gauge of which the last value is true, whichever process has set it.
_Newest = partial(Gauge, registry=REGISTRY, multiprocess_mode="livemostrecent")

# A single process hands its counts over when it renders, so it never needs the timer.
_flush_is_due = not SHARED


class Count:
    """A counter that is cheap to add to."""

    def __init__(self, name: str, about: str, labels: tuple[str, ...] = ()) -> None:
        self._counter = Counter(name, about, labels, registry=REGISTRY)
        self._added: dict[tuple[str, ...], float] = {}
        _METRICS.append(self)

    def add(self, *labels: str, by: float = 1) -> None:
        """Add `by` to the series with these label values."""
        added = self._added
        if labels in added:
            added[labels] += by
        else:
            added[labels] = by
            if not _flush_is_due:
                _schedule_flush()

    def flush(self) -> None:
        """Hand over to prometheus_client."""
        added, self._added = self._added, {}
        for labels, by in added.items():
            (self._counter.labels(*labels) if labels else self._counter).inc(by)


class Spread:
    """A histogram that is cheap to observe into."""

    def __init__(self, name: str, about: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._histogram = Histogram(name, about, labels, buckets=bounds, registry=REGISTRY)
        self._bounds = bounds
        # Each list, by label values, has the count of each bucket, the last one unbounded, and then the sum.
        self._seen: dict[tuple[str, ...], list[float]] = {}
        _METRICS.append(self)

    def observe(self, value: float, *labels: str) -> None:
        """Record `value` in the series with these label values."""
        seen = self._seen.get(labels)
        if seen is None:
            seen = self._seen[labels] = [0] * (len(self._bounds) + 2)
            if not _flush_is_due:
                _schedule_flush()
        seen[bisect_left(self._bounds, value)] += 1
        seen[-1] += value

    def flush(self) -> None:
        """Hand over to prometheus_client."""
        seen_of, self._seen = self._seen, {}
        for labels, seen in seen_of.items():
            child = self._histogram.labels(*labels) if labels else self._histogram
            # The client has no public way to add many observations at once; a test holds that these members exist.
            for bucket, count in zip(child._buckets, seen, strict=False):  # noqa: SLF001
                if count:
                    bucket.inc(count)
            child._sum.inc(seen[-1])  # noqa: SLF001


def flush() -> None:
    """Hand over the counts since the last time; keep them while the folder that processes share has no room.

    The client writes into mapped files, and a page that the disk has no room for ends the process with SIGBUS.
    """
    global _flush_is_due  # noqa: PLW0603
    if SHARED and not _has_room():
        _flush_is_due = False
        _schedule_flush()
        return
    for metric in _METRICS:
        metric.flush()
    _flush_is_due = not SHARED


def _has_room() -> bool:
    try:
        found = os.statvfs(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    except (KeyError, OSError):
        return False
    return found.f_bavail * found.f_frsize >= ROOM_BYTES


def _schedule_flush() -> None:
    global _flush_is_due  # noqa: PLW0603
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return  # without a loop this is a short-lived command, which flushes at its end
    loop.call_later(FLUSH_SECONDS, flush)
    _flush_is_due = True


if SHARED:
    atexit.register(flush)


# --- Names. Contract names stand as they are; `path` and `endpoint` both carry the route's template.

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_HTTP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_JOBS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600)
_BYTES = (256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304)
_ITEMS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

HTTP_REQUESTS = Count(
    "http_requests_total", "Requests answered", ("method", "path", "endpoint", "status", "status_code")
)
HTTP_SECONDS = Spread(
    "http_request_duration_seconds", "Time to answer", ("method", "path", "endpoint"), _HTTP
)
HTTP_BYTES = Spread(
    "http_request_size_bytes", "Size of requests' bodies", ("method", "path", "endpoint"), _BYTES
)

GRPC_REQUESTS = Count("grpc_requests_total", "gRPC calls answered", ("method", "code"))
GRPC_SECONDS = Spread("grpc_request_duration_seconds", "Time to answer a gRPC call", ("method",), _HTTP)

WEBHOOK_EVENTS = Count("webhook_events_total", "Webhooks received", ("provider", "event_type", "status"))
WEBHOOK_SECONDS = Spread(
    "webhook_processing_duration_seconds", "Time to take a webhook in", ("provider", "event_type"), _FAST
)
WEBHOOK_SIGNATURES = Count(
    "webhook_signature_validations_total", "Signatures checked", ("provider", "valid", "result")
)

DATABASE_OPERATIONS = Count("database_operations_total", "Statements run", ("operation", "table", "status"))
DATABASE_SECONDS = Spread("database_query_seconds", "Time of a named statement", ("query",), _FAST)
DATABASE_CONNECTIONS = Gauge(
    "database_connections_active", "Connections in use", registry=REGISTRY, multiprocess_mode="livesum"
)

JOB_RUNS = Count("job_runs_total", "Runs of jobs", ("job_name", "status"))
JOB_SECONDS = Spread("job_duration_seconds", "Time of a job's run", ("job_name",), _JOBS)
DLQ_MESSAGES = Count(
    "dlq_messages_total", "Dead letters by action: added, retried, failed (again) or discarded", ("action",)
)
DLQ_PENDING = _Newest("dlq_messages_pending", "Dead letters that wait for a person")

RECONCILIATION_EVENTS = Count(
    "reconciliation_events_processed_total", "Events that summaries have counted", ("provider",)
)
RECONCILIATION_ANOMALIES = Count(
    "reconciliation_anomalies_detected_total", "Anomalies that summaries have found", ("anomaly_type",)
)
RECONCILIATION_LAST_RUN = Gauge(
    "reconciliation_last_run_timestamp",
    "When the last summary was made",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)

LEDGER_TRANSFERS = Count("ledger_transfers_total", "Transfers by outcome", ("outcome",))
LEDGER_BATCH_ITEMS = Spread("ledger_batch_items", "Transfers posted by one call of the database", (), _ITEMS)
TRANSACTION_RETRIES = Count(
    "transaction_retries_total", "Transactions run again, by what they met", ("reason",)
)
LEDGER_LANE_WAITING = Gauge(
    "ledger_lane_waiting", "Transfers that wait for the lane", registry=REGISTRY, multiprocess_mode="livesum"
)
FEED_LAG_SECONDS = Gauge(
    "feed_lag_seconds", "Age of the oldest transfer not yet in the feed", registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)  # fmt: skip

TRANSFERS = Count(
    "payments_transfers_total", "Top-ups (topup) and payments between persons (p2p)", ("kind", "status")
)
REFUNDS = Count("payments_refunds_total", "Refunds by status: completed", ("status",))
REFUND_CENTS = Count("payments_refunds_cents_total", "Minor units refunded", ("currency",))
PAYMENT_REQUESTS = Count("payments_requests_total", "Payment requests by action", ("action",))
PAYMENT_LINKS = Count("payments_links_total", "Payment links by action", ("action",))
SUBSCRIPTIONS = Count(
    "payments_subscriptions_total", "Subscriptions: created, charged, canceled", ("action",)
)
SUBSCRIPTION_CENTS = Count(
    "payments_subscriptions_cents_total", "Minor units charged by subscriptions", ("currency",)
)
DELIVERIES = Count(
    "payments_webhook_deliveries_total",
    "Deliveries by status: delivered or failed, and created for tests",
    ("status",),
)
DELIVERY_ATTEMPTS = Count(
    "payments_webhook_attempts_total", "Attempts at deliveries: success or error", ("result",)
)
DELIVERY_SECONDS = Spread("payments_webhook_attempt_seconds", "Time of an attempt at a delivery", (), _HTTP)

SIGN_INS = Count(
    "sign_ins_total",
    "Sign-ins by way (otp, password, dev and so on) and result",
    ("method", "result"),
)
SIGN_IN_MESSAGES = Count(
    "sign_in_messages_total", "Sign-in codes by sender: sent or failed", ("sender", "result")
)
RECONCILE_FINDINGS = _Newest(
    "reconcile_findings",
    "Balances that are not the sum of their entries, and transfers that do not balance, at the last look",
    ("kind",),
)
PROVIDER_REPORT_ROWS = _Newest(
    "provider_report_rows",
    "Rows of the last report of a provider that was compared, by class",
    ("provider", "class"),
)
PROVIDER_REPORT_LAST_RUN = _Newest(
    "provider_report_last_run_timestamp",
    "When a report of a provider was last compared",
    ("provider",),
)
QR_PAYMENTS = Count("payments_qr_total", "Payments of merchants' QR codes by status: completed", ("status",))
MERCHANT_GROSS = Count(
    "payments_merchant_gross_cents_total",
    "What merchants were paid by QR code, in minor units",
    ("currency",),
)
MERCHANT_FEES = Count("payments_merchant_fees_cents_total", "Fees on that, in minor units", ("currency",))

PAYMENT_STATES = Count(
    "provider_payments_total",
    "Payments through providers that have come into a state, by the surface that asked for them",
    ("surface", "provider", "state"),
)
PROVIDER_CALLS = Count(
    "provider_calls_total",
    "Calls of payment providers by outcome: answered, declined, unsent or unknown",
    ("provider", "outcome"),
)
PROVIDER_SECONDS = Spread(
    "provider_call_seconds", "Time of a call of a payment provider", ("provider",), _HTTP
)
PROVIDER_BREAKER = Gauge(
    "provider_breaker_open", "1 while a payment provider fails and is chosen last", ("provider",),
    registry=REGISTRY, multiprocess_mode="livemostrecent",
)  # fmt: skip
PAYMENTS_UNKNOWN = Gauge(
    "provider_payments_unknown", "Attempts at payments whose end nobody knows, up to 10,000",
    registry=REGISTRY, multiprocess_mode="livemostrecent",
)  # fmt: skip
PAYMENTS_UNKNOWN_AGE = Gauge(
    "provider_payments_unknown_age_seconds", "Age of the oldest of them", registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)  # fmt: skip
PAYMENTS_LOOK_LAG = Gauge(
    "provider_look_lag_seconds", "For how long the look at a payment that has been due longest has waited",
    registry=REGISTRY, multiprocess_mode="livemostrecent",
)  # fmt: skip
REFUND_STATES = Count(
    "provider_refunds_total",
    "Refunds that calls of providers have brought into a state",
    ("surface", "provider", "state"),
)
REFUNDS_UNKNOWN = _Newest("provider_refunds_unknown", "Refunds whose end nobody knows, up to 10,000")
REFUNDS_UNKNOWN_AGE = _Newest("provider_refunds_unknown_age_seconds", "Age of the oldest of them")
REFUNDS_LOOK_LAG = _Newest(
    "provider_refund_look_lag_seconds", "For how long the refund that has been due longest has waited"
)
ORDERS = Count(
    "order_payments_total",
    "Orders asked for by outcome: created, repeated, or the code of a refusal",
    ("outcome",),
)

WORKER_HEARTBEAT_AGE = Gauge(
    "worker_heartbeat_age_seconds", "Time since any worker's last heartbeat; infinite without a worker",
    registry=REGISTRY, multiprocess_mode="livemostrecent",
)  # fmt: skip

BACKUP_AGE = Gauge(
    "backup_age_seconds", "Age of what the newest finished backup holds; infinite without one",
    registry=REGISTRY, multiprocess_mode="livemostrecent",
)  # fmt: skip

_UP = Gauge("application_up", "1 while the process runs", registry=REGISTRY, multiprocess_mode="livemax")
_READY = Gauge(
    "application_ready", "1 after /ready said so", registry=REGISTRY, multiprocess_mode="livemostrecent"
)
_BUILD = Gauge(
    "payments_api_build_info", "What runs", ("environment", "name", "version"), registry=REGISTRY,
    multiprocess_mode="livemax",
)  # fmt: skip


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
    WEBHOOK_EVENTS.add(provider, event_type, status)
    WEBHOOK_SECONDS.observe(seconds, provider, event_type)


def observe_signature(provider: str, *, valid: bool) -> None:
    """Record a signature check."""
    word = "true" if valid else "false"
    WEBHOOK_SIGNATURES.add(provider, word, "valid" if valid else "invalid")


def render() -> bytes:
    """Return the exposition text (CONTENT_TYPE) of this process, or of all processes that share its folder."""
    return prometheus_client.generate_latest(_collected())


def totals(name: str, label: str) -> dict[str, int]:
    """Return the sums of the counter `name` by the values of one label, over all that `render` shows."""
    sums: dict[str, int] = {}
    for family in _collected().collect():
        for sample in family.samples:
            if sample.name == name:
                value = sample.labels[label]
                sums[value] = sums.get(value, 0) + int(sample.value)
    return sums


def _collected() -> CollectorRegistry:
    flush()
    if not SHARED:
        return REGISTRY
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return together


def forget_process(pid: int, folder: str) -> None:
    """Remove the gauges of an ended process from `folder`; its counts stay."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
