"""How tasks are ended."""

import asyncio

import pytest

from core import tasks


async def test_one_that_outlives_a_cancellation_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    outlived = 0

    async def follow() -> None:
        nonlocal outlived
        while True:
            try:
                try:
                    await asyncio.Event().wait()
                finally:
                    if outlived < 2:
                        raise ConnectionError("the connection that was to be given back is dead")
            except ConnectionError:
                outlived += 1

    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError

    following, failing = asyncio.create_task(follow()), asyncio.create_task(fail())
    await asyncio.sleep(0)
    await tasks.end(following, failing)
    assert outlived == 2
    assert following.cancelled()
    assert isinstance(failing.exception(), ConnectionError)


async def test_nothing_is_ended_at_once() -> None:
    await tasks.end()
