"""A browser without scripts: keeps cookies, follows redirects, reads forms and sends them as they stand."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import aiohttp
from aiohttp import hdrs

VOID = {"input", "link", "meta", "br", "img"}


@dataclass
class Form:
    """A form: where it goes, and its fields with what is in them."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    names: list[dict[str, str | None]] = field(default_factory=list)


class Page(HTMLParser):
    """A page as it was answered: its words, headings, links, forms; and that its tags are closed."""

    def __init__(self, status: int, headers: Any, text: str, path: str) -> None:
        super().__init__()
        self.status, self.headers, self.source, self.path = status, headers, text, path
        self.forms: list[Form] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.heading = ""
        self.title = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "form":
            self.forms.append(Form(attributes["action"] or ""))
        if tag == "input":
            form = self.forms[-1]
            form.names.append(attributes)
            form.fields[attributes["name"] or ""] = attributes.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "h1" in self._open:
            self.heading += data
        elif self._open[-1:] == ["title"]:
            self.title += data
        self.words += f" {data.strip()}" if data.strip() else ""

    @property
    def trouble(self) -> str:
        """What the page tells with role=alert."""
        start = self.source.find('role="alert"')
        if start < 0:
            return ""
        return Page(
            0, {}, f"<p {self.source[start : self.source.index('</p>', start)]}</p>", ""
        ).words.strip()

    def form(self, step: str) -> Form:
        found = [form for form in self.forms if form.action.endswith(f"/{step}")]
        assert found, (step, self.status, self.words)
        return found[0]


class Browser:
    """Somebody's browser at the payment page."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def get(self, path: str, **headers: str) -> Page:
        async with self.session.get(self.base + path, headers=headers) as response:
            return Page(response.status, response.headers, await response.text(), response.url.path)

    async def post(self, path: str, fields: Any, **headers: str) -> Page:
        """Send a form and follow the redirect, as a browser does."""
        async with self.session.post(self.base + path, data=fields, headers=headers) as response:
            return Page(response.status, response.headers, await response.text(), response.url.path)

    async def send(self, page: Page, step: str, **typed: str) -> Page:
        """Fill in a form of a page and press its button."""
        form = page.form(step)
        assert set(typed) <= set(form.fields), form
        return await self.post(form.action, form.fields | typed)

    async def pay(self, page: Page, amount: str | None = None) -> Page:
        """Pay: type an amount where the page asks for one, look at it again, and confirm."""
        if amount is not None:
            page = await self.send(page, "amount", amount=amount)
        return await self.send(page, "confirm") if page.status == 200 else page

    async def sign_in(self, code: str, phone: str, otp: str = "123456") -> Page:
        """Go from a code's page to the one that asks whether to pay."""
        waiting = await self.send(await self.get(f"/pay/{code}"), "phone", phone=phone)
        return await self.send(waiting, "verify", otp=otp)

    def cookies(self) -> dict[str, Any]:
        return {cookie.key: cookie for cookie in self.session.cookie_jar}

    async def close(self) -> None:
        await self.session.close()


def strict(page: Page, *allowed: str) -> None:
    """Check what holds for every page: nothing inside it runs or comes from elsewhere, and each field is named.

    `allowed` are the addresses of others to which it may link.
    """
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers[hdrs.CACHE_CONTROL] == "no-store"
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {attributes["for"] for tag, attributes in page.elements if tag == "label"}
    for tag, attributes in page.elements:
        assert not any(name == "style" or name.startswith("on") for name in attributes)
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "data:,", "#", *allowed))
        if tag == "script":
            assert attributes["src"] == "/pay/files/pay.js"
        if tag == "input" and attributes.get("type") != "hidden":
            assert attributes["id"] in labels
            assert set((attributes["aria-describedby"] or "").split()) <= set(ids)


async def link(owner: Any, amount: int | None = None, **more: Any) -> str:
    """Make a link; return its code without the prefix."""
    body = more if amount is None else {"amount_cents": amount, **more}
    said = await owner.post("/payments/links", body)
    assert said.status == 200, said
    return str(said.json["code"]).removeprefix("LINK:v1;code=")


async def qr(owner: Any, amount: int, mode: str = "dynamic") -> str:
    """Make a QR code; return its code without the prefix."""
    said = await owner.post("/payments/merchant/qr", {"amount_cents": amount, "mode": mode})
    assert said.status == 200, said
    return str(said.json["code"]).removeprefix("PAY:v1;code=")
