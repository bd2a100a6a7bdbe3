"""A rotation as an operator does it: a file changes, SIGHUP replaces the processes, and no request fails."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ops.process import choose_port, python_environment
from tests.collector import Collector, collecting

pytestmark = pytest.mark.drill

OLD, NEW = "old-token-of-the-rotation", "new-token-of-the-rotation"
Wait = Callable[..., Awaitable[Any]]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


async def test_a_token_by_file_is_rotated_under_load_without_a_failed_request(
    database_url: str, redis_url: str, tmp_path: Path, eventually: Wait, collector: Collector
) -> None:
    names = {"ADMIN_TOKEN": OLD, "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    for name, text in names.items():
        (tmp_path / name).write_text(text)
    files = {f"{name}_FILE": str(tmp_path / name) for name in names}
    port, log = choose_port(None), tmp_path / "log"
    environment = files | {
        "ENV": "test", "APP_PORT": str(port), "APP_HOST": "127.0.0.1", "GRPC_PORT": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }  # fmt: skip
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli", "serve",
            stdout=output, stderr=output, cwd=tmp_path, env=python_environment(**environment),
        )  # fmt: skip
    try:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as client:
            await eventually(lambda: _is_ready(client), timeout=60)

            async def roll(number: int, text: str, token: str) -> list[int]:
                """Replace the file and the process, while the holder of a token calls all the time."""
                (tmp_path / "ADMIN_TOKEN").write_text(text)
                process.send_signal(signal.SIGHUP)
                statuses: list[int] = []
                while log.read_text().count('"process.ended"') < number:
                    statuses.append(await _status(client, token))
                return statuses

            both = await roll(1, f"{NEW}\n{OLD}\n", OLD)
            both += [await _status(client, token) for token in (OLD, NEW)]
            both += await roll(2, NEW, NEW)
            assert (await _status(client, NEW), await _status(client, OLD)) == (200, 401)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0
    # Each request was answered as an administrator's, whichever token it had; a lost connection would have raised.
    assert set(both) == {200}
    assert len(both) > 20
    # Each process has sent its last spans before it ended: not one request is missing in the traces.
    spans = collector.named("GET /admin/audit")
    assert sorted(span.attributes["http.response.status_code"] for span in spans) == [200] * (
        len(both) + 1
    ) + [401]


async def _is_ready(client: aiohttp.ClientSession) -> bool:
    try:
        return await _status(client, OLD, "/ready") == 200
    except aiohttp.ClientConnectorError:
        return False


async def _status(client: aiohttp.ClientSession, token: str, path: str = "/admin/audit") -> int:
    async with client.get(path, headers={"X-Admin-Token": token}) as answer:
        await answer.read()
        return answer.status
