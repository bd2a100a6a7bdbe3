"""Subscriptions: made, charged once a period, tried again when that fails, missed, ended; and what races."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.platform import Platform
from core.recurring import charging
from core.recurring.charging import period_of
from core.recurring.subscriptions import Subscription
from core.service import open_service
from core.settings import Settings
from handlers.app import create_app
from handlers.http.parts import PARTS
from tests.chaos.staging import BARRIER, LOCK, Wait, at_barrier, install, waiting
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person, Said, told

DAY = timedelta(days=1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"env": "dev", "merchant_fee_bps": 200})


@pytest.fixture
async def shop(person: MakePerson) -> Person:
    return await person(merchant=True)


async def subscribe(payer: Person, merchant: Person, amount: int = 100, days: int = 30) -> str:
    body = {"merchant_phone": merchant.phone, "amount_cents": amount, "interval_days": days}
    said = await payer.post("/subscriptions", body)
    assert said.status == 200, said
    subscription_id: str = said.json["id"]
    return subscription_id


async def force(payer: Person, subscription_id: str) -> None:
    said = await payer.post(f"/subscriptions/{subscription_id}/dev_force_due")
    assert said.json == {"detail": "ok"}


async def due(payer: Person, merchant: Person, amount: int = 100, days: int = 30) -> str:
    """A subscription whose period has begun."""
    subscription_id = await subscribe(payer, merchant, amount, days)
    await force(payer, subscription_id)
    return subscription_id


async def view(somebody: Person, subscription_id: str) -> Any:
    return (await somebody.get(f"/subscriptions/{subscription_id}")).json


async def test_subscribe(person: MakePerson, shop: Person, owner: Any) -> None:
    ann = await person(balance=100)
    said = await ann.post("/subscriptions", {"merchant_phone": shop.phone, "amount_cents": 100})
    assert list(said.json) == ["id", "next_charge_at"]
    starts_in = datetime.fromisoformat(said.json["next_charge_at"]) - datetime.now(UTC)
    assert abs(starts_in - 30 * DAY) < timedelta(seconds=5)
    (listed,) = (await ann.get("/subscriptions")).json
    assert list(listed) == [
        "id",
        "merchant_user_id",
        "amount_cents",
        "currency_code",
        "interval_days",
        "next_charge_at",
        "status",
        "created_at",
    ]
    assert listed == listed | {
        **said.json,
        "merchant_user_id": str(shop.user.id),
        "amount_cents": 100,
        "currency_code": "SYP",
        "interval_days": 30,
        "status": "active",
    }
    assert await ann.balance() == 100
    assert (await shop.get("/subscriptions")).json == []
    data = {"id": said.json["id"], "amount_cents": 100, "interval_days": 30}
    assert await told(owner, shop) == [("subscriptions.create", data)]


async def test_charge(person: MakePerson, shop: Person, owner: Any) -> None:
    ann = await person(balance=1_000)
    subscription_id = await due(ann, shop)
    before = await view(ann, subscription_id)
    assert (await ann.post("/subscriptions/process_due")).body == b'{"processed":1,"count":1}'
    assert (await ann.post("/subscriptions/process_due")).json == {"processed": 0, "count": 0}
    assert (await ann.balance(), await shop.balance()) == (900, 98)
    after = await view(shop, subscription_id)
    moved = datetime.fromisoformat(after["next_charge_at"]) - datetime.fromisoformat(before["next_charge_at"])
    assert moved == 30 * DAY
    lines = (await shop.get("/wallet/transactions")).json["entries"]
    assert {line["transfer_id"] for line in lines} == {after["last_transfer_id"]}
    data = {"id": subscription_id, "transfer_id": after["last_transfer_id"], "amount_cents": 100}
    assert (await told(owner, shop))[1:] == [("subscriptions.charge", data)]
    # The merchant's own rate wins.
    await owner.execute("UPDATE users SET merchant_fee_bps = 1000 WHERE id = $1", shop.user.id)
    await force(ann, subscription_id)
    assert (await ann.post("/subscriptions/process_due")).json["processed"] == 1
    assert await shop.balance() == 188


async def test_what_fails_is_tried_again_within_the_period(
    person: MakePerson, shop: Person, platform: Platform, owner: Any
) -> None:
    ann = await person(balance=50)
    subscription_id = await due(ann, shop)
    began = (await view(ann, subscription_id))["next_charge_at"]
    assert tuple(await charging.step(platform)) == (0, 1)
    assert tuple(await charging.step(platform)) == (0, 0)
    stands = await view(ann, subscription_id)
    assert (stands["status"], stands["state"], stands["next_charge_at"]) == ("active", "past_due", began)
    dunning = stands["dunning"]
    assert (dunning["attempts"], dunning["last_error"]) == (1, "insufficient_funds")
    wait = datetime.fromisoformat(dunning["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(minutes=7) < wait <= timedelta(minutes=15)
    assert (await ann.get("/subscriptions")).json[0]["status"] == "active"
    await owner.execute("UPDATE subscriptions SET try_at = clock_timestamp()")
    assert tuple(await charging.step(platform)) == (0, 1)
    await ann.top_up(50)
    await owner.execute("UPDATE subscriptions SET try_at = clock_timestamp()")
    assert tuple(await charging.step(platform)) == (1, 0)
    stands = await view(ann, subscription_id)
    assert (stands["state"], stands["dunning"]["attempts"]) == ("active", 0)
    # The next period begins where it would have begun.
    assert datetime.fromisoformat(stands["next_charge_at"]) - datetime.fromisoformat(began) == 30 * DAY
    events = (await told(owner, shop))[1:]
    assert [(event, data.get("attempts")) for event, data in events] == [
        ("subscriptions.charge_failed", 1),
        ("subscriptions.charge_failed", 2),
        ("subscriptions.charge", None),
    ]


async def test_a_try_after_the_period_is_the_next_periods(
    person: MakePerson, shop: Person, platform: Platform, owner: Any
) -> None:
    ann = await person()
    subscription_id = await due(ann, shop, days=1)
    await owner.execute(
        "UPDATE subscriptions SET next_charge_at = clock_timestamp() - interval '23 hours 59 minutes'"
    )
    began = (await view(ann, subscription_id))["next_charge_at"]
    assert tuple(await charging.step(platform)) == (0, 1)
    stands = await view(ann, subscription_id)
    next_try = datetime.fromisoformat(stands["dunning"]["next_attempt_at"])
    assert next_try - datetime.fromisoformat(began) == DAY


async def test_periods_that_went_by_unpaid_are_told_and_never_charged(
    person: MakePerson, shop: Person, platform: Platform, owner: Any
) -> None:
    ann, bob = await person(balance=1_000), await person()
    paying, failing = await due(ann, shop, days=10), await due(bob, shop, days=10)
    await owner.execute(
        "UPDATE subscriptions SET next_charge_at = clock_timestamp() - interval '25 days', try_at = clock_timestamp()"
    )
    began = datetime.fromisoformat((await view(ann, paying))["next_charge_at"])
    assert tuple(await charging.step(platform)) == (1, 1)
    assert tuple(await charging.step(platform)) == (0, 0)
    assert await ann.balance() == 900
    paid, unpaid = await view(ann, paying), await view(bob, failing)
    assert datetime.fromisoformat(paid["next_charge_at"]) - began == 30 * DAY
    assert abs(datetime.fromisoformat(unpaid["next_charge_at"]) - began - 20 * DAY) < timedelta(seconds=1)
    assert (paid["dunning"]["missed_periods"], unpaid["dunning"]["missed_periods"]) == (2, 2)
    missed = [data for event, data in await told(owner, shop) if event == "subscriptions.missed"]
    assert sorted(data["id"] for data in missed) == sorted([paying, failing])
    assert {data["periods"] for data in missed} == {2}
    audits = await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'subscriptions.missed'")
    assert audits == 2


def test_periods() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)

    def found(starts: datetime, days: int) -> tuple[timedelta, timedelta, int]:
        id_ = uuid.uuid4()
        subscription = Subscription(
            id_, id_, id_, 1, "SYP", days, "active", starts, starts, 0, None, 0, None, starts
        )
        period = period_of(subscription, now)
        return period.starts - now, period.ends - now, period.missed

    assert found(now, 30) == (timedelta(), 30 * DAY, 0)
    assert found(now - 29 * DAY, 30) == (-29 * DAY, DAY, 0)
    assert found(now - 30 * DAY, 30) == (timedelta(), 30 * DAY, 1)
    assert found(now - 65 * DAY, 30) == (-5 * DAY, 25 * DAY, 2)
    # A clock that went back does not make a period begin earlier.
    assert found(now + DAY, 30) == (DAY, 31 * DAY, 0)


async def test_one_that_fails_touches_no_other(
    person: MakePerson, shop: Person, platform: Platform, owner: Any
) -> None:
    gone = await person(merchant=True)
    people = [await person(balance=balance) for balance in (100, 0, 100)]
    ids = [await due(payer, shop) for payer in people]
    ids.append(await due(await person(balance=100), gone))
    await owner.execute("UPDATE users SET is_merchant = FALSE WHERE id = $1", gone.user.id)
    assert tuple(await charging.step(platform)) == (2, 2)
    assert [await payer.balance() for payer in people] == [0, 0, 0]
    errors = await owner.fetch(
        "SELECT last_error FROM subscriptions WHERE state = 'past_due' ORDER BY last_error"
    )
    assert [row["last_error"] for row in errors] == ["insufficient_funds", "target_not_a_merchant"]


async def test_cancel(person: MakePerson, shop: Person, platform: Platform, owner: Any) -> None:
    ann, eve = await person(balance=100), await person()
    subscription_id = await due(ann, shop)
    path = f"/subscriptions/{subscription_id}/cancel"
    for who in (eve, shop):
        assert (await who.post(path)).refusal == (403, "Forbidden")
    assert (await ann.post(path)).body == b'{"detail":"canceled"}'
    assert (await ann.post(path)).body == b'{"detail":"already canceled"}'
    assert tuple(await charging.step(platform)) == (0, 0)
    assert (await ann.get("/subscriptions")).json[0]["status"] == "canceled"
    assert (await view(ann, subscription_id))["dunning"]["next_attempt_at"] is None
    assert (await told(owner, shop))[-1] == ("subscriptions.cancel", {"id": subscription_id})
    missing = await ann.post(f"/subscriptions/{uuid.uuid4()}/cancel")
    assert missing.refusal == (404, "Not found")
    assert (await ann.post("/subscriptions/nothing/cancel")).status == 422


@pytest.mark.shared
async def test_refusals(person: MakePerson, shop: Person, settings: Settings) -> None:
    ann, bob = await person(), await person()
    body = {"merchant_phone": shop.phone, "amount_cents": 1}

    async def refused(**changes: Any) -> tuple[int, str]:
        return (await ann.post("/subscriptions", {**body, **changes})).refusal

    assert await refused(merchant_phone="nobody") == (404, "Merchant not found")
    assert await refused(merchant_phone=bob.phone) == (400, "Target is not a merchant")
    over = settings.kyc_l0_tx_max_cents + 1
    assert await refused(amount_cents=over) == (400, "KYC transaction limit exceeded")
    for bad in ({"interval_days": 0}, {"interval_days": 366}, {"amount_cents": 0}, {"merchant_phone": None}):
        assert (await refused(**bad))[0] == 422
    subscription_id = await subscribe(ann, shop)
    assert (await bob.get(f"/subscriptions/{subscription_id}")).refusal == (403, "Forbidden")
    assert (await bob.post(f"/subscriptions/{subscription_id}/dev_force_due")).refusal == (403, "Forbidden")
    missing = await ann.post(f"/subscriptions/{uuid.uuid4()}/dev_force_due")
    assert missing.refusal == (404, "Not found")
    for count in ("0", "-1", "999999"):
        said = await ann.ask("POST", "/subscriptions/process_due", params={"max_count": count})
        assert said.json == {"processed": 0, "count": 0}


@pytest.mark.shared
async def test_the_daily_limit_counts_what_was_sent(
    person: MakePerson, shop: Person, settings: Settings
) -> None:
    ann = await person(balance=1_000)
    body = {"to_phone": shop.phone, "amount_cents": 1_000, "idempotency_key": "k"}
    assert (await ann.post("/wallet/transfer", body)).status == 200
    platform_settings = settings.model_copy(update={"kyc_l0_daily_max_cents": 1_500})
    async with (
        open_service(platform_settings) as service,
        TestClient(TestServer(create_app(platform_settings, service))) as client,
    ):
        there = ann.at(client)
        said = await there.post("/subscriptions", {"merchant_phone": shop.phone, "amount_cents": 501})
        assert said.refusal == (400, "KYC daily limit exceeded")
        assert (
            await there.post("/subscriptions", {"merchant_phone": shop.phone, "amount_cents": 500})
        ).status == 200


@pytest.mark.shared
async def test_time_is_moved_in_development_only(
    person: MakePerson, shop: Person, settings: Settings
) -> None:
    ann = await person()
    subscription_id = await subscribe(ann, shop)
    staging = settings.model_copy(update={"env": "staging"})
    async with (
        open_service(staging) as service,
        TestClient(TestServer(create_app(staging, service))) as client,
    ):
        there = ann.at(client)
        for path in ("/subscriptions/process_due", f"/subscriptions/{subscription_id}/dev_force_due"):
            assert (await there.post(path)).refusal == (403, "Forbidden")


# --- Races


async def test_chargers_at_once(
    person: MakePerson, shop: Person, platform: Platform, elsewhere: ApiClient, owner: Any
) -> None:
    assert elsewhere.app is not None
    other = elsewhere.app[PARTS].platform
    people = [await person(balance=1_000) for _ in range(5)]
    for payer in people:
        for _ in range(2):
            await due(payer, shop)
    steps = [charging.step(side) for _ in range(2) for side in (platform, other)]
    done = await asyncio.gather(*steps)
    assert (sum(one.done for one in done), sum(one.failed for one in done)) == (10, 0)
    assert [await payer.balance() for payer in people] == [800] * 5
    assert [event for event, _ in await told(owner, shop)].count("subscriptions.charge") == 10


async def test_two_chargers_staged(
    person: MakePerson, shop: Person, platform: Platform, elsewhere: ApiClient, owner: Any, eventually: Wait
) -> None:
    assert elsewhere.app is not None
    other = elsewhere.app[PARTS].platform
    ann = await person(balance=1_000)
    await platform.fee_account()
    await other.fee_account()
    await install(owner, (LOCK, BARRIER + "\n" + LOCK))
    await due(ann, shop)
    passed_by = []

    async def meanwhile() -> None:
        passed_by.append(tuple(await charging.step(other)))

    (charged,) = await at_barrier(owner, [charging.step(platform)], eventually, meanwhile())
    assert (tuple(charged), passed_by) == ((1, 0), [(0, 0)])
    assert await ann.balance() == 900


async def test_without_the_row_the_ledgers_key_still_holds(
    person: MakePerson, shop: Person, platform: Platform, owner: Any
) -> None:
    ann = await person(balance=1_000)
    subscription_id = await due(ann, shop)
    row = await owner.fetchrow("SELECT next_charge_at, try_at FROM subscriptions")
    assert tuple(await charging.step(platform)) == (1, 0)
    # As if the charge had been committed and the period had not been moved on.
    await owner.execute("UPDATE subscriptions SET next_charge_at = $1, try_at = $2", *row)
    assert tuple(await charging.step(platform)) == (1, 0)
    assert await ann.balance() == 900
    assert (await view(ann, subscription_id))["state"] == "active"
    assert [event for event, _ in await told(owner, shop)].count("subscriptions.charge") == 1


async def test_canceling_waits_for_a_charge(
    person: MakePerson, shop: Person, platform: Platform, elsewhere: ApiClient, owner: Any, eventually: Wait
) -> None:
    ann = await person(balance=1_000)
    await platform.fee_account()
    subscription_id = await due(ann, shop)
    await install(owner, (LOCK, BARRIER + "\n" + LOCK))
    late: list[asyncio.Task[Said]] = []

    async def behind() -> None:
        call = ann.at(elsewhere).post(f"/subscriptions/{subscription_id}/cancel")
        late.append(asyncio.create_task(call))
        await eventually(lambda: waiting(owner, 2))

    (charged,) = await at_barrier(owner, [charging.step(platform)], eventually, behind())
    assert (tuple(charged), (await late[0]).json) == ((1, 0), {"detail": "canceled"})
    assert tuple(await charging.step(platform)) == (0, 0)
    assert await ann.balance() == 900
