"""The front door, `/`: what this service is and where its parts are, as a page for people and as JSON for programs."""

from __future__ import annotations

from html import escape

import msgspec
from aiohttp import hdrs, web

from core import __version__
from handlers.http.audiences import AUDIENCES
from handlers.http.dispatch import ApiSurface
from handlers.http.route import Call, Route, answer

# The page runs nothing and loads nothing.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_HTML, _JSON = "text/html", "application/json"
# The other doors: address and sentence.
DOORS = {
    "/pay": "Pay a link or a code in the browser.",
    "/openapi.json": "All operations, described for programs (OpenAPI 3.1).",
    "/ready": "Whether requests should be sent here.",
    "/health": "Whether the process is alive.",
}


class Index(msgspec.Struct, frozen=True):
    """The parts of the service, each with the address of its documentation."""

    service: str
    version: str
    docs: str
    openapi: str
    pay: str
    health: str
    ready: str
    parts: dict[str, str]


_INDEX = Index(
    service="tallystick",
    version=__version__,
    docs="/docs",
    openapi="/openapi.json",
    pay="/pay",
    health="/health",
    ready="/ready",
    parts={audience.name: f"/docs/{audience.name}" for audience in AUDIENCES},
)


def _page() -> bytes:
    parts = "".join(
        f'<li><a href="/docs/{each.name}">{escape(each.title)}</a> {escape(each.about)}</li>'
        for each in AUDIENCES
    )
    doors = "".join(f'<li><a href="{path}">{path}</a> {escape(about)}</li>' for path, about in DOORS.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tallystick</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem; }}
li {{ margin: .4rem 0; }}
a {{ font-weight: 600; }}
</style>
</head>
<body>
<main>
<h1>Tallystick</h1>
<p>A payments core: a double-entry ledger, a webhook inbox and an outbox. Version {escape(__version__)}.</p>
<h2>Documentation</h2>
<ul>{parts}</ul>
<h2>Other doors</h2>
<ul>{doors}</ul>
</main>
</body>
</html>
""".encode()


_PAGE = _page()


def prefers_html(accept: str) -> bool:
    """Whether an Accept header names HTML and likes it better than JSON. Browsers do; a program's `*/*` does not."""
    likes = {_HTML: 0.0, _JSON: 0.0}
    for item in accept.split(","):
        media, *parameters = (word.strip().lower() for word in item.split(";"))
        if media not in likes:
            continue
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            likes[media] = float(quality)
        except ValueError:
            likes[media] = 0.0
    return likes[_HTML] > likes[_JSON]


async def show_index(call: Call) -> web.Response:
    """Answer the index in the form that the caller likes."""
    headers: dict[str, str] = {hdrs.VARY: hdrs.ACCEPT}
    if not prefers_html(",".join(call.request.headers.getall(hdrs.ACCEPT, ()))):
        return answer(200, _INDEX, headers)
    headers |= {hdrs.CONTENT_TYPE: "text/html; charset=utf-8", "Content-Security-Policy": POLICY}
    return web.Response(body=_PAGE, headers=headers)


FRONT = ApiSurface(
    "front",
    (
        Route(
            "GET", "/", show_index, "get_index", "The parts of the service", "Service",
            answers={200: Index}, media=("text/html",), limited=False, needs_service=False, hidden=True,
        ),
    ),
    strict=False,
)  # fmt: skip
