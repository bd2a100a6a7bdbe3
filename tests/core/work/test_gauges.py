"""Gauges that are asked of the database: what they tell, how often it is asked, and by which plans."""

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from core import metrics
from core.database import queries
from core.payables.reconcile import remember
from core.service import Service
from core.settings import load_settings
from core.work import gauges
from core.work.gauges import Collector
from jobs.table import JOBS

LARGE = {
    "accounts",
    "audit_events",
    "batches",
    "holds",
    "inbox_events",
    "outbox_events",
    "webhook_deliveries",
}
WAITING = """
INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, due_at) VALUES
    (gen_random_uuid(), 'stripe', 'due', 'x', '{}', '{}', now() - interval '10 minutes'),
    (gen_random_uuid(), 'stripe', 'later', 'x', '{}', '{}', now() + interval '10 minutes');
INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, state, outcome, finished_at)
VALUES (gen_random_uuid(), 'stripe', 'dead', 'x', '{}', '{}', 'dead', 'x', now() - interval '20 minutes');
INSERT INTO outbox_events (id, principal_id, event_type, body, created_at)
VALUES (gen_random_uuid(), 1, 'x', '{}', now() - interval '30 minutes');
INSERT INTO webhook_deliveries (id, event_id, endpoint_id, due_at)
SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() - make_interval(mins => minutes)
FROM unnest(ARRAY[40, 5, -5]) AS minutes;
INSERT INTO holds (no, id, source_id, amount, expires_at, principal_id, kind, leg_accounts, leg_amounts)
SELECT minutes, gen_random_uuid(), 1, 1, now() - make_interval(mins => minutes), 1, 'x', '{}', '{}'
FROM unnest(ARRAY[50, -5]) AS minutes;
"""


def told(name: str, **labels: str) -> float:
    value = metrics.REGISTRY.get_sample_value(name, labels)
    assert value is not None, name
    return value


async def write(service: Service, statement: str) -> None:
    connection = await asyncpg.connect(str(service.settings.database_url))
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_depths_and_ages_are_those_of_what_waits(service: Service) -> None:
    await write(service, WAITING)
    await remember(service.database, 3, 1, "admin")
    metrics.RECONCILE_FINDINGS.labels("balances").set(0)  # as in a process that has not looked itself
    collector = Collector(service.database, 0)
    await collector.collect()
    assert {
        name: told(name)
        for name in (
            "inbox_pending_events", "dlq_messages_pending", "outbox_pending_events", "deliveries_pending",
            "ledger_holds_open", "database_up", "migrations_pending",
        )
    } == {
        "inbox_pending_events": 1, "dlq_messages_pending": 1, "outbox_pending_events": 1, "deliveries_pending": 2,
        "ledger_holds_open": 2, "database_up": 1, "migrations_pending": 0,
    }  # fmt: skip
    ages = (
        "inbox_oldest_seconds", "dlq_oldest_seconds", "outbox_oldest_seconds", "deliveries_oldest_seconds",
        "ledger_holds_overdue_seconds",
    )  # fmt: skip
    assert [int(told(name) // 600) for name in ages] == [1, 2, 3, 4, 5]
    assert told("reconcile_findings", kind="balances") == 3
    assert told("reconcile_findings", kind="transfers") == 1
    assert told("reconcile_last_run_timestamp") > 0


async def test_scrapes_within_the_pace_and_at_once_are_one_question(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    async def note(answers: bool) -> None:  # noqa: FBT001 - what the collector calls
        asked.append(answers)

    collector = Collector(service.database, 300, note)
    await asyncio.gather(*(collector.collect() for _ in range(10)))
    await collector.collect()
    assert asked == [True]

    # A scraper that hangs up leaves the read to the others.
    monkeypatch.setattr(gauges, "MEASURE_SECONDS", 0.05)
    other = Collector(service.database, 0, note)
    gone = asyncio.create_task(other.collect())
    await asyncio.sleep(0)
    gone.cancel()
    await other.collect()
    assert len(asked) == 2


async def test_without_an_answer_nothing_old_is_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "MEASURE_SECONDS", 0.05)
    metrics.INBOX_OLDEST.set(7)
    connection = await asyncpg.connect(str(service.settings.database_url))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE workers IN ACCESS EXCLUSIVE MODE")
            await Collector(service.database, 0).collect()
    finally:
        await connection.close()
    assert told("database_up") == 0
    assert math.isnan(told("inbox_oldest_seconds"))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


async def test_the_question_reads_indexes_alone(service: Service) -> None:
    async with service.database.connections.pool.acquire() as connection:
        text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {queries('core.work.gauges').pulse.text}")
    plan = list(nodes(json.loads(text)[0]["Plan"]))
    assert [
        node["Relation Name"]
        for node in plan
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
    ] == []
    # Behind the head of the feed the numbers are few; the index by time holds all of history before them.
    assert [node["Index Name"] for node in plan if node.get("Relation Name") == "batches"] == ["batches_pkey"]


def test_each_job_has_the_interval_of_its_clock() -> None:
    settings = load_settings(
        env_file=None, env="test", database_url="postgresql://x/y", redis_url="redis://x"
    )
    seconds = {name: job.interval_seconds(settings) for name, job in JOBS.items()}
    assert seconds["seal"] == settings.seal_interval_ms / 1000
    assert (seconds["sweep"], seconds["expire"], seconds["charge"]) == (10, 30, 60)
    assert (seconds["backfill"], seconds["reconcile"], seconds["settle"]) == (3_600, 86_400, 86_400)
    assert all(seconds.values())
