"""The OpenAPI document, the page that shows it from files of our own, and the meaning of a problem's `type`."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import hdrs, web

from core.errors import Refusal
from handlers.http import openapi
from handlers.http.dispatch import ApiSurface
from handlers.http.route import Call, Route, answer, json_answer, table
from handlers.http.surface import Surface

# The package holds Swagger UI as its makers publish it. An import would read 9 MB into memory, so there is none.
_UI = Path(str(metadata.distribution("offapi").locate_file("offapi")))
_OWN = Path(str(resources.files("handlers.http"))) / "static"
_CSS, _SCRIPT = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
# The page's files: name to path and media type.
_FILES = {
    "swagger-ui.css": (_UI / "swagger_style.css", _CSS),
    "swagger-ui-bundle.js": (_UI / "swagger_bundle.js", _SCRIPT),
    "start.js": (_OWN / "docs.js", _SCRIPT),
}
# The page loads our own files only and has no script inside, so that it works offline and runs no stranger's code.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tallystick API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""


class Document:
    """The OpenAPI document as it is sent: the same bytes for the life of the process."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.body = msgspec.json.encode(content)
        self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


class ProblemKind(msgspec.Struct, frozen=True):
    """The meaning of a code, to which a problem's `type` leads."""

    code: str
    status: int
    title: str


async def show_page(_call: Call) -> web.Response:
    """Answer the page that shows the document."""
    headers = {hdrs.CONTENT_TYPE: "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
    return web.Response(body=_PAGE, headers=headers)


async def show_file(call: Call) -> web.StreamResponse:
    """Answer one of the page's files."""
    if call.path("file") not in _FILES:
        raise web.HTTPNotFound  # told as each port tells it
    path, media_type = _FILES[call.path("file")]
    return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: media_type})


def explained(surfaces: Sequence[Surface]) -> ApiSurface:
    """Return the surface that explains the codes of `surfaces`."""

    async def show_problem(call: Call) -> web.Response:
        code = call.path("code")
        for surface in surfaces:
            if (kind := surface.problem_types.get(code)) is not None:
                return answer(200, ProblemKind(code, kind.status, kind.title))
        raise Refusal("not_found", "There is no such code.")

    route = Route(
        "GET", "/problems/{code}", show_problem, "get_problem", "Show the meaning of a code", "Service",
        answers={200: ProblemKind}, problems=("not_found",), limited=False, needs_service=False,
    )  # fmt: skip
    return ApiSurface("problems", (route,), strict=False)


def documented(surfaces: Sequence[Surface], *more_pages: str, **about: str) -> ApiSurface:
    """Return the surface that shows the document of `surfaces`, the page at /docs and at `more_pages`.

    `about` goes to `openapi.document`. A document with an `about` belongs to a contract's port: its server is the
    one that shows it, and its paths may have a slash too many.
    """

    @functools.cache
    def document(base_url: str) -> Document:
        return Document(openapi.document(surfaces, base_url, **about))

    async def show_document(call: Call) -> web.Response:
        # The document takes a tenth of a second, once a process. No request shall wait for that.
        told = await asyncio.to_thread(document, "" if about else call.parts.settings.public_base_url)
        headers: dict[str, str] = {hdrs.ETAG: told.etag}
        if told.etag in call.request.headers.get(hdrs.IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=headers)
        return json_answer(200, told.body, headers)

    routes = table(
        Route("GET", "/openapi.json", show_document, "get_document", "This document"),
        Route("GET", "/docs", show_page, "get_docs", "This document, to read and to try"),
        *(Route("GET", page, show_page, "get_docs", "This document under another name") for page in more_pages),
        Route("GET", "/docs/{file}", show_file, "get_docs_file", "The page's files"),
        tag="Service", limited=False, needs_service=False, hidden=True,
    )  # fmt: skip
    return ApiSurface("documents", routes, strict=False, forgives_slash=bool(about))
