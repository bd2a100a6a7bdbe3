"""The application: all surfaces, what they share, and its life from start to stop."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from core import metrics, tasks
from core.access.api_keys import ApiKeys
from core.access.guard import Guard
from core.errors import Refusal, Unavailable
from core.identity.identity import Identity, open_identity
from core.identity.tokens import Tokens
from core.platform import Platform, open_platform
from core.service import Service, open_service
from core.settings import Settings
from core.work.retries import half_jitter
from handlers.http import docs, health, openapi, problems
from handlers.http.dispatch import PAGES, WALLETS, Desk, dispatcher
from handlers.http.middleware import UNMATCHED, Edge
from handlers.http.problems import SURFACES
from handlers.http.route import Route, answer
from handlers.ledger import accounts, feed, holds, transfers
from handlers.wallets import routes as wallet_routes
from handlers.wallets.surface import IDENTITY, PLATFORM, TOKENS
from handlers.webhooks import (
    inbox_dead_letters,
    inbox_receive,
    inbox_reports,
    inbox_sources,
    outbox_deliveries,
    outbox_endpoints,
    outbox_parts,
)

_log = structlog.get_logger(__name__)

# The wait before the second try to open the service, doubled with each further one up to the limit.
RETRY_SECONDS = 0.5
RETRY_LIMIT_SECONDS = 5.0
# What is answered without a database.
WITHOUT_SERVICE = frozenset({"get_health", *(route.operation for route in docs.ROUTES)})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROUTES: tuple[Route, ...] = (
    *accounts.ROUTES,
    *transfers.ROUTES,
    *holds.ROUTES,
    *feed.ROUTES,
    *inbox_receive.ROUTES,
    *inbox_sources.ROUTES,
    *inbox_dead_letters.ROUTES,
    *inbox_reports.ROUTES,
    *outbox_endpoints.ROUTES,
    *outbox_deliveries.ROUTES,
    *wallet_routes.ROUTES,
    *health.ROUTES,
    *docs.ROUTES,
)

_WALLET_PATHS = frozenset(route.path for route in ROUTES if route.surface == WALLETS)


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp logs below the middleware. What is not HTTP is a scanner's daily visit, and may hold a key."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        if isinstance(exc_info, HttpProcessingError):
            self.info("refused what is not HTTP: %s", type(exc_info).__name__)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)


def create_app(settings: Settings, service: Service | None = None) -> web.Application:
    """Return the HTTP application. Unless it is given a Service it opens its own, and closes it.

    Without PostgreSQL or its schema it starts all the same, says at /ready what is missing, and goes on trying.
    """
    return build_app(settings, ROUTES, service, _document(settings.public_base_url))


@functools.lru_cache(maxsize=4)
def _document(base_url: str) -> docs.Document:
    """Return the document of all routes, once a process: it takes a tenth of a second to make."""
    return docs.Document(openapi.document(ROUTES, base_url))


def build_app(
    settings: Settings,
    routes: Sequence[Route],
    service: Service | None = None,
    document: docs.Document | None = None,
) -> web.Application:
    """Return an application of these routes."""
    desk = Desk(settings)
    edge = Edge(settings.allowed_origins)
    app = web.Application(
        handler_args={
            # A client that hangs up must not cancel a commit; this is the default, and we rely on it.
            "handler_cancellation": False,
            "logger": _ProtocolLog(logging.getLogger("aiohttp.server"), {}),
            # How long the rest of a body that was refused is read and dropped, so that its sender sees the answer.
            "lingering_time": 2.0,
            # Compressed bodies are refused; so a small one must not be blown up to a large one before we can.
            "auto_decompress": False,
        },
    )
    app.on_response_prepare.append(edge.dress)
    app[health.READINESS] = health.Readiness()
    app[docs.DOCUMENT] = document or docs.Document(openapi.document(routes, settings.public_base_url))
    opening = _Opening(settings, desk)
    _add_routes(app, routes, desk, edge, opening)
    app.cleanup_ctx.append(lambda started: opening.fill(started, service))
    app.on_shutdown.append(_say_not_ready)
    return app


def _add_routes(
    app: web.Application, routes: Sequence[Route], desk: Desk, edge: Edge, opening: _Opening
) -> None:
    """Register the routes, GET ones for HEAD, too, and a refusal for all that is not one.

    Without a refusal on each path, `DELETE /v1/transfers/batch` would fall through to `/v1/transfers/{transfer}`.
    """
    allowed: dict[str, set[str]] = {}
    for route in routes:
        if route.surface not in {*SURFACES, WALLETS, PAGES}:
            raise LookupError(f"{route.operation}: there is no surface {route.surface!r}")
        handler = edge.around(route.path, opening.around(route, dispatcher(route, desk)))
        methods = {hdrs.METH_GET, hdrs.METH_HEAD} if route.method == hdrs.METH_GET else {route.method}
        for method in methods:
            app.router.add_route(method, route.path, handler)
        allowed.setdefault(route.path, set()).update(methods)
    for path, methods in allowed.items():
        app.router.add_route(hdrs.METH_ANY, path, edge.around(path, _refuse_method(methods)))
    app.router.add_route(hdrs.METH_ANY, "/{anything:.*}", edge.around(UNMATCHED, _refuse_path))


def _refuse_method(allowed: set[str]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed(request.method, allowed)

    return refuse


async def _refuse_path(request: web.Request) -> web.StreamResponse:
    """Refuse a path that is not there; the wallet contract has one without its last slash named."""
    path = request.rel_url.raw_path
    if path.endswith("/") and len(path) > 1:
        slim = request.rel_url.with_path(path.rstrip("/"), encoded=True)
        found = await request.app.router.resolve(request.clone(rel_url=slim))
        if found.http_exception is None and found.get_info().get("path") in _WALLET_PATHS:
            raise web.HTTPTemporaryRedirect(request.url.origin().join(slim.with_query(request.rel_url.query)))
    raise web.HTTPNotFound


class _ToCome:
    """Stands in the application, which takes nothing in once it listens, for a part that is opened later."""

    opened: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.opened, name)


class _Opening:
    """Opens the service, at once or else in the background; until then it answers in the place of the routes."""

    def __init__(self, settings: Settings, desk: Desk) -> None:
        self._settings = settings
        self._desk = desk
        # Why the service is not open; None once it is.
        self._failure: Refusal | None = None
        self._inbound, self._outbound, self._platform = _ToCome(), _ToCome(), _ToCome()
        self._identity = _ToCome()
        self._tokens = Tokens(settings)

    def around(self, route: Route, handler: Handler) -> Handler:
        """Return `handler` so that it is not asked for what it does not have yet."""
        if route.operation in WITHOUT_SERVICE:
            return handler
        instead = self._say_what_is_missing if route.operation == "get_readiness" else self._refuse

        def wait_for_service(request: web.Request) -> Awaitable[web.StreamResponse]:
            return handler(request) if self._failure is None else instead(request)

        return wait_for_service

    async def fill(self, app: web.Application, service: Service | None) -> AsyncIterator[None]:
        """Fill the desk with `service`, or with one that is opened, and keep it for the life of the application."""
        app[inbox_receive.INBOUND] = cast("inbox_receive.Inbound", self._inbound)
        app[outbox_parts.OUTBOUND] = cast("outbox_parts.Outbound", self._outbound)
        app[PLATFORM] = cast("Platform", self._platform)
        app[IDENTITY] = cast("Identity", self._identity)
        app[TOKENS] = self._tokens
        # The operations that go without it are not handed one.
        self._desk.service = cast("Service", None)
        metrics.mark_started(self._settings.env)
        async with AsyncExitStack() as stack:
            retrying: asyncio.Task[None] | None = None
            # Before the application listens: a successor that can be ready is, before its predecessor goes.
            if not await self._try(stack, service):
                retrying = asyncio.create_task(self._retry(stack))
            try:
                yield
            finally:
                if retrying is not None:
                    await tasks.end(retrying)

    async def _try(self, stack: AsyncExitStack, service: Service | None = None) -> bool:
        try:
            if service is None:
                service = await stack.enter_async_context(open_service(self._settings))
        except Refusal as refusal:
            self._failure = refusal
            return False
        except asyncpg.PostgresError as error:  # the server is there, and does not let us in
            self._failure = Unavailable(f"PostgreSQL answers: {error}.")
            return False
        guard = Guard(service.redis, self._settings, service.epoch)
        stack.push_async_callback(guard.close)
        self._inbound.opened = await stack.enter_async_context(inbox_receive.open_inbound(service))
        self._outbound.opened = await stack.enter_async_context(outbox_parts.open_outbound(service))
        self._platform.opened = await stack.enter_async_context(open_platform(service))
        self._identity.opened = await stack.enter_async_context(
            open_identity(self._platform.opened, self._tokens)
        )
        desk = self._desk
        desk.service, desk.guard = service, guard
        desk.api_keys = ApiKeys(service.database, self._settings.api_key_cache_secs)
        self._failure = None
        return True

    async def _retry(self, stack: AsyncExitStack) -> None:
        for attempt in itertools.count(1):
            wait = half_jitter(attempt, base_seconds=RETRY_SECONDS, cap_seconds=RETRY_LIMIT_SECONDS)
            if self._failure is not None:
                _log.warning("service.not_open", reason=self._failure.detail, retry_in_seconds=round(wait, 1))
            await asyncio.sleep(wait)
            try:
                if await self._try(stack):
                    _log.info("service.open")
                    return
            except Exception:  # noqa: BLE001 - a mistake of ours, which nobody else would tell: no one awaits this
                _log.exception("service.not_open")

    async def _refuse(self, _request: web.Request) -> web.StreamResponse:
        return problems.refused(
            Unavailable(
                "The service waits for its database. Nothing happened; repeat the call.",
                retry_after=RETRY_LIMIT_SECONDS,
            )
        )

    async def _say_what_is_missing(self, request: web.Request) -> web.StreamResponse:
        """Answer /ready. Redis is not asked yet, and does not decide it."""
        metrics.mark_ready(ready=False)
        checks = {
            "database": self._failure is not None and self._failure.code == "not_migrated",
            "migrations": False,
            "running": not request.app[health.READINESS].stopping,
        }
        missing = [name for name, good in checks.items() if not good]
        return answer(503, health.Ready("not_ready", checks, missing, [], datetime.now(UTC)))


async def _say_not_ready(app: web.Application) -> None:
    app[health.READINESS].stopping = True
