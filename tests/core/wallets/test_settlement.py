"""The daily report of what merchants have sold, the daily look at the books, and what keeps both from telling twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from core import metrics
from core.ledger.items import operation_id
from core.payables import reconcile
from core.payables.payments import Payment, post
from core.platform import Platform, open_platform
from core.service import Service
from core.settings import Settings
from core.wallets import settlement
from core.wallets.users import User
from core.work.progress import Progress


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"starting_credit_cents": 1_000})


@pytest.fixture
async def platform(service: Service) -> AsyncIterator[Platform]:
    async with open_platform(service) as opened:
        yield opened


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(str(settings.database_url))
    yield connection
    await connection.close()


async def person(platform: Platform, owner: Any, phone: str, *, merchant: bool = False) -> User:
    await platform.users.ensure(phone)
    await owner.execute("UPDATE users SET is_merchant = $2 WHERE phone = $1", phone, merchant)
    found = await platform.users.by_phone(phone)
    assert found is not None
    return found


async def sell(platform: Platform, payer: User, shop: User, amount: int, fee: int) -> None:
    key = operation_id(payer.principal_id, f"{shop.id}-{amount}")
    await post(
        platform,
        Payment(
            id=key,
            principal_id=payer.principal_id,
            kind="payments.qr_pay",
            source=payer.account,
            target=shop.account,
            amount=amount,
            currency="SYP",
            identity=(amount,),
            fee=fee,
            fee_payer=shop.account,
            fee_account=await platform.fee_account(),
        ),
    )


async def on_the_day_to_report(owner: Any) -> None:
    """Move all that was recorded to that day."""
    noon = datetime.combine(settlement.day_to_report(), time(12), UTC)
    await owner.execute("UPDATE batches SET recorded_at = $1", noon)


async def test_each_merchant_is_told_once(
    platform: Platform, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "BATCH", 2)
    ann = await person(platform, owner, "+963900000001")
    shops = [await person(platform, owner, f"+96390000001{n}", merchant=True) for n in range(3)]
    await sell(platform, ann, shops[0], 300, 5)
    await sell(platform, ann, shops[2], 100, 0)
    await on_the_day_to_report(owner)
    total = Progress()
    for _ in range(4):  # more than it takes; two at a time, as two workers do it
        for done in await asyncio.gather(settlement.step(platform), settlement.step(platform)):
            total = total.and_then(done)
    assert total == Progress(3)
    rows = await owner.fetch("SELECT user_id, gross, fees, refunds FROM settlements ORDER BY gross")
    assert [tuple(row) for row in rows] == [(shops[2].id, 100, 0, 0), (shops[0].id, 300, 5, 0)]
    events = await owner.fetch(
        "SELECT body FROM outbox_events WHERE event_type = 'settlement.report' ORDER BY id"
    )
    told = [json.loads(event["body"])["data"] for event in events]
    assert [(one["gross_cents"], one["fees_cents"], one["net_cents"]) for one in told] == [
        (300, 5, 295),
        (100, 0, 100),
    ]
    assert await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'settlement.report'") == 2
    assert await settlement.step(platform) == Progress()


async def test_the_daily_look_tells_and_changes_nothing(platform: Platform, owner: Any) -> None:
    ann = await person(platform, owner, "+963900000001")
    assert await reconcile.watch(platform) == Progress()
    await owner.execute("UPDATE accounts SET balance = balance + 7 WHERE code = $1", ann.account)
    with capture_logs() as lines:
        assert await reconcile.watch(platform) == Progress()
    (line,) = [line for line in lines if line["event"] == "reconcile.found"]
    assert (line["balances"], line["transfers"], line["first"]) == (1, 0, [ann.account])
    assert b'reconcile_findings{kind="balances"} 1.0' in metrics.render()
    assert await owner.fetchval("SELECT balance FROM accounts WHERE code = $1", ann.account) == 1_007
