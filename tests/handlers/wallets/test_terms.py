"""Caps and notices of mandates, subscriptions by the month, vouchers as they are typed, other currencies."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import new_uuid
from core.platform import Platform
from core.recurring import autopay
from core.recurring.charging import period_of
from core.recurring.subscriptions import Subscription, months_after
from core.settings import Settings
from tests.chaos.staging import Raw
from tests.handlers.wallets.billing import allow, bill, status_of
from tests.handlers.wallets.conftest import MakePerson, told


async def test_a_mandate_keeps_to_its_cap(person: MakePerson, platform: Platform, owner: Raw) -> None:
    ann, shop = await person(balance=1_000), await person(kyc=1, merchant=True)
    await allow(ann, shop, period_max_cents=250, period="day")
    bills = [await bill(shop, ann, 100) for _ in range(3)]
    await autopay.step(platform)
    assert [await status_of(ann, one) for one in bills] == ["paid", "paid", "pending"]
    (mandate,) = (await ann.get("/invoices/mandates")).json["items"]
    assert (mandate["period"], mandate["period_max_cents"], mandate["period_spent_cents"]) == (
        "day",
        250,
        200,
    )
    swept = (await ann.post("/invoices/process_due")).json
    assert swept == {"processed": [], "errors": [{"id": bills[2], "error": "Mandate limit reached"}]}
    # An old client that sets the mandate again knows no cap, and does not take it away.
    await allow(ann, shop)
    assert (await ann.post("/invoices/process_due")).json["processed"] == []
    await owner.execute("UPDATE mandates SET period_start = period_start - interval '1 day'")
    assert (await ann.post("/invoices/process_due")).json["processed"] == [bills[2]]
    await allow(ann, shop, period_max_cents=None)
    bills.append(await bill(shop, ann, 300))
    assert (await ann.post("/invoices/process_due")).json["processed"] == [bills[3]]


async def test_a_payer_has_notice_before_money_is_taken(
    person: MakePerson, platform: Platform, owner: Raw
) -> None:
    ann, shop = await person(balance=1_000, merchant=True), await person(kyc=1, merchant=True)
    await allow(ann, shop, notice_hours=48)
    soon, later = await bill(shop, ann, 100), await bill(shop, ann, 100, 30)
    for _ in range(2):
        await autopay.step(platform)
    assert await status_of(ann, soon) == "pending"
    notices = [data for name, data in await told(owner, ann) if name == "invoices.autopay_notice"]
    assert [notice["id"] for notice in notices] == [soon]
    shown = (await ann.get(f"/invoices/{soon}")).json
    wait = datetime.fromisoformat(shown["autopay_at"]) - datetime.now(UTC)
    assert timedelta(hours=47) < wait <= timedelta(hours=48)
    assert "autopay_at" not in (await ann.get(f"/invoices/{later}")).json
    await owner.execute("UPDATE autopay_notices SET pays_at = now()")
    await autopay.step(platform)
    assert await status_of(ann, soon) == "paid"
    # The notice of an invoice that is due in thirty days comes three days before that.
    await owner.execute("UPDATE payables SET due_at = now() + interval '71 hours' WHERE id = $1", later)
    await autopay.step(platform)
    assert await status_of(ann, later) == "pending"
    assert "autopay_at" in (await ann.get(f"/invoices/{later}")).json


def _monthly(anchor: datetime, months: int, number: int) -> Subscription:
    due = months_after(anchor, months * number)
    return Subscription(
        new_uuid(),
        new_uuid(),
        new_uuid(),
        5,
        "SYP",
        30,
        "active",
        due,
        due,
        0,
        None,
        0,
        None,
        anchor,
        months,
        anchor,
    )


def test_months_of_the_calendar() -> None:
    begun = datetime(2026, 1, 31, 12, tzinfo=UTC)
    ends = [months_after(begun, number).date().isoformat() for number in range(5)]
    assert ends == ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]
    assert months_after(datetime(2024, 2, 29, tzinfo=UTC), 12).day == 28


@given(
    day=st.integers(0, 2_555),
    months=st.integers(1, 12),
    number=st.integers(1, 30),
    late=st.timedeltas(timedelta(0), timedelta(days=800)),
)
def test_periods_of_months_follow_each_other(day: int, months: int, number: int, late: timedelta) -> None:
    anchor = datetime(2023, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)
    subscription = _monthly(anchor, months, number)
    now = subscription.next_charge_at + late
    period = period_of(subscription, now)
    assert period.starts <= now < period.ends
    assert period.starts == months_after(anchor, months * (number + period.missed))
    assert period.ends == months_after(anchor, months * (number + period.missed + 1))


async def test_a_subscription_by_the_month(person: MakePerson, owner: Raw) -> None:
    ann, shop = await person(balance=1_000), await person(kyc=1, merchant=True)
    body = {"merchant_phone": shop.phone, "amount_cents": 5, "interval_months": 1}
    said = await ann.post("/subscriptions", body)
    first = datetime.fromisoformat(said.json["next_charge_at"])
    made = await owner.fetchval("SELECT anchor FROM subscriptions WHERE id = $1", said.json["id"])
    assert first == months_after(made, 1)
    (listed,) = (await ann.get("/subscriptions")).json
    assert listed["interval_months"] == 1
    assert [one["id"] for one in (await shop.get("/subscriptions", role="merchant")).json] == [listed["id"]]
    assert (await shop.get("/subscriptions")).json == []
    for wrong in ({"interval_months": 13}, {"interval_months": 0}, {"interval_days": 30}):
        assert (await ann.post("/subscriptions", {**body, **wrong})).refusal[0] == 422


TYPED = [
    ("upper case", str.upper),
    ("groups", lambda code: " ".join(code[place : place + 4] for place in range(0, 16, 4))),
    ("hyphens", lambda code: "-".join((code[:8], code[8:]))),
    ("the QR's text", lambda code: f"VCHR|{code}"),
    ("the QR's text, typed", lambda code: f" vchr | {code.upper()} "),
    ("letters for digits", lambda code: code.replace("0", "O").replace("1", "l")),
    ("another script", lambda code: code.translate({48 + digit: 0x0660 + digit for digit in range(10)})),
    ("full width", lambda code: "".join(chr(ord(mark) + 0xFEE0) for mark in code)),
]


async def test_vouchers_are_read_as_people_type_them(person: MakePerson) -> None:
    ann, bob = await person(balance=10_000), await person()
    for name, typed in TYPED:
        code = (await ann.post("/vouchers", {"amount_syp": 1})).json["code"]
        said = await bob.ask(
            "POST", f"/vouchers/{_quoted(typed(code))}/redeem", {}, headers={"Idempotency-Key": name}
        )
        assert (said.status, said.json.get("code")) == (200, code), name
        again = await bob.post(f"/vouchers/{code}/redeem", key=name)
        assert again.status == 200, name
    for unknown in ("VCHR|", "-", "%20"):
        assert (await bob.post(f"/vouchers/{_quoted(unknown)}/redeem")).refusal == (404, "Voucher not found")


def _quoted(text: str) -> str:
    return quote(text, safe="")


@pytest.mark.parametrize(("currency", "unit"), [("JPY", 1), ("KWD", 1_000), ("EUR", 100)])
class TestAnotherCurrency:
    @pytest.fixture
    def settings(self, settings: Settings, currency: str) -> Settings:
        changed: dict[str, Any] = {"default_currency": currency, "voucher_fee_bps": 0}
        return Settings.model_validate(settings.model_dump() | changed)

    async def test_works_everywhere(self, person: MakePerson, currency: str, unit: int) -> None:
        ann = await person(balance=10_000, kyc=1)
        shop = await person(kyc=1, merchant=True)
        code = (await shop.post("/payments/merchant/qr", {"amount_cents": 5})).json["code"]
        body = {"code": code, "idempotency_key": "q"}
        assert (await ann.post("/payments/merchant/pay", body)).json["currency_code"] == currency
        link = (await shop.post("/payments/links", {"amount_cents": 5})).json["code"]
        assert (await ann.post("/payments/links/pay", {"code": link, "idempotency_key": "l"})).status == 200
        voucher = (await ann.post("/vouchers", {"amount_syp": 3})).json
        assert (voucher["amount_cents"], voucher["amount_syp"]) == (3 * unit, 3)
        assert voucher["currency_code"] == currency
        assert (await shop.post(f"/vouchers/{voucher['code']}/redeem")).status == 200
        assert await shop.balance() == 10 + 3 * unit
        # A code in a currency that no wallet has could never be paid.
        for path, wrong in (
            ("/payments/merchant/qr", {"amount_cents": 5}),
            ("/payments/links", {"amount_cents": 5}),
            ("/vouchers", {"amount_syp": 1}),
        ):
            said = await shop.post(path, {**wrong, "currency_code": "SYP"})
            assert said.refusal == (400, "Currency mismatch")
