"""Payments of internal services over gRPC: a client that is made from the published .proto, TLS, health, reflection."""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_tools import protoc

from core import metrics
from handlers.payments.orchestration.grpc_server import GrpcServer
from handlers.payments.orchestration.grpc_service import NAME, address_of
from tests.handlers.payments.orchestration.conftest import Contract, Said
from tests.sharing import Part

pytestmark = pytest.mark.shared

ROOT = Path(__file__).parents[4]
PROTO = ROOT / "docs" / "proto"
WIRE = ROOT / "core" / "wire"


class Client:
    """A client of the generated code, which keeps the metadata of the last answer."""

    def __init__(self, channel: grpc.aio.Channel, messages: Any, stub: Any, key: str) -> None:
        self.messages = messages
        self.stub = stub(channel)
        self.key = key
        self.metadata: dict[str, Any] = {}

    async def ask(self, method: str, request: str, **fields: Any) -> Any:
        """Call a method; `entries` replaces those of the metadata."""
        metadata = fields.pop("entries", (("x-request-id", "g-1"), ("x-api-key", self.key)))
        call = getattr(self.stub, method)(
            getattr(self.messages, request)(**fields), metadata=metadata, timeout=30
        )
        answer = await call
        self.metadata = dict(await call.initial_metadata() or ())
        return answer

    async def refused(self, *asked: str, **fields: Any) -> tuple[str, str | None]:
        """Return the code and the text of a refusal."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(*asked, **fields)
        return caught.value.code().name, caught.value.details()


@asynccontextmanager
async def served(contract: Contract, **changes: Any) -> AsyncIterator[tuple[GrpcServer, int]]:
    contract.parts.settings = contract.parts.settings.model_copy(update=changes)
    server = GrpcServer(contract.parts, "127.0.0.1", 0)
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop(5)


def generated(folder: Path, *names: str) -> list[Any]:
    """Generate Python code from the published files, and import it."""
    options = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main(["protoc", f"-I{PROTO}", *options, *(f"{name}.proto" for name in names)]) == 0
    modules = [f"{name}_pb2{kind}" for name in names for kind in ("", "_grpc")]
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(module) for module in modules]
    finally:
        sys.path.remove(str(folder))
        for module in modules:
            sys.modules.pop(module, None)


@pytest.fixture
async def client(
    contract: Contract, part: Part, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Client]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Client]:
        messages, services = generated(tmp_path_factory.mktemp("generated"), "payments")
        async with (
            served(contract) as (_, port),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            key = await contract.key("gateway")
            yield Client(channel, messages, services.PaymentsServiceStub, key)

    async with part("grpc", opened) as found:
        yield found


def test_the_code_of_messages_is_what_the_compiler_makes_of_the_published_files(tmp_path: Path) -> None:
    generated(tmp_path, "payments", "auth")
    for name in ("payments_pb2.py", "payments_pb2.pyi", "auth_pb2.py", "auth_pb2.pyi"):
        assert (tmp_path / name).read_text() == (WIRE / name).read_text(), "run `make proto`"


async def test_a_generated_client_calls_all_six_methods(contract: Contract, client: Client) -> None:
    assert (await client.ask("Health", "HealthRequest")).status == "ok"
    assert client.metadata["x-request-id"] == "g-1"
    asked = contract.order(metadata={"a": "b"}, customer_ref="c-1", currency="usd")
    payment = (await client.ask("CreatePayment", "CreatePaymentRequest", **asked)).payment
    assert (payment.status, payment.currency, payment.refundable_cents) == (2, "USD", 1250)
    # Both transports show the same payment, and either repeats what the other has done.
    shown = (await contract.ask("GET", f"/payments/{payment.id}")).payment
    fields = {field.name: value for field, value in payment.ListFields()}
    assert fields | {"metadata": dict(payment.metadata)} == shown
    assert (await contract.ask("POST", "/payments", asked)).payment == shown
    assert (await client.ask("CreatePayment", "CreatePaymentRequest", **asked)).payment == payment
    assert (await client.ask("GetPayment", "GetPaymentRequest", id=payment.id)).payment == payment
    listed = await client.ask(
        "ListPayments",
        "ListPaymentsRequest",
        request_id=asked["request_id"],
        has_status=True,
        status=2,
        limit=5,
    )
    assert list(listed.payments) == [payment]
    assert not (await client.ask("ListPayments", "ListPaymentsRequest", offset=2**31 - 1)).payments
    said = await said_event(contract, shown)
    told = await client.ask("HandleProviderCallback", "HandleProviderCallbackRequest", request_id="g", **said)
    assert (told.message, told.HasField("payment")) == ("Provider callback processed", False)
    paid = (await client.ask("GetPayment", "GetPaymentRequest", id=payment.id)).payment
    assert paid.status == client.messages.PAYMENT_STATUS_PAID
    assert await client.refused("CancelPayment", "CancelPaymentRequest", id=payment.id) == (
        "INVALID_ARGUMENT", "invalid status: paid payments cannot be canceled",
    )  # fmt: skip
    other = (await client.ask("CreatePayment", "CreatePaymentRequest", **contract.order())).payment
    assert (await client.ask("CancelPayment", "CancelPaymentRequest", id=other.id)).payment.status == 30


async def said_event(contract: Contract, payment: dict[str, Any]) -> dict[str, str]:
    """Return what a gateway passes on of an event: the event is caught on its way to the HTTP route."""
    caught: dict[str, Any] = {}

    async def ask(_method: str, path: str, body: bytes, **more: Any) -> Said:
        caught.update(path=path, body=body, signature=more["headers"]["Stripe-Signature"])
        return Said(200, b"", {})

    asking, contract.ask = contract.ask, ask  # type: ignore[assignment, method-assign]
    try:
        await contract.event(payment)
    finally:
        contract.ask = asking  # type: ignore[method-assign]
    *_, provider, callback_hash = caught["path"].split("/")
    return {
        "provider": provider,
        "callback_hash": callback_hash,
        "signature": caught["signature"],
        "payload": caught["body"].decode(),
    }


async def test_refusals_have_the_contracts_codes_and_words(contract: Contract, client: Client) -> None:
    await contract.key("nobody", "another-service")
    request, key = ("x-request-id", "g-2"), ("x-api-key", client.key)
    get, create = ("GetPayment", "GetPaymentRequest"), ("CreatePayment", "CreatePaymentRequest")
    many = ("ListPayments", "ListPaymentsRequest")
    take = ("HandleProviderCallback", "HandleProviderCallbackRequest")
    asked = contract.order()
    await client.ask(*create, **asked)
    yearly = contract.order(payment_type=2, recurring_interval="YEAR", recurring_interval_count=1)
    event = {
        "request_id": "g",
        "provider": "stripe",
        "callback_hash": "h",
        "signature": "t=1,v1=",
        "payload": "{}",
    }
    for method, fields, expected in (
        (get, {"entries": (key,)}, ("INVALID_ARGUMENT", "x-request-id header is required")),
        (get, {"entries": (request,)}, ("UNAUTHENTICATED", "missing x-api-key metadata")),
        (get, {"entries": (request, ("x-api-key", "x"))}, ("UNAUTHENTICATED", "invalid or expired api key")),
        (get, {"entries": (request, ("x-api-key", contract.keys["nobody"]))}, ("PERMISSION_DENIED", "forbidden")),
        (get, {"id": 0}, ("INVALID_ARGUMENT", "invalid payment id")),
        (get, {"id": 2**64 - 1}, ("NOT_FOUND", "payment not found")),
        # The metadata's request id stands for no field here, and the interval has one spelling.
        (create, asked | {"request_id": ""}, ("INVALID_ARGUMENT", "request_id is required")),
        (create, yearly, ("INVALID_ARGUMENT", "recurring_interval must be day, week, month, or year")),
        (create, asked | {"amount_cents": 7}, ("ALREADY_EXISTS", "payment already exists")),
        (create, asked | {"provider": 9}, ("INVALID_ARGUMENT", "provider is invalid")),
        (many, {"limit": 501}, ("INVALID_ARGUMENT", "limit must be between 1 and 500")),
        (take, event | {"request_id": ""}, ("INVALID_ARGUMENT", "request_id is required")),
        (take, event | {"signature": " "}, ("INVALID_ARGUMENT", "provider signature is required")),
        (take, event, ("INVALID_ARGUMENT", "callback rejected")),
    ):  # fmt: skip
        assert await client.refused(*method, **fields) == expected
    await contract.simulate("PUT", "/faults", {"rules": [{"fault": "create:decline"}]})
    assert await client.refused(*create, **contract.order()) == ("INTERNAL", "internal server error")
    await contract.simulate("PUT", "/faults", {})
    large = contract.order(metadata={"a": "x" * 2**20})
    assert (await client.refused(*create, **large))[0] == "RESOURCE_EXHAUSTED"
    # Bytes that are no message are the caller's mistake; it hears of no part of ours, and its request id all the same.
    async with served(contract) as (_, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        raw: Any = channel.unary_unary(f"/{NAME}/CreatePayment")
        call = raw(b"\xff\xff", metadata=(request, key))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code().name, caught.value.details()) == (
            "INVALID_ARGUMENT",
            "the message is no CreatePaymentRequest",
        )
        assert dict(await call.initial_metadata())["x-request-id"] == "g-2"
    counted = metrics.totals("grpc_requests_total", "code")
    assert counted["OK"] > 0
    assert counted["INVALID_ARGUMENT"] > 0


async def test_sixty_four_equal_creates_over_both_transports_are_one(
    contract: Contract, client: Client
) -> None:
    asked = contract.order()
    over_grpc = [client.ask("CreatePayment", "CreatePaymentRequest", **asked) for _ in range(32)]
    over_http = [contract.ask("POST", "/payments", asked) for _ in range(32)]
    messages, answers = await asyncio.gather(asyncio.gather(*over_grpc), asyncio.gather(*over_http))
    assert len({*(one.payment.id for one in messages), *(one.payment["id"] for one in answers)}) == 1


async def test_health_and_reflection_want_no_key(contract: Contract, eventually: Any) -> None:
    async with (
        served(contract) as (_, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)

        async def status() -> int:
            asked = health_pb2.HealthCheckRequest(service=NAME)
            try:
                return int((await health.Check(asked)).status)
            except grpc.aio.AioRpcError:
                return 0

        await eventually(status)
        assert await status() == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = [service.name async for one in call for service in one.list_services_response.service]
        assert {NAME, "grpc.health.v1.Health"} <= set(listed)
        # An auth service is no part of it, so that it can never ask itself.
        for method in ("/payments.PaymentsService/Refund", "/auth.AuthService/ValidateInternalAccess"):
            unknown: Any = channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unknown(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_call_under_way_ends_when_the_server_stops(contract: Contract) -> None:
    key = await contract.key("gateway")
    entered, go = asyncio.Event(), asyncio.Event()
    create = contract.parts.desk.create

    async def slow(*asked: Any) -> Any:
        entered.set()
        await go.wait()
        return await create(*asked)

    contract.parts.desk.create = slow  # type: ignore[method-assign, assignment]
    try:
        async with served(contract) as (server, port):
            from core.wire import payments_pb2  # noqa: PLC0415

            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            request = payments_pb2.CreatePaymentRequest(**contract.order())
            call = channel.unary_unary(
                f"/{NAME}/CreatePayment",
                request_serializer=payments_pb2.CreatePaymentRequest.SerializeToString,
                response_deserializer=payments_pb2.PaymentEnvelopeResponse.FromString,
            )(request, metadata=(("x-request-id", "g"), ("x-api-key", key)))
            waiting = asyncio.ensure_future(call)
            await entered.wait()
            stopping = asyncio.create_task(server.stop(10))
            await asyncio.sleep(0)
            go.set()
            await stopping
            assert (await waiting).payment.status == 2
            await channel.close()
    finally:
        contract.parts.desk.create = create  # type: ignore[method-assign]


async def test_tls_with_certificates_of_callers(contract: Contract, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    files = {
        "grpc_tls_cert_file": str(certificate),
        "grpc_tls_key_file": str(key),
        "grpc_tls_client_ca_file": str(certificate),
    }
    unset = dict.fromkeys(files, "")
    async with served(contract, **files) as (_, port):
        contract.parts.settings = contract.parts.settings.model_copy(update=unset)
        root = certificate.read_bytes()
        for shown, good in (
            ({}, False),
            ({"private_key": key.read_bytes(), "certificate_chain": root}, True),
        ):
            credentials = grpc.ssl_channel_credentials(root, **shown)
            async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                asked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
                if good:
                    assert (await asked).status
                else:
                    with pytest.raises(grpc.aio.AioRpcError):
                        await asked


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of localhost that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def test_addresses_of_peers() -> None:
    peers = {"ipv4:10.0.0.7:5000": "10.0.0.7", "ipv6:%5B::1%5D:5000": "::1", "unix:/tmp/x": ""}
    assert {peer: address_of(peer) for peer in peers} == peers
