from pathlib import Path

import msgspec
import pytest

from loadtests.budgets import Budget, Budgets, Seen, Total, breached, judge, load_budgets

BUDGETS = Budgets({"pay": Budget(50, 0.01), "webhook": Budget(20)}, Total(0.005))
KEPT = {"pay": Seen(1000, 1, 49), "webhook": Seen(1000, 0, 20)}


def test_kept_budgets_breach_nothing() -> None:
    lines = judge(BUDGETS, KEPT)
    assert [line.name for line in lines] == ["pay", "webhook", "total"]
    assert not breached(lines)


@pytest.mark.parametrize(
    ("name", "seen", "complaint"),
    [
        ("webhook", Seen(1000, 0, 21), "p95 21 ms is over 20 ms"),
        ("webhook", Seen(1000, 1, 20), "1 of 1000 failed"),
        ("webhook", Seen(0, 0, None), "was never requested"),
        ("pay", Seen(1000, 11, 49), "11 of 1000 failed"),
    ],
)
def test_a_breach_is_told(name: str, seen: Seen, complaint: str) -> None:
    lines = judge(BUDGETS, {**KEPT, name: seen})
    assert breached(lines)
    assert complaint in next(line.breach for line in lines if line.name == name)


def test_requests_without_a_budget_count_in_the_total() -> None:
    (*_, total) = judge(BUDGETS, {**KEPT, "other": Seen(10, 10, 1)})
    assert "11 of 2010 failed" in total.breach


def test_the_committed_budgets_can_be_read() -> None:
    budgets = load_budgets()
    assert {"POST /v1/accounts", "POST /v1/transfers", "POST /webhooks/stripe"} <= budgets.requests.keys()
    assert budgets.total.failure_ratio == 0


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text('[requests."pay"]\np95_milliseconds = 5\n')
    with pytest.raises(msgspec.ValidationError, match="p95"):
        load_budgets(path)
