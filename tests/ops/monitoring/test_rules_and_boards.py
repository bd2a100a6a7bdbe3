"""Rules, dashboards and documents against the metrics that are really exported: nothing asks for what is not there."""

import importlib
import pkgutil
import re
from typing import Any

import pytest
import yaml

import core
import jobs.worker
from core import metrics
from core.metrics.instruments import Defined
from core.settings import Settings
from handlers.app import SURFACES
from ops.grafana.boards import BOARDS
from ops.grafana.panels import COLUMNS, text_of
from tests.ops.monitoring.asked import DASHBOARDS, PROMETHEUS, ROOT, alerts, all_asked, boards, parse, rules

pytestmark = pytest.mark.shared

# Prometheus makes these itself.
OF_PROMETHEUS = {
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity"},
}
EVERYWHERE = {"job", "instance"}
SEVERITIES = {"page", "ticket", "info", "none"}
# The contracts' names and labels, of wallets (§6) and of the inbox (§5); one series carries the labels of both.
CONTRACTS = {
    "http_requests_total": {"method", "path", "status", "endpoint", "status_code"},
    "http_request_duration_seconds": {"method", "path", "endpoint"},
    "http_request_size_bytes": {"method", "endpoint"},
    "payments_transfers_total": {"kind", "status"},
    "payments_qr_total": {"status"},
    "payments_merchant_gross_cents_total": {"currency"},
    "payments_merchant_fees_cents_total": {"currency"},
    "payments_requests_total": {"action"},
    "payments_links_total": {"action"},
    "payments_subscriptions_total": {"action"},
    "payments_subscriptions_cents_total": {"currency"},
    "payments_refunds_total": {"status"},
    "payments_refunds_cents_total": {"currency"},
    "payments_webhook_deliveries_total": {"status"},
    "payments_webhook_attempts_total": {"result"},
    "payments_api_build_info": {"environment", "name", "version"},
    "webhook_events_total": {"provider", "event_type", "status"},
    "webhook_processing_duration_seconds": {"provider", "event_type"},
    "webhook_signature_validations_total": {"provider", "valid", "result"},
    "database_operations_total": {"operation", "table", "status"},
    "database_operation_duration_seconds": {"operation", "table"},
    "database_connections_active": set(),
    "job_runs_total": {"job_name", "status"},
    "job_duration_seconds": {"job_name"},
    "dlq_messages_total": {"action"},
    "dlq_messages_pending": set(),
    "reconciliation_events_processed_total": {"provider"},
    "reconciliation_anomalies_detected_total": {"anomaly_type"},
    "reconciliation_last_run_timestamp": set(),
    "application_up": set(),
    "application_ready": set(),
}
# Counters whose series cannot be known at the start, or begin when a provider is set up, or gRPC listens.
OPEN = {
    "database_operations_total",
    "grpc_requests_total",
    "provider_calls_total",
    "provider_payments_total",
    "provider_refunds_total",
}


def defined() -> list[Defined]:
    """Return every metric that the API or a worker exports: a metric is defined where its module is imported."""
    assert SURFACES
    assert jobs.worker.work is not None
    for module in pkgutil.walk_packages(core.__path__, "core."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return metrics.DEFINED


def exported() -> dict[str, set[str]]:
    """Return every series name that Prometheus knows, with its labels."""
    found: dict[str, set[str]] = dict(OF_PROMETHEUS)
    for one in defined():
        labels = set(one.labels) | EVERYWHERE
        if one.kind == "histogram":
            found |= {f"{one.name}_{part}": labels for part in ("count", "sum")}
            found[f"{one.name}_bucket"] = labels | {"le"}
        else:
            found[one.name] = labels
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = parse("", rule["expr"]).groupings
    return found


def test_rules_and_panels_ask_for_what_is_exported() -> None:
    known = exported()
    missing = []
    for asked in all_asked():
        assert asked.metrics or asked.where == "Watchdog", f"{asked.where}: no metric was found in it"
        for name, labels in asked.metrics.items():
            if name not in known:
                missing.append(f"{asked.where}: {name}")
            elif labels - known[name]:
                missing.append(f"{asked.where}: {name} has no {labels - known[name]}")
        among = set().union(*(known.get(name, set()) for name in asked.metrics))
        if asked.groupings - among:
            missing.append(f"{asked.where}: no {asked.groupings - among}")
    assert missing == []


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        (
            'sum by (a) (rate(x_total{b="c", d!~"e|f"}[5m])) > 3 and on (a) y',
            {"x_total": {"b", "d"}, "y": set()},
        ),
        ("time() - max(z:w) > clamp_min(1.5 * v, 300) or vector(0)", {"z:w": set(), "v": set()}),
    ],
)
def test_names_are_found_in_an_expression(expression: str, found: dict[str, set[str]]) -> None:
    assert parse("", expression).metrics == found


async def test_contract_names_and_labels_stand_and_begin_at_zero(api: Any, settings: Settings) -> None:
    known = {one.name: one for one in defined()}
    assert {
        name: labels
        for name, labels in CONTRACTS.items()
        if name not in known or not labels <= set(known[name].labels)
    } == {}
    text = await (await api.get("/metrics")).text()
    begun = set(re.findall(r"^(\w+?)(?:_bucket|_count|_sum)?(?:\{| )", text, re.MULTILINE))
    of_this_process = {one.name for one in defined() if one.kind == "counter"} - OPEN
    assert of_this_process - begun == set()
    for series in (
        'http_requests_total{endpoint="/v1/transfers",method="POST",path="/v1/transfers",status="500",status_code="500"}',
        f'payments_refunds_cents_total{{currency="{settings.default_currency}"}}',
        'webhook_signature_validations_total{provider="paypal",result="invalid",valid="false"}',
        'dlq_messages_total{action="discarded"}',
        'ledger_transfers_total{outcome="insufficient_funds"}',
        'claim_seconds_count{work="inbox"}',
    ):
        assert f"{series} " in text


def test_each_alert_says_what_to_do() -> None:
    runbook = (ROOT / "docs" / "RUNBOOK.md").read_text()
    pages = dict(re.findall(r"^### (\w+)\n(.*?)(?=^###? |\Z)", runbook, re.MULTILINE | re.DOTALL))
    for name, alert in alerts().items():
        told = alert["annotations"]
        assert alert["labels"]["severity"] in SEVERITIES, name
        assert told["summary"], name
        assert told["description"], name
        assert told["runbook_url"] == f"docs/RUNBOOK.md#{name.lower()}"
        assert name in pages, f"{name} has no page in the runbook"
        for part in ("**Means**", "**Look**", "**Act**"):
            assert part in pages[name], f"{name}: {part}"
    assert pages.keys() - alerts().keys() == set()


def test_each_alert_has_its_unit_test() -> None:
    tested = "".join(path.read_text() for path in (PROMETHEUS / "tests").glob("*.yml"))
    assert {name for name in alerts() if name != "Watchdog" and f'alertname="{name}"' not in tested} == set()


def test_inhibitions_name_alerts_that_exist() -> None:
    rules_of = yaml.safe_load((ROOT / "ops" / "alertmanager" / "alertmanager.yml").read_text())[
        "inhibit_rules"
    ]
    for rule in rules_of:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            words = re.search(r'alertname =~? "(.*)"', matcher)
            assert words, matcher
            for word in words[1].split("|"):
                assert any(re.fullmatch(word, name) for name in alerts()), word


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_files_of_dashboards_are_those_of_the_program(board: Any) -> None:
    assert (DASHBOARDS / f"{board.name}.json").read_text() == text_of(board), "python -m ops.grafana.boards"


def test_dashboards_have_the_shape_that_grafana_reads() -> None:
    found = boards()
    assert set(found) == {"overview", "ledger", "webhooks", "payments", "workers"}
    assert len({board["uid"] for board in found.values()}) == len(found)
    for name, board in found.items():
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers), name
        assert board["schemaVersion"] >= 36
        (variable,) = board["templating"]["list"]
        assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert at["x"] + at["w"] <= COLUMNS
            assert not cells & taken, f"{name}: {panel['title']} lies on another panel"
            taken |= cells
            if panel["type"] != "row":
                assert panel["targets"]
                assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
                assert all(target["expr"] and target["refId"] for target in panel["targets"])
        text = (DASHBOARDS / f"{name}.json").read_text()
        assert name == "workers" or "0.99" in text


def test_every_metric_is_told_in_the_documentation() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    }
    assert rows == {
        one.name: (one.kind, set(one.labels)) for one in metrics.DEFINED if "test" not in one.name
    }
