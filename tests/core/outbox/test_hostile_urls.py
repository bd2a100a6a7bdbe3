"""No URL of the corpus is ever reached: each is refused when it is given, or when its socket would be opened."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.errors import Refusal
from core.outbox.destinations import Destinations
from core.outbox.egress import FORBIDDEN, Egress
from tests.core.outbox.names import Names

PROD = Destinations.of((), require_https=True)
CORPUS = Path(__file__).with_name("hostile_urls.txt")


class Hostile(NamedTuple):
    reason: str
    url: str
    addresses: tuple[str, ...]


def corpus() -> Iterator[Hostile]:
    reason = ""
    for line in CORPUS.read_text().splitlines():
        if line.startswith("## "):
            reason = line[3:]
        elif line and not line.startswith("# "):
            url, _, addresses = line.partition(" -> ")
            yield Hostile(reason, codecs.decode(url, "unicode_escape"), tuple(addresses.split()))


HOSTILE = list(corpus())


def test_the_corpus_is_large_and_names_each_url_once() -> None:
    assert len({entry.url for entry in HOSTILE}) == len(HOSTILE) >= 300
    assert CORPUS.read_text().isascii()


@pytest.mark.parametrize("entry", HOSTILE, ids=[f"{number}" for number in range(len(HOSTILE))])
async def test_is_not_reached(entry: Hostile) -> None:
    if not entry.addresses:
        with pytest.raises(Refusal) as refused:
            PROD.check_url(entry.url)
        assert refused.value.code == "invalid_request"
        return
    names = Names([entry.addresses])
    egress = Egress(PROD, names)
    try:
        attempt = await egress.post(entry.url, body=b"{}", headers={})
    finally:
        await egress.close()
    assert len(names.asked) == 1, "the name is judged by where it leads"
    assert (attempt.status, attempt.error) == (None, FORBIDDEN)


async def test_a_name_that_changes_its_mind_after_it_was_judged() -> None:
    """Rebinding: the first answer is public, the second leads inside. The socket's address decides."""
    reached: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handle)
    async with TestServer(app) as server:
        url = f"http://rebinding.example.com:{server.port}/"
        open_door = Destinations.of((), require_https=False)
        # A documentation address is as far away as a test may go; it stands for the judgement made before.
        names = Names([("192.0.2.1",), ("127.0.0.1",)])
        for _ in range(2):
            egress = Egress(open_door, names)
            try:
                attempt = await egress.post(url, body=b"{}", headers={})
            finally:
                await egress.close()
            assert (attempt.status, attempt.error) == (None, FORBIDDEN)
        assert len(names.asked) == 2
        # The same name and socket are reached once the operator allows the address: it is that which was refused.
        egress = Egress(Destinations.of(("127.0.0.1",), require_https=False), names)
        try:
            attempt = await egress.post(url, body=b"{}", headers={})
        finally:
            await egress.close()
        assert (attempt.status, reached) == (200, ["/"])


def test_reasons_say_no_more_than_needed() -> None:
    with pytest.raises(Refusal) as refused:
        PROD.check_url("https://10.0.0.1/")
    assert not re.search(r"10\.0\.0", refused.value.detail)
