"""Lists in parts and with filters, the bound on open items, and blocked senders: nobody's items hide another's."""

import re
from typing import Any

import pytest

from core.settings import Settings
from tests.handlers.wallets.billing import allow, bill
from tests.handlers.wallets.conftest import Administrator, MakePerson, Person

pytestmark = pytest.mark.shared

MANY = 5


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"open_demands_max": MANY})


async def request(payee: Person, payer: Person, amount: int = 5) -> Any:
    return await payee.post("/requests", {"to_phone": payer.phone, "amount_cents": amount})


async def make(path: str, payer: Person, merchant: Person) -> None:
    """Make one item of the list."""
    match path:
        case "/requests":
            assert (await request(merchant, payer)).status == 200
        case "/invoices":
            await bill(merchant, payer)
        case "/invoices/mandates":
            assert (
                await merchant.post("/requests", {"to_phone": payer.phone, "amount_cents": 1})
            ).status == 200
        case "/subscriptions":
            body = {"merchant_phone": merchant.phone, "amount_cents": 5}
            assert (await payer.post(path, body)).status == 200
        case "/vouchers":
            assert (await payer.post(path, {"amount_syp": 1})).status == 200
        case "/cash/requests":
            assert (await payer.post("/cash/cashin/request", {"amount_cents": 5})).status == 200
        case "/payments/links":
            assert (await payer.post(path, {"amount_cents": 5})).status == 200
        case "/payments/merchant/qr":
            assert (await payer.post(path, {"amount_cents": 5})).status == 200
        case "/webhooks/endpoints":
            body = {"url": "https://shop.example.com/hook", "secret": "x" * 32}
            assert (await payer.post(path, body)).status == 200
        case "/merchant/api/keys":
            assert (await payer.post(path)).status == 200


@pytest.mark.parametrize(
    ("path", "member", "after"),
    [
        ("/requests", "incoming", "next_incoming"),
        ("/invoices", "incoming", "next_incoming"),
        ("/subscriptions", None, None),
        ("/vouchers", "items", "next"),
        ("/cash/requests", "my", "next"),
        ("/payments/links", "items", "next"),
        ("/payments/merchant/qr", "items", "next"),
        ("/webhooks/endpoints", None, None),
        ("/merchant/api/keys", None, None),
    ],
)
async def test_parts_make_up_the_whole(
    person: MakePerson, path: str, member: str | None, after: str | None
) -> None:
    ann = await person(balance=1_000, kyc=1, merchant=True)
    shop = await person(kyc=1, merchant=True)
    for _ in range(MANY):
        await make(path, ann, shop)
    whole = (await ann.get(path)).json
    whole = whole if member is None else whole[member]
    assert len(whole) == MANY
    found, query = [], {"limit": "2"}
    before: str | None = None
    for _ in range(3):
        said = await ann.get(path, **query)
        found += said.json if member is None else said.json[member]
        if after is not None:
            before = said.json[after]
        else:
            link = re.search(r"before=([^&>]+).*>; rel=\"next\"", said.headers.get("Link", ""))
            before = None if link is None else link[1]
        if before is None:
            break
        query["before"] = before
    assert found == whole
    assert before is None


async def test_strangers_hide_nothing(person: MakePerson, nobody: Person) -> None:
    ann, friend = await person(), await person(kyc=1, merchant=True)
    strangers = [await person(kyc=1, merchant=True) for _ in range(3)]
    wanted = (await request(friend, ann)).json["id"]
    invoice = await bill(friend, ann)
    for stranger in strangers:
        await request(stranger, ann)
        await bill(stranger, ann)
    for path, expected in (("/requests", wanted), ("/invoices", invoice)):
        said = (await ann.get(path, phone=friend.phone, status="pending", side="incoming", limit="1")).json
        assert [one["id"] for one in said["incoming"]] == [expected]
        assert (said["outgoing"], said["next_incoming"]) == ([], None)
        assert (await ann.get(path, status="canceled")).json["incoming"] == []
        assert "next_incoming" not in (await ann.get(path)).json
    assert (await ann.get("/requests", limit="0")).refusal[0] == 422
    mandate = await allow(ann, friend)
    for stranger in strangers:
        await allow(ann, stranger)
    said = (await ann.get("/invoices/mandates", phone=friend.phone)).json
    assert [one["id"] for one in said["items"]] == [mandate]
    said = (await ann.get("/invoices/mandates", limit="3")).json
    said = (await ann.get("/invoices/mandates", limit="3", before=said["next"])).json
    assert ([one["id"] for one in said["items"]], said["next"]) == ([mandate], None)


async def test_open_items_of_one_sender_have_a_bound(person: MakePerson) -> None:
    ann, bob, shop = await person(), await person(), await person(kyc=1, merchant=True)
    body = {"to_phone": ann.phone, "amount_cents": 5}
    first = await shop.post("/requests", body, key="first")
    for _ in range(MANY - 1):
        assert (await request(shop, ann)).status == 200
    for said in (await request(shop, ann), await shop.post("/requests", body, key="new")):
        assert said.refusal == (409, "Too many open items")
    # A known key is answered before the bound is looked at, and others are not bound by it.
    assert (await shop.post("/requests", body, key="first")).body == first.body
    assert (await request(shop, bob)).status == 200
    assert (await request(bob, ann)).status == 200
    for _ in range(MANY):
        await bill(shop, ann)
    said = await shop.post("/invoices", {"payer_phone": ann.phone, "amount_cents": 5})
    assert said.refusal == (409, "Too many open items")
    await ann.post(f"/requests/{first.json['id']}/reject")
    assert (await shop.post("/requests", body, key="new")).status == 200


async def test_open_cash_requests_have_a_bound_and_go_on(person: MakePerson) -> None:
    agent, customers = await person(agent=True), [await person() for _ in range(2)]
    path, body = "/cash/cashin/request", {"amount_cents": 5, "agent_phone": agent.phone}
    for customer in customers:
        first = await customer.post(path, body, key="first")
        for _ in range(MANY - 1):
            assert (await customer.post(path, body)).status == 200
        assert (await customer.post(path, body)).refusal == (409, "Too many open items")
        assert (await customer.post(path, body, key="first")).body == first.body
    whole = (await agent.get("/cash/requests", phone=customers[0].phone)).json
    assert (len(whole["incoming"]), whole["next_offset"]) == (MANY, None)
    found, query = [], {"limit": "2", "phone": customers[0].phone}
    said: Any = None
    for _ in range(3):
        said = (await agent.get("/cash/requests", **query)).json
        found += said["incoming"]
        query["offset"] = str(said["next_offset"])
    assert (found, said["next_offset"]) == (whole["incoming"], None)
    assert "next_offset" not in (await agent.get("/cash/requests")).json


async def test_blocked_senders_in_parts(person: MakePerson) -> None:
    ann, others = await person(), [await person() for _ in range(3)]
    for other in others:
        await ann.post("/wallet/blocked_senders", {"phone": other.phone})
    whole = (await ann.get("/wallet/blocked_senders")).json["items"]
    for name in ("before", "after"):
        said: Any = None
        found, query = [], {"limit": "1"}
        for _ in others:
            said = (await ann.get("/wallet/blocked_senders", **query)).json
            found += said["items"]
            query[name] = str(said["next"])
        assert (found, said["next"]) == (whole, None)
        assert (await ann.get("/wallet/blocked_senders", **{name: "X"})).refusal[0] == 422


async def test_a_blocked_sender(person: MakePerson, admin: Administrator) -> None:
    ann, bob, shop = await person(), await person(), await person(kyc=1, merchant=True)
    body = {"to_phone": ann.phone, "amount_cents": 5}
    before = await shop.post("/requests", body, key="k")
    kept = (await request(bob, ann)).json["id"]
    assert (await ann.post("/wallet/blocked_senders", {"phone": shop.phone})).json == {"detail": "blocked"}
    said = await ann.post("/wallet/blocked_senders", {"phone": shop.phone})
    assert said.json == {"detail": "already blocked"}
    scanned = {"amount_cents": 5, "code": f"CPM:v1;id={ann.user.id}"}
    for path, sent in (
        ("/requests", body),
        ("/invoices", {"payer_phone": ann.phone, "amount_cents": 5}),
        ("/payments/merchant/cpm_request", scanned),
    ):
        assert (await shop.post(path, sent)).refusal == (403, "Not allowed")
    assert (await shop.post("/requests", body, key="k")).body == before.body
    assert [one["id"] for one in (await ann.get("/requests")).json["incoming"]] == [kept]
    blocked = (await ann.get("/wallet/blocked_senders")).json
    assert ([one["phone"] for one in blocked["items"]], blocked["next"]) == ([shop.phone], None)
    assert (await ann.post("/wallet/blocked_senders", {"phone": ann.phone})).refusal[0] == 404
    await ann.post("/wallet/blocked_senders/unblock", {"phone": shop.phone})
    assert (await request(shop, ann)).status == 200
    records = [one["type"] for one in await admin.audit(user=str(shop.user.id))]
    assert {"senders.block", "senders.unblock"} <= set(records)


async def test_filters_and_terms_that_mean_nothing_are_refused(
    person: MakePerson, admin: Administrator
) -> None:
    ann, shop = await person(kyc=1, merchant=True), await person(kyc=1, merchant=True)
    for path in (
        "/requests", "/invoices", "/invoices/mandates", "/subscriptions", "/vouchers", "/cash/requests",
        "/payments/links", "/payments/merchant/qr",
    ):  # fmt: skip
        said = await ann.get(path, status="zzz")
        assert (path, said.status, b"canceled" in said.body or b"revoked" in said.body) == (path, 422, True)
        if path in {"/requests", "/invoices", "/invoices/mandates", "/cash/requests"}:
            assert (path, (await ann.get(path, phone="junk")).status) == (path, 422)
            assert (path, (await ann.get(path, phone=" 963944123456")).status) == (path, 200)
    mandate = {"issuer_phone": shop.phone, "period": "day"}
    assert (await ann.post("/invoices/mandates", mandate)).status == 422
    assert (await ann.post("/invoices/mandates", mandate | {"period_max_cents": 5})).status == 200
    own = await ann.post("/invoices/mandates", {"issuer_phone": ann.phone})
    assert own.refusal == (400, "Cannot give yourself a mandate")
    for unseen in ("\u200d", "\u3164 \u2800", "\u200b"):
        sent = {"payer_phone": shop.phone, "amount_cents": 5, "reference": unseen}
        assert (await ann.post("/invoices", sent)).json["reference"] is None
    for bound in (True, "5", 5.5):
        said = await admin.post(f"/admin/agents/{ann.user.id}/appoint", {"request_max_cents": bound})
        assert (bound, said.status) == (bound, 422)
