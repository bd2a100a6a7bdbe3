"""Invoices and mandates: issued, paid by hand or by themselves, taken back; and what races between these."""

import asyncio
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.ledger.items import operation_id
from core.service import open_service
from core.settings import Settings
from core.wallets import autopay
from core.wallets.platform import Platform
from handlers.app import create_app
from handlers.wallets.surface import PLATFORM
from tests.chaos.staging import BARRIER, LOCK, PAYABLE_LOCK, Wait, at_barrier, install, waiting
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
    return client.app[PLATFORM]


async def bill(issuer: Person, payer: Person, amount: int = 100, days: int = 0) -> str:
    body = {"payer_phone": payer.phone, "amount_cents": amount, "due_in_days": days}
    said = await issuer.post("/invoices", body)
    assert said.status == 200, said
    invoice_id: str = said.json["id"]
    return invoice_id


async def allow(payer: Person, issuer: Person, **changes: Any) -> str:
    said = await payer.post("/invoices/mandates", {"issuer_phone": issuer.phone, "autopay": True, **changes})
    assert said.status == 200, said
    mandate_id: str = said.json["id"]
    return mandate_id


async def status_of(somebody: Person, invoice_id: str) -> str:
    status: str = (await somebody.get(f"/invoices/{invoice_id}")).json["status"]
    return status


async def test_issue_and_pay(person: MakePerson, shop: Person, owner: Any) -> None:
    ann = await person(balance=1_000)
    body = {"payer_phone": ann.phone, "amount_cents": "300", "reference": "R1", "description": "Tea"}
    said = await shop.post("/invoices", body)
    invoice = said.json
    assert list(invoice) == [
        "id",
        "issuer_phone",
        "payer_phone",
        "amount_cents",
        "currency_code",
        "status",
        "reference",
        "description",
        "due_at",
        "created_at",
        "paid_transfer_id",
    ]
    assert invoice == invoice | {
        "issuer_phone": shop.phone,
        "payer_phone": ann.phone,
        "amount_cents": 300,
        "currency_code": "SYP",
        "status": "pending",
        "reference": "R1",
        "description": "Tea",
        "paid_transfer_id": None,
    }
    due_in = datetime.fromisoformat(invoice["due_at"]) - datetime.fromisoformat(invoice["created_at"])
    assert abs(due_in - timedelta(days=10)) < timedelta(seconds=5)
    path = f"/invoices/{invoice['id']}"
    assert (await ann.get(path)).json == (await shop.get(path)).json == invoice
    paid = await ann.post(f"{path}/pay", key="k")
    assert paid.json == {
        "transfer_id": paid.json["transfer_id"],
        "from_wallet_id": str(ann.user.wallet_id),
        "to_wallet_id": str(shop.user.wallet_id),
        "amount_cents": 300,
        "currency_code": "SYP",
        "status": "completed",
    }
    # Under the same key, another one and none: the first payment.
    for key in ("k", "other", None):
        assert (await ann.post(f"{path}/pay", key=key)).body == paid.body
    assert (await ann.balance(), await shop.balance()) == (700, 300)
    after = invoice | {"status": "paid", "paid_transfer_id": paid.json["transfer_id"]}
    assert (await ann.get("/invoices")).json == {"incoming": [after], "outgoing": []}
    assert (await shop.get("/invoices")).json == {"incoming": [], "outgoing": [after]}
    assert await told(owner, shop) == [
        ("invoices.create", {"id": invoice["id"], "amount_cents": 300}),
        ("invoices.pay", {"id": invoice["id"], "transfer_id": paid.json["transfer_id"], "amount_cents": 300}),
    ]


async def test_payer_who_is_not_known_gets_a_wallet(person: MakePerson, shop: Person) -> None:
    phone = "+963999000222"
    said = await shop.post("/invoices", {"payer_phone": phone, "amount_cents": 1})
    assert said.status == 200
    payer = await person(phone=phone)
    assert [invoice["id"] for invoice in (await payer.get("/invoices")).json["incoming"]] == [said.json["id"]]


async def test_a_key_of_something_else_pays_nothing(person: MakePerson, shop: Person) -> None:
    ann = await person(balance=1_000)
    transfer = {"to_phone": shop.phone, "amount_cents": 1, "idempotency_key": "k"}
    assert (await ann.post("/wallet/transfer", transfer)).status == 200
    first, second = await bill(shop, ann), await bill(shop, ann)
    conflict = (409, "Idempotency-Key conflict for different request")
    assert (await ann.post(f"/invoices/{first}/pay", key="k")).refusal == conflict
    assert await status_of(ann, first) == "pending"
    assert (await ann.post(f"/invoices/{first}/pay", key="k2")).status == 200
    assert (await ann.post(f"/invoices/{second}/pay", key="k2")).refusal == conflict
    assert await status_of(ann, second) == "pending"


async def test_refusals(person: MakePerson, shop: Person) -> None:
    ann, eve, low = await person(balance=10), await person(kyc=1), await person(merchant=True)
    body = {"payer_phone": ann.phone, "amount_cents": 1}
    assert (await low.post("/invoices", body)).refusal == (403, "KYC level required")
    assert (await eve.post("/invoices", body)).refusal == (403, "Not a merchant")
    own = {**body, "payer_phone": shop.phone}
    assert (await shop.post("/invoices", own)).refusal == (400, "Cannot invoice yourself")
    for bad in (
        {"due_in_days": 366},
        {"due_in_days": -1},
        {"reference": "x" * 129},
        {"description": "x" * 513},
        {"amount_cents": 0},
        {"description": "a\0"},
    ):
        assert (await shop.post("/invoices", {**body, **bad})).status == 422
    invoice_id = await bill(shop, ann)
    assert (await eve.get(f"/invoices/{invoice_id}")).refusal == (403, "Forbidden")
    assert (await eve.post(f"/invoices/{invoice_id}/pay")).refusal == (403, "Not your invoice")
    assert (await ann.post(f"/invoices/{invoice_id}/cancel")).refusal == (403, "Forbidden")
    assert (await eve.post(f"/invoices/{invoice_id}/cancel")).refusal == (403, "Forbidden")
    assert (await ann.post(f"/invoices/{invoice_id}/pay", key="k")).refusal == (400, "Insufficient balance")
    assert (await ann.post(f"/invoices/{invoice_id}/pay", key="x" * 65)).status == 400
    await ann.top_up(90)
    assert (await ann.post(f"/invoices/{invoice_id}/pay", key="k")).status == 200
    for path in ("", "/pay", "/cancel", "/dev_force_due"):
        method = "POST" if path else "GET"
        missing = await ann.ask(method, f"/invoices/{uuid.uuid4()}{path}")
        assert missing.refusal == (404, "Invoice not found")
        assert (await ann.ask(method, f"/invoices/nothing{path}")).status == 422


async def test_funds_come_before_limits(person: MakePerson, shop: Person, settings: Settings) -> None:
    ann = await person()
    invoice_id = await bill(shop, ann, settings.kyc_l0_tx_max_cents + 1)
    assert (await ann.post(f"/invoices/{invoice_id}/pay")).refusal == (400, "Insufficient balance")
    await ann.top_up(settings.kyc_l0_tx_max_cents + 1)
    said = await ann.post(f"/invoices/{invoice_id}/pay")
    assert said.refusal == (400, "KYC transaction limit exceeded")


async def test_cancel(person: MakePerson, shop: Person, owner: Any) -> None:
    ann = await person(balance=1_000)
    invoice_id = await bill(shop, ann)
    assert (await shop.post(f"/invoices/{invoice_id}/cancel")).json == {"detail": "canceled"}
    assert (await shop.post(f"/invoices/{invoice_id}/cancel")).json == {"detail": "already canceled"}
    for key in (None, "k"):
        said = await ann.post(f"/invoices/{invoice_id}/pay", key=key)
        assert said.refusal == (400, "Cannot pay canceled invoice")
    assert await status_of(ann, invoice_id) == "canceled"
    assert (await told(owner, shop))[1:] == [("invoices.cancel", {"id": invoice_id})]
    paid = await bill(shop, ann)
    await ann.post(f"/invoices/{paid}/pay")
    assert (await shop.post(f"/invoices/{paid}/cancel")).json == {"detail": "already paid"}


async def test_mandates(person: MakePerson, shop: Person, owner: Any) -> None:
    ann, eve = await person(), await person()
    body = {"issuer_phone": shop.phone, "autopay": True, "max_amount_cents": 500}
    made = (await ann.post("/invoices/mandates", body)).json
    assert list(made) == [
        "id",
        "issuer_phone",
        "autopay",
        "max_amount_cents",
        "status",
        "created_at",
        "updated_at",
    ]
    assert (made["issuer_phone"], made["autopay"], made["max_amount_cents"]) == (shop.phone, True, 500)
    changed = (await ann.post("/invoices/mandates", {"issuer_phone": shop.phone})).json
    assert (changed["id"], changed["autopay"], changed["max_amount_cents"]) == (made["id"], False, None)
    assert changed["created_at"] == made["created_at"]
    assert (await ann.get("/invoices/mandates")).json == {"items": [changed]}
    path = f"/invoices/mandates/{made['id']}/revoke"
    assert (await eve.post(path)).refusal == (403, "Forbidden")
    assert (await ann.post(path)).json == {"detail": "revoked"}
    assert (await ann.post(path)).json == {"detail": "already revoked"}
    assert (await ann.get("/invoices/mandates")).json["items"][0]["status"] == "revoked"
    assert (await ann.post("/invoices/mandates", body)).json["status"] == "active"
    missing = await ann.post(f"/invoices/mandates/{uuid.uuid4()}/revoke")
    assert missing.refusal == (404, "Mandate not found")
    assert (await ann.post("/invoices/mandates", {**body, "max_amount_cents": 0})).status == 422
    # Whoever is named gets a wallet.
    assert (await ann.post("/invoices/mandates", {"issuer_phone": "+963999000333"})).status == 200
    assert [event for event, _ in await told(owner, shop)] == [
        "invoices.mandate_upsert",
        "invoices.mandate_upsert",
        "invoices.mandate_revoke",
        "invoices.mandate_upsert",
    ]


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


async def test_paying_takes_three_round_trips(
    person: MakePerson, shop: Person, round_trips: list[str]
) -> None:
    ann = await person(balance=100)
    invoice_id = await bill(shop, ann)
    round_trips.clear()
    assert (await ann.post(f"/invoices/{invoice_id}/pay", key="k")).status == 200
    assert round_trips == ["users_by_id", "payables_to_pay", "post_with_effects"]


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


async def test_many_pay_and_the_issuer_cancels(
    person: MakePerson, shop: Person, elsewhere: ApiClient
) -> None:
    ann = await person(balance=10_000)
    for _ in range(5):
        invoice_id = await bill(shop, ann)
        before = await ann.balance()
        canceled, *said = await asyncio.gather(
            shop.post(f"/invoices/{invoice_id}/cancel"),
            *(
                side.post(f"/invoices/{invoice_id}/pay")
                for _ in range(4)
                for side in (ann, ann.at(elsewhere))
            ),
        )
        if canceled.json["detail"] == "canceled":
            assert {one.status for one in said} == {400}
            assert await ann.balance() == before
        else:
            assert canceled.json["detail"] == "already paid"
            assert len({one.body for one in said}) == 1
            assert await ann.balance() == before - 100


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
