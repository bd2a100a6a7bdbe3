"""The worker finds out what became of payments whose answers were lost, and gives up those whose time is over."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from core.payments.payments import NewPayment, Payment, find
from core.payments.router import open_payments
from core.payments.routing import Rule
from core.payments.states import State
from core.providers.protocol import Method
from core.providers.simulator import Simulator
from core.service import Service
from core.settings import Settings
from core.work.wakeup import Waker
from handlers.simulator.site import Simulator as Server
from jobs.worker import work
from tests.core.providers.scenes import SOON_SECONDS, serving

Wait = Callable[..., Awaitable[Any]]


@pytest.fixture
async def simulator() -> AsyncIterator[str]:
    async with serving(Server().application()) as url:
        yield url


@pytest.fixture
def settings(settings: Settings, simulator: str) -> Settings:
    return settings.model_copy(update={"simulator_url": simulator})


async def created(service: Service, url: str, **more: Any) -> Payment:
    waker = Waker(service.redis, service.epoch)
    providers = {"simulator": Simulator(url, total_seconds=SOON_SECONDS)}
    async with open_payments(service, waker, providers, [Rule(provider="simulator")]) as payments:
        new = NewPayment(
            surface="tests",
            caller="shop",
            request_id=f"r{len(more)}",
            amount=100,
            currency="EUR",
            method=Method.HOSTED_CARD,
            title="Tea",
            reference="order-1",
            **more,
        )
        payment = (await payments.create(new)).payment
    await waker.close()
    return payment


async def test_a_worker_finds_out_and_gives_up(
    service: Service, settings: Settings, simulator: str, eventually: Wait
) -> None:
    async with aiohttp.ClientSession() as session:
        rules = [{"fault": "create:paid", "share": 1.0}, {"fault": "create:timeout", "share": 1.0}]
        await session.put(f"{simulator}/faults", json={"seed": 1, "rules": rules})
        lost = await created(service, simulator)
        await session.put(f"{simulator}/faults", json={})
        over = await created(service, simulator, expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (lost.state, over.state) == (State.UNKNOWN, State.PENDING)
    stopping = asyncio.Event()
    worker = asyncio.create_task(work(settings, stopping))

    async def states() -> bool:
        found = [(await find(service.database, one.id)).state for one in (lost, over)]
        return found == [State.PAID, State.EXPIRED]

    await eventually(states, timeout=20)
    stopping.set()
    await worker
