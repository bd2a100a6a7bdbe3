"""A collector of OpenTelemetry on loopback: a real HTTP server that decodes what the exporter sends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


@dataclass
class Seen:
    """One span as it was received, ids in hex."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    failed: bool
    links: list[str]
    attributes: dict[str, str | int | float | bool]
    seconds: float


@dataclass
class Collector:
    """All spans that came, in any order."""

    url: str
    spans: list[Seen] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def named(self, name: str) -> list[Seen]:
        """The spans of a name."""
        return [span for span in self.spans if span.name == name]

    def under(self, span: Seen) -> set[str]:
        """The names of all spans below a span of its trace."""
        found: set[str] = set()
        ids = {span.id}
        while True:
            more = [one for one in self.spans if one.parent in ids and one.id not in ids]
            if not more:
                return found
            found |= {one.name for one in more}
            ids |= {one.id for one in more}

    def take(self, body: bytes) -> None:
        """Decode one export."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_seen(span, about["service.name"]) for span in scope.spans]


def _seen(span: Span, service: str) -> Seen:
    attributes = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        attributes[pair.key] = getattr(pair.value, kind) if kind else ""
    return Seen(
        service,
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.status.code == 2,
        [link.span_id.hex() for link in span.links],
        attributes,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector for the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                collector.headers.append({name.lower(): text for name, text in self.headers.items()})
                collector.take(body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
