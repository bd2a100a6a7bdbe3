"""The supervisor, seen from the port it serves: nothing a client asks for is lost by a crash, a reload or a stop."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ops import process
from ops.listening import Listeners
from ops.process import StartError, python_environment
from ops.supervisor import SILENCE_LIMIT_SECONDS

pytestmark = pytest.mark.drill

SMALL_MASTER = Path(__file__).with_name("small_master.py")


@dataclass
class Running:
    """A master that was started, and how to talk to what it runs."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    client: aiohttp.ClientSession

    async def get(self, path: str = "/") -> Any:
        async with self.client.get(self.url + path) as response:
            assert response.status == 200
            return await response.json()

    def told(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def silence_limit() -> float:
    """For how many seconds a process may be silent."""
    return SILENCE_LIMIT_SECONDS


@pytest.fixture
def drain_seconds() -> float:
    """How long the processes say that they will stop before they are stopped."""
    return 0.0


@pytest.fixture
async def master(
    tmp_path: Path,
    eventually: Callable[..., Awaitable[Any]],
    silence_limit: float,
    drain_seconds: float,
) -> AsyncIterator[Running]:
    """Two processes of the small service, on a free port."""
    port_file, log, metrics = tmp_path / "port", tmp_path / "log", tmp_path / "metrics"
    metrics.mkdir()
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: ASYNC220 - its signals and its end are what is tested
            [sys.executable, SMALL_MASTER, port_file, "2", metrics, str(silence_limit), str(drain_seconds)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=python_environment(),
        )
    try:
        port = await eventually(lambda: port_file.exists() and port_file.read_text(), timeout=30)
        # A new connection for each request reaches every process.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as client:
            yield Running(child, f"http://127.0.0.1:{port}", log, client)
    finally:
        child.kill()
        child.wait()


async def test_every_process_serves_the_port(
    master: Running, eventually: Callable[..., Awaitable[Any]]
) -> None:
    seen = set()

    async def both_answer() -> bool:
        seen.add(await master.get())
        return len(seen) == 2

    await eventually(both_answer)
    assert master.process.pid not in seen


async def test_a_killed_process_comes_back_and_no_request_fails(
    master: Running, eventually: Callable[..., Awaitable[Any]]
) -> None:
    victim = master.told("process.started")[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    # Connections that reach the dead process's queue wait there for its successor.
    answered = await asyncio.gather(*(master.get() for _ in range(50)))
    assert victim not in answered
    await eventually(lambda: len(master.told("process.started")) == 3)
    (death,) = master.told("process.died")
    assert (death["pid"], death["exit_code"], death["restart_in_seconds"]) == (victim, -signal.SIGKILL, 0)


@pytest.mark.parametrize("silence_limit", [3.0])
async def test_a_hung_process_is_replaced_and_no_request_fails(
    master: Running, eventually: Callable[..., Awaitable[Any]]
) -> None:
    victim = master.told("process.started")[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    # Half of the connections wait in its queue, for its successor.
    answered = await asyncio.gather(*(master.get() for _ in range(50)))
    assert victim not in answered
    assert [line["pid"] for line in master.told("process.hung")] == [victim]
    assert [line["pid"] for line in master.told("process.died")] == [victim]


async def test_a_process_that_keeps_dying_waits_longer_each_time(
    master: Running, eventually: Callable[..., Awaitable[Any]]
) -> None:
    for deaths in range(1, 4):
        pid = await eventually(lambda: master.told("process.started")[-1]["pid"])
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: len(master.told("process.died")) == deaths)  # noqa: B023 - asked within the round
        await eventually(lambda: len(master.told("process.started")) == 2 + deaths)  # noqa: B023
    assert [death["restart_in_seconds"] for death in master.told("process.died")] == [0, 0.5, 1.0]
    assert await master.get()


async def test_a_reload_under_load_fails_no_request(
    master: Running, eventually: Callable[..., Awaitable[Any]]
) -> None:
    before = {line["pid"] for line in master.told("process.started")}
    done = asyncio.Event()

    async def client(session: aiohttp.ClientSession) -> int:
        answered = 0
        while not done.is_set():
            async with session.post(master.url) if answered % 2 else session.get(master.url) as response:
                assert response.status in {200, 405}
            answered += 1
        return answered

    async with aiohttp.ClientSession() as kept:  # half of the clients keep their connections
        clients = [asyncio.create_task(client(kept if n % 2 else master.client)) for n in range(8)]
        for reloads in (1, 2):
            master.process.send_signal(signal.SIGHUP)
            await eventually(lambda: len(master.told("reload.finished")) == reloads)  # noqa: B023
            await eventually(lambda: len(master.told("process.ended")) == 2 * reloads, timeout=30)  # noqa: B023
        done.set()
        assert all(await asyncio.gather(*clients))
    assert await master.get() not in before
    assert not master.told("process.died")


async def test_a_stop_lets_the_request_in_progress_finish(
    master: Running, tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    answer = asyncio.create_task(master.get(f"/slow?folder={tmp_path}"))
    await eventually((tmp_path / "begun").exists)
    master.process.send_signal(signal.SIGTERM)
    await eventually(lambda: _refuses(master.url))
    assert not answer.done()
    (tmp_path / "finish").touch()
    # It knew that it was to stop (which is when /ready turns to 503), and said that the connection ends.
    assert await answer == {"stopping": True}
    assert await asyncio.to_thread(master.process.wait, 20) == 0
    assert not master.told("process.killed")


@pytest.mark.parametrize("drain_seconds", [600.0])
async def test_a_stop_with_a_drain_serves_on_until_load_balancers_have_gone(
    master: Running, tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as kept:

        async def ends_connection() -> bool:
            async with kept.get(master.url) as response:
                return response.status == 200 and response.headers.get("Connection") == "close"

        assert not await ends_connection()
        master.process.send_signal(signal.SIGTERM)
        # The old connection is ended by an answer; new ones are still accepted.
        await eventually(ends_connection)
        assert await ends_connection()
    (tmp_path / "finish").touch()
    assert await master.get(f"/slow?folder={tmp_path}") == {"stopping": True}
    assert [told["seconds"] for told in master.told("draining")] == [600.0]
    # A second signal ends the drain, and not the requests.
    master.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(master.process.wait, 20) == 0
    assert not master.told("process.killed")


async def test_a_stop_lets_a_request_finish_whose_body_is_still_arriving(
    master: Running, tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    begun = tmp_path / "begun"
    head = f"POST /body?begun={begun} HTTP/1.1\r\nHost: small\r\nContent-Length: 10\r\n\r\n"
    async with _connected(master.url) as (reader, writer):
        writer.write(head.encode() + b"12345")
        pid = await eventually(lambda: begun.exists() and begun.read_text())
        async with AsyncExitStack() as stack:
            while True:  # until one is connected to the process which has the request
                idle, asking = await stack.enter_async_context(_connected(master.url))
                asking.write(b"GET / HTTP/1.1\r\nHost: small\r\n\r\n")
                await idle.readuntil(b"\r\n\r\n")
                if (await idle.readexactly(len(pid))).decode() == pid:
                    break
            master.process.send_signal(signal.SIGTERM)
            assert await idle.read() == b""  # who has asked for nothing is cut off now
        writer.write(b"67890")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\n10")
    assert await asyncio.to_thread(master.process.wait, 20) == 0
    assert not master.told("process.killed")


async def test_kill_minus_nine_of_the_master_leaves_nothing(
    master: Running, eventually: Callable[..., Awaitable[Any]]
) -> None:
    pids = [line["pid"] for line in master.told("process.started")]
    master.process.kill()
    await eventually(lambda: not any(process.command_line_of(pid) for pid in pids), timeout=20)


async def test_metrics_are_those_of_all_processes(
    master: Running, eventually: Callable[..., Awaitable[Any]]
) -> None:
    for _ in range(20):
        await master.get()
    os.kill(master.told("process.started")[0]["pid"], signal.SIGKILL)
    await eventually(lambda: len(master.told("process.started")) == 3)
    for _ in range(20):
        await master.get()
    async with master.client.get(master.url + "/metrics") as response:
        assert "answered_total 40.0" in (await response.text()).splitlines()


def test_a_busy_port_is_refused_even_where_the_other_would_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(StartError, match="is busy"):
            Listeners("127.0.0.1", other.getsockname()[1])


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def _refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0
