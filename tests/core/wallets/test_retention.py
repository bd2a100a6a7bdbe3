"""What is removed by age, and what the database lets nobody remove."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from core import ids
from core.wallets import retention
from core.wallets.retention import prune
from tests.core.payables.conftest import Bank
from tests.queries import QUERIES


async def _record(owner: Any, days_ago: int) -> None:
    moment = await owner.fetchval("SELECT now() - $1::interval", timedelta(days=days_ago, minutes=1))
    # As `ids.new_uuid` would have made it then.
    id_ = ids.first_uuid_at(moment).int | (ids.new_uuid().int & (2**76 - 1)) | 0x7 << 76
    await owner.execute(
        "INSERT INTO audit_events (id, type, actor, data, created_at) VALUES ($1, 'old', 'admin', '{}', $2)",
        str(asyncpg.pgproto.pgproto.UUID(f"{id_:032x}")),
        moment,
    )


async def _audit(owner: Any) -> int:
    count: int = await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'old'")
    return count


async def test_audit_is_kept_for_ever_unless_it_is_said_otherwise(bank: Bank, owner: Any) -> None:
    await _record(owner, 5_000)
    assert await prune(bank.database, 0) == 0
    assert await _audit(owner) == 1


async def test_old_records_go_in_bounded_steps(
    bank: Bank, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for days_ago in (100, 100, 100, 91, 89, 1):
        await _record(owner, days_ago)
    assert [await prune(bank.database, 90) for _ in range(4)] == [2, 2, 0, 0]
    assert await _audit(owner) == 2
    # Fewer days than the database allows mean the fewest that it does.
    await _record(owner, 29)
    assert await prune(bank.database, 1) == 1
    assert await _audit(owner) == 2


async def test_the_serving_role_cannot_forget(bank: Bank, owner: Any) -> None:
    await _record(owner, 10)
    with pytest.raises(asyncpg.CheckViolationError):
        await bank.database.fetchval(QUERIES["prune_audit_events"], 29, 10)
    for statement in ("DELETE FROM audit_events", "UPDATE audit_events SET actor = 'nobody'"):
        async with bank.database.transaction() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.raw.transaction():
                    await connection.raw.execute(statement)
    assert await _audit(owner) == 1


async def test_ended_sign_ins(bank: Bank, owner: Any) -> None:
    ann = await bank.user()
    for ends_in_hours in (-25, -23, 1):
        await owner.execute(
            "INSERT INTO sessions (id, user_id, expires_at) VALUES ($1, $2, now() + $3::interval)",
            ids.new_uuid(),
            ann.id,
            timedelta(hours=ends_in_hours),
        )
    assert [await prune(bank.database, 0) for _ in range(2)] == [1, 0]
    assert await owner.fetchval("SELECT count(*) FROM sessions") == 2
