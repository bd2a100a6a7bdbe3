"""When processes die under load: every answered transfer is there once, nothing is half there, nobody restarts."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.chaos.load import Serving, Stand

pytestmark = pytest.mark.drill

Wait = Callable[..., Awaitable[Any]]

TRANSFERS = 600


@pytest.mark.drill
async def test_api_is_killed(serving: Serving, eventually: Wait) -> None:
    load = serving.load
    first = serving.workers()
    assert len(first) == 2
    running = asyncio.create_task(load.run(TRANSFERS))
    for number, pid in enumerate(first, 1):
        await eventually(lambda number=number: load.done > number * TRANSFERS // 4, timeout=60)
        os.kill(pid, signal.SIGKILL)
    await running
    assert load.done == TRANSFERS
    assert set(load.statuses) == {201}, load.refusals[:3]
    assert load.unanswered > 0
    await eventually(lambda: len(serving.workers()) == 2, timeout=30)
    assert not set(serving.workers()) & set(first)
    await serving.check_books()
    await load.ask_again()
    await serving.check_books()


async def test_redis_is_stopped_and_wiped(serving: Serving, stand: Stand, eventually: Wait) -> None:
    load = serving.load
    running = asyncio.create_task(load.run(TRANSFERS))
    await eventually(lambda: load.done > TRANSFERS // 4, timeout=60)
    await stand.do(stand.valkey.kill)
    before = load.done
    await eventually(lambda: load.done > before + TRANSFERS // 4, timeout=60)
    shutil.rmtree(stand.valkey.data)
    await stand.do(stand.valkey.start)
    await running
    assert (load.statuses, load.unanswered) == ({201: TRANSFERS}, 0), load.refusals[:3]
    await serving.check_books()
    await load.ask_again()
    await serving.check_books()


async def test_postgres_is_restarted(serving: Serving, stand: Stand, eventually: Wait) -> None:
    load = serving.load
    workers = serving.workers()
    running = asyncio.create_task(load.run(TRANSFERS))
    for number in (1, 2):
        await eventually(lambda number=number: load.done > number * TRANSFERS // 4, timeout=60)
        pid = stand.postgres.pid
        assert pid is not None
        os.kill(
            pid, signal.SIGQUIT
        )  # an immediate shutdown: sessions are cut off, and the start is a recovery
        await eventually(lambda: stand.postgres.pid is None, timeout=30)
        refused = load.statuses.get(503, 0)
        await eventually(lambda refused=refused: load.statuses.get(503, 0) > refused, timeout=30)
        await stand.do(stand.postgres.start)
    await running
    assert load.done == TRANSFERS
    assert set(load.statuses) == {201, 503}, [each for each in load.refusals if each[0] != 503][:3]
    assert load.unanswered == 0
    for _, retry_after, body in load.refusals:
        assert int(retry_after or "0") >= 1
        assert json.loads(body)["error"]["code"] == "database_unavailable", body
    assert serving.workers() == workers
    await serving.check_books()
    await load.ask_again()
    await serving.check_books()
