"""The engine over the simulator, across sockets: answers are lost, events come twice, late or never."""

import asyncio
import itertools
import json
import time
from collections import Counter
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from core.inbox.standard_webhooks import new_secret, secret_key, verify
from core.payments.accounts import clearing_account
from core.payments.flow import Payments, Route
from core.payments.notices import take
from core.payments.payments import NewPayment
from core.payments.states import State
from core.providers.simulator import Simulator
from handlers.simulator.site import Simulator as Server
from tests.core.payments.conftest import Desk
from tests.core.providers.scenes import SOON_SECONDS, serving

PAYMENTS = 40
# Charges that time out, and every kind of trouble with events. The seed makes them the same each time.
RULES = {
    "seed": 11,
    "rules": [
        {"fault": "create:paid", "share": 0.8},
        {"fault": "create:timeout", "share": 0.1},
        {"fault": "create:error", "share": 0.2},
        {"fault": "create:error_before", "share": 0.1},
        {"fault": "look:reset", "share": 0.2},
        {"fault": "webhook:twice", "share": 0.3},
        {"fault": "webhook:drop", "share": 0.2},
        {"fault": "webhook:late", "share": 0.3},
    ],
}


async def routes(_new: NewPayment, _payment_id: UUID) -> Route:
    return Route(["simulator"])


@pytest.mark.parametrize("told", [True, False])
async def test_every_charge_is_found_once_and_nothing_is_charged_twice(desk: Desk, *, told: bool) -> None:
    secret, numbers = new_secret(), itertools.count()
    engine: Payments

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        identity = verify(body, headers, [secret_key(secret)], time.time()).message_id
        notice = engine.providers["simulator"].read(json.loads(body)["type"], body)
        # An event that comes before its attempt is known is sent again, as by every provider.
        found = notice and await take(engine, "simulator", identity, notice)
        return web.Response(status=200 if found else 503)

    receiver = web.Application()
    receiver.router.add_post("/hook", receive)
    async with serving(receiver) as hook:
        server = Server(webhook_url=f"{hook}/hook" if told else "", webhook_secret=secret)
        async with serving(server.application()) as url, aiohttp.ClientSession() as session:
            provider = Simulator(url, total_seconds=SOON_SECONDS)
            engine = Payments(desk.service.database, desk.service.ledger, {"simulator": provider}, routes)
            account = await desk.account()
            await session.put(f"{url}/faults", json=RULES)

            async def create() -> Any:
                new = desk.new(account=account, reference=f"order-{next(numbers)}")
                return (await engine.create(new)).payment

            made = await asyncio.gather(*(create() for _ in range(PAYMENTS)))
            await session.post(f"{url}/webhooks/release")
            await session.put(f"{url}/faults", json={})
            desk.payments = engine
            done = [await desk.look(payment, rounds=2) for payment in made]
            await provider.close()
            listed = (await (await session.get(f"{url}/v1/payments?limit=1000")).json())["payments"]
    assert max(Counter(one["reference"] for one in listed).values()) == 1
    charged = {one["attempt"]: one for one in listed if one["standing"] == "paid"}
    assert {str(one.latest.id) for one in done if one.state is State.PAID} == charged.keys()
    assert {one.state for one in done if str(one.latest.id) not in charged} == {State.PENDING}
    assert len(charged) > PAYMENTS // 2
    earned = sum(one["amount"] - one["fee"] for one in charged.values())
    assert await desk.balance(account, clearing_account("simulator", "EUR")) == [earned, -earned]
