"""The client of all providers: one request, bounded, and an honest word about what may have happened."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import traceback

import msgspec
import pytest
from aiohttp import web

from core.errors import Refusal
from core.providers.calling import MOST_BYTES, Caller
from core.providers.protocol import UnknownError, UnsentError
from tests.core.providers.scenes import SOON_SECONDS, UNKNOWABLE, Troubles, serving, spoiled

SECRET = "very-secret-token"


def chain(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


async def failure(caller: Caller, method: str = "POST") -> Refusal:
    async def call() -> None:
        reply = await caller.call(method, "/pay", query={"access_token": SECRET}, headers={"X-Key": SECRET})
        reply.refuse(dict[str, object]) if not reply.good else reply.read(dict[str, object])

    with pytest.raises(Refusal) as caught:
        await call()
    assert all(
        SECRET not in f"{error!s}{error!r}{getattr(error, 'args', '')}" for error in chain(caught.value)
    )
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nobody_knows_after_a_request_has_gone_out(method: str) -> None:
    """A GET is not repeated either, since some providers' orders are GETs."""
    troubles, calls = Troubles(), list[str]()

    async def pay(request: web.Request) -> web.Response:
        calls.append(request.method)
        return web.json_response({})

    app = spoiled(troubles)
    app.router.add_route("*", "/{any}", pay)
    async with serving(app) as url:
        for kind in UNKNOWABLE:
            caller = Caller("fake", url, total_seconds=SOON_SECONDS if kind == "silence" else 5.0)
            troubles.after.append(kind)
            assert isinstance(await failure(caller, method), UnknownError), kind
            await caller.close()
        assert calls == [method] * len(UNKNOWABLE)


async def test_a_request_that_cannot_have_gone_out_is_unsent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: the connection is refused
        for url in (f"http://127.0.0.1:{taken.getsockname()[1]}", "http://nowhere.invalid", "http://[bad"):
            caller = Caller("fake", url)
            assert isinstance(await failure(caller), UnsentError), url
            await caller.close()


async def test_a_connection_that_is_never_made_is_unsent() -> None:
    """The backlog of one is full, so the kernel leaves the handshake unanswered."""
    with socket.socket() as deaf, contextlib.ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        await asyncio.sleep(0)
        for connect, total in ((SOON_SECONDS, 5.0), (5.0, SOON_SECONDS)):
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            caller = Caller("fake", url, connect_seconds=connect, total_seconds=total)
            assert isinstance(await failure(caller), UnsentError)
            await caller.close()


async def test_too_many_calls_were_not_done_and_say_when_to_come_back() -> None:
    troubles = Troubles()
    troubles.before.append("busy")
    async with serving(spoiled(troubles)) as url:
        caller = Caller("fake", url)
        refusal = await failure(caller)
        assert (type(refusal), refusal.code, refusal.retry_after) == (UnsentError, "provider_busy", 7.0)
        await caller.close()


async def test_refused_credentials_are_no_refusal_of_the_payment() -> None:
    troubles = Troubles()
    troubles.before += ["401", "403"]
    async with serving(spoiled(troubles)) as url:
        caller = Caller("fake", url)
        for _ in range(2):
            refusal = await failure(caller)
            assert (type(refusal), refusal.code) == (UnsentError, "provider_credentials")
        await caller.close()


async def test_an_answer_is_bounded_and_read_without_unpacking() -> None:
    async def answer(request: web.Request) -> web.Response:
        size = int(request.query["size"])
        return web.Response(body=msgspec.json.encode({"x": "y" * size}))

    app = web.Application()
    app.router.add_post("/{any}", answer)
    async with serving(app) as url:
        caller = Caller("fake", url)
        reply = await caller.call("POST", "/pay", query={"size": "10"})
        assert reply.read(dict[str, str]) == {"x": "y" * 10}
        with pytest.raises(UnknownError, match="longer than"):
            await caller.call("POST", "/pay", query={"size": str(MOST_BYTES)})
        await caller.close()
