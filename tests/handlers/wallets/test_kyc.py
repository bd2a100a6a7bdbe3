"""Know your customer: asked for, given to oneself in development alone."""

from typing import Any

import pytest

from tests.handlers.wallets.conftest import MakePerson, Person


async def test_asking(person: MakePerson, nobody: Person, owner: Any) -> None:
    ann = await person()
    assert (await ann.get("/kyc")).body == b'{"kyc_level":0,"kyc_status":"none"}'
    for _ in range(2):
        assert (await ann.post("/kyc/submit")).body == b'{"detail":"submitted"}'
    assert (await ann.get("/kyc")).json == {"kyc_level": 0, "kyc_status": "pending"}
    assert await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'kyc.submit'") == 1
    bob = await person(kyc=2)
    assert (await bob.post("/kyc/submit")).json == {"detail": "already approved"}
    assert (await bob.get("/kyc")).json == {"kyc_level": 2, "kyc_status": "approved"}
    assert (await nobody.get("/kyc")).refusal == (403, "Not authenticated")


async def test_nobody_approves_themselves_outside_development(person: MakePerson) -> None:
    ann = await person()
    assert (await ann.post("/kyc/dev/approve")).refusal == (403, "Not allowed")
    assert (await ann.get("/kyc")).json["kyc_level"] == 0


@pytest.mark.parametrize("changed", [{"env": "dev"}])
async def test_in_development_one_does(person: MakePerson, owner: Any) -> None:
    ann = await person()
    for _ in range(2):
        assert (await ann.post("/kyc/dev/approve")).body == b'{"detail":"approved","kyc_level":1}'
    assert (await ann.get("/kyc")).json == {"kyc_level": 1, "kyc_status": "approved"}
    assert await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'kyc.approve'") == 1
    bob = await person(kyc=2)
    assert (await bob.post("/kyc/dev/approve")).json == {"detail": "approved", "kyc_level": 2}


async def test_merchants_are_told(person: MakePerson, owner: Any) -> None:
    shop = await person(merchant=True)
    await shop.post("/kyc/submit")
    body = await owner.fetchval("SELECT body FROM outbox_events WHERE event_type = 'kyc.submit'")
    assert body == b'{"type":"kyc.submit","data":{"user":"%s"}}' % str(shop.user.id).encode()
