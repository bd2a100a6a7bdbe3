"""The document, the page that shows it from files of our own, and what a problem's `type` leads to."""

from __future__ import annotations

import hashlib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import hdrs, web

from core.errors import Refusal
from handlers.http.problems import PROBLEMS
from handlers.http.route import Call, Route, answer, json_answer
from handlers.wallets.forms import FORMS

# The package holds Swagger UI as its makers publish it. It is not imported, since it would read 9 MB into memory.
_UI = Path(str(metadata.distribution("offapi").locate_file("offapi")))
_OWN = Path(str(resources.files("handlers.http"))) / "static"
_CSS, _SCRIPT = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
# The page's files by their names: where they lie, and their media types.
_FILES = {
    "swagger-ui.css": (_UI / "swagger_style.css", _CSS),
    "swagger-ui-bundle.js": (_UI / "swagger_bundle.js", _SCRIPT),
    "start.js": (_OWN / "docs.js", _SCRIPT),
}
# Everything comes from ourselves and nothing stands inside the page, so that it works offline and runs nobody's code.
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


DOCUMENT: web.AppKey[Document] = web.AppKey("document", Document)


class ProblemKind(msgspec.Struct, frozen=True):
    """What a problem's `type` leads to."""

    code: str
    status: int
    title: str


async def show_document(call: Call) -> web.Response:
    """Answer the document, or 304 to whoever has it."""
    document = call.request.app[DOCUMENT]
    headers: dict[str, str] = {hdrs.ETAG: document.etag}
    known = call.request.headers.get(hdrs.IF_NONE_MATCH, "")
    if document.etag in known:
        return web.Response(status=304, headers=headers)
    return json_answer(200, document.body, headers)


async def show_page(_call: Call) -> web.Response:
    """Answer the page that shows the document."""
    headers = {hdrs.CONTENT_TYPE: "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
    return web.Response(body=_PAGE, headers=headers)


async def show_file(call: Call) -> web.StreamResponse:
    """Answer one of the page's files."""
    if call.path("file") not in _FILES:
        raise Refusal("not_found", "There is no such file.")
    path, media_type = _FILES[call.path("file")]
    return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: media_type})


async def show_problem(call: Call) -> web.Response:
    """Answer what a code means."""
    code = call.path("code")
    if code in PROBLEMS:
        form = PROBLEMS[code]
        return answer(200, ProblemKind(code, form.status, form.title))
    if code in FORMS:
        return answer(200, ProblemKind(code, FORMS[code].status, FORMS[code].message))
    raise Refusal("not_found", "There is no such code.")


ROUTES = (
    Route(
        "GET", "/openapi.json", show_document, "get_document", "This document", "Service",
        limited=False, surface="service", hidden=True,
    ),
    Route(
        "GET", "/docs", show_page, "get_docs", "This document, to read and to try", "Service",
        limited=False, surface="service", hidden=True,
    ),
    Route(
        "GET", "/docs/{file}", show_file, "get_docs_file", "The page's files", "Service",
        limited=False, surface="service", hidden=True,
    ),
    Route(
        "GET", "/problems/{code}", show_problem, "get_problem", "What a problem's `type` means", "Service",
        answers={200: ProblemKind}, problems=("not_found",), limited=False, surface="service",
    ),
)  # fmt: skip
