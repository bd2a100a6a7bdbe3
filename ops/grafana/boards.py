"""The dashboards: `python -m ops.grafana.boards` writes them to ops/grafana/dashboards/, one JSON file each.

A board is rows of panels, and a panel a title, a unit and queries. Written by hand, the files would be thousands of
lines in which nobody sees what a panel asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ops.grafana.panels import Board, lines, now, quantiles, rate, text_of

FOLDER: Final = Path(__file__).parent / "dashboards"

_OWN: Final = '{path!~"/health|/ready|/metrics|/metrics/json"}'

OVERVIEW: Final = Board(
    "overview",
    "Tallystick: overview",
    (
        (
            "Now",
            (
                now("Targets down", "none", 'count(up{job=~"payments-api|worker"} == 0) or vector(0)', 1),
                now(
                    "Without PostgreSQL",
                    "none",
                    "1 - min(database_up)",
                    1,
                    "1 when a process gets no answer from PostgreSQL.",
                ),
                now("Last heartbeat of a worker", "s", "max(worker_heartbeat_age_seconds)", 30),
                now("Dead letters", "none", "max(dlq_messages_pending)", 1),
                now("Wrong balances and transfers", "none", "sum(max by (kind) (reconcile_findings))", 1),
                now("Payments that nobody knows of", "none", "max(provider_payments_unknown)", 1),
                now(
                    "Alerts that fire",
                    "none",
                    'count(ALERTS{alertstate="firing", severity!="none"}) or vector(0)',
                    1,
                ),
                now(
                    "Error budget burnt, times its pace",
                    "none",
                    "tallystick:http_errors:ratio_rate1h / 0.001",
                    6,
                ),
            ),
        ),
        (
            "Requests",
            (
                rate("Requests by status", "http_requests_total", "status"),
                rate("Requests by route", "http_requests_total", "path"),
                quantiles("Time to answer", "http_request_duration_seconds", where=_OWN),
                lines(
                    "Share of failed and slow requests",
                    "percentunit",
                    ("tallystick:http_errors:ratio_rate5m", "failed, of 5 minutes"),
                    ("tallystick:http_errors:ratio_rate1h", "failed, of an hour"),
                    ("tallystick:http_slow:ratio_rate5m", "slow, of 5 minutes"),
                    ("tallystick:http_slow:ratio_rate1h", "slow, of an hour"),
                ),
                lines(
                    "Slowest routes (p95)",
                    "s",
                    ("topk(10, tallystick:http_request_duration_seconds:p95)", "{{path}}"),
                ),
                rate("Calls of gRPC by status", "grpc_requests_total", "code"),
            ),
        ),
        (
            "Processes",
            (
                quantiles("Lag of the event loop", "event_loop_lag_seconds", "job"),
                lines(
                    "Connections to PostgreSQL",
                    "none",
                    ("sum by (job) (database_connections_active)", "{{job}}: in use"),
                    ("sum by (job) (database_pool_waiting)", "{{job}}: calls that wait"),
                    ("sum by (job) (database_pool_size)", "{{job}}: at most"),
                ),
                lines(
                    "Processes without Redis", "none", ("sum by (instance) (guard_fallback)", "{{instance}}")
                ),
                rate("Sign-ins by result", "sign_ins_total", "result"),
            ),
        ),
    ),
)

LEDGER: Final = Board(
    "ledger",
    "Tallystick: ledger and database",
    (
        (
            "Postings",
            (
                rate("Transfers by outcome", "ledger_transfers_total", "outcome"),
                quantiles(
                    "Time to answer POST /v1/transfers",
                    "http_request_duration_seconds",
                    where='{path="/v1/transfers"}',
                ),
                quantiles("Items of a call of the database", "ledger_batch_items", unit="none"),
                quantiles("Wait for the lane", "ledger_lane_wait_seconds"),
                lines(
                    "Queue of the lane",
                    "none",
                    ("sum by (instance) (ledger_lane_waiting)", "{{instance}}: waiting"),
                    ("sum by (instance) (ledger_lane_room)", "{{instance}}: room"),
                    (
                        "sum by (instance) (rate(ledger_lane_refused_total[$__rate_interval]))",
                        "{{instance}}: refused a second",
                    ),
                ),
                rate("Transactions run again, by cause", "transaction_retries_total", "reason"),
            ),
        ),
        (
            "Books",
            (
                lines("Lag of the seal", "s", ("max(feed_lag_seconds)", "oldest transfer not sealed")),
                lines(
                    "Findings of the reconciliation",
                    "none",
                    ("max by (kind) (reconcile_findings)", "{{kind}}"),
                ),
                lines(
                    "Age of the last reconciliation",
                    "s",
                    ("time() - (max(reconcile_last_run_timestamp) > 0)", "since the last look"),
                ),
                lines("Open holds", "none", ("max(ledger_holds_open)", "with an end, up to 10,000")),
                lines(
                    "Overdue holds", "s", ("max(ledger_holds_overdue_seconds)", "the oldest is overdue for")
                ),
                lines(
                    "Files of the schema that are missing",
                    "none",
                    ("max by (instance) (migrations_pending)", "{{instance}}"),
                ),
            ),
        ),
        (
            "PostgreSQL",
            (
                lines(
                    "Slowest statements (p95)",
                    "s",
                    ("topk(10, tallystick:database_query_seconds:p95)", "{{query}}"),
                ),
                lines(
                    "Statements that take most of the time",
                    "s",
                    (
                        "topk(10, sum by (query) (rate(database_query_seconds_sum[$__rate_interval])))",
                        "{{query}}: seconds a second",
                    ),
                ),
                rate("Statements by end", "database_operations_total", "status"),
                quantiles("Wait for a connection", "database_pool_wait_seconds", "job"),
                rate("Calls that got no connection", "database_pool_timeouts_total", "instance"),
            ),
        ),
    ),
)

WEBHOOKS: Final = Board(
    "webhooks",
    "Tallystick: webhooks in and out",
    (
        (
            "In",
            (
                rate("Webhooks by provider", "webhook_events_total", "provider"),
                rate("Webhooks by fate", "webhook_events_total", "status"),
                quantiles("Time to take one in", "webhook_processing_duration_seconds"),
                rate(
                    "Wrong signatures", "webhook_signature_validations_total", "provider", '{valid="false"}'
                ),
                lines("Events that are due", "none", ("max(inbox_pending_events)", "due, up to 10,000")),
                lines("Age of the oldest of them", "s", ("max(inbox_oldest_seconds)", "due for")),
            ),
        ),
        (
            "Dead letters",
            (
                lines("Dead letters that wait", "none", ("max(dlq_messages_pending)", "up to 10,000")),
                lines("Age of the oldest", "s", ("max(dlq_oldest_seconds)", "has waited for")),
                rate("Dead letters by action", "dlq_messages_total", "action"),
                rate("Anomalies of summaries", "reconciliation_anomalies_detected_total", "anomaly_type"),
            ),
        ),
        (
            "Out",
            (
                rate("Attempts by result", "payments_webhook_attempts_total", "result"),
                rate("Deliveries by end", "payments_webhook_deliveries_total", "status"),
                quantiles("Time of an attempt", "payments_webhook_attempt_seconds"),
                lines(
                    "Waiting",
                    "none",
                    ("max(outbox_pending_events)", "events without deliveries"),
                    ("max(deliveries_pending)", "deliveries that are due"),
                ),
                lines(
                    "Age of the oldest",
                    "s",
                    ("max(outbox_oldest_seconds)", "event without deliveries"),
                    ("max(deliveries_oldest_seconds)", "delivery that is due"),
                ),
                lines(
                    "Receivers that are left alone",
                    "none",
                    ("sum by (state) (webhook_breakers)", "{{state}}"),
                ),
            ),
        ),
    ),
)

PAYMENTS: Final = Board(
    "payments",
    "Tallystick: wallets and providers",
    (
        (
            "Providers",
            (
                rate("Payments that come into a state", "provider_payments_total", "state"),
                rate("Calls by outcome", "provider_calls_total", "outcome"),
                quantiles("Time of a call", "provider_call_seconds", "provider"),
                lines(
                    "Breakers",
                    "none",
                    ("max by (provider) (provider_breaker_open)", "{{provider}}"),
                    about="1 while a provider fails.",
                ),
                rate("Refunds that come into a state", "provider_refunds_total", "state"),
                rate("Orders by outcome", "order_payments_total", "outcome"),
            ),
        ),
        (
            "What nobody knows",
            (
                lines(
                    "Without a known end",
                    "none",
                    ("max(provider_payments_unknown)", "payments"),
                    ("max(provider_refunds_unknown)", "refunds"),
                ),
                lines(
                    "Age of the oldest",
                    "s",
                    ("max(provider_payments_unknown_age_seconds)", "payment"),
                    ("max(provider_refunds_unknown_age_seconds)", "refund"),
                ),
                lines(
                    "Looks that are late",
                    "s",
                    ("max(provider_look_lag_seconds)", "payments"),
                    ("max(provider_refund_look_lag_seconds)", "refunds"),
                ),
                lines(
                    "Rows of the last reports that differ",
                    "none",
                    (
                        'max by (provider, class) (provider_report_rows{class!="matched"})',
                        "{{provider}}: {{class}}",
                    ),
                ),
            ),
        ),
        (
            "Wallets",
            (
                rate("Top-ups and payments between persons", "payments_transfers_total", "kind"),
                rate("QR payments", "payments_qr_total", "status"),
                rate(
                    "Payments of merchants, minor units",
                    "payments_merchant_gross_cents_total",
                    "currency",
                    unit="none",
                ),
                rate(
                    "Fees on them, minor units", "payments_merchant_fees_cents_total", "currency", unit="none"
                ),
                rate("Payment requests", "payments_requests_total", "action"),
                rate("Payment links", "payments_links_total", "action"),
                rate("Subscriptions", "payments_subscriptions_total", "action"),
                rate("Refunds", "payments_refunds_total", "status"),
            ),
        ),
    ),
)

WORKERS: Final = Board(
    "workers",
    "Tallystick: workers and jobs",
    (
        (
            "Workers",
            (
                lines("Last heartbeat", "s", ("max(worker_heartbeat_age_seconds)", "seconds ago")),
                quantiles("Time of a claim", "claim_seconds", "work"),
                quantiles("Lag of the event loop", "event_loop_lag_seconds", "instance", '{job="worker"}'),
            ),
        ),
        (
            "Jobs",
            (
                rate("Runs by job", "job_runs_total", "job_name", '{status="success"}'),
                rate("Runs that failed", "job_runs_total", "job_name", '{status="failed"}'),
                quantiles("Time of a run", "job_duration_seconds", "job_name"),
                lines(
                    "Time since a job ended well, in intervals",
                    "none",
                    (
                        (
                            "(time() - max by (job_name) (job_last_success_timestamp_seconds))"
                            " / max by (job_name) (job_interval_seconds)"
                        ),
                        "{{job_name}}",
                    ),
                    about="1 means that a job runs as planned; a loop of one second may show a few.",
                ),
            ),
        ),
    ),
)

BOARDS: Final = (OVERVIEW, LEDGER, WEBHOOKS, PAYMENTS, WORKERS)


if __name__ == "__main__":
    for each in BOARDS:
        (FOLDER / f"{each.name}.json").write_text(text_of(each))
