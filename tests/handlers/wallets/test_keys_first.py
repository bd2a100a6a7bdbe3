"""A repeated key gets its first answer, whatever the rules say by then; a new key meets them. For every kind alike."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.platform import Platform
from core.recurring import charging
from core.service import open_service
from core.settings import Settings
from handlers.app import create_app
from tests.handlers.wallets.conftest import Administrator, ApiClient, MakePerson, Person, Said, new_key
from tests.handlers.wallets.test_qr import overdue

pytestmark = pytest.mark.shared

AMOUNT = 700
FLAGGING = {"fraud_risk_enabled": True, "fraud_flag_score": 0}
BLOCKING = {"fraud_risk_enabled": True, "fraud_block_score": 0}
COUNTS = {
    "audit": "SELECT count(*) FROM audit_events",
    "events": "SELECT count(*) FROM outbox_events",
    "transfers": "SELECT count(*) FROM transfers",
    "entries": "SELECT count(*) FROM entries",
}


@dataclass(frozen=True)
class Scene:
    """Two people, and one kind of payment between them: `make` makes what `pay` pays."""

    payer: Person
    payee: Person
    make: Callable[[], Awaitable[str]]
    pay: Callable[[Person, str, str], Awaitable[Said]]


async def _made(who: Person, path: str, body: dict[str, Any], member: str) -> str:
    said = await who.post(path, body)
    assert said.status == 200, said
    found: str = said.json[member]
    return found


def coded(path: str) -> Callable[[Person, str, str], Awaitable[Said]]:
    """Pay a code with the key in the body."""

    async def pay(payer: Person, code: str, key: str) -> Said:
        return await payer.post(path, {"code": code, "idempotency_key": key, "amount_cents": AMOUNT})

    return pay


def posted(path: str) -> Callable[[Person, str, str], Awaitable[Said]]:
    """Pay something that has an id in its path, with the key in the header."""

    async def pay(payer: Person, which: str, key: str) -> Said:
        return await payer.post(path.format(which), key=key)

    return pay


QR, LINK, REQUEST, INVOICE = "/payments/merchant/qr", "/payments/links", "/requests", "/invoices"


async def scene_of(kind: str, person: MakePerson) -> Scene:
    """Build the scene of a kind."""
    payer = await person(balance=100_000, kyc=1, agent=kind == "cash_in")
    payee = await person(balance=100_000, kyc=1, merchant=True, agent=kind == "cash_out")

    async def sent(who: Person, phone: str, key: str) -> Said:
        return await who.post(
            "/wallet/transfer", {"to_phone": phone, "amount_cents": AMOUNT, "idempotency_key": key}
        )

    async def known() -> str:
        return payee.phone

    def made(who: Person, path: str, body: dict[str, Any], member: str) -> Callable[[], Awaitable[str]]:
        return lambda: _made(who, path, body, member)

    amount = {"amount_cents": AMOUNT}
    ways: Mapping[str, tuple[Any, Any]] = {
        "p2p": (known, sent),
        "qr": (made(payee, QR, amount, "code"), coded("/payments/merchant/pay")),
        "static_qr": (made(payee, QR, amount | {"mode": "static"}, "code"), coded("/payments/merchant/pay")),
        "link": (made(payee, LINK, amount, "code"), coded("/payments/links/pay")),
        "static_link": (made(payee, LINK, {"expires_in_minutes": 5}, "code"), coded("/payments/links/pay")),
        "request": (
            made(payee, REQUEST, amount | {"to_phone": payer.phone}, "id"),
            posted("/requests/{}/accept"),
        ),
        "scanned": (
            made(
                payee,
                "/payments/merchant/cpm_request",
                amount | {"code": f"CPM:v1;phone={payer.phone}"},
                "id",
            ),
            posted("/requests/{}/accept"),
        ),
        "invoice": (
            made(payee, INVOICE, amount | {"payer_phone": payer.phone}, "id"),
            posted("/invoices/{}/pay"),
        ),
        "cash_in": (made(payee, "/cash/cashin/request", amount, "id"), posted("/cash/requests/{}/accept")),
        "cash_out": (made(payer, "/cash/cashout/request", amount, "id"), posted("/cash/requests/{}/accept")),
        "voucher": (made(payer, "/vouchers", {"amount_syp": 7}, "code"), posted("/vouchers/{}/redeem")),
    }
    make, pay = ways[kind]
    return Scene(payer, payee, make, pay)


KINDS = (
    "p2p", "qr", "static_qr", "link", "static_link", "request", "scanned", "invoice", "cash_in", "cash_out", "voucher",
)  # fmt: skip
# The payee asks for the money.
ASKED_BY_PAYEE = {"cash_out", "voucher"}


@dataclass
class Obstacle:
    """A change that makes the rules say no: of rows, of an administrator's word, or of the settings."""

    rows: str = ""
    settings: Mapping[str, Any] | None = None
    frozen: str = ""


OBSTACLES = {
    "risk": Obstacle(settings=BLOCKING),
    "limits": Obstacle(
        settings={
            "kyc_l1_tx_max_cents": 1,
            "kyc_l1_daily_max_cents": 1,
            "kyc_l0_tx_max_cents": 1,
            "kyc_l0_daily_max_cents": 1,
        }
    ),
    "payer_level": Obstacle(rows="UPDATE users SET kyc_level = 0, kyc_status = 'none' WHERE id = $1"),
    "payee_level": Obstacle(rows="UPDATE users SET kyc_level = 0, kyc_status = 'none' WHERE id = $2"),
    "payee_suspended": Obstacle(
        rows="UPDATE users SET is_merchant = false, merchant_status = 'suspended' WHERE id = $2"
    ),
    # An administrator rejects a verification, or sets the status of the merchant alone.
    "payee_rejected": Obstacle(rows="UPDATE users SET kyc_level = 0, kyc_status = 'rejected' WHERE id = $2"),
    "payee_status": Obstacle(rows="UPDATE users SET merchant_status = 'suspended' WHERE id = $2"),
    "agent_suspended": Obstacle(rows="UPDATE users SET is_agent = false WHERE id IN ($1, $2)"),
    "payer_frozen": Obstacle(frozen="payer"),
    "payee_frozen": Obstacle(frozen="payee"),
    "expired": Obstacle(rows="overdue"),
}
PAYING = {"p2p", "qr", "static_qr", "link", "static_link", "request", "scanned", "invoice"}
CODES = {"qr", "static_qr", "link", "static_link"}
# Which kinds each obstacle stands in the way of.
STOPS = {
    "risk": CODES | {"p2p", "invoice"},
    "limits": PAYING,
    "payer_level": CODES | {"cash_out"},
    "payee_level": CODES | {"invoice"},
    "payee_suspended": {"qr", "static_qr", "invoice", "scanned"},
    "payee_rejected": CODES | {"invoice", "scanned"},
    "payee_status": {"qr", "static_qr", "invoice", "scanned"},
    "agent_suspended": {"cash_in", "cash_out"},
    "payer_frozen": PAYING | {"cash_in", "cash_out"},
    "payee_frozen": PAYING | {"cash_in", "cash_out", "voucher"},
    "expired": CODES,
}


async def no_payable() -> str:
    return ""


# For people between whom nothing is paid by a call.
NO_PAYMENT = (no_payable, posted(""))


async def counted(owner: Any) -> dict[str, int]:
    return {table: await owner.fetchval(count) for table, count in COUNTS.items()}


@asynccontextmanager
async def restarted(
    client: ApiClient, settings: Settings, changes: Mapping[str, Any] | None
) -> AsyncIterator[ApiClient]:
    """Another process over the same database, with other settings; ours where nothing changes."""
    if not changes:
        yield client
        return
    changed = Settings.model_validate(settings.model_dump() | dict(changes))
    async with (
        open_service(changed) as service,
        TestClient(TestServer(create_app(changed, service))) as another,
    ):
        yield another


def asker_of(kind: str, scene: Scene) -> Person:
    return scene.payee if kind in ASKED_BY_PAYEE else scene.payer


async def stand_in_the_way(obstacle: Obstacle, scene: Scene, owner: Any, admin: Administrator) -> None:
    if obstacle.rows == "overdue":
        await overdue(owner)
    elif obstacle.rows:
        wanted = obstacle.rows.replace("$1", f"'{scene.payer.user.id}'")
        await owner.execute(wanted.replace("$2", f"'{scene.payee.user.id}'"))
    if obstacle.frozen:
        whose: Person = getattr(scene, obstacle.frozen)
        said = await admin.post(f"/admin/wallets/{whose.user.id}/freeze", {"reason": "a test"})
        assert said.status == 200, said


@pytest.mark.parametrize("kind", KINDS)
async def test_a_repeated_key_is_answered_before_any_rule(
    kind: str, person: MakePerson, settings: Settings, owner: Any, admin: Administrator
) -> None:
    """Every obstacle stands in the way of other people, so one database serves all of them."""
    for name in (name for name in OBSTACLES if kind in STOPS[name]):
        scene, obstacle, key = await scene_of(kind, person), OBSTACLES[name], new_key()
        asker = asker_of(kind, scene)
        paid, other = await scene.make(), await scene.make()
        first = await scene.pay(asker, paid, key)
        assert (first.status, b"already" in first.body) == (200, False), (name, first)
        balances = [await one.balance() for one in (scene.payer, scene.payee)]
        await stand_in_the_way(obstacle, scene, owner, admin)
        before = await counted(owner)
        async with restarted(asker.client, settings, obstacle.settings) as client:
            again = await scene.pay(asker.at(client), paid, key)
            assert (again.status, again.body) == (first.status, first.body), name
            assert await counted(owner) == before, name
            refused = await scene.pay(asker.at(client), other, new_key())
        assert 400 <= refused.refusal[0] < 500, name
        assert [await one.balance() for one in (scene.payer, scene.payee)] == balances, name
        records = await owner.fetch("SELECT type FROM audit_events WHERE user_id = $1", scene.payer.user.id)
        assert ("fraud.block" in {row["type"] for row in records}) is (name == "risk"), name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"p2p", "static_qr", "static_link"}])
async def test_what_is_paid_once_is_closed_to_a_new_key(kind: str, person: MakePerson, owner: Any) -> None:
    scene, key = await scene_of(kind, person), new_key()
    asker, paid = asker_of(kind, scene), await scene.make()
    first = await scene.pay(asker, paid, key)
    before = await counted(owner)
    assert (await scene.pay(asker, paid, key)).body == first.body
    late = await scene.pay(asker, paid, new_key())
    # An invoice that is paid answers with its payment, as the contract has it.
    assert late.status != 200 or b"already" in late.body or late.body == first.body
    assert await counted(owner) == before


@pytest.mark.alone
@pytest.mark.parametrize("kind", KINDS)
async def test_a_flagged_payment_is_recorded_once(
    kind: str, person: MakePerson, settings: Settings, owner: Any
) -> None:
    scene, key = await scene_of(kind, person), new_key()
    asker, paid = asker_of(kind, scene), await scene.make()
    async with restarted(asker.client, settings, FLAGGING) as client:
        first = await scene.pay(asker.at(client), paid, key)
        assert (await scene.pay(asker.at(client), paid, key)).body == first.body
    assert first.status == 200, first
    flags = await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'fraud.flag'")
    assert flags == (1 if kind in STOPS["risk"] else 0)


@pytest.mark.alone
async def test_a_flagged_payment_that_the_ledger_refuses_is_recorded(
    person: MakePerson, settings: Settings, owner: Any
) -> None:
    scene = await scene_of("p2p", person)
    body = {"to_phone": scene.payee.phone, "amount_cents": 100_001, "idempotency_key": new_key()}
    async with restarted(scene.payer.client, settings, FLAGGING) as client:
        said = await scene.payer.at(client).post("/wallet/transfer", body)
    assert said.status == 400, said
    assert await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'fraud.flag'") == 1


async def test_a_key_for_something_else_is_a_conflict_whatever_the_rules_say(
    person: MakePerson, settings: Settings
) -> None:
    scene, key = await scene_of("static_qr", person), new_key()
    paid = await scene.make()
    assert (await scene.pay(scene.payer, paid, key)).status == 200
    async with restarted(scene.payer.client, settings, BLOCKING) as client:
        payer = scene.payer.at(client)
        for code in (await scene.make(), "PAY:v1;code=unknown", "nonsense"):
            assert (await scene.pay(payer, code, key)).status == 409
        other = {"to_phone": scene.payee.phone, "amount_cents": AMOUNT, "idempotency_key": key}
        assert (await payer.post("/wallet/transfer", other)).status == 409
        unknown = {**other, "to_phone": "+963999999998"}
        assert (await payer.post("/wallet/transfer", unknown)).status == 409


async def test_a_repeated_top_up_is_answered_where_top_ups_are_off(
    person: MakePerson, settings: Settings
) -> None:
    ann, body = await person(), {"amount_cents": 5, "idempotency_key": new_key()}
    first = await ann.post("/wallet/topup", body)
    async with restarted(ann.client, settings, {"dev_enable_topup": False}) as client:
        assert (await ann.at(client).post("/wallet/topup", body)).body == first.body
        assert (
            await ann.at(client).post("/wallet/topup", {**body, "idempotency_key": new_key()})
        ).status == 403


async def test_a_scan_that_was_asked_for_is_found_again_by_a_merchant_no_more(
    person: MakePerson, owner: Any
) -> None:
    shop, ann, key = await person(kyc=1, merchant=True), await person(), new_key()
    body = {"amount_cents": 5, "code": f"CPM:v1;phone={ann.phone}"}
    first = await shop.post("/payments/merchant/cpm_request", body, key=key)
    assert first.status == 200, first
    await owner.execute("UPDATE users SET is_merchant = false WHERE id = $1", shop.user.id)
    assert (await shop.post("/payments/merchant/cpm_request", body, key=key)).body == first.body
    assert (await shop.post("/payments/merchant/cpm_request", body, key=new_key())).status == 403


@pytest.mark.alone
async def test_a_mandate_pays_no_issuer_who_lost_their_state(person: MakePerson, owner: Any) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(balance=1_000)
    bill = {"payer_phone": ann.phone, "amount_cents": 100, "due_in_days": 0}
    assert (await shop.post("/invoices", bill)).status == 200
    mandate = {"issuer_phone": shop.phone, "autopay": True}
    assert (await ann.post("/invoices/mandates", mandate)).status == 200
    await owner.execute("UPDATE users SET is_merchant = false WHERE id = $1", shop.user.id)
    said = await ann.post("/invoices/process_due")
    assert said.json["processed"] == []
    assert len(said.json["errors"]) == 1
    await owner.execute("UPDATE users SET is_merchant = true WHERE id = $1", shop.user.id)
    assert len((await ann.post("/invoices/process_due")).json["processed"]) == 1
    assert await ann.balance() == 900


@pytest.mark.alone
@pytest.mark.parametrize("name", ["payee_rejected", "payee_status", "payee_suspended"])
async def test_a_subscription_pays_no_merchant_who_lost_their_state(
    name: str, person: MakePerson, platform: Platform, owner: Any, admin: Administrator
) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(balance=1_000)
    body = {"merchant_phone": shop.phone, "amount_cents": 50, "interval_days": 1}
    made = await ann.post("/subscriptions", body)
    assert made.status == 200, made
    await owner.execute(
        "UPDATE subscriptions SET next_charge_at = clock_timestamp(), try_at = clock_timestamp()"
    )
    await stand_in_the_way(OBSTACLES[name], Scene(ann, shop, *NO_PAYMENT), owner, admin)
    assert tuple(await charging.step(platform)) == (0, 1)
    assert (await ann.balance(), await shop.balance()) == (1_000, 0)
    assert (await ann.post("/subscriptions", body)).refusal[0] == 400


async def test_a_repeated_ask_is_answered_as_it_was(person: MakePerson) -> None:
    ann, bob, key = await person(), await person(balance=100), new_key()
    body = {"to_phone": bob.phone, "amount_cents": 5}
    first = await ann.post("/requests", body, key=key)
    assert (await bob.post(f"/requests/{first.json['id']}/accept")).status == 200
    assert (await ann.post("/requests", body, key=key)).body == first.body
    assert (await ann.get(f"/requests/{first.json['id']}")).json["status"] == "accepted"


@pytest.mark.parametrize("kind", ["invoice", "request", "scanned"])
async def test_what_is_paid_is_told_so_without_a_key_whatever_the_payee_is_by_now(
    kind: str, person: MakePerson, owner: Any
) -> None:
    scene = await scene_of(kind, person)
    which = await scene.make()
    path = f"/invoices/{which}/pay" if kind == "invoice" else f"/requests/{which}/accept"
    assert (await scene.payer.post(path)).status == 200
    second = await scene.payer.post(path)
    await owner.execute(
        "UPDATE users SET is_merchant = false, kyc_level = 0 WHERE id = $1", scene.payee.user.id
    )
    assert (await scene.payer.post(path)).body == second.body
    assert second.status == 200


async def test_a_key_for_one_payable_meets_no_other_use_of_its_text(person: MakePerson) -> None:
    scene = await scene_of("request", person)
    which = await scene.make()
    body = {"to_phone": scene.payee.phone, "amount_cents": 1, "idempotency_key": f"requests.accept:{which}:k"}
    assert (await scene.payer.post("/wallet/transfer", body)).status == 200
    assert (await scene.pay(scene.payer, which, "k")).status == 200
