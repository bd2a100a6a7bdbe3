"""A day in little: transfers, webhooks with their deliveries, and wallets, at an application and a worker."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.access import api_keys
from core.database import open_database
from core.identity.tokens import Tokens
from core.service import open_service
from core.settings import Settings, load_settings
from handlers.app import create_app
from handlers.http.parts import PARTS
from jobs.worker import work
from tests.handlers.wallets.conftest import WALLET_SETTINGS
from tests.invariants import faults
from tests.jobs.merchant import STRIPE_SECRET, Receiver, Thread, payment

ApiClient = TestClient[web.Request, web.Application]
CLIENTS = 4
PAUSE_SECONDS = 0.02

_numbers = itertools.count(1)


def settings_of_day(database_url: str, redis_url: str, state_dir: Any, **changes: Any) -> Settings:
    """Return the settings with all surfaces of the day switched on."""
    return load_settings(
        env_file=None,
        **WALLET_SETTINGS
        | {
            "env": "test",
            "database_url": database_url,
            "redis_url": redis_url,
            "state_dir": str(state_dir),
            "stripe_signing_secrets": STRIPE_SECRET,
            "outbound_allow_hosts": "127.0.0.0/8",
            "shutdown_timeout_secs": 5,
            # Two people pay each other for as long as the day takes.
            "fraud_p2p_max_tx_per_hour": "1000000",
        }
        | changes,
    )


class Day:
    """The traffic of a day, and all answers that it should not have got."""

    def __init__(self, api: ApiClient, owner: Any, receiver: Receiver) -> None:
        self.api = api
        self.owner = owner
        self.receiver = receiver
        self.errors: list[tuple[str, int, str]] = []
        self.done = 0
        self.begins_work = asyncio.Event()
        assert api.app is not None
        self.parts = api.app[PARTS]
        self.tokens = Tokens(self.parts.settings)

    async def prepare(self) -> None:
        """Open accounts and an endpoint, and let two people have money."""
        database = await open_database(self.parts.settings, role=None, size=1)
        try:
            self.key, _ = await api_keys.create_key(database, "shop", api_keys.SCOPES)
        finally:
            await database.close()
        self.thread = Thread(self.api, self.parts.service, self.key, self.receiver)
        for code in ("cash", "shop", *(f"wide-{number}" for number in range(CLIENTS))):
            await self.ask(
                "/v1/accounts", {"code": code, "currency": "USD", "limits": {"floor": None}}, key=""
            )
        await self.thread.subscribe()
        self.people = [await self._person() for _ in range(2)]

    async def _person(self) -> tuple[str, str]:
        user = await self.parts.platform.users.ensure(f"+9639{next(_numbers):08}")
        await self.owner.execute(
            "UPDATE users SET phone_proven_at = clock_timestamp(), kyc_level = 1, kyc_status = 'approved'"
            " WHERE id = $1",
            user.id,
        )
        found = await self.parts.platform.users.by_id(user.id)
        assert found is not None
        token = self.tokens.issue(found, None)
        await self.ask(
            "/wallet/topup", {"amount_cents": 1_000, "idempotency_key": f"day-{next(_numbers)}"}, token
        )
        return user.phone, token

    async def ask(self, path: str, body: Any, token: str = "", *, key: str | None = None) -> None:
        """Send a request that must be answered 200 or 201."""
        headers = {"Authorization": f"Bearer {token or self.key}"}
        if key != "":
            headers["Idempotency-Key"] = key or f"day-{next(_numbers)}"
        async with self.api.post(path, json=body, headers=headers) as response:
            text = await response.text()
            self.note(path, response.status, text)

    def note(self, path: str, status: int, text: str) -> None:
        """Count an answer."""
        self.done += 1
        if status not in {200, 201}:
            self.errors.append((path, status, text[:300]))

    async def round(self, number: int) -> None:
        """Do each thing once."""
        await self.ask("/v1/transfers", {"from": "cash", "to": f"wide-{number}", "amount": 7})
        status, answer = await self.thread.send(payment(f"pi_day_{next(_numbers)}", "shop"))
        self.note("/webhooks/stripe", status, str(answer))
        (payer, token), (payee, _) = self.people[:: 1 if next(_numbers) % 2 else -1]
        assert payer
        await self.ask("/wallet/transfer", {"to_phone": payee, "amount_cents": 1}, token)
        async with self.api.get("/v1/transfers", headers={"Authorization": f"Bearer {self.key}"}) as response:
            self.note("/v1/transfers", response.status, await response.text())

    async def rounds(self, count: int) -> None:
        """Let all clients do so many rounds."""

        async def client(number: int) -> None:
            for _ in range(count):
                await self.round(number)

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Do rounds for as long as the block takes."""
        ended = asyncio.Event()

        async def client(number: int) -> None:
            while not ended.is_set():
                await self.round(number)
                await asyncio.sleep(PAUSE_SECONDS)

        clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
        try:
            yield
        finally:
            ended.set()
            await asyncio.gather(*clients)

    async def settled(self, eventually: Any) -> None:
        """Wait until each webhook has been applied and delivered, and prove that the books are right."""
        waiting = (
            "SELECT (SELECT count(*) FROM inbox_events WHERE state <> 'done')"
            " + (SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered')"
            " + (SELECT count(*) FROM outbox_events WHERE fanned_out_at IS NULL)"
        )

        async def all_done() -> bool:
            return bool(await self.owner.fetchval(waiting) == 0)

        await eventually(all_done, timeout=60)
        assert await self.owner.fetchval("SELECT count(*) FROM webhook_deliveries") > 0
        assert await faults(self.owner) == {}


@asynccontextmanager
async def day_at(settings: Settings, *, at_work: bool = True) -> AsyncIterator[Day]:
    """Open an application on `settings`, with a worker that is `at_work`, and prepare a day there.

    A worker that is not at work from the start begins with `day.begins_work`.
    """
    owner = await asyncpg.connect(str(settings.owner_url))
    receiver = Receiver()
    stopping = asyncio.Event()
    try:
        async with (
            receiver.listening(),
            open_service(settings) as service,
            TestClient(TestServer(create_app(settings, service))) as api,
        ):
            day = Day(api, owner, receiver)
            await day.prepare()
            if at_work:
                day.begins_work.set()
            worker = asyncio.create_task(_work(settings, day.begins_work, stopping))
            try:
                yield day
            finally:
                stopping.set()
                day.begins_work.set()
                await worker
    finally:
        await owner.close()


async def _work(settings: Settings, begins: asyncio.Event, stopping: asyncio.Event) -> None:
    await begins.wait()
    if not stopping.is_set():
        await work(settings, stopping)
