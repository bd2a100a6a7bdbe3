"""The thread from a signed event to a verified delivery, with a real receiver at its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from core.inbox.processing import Retries
from core.service import Service
from core.settings import Settings
from jobs import table
from jobs.worker import work
from tests.jobs.merchant import STRIPE_SECRET, ApiClient, Receiver, Thread

# A retry that is due in milliseconds is found this late. A test that is about wake-ups sets an hour itself.
POLL_SECONDS = 0.05


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "stripe_signing_secrets": (STRIPE_SECRET,),
            "outbound_allow_hosts": ("127.0.0.0/8",),
            "webhook_base_delay_secs": 0.05,
            "webhook_max_attempts": 3,
            "webhook_breaker_open_secs": 0,
            "shutdown_timeout_secs": 2,
        }
    )


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    async with found.listening():
        yield found


@pytest.fixture
async def thread(
    api: ApiClient, service: Service, api_key: Callable[..., Awaitable[str]], receiver: Receiver
) -> Thread:
    return Thread(api, service, await api_key(principal="shop"), receiver)


@pytest.fixture
async def start_worker(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., asyncio.Event]]:
    """What starts a worker in this process and returns what stops it; all are stopped at the end."""
    monkeypatch.setattr(table, "POLL_SECONDS", POLL_SECONDS)
    running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    def start(**retries: Any) -> asyncio.Event:
        stopping = asyncio.Event()
        task = asyncio.create_task(work(settings, stopping, retries=Retries(**retries)))
        running.append((stopping, task))
        return stopping

    yield start
    for stopping, _ in running:
        stopping.set()
    await asyncio.gather(*(task for _, task in running))
