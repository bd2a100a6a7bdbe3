"""Around every request: its id and trace, a log line, its metrics, the headers of every answer, CORS, the last net.

There is one middleware, because each costs a microsecond or two, and one signal, because only it sees streamed answers
before their headers leave.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy, istr
from structlog.contextvars import bind_contextvars

from core import ids, log, metrics
from core.access.rates import Headers
from handlers import problems

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
TRACEPARENT: web.RequestKey[str] = web.RequestKey("traceparent", str)
RATE_HEADERS: web.RequestKey[Headers] = web.RequestKey("rate_headers", tuple)

X_REQUEST_ID = istr("X-Request-ID")
X_TRACEPARENT = istr("traceparent")
# The client hung up before it had its answer; nginx's number for it, seen in logs and metrics only.
CLIENT_CLOSED_REQUEST = 499
# One series for all paths that do not exist, so that a scanner cannot fill the metrics.
UNMATCHED = "unmatched"

_SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})

_EXPOSED = (
    "X-Request-ID, traceparent, Location, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
)
_log = structlog.get_logger(__name__)

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
    """Which origins' scripts may read our answers (the Fetch standard's CORS protocol).

    An allowed origin is echoed, and may send credentials; for `*` none are allowed, since any page could use them.
    """

    def __init__(self, allowed_origins: Collection[str]) -> None:
        self._any = "*" in allowed_origins
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed_origins)

    def allow(self, origin: str, headers: CIMultiDict[str]) -> bool:
        """Add what an answer to `origin` needs; say whether it is allowed."""
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


class Edge:
    """The middleware `around` and the signal `dress`, for one application."""

    def __init__(self, allowed_origins: Collection[str]) -> None:
        self._cross_origin = CrossOrigin(allowed_origins)

    @web.middleware
    async def around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer one request, whatever happens inside; log and measure it."""
        started = perf_counter()
        request_id = _identify(request)
        resource = request.match_info.route.resource
        template = UNMATCHED if resource is None else resource.canonical
        status = CLIENT_CLOSED_REQUEST
        try:
            response: web.StreamResponse | None = None
            if request.method == hdrs.METH_OPTIONS:
                response = self._cross_origin.preflight(request)
            if response is None:
                response = await _answered(request, handler, request_id)
            status = response.status
            return response
        finally:
            seconds = perf_counter() - started
            metrics.observe_request(request.method, template, status, seconds, request.content_length or 0)
            log.access_log(request.method, template, status, seconds)

    async def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that every answer has, just before they leave."""
        headers = response.headers
        del headers[hdrs.SERVER]
        headers.extend(SECURITY_HEADERS)
        if hdrs.CACHE_CONTROL not in headers:
            headers[hdrs.CACHE_CONTROL] = (
                "no-cache, max-age=0" if request.method in _SAFE_METHODS else "no-store"
            )
        headers[X_REQUEST_ID] = request[REQUEST_ID]
        headers[X_TRACEPARENT] = request[TRACEPARENT]
        rate = request.get(RATE_HEADERS)
        if rate is not None:
            headers.extend(rate)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None:
            self._cross_origin.allow(origin, headers)


def _identify(request: web.Request) -> str:
    """Take over a sane request id and trace, or begin them; all that is logged on the way then carries both."""
    headers = request.headers
    request_id = request[REQUEST_ID] = ids.request_id_of(headers.get(X_REQUEST_ID))
    traceparent = request[TRACEPARENT] = ids.continue_trace(headers.get(X_TRACEPARENT))
    bind_contextvars(request_id=request_id, traceparent=traceparent)
    return request_id


async def _answered(request: web.Request, handler: Handler, request_id: str) -> web.StreamResponse:
    """Call the handler. Whatever it raises becomes an answer, unless nobody is left to answer to."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return problems.from_http_exception(error, request.path, request.method)
    except ConnectionError:
        raise
    except Exception:
        _log.exception("request failed")
        if request.writer.output_size:  # a stream that broke off cannot be answered again
            raise
        return problems.internal_error(request_id)
