"""The parts of the benchmark's whole way that do not need a run: the receiver, its arrivals, the fill's own check."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from loadtests.bench.clients.client import ClientResult
from loadtests.bench.clients.receiver import Arrivals, Receiver
from loadtests.bench.clients.workload import Caller
from loadtests.bench.pipeline.arrivals import Arrival, Collected, arrivals_of, collect, on_the_way, wait_for
from loadtests.bench.pipeline.filling import COPIED, POSTED, check_known
from loadtests.bench.stand import StandError, fetch


@pytest.fixture
async def receiver() -> AsyncIterator[Caller]:
    arrivals = Arrivals()
    server = await asyncio.get_running_loop().create_server(lambda: Receiver(arrivals), "127.0.0.1", 0)
    async with server:
        yield Caller(host="127.0.0.1", port=server.sockets[0].getsockname()[1], token="", accounts=0)


def delivery(name: str, body: str, *, header: str = "Content-Length") -> bytes:
    return f"POST /hooks/{name} HTTP/1.1\r\nHost: x\r\n{header}: {len(body)}\r\n\r\n{body}".encode()


async def test_the_receiver_takes_requests_in_pieces_and_several_at_once(receiver: Caller) -> None:
    first = delivery("one", '{"type":"a","data":{"id":"pi_1"}}')
    second = delivery("two", '{"type":"b","data":{"transfer_id":"t"}}', header="content-length")
    reader, writer = await asyncio.open_connection(receiver.host, receiver.port)
    for piece in (first[:40], first[40:-5], first[-5:] + second):
        writer.write(piece)
        await writer.drain()
        await fetch(receiver, "GET", "/ready")  # by then the piece has come
    assert (await reader.readexactly(54)).count(b"HTTP/1.1 204") == 2
    writer.close()

    found = await arrivals_of(receiver, 2)
    assert [(arrival.object_id, arrival.hook) for arrival in found] == [("pi_1", "one"), ("t", "two")]
    assert found[0].moment <= found[1].moment
    await fetch(receiver, "POST", "/forget")
    assert await arrivals_of(receiver, 0) == []


async def test_who_waits_is_told_when_so_many_have_come(receiver: Caller) -> None:
    waiting = asyncio.create_task(wait_for(receiver, 2))
    _, writer = await asyncio.open_connection(receiver.host, receiver.port)
    for name in ("stranger", "pi_1", "pi_1", "pi_2"):
        writer.write(delivery("0", f'{{"data":{{"id":"{name}"}}}}'))
    await writer.drain()
    assert await waiting >= 2
    writer.close()

    collected = await collect(receiver, {"pi_1", "pi_2"})
    assert collected.first.keys() == {"pi_1", "pi_2"}
    assert collected.errors == {"twice": 1}


def test_latencies_end_at_the_receiver() -> None:
    sent = ClientResult(
        requests=2,
        seconds=9.0,
        latency_ms={"p50": 1.0, "p95": 2.0, "p99": 3.0},
        errors={},
        sent={"a": 10.0, "b": 11.0},
    )
    first = {"a": Arrival("a", "0", 0.0, 10.5), "b": Arrival("b", "0", 0.0, 12.0)}
    result = on_the_way(sent, Collected(first, {}))
    assert (result.requests, result.seconds, result.latency_ms["p50"]) == (2, 2.0, 500.0)
    assert (result.latency_ms["max"], result.latency_ms["answer.p99"]) == (1000.0, 3.0)
    assert on_the_way(sent, Collected({}, {"missing": 2})).errors == {"missing": 2}


def test_a_fill_knows_every_table_that_the_pipeline_writes() -> None:
    written = dict.fromkeys([*COPIED, *POSTED, "new_table"], 64)
    with pytest.raises(StandError, match=r"new_table$"):
        check_known({}, written, 64)
    del written["new_table"]
    check_known({}, {**written, "accounts": 1}, 64)
    with pytest.raises(StandError, match=r"outbox_events$"):
        check_known({"outbox_events": 64}, written, 64)
