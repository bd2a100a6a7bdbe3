"""One POST over a connection of aiohttp's pool, without the session above it.

Names, sockets, TLS, keep-alive and the parser are aiohttp's. Its session would build a request anew for each call:
URL, cookies, proxies, redirects, traces and writer are half of what a delivery costs a worker, and none of them is
wanted here. The head and the body of a request go out in one write instead.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import aiohttp
from aiohttp import ClientRequest, hdrs
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import StreamReader
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http_parser import RawResponseMessage

    from core.outbox.wire.receiving import Connector

_INTERIM: Final = range(100, 200)
_SWITCHING: Final = 101


class NotHttpError(aiohttp.ClientError):
    """The answer was not valid HTTP."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL as a connection needs it, and the beginning of each request to it."""

    request: ClientRequest
    """The connector's idea of a host: it is asked for connections, and never sent."""
    head: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Read a URL. Raises ValueError for one that is none."""
        request = ClientRequest(hdrs.METH_POST, URL(url), loop=asyncio.get_running_loop())
        host = request.headers[hdrs.HOST]
        return cls(request, f"POST {request.url.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n")


@dataclass(slots=True)
class Answer:
    """The head of an answer, and its body, which may still be on its way over the connection."""

    status: int
    headers: Mapping[str, str]
    content: StreamReader
    _connection: Connection
    _spoilt: bool = False

    def spoil(self) -> None:
        """Say that no other request may go over the connection."""
        self._spoilt = True

    def close(self) -> None:
        """Let go of the connection: it is kept for another request if both sides are done with this one."""
        if _is_written(self._connection) and not self._spoilt and self.content.is_eof():
            self._connection.release()
        else:
            _end(self._connection)


@dataclass(slots=True)
class Posting:
    """One request. `reused` tells whether it has gone over a connection that was kept open."""

    target: Target
    headers: Mapping[str, str]
    body: bytes
    reused: bool = False

    async def send(self, connector: Connector, bounds: aiohttp.ClientTimeout) -> Answer:
        """Send it and return the head of the answer. Raises aiohttp's errors, OSError, and TimeoutError."""
        head = self._head()
        connection = await connector.connect(self.target.request, [], bounds)
        try:
            protocol = cast("ResponseHandler", connection.protocol)
            self.reused = connector.was_kept(protocol)
            protocol.set_response_params(read_until_eof=True, auto_decompress=False)
            if protocol.transport is None:
                raise aiohttp.ServerDisconnectedError
            protocol.transport.write(head + self.body)
            message, content = await _head_of_answer(protocol)
        except BaseException:
            _end(connection)
            raise
        return Answer(message.code, message.headers, content, connection)

    def _head(self) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if lines.count("\n") != len(self.headers) or lines.count("\r") != len(self.headers) or "\0" in lines:
            raise ValueError("a header that would be more than one")
        return f"{self.target.head}{lines}Content-Length: {len(self.body)}\r\n\r\n".encode()


async def _head_of_answer(protocol: ResponseHandler) -> tuple[RawResponseMessage, StreamReader]:
    while True:
        try:
            message, content = await protocol.read()
        except HttpProcessingError as error:
            raise NotHttpError from error
        if message.code not in _INTERIM or message.code == _SWITCHING:
            return message, content


def _is_written(connection: Connection) -> bool:
    """Say whether all of the request has left for the receiver."""
    return connection.transport is not None and not connection.transport.get_write_buffer_size()


def _end(connection: Connection) -> None:
    """End a connection. A receiver that reads no further would otherwise keep it, and what is left of the request."""
    if connection.transport is not None and not _is_written(connection):
        connection.transport.abort()
    connection.close()
