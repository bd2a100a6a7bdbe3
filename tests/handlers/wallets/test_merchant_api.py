"""Merchants' API keys, and what they sign."""

import asyncio
import hashlib
import hmac
import time
from typing import Any

import pytest

from core.platform import Platform
from core.settings import Settings, load_settings
from core.wallets.merchant_keys import seal, unseal
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person, Said

KEYS = "/merchant/api/keys"
PATH = "/merchant/api/transactions"


class Till:
    """A program of a merchant's, written from the contract."""

    def __init__(self, client: ApiClient, key_id: str, secret: str) -> None:
        self.client, self.key_id, self.secret = client, key_id, secret

    def sign(self, *, seconds: str | None = None, body: bytes = b"", path: str = PATH) -> dict[str, str]:
        seconds = str(int(time.time())) if seconds is None else seconds
        message = f"{seconds}{path}".encode() + body
        sign = hmac.new(self.secret.encode(), message, hashlib.sha256).hexdigest()
        return {"X-API-Key": self.key_id, "X-API-Ts": seconds, "X-API-Sign": sign}

    async def ask(self, headers: dict[str, str], body: bytes = b"", path: str = PATH) -> Said:
        async with self.client.post(path, data=body or None, headers=headers) as response:
            return Said(response.status, await response.read(), response.headers)


async def till_of(shop: Person) -> Till:
    made = (await shop.post(KEYS)).json
    return Till(shop.client, made["key_id"], made["secret"])


# --- Keys


async def test_keys(person: MakePerson, owner: Any) -> None:
    shop, other = await person(merchant=True), await person(merchant=True)
    first, second = (await shop.post(KEYS)).json, (await shop.post(KEYS)).json
    assert list(first) == ["key_id", "secret"]
    assert (len(bytes.fromhex(first["key_id"])), len(bytes.fromhex(first["secret"]))) == (8, 16)
    found = (await shop.get(KEYS)).json
    assert [key["key_id"] for key in found] == [second["key_id"], first["key_id"]]
    assert list(found[0]) == ["key_id", "created_at"]
    stored = await owner.fetchval("SELECT sealed_secret FROM merchant_api_keys LIMIT 1")
    assert first["secret"].encode() not in stored
    assert (await other.delete(f"{KEYS}/{first['key_id']}")).refusal == (404, "Not found")
    assert (await shop.delete(f"{KEYS}/{first['key_id']}")).body == b'{"detail":"deleted"}'
    assert (await shop.delete(f"{KEYS}/{first['key_id']}")).refusal == (404, "Not found")
    assert [key["key_id"] for key in (await shop.get(KEYS)).json] == [second["key_id"]]
    types = await owner.fetch(
        "SELECT type, count(*) FROM audit_events WHERE type ~ 'merchant_keys' GROUP BY 1"
    )
    assert dict(types) == {"merchant_keys.create": 2, "merchant_keys.delete": 1}


@pytest.mark.shared
async def test_keys_are_for_merchants(person: MakePerson, nobody: Person) -> None:
    ann = await person()
    for said in (await ann.post(KEYS), await ann.get(KEYS), await ann.delete(f"{KEYS}/x")):
        assert said.refusal == (403, "Merchant only")
    assert (await nobody.get(KEYS)).refusal == (403, "Not authenticated")


async def test_how_many(person: MakePerson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.wallets.merchant_keys.MAX_KEYS", 2)
    shop = await person(merchant=True)
    assert [(await shop.post(KEYS)).status for _ in range(3)] == [200, 200, 400]


# --- What they sign


@pytest.mark.shared
async def test_the_newest_lines(person: MakePerson) -> None:
    shop = await person(merchant=True)
    for amount in range(1, 4):
        await shop.top_up(amount)
    till = await till_of(shop)
    said = await till.ask(till.sign())
    assert said.status == 200
    assert list(said.json) == ["wallet_id", "entries"]
    assert said.json["wallet_id"] == str(shop.user.wallet_id)
    assert [entry["amount_cents_signed"] for entry in said.json["entries"]] == [3, 2, 1]
    assert list(said.json["entries"][0]) == [
        "transfer_id", "amount_cents_signed", "created_at", "kind", "fee", "counterparty", "purpose",
    ]  # fmt: skip
    async with shop.client.get(PATH) as response:
        assert response.status == 405


@pytest.mark.shared
async def test_a_body_may_be_signed(person: MakePerson) -> None:
    till = await till_of(await person(merchant=True))
    body = b'{"a": 1'  # whatever it is
    assert (await till.ask(till.sign(), body)).status == 200
    assert (await till.ask(till.sign(body=body), body)).status == 200
    assert (await till.ask(till.sign(body=b"another"), body)).refusal == (401, "Invalid signature")
    seconds = str(int(time.time()) - 5)
    assert (await till.ask(till.sign(seconds=seconds), path=f"{PATH}?a=b")).status == 200


async def test_a_signature_counts_once(person: MakePerson, owner: Any) -> None:
    till = await till_of(await person(merchant=True))
    headers = till.sign()
    said = await asyncio.gather(*(till.ask(headers) for _ in range(16)))
    assert sorted(one.status for one in said) == [200] + [401] * 15
    assert (await till.ask(headers)).refusal == (401, "Invalid signature")
    # What is past its time goes as others come.
    await owner.execute("UPDATE merchant_api_signatures SET expires_at = now() - interval '1 s'")
    assert (await till.ask(till.sign(seconds=str(int(time.time()) - 9)))).status == 200
    assert await owner.fetchval("SELECT count(*) FROM merchant_api_signatures") == 1


async def test_a_signature_counts_once_without_redis(person: MakePerson, platform: Platform) -> None:
    till = await till_of(await person(merchant=True))
    headers = till.sign()
    assert (await till.ask(headers)).status == 200
    await platform.service.redis.flushdb()
    assert (await till.ask(headers)).status == 401


@pytest.mark.shared
async def test_what_is_not_signed(person: MakePerson) -> None:
    shop = await person(merchant=True)
    till = await till_of(shop)
    good = till.sign()
    for name in good:
        missing = {key: value for key, value in good.items() if key != name}
        assert (await till.ask(missing)).refusal == (401, "Missing headers")
    now = int(time.time())
    changes = [
        {"X-API-Key": "0" * 16},
        {"X-API-Key": "é"},
        {"X-API-Sign": "0" * 64},
        {"X-API-Sign": "ключ"},
        {"X-API-Sign": good["X-API-Sign"].upper()},
        {"X-API-Ts": "x"},
        {"X-API-Ts": "9" * 30},
        till.sign(seconds=str(now - 310)),
        till.sign(seconds=str(now + 310)),
        till.sign(seconds=f"{now}.5"),
        till.sign(seconds="١٢٣"),
        till.sign(path="/merchant/api/keys"),
        Till(shop.client, till.key_id, "0" * 32).sign(),
    ]
    for change in changes:
        assert (await till.ask(good | change)).refusal == (401, "Invalid signature"), change
    assert (await till.ask(good)).status == 200
    assert (await till.ask(till.sign(seconds=str(now - 290)))).status == 200


async def test_what_has_ended(person: MakePerson, owner: Any) -> None:
    shop = await person(merchant=True)
    till = await till_of(shop)
    await owner.execute("UPDATE merchant_api_keys SET scope = 'other'")
    assert (await till.ask(till.sign())).refusal == (403, "Insufficient scope")
    await owner.execute("UPDATE merchant_api_keys SET scope = 'transactions:read'")
    await shop.delete(f"{KEYS}/{till.key_id}")
    assert (await till.ask(till.sign(seconds=str(int(time.time()) - 3)))).refusal[0] == 401


def test_secrets_are_sealed() -> None:
    def having(*keys: str) -> Settings:
        return load_settings(
            env_file=None, env="test", jwt_secret="t" * 32, merchant_secret_keys=",".join(keys)
        )

    old, new = "o" * 32, "n" * 32
    sealed = seal(having(old), "key", "the secret")
    assert unseal(having(new, old), "key", sealed) == "the secret"
    assert unseal(having(new), "key", sealed) == ""
    assert unseal(having(old), "another", sealed) == ""
    assert unseal(having(new), "key", seal(having(), "key", "of before")) == "of before"
