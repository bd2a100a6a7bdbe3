"""The application: the surfaces, the parts that they share, and the ports on which they answer."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from core import metrics
from core.errors import Unavailable
from core.service import Service
from core.settings import Settings
from handlers.http import docs
from handlers.http.front import FRONT
from handlers.http.health import HEALTH
from handlers.http.middleware import EDGE, UNMATCHED, Edge, around
from handlers.http.parts import CONTRACT, PARTS, Parts
from handlers.http.route import Route
from handlers.http.surface import Gate, Handler, Listener, Surface
from handlers.ledger.routes import LEDGER
from handlers.opening import RETRY_LIMIT_SECONDS, opened
from handlers.pay_page.page import PAY_PAGE
from handlers.payments.kaspi.routes import KASPI
from handlers.payments.orchestration.routes import ORCHESTRATION
from handlers.payments.orders.routes import CREATE as ORDERS_CREATE
from handlers.payments.orders.routes import ORDERS
from handlers.wallets.routes import WALLETS
from handlers.webhooks.routes import INBOX, REPORTS, WEBHOOKS

# Every surface of the common port. A new one is one line here.
_SURFACES: tuple[Surface, ...] = (
    LEDGER,
    INBOX,
    WEBHOOKS,
    REPORTS,
    WALLETS,
    KASPI,
    ORCHESTRATION,
    PAY_PAGE,
    ORDERS_CREATE,
    ORDERS,
    HEALTH,
    FRONT,
)
_EXPLAINED = (*_SURFACES, docs.explained(_SURFACES))
SURFACES = (*_EXPLAINED, docs.documented(_EXPLAINED))
ROUTES: tuple[Route, ...] = tuple(route for surface in SURFACES for route in surface.routes)
# A process has a table for the common port and one for each contract port; tests make a few more.
MAX_TABLES = 8
LISTENERS = {surface.listener.setting: surface.listener for surface in SURFACES if surface.listener}


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """The log of aiohttp below the middleware. Bytes that are no HTTP are a scanner's visit, and may hold a key."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        if isinstance(exc_info, HttpProcessingError):
            self.info("refused what is not HTTP: %s", type(exc_info).__name__)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)


def create_app(settings: Settings, service: Service | None = None) -> web.Application:
    """Return the application of the common port. Without a `service` the application opens and closes its own.

    Without PostgreSQL or its schema the application starts all the same, tells at /ready, and goes on trying.
    """
    return build_app(settings, SURFACES, service)


def build_app(
    settings: Settings, surfaces: Sequence[Surface], service: Service | None = None
) -> web.Application:
    """Return an application of these surfaces, with parts of its own."""
    parts = Parts(settings)
    edge = Edge(parts.settings.allowed_origins, _handlers(tuple(surfaces), parts))
    app = _application(parts, tuple(surfaces), edge)
    app.cleanup_ctx.append(lambda _app: opened(parts, service))
    app.on_shutdown.append(_say_not_ready)
    return app


def contract_app(common: web.Application, listener: Listener) -> web.Application:
    """Return the application of a contract's port, which shares the parts of `common` and must end first."""
    parts = common[PARTS]
    handlers = _handlers(listener.surfaces, parts, listener.gate)
    allowed = _allowed(listener.surfaces).items()
    tell = listener.tell_methods
    told = None if tell is None else {path: tell(methods) for path, methods in allowed}
    origins, own_ids = parts.settings.allowed_origins, listener.own_request_ids
    edge = Edge(origins, handlers, listener.refuse, told, own_ids=own_ids)
    app = _application(parts, listener.surfaces, edge)
    app[CONTRACT] = listener.setting
    return app


def _application(parts: Parts, surfaces: tuple[Surface, ...], edge: Edge) -> web.Application:
    app = web.Application(
        handler_args={
            # A client that hangs up must not cancel a commit. False is aiohttp's default, too, but we rely on it.
            "handler_cancellation": False,
            "logger": _ProtocolLog(logging.getLogger("aiohttp.server"), {}),
            # The rest of a refused body is read and dropped for so many seconds, so that its sender sees the answer.
            "lingering_time": 2.0,
            # A compressed body is refused, and must not grow to a large one before that.
            "auto_decompress": False,
        },
    )
    app.on_response_prepare.append(edge.dress)
    app[PARTS] = parts
    app[EDGE] = edge
    for resource in _table(surfaces):
        app.router.register_resource(resource)
    return app


@functools.lru_cache(maxsize=MAX_TABLES)
def _table(surfaces: tuple[Surface, ...]) -> tuple[web.AbstractResource, ...]:
    """Return the routes, GET ones for HEAD, too, and a refusal of every other method and path, by their numbers.

    Without a refusal on each path, `DELETE /v1/transfers/batch` would fall through to `/v1/transfers/{transfer}`.
    aiohttp takes longer over the table than we over all else in an application, so a process makes each table once.
    """
    table, numbers = web.UrlDispatcher(), itertools.count()
    for route in _routes(surfaces):
        handler = around(route.path, next(numbers))
        for method in _methods(route):
            metrics.begin_route(method, route.path)
            table.add_route(method, route.path, handler)
    for path in _allowed(surfaces):
        table.add_route(hdrs.METH_ANY, path, around(path, next(numbers)))
    table.add_route(hdrs.METH_ANY, "/{anything:.*}", around(UNMATCHED, next(numbers)))
    return tuple(table.resources())


def _handlers(surfaces: tuple[Surface, ...], parts: Parts, gate: Gate | None = None) -> list[Handler]:
    """Return the handlers of one application in the order of the numbers in the table."""
    forgiving = {route.path for surface in surfaces if surface.forgives_slash for route in surface.routes}
    refusing = [*map(_refuse_method, _allowed(surfaces).values()), _refuse_path(forgiving)]
    return [
        *(_handler(surface, route, parts) for surface in surfaces for route in surface.routes),
        *(refusing if gate is None else [_behind(gate, parts, handler) for handler in refusing]),
    ]


def _behind(gate: Gate, parts: Parts, handler: Handler) -> Handler:
    """Return a handler that goes on only where the gate has no answer."""

    async def ask(request: web.Request) -> web.StreamResponse:
        return await gate(request, parts) or await handler(request)

    return ask


def _handler(surface: Surface, route: Route, parts: Parts) -> Handler:
    handler = surface.handler(route, parts)
    return _once_open(surface, parts, handler) if route.needs_service else handler


def _routes(surfaces: tuple[Surface, ...]) -> tuple[Route, ...]:
    return tuple(route for surface in surfaces for route in surface.routes)


def _methods(route: Route) -> set[str]:
    return {hdrs.METH_GET, hdrs.METH_HEAD} if route.method == hdrs.METH_GET else {route.method}


@functools.lru_cache(maxsize=MAX_TABLES)
def _allowed(surfaces: tuple[Surface, ...]) -> Mapping[str, set[str]]:
    """Return the methods of each path."""
    allowed: dict[str, set[str]] = {}
    for route in _routes(surfaces):
        allowed.setdefault(route.path, set()).update(_methods(route))
    return allowed


def _once_open(surface: Surface, parts: Parts, handler: Handler) -> Handler:
    """Return a handler that refuses until the service is open, and calls `handler` from then on."""

    async def refuse() -> web.StreamResponse:
        sentence = "The service waits for its database. Nothing happened; repeat the call."
        return surface.refuse(Unavailable(sentence, retry_after=RETRY_LIMIT_SECONDS))

    return lambda request: handler(request) if parts.missing is None else refuse()


def _refuse_method(allowed: set[str]) -> Handler:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed(request.method, allowed)

    return refuse


def _refuse_path(forgiving: set[str]) -> Handler:
    """Return the refusal of unknown paths. A `forgiving` path with a slash too many at its end is redirected."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if forgiving and path.endswith("/") and len(path) > 1:
            slim = request.rel_url.with_path(path.rstrip("/"), encoded=True)
            found = await request.app.router.resolve(request.clone(rel_url=slim))
            if found.http_exception is None and found.get_info().get("path") in forgiving:
                # The place is told without a host: that of the request is a stranger's text, its scheme our proxy's.
                query = request.rel_url.raw_query_string
                raise web.HTTPTemporaryRedirect(f"{slim.raw_path}?{query}" if query else slim.raw_path)
        raise web.HTTPNotFound

    return refuse


async def _say_not_ready(app: web.Application) -> None:
    app[PARTS].stopping = True
