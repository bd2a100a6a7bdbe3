"""CloudPayments: orders that are found again by our attempt."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import encode_basic_auth, web

from core.providers.calling import Caller
from core.providers.cloudpayments import CloudPayments
from core.providers.protocol import (
    DeclinedError,
    Method,
    Recurrence,
    RefundSight,
    Standing,
    UnknownError,
    UnsentError,
)
from core.settings import load_settings
from tests.core.providers.scenes import UNKNOWABLE, Troubles, an_order, handle, patience, serving, spoiled

SECRET = "api-secret-of-cloudpayments"


class FakeCloudPayments:
    """CloudPayments' API as far as its documents tell: an envelope, Basic authentication and X-Request-ID."""

    def __init__(self) -> None:
        self.troubles = Troubles()
        self.orders: dict[str, dict[str, Any]] = {}
        self.payments: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, dict[str, Any]] = {}
        self.bodies: list[tuple[str, str]] = []

    def application(self) -> web.Application:
        app = spoiled(self.troubles)
        for path, work in (
            ("/orders/create", self.create),
            ("/orders/cancel", self.cancel),
            ("/v2/payments/find", self.find),
            ("/payments/refund", self.refund),
        ):
            app.router.add_post(path, self._enveloped(work))
        return app

    def _enveloped(self, work: Any) -> Any:
        async def answer(request: web.Request) -> web.Response:
            if request.headers.get("Authorization") != encode_basic_auth("pk_1", SECRET):
                return web.Response(status=401)
            text, key = await request.text(), request.headers.get("X-Request-ID")
            self.bodies.append((request.path, text))
            if key and key in self.kept:
                return web.json_response(self.kept[key])
            model, message = work(json.loads(text, parse_float=Decimal))
            found = {"Success": message is None, "Message": message, "Model": model, "InnerResult": None}
            if key:
                self.kept[key] = found
            return web.json_response(found)

        return answer

    def create(self, asked: dict[str, Any]) -> tuple[Any, str | None]:
        if asked["Description"] == "declined":
            return None, "Currency is not allowed"
        number = f"f2K8LV6reGE9WBF{len(self.orders)}"
        self.orders[number] = asked
        return {"Id": number, "Number": len(self.orders), "Url": f"https://orders.cloudpayments.ru/d/{number}",
                "Status": "Created", "StatusCode": 0}, None  # fmt: skip

    def pay(self, order_id: str | None, status: str = "Completed", **fields: Any) -> None:
        asked = self.orders[str(order_id)]
        self.payments[asked["InvoiceId"]] = {
            "TransactionId": 504, "Amount": float(asked["Amount"]), "Currency": asked["Currency"], "Status": status,
            "TotalFee": 0.5, "Refunded": False, "CardFirstSix": "411111",
        } | fields  # fmt: skip

    def cancel(self, asked: dict[str, Any]) -> tuple[Any, str | None]:
        paid = self.orders[asked["Id"]]["InvoiceId"] in self.payments
        return None, "The order is paid" if paid else None

    def find(self, asked: dict[str, Any]) -> tuple[Any, str | None]:
        found = self.payments.get(asked["InvoiceId"])
        if found is None:
            return None, "Not found"
        # A declined payment comes as a failure that has a model.
        return found, "" if found["Status"] == "Declined" else None

    def refund(self, asked: dict[str, Any]) -> tuple[Any, str | None]:
        if asked["Amount"] > Decimal("19.90"):
            return None, "Amount is too large"
        return {"TransactionId": 568}, None


@asynccontextmanager
async def running(
    secret: str = SECRET,
) -> AsyncIterator[tuple[FakeCloudPayments, CloudPayments]]:
    fake = FakeCloudPayments()
    async with serving(fake.application()) as url:
        provider = CloudPayments("pk_1", secret, Caller("cloudpayments", url, total_seconds=5.0))
        try:
            yield fake, provider
        finally:
            await provider.close()


async def test_a_payment_from_order_to_refund() -> None:
    async with running() as (fake, cloud):
        order = an_order(currency="RUB")
        made = await cloud.create(order)
        assert made == await cloud.create(order)
        assert (made.standing, made.names) == (Standing.OPEN, {"number": "1"})
        assert made.url == f"https://orders.cloudpayments.ru/d/{made.provider_id}"
        # The amount is a number, and its digits are those of the text.
        assert '"Amount":19.90,' in fake.bodies[0][1]
        known = handle(order, made.provider_id)
        assert (await cloud.look(known)).standing is Standing.OPEN
        fake.pay(made.provider_id)
        for seen in (await cloud.look(known), await cloud.look(handle(order))):
            assert (seen.standing, seen.amount, seen.currency, seen.fee) == (Standing.PAID, 1_990, "RUB", 50)
            assert (seen.refunded, seen.names) == (0, {"transaction": "504"})
        assert (await cloud.cancel(known)).standing is Standing.PAID
        assert await cloud.refund(known, "refund-1", 990) == RefundSight(True, "568", 990, "Refunded")
        assert fake.bodies[-1] == ("/payments/refund", '{"TransactionId":504,"Amount":9.90}')
        with pytest.raises(DeclinedError) as refused:
            await cloud.refund(known, "refund-2", 1_991)
        assert refused.value.word == "Amount is too large"
        assert len(fake.orders) == 1


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ("AwaitingAuthentication", Standing.OPEN),
        ("Declined", Standing.OPEN),
        ("Authorized", Standing.PROCESSING),
        ("Cancelled", Standing.CANCELED),
        ("Teleported", Standing.PROCESSING),
    ],
)
async def test_standings_of_a_payment(status: str, standing: Standing) -> None:
    async with running() as (fake, cloud):
        order = an_order()
        made = await cloud.create(order)
        fake.pay(made.provider_id, status)
        seen = await cloud.look(handle(order, made.provider_id))
        assert (seen.standing, seen.amount, seen.word) == (standing, None, status)


async def test_orders_that_are_given_up_or_not_taken() -> None:
    async with running() as (fake, cloud):
        order = an_order()
        made = await cloud.create(order)
        assert (await cloud.cancel(handle(order, made.provider_id))).standing is Standing.CANCELED
        assert (await cloud.cancel(handle(order))).standing is Standing.OPEN
        with pytest.raises(DeclinedError):
            await cloud.refund(handle(order, made.provider_id), "r", 1)
        with pytest.raises(DeclinedError) as declined:
            await cloud.create(an_order(title="declined"))
        assert declined.value.word == "Currency is not allowed"
        for changes in ({"currency": "JPY"}, {"method": Method.PHONE}, {"recurrence": Recurrence("day", 1)}):
            with pytest.raises(DeclinedError) as refused:
                await cloud.create(an_order(**changes))
            assert refused.value.code == "provider_unsupported"
        fake.pay(made.provider_id, Currency="XXX")
        with pytest.raises(UnknownError):
            await cloud.look(handle(order))
    async with running(secret="wrong") as (_, stranger):
        with pytest.raises(UnsentError) as stranger_refused:
            await stranger.create(an_order())
        assert stranger_refused.value.code == "provider_credentials"


@pytest.mark.parametrize("trouble", UNKNOWABLE)
async def test_an_order_whose_answer_is_lost_is_repeated_under_its_key(trouble: str) -> None:
    async with running() as (fake, cloud):
        order = an_order()
        fake.troubles.after.append(trouble)
        with patience(cloud, trouble), pytest.raises(UnknownError):
            await cloud.create(order)
        assert len(fake.bodies) == 1
        await cloud.create(order)
        assert len(fake.orders) == 1


NOTICE = {
    "TransactionId": "504",
    "Amount": "10.50",
    "Currency": "RUB",
    "InvoiceId": "a-1",
    "Status": "Completed",
}


@pytest.mark.parametrize("form", ["json", "urlencoded"])
def test_notifications_name_the_payment_and_tell_how_it_stands(form: str) -> None:
    cloud = CloudPayments("pk_1", SECRET, Caller("cloudpayments", "http://unused.invalid"))

    def read(kind: str, **changes: str) -> Any:
        fields = NOTICE | changes
        return cloud.read(kind, json.dumps(fields).encode() if form == "json" else urlencode(fields).encode())

    for kind, changes, standing, amount in (
        ("pay", {}, Standing.PAID, 1_050),
        ("pay", {"Status": "Authorized"}, Standing.PROCESSING, None),
        ("confirm", {}, Standing.PAID, 1_050),
        ("fail", {"Reason": "InsufficientFunds"}, Standing.OPEN, None),
        ("cancel", {}, Standing.CANCELED, None),
    ):
        notice = read(kind, **changes)
        assert (notice.names, notice.sight.standing, notice.sight.amount) == (
            ["a-1", "504"],
            standing,
            amount,
        ), kind
    refund = read("refund", TransactionId="568", PaymentTransactionId="504", Amount="2.00")
    assert (refund.names, refund.refund) == (["a-1", "504"], RefundSight(True, "568", 200, "refund"))
    assert read("refund", PaymentTransactionId="504", Currency="").refund.amount is None
    for other in ("check", "receipt", "recurrent"):
        assert read(other) is None
    wrong = [
        {"Amount": "many"},
        {"Currency": "XXX"},
        {"Amount": "1.005"},
        {"InvoiceId": "", "TransactionId": ""},
    ]
    for changes in wrong:
        with pytest.raises(ValueError, match=r"."):
            read("pay", **changes)


def test_a_field_that_comes_twice_is_no_amount_and_no_name() -> None:
    cloud = CloudPayments("pk_1", SECRET, Caller("cloudpayments", "http://unused.invalid"))
    body = urlencode(NOTICE).encode()
    for extra in (b"&Amount=99", b"&InvoiceId=a-2", b"&Currency=USD"):
        with pytest.raises(ValueError, match=r"."):
            cloud.read("pay", body + extra)


def test_settings_make_the_provider() -> None:
    assert CloudPayments.of(load_settings(env_file=None, env="test")) is None
    settings = load_settings(
        env_file=None, env="test", cloudpayments_public_id="pk_1", cloudpayments_api_secrets=f"{SECRET},old"
    )
    assert CloudPayments.of(settings) is not None
