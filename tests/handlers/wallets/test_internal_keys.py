"""A body of a sibling service in which a key stands twice means two things, and is refused."""

import json

import pytest

from core.access.internal_hmac import signature_of
from tests.handlers.wallets.conftest import INTERNAL, ApiClient, MakePerson, new_key
from tests.handlers.wallets.test_internal import FORBIDDEN, INVOICES, REQUESTS, TRANSFER, Sibling, payment

pytestmark = pytest.mark.shared


async def test_a_key_that_stands_twice_is_refused(person: MakePerson, wallets: ApiClient) -> None:
    """The signature covers the last value of a key, and a proxy may read the first."""
    sibling = Sibling(wallets)
    ann, bob = await person(balance=1_000), await person()
    good = payment(ann, bob, 5)
    for twice in (
        '"amount_cents": 900, "amount_cents": 5',
        r'"amount_\u0063ents": 900, "amount_cents": 5',
        r'"note": "\u003a", "note": ":", "amount_cents": 5',
        '"amount_cents": 5, "n": [{"a": 1, "a": 1}]',
    ):
        for path in (TRANSFER, REQUESTS, INVOICES):
            raw = json.dumps(good).replace('"amount_cents": 5', twice).encode()
            headers = {"X-Internal-Ts": new_key(), "X-Internal-Sign": ""}
            headers["X-Internal-Sign"] = signature_of(INTERNAL, headers["X-Internal-Ts"], json.loads(raw))
            said = await sibling.send("POST", path, raw, headers)
            assert said.refusal == (400, "Invalid payload"), twice
            assert "twice" in said.json["detail"]
            # A stranger learns of the signature only.
            assert (await sibling.send("POST", path, raw, {})).refusal == FORBIDDEN
    assert await ann.balance() == 1_000
