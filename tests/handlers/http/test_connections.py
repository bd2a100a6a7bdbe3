"""Answers on the wire: a plain one is written in one piece, and says what aiohttp's own way of writing says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from handlers.http.middleware import EDGE, Edge, around
from handlers.http.protocol import Runner

ORIGIN = "https://shop.example"


async def plain(_request: web.Request) -> web.StreamResponse:
    return web.Response(
        status=201, body=b'{"a":1}', headers={"Content-Type": "application/json", "Location": "/x"}
    )


async def own_cache(_request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "text/css", "Cache-Control": "max-age=60"}
    return web.Response(body=b"a{}", headers=headers)


async def empty(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


async def nothing(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"", headers={"Content-Type": "text/plain"})


async def without_type(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"bytes")


async def cookie(_request: web.Request) -> web.StreamResponse:
    response = web.Response(text="in")
    response.set_cookie("session", "s", httponly=True)
    return response


async def streamed(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one")
    await response.write_eof(b"two")
    return response


async def farewell(_request: web.Request) -> web.StreamResponse:
    response = web.Response(text="bye")
    response.force_close()
    return response


async def lost(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


async def broken(_request: web.Request) -> web.StreamResponse:
    raise RuntimeError("a fault of ours")


ANSWERS: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
    each.__name__: each
    for each in (plain, own_cache, empty, nothing, without_type, cookie, streamed, farewell, lost, broken)
}
REQUESTS = {
    "plain": "GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\n\r\n",
    "posted": "POST {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nContent-Length: 2\r\n\r\nhi",
    "head": "HEAD {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\n\r\n",
    "old": "GET {path} HTTP/1.0\r\nHost: x\r\nX-Request-ID: r\r\nConnection: keep-alive\r\n\r\n",
    "last": "GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nConnection: close\r\n\r\n",
    "script": f"GET {{path}} HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nOrigin: {ORIGIN}\r\n\r\n",
    "traced": "GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: \"r'\\\r\nX-Trace-Id: t\r\n"
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
}
# These differ between two answers to the same request.
VARYING = {b"date", b"traceparent"}


@asynccontextmanager
async def served(kind: Any) -> AsyncIterator[int]:
    app = web.Application()
    app[EDGE] = edge = Edge([ORIGIN], list(ANSWERS.values()))
    app.on_response_prepare.append(edge.dress)
    for number, name in enumerate(ANSWERS):
        app.router.add_route("*", f"/{name}", around(f"/{name}", number))
    runner = kind(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def spoken(port: int, request: str) -> bytes:
    """Return all that is said to two equal requests on one connection and a last one, or to one that ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    last = "GET /empty HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nConnection: close\r\n\r\n"
    writer.write((request if "Connection: close" in request else f"{request}{request}{last}").encode())
    said = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return said


def compared(said: bytes) -> list[bytes]:
    """Return the lines of what was said, in an order of their own; varying values are left out."""
    lines = [line.split(b": ", 1) for line in said.split(b"\r\n")]
    return sorted(
        line[0].lower() if line[0].lower() in VARYING else b": ".join([line[0].lower(), *line[1:]])
        for line in lines
    )


async def test_an_answer_in_one_piece_is_the_answer_that_aiohttp_writes() -> None:
    said: dict[Any, dict[str, bytes]] = {}
    for kind in (Runner, web.AppRunner):
        async with served(kind) as port:
            said[kind] = {
                f"{answer} {request}": await spoken(port, text.format(path=f"/{answer}"))
                for answer in ANSWERS
                for request, text in REQUESTS.items()
            }
    for name, ours in said[Runner].items():
        assert compared(ours) == compared(said[web.AppRunner][name]), name


async def test_a_client_that_reads_no_answers_fills_no_memory() -> None:
    """It sends requests one behind the other; the next one is read when the answers before it are on their way."""
    waiting: list[int] = []

    async def large(request: web.Request) -> web.Response:
        assert request.transport is not None
        waiting.append(request.transport.get_write_buffer_size())
        return web.Response(body=bytes(200_000), content_type="text/plain")

    app = web.Application()
    app[EDGE] = edge = Edge([ORIGIN], [large])
    app.on_response_prepare.append(edge.dress)
    app.router.add_route("*", "/large", around("/large", 0))
    runner = Runner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 60)
        for _ in range(60):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(200_000)
        writer.close()
    finally:
        await runner.cleanup()
    assert len(waiting) == 60
    assert max(waiting) < 1_000_000
