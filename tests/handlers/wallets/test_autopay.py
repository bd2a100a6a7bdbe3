"""Due invoices are paid by mandate: each by itself, tried again, once; and what races with that."""

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.ledger.items import operation_id
from core.platform import Platform
from core.recurring import autopay
from core.service import open_service
from core.settings import Settings
from handlers.app import create_app
from handlers.http.parts import PARTS
from tests.chaos.staging import BARRIER, LOCK, PAYABLE_LOCK, Wait, at_barrier, install, waiting
from tests.handlers.wallets.billing import allow, bill, status_of
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person, Said, new_key, told

# Whoever pays waits there, having read the payable, and holding its lock where the lock is there.
READ = (LOCK, BARRIER + "\n" + LOCK)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"env": "dev"})


@pytest.fixture
async def shop(person: MakePerson) -> Person:
    """Somebody who may issue invoices."""
    return await person(kyc=1, merchant=True)


def platform_at(client: ApiClient) -> Platform:
    assert client.app is not None
    return client.app[PARTS].platform


async def test_process_due(person: MakePerson, shop: Person, owner: Any) -> None:
    ann, bob = await person(balance=250), await person(balance=1_000)
    other = await person(kyc=1, merchant=True)
    await allow(ann, shop, max_amount_cents=200)
    await allow(bob, shop)
    paid, too_much, short = [await bill(shop, ann, amount) for amount in (100, 201, 190)]
    later, unasked, bobs = await bill(shop, ann, 1, days=1), await bill(other, ann, 1), await bill(shop, bob)
    said = await ann.post("/invoices/process_due")
    assert said.json == {"processed": [paid], "errors": [{"id": short, "error": "Insufficient balance"}]}
    statuses = [await status_of(ann, one) for one in (paid, too_much, short, later, unasked)]
    assert statuses == ["paid", "pending", "pending", "pending", "pending"]
    assert await status_of(bob, bobs) == "pending"
    # By hand it is tried again whenever they ask.
    await ann.top_up(50)
    assert (await ann.post("/invoices/process_due")).json == {"processed": [short], "errors": []}
    assert (await ann.post("/invoices/process_due")).json == {"processed": [], "errors": []}
    assert await ann.balance() == 10
    assert await owner.fetchval("SELECT count(*) FROM autopay_failures") == 0
    transfer = (await ann.get(f"/invoices/{paid}")).json["paid_transfer_id"]
    assert (await ann.post(f"/invoices/{paid}/pay")).json["transfer_id"] == transfer
    actors = await owner.fetch("SELECT actor FROM audit_events WHERE type = 'invoices.pay'")
    assert {row["actor"] for row in actors} == {"system:autopay"}


async def test_sweep_pays_each_by_itself(
    person: MakePerson, shop: Person, platform: Platform, owner: Any
) -> None:
    payers = [await person(balance=balance) for balance in (100, 0, 100, 50, 100)]
    ids = []
    for payer in payers:
        await allow(payer, shop)
        ids.append(await bill(shop, payer))
    assert tuple(await autopay.step(platform)) == (3, 2)
    assert await shop.balance() == 300
    # Those that failed wait; others are tried meanwhile.
    assert tuple(await autopay.step(platform)) == (0, 0)
    ids.append(await bill(shop, await payers[0].top_up(100)))
    assert tuple(await autopay.step(platform)) == (1, 0)
    row = await owner.fetchrow(
        """
        SELECT attempts, last_error, retry_at - clock_timestamp() AS wait FROM autopay_failures
        WHERE invoice_id = $1
        """,
        uuid.UUID(ids[1]),
    )
    assert (row["attempts"], row["last_error"]) == (1, "insufficient_funds")
    assert timedelta(minutes=7) < row["wait"] <= timedelta(minutes=15)
    await owner.execute("UPDATE autopay_failures SET retry_at = clock_timestamp()")
    await payers[1].top_up(100)
    assert tuple(await autopay.step(platform)) == (1, 1)
    rows = await owner.fetch("SELECT attempts FROM autopay_failures")
    assert [row["attempts"] for row in rows] == [2]
    await owner.execute("UPDATE autopay_failures SET attempts = 100")
    await owner.execute("UPDATE autopay_failures SET retry_at = clock_timestamp()")
    assert tuple(await autopay.step(platform)) == (0, 1)
    wait = await owner.fetchval("SELECT retry_at - clock_timestamp() FROM autopay_failures")
    assert timedelta(hours=11) < wait <= timedelta(hours=24)
    assert [event for event, _ in await told(owner, shop)].count("invoices.pay") == 5


async def test_invoices_without_a_mandate_do_not_fill_the_batch(
    person: MakePerson, shop: Person, platform: Platform, owner: Any
) -> None:
    ann, bob = await person(balance=100), await person(balance=100)
    await owner.execute(
        """
        INSERT INTO payables (id, kind, payee_id, payer_id, amount, currency, due_at)
        SELECT gen_random_uuid(), 'invoice', $1, $2, 1, 'SYP', clock_timestamp() - interval '1 day'
        FROM generate_series(1, 300)
        """,
        shop.user.id,
        bob.user.id,
    )
    await allow(ann, shop)
    await bill(shop, ann)
    assert tuple(await autopay.step(platform)) == (1, 0)


async def test_a_fault_of_ours_touches_no_other_invoice(
    person: MakePerson, shop: Person, platform: Platform, owner: Any
) -> None:
    ann, bob = await person(balance=100), await person(balance=100)
    for payer in (ann, bob):
        await allow(payer, shop)
        await bill(shop, payer)
    await owner.execute(
        f"""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''broken''; END';
        CREATE TRIGGER broken BEFORE UPDATE ON payables FOR EACH ROW
        WHEN (new.payer_id = '{ann.user.id}' AND new.state = 'paid') EXECUTE FUNCTION fail();
        """
    )
    assert tuple(await autopay.step(platform)) == (1, 1)
    assert (await ann.balance(), await bob.balance()) == (100, 0)
    assert await owner.fetchval("SELECT last_error FROM autopay_failures") == "internal_error"


async def test_force_due(person: MakePerson, shop: Person, platform: Platform, settings: Settings) -> None:
    ann, eve = await person(balance=100), await person()
    await allow(ann, shop)
    invoice_id = await bill(shop, ann, days=10)
    path = f"/invoices/{invoice_id}/dev_force_due"
    assert tuple(await autopay.step(platform)) == (0, 0)
    assert (await eve.post(path)).refusal == (403, "Forbidden")
    staging = settings.model_copy(update={"env": "staging"})
    async with open_service(staging) as other, TestClient(TestServer(create_app(staging, other))) as client:
        assert (await ann.at(client).post(path)).refusal == (403, "Forbidden")
    assert (await ann.post(path)).json == {"ok": True}
    assert tuple(await autopay.step(platform)) == (1, 0)


# --- Races


async def test_sweepers_at_once(
    person: MakePerson, shop: Person, platform: Platform, elsewhere: ApiClient, owner: Any
) -> None:
    payers = [await person(balance=300) for _ in range(5)]
    for payer in payers:
        await allow(payer, shop)
        for _ in range(3):
            await bill(shop, payer)
    sweeps = [autopay.step(side) for _ in range(2) for side in (platform, platform_at(elsewhere))]
    done = await asyncio.gather(*sweeps)
    assert (sum(one.done for one in done), sum(one.failed for one in done)) == (15, 0)
    assert [await payer.balance() for payer in payers] == [0] * 5
    assert [event for event, _ in await told(owner, shop)].count("invoices.pay") == 15


async def test_by_hand_against_the_sweep_staged(
    person: MakePerson, shop: Person, platform: Platform, elsewhere: ApiClient, owner: Any, eventually: Wait
) -> None:
    ann = await person(balance=1_000)
    await allow(ann, shop)

    async def both(*changes: tuple[str, str]) -> tuple[int, int]:
        key, swept = new_key(), []
        # Only who pays by hand waits, not the sweep.
        its = f"ids[1] = '{operation_id(ann.user.principal_id, key)}'"
        await install(owner, *changes, (LOCK, f"IF {its} THEN {BARRIER} END IF;\n{LOCK}"))

        async def meanwhile() -> None:
            swept.append((await autopay.step(platform)).done)

        call = ann.at(elsewhere).post(f"/invoices/{await bill(shop, ann)}/pay", key=key)
        (said,) = await at_barrier(owner, [call], eventually, meanwhile())
        return said.status, swept[0]

    assert await both((PAYABLE_LOCK, "")) == (200, 1)
    assert await ann.balance() == 800
    # With the lock the sweep passes by, and it is paid once.
    assert await both() == (200, 0)
    assert await ann.balance() == 700


async def test_by_hand_behind_the_sweep_gets_its_payment(
    person: MakePerson, shop: Person, platform: Platform, elsewhere: ApiClient, owner: Any, eventually: Wait
) -> None:
    ann = await person(balance=1_000)
    await allow(ann, shop)
    invoice_id = await bill(shop, ann)
    await install(owner, READ)
    late: list[asyncio.Task[Said]] = []

    async def behind() -> None:
        call = ann.at(elsewhere).post(f"/invoices/{invoice_id}/pay", key="k")
        late.append(asyncio.create_task(call))
        await eventually(lambda: waiting(owner, 2))

    (swept,) = await at_barrier(owner, [autopay.step(platform)], eventually, behind())
    said = await late[0]
    assert (tuple(swept), said.status) == ((1, 0), 200)
    assert said.json["transfer_id"] == (await ann.get(f"/invoices/{invoice_id}")).json["paid_transfer_id"]
    assert await ann.balance() == 900


async def test_revoking_waits_for_what_is_being_paid(
    person: MakePerson, shop: Person, platform: Platform, elsewhere: ApiClient, owner: Any, eventually: Wait
) -> None:
    ann = await person(balance=1_000)
    mandate_id = await allow(ann, shop)
    await bill(shop, ann)
    await install(owner, READ)
    late: list[asyncio.Task[Said]] = []

    async def behind() -> None:
        late.append(asyncio.create_task(ann.at(elsewhere).post(f"/invoices/mandates/{mandate_id}/revoke")))
        await eventually(lambda: waiting(owner, 2))

    (swept,) = await at_barrier(owner, [autopay.step(platform)], eventually, behind())
    assert tuple(swept) == (1, 0)
    assert (await late[0]).json == {"detail": "revoked"}
    await bill(shop, ann)
    assert tuple(await autopay.step(platform)) == (0, 0)
    assert await ann.balance() == 900
