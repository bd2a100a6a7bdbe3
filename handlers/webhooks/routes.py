"""The surfaces of webhooks: where providers send their events, the reports on them, and their management under /v1."""

from __future__ import annotations

from aiohttp import web

from handlers.http.dispatch import ApiSurface
from handlers.http.docs import documented
from handlers.http.problems import Problem, problem_details
from handlers.http.surface import Listener
from handlers.webhooks import (
    inbox_contract,
    inbox_dead_letters,
    inbox_receive,
    inbox_reports,
    inbox_sources,
    outbox_deliveries,
    outbox_endpoints,
)


def webhook_problem(problem: Problem) -> bytes:
    """Write a refusal for providers, in the sentences of the contract where it has one."""
    if problem.code == "payload_too_large":
        limit = problem.extra["limit_bytes"]
        problem = problem._replace(detail=f"Request body too large. Maximum size: {limit} bytes")
    elif problem.status >= web.HTTPInternalServerError.status_code:
        problem = problem._replace(detail="Processing failed")
    return problem_details(problem)


def contract_problem(problem: Problem) -> bytes:
    """Write a refusal on the contract's own port, where the faults of a query are the `detail`."""
    if problem.code == "invalid_query":
        extra = dict(problem.extra)
        problem = problem._replace(extra=extra | {"detail": extra.pop("errors")})
    return webhook_problem(problem)


_CONTRACT = ApiSurface(
    "inbox contract", inbox_contract.ROUTES, strict=False, write=contract_problem, forgives_slash=True
)
_DOCUMENTED = documented((_CONTRACT,), "/redoc", title="Payments API", version=inbox_contract.VERSION)
INBOX = ApiSurface(
    "inbox",
    inbox_receive.ROUTES,
    strict=False,
    write=webhook_problem,
    listener=Listener("inbox_port", (_CONTRACT, _DOCUMENTED)),
)
REPORTS = ApiSurface("reports", inbox_reports.ROUTES, strict=False)
WEBHOOKS = ApiSurface(
    "webhooks",
    (
        *inbox_sources.ROUTES,
        *inbox_dead_letters.ROUTES,
        inbox_reports.STORY,
        *outbox_endpoints.ROUTES,
        *outbox_deliveries.ROUTES,
    ),
)
