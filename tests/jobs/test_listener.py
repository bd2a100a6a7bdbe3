"""The worker's own metrics, read from a worker that is a process of its own."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from core.ledger.accounts import Opening, open_accounts
from core.service import Service
from core.settings import Settings
from jobs.listener import metrics_listener

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found: int = listening.getsockname()[1]
        return found


async def test_a_worker_shows_its_metrics(
    settings: Settings, service: Service, port: int, eventually: Eventually
) -> None:
    await open_accounts(service.database, [Opening("a", "USD")], 1)  # something to seal
    environment = os.environ | {
        "ENV": "test",
        "APP_HOST": "127.0.0.1",
        "DATABASE_URL": str(settings.database_url),
        "REDIS_URL": str(settings.redis_url),
        "WORKER_METRICS_PORT": str(port),
        "METRICS_INTERVAL_SECS": "0",
    }
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "ops.cli", "worker", env=environment)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

            async def text() -> str:
                try:
                    async with client.get("/metrics") as response:
                        found = await response.text()
                except aiohttp.ClientConnectionError:
                    return ""
                sealed = 'job_runs_total{job_name="seal",status="success"}' in found
                return found if sealed and "feed_lag_seconds 0.0\n" in found else ""

            lines = (await eventually(text, timeout=30)).splitlines()
        assert "dlq_messages_pending 0.0" in lines
        (age,) = [line for line in lines if line.startswith("worker_heartbeat_age_seconds ")]
        assert 0 <= float(age.split()[1]) < 3_600
        worker.send_signal(signal.SIGHUP)
        assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


async def test_without_the_setting_nothing_listens(service: Service) -> None:
    threads = threading.active_count()
    async with metrics_listener(service):
        assert threading.active_count() == threads
