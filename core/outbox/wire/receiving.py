"""The answer of a receiver as it comes off the socket: its head decides, whatever comes behind it.

aiohttp's parser reads head and body of one segment together, and an error in the body loses the head. A receiver that
writes a page behind its 204 has taken the delivery all the same, so here the head is parsed by itself, and junk behind
it costs the connection alone.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final, cast

from aiohttp import ClientPayloadError, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

# A head that is longer is left to the parser, which refuses it line by line.
MOST_HEAD_BYTES: Final = 64 * 1024
# Statuses whose answers have no body (RFC 9112, section 6.3), whatever their head says of one.
WITHOUT_BODY: Final = frozenset({204, 304})
_INTERIM: Final = range(100, 200)
_SWITCHING: Final = 101

_END = re.compile(rb"\r?\n\r?\n")
_CHUNKED = re.compile(rb"^transfer-encoding[ \t]*:", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^content-length[ \t]*:[^\n]*\n", re.IGNORECASE | re.MULTILINE)


class HeadFirst(ResponseHandler):
    """aiohttp's protocol of one connection, which is given each head by itself."""

    _head: bytes | None = None
    """The part of a head that has come so far; None while no head is expected."""
    requests = 0
    """How many requests have gone over the connection."""

    def set_response_params(self, **options: Any) -> None:
        """Expect the answer to another request."""
        self._head = b""
        self.requests += 1
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Give the parser what has come, cut behind each head."""
        while self._head is not None and data:
            self._head += data
            end = _END.search(self._head)
            if end is None and len(self._head) <= MOST_HEAD_BYTES:
                return
            cut = len(self._head) if end is None else end.end()
            head, data = self._head[:cut], self._head[cut:]
            self._head = None
            super().data_received(self._one_length(head))
        if data:
            super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take a parsed head. Another one follows an interim answer (RFC 9110, section 15.2)."""
        message = data[0]
        if message.code in _INTERIM and message.code != _SWITCHING:
            self._head = b""
        elif message.code in WITHOUT_BODY and (
            message.chunked or message.headers.get("Content-Length", "0") != "0"
        ):
            # The body that the head speaks of would be taken for the answer to the next request.
            self.force_close()
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Tell the reader of a body, too, that no more of it will come."""
        super().set_exception(exc, exc_cause or exc)
        if self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(ClientPayloadError("the body is no HTTP"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell an answer that broke off within its head from no answer at all."""
        if self._head:
            self.set_exception(HttpProcessingError(message="the head is not whole"))
        super().connection_lost(exc)

    def _one_length(self, head: bytes) -> bytes:
        """Return a head with one length: Transfer-Encoding goes before Content-Length (RFC 9112, section 6.3)."""
        if _CHUNKED.search(head) and _LENGTH.search(head):
            self.force_close()
            return _LENGTH.sub(b"", head)
        return head


class Connector(TCPConnector):
    """A connector whose connections are of this protocol. aiohttp has no public place to name one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(cast("type[ResponseHandler]", HeadFirst), loop=self._loop)

    @staticmethod
    def was_kept(protocol: ResponseHandler) -> bool:
        """Say whether a request has gone over this connection before."""
        return cast("HeadFirst", protocol).requests > 0
