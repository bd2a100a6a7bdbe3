import asyncio
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from core import __version__, metrics
from core.metrics import instruments

ROOT = Path(__file__).parents[2]
BOUNDS = (0.5, 1.0, 2.5)


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(series: str, text: bytes | None = None, /, **labels: str) -> float:
    return samples(metrics.render() if text is None else text).get(
        (series, tuple(sorted(labels.items()))), 0.0
    )


def test_a_request_is_counted_under_the_labels_of_both_contracts() -> None:
    route = {"method": "POST", "path": "/metrics-test", "endpoint": "/metrics-test"}
    metrics.observe_request("POST", "/metrics-test", 201, 0.004, 300)
    metrics.observe_request("POST", "/metrics-test", 201, 0.2)
    text = metrics.render()
    assert value("http_requests_total", text, **route, status="201", status_code="201") == 2
    assert value("http_request_duration_seconds_bucket", text, **route, le="0.005") == 1
    assert value("http_request_duration_seconds_count", text, **route) == 2
    assert value("http_request_duration_seconds_sum", text, **route) == pytest.approx(0.204)
    assert value("http_request_size_bytes_count", text, **route) == 1


def test_invented_methods_do_not_make_series() -> None:
    metrics.observe_request("BREW", "/metrics-test", 405, 0.001)
    assert b"BREW" not in metrics.render()
    route = {"path": "/metrics-test", "endpoint": "/metrics-test"}
    assert value("http_requests_total", method="OTHER", **route, status="405", status_code="405") == 1


def test_statements_webhooks_and_signatures() -> None:
    metrics.observe_query("metrics_test", 0.002)
    metrics.observe_query("metrics_test", 0.002, ok=False)
    metrics.observe_webhook("test", "webhook", "processed", 0.01)
    metrics.observe_signature("test", valid=False)
    text = metrics.render()
    assert value("database_query_seconds_count", text, query="metrics_test") == 2
    operation = {"operation": "metrics_test", "table": ""}
    assert value("database_operations_total", text, **operation, status="success") == 1
    assert value("database_operations_total", text, **operation, status="error") == 1
    assert value("webhook_events_total", text, provider="test", event_type="webhook", status="processed") == 1
    assert (
        value("webhook_signature_validations_total", text, provider="test", valid="false", result="invalid")
        == 1
    )


def test_the_process_says_what_it_is() -> None:
    metrics.mark_started("test")
    assert value("application_up") == 1
    assert value("application_ready") == 0
    metrics.mark_ready(ready=True)
    assert value("application_ready") == 1
    assert value("payments_api_build_info", environment="test", name="payments-api", version=__version__) == 1
    metrics.mark_ready(ready=False)
    assert value("application_ready") == 0


def test_the_text_is_the_format_that_prometheus_reads() -> None:
    assert metrics.CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    text = metrics.render()
    assert b"_created" not in text
    assert text.endswith(b"\n")


# Holds the members of the client's histogram that `Spread.flush` writes to; sums of these numbers are exact.
@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0.0, 0.5, 0.75, 1.0, 2.25, 2.5, 2.75, math.inf]), max_size=30), st.data())
def test_a_spread_tells_what_the_clients_own_histogram_tells(seen: list[float], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        registry, theirs_in = CollectorRegistry(), CollectorRegistry()
        patch.setattr(instruments, "REGISTRY", registry)
        patch.setattr(instruments, "_METRICS", [])
        patch.setattr(instruments, "DEFINED", [])
        ours = metrics.Spread("lengths", "Lengths", ("kind",), BOUNDS)
        theirs = Histogram("lengths", "Lengths", ("kind",), buckets=BOUNDS, registry=theirs_in)
        for number in seen:
            kind = data.draw(st.sampled_from(["a", "b"]))
            ours.observe(number, kind)
            theirs.labels(kind).observe(number)
            if data.draw(st.booleans()):
                ours.flush()
        ours.flush()
        assert [*registry.collect()] == [*theirs_in.collect()]


CHILD = """
import asyncio, sys
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from core import metrics
from core.metrics import instruments

instruments.FLUSH_SECONDS = 0.05

def shared():
    together = CollectorRegistry()
    MultiProcessCollector(together)
    return generate_latest(together)

async def main():
    metrics.mark_started("test")
    metrics.LEDGER_LANE_WAITING.set(5)
    for _ in range(2):
        before = shared()
        for _ in range(10):
            metrics.observe_request("GET", "/x", 200, 0.003)
        assert shared() == before, "handed over at once"
        async with asyncio.timeout(10):
            while shared() == before:
                await asyncio.sleep(0.01)
    metrics.observe_request("GET", "/x", 200, 0.003)

asyncio.run(main())
metrics.observe_request("GET", "/x", 200, 0.003)
if len(sys.argv) > 1:
    sys.stdout.buffer.write(metrics.render())
"""


FULL = """
import asyncio, sys
from core import metrics
from core.metrics import instruments

instruments.FLUSH_SECONDS = 0.05

async def main():
    room, instruments.ROOM_BYTES = instruments.ROOM_BYTES, 2**62
    metrics.observe_request("GET", "/x", 200, 0.003)
    assert b"/x" not in metrics.render(), "a disk without room was written to"
    instruments.ROOM_BYTES = room
    async with asyncio.timeout(10):
        while b"/x" not in metrics.render():
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


async def test_a_full_disk_only_keeps_the_counts_back(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", FULL, cwd=ROOT, env=environment)
    assert await child.wait() == 0


async def test_processes_of_one_port_answer_for_all(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    first = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, cwd=ROOT, env=environment)
    assert await first.wait() == 0
    metrics.forget_process(first.pid, str(tmp_path))
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, "render", cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    text, _ = await second.communicate()
    assert second.returncode == 0
    route = {"method": "GET", "path": "/x", "endpoint": "/x"}
    # What the first process had not handed over when it ended is there, too.
    assert value("http_requests_total", text, **route, status="200", status_code="200") == 44
    assert value("http_request_duration_seconds_bucket", text, **route, le="0.005") == 44
    assert value("ledger_lane_waiting", text) == 5
    assert value("application_up", text) == 1
    assert (
        value("payments_api_build_info", text, environment="test", name="payments-api", version=__version__)
        == 1
    )
