"""One rule for idempotency keys: blanks around a key and the quotes of the IETF's draft do not make another key."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.access.keys import plain_key
from core.access.marks import request_fingerprint
from core.ledger.items import Leg, Posting, operation_id
from core.service import Service
from tests.handlers.ledger.ledger_client import ApiClient, Shop

pytestmark = pytest.mark.shared


@pytest.fixture
async def shop(
    api: ApiClient, api_key: Callable[..., Awaitable[str]], request: pytest.FixtureRequest
) -> Shop:
    return Shop(api, await api_key(principal=request.node.name))


SPELLINGS = ("{}", "{} ", '"{}"', ' "{}"', '"{} "', '"{}"  ', '"{}";a=1', '"{}"; a="x;y";b;c=?0')


@pytest.mark.parametrize("key", ["k-1", "with blank", 'quo"te', "back\\slash", "9e9f4b0a", "~"])
async def test_every_spelling_is_one_key(shop: Shop, key: str) -> None:
    source, target = f"from:{key.encode().hex()}", f"to:{key.encode().hex()}"
    await shop.open(source, floor=None)
    await shop.open(target)
    body = {"from": source, "to": target, "amount": 5}
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    first = await shop.post("/v1/transfers", body, key=key)
    assert first.status == 201
    for spelling in SPELLINGS:
        spelled = spelling.format(escaped if '"' in spelling else key)
        again = await shop.post("/v1/transfers", body, key=spelled)
        assert (again.status, again.body) == (201, first.body), spelled
        assert again.headers["Idempotent-Replayed"] == "true"
        other = await shop.post("/v1/transfers", {**body, "amount": 6}, key=spelled)
        assert other.code == "idempotency_conflict"
        batch = await shop.call("POST", "/v1/transfers/batch", {"transfers": [{"key": spelled, **body}]})
        assert batch.json["results"][0]["transfer"] == first.json, spelled
        assert batch.json["results"][0]["key"] == spelled
    assert await shop.balance(target) == 5


async def test_spellings_within_one_batch_are_twins(shop: Shop) -> None:
    await shop.open("twins:from", floor=None)
    await shop.open("twins:to")
    items = [{"key": key, "from": "twins:from", "to": "twins:to", "amount": 1} for key in ("t", "t ", '"t"')]
    results = (await shop.call("POST", "/v1/transfers/batch", {"transfers": items})).json["results"]
    assert len({result["transfer"]["id"] for result in results}) == 1
    assert await shop.balance("twins:to") == 1


@pytest.mark.parametrize("spelled", ["   ", '""', '" "'])
async def test_nothing_is_no_key(shop: Shop, spelled: str) -> None:
    body = {"from": "a", "to": "b", "amount": 5}
    answer = await shop.post("/v1/transfers", body, key=spelled)
    assert answer.code in {"idempotency_key_invalid", "idempotency_key_required"}
    batch = await shop.call("POST", "/v1/transfers/batch", {"transfers": [{"key": spelled, **body}]})
    assert batch.code == "invalid_request"


@pytest.mark.parametrize("spelled", ['"old-1"', "old-2 ", '"old-3'])
async def test_what_was_stored_under_a_spelling_is_found_by_it(
    shop: Shop, service: Service, request: pytest.FixtureRequest, spelled: str
) -> None:
    """A client that repeats a call from before the rule must not pay twice."""
    name = plain_key(spelled).strip('"')
    await shop.open(f"{name}:from", floor=None)
    await shop.open(f"{name}:to")
    principal = await service.database.connections.pool.fetchval(
        "SELECT id FROM principals WHERE name = $1", request.node.name
    )
    legs = (Leg(f"{name}:from", -5), Leg(f"{name}:to", 5))
    stored = operation_id(principal, spelled)
    assert (await service.ledger.poster.submit(Posting(stored, principal, legs))).posted
    body: dict[str, Any] = {"from": f"{name}:from", "to": f"{name}:to", "amount": 5}
    batch = await shop.call("POST", "/v1/transfers/batch", {"transfers": [{"key": spelled, **body}]})
    assert batch.json["results"][0]["transfer"]["id"] == str(stored)
    if not spelled.endswith(" "):  # HTTP itself takes blanks off a header
        for _ in range(2):
            again = await shop.post("/v1/transfers", body, key=spelled)
            assert (again.status, again.json["id"]) == (201, str(stored))
    assert await shop.balance(f"{name}:to") == 5


def test_fingerprints_of_plain_keys_stay() -> None:
    """Redis holds answers from before: another fingerprint would make each of them a miss."""
    assert request_fingerprint("POST /v1/transfers", b"{}").hex().startswith("e202c803")
