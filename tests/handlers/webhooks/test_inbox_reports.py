"""What the administrator sees of what came in: the summary, the newest events, the counters, traces."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import asyncpg
import pytest
import stripe
from aiohttp import web
from aiohttp.test_utils import TestClient

from core import ids
from core.inbox import reports
from core.service import Service
from core.settings import Settings

ApiClient = TestClient[web.Request, web.Application]
SECRET, TOKEN = "whsec_of_these_tests", "an-admin-token-of-these-tests"
ADMIN = {"X-Admin-Token": TOKEN}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"stripe_signing_secrets": (SECRET,), "admin_token": (TOKEN,)})


async def send(api: ApiClient, event_id: str, event_type: str = "customer.created", **changes: Any) -> None:
    event = {
        "id": event_id,
        "type": event_type,
        "created": 1_700_000_000,
        "data": {"object": {"id": "cus_1"}},
    }
    body = json.dumps(event | changes)
    signature = stripe.WebhookSignature.generate_signature_header(body, SECRET)
    answer = await api.post("/webhooks/stripe", data=body, headers={"Stripe-Signature": signature})
    assert answer.status == 200


async def get(api: ApiClient, path: str, status: int = 200, **headers: str) -> Any:
    answer = await api.get(path, headers=ADMIN | headers)
    body = await answer.json(content_type=None)
    assert answer.status == status, body
    return body


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


async def kept(service: Service) -> int:
    count: int = await service.database.connections.pool.fetchval("SELECT count(*) FROM reconciliation_log")
    return count


async def test_the_summary_counts_by_provider_and_type(api: ApiClient, service: Service) -> None:
    for number in range(3):
        await send(api, f"evt_{number}")
    await send(api, "evt_other", "price.created")
    summary = await get(api, "/reconciliation/summary?hours_back=2")
    assert set(summary) == {
        "period_start", "period_end", "total_events", "events_by_provider", "events_by_type", "anomalies",
        "generated_at",
    }  # fmt: skip
    assert summary["total_events"] == 4
    assert summary["events_by_provider"] == {"stripe": 4}
    assert summary["events_by_type"] == {"customer.created": 3, "price.created": 1}
    assert summary["anomalies"] == []
    assert moment(summary["period_end"]) - moment(summary["period_start"]) == timedelta(hours=2)
    moment(summary["generated_at"])
    assert await kept(service) == 0


async def test_a_summary_is_kept_when_asked_for(api: ApiClient, service: Service) -> None:
    summary = await get(api, "/reconciliation/summary?record=true")
    row = await service.database.connections.pool.fetchrow("SELECT * FROM reconciliation_log")
    assert row is not None
    assert row["status"] == "completed"
    assert json.loads(row["details"]) == summary


async def test_what_is_older_does_not_count(service: Service, settings: Settings) -> None:
    owner = await asyncpg.connect(str(settings.database_url))
    try:
        for age in (0, 30, 90, 10_000):
            old = ids.first_uuid_at(datetime.now(UTC) - timedelta(minutes=age))
            await owner.execute(
                "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, received_at)"
                " VALUES ($1, 'stripe', $2, 'a', '{}', '', now() - make_interval(mins => $3))",
                old,
                f"evt_{age}",
                age,
            )
    finally:
        await owner.close()
    assert (await reports.summarize(service.database, hours_back=1)).total_events == 2
    assert (await reports.summarize(service.database, hours_back=2)).total_events == 3
    assert (await reports.summarize(service.database, hours_back=168)).total_events == 4


async def test_anomalies(api: ApiClient, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "HIGH_FREQUENCY", 2)
    for number in range(3):
        await send(api, f"evt_{number}")
    pool = service.database.connections.pool
    await pool.execute(
        "UPDATE inbox_events SET state = 'dead', outcome = 'test', finished_at = now() WHERE event_id = 'evt_0'"
    )
    await pool.execute("UPDATE inbox_events SET due_at = now() - interval '1 h' WHERE event_id = 'evt_1'")
    anomalies = (await get(api, "/reconciliation/summary"))["anomalies"]
    assert [(found["type"], found["count"]) for found in anomalies] == [
        ("high_frequency_event", 3),
        ("dead_letters", 1),
        ("late_events", 1),
    ]
    assert anomalies[0]["event_type"] == "customer.created"
    assert all(found["description"] for found in anomalies)
    shown = await (await api.get("/metrics")).text()
    assert 'reconciliation_anomalies_detected_total{anomaly_type="dead_letters"}' in shown
    assert 'reconciliation_events_processed_total{provider="stripe"}' in shown
    assert "reconciliation_last_run_timestamp 1" in shown
    assert 'job_runs_total{job_name="reconciliation",status="success"}' in shown


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *(
            (f"/reconciliation/summary?hours_back={value}", "hours_back")
            for value in ("0", "169", "x", "", "1.5", "１")
        ),
        *((f"/admin/events?limit={value}", "limit") for value in ("0", "101", "-1", "9" * 30)),
    ],
)
async def test_a_query_outside_its_bounds_is_422(api: ApiClient, path: str, name: str) -> None:
    body = await get(api, path, 422)
    assert isinstance(body["detail"], str)
    assert body["errors"][0]["loc"] == ["query", name]


@pytest.mark.parametrize("hours", [1, 168])
async def test_the_bounds_themselves_are_good(api: ApiClient, hours: int) -> None:
    await get(api, f"/reconciliation/summary?hours_back={hours}&unknown=ignored")


async def test_the_newest_events(api: ApiClient) -> None:
    for number in range(5):
        await send(api, f"evt_{number}")
    events = await get(api, "/admin/events?limit=3")
    assert [event["event_id"] for event in events] == ["evt_4", "evt_3", "evt_2"]
    assert all(isinstance(event["id"], int) and event["id"] < 2**53 for event in events)
    assert [event["id"] for event in events] == sorted((event["id"] for event in events), reverse=True)
    assert datetime.fromisoformat(events[0]["received_at"]).tzinfo is None
    assert "payload" not in events[0]
    assert len(await get(api, "/admin/events?provider=stripe")) == 5
    assert len(await get(api, "/admin/events?provider=")) == 5
    for nobody in ("unknown", "a%00b", "%ed%a0%80"):
        assert await get(api, f"/admin/events?provider={nobody}") == []


async def test_the_counters(api: ApiClient) -> None:
    before = (await get(api, "/metrics/json"))["counters"]
    assert set(before) == {
        "webhooks_received", "webhooks_processed", "webhooks_duplicate", "webhooks_invalid_signature",
        "webhooks_failed", "dlq_messages_added", "dlq_messages_retried",
    }  # fmt: skip
    await send(api, "evt_1")
    await send(api, "evt_1")
    await api.post("/webhooks/stripe", data=b"{}")
    page = await get(api, "/metrics/json")
    moment(page["timestamp"])
    assert {name: page["counters"][name] - before[name] for name in before} == {
        "webhooks_received": 3,
        "webhooks_processed": 1,
        "webhooks_duplicate": 1,
        "webhooks_invalid_signature": 1,
        "webhooks_failed": 0,
        "dlq_messages_added": 0,
        "dlq_messages_retried": 0,
    }


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({}, None),
        ({"traceparent": PARENT}, TRACE),
        ({"traceparent": PARENT, "X-Trace-Id": "mine"}, "mine"),
        ({"X-Trace-Id": "mine"}, "mine"),
        ({"traceparent": PARENT, "X-Trace-Id": "with blank"}, TRACE),
        ({"X-Trace-Id": "x" * 129}, None),
    ],
)
async def test_the_trace_id_is_told(api: ApiClient, sent: dict[str, str], told: str | None) -> None:
    answer = await api.get("/health", headers=sent)
    assert answer.headers.get("X-Trace-Id") == told
    assert answer.headers["X-Request-ID"]


@pytest.mark.parametrize("parent", ["nodash", "-", "00-x-y-z", "\u00e9", "0" * 600])
async def test_a_broken_traceparent_begins_a_new_trace(api: ApiClient, parent: str) -> None:
    answer = await api.get("/health", headers={"traceparent": parent})
    assert answer.status == 200
    assert answer.headers["X-Trace-Id"] == answer.headers["traceparent"].split("-")[1]


async def test_even_a_refused_body_has_its_request_id(api: ApiClient) -> None:
    answer = await api.post("/webhooks/stripe", data=BytesIO(b"x" * 2_000_000))
    assert answer.status == 413
    assert answer.headers["X-Request-ID"]


async def test_an_origin_that_is_not_allowed_reads_nothing(api: ApiClient) -> None:
    answer = await api.get("/admin/events", headers=ADMIN | {"Origin": "https://elsewhere.example"})
    assert answer.headers.get("Access-Control-Allow-Credentials") is None


async def test_without_the_database_it_is_503(
    api: ApiClient, servers: Any, eventually: Callable[..., Awaitable[Any]]
) -> None:
    servers.postgres.kill()
    # A session that is at work goes on to the end of its statement.
    body = await eventually(lambda: get(api, "/reconciliation/summary", 503))
    assert body["error"]["code"] == "database_unavailable"
