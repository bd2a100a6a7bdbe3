"""What an administrator sets and sees, over HTTP: with the audit of each change, and what cannot be."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core import ids
from core.outbox.events import new_event, write_events
from core.platform import Platform
from core.service import Service
from core.settings import Settings
from core.wallets.config import Config
from handlers.app import create_app
from tests.handlers.wallets.conftest import ADMIN, Administrator, ApiClient, MakePerson, Person, new_key

Wait = Callable[..., Awaitable[Any]]
SECOND_ADMIN = "the-second-admin-token-of-32-chars"


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
        {"fee_wallet_phone": "+963\u0660\u0660"},
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


async def test_fees_go_to_nobody_who_signs_in(admin: Administrator, person: MakePerson, owner: Any) -> None:
    thief = await person()
    await owner.execute("UPDATE users SET username = 'thief' WHERE id = $1", thief.user.id)
    said = await admin.post("/admin/config/fees", {"fee_wallet_phone": thief.phone})
    assert (said.status, said.json["code"]) == (400, "invalid_request")
    assert (await admin.get("/admin/config/fees")).json == FEES


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
    # The value in force is shown, and its source: 0 stands for the setting.
    assert config["rate_limit"] == {"per_minute": 1_000_000, "auth_boost": 3, "exempt_otp": "true"}
    sources = {one["name"]: (one["value"], one["source"]) for one in config["in_force"]}
    assert sources["rate_limit_per_minute"] == (1_000_000, "RATE_LIMIT_PER_MINUTE")
    assert sources["rate_limit_auth_boost"] == (3, "administrator")
    assert sources["merchant_fee_bps"] == (FEES["merchant_fee_bps"], "MERCHANT_FEE_BPS")
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
            (event_id,) = await write_events(connection, [new_event(user.principal_id, "a.b", {})])
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


@pytest.mark.parametrize(
    ("before", "verify", "active", "after"),
    [
        (None, False, False, "by_admin"),
        (None, False, True, None),
        ("failing", False, False, "failing"),
        ("by_owner", False, True, None),
        ("unverified", True, False, "unverified"),
        # The URL has to prove itself, whoever asks.
        ("unverified", True, True, "unverified"),
    ],
)
async def test_the_reason_why_an_endpoint_is_off(
    admin: Administrator,
    person: MakePerson,
    owner: Any,
    *,
    before: str | None,
    verify: bool,
    active: bool,
    after: str | None,
) -> None:
    endpoint_id = await _endpoint(owner, (await person(merchant=True)).user)
    await owner.execute(
        "UPDATE webhook_endpoints SET disabled_reason = $1, verify = $2, failing_since = now(), failed_attempts = 3,"
        " disabled_at = CASE WHEN $1::text IS NOT NULL THEN '2026-01-31'::timestamptz END",
        before,
        verify,
    )
    said = await admin.post(f"/admin/webhooks/endpoints/{endpoint_id}/toggle", {"active": active})
    assert said.status == (409 if verify and active else 200)
    row = await owner.fetchrow(
        "SELECT disabled_reason, disabled_at, failing_since, failed_attempts FROM webhook_endpoints"
    )
    assert row["disabled_reason"] == after
    assert (row["disabled_at"] is None) == (after is None)
    switched_on = before is not None and after is None
    assert (row["failing_since"] is None, row["failed_attempts"]) == (switched_on, 0 if switched_on else 3)


async def test_a_waiting_delivery_is_pending_in_both_lists(
    admin: Administrator, person: MakePerson, platform: Platform, owner: Any
) -> None:
    ann = await person(merchant=True)
    endpoint_id = await _endpoint(owner, ann.user)
    (made,) = await _deliveries(platform, owner, ann.user, endpoint_id, "failed")
    await owner.execute(
        "UPDATE webhook_deliveries SET state = 'waiting', ordered_object = 'pi_1', attempts = 0, finished_at = NULL"
    )
    items = (await admin.get(f"/admin/webhooks/endpoints/{endpoint_id}/deliveries")).json["items"]
    for listed in (*items, *(await ann.get("/webhooks/deliveries")).json):
        assert (listed["id"], listed["status"], listed["attempt_count"]) == (str(made), "pending", 0)


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


async def test_requeuing_is_refused_as_the_contract_has_it(admin: Administrator, person: MakePerson) -> None:
    path = f"/admin/webhooks/deliveries/{uuid4()}/requeue"
    missing = await admin.post(path)
    assert missing.refusal == (404, "Not found")
    assert missing.headers["Content-Type"] == "application/json"
    assert (await admin.post("/admin/webhooks/deliveries/nonsense/requeue")).status == 422
    assert (await (await person()).post(path)).refusal == (401, "Admin token invalid")


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
    for place, record in enumerate(
        whole
    ):  # the shown time decides, not the id's, which another clock has made
        assert record in await admin.audit(since=record["created_at"]), place
        assert record not in await admin.audit(until=record["created_at"]), place
    for bad in ({"limit": "201"}, {"since": "2026-01-01T00:00:00"}, {"user": "x"}, {"before": "x"}):
        assert (await admin.get("/admin/audit", **bad)).status == 422
