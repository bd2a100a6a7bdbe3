"""How often the worker looks for deliveries that have come due without anybody saying so."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from core.settings import Settings
from jobs import table
from tests.jobs.merchant import Thread, payment


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_base_delay_secs": 0.05, "webhook_worker_poll_secs": 0.1})


async def unwell(request: web.Request) -> web.Response:
    return web.Response(status=500)


async def test_a_retry_is_found_by_the_interval_that_is_set(
    thread: Thread,
    start_worker: Callable[..., asyncio.Event],
    eventually: Callable[..., Awaitable[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """WEBHOOK_WORKER_POLL_SECS. With the worker's own interval it would wait for the sweep, up to ten seconds."""
    monkeypatch.setattr(table, "POLL_SECONDS", 3600.0)
    thread.receiver.answers += [unwell, unwell]
    await thread.open_account("shop:main")
    await thread.subscribe()
    start_worker()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: len(thread.receiver.deliveries) == 3, timeout=4)
