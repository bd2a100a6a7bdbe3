"""A report against payments and ledger: each row in one class, whatever is done to a report that was right."""

import csv
import inspect
import io
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from core import metrics
from core.database import Database, open_database
from core.errors import Refusal
from core.payments import rules
from core.payments.payments import Payment
from core.payments.reports.mapping import changed, preset
from core.payments.reports.matching import PARTS, Class, Difference, Period, Summary, match
from core.payments.reports.reading import Reader
from core.payments.reports.settling import settle
from core.payments.rules import Dispute
from core.payments.states import State
from core.payments.writing import Report
from core.providers.protocol import Sight, Standing
from core.settings import Settings
from core.work import gauges
from tests.core.payments.conftest import Desk

MAPPING = changed(preset("generic"), b'signed = true\n[columns]\nrow = "row"\nnames = "id"')
HOUR = timedelta(hours=1)


class Row(NamedTuple):
    """A row of a report; negative amounts leave us."""

    row: str
    id: str
    type: str
    amount: str
    fee: str = ""
    currency: str = "EUR"
    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def but(self, **changes: Any) -> "Row":
        return self._replace(**changes)


def reader(rows: list[Row]) -> Reader:
    text = io.StringIO()
    csv.writer(text).writerows([Row._fields, *rows])
    return Reader(io.BytesIO(text.getvalue().encode()), MAPPING, "one")


class Bench:
    """A database to compare in, as its owner, and payments at the provider `one`."""

    def __init__(self, desk: Desk, database: Database) -> None:
        self.desk = desk
        self.database = database

    async def match(self, rows: list[Row], since: timedelta = HOUR) -> tuple[Summary, list[Difference]]:
        """Compare a report of the last hour and of the next one."""
        found: list[Difference] = []
        now = datetime.now(UTC)
        summary = await match(
            self.database,
            "one",
            reader(rows),
            file="report.csv",
            period=Period(now - since, now + HOUR),
            late_after=HOUR,
            on_difference=found.append,
        )
        return summary, found

    async def classes(self, rows: list[Row]) -> dict[str, int]:
        """Return the number of rows of each class, each of which is listed unless it matches."""
        summary, found = await self.match(rows)
        counted = {str(class_): count for class_ in Class if (count := summary.rows(class_))}
        told = Counter(str(one.class_) for one in found)
        assert told == {class_: count for class_, count in counted.items() if class_ != "matched"}
        assert summary.clean is (not found)
        return counted

    async def paid(self, amount: int, fee: int | None = None, **more: Any) -> tuple[Payment, Row]:
        """Return a payment of `amount` cents, and its row."""
        payment = await self.desk.create(amount=amount, provider="one", **more)
        payment = await self.see(payment, amount=amount, fee=fee)
        name = str(payment.latest.provider_id)
        told = "" if fee is None else f"{fee / 100:.2f}"
        return payment, Row(
            f"txn_{name}", name, "payment", f"{amount / 100:.2f}", told, time=datetime.now(UTC)
        )

    async def see(self, payment: Payment, **sight: Any) -> Payment:
        """Let the provider tell of a payment that is paid."""
        report = Report(Sight(Standing.PAID, **{"currency": payment.currency, **sight}), "event:e")
        return (await self.desk.payments.applier.apply(payment.id, payment.latest.id, report)).payment


@pytest.fixture
async def bench(desk: Desk, settings: Settings) -> AsyncIterator[Bench]:
    database = await open_database(settings, role=None, size=1)
    yield Bench(desk, database)
    await database.close()


def broken(row: Row) -> Row:
    return row.but(row=f"{row.row}x", amount="much")


# The changes of a row: what the report has in its place, the class of the change, and the rows that match then.
CHANGES: dict[str, Any] = {
    "none": (lambda row: [row], "matched", 0),
    "drop": (lambda _row: [], "missing_there", 0),
    "twice": (lambda row: [row, row], "duplicate", 1),
    "charged_twice": (lambda row: [row, row.but(row=f"{row.row}x")], "duplicate", 1),
    "amount": (lambda row: [row.but(amount="1.00")], "amount", 0),
    "fee": (lambda row: [row.but(fee="0.04")], "amount", 0),
    "currency": (lambda row: [row.but(currency="USD")], "currency", 0),
    "stranger": (lambda row: [row, row.but(row=f"{row.row}x", id="nobody")], "missing_here", 1),
    "late": (lambda row: [row.but(time=row.time - 3 * HOUR)], "late", 0),
    "broken": (lambda row: [row, broken(row)], "unreadable", 1),
}


async def test_a_changed_report_has_the_classes_of_its_changes(bench: Bench) -> None:
    """The model: a row that is right matches, and the change of one row adds one to its class."""
    right = [(await bench.paid(200 + number, fee=3))[1] for number in range(6)]
    chance = random.Random(11)
    for turn in range(12):
        changes = [chance.choice(list(CHANGES)) if turn else "none" for _ in right]
        rows = [each for row, change in zip(right, changes, strict=True) for each in CHANGES[change][0](row)]
        chance.shuffle(rows)
        expected = Counter(CHANGES[change][1] for change in changes)
        expected["matched"] += sum(CHANGES[change][2] for change in changes)
        assert await bench.classes(rows) == {class_: rows for class_, rows in expected.items() if rows}, (
            changes
        )


async def test_refunds_and_disputes_match_by_their_sums_or_one_by_one(bench: Bench) -> None:
    payment, row = await bench.paid(1000)
    await bench.see(payment, amount=1000, refunded=300)
    await bench.see(payment, amount=1000, refunded=350)
    refund = row.but(type="refund")
    rows = [row, refund.but(row="r1", amount="-3.00"), refund.but(row="r2", amount="-0.50")]
    assert await bench.classes(rows) == {"matched": 3}
    # The ledger may have learnt of several refunds at once.
    rows[1:] = [refund.but(row="r1", amount="-1.00"), refund.but(row="r2", amount="-2.50")]
    assert await bench.classes(rows) == {"matched": 3}
    assert await bench.classes([*rows[:1], refund.but(row="r1", amount="-3.00")]) == {
        "matched": 2, "missing_there": 1
    }  # fmt: skip
    assert await bench.classes([*rows, refund.but(row="r3", amount="-3.00")]) == {
        "matched": 2, "amount": 1, "missing_here": 1
    }  # fmt: skip

    await bench.desk.payments.applier.apply(
        payment.id, payment.latest.id, Report(Dispute("dp_1", 100), "event:d")
    )
    rows.append(row.but(row="d1", type="dispute", amount="-1.00"))
    assert await bench.classes(rows) == {"matched": 4}
    await bench.desk.payments.applier.apply(
        payment.id, payment.latest.id, Report(Dispute("dp_1", -100), "event:w")
    )
    rows.append(row.but(row="d2", type="dispute", amount="1.00"))
    assert await bench.classes(rows) == {"matched": 5}


async def test_the_payment_is_the_third_side(bench: Bench) -> None:
    """A payment whose level is not the ledger's is named, though report and ledger agree."""
    payment, row = await bench.paid(500)
    await bench.desk.owner.execute(
        "UPDATE payment_attempts SET received = 600 WHERE payment_id = $1", payment.id
    )
    _, [found] = await bench.match([row])
    assert (found.class_, found.detail) == ("amount", "the payment says 600, and the ledger otherwise")
    await bench.desk.owner.execute(
        "UPDATE payment_attempts SET received = 500 WHERE payment_id = $1", payment.id
    )


async def test_attempts_are_known_by_each_of_their_names(bench: Bench) -> None:
    payment, row = await bench.paid(500)
    assert await bench.classes([row.but(id=str(payment.latest.id))]) == {"matched": 1}

    waiting = await bench.desk.create(amount=100, provider="one")
    assert waiting.state is State.PENDING
    _, [found] = await bench.match([row, row.but(row="x", id=str(waiting.latest.provider_id), amount="1.00")])
    assert (found.class_, found.detail) == ("missing_here", "the attempt is pending here, with 0")
    assert (found.line, found.payment, found.there, found.here) == (3, waiting.id, 100, None)


async def test_other_money_than_was_asked_for_matches_where_it_lies_in_suspense(bench: Bench) -> None:
    payment = await bench.desk.create(amount=100, provider="one")
    payment = await bench.see(payment, amount=90, currency="USD")
    name = str(payment.latest.provider_id)
    row = Row("t", name, "payment", "0.90", currency="USD", time=datetime.now(UTC))
    assert await bench.classes([row]) == {"matched": 1}
    assert await bench.classes([row.but(amount="0.80")]) == {"amount": 1}


async def test_money_without_a_currency_matches_by_its_payment(bench: Bench) -> None:
    payment = await bench.desk.create(amount=1_00000000, currency="XXX", provider="one")
    await bench.see(payment)
    name = str(payment.latest.provider_id)
    row = Row("t", name, "payment", "12.00", currency="KZT", time=datetime.now(UTC))
    assert await bench.classes([row]) == {"matched": 1}
    assert await bench.classes([]) == {"missing_there": 1}
    assert await bench.classes([row, row.but(row="u")]) == {"matched": 1, "duplicate": 1}


async def test_payouts_and_fees_settle_the_clearing_account_once(bench: Bench) -> None:
    _, row = await bench.paid(1000, fee=30)
    rows = [
        row,
        row.but(row="po_1", id="po_1", type="payout", amount="-9.00", fee=""),
        row.but(row="po_2", id="po_1", type="payout", amount="0.50", fee=""),  # it came back in part
        row.but(row="f_1", id="", type="fee", amount="-0.20", fee=""),
        row.but(row="o_1", id="", type="topup", amount="5.00", fee=""),
    ]

    async def settled(*, dry_run: bool = False) -> list[str]:
        found = await settle(bench.desk.service.database, "one", reader(rows), dry_run=dry_run)
        return [one.fate for one in found]

    assert await bench.classes(rows) == {"matched": 1, "missing_here": 4}
    assert await settled(dry_run=True) == ["planned"] * 3
    assert await bench.classes(rows) == {"matched": 1, "missing_here": 4}
    rows.insert(2, broken(row.but(row="po_3", type="payout")))
    assert await settled() == ["posted", "unreadable", "posted", "posted"]
    del rows[2]
    assert await settled() == ["known"] * 3
    with pytest.raises(Refusal):
        await settle(bench.desk.service.database, "nosuch", reader(rows), dry_run=False)
    assert await bench.classes(rows) == {"matched": 4, "missing_here": 1}
    codes = ("provider:one:clearing:EUR", "system:bank:EUR", "system:provider_fees:EUR")
    assert await bench.desk.balance(*codes) == [-1000 + 30 + 850 + 20, -850, -20]

    rows[1] = rows[1].but(amount="-9.01")
    assert await settled() == ["idempotency_conflict", "known", "known"]
    assert (await bench.classes(rows))["amount"] == 1
    # A posted payout that the report has not.
    del rows[1]
    assert (await bench.classes(rows))["missing_there"] == 1


async def test_the_last_comparison_is_kept(bench: Bench) -> None:
    _, row = await bench.paid(500)
    await bench.match([row, broken(row)])
    kept = await bench.desk.owner.fetchrow("SELECT provider, file, counts FROM provider_reports")
    assert (kept["provider"], kept["file"]) == ("one", "report.csv")
    assert '"matched": 1' in kept["counts"]
    assert '"unreadable": 1' in kept["counts"]


async def test_metrics_tell_the_last_comparison(bench: Bench) -> None:
    _, row = await bench.paid(500)
    await bench.match([])
    await bench.match([row])
    await gauges.measure(bench.desk.service.database)
    told = metrics.REGISTRY.get_sample_value
    assert told("provider_report_rows", {"provider": "one", "class": "matched"}) == 1
    assert told("provider_report_rows", {"provider": "one", "class": "missing_there"}) == 0
    assert told("provider_report_last_run_timestamp", {"provider": "one"})


def test_every_posting_at_a_clearing_account_stands_for_a_part_of_a_report() -> None:
    """A kind that is not in the table would be money that a report has and the comparison never finds."""
    source = inspect.getsource(rules)
    kinds = set(re.findall(r'"(payment\.[a-z_]+)"', source)) | {
        "payment.dispute_taken",
        "payment.dispute_returned",
    }
    # A late fee is compared as a level of its attempt; a correction moves nothing at the provider.
    assert kinds - PARTS.keys() == {"payment.fee", "payment.corrected"}
