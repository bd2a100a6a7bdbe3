"""The application: all surfaces, what they share, and its life from start to stop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from core import metrics
from core.access.api_keys import ApiKeys
from core.access.guard import Guard
from core.service import Service, open_service
from core.settings import Settings
from handlers import (
    accounts,
    dead_letters,
    deliveries,
    docs,
    feed,
    health,
    holds,
    inbound,
    openapi,
    outbound,
    reports,
    transfers,
    webhook_sources,
    webhooks,
)
from handlers.api import Route
from handlers.dispatch import Desk, dispatcher
from handlers.middleware import UNMATCHED, Edge
from handlers.problems import SURFACES

SERVICE: web.AppKey[Service] = web.AppKey("service", Service)

ROUTES: tuple[Route, ...] = (
    *accounts.ROUTES,
    *transfers.ROUTES,
    *holds.ROUTES,
    *feed.ROUTES,
    *inbound.ROUTES,
    *webhook_sources.ROUTES,
    *dead_letters.ROUTES,
    *reports.ROUTES,
    *webhooks.ROUTES,
    *deliveries.ROUTES,
    *health.ROUTES,
    *docs.ROUTES,
)


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp logs below the middleware. What is not HTTP is a scanner's daily visit, and may hold a key."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        if isinstance(exc_info, HttpProcessingError):
            self.info("refused what is not HTTP: %s", type(exc_info).__name__)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)


def create_app(settings: Settings, service: Service | None = None) -> web.Application:
    """Return the HTTP application. It opens its own Service when it starts, and closes it, unless it is given one."""
    return build_app(settings, ROUTES, service)


def build_app(settings: Settings, routes: Sequence[Route], service: Service | None = None) -> web.Application:
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
    app[docs.DOCUMENT] = docs.Document(openapi.document(routes, settings))
    _add_routes(app, routes, desk, edge)
    app.cleanup_ctx.append(_opened(settings, service, desk))
    app.on_shutdown.append(_say_not_ready)
    return app


def _add_routes(app: web.Application, routes: Sequence[Route], desk: Desk, edge: Edge) -> None:
    """Register the routes, GET ones for HEAD, too, and a refusal for all that is not one.

    Without a refusal on each path, `DELETE /v1/transfers/batch` would fall through to `/v1/transfers/{transfer}`.
    """
    allowed: dict[str, set[str]] = {}
    for route in routes:
        if route.surface not in SURFACES:
            raise LookupError(f"{route.operation}: there is no surface {route.surface!r}")
        handler = edge.around(route.path, dispatcher(route, desk))
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


async def _refuse_path(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


def _opened(
    settings: Settings, service: Service | None, desk: Desk
) -> Callable[[web.Application], AsyncIterator[None]]:
    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            ours = service
            if ours is None:
                ours = await stack.enter_async_context(open_service(settings))
            guard = Guard(ours.redis, settings, ours.epoch)
            stack.push_async_callback(guard.close)
            app[SERVICE] = desk.service = ours
            app[inbound.INBOUND] = await stack.enter_async_context(inbound.open_inbound(ours))
            app[outbound.OUTBOUND] = await stack.enter_async_context(outbound.open_outbound(ours))
            desk.guard = guard
            desk.api_keys = ApiKeys(ours.database, settings.api_key_cache_secs)
            metrics.mark_started(settings.env)
            yield

    return opened


async def _say_not_ready(app: web.Application) -> None:
    app[health.READINESS].stopping = True
