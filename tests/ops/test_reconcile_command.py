"""`tallystick reconcile`, run as a person runs it."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from core.ledger.items import operation_id
from core.ledger.verify import verify
from core.payables import p2p
from core.platform import Platform, open_platform
from core.service import Service
from core.settings import Settings
from core.wallets.balances import read_balance, read_entries
from core.wallets.users import User
from tests.commands import tallystick
from tests.invariants import faults


async def run(settings: Settings, *arguments: str) -> tuple[int, list[str], str]:
    done = await tallystick("reconcile", *arguments, DATABASE_URL=str(settings.database_url))
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"dev_enable_topup": True})


@pytest.fixture
async def platform(service: Service) -> AsyncIterator[Platform]:
    async with open_platform(service) as opened:
        yield opened


@pytest.fixture
async def ann(platform: Platform, owner: "asyncpg.Connection[asyncpg.Record]") -> User:
    """Somebody with 1,000, of which 300 went to somebody else."""
    ann, bob = await platform.users.ensure("+963900000001"), await platform.users.ensure("+963900000002")
    await owner.execute("UPDATE users SET phone_proven_at = created_at")
    ann = ann._replace(phone_proven_at=ann.created_at)
    await p2p.top_up(platform, ann, 1_000, "topup")
    await p2p.transfer(platform, ann, bob.phone, 300, "pay")
    return ann


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(str(settings.database_url))
    yield connection
    await connection.close()


async def test_all_is_well(settings: Settings, ann: User) -> None:
    code, out, err = await run(settings, "--once")
    assert (code, out) == (0, ["Wallet mismatches: 0", "Transfer issues: 0"]), err
    assert "accounts: to " in err


@pytest.mark.parametrize("drift", [1_000_000, -500])
async def test_a_balance_that_is_off(
    settings: Settings, ann: User, platform: Platform, owner: "asyncpg.Connection[asyncpg.Record]", drift: int
) -> None:
    await owner.execute("UPDATE accounts SET balance = balance + $2 WHERE code = $1", ann.account, drift)
    line = f"wallet={ann.wallet_id} balance={700 + drift} ledger_sum=700"
    expected = ["Wallet mismatches: 1", line, "Transfer issues: 0"]
    code, out, _ = await run(settings)
    assert (code, out) == (1, expected)
    assert (await read_balance(platform, ann)).balance == 700 + drift  # looking changes nothing

    code, out, err = await run(settings, "--fix-balances")
    assert (code, out[:3]) == (0, expected), err
    fixed = out[3].removeprefix(f"fixed: wallet={ann.wallet_id} off_by={drift} transfer=")
    assert (await read_balance(platform, ann)).balance == 700
    lines = await read_entries(platform, ann, newest=4, count=2)
    assert [(line.transfer_id, line.amount) for line in lines] == [
        (UUID(fixed), -drift),
        (UUID(fixed), drift),
    ]
    audit = await owner.fetchrow("SELECT actor, data FROM audit_events WHERE type = 'reconcile.correction'")
    assert audit is not None
    assert audit["actor"] == "system:reconcile"
    assert await faults(str(settings.database_url)) == {}
    assert await verify(platform.database) == []
    assert (await run(settings, "--fix-balances"))[:2] == (0, ["Wallet mismatches: 0", "Transfer issues: 0"])


async def test_transfers_that_are_off(
    settings: Settings, ann: User, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    paid, topup = operation_id(ann.principal_id, "pay"), operation_id(ann.principal_id, "topup")
    await owner.execute("""
        UPDATE entries SET amount = amount + 1 WHERE no = (SELECT no + 1 FROM transfers WHERE kind = 'wallet.transfer')
    """)
    await owner.execute("""
        DELETE FROM entries WHERE no = (SELECT no + 1 FROM transfers WHERE kind = 'wallet.topup')
    """)
    code, out, _ = await run(settings, "--fix-balances")
    assert code == 1
    assert f"transfer={paid} problem=amount_mismatch details=2 entries sum to 1" in out
    assert f"transfer={topup} problem=entries_count_topup details=1 entries" in out
    assert "Transfer issues: 2" in out
    # The balance may be right, and the entries wrong.
    assert f"not fixed: wallet={ann.wallet_id} reason=entries_disagree" in out
    assert await owner.fetchval("SELECT balance FROM accounts WHERE code = $1", ann.account) == 700
