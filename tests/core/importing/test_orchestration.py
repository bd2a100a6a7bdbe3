"""The orchestration's database carried over: payments under their numbers, request ids and hashes."""

from datetime import datetime, timedelta
from typing import Any

from core.database import Database
from core.importing import orchestration
from core.payments.payments import find
from core.payments.resolving import list_payments
from core.payments.states import State
from core.settings import Settings
from tests.core.importing.conftest import Fill, carry_over, counts, values
from tests.core.importing.olddb import ORCHESTRATION

AT = datetime(2025, 6, 1, 12, 30, 15)  # noqa: DTZ001 - the old services' times have no zone
BOTH = {"created_at": AT, "updated_at": AT}


async def test_orchestration(fill: Fill, target: Database, settings: Settings) -> None:
    def payment(number: int, status: int, **more: Any) -> dict[str, Any]:
        return {
            "id": number, "request_id": f"r-{number}", "caller_service": "billing", "resource_type": "invoice",
            "resource_id": "1", "customer_ref": None, "amount_cents": 1999, "currency": "EUR", "status": status,
            "payment_method": 1, "payment_type": 1, "provider": 1, "recurring_interval": None,
            "recurring_interval_count": None, "provider_payment_id": f"cs_{number}", "provider_subscription_id": None,
            "checkout_url": "https://pay.test/", "provider_callback_hash": f"hash-{number}",
            "provider_callback_url": "https://us.test/x", "status_callback_url": "https://caller.test/",
            "refunded_cents": 0, "refundable_cents": 1999, "metadata_json": {"a": "b"}, "callback_delivery_status": 0,
            "callback_delivery_attempts": 0, "callback_delivery_next_at": None, "callback_delivery_last_error": None,
            **BOTH, **more,
        }  # fmt: skip

    monthly = {"payment_type": 2, "recurring_interval": "month", "recurring_interval_count": 1}
    url = await fill(
        ORCHESTRATION,
        {
            "payments": [
                payment(21, 2),
                payment(22, 10, provider_subscription_id="sub_1", **monthly),
                payment(23, 2, provider_payment_id=None, callback_delivery_status=1),
                payment(24, 20, created_at=AT - timedelta(days=1), currency="JPY", amount_cents=500),
                payment(25, 99),
                payment(26, 40, currency="ZZZ"),
            ]
        },
    )
    result = await carry_over(target, settings, "orchestration", orchestration.STEPS, url)
    assert counts(result) == {"payments": (4, 0, 2)}, result.problems
    assert [(one.row, one.refused) for one in result.problems] == [
        ("id=23", False),
        ("id=25", True),
        ("id=26", True),
    ]
    again = await carry_over(target, settings, "orchestration", orchestration.STEPS, url)
    assert counts(again) == {"payments": (0, 4, 2)}
    other = await fill(ORCHESTRATION, {"payments": [payment(21, 2, request_id="r-other")]})
    [told] = (await carry_over(target, settings, "orchestration", orchestration.STEPS, other)).problems
    assert (told.refused, "request_id" in told.text) == (True, True)

    shown = await values(
        target,
        "SELECT id, state, amount, currency, paid, provider_id, subscription_id, owner, callback_hash"
        " FROM orchestration_shown ORDER BY id",
    )
    assert shown == [
        (21, "pending", 1999, "EUR", 0, "cs_21", None, "billing", "hash-21"),
        (22, "paid", 1999, "EUR", 1999, "cs_22", "sub_1", "billing", "hash-22"),
        (23, "unknown", 1999, "EUR", 0, None, None, "billing", "hash-23"),
        (24, "failed", 500, "JPY", 0, "cs_24", None, "billing", "hash-24"),
    ]
    listed = await list_payments(target, states=None, surface=None, until=None, before=None, limit=9)
    assert [one.request_id for one in listed][-1] == "r-24"
    assert await values(target, "SELECT DISTINCT expires_at - created_at FROM payments") == [
        (timedelta(minutes=settings.payments_pending_timeout_minutes),)
    ]
    looked_at = await values(
        target,
        "SELECT o.id FROM payment_attempts AS a JOIN orchestration_payments AS o ON o.payment_id = a.payment_id"
        " WHERE a.next_look_at IS NOT NULL ORDER BY o.id",
    )
    assert looked_at == [(21,), (23,)]
    [(payment_id,)] = await values(target, "SELECT payment_id FROM orchestration_payments WHERE id = 22")
    found = await find(target, payment_id)
    assert found.state is State.PAID
    assert (found.latest.facts.received, found.details.recurrence is not None) == (1999, True)
    assert found.asked(found.latest).amount == 1999
