"""Answers as they come off the socket: the head decides, and whatever else it holds is recorded and never fatal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from core.outbox.egress import NOT_HTTP, UNUSABLE_URL, Egress, _error
from core.outbox.health import Patience
from core.outbox.schedule import Schedule
from tests.core.outbox.office import HERE, Office

pytestmark = pytest.mark.shared

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MAD = "Mon, 01 Jan 2024 00:00:00 +9999999999999"


@dataclass
class Wire:
    """A server that answers bytes: those that `answer` gives for the connection's number and the request's on it.

    An empty answer closes the connection, one of None resets it.
    """

    answer: Callable[[int, int], bytes | None]
    requests: list[tuple[int, int]] = field(default_factory=list)
    url: str = ""
    _connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        connection, number = self._connections, 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.splitlines()
                    if line.lower().startswith(b"content-length:")
                )
                await reader.readexactly(length)
                number += 1
                self.requests.append((connection, number))
                raw = self.answer(connection, number)
                if raw is None:
                    writer.transport.abort()
                    return
                writer.write(raw)
                await writer.drain()
                if raw != OK:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


Answer = Callable[[int, int], bytes | None]


def always(raw: bytes | None) -> Answer:
    return lambda _connection, _number: raw


@asynccontextmanager
async def wire(answer: Answer) -> AsyncIterator[Wire]:
    found = Wire(answer)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    async with server:
        found.url = (
            f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook/secret-token?key=secret-token"
        )
        yield found


def said(status: int, *lines: str, body: bytes = b"") -> bytes:
    return (
        f"HTTP/1.1 {status} Said\r\n".encode()
        + "".join(f"{line}\r\n" for line in lines).encode()
        + b"\r\n"
        + body
    )


HEADS: list[tuple[bytes, int | None, str]] = [
    (said(204, body=b"<html>thanks</html>"), 204, ""),
    (said(204, "Content-Length: 5", body=b"hello"), 204, ""),
    (said(204, "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), 204, ""),
    (said(200, "Content-Length: 2", body=b"ok and more"), 200, "ok"),
    (said(201, "Transfer-Encoding: chunked", body=b"no chunk\r\n"), 201, ""),
    (said(202, "Transfer-Encoding: chunked", body=b"2\r\nok\r\nno chunk\r\n"), 202, ""),
    (said(200, "Transfer-Encoding: chunked", "Content-Length: 9", body=b"2\r\nok\r\n0\r\n\r\n"), 200, "ok"),
    (said(200, "Content-Length: 50", body=b"ok"), 200, "ok"),
    (said(103, "Link: </x>") + said(200, "Content-Length: 2", body=b"ok, junk"), 200, "ok"),
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, "ok"),
    (said(500, "Content-Length: 2", body=b"no, junk"), 500, "no"),
    (said(304, "Content-Length: 4", body=b"junk"), 304, ""),
    (said(200, f"Retry-After: {MAD}", "Content-Length: 0"), 200, ""),
    (b"HTTP/1.1 200 OK\r\nno header\r\n\r\nok", None, NOT_HTTP),
    (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok", None, NOT_HTTP),
    (b"HTTP/1.1 200 OK\r\nContent-Le", None, NOT_HTTP),
    (b"HTTP/2 200\r\n\r\n", None, NOT_HTTP),
    (b"SSH-2.0-OpenSSH\r\n\r\n", None, NOT_HTTP),
    (said(200, "X: " + "x" * 100_000), None, NOT_HTTP),
]  # fmt: skip


async def test_the_head_decides() -> None:
    egress = Egress(HERE)
    for raw, status, told in HEADS:
        async with wire(always(raw)) as server:
            for _ in range(2):  # the second request must not meet what the first one's answer has left
                reply = await egress.post(server.url, body=b"{}", headers={})
                assert (reply.status, reply.error or reply.excerpt) == (status, told), raw[:200]
            assert {number for _, number in server.requests} == {1}
    await egress.close()


@pytest.mark.parametrize(("end", "sent"), [(b"", 3), (None, 3), (b"HTTP/1.1 2", 2)])
async def test_a_kept_connection_that_has_ended_is_no_attempt(end: bytes | None, sent: int) -> None:
    """The request goes once more, over a fresh connection, unless a byte of an answer has come."""
    async with wire(lambda connection, number: OK if number == 1 else end) as server:
        egress = Egress(HERE)
        assert (await egress.post(server.url, body=b"{}", headers={})).status == 200
        reply = await egress.post(server.url, body=b"{}", headers={})
        await egress.close()
        assert reply.succeeded == (sent == 3)
        assert server.requests == [(1, 1), (1, 2), (2, 1)][:sent]


async def test_a_fresh_connection_that_ends_is_an_attempt() -> None:
    for end in (b"", None):
        async with wire(always(end)) as server:
            egress = Egress(HERE)
            reply = await egress.post(server.url, body=b"{}", headers={})
            await egress.close()
            assert (reply.status, len(server.requests)) == (None, 1)
            assert reply.error is not None
            assert "secret-token" not in reply.error


async def test_a_wait_is_read_where_it_means_something() -> None:
    egress = Egress(HERE)
    for status in (200, 204, 301, 400, 404, 410, 413, 429, 500, 503):
        for text, seconds in (
            ("7", 7.0),
            (MAD, None),
            ("Mon, 01 Jan 2024 00:00:00 -9999", None),
            ("1" * 999, None),
        ):
            async with wire(always(said(status, f"Retry-After: {text}", "Content-Length: 0"))) as server:
                reply = await egress.post(server.url, body=b"{}", headers={})
            assert reply.status == status
            if status in {413, 429, 500, 503} and seconds:
                assert reply.retry_after == seconds
            elif status < 413:
                assert reply.retry_after is None
    await egress.close()


def test_no_error_tells_the_url() -> None:
    assert _error(ValueError("http://host/secret-token")) == UNUSABLE_URL
    assert _error(RuntimeError("http://host/secret-token")) == "RuntimeError"


async def test_whatever_an_answer_does_is_recorded(office: Office) -> None:
    """A 200 is delivered, a 410 is obeyed, and what breaks our own code counts for the endpoint's health."""
    for status, state, reason in ((200, "delivered", None), (410, "failed", "gone"), (503, "failed", None)):
        async with wire(always(said(status, f"Retry-After: {MAD}", "Content-Length: 0"))) as server:
            endpoint = await office.endpoint(server.url)
            await office.emit()
            await office.deliver()
            (delivery,) = await office.deliveries(f"?endpoint={endpoint['id']}")
            assert (delivery["state"], delivery["last_status"]) == (state, status)
            shown = await office.get(f"/v1/webhook-endpoints/{endpoint['id']}")
            assert shown["disabled_reason"] == reason
            await office.call("DELETE", f"/v1/webhook-endpoints/{endpoint['id']}")


async def test_an_answer_that_breaks_us_is_a_failed_attempt(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(text: str) -> str:
        # The reader is out of order for this answer; what it read is not told then.
        if text == "odd":
            raise OverflowError("an answer that nobody thought of")
        return text

    monkeypatch.setattr("core.outbox.recording.mask_text", broken)
    office.patience = Patience(deliveries=1, span_seconds=0)
    office.schedule = Schedule(0.0, 1.0, max_attempts=1)
    async with wire(always(said(200, "Content-Length: 3", body=b"odd"))) as server:
        endpoint = await office.endpoint(server.url)
        await office.emit()
        await office.deliver()
    (delivery,) = await office.deliveries(f"?endpoint={endpoint['id']}")
    assert (delivery["state"], delivery["last_error"]) == ("failed", "the answer could not be read")
    assert (await office.get(f"/v1/webhook-endpoints/{endpoint['id']}"))["disabled_reason"] == "failing"


async def test_a_challenge_never_costs_the_secret(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(always(said(200, f"Retry-After: {MAD}", "Content-Length: 0"))) as server:
        created = await office.endpoint(server.url, verify=True)
        assert (created["disabled_reason"], created["secret"][:6]) == ("unverified", "whsec_")

    async def broken(*_: object, **__: object) -> None:
        raise OverflowError("an answer that nobody thought of")

    monkeypatch.setattr("handlers.webhooks.outbox_parts.prove", broken)
    created = await office.endpoint("http://127.0.0.1:1/hook", verify=True)
    assert (created["disabled_reason"], created["secret"][:6]) == ("unverified", "whsec_")
