"""`tallystick demo` against a running service: everything as it should be, and what it says when it is not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from core.settings import Settings
from jobs.worker import work
from ops import demo
from ops.demo import Target, run_demo
from ops.receiving import standard_problem, wallet_problem

SECRET = "whsec_of_the_demo"

ApiClient = TestClient[web.Request, web.Application]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"stripe_signing_secrets": (SECRET,), "outbound_allow_hosts": ("127.0.0.0/8",)}
    )


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    task = asyncio.create_task(work(settings, stopping))
    yield
    stopping.set()
    await task


async def test_all_is_as_it_should_be(
    api: ApiClient, worker: None, api_key: Callable[..., Awaitable[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(str(api.make_url("/")).rstrip("/"), await api_key(), SECRET)
    assert await run_demo(target, payments=4)


async def test_a_service_with_another_secret_fails(
    api: ApiClient, worker: None, api_key: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DELIVERED_WITHIN_SECONDS", 0.2)
    target = Target(str(api.make_url("/")).rstrip("/"), await api_key(), "whsec_another")
    assert not await run_demo(target, payments=2)


async def test_without_a_worker_the_missing_deliveries_are_told(
    api: ApiClient, api_key: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DELIVERED_WITHIN_SECONDS", 0.2)
    target = Target(str(api.make_url("/")).rstrip("/"), await api_key(), SECRET)
    assert not await run_demo(target, payments=2)


async def test_nobody_there() -> None:
    assert not await run_demo(Target("http://127.0.0.1:1", "tsk_none", SECRET), payments=2)


def test_the_merchant_refuses_what_is_not_signed() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'
    assert standard_problem(secret, headers, body) == "webhook-timestamp is not of now"
    assert wallet_problem(secret, headers, body) == "X-Webhook-Sign is wrong"
