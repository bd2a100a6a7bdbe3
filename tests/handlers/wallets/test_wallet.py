"""The wallet: top-ups, payments from person to person, and what its owner sees of them."""

import asyncio
import csv
import io

import pytest

from core.ledger.items import Leg, Posting, operation_id
from core.platform import Platform
from tests.handlers.wallets.conftest import MakePerson, Person, new_key

pytestmark = pytest.mark.shared


async def test_what_is_in_it(person: MakePerson) -> None:
    ann = await person(balance=500)
    said = await ann.get("/wallet")
    assert said.status == 200
    assert said.json == {
        "user": {"id": str(ann.user.id), "phone": ann.phone, "name": None, "is_merchant": False},
        "wallet": {"id": str(ann.user.wallet_id), "balance_cents": 500, "currency_code": "SYP"},
    }


async def test_top_up(person: MakePerson) -> None:
    ann = await person()
    body = {"amount_cents": 700, "idempotency_key": "k"}
    first, again = await ann.post("/wallet/topup", body), await ann.post("/wallet/topup", body)
    assert first.body == again.body
    assert first.json == {
        "transfer_id": first.json["transfer_id"],
        "from_wallet_id": None,
        "to_wallet_id": str(ann.user.wallet_id),
        "amount_cents": 700,
        "currency_code": "SYP",
        "status": "completed",
    }
    assert b'"status":"completed"' in first.body
    assert await ann.balance() == 700


async def test_transfer(person: MakePerson) -> None:
    ann, bob = await person(balance=1_000), await person()
    body = {"to_phone": bob.phone, "amount_cents": "300", "idempotency_key": "k", "note": "ignored"}
    said = await ann.post("/wallet/transfer", body, key="header-wins")
    assert said.status == 200, said
    assert (said.json["from_wallet_id"], said.json["to_wallet_id"]) == (
        str(ann.user.wallet_id),
        str(bob.user.wallet_id),
    )
    assert (await ann.post("/wallet/transfer", body, key="header-wins")).body == said.body
    other = await ann.post("/wallet/transfer", {**body, "amount_cents": 301}, key="header-wins")
    assert other.refusal == (409, "Idempotency-Key conflict for different request")
    assert (await ann.balance(), await bob.balance()) == (700, 300)


@pytest.mark.alone
async def test_quotes_and_blanks_make_no_other_key(person: MakePerson, platform: Platform) -> None:
    ann, bob = await person(balance=1_000), await person()
    body = {"to_phone": bob.phone, "amount_cents": 100, "idempotency_key": "k-1"}
    first = await ann.post("/wallet/transfer", body)
    for key in ('"k-1"', '"k-1 "', ' "k-1" '):
        assert (await ann.post("/wallet/transfer", body, key=key)).body == first.body
        assert (await ann.post("/wallet/transfer", {**body, "idempotency_key": key})).body == first.body
    assert await bob.balance() == 100
    # A payment from before quotes had a meaning is found by them: the same call again must not pay twice.
    legs = (Leg(ann.user.account, -7), Leg(bob.user.account, 7))
    old = Posting(operation_id(ann.user.principal_id, '"k-2"'), ann.user.principal_id, legs)
    assert (await platform.ledger.poster.submit(old)).posted
    again = await ann.post("/wallet/transfer", {**body, "amount_cents": 7, "idempotency_key": '"k-2"'})
    assert again.status == 409  # the key is taken, by a request of another kind
    assert await bob.balance() == 107


async def test_one_key_of_two_people_and_of_two_operations(person: MakePerson) -> None:
    ann, bob, eve = await person(balance=1_000), await person(balance=1_000), await person()
    body = {"to_phone": eve.phone, "amount_cents": 100, "idempotency_key": "same"}
    first, second = await ann.post("/wallet/transfer", body), await bob.post("/wallet/transfer", body)
    assert first.json["transfer_id"] != second.json["transfer_id"]
    topup = await ann.post("/wallet/topup", {"amount_cents": 100, "idempotency_key": "same"})
    assert topup.status == 409
    assert (await ann.balance(), await bob.balance(), await eve.balance()) == (900, 900, 200)


@pytest.mark.parametrize("changed", [{"dev_enable_topup": False}])
async def test_closed_top_ups_come_before_the_key(person: MakePerson) -> None:
    said = await (await person()).post("/wallet/topup", {"amount_cents": 5, "idempotency_key": " "})
    assert said.refusal == (403, "Topup disabled")


async def test_oneself_comes_before_the_key(person: MakePerson) -> None:
    ann = await person()
    for key in (" ", "x" * 65):
        body = {"to_phone": ann.phone, "amount_cents": 5, "idempotency_key": key}
        assert (await ann.post("/wallet/transfer", body)).refusal == (400, "Cannot transfer to self")


async def test_refused_transfers_leave_the_key_free(person: MakePerson) -> None:
    ann, bob = await person(balance=100), await person()
    body = {"to_phone": bob.phone, "amount_cents": 300, "idempotency_key": "k"}
    assert (await ann.post("/wallet/transfer", body)).refusal == (400, "Insufficient balance")
    await ann.top_up(200)
    assert (await ann.post("/wallet/transfer", body)).status == 200


@pytest.mark.alone
async def test_refusals(person: MakePerson, nobody: Person) -> None:
    ann = await person(balance=100)

    async def refused(to_phone: object, amount: object = 1, key: str = "k") -> tuple[int, str]:
        body = {"to_phone": to_phone, "amount_cents": amount, "idempotency_key": key}
        return (await ann.post("/wallet/transfer", body)).refusal

    assert await refused(ann.phone) == (400, "Cannot transfer to self")
    assert await refused("+963999000111") == (404, "Recipient not found")
    assert await refused("+963999000111", key=" ") == (400, "Missing idempotency key")
    assert await refused("+963999000111", key="x" * 65) == (400, "Idempotency key too long")
    for bad in ("0999", "+96 39", 5, None):
        assert (await refused(bad))[0] == 422
    for amount in (0, -1, 1.5, "x", None, 2**63, 10**30, "1e3"):
        assert (await refused("+963999000111", amount))[0] == 422
    assert (await nobody.get("/wallet")).refusal == (403, "Not authenticated")


async def test_what_does_not_fit_is_listed(person: MakePerson) -> None:
    ann = await person()
    said = await ann.post("/wallet/transfer", {"to_phone": "x", "amount_cents": 1.5})
    assert said.status == 422
    assert [(error["type"], error["loc"]) for error in said.json["detail"]] == [
        ("string_pattern_mismatch", ["body", "to_phone"]),
        ("int_from_float", ["body", "amount_cents"]),
        ("missing", ["body", "idempotency_key"]),
    ]


async def test_lines(person: MakePerson) -> None:
    ann, bob = await person(balance=1_000), await person()
    for amount in (1, 2, 3):
        body = {"to_phone": bob.phone, "amount_cents": amount, "idempotency_key": new_key()}
        assert (await ann.post("/wallet/transfer", body)).status == 200
    lines = (await ann.get("/wallet/transactions")).json["entries"]
    assert [line["amount_cents_signed"] for line in lines] == [-3, -2, -1, 1_000]
    assert lines[0]["created_at"].endswith("Z")
    page = (await ann.get("/wallet/transactions/page", page="2", page_size="3")).json
    assert (page["page"], page["page_size"], page["total"]) == (2, 3, 4)
    assert page["entries"] == lines[3:]
    assert (await ann.get("/wallet/transactions/page", page="9")).json["entries"] == []
    assert (await ann.get("/wallet/transactions/page", page="x")).status == 422
    export = await ann.get("/wallet/transactions/export")
    assert export.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(export.body.decode())))
    assert [int(row["amount_cents_signed"]) for row in rows] == [-3, -2, -1, 1_000]


async def test_crossing_payments(person: MakePerson) -> None:
    ann, bob = await person(balance=10_000), await person(balance=10_000)

    async def pay(payer: Person, payee: Person) -> int:
        body = {"to_phone": payee.phone, "amount_cents": 10, "idempotency_key": new_key()}
        return (await payer.post("/wallet/transfer", body)).status

    statuses = await asyncio.gather(*(pay(*pair) for _ in range(32) for pair in ((ann, bob), (bob, ann))))
    assert set(statuses) == {200}
    assert (await ann.balance(), await bob.balance()) == (10_000, 10_000)
