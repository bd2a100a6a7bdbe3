"""PayPal: approved by the payer, captured by us, once, and only while the payment is wanted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.inbox.paypal.client import Client
from core.inbox.paypal.tokens import Tokens
from core.providers.calling import Caller
from core.providers.paypal import PayPal
from core.providers.protocol import (
    DeclinedError,
    Method,
    Notice,
    Recurrence,
    RefundSight,
    Standing,
    UnknownError,
    UnsentError,
)
from core.settings import load_settings
from tests.core.providers.fake_paypal import CREDENTIALS, FakePayPal
from tests.core.providers.scenes import UNKNOWABLE, an_order, handle, patience, serving


@asynccontextmanager
async def running(
    secret: str = CREDENTIALS[1],
) -> AsyncIterator[tuple[FakePayPal, PayPal]]:
    fake = FakePayPal()
    async with serving(fake.application()) as url:
        client = Client()
        tokens = Tokens(client, base_url=url, client_id=CREDENTIALS[0], client_secret=secret)
        caller = Caller("paypal", url, total_seconds=5.0)
        provider = PayPal(caller, tokens, client, landing_url="https://us.example")
        try:
            yield fake, provider
        finally:
            await provider.close()


async def test_a_payment_from_order_to_refund() -> None:
    async with running() as (fake, paypal):
        order = an_order(cancel_url=None)
        made = await paypal.create(order)
        assert made == await paypal.create(order)
        assert (made.standing, made.provider_id) == (Standing.OPEN, "ORDER1")
        assert made.url == "https://www.paypal.com/checkoutnow?token=ORDER1"
        unit = fake.orders["ORDER1"]["purchase_units"][0]
        assert (unit["custom_id"], unit["invoice_id"]) == (str(order.attempt), str(order.attempt))
        assert unit["amount"] == {"currency_code": "USD", "value": "19.90"}
        wanted = handle(order, "ORDER1", wanted=True)
        assert (await paypal.look(wanted)).standing is Standing.OPEN
        fake.approve("ORDER1")
        paid = await paypal.look(wanted)
        assert (paid.standing, paid.amount, paid.currency, paid.fee) == (Standing.PAID, 1_990, "USD", 99)
        assert paid.names == {"capture": "CAP-ORDER1"}
        assert await paypal.look(wanted) == paid
        assert await paypal.cancel(wanted) == paid
        once = await paypal.refund(wanted, "refund-1", 990)
        assert once == await paypal.refund(handle(order, "ORDER1", paid.names), "refund-1", 990)
        assert once == RefundSight(True, "REF0", 990, "COMPLETED")
        assert (await paypal.look(wanted)).refunded == 990
        with pytest.raises(DeclinedError) as refused:
            await paypal.refund(wanted, "refund-2", 1_001)
        assert refused.value.word == "REFUND_AMOUNT_EXCEEDED"
        assert len(fake.orders) == 1
        assert fake.tokens == 1


async def test_a_payment_that_was_given_up_is_never_captured() -> None:
    async with running() as (fake, paypal):
        order = an_order()
        await paypal.create(order)
        fake.approve("ORDER1")
        assert (await paypal.cancel(handle(order, "ORDER1", wanted=True))).standing is Standing.CANCELED
        seen = await paypal.look(handle(order, "ORDER1"))
        assert (seen.standing, seen.word) == (Standing.OPEN, "APPROVED")
        assert fake.orders["ORDER1"]["status"] == "APPROVED"
        # PayPal forgets an order that nobody has approved; one that was captured it keeps.
        assert (await paypal.look(handle(order, "ORDER9"))).standing is Standing.EXPIRED
        with pytest.raises(UnknownError):
            await paypal.look(handle(order))
        with pytest.raises(DeclinedError):
            await paypal.refund(handle(order, "ORDER1"), "r", 1)


async def test_a_card_that_is_declined_leaves_the_order_to_another() -> None:
    async with running() as (fake, paypal):
        order = an_order()
        await paypal.create(order)
        fake.approve("ORDER1")
        fake.bank_says = "INSTRUMENT_DECLINED"
        declined = await paypal.look(handle(order, "ORDER1", wanted=True))
        assert (declined.standing, declined.word) == (Standing.OPEN, "INSTRUMENT_DECLINED")
        fake.bank_says = None
        fake.approve("ORDER1", again=1)
        assert (await paypal.look(handle(order, "ORDER1", wanted=True))).standing is Standing.PAID


@pytest.mark.parametrize("trouble", UNKNOWABLE)
async def test_a_capture_whose_answer_is_lost_is_not_made_twice(trouble: str) -> None:
    async with running() as (fake, paypal):
        order = an_order()
        await paypal.create(order)
        fake.approve("ORDER1")
        approved = dict(fake.orders["ORDER1"])
        fake.troubles.after += ["", trouble]
        with patience(paypal, trouble), pytest.raises(UnknownError):
            await paypal.look(handle(order, "ORDER1", wanted=True))
        assert (await paypal.look(handle(order, "ORDER1", wanted=True))).standing is Standing.PAID
        captures = [call for call, _ in fake.calls if call.endswith("/capture")]
        assert len(captures) == len(fake.captured("ORDER1")) == 1
        # Two at once may both see the approval; PayPal captures once under their one key.
        fake.orders["ORDER1"] = approved
        assert (await paypal.look(handle(order, "ORDER1", wanted=True))).standing is Standing.PAID
        assert len([key for key in fake.kept if ":capture:" in key]) == 1


@pytest.mark.parametrize(
    ("word", "standing"),
    [("PENDING", Standing.PROCESSING), ("DECLINED", Standing.FAILED), ("REFUNDED", Standing.PAID)],
)
async def test_standings_of_a_capture(word: str, standing: Standing) -> None:
    async with running() as (fake, paypal):
        order = an_order()
        await paypal.create(order)
        fake.approve("ORDER1")
        fake.bank_says = word
        seen = await paypal.look(handle(order, "ORDER1", wanted=True))
        assert (seen.standing, seen.word) == (standing, word)
        fake.captured("ORDER1")[0]["status"] = "TELEPORTED"
        with pytest.raises(UnknownError):
            await paypal.look(handle(order, "ORDER1"))


async def test_units_and_orders_that_paypal_does_not_take() -> None:
    async with running() as (fake, paypal):
        await paypal.create(an_order(amount=500, currency="JPY"))
        assert fake.orders["ORDER1"]["purchase_units"][0]["amount"]["value"] == "500"
        await paypal.create(an_order(amount=50_000, currency="HUF"))
        assert fake.orders["ORDER2"]["purchase_units"][0]["amount"]["value"] == "500"
        for changes in (
            {"amount": 50_050, "currency": "HUF"},
            {"currency": "KZT"},
            {"method": Method.PHONE},
            {"recurrence": Recurrence("month", 1)},
        ):
            with pytest.raises(DeclinedError) as refused:
                await paypal.create(an_order(**changes))
            assert refused.value.code == "provider_unsupported"
        with pytest.raises(DeclinedError) as declined:
            await paypal.create(an_order(amount=6_660))
        assert declined.value.word == "PAYEE_ACCOUNT_RESTRICTED"


async def test_tokens_that_are_refused_and_keys_of_other_orders() -> None:
    async with running() as (fake, paypal):
        order = an_order()
        await paypal.create(order)
        fake.tokens += 1  # PayPal has revoked the token that we hold
        await paypal.look(handle(order, "ORDER1"))
        with pytest.raises(UnknownError) as reused:
            await paypal.create(order._replace(amount=5))
        assert reused.value.code == "provider_key_reused"
        fake.troubles.before.append("busy")
        with pytest.raises(UnsentError):
            await paypal.create(an_order())
    async with running(secret="wrong") as (fake, stranger):
        for _ in range(2):
            with pytest.raises(UnsentError) as refused:
                await stranger.create(an_order())
            assert refused.value.code == "provider_credentials"
        assert fake.calls == []


CAPTURE = {
    "id": "CAP-1", "status": "COMPLETED", "amount": {"currency_code": "EUR", "value": "10.00"}, "custom_id": "a-1",
    "supplementary_data": {"related_ids": {"order_id": "ORDER1"}}, "unheard_of": 1,
}  # fmt: skip
REFUND = {
    "id": "REF-1", "status": "COMPLETED", "amount": {"currency_code": "EUR", "value": "2.50"}, "custom_id": "a-1",
    "seller_payable_breakdown": {"total_refunded_amount": {"currency_code": "EUR", "value": "7.50"}},
    "links": [{"rel": "up", "href": "https://api.paypal.com/v2/payments/captures/CAP-1"}],
}  # fmt: skip
ORDER = {"id": "ORDER1", "status": "APPROVED", "purchase_units": [{"custom_id": "a-1"}]}

EVENTS: list[tuple[str, dict[str, Any], list[str] | None, Standing, dict[str, Any]]] = [
    ("PAYMENT.CAPTURE.COMPLETED", CAPTURE, ["ORDER1", "CAP-1", "a-1"], Standing.PAID,
     {"amount": 1_000, "currency": "EUR", "provider_id": "ORDER1", "names": {"capture": "CAP-1"}}),
    ("PAYMENT.CAPTURE.PENDING", CAPTURE | {"status": "PENDING"}, ["ORDER1", "CAP-1", "a-1"], Standing.PROCESSING, {}),
    ("PAYMENT.CAPTURE.DENIED", CAPTURE | {"status": "DECLINED"}, ["ORDER1", "CAP-1", "a-1"], Standing.FAILED, {}),
    ("PAYMENT.CAPTURE.REFUNDED", REFUND, ["CAP-1", "a-1"], Standing.PAID, {"refunded": 750, "currency": "EUR"}),
    ("PAYMENT.CAPTURE.REVERSED", REFUND, ["CAP-1", "a-1"], Standing.PAID, {"names": {"dispute": "REF-1"}}),
    ("CHECKOUT.ORDER.APPROVED", ORDER, ["ORDER1", "a-1"], Standing.OPEN, {"word": "APPROVED"}),
    ("CHECKOUT.ORDER.VOIDED", ORDER | {"status": "VOIDED"}, ["ORDER1", "a-1"], Standing.CANCELED, {}),
    ("BILLING.SUBSCRIPTION.CREATED", {"id": "I-1"}, None, Standing.OPEN, {}),
]  # fmt: skip


def read(kind: str, found: dict[str, Any]) -> Notice | None:
    provider = PayPal.of(
        load_settings(
            env_file=None, env="test", paypal_client_id="x", paypal_client_secret="y", paypal_mode="live"
        )
    )
    assert provider is not None
    return provider.read(kind, json.dumps({"id": "WH-1", "event_type": kind, "resource": found}).encode())


def test_events_name_the_payment_and_tell_how_it_stands() -> None:
    for kind, found, names, standing, fields in EVENTS:
        notice = read(kind, found)
        if names is None:
            assert notice is None
            continue
        assert notice is not None, kind
        assert (list(notice.names), notice.sight.standing) == (names, standing), kind
        assert {key: getattr(notice.sight, key) for key in fields} == fields, kind
        refunded = kind.endswith("REFUNDED")
        assert notice.refund == (RefundSight(True, "REF-1", 250, "COMPLETED") if refunded else None)
        disputed = (250, "EUR") if kind.endswith("REVERSED") else (None, None)
        assert (notice.dispute, notice.dispute_currency) == disputed


@pytest.mark.parametrize(
    "found",
    [
        CAPTURE | {"status": "TELEPORTED"},
        CAPTURE | {"amount": {"currency_code": "EUR", "value": "ten"}},
        CAPTURE | {"amount": {"currency_code": "EUR", "value": "NaN"}},
        CAPTURE | {"amount": {"currency_code": "EUR", "value": "1e400"}},
        CAPTURE | {"amount": {"currency_code": "EUR", "value": "0.001"}},
        CAPTURE | {"amount": {"currency_code": "XXX", "value": "1.00"}},
        {"status": "COMPLETED"},
    ],
)
def test_an_event_that_makes_no_sense(found: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read("PAYMENT.CAPTURE.COMPLETED", found)


def test_settings_make_the_provider() -> None:
    assert PayPal.of(load_settings(env_file=None, env="test")) is None
