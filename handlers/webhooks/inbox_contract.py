"""The inbox on a port of its own, INBOX_PORT: only the routes of its contract, answered as the contract says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from handlers.http import health
from handlers.http.route import Call, Route, answer, table
from handlers.webhooks import inbox_receive, inbox_reports

# The version that the contract's clients look for.
VERSION = "0.2.0-rc"
# The contract's message for an event that is stored and not applied yet.
PROCESSED = "processed"
# The contract's media type of metrics, without the version of the format.
PLAIN_TEXT = "text/plain; charset=utf-8"


class Healthy(msgspec.Struct, frozen=True):
    """The answer of a process that is alive."""

    status: str
    timestamp: datetime
    version: str


class Prepared(msgspec.Struct, frozen=True):
    """Whether PostgreSQL answers, `ready` or `not_ready`."""

    status: str
    checks: dict[str, bool]
    timestamp: datetime


async def show_health(_call: Call) -> web.Response:
    """Answer without asking the database."""
    return answer(200, Healthy("healthy", datetime.now(UTC), VERSION))


async def show_readiness(call: Call) -> web.Response:
    """Answer whether PostgreSQL answers. The status is 200 in either case, as the contract has it."""
    good = await health.has_database(call)
    return answer(200, Prepared("ready" if good else "not_ready", {"database": good}, datetime.now(UTC)))


async def show_metrics(call: Call) -> web.Response:
    """Answer in Prometheus' text format."""
    return await health.metrics_page(call, PLAIN_TEXT)


async def show_counters(_call: Call) -> web.Response:
    """Answer the counts of webhooks."""
    return health.counters_page()


async def receive_stripe(call: Call) -> web.Response:
    """Take in an event of Stripe."""
    return await inbox_receive.receive(call, call.parts.inbound.stripe, PROCESSED)


async def receive_paypal(call: Call) -> web.Response:
    """Take in an event of PayPal."""
    return await inbox_receive.receive(call, call.parts.inbound.paypal, PROCESSED)


_RECEIVERS = {"receive_stripe_event": receive_stripe, "receive_paypal_event": receive_paypal}

ROUTES = (
    *(
        replace(route, handler=_RECEIVERS[route.operation])
        for route in inbox_receive.ROUTES
        if route.operation in _RECEIVERS
    ),
    *(replace(route, trusting=True) for route in inbox_reports.ROUTES),
    *table(
        Route(
            "GET", "/health", show_health, "get_health", "Whether the process is alive",
            answers={200: Healthy}, needs_service=False,
        ),
        Route(
            "GET", "/ready", show_readiness, "get_readiness", "Whether PostgreSQL answers",
            answers={200: Prepared}, needs_service=False,
        ),
        Route(
            "GET", "/metrics", show_metrics, "get_metrics", "Metrics for Prometheus",
            admin=True, trusting=True, answers={200: None}, media=("text/plain",),
        ),
        Route(
            "GET", "/metrics/json", show_counters, "get_counters", "Counts of webhooks",
            admin=True, trusting=True, answers={200: health.CounterPage},
        ),
        tag="Service", limited=False,
    ),
)  # fmt: skip
