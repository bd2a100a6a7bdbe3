"""The exporter and the sampler that the settings ask for.

The library reads the rest of its standard names in the environment by itself, such as OTEL_RESOURCE_ATTRIBUTES and
OTEL_EXPORTER_OTLP_CERTIFICATE. The collector is the operator's own, so no rule for outgoing addresses applies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

if TYPE_CHECKING:
    from core.settings import Settings

# An export, its repetitions included, is given up after so long; a thread of its own waits for it.
TIMEOUT_SECONDS: Final = 5.0


def exporter_of(settings: Settings) -> OTLPSpanExporter:
    """Return the exporter to the collector of the settings."""
    return OTLPSpanExporter(
        endpoint=f"{settings.otel_exporter_otlp_endpoint}/v1/traces",
        headers=_headers(settings.otel_exporter_otlp_headers),
        timeout=TIMEOUT_SECONDS,
    )


def sampler_of(settings: Settings) -> Sampler:
    """Return the sampler of OTEL_TRACES_SAMPLER."""
    words = settings.otel_traces_sampler.removeprefix("parentbased_")
    root: Sampler
    if words == "traceidratio":
        root = TraceIdRatioBased(settings.otel_traces_sampler_arg)
    else:
        root = ALWAYS_ON if words == "always_on" else ALWAYS_OFF
    return ParentBased(root) if words != settings.otel_traces_sampler else root


def _headers(text: str) -> dict[str, str]:
    """Read `name=value` pairs, whose values are percent-encoded as in the library's own variable."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs}
