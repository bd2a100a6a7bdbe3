"""People as the routes know them: one form of a phone everywhere, names that can be read, histories, exports."""

import csv
import io
from typing import Any

import pytest

from core.errors import Refusal
from core.platform import Platform
from core.settings import Settings
from core.wallets import names
from handlers.http.spreadsheets import cell
from tests.handlers.wallets.conftest import Administrator, MakePerson, Person, new_key
from tests.handlers.wallets.test_internal import TRANSFER, Sibling, payment

pytestmark = pytest.mark.shared


@pytest.fixture
def settings(settings: Settings) -> Settings:
    more = {"otp_mode": "dev", "rate_limit_enabled": False, "starting_credit_cents": 500}
    return Settings.model_validate(settings.model_dump() | more)


@pytest.fixture
def sibling(wallets: Any) -> Sibling:
    return Sibling(wallets)


def spelled(phone: str) -> list[str]:
    """Some spellings of a Syrian phone that are none of the E.164 form."""
    digits = phone.removeprefix("+963")
    arabic = "".join(chr(0x660 + int(digit)) for digit in phone[1:])
    return [f"+9630{digits}", f"+963 (0) {digits[:3]}-{digits[3:]}", f"+{arabic}"]


async def test_one_phone_on_every_route(
    person: MakePerson, nobody: Person, sibling: Sibling, admin: Administrator, owner: Any
) -> None:
    """A second spelling makes no second person, and so no second starting credit; it finds the first one everywhere."""
    ann = await person(phone="+963944700001", balance=10_000)
    shop = await person(merchant=True, kyc=1)
    count = "SELECT count(*) FROM users"
    before = await owner.fetchval(count)
    for text in spelled(ann.phone):
        said = await nobody.post("/auth/verify_otp", {"phone": text, "otp": "123456"})
        again = Person(nobody.client, None, said.json["access_token"])
        assert (await again.get("/wallet")).json["user"]["id"] == str(ann.user.id)
        assert (await shop.post("/wallet/transfer", _transfer(text))).refusal == (400, "Insufficient balance")
        assert (await ann.post("/wallet/transfer", _transfer(text))).refusal == (
            400,
            "Cannot transfer to self",
        )
        made = await shop.post("/requests", {"to_phone": text, "amount_cents": 10})
        assert made.status == 200, made
        invoice = {"payer_phone": text, "amount_cents": 10, "due_in_days": 1}
        assert (await shop.post("/invoices", invoice)).status == 200
        asked = {"amount_cents": 10, "code": f"CPM:v1;phone={text}"}
        assert (await shop.post("/payments/merchant/cpm_request", asked)).status == 200
        mandate = {"issuer_phone": text, "autopay": True}
        assert (await shop.post("/invoices/mandates", mandate)).json["issuer_phone"] == ann.phone
        paid = await sibling.post(TRANSFER, payment(ann, shop) | {"from_phone": text, "amount_cents": 1})
        assert paid.json["from_wallet_id"] == str(ann.user.wallet_id)
        assert (await admin.get("/admin/merchants", phone=text)).json["user_id"] == str(ann.user.id)
        taken = {"username": new_key(), "password": "correct horse", "phone": text}
        assert (await nobody.post("/auth/register", taken)).refusal == (400, "phone_taken")
    assert (await ann.get("/requests")).status == 200
    assert await owner.fetchval(count) == before
    found = await sibling.get("/internal/wallet?phone=%2B9630944700001", {"phone": "+9630944700001"})
    assert found.json["phone"] == ann.phone
    for text in (f"{ann.phone} ext 5", f"{ann.phone};ext=5", f"{ann.phone}x5"):
        assert (await shop.post("/wallet/transfer", _transfer(text))).status == 422
        taken = {"username": new_key(), "password": "correct horse", "phone": text}
        assert (await nobody.post("/auth/register", taken)).refusal == (400, "invalid_phone")


def _transfer(phone: str) -> dict[str, Any]:
    return {"to_phone": phone, "amount_cents": 1_000_000, "idempotency_key": new_key()}


async def test_rows_of_before_stay_findable(platform: Platform, owner: Any) -> None:
    """A row that was stored in another spelling is that phone's, and of two rows each has its own spelling."""
    users = platform.users
    for stored, asked in (("+9630944700002", "+963944700002"), ("+4402079460018", "+442079460018")):
        old = await users.ensure(asked)
        await owner.execute("UPDATE users SET phone = $2 WHERE id = $1", old.id, stored)
        for text in (asked, stored, f"{asked[:4]}-{asked[4:]}"):
            assert (await users.ensure(text)).id == old.id
    # From before phones had one form, the same SIM may have two wallets. None of them is lost.
    second = await users.ensure("+963944700003")
    await owner.execute("UPDATE users SET phone = '+963944700002' WHERE id = $1", second.id)
    assert (await users.ensure("+963944700002")).id == second.id
    first = await users.by_phone("+9630944700002")
    assert first is not None
    assert first.id != second.id


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("Ann", "Ann"),
        ("  Ann \t\n Smith ", "Ann Smith"),
        ("A\u202en\u200bn\u2066", "Ann"),
        ("Ann\u0301a\ufe0f", "Anńa"),
        ("محمد \u200f", "محمد"),
        ("Café 24/7 👑", "Café 24/7 👑"),
        ("", None),
    ],
)
def test_names(given: str, read: str | None) -> None:
    assert names.read(given) == read


UNREADABLE = (
    "\u200b", "\u3164\u2800", " ", "\u202e\u202c", "123", "...", "+963 944 123 456", "0944-123-456",
    "Bank +963944123456", "٠٩٤٤١٢٣٤٥٦", "\uff10\uff19\uff14\uff14\uff11\uff12\uff13", "9.4.4.1.2.3.4", "+963…56",
    "963_944_123_456 Ali", "Ali ❾❹❹❶❷❸❹❺❻", "Ali ➓➎➍➋➑➊", "⓿➒➃ ➃❶②⑶ Ali", "Ali 九四四一二三四", "Ali ٠_٩_٤_٤_١_٢_٣",
    "Ali 0\ufe0f\u20e39\ufe0f\u20e34\ufe0f\u20e34\ufe0f\u20e31\ufe0f\u20e32\ufe0f\u20e33\ufe0f\u20e3",
)  # fmt: skip


async def test_names_that_nobody_should_read(nobody: Person, admin: Administrator) -> None:
    for name in UNREADABLE:
        with pytest.raises(Refusal):
            names.read(name)
    body = {"phone": "+963944700010", "otp": "123456"}
    registered = {"username": "named", "password": "correct horse", "phone": "+963944700011"}
    for name in UNREADABLE[:5]:
        for path, more in (("/auth/verify_otp", body), ("/auth/register", registered)):
            said = await nobody.post(path, more | {"name": name})
            assert (said.status, said.json["detail"][0]["loc"]) == (422, ["body", "name"]), name
        assert (
            await admin.post("/admin/seed_demo_user", {"phone": "+963944700012", "name": name})
        ).status == 422
    said = await nobody.post("/auth/verify_otp", body | {"name": "A\u202enn\u200b"})
    ann = Person(nobody.client, None, said.json["access_token"])
    assert (await ann.get("/wallet")).json["user"]["name"] == "Ann"


async def test_a_key_in_the_header_alone(person: MakePerson) -> None:
    """Old guides show the header without the body's field, for top-ups, transfers and codes."""
    ann, shop = await person(balance=1_000, kyc=1), await person(merchant=True, kyc=1)
    qr = (await shop.post("/payments/merchant/qr", {"amount_cents": 10})).json["code"]
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/wallet/topup", {"amount_cents": 5}),
        ("/wallet/transfer", {"to_phone": shop.phone, "amount_cents": 5}),
        ("/payments/merchant/pay", {"code": qr}),
    )
    for path, body in calls:
        key = new_key()
        first = await ann.post(path, body, key=key)
        assert first.status == 200, first
        assert (await ann.post(path, body | {"idempotency_key": None}, key=key)).body == first.body
        # The same key in the body is the same payment.
        assert (await ann.post(path, body | {"idempotency_key": key})).body == first.body
        without = await ann.post(path, body)
        assert (without.status, [one["loc"] for one in without.json["detail"]]) == (
            422,
            [["body", "idempotency_key"]],
        )


async def test_histories_say_who_and_what_for(person: MakePerson, owner: Any, admin: Administrator) -> None:
    ann, shop = await person(balance=1_000, kyc=1), await person(merchant=True, kyc=1)
    change = "UPDATE users SET name = $2, merchant_fee_bps = 1000 WHERE id = $1"
    await owner.execute(change, shop.user.id, "=Sh\u202eop")
    bob = await person()
    await ann.post("/wallet/transfer", {"to_phone": bob.phone, "amount_cents": 5}, key=new_key())
    invoice = {"payer_phone": ann.phone, "amount_cents": 100, "due_in_days": 1, "description": "-2-3 tea"}
    made = await shop.post("/invoices", invoice)
    await ann.post(f"/invoices/{made.json['id']}/pay")
    qr = (await shop.post("/payments/merchant/qr", {"amount_cents": 100})).json["code"]
    assert (await ann.post("/payments/merchant/pay", {"code": qr}, key=new_key())).status == 200

    seller = {"name": "=Shop", "phone": f"{shop.phone[:4]}…{shop.phone[-2:]}", "approved_merchant": True}
    person_ = {"name": None, "phone": f"{bob.phone[:4]}…{bob.phone[-2:]}", "approved_merchant": False}
    for path in (
        "/wallet/transactions",
        "/wallet/transactions/page",
        "/wallet/transactions/export?format=json",
    ):
        entries = (await ann.get(path)).json["entries"]
        told = [(one["kind"], one["fee"], one["counterparty"], one["purpose"]) for one in entries]
        assert told == [
            ("payments.qr_pay", False, seller, None),
            ("invoices.pay", False, seller, "-2-3 tea"),
            ("wallet.transfer", False, person_, None),
            ("wallet.topup", False, None, None),
            ("wallet.airdrop", False, None, None),
        ], path
    # The merchant's own view: the fee is a line of its own, and the payer is no merchant.
    sold = (await shop.get("/wallet/transactions")).json["entries"]
    assert [(one["fee"], one["counterparty"]["phone"][-2:]) for one in sold[:2]] == [
        (True, "99"), (False, ann.phone[-2:]),
    ]  # fmt: skip

    plain = list(csv.reader(io.StringIO((await ann.get("/wallet/transactions/export")).body.decode())))
    assert plain[0] == ["created_at", "transfer_id", "wallet_id", "amount_cents_signed"]
    full = (await ann.get("/wallet/transactions/export", details="true")).body.decode()
    rows = list(csv.reader(io.StringIO(full)))
    assert rows[0] == [*plain[0], "kind", "fee", "counterparty", "counterparty_phone", "purpose"]
    assert rows[2][3:] == ["-100", "invoices.pay", "False", "'=Shop", f"'{seller['phone']}", "'-2-3 tea"]


@pytest.mark.parametrize(
    "text", ["=1+1", "-2-3", "+963944123456", "@x", "\t=1", " \u200b=1", "\uff1d1", "'=x", "\r=1"]
)
def test_a_cell_runs_nothing(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert [cell(value) for value in ("Ann", "a-b", -5, None, "2026-01-01")] == [
        "Ann",
        "a-b",
        -5,
        None,
        "2026-01-01",
    ]


async def test_an_export_of_vouchers_runs_nothing(person: MakePerson) -> None:
    maker = await person()
    administrator = Administrator(maker.client)
    administrator.token = maker.token
    body = {"amount_syp": 1, "count": 1, "prefix": "-2-3"}
    made = await administrator.post("/vouchers/admin/vouchers/bulk", body)
    assert made.status == 200, made
    said = await administrator.get("/vouchers/admin/export", prefix="-2-3")
    row = dict(zip(*csv.reader(io.StringIO(said.body.decode())), strict=True))
    assert row["code"].startswith("'-2-3")
    assert row["created_by_phone"] == f"'{maker.phone}"
