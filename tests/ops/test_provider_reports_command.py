"""`tallystick payments match` and `settle` as processes of their own."""

import csv
import json
from pathlib import Path

from core.payments.writing import Report
from core.providers.protocol import Sight, Standing
from core.settings import Settings
from tests.commands import tallystick
from tests.core.payments.conftest import Desk, desk, owner

__all__ = ["desk", "owner"]  # fixtures

HEAD = "id,type,amount,currency,time\n"


async def test_a_report_is_matched_and_settled(desk: Desk, settings: Settings, tmp_path: Path) -> None:
    payment = await desk.create(amount=1234, provider="one")
    report = Report(Sight(Standing.PAID, amount=1234, currency="EUR"), "event:e")
    await desk.payments.applier.apply(payment.id, payment.latest.id, report)
    name, file, differences = (
        payment.latest.provider_id,
        tmp_path / "report.csv",
        tmp_path / "differences.csv",
    )
    file.write_text(f"{HEAD}{name},payment,12.34,EUR,\n\n=HYPERLINK(1),payment,1.00,EUR,\nx,payment,1.00\n")
    (tmp_path / "map.toml").write_text('decimal = "."\n[columns]\nrow = "id"\nnames = "id"\n')
    url = str(settings.database_url)
    options = (str(file), "--provider", "one", "--mapping", str(tmp_path / "map.toml"))

    ran = await tallystick(
        "payments", "match", *options, "--csv", str(differences), "--json", DATABASE_URL=url
    )
    assert (ran.returncode, "compare" in ran.stderr) == (1, True), ran.stderr
    told = json.loads(ran.stdout)
    assert told["ok"] is False
    assert {class_: rows for class_, rows in told["rows"].items() if rows} == {
        "matched": 1, "missing_here": 1, "unreadable": 1
    }  # fmt: skip
    rows = list(csv.DictReader(differences.read_text().splitlines()))
    assert [(row["line"], row["class"], row["row"]) for row in rows] == [
        ("4", "missing_here", "'=HYPERLINK(1)"), ("5", "unreadable", "line 5")
    ]  # fmt: skip

    file.write_text(f"{HEAD}{name},payment,12.34,EUR,\npo_1,payout,-12.00,EUR,\n")
    for extra, fate in ((("--dry-run",), "planned"), ((), "posted"), ((), "known")):
        ran = await tallystick("payments", "settle", *options, *extra, DATABASE_URL=url)
        assert (ran.returncode, f"payout po_1 1,200 EUR: {fate}" in ran.stdout) == (0, True), ran.stderr
    file.write_text(f"{file.read_text()}po_2,payout,12,00,EUR,\n")
    ran = await tallystick("payments", "settle", *options, DATABASE_URL=url)
    assert (ran.returncode, "line 4: unreadable: the row has" in ran.stdout) == (1, True), ran.stdout
    others = (options[0], "--provider", "nosuch", *options[3:])
    ran = await tallystick("payments", "settle", *others, DATABASE_URL=url)
    assert (ran.returncode, "No provider 'nosuch'" in ran.stderr) == (1, True), ran.stderr
    file.write_text(f"{HEAD}{name},payment,12.34,EUR,\npo_1,payout,-12.00,EUR,\n")
    ran = await tallystick("payments", "match", *options, DATABASE_URL=url)
    assert (ran.returncode, "matched                 2" in ran.stdout) == (0, True), ran.stdout

    for wrong in (("--format", "xls"), ("--from", "yesterday"), ("--late-after", "1 day")):
        ran = await tallystick("payments", "match", *options, *wrong, DATABASE_URL=url)
        assert ran.returncode == 2, ran.stderr
    file.write_text("a,b\n")
    ran = await tallystick("payments", "match", *options, DATABASE_URL=url)
    assert (ran.returncode, "no header" in ran.stderr) == (2, True), ran.stderr
