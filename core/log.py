"""Logs: one JSON line an event on standard output, personal data masked; readable lines on a developer's terminal.

Modules log with `structlog.get_logger(__name__)`. `begin_exchange` puts request_id and traceparent on every line of a
task, `structlog.contextvars.bind_contextvars` other values. The standard library's loggers and uncaught exceptions take
the same way. `access_log`, for the hot path, skips the chain, because its fields are known to be safe (measured 2 us a
line, against 60 us through the chain).
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import orjson
import structlog
from structlog.contextvars import get_contextvars

from core import tracing
from core.masking import mask_fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from structlog.typing import EventDict

    from core.settings import Settings

# Operations whose part of a line is kept: all templates with their methods; a stranger's methods push each other out.
MAX_OPERATIONS = 2_000
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def configure_logging(settings: Settings, stream: BinaryIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard output), from LOG_LEVEL up; with DEBUG all there are."""
    out = sys.stdout.buffer if stream is None else stream
    level = _LEVELS["debug" if settings.debug else settings.log_level]
    pretty = settings.env == "dev" and out.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _mask,
            _add_context,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.dev.ConsoleRenderer(), _encode] if pretty else [_render]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_NamedLoggers(out),
        cache_logger_on_first_use=False,
    )
    _access.open(out, on=level <= logging.INFO, pretty=pretty)
    logging.basicConfig(handlers=[_Bridge()], level=level, force=True)
    # `access_log` writes the line of a request.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    # The call that meets a lost database logs it; the pool would add a traceback for each of its failed attempts.
    logging.getLogger("asyncpg.pool").setLevel(max(level, logging.ERROR))
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )


# One variable holds both values of a request. Two of structlog's took 5 % of a request's time to bind and to gather.
_exchange: ContextVar[Mapping[str, str]] = ContextVar("exchange", default=MappingProxyType({}))


def begin_exchange(request_id: str, traceparent: str) -> None:
    """Put both values, which must have been checked, on every line that this task logs from now on."""
    _exchange.set({"request_id": request_id, "traceparent": traceparent})


def access_log(method: str, path: str, status: int, seconds: float) -> None:
    """Write the line of an answered request. `path` is the route's template; a real path may hold a phone or a code."""
    _access.write(method, path, status, seconds)


class _NamedLogger(structlog.BytesLogger):
    """A logger that writes bytes, and has the name of its module."""

    def __init__(self, out: BinaryIO, name: str) -> None:
        super().__init__(cast("Any", out))
        self.module = name


class _NamedLoggers:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def __call__(self, name: str = "root", *_: object) -> _NamedLogger:
        return _NamedLogger(self._out, name)


class _Access:
    """The access log. The lines of one turn of the event loop go out in one write."""

    def __init__(self) -> None:
        self._out: BinaryIO = sys.stdout.buffer
        self._on = True
        self._pretty = False
        self._lines: list[bytes] = []
        self._second = 0
        self._moment = ""

    def open(self, out: BinaryIO, *, on: bool, pretty: bool) -> None:
        self._out, self._on, self._pretty = out, on, pretty

    def write(self, method: str, path: str, status: int, seconds: float) -> None:
        if not self._on:
            return
        # A whole number of microseconds, divided: `round` to three places takes three times as long.
        duration_ms = round(seconds * 1_000_000) / 1000
        if self._pretty:
            structlog.get_logger("app.request").info(
                "request", method=method, path=path, status=status, duration_ms=duration_ms
            )
            return
        lines = self._lines
        lines.append(self._line(_ids(), _operation(method, path), status, duration_ms).encode())
        if len(lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:
                self._flush()

    def _line(self, ids: str, operation: str, status: int, duration_ms: float) -> str:
        """Return the line as `_dumps` would write it, from parts that are made once a second and once an operation."""
        second, microsecond = divmod(time.time_ns() // 1000, 1_000_000)
        if second != self._second:
            self._second = second
            self._moment = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return (
            f'{{"timestamp":"{self._moment}.{microsecond:06}Z","level":"info","logger":"app.request","event":"request"'
            f',{ids}{operation},"status":{status},"duration_ms":{duration_ms}}}'
        )

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        lines.append(b"")
        self._out.write(b"\n".join(lines))
        self._out.flush()


def _ids() -> str:
    """Return the fields of the request's ids as they stand in a line. They are visible ASCII."""
    exchange = _exchange.get()
    if not exchange:
        return ""
    request_id = exchange["request_id"]
    if '"' in request_id or "\\" in request_id:
        request_id = _dumps({"": request_id})[5:-2].decode()
    traceparent = exchange["traceparent"]
    trace = "" if tracing.active is None else f'"trace_id":"{traceparent[3:35]}",'
    return f'"request_id":"{request_id}","traceparent":"{traceparent}",{trace}'


@functools.lru_cache(MAX_OPERATIONS)
def _operation(method: str, path: str) -> str:
    return _dumps({"method": method, "path": path})[1:-1].decode()


_access = _Access()


class _Bridge(logging.Handler):
    """The handler that passes records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit its text
            message = f"{record.msg} {record.args!r}"
        structlog.get_logger(record.name).log(level, message, exc_info=record.exc_info or None)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger("uncaught").critical("uncaught exception", exc_info=(kind, error, trace))


def _mask(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return mask_fields(event)


def _add_context(logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the bound values after the masking, because they were checked where they came in."""
    told = {"logger": logger.module, **_exchange.get(), **get_contextvars(), **event}
    if tracing.active is not None and (trace_id := tracing.active.trace_id()) is not None:
        told.setdefault("trace_id", trace_id)
    return told


def _render(_logger: Any, _method: str, event: EventDict) -> bytes:
    return _dumps(dict(event))


def _encode(_logger: Any, _method: str, text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _dumps(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_UTC_Z)
    except TypeError:
        # orjson refuses lone surrogates (a header that was not UTF-8) and integers beyond 64 bits.
        return json.dumps(line, default=repr).encode()
