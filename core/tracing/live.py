"""The tracing of a process that traces. `core.tracing.active` is the one instance."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode, set_span_in_context

from core import __version__
from core.tracing.exporting import exporter_of, sampler_of
from core.tracing.parents import context_of, traceparent_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from opentelemetry.util.types import AttributeValue

    from core.settings import Settings

# Spans that wait for the exporter: some 8 MB. Further ones are dropped, so that a dead collector costs memory once.
MAX_QUEUE: Final = 8_192
MAX_BATCH: Final = 512
EXPORT_EVERY_MS: Final = 1_000
# A stop waits so long for the last spans; the processes' own bound has five seconds to spare.
STOP_SECONDS: Final = 2.0
# A batch may have a thousand members, and a span with a thousand links helps nobody.
MAX_LINKS: Final = 64

# A stranger may write any word as the method; names of spans are few, as those of metrics.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_current: ContextVar[Span] = ContextVar("span", default=INVALID_SPAN)


class Contexts(Protocol):
    """The store that keeps the trace of an event until a worker comes to it."""

    async def keep(self, traces: Mapping[UUID, str]) -> None:
        """Keep the traceparent of each event. The store never fails and never takes long: it rather forgets."""

    async def find(self, event_id: UUID) -> str | None:
        """Return the traceparent of an event, None where none is known."""


class Scope:
    """A span that is the current one until it ends, in one task. A `lent` one is ended by its owner."""

    __slots__ = ("_lent", "_token", "span")

    def __init__(self, span: Span, *, lent: bool = False) -> None:
        self.span = span
        self._lent = lent
        self._token = _current.set(span)

    @property
    def traceparent(self) -> str:
        """The header that makes others go on with this span."""
        return traceparent_of(self.span)

    def end(self, error: str | None = None, **attributes: AttributeValue) -> None:
        """End the span; `error` is the kind of a failure. Keyword names have `__` for a dot."""
        _current.reset(self._token)
        if not self._lent:
            finish(self.span, error, **attributes)


class Live:
    """Spans of one process. A span below another is made only while that one is recorded."""

    def __init__(self, settings: Settings, part: str = "") -> None:
        name = f"{settings.otel_service_name}-{part}" if part else settings.otel_service_name
        self._provider = TracerProvider(
            sampler=sampler_of(settings),
            resource=Resource.create(
                {
                    "service.name": name,
                    "service.version": __version__,
                    "deployment.environment.name": settings.env,
                }
            ),
            shutdown_on_exit=False,
        )
        self._exporter = exporter_of(settings)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=MAX_QUEUE,
                max_export_batch_size=MAX_BATCH,
                schedule_delay_millis=EXPORT_EVERY_MS,
            )
        )
        self._tracer = self._provider.get_tracer("tallystick", __version__)
        self.contexts: Contexts | None = None
        """The store of events' traces, in a process that has a database."""
        self._noted: dict[UUID, str] = {}

    def close(self) -> None:
        """Send what is left, for STOP_SECONDS at most. A collector that hangs holds up a thread that dies with us."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-stop", daemon=True)
        closing.start()
        closing.join(STOP_SECONDS)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call] # no further try

    # --- Calls that come in

    def request(self, method: str, route: str, traceparent: str | None) -> Scope:
        """Begin the span of an HTTP request. Its path is the route's template: a real one may hold a phone."""
        method = method if method in _METHODS else "_OTHER"
        attributes = {
            "http.request.method": method, "http.route": route, "url.path": route, "url.scheme": "http",
        }  # fmt: skip
        return self._serve(f"{'HTTP' if method == '_OTHER' else method} {route}", traceparent, attributes)

    def call(self, service: str, method: str, traceparent: str | None) -> Scope:
        """Begin the span of a gRPC call."""
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        return self._serve(f"{service}/{method}", traceparent, attributes)

    def _serve(self, name: str, traceparent: str | None, attributes: Mapping[str, AttributeValue]) -> Scope:
        parent = context_of(traceparent)
        return Scope(self._tracer.start_span(name, parent, SpanKind.SERVER, attributes))

    # --- Work below the current span

    def query(self, name: str) -> Span | None:
        """Begin the span of a statement. Parameters are people's data, and never told."""
        parent = _current.get()
        if not parent.is_recording():
            return None
        attributes = {"db.system.name": "postgresql", "db.query.summary": name}
        return self._tracer.start_span(name, set_span_in_context(parent), SpanKind.CLIENT, attributes)

    def wait(self, name: str) -> Span | None:
        """Begin the span of an item that joins a lane."""
        parent = _current.get()
        return self._tracer.start_span(name, set_span_in_context(parent)) if parent.is_recording() else None

    def batch(self, name: str, members: Sequence[Span | None], size: int) -> Scope:
        """Begin the span of a batch that serves `members`. It is a part of an only member's trace.

        A batch of several is a part of the first one's, linked to the others in both directions.
        """
        traced = [span for span in members if span is not None]
        if not traced:
            return Scope(
                INVALID_SPAN, lent=True
            )  # the task may have come from a request that is long answered
        if size == 1:
            return Scope(traced[0], lent=True)
        links = [Link(span.get_span_context()) for span in traced[:MAX_LINKS]]
        attributes = {"messaging.batch.message_count": size}
        # In a trace of its own a sampler that keeps a share might drop it, though its members are kept.
        parent = set_span_in_context(traced[0])
        span = self._tracer.start_span(f"{name} batch", parent, SpanKind.INTERNAL, attributes, links[1:])
        for member in traced[1:]:
            member.add_link(span.get_span_context())
        return Scope(span)

    def outgoing(self, name: str, method: str, host: str, port: int | None = None) -> Scope | None:
        """Begin the span of a call to another service, below the current one. Paths and queries may be secrets."""
        parent = _current.get()
        if not parent.is_recording():
            return None
        return self._send(name, parent, method, host, port)

    def _send(self, name: str, parent: Span, method: str, host: str, port: int | None) -> Scope:
        attributes: dict[str, AttributeValue] = {"http.request.method": method, "server.address": host}
        if port is not None:
            attributes["server.port"] = port
        return Scope(self._tracer.start_span(name, set_span_in_context(parent), SpanKind.CLIENT, attributes))

    # --- Work of a worker

    def job(self, name: str) -> Scope:
        """Begin the span of a job's run by the clock, in a trace of its own."""
        return Scope(self._tracer.start_span(f"job {name}", set_span_in_context(INVALID_SPAN)))

    def ran(self, name: str, seconds: float, *, failed: bool) -> None:
        """Record a loop's run that is over: only its end tells that it was one, and no empty look."""
        now = time.time_ns()
        began = now - int(seconds * 1e9)
        parent = set_span_in_context(INVALID_SPAN)
        span = self._tracer.start_span(f"job {name}", parent, start_time=began)
        finish(span, "failed" if failed else None)

    async def received(self, name: str, event_id: UUID, **attributes: AttributeValue) -> Span | None:
        """Begin the span of an event's processing in the trace in which it came; None where that was not sampled."""
        kept = None if self.contexts is None else await self.contexts.find(event_id)
        if kept is None:
            return None
        return self._tracer.start_span(name, context_of(kept), SpanKind.CONSUMER, dotted(attributes))

    async def delivery(
        self, event_id: UUID, method: str, host: str, **attributes: AttributeValue
    ) -> Scope | None:
        """Begin the span of a delivery in the trace in which its event was written; None where that was not sampled."""
        kept = None if self.contexts is None else await self.contexts.find(event_id)
        if kept is None:
            return None
        about = {"http.request.method": method, "server.address": host, **dotted(attributes)}
        return Scope(self._tracer.start_span("deliver webhook", context_of(kept), SpanKind.CLIENT, about))

    @contextmanager
    def within(self, span: Span) -> Iterator[None]:
        """Make a span the current one for a block that does not end it."""
        token = _current.set(span)
        try:
            yield
        finally:
            _current.reset(token)

    @staticmethod
    def finish(span: Span, error: str | None = None, **attributes: AttributeValue) -> None:
        """End a span that is not the current one; see `finish`."""
        finish(span, error, **attributes)

    # --- Traces of events

    def current(self) -> str | None:
        """Return the traceparent of the current span if it is sampled."""
        span = _current.get()
        return traceparent_of(span) if span.is_recording() else None

    def trace_id(self) -> str | None:
        """Return the trace id of the current span, for lines of the log."""
        context = _current.get().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else None

    def note(self, event_id: UUID, traceparent: str | None) -> None:
        """Remember the trace of an event that is about to be stored."""
        if traceparent is not None:
            self._noted[event_id] = traceparent

    async def keep_noted(self) -> None:
        """Keep what was noted, before the events are stored: a worker may come to one at once."""
        noted, self._noted = self._noted, {}
        if noted and self.contexts is not None:
            await self.contexts.keep(noted)


def finish(span: Span, error: str | None = None, **attributes: AttributeValue) -> None:
    """End a span; `error` is the kind of a failure. Keyword names have `__` for a dot."""
    if span.is_recording():
        span.set_attributes(dotted(attributes))
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
    span.end()


def dotted(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    """Return attributes under their real names."""
    return {name.replace("__", "."): value for name, value in attributes.items()}
