"""A short run of the chaos of payments, and what its audit finds."""

from pathlib import Path
from typing import Any

import pytest

from loadtests.chaos.payments.audit import Evidence, Stored, judge
from loadtests.chaos.payments.buyers import Plan
from loadtests.chaos.payments.run import run_payments, steps
from loadtests.chaos.payments.stage import FIRST, KINDS
from loadtests.chaos.payments.till import SHOP
from tests.chaos.conftest import POSTGRES_OPTIONS
from tests.chaos.test_chaos import parent  # noqa: F401 - a fixture

pytestmark = pytest.mark.drill


@pytest.mark.parametrize("told", [True, False])
async def test_every_payment_ends_as_at_the_provider(parent: Path, *, told: bool) -> None:  # noqa: F811
    """With events that are doubled, dropped and shuffled; and with none at all, where looks alone find everything."""
    said: list[str] = []
    plan = Plan(seed=7, payments=40, kills=len(FIRST), told=told)
    report = await run_payments(plan, parent=parent, say=said.append, postgres_options=POSTGRES_OPTIONS)
    assert report.findings == [], said
    assert sum(report.states.values()) == plan.payments
    assert report.states["paid"] == report.charged > plan.payments // 2
    assert set(report.faults) == set(FIRST)


def test_a_full_run_makes_every_fault() -> None:
    for seed in range(5):
        script = steps(Plan(seed=seed))
        assert {fault.name for fault in script} == KINDS.keys()
        assert {fault.name for fault in script[: len(FIRST)]} == set(FIRST)
        assert sum(KINDS[fault.name].kills for fault in script) == Plan().kills


def test_each_broken_promise_is_found() -> None:
    def order(reference: str, standing: str = "paid", amount: int = 100) -> dict[str, object]:
        return {"reference": reference, "standing": standing, "amount": amount, "fee": 2}

    clearing = "provider:simulator:clearing:EUR"
    good = Evidence(
        [Stored("a", "paid", 100), Stored("b", "pending", 0), Stored("c", "canceled", 0)],
        [order("a"), order("b", "open")],
        {SHOP: 98, clearing: -98},
        answered=["a", "b", "c"],
        asked=3,
    )
    assert judge(good) == []
    cases: dict[str, dict[str, Any]] = {
        "not_answered": {"asked": 4},
        "lost": {"answered": ["a", "b", "c", "d"]},
        "charged_twice": {"listed": [order("a", amount=50), order("a", amount=50), order("b", "open")]},
        "charged_and_closed": {"stored": [*good.stored[1:], Stored("a", "failed", 0)]},
        "not_known": {"stored": [*good.stored[:2], Stored("c", "unknown", 0)]},
        "untrue": {"listed": [order("a"), order("b", "failed")]},
        "unasked": {"listed": [*good.listed, order("z", "open")]},
        "wrong_amount": {"stored": [*good.stored[1:], Stored("a", "paid", 99)]},
        "wrong_balance": {"balances": {SHOP: 98, clearing: -98, "system:payments_suspense:EUR": 1}},
        "event_left": {"events_left": ["evt_1: dead"]},
    }
    for check, changes in cases.items():
        evidence = Evidence(**(vars(good) | changes))
        assert check in [finding.check for finding in judge(evidence)], check
