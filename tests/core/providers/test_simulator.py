"""The simulator: the provider and its server, over HTTP, with the faults that it is told to have."""

from __future__ import annotations

import asyncio
import csv
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner

from core.inbox.standard_webhooks import new_secret, secret_key, verify
from core.providers.links import Links
from core.providers.protocol import (
    DeclinedError,
    Handle,
    Order,
    RefundSight,
    Sight,
    Standing,
    UnknownError,
    UnsentError,
)
from core.providers.simulator import Simulator
from core.settings import load_settings
from handlers.simulator.site import Simulator as Server
from ops.commands.develop.simulator import simulator
from tests.core.providers.scenes import SOON_SECONDS, an_order, handle, serving
from tests.core.test_settings_prod import PROD

Read = Callable[[str, bytes], Any]


@dataclass
class Scene:
    """A simulator, the provider that asks it, and the receiver of its webhooks."""

    server: Server
    provider: Simulator
    url: str
    received: list[tuple[str, bytes]] = field(default_factory=list)

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        async with aiohttp.request(method, self.url + path, json=body) as response:
            text = await response.text()
            return json.loads(text) if response.content_type == "application/json" else text

    async def pay(self, sight: Sight, outcome: str = "paid") -> Any:
        return await self.ask("POST", f"/v1/payments/{sight.provider_id}/pay", {"outcome": outcome})

    def notices(self) -> list[tuple[str, Standing]]:
        read = self.provider.read
        return [(kind, notice.sight.standing) for kind, body in self.received if (notice := read(kind, body))]


@asynccontextmanager
async def running() -> AsyncIterator[Scene]:
    secret = new_secret()
    key = secret_key(secret)
    scene: Scene

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        signed = verify(body, headers, [key], time.time())
        assert json.loads(body)["id"] == signed.message_id
        scene.received.append((json.loads(body)["type"], body))
        return web.Response()

    receiver = web.Application()
    receiver.router.add_post("/hooks", receive)
    async with serving(receiver) as hooks:
        server = Server(webhook_url=f"{hooks}/hooks", webhook_secret=secret)
        async with serving(server.application()) as url:
            scene = Scene(server, Simulator(url, total_seconds=5.0), url)
            try:
                yield scene
            finally:
                await scene.provider.close()


async def impatient(scene: Scene, order: Order) -> Sight:
    provider = Simulator(scene.url, total_seconds=SOON_SECONDS)
    try:
        return await provider.create(order)
    finally:
        await provider.close()


async def test_a_payment_from_order_to_refund() -> None:
    async with running() as scene:
        order = an_order()
        made = await scene.provider.create(order)
        assert made == await scene.provider.create(order)
        assert (made.standing, made.amount, made.currency) == (Standing.OPEN, 1_990, "USD")
        page = await scene.ask("GET", str(made.url).removeprefix(scene.url))
        assert "Two tickets" in page
        async with (
            aiohttp.ClientSession() as session,
            session.post(str(made.url), data={"outcome": "paid"}, allow_redirects=False) as back,
        ):
            assert (back.status, back.headers["Location"]) == (303, order.success_url)
        paid = await scene.provider.look(handle(order))
        assert (paid.standing, paid.amount, paid.fee) == (Standing.PAID, 1_990, 49)
        assert await scene.provider.look(handle(order, made.provider_id)) == paid
        assert await scene.provider.cancel(handle(order, made.provider_id)) == paid
        once = await scene.provider.refund(handle(order), "refund-1", 990)
        assert once == await scene.provider.refund(handle(order), "refund-1", 990)
        assert (once.done, once.amount) == (True, 990)
        assert (await scene.provider.look(handle(order))).refunded == 990
        with pytest.raises(DeclinedError):
            await scene.provider.refund(handle(order), "refund-2", 1_001)
        await scene.ask("POST", f"/v1/payments/{made.provider_id}/dispute", {"amount": 1_000})
        await scene.server.webhooks.settle()
        assert sorted(kind for kind, _ in scene.received) == [
            "payment.disputed", "payment.paid", "payment.refunded",
        ]  # fmt: skip
        seen = {kind: scene.provider.read(kind, body) for kind, body in scene.received}
        assert all(
            notice and notice.names == [made.provider_id, str(order.attempt)] for notice in seen.values()
        )
        refunded, disputed = seen["payment.refunded"], seen["payment.disputed"]
        assert refunded is not None
        assert disputed is not None
        assert refunded.refund == RefundSight(True, once.provider_id, 990, "succeeded")
        assert (disputed.dispute, disputed.dispute_currency) == (1_000, disputed.sight.currency)
        report = list(csv.DictReader((await scene.ask("GET", "/v1/report.csv")).splitlines()))
        assert [(row["attempt"], row["amount"], row["refunded"]) for row in report] == [
            (str(order.attempt), "1990", "990")
        ]
        listed = await scene.ask("GET", "/v1/payments?limit=1")
        assert [one["id"] for one in listed["payments"]] == [made.provider_id]
        assert await scene.ask("GET", f"/v1/payments?after={listed['next']}") == {
            "payments": [],
            "next": None,
        }


@pytest.mark.parametrize(
    ("outcome", "standing"),
    [
        ("failed", Standing.FAILED),
        ("processing", Standing.PROCESSING),
        ("expired", Standing.EXPIRED),
    ],
)
async def test_a_payment_that_is_not_paid(outcome: str, standing: Standing) -> None:
    async with running() as scene:
        made = await scene.provider.create(an_order())
        await scene.pay(made, outcome)
        assert (await scene.provider.look(handle(an_order(), made.provider_id))).standing is standing
        await scene.server.webhooks.settle()
        assert scene.notices() == [(f"payment.{outcome}", standing)]


async def test_a_payment_that_is_given_up_or_was_never_asked_for() -> None:
    async with running() as scene:
        order = an_order()
        assert (await scene.provider.look(handle(order))).standing is Standing.ABSENT
        assert (await scene.provider.cancel(handle(order))).standing is Standing.ABSENT
        with pytest.raises(DeclinedError):
            await scene.provider.refund(handle(order), "r", 1)
        await scene.provider.create(order)
        assert (await scene.provider.cancel(handle(order))).standing is Standing.CANCELED
        assert (await scene.pay(await scene.provider.look(handle(order))))["code"] == "not_open"
        with pytest.raises(DeclinedError) as reused:
            await scene.provider.create(order._replace(amount=1))
        assert reused.value.word == "key_reused"
        with pytest.raises(DeclinedError) as unknown:
            await scene.provider.create(an_order(currency="XXX"))
        assert unknown.value.code == "provider_unsupported"


# The fault by metadata and by amount, the error of the first call, and the standing that a second call finds.
FAULTS = [
    ("decline", 9001, DeclinedError, None),
    ("timeout", 9002, UnknownError, Standing.OPEN),
    ("timeout_before", 9003, UnknownError, Standing.ABSENT),
    ("error", 9004, UnknownError, Standing.OPEN),
    ("html", 9005, UnknownError, Standing.OPEN),
    ("reset", 9006, UnknownError, Standing.OPEN),
    ("busy=3", 9007, UnsentError, Standing.ABSENT),
    ("error_before", None, UnknownError, Standing.ABSENT),
    ("reset_before", None, UnknownError, Standing.ABSENT),
    ("paid,timeout", None, UnknownError, Standing.PAID),
]


@pytest.mark.parametrize(("fault", "digits", "error", "found"), FAULTS)
async def test_a_fault_befalls_the_first_call_and_the_second_is_answered(
    fault: str, digits: int | None, error: type[Exception], found: Standing | None
) -> None:
    async with running() as scene:
        orders = [an_order(metadata={"simulate": fault})]
        orders += [] if digits is None else [an_order(amount=120_000 + digits)]
        for order in orders:
            with pytest.raises(error):
                await (impatient(scene, order) if "timeout" in fault else scene.provider.create(order))
            if found is None:
                with pytest.raises(error):
                    await scene.provider.create(order)
                continue
            assert (await scene.provider.look(handle(order))).standing is found
            again = await scene.provider.create(order)
            assert again.standing is (Standing.OPEN if found is Standing.ABSENT else found)
        assert len((await scene.ask("GET", "/v1/payments"))["payments"]) == (
            0 if found is None else len(orders)
        )


async def test_other_money_than_was_asked_for() -> None:
    async with running() as scene:
        for changes, seen in (
            ({"metadata": {"simulate": "wrong_amount=+5"}}, (1_995, "USD")),
            ({"metadata": {"simulate": "paid, wrong_currency=KZT"}}, (1_990, "KZT")),
            ({"amount": 19_008}, (19_007, "USD")),
            ({"amount": 19_009}, (19_009, "EUR")),
        ):
            order = an_order(**changes)
            made = await scene.provider.create(order)
            if made.standing is Standing.OPEN:
                await scene.pay(made)
            paid = await scene.provider.look(handle(order))
            assert (paid.standing, paid.amount, paid.currency) == (Standing.PAID, *seen)


async def test_refunds_that_do_not_come_at_once() -> None:
    async with running() as scene:
        for fault, done in (("refund:pending", None), ("refund:failed", False)):
            order = an_order(metadata={"simulate": f"paid,{fault}"})
            await scene.provider.create(order)
            assert (await scene.provider.refund(handle(order), "r", 100)).done is done
            assert (await scene.provider.look(handle(order))).refunded == 0
        lost = an_order(metadata={"simulate": "paid,refund:error,look:error,cancel:busy"})
        await scene.provider.create(lost)
        for call in (scene.provider.look(handle(lost)), scene.provider.look(handle(lost))):
            await call
        known: Handle = handle(lost, (await scene.provider.look(handle(lost))).provider_id)
        with pytest.raises(UnknownError):
            await scene.provider.look(known)
        with pytest.raises(UnsentError):
            await scene.provider.cancel(known)
        with pytest.raises(UnknownError):
            await scene.provider.refund(known, "r", 100)
        assert (await scene.provider.refund(known, "r", 100)).done
        assert (await scene.provider.look(known)).refunded == 100


async def test_webhooks_that_come_twice_never_or_late() -> None:
    async with running() as scene:
        made = {}
        for fault in ("webhook:late", "webhook:drop", "webhook:twice"):
            made[fault] = await scene.provider.create(an_order(metadata={"simulate": f"paid,{fault}"}))
        await scene.server.webhooks.settle()
        ids = [json.loads(body)["data"]["id"] for _, body in scene.received]
        twice, late = made["webhook:twice"].provider_id, made["webhook:late"].provider_id
        assert (len(ids), ids.count(twice), ids.count(late)) == (3, 2, 1)
        assert len({json.loads(body)["id"] for _, body in scene.received}) == 2


async def test_rules_befall_a_share_of_all_calls_the_same_each_time() -> None:
    async with running() as scene:
        outcomes = []
        rules = [{"fault": "paid"}, {"fault": "create:error", "share": 0.3}, {"fault": "webhook:drop"}]
        for _ in range(2):
            assert await scene.ask("PUT", "/faults", {"rules": rules, "seed": 7}) == {}
            done = await asyncio.gather(
                *[scene.provider.create(an_order()) for _ in range(20)], return_exceptions=True
            )
            outcomes.append(sorted(type(one).__name__ for one in done))
        assert outcomes[0] == outcomes[1]
        assert 0 < outcomes[0].count("UnknownError") < 20
        listed = (await scene.ask("GET", "/v1/payments?limit=1000"))["payments"]
        assert [one["standing"] for one in listed] == ["paid"] * 40
        assert scene.received == []
        wrong: list[object] = [{"rules": [{"fault": "create:explode"}]}, {"rule": []}]
        for bad in wrong:
            assert (await scene.ask("PUT", "/faults", bad))["code"] in {"faults", "body"}


async def test_links_of_merchants_orders_are_paid_once_and_told_of() -> None:
    told: list[tuple[bytes, str]] = []

    async def receive(request: web.Request) -> web.Response:
        told.append((await request.read(), request.headers["X-Internal-Signature"]))
        return web.Response(status=500)

    receiver = web.Application()
    receiver.router.add_post("/webhook", receive)
    async with serving(receiver) as hooks:
        server = Server.of(
            load_settings(
                env_file=None,
                env="test",
                payment_url_base_webhook=f"{hooks}/webhook",
                internal_webhook_secret="internal-secret",
            )
        )
        async with serving(server.application()) as url, aiohttp.ClientSession() as session:
            links = Links(url)
            made = await links.create(
                an_order(reference="41", terms={"merchant_id": "7", "alias": "<adyen>"})
            )
            page = await (await session.get(str(made.url))).text()
            assert "Payment 41" in page
            assert "<adyen>" not in page
            statuses = [(await session.post(f"{made.url}/accept")).status for _ in range(2)]
            assert statuses == [200, 409]
            assert (await session.post(f"{url}/payments/none/accept")).status == 409
            for fault, error in (
                ("create:decline", DeclinedError),
                ("create:busy", UnsentError),
                ("create:error", UnknownError),
                ("create:html", UnknownError),
            ):
                async with session.put(f"{url}/faults", json={"rules": [{"fault": fault}]}) as answer:
                    assert answer.status == 200
                with pytest.raises(error):
                    await links.create(an_order(reference="42", terms={"merchant_id": "7", "alias": "a"}))
            await links.close()
    body = b'{"payment_id":41,"status":"finished"}'
    assert told == [(body, hmac.digest(b"internal-secret", body, "sha256").hex())]


def test_prod_runs_no_simulator() -> None:
    environment = {name.upper(): str(value) for name, value in PROD.items()}
    refused = CliRunner().invoke(simulator, env=environment)
    assert refused.exit_code == 2
    assert "ENV=prod does not run it" in refused.output
