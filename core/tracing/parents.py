"""Trace contexts as the header `traceparent` writes them (W3C Trace Context, version 00)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_PROPAGATOR = TraceContextTextMapPropagator()
# The specification lets a later version be longer; nobody's is.
_MOST_CHARACTERS = 512


def context_of(traceparent: str | None) -> Context:
    """Return the context to begin a span in: the caller's, or none, in which a new trace begins.

    A caller's `tracestate` is left behind: strangers would write into our traces what they like.
    """
    if not traceparent or len(traceparent) > _MOST_CHARACTERS:
        return Context()
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context())


def traceparent_of(span: Span) -> str:
    """Return the header of a span, with the flag that says whether it is sampled."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"
