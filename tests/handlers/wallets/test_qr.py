"""QR codes: made, drawn, paid once or many times. By many at once: test_qr_races.py."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core import metrics
from core.platform import Platform
from core.wallets.balances import read_balance
from tests.handlers.wallets.conftest import MakePerson, Person, Said, new_key

FEES = {"merchant_fee_bps": 150}


async def code_of(merchant: Person, amount: int = 100, **more: Any) -> str:
    said = await merchant.post("/payments/merchant/qr", {"amount_cents": amount, **more})
    assert said.status == 200, said
    code: str = said.json["code"]
    return code


async def pay(payer: Person, code: str, key: str | None = None, **more: Any) -> Said:
    body = {"code": code, "idempotency_key": key or new_key(), **more}
    return await payer.post("/payments/merchant/pay", body)


async def overdue(owner: Any) -> None:
    """Let the time of every code be over."""
    await owner.execute("UPDATE payables SET expires_at = clock_timestamp() - interval '1 second'")


async def fees(platform: Platform) -> int:
    """What is in the fee wallet."""
    collector = await platform.users.ensure(platform.config.current.fee_wallet_phone)
    return (await read_balance(platform, collector)).balance


# --- Making


@pytest.mark.shared
async def test_a_code_is_made(person: MakePerson) -> None:
    shop = await person(kyc=1, merchant=True)
    said = await shop.post("/payments/merchant/qr", {"amount_cents": "500", "note": "ignored"})
    assert said.status == 200
    assert list(said.json) == ["code", "expires_at"]
    prefix, code = said.json["code"].split("code=")
    assert (prefix, len(code)) == ("PAY:v1;", 32)
    left = datetime.fromisoformat(said.json["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=14) < left < timedelta(minutes=15)
    status = await shop.get("/payments/merchant/qr_status", code=said.json["code"])
    assert status.json == {
        "status": "active",
        "mode": "dynamic",
        "amount_cents": 500,
        "currency_code": "SYP",
        "expires_at": said.json["expires_at"],
    }
    static = await code_of(shop, mode="STATIC")
    assert (await shop.get("/payments/merchant/qr_status", code=static)).json["amount_cents"] == 0


@pytest.mark.shared
async def test_who_may_make_one(person: MakePerson, nobody: Person) -> None:
    body = {"amount_cents": 500}
    assert (await (await person()).post("/payments/merchant/qr", body)).refusal == (403, "KYC level required")
    assert (await (await person(kyc=1)).post("/payments/merchant/qr", body)).refusal == (
        403,
        "Not a merchant",
    )
    assert (await nobody.post("/payments/merchant/qr", body)).refusal == (403, "Not authenticated")
    shop = await person(kyc=1, merchant=True)
    for bad in ({}, {"amount_cents": 0}, {"amount_cents": 1.5}, {"amount_cents": 1, "mode": "x"}):
        assert (await shop.post("/payments/merchant/qr", bad)).status == 422


@pytest.mark.shared
async def test_whose_status_it_is(person: MakePerson) -> None:
    shop, other = await person(kyc=1, merchant=True), await person(kyc=1, merchant=True)
    code = await code_of(shop)

    async def refused(who: Person, text: str) -> tuple[int, str]:
        return (await who.get("/payments/merchant/qr_status", code=text)).refusal

    assert await refused(await person(), code) == (403, "Not a merchant")
    assert await refused(other, code) == (404, "QR not found")
    assert await refused(shop, "x") == (400, "Invalid QR format")
    for unknown in ("", "no", "é", "x" * 100):
        assert await refused(shop, f"PAY:v1;code={unknown}") == (404, "QR not found")
    assert (await shop.get("/payments/merchant/qr_status")).status == 422


@pytest.mark.shared
async def test_it_is_drawn(person: MakePerson) -> None:
    shop = await person(kyc=1, merchant=True)
    code = await code_of(shop)
    svg = await shop.get("/payments/merchant/qr/image", code=code)
    assert svg.headers["Content-Type"] == "image/svg+xml"
    assert ET.fromstring(svg.body).tag.endswith("svg")  # noqa: S314 - of our own making
    png = await shop.get("/payments/merchant/qr/image", code=code, format="PNG", scale="1000000")
    assert png.headers["Content-Type"] == "image/png"
    assert png.body.startswith(b"\x89PNG")
    assert len(png.body) < 20_000
    refused = await shop.get("/payments/merchant/qr/image", code=code, format="gif")
    assert refused.refusal == (400, "Invalid format")
    other = await person(kyc=1, merchant=True)
    assert (await other.get("/payments/merchant/qr/image", code=code)).refusal == (404, "QR not found")


# --- Paying


@pytest.mark.parametrize("changed", [FEES])
async def test_a_dynamic_code_is_paid_once(person: MakePerson, platform: Platform, owner: Any) -> None:
    shop, ann, bob = (
        await person(kyc=1, merchant=True),
        await person(kyc=1, balance=1_000),
        await person(kyc=1),
    )
    code = await code_of(shop, 333)
    first = await pay(ann, code, "k", amount_cents=7)
    assert first.json == {
        "transfer_id": first.json["transfer_id"],
        "from_wallet_id": str(ann.user.wallet_id),
        "to_wallet_id": str(shop.user.wallet_id),
        "amount_cents": 333,
        "currency_code": "SYP",
        "status": "completed",
    }
    assert b'"status":"completed"' in first.body
    assert (await pay(ann, code, "k", amount_cents=7)).body == first.body
    assert (await pay(ann, code, "other")).refusal == (404, "QR not active")
    assert (await pay(bob, code)).refusal == (404, "QR not active")
    assert (await ann.balance(), await shop.balance(), await fees(platform)) == (667, 328, 5)
    assert (await shop.get("/payments/merchant/qr_status", code=code)).json["status"] == "used"
    event = await owner.fetchrow("SELECT * FROM outbox_events WHERE event_type = 'payments.qr_pay'")
    assert event["principal_id"] == shop.user.principal_id
    assert event["body"] == b'{"type":"payments.qr_pay","data":{"amount_cents":333}}'
    assert event["object_id"] == first.json["transfer_id"]
    audit = await owner.fetchval("SELECT data FROM audit_events WHERE type = 'payments.qr_pay'")
    assert '"fee_cents": 5' in audit


@pytest.mark.parametrize("changed", [FEES])
async def test_a_static_code_is_paid_often(person: MakePerson, platform: Platform, owner: Any) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)
    await owner.execute("UPDATE users SET merchant_fee_bps = 1000 WHERE id = $1", shop.user.id)
    code = await code_of(shop, 999, mode="static")
    assert (await pay(ann, code)).refusal == (400, "Amount required for static QR")
    first, second = await pay(ann, code, "a", amount_cents=100), await pay(ann, code, "b", amount_cents=50)
    assert (first.json["amount_cents"], second.json["amount_cents"]) == (100, 50)
    assert (await pay(ann, code, "a", amount_cents=100)).body == first.body
    conflict = await pay(ann, code, "a", amount_cents=101)
    assert conflict.refusal == (409, "Idempotency-Key conflict for different request")
    assert (await ann.balance(), await shop.balance(), await fees(platform)) == (850, 135, 15)


async def test_a_replay_comes_before_everything(person: MakePerson, owner: Any) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)
    code = await code_of(shop)
    first = await pay(ann, code, "k")
    await overdue(owner)
    assert (await pay(ann, code, "k")).body == first.body
    await owner.execute("UPDATE users SET is_merchant = false WHERE id = $1", shop.user.id)
    assert (await pay(ann, code, "k")).body == first.body
    for other in ("x", "PAY:v1;code=unknown"):
        assert (await pay(ann, other, "k")).refusal[0] == 409
    assert await ann.balance() == 900


async def test_why_not(person: MakePerson, owner: Any) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=99)
    code = await code_of(shop)
    assert (await pay(await person(balance=100), code, " ")).refusal == (403, "KYC level required")
    assert (await pay(ann, "nonsense")).refusal == (400, "Invalid QR format")
    assert (await pay(ann, "nonsense", " ")).refusal == (400, "Missing idempotency key")
    for unknown in ("no", "", "\x01", "ü"):
        assert (await pay(ann, f"PAY:v1;code={unknown}")).refusal == (404, "QR not active")
    assert (await pay(ann, code, "k")).refusal == (400, "Insufficient balance")
    await ann.top_up(1)
    assert (await pay(ann, code, "k")).status == 200
    # No wallet has dollars, so a code in dollars is refused; one of before stays refused when it is paid.
    said = await shop.post("/payments/merchant/qr", {"amount_cents": 100, "currency_code": "USD"})
    assert said.refusal == (400, "Currency mismatch")
    dollars = await code_of(shop)
    await owner.execute("UPDATE payables SET currency = 'USD' WHERE code = $1", dollars.partition("=")[2])
    assert (await pay(ann, dollars)).refusal == (400, "Currency mismatch")
    late = await code_of(shop)
    await overdue(owner)
    assert (await pay(ann, late)).refusal == (400, "QR expired")
    status = await shop.get("/payments/merchant/qr_status", code=late)
    assert status.json["status"] == "expired"
    for bad in (0, -1, "x", 1.5, 2**63):
        assert (await pay(ann, code, amount_cents=bad)).status == 422


async def test_a_code_of_somebody_who_is_no_merchant_any_more(person: MakePerson, owner: Any) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)
    code = await code_of(shop)
    await owner.execute("UPDATE users SET is_merchant = false WHERE id = $1", shop.user.id)
    assert (await pay(ann, code)).refusal == (404, "QR not active")
    assert await ann.balance() == 1_000


@pytest.mark.shared
@pytest.mark.parametrize(
    "changed",
    [{"kyc_l1_tx_max_cents": 50, "kyc_l1_daily_max_cents": 120, "fraud_qr_max_tx_per_hour": 4}],
)
async def test_limits_and_which_is_told_first(person: MakePerson) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=130)
    code = await code_of(shop, 50, mode="static")

    async def told(amount: int) -> tuple[int, str] | int:
        said = await pay(ann, code, amount_cents=amount)
        return said.status if said.status == 200 else said.refusal

    assert await told(51) == (400, "KYC transaction limit exceeded")
    assert [await told(amount) for amount in (50, 50)] == [200, 200]
    assert await told(50) == (400, "KYC daily limit exceeded")
    assert [await told(amount) for amount in (10, 10)] == [200, 200]
    assert await told(51) == (429, "Velocity limit")


@pytest.mark.parametrize(
    "changed", [{"fraud_risk_enabled": True, "fraud_block_score": 30, "fraud_flag_score": 1}]
)
async def test_risk(person: MakePerson, owner: Any) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)
    code = await code_of(shop)
    assert (await pay(ann, code)).refusal == (403, "risk_blocked")
    assert await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'fraud.block'") == 1
    await owner.execute("UPDATE users SET created_at = now() - interval '1 year'")
    first = await pay(ann, code, "k")
    assert first.status == 200
    await owner.execute("UPDATE users SET created_at = now()")
    assert (await pay(ann, code, "k")).body == first.body


async def test_of_several_faults_the_contracts_first_is_told(person: MakePerson, owner: Any) -> None:
    """Not active, expired, currency, amount."""
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)
    code = await code_of(shop, mode="static")
    assert (await pay(ann, code)).refusal == (400, "Amount required for static QR")
    await owner.execute("UPDATE payables SET currency = 'USD'")
    for more in ({}, {"amount_cents": 5}):
        assert (await pay(ann, code, new_key(), **more)).refusal == (400, "Currency mismatch")
    await overdue(owner)
    for more in ({}, {"amount_cents": 5}):
        assert (await pay(ann, code, new_key(), **more)).refusal == (400, "QR expired")
    await owner.execute("UPDATE users SET is_merchant = FALSE")
    for more in ({}, {"amount_cents": 5}):
        assert (await pay(ann, code, new_key(), **more)).refusal == (404, "QR not active")


@pytest.mark.parametrize("changed", [FEES])
async def test_ones_own_code(person: MakePerson, platform: Platform) -> None:
    shop = await person(kyc=1, merchant=True, balance=1_000)
    code = await code_of(shop, 1_001)
    assert (await pay(shop, code)).refusal == (400, "Insufficient balance")
    said = await pay(shop, await code_of(shop, 1_000))
    assert said.json["from_wallet_id"] == said.json["to_wallet_id"] == str(shop.user.wallet_id)
    assert (await shop.balance(), await fees(platform)) == (985, 15)
    lines = (await shop.get("/wallet/transactions")).json["entries"]
    assert [line["amount_cents_signed"] for line in lines] == [-15, 1_000, -1_000, 1_000]


@pytest.mark.parametrize("changed", [FEES])
async def test_round_trips(person: MakePerson, round_trips: list[str]) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)
    await pay(ann, await code_of(shop))  # the fee wallet is made now
    code = await code_of(shop)
    round_trips.clear()
    assert (await pay(ann, code)).status == 200
    assert round_trips == ["payers_and_payables", "post_with_effects"]


@pytest.mark.shared
@pytest.mark.parametrize("changed", [FEES])
async def test_metrics(person: MakePerson) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)
    await pay(ann, await code_of(shop))
    before = [metrics.totals(*name)[value] for name, value in _COUNTERS]
    code = await code_of(shop)
    for _ in range(2):  # the second one is a replay
        assert (await pay(ann, code, "k")).status == 200
    after = [metrics.totals(*name)[value] for name, value in _COUNTERS]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 100, 2]


_COUNTERS = (
    (("payments_qr_total", "status"), "completed"),
    (("payments_merchant_gross_cents_total", "currency"), "SYP"),
    (("payments_merchant_fees_cents_total", "currency"), "SYP"),
)
