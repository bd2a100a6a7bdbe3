"""Money for a phone that nobody has proven arrives and waits, and leaves only after a code has proven the phone."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.platform import Platform
from core.recurring import autopay, charging
from core.settings import Settings
from tests.handlers.wallets.authenticator import Authenticator
from tests.handlers.wallets.billing import allow, bill, status_of
from tests.handlers.wallets.conftest import Administrator, MakePerson, Person, Said, new_key
from tests.handlers.wallets.test_auth_passkeys import log_in, register
from tests.handlers.wallets.test_internal import TRANSFER, Sibling, payment

pytestmark = pytest.mark.shared

WAITS = (403, "Phone not proven")
_names = itertools.count(1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    more = {"otp_mode": "dev", "rate_limit_enabled": False, "kyc_min_level_for_merchant_qr": 0}
    return Settings.model_validate(settings.model_dump() | more)


Thief = tuple[Person, str]


@pytest.fixture
def thief(nobody: Person, person: MakePerson, platform: Platform) -> Callable[[], Awaitable[Thief]]:
    """Return a maker of somebody who has registered another's phone by password, to which 1,000 then came."""

    async def make() -> Thief:
        number = next(_names)
        phone = f"+9639440{number:05}"
        body = {"username": f"thief{number}", "password": "correct horse", "phone": phone}
        said = await nobody.post("/auth/register", body)
        assert said.status == 200, said
        giver = await person(balance=1_000)
        paid = await giver.post("/wallet/transfer", transfer(phone, 1_000))
        assert paid.status == 200, paid
        user = await platform.users.by_phone(phone)
        assert user is not None
        return Person(nobody.client, user, said.json["access_token"]), phone

    return make


@pytest.fixture
def sibling(wallets: Any) -> Sibling:
    return Sibling(wallets)


def transfer(phone: str, amount: int = 10) -> dict[str, Any]:
    return {"to_phone": phone, "amount_cents": amount, "idempotency_key": new_key()}


async def test_no_way_out(
    thief: Callable[[], Awaitable[Thief]], person: MakePerson, nobody: Person, sibling: Sibling, owner: Any
) -> None:
    """Each way of moving money out of the wallet is refused, and works as soon as the owner has proven the phone."""
    eve, phone = await thief()
    shop, agent = await person(merchant=True, kyc=1), await person(agent=True)
    # A payment that came to the wallet can be refunded by its payee.
    (arrived,) = (await eve.get("/wallet/transactions")).json["entries"]
    # As an agent or a merchant the thief could pay out, too.
    await owner.execute(
        "UPDATE users SET is_agent = TRUE, is_merchant = TRUE, kyc_level = 1 WHERE phone = $1", phone
    )

    async def ways(somebody: Person) -> dict[str, Callable[[], Awaitable[Said]]]:
        qr = (await shop.post("/payments/merchant/qr", {"amount_cents": 10})).json["code"]
        link = (await shop.post("/payments/links", {"amount_cents": 10})).json["code"]
        asked = await shop.post("/requests", {"to_phone": phone, "amount_cents": 10})
        cash = await (await person()).post("/cash/cashin/request", {"amount_cents": 10})
        invoice = await bill(shop, somebody, 10)
        post = somebody.post
        code = {"code": qr, "idempotency_key": new_key()}
        return {
            "transfer": lambda: post("/wallet/transfer", transfer(shop.phone)),
            "qr": lambda: post("/payments/merchant/pay", code),
            "link": lambda: post("/payments/links/pay", {"code": link, "idempotency_key": new_key()}),
            "request": lambda: post(f"/requests/{asked.json['id']}/accept"),
            "invoice": lambda: post(f"/invoices/{invoice}/pay"),
            "cash in, as agent": lambda: post(f"/cash/requests/{cash.json['id']}/accept"),
            "cash out": lambda: post("/cash/cashout/request", {"amount_cents": 10}),
            "voucher": lambda: post("/vouchers", {"amount_syp": 1}),
            "refund": lambda: post(
                "/refunds", {"original_transfer_id": arrived["transfer_id"], "amount_cents": 10}
            ),
            "internal": lambda: sibling.post(TRANSFER, payment(somebody, shop) | {"amount_cents": 10}),
        }

    for name, way in (await ways(eve)).items():
        assert (name, (await way()).refusal) == (name, WAITS)
    # A passkey of the thief's opens the wallet, and moves nothing either.
    passkey = Authenticator()
    assert (await register(eve, passkey)).status == 200
    again = Person(nobody.client, eve.user, (await log_in(nobody, passkey)).json["access_token"])
    assert (await again.post("/wallet/transfer", transfer(shop.phone))).refusal == WAITS
    assert await eve.balance() == 1_000

    said = await nobody.post("/auth/verify_otp", {"phone": phone, "otp": "123456"})
    ann = Person(nobody.client, eve.user, said.json["access_token"])
    for name, way in (await ways(ann)).items():
        assert (name, (await way()).status) == (name, 200)
    assert (await eve.get("/wallet")).status == 401
    # Ten ways of ten units, but for the voucher of a whole one and its hundred.
    assert await ann.balance() == 1_000 - 10 * 8 - 100
    assert (await agent.get("/wallet")).status == 200


async def test_no_mandate_and_no_subscription(
    thief: Callable[[], Awaitable[Thief]], person: MakePerson, platform: Platform, owner: Any
) -> None:
    eve, _ = await thief()
    shop = await person(merchant=True, kyc=1)
    invoice = await bill(shop, eve, 10)
    await allow(eve, shop)
    swept = await autopay.sweep(platform, eve.user)
    assert [(str(one), refusal.code) for one, refusal in swept.errors] == [(invoice, "phone_not_proven")]
    assert await status_of(eve, invoice) == "pending"
    body = {"merchant_phone": shop.phone, "amount_cents": 10, "interval_days": 1}
    subscription = (await eve.post("/subscriptions", body)).json["id"]
    await owner.execute(
        "UPDATE subscriptions SET next_charge_at = now(), try_at = now() WHERE id = $1", subscription
    )
    await charging.charge_due(platform, 100)
    row = await owner.fetchrow("SELECT last_error FROM subscriptions WHERE id = $1", subscription)
    assert tuple(row) == ("phone_not_proven",)
    assert await eve.balance() == 1_000


async def test_an_administrator_gives_it_back(
    thief: Callable[[], Awaitable[Thief]], admin: Administrator
) -> None:
    """Money that went to a wrong phone returns to its payer by an administrator, as out of a frozen wallet."""
    eve, _ = await thief()
    (arrived,) = (await eve.get("/wallet/transactions")).json["entries"]
    body = {"original_transfer_id": arrived["transfer_id"], "amount_cents": 1_000}
    assert (await admin.post("/admin/refunds", body, key=new_key())).status == 200
    assert await eve.balance() == 0


async def test_a_key_is_answered_before_the_rule(person: MakePerson, sibling: Sibling, owner: Any) -> None:
    """Payments that were made before this rule, out of wallets that nobody had proven, keep their answers."""
    ann, bob = await person(balance=1_000), await person()
    body, voucher, key = transfer(bob.phone), {"amount_syp": 1}, new_key()
    calls: tuple[Callable[[], Awaitable[Said]], ...] = (
        lambda: ann.post("/wallet/transfer", body),
        lambda: ann.post("/vouchers", voucher, key=key),
        lambda: ann.post("/cash/cashout/request", {"amount_cents": 5}, key=key),
        lambda: sibling.post(TRANSFER, payment(ann, bob), key=key),
    )
    first = [await call() for call in calls]
    assert [said.status for said in first] == [200] * len(calls)
    await owner.execute("UPDATE users SET phone_proven_at = NULL WHERE id = $1", ann.user.id)
    assert [(await call()).body for call in calls] == [said.body for said in first]
    assert (await ann.post("/wallet/transfer", transfer(bob.phone))).refusal == WAITS


async def test_nothing_of_the_thief_speaks_for_the_owner(
    thief: Callable[[], Awaitable[Thief]], person: MakePerson, nobody: Person, owner: Any
) -> None:
    eve, phone = await thief()
    bob = await person()
    await owner.execute("UPDATE users SET name = 'Your bank' WHERE phone = $1", phone)
    assert (await eve.post("/wallet/blocked_senders", {"phone": bob.phone})).status == 200
    asked = await eve.post("/requests", {"to_phone": bob.phone, "amount_cents": 10})
    assert asked.status == 200
    assert (await eve.post("/cash/cashin/request", {"amount_cents": 10})).status == 200
    said = await nobody.post("/auth/verify_otp", {"phone": phone, "otp": "123456"})
    ann = Person(nobody.client, eve.user, said.json["access_token"])
    assert (await ann.get("/wallet/blocked_senders")).json["items"] == []
    assert [one["status"] for one in (await ann.get("/cash/requests")).json["my"]] == ["canceled"]
    assert [one["status"] for one in (await bob.get("/requests")).json["incoming"]] == ["canceled"]
    assert await owner.fetchval("SELECT name FROM users WHERE phone = $1", phone) is None
    # A user who proves the phone without a password before keeps the name, and what comes later stays.
    later = await ann.post("/requests", {"to_phone": bob.phone, "amount_cents": 10})
    await nobody.post("/auth/verify_otp", {"phone": phone, "otp": "123456"})
    assert (await bob.get(f"/requests/{later.json['id']}")).json["status"] == "pending"
