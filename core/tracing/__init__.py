"""Tracing by OpenTelemetry, off unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

Off, `active` is None: a hot path asks for that and nothing else, and no module of OpenTelemetry is imported. The spans
are made by hand where they mean something, since an instrumentation of libraries would know neither the names of our
statements nor what may not be told. docs/tracing.md has each span.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span

    from core.settings import Settings
    from core.tracing.live import Live

active: Live | None = None
"""The tracing of this process; None while it is off."""


_NOTHING: Final = nullcontext()


def within(span: Span | None) -> AbstractContextManager[None]:
    """Make a span the current one for a block that does not end it; None changes nothing."""
    return _NOTHING if active is None or span is None else active.within(span)


def current() -> str | None:
    """Return the traceparent of the current span if it is sampled; None for every other reason."""
    return None if active is None else active.current()


def start(settings: Settings, part: str = "") -> None:
    """Begin to trace if the settings ask for it. `part` is added to the service's name.

    The process must be the one that serves: the exporter's thread would not live on in a fork.
    """
    global active  # noqa: PLW0603 - one process has one tracing
    if settings.otel_exporter_otlp_endpoint and active is None:
        from core.tracing.live import Live  # noqa: PLC0415 - 0.2 s and 15 MB, for those who trace

        active = Live(settings, part)


def stop() -> None:
    """Send what is left, within a bound, and trace no more."""
    global active
    ended, active = active, None
    if ended is not None:
        ended.close()
