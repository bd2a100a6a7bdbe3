"""The contract's view of a payment: its statuses, and what can be given back."""

from datetime import UTC, datetime
from typing import Any

import pytest

from core.payments.orchestration.shown import STATUSES, shown
from core.payments.states import CLOSED_STATES, State

MOMENT = datetime(2026, 11, 29, 23, 59, 59, 999_999, UTC)
ROW: dict[str, Any] = {
    "id": 1, "request_id": "r", "caller_service": "c", "resource_type": "t", "resource_id": "i", "customer_ref": None,
    "amount": 100, "currency": "USD", "state": "pending", "method": "payment_link", "payment_type": 1, "provider": 1,
    "recurring_interval": None, "recurring_interval_count": None, "provider_id": None, "subscription_id": None,
    "url": None, "callback_hash": "h", "callback_url": "/h", "status_callback_url": "u", "paid": 0, "refunded": 0,
    "disputed": 0, "metadata": None, "created_at": MOMENT, "updated_at": MOMENT,
}  # fmt: skip


def test_every_state_has_a_status_and_only_closed_ones_are_closed() -> None:
    assert STATUSES.keys() == {*State}
    # Nobody may take a payment for closed without money, or for paid, that is neither.
    assert {one for one, status in STATUSES.items() if status in {20, 30, 40}} == CLOSED_STATES
    assert [one for one, status in STATUSES.items() if status == 10] == [State.PAID]


@pytest.mark.parametrize(
    ("state", "paid", "refunded", "disputed", "refundable"),
    [
        ("created", 0, 0, 0, 100), ("pending", 0, 0, 0, 100), ("unknown", 0, 0, 0, 100), ("paid", 100, 0, 0, 100),
        ("paid", 100, 30, 0, 70), ("paid", 100, 30, 70, 0), ("paid", 100, 100, 100, 0), ("mismatched", 60, 0, 0, 60),
        ("failed", 0, 0, 0, 0), ("canceled", 0, 0, 0, 0), ("expired", 0, 0, 0, 0),
    ],
)  # fmt: skip
def test_what_can_be_given_back(state: str, paid: int, refunded: int, disputed: int, refundable: int) -> None:
    row: Any = ROW | {"state": state, "paid": paid, "refunded": refunded, "disputed": disputed}
    payment = shown(row)
    assert (payment.refunded_cents, payment.refundable_cents) == (refunded, refundable)
    assert (payment.created_at, payment.payment_method) == ("2026-11-29T23:59:59Z", 2)
