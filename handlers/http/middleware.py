"""The layer around every request: id and trace, log line, metrics, the headers of every answer, CORS, the last net.

The layer is a function for each route, which knows the route's path when the table of routes is made. Middlewares of
aiohttp would cost some microseconds and a look for the route. The headers of every answer are made as bytes for the
connection (`handlers.http.protocol`), which writes a plain answer in one piece. One signal adds the same headers to all
others, since only a signal sees streamed answers before they leave.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy, istr

from core import ids, log, metrics, tracing
from core.access.rates import Headers
from handlers.http import problems
from handlers.http.protocol import READY_HEADERS, is_plain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from core.tracing.live import Scope
    from handlers.http.surface import Refuse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

X_REQUEST_ID = istr("X-Request-ID")
X_TRACEPARENT = istr("traceparent")
X_TRACE_ID = istr("X-Trace-Id")
# nginx's status for a client that hung up before it had its answer, seen in logs and metrics only.
CLIENT_CLOSED_REQUEST = 499
# One series for all paths that do not exist, so that a scanner cannot fill the metrics.
UNMATCHED = "unmatched"

_SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})

_EXPOSED = (
    "X-Request-ID, X-Trace-Id, traceparent, Location, ETag, Retry-After,"
    " RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, X-Data-Age-Ms"
)
_log = structlog.get_logger(__name__)

# Caches keep nothing of ours without asking; of answers to other methods nothing at all.
SAFE_CACHE_CONTROL = "no-cache, max-age=0"
OTHER_CACHE_CONTROL = "no-store"

SECURITY_HEADERS = CIMultiDictProxy(
    CIMultiDict(
        {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Permissions-Policy": (
                "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(),"
                " payment=(), usb=()"
            ),
        }
    )
)


class CrossOrigin:
    """The origins whose scripts may read our answers (the Fetch standard's CORS protocol).

    An allowed origin is echoed, and may send credentials; for `*` none are allowed, since any page could use them.
    """

    def __init__(self, allowed_origins: Collection[str]) -> None:
        self._any = "*" in allowed_origins
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed_origins)

    def allow(self, origin: str, headers: CIMultiDict[str]) -> bool:
        """Add the headers that an answer to `origin` needs. Return whether the origin is allowed."""
        if not self._any:
            headers.add(hdrs.VARY, hdrs.ORIGIN)
        if origin.lower() in self._allowed:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
        elif self._any:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
        else:
            return False
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
        return True

    def preflight(self, request: web.Request) -> web.Response | None:
        """Answer a browser's question whether it may send the real request; None if this is no such question."""
        method = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
        origin = request.headers.get(hdrs.ORIGIN)
        if method is None or origin is None:
            return None
        response = web.Response(status=204)
        if self.allow(origin, CIMultiDict()):  # the answer's own headers come with every answer, in `dress`
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = method
            asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
            if asked:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
        return response


class Exchange:
    """The id, the trace and the rate headers of one request and its answer."""

    __slots__ = ("counted", "rate_headers", "request_id", "trace_id", "traced", "traceparent")

    def __init__(self, request: web.Request, *, own_id: bool = False, traceparent: str | None = None) -> None:
        """Take over a sane request id and trace, or begin new ones. Every log line on the way then carries both.

        With `own_id` the request id is a new UUID whatever the caller sent. A `traceparent` is that of a span which
        goes on with the caller's trace already.
        """
        headers = request.headers
        given_id, parent = headers.get(X_REQUEST_ID), headers.get(X_TRACEPARENT)
        # A caller that sends no trace gets none back.
        self.traced = parent is not None
        if given_id is None and parent is None:
            self.request_id, self.traceparent = ids.new_exchange()
        else:
            self.request_id, self.traceparent = ids.request_id_of(given_id), ids.continue_trace(parent)
        if traceparent is not None:
            self.traceparent = traceparent
        if own_id:
            self.request_id = str(ids.new_uuid())
        self.trace_id = ids.trace_id_of(headers.get(X_TRACE_ID), self.traceparent if self.traced else None)
        self.rate_headers: Headers = ()
        # Whether the request has been counted against its address.
        self.counted = False
        log.begin_exchange(self.request_id, self.traceparent)


_READY_SECURITY = "".join([f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS.items()])
_READY_SAFE = f"{_READY_SECURITY}{hdrs.CACHE_CONTROL}: {SAFE_CACHE_CONTROL}\r\n"
_READY_OTHER = f"{_READY_SECURITY}{hdrs.CACHE_CONTROL}: {OTHER_CACHE_CONTROL}\r\n"
_READY_OWN_CACHE = _READY_SECURITY

EXCHANGE: web.RequestKey[Exchange] = web.RequestKey("exchange", Exchange)


class Edge:
    """The layer around every handler of one application, and `dress`, its signal.

    `handlers` are the application's own, by the numbers that `around` knows. `refuse` makes an answer of the
    framework's own refusals, from the exception, the path and the method. Where methods are `told`, by the templates
    of their paths, every OPTIONS is answered with them. With `own_ids` callers' request ids are not taken over.
    """

    __slots__ = ("cross_origin", "handlers", "own_ids", "refuse", "told")

    def __init__(
        self,
        allowed_origins: Collection[str],
        handlers: Sequence[Handler],
        refuse: Refuse = problems.from_http_exception,
        told: Mapping[str, str] | None = None,
        *,
        own_ids: bool = False,
    ) -> None:
        self.cross_origin = CrossOrigin(allowed_origins)
        self.handlers = handlers
        self.refuse = refuse
        self.told = told
        self.own_ids = own_ids

    def preflight(self, request: web.Request, template: str) -> web.Response | None:
        """Answer a question about what may be asked; None if the request is no such question."""
        response = self.cross_origin.preflight(request)
        if self.told is None:
            return response
        response = response or web.Response(status=204)
        if template in self.told:
            response.headers[hdrs.ALLOW] = self.told[template]
        return response

    async def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that every answer has, just before they leave. `_ready_headers` makes the same as bytes."""
        headers = response.headers
        # aiohttp answers some requests itself, such as an `Expect` that it does not know.
        exchange = request.get(EXCHANGE) or Exchange(request, own_id=self.own_ids)
        del headers[hdrs.SERVER]
        headers.extend(SECURITY_HEADERS)
        if hdrs.CACHE_CONTROL not in headers:
            headers[hdrs.CACHE_CONTROL] = (
                SAFE_CACHE_CONTROL if request.method in _SAFE_METHODS else OTHER_CACHE_CONTROL
            )
        if exchange.request_id:
            headers[X_REQUEST_ID] = exchange.request_id
        if exchange.traced:
            headers[X_TRACEPARENT] = exchange.traceparent
        if exchange.trace_id is not None:
            headers[X_TRACE_ID] = exchange.trace_id
        if exchange.rate_headers:
            headers.extend(exchange.rate_headers)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None:
            self.cross_origin.allow(origin, headers)


EDGE: web.AppKey[Edge] = web.AppKey("edge", Edge)


def around(template: str, number: int) -> Handler:
    """Return the handler of that number of the request's application, so that it always answers.

    Each answer is logged and measured under `template`. The table of routes is shared by applications of the same
    surfaces; only the request tells whose handler is meant.
    """

    async def answered(request: web.Request) -> web.StreamResponse:
        started = perf_counter()
        edge = request.app[EDGE]
        scope = None
        if tracing.active is None:
            exchange = request[EXCHANGE] = Exchange(request, own_id=edge.own_ids)
        else:
            scope = tracing.active.request(request.method, template, request.headers.get(X_TRACEPARENT))
            exchange = request[EXCHANGE] = Exchange(
                request, own_id=edge.own_ids, traceparent=scope.traceparent
            )
        response: web.StreamResponse | None = None
        try:
            if request.method == hdrs.METH_OPTIONS:
                response = edge.preflight(request, template)
            if response is None:
                response = await edge.handlers[number](request)
        except web.HTTPException as error:
            response = edge.refuse(error, request.path, request.method)
        except (
            ConnectionError
        ):  # nobody is left to answer to; aiohttp would log a raised error as our mistake
            return web.Response(status=CLIENT_CLOSED_REQUEST)
        except Exception:
            _log.exception("request failed")
            if request.writer.output_size:  # a stream that broke off cannot be answered again
                raise
            response = problems.internal_error(exchange.request_id)
        finally:
            status = CLIENT_CLOSED_REQUEST if response is None else response.status
            seconds = perf_counter() - started
            metrics.observe_request(request.method, template, status, seconds, request.content_length or 0)
            log.access_log(request.method, template, status, seconds)
            if scope is not None:
                _end(scope, status, exchange)
        if hdrs.ORIGIN not in request.headers and is_plain(request, response):
            request[READY_HEADERS] = _ready_headers(request, response, exchange)
        return response

    return answered


def _end(scope: Scope, status: int, exchange: Exchange) -> None:
    """End the span of a request. Refusals are answers, and no errors of ours."""
    error = str(status) if status >= 500 else None
    scope.end(error, http__response__status_code=status, tallystick__request_id=exchange.request_id)


def _ready_headers(request: web.Request, response: web.StreamResponse, exchange: Exchange) -> bytes:
    """Return the headers that `dress` adds, as they are sent. Their values were checked or made here."""
    if len(response.headers) > 1 and hdrs.CACHE_CONTROL in response.headers:
        first = _READY_OWN_CACHE
    else:
        first = _READY_SAFE if request.method in _SAFE_METHODS else _READY_OTHER
    lines = f"{first}{X_REQUEST_ID}: {exchange.request_id}\r\n" if exchange.request_id else first
    if exchange.traced:
        lines += f"{X_TRACEPARENT}: {exchange.traceparent}\r\n"
    if exchange.trace_id is not None:
        lines += f"{X_TRACE_ID}: {exchange.trace_id}\r\n"
    for name, value in exchange.rate_headers:
        lines += f"{name}: {value}\r\n"
    return lines.encode()
