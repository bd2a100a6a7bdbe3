"""Outgoing requests against receivers that misbehave: bounded, never redirected, never to an address that is closed."""

import asyncio
import gzip
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from core.outbox import egress as egress_module
from core.outbox.destinations import Destinations
from core.outbox.egress import EXCERPT_BYTES, FORBIDDEN, Egress, Reply
from core.outbox.wire.resolving import MOST_WAITING, THREADS, Resolver
from tests.core.outbox.names import Names

HERE = Destinations.of(("127.0.0.0/8",), require_https=False)


@asynccontextmanager
async def server_of(handler: object) -> AsyncIterator[BaseTestServer]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)  # type: ignore[arg-type]
    async with TestServer(app) as server:
        yield server


async def post(url: object, destinations: Destinations = HERE) -> Reply:
    egress = Egress(destinations)
    try:
        return await egress.post(str(url), body=b"{}", headers={"Content-Type": "application/json"})
    finally:
        await egress.close()


@pytest.mark.parametrize(
    ("status", "succeeded"), [(200, True), (204, True), (299, True), (301, False), (400, False), (500, False)]
)
async def test_only_2xx_is_success(status: int, succeeded: bool) -> None:  # noqa: FBT001 - the verdict of a row
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with server_of(handler) as server:
        reply = await post(server.make_url("/"))
    assert (reply.status, reply.succeeded) == (status, succeeded)


async def test_redirects_are_not_followed() -> None:
    paths = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/other"})

    async with server_of(handler) as server:
        reply = await post(server.make_url("/first"))
    assert (reply.status, paths) == (307, ["/first"])


async def test_an_answer_without_an_end_is_cut_off() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionResetError:
            return response

    async with server_of(handler) as server:
        reply = await post(server.make_url("/"))
    assert reply.status == 200
    assert reply.excerpt == "x" * EXCERPT_BYTES


async def test_an_answer_that_drips_does_not_hold_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_module, "EXCERPT_TIMEOUT_SECONDS", 0.05)
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=201)
        await response.prepare(request)
        await response.write(b"a\x00b")
        await ended.wait()
        return response

    async with server_of(handler) as server:
        reply = await post(server.make_url("/"))
        ended.set()
    assert (reply.status, reply.excerpt) == (201, "a\ufffdb")


async def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_module, "TOTAL_TIMEOUT_SECONDS", 0.1)
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await ended.wait()
        return web.Response()

    async with server_of(handler) as server:
        reply = await post(server.make_url("/"))
        ended.set()
    assert reply.status is None
    assert reply.error == "no answer within 0.1 s"


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b" * 100_000, b"\x16\x03\x01"]
)
async def test_what_is_not_http(answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reply = await post(f"http://127.0.0.1:{port}/")
    assert reply.status is None
    assert reply.error


async def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        reply = await post(f"http://127.0.0.1:{probe.getsockname()[1]}/")
    assert reply.status is None
    assert (reply.error or "").startswith("ClientConnectorError")


async def test_a_name_that_leads_inside_is_closed_at_the_socket() -> None:
    """The address that a name resolves to is judged when the socket is opened."""
    reached = []

    async def handler(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response()

    nowhere = Destinations.of((), require_https=False)
    async with server_of(handler) as server:
        egress = Egress(nowhere, Names([("127.0.0.1",)]))
        reply = await egress.post(f"http://inside.example.com:{server.port}/", body=b"{}", headers={})
        await egress.close()
        assert (reply.status, reply.error) == (None, FORBIDDEN)
        by_name = await post(f"http://localhost:{server.port}/", nowhere)
        assert "name of private networks" in (by_name.error or "")
        literal = await post(f"http://127.0.0.1:{server.port}/", nowhere)
        assert literal.status is None
        assert "not a public one" in (literal.error or "")
        assert reached == []
        allowed = Destinations.of(("localhost",), require_https=False)
        assert (await post(f"http://localhost:{server.port}/", allowed)).status == 200


async def test_neither_proxies_nor_credentials_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("Authorization", "none"))

    async with server_of(handler) as server:
        reply = await post(server.make_url("/"))
    assert (reply.status, reply.excerpt) == (200, "none")


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8b\x08not gzip", headers={"Content-Encoding": "gzip"})

    async with server_of(handler) as server:
        assert (await post(server.make_url("/"))).status == 200


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("120", 120, 120),
        ("0", 0, 0),
        ("99999999999999999999", 999_999_999, 999_999_999),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 0, 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, 3e9),
        ("Fri, 01 Jan 2100 00:00:00 -0000", 1e9, 3e9),
    ],
)
async def test_how_long_the_receiver_asks_to_wait(said: str, least: float, most: float) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": said})

    async with server_of(handler) as server:
        reply = await post(server.make_url("/"))
    assert reply.retry_after is not None
    assert least <= reply.retry_after <= most


@pytest.mark.parametrize("said", ["", "soon", "-5", "1.5", "\u0663", "Wed, 99 Jan 2020 00:00:00 GMT"])
async def test_a_wait_that_nobody_understands(said: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": said})

    async with server_of(handler) as server:
        reply = await post(server.make_url("/"))
    assert (reply.status, reply.retry_after) == (503, None)


async def test_an_answer_that_would_unpack_to_gigabytes() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with server_of(handler) as server:
        reply = await post(server.make_url("/"))
    assert reply.status == 200
    assert len(reply.excerpt) <= EXCERPT_BYTES


async def test_headers_that_drip_do_not_outlast_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_module, "TOTAL_TIMEOUT_SECONDS", 0.2)
    closed = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        number = 0
        while not reader.at_eof():
            number += 1
            writer.write(b"X-%d: y\r\n" % number)
            try:
                await asyncio.wait_for(reader.read(65536), 0.01)
            except TimeoutError:
                continue
        writer.close()
        closed.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        reply = await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await closed.wait()
    assert (reply.status, reply.error) == (None, "no answer within 0.2 s")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_a_receiver_that_reads_nothing_keeps_no_connection(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """The rest of the request, which the receiver has not read, is not kept for it."""
    monkeypatch.setattr(egress_module, "TOTAL_TIMEOUT_SECONDS", 0.2)
    body = bytes(64 * 1024 * 1024)
    given_up = asyncio.Event()
    read: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await given_up.wait()
        length = 0
        try:
            while some := await reader.read(1 << 20):
                length += len(some)
        except ConnectionError:
            pass
        writer.close()
        read.set_result(length)

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    async with server:
        egress = Egress(HERE)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        reply = await egress.post(url, body=body, headers={})
        given_up.set()
        assert reply.status == (200 if answer else None)
        assert await read < len(body)
        await egress.close()


async def test_a_header_is_one_line() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    async with server_of(handler) as server:
        egress = Egress(HERE)
        for value in ("a\r\nX-More: b", "a\nX-More: b", "a\rb", "a\0b"):
            reply = await egress.post(str(server.make_url("/")), body=b"", headers={"X": value})
            assert (reply.status, reply.error) == (None, egress_module.UNUSABLE_URL)
        await egress.close()


async def test_a_name_server_that_hangs_holds_up_no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answers.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = Resolver()
    lookups = [
        asyncio.create_task(resolver.resolve(f"{number}.example.com"))
        for number in range(THREADS + MOST_WAITING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many names"):
        await resolver.resolve("one.too.many.example.com")
    # The default pool, which everybody else uses, is free.
    assert await asyncio.to_thread(lambda: "free") == "free"
    answers.set()
    assert await asyncio.gather(*lookups) == [[]] * (THREADS + MOST_WAITING)
    assert await resolver.resolve("again.example.com") == []
    await resolver.close()


async def test_the_receiver_that_is_none_is_there_in_development_alone() -> None:
    assert (await post("app://echo/anything")).succeeded
    refused = await post("app://echo", Destinations.of((), require_https=True))
    assert (refused.status, refused.error) == (None, "The URL cannot be used: it has to begin with https://.")
