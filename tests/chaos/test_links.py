"""The links that fail: what passes in each of their ways, and the process that carries them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loadtests.bench.stand import StandError
from loadtests.chaos.full.links import Link
from loadtests.chaos.full.plan import WAYS
from loadtests.chaos.full.proxies import Proxies
from ops.process import command_line_of

pytestmark = pytest.mark.drill


@contextlib.asynccontextmanager
async def an_echo() -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a server that sends back what it hears, and notes it."""
    heard: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1_000):
                heard.append(chunk)
                writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


@pytest.mark.parametrize("way", sorted(Link().ways))
async def test_a_link_fails_in_its_way_and_is_well_again(way: str) -> None:
    async with an_echo() as (port, heard), contextlib.AsyncExitStack() as ends, asyncio.timeout(10):
        link = Link(port)
        ends.push_async_callback(link.close)
        await link.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        failing = asyncio.ensure_future(link.ways[way](0.2))
        await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            writer.write(b"during" * 10)
        try:
            answer = await reader.read(1_000)
        except OSError:
            answer = b""
        await failing
        survives = way in {"slow", "stall"}
        assert (answer == b"during" * 10) is survives
        assert answer == (b"during" * 10)[:40] or way != "tear"
        # The server has heard it though the caller does not know.
        assert (b"during" * 10 in heard) or way not in {"mute", "tear", "slow", "stall"}
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"after")
        assert await reader.readexactly(5) == b"after"
        writer.close()


@pytest.fixture
async def proxies(tmp_path: Path) -> AsyncIterator[Proxies]:
    """The links' process, whose link `one` leads to an echo."""
    proxies = Proxies(("one", "other"), tmp_path)
    async with an_echo() as (port, _):
        try:
            await proxies.start()
            proxies.aim("one", port)
            yield proxies
        finally:
            await proxies.close()
    assert proxies.pid is not None
    assert not command_line_of(proxies.pid)


async def test_links_fail_in_a_process_of_their_own_as_they_are_told(proxies: Proxies) -> None:
    assert set(WAYS) == Link().ways.keys()
    async with asyncio.timeout(60):
        for way in WAYS:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxies.ports["one"])
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            await proxies.fail("one", way, 0.05)
            if way not in {"slow", "stall"}:
                # The connection is reset; a torn one waits for an answer until its time is over.
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            else:
                writer.write(b"after")
                assert await reader.readexactly(5) == b"after"
            writer.close()
        assert 0 <= await proxies.lag() < 60
        with pytest.raises(
            StandError, match=r"the harness failed, not the service: other-link\.burn .*KeyError"
        ):
            await proxies.fail("other", "burn", 0.0)


async def test_links_whose_process_dies_are_an_error_of_the_harness(proxies: Proxies) -> None:
    proxies.check()
    failing = asyncio.ensure_future(proxies.fail("one", "stall", 3_600.0))
    await proxies.lag()
    assert proxies.pid is not None
    os.kill(proxies.pid, signal.SIGKILL)
    words = "the harness failed, not the service: the process of its links ended with exit code -9"
    with pytest.raises(StandError, match=words):
        await failing
    with pytest.raises(StandError, match=words):
        proxies.check()
    with pytest.raises(StandError, match=words):
        await proxies.fail("one", "cut", 0.0)
