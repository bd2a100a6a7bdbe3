"""Plans made while the tables are empty, and kept until statistics are gathered, read no table as a whole."""

import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from core.service import Service
from tests.queries import QUERIES

LARGE = {
    "accounts", "audit_events", "callbacks", "entries", "inbox_events", "keys", "orchestration_payments",
    "outbox_events", "payables", "payment_attempts", "payment_names", "payment_refunds", "payment_timeline", "payments",
    "sessions", "transfers", "users", "webhook_attempts", "webhook_deliveries", "window_usage",
}  # fmt: skip
# What runs for every call, event and delivery.
HOT = (
    "store_inbox_events",
    "account_owners",
    "write_events",
    "create_deliveries",
    "read_events",
    "endpoints_due_lately",
    "claim_deliveries",
    "record_deliveries",
    "prune_attempts",
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


@pytest.mark.parametrize("name", HOT)
async def test_a_plan_for_empty_tables_is_one_for_full_ones(service: Service, name: str) -> None:
    for node in await plan_of(service, name):
        scans = [below for below in nodes(node) if below.get("Relation Name") in LARGE]
        assert not (node["Node Type"] == "Seq Scan" and scans), node
        if node["Node Type"] in {"Hash Join", "Merge Join"}:
            # One side of it may be a few rows by their index, as the other is.
            assert all(scan["Node Type"] == "Bitmap Heap Scan" or "Index Cond" in scan for scan in scans), (
                node
            )


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("prune_attempts", "at"),
        ("prune_sessions", "expires_at"),
        ("forget_signatures", "expires_at"),
        ("subscriptions_due", "try_at"),
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
