"""Kaspi's proxy, as the contract tells of it: GETs with a token, an envelope, and no second try at an order."""

from __future__ import annotations

import math
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import Refusal
from core.providers.calling import Caller
from core.providers.kaspi import Kaspi
from core.providers.kaspi_words import amount_text
from core.providers.protocol import DeclinedError, Method, RefundSight, Standing, UnknownError, UnsentError
from core.settings import load_settings
from tests.core.providers.scenes import UNKNOWABLE, Troubles, an_order, handle, patience, serving, spoiled

TOKEN = "access-token-of-the-proxy"
TERMS = {"organization_bin": "971240001315", "device_token": "f2a1-device"}
ANSWERS = {
    "create": {"externalId": 15_401_211, "status": "Wait"},
    "create-link": {
        "paymentLink": "https://pay.kaspi.kz/pay/abc",
        "paymentId": 77,
        "expireDate": "2026-11-29T23:15:00+05",
    },
    "status": {"externalId": "15401211", "status": "Processed"},
    "refund": {"returnOperationId": 9, "refundedAmount": 19.9},
}


class Proxy:
    def __init__(self) -> None:
        self.troubles = Troubles()
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.answer: Any = None
        self.status = 200

    def application(self) -> web.Application:
        app = spoiled(self.troubles)
        app.router.add_get("/api/v2/paymentkaspi/{endpoint}/", self.answered)
        return app

    async def answered(self, request: web.Request) -> web.Response:
        endpoint = request.match_info["endpoint"]
        self.calls.append((endpoint, dict(request.query)))
        if isinstance(self.answer, bytes):
            return web.Response(body=self.answer, status=self.status, content_type="application/json")
        usual = {"status": True, "data": ANSWERS[endpoint], "http_code": 200}
        return web.json_response(self.answer or usual, status=self.status)


@asynccontextmanager
async def running(retries: int = 0) -> AsyncIterator[tuple[Proxy, Kaspi]]:
    proxy = Proxy()
    async with serving(proxy.application()) as url:
        caller = Caller("kaspi", f"{url}/api/v2/paymentkaspi", total_seconds=5.0, fresh=True)
        provider = Kaspi(TOKEN, caller, retries=retries, retry_seconds=0.0)
        try:
            yield proxy, provider
        finally:
            await provider.close()


def by_phone(**changes: Any) -> Any:
    fields = {"method": Method.PHONE, "phone": "87077777777", "currency": "KZT", "terms": TERMS} | changes
    return an_order(**fields)


async def refused(call: Any, kind: type[Refusal]) -> Any:
    with pytest.raises(kind) as caught:
        await call
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert TOKEN not in told
    assert TERMS["device_token"] not in told
    return caught.value


async def test_a_payment_from_the_phone_to_the_refund() -> None:
    async with running() as (proxy, kaspi):
        order = by_phone()
        made = await kaspi.create(order)
        assert (made.standing, made.provider_id, made.word) == (Standing.OPEN, "15401211", "Wait")
        paid = await kaspi.look(handle(order, made.provider_id))
        assert (paid.standing, paid.amount, paid.provider_id) == (Standing.PAID, None, "15401211")
        assert (await kaspi.cancel(handle(order, made.provider_id))).standing is Standing.PAID
        refund = await kaspi.refund(handle(order, made.provider_id), "key", 1_000)
        assert refund == RefundSight(True, "9", 1_000, "success")
        proxy.answer = b""
        assert await kaspi.refund(handle(order, "15401211"), "key", 5) == RefundSight(
            True, None, 5, "success"
        )
        merchant = {"organizationBin": "971240001315", "deviceToken": "f2a1-device", "access_token": TOKEN}
        known = {"access_token": TOKEN, "externalId": "15401211"}
        assert proxy.calls == [
            ("create", {"phone": "87077777777", "amount": "19.9", "message": "Two tickets", **merchant}),
            ("status", known),
            ("status", known),
            ("refund", {**known, "amount": "10.0", **merchant}),
            ("refund", {**known, "amount": "0.05", **merchant}),
        ]


async def test_a_link_needs_a_device() -> None:
    async with running() as (proxy, kaspi):
        made = await kaspi.create(by_phone(method=Method.PAYMENT_LINK))
        assert (made.provider_id, made.url) == ("77", "https://pay.kaspi.kz/pay/abc")
        assert made.expires_at is not None
        assert made.expires_at.isoformat() == "2026-11-29T18:15:00+00:00"
        for changes in (
            {"method": Method.PAYMENT_LINK, "terms": {"organization_bin": "971240001315"}},
            {"method": Method.HOSTED_CARD},
            {"currency": "USD"},
        ):
            assert (
                await refused(kaspi.create(by_phone(**changes)), DeclinedError)
            ).code == "provider_unsupported"
        assert [endpoint for endpoint, _ in proxy.calls] == ["create-link"]
        await kaspi.create(by_phone(terms={"organization_bin": "971240001315"}))
        assert "deviceToken" not in proxy.calls[-1][1]


@pytest.mark.parametrize("trouble", UNKNOWABLE)
async def test_an_order_and_a_refund_are_sent_once_whatever_happens(trouble: str) -> None:
    async with running(retries=3) as (proxy, kaspi):
        for call in (kaspi.create(by_phone()), kaspi.refund(handle(by_phone(), "1"), "key", 5)):
            proxy.troubles.after.append(trouble)
            with patience(kaspi, trouble):
                await refused(call, UnknownError)
        assert [endpoint for endpoint, _ in proxy.calls] == ["create", "refund"]


async def test_a_question_costs_nothing_and_so_is_asked_again() -> None:
    async with running(retries=3) as (proxy, kaspi):
        proxy.troubles.after += ["reset", "busy"]
        assert (await kaspi.look(handle(by_phone(), "1"))).standing is Standing.PAID
        proxy.troubles.after += ["html"] * 4
        await refused(kaspi.look(handle(by_phone(), "1")), UnknownError)
        assert len(proxy.calls) == 3 + 4


REFUSALS: list[tuple[int, Any, type[Refusal], str | None, str]] = [
    (200, {"status": False, "data": {"errors": {"-1501": "Device not found", "x": "y"}}}, DeclinedError, "-1501",
     "Device not found"),
    (400, {"success": False, "error": "Insufficient funds"}, DeclinedError, None, "Insufficient funds"),
    (200, {"status": False, "data": {}}, DeclinedError, None, "Unknown error"),
    (200, {"status": False, "data": {"errors": {"-999": "Service unavailable"}}}, UnknownError, None, ""),
    (401, {"status": False, "error": "token"}, UnsentError, None, ""),
    (500, {"status": False, "data": {"errors": {"-1501": "x"}}}, UnknownError, None, ""),
    (200, {"status": False, "data": None}, UnknownError, None, ""),
    (200, {"status": False, "data": {"errors": ["x"]}}, UnknownError, None, ""),
    (200, {"http_code": 200}, UnknownError, None, ""),
    (200, {"status": True, "data": {}}, UnknownError, None, ""),
    (200, {"status": True, "data": {"externalId": ""}}, UnknownError, None, ""),
    (200, b"[]", UnknownError, None, ""),
    (400, b"<html>", UnknownError, None, ""),
    (200, b"", UnknownError, None, ""),
]  # fmt: skip


@pytest.mark.parametrize(("status", "answer", "kind", "code", "word"), REFUSALS)
async def test_refusals_of_the_bank_and_answers_that_are_none(
    status: int, answer: Any, kind: type[Refusal], code: str | None, word: str
) -> None:
    async with running() as (proxy, kaspi):
        proxy.answer, proxy.status = answer, status
        refusal = await refused(kaspi.create(by_phone()), kind)
        if isinstance(refusal, DeclinedError):
            assert (refusal.extra["provider_code"], refusal.word) == (code, word)
        # No answer of the proxy to a question is an end of the payment.
        with pytest.raises((UnknownError, UnsentError)):
            await kaspi.look(handle(by_phone(), "1"))


async def test_only_words_that_are_known_end_a_payment() -> None:
    async with running() as (proxy, kaspi):
        for word, standing in (
            ("Wait", Standing.OPEN),
            ("QrTokenCreated", Standing.OPEN),
            ("RemotePaymentCreated", Standing.OPEN),
            ("Error", Standing.FAILED),
            ("RemotePaymentCanceled", Standing.CANCELED),
            ("RemotePaymentExpired", Standing.EXPIRED),
            ("PaymentTeleported", Standing.PROCESSING),
            ("processed", Standing.PROCESSING),
        ):
            proxy.answer = {"status": True, "data": {"status": word}}
            assert (await kaspi.look(handle(by_phone(), "1"))).standing is standing, word
        with pytest.raises(UnknownError):
            await kaspi.look(handle(by_phone()))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**12))
def test_amounts_are_the_text_of_a_float_and_never_one(amount: int) -> None:
    written = amount_text(amount, "KZT")
    assert written == repr(amount / 100)
    assert math.isclose(float(str(written)) * 100, amount)


def test_settings_make_the_provider() -> None:
    assert Kaspi.of(load_settings(env_file=None, env="test")) is None
    url = "https://proxy.example/api/v2/paymentkaspi"
    assert Kaspi.of(load_settings(env_file=None, env="test", production_api_url=url)) is not None
