"""The orders' databases carried over: amounts exact to eight places, numbers and keys kept."""

import hashlib
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from core.database import Database
from core.importing import orders
from core.importing.running import Count
from core.payments.orders.merchants import seed_merchant
from core.settings import Settings
from tests.core.importing.conftest import Fill, carry_over, counts, values
from tests.core.importing.olddb import ORDERS, ORDERS_LOGS

AT = datetime(2025, 6, 1, 12, 30, 15)  # noqa: DTZ001 - the old services' times have no zone
BOTH = {"created_at": AT, "updated_at": AT}
KEY = hashlib.sha256(b"a merchant's key").hexdigest()


def order(number: int, status: int, amount: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "price": Decimal("1.00000001"), "amount": Decimal(amount), "merchant_id": 5, "provider_id": 1,
        "order_id": 100 + number, "status": status, **BOTH, **more,
    }  # fmt: skip


def old_orders() -> dict[str, list[dict[str, Any]]]:
    merchant = {"email_verified_at": None, "remember_token": None, "password": "x", **BOTH}
    return {
        "users": [
            {"id": 1, "name": "Admin", "email": "a@x.test", "status": 1, "role": 1, **merchant},
            {"id": 5, "name": "Shop", "email": "s@x.test", "status": 1, "role": 2, **merchant},
        ],
        "subscriptions": [{"id": 1, "name": "Basic", "price": Decimal("9.99"), "tokens": 3}],
        "merchant_api_keys": [
            {"id": 1, "hash": KEY, "merchant_id": 5, "status": 1, **BOTH},
            {"id": 2, "hash": "short", "merchant_id": 5, "status": 1, **BOTH},
        ],
        "providers": [{"id": 1, "name": "Stripe", "alias": "stripe", "url": None, **BOTH}],
        "payments": [
            order(11, 1, "10.00000000"),
            order(12, 2, "0.00000001"),
            order(13, 3, "99.99999999"),
            order(14, 1, "0"),
        ],
        "user_subscriptions": [
            {"id": 1, "user_id": 5, "subscription_id": 1, "used_tokens": 3, "status": 2, **BOTH}
        ],
        "api_requests": [
            {
                "id": number, "event_id": f"event-{number}", "payment_id": number, "subscription_id": 1, "user_id": 5,
                "amount": Decimal(1), "source": "payments:create", **BOTH,
            }
            for number in (11, 12, 13, 14)
        ],
    }  # fmt: skip


async def test_orders(fill: Fill, target: Database, settings: Settings) -> None:
    url = await fill(ORDERS, old_orders())
    result = await carry_over(target, settings, "orders", orders.STEPS, url)
    expected = {
        "plans": (1, 0, 0), "merchants": (1, 0, 0), "keys": (1, 0, 1), "subscriptions": (1, 0, 0), "aliases": (1, 0, 0),
        "orders": (3, 0, 1),
    }  # fmt: skip
    assert counts(result) == expected, result.problems
    again = await carry_over(target, settings, "orders", orders.STEPS, url)
    assert counts(again) == {step: (0, new, refused) for step, (new, _, refused) in expected.items()}

    assert await values(
        target,
        "SELECT o.id, o.order_id, o.amount, o.price, o.holds_token, p.state, p.paid, p.currency, p.scale"
        " FROM order_payments AS o JOIN payments AS p ON p.id = o.payment_id ORDER BY o.id",
    ) == [
        (11, 111, 1_000_000_000, 100_000_001, True, "pending", 0, "XXX", 8),
        (12, 112, 1, 100_000_001, True, "paid", 1, "XXX", 8),
        (13, 113, 9_999_999_999, 100_000_001, False, "failed", 0, "XXX", 8),
    ]
    assert await values(target, "SELECT encode(hash, 'hex'), merchant_id, active FROM order_keys") == [
        (KEY, 5, True)
    ]
    assert await values(target, "SELECT used_tokens, active FROM order_subscriptions") == [(3, True)]
    assert await values(target, "SELECT price_cents, tokens FROM order_plans") == [(999, 3)]
    assert await values(target, "SELECT event_id FROM order_requests ORDER BY event_id") == [
        ("event-11",), ("event-12",), ("event-13",)
    ]  # fmt: skip
    assert await values(target, "SELECT nextval('order_payments_id_seq') > 13") == [(True,)]

    other = old_orders()
    other["payments"][0]["order_id"] = 7
    other["merchant_api_keys"] = []
    result = await carry_over(target, settings, "orders", orders.STEPS, await fill(ORDERS, other))
    assert [one.row for one in result.problems if "another order_id" in one.text] == ["id=11"]

    logs = await fill(
        ORDERS_LOGS,
        {
            "payment_logs": [
                {
                    "id": 1, "payment_id": 12, "event_type": 4, "status": 4, "message": None, "payload": None,
                    "retry_count": 2, "next_retry_at": None, "created_at": AT,
                }
            ]
        },
    )  # fmt: skip
    told = await carry_over(target, settings, "orders_logs", orders.LOG_STEPS, logs)
    assert [one.text for one in told.problems] == ["the merchant was never told of payment 12, after 2 tries"]


async def test_a_run_that_was_ended_goes_on_and_names_all_refusals(
    fill: Fill, target: Database, settings: Settings
) -> None:
    url = await fill(ORDERS, old_orders())

    def end(told: Count) -> None:
        if told.step == "orders":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await carry_over(target, settings, "orders", orders.STEPS, url, on_page=end)
    result = await carry_over(target, settings, "orders", orders.STEPS, url)
    assert [step.step for step in result.steps if step.skipped] == [
        "plans",
        "merchants",
        "subscriptions",
        "aliases",
    ]
    assert [(one.step, one.row) for one in result.problems] == [
        ("keys", "merchant_id=5"),
        ("orders", "id=14"),
    ]


async def test_rows_of_others_under_the_same_ids_are_refused_with_all_that_is_theirs(
    fill: Fill, target: Database, settings: Settings
) -> None:
    ours = await seed_merchant(target, None)
    old = old_orders()
    old["users"] = [old["users"][1] | {"id": ours.merchant_id}]
    for key in old["merchant_api_keys"]:
        key["merchant_id"] = ours.merchant_id
    for row in old["payments"]:
        row["merchant_id"] = ours.merchant_id
    old["user_subscriptions"][0]["user_id"] = ours.merchant_id

    result = await carry_over(target, settings, "orders", orders.STEPS, await fill(ORDERS, old))
    assert counts(result) == {
        "plans": (0, 0, 1), "merchants": (0, 0, 1), "keys": (0, 0, 2), "subscriptions": (0, 0, 1), "aliases": (0, 1, 0),
        "orders": (0, 0, 4),
    }, result.problems  # fmt: skip
    assert await values(
        target,
        "SELECT (SELECT count(*) FROM order_keys), (SELECT sum(used_tokens) FROM order_subscriptions),"
        " (SELECT count(*) FROM payments)",
    ) == [(1, 0, 0)]
