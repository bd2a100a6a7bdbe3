"""Ports of the contracts, seen from outside: the same processes serve them, reload them and stop them."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core.settings import Settings, load_settings
from ops.listening import contract_ports, listen, reserve_grpc
from ops.process import (
    API_PORTS,
    StartError,
    choose_port,
    is_free,
    python_environment,
    release_port,
    take_port,
)
from ops.serving import _listen as _serve_listen
from ops.up import _listen
from tests.ops.test_cli import Start, command, run, start_up

Wait = Callable[..., Awaitable[Any]]

__all__ = ["start_up"]  # the fixture


def free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(choose_port(None))
    return sorted(found)


async def ask(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as response,
    ):
        return response.status, await response.read()


async def answers(port: int, path: str) -> bool:
    try:
        return (await ask(port, path))[0] == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def serving(log: Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command("serve", "--workers", "2"),
            stdout=output,
            stderr=output,
            env=python_environment(**environment),
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def told(log: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


@pytest.mark.drill
async def test_the_processes_serve_all_ports_through_a_reload_and_to_the_stop(
    database_url: str, redis_url: str, tmp_path: Path, eventually: Wait
) -> None:
    common, wallets, inbox, rpc = free_ports(4)
    log = tmp_path / "log"
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "APP_HOST": "127.0.0.1",
        "APP_PORT": str(common),
        "WALLET_PORT": str(wallets),
        "INBOX_PORT": str(inbox),
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(rpc),
    }

    async def check() -> None:
        for _ in range(4):  # a new connection each time, so that both processes are met
            async with grpc.aio.insecure_channel(f"127.0.0.1:{rpc}") as channel:
                asked = health_pb2.HealthCheckRequest(service="payments.PaymentsService")
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    asked, wait_for_ready=True, timeout=20
                )
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            assert await ask(wallets, "/health") == (200, b'{"status":"ok","env":"dev"}')
            status, body = await ask(inbox, "/health")
            assert (status, json.loads(body)["status"]) == (200, "healthy")
            assert json.loads((await ask(common, "/health"))[1])["service"] == "tallystick"
            # Loopback is trusted in dev, on the contract's own port only.
            assert (await ask(inbox, "/admin/events"))[0] == 200
            assert (await ask(inbox, "/admin/events", **{"X-Forwarded-For": "192.0.2.7"}))[0] == 401
            assert (await ask(common, "/admin/events"))[0] == 401

    async with serving(log, **environment) as process:
        await eventually(lambda: told(log, "serving"), timeout=90)
        (ready,) = told(log, "serving")
        assert (ready["port"], ready["wallet_port"], ready["inbox_port"]) == (common, wallets, inbox)
        assert ready["grpc_port"] == rpc
        await check()
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: told(log, "reload.finished"), timeout=90)
        await check()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert all(is_free("127.0.0.1", port) for port in (common, wallets, inbox, rpc))
    assert not told(log, "process.died")
    assert not told(log, "process.killed")


async def test_a_busy_or_equal_port_is_an_error_at_the_start(database_url: str, redis_url: str) -> None:
    environment = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "APP_HOST": "127.0.0.1"}
    common, port = (str(number) for number in free_ports(2))
    code, _, err = await run("serve", APP_PORT=common, WALLET_PORT=common, **environment)
    assert (code, f"APP_PORT and WALLET_PORT are both {common}. " in err) == (1, True), err
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(port)))
        other.listen()
        code, _, err = await run("serve", APP_PORT=common, INBOX_PORT=port, **environment)
    assert code == 1
    assert f"Port {port} on 127.0.0.1 is busy. Stop its server, or set INBOX_PORT to another one." in err


async def test_serve_names_the_setting_of_a_database_that_is_away(redis_url: str) -> None:
    port, nobody = (str(number) for number in free_ports(2))
    url = f"postgresql://u:hunter2@127.0.0.1:{nobody}/books"
    code, _, err = await run(
        "serve", DATABASE_URL=url, REDIS_URL=redis_url, APP_HOST="127.0.0.1", APP_PORT=port
    )
    assert code == 1
    assert (
        f"PostgreSQL at postgresql://u:***@127.0.0.1:{nobody}/books (DATABASE_URL) cannot be reached" in err
    )


async def test_up_finds_a_busy_port_of_a_contract_before_it_starts_servers(tmp_path: Path) -> None:
    (port,) = (str(number) for number in free_ports(1))
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(port)))
        other.listen()
        code, out, err = await run("up", STATE_DIR=str(tmp_path / "state"), WALLET_PORT=port)
    assert code == 1
    assert f"Port {port} on 127.0.0.1 is busy. Stop its server, or set WALLET_PORT to another one." in err
    assert "Starting" not in out


def test_equal_ports_of_two_contracts_are_an_error() -> None:
    common, port = free_ports(2)
    twins = Settings(wallet_port=port, inbox_port=port)
    assert contract_ports(twins) == {"wallet_port": port, "inbox_port": port}
    assert contract_ports(Settings()) == {}
    with pytest.raises(StartError, match=f"WALLET_PORT and INBOX_PORT are both {port}"):
        listen(twins, "127.0.0.1", common)
    assert is_free("127.0.0.1", common)


@pytest.mark.parametrize(
    ("start", "env", "given", "moves"),
    [
        (_listen, "dev", False, True),
        (_listen, "dev", True, False),
        (_serve_listen, "dev", False, True),
        (_serve_listen, "dev", True, False),
        # A proxy in front knows one port.
        (_serve_listen, "prod", False, False),
    ],
)
def test_only_the_default_port_moves_on_from_a_busy_one(
    start: Callable[[Settings], list[Any]], env: str, *, given: bool, moves: bool
) -> None:
    (busy,) = free_ports(1)
    for_contract = next(port for port in API_PORTS if is_free("127.0.0.1", port))
    changes = {"app_port": busy, "env": env, "app_host": "127.0.0.1"}
    settings = load_settings(env_file=None, inbox_port=for_contract).model_copy(update=changes)
    if not given:
        settings.model_fields_set.discard("app_port")
    with socket.socket() as other:
        other.bind(("127.0.0.1", busy))
        other.listen()
        if not moves:
            with pytest.raises(StartError, match=f"Port {busy} on 127.0.0.1 is busy. .* set APP_PORT"):
                start(settings)
            return
        found = start(settings)
        for listeners in found:
            listeners.close_all()
        # The port that is taken for a contract is passed over, and those of developers' tools are.
        assert found[0].port > for_contract
        assert found[0].port in API_PORTS or found[0].port > API_PORTS[-1]


def test_the_ports_that_the_api_chooses_from_are_those_of_the_inbox_before_it() -> None:
    skipped = {3000, 5173, 8000, 8080, 9000}
    assert list(API_PORTS) == [port for port in range(8065, 8100) if port not in skipped]


@pytest.mark.parametrize("env", ["dev", "prod"])
def test_the_port_of_grpc_moves_on_like_the_common_one(env: str) -> None:
    said: list[str] = []

    def reserve(port: int, *, given: bool) -> int:
        settings = Settings.model_construct(**load_settings(env_file=None).model_dump() | {"env": env})
        settings = settings.model_copy(update={"grpc_port": port})
        settings.model_fields_set.discard("grpc_port")
        if given:
            settings.model_fields_set.add("grpc_port")
        reserved = reserve_grpc(settings, "127.0.0.1", said.append)
        if reserved is None:
            return 0
        reserved.close()
        return reserved.port

    (busy,) = free_ports(1)
    assert reserve(0, given=True) == 0
    assert reserve(busy, given=False) == busy
    with socket.socket() as other:
        other.bind(("127.0.0.1", busy))
        other.listen()
        for given in (True, False):
            if given or env == "prod":
                with pytest.raises(StartError, match=f"Port {busy} on 127.0.0.1 is busy. .* GRPC_PORT"):
                    reserve(busy, given=given)
                assert said == []
            else:
                moved = reserve(busy, given=given)
                assert moved > busy
                assert said == [f"Port {busy} is busy; gRPC uses {moved}."]


def test_a_port_that_another_start_has_taken_and_does_not_listen_at_yet_is_passed_over(
    tmp_path: Path,
) -> None:
    (mine,) = free_ports(1)
    program = f"""
import ops.simulating as simulating
from pathlib import Path
from core.settings import load_settings
from ops.listening import Listeners, reserve_grpc
from ops.process import StartError
from ops.up import _listen

settings = load_settings(env_file=None).model_copy(update={{"app_port": {mine}, "grpc_port": {mine}}})
simulating.PORT = {mine}
settings.model_fields_set.difference_update(("app_port", "grpc_port"))
(common,) = _listen(settings)
settings = settings.model_copy(update={{"app_port": common.port}})
settings.model_fields_set.discard("app_port")
grpc = reserve_grpc(settings, "127.0.0.1", lambda text: None)
simulated = simulating.simulate(settings, Path({str(tmp_path)!r}), (common.port, grpc.port))
print(common.port, grpc.port, simulated.port, sep="\\n")
try:
    Listeners("127.0.0.1", {mine})
except StartError as error:
    print(error)
"""

    def started() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env=python_environment(),
        )
        return [line for line in done.stdout.splitlines() if line.isdigit() or "busy. Stop" in line]

    assert take_port("127.0.0.1", mine)
    try:
        *ports, refused = started()
    finally:
        release_port("127.0.0.1", mine)
    assert len({str(mine), *ports}) == 4
    assert f"Port {mine} on 127.0.0.1 is busy." in refused
    assert started()[0] == str(mine)


@pytest.mark.drill
async def test_up_opens_the_ports_and_makes_an_admin_token(
    start_up: Start, database_url: str, redis_url: str, eventually: Wait
) -> None:
    common, inbox, own = free_ports(3)
    up = await start_up(
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        APP_PORT=str(common),
        INBOX_PORT=str(inbox),
        ORCHESTRATION_PORT=str(own),
    )
    found = {
        name: re.search(rf"^  {name} +(\S+)$", up.output(), re.MULTILINE)
        for name in ("Admin token", "INBOX_PORT", "ORCHESTRATION_PORT")
    }
    assert found["INBOX_PORT"] is not None
    assert found["ORCHESTRATION_PORT"] is not None
    assert found["Admin token"] is not None
    assert found["INBOX_PORT"][1] == f"http://127.0.0.1:{inbox}"
    assert json.loads((await ask(inbox, "/health"))[1])["status"] == "healthy"
    assert up.url == f"http://127.0.0.1:{common}"
    assert (await ask(common, "/admin/events"))[0] == 401
    status, body = await ask(common, "/admin/events", **{"X-Admin-Token": found["Admin token"][1]})
    assert (status, json.loads(body)) == (200, [])
