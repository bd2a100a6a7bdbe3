"""The file of the budgets: what is read from it, what is refused, and how it is held against what a run saw."""

from pathlib import Path

import pytest

from loadtests.budgets import (
    Budget,
    BudgetsError,
    Load,
    Seen,
    breached,
    budgets_for,
    cells,
    judge,
    largest_load,
    load_budgets,
)
from loadtests.suites import SUITES
from ops.commands.develop import load as command

LOAD = Load(10, {"pay": Budget(50, 0.01), "webhook": Budget(20)}, 0.005)
KEPT = {"pay": Seen(1000, 1, 49), "webhook": Seen(1000, 0, 20)}
WEBHOOKS = """
[[webhooks]]
users = {users}
[webhooks.requests]
"POST /webhooks/stripe" = {{ p95_ms = 20 }}
"POST /webhooks/stripe (again)" = {{ p95_ms = 30, failure_ratio = 0.5 }}
"""


def test_kept_budgets_breach_nothing() -> None:
    lines = judge(LOAD, KEPT)
    assert [line.name for line in lines] == ["pay", "webhook", "total"]
    assert not breached(lines)
    assert cells(lines[0]) == ("pay", "1,000", "49", "50", "0.10%", "1.00%", "kept")


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
    lines = judge(LOAD, {**KEPT, name: seen})
    assert breached(lines)
    assert complaint in next(line.breach for line in lines if line.name == name)


def test_requests_without_a_budget_count_in_the_total() -> None:
    (*_, total) = judge(LOAD, {**KEPT, "other": Seen(10, 10, 1)})
    assert "11 of 2010 failed" in total.breach


def test_without_times_slowness_is_no_breach_and_silence_is() -> None:
    assert not breached(judge(LOAD, {**KEPT, "webhook": Seen(1, 0, 9000)}, timed=False))
    assert breached(judge(LOAD, {"pay": KEPT["pay"]}, timed=False))
    assert breached(judge(LOAD, {**KEPT, "webhook": Seen(2, 1, 1)}, timed=False))


def test_the_committed_budgets_cover_every_suite_and_allow_no_failure() -> None:
    budgets = load_budgets()
    assert budgets.keys() == SUITES.keys() == set(command.SUITES)
    for loads in budgets.values():
        assert all(load.failure_ratio == 0 for load in loads)
        assert all(budget.failure_ratio == 0 for load in loads for budget in load.requests.values())


def test_a_run_takes_the_smallest_load_that_has_enough_users(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text("".join(WEBHOOKS.format(users=users) for users in (40, 7)))
    budgets = load_budgets(path)
    chosen = [budgets_for(budgets, "webhooks", users).users for users in (1, 7, 8, 40)]
    assert chosen == [7, 7, 40, 40]
    assert largest_load(budgets, "webhooks").users == 40
    with pytest.raises(BudgetsError, match=r"for 41 users \(there are budgets for 7, 40\).*--step"):
        budgets_for(budgets, "webhooks", 41)
    with pytest.raises(BudgetsError, match="budgets for none"):
        budgets_for(budgets, "qr", 1)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("p95_ms = 20", "p95_milliseconds = 20", "unknown field `p95_milliseconds`"),
        ("p95_ms = 20", "p95_ms = 0", "> 0"),
        ("p95_ms = 20", 'p95_ms = "20"', "got `str`"),
        ("failure_ratio = 0.5", "failure_ratio = 50", "<= 1"),
        ("users = 9", "users = 0", ">= 1"),
        ("users = 9", "", "missing required field `users`"),
        ("[[webhooks]]", "[webhooks]", r"A load begins with \[\[webhooks\]\]"),
        ("webhooks", "webhook", "no suite 'webhook'. Did you mean 'webhooks'"),
        ('stripe"', 'strip"', "does not make 'POST /webhooks/strip'. Did you mean 'POST /webhooks/stripe'"),
        ('"POST /webhooks/stripe" = { p95_ms = 20 }', "", "'POST /webhooks/stripe' has no budget"),
        ("users = 9", "users = ", "is no TOML"),
        ("[[webhooks]]", WEBHOOKS.format(users=9) + "[[webhooks]]", "two loads have the same number"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_place_and_what_belongs_there(
    before: str, after: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "budgets.toml"
    good = WEBHOOKS.format(users=9)
    path.write_text(good.replace(before, after, -1 if before == "webhooks" else 1))
    with pytest.raises(BudgetsError, match=complaint) as refused:
        load_budgets(path)
    assert str(path) in str(refused.value)
