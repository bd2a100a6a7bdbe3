"""Registering and signing in with a password, and the fixed accounts of development."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from argon2 import PasswordHasher

from core.identity.sign_in import DEV_ACCOUNTS
from core.settings import Settings
from tests.handlers.wallets.conftest import MakePerson, Person, Said

ANN = {"username": "Ann", "password": "correct horse", "phone": "0944 123 456", "name": "Ann"}


@pytest.fixture
def auth_settings() -> dict[str, Any]:
    """What a test sets."""
    return {}


@pytest.fixture
def settings(settings: Settings, auth_settings: dict[str, Any]) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"rate_limit_enabled": False} | auth_settings)


async def log_in(nobody: Person, username: str, password: str) -> Said:
    return await nobody.post("/auth/login", {"username": username, "password": password})


async def test_register_and_log_in(nobody: Person, owner: Any) -> None:
    said = await nobody.post("/auth/register", ANN)
    assert said.status == 200, said
    assert list(said.json) == ["access_token", "token_type"]
    ann = Person(nobody.client, None, said.json["access_token"])
    assert (await ann.get("/wallet")).json["user"]["phone"] == "+963944123456"
    for username in ("Ann", "ann", "ANN"):  # defect 35
        assert (await log_in(nobody, username, "correct horse")).status == 200
    stored = await owner.fetchval("SELECT password_hash FROM users WHERE username = 'Ann'")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_refusals_and_their_order(nobody: Person, person: MakePerson) -> None:
    taken = await person()
    assert (await nobody.post("/auth/register", ANN)).status == 200

    async def refused(**changes: Any) -> tuple[int, str]:
        return (await nobody.post("/auth/register", ANN | changes)).refusal

    assert await refused(username="aNN", phone="none", password="aaaaaaaa") == (400, "username_taken")
    assert await refused(username="bob", phone="none", password="aaaaaaaa") == (400, "invalid_phone")
    assert await refused(username="bob", password="aaaaaaaa") == (400, "phone_taken")
    assert await refused(username="bob", phone=taken.phone) == (400, "phone_taken")
    assert await refused(username="bob", phone="0944000000", password="aaaaaaaa") == (400, "weak_password")
    assert await refused(username="robert12", phone="0944000000", password="Robert12") == (
        400,
        "weak_password",
    )
    for changes in (
        {"username": "bo"}, {"username": "b" * 65}, {"password": "1234567"}, {"password": "p" * 129},
        {"phone": None}, {"phone": 5}, {"name": "n" * 129},
    ):  # fmt: skip
        said = await nobody.post("/auth/register", ANN | {"username": "bob"} | changes)
        assert said.status == 422
        assert b"correct horse" not in said.body
    assert (await refused(username="bob", phone="1" * 40))[0] == 400


async def test_invalid_credentials_all_look_the_same(nobody: Person, person: MakePerson) -> None:
    await person()
    await nobody.post("/auth/register", ANN)
    answers = [
        await log_in(nobody, "Ann", "wrong"),
        await log_in(nobody, "nobody", "correct horse"),
        await log_in(nobody, "", ""),
        await log_in(nobody, "ann' OR 1=1 --", "x" * 10_000),
    ]
    assert [said.refusal for said in answers] == [(401, "invalid_credentials")] * 4
    assert len({said.body for said in answers}) == 1


async def test_the_whole_password_counts(nobody: Person) -> None:
    """Defect 35: bcrypt cut it after 72 bytes."""
    password = "p" * 71 + "ä" + "q" * 40
    assert (await nobody.post("/auth/register", ANN | {"password": password})).status == 200
    assert (await log_in(nobody, "ann", password)).status == 200
    assert (await log_in(nobody, "ann", password[:-1])).status == 401


async def test_one_username_and_one_phone_of_many_at_once(nobody: Person, owner: Any) -> None:
    async def register(username: str, phone: str) -> Said:
        return await nobody.post("/auth/register", ANN | {"username": username, "phone": phone})

    answers = await asyncio.gather(*(register("Carl", f"09440000{at:02}") for at in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    assert {said.refusal for said in answers if said.status != 200} == {(400, "username_taken")}
    answers = await asyncio.gather(*(register(f"dora{at}", "0944111111") for at in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    assert {said.refusal for said in answers if said.status != 200} == {(400, "phone_taken")}
    assert await owner.fetchval("SELECT count(*) FROM users WHERE username IS NOT NULL") == 2
    # Whoever lost has left nothing behind, and may take the phone after all.
    free = {f"+963944{at:06}" for at in range(8)} - {
        row["phone"] for row in await owner.fetch("SELECT phone FROM users")
    }
    assert len(free) == 7
    assert (await register("Emil", free.pop())).status == 200


@pytest.mark.parametrize("auth_settings", [{"otp_mode": "dev"}])
async def test_a_password_is_never_put_on_somebody_s_account(
    nobody: Person, owner: Any, eventually: Callable[..., Awaitable[Any]]
) -> None:
    """Who signs in by code while another registers the same phone has the account, without a password."""
    for at in range(6):
        phone = f"+96394400010{at}"
        registered, verified = await asyncio.gather(
            nobody.post("/auth/register", ANN | {"username": f"fred{at}", "phone": phone}),
            nobody.post("/auth/verify_otp", {"phone": phone, "otp": "123456"}),
        )
        assert verified.status == 200
        assert registered.status in {200, 400}
        row = await owner.fetchrow("SELECT username, password_hash FROM users WHERE phone = $1", phone)
        assert (row["password_hash"], row["username"]) == (None, None)


@pytest.mark.parametrize("auth_settings", [{"otp_mode": "dev"}])
async def test_who_registered_first_is_out_when_the_owner_comes(
    nobody: Person, person: MakePerson, owner: Any
) -> None:
    """A thief puts a password on a phone, and waits for its owner, who signs in by code and is paid."""
    shop = await person(merchant=True, kyc=1)
    said = await nobody.post("/auth/register", ANN | {"phone": "+963944123456", "refresh": True})
    thief, refresh = Person(nobody.client, None, said.json["access_token"]), said.json["refresh_token"]
    mandate = {"issuer_phone": shop.phone, "autopay": True}
    assert (await thief.post("/invoices/mandates", mandate)).status == 200
    body = {"merchant_phone": shop.phone, "amount_cents": 100, "interval_days": 1}
    assert (await thief.post("/subscriptions", body)).status == 200

    code = {"phone": "+963944123456", "otp": "123456"}
    ann = Person(nobody.client, None, (await nobody.post("/auth/verify_otp", code)).json["access_token"])
    assert (await thief.get("/wallet")).refusal == (401, "Invalid token")
    assert (await nobody.post("/auth/refresh", {"refresh_token": refresh})).status == 401
    assert (await log_in(nobody, "Ann", "correct horse")).status == 401
    assert [one["status"] for one in (await ann.get("/subscriptions")).json] == ["canceled"]
    assert [one["status"] for one in (await ann.get("/invoices/mandates")).json["items"]] == ["revoked"]

    # It is the first proof that ends it: later codes end nothing.
    await nobody.post("/auth/verify_otp", code)
    assert (await ann.get("/wallet")).status == 200
    types = [row["type"] for row in await owner.fetch("SELECT type FROM audit_events ORDER BY id")]
    assert types.count("auth.phone_proven") == 1


@pytest.mark.parametrize("auth_settings", [{"otp_mode": "dev", "starting_credit_cents": 500}])
async def test_an_invented_phone_is_no_money(nobody: Person, owner: Any) -> None:
    """The starting credit comes with the phone's first code, once."""
    phone = "+963944123456"
    token = (await nobody.post("/auth/register", ANN | {"phone": phone})).json["access_token"]
    assert (await Person(nobody.client, None, token).get("/wallet")).json["wallet"]["balance_cents"] == 0
    for _ in range(2):
        said = await nobody.post("/auth/verify_otp", {"phone": phone, "otp": "123456"})
        ann = Person(nobody.client, None, said.json["access_token"])
        assert (await ann.get("/wallet")).json["wallet"]["balance_cents"] == 500
    assert await owner.fetchval("SELECT count(*) FROM transfers WHERE kind = 'wallet.airdrop'") == 1


@pytest.mark.parametrize("auth_settings", [{"otp_mode": "dev", "starting_credit_cents": 500}])
async def test_a_credit_that_cannot_be_given_keeps_no_thief_in(nobody: Person, owner: Any) -> None:
    phone = "+963944123456"
    token = (await nobody.post("/auth/register", ANN | {"phone": phone})).json["access_token"]
    await owner.execute(
        "UPDATE accounts SET state = 1 WHERE code = (SELECT 'wallet:' || wallet_id FROM users WHERE phone = $1)",
        phone,
    )
    assert (await nobody.post("/auth/verify_otp", {"phone": phone, "otp": "123456"})).status == 200
    assert (await Person(nobody.client, None, token).get("/wallet")).refusal == (401, "Invalid token")
    assert (await log_in(nobody, "Ann", "correct horse")).status == 401


@pytest.mark.parametrize("auth_settings", [{"login_max_failures": 3}])
async def test_guesses_at_one_username_end(nobody: Person) -> None:
    await nobody.post("/auth/register", ANN)
    for _ in range(3):
        assert (await log_in(nobody, "ANN", "wrong")).status == 401
    said = await log_in(nobody, "ann", "correct horse")
    assert said.refusal == (429, "Too many wrong passwords")
    assert 0 < int(said.headers["Retry-After"]) <= 900


async def test_an_old_hash_is_renewed(nobody: Person, owner: Any) -> None:
    await nobody.post("/auth/register", ANN)
    await owner.execute(
        "UPDATE users SET password_hash = $1", PasswordHasher(1, 8_192, 1).hash("correct horse")
    )
    assert (await log_in(nobody, "ann", "correct horse")).status == 200
    assert "m=19456,t=2,p=1" in await owner.fetchval("SELECT password_hash FROM users")
    assert (await log_in(nobody, "ann", "correct horse")).status == 200
    await owner.execute("UPDATE users SET password_hash = '$2b$12$of.another.kind'")
    assert (await log_in(nobody, "ann", "correct horse")).status == 401


class TestDevelopment:
    @pytest.fixture
    def auth_settings(self) -> dict[str, Any]:
        return {"env": "dev", "dev_reset_user_state_on_login": True}

    async def test_six_accounts(self, nobody: Person) -> None:
        assert len(DEV_ACCOUNTS) == 6
        for account in DEV_ACCOUNTS * 2:
            body = {"username": account.username.upper(), "password": account.password}
            said = await nobody.post("/auth/dev_login", body)
            assert said.status == 200, said
            somebody = Person(nobody.client, None, said.json["access_token"])
            shown = (await somebody.get("/wallet")).json["user"]
            assert (shown["phone"], shown["is_merchant"]) == (account.phone, account.merchant)

    async def test_roles(self, nobody: Person, owner: Any) -> None:
        for name in ("merchant", "agent"):
            await nobody.post("/auth/dev_login", {"username": name, "password": name})
        rows = await owner.fetch(
            "SELECT is_merchant, merchant_status, is_agent FROM users WHERE name LIKE 'Dev%' ORDER BY phone"
        )
        assert [tuple(row) for row in rows] == [(True, "approved", False), (False, "none", True)]

    async def test_refusals(self, nobody: Person) -> None:
        for body in ({"username": "admin", "password": "x"}, {"username": "x", "password": "admin"}):
            assert (await nobody.post("/auth/dev_login", body)).refusal == (401, "Invalid credentials")


async def test_no_accounts_of_development_elsewhere(nobody: Person) -> None:
    said = await nobody.post("/auth/dev_login", {"username": "admin", "password": "admin"})
    assert said.refusal == (404, "Not Found")


async def test_nobody_takes_the_wallet_of_the_fees(nobody: Person, settings: Settings) -> None:
    """It is made with the first fee, and whoever had registered its phone before that would have got them all."""
    thief = {"username": "thief", "password": "correct horse", "phone": settings.fee_wallet_phone}
    for phone in (settings.fee_wallet_phone, settings.fee_wallet_phone.replace("+963", "0 ")):
        assert (await nobody.post("/auth/register", thief | {"phone": phone})).refusal == (400, "phone_taken")


async def test_a_password_is_the_same_on_every_keyboard(nobody: Person, owner: Any) -> None:
    """An accent may come composed or not; hashes of before, made of what was typed, still count and are renewed."""
    composed, apart = "caf\u00e9 caf\u00e9", "cafe\u0301 cafe\u0301"
    assert (await nobody.post("/auth/register", ANN | {"password": apart})).status == 200
    for password in (composed, apart):
        assert (await log_in(nobody, "ann", password)).status == 200
    await owner.execute("UPDATE users SET password_hash = $1", PasswordHasher(2, 19_456, 1).hash(apart))
    assert (await log_in(nobody, "ann", composed)).status == 401
    assert (await log_in(nobody, "ann", apart)).status == 200
    assert (await log_in(nobody, "ann", composed)).status == 200


async def test_a_username_is_the_same_in_every_form(nobody: Person, owner: Any) -> None:
    async def register(username: str, number: int) -> Said:
        more = {"username": username, "phone": f"+96394480000{number}"}
        return await nobody.post("/auth/register", ANN | more)

    assert (await register("\u00c4nne  Smith", 1)).status == 200
    for same in ("\u00e4nne smith", "A\u0308NNE SMITH", "\uff41\u0308nne Smith"):
        assert (await register(same, 2)).refusal == (400, "username_taken")
        assert (await log_in(nobody, same, "correct horse")).status == 200
    for bad in ("ann\u200b", "a\u202enn", "   a   ", "ann\tb", "\U0001f600abc", "ali.\u0639\u0644\u064a"):
        assert (await register(bad, 3)).refusal == (400, "invalid_username"), bad
    assert (await register("\u0639\u0644\u064a123", 4)).status == 200
    # A username of before this rule signs in as it was written.
    await owner.execute("UPDATE users SET username = $1 WHERE phone = '+963944800004'", "Old\u200bAnn")
    assert (await log_in(nobody, "old\u200bann", "correct horse")).status == 200
    assert (await log_in(nobody, "oldann", "correct horse")).status == 401
