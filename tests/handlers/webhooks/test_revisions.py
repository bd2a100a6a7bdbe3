"""`If-Match` on all that changes an endpoint or a source: the revision is what the caller read, or nothing happens."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.settings import Settings
from tests.conftest import ApiClient

pytestmark = pytest.mark.shared

_numbers = itertools.count(1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"outbound_allow_hosts": ("127.0.0.0/8",)})


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """Return the URL of a receiver that echoes challenges."""

    async def receive(request: web.Request) -> web.Response:
        return web.Response(text=(await request.json())["data"]["challenge"])

    app = web.Application()
    app.router.add_post("/", receive)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


class Client(NamedTuple):
    """A caller whose principal no other test knows."""

    api: ApiClient
    key: str

    async def call(
        self, method: str, path: str, body: Any = None, if_match: str | None = None
    ) -> tuple[int, Any, str | None]:
        """Return status, body and ETag of the answer."""
        headers = {"Authorization": f"Bearer {self.key}"}
        if if_match is not None:
            headers["If-Match"] = if_match
        async with self.api.request(method, path, json=body, headers=headers) as answer:
            told = await answer.json(content_type=None) if answer.status != 204 else None
            return answer.status, told, answer.headers.get("ETag")


@pytest.fixture
async def client(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Client:
    return Client(api, await api_key("webhooks:read", "webhooks:write", principal=f"rev-{next(_numbers)}"))


async def made(client: Client, kind: str, url: str) -> str:
    """Make an endpoint or a source, and return its path."""
    body = {"url": url} if kind == "endpoints" else {"name": f"rev-{next(_numbers)}"}
    status, created, tag = await client.call("POST", f"/v1/webhook-{kind}", body)
    assert (status, tag) == (201, f'"{created["revision"]}"')
    return f"/v1/webhook-{kind}/{created['id']}"


CHANGES: list[tuple[str, str, str, Any]] = [
    ("endpoints", "PATCH", "", {"description": "another"}),
    ("endpoints", "PATCH", "", {"enabled": False}),
    ("endpoints", "PATCH", "", {"url": "https://shop.example.com/else", "event_types": ["payment.*"]}),
    ("endpoints", "POST", "/secret/rotate", {"overlap_seconds": 60}),
    ("endpoints", "POST", "/challenge", None),
    ("endpoints", "DELETE", "", None),
    ("sources", "PATCH", "", {"description": "another"}),
    ("sources", "PATCH", "", {"enabled": False, "event_type": "/kind"}),
    ("sources", "POST", "/secret/rotate", {"overlap_seconds": 60}),
    ("sources", "DELETE", "", None),
]


@pytest.mark.parametrize(("kind", "method", "suffix", "body"), CHANGES)
async def test_if_match_guards_the_change(
    client: Client, echo: str, kind: str, method: str, suffix: str, body: Any
) -> None:
    path = await made(client, kind, echo)
    before = await client.call("GET", path)
    revision, tag = before[1]["revision"], before[2]
    assert tag == f'"{revision}"'
    for wrong in (f'"{revision + 1}"', '"0"', '"x"', f"W/{tag}"):
        status, problem, _ = await client.call(method, path + suffix, body, wrong)
        assert (status, problem["error"]["code"], problem["revision"]) == (
            412,
            "precondition_failed",
            revision,
        )
    for malformed in ("1", f"{tag}, {tag}"):
        status, problem, _ = await client.call(method, path + suffix, body, malformed)
        assert (status, problem["error"]["code"]) == (400, "invalid_request")
    assert await client.call("GET", path) == before
    status, told, new = await client.call(method, path + suffix, body, tag)
    if method == "DELETE":
        assert (status, (await client.call("GET", path))[0]) == (204, 404)
        assert (await client.call(method, path, None, tag))[0] == 404
        return
    after = await client.call("GET", path)
    assert (status, told["revision"], new) == (200, after[1]["revision"], after[2])
    assert after[1]["revision"] > revision
    assert (await client.call(method, path + suffix, body, tag))[0] == 412
    assert await client.call("GET", path) == after


@pytest.mark.parametrize("if_match", ["*", None])
async def test_without_a_revision_any_will_do(client: Client, echo: str, if_match: str | None) -> None:
    paths = {kind: await made(client, kind, echo) for kind in ("endpoints", "sources")}
    for kind, method, suffix, body in CHANGES:
        if "url" not in (body or {}):
            assert (await client.call(method, paths[kind] + suffix, body, if_match))[0] in {200, 204}


@pytest.mark.parametrize("kind", ["endpoints", "sources"])
async def test_one_of_the_changes_of_one_revision_wins(client: Client, echo: str, kind: str) -> None:
    changes = [change[1:] for change in CHANGES if change[0] == kind]
    for first, second in itertools.product(changes, changes):
        path = await made(client, kind, echo)
        tag = (await client.call("GET", path))[2]
        answers = await asyncio.gather(
            *(client.call(method, path + suffix, body, tag) for method, suffix, body in (first, second))
        )
        statuses = sorted(status for status, _, _ in answers)
        # A change behind a deletion finds nothing any more, and a challenge under way no endpoint to switch on.
        assert statuses[0] in {200, 204}, (first, second, answers)
        assert statuses[1] in ({412, 404, 409} if "DELETE" in {first[0], second[0]} else {412}), answers
        await client.call("DELETE", path)


async def test_the_revision_is_listed_and_not_raised_without_a_change(client: Client, echo: str) -> None:
    for kind in ("endpoints", "sources"):
        path = await made(client, kind, echo)
        await client.call("PATCH", path, {"description": "another"})
        assert (await client.call("PATCH", path, {}))[:2] == (await client.call("GET", path))[:2]
        (listed,) = (await client.call("GET", f"/v1/webhook-{kind}"))[1]["data"]
        assert listed["revision"] == 2
