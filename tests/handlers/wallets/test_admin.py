"""What an administrator does, over HTTP: with rows and answers, the audit of each, and what cannot be."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core import ids
from core.outbox.events import emit
from core.platform.config import Config
from core.service import Service, open_service
from core.settings import Settings
from core.wallets.platform import Platform
from handlers.app import create_app
from tests.handlers.wallets.conftest import ADMIN, ApiClient, MakePerson, Person, Said, new_key

Wait = Callable[..., Awaitable[Any]]
SECOND_ADMIN = "the-second-admin-token-of-32-chars"


class Administrator(Person):
    """Whoever has the admin token."""

    def __init__(self, client: ApiClient, token: str = ADMIN) -> None:
        super().__init__(client, None, None)
        self._headers = {"X-Admin-Token": token}

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Said:
        more["headers"] = self._headers | dict(more.get("headers", {}))
        return await super().ask(method, path, body, **more)

    async def audit(self, **params: str) -> list[dict[str, Any]]:
        said = await self.get("/admin/audit", **params)
        assert said.status == 200, said
        items: list[dict[str, Any]] = said.json["items"]
        return items


@pytest.fixture
def admin(wallets: ApiClient) -> Administrator:
    return Administrator(wallets)


@pytest.fixture
async def elsewhere(settings: Settings, wallets: ApiClient) -> AsyncIterator[ApiClient]:
    """A second process of the same deployment: another application with connections of its own."""
    async with (
        open_service(settings) as service,
        TestClient(TestServer(create_app(settings, service))) as client,
    ):
        yield client


# --- What is set at run time

FEES = {
    "merchant_fee_bps": 0,
    "cashin_fee_bps": 0,
    "cashout_fee_bps": 0,
    "fee_wallet_phone": "+963999999999",
}


async def test_fees(admin: Administrator) -> None:
    assert (await admin.get("/admin/config/fees")).json == FEES
    said = await admin.post(
        "/admin/config/fees", {"merchant_fee_bps": "150", "fee_wallet_phone": "+963111222"}
    )
    assert said.body == (
        b'{"merchant_fee_bps":150,"cashin_fee_bps":0,"cashout_fee_bps":0,"fee_wallet_phone":"+963111222"}'
    )
    assert (await admin.get("/admin/config/fees")).body == said.body
    # An old client sends what it does not change as null.
    nothing = await admin.post("/admin/config/fees", {"merchant_fee_bps": None})
    assert nothing.body == said.body
    (entry,) = await admin.audit(type="admin.config")
    assert entry["actor"] == "admin"
    assert entry["data"] == {
        "before": {"merchant_fee_bps": 0, "fee_wallet_phone": "+963999999999"},
        "after": {"merchant_fee_bps": 150, "fee_wallet_phone": "+963111222"},
    }


@pytest.mark.parametrize(
    "body",
    [
        {"merchant_fee_bps": -1},
        {"merchant_fee_bps": 10_001},
        {"cashin_fee_bps": 1.5},
        {"cashout_fee_bps": "x"},
        {"fee_wallet_phone": "963"},
        {"fee_wallet_phone": "+963\u0660\u0660\u0660\u0660"},
        {"merchant_fee_bps": 10**30},
        [],
        "text",
    ],
)
async def test_fees_that_cannot_be(admin: Administrator, body: Any) -> None:
    said = await admin.ask("POST", "/admin/config/fees", body)
    assert said.status == 422, said
    assert (await admin.get("/admin/config/fees")).json == FEES
    assert await admin.audit(type="admin.config") == []


async def test_fees_at_their_bounds(admin: Administrator) -> None:
    for bound in (0, 10_000):
        said = await admin.post("/admin/config/fees", {"merchant_fee_bps": bound})
        assert said.json["merchant_fee_bps"] == bound


async def test_rate_limits(admin: Administrator) -> None:
    said = await admin.post(
        "/admin/config/rate_limit", {"per_minute": 5_000, "auth_boost": 3, "exempt_otp": False}
    )
    assert said.body == b'{"per_minute":5000,"auth_boost":3,"exempt_otp":"false"}'
    said = await admin.post("/admin/config/rate_limit", {"per_minute": 0, "exempt_otp": "true"})
    assert said.body == b'{"per_minute":0,"auth_boost":3,"exempt_otp":"true"}'
    for body in ({"per_minute": -1}, {"auth_boost": 1_001}, {"exempt_otp": "perhaps"}):
        assert (await admin.post("/admin/config/rate_limit", body)).status == 422
    config = (await admin.get("/admin/config")).json
    assert config["fees"] == FEES
    assert config["rate_limit"] == {"per_minute": 0, "auth_boost": 3, "exempt_otp": "true"}
    assert [(one["name"], one["value"], one["updated_by"]) for one in config["overrides"]] == [
        ("rate_limit_auth_boost", 3, "admin"),
        ("rate_limit_exempt_otp", True, "admin"),
        ("rate_limit_per_minute", 0, "admin"),
    ]


async def test_another_process_sees_a_change_within_a_second(
    admin: Administrator, elsewhere: ApiClient, person: MakePerson, eventually: Wait
) -> None:
    """What the other process holds in memory, and not only what it reads when it is asked for it."""
    ann = await person()
    there = Person(elsewhere, ann.user, ann.token)
    assert int((await there.get("/wallet")).headers["RateLimit-Limit"]) == 2_000_000
    assert (await admin.post("/admin/config/rate_limit", {"per_minute": 7, "auth_boost": 3})).status == 200

    async def seen() -> bool:
        return int((await there.get("/wallet")).headers["RateLimit-Limit"]) == 21

    await eventually(seen, timeout=1.0)
    assert (await admin.post("/admin/config/fees", {"merchant_fee_bps": 42})).status == 200
    assert (await Administrator(elsewhere).get("/admin/config/fees")).json["merchant_fee_bps"] == 42


async def test_changes_at_once(admin: Administrator) -> None:
    """Each says what it found: the audit is one chain of before and after, and the last of it is in force."""
    fees = range(1, 25)
    said = await asyncio.gather(
        *(admin.post("/admin/config/fees", {"merchant_fee_bps": fee}) for fee in fees)
    )
    assert {one.status for one in said} == {200}
    changes = [entry["data"] for entry in await admin.audit(type="admin.config")]
    chain = {change["before"]["merchant_fee_bps"]: change["after"]["merchant_fee_bps"] for change in changes}
    now, seen = 0, []
    while now in chain:
        now = chain.pop(now)
        seen.append(now)
    assert (sorted(seen), chain) == ([*fees], {})
    assert (await admin.get("/admin/config/fees")).json["merchant_fee_bps"] == now


async def test_what_is_stored_and_cannot_be_is_left_out(platform: Platform, owner: Any) -> None:
    await owner.execute(
        "INSERT INTO platform_settings (name, value, updated_by) VALUES"
        " ('merchant_fee_bps', '-5', 'x'), ('cashin_fee_bps', '7', 'x'), ('of_the_future', '1', 'x')"
    )
    await platform.config.refresh()
    assert (platform.config.current.merchant_fee_bps, platform.config.current.cashin_fee_bps) == (0, 7)


async def test_settings_hold_until_something_is_set(service: Service, settings: Settings) -> None:
    config = Config(service.database, settings.model_copy(update={"cashout_fee_bps": 500}))
    await config.refresh()
    assert config.current.cashout_fee_bps == 500


# --- Whose token it is


@pytest.mark.parametrize("token", ["", "x", "Ω", ADMIN + " x", ADMIN.upper(), "x" * 5_000])
async def test_bad_token(wallets: ApiClient, token: str) -> None:
    said = await Administrator(wallets, token).get("/admin/config")
    assert said.refusal == (401, "Admin token invalid")


async def test_several_tokens_and_digests(settings: Settings, service: Service) -> None:
    digest = hashlib.sha256(b"kept as a digest only").hexdigest()
    changed = settings.model_copy(
        update={"admin_token": (ADMIN, SECOND_ADMIN), "admin_token_sha256": (digest,)}
    )
    async with TestClient(TestServer(create_app(changed, service))) as client:
        for token in (ADMIN, SECOND_ADMIN, "kept as a digest only"):
            assert (await Administrator(client, token).get("/admin/config")).status == 200
        assert (await Administrator(client, digest).get("/admin/config")).status == 401


async def test_without_administrators_there_is_nothing(settings: Settings, service: Service) -> None:
    changed = settings.model_copy(update={"admin_token": ()})
    async with TestClient(TestServer(create_app(changed, service))) as client:
        assert (await Administrator(client).get("/admin/config")).status == 404


# --- Merchants


async def test_merchants(admin: Administrator, person: MakePerson) -> None:
    ann, bob, eve = await person(merchant=True), await person(), await person(merchant=True)
    one = await admin.get("/admin/merchants", phone=bob.phone)
    assert one.json == {
        "user_id": str(bob.user.id),
        "phone": bob.phone,
        "is_merchant": False,
        "merchant_status": "none",
        "merchant_fee_bps": None,
    }
    # The plus of a query that nobody encoded.
    unencoded = await admin.ask("GET", f"/admin/merchants?phone={ann.phone}")
    assert unencoded.json["user_id"] == str(ann.user.id)
    assert (await admin.get("/admin/merchants", phone="+963000000000")).refusal == (404, "User not found")
    page = (await admin.get("/admin/merchants")).json
    assert [item["user_id"] for item in page["items"]] == [str(ann.user.id), str(eve.user.id)]
    assert (page["limit"], page["offset"]) == (50, 0)
    page = (await admin.get("/admin/merchants", limit="1", offset="1")).json
    assert [item["user_id"] for item in page["items"]] == [str(eve.user.id)]
    page = (await admin.get("/admin/merchants", after=str(ann.user.id))).json
    assert [item["user_id"] for item in page["items"]] == [str(eve.user.id)]
    for bad in ({"limit": "0"}, {"limit": "201"}, {"offset": "-1"}, {"after": "x"}):
        assert (await admin.get("/admin/merchants", **bad)).status == 422


async def test_set_merchant(admin: Administrator, person: MakePerson, owner: Any) -> None:
    ann = await person()
    path = f"/admin/merchants/{ann.user.id}/set"
    said = await admin.post(path, {"merchant_status": "applied"})
    assert (said.status, said.body) == (200, b'{"detail":"ok"}')
    found = (await admin.get("/admin/merchants", status="applied")).json["items"]
    assert [item["user_id"] for item in found] == [str(ann.user.id)]
    body = {"is_merchant": True, "merchant_status": "approved", "merchant_fee_bps": 250}
    for _ in range(2):
        assert (await admin.post(path, body)).status == 200
    shown = (await admin.get("/admin/merchants", phone=ann.phone)).json
    assert {name: shown[name] for name in body} == body
    # Null changes nothing; a fee of their own is taken away by name.
    assert (await admin.post(path, {"merchant_fee_bps": None})).status == 200
    assert (await admin.get("/admin/merchants", phone=ann.phone)).json["merchant_fee_bps"] == 250
    assert (await admin.post(path, {"no_own_fee": True})).status == 200
    assert (await admin.get("/admin/merchants", phone=ann.phone)).json["merchant_fee_bps"] is None
    entries = await admin.audit(type="merchants.set", user=str(ann.user.id))
    assert [entry["data"]["after"]["merchant_fee_bps"] for entry in entries] == [None, 250, None]
    assert await owner.fetchval("SELECT merchant_since IS NOT NULL FROM users WHERE id = $1", ann.user.id)
    # Whoever is a merchant hears of it.
    told = await owner.fetchval(
        "SELECT count(*) FROM outbox_events WHERE event_type = 'merchants.set' AND principal_id = $1",
        ann.user.principal_id,
    )
    assert told == 2


async def test_merchants_that_cannot_be(admin: Administrator, person: MakePerson) -> None:
    ann = await person()
    path = f"/admin/merchants/{ann.user.id}/set"
    for body in ({"merchant_fee_bps": -1}, {"merchant_fee_bps": 10_001}, {"merchant_status": "vip"}):
        assert (await admin.post(path, body)).status == 422
    assert (await admin.post(f"/admin/merchants/{uuid4()}/set")).refusal == (404, "User not found")
    said = await admin.post("/admin/merchants/x/set")
    assert said.status == 422
    assert [error["loc"] for error in said.json["detail"]] == [["path", "user_id"]]


# --- KYC


async def test_kyc_review(admin: Administrator, person: MakePerson, owner: Any) -> None:
    ann, bob = await person(), await person(merchant=True)
    for who in (ann, bob):
        await owner.execute("UPDATE users SET kyc_status = 'pending' WHERE id = $1", who.user.id)
    first = (await admin.get("/admin/kyc", limit="1")).json
    assert [item["user_id"] for item in first["items"]] == [str(ann.user.id)]
    rest = (await admin.get("/admin/kyc", limit="1", after=first["next"])).json
    assert ([item["user_id"] for item in rest["items"]], rest["next"]) == ([str(bob.user.id)], None)
    path = f"/admin/kyc/{ann.user.id}/review"
    for _ in range(2):
        said = await admin.post(path, {"decision": "approve", "level": 2})
        assert said.json == {"detail": "approved", "kyc_level": 2}
    assert (await admin.post(f"/admin/kyc/{bob.user.id}/review", {"decision": "reject"})).status == 422
    said = await admin.post(
        f"/admin/kyc/{bob.user.id}/review", {"decision": "reject", "reason": "the picture is blurred"}
    )
    assert said.json == {"detail": "rejected", "kyc_level": 0}
    assert (await admin.get("/admin/kyc")).json == {"items": [], "next": None}
    (entry,) = await admin.audit(type="kyc.review", user=str(bob.user.id))
    assert entry["data"]["reason"] == "the picture is blurred"
    assert (await admin.post(f"/admin/kyc/{bob.user.id}/review", {"decision": "approve"})).refusal == (
        409,
        "KYC not pending",
    )
    assert await owner.fetchval("SELECT count(*) FROM outbox_events WHERE event_type = 'kyc.review'") == 1
    assert (await admin.post(f"/admin/kyc/{uuid4()}/review", {"decision": "approve"})).status == 404


async def test_two_reviewers_at_once(admin: Administrator, person: MakePerson, owner: Any) -> None:
    """Whoever comes second sees what the first has decided: one decision of two is written, not both."""
    for _ in range(5):
        ann = await person()
        await owner.execute("UPDATE users SET kyc_status = 'pending' WHERE id = $1", ann.user.id)
        path = f"/admin/kyc/{ann.user.id}/review"
        said = await asyncio.gather(
            *(admin.post(path, {"decision": "reject", "reason": "no"}) for _ in range(4))
        )
        assert {one.status for one in said} == {200}
        assert len(await admin.audit(type="kyc.review", user=str(ann.user.id))) == 1


# --- Frozen wallets, ended sign-ins


async def test_freeze(admin: Administrator, person: MakePerson) -> None:
    ann, bob = await person(balance=1_000), await person(balance=1_000)
    path, reason = f"/admin/wallets/{ann.user.id}", {"reason": "stolen phone"}
    assert (await admin.post(f"{path}/freeze")).status == 422
    assert (await admin.post(f"{path}/freeze", reason)).json == {"detail": "frozen"}
    assert (await admin.post(f"{path}/freeze", reason)).json == {"detail": "already frozen"}
    for payer, payee in ((ann, bob), (bob, ann)):
        body = {"to_phone": payee.phone, "amount_cents": 1, "idempotency_key": "k"}
        assert (await payer.post("/wallet/transfer", body)).refusal == (403, "Wallet frozen")
    assert (await ann.get("/wallet")).status == 200
    assert (await admin.post(f"{path}/unfreeze", reason)).json == {"detail": "active"}
    assert (await admin.post(f"{path}/unfreeze", reason)).json == {"detail": "already active"}
    body = {"to_phone": bob.phone, "amount_cents": 1, "idempotency_key": "k"}
    assert (await ann.post("/wallet/transfer", body)).status == 200
    entries = await admin.audit(user=str(ann.user.id), actor="admin")
    assert [(entry["type"], entry["data"]["reason"]) for entry in entries] == [
        ("wallet.unfreeze", "stolen phone"),
        ("wallet.freeze", "stolen phone"),
    ]
    assert (await admin.post(f"/admin/wallets/{uuid4()}/freeze", reason)).refusal == (404, "User not found")


async def test_freezes_at_once_are_one(admin: Administrator, person: MakePerson) -> None:
    ann = await person(balance=100)
    path = f"/admin/wallets/{ann.user.id}/freeze"
    said = await asyncio.gather(*(admin.post(path, {"reason": "x"}) for _ in range(8)))
    assert sorted(one.json["detail"] for one in said) == ["already frozen"] * 7 + ["frozen"]
    assert len(await admin.audit(type="wallet.freeze")) == 1


async def test_end_sign_ins(admin: Administrator, person: MakePerson, owner: Any) -> None:
    ann, bob = await person(), await person()
    await owner.execute(
        "INSERT INTO sessions (id, user_id, expires_at) VALUES ($1, $2, now() + interval '1 day')",
        ids.new_uuid(),
        ann.user.id,
    )
    assert (await ann.get("/wallet")).status == 200
    said = await admin.ask("POST", f"/admin/users/{ann.user.id}/sign_out")
    assert said.json == {"detail": "signed out", "sessions": 1}
    assert (await ann.get("/wallet")).refusal == (401, "Invalid token")
    assert (await bob.get("/wallet")).status == 200
    assert await owner.fetchval("SELECT count(*) FROM sessions WHERE revoked_at IS NULL") == 0
    (entry,) = await admin.audit(type="auth.sign_out_all")
    assert entry["user_id"] == str(ann.user.id)
    assert (await admin.post(f"/admin/users/{uuid4()}/sign_out")).refusal == (404, "User not found")


# --- Credits


async def test_airdrop(admin: Administrator, person: MakePerson) -> None:
    people = [await person(merchant=number == 0) for number in range(5)]
    first = await admin.post("/admin/airdrop_starting_credit", {"amount_cents": 500, "limit": 2, "offset": 1})
    assert first.body == b'{"processed":2,"credited":2,"skipped":0,"amount_cents":500,"limit":2,"offset":1}'
    said = await admin.ask("POST", "/admin/airdrop_starting_credit?amount_cents=700")
    assert said.json == {
        "processed": 5,
        "credited": 3,
        "skipped": 2,
        "amount_cents": 700,
        "limit": 10_000,
        "offset": 0,
    }
    assert [await one.balance() for one in people] == [700, 500, 500, 700, 700]
    again = (await admin.post("/admin/airdrop_starting_credit", {"amount_cents": 700})).json
    assert (again["credited"], again["skipped"]) == (0, 5)
    assert len(await admin.audit(type="wallet.airdrop.admin")) == 5
    behind = await admin.post("/admin/airdrop_starting_credit", {"amount_cents": 1, "offset": 99})
    assert behind.json["processed"] == 0


async def test_airdrop_in_batches_and_from_two_sides(
    admin: Administrator, elsewhere: ApiClient, person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.wallets.grants.BATCH", 3)
    people = [await person() for _ in range(10)]
    body = {"amount_cents": 100}
    said = await asyncio.gather(
        *(
            one.post("/admin/airdrop_starting_credit", body)
            for one in (admin, Administrator(elsewhere), admin, Administrator(elsewhere))
        )
    )
    assert [one.json["processed"] for one in said] == [10] * 4
    assert sum(one.json["credited"] for one in said) == 10
    assert {await one.balance() for one in people} == {100}


async def test_airdrop_of_nothing(admin: Administrator, person: MakePerson) -> None:
    await person()
    # STARTING_CREDIT_CENTS is 0 here.
    for body in ({}, {"amount_cents": 0}, {"amount_cents": -5}):
        said = await admin.post("/admin/airdrop_starting_credit", body)
        assert said.body == b'{"processed":0,"credited":0,"skipped":0,"amount_cents":0}'
    for body in ({"limit": 0}, {"limit": 50_001}, {"offset": -1}, {"amount_cents": 2**62}):
        assert (await admin.post("/admin/airdrop_starting_credit", body)).status == 422


async def test_airdrop_leaves_frozen_wallets_out(admin: Administrator, person: MakePerson) -> None:
    ann, bob = await person(), await person()
    await admin.post(f"/admin/wallets/{ann.user.id}/freeze", {"reason": "x"})
    said = await admin.post("/admin/airdrop_starting_credit", {"amount_cents": 5})
    assert (said.json["credited"], said.json["skipped"]) == (1, 1)
    assert (await ann.balance(), await bob.balance()) == (0, 5)


async def test_seed_demo_user(admin: Administrator, wallets: ApiClient) -> None:
    body = {
        "phone": "+963955000111",
        "name": "Demo",
        "starting_balance_cents": 900,
        "kyc_level": 2,
        "is_merchant": True,
        "merchant_fee_bps": 100,
    }
    first = await admin.post("/admin/seed_demo_user", body)
    assert list(first.json) == ["access_token", "token_type", "user", "wallet"]
    assert first.json["user"] | {"id": ""} == {
        "id": "",
        "phone": "+963955000111",
        "name": "Demo",
        "is_merchant": True,
        "kyc_level": 2,
        "kyc_status": "approved",
    }
    assert first.json["wallet"]["balance_cents"] == 900
    again = await admin.post("/admin/seed_demo_user", body)
    assert again.json["wallet"] == first.json["wallet"]
    more = await admin.post("/admin/seed_demo_user", body | {"starting_balance_cents": 50})
    assert more.json["wallet"]["balance_cents"] == 950
    signed_in = Person(wallets, None, first.json["access_token"])
    assert (await signed_in.get("/wallet")).json["wallet"]["balance_cents"] == 950
    for bad in ({"phone": "x"}, {"kyc_level": 3}, {"starting_balance_cents": -1}, {"kyc_status": "vip"}):
        assert (await admin.post("/admin/seed_demo_user", body | bad)).status == 422


async def test_no_demo_users_in_production(settings: Settings) -> None:
    changed = settings.model_copy(update={"env": "prod"})
    async with (
        open_service(changed) as service,
        TestClient(TestServer(create_app(changed, service))) as client,
    ):
        said = await Administrator(client).post("/admin/seed_demo_user", {"phone": "+963955000111"})
        assert said.refusal == (403, "Not allowed")


# --- Webhook endpoints


async def _endpoint(owner: Any, user: Any, url: str = "https://example.org/in") -> UUID:
    endpoint_id = ids.new_uuid()
    await owner.execute(
        "INSERT INTO webhook_endpoints (id, principal_id, url, event_types, secrets)"
        " VALUES ($1, $2, $3, '{}', '{whsec_x}')",
        endpoint_id,
        user.principal_id,
        url,
    )
    return endpoint_id


async def _deliveries(
    platform: Platform, owner: Any, user: Any, endpoint_id: UUID, *states: str
) -> list[UUID]:
    made = []
    for state in states:
        async with platform.database.transaction() as connection:
            event_id = await emit(connection, principal_id=user.principal_id, event_type="a.b", data={})
        made.append(ids.new_uuid())
        await owner.execute(
            "INSERT INTO webhook_deliveries (id, event_id, endpoint_id, state, attempts, finished_at, last_error)"
            " VALUES ($1, $2, $3, $4, 3, CASE WHEN $4 <> 'pending' THEN now() END, 'no answer')",
            made[-1],
            event_id,
            endpoint_id,
            state,
        )
    return made


async def test_endpoints(admin: Administrator, person: MakePerson, owner: Any) -> None:
    ann, bob = await person(merchant=True), await person(merchant=True)
    first, second = await _endpoint(owner, ann.user), await _endpoint(owner, bob.user)
    shown = (await admin.get("/admin/webhooks/endpoints")).json
    assert [list(one) for one in shown] == [
        ["id", "user_id", "user_phone", "url", "active", "created_at"]
    ] * 2
    assert [(one["id"], one["user_phone"], one["active"]) for one in shown] == [
        (str(second), bob.phone, True),
        (str(first), ann.phone, True),
    ]
    older = await admin.get("/admin/webhooks/endpoints", limit="1", before=str(second))
    assert [one["id"] for one in older.json] == [str(first)]
    path = f"/admin/webhooks/endpoints/{first}/toggle"
    for active in (False, False, True):
        said = await admin.post(path, {"active": active})
        assert said.json == {"id": str(first), "active": active}
    changes = [entry["data"]["after"]["active"] for entry in await admin.audit(type="webhooks.toggle")]
    assert changes == [True, False]
    missing = await admin.post(f"/admin/webhooks/endpoints/{uuid4()}/toggle", {"active": True})
    assert missing.refusal == (404, "Not found")
    assert (await admin.post(path)).status == 422


async def test_deliveries_of_an_endpoint(
    admin: Administrator, person: MakePerson, platform: Platform, owner: Any
) -> None:
    ann = await person(merchant=True)
    endpoint_id = await _endpoint(owner, ann.user)
    made = await _deliveries(platform, owner, ann.user, endpoint_id, "delivered", "failed", "pending")
    path = f"/admin/webhooks/endpoints/{endpoint_id}/deliveries"
    said = (await admin.get(path)).json
    assert (said["limit"], said["offset"]) == (50, 0)
    assert [(one["id"], one["status"], one["attempt_count"]) for one in said["items"]] == [
        (str(made[2]), "pending", 3),
        (str(made[1]), "failed", 3),
        (str(made[0]), "delivered", 2),
    ]
    assert list(said["items"][0]) == [
        "id",
        "event_type",
        "status",
        "attempt_count",
        "last_error",
        "created_at",
    ]
    page = (await admin.get(path, limit="1", offset="1")).json
    assert [one["id"] for one in page["items"]] == [str(made[1])]
    page = (await admin.get(path, before=str(made[1]))).json
    assert [one["id"] for one in page["items"]] == [str(made[0])]
    assert (await admin.get(path, limit="201")).status == 422
    assert (await admin.get(f"/admin/webhooks/endpoints/{uuid4()}/deliveries")).json["items"] == []
    again = await admin.post(f"/admin/webhooks/deliveries/{made[1]}/requeue")
    assert (again.status, again.json) == (200, {"detail": "requeued"})
    assert (await admin.get(path)).json["items"][1]["status"] == "pending"


# --- The audit


async def test_audit(admin: Administrator, person: MakePerson) -> None:
    ann, bob = await person(balance=100), await person()
    body = {"to_phone": bob.phone, "amount_cents": 1, "idempotency_key": new_key()}
    paid = (await ann.post("/wallet/transfer", body)).json["transfer_id"]
    (entry,) = await admin.audit(type="wallet.transfer")
    assert (entry["actor"], entry["user_id"]) == (f"user:{ann.user.id}", str(bob.user.id))
    assert entry["data"] == {"transfer_id": paid, "amount_cents": 1}
    assert await admin.audit(actor=f"user:{ann.user.id}", type="wallet.transfer") == [entry]
    assert await admin.audit(actor=f"user:{bob.user.id}") == []
    whole = await admin.audit()
    assert [one["id"] for one in whole] == sorted((one["id"] for one in whole), reverse=True)
    pages, before = [], None
    while True:
        more: dict[str, str] = {} if before is None else {"before": before}
        page = (await admin.get("/admin/audit", limit="1", **more)).json
        pages += page["items"]
        if (before := page["next"]) is None:
            break
    assert pages == whole
    now = datetime.now(UTC)
    assert await admin.audit(since=(now + timedelta(hours=1)).isoformat()) == []
    assert await admin.audit(until=(now - timedelta(hours=1)).isoformat()) == []
    assert await admin.audit(since=(now - timedelta(hours=1)).isoformat()) == whole
    for bad in ({"limit": "201"}, {"since": "2026-01-01T00:00:00"}, {"user": "x"}, {"before": "x"}):
        assert (await admin.get("/admin/audit", **bad)).status == 422
