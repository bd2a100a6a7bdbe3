"""Passkeys: registered and used with a proof, never without one (defect 10)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from core.service import Service
from core.settings import Settings
from tests.handlers.wallets.authenticator import PRESENT, Authenticator
from tests.handlers.wallets.conftest import Administrator, MakePerson, Person, Said

pytestmark = pytest.mark.shared

NOT_VERIFIED = (400, "Passkey not verified")
Change = Callable[[Authenticator], None]


@pytest.fixture
def passkey_settings() -> dict[str, Any]:
    """What a test sets."""
    return {}


@pytest.fixture
def settings(settings: Settings, passkey_settings: dict[str, Any]) -> Settings:
    more = {"rate_limit_enabled": False, "passkeys_dev_unsafe": True, "passkeys_rp_name": "Wallet"}
    return Settings.model_validate(settings.model_dump() | more | passkey_settings)


async def challenge(somebody: Person, kind: str) -> str:
    said = await somebody.post(f"/auth/passkey/{kind}_challenge")
    assert said.status == 200, said
    text: str = said.json["challenge"]
    assert len(text) == 43
    return text


async def register(ann: Person, passkey: Authenticator) -> Said:
    return await ann.post("/auth/passkey/register_verify", passkey.attest(await challenge(ann, "register")))


async def log_in(nobody: Person, passkey: Authenticator, asked: str | None = None) -> Said:
    asked = asked or await challenge(nobody, "login")
    return await nobody.post("/auth/passkey/login_verify", passkey.sign(asked))


async def test_register_and_sign_in(person: MakePerson, nobody: Person) -> None:
    ann, passkey = await person(), Authenticator()
    said = await ann.post("/auth/passkey/register_challenge")
    assert said.json == {
        "rpId": "localhost",
        "rpName": "Wallet",
        "challenge": said.json["challenge"],
        "user": {"id": str(ann.user.id), "name": ann.phone},
    }
    said = await ann.post("/auth/passkey/register_verify", passkey.attest(said.json["challenge"]))
    assert (said.status, said.body) == (200, b'{"detail":"registered"}')
    asked = await ann.post("/auth/passkey/login_challenge")
    assert list(asked.json) == ["challenge", "rpId"]
    for text in (asked.json["challenge"], None):  # the caller's own, and one of whoever has the passkey
        signed_in = await log_in(nobody, passkey, text)
        assert list(signed_in.json) == ["access_token", "token_type"]
        again = Person(nobody.client, None, signed_in.json["access_token"])
        assert (await again.get("/wallet")).json["user"]["id"] == str(ann.user.id)


async def test_the_contract_s_names(person: MakePerson, nobody: Person) -> None:
    ann, passkey = await person(), Authenticator()
    given = passkey.attest(await challenge(ann, "register"))
    given = {
        "credentialId": given["id"] + "=",
        "response": given["response"],
        "publicKey": "x",
        "signCount": 0,
    }
    assert (await ann.post("/auth/passkey/register_verify", given)).status == 200
    given = passkey.sign(await challenge(nobody, "login"))
    said = await nobody.post(
        "/auth/passkey/login_verify",
        {"credentialId": given["id"], "response": given["response"], "refresh": True},
    )
    assert "refresh_token" in said.json


NO_PROOFS: tuple[Any, ...] = (None, {}, [], "x", {"clientDataJSON": "x"}, {"clientDataJSON": "e30"})


@pytest.mark.alone
async def test_never_without_a_proof(person: MakePerson, nobody: Person, owner: Any) -> None:
    ann, passkey = await person(), Authenticator()
    await challenge(ann, "register")
    for response in NO_PROOFS:
        body = {"credentialId": passkey.name, "publicKey": "x", "signCount": 0, "response": response}
        assert (await ann.post("/auth/passkey/register_verify", body)).refusal == NOT_VERIFIED
    assert await owner.fetchval("SELECT count(*) FROM passkeys") == 0
    await register(ann, passkey)
    for response in NO_PROOFS:
        body = {"credentialId": passkey.name, "response": response}
        assert (await nobody.post("/auth/passkey/login_verify", body)).refusal == NOT_VERIFIED


async def test_ids(person: MakePerson, nobody: Person) -> None:
    ann = await person()
    for body in (
        {},
        {"id": "1234567"},
        {"credentialId": 12345678},
        {"id": None},
        {"credentialId": ["x" * 9]},
    ):
        for somebody, path in ((ann, "register_verify"), (nobody, "login_verify")):
            said = await somebody.post(f"/auth/passkey/{path}", body)
            assert said.refusal == (400, "Invalid credentialId")
    assert (await log_in(nobody, Authenticator())).refusal == (404, "Credential not found")
    for name in ("\u00e9" * 9, "x" * 20_000, "========", "!!!!!!!!!"):
        said = await nobody.post("/auth/passkey/login_verify", {"id": name, "response": {}})
        assert said.status in {400, 404}


def of_another_origin(passkey: Authenticator) -> None:
    passkey.origin = "https://evil.example"


def of_another_party(passkey: Authenticator) -> None:
    passkey.rp_id = "evil.example"


def without_verification(passkey: Authenticator) -> None:
    passkey.flags = PRESENT


def without_presence(passkey: Authenticator) -> None:
    passkey.flags = 0


def of_another_key(passkey: Authenticator) -> None:
    passkey._key = Authenticator()._key


@pytest.mark.parametrize(
    "change", [of_another_origin, of_another_party, without_verification, without_presence, of_another_key]
)
async def test_proofs_that_do_not_hold(person: MakePerson, nobody: Person, change: Change) -> None:
    ann, passkey = await person(), Authenticator()
    if change is not of_another_key:
        other = Authenticator()
        change(other)
        assert (await register(ann, other)).refusal == NOT_VERIFIED
    assert (await register(ann, passkey)).status == 200
    change(passkey)
    assert (await log_in(nobody, passkey)).refusal == NOT_VERIFIED


async def test_a_challenge_counts_once_and_for_one_purpose(person: MakePerson, nobody: Person) -> None:
    ann, bob, passkey = await person(), await person(), Authenticator()
    asked = await challenge(ann, "register")
    assert (await bob.post("/auth/passkey/register_verify", passkey.attest(asked))).refusal == NOT_VERIFIED
    assert (await ann.post("/auth/passkey/register_verify", passkey.attest(asked))).refusal == NOT_VERIFIED
    assert (await register(ann, passkey)).status == 200
    assert (await register(ann, passkey)).refusal == NOT_VERIFIED  # it is there
    assert (await register(bob, passkey)).refusal == NOT_VERIFIED
    assert (await log_in(nobody, passkey, await challenge(ann, "register"))).refusal == NOT_VERIFIED
    assert (await log_in(nobody, passkey, await challenge(bob, "login"))).refusal == NOT_VERIFIED
    assert (await log_in(nobody, passkey, "A" * 43)).refusal == NOT_VERIFIED
    asked = await challenge(nobody, "login")
    signed = passkey.sign(asked)
    answers = await asyncio.gather(*(nobody.post("/auth/passkey/login_verify", signed) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7


async def test_a_copy_is_found_out_by_its_count(person: MakePerson, nobody: Person) -> None:
    ann, passkey = await person(), Authenticator()
    await register(ann, passkey)
    assert (await log_in(nobody, passkey)).status == 200
    passkey.sign_count -= 1
    assert (await log_in(nobody, passkey)).refusal == NOT_VERIFIED
    # Two proofs of one count over two challenges, at once: the row decides.
    asked = [await challenge(nobody, "login") for _ in range(2)]
    signed = [passkey.sign(asked[0])]
    passkey.sign_count -= 1
    signed.append(passkey.sign(asked[1]))
    answers = await asyncio.gather(*(nobody.post("/auth/passkey/login_verify", one) for one in signed))
    assert sorted(answer.status for answer in answers) == [200, 400]


async def test_passkeys_that_do_not_count(person: MakePerson, nobody: Person) -> None:
    ann, passkey = await person(), Authenticator()
    passkey.counts = False
    await register(ann, passkey)
    for _ in range(2):
        assert (await log_in(nobody, passkey)).status == 200


async def test_twenty_a_person(person: MakePerson) -> None:
    ann = await person()
    for _ in range(20):
        assert (await register(ann, Authenticator())).status == 200
    assert (await register(ann, Authenticator())).refusal == NOT_VERIFIED


@pytest.mark.parametrize("passkey_settings", [{"passkeys_enabled": False}])
async def test_they_can_be_switched_off(person: MakePerson, nobody: Person) -> None:
    ann = await person()
    body = {"credentialId": "x" * 8}
    for somebody, path in (
        (ann, "register_challenge"), (ann, "register_verify"), (ann, "login_challenge"), (nobody, "login_verify"),
    ):  # fmt: skip
        assert (await somebody.post(f"/auth/passkey/{path}", body)).refusal == (404, "Passkeys disabled")


@pytest.mark.parametrize(
    "passkey_settings", [{"passkeys_origin": ("http://localhost", "https://app.example")}]
)
async def test_several_origins(person: MakePerson, nobody: Person) -> None:
    ann, passkey = await person(), Authenticator()
    await register(ann, passkey)
    passkey.origin = "https://app.example"
    assert (await log_in(nobody, passkey)).status == 200


async def test_who_may_ask(nobody: Person, person: MakePerson) -> None:
    for path in ("register_challenge", "register_verify"):
        said = await nobody.post(f"/auth/passkey/{path}", {"id": "x" * 8})
        assert said.refusal == (403, "Not authenticated")
    forged = Person(nobody.client, None, "x")
    assert (await forged.post("/auth/passkey/login_challenge")).refusal == (401, "Invalid token")
    ann = await person()
    await ann.post("/auth/logout_all")
    assert (await ann.post("/auth/passkey/login_challenge")).refusal == (401, "Invalid token")


@pytest.mark.alone
async def test_challenges_end(person: MakePerson, nobody: Person, service: Service) -> None:
    ann, passkey = await person(), Authenticator()
    await register(ann, passkey)
    asked = await challenge(nobody, "login")
    (name,) = await service.redis.keys("*:login:*")
    assert 0 < await service.redis.ttl(name) <= 300
    await service.redis.pexpire(name, 0)
    assert (await log_in(nobody, passkey, asked)).refusal == NOT_VERIFIED


@pytest.mark.alone
async def test_passkeys_are_seen_and_removed(person: MakePerson, nobody: Person, owner: Any) -> None:
    ann, eve, one, two = await person(), await person(), Authenticator(), Authenticator()
    for passkey in (one, two):
        assert (await register(ann, passkey)).status == 200
    assert (await log_in(nobody, one)).status == 200
    listed = (await ann.get("/auth/passkeys")).json["passkeys"]
    assert [list(found) for found in listed] == [["id", "created_at", "used_at"]] * 2
    assert [found["used_at"] is None for found in listed] == [True, False]
    unknown = (404, "Credential not found")
    for somebody, name in ((eve, listed[1]["id"]), (ann, "x"), (ann, "%"), (ann, "A" * 2_000)):
        assert (await somebody.delete(f"/auth/passkeys/{name}")).refusal == unknown
    assert (await ann.delete(f"/auth/passkeys/{listed[1]['id']}=")).json == {"detail": "removed"}
    assert (await ann.delete(f"/auth/passkeys/{listed[1]['id']}")).refusal == unknown
    assert (await log_in(nobody, one)).refusal == unknown
    assert (await log_in(nobody, two)).status == 200
    types = [row["type"] for row in await owner.fetch("SELECT type FROM audit_events ORDER BY id")]
    assert types.count("auth.passkey_removed") == 1


@pytest.mark.alone
async def test_passkeys_end_with_all_sign_ins(
    person: MakePerson, nobody: Person, admin: Administrator
) -> None:
    """A passkey would else let its holder back at once; a challenge from before registers nothing after it."""
    ann, bob, passkey, his = await person(), await person(), Authenticator(), Authenticator()
    assert (await register(ann, passkey)).status == 200
    assert (await register(bob, his)).status == 200
    asked, late = await challenge(ann, "register"), Authenticator()
    assert (await ann.post("/auth/logout_all")).status == 200
    assert (await admin.post(f"/admin/users/{bob.user.id}/sign_out")).status == 200
    for one in (passkey, his):
        assert (await log_in(nobody, one)).refusal == (404, "Credential not found")
    assert (await ann.post("/auth/passkey/register_verify", late.attest(asked))).status == 401
