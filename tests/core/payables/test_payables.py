"""Payables: made once under a key, ended once, found with the state that they are in."""

import asyncio
import re
from uuid import uuid4

import pytest

from core.errors import Refusal
from core.payables import payables
from core.payables.payables import NewPayable, RequestKey, fingerprint_of, new_code
from tests.core.payables.conftest import CURRENCY, Bank


def test_codes_are_of_the_contracts_form() -> None:
    codes = {new_code() for _ in range(1_000)}
    assert len(codes) == 1_000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", code) for code in codes)


def test_fingerprints() -> None:
    one = fingerprint_of(("a", 1, None, {"b": 2}))
    assert one == fingerprint_of(("a", 1, None, {"b": 2}))
    assert one != fingerprint_of(("a", 2, None, {"b": 2}))
    assert 0 <= one < 2**63


async def test_one_for_a_key(bank: Bank) -> None:
    ann, bob = await bank.user(), await bank.user()
    new = NewPayable("request", CURRENCY, ann.id, bob.id, 100)
    key = RequestKey(ann.principal_id, "k", (str(bob.id), 100))
    made = await asyncio.gather(*(payables.create(bank.database, new, key=key) for _ in range(8)))
    assert len({payable_id for payable_id, _ in made}) == 1
    assert [is_new for _, is_new in made].count(True) == 1
    with pytest.raises(Refusal, match="idempotency_conflict"):
        await payables.create(bank.database, new, key=key._replace(asked=(str(bob.id), 101)))
    # Another user's key of the same text is another key.
    other, is_new = await payables.create(bank.database, new, key=key._replace(principal_id=bob.principal_id))
    assert is_new
    assert other != made[0][0]


async def test_lookups(bank: Bank) -> None:
    ann = await bank.user()
    code = new_code()
    payable_id = await bank.payable(ann, code=code, details={"note": "for you"})
    by_id, by_code = (
        await bank.platform.payables.by_id(payable_id),
        await bank.platform.payables.by_code(code),
    )
    assert by_id is not None
    assert by_id == by_code
    assert (by_id.state, by_id.details, by_id.amount) == ("open", {"note": "for you"}, 100)
    assert await bank.platform.payables.by_id(uuid4()) is None
    assert await bank.platform.payables.by_code("x") is None
    many = await asyncio.gather(*(bank.platform.payables.by_code(code) for _ in range(50)))
    assert many == [by_id] * 50
