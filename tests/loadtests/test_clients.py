"""Both load clients against a server of the test: what they send, and what they make of the answers."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
import pytest
from aiohttp import web

from loadtests.bench.clients.client import ClientError, ClientName, choose_client, run_client
from loadtests.bench.clients.workload import BATCH_ITEM_DONE, Caller

pytestmark = pytest.mark.drill

Handler = Callable[[web.Request], Awaitable[web.Response]]
CLIENTS: list[ClientName] = ["raw", "wrk"] if shutil.which("wrk") else ["raw"]


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> ClientName:
    name: ClientName = request.param
    return name


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Caller]:
    app = web.Application(client_max_size=2**22)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Caller(host="127.0.0.1", port=runner.addresses[0][1], token="tsk_test", accounts=3)
    finally:
        await runner.cleanup()


async def test_single_transfers_are_well_formed_and_never_repeat(client: ClientName) -> None:
    seen: list[tuple[str, dict[str, object]]] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.method == "POST"
        assert request.path == "/v1/transfers"
        assert request.headers["Authorization"] == "Bearer tsk_test"
        assert request.content_type == "application/json"
        seen.append((request.headers["Idempotency-Key"], orjson.loads(await request.read())))
        return web.json_response({}, status=201)

    async with serving(answer) as caller:
        result = await run_client(caller.single(), caller, connections=3, seconds=1, seed=1, client=client)

    assert result.errors == {}
    assert result.client == client
    assert len(seen) - 3 <= result.requests <= len(seen)
    assert result.requests / result.seconds > 0
    assert result.cpu_seconds > 0
    assert 0 < result.latency_ms["p50"] <= result.latency_ms["p99"] <= result.latency_ms["max"]
    assert len({key for key, _ in seen}) == len(seen)
    accounts = {f"acct-{number:06}" for number in (1, 2, 3)}
    assert {body["from"] for _, body in seen} == {body["to"] for _, body in seen} == accounts
    assert all(body["from"] != body["to"] for _, body in seen)
    assert all(isinstance(body["amount"], int) and 100 <= body["amount"] <= 999 for _, body in seen)
    assert {frozenset(body) for _, body in seen} == {frozenset({"from", "to", "amount", "kind"})}


async def test_the_hot_workload_always_pays_from_one_account(client: ClientName) -> None:
    payers = set()

    async def answer(request: web.Request) -> web.Response:
        payers.add(orjson.loads(await request.read())["from"])
        return web.json_response({}, status=201)

    async with serving(answer) as caller:
        workload = caller.single(hot=True)
        result = await run_client(workload, caller, connections=1, seconds=1, seed=1, client=client)

    assert result.errors == {}
    assert payers == {"acct-hot"}


async def test_statuses_from_400_on_are_errors(client: ClientName) -> None:
    answered = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal answered
        answered += 1
        return web.json_response({}, status=429 if answered % 2 else 201)

    async with serving(answer) as caller:
        result = await run_client(caller.single(), caller, connections=1, seconds=1, seed=1, client=client)

    assert result.errors.keys() == {"status"}
    assert result.errors["status"] == pytest.approx(result.requests / 2, abs=1)


async def test_a_batch_is_one_request_and_every_item_is_checked(client: ClientName) -> None:
    keys: list[str] = []
    refused = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal refused
        body = orjson.loads(await request.read())
        assert body.keys() == {"transfers"}
        keys.extend(item["key"] for item in body["transfers"])
        assert len(body["transfers"]) == 50
        items = [f"{{{BATCH_ITEM_DONE}}}"] * 50
        if len(keys) == 100:  # in the second answer, two items are refused
            items[7] = items[49] = '{"status":"refused"}'
            refused += 2
        return web.Response(text=f'{{"results":[{",".join(items)}]}}', content_type="application/json")

    async with serving(answer) as caller:
        result = await run_client(caller.batch(50), caller, connections=1, seconds=1, seed=1, client=client)

    assert refused == 2
    assert result.errors == {"item": 2}
    assert len(set(keys)) == len(keys) >= result.requests * 50


async def test_past_balances_ask_for_moments_between_the_bounds(client: ClientName) -> None:
    moments = []

    async def answer(request: web.Request) -> web.Response:
        assert request.method == "GET"
        moments.append(datetime.fromisoformat(request.query["at"]))
        return web.json_response({"balance": 0})

    async with serving(answer) as caller:
        workload = caller.past_balance(1_700_000_000, 1_700_000_100)
        result = await run_client(workload, caller, connections=1, seconds=1, seed=1, client=client)

    assert result.errors == {}
    earliest, latest = (datetime.fromtimestamp(second, UTC) for second in (1_700_000_000, 1_700_000_100))
    assert all(earliest <= moment <= latest for moment in moments)
    assert len(set(moments)) > 1


async def test_a_server_that_hangs_up_is_an_error(client: ClientName) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.json_response({})

    async with serving(answer) as caller:
        try:
            result = await run_client(
                caller.single(), caller, connections=1, seconds=1, seed=1, client=client
            )
        except ClientError:
            return  # wrk has nothing to report when nothing at all was answered
    assert result.errors.get("read", 0) > 0


async def test_without_wrk_the_client_is_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert choose_client() == "raw"
    async with serving(_nothing) as caller:
        result = await run_client(caller.single(), caller, connections=1, seconds=0.2, seed=1, client="raw")
        assert (result.client, result.errors) == ("raw", {})
        with pytest.raises(ClientError, match="wrk"):
            await run_client(caller.single(), caller, connections=1, seconds=1, seed=1, client="wrk")


async def _nothing(request: web.Request) -> web.Response:
    return web.json_response({}, status=201)
