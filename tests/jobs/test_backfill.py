"""Missed events: a provider that could not deliver is asked, and what it lists is taken in once."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.errors import Refusal
from core.inbox.backfill import Fetched, backfill_paypal, backfill_stripe
from core.inbox.intake import Intake
from core.settings import Settings
from core.work.wakeup import Waker
from jobs import table
from jobs.backfill import askable
from tests.jobs.merchant import Thread, payment

Eventually = Callable[..., Awaitable[Any]]
StartWorker = Callable[..., asyncio.Event]
KEY = "sk_test_of_these_tests"
SINCE = datetime.now(UTC) - timedelta(days=1)


@dataclass
class FakeStripe:
    """GET /v1/events as Stripe documents it: newest first, by pages of `limit`, `starting_after` an id."""

    events: list[Any] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    answer: web.Response | None = None
    page: int = 100

    async def list_events(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        self.queries.append(dict(request.query))
        if self.answer is not None:
            return self.answer
        ids = [event.get("id") for event in self.events]
        after = request.query.get("starting_after")
        start = ids.index(after) + 1 if after else 0
        page = self.events[start : start + self.page]
        return web.json_response(
            {"object": "list", "url": "/v1/events", "data": page, "has_more": start + self.page < len(ids)}
        )


@pytest.fixture
async def provider() -> AsyncIterator[tuple[FakeStripe, str]]:
    fake = FakeStripe()
    app = web.Application()
    app.router.add_get("/v1/events", fake.list_events)
    async with TestServer(app) as server:
        yield fake, str(server.make_url("")).rstrip("/")


@pytest.fixture
def settings(settings: Settings, provider: tuple[FakeStripe, str]) -> Settings:
    return settings.model_copy(update={"stripe_secret_key": KEY, "stripe_api_base": provider[1]})


@pytest.fixture
def stripe(provider: tuple[FakeStripe, str]) -> FakeStripe:
    return provider[0]


async def run(thread: Thread, settings: Settings) -> Fetched:
    waker = Waker(thread.service.redis, thread.service.epoch)
    intake = Intake(thread.service.database, waker)
    try:
        return await backfill_stripe(settings, intake, SINCE)
    finally:
        await intake.close()
        await waker.close()


async def test_what_was_missed_is_taken_in_once(
    thread: Thread, settings: Settings, stripe: FakeStripe
) -> None:
    stripe.page = 2
    await thread.send(payment("pi_2", None))
    stripe.events = [payment(f"pi_{number}", None) for number in range(5)]
    assert await run(thread, settings) == Fetched(listed=5, new=4, unreadable=0)
    assert await run(thread, settings) == Fetched(listed=5, new=0, unreadable=0)
    assert [query.get("starting_after") for query in stripe.queries[:3]] == [None, "evt_pi_1", "evt_pi_3"]
    assert {query["delivery_success"] for query in stripe.queries} == {"false"}
    assert {query["created[gte]"] for query in stripe.queries} == {str(int(SINCE.timestamp()))}
    row = await thread.inbox("evt_pi_0")
    assert json.loads(row["body"]) == stripe.events[0]
    assert list(json.loads(row["headers"])) == ["tallystick-fetched"]
    # A delivery that comes after all is a duplicate.
    assert (await thread.send(stripe.events[0]))[1]["message"] == "duplicate ignored"


async def test_one_that_nobody_can_read_does_not_keep_the_others(
    thread: Thread, settings: Settings, stripe: FakeStripe
) -> None:
    stripe.events = [payment("pi_1", None), {"object": "event"}, payment("pi_2", None)]
    assert await run(thread, settings) == Fetched(listed=3, new=2, unreadable=1)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"status": 401, "text": "{}"}, "provider_refused"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, "provider_refused"),
        ({"text": "<html>"}, "provider_refused"),
        ({"text": '{"data":5}'}, "provider_refused"),
        ({"text": "[" * 100_000}, "provider_refused"),
    ],
)
async def test_what_is_no_list_is_refused(
    thread: Thread, settings: Settings, stripe: FakeStripe, answer: Any, code: str
) -> None:
    stripe.answer = web.Response(**answer)
    with pytest.raises(Refusal) as refused:
        await run(thread, settings)
    assert refused.value.code == code
    assert KEY not in str(refused.value)


async def test_a_provider_that_is_away_or_not_to_be_asked(thread: Thread, settings: Settings) -> None:
    for changes, code in (
        ({"stripe_api_base": "http://127.0.0.1:1"}, "provider_unreachable"),
        ({"stripe_secret_key": ""}, "provider_key_missing"),
    ):
        with pytest.raises(Refusal) as refused:
            await run(thread, settings.model_copy(update=changes))
        assert refused.value.code == code


@dataclass
class FakePayPal:
    """A token, and GET /v1/notifications/webhooks-events: newest first, at most `page` whatever is asked for."""

    events: list[Any] = field(default_factory=list)
    page: int = 2

    async def give_token(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Basic " + b64encode(b"client:secret").decode()
        assert await request.text() == "grant_type=client_credentials"
        return web.json_response({"access_token": "A21AA", "expires_in": 32400})

    async def list_events(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer A21AA"
        start, end = (datetime.fromisoformat(request.query[name]) for name in ("start_time", "end_time"))
        within = [
            event for event in self.events if start <= datetime.fromisoformat(event["create_time"]) <= end
        ]
        return web.json_response({"events": within[: self.page], "count": len(within), "links": []})


async def test_paypals_list_is_read_to_its_end(thread: Thread, settings: Settings) -> None:
    fake = FakePayPal()
    for number in range(7):
        made = SINCE + timedelta(hours=8 - number)
        event = {
            "id": f"WH-{number}",
            "event_type": "PAYMENT.CAPTURE.COMPLETED",
            "create_time": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "resource": {"id": f"cap_{number}"},
        }
        fake.events.append(event)
    app = web.Application()
    app.router.add_post("/v1/oauth2/token", fake.give_token)
    app.router.add_get("/v1/notifications/webhooks-events", fake.list_events)
    waker = Waker(thread.service.redis, thread.service.epoch)
    intake = Intake(thread.service.database, waker)
    async with TestServer(app) as server:
        ours = settings.model_copy(
            update={
                "paypal_api_base": str(server.make_url("")).rstrip("/"),
                "paypal_client_id": "client",
                "paypal_client_secret": "secret",
            }
        )
        assert await backfill_paypal(ours, intake, SINCE) == Fetched(7, 7, 0)
        assert await backfill_paypal(ours, intake, SINCE) == Fetched(7, 0, 0)
    await intake.close()
    await waker.close()
    assert (await thread.inbox("WH-6"))["provider"] == "paypal"
    with pytest.raises(Refusal, match="provider_key_missing"):
        await backfill_paypal(settings, intake, SINCE)


async def test_who_is_asked_by_the_clock(settings: Settings) -> None:
    def asked(**changes: Any) -> list[str]:
        return [fetch.__name__ for fetch in askable(settings.model_copy(update=changes))]

    assert asked() == ["backfill_stripe"]
    assert asked(inbox_backfill_hours=0) == []
    assert asked(stripe_secret_key="") == []
    paypal = {"paypal_client_id": "client", "paypal_client_secret": "secret"}
    assert asked(**paypal) == ["backfill_stripe", "backfill_paypal"]
    assert asked(**paypal, paypal_mode="demo_hmac") == ["backfill_stripe"]


async def test_the_worker_asks_by_the_clock(
    thread: Thread,
    stripe: FakeStripe,
    start_worker: StartWorker,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    each_second = replace(table.JOBS["backfill"], clock={"second": set(range(60))})
    monkeypatch.setitem(cast("dict[str, table.Job]", table.JOBS), "backfill", each_second)
    await thread.open_account("shop:main")
    stripe.events = [payment("pi_1", "shop:main")]
    start_worker()

    async def paid() -> bool:
        return await thread.balance("shop:main") == 1500

    await eventually(paid, timeout=20)
