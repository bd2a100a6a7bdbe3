"""Connections: the answer to bytes that are no HTTP, which aiohttp gives before there is a request for a route.

aiohttp's own page repeats the bytes, which may hold a key, and names the server's version.
"""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

_SENTENCES = {400: "The request is not valid HTTP.", 500: "Something went wrong on our side."}


class Runner(web.AppRunner):
    """The runner of an application whose connections are ours."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # aiohttp has no way to name the class of a connection; a test holds that this one is used.
        server.__class__ = _Server
        return server


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ()

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


class _Bare(web.Response):
    """An answer without the server's name; the signal that takes it off others needs a route."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)
        self.headers["X-Content-Type-Options"] = "nosniff"
        self.headers[hdrs.CACHE_CONTROL] = "no-store"
