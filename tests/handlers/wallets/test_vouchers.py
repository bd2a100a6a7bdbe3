"""Vouchers: paid for when they are made, redeemed once, and what administrators see and do."""

import asyncio
import csv
import io
from typing import Any

import pytest

from tests.chaos.staging import BARRIER, LOCK, PAYABLE_LOCK, Raw, Wait, at_barrier, install
from tests.handlers.wallets.conftest import (
    ADMIN,
    ApiClient,
    MakePerson,
    Person,
    Said,
    new_key,
)

BULK = "/vouchers/admin/vouchers/bulk"
TOKEN = {"X-Admin-Token": ADMIN}


async def make(who: Person, units: int) -> dict[str, Any]:
    said = await who.post("/vouchers", {"amount_syp": units})
    assert said.status == 200, said
    made: dict[str, Any] = said.json
    return made


async def redeem(who: Person, code: str, key: str | None = None) -> Said:
    return await who.post(f"/vouchers/{code}/redeem", key=key)


async def ask_admin(who: Person, method: str, path: str, body: Any = None, **params: str) -> Said:
    return await who.ask(method, path, body, headers=TOKEN, params=params)


async def waiting(owner: Raw) -> int:
    """What was paid for and not redeemed yet."""
    found: int = await owner.fetchval("SELECT balance FROM accounts WHERE code = 'system:vouchers:SYP'")
    return found


async def test_made_and_redeemed(person: MakePerson, owner: Raw) -> None:
    ann, bob = await person(balance=10_000, merchant=True), await person()
    voucher = await make(ann, 50)
    assert list(voucher) == [
        "id", "code", "amount_cents", "amount_syp", "currency_code", "status", "qr_text", "created_at", "redeemed_at",
    ]  # fmt: skip
    assert len(voucher["code"]) == 16
    assert int(voucher["code"], 16) >= 0
    assert {**voucher, "id": 0, "code": 0, "created_at": 0} == {
        "id": 0, "code": 0, "amount_cents": 5_000, "amount_syp": 50, "currency_code": "SYP", "status": "active",
        "qr_text": f"VCHR|{voucher['code']}", "created_at": 0, "redeemed_at": None,
    }  # fmt: skip
    assert (await ann.balance(), await waiting(owner)) == (5_000, 5_000)

    said = await redeem(bob, voucher["code"])
    assert said.json == {**voucher, "status": "redeemed", "redeemed_at": said.json["redeemed_at"]}
    assert said.json["redeemed_at"].endswith("Z")
    assert (await bob.balance(), await waiting(owner)) == (4_950, 0)
    assert (await redeem(bob, voucher["code"])).refusal == (400, "Voucher not active")
    assert (await ann.get("/vouchers")).json["items"] == [said.json]
    assert (await bob.get("/vouchers")).json == {"items": []}

    events = await owner.fetch("SELECT event_type FROM outbox_events ORDER BY id")
    assert [row["event_type"] for row in events] == ["vouchers.create", "vouchers.redeem"]
    audit = await owner.fetch("SELECT type, actor FROM audit_events WHERE type LIKE 'vouchers.%' ORDER BY id")
    assert [tuple(row) for row in audit] == [
        ("vouchers.create", f"user:{ann.user.id}"),
        ("vouchers.redeem", f"user:{bob.user.id}"),
    ]


@pytest.mark.shared
async def test_nobody_makes_money(person: MakePerson) -> None:
    ann = await person(balance=99)
    assert (await ann.post("/vouchers", {"amount_syp": 1}, key="k")).refusal == (400, "Insufficient balance")
    assert (await ann.get("/vouchers")).json == {"items": []}
    await ann.top_up(1)
    said = await ann.post("/vouchers", {"amount_syp": 1}, key="k")
    assert (said.status, await ann.balance()) == (200, 0)
    await redeem(ann, said.json["code"])
    assert await ann.balance() == 99


@pytest.mark.shared
async def test_the_makers_limits_count(person: MakePerson) -> None:
    ann = await person(balance=200_000_000)
    said = await ann.post("/vouchers", {"amount_syp": 1_000_001})
    assert said.refusal == (400, "KYC transaction limit exceeded")


@pytest.mark.shared
async def test_keys(person: MakePerson) -> None:
    ann, bob = await person(balance=10_000), await person()
    said = await asyncio.gather(*(ann.post("/vouchers", {"amount_syp": 1}, key="k") for _ in range(6)))
    assert {one.status for one in said} == {200}
    assert len({one.body for one in said}) == 1
    conflict = (409, "Idempotency-Key conflict for different request")
    assert (await ann.post("/vouchers", {"amount_syp": 2}, key="k")).refusal == conflict
    code = said[0].json["code"]
    redeemed = await redeem(bob, code, "r")
    assert (await redeem(bob, code, "r")).body == redeemed.body
    assert (await redeem(ann, code, "r")).refusal == (400, "Voucher not active")
    assert (await redeem(bob, (await make(ann, 3))["code"], "r")).refusal == conflict
    # What was answered first stays the answer.
    assert (await ann.post("/vouchers", {"amount_syp": 1}, key="k")).body == said[0].body
    assert (await ann.balance(), await bob.balance()) == (9_600, 99)


@pytest.mark.shared
async def test_refusals(person: MakePerson, nobody: Person) -> None:
    ann = await person(balance=1_000)
    for units in (0, -1, 1.5, "x", None, 2**62, 10**30):
        assert (await ann.post("/vouchers", {"amount_syp": units})).status == 422
    said = await ann.post("/vouchers", {"amount_syp": 1, "currency_code": "USD"})
    assert said.refusal == (400, "Currency mismatch")
    for code in ("0123456789abcdef", "%20", "x" * 300):
        assert (await redeem(ann, code)).refusal == (404, "Voucher not found")
    assert (await nobody.post("/vouchers", {"amount_syp": 1})).refusal == (403, "Not authenticated")


async def test_who_is_an_administrator(person: MakePerson, nobody: Person) -> None:
    ann = await person()
    for method, path in (
        ("POST", BULK),
        ("GET", "/vouchers/admin/summary"),
        ("GET", "/vouchers/admin/list"),
        ("GET", "/vouchers/admin/export"),
        ("POST", "/vouchers/admin/0123/revoke"),
    ):
        assert (await nobody.ask(method, path)).refusal == (403, "Not authenticated")
        assert (await ann.ask(method, path)).refusal == (401, "Admin token invalid")
    path = "/vouchers/admin/fees/entries"
    assert (await ann.get(path)).refusal == (401, "Admin token invalid")
    assert (await ask_admin(nobody, "GET", path)).json == {"items": []}


async def test_bulk(person: MakePerson, owner: Raw) -> None:
    ann = await person()
    body = {"amount_syp": 5, "count": 3, "prefix": "Xmas_"}
    first = await ann.ask("POST", BULK, body, headers={**TOKEN, "Idempotency-Key": "k"})
    again = await ann.ask("POST", BULK, body, headers={**TOKEN, "Idempotency-Key": "k"})
    assert (first.status, again.body) == (200, first.body)
    codes = [one["code"] for one in first.json["items"]]
    assert len(set(codes)) == 3
    assert all(code.startswith("Xmas_") and len(code) == 21 for code in codes)
    assert (await ann.balance(), await waiting(owner)) == (0, 1_500)
    for prefix in ("x" * 11, "a b", "é", "a\n"):
        said = await ask_admin(ann, "POST", BULK, {**body, "prefix": prefix})
        assert said.refusal == (400, "Invalid prefix")
    for count in (0, 1_001, "x"):
        assert (await ask_admin(ann, "POST", BULK, {**body, "count": count})).status == 422
    said = await ask_admin(ann, "POST", BULK, {"amount_syp": 4 * 10**16, "count": 1_000})
    assert said.refusal == (400, "Balance out of range")


async def test_revoked(person: MakePerson, owner: Raw) -> None:
    ann, bob = await person(balance=1_000), await person()
    code = (await make(ann, 10))["code"]
    said = await ask_admin(bob, "POST", f"/vouchers/admin/{code}/revoke")
    assert (said.status, said.json["status"], await ann.balance()) == (200, "revoked", 1_000)
    again = await ask_admin(bob, "POST", f"/vouchers/admin/{code}/revoke")
    assert again.refusal == (400, "Cannot revoke non-active voucher")
    assert (await redeem(bob, code)).refusal == (400, "Voucher not active")
    unknown = await ask_admin(bob, "POST", "/vouchers/admin/nonsense/revoke")
    assert unknown.refusal == (404, "Voucher not found")
    # What the promotions account has paid for goes back there.
    bulk = await ask_admin(ann, "POST", BULK, {"amount_syp": 5, "count": 1})
    code = bulk.json["items"][0]["code"]
    assert (await ask_admin(bob, "POST", f"/vouchers/admin/{code}/revoke")).status == 200
    assert (await ann.balance(), await waiting(owner)) == (1_000, 0)


async def test_what_administrators_see(person: MakePerson) -> None:
    ann, bob = await person(balance=100_000), await person(balance=100_000)
    one, two, three = await make(ann, 100), await make(ann, 101), await make(bob, 50)
    await redeem(bob, one["code"])
    await redeem(bob, two["code"])
    await ask_admin(ann, "POST", f"/vouchers/admin/{three['code']}/revoke")

    async def summary(**params: str) -> list[int]:
        return list((await ask_admin(ann, "GET", "/vouchers/admin/summary", **params)).json.values())

    # The fees are 100 and 101 minor units; whole ones are shown.
    assert await summary() == [3, 0, 2, 1, 251, 201, 2, 199]
    assert await summary(created_by="me") == [2, 0, 2, 0, 201, 201, 2, 199]

    async def codes(**params: str) -> list[str]:
        said = await ask_admin(ann, "GET", "/vouchers/admin/list", **params)
        return [item["code"] for item in said.json["items"]]

    newest_first = [three["code"], two["code"], one["code"]]
    assert await codes() == newest_first
    assert await codes(limit="1") == newest_first[:1]
    assert await codes(status="revoked") == await codes(created_by=bob.phone) == newest_first[:1]
    assert await codes(prefix=one["code"][:12]) == [one["code"]]
    assert await codes(created_by=str(bob.user.id)) == newest_first[:1]
    assert await codes(status="nonsense") == await codes(created_by="+963000") == []
    for limit in ("0", "1001", "x"):
        assert (await ask_admin(ann, "GET", "/vouchers/admin/list", limit=limit)).status == 422

    listed = (await ask_admin(ann, "GET", "/vouchers/admin/list")).json["items"][2]
    assert list(listed.items())[:4] == [
        ("id", one["id"]),
        ("code", one["code"]),
        ("amount_syp", 100),
        ("status", "redeemed"),
    ]
    assert (listed["created_by_phone"], listed["redeemed_by_phone"]) == (ann.phone, bob.phone)

    fees = (await ask_admin(ann, "GET", "/vouchers/admin/fees/entries")).json["items"]
    assert [(fee["code"], fee["amount_cents"], fee["amount_syp"]) for fee in fees] == [
        (two["code"], 101, 1),
        (one["code"], 100, 1),
    ]
    assert fees[1]["created_at"] == listed["redeemed_at"]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.wallets.vouchers.EXPORT_PAGE", 2)


@pytest.mark.usefixtures("small_pages")
async def test_export(person: MakePerson) -> None:
    ann = await person()
    await ask_admin(ann, "POST", BULK, {"amount_syp": 5, "count": 5, "prefix": "P"})
    said = await ask_admin(ann, "GET", "/vouchers/admin/export")
    assert said.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert said.body.startswith(
        b"code,amount_syp,status,created_at,redeemed_at,created_by_phone,redeemed_by_phone,qr_text\r\n"
    )
    rows = list(csv.DictReader(io.StringIO(said.body.decode())))
    listed = (await ask_admin(ann, "GET", "/vouchers/admin/list")).json["items"]
    assert [row["code"] for row in rows] == [item["code"] for item in listed]
    assert len(rows) == 5
    assert rows[0]["qr_text"] == f"VCHR|{rows[0]['code']}"
    assert (rows[0]["created_by_phone"], rows[0]["redeemed_at"]) == (f"'{ann.phone}", "")


async def test_round_trips(person: MakePerson, round_trips: list[str]) -> None:
    ann, bob = await person(balance=10_000), await person()
    await redeem(bob, (await make(ann, 1))["code"])  # which makes the fee wallet
    round_trips.clear()
    code = (await make(ann, 1))["code"]
    assert len(round_trips) <= 3, round_trips
    round_trips.clear()
    assert (await redeem(bob, code)).status == 200
    assert len(round_trips) <= 3, round_trips


async def test_sixteen_at_once_in_two_processes(person: MakePerson, elsewhere: ApiClient) -> None:
    ann = await person(balance=10_000)
    people = [await person() for _ in range(16)]
    people[::2] = [one.at(elsewhere) for one in people[::2]]
    code = (await make(ann, 100))["code"]
    said = await asyncio.gather(*(redeem(one, code, new_key()) for one in people))
    assert sorted(one.status for one in said) == [200] + [400] * 15
    assert sum([await one.balance() for one in people]) == 9_900


async def test_two_at_once_without_the_lock(
    person: MakePerson, elsewhere: ApiClient, owner: Raw, eventually: Wait
) -> None:
    ann, bob, eve = await person(balance=10_000), await person(), await person()
    eve = eve.at(elsewhere)

    async def both() -> list[int]:
        code = (await make(ann, 10))["code"]
        await install(owner, *guards, (LOCK, BARRIER + "\n" + LOCK))
        calls = [redeem(one, code) for one in (bob, eve)]
        statuses = sorted(said.status for said in await at_barrier(owner, calls, eventually))
        await install(owner)
        return statuses

    await redeem(bob, (await make(ann, 1))["code"])  # which makes the fee wallet
    guards = [(PAYABLE_LOCK, "")]
    assert await both() == [200, 200]
    guards = []
    assert await both() == [200, 400]


async def test_redeemed_and_revoked_at_once(person: MakePerson, elsewhere: ApiClient, owner: Raw) -> None:
    ann, bob = await person(balance=800), await person()
    there = ann.at(elsewhere)
    for _ in range(8):
        code = (await make(ann, 1))["code"]
        said = await asyncio.gather(
            redeem(bob, code), ask_admin(there, "POST", f"/vouchers/admin/{code}/revoke")
        )
        assert sorted(one.status for one in said) == [200, 400]
    assert await waiting(owner) == 0
