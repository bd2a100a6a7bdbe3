"""The table of jobs, and how a job is drained: by the worker's clock, by its loop, and by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from arq import cron

from core.ledger.items import Leg, Operation, Posting, operation_id
from core.payables import expiry, invoices, payables
from core.payables.invoices import Billed
from core.payables.payables import NewPayable
from core.platform import Platform, open_platform
from core.recurring import mandates, subscriptions
from core.service import Service
from core.settings import Settings
from core.wallets.users import User
from core.work.progress import Progress
from jobs import clock, loops
from jobs.loops import drain
from jobs.table import JOBS, Job, Tools
from ops.commands.table import COMMANDS
from tests.commands import tallystick
from tests.invariants import faults

Wait = Callable[..., Awaitable[Any]]
Start = Callable[..., asyncio.Event]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"env": "dev", "starting_credit_cents": 1_000, "invoices_autopay_poll_secs": 0.05}
    )


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(str(settings.database_url))
    yield connection
    await connection.close()


@pytest.fixture
async def platform(service: Service) -> AsyncIterator[Platform]:
    async with open_platform(service) as opened:
        yield opened


@pytest.fixture
async def shop(platform: Platform, owner: Any) -> User:
    return await merchant(platform, owner, "+963900000001")


async def merchant(platform: Platform, owner: Any, phone: str) -> User:
    await platform.users.ensure(phone)
    await owner.execute("UPDATE users SET is_merchant = TRUE, kyc_level = 1 WHERE phone = $1", phone)
    found = await platform.users.by_phone(phone)
    assert found is not None
    return found


async def due_invoice(platform: Platform, shop: User, phone: str, amount: int) -> UUID:
    claim = await invoices.create(platform, shop, phone, Billed(amount, 0, None, None))
    payer = await platform.users.ensure(phone)
    await mandates.upsert(platform, payer, shop.phone, autopay=True, max_amount=None)
    return claim.payable.id


async def state_of(owner: Any, payable_id: UUID) -> str:
    state: str = await owner.fetchval("SELECT state FROM payables WHERE id = $1", payable_id)
    return state


async def run(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    urls = {"DATABASE_URL": str(settings.database_url), "REDIS_URL": str(settings.redis_url)}
    done = await tallystick(*arguments, **urls)
    return done.returncode, done.stdout, done.stderr


# --- The table, and how a job is drained


@pytest.mark.parametrize("job", [job for job in JOBS.values() if job.clock], ids=lambda job: job.name)
def test_each_has_a_clock_that_arq_takes(job: Job) -> None:
    async def nothing(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:
        return None

    taken = cron(nothing, timeout=job.timeout_seconds, **job.clock)
    taken.calculate_next(datetime.now(UTC))
    assert taken.next_run is not None
    assert taken.next_run - datetime.now(UTC) < timedelta(days=2)


async def test_each_job_is_described_and_runs_by_a_loop_or_by_the_clock(settings: Settings) -> None:
    assert [job.name for job in JOBS.values() if not job.about.endswith(".")] == []
    assert [job.name for job in JOBS.values() if not (job.clock or job.poll_seconds(settings) > 0)] == []
    assert [job.name for job in JOBS.values() if job.topic and not job.poll_seconds(settings)] == []


def test_the_commands_of_jobs_are_those_of_the_table() -> None:
    commands = {
        name for name, (place, _) in COMMANDS.items() if place.startswith("ops.commands.wallet_jobs:")
    }
    assert commands == {job.name for job in JOBS.values() if job.command}


async def test_drained_until_nothing_is_due(platform: Platform) -> None:
    left = [Progress(2, 1), Progress(0, 1), Progress(3, 0), Progress(), Progress(9, 9)]

    async def step(given: Tools) -> Progress:
        assert given.platform is platform
        return left.pop(0)

    sums: list[Progress] = []
    job = Job("test", "A test.", step)
    assert await drain(Tools(platform), job, once=True) == Progress(2, 1)
    assert await drain(Tools(platform), job, on_step=sums.append) == Progress(3, 1)
    assert sums == [Progress(0, 1), Progress(3, 1)]


async def test_drained_in_bounds(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    async def step(_: Tools) -> int:
        return 1

    monkeypatch.setattr(loops, "MAX_STEPS", 7)
    assert await drain(Tools(platform), Job("endless", "It never ends.", step)) == Progress(7)


# --- In the worker


async def test_the_worker_looks_for_due_invoices(
    platform: Platform, shop: User, owner: Any, start_worker: Start, eventually: Wait
) -> None:
    paid, failing = [
        await due_invoice(platform, shop, phone, amount)
        for phone, amount in (("+963900000002", 100), ("+963900000003", 5_000))
    ]
    start_worker()

    async def settled() -> bool:
        return await state_of(owner, paid) == "paid" and await owner.fetchval(
            "SELECT count(*) = 1 FROM autopay_failures"
        )

    await eventually(settled)
    assert await state_of(owner, failing) == "open"


async def test_the_workers_clock_drains_a_job(
    service: Service, start_worker: Start, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [Progress(1), Progress(1, 1)]
    done: list[Platform] = []

    async def step(tools: Tools) -> Progress:
        done.append(tools.platform)
        return left.pop(0) if left else Progress()

    # The next seconds only, so that the queue is empty afterwards: a run that the stop cut off could leave a
    # connection of arq's to Redis half open.
    now = datetime.now(UTC).second
    seconds = {(now + later) % 60 for later in range(1, 5)}
    job = Job("each-second", "A test.", step, clock={"second": seconds})
    monkeypatch.setattr(clock, "JOBS", {job.name: job})
    start_worker()
    await eventually(lambda: len(done) >= 3)
    assert left == []

    async def idle() -> bool:
        return not await service.redis.zcard(f"ts:{service.epoch}:jobs")

    await eventually(idle, timeout=20)


# --- By hand


async def test_commands(platform: Platform, shop: User, settings: Settings, owner: Any) -> None:
    invoice_id = await due_invoice(platform, shop, "+963900000004", 100)
    payer = await platform.users.ensure("+963900000004")
    subscription = await subscriptions.create(platform, payer, shop.phone, 100, 30)
    await subscriptions.force_due(platform, payer, subscription.id)
    for _ in range(3):
        ends = datetime.now(UTC) - timedelta(seconds=1)
        new = NewPayable("link", "SYP", payee_id=shop.id, code=payables.new_code(), amount=1, expires_at=ends)
        await payables.create(platform.database, new)
    for name, done in (("autopay", 1), ("charge", 1), ("expire", 3)):
        code, out, err = await run(settings, name)
        assert (code, out) == (0, f"{done} done, 0 failed.\n"), err
        assert f"{done} done" in err
        assert await run(settings, name, "--once") == (0, "0 done, 0 failed.\n", "")
    assert await state_of(owner, invoice_id) == "paid"
    await due_invoice(platform, shop, "+963900000005", 5_000)
    assert (await run(settings, "autopay"))[:2] == (1, "0 done, 1 failed.\n")
    assert await faults(str(settings.database_url)) == {}


@pytest.mark.parametrize("name", ["autopay", "charge", "expire"])
async def test_help(name: str, settings: Settings) -> None:
    code, out, _ = await run(settings, name, "--help")
    assert code == 0
    assert "--once" in out
    assert "exit code is" in out


# --- Expiry, beside what its routes show


async def test_what_was_held_is_given_back(
    platform: Platform, shop: User, settings: Settings, owner: Any
) -> None:
    ann = await platform.users.ensure("+963900000006")
    hold_id = operation_id(ann.principal_id, "hold")
    legs = (Leg(ann.account, -300), Leg(shop.account, 300))
    hold = Posting(hold_id, ann.principal_id, legs, operation=Operation.HOLD)
    assert (await platform.ledger.poster.submit(hold)).posted
    ends = datetime.now(UTC) - timedelta(seconds=1)
    new = NewPayable("cash_out", "SYP", payer_id=ann.id, amount=300, hold_id=hold_id, expires_at=ends)
    payable_id, _ = await payables.create(platform.database, new)
    held = "SELECT held FROM accounts WHERE code = $1"
    assert await owner.fetchval(held, ann.account) == 300
    rounds = await asyncio.gather(expiry.expire(platform), expiry.expire(platform))
    assert sorted(rounds) == [Progress(), Progress(1)]
    assert await owner.fetchval(held, ann.account) == 0
    assert await state_of(owner, payable_id) == "expired"
    assert await faults(str(settings.database_url)) == {}


async def test_expired_in_batches(platform: Platform, shop: User, owner: Any) -> None:
    await owner.execute(
        """
        INSERT INTO payables (id, kind, code, payee_id, amount, currency, expires_at)
        SELECT gen_random_uuid(), 'qr', 'code-' || n, $1, 1, 'SYP', clock_timestamp() - interval '1 minute'
        FROM generate_series(1, 250) AS n
        """,
        shop.id,
    )
    assert await expiry.expire(platform) == Progress(100)
    assert await drain(Tools(platform), JOBS["expire"]) == Progress(150)
    told = await owner.fetchval("SELECT count(*) FROM outbox_events WHERE event_type = 'payments.qr_expire'")
    audited = await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'payments.qr_expire'")
    assert (told, audited) == (250, 250)
