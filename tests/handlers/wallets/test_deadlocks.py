"""Somebody locks a payment's rows the other way round: the call is rolled back, runs again, and has its effect once."""

import asyncio
from collections.abc import Awaitable
from uuid import UUID

import asyncpg
import pytest

from core.work import retries
from tests.chaos.staging import Raw, Wait, waiting
from tests.handlers.wallets.conftest import ADMIN, MakePerson, Said

TRIES = pytest.mark.parametrize(("tries", "status"), [(1, 503), (retries.MAX_TRIES, 200)])


async def crossed(
    database_url: str, owner: Raw, eventually: Wait, payable: str, account: str, call: Awaitable[Said]
) -> Said:
    """Let `call`, which locks the payable and then the account, meet a session that does it the other way round.

    The other session looks for deadlocks an hour later, so that the call is the one that is rolled back.
    """
    other = await asyncpg.connect(database_url, server_settings={"deadlock_timeout": "1h"})
    async with other.transaction():
        await other.execute("SELECT FROM accounts WHERE code = $1 FOR UPDATE", account)
        running = asyncio.ensure_future(call)
        await eventually(lambda: waiting(owner))
        await other.execute("SELECT FROM payables WHERE id = $1 FOR UPDATE", UUID(payable))
    await other.close()
    return await running


@TRIES
async def test_voucher_that_is_revoked(
    person: MakePerson, database_url: str, owner: Raw, eventually: Wait,
    monkeypatch: pytest.MonkeyPatch, tries: int, status: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(retries, "MAX_TRIES", tries)
    ann = await person(balance=1_000)
    made = (await ann.post("/vouchers", {"amount_syp": 10})).json
    path = f"/vouchers/admin/{made['code']}/revoke"
    call = ann.ask("POST", path, headers={"X-Admin-Token": ADMIN})
    said = await crossed(database_url, owner, eventually, made["id"], "system:vouchers:SYP", call)
    assert said.status == status
    assert await ann.balance() == (1_000 if status == 200 else 0)


@TRIES
async def test_cash_out_that_is_canceled(
    person: MakePerson, database_url: str, owner: Raw, eventually: Wait,
    monkeypatch: pytest.MonkeyPatch, tries: int, status: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(retries, "MAX_TRIES", tries)
    ann = await person(balance=1_000)
    request_id = (await ann.post("/cash/cashout/request", {"amount_cents": 600})).json["id"]
    account = await owner.fetchval("SELECT code FROM accounts WHERE held > 0")
    call = ann.post(f"/cash/requests/{request_id}/cancel")
    said = await crossed(database_url, owner, eventually, request_id, account, call)
    assert said.status == status
    assert await owner.fetchval("SELECT held FROM accounts WHERE code = $1", account) == (
        0 if status == 200 else 600
    )
