"""Statements and settlements: what was sold, what it cost, what was given back."""

import csv
import io
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from core.settings import Settings
from core.wallets import statements
from tests.commands import tallystick
from tests.handlers.wallets.conftest import MakePerson, Person, new_key

pytestmark = pytest.mark.shared

PATH = "/payments/merchant/statement"
FEES = {"merchant_fee_bps": 1_000}


async def sell(shop: Person, payer: Person, *amounts: int) -> list[str]:
    made = await shop.post("/payments/merchant/qr", {"amount_cents": 1, "mode": "static"})
    transfers = []
    for amount in amounts:
        body = {"code": made.json["code"], "amount_cents": amount, "idempotency_key": new_key()}
        transfers.append((await payer.post("/payments/merchant/pay", body)).json["transfer_id"])
    return transfers


async def give_back(shop: Person, sale: str, amount: int) -> str:
    """Refund a part of a sale."""
    said = await shop.post("/refunds", {"original_transfer_id": sale, "amount_cents": amount})
    assert said.status == 200, said
    refund: str = said.json["transfer_id"]
    return refund


async def send(payer: Person, payee: Person, amount: int) -> str:
    body = {"to_phone": payee.phone, "amount_cents": amount, "idempotency_key": new_key()}
    transfer: str = (await payer.post("/wallet/transfer", body)).json["transfer_id"]
    return transfer


@pytest.mark.parametrize("changed", [FEES])
async def test_sales_fees_and_refunds(person: MakePerson) -> None:
    ann = await person(kyc=1, balance=10_000)
    shop = await person(kyc=1, merchant=True, balance=5_000)  # a top-up is no sale
    sold = await sell(shop, ann, 100, 200)
    back = await give_back(shop, sold[1], 40)
    await give_back(ann, await send(shop, ann, 10), 7)  # nor is a refund received
    await sell(shop, shop, 60)  # nor one's own money; its fee is one
    said = (await shop.get(PATH)).json
    assert list(said) == ["from", "to", "gross_cents", "fees_cents", "net_cents", "rows"]
    assert (said["gross_cents"], said["fees_cents"], said["net_cents"]) == (300, 36, 224)
    rows = [(row["direction"], row["amount_cents"]) for row in said["rows"]]
    assert rows == [("in", 100), ("in", 200), ("fee", -10), ("fee", -20), ("fee", -6), ("refund", -40)]
    assert [row["transfer_id"] for row in said["rows"]][:4] == [*sold, *sold]
    assert said["rows"][-1]["transfer_id"] == back
    assert list(said["rows"][0]) == [
        "created_at", "direction", "amount_cents", "currency_code", "transfer_id",
    ]  # fmt: skip
    export = await shop.get(PATH, format="csv")
    assert export.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "Content-Disposition" not in export.headers
    lines = export.body.decode().split("\r\n")
    assert lines[0] == "created_at,direction,amount_cents,currency_code,transfer_id"
    found = list(csv.DictReader(io.StringIO(export.body.decode())))
    assert [(row["direction"], int(row["amount_cents"])) for row in found] == rows


@pytest.mark.parametrize("changed", [FEES | {"refund_fee_policy": "return"}])
async def test_a_fee_that_comes_back(person: MakePerson) -> None:
    ann, shop = await person(kyc=1, balance=10_000), await person(kyc=1, merchant=True)
    (sale,) = await sell(shop, ann, 100)
    await give_back(shop, sale, 40)
    said = (await shop.get(PATH)).json
    assert (said["gross_cents"], said["fees_cents"], said["net_cents"]) == (100, 6, 54)
    rows = [(row["direction"], row["amount_cents"]) for row in said["rows"]]
    assert rows == [("in", 100), ("fee", -10), ("fee", 4), ("refund", -40)]
    assert await shop.balance() == said["net_cents"]


async def test_times(person: MakePerson) -> None:
    ann, shop = await person(kyc=1, balance=10_000), await person(kyc=1, merchant=True)
    before = datetime.now(UTC)
    await sell(shop, ann, 100)
    created = (await shop.get(PATH)).json["rows"][0]["created_at"]
    east = datetime.fromisoformat(created).astimezone(timezone(timedelta(hours=3)))

    async def gross(**params: str) -> int:
        said = await shop.get(PATH, **params)
        assert said.status == 200, said
        figure: int = said.json["gross_cents"]
        return figure

    # Both ends are included; an offset counts; a time without one is UTC; both spellings of the names.
    assert await gross(from_ts=created, to_ts=created) == 100
    assert await gross(**{"from": east.isoformat(), "to": created.removesuffix("Z")}) == 100
    assert await gross(**{"from": (east + timedelta(microseconds=1)).isoformat()}) == 0
    assert await gross(to=(east - timedelta(microseconds=1)).isoformat()) == 0
    assert await gross(from_ts=east.isoformat().replace("+", " ")) == 100
    assert await gross(from_ts="0001-01-01T00:00:00Z", to_ts="9999-12-31T23:59:59Z") == 100
    assert await gross(from_ts=before.date().isoformat()) == 100
    said = (await shop.get(PATH, from_ts="2026-01-02T03:04:05+03:00", to_ts="2026-01-03")).json
    assert (said["from"], said["to"]) == ("2026-01-02T00:04:05Z", "2026-01-03T00:00:00Z")
    assert (said["gross_cents"], said["rows"]) == (0, [])
    span = (await shop.get(PATH)).json
    assert datetime.fromisoformat(span["to"]) - datetime.fromisoformat(span["from"]) == timedelta(days=30)
    for bad in ("x", "2026-13-01", "0001-01-01T00:00:00+14:00", "9" * 400):
        assert (await shop.get(PATH, from_ts=bad)).refusal == (400, "Invalid time range")
    ends_first = await shop.get(PATH, from_ts="2026-02-01", to_ts="2026-01-01")
    assert ends_first.refusal == (400, "Invalid time range")


async def test_for_merchants(person: MakePerson, nobody: Person) -> None:
    assert (await (await person()).get(PATH)).refusal == (403, "Not a merchant")
    assert (await nobody.get(PATH)).refusal == (403, "Not authenticated")


@pytest.mark.alone
async def test_any_length(person: MakePerson, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement is read in parts; nothing is lost or doubled where they meet."""
    monkeypatch.setattr(statements, "PART", 7)
    monkeypatch.setattr("handlers.wallets.merchants.CSV_ROWS", 3)
    monkeypatch.setattr("handlers.wallets.merchants.MAX_ROWS", 20)
    ann, shop = await person(kyc=1, balance=10_000), await person(kyc=1, merchant=True)
    await sell(shop, ann, *range(1, 31))
    said = (await shop.get(PATH)).json
    assert said["gross_cents"] == sum(range(1, 31))
    assert [row["amount_cents"] for row in said["rows"]] == list(range(1, 21))
    rows = list(csv.DictReader(io.StringIO((await shop.get(PATH, format="csv")).body.decode())))
    assert [int(row["amount_cents"]) for row in rows] == list(range(1, 31))


# --- The settlement of all merchants


async def run(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    done = await tallystick("settlement", *arguments, DATABASE_URL=str(settings.database_url))
    return done.returncode, done.stdout, done.stderr


@pytest.mark.alone
@pytest.mark.parametrize("changed", [FEES])
async def test_settlement(person: MakePerson, settings: Settings) -> None:
    ann = await person(kyc=1, balance=10_000)
    shop, quiet = await person(kyc=1, merchant=True, balance=50), await person(kyc=1, merchant=True)
    sold = await sell(shop, ann, 100, 200)
    await give_back(shop, sold[1], 40)
    code, out, err = await run(settings)
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["merchant_user_id"]: row for row in rows} == {
        str(user.id): {
            "merchant_user_id": str(user.id),
            "merchant_wallet_id": str(user.wallet_id),
            "currency": "SYP",
            "gross_cents": gross,
            "fees_cents": fees,
            "net_cents": net,
        }
        for user, gross, fees, net in (
            (shop.user, "300", "30", "230"),
            (quiet.user, "0", "0", "0"),
        )
    }
    assert "2 merchants from" in err
    _, out, _ = await run(settings, "--from", "2026-01-01", "--to", "2026-01-02T00:00:00+03:00")
    assert {row["gross_cents"] for row in csv.DictReader(io.StringIO(out))} == {"0"}


async def test_wrong_times_are_wrong_usage(settings: Settings) -> None:
    for arguments in (("--from", "x"), ("--from", "2026-02-01", "--to", "2026-01-01")):
        code, out, err = await run(settings, *arguments)
        assert (code, out) == (2, "")
        assert "--from" in err


def test_parts() -> None:
    span: Any = statements.Span("a", "SYP", 3, 3 + 2 * statements.PART + 1)
    parts = list(span.parts())
    assert parts[0][0] == 3
    assert parts[-1] == (3 + 2 * statements.PART, span.last)
    assert list(span._replace(last=3).parts()) == []
