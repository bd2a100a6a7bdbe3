"""Keys of tracing, under the names that OpenTelemetry gives them everywhere."""

from typing import Annotated, Literal

from pydantic import BaseModel

from core.settings.kinds import BaseUrl, Lower, Secret, key


class Tracing(BaseModel):
    """Tracing."""

    otel_exporter_otlp_endpoint: BaseUrl = key(
        "",
        "Base URL of a collector of OpenTelemetry that takes OTLP over HTTP, such as http://localhost:4318; spans go to"
        " its /v1/traces; unset: no tracing, and nothing of it is loaded",
    )
    otel_exporter_otlp_headers: Secret = key(
        "", "Headers of each export, as name=value, comma separated: where the collector asks for a token"
    )
    otel_service_name: str = key("tallystick", "Name of this service in traces; the worker adds -worker")
    otel_traces_sampler: Annotated[
        Literal[
            "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
            "parentbased_traceidratio",
        ],
        Lower,
    ] = key(
        "parentbased_traceidratio",
        "Sampler of traces. Those that begin with parentbased keep what the caller's traceparent says",
    )  # fmt: skip
    otel_traces_sampler_arg: float = key(
        1.0, "Share of traces that a traceidratio keeps; 0.01 is plenty under load", ge=0, le=1
    )
