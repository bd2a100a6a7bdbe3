"""Tracing itself: off it is nothing; on, it is told what the settings say, and no collector can hurt the service."""

import ast
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from core import log, tracing
from core.settings import Settings, load_settings
from core.tracing import live
from core.tracing.outgoing import Outgoing
from tests.collector import Collector, collecting

ROOT = Path(__file__).parents[2]
# These are imported by `tracing.start` alone, once the settings ask for traces.
ON_DEMAND = {f"core/tracing/{name}.py" for name in ("live", "parents", "exporting")}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found
    tracing.stop()


def traced(url: str, **more: object) -> Settings:
    return load_settings(env_file=None, env="test", otel_exporter_otlp_endpoint=url, **more)


def runtime_imports(tree: ast.Module) -> set[str]:
    """The modules that importing a module imports: neither those for types nor those within functions."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_off_nothing_of_it_is_imported_and_the_hook_is_none() -> None:
    tracing.start(load_settings(env_file=None, env="test"))
    assert tracing.active is None
    assert tracing.current() is None
    assert tracing.within(None) is tracing.within(None)  # one object for all blocks, made once
    for package in ("core", "handlers", "jobs", "ops"):
        for path in (ROOT / package).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            text = path.read_text()
            if "opentelemetry" not in text and "tracing.live" not in text:
                continue
            imports = runtime_imports(ast.parse(text))
            wrong = {one for one in imports if one.startswith(("opentelemetry", "core.tracing.live"))}
            assert not wrong or name in ON_DEMAND, (name, wrong)


def test_calls_in_and_out_are_told_without_their_paths(collector: Collector) -> None:
    tracing.start(traced(f"{collector.url}/", otel_service_name="books"), "worker")
    assert tracing.active is not None
    with Outgoing("stripe", "GET", "https://api.stripe.com/v1/secret?key=x"):
        pass  # nothing is traced above it, so it is no span either
    call = tracing.active.call("payments.PaymentsService", "GetPayment", f"00-{'a' * 32}-{'b' * 16}-01")
    with Outgoing("stripe", "GET", "https://api.stripe.com:8443/v1/secret?key=x") as told:
        told.status = 503
    with pytest.raises(OSError, match="away"), Outgoing("paypal", "POST", "https://[broken"):
        raise OSError("away")
    call.end("INTERNAL", rpc__grpc__status_code=13)
    tracing.active.request("X" * 4_000, "/v1/transfers", None).end()
    tracing.stop()

    (server,) = collector.named("payments.PaymentsService/GetPayment")
    assert (server.kind, server.trace, server.parent, server.failed) == ("server", "a" * 32, "b" * 16, True)
    assert (server.service, server.attributes["rpc.grpc.status_code"]) == ("books-worker", 13)
    (stripe,) = collector.named("GET stripe")
    assert (stripe.parent, stripe.failed, stripe.kind) == (server.id, True, "client")
    assert (stripe.attributes["server.address"], stripe.attributes["server.port"]) == ("api.stripe.com", 8443)
    (paypal,) = collector.named("POST paypal")
    assert paypal.attributes["error.type"] == "OSError"
    # A stranger's word for a method is none of ours.
    assert collector.named("HTTP /v1/transfers")[0].attributes["http.request.method"] == "_OTHER"
    assert "secret" not in str(collector.spans)


def test_lines_of_the_log_have_the_trace_while_traces_are_made(
    collector: Collector, logging_as_before: None
) -> None:
    settings = traced(collector.url)
    out = io.BytesIO()
    log.configure_logging(settings, out)
    tracing.start(settings)
    assert tracing.active is not None
    scope = tracing.active.request("GET", "/ready", f"00-{'a' * 32}-{'b' * 16}-01")
    log.begin_exchange("request-1", scope.traceparent)
    log.access_log("GET", "/ready", 200, 0.001)
    structlog.get_logger("core").info("event")
    scope.end()
    tracing.stop()
    log.access_log("GET", "/ready", 200, 0.001)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line.get("trace_id") for line in lines] == ["a" * 32, "a" * 32, None]
    assert lines[0]["traceparent"] == lines[2]["traceparent"] == scope.traceparent


@pytest.mark.parametrize(
    ("sampler", "share", "caller", "kept"),
    [
        ("always_on", 0.0, "00", True),
        ("always_off", 1.0, "01", False),
        ("parentbased_traceidratio", 0.0, "01", True),
        ("parentbased_traceidratio", 1.0, "00", False),
        ("parentbased_always_off", 1.0, None, False),
        ("traceidratio", 0.0, "01", False),
        ("traceidratio", 1.0, None, True),
    ],
)
def test_the_sampler_is_that_of_the_settings(
    collector: Collector, sampler: str, share: float, caller: str | None, *, kept: bool
) -> None:
    tracing.start(traced(collector.url, otel_traces_sampler=sampler, otel_traces_sampler_arg=share))
    assert tracing.active is not None
    parent = None if caller is None else f"00-{'a' * 32}-{'b' * 16}-{caller}"
    scope = tracing.active.request("GET", "/ready", parent)
    assert scope.traceparent[-2:] == ("01" if kept else "00")
    assert (tracing.current() is not None) is kept
    scope.end()
    assert tracing.current() is None
    tracing.stop()
    assert len(collector.spans) == int(kept)


def test_a_collector_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STOP_SECONDS", 0.05)
    monkeypatch.setattr(live, "MAX_QUEUE", 16)
    monkeypatch.setattr(live, "MAX_BATCH", 8)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        tracing.start(traced(f"http://127.0.0.1:{deaf.getsockname()[1]}"))
        assert tracing.active is not None
        for _ in range(100):
            tracing.active.request("GET", "/ready", None).end()
        tracing.stop()
    assert tracing.active is None
