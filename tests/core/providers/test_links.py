"""The links of merchants' orders: one call, and a webhook of one word."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from core.errors import Refusal
from core.providers.links import Links
from core.providers.protocol import DeclinedError, Notice, Sight, Standing, UnknownError, UnsentError
from core.settings import load_settings
from tests.core.providers.scenes import UNKNOWABLE, Troubles, an_order, handle, patience, serving, spoiled


class LinkServer:
    """The old service's simulator of providers: the same link for the same payment."""

    def __init__(self) -> None:
        self.troubles = Troubles()
        self.calls: list[dict[str, Any]] = []
        self.answer: tuple[int, str] | None = None

    def application(self) -> web.Application:
        app = spoiled(self.troubles)
        app.router.add_post("/payment-links", self.link)
        return app

    async def link(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.calls.append(asked)
        if self.answer is not None:
            return web.Response(status=self.answer[0], text=self.answer[1], content_type="application/json")
        words = f"{asked['provider']}:{asked['merchant_id']}:{asked['payment_id']}"
        token = hashlib.sha256(words.encode()).hexdigest()
        return web.json_response({"payment_url": f"https://pay.{asked['provider']}.test/{token}", "more": 1})


@asynccontextmanager
async def running() -> AsyncIterator[tuple[LinkServer, Links]]:
    server = LinkServer()
    async with serving(server.application()) as url:
        provider = Links(url)
        try:
            yield server, provider
        finally:
            await provider.close()


ORDER = an_order(reference="41", terms={"merchant_id": "7", "alias": "adyen"})


async def test_a_link_is_the_same_for_the_same_payment() -> None:
    async with running() as (server, links):
        made = await links.create(ORDER)
        assert made == await links.create(ORDER)
        assert (made.standing, made.provider_id) == (Standing.OPEN, "41")
        assert str(made.url).startswith("https://pay.adyen.test/")
        assert server.calls[0] == {"payment_id": 41, "merchant_id": "7", "provider": "adyen"}
        for answer, url in (('{"payment_url": null}', None), ("{}", None)):
            server.answer = (200, answer)
            assert await links.create(ORDER) == Sight(Standing.OPEN, provider_id="41", url=url)
        with pytest.raises(DeclinedError):
            await links.create(an_order())


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, '{"detail": "no"}', DeclinedError),
        (404, "<html>", UnknownError),
        (201, '{"payment_url": "https://x.test/"}', UnknownError),
        (403, "{}", UnsentError),
        (429, "{}", UnsentError),
        (200, '{"payment_url": "javascript:alert(1)"}', UnknownError),
        (200, "oops", UnknownError),
    ],
)
async def test_answers_that_are_no_link(status: int, answer: str, kind: type[Refusal]) -> None:
    async with running() as (server, links):
        server.answer = (status, answer)
        with pytest.raises(kind):
            await links.create(ORDER)


@pytest.mark.parametrize("trouble", UNKNOWABLE)
async def test_a_link_that_nobody_has_seen_may_exist(trouble: str) -> None:
    async with running() as (server, links):
        server.troubles.after.append(trouble)
        with patience(links, trouble), pytest.raises(UnknownError):
            await links.create(ORDER)
        assert len(server.calls) == 1


async def test_the_provider_answers_no_questions() -> None:
    links = Links("http://unused.invalid")
    for call in (links.look(handle(ORDER, "41")), links.cancel(handle(ORDER, "41"))):
        with pytest.raises(UnknownError):
            await call
    with pytest.raises(DeclinedError):
        await links.refund(handle(ORDER, "41"), "k", 1)


def test_webhooks_of_one_word() -> None:
    links = Links("http://unused.invalid")
    for word, standing in (
        ("finished", Standing.PAID),
        ("Finished", Standing.FAILED),
        ("failed", Standing.FAILED),
    ):
        body = f'{{"payment_id":41,"status":"{word}"}}'.encode()
        assert links.read("webhook", body) == Notice(["41"], Sight(standing, provider_id="41", word=word))
    for bad in (
        b"{}",
        b'{"payment_id":0,"status":"x"}',
        b'{"payment_id":"1","status":"x"}',
        b'{"payment_id":1,"status":""}',
    ):
        with pytest.raises(ValueError, match=r"."):
            links.read("webhook", bad)


def test_settings_make_the_provider() -> None:
    assert Links.of(load_settings(env_file=None, env="test")) is None
    assert (
        Links.of(load_settings(env_file=None, env="test", provider_url="http://providers:8000")) is not None
    )
