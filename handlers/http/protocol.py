"""Connections: how an answer is written, and the answer to bytes that are no HTTP.

A plain answer, as almost all are, is written in one piece: its own headers, those that every answer has, the body.
aiohttp's general way calls six coroutines for it, which took a fifth of a request's time.

Bytes that are no HTTP are answered before there is a request for a route. aiohttp's own page repeats the bytes, which
may hold a key, and names the server's version.
"""

# ruff: noqa: SLF001 - aiohttp has no public way to write an answer; tests hold that these members exist

from __future__ import annotations

import functools
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import _serialize_headers
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

# The headers that are put on the answer to a request, each with its line end, ready to be sent; a layer around the
# handler leaves them here when `is_plain` holds of the answer. Without them aiohttp writes the answer, and its signals
# put the same headers on it.
READY_HEADERS: web.RequestKey[bytes] = web.RequestKey("ready_headers", bytes)

# Heads of answers without headers of their own are kept: each operation has a few statuses and media types.
MAX_HEADS = 500

# An answer that sets one of these itself is written by aiohttp.
_OF_FRAMING = (
    hdrs.CONTENT_LENGTH,
    hdrs.TRANSFER_ENCODING,
    hdrs.CONTENT_ENCODING,
    hdrs.CONNECTION,
    hdrs.DATE,
    hdrs.SERVER,
)
# A member of an enumeration is looked up by a call.
_OK = HTTPStatus.OK.value
# These answers have no body.
_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_SENTENCES = {400: "The request is not valid HTTP.", 500: "Something went wrong on our side."}


class Runner(web.AppRunner):
    """The runner of an application whose connections are ours."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # aiohttp has no way to name the class of a connection; a test holds that this one is used.
        server.__class__ = _Server
        return server

    def say_farewell(self) -> None:
        """Let each connection end with its next answer; a signal of the application makes the answer say so."""
        if isinstance(self.server, _Server):
            self.server.leaving = True


class _Server(web.Server):
    leaving = False
    """Whether connections end with their next answer, which says so."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ()

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write a plain answer in one piece, and any other as aiohttp does. Return whether the client has gone."""
        ready = request.get(READY_HEADERS)
        if ready is None or resp.prepared or self._is_ending():
            return await super().finish_response(request, resp, start_time)
        request._finish()
        plain: Any = resp  # whose private members have no types
        body: bytes = plain._body
        head = _head_of(resp)
        length = b"Content-Length: %d\r\nDate: %s\r\n" % (len(body), rfc822_formatted_time().encode())
        piece = b"".join((head, length, ready, b"\r\n", body))
        writer: Any = request.writer
        gone = False
        try:
            writer._write(piece)
            # A client that sends requests and reads no answers would else fill the memory.
            await writer.drain()
        except ConnectionError:
            gone = True
        # The answer is in the state in which `write_eof` leaves it.
        writer._eof = plain._eof_sent = True
        plain._keep_alive = True
        self.log_access(request, resp, start_time)
        return resp, gone

    def _is_ending(self) -> bool:
        leaving = isinstance(self._manager, _Server) and self._manager.leaving
        return leaving or self._upgraded or self._force_close or self._close

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it repeats what was sent
    ) -> web.StreamResponse:
        """Answer in our form, and close the connection."""
        # The refusals' own imports take longer than a process of the supervisor's tests has to start.
        from handlers.http.problems import MEDIA_TYPE, problem_details, problem_of  # noqa: PLC0415

        self.log_exception("cannot handle a request", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of an answer was sent already")
        code = "internal_error" if status >= web.HTTPInternalServerError.status_code else "invalid_request"
        body = problem_details(problem_of(code, _SENTENCES.get(status, _SENTENCES[400])))
        response = _Bare(status=status, body=body, headers={hdrs.CONTENT_TYPE: MEDIA_TYPE})
        response.force_close()
        return response


def is_plain(request: BaseRequest, answer: web.StreamResponse) -> bool:
    """Whether an answer is bytes, whole and at hand, to a request that keeps its connection.

    aiohttp has no public way to ask most of this; a test compares both ways of writing for each kind of answer.
    """
    return (
        type(answer) is web.Response
        and type(answer._body) is bytes
        and answer._payload_writer is None
        and not answer._eof_sent
        and answer._keep_alive is None
        and not answer._compression
        and not answer._chunked
        and not answer._cookies
        and answer.status >= _OK
        and answer.status not in _WITHOUT_BODY
        and request.version == HttpVersion11
        and request.keep_alive
        and request.method != hdrs.METH_HEAD
        and hdrs.CONTENT_TYPE in answer.headers
        and (len(answer.headers) == 1 or answer.headers.keys().isdisjoint(_OF_FRAMING))
    )


def _head_of(answer: web.StreamResponse) -> bytes:
    """Return the first line of an answer and its own headers."""
    headers = answer.headers
    if len(headers) == 1:  # it is the media type, as `is_plain` holds
        return _usual_head(answer.status, answer.reason, headers[hdrs.CONTENT_TYPE])
    return _without_end(_serialize_headers(f"HTTP/1.1 {answer.status} {answer.reason}", headers))


@functools.lru_cache(MAX_HEADS)
def _usual_head(status: int, reason: str, media_type: str) -> bytes:
    headers = CIMultiDict({hdrs.CONTENT_TYPE: media_type})
    return _without_end(_serialize_headers(f"HTTP/1.1 {status} {reason}", headers))


def _without_end(head: bytes) -> bytes:
    # The head ends with an empty line, which goes behind the headers that are ready.
    return head[:-2]


class _Bare(web.Response):
    """An answer without the server's name; the signal that takes it off others needs a route."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)
        self.headers["X-Content-Type-Options"] = "nosniff"
        self.headers[hdrs.CACHE_CONTROL] = "no-store"
