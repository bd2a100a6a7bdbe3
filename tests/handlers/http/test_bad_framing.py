"""Bodies that are too large, too slow, compressed or badly framed: refused, and nothing runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO

import pytest
from aiohttp import web

from core.service import Service
from core.settings import Settings
from handlers.app import build_app
from handlers.http import decoding
from handlers.http.protocol import Runner
from tests.handlers.conftest import GOOD, Seen, SmallApi, headers, problem, surfaces


async def test_compressed_body(small: SmallApi, seen: Seen, key: str) -> None:
    for encoding in ("gzip", "deflate", "br", "zstd"):
        sent = headers(key, **{"Content-Encoding": encoding})
        await problem(await small.post("/v1/things", data=GOOD, headers=sent), 415, "unsupported_media_type")
    assert not seen.calls


async def test_body_over_its_limit(small: SmallApi, seen: Seen, key: str) -> None:
    body = b" " * (1024 * 1024) + GOOD
    found = await problem(
        await small.post("/v1/things", data=BytesIO(body), headers=headers(key)), 413, "payload_too_large"
    )
    assert found["limit_bytes"] == 1024 * 1024
    assert (
        await small.post("/v1/things", data=BytesIO(body[len(GOOD) :]), headers=headers(key))
    ).status == 201
    assert len(seen.calls) == 1


async def test_limit_holds_for_chunked_bodies(small: SmallApi, seen: Seen, key: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536
        yield GOOD

    await problem(
        await small.post("/v1/things", data=chunks(), headers=headers(key)), 413, "payload_too_large"
    )
    assert not seen.calls


async def test_route_with_a_limit_of_its_own(small: SmallApi, key: str) -> None:
    item = {"amount": 5, "reference": "r" * 60, "metadata": {"note": "n" * 200}}
    body = json.dumps({"items": [item] * 5_000}).encode()
    assert 1024 * 1024 < len(body) < 4 * 1024 * 1024
    response = await small.post("/v1/things/batch", data=BytesIO(body), headers=headers(key))
    assert (response.status, await response.json()) == (200, 5_000)
    body = b'{"items":[%s]}' % b",".join([GOOD] * 5_001)
    await problem(
        await small.post("/v1/things/batch", data=BytesIO(body), headers=headers(key)), 400, "invalid_request"
    )
    body = b" " * (4 * 1024 * 1024) + GOOD
    await problem(
        await small.post("/v1/things/batch", data=BytesIO(body), headers=headers(key)),
        413,
        "payload_too_large",
    )


async def exchange(small: SmallApi, sent: bytes) -> bytes:
    """Send bytes that no client library would; return all that comes back until the server hangs up, or its headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    try:
        writer.write(sent)
        return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()


def head(key: str, *lines: str) -> bytes:
    first = ("POST /v1/things HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", "Idempotency-Key: k")
    return "\r\n".join([*first, *lines, "", ""]).encode()


async def test_slow_body(small: SmallApi, seen: Seen, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BODY_TIMEOUT_SECONDS", 0.05)
    received = await exchange(small, head(key, "Content-Length: 12") + b"{")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert not seen.calls


async def test_client_that_hangs_up_while_sending(
    small: SmallApi, seen: Seen, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(head(key, "Content-Length: 12") + b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await small.post("/v1/things", data=GOOD, headers=headers(key))).status == 201
    assert len(seen.calls) == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_what_aiohttp_answers_itself_is_answered_like_the_rest(small: SmallApi) -> None:
    for line, more in (("OPTIONS *", ""), ("CONNECT x:1", ""), ("GET /v1/things", "Expect: foo\r\n")):
        received = await exchange(
            small, f"{line} HTTP/1.1\r\nHost: x\r\n{more}Connection: close\r\n\r\n".encode()
        )
        assert received.startswith(b"HTTP/1.1 4"), (line, received)
        assert b"X-Request-ID" in received, line


async def test_bad_framing(small: SmallApi, seen: Seen, key: str) -> None:
    for lines in (
        ["Content-Length: -1"],
        ["Content-Length: 1x"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, chunked"],
    ):
        received = await exchange(small, head(key, *lines) + b"hello\r\n\r\n")
        assert received.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")), lines
    received = await exchange(small, head(key, "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n")
    assert received.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert not seen.calls


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /\x00secret HTTP/1.1\r\nHost: x\r\n\r\n",
        b"secret\r\n\r\n",
        b"GET /secret HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: secret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: secret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"secret" * 2_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_answered_without_an_echo(
    settings: Settings, service: Service, seen: Seen, sent: bytes
) -> None:
    runner = Runner(build_app(settings, surfaces(seen), service))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(sent)
        answer = await reader.read()
        writer.close()
    finally:
        await runner.cleanup()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["error"]["code"] == "invalid_request"
    for word in (b"secret", b"server:", b"aiohttp", b"python"):
        assert word not in answer.lower()
