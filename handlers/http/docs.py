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
from handlers.http.audiences import BY_NAME, part
from handlers.http.dispatch import ApiSurface
from handlers.http.route import Call, Route, answer, json_answer, table
from handlers.http.surface import Surface

# The package holds Swagger UI as its makers publish it. An import would read 9 MB into memory, so there is none.
_UI = Path(str(metadata.distribution("offapi").locate_file("offapi")))
_OWN = Path(str(resources.files("handlers.http"))) / "static"
_CSS, _SCRIPT = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
# The page's files: name to path and media type.
FILES = {
    "swagger-ui.css": (_UI / "swagger_style.css", _CSS),
    "swagger-ui-bundle.js": (_UI / "swagger_bundle.js", _SCRIPT),
    "docs.css": (_OWN / "docs.css", _CSS),
    "start.js": (_OWN / "docs.js", _SCRIPT),
}
# The page loads our own files only and has no script inside, so that it works offline and runs no stranger's code.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_WHOLE = "all"


def page(names: Sequence[str], shown: str, files: str) -> bytes:
    """Return the page that shows the document of `shown`, with links to those of `names`; without names, the only one.

    `files` is the way from the page to the folder of its parts: links between parts are relative, as everywhere here.
    """
    document = f"/openapi/{shown}.json" if shown in BY_NAME else "/openapi.json"
    titles = {name: BY_NAME[name].title if name in BY_NAME else "Everything" for name in names}
    current = ' aria-current="page"'
    links = "".join(
        f'<a href="{files}{name}"{current if name == shown else ""}>{title}</a>\n'
        for name, title in titles.items()
    )
    about = BY_NAME[shown].about if shown in BY_NAME else "Every operation of the service."
    head = (
        f'<nav aria-label="Parts of the service">\n{links}</nav>\n<p class="about">{about}</p>\n'
        if names
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tallystick API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/docs.css">
</head>
<body data-document="{document}">
{head}<p class="about" id="signed-in" hidden></p>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
""".encode()


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


def _page_answer(body: bytes) -> web.Response:
    headers = {hdrs.CONTENT_TYPE: "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
    return web.Response(body=body, headers=headers)


async def show_file(call: Call) -> web.StreamResponse:
    """Answer one of the page's files."""
    if call.path("file") not in FILES:
        raise web.HTTPNotFound  # told as each port tells it
    path, media_type = FILES[call.path("file")]
    return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: media_type})


def explained(surfaces: Sequence[Surface]) -> ApiSurface:
    """Return the surface that explains the codes of `surfaces`."""

    async def show_problem(call: Call) -> web.Response:
        """Answer the status and the title of a code."""
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
    one that shows it, and its paths may have a slash too many. All others are shown in parts, one for each audience,
    since a browser needs seconds for 200 operations; /docs shows the first part.
    """

    @functools.cache
    def content(base_url: str) -> dict[str, Any]:
        return openapi.document(surfaces, base_url, **about)

    @functools.cache
    def document(base_url: str, name: str) -> Document:
        whole = content(base_url)
        return Document(part(whole, BY_NAME[name]) if name in BY_NAME else whole)

    async def show_document(call: Call, name: str = _WHOLE) -> web.Response:
        # The document takes a third of a second, once a process. No request shall wait for that.
        told = await asyncio.to_thread(document, "" if about else call.parts.settings.public_base_url, name)
        headers: dict[str, str] = {hdrs.ETAG: told.etag}
        if told.etag in call.request.headers.get(hdrs.IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=headers)
        return json_answer(200, told.body, headers)

    async def show_part(call: Call) -> web.Response:
        if call.path("audience") not in BY_NAME:
            raise Refusal("not_found", "There is no such document.")
        return await show_document(call, call.path("audience"))

    names = () if about else (*BY_NAME, _WHOLE)
    first = page(names, names[0] if names else _WHOLE, "docs/")
    pages = {name: page(names, name, "") for name in names}

    async def show_page(_call: Call) -> web.Response:
        return _page_answer(first)

    async def show_page_or_file(call: Call) -> web.StreamResponse:
        page = pages.get(call.path("file"))
        return await show_file(call) if page is None else _page_answer(page)

    part_of_document = Route(
        "GET", "/openapi/{audience}.json", show_part, "get_part", "A part of this document"
    )
    routes = table(
        Route("GET", "/openapi.json", show_document, "get_document", "This document"),
        *([] if about else [part_of_document]),
        Route("GET", "/docs", show_page, "get_docs", "This document, to read and to try"),
        *(Route("GET", page, show_page, "get_docs", "This document under another name") for page in more_pages),
        Route("GET", "/docs/{file}", show_page_or_file, "get_docs_file", "The pages of parts, and their files"),
        tag="Service", limited=False, needs_service=False, hidden=True,
    )  # fmt: skip
    return ApiSurface("documents", routes, strict=False, forgives_slash=bool(about))
