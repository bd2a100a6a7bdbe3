"""Plans made while the tables are empty, and kept until statistics are gathered, read no table as a whole."""

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from importlib import resources
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from core import ids
from core.database import queries
from core.partitions.keeping import make_ahead
from core.service import Service
from tests.core.partitions.aging import age, days_ago, id_at
from tests.queries import OF_SOURCES, QUERIES

pytestmark = pytest.mark.fresh

# Tables that grow with what a service does, and not with how many merchants, endpoints and settings it has.
LARGE = {
    "account_events", "account_profiles", "accounts", "audit_events", "autopay_failures", "autopay_notices",
    "backdated_entries", "batches", "callbacks", "entries", "event_traces", "feed", "hold_events", "holds",
    "inbox_actions", "inbox_bodies", "inbox_events", "inbox_failures", "internal_signatures", "kaspi_log", "keys",
    "mandates",
    "merchant_api_signatures", "orchestration_payments", "order_payments", "order_requests", "outbox_events",
    "payables", "payment_attempts", "payment_names", "payment_refunds", "payment_timeline", "payments", "refusals",
    "reversed_amounts", "sessions", "settlements", "transfers", "users", "webhook_attempts", "webhook_deliveries",
    "window_usage",
}  # fmt: skip
# Tables of which a whole read is a read of little.
SMALL = {
    "account_windows", "agents", "api_keys", "backups", "blocked_senders", "closed_dates", "epochs", "feed_gaps",
    "feed_head", "imports", "inbox_claims", "inbox_sources", "internal_callers", "kaspi_configs", "merchant_api_keys",
    "order_aliases", "order_keys", "order_merchants", "order_plans", "order_subscriptions", "outbox_positions",
    "partitions", "passkeys", "platform_settings", "principals", "provider_reports", "reconciliation_log", "replays",
    "schema_migrations", "settlement_days", "subscriptions", "webhook_endpoints", "workers",
}  # fmt: skip
# The statements of administration that read much, and whose plans are none of the serving role's.
READS_MUCH = {
    "core.ledger.verify": "verify reads everything, range by range",
    "core.payments.reports.matching": "a comparison reads a report and its period, into tables of its own",
}
# The statements that may read a whole table, or a whole index, and why that is little or meant.
READS_ALL = {
    "balances": "a backup and its restore compare the sums of all accounts",
    "is_any_due": "the indexes have what is due or under way",
    "form_batches": "the index has the deliveries that are under way",
    "voucher_summary": "the sum of all; its plan is made for the creator that is given, who has an index",
}
# The statements for lists, whose plan depends on what is asked for.
CHOSEN = {"list_payments", "orchestration_listed"}
HOT = (
    "store_inbox_events",
    "account_owners",
    "write_events",
    "create_deliveries",
    "read_events",
    "endpoints_due_lately",
    "claim_deliveries",
    "record_deliveries",
    "get_account",
    "find_item",
    "get_transfers",
    "stored_outcomes",
    "stored_entries",
    "list_transfers_of_account",
    "get_holds",
    "users_by_id",
    "users_by_phone",
    "find_users",
    "payables_wanted",
    "payables_to_pay",
    "payers_and_payables",
    "end_payable",
    "wallet_entries",
    "wallet_balance",
    "merchant_by_key",
    "order_to_make",
    "order_by_number",
    "order_by_payment",
    "list_orders",
    "take_token",
    "hold_token",
    "store_order",
    "payment_by_id",
    "payment_by_key",
    "attempts_by_names",
    "payment_timeline",
    "change_attempt",
    "change_payment",
    "claim_attempt",
    "claim_attempts",
    "payments_to_expire",
    "payments_to_expire_by_age",
    "give_up_others",
    "refund_by_key",
    "refunds_under_way",
    "refunds_done",
    "refunds_of_attempt",
    "claim_refunds",
    "lock_callbacks",
    "supersede_callbacks",
    "callback_states",
    "end_superseded",
    "find_internal_caller",
    "orchestration_by_key",
    "orchestration_by_id",
    "orchestration_by_payment",
    "orchestration_by_hash",
    "orchestration_listed",
)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


async def plan_of(service: Service, name: str) -> list[dict[str, Any]]:
    query = QUERIES[name]
    nulls = ", ".join(["NULL"] * max(map(int, re.findall(r"\$(\d+)", query.text))))
    async with service.database.connections.pool.acquire() as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE kept AS {query.text}")
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE kept({nulls})")
    return list(nodes(json.loads(plan)[0]["Plan"]))


def table_of(node: dict[str, Any]) -> str:
    """Return the table that a node reads; a partition counts as the whole."""
    return re.sub(r"_(first|rest|\d{8})$", "", node.get("Relation Name", ""))


def reads_whole(plan: dict[str, Any], *, bounded: bool = False) -> Iterator[str]:
    """Yield the scans below a node that read a whole large table or index; below a LIMIT an index is in its order."""
    bounded = bounded or plan["Node Type"] == "Limit"
    kind, table = plan["Node Type"], table_of(plan)
    if table in LARGE:
        if kind == "Seq Scan":
            yield f"all of {table}"
        elif kind in {"Index Scan", "Index Only Scan"} and "Index Cond" not in plan and not bounded:
            yield f"all of {plan['Index Name']}"
    for below in plan.get("Plans", []):
        yield from reads_whole(below, bounded=bounded)


def joins_whole(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the hash and merge joins below a node of which one side is a large table and not a few rows of it."""
    for node in nodes(plan):
        if node["Node Type"] in {"Hash Join", "Merge Join"}:
            for scan in nodes(node):
                if table_of(scan) in LARGE and not (
                    scan["Node Type"] == "Bitmap Heap Scan" or "Index Cond" in scan
                ):
                    yield f"{node['Node Type']} over {table_of(scan)}"


async def plans_of(owner: Any, names: Iterable[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the generic plan of each statement, made as the serving role's are: without reading tables as a whole."""
    await owner.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
    for name in names:
        text = QUERIES[name].text
        numbers = [*map(int, re.findall(r"\$(\d+)", text))]
        given = f"({', '.join(['NULL'] * max(numbers))})" if numbers else ""
        await owner.execute(f"PREPARE kept AS {text}")
        plan = await owner.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE kept{given}")
        await owner.execute("DEALLOCATE kept")
        if "Plan" in (found := json.loads(plan)[0]):  # a utility statement has none
            yield name, found["Plan"]


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url, statement_cache_size=0)
    yield connection
    await connection.close()


async def test_no_statement_reads_a_large_table_as_a_whole(owner: Any) -> None:
    """Every statement of the product by its name, but for those of administration: an index serves what it asks."""
    known = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace"
    )
    assert {row["relname"] for row in known} == LARGE | SMALL, "say of each new table whether it grows"
    much = {query.name for module in READS_MUCH for query in queries(module)}
    planned = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b")
    asked = [
        name
        for name, query in QUERIES.items()
        if name not in OF_SOURCES | much and planned.match(re.sub(r"--[^\n]*\n", "", query.text))
    ]
    assert len(asked) > 400
    faults = {name: found async for name, plan in plans_of(owner, asked) if (found := [*reads_whole(plan)])}

    assert {name: found for name, found in faults.items() if name not in READS_ALL} == {}
    assert faults.keys() == READS_ALL.keys(), "what reads little now needs no reason"
    joins = {name: found async for name, plan in plans_of(owner, HOT) if (found := [*joins_whole(plan)])}
    assert joins == {}


async def test_a_statement_for_one_key_keeps_its_plan(owner: Any) -> None:
    """PostgreSQL plans a call anew for ever where one key looks cheaper than the number that it expects (ADR 9)."""
    samples = {"uuid": uuid4(), "text": "x", "bool": True, "bytea": b"x", "timestamptz": datetime.now(UTC)}
    planned_anew, kept = set(), 0
    much = {query.name for module in READS_MUCH for query in queries(module)}
    await owner.execute("SET enable_seqscan = off")
    for name, query in QUERIES.items():
        if name in much or not re.search(r"\b(?:any|unnest)\(\s*(?:\(SELECT )?\$", query.text):
            continue
        statement = await owner.prepare(query.text, name=name)
        # Numbers of all kinds are 1.
        values = [
            (kind.kind, samples.get(kind.name.removesuffix("[]"), 1)) for kind in statement.get_parameters()
        ]
        try:
            for _ in range(7):
                async with owner.transaction():
                    await owner.execute("SET LOCAL session_replication_role = replica")
                    await statement.fetch(*[[value] if kind == "array" else value for kind, value in values])
        except asyncpg.PostgresError:
            continue  # such a row cannot be
        generic = await owner.fetchval(
            "SELECT generic_plans FROM pg_prepared_statements WHERE name = $1", name
        )
        kept += generic > 0
        if not generic:
            planned_anew.add(name)
    assert planned_anew == CHOSEN
    assert kept > 40


async def test_a_statement_reads_the_partitions_of_its_time_alone(service: Service, owner: Any) -> None:
    """Forty days of attempts and six months of the audit: the partitions that a statement really opens."""
    for table, days in (("webhook_attempts", 33), ("audit_events", 180)):
        await age(owner, table, days)
    while await make_ahead(service.database, service.settings):
        pass
    endpoint, event = ids.new_uuid(), ids.new_uuid()
    delivery, then = id_at(days_ago(5)), days_ago(5)
    await owner.execute(
        "INSERT INTO webhook_deliveries (id, event_id, endpoint_id, created_at) VALUES ($1, $2, $3, $4)",
        delivery, event, endpoint, then,
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO callbacks (delivery_id, surface, object_id, created_at) VALUES ($1, 'a', 'b', $2)",
        delivery,
        then,
    )
    nothing = ids.span_of(None, None)[::-1]
    for name, arguments, most in (
        ("delivery_attempts", (delivery, 10), 15),  # five days ago to seven ahead, and the rest
        ("callback_attempts", ("a", "b", 10), 15),
        (
            "audit_events",
            (None, None, None, None, id_at(days_ago(60)), id_at(days_ago(80)), 10, None, None),
            2,
        ),
        ("audit_events", (None, None, None, None, *nothing, 10, None, None), 11),
    ):
        for mode in ("force_generic_plan", "force_custom_plan"):
            await owner.execute(f"SET plan_cache_mode = {mode}; SET enable_seqscan = off")
            types = {"audit_events": "text, uuid, text, text, uuid, uuid, bigint, timestamptz, timestamptz"}
            kinds = f"({types[name]})" if name in types else ""
            await owner.execute(f"PREPARE kept{kinds} AS {QUERIES[name].text}")
            given = ", ".join("NULL" if value is None else f"'{value}'" for value in arguments)
            plan = await owner.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE kept({given})")
            await owner.execute("DEALLOCATE kept")
            opened = {
                node["Relation Name"]
                for node in nodes(json.loads(plan)[0]["Plan"])
                if table_of(node) in {"webhook_attempts", "audit_events"} and node["Actual Loops"]
            }
            assert len(opened) <= most, (name, mode, sorted(opened))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("prune_sessions", "expires_at"),
        ("forget_signatures", "expires_at"),
        ("subscriptions_due", "try_at"),
        ("expire_payables", "expires_at"),
        ("claim_attempts", "next_look_at"),
        ("claim_refunds", "next_look_at"),
    ],
)
async def test_rows_whose_time_has_come_are_found_by_an_index(
    service: Service, name: str, column: str
) -> None:
    """No index serves a comparison with `clock_timestamp()`, which moves while it is read: all rows would be read."""
    conditions = [str(node.get("Index Cond")) for node in await plan_of(service, name)]
    assert any(re.search(rf"\b{column} <=? \(?now\(\)", each) for each in conditions), conditions


async def test_what_came_due_lately_is_found_by_the_index_of_its_own(service: Service) -> None:
    used = [node.get("Index Name") for node in await plan_of(service, "endpoints_due_lately")]
    assert "webhook_deliveries_lately_due" in used
    assert "webhook_deliveries_due" not in used


def test_no_condition_of_a_posting_is_run_as_a_whole_statement() -> None:
    """Plpgsql evaluates a plain condition in 0.1 us, and starts the executor, 5 us, for one that holds a query."""
    text = resources.files("sql").joinpath("functions", "ledger_post.sql").read_text()
    body = re.sub(r"--[^\n]*", "", text[text.index("\nBEGIN\n") :])
    conditions = re.findall(r"\b(?:IF|ELSIF|WHILE|WHEN)\b([^;]*?)\b(?:THEN|LOOP)\b|:=([^;]*);", body)

    assert len(conditions) > 100
    assert [found for found in conditions if re.search(r"\bSELECT\b", "".join(found))] == []
