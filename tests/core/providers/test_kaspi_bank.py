"""The bank's own API (r3) over TLS, with a fake that follows its documents and asks for a client's certificate."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.errors import Refusal
from core.providers.kaspi_bank import KaspiBank, TradePoint
from core.providers.known import providers_of
from core.providers.protocol import DeclinedError, Method, RefundSight, Standing, UnknownError, UnsentError
from core.settings import load_settings
from tests.core.providers.scenes import UNKNOWABLE, Troubles, an_order, handle, patience, spoiled

BIN = "971240001315"
DEVICE = "66cbf4e5-device"
TERMS = {"organization_bin": BIN, "device_token": DEVICE}
PASSWORD = "the-password-of-a-key"


class Bank:
    """The bank: payments by their numbers, each with its status, its amount, and what is left to give back."""

    def __init__(self) -> None:
        self.troubles = Troubles()
        self.calls: list[tuple[str, Any]] = []
        self.payments: dict[int, dict[str, Any]] = {}
        self.quoted = ""

    def application(self) -> web.Application:
        app = spoiled(self.troubles)
        app.router.add_post("/r3/v01/remote/create", self.create)
        app.router.add_post("/r3/v01/qr/create-link", self.create)
        app.router.add_get("/r3/v02/payment/status/{id}", self.status)
        app.router.add_get("/r3/v01/payment/details", self.details)
        app.router.add_post("/r3/v01/payment/return", self.give_back)
        app.router.add_post("/r3/v01/device/register", self.register)
        app.router.add_get("/r3/v01/partner/tradepoints/{bin}", self.trade_points)
        return app

    async def create(self, request: web.Request) -> web.Response:
        body = await self.heard(request)
        if self.quoted:
            return said(-7, self.quoted)
        if body.get("DeviceToken") != DEVICE:
            return said(-1501, "Device not found")
        number = 12_800_000_000 + len(self.payments)
        amount = body["Amount"]
        self.payments[number] = {"Status": "Wait", "TotalAmount": amount, "AvailableReturnAmount": amount}
        if request.path.endswith("create"):
            return said(0, "OK", {"QrPaymentId": number})
        self.payments[number]["Status"] = "QrTokenCreated"
        link = {"PaymentLink": f"https://pay.kaspi.kz/pay/{number}", "PaymentId": number}
        return said(
            0, "OK", {**link, "ExpireDate": "2026-11-29T17:10:50.717+05:00", "PaymentMethods": ["Gold"]}
        )

    async def status(self, request: web.Request) -> web.Response:
        await self.heard(request)
        found = self.payments.get(int(request.match_info["id"]))
        return said(0, "OK", {"Status": found["Status"]}) if found else said(-1601, "Payment not found")

    async def details(self, request: web.Request) -> web.Response:
        await self.heard(request)
        if request.query["DeviceToken"] != DEVICE:
            return said(-1501, "Device not found")
        number = int(request.query["QrPaymentId"])
        return said(0, "OK", {"QrPaymentId": number, **self.payments[number]})

    async def give_back(self, request: web.Request) -> web.Response:
        body = await self.heard(request)
        found = self.payments[body["QrPaymentId"]]
        if body["Amount"] > found["AvailableReturnAmount"]:
            return said(-99000005, "Insufficient funds")
        found["AvailableReturnAmount"] = round(found["AvailableReturnAmount"] - body["Amount"], 2)
        return said(0, "OK", {"ReturnOperationId": 15})

    async def register(self, request: web.Request) -> web.Response:
        await self.heard(request)
        return said(0, "OK", {"DeviceToken": DEVICE})

    async def trade_points(self, request: web.Request) -> web.Response:
        await self.heard(request)
        return said(0, "OK", [{"TradePointId": 1, "TradePointName": "Shop 1"}, {"TradePointId": 2}])

    async def heard(self, request: web.Request) -> Any:
        body = await request.json() if request.method == "POST" else dict(request.query)
        self.calls.append((request.path, body))
        return body


def said(code: int, message: str, data: Any = None) -> web.Response:
    return web.json_response({"StatusCode": code, "Message": message, "Data": data})


def certified(folder: Path, name: str, signer: tuple[x509.Name, Any] | None = None) -> tuple[x509.Name, Any]:
    """Write a certificate and its key, signed by itself without a `signer`; the key has a password."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing = signer or (subject, key)
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        # From Python 3.13 on a certificate has to keep all of RFC 5280: what its key is for, and whose it is.
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, signer is None, False, False, False), True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
        .sign(signing, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD.encode()),
        )
    )
    return subject, key


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[tuple[Bank, KaspiBank]]:
    roots = certified(folder, "roots")
    for name in ("bank", "shop"):
        certified(folder, name, roots)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "roots.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "bank.pem", folder / "bank.key", PASSWORD)
    bank = Bank()
    server = TestServer(bank.application(), scheme="https", host="localhost")
    await server.start_server(ssl=context)
    own = {
        "kaspi_api_base": f"https://localhost:{server.port}",
        "kaspi_api_cert_file": str(folder / "shop.pem"),
        "kaspi_api_key_file": str(folder / "shop.key"),
        "kaspi_api_key_password": PASSWORD,
        "kaspi_api_roots_file": str(folder / "roots.pem"),
        "kaspi_api_timeout": 5,
        "kaspi_max_retries": 1,
        "kaspi_retry_delay": 0,
        # The bank comes before the proxy.
        "production_api_url": "https://proxy.example/api/v2/paymentkaspi",
    }
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        provider = providers_of(load_settings(env_file=None, env="test", **own | changes))["kaspi"]
        assert isinstance(provider, KaspiBank)
        stack.push_async_callback(provider.close)
        yield bank, provider


def by_phone(**changes: Any) -> Any:
    return an_order(
        **{"method": Method.PHONE, "phone": "7011234567", "currency": "KZT", "terms": TERMS} | changes
    )


async def refused(call: Any, kind: type[Refusal]) -> Any:
    with pytest.raises(kind) as caught:
        await call
    told = repr(caught.value) + repr(caught.value.__context__)
    assert DEVICE not in told
    assert "localhost" not in told
    return caught.value


async def test_from_the_device_to_the_refund(tmp_path: Path) -> None:
    async with running(tmp_path) as (bank, kaspi):
        assert await kaspi.trade_points(BIN) == [TradePoint(1, "Shop 1"), TradePoint(2, "")]
        assert await kaspi.register_device(BIN, 1, "till-1") == DEVICE
        order = by_phone()
        made = await kaspi.create(order)
        assert (made.standing, made.provider_id, made.word) == (Standing.OPEN, "12800000000", "Wait")
        asked = handle(order, made.provider_id)
        assert (await kaspi.look(asked)).standing is Standing.OPEN
        bank.payments[12_800_000_000]["Status"] = "Processed"
        paid = await kaspi.cancel(asked)
        assert (paid.standing, paid.amount, paid.currency, paid.refunded) == (Standing.PAID, 1_990, "KZT", 0)
        assert await kaspi.refund(asked, "key", 500) == RefundSight(True, "15", 500, "success")
        assert (await kaspi.look(asked)).refunded == 500
        poor = await refused(kaspi.refund(asked, "key", 1_491), DeclinedError)
        assert poor.detail == "Insufficient funds (code: -99000005)"
        merchant = {"OrganizationBin": BIN, "DeviceToken": DEVICE}
        sent = [body for path, body in bank.calls if path.endswith(("register", "remote/create", "return"))]
        assert sent[:3] == [
            {"DeviceId": "till-1", "OrganizationBin": BIN, "TradePointId": 1},
            {**merchant, "Amount": 19.9, "PhoneNumber": "7011234567", "Comment": "Two tickets"},
            {**merchant, "QrPaymentId": 12_800_000_000, "Amount": 5.0},
        ]
        link_order = by_phone(method=Method.PAYMENT_LINK)
        link = await kaspi.create(link_order)
        assert (link.url, link.names) == (
            "https://pay.kaspi.kz/pay/12800000001",
            {"expire_date": "2026-11-29T17:10:50.717+05:00"},
        )
        assert bank.calls[-1][1] == {**merchant, "Amount": 19.9, "ExternalId": str(link_order.attempt)}


async def test_a_refusal_and_an_unclear_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as (bank, kaspi):
        no_device = by_phone(terms={"organization_bin": BIN})
        assert (
            await refused(kaspi.create(no_device), DeclinedError)
        ).detail == "Device not found (code: -1501)"
        bank.quoted = f"No {DEVICE} at http://x.test/?DeviceToken={DEVICE}"
        assert (await refused(kaspi.create(by_phone()), DeclinedError)).detail == "No *** at *** (code: -7)"
        bank.quoted = ""
        for changes in ({"method": Method.HOSTED_CARD}, {"currency": "USD"}):
            assert (
                await refused(kaspi.create(by_phone(**changes)), DeclinedError)
            ).code == "provider_unsupported"
        for name in ("77", "../details", None):
            found = await refused(kaspi.look(handle(by_phone(), name)), UnknownError)
            assert found.code == "provider_cannot_tell"
        before = len(bank.calls)
        # Orders and refunds are sent once, whatever happens to their answers.
        order = by_phone()
        made = await kaspi.create(order)
        for trouble in UNKNOWABLE:
            for call in (kaspi.create(by_phone()), kaspi.refund(handle(order, made.provider_id), "k", 1)):
                bank.troubles.after.append(trouble)
                with patience(kaspi, trouble):
                    await refused(call, UnknownError)
        bank.troubles.before.append("busy")
        assert (await refused(kaspi.create(by_phone()), UnsentError)).retry_after == 7
        assert len(bank.calls) == before + 1 + 2 * len(UNKNOWABLE)
        # A question is asked again.
        bank.troubles.after.append("reset")
        assert (await kaspi.look(handle(order, made.provider_id))).standing is Standing.OPEN


async def test_a_key_that_cannot_be_read_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - OpenSSL's words differ
        async with running(tmp_path, kaspi_api_key_password="wrong"):
            pass
