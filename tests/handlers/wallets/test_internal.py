"""The internal API: who signs what, what a signature is good for, and what sibling services get."""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from core.access.internal_hmac import forget_signatures, signature_of
from core.service import Service
from core.settings import Settings
from ops.embedded import EmbeddedServers
from tests.chaos.staging import Raw
from tests.handlers.wallets.conftest import (
    INTERNAL,
    ApiClient,
    MakePerson,
    Person,
    Said,
    new_key,
)

TRANSFER, REQUESTS, INVOICES = "/internal/transfer", "/internal/requests", "/internal/invoices"
FORBIDDEN = (403, "Forbidden")


class Sibling:
    """A sibling service: it signs compact JSON, and sends the same with blanks."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    async def send(self, method: str, path: str, raw: bytes | None, headers: Mapping[str, str]) -> Said:
        headers = {"Content-Type": "application/json", **headers}
        async with self.client.request(method, path, data=raw, headers=headers) as response:
            return Said(response.status, await response.read(), response.headers)

    async def post(
        self,
        path: str,
        payload: Any,
        *,
        key: str | None = None,
        ts: str | None = None,
        sign: str | None = None,
    ) -> Said:
        ts = str(uuid4()) if ts is None else ts
        headers = {
            "X-Internal-Ts": ts,
            "X-Internal-Sign": signature_of(INTERNAL, ts, payload) if sign is None else sign,
        }
        if key is not None:
            headers["X-Idempotency-Key"] = key
        return await self.send("POST", path, json.dumps(payload).encode(), headers)

    async def get(self, path: str, payload: Any, *, ts: str | None = None, sign: str | None = None) -> Said:
        ts = uuid4().hex if ts is None else ts
        sign = signature_of(INTERNAL, ts, payload) if sign is None else sign
        return await self.send("GET", path, None, {"X-Internal-Ts": ts, "X-Internal-Sign": sign})


@pytest.fixture
def sibling(wallets: ApiClient) -> Sibling:
    return Sibling(wallets)


def payment(payer: Person, payee: Person, amount: Any = 100) -> dict[str, Any]:
    return {"from_phone": payer.phone, "to_phone": payee.phone, "amount_cents": amount}


async def only_row(owner: Raw, statement: str, *arguments: Any) -> Any:
    row = await owner.fetchrow(statement, *arguments)
    assert row is not None
    return row


async def test_transfer(person: MakePerson, sibling: Sibling, owner: Raw) -> None:
    ann, bob = await person(balance=200_000_000), await person(merchant=True)
    # Beyond every KYC limit, and without a fee.
    payload = payment(ann, bob, 150_000_000)
    said = await sibling.post(TRANSFER, payload, key="taxi:1:escrow")
    assert said.status == 200, said
    assert {**said.json, "transfer_id": 0} == {
        "transfer_id": 0,
        "from_wallet_id": str(ann.user.wallet_id),
        "to_wallet_id": str(bob.user.wallet_id),
        "amount_cents": 150_000_000,
        "currency_code": "SYP",
        "status": "completed",
    }
    # Signed anew, as every try is, under the same key.
    assert (await sibling.post(TRANSFER, payload, key="taxi:1:escrow")).body == said.body
    changed = await sibling.post(TRANSFER, {**payload, "amount_cents": 1}, key="taxi:1:escrow")
    assert changed.refusal == (409, "Idempotency-Key conflict for different request")
    assert (await ann.balance(), await bob.balance()) == (50_000_000, 150_000_000)
    assert (await sibling.post(TRANSFER, payload)).refusal == (400, "Insufficient balance")
    assert (await sibling.post(TRANSFER, payment(ann, ann))).status == 200
    assert await ann.balance() == 50_000_000
    audit = await owner.fetch("SELECT actor FROM audit_events WHERE type = 'internal.transfer'")
    assert {row["actor"] for row in audit} == {"internal"}
    assert await owner.fetchval("SELECT count(*) FROM outbox_events") == 1


async def test_what_is_signed(person: MakePerson, sibling: Sibling) -> None:
    ann, bob = await person(balance=1_000), await person()
    payload = {**payment(ann, bob, 1), "note": "قهوة \u00e9", "n": [1.0, 1e5, True, None, 2**70]}
    assert (await sibling.post(TRANSFER, payload)).status == 200
    assert (await sibling.post(TRANSFER, dict(reversed(payload.items())))).status == 200
    for sign in ("", "0" * 64, "é", "\u20ac", signature_of("another", "t", payload)):
        assert (await sibling.post(TRANSFER, payload, ts="t", sign=sign)).refusal == FORBIDDEN
    right = signature_of(INTERNAL, "t", payload)
    assert (await sibling.post(TRANSFER, payload, ts="u", sign=right)).refusal == FORBIDDEN
    assert (await sibling.post(TRANSFER, {**payload, "n": 0}, ts="t", sign=right)).refusal == FORBIDDEN
    assert (await sibling.post(TRANSFER, payload, ts="t", sign=right.upper())).refusal == FORBIDDEN
    assert await ann.balance() == 998


async def test_the_body_is_an_object_before_anything_else(sibling: Sibling) -> None:
    for raw in (b"[]", b'"x"', b"1", b"null", b""):
        said = await sibling.send("POST", TRANSFER, raw, {})
        assert said.status == 422
        assert said.json["detail"][0]["type"] == ("missing" if raw in {b"null", b""} else "dict_type")
    assert (await sibling.send("POST", TRANSFER, b"{", {})).json["detail"][0]["type"] == "json_invalid"
    assert (await sibling.send("POST", TRANSFER, b"{}", {})).refusal == FORBIDDEN
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    for raw in (deep, b'{"a":' + b"9" * 5_000 + b"}"):
        assert (await sibling.send("POST", TRANSFER, raw, {})).status in {400, 403, 422}


async def test_a_signature_is_good_for_one_thing(person: MakePerson, sibling: Sibling) -> None:
    ann, bob = await person(balance=1_000), await person()
    payload = payment(ann, bob)
    # Without a key it is good for one call.
    assert (await sibling.post(TRANSFER, payload, ts="one")).status == 200
    assert (await sibling.post(TRANSFER, payload, ts="one")).refusal == FORBIDDEN
    assert (await sibling.post(TRANSFER, payload, ts="one", key="k1")).refusal == FORBIDDEN
    # With one it is good for that one: whoever caught it cannot pay again under another, or at another door.
    first = await sibling.post(TRANSFER, payload, ts="two", key="k2")
    assert (await sibling.post(TRANSFER, payload, ts="two", key="k2")).body == first.body
    for key in ("k3", None):
        assert (await sibling.post(TRANSFER, payload, ts="two", key=key)).refusal == FORBIDDEN
    assert (await sibling.post(REQUESTS, payload, ts="two", key="k2")).refusal == FORBIDDEN
    # A request that was asked for does not become a payment.
    assert (await sibling.post(REQUESTS, payload, ts="three", key="k4")).status == 200
    assert (await sibling.post(TRANSFER, payload, ts="three", key="k4")).refusal == FORBIDDEN
    assert await ann.balance() == 800


async def test_one_signature_under_many_keys_at_once(person: MakePerson, sibling: Sibling) -> None:
    ann, bob = await person(balance=10_000), await person()
    payload = payment(ann, bob)
    said = await asyncio.gather(*(sibling.post(TRANSFER, payload, ts="t", key=new_key()) for _ in range(16)))
    assert sorted(one.status for one in said) == [200] + [403] * 15
    assert await ann.balance() == 9_900


async def test_it_matters_that_signatures_are_remembered(
    person: MakePerson, sibling: Sibling, owner: Raw
) -> None:
    ann, bob = await person(balance=1_000), await person()
    payload = payment(ann, bob)
    for key in ("k1", "k2"):
        assert (await sibling.post(TRANSFER, payload, ts="t", key=key)).status == 200
        await owner.execute("DELETE FROM internal_signatures")
    assert await ann.balance() == 800


async def test_a_time_is_a_time(
    person: MakePerson, sibling: Sibling, settings: Settings, service: Service, owner: Raw
) -> None:
    ann, bob = await person(balance=1_000), await person()
    now = int(time.time())
    for ts in (f"{now}", f"{now - 250}", f"{now + 250}.5"):
        assert (await sibling.post(TRANSFER, payment(ann, bob, 1), ts=ts)).status == 200
    for ts in (f"{now - 310}", f"{now + 310}", "100000000", "9999999999.999"):
        assert (await sibling.post(TRANSFER, payment(ann, bob, 1), ts=ts)).refusal == FORBIDDEN
    for ts in ("0", str(uuid4()), "1" * 40, "-5", "١٢٣٤٥٦٧٨٩٠"):
        assert (await sibling.post(TRANSFER, payment(ann, bob, 1), ts=ts)).status == 200
    # Those with a time are forgotten when it is over, the others never.
    assert await forget_signatures(service.database) == 0
    late = datetime.now(UTC) - timedelta(seconds=3 * settings.internal_hmac_ttl_secs)
    await owner.execute("UPDATE internal_signatures SET expires_at = $1 WHERE expires_at IS NOT NULL", late)
    assert await forget_signatures(service.database) == 3
    assert await owner.fetchval("SELECT count(*) FROM internal_signatures") == 5


async def test_plain_secret_is_refused(person: MakePerson, sibling: Sibling) -> None:
    ann, bob = await person(balance=1_000), await person()
    raw = json.dumps(payment(ann, bob)).encode()
    assert (await sibling.send("POST", TRANSFER, raw, {"X-Internal-Secret": INTERNAL})).refusal == FORBIDDEN


class TestPlainSecret:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return Settings.model_validate(settings.model_dump() | {"internal_require_hmac": False})

    async def test_accepted(self, person: MakePerson, sibling: Sibling) -> None:
        ann, bob = await person(balance=1_000), await person()
        raw = json.dumps(payment(ann, bob)).encode()
        headers = {"X-Internal-Secret": INTERNAL, "X-Idempotency-Key": "k"}
        first = await sibling.send("POST", TRANSFER, raw, headers)
        assert first.status == 200
        assert (await sibling.send("POST", TRANSFER, raw, headers)).body == first.body
        for secret in ("", "wrong", "é"):
            said = await sibling.send("POST", TRANSFER, raw, {"X-Internal-Secret": secret})
            assert said.refusal == FORBIDDEN
        # Where there is a signature, it alone counts.
        signed = {**headers, "X-Internal-Sign": "0" * 64, "X-Internal-Ts": "t"}
        assert (await sibling.send("POST", TRANSFER, raw, signed)).refusal == FORBIDDEN


class TestSwitchedOff:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return Settings.model_validate(settings.model_dump() | {"internal_api_secret": ""})

    async def test_not_there(self, sibling: Sibling) -> None:
        sign = signature_of("", "t", {})
        assert (await sibling.post(TRANSFER, {}, ts="t", sign=sign)).status == 404


async def test_bad_payloads(person: MakePerson, sibling: Sibling) -> None:
    ann, bob = await person(balance=1_000), await person()
    good = payment(ann, bob)
    invalid = (400, "Invalid payload")
    for amount in ("100", 0, -1, 1.5, 100.0, None, False, True, 2**62, 10**30, [1]):
        assert (await sibling.post(TRANSFER, {**good, "amount_cents": amount})).refusal == invalid
    phones: tuple[Any, ...] = (
        "",
        "963",
        "+96 39",
        "+" + "9" * 40,
        5,
        None,
        {},
        "+963900000 ext 1",
        "0944123456",
    )
    for phone in phones:
        for name in ("from_phone", "to_phone"):
            assert (await sibling.post(TRANSFER, {**good, name: phone})).refusal == invalid
    too_long = await sibling.post(TRANSFER, good, key="x" * 65)
    assert too_long.refusal == (400, "Idempotency key too long")
    wrong: list[dict[str, Any]] = [
        {"metadata": []},
        {"metadata": "x"},
        {"expires_in_minutes": -1},
        {"expires_in_minutes": "x"},
        {"expires_in_minutes": True},
    ]
    for more in wrong:
        assert (await sibling.post(REQUESTS, {**good, **more})).refusal == invalid
    for more in (
        {"due_in_days": "soon"}, {"due_in_days": -1}, {"due_in_days": 10**9}, {"reference": "x" * 129},
        {"description": 5}, {"due_in_days": True},
    ):  # fmt: skip
        assert (await sibling.post(INVOICES, {**good, **more})).refusal == invalid
    assert await ann.balance() == 1_000


async def test_wallet(person: MakePerson, sibling: Sibling, owner: Raw) -> None:
    ann = await person(balance=70, merchant=True, kyc=1)

    async def look(query: str, payload: Any, **more: str) -> Said:
        return await sibling.get(f"/internal/wallet?phone={query}", payload, **more)

    expected = {
        "phone": ann.phone,
        "wallet_id": str(ann.user.wallet_id),
        "balance_cents": 70,
        "currency_code": "SYP",
    }
    digits = ann.phone[1:]
    assert (await look(f"%2B{digits}", {"phone": ann.phone})).json == expected
    # A plus that was not encoded, signed as it was meant and as it arrives.
    assert (await look(f"+{digits}", {"phone": ann.phone})).json == expected
    assert (await look(f"+{digits}", {"phone": f" {digits}"})).json == expected
    assert (await look(f"%2B{digits}", {"phone": "+963"})).refusal == FORBIDDEN
    assert (await look(f"%2B{digits}", {"phone": ann.phone}, ts="t")).status == 200
    assert (await look(f"%2B{digits}", {"phone": ann.phone}, ts="t")).refusal == FORBIDDEN
    assert (await sibling.get("/internal/wallet", {})).status == 422

    users = await owner.fetchval("SELECT count(*) FROM users")
    for garbage in ("x", "", "%2B12", "963900000001", "%00", "%2B963%20900"):
        said = await look(garbage, {"phone": "x"})
        assert said.status in {400, 403, 422}
    assert (await look("garbage", {"phone": "garbage"})).refusal == (400, "Invalid phone format")
    assert await owner.fetchval("SELECT count(*) FROM users") == users
    new = await look("%2B963955555555", {"phone": "+963955555555"})
    assert (new.json["phone"], new.json["balance_cents"]) == ("+963955555555", 0)
    row = await only_row(owner, "SELECT is_merchant, kyc_level FROM users WHERE id = $1", ann.user.id)
    assert tuple(row) == (True, 1)


async def test_requests(person: MakePerson, sibling: Sibling, owner: Raw) -> None:
    ann, bob = await person(merchant=True), await person()
    payload = {**payment(ann, bob), "expires_in_minutes": 20_000, "metadata": {"b": 1, "a": [None, "é"]}}
    said = await sibling.post(REQUESTS, payload, key="k")
    assert list(said.json) == ["id"]
    assert (await sibling.post(REQUESTS, payload, key="k")).body == said.body
    assert (await sibling.post(REQUESTS, {**payload, "amount_cents": 1}, key="k")).status == 409
    assert (await sibling.post(REQUESTS, payload)).json != said.json
    request_id = said.json["id"]
    shown = await sibling.get(f"/internal/requests/{request_id}", {"id": request_id})
    assert {**shown.json, "created_at": 0} == {
        "id": request_id,
        "status": "pending",
        "amount_cents": 100,
        "requester_phone": ann.phone,
        "target_phone": bob.phone,
        "created_at": 0,
    }
    row = await only_row(
        owner,
        "SELECT kind, payee_id, payer_id, details, expires_at - created_at AS life FROM payables WHERE id = $1",
        request_id,
    )
    assert (row["kind"], row["payee_id"], row["payer_id"]) == ("request", ann.user.id, bob.user.id)
    assert json.loads(json.loads(row["details"])["metadata"]) == payload["metadata"]
    assert timedelta(minutes=10_079) < row["life"] <= timedelta(minutes=10_080)
    events = await owner.fetch("SELECT principal_id, event_type FROM outbox_events ORDER BY id")
    assert tuple(events[0]) == (ann.user.principal_id, "requests.create")

    for unknown in (str(uuid4()), "nonsense"):
        said = await sibling.get(f"/internal/requests/{unknown}", {"id": unknown})
        assert said.refusal == (404, "Not found")


async def test_a_request_lasts_as_long_as_others(person: MakePerson, sibling: Sibling, owner: Raw) -> None:
    ann, bob = await person(), await person()
    spans: tuple[Any, ...] = (None, 0, "30", 30)
    terms: list[dict[str, Any]] = [{}, *({"expires_in_minutes": span} for span in spans)]
    for more in terms:
        said = await sibling.post(REQUESTS, {**payment(ann, bob), **more})
        life = await owner.fetchval(
            "SELECT expires_at - created_at FROM payables WHERE id = $1", said.json["id"]
        )
        assert timedelta(minutes=29) < life <= timedelta(minutes=30)


async def test_strangers_get_wallets(sibling: Sibling, owner: Raw) -> None:
    phones = ["+963911111111", "+963922222222"]
    payload = {"from_phone": phones[0], "to_phone": phones[1], "amount_cents": 5}
    said = await sibling.post(REQUESTS, payload)
    assert said.status == 200
    rows = await owner.fetch("SELECT phone FROM users WHERE phone = any($1) ORDER BY phone", phones)
    assert [row["phone"] for row in rows] == phones
    assert (await sibling.post(TRANSFER, payload)).refusal == (403, "Phone not proven")


async def test_invoices(person: MakePerson, sibling: Sibling, owner: Raw) -> None:
    ann, bob = await person(merchant=True), await person()
    payload = {**payment(ann, bob), "due_in_days": "3", "reference": "R-1", "description": "tea"}
    said = await sibling.post(INVOICES, payload, key="k")
    assert list(said.json) == ["id"]
    assert (await sibling.post(INVOICES, payload, key="k")).body == said.body
    # Another key is another invoice, whatever else is the same; and a request's key is another one.
    assert (await sibling.post(INVOICES, payload, key="k2")).json != said.json
    assert (await sibling.post(REQUESTS, payment(ann, bob), key="k")).status == 200
    row = await only_row(owner, "SELECT * FROM payables WHERE id = $1", said.json["id"])
    assert (row["kind"], row["payee_id"], row["payer_id"]) == ("invoice", ann.user.id, bob.user.id)
    assert json.loads(row["details"]) == {"reference": "R-1", "description": "tea", "collects": "anybody"}
    assert timedelta(days=2) < row["due_at"] - row["created_at"] <= timedelta(days=3)


async def test_one_key_at_once(person: MakePerson, sibling: Sibling) -> None:
    ann, bob = await person(balance=1_000), await person()
    for path in (TRANSFER, REQUESTS):
        said = await asyncio.gather(
            *(sibling.post(path, payment(ann, bob), key="the same") for _ in range(8))
        )
        assert {one.status for one in said} == {200}
        assert len({one.body for one in said}) == 1
    assert await ann.balance() == 900


async def test_round_trips(person: MakePerson, sibling: Sibling, round_trips: list[str]) -> None:
    ann, bob = await person(balance=1_000), await person()
    round_trips.clear()
    assert (await sibling.post(TRANSFER, payment(ann, bob), key="k")).status == 200
    assert len(round_trips) <= 3, round_trips


async def test_without_redis(person: MakePerson, sibling: Sibling, servers: EmbeddedServers) -> None:
    ann, bob = await person(balance=1_000), await person()
    servers.valkey.stop()
    assert (await sibling.post(TRANSFER, payment(ann, bob), ts="t")).status == 200
    assert (await sibling.post(TRANSFER, payment(ann, bob), ts="t")).refusal == FORBIDDEN
    servers.valkey.start()
    assert await ann.balance() == 900
