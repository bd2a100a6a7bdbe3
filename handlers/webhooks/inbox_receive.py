"""Webhooks in: the routes to which providers send their events. Before the answer an event is verified and stored.

The answers have the form of the contract: `{"status","message","event_id"}`, or a `detail` in its words. The message of
a new event says what has happened by then, `received`: a worker applies the event afterwards.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import web
from multidict import CIMultiDictProxy

from core import metrics
from core.errors import Unavailable
from core.inbox import cloudpayments
from core.inbox.cloudpayments import CloudPaymentsVerifier
from core.inbox.cloudpayments_check import answer_check
from core.inbox.intake import Intake
from core.inbox.paypal import api as paypal_api
from core.inbox.paypal import transmissions as paypal
from core.inbox.paypal.certificates import Certificates
from core.inbox.paypal.client import Client
from core.inbox.rules import RULES
from core.inbox.source_verifiers import SourceVerifier, SourceVerifiers
from core.inbox.sources import Options
from core.inbox.stripe import StripeVerifier
from core.inbox.verifying import NotGenuine, Verifier
from core.providers import simulator
from core.service import Service
from core.settings import Settings
from core.settings.providers import PAYPAL_CERT_HOSTS
from core.vault import Vault
from core.work.wakeup import Waker
from handlers.http.route import Call, Route, answer, table

if TYPE_CHECKING:
    from core.inbox.intake import NewEvent

log = structlog.get_logger(__name__)

# The message for an event that is stored now and applied later.
STORED = "received"
# The label of metrics for a type that we do not know, since each type makes a series. Dashboards expect this word.
OTHER_TYPE = "webhook"


@dataclass(frozen=True, slots=True)
class Inbound:
    """The parts that the routes of webhooks share in one process."""

    intake: Intake
    refusals: RefusalLog
    stripe: Verifier
    paypal: Verifier
    cloudpayments: Mapping[str, Verifier]
    simulator: Verifier
    sources: SourceVerifiers


class RefusalLog:
    """The log of refused signatures: one line a second at most, since a line costs more than the refusal itself."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._unsaid = 0

    def note(self, provider: str, reason: str) -> None:
        """Count a refusal, and write a line unless one was written within the last second."""
        now = time.monotonic()
        self._unsaid += 1
        if now >= self._silent_until:
            log.warning("webhook.refused", provider=provider, reason=reason, refused=self._unsaid)
            self._silent_until, self._unsaid = now + 1.0, 0


@asynccontextmanager
async def open_inbound(service: Service) -> AsyncIterator[Inbound]:
    """Open the parts; at the end store the events that were accepted and send the last wake-up."""
    settings = service.settings
    async with AsyncExitStack() as stack:
        waker = Waker(service.redis, service.epoch)
        stack.push_async_callback(waker.close)
        intake = Intake(service.database, waker)
        stack.push_async_callback(intake.close)
        client = Client(settings.paypal_roots_file)
        stack.push_async_callback(client.close)
        yield Inbound(
            intake=intake,
            refusals=RefusalLog(),
            stripe=StripeVerifier(settings.stripe_signing_secrets, settings.stripe_timestamp_tolerance),
            paypal=_paypal(settings, client),
            cloudpayments={
                kind: CloudPaymentsVerifier(settings.cloudpayments_api_secrets, kind)
                for kind in cloudpayments.KINDS
            },
            simulator=_simulator(settings),
            sources=SourceVerifiers(service.database, Vault.of(settings)),
        )


def _paypal(settings: Settings, client: Client) -> Verifier:
    mode = settings.paypal_mode
    if mode == "demo_hmac":
        return paypal.DemoVerifier(settings.demo_hmac_secret)
    certificates = Certificates(
        client, hosts=settings.paypal_cert_hosts or PAYPAL_CERT_HOSTS[mode], sandbox=mode == "sandbox"
    )
    if settings.paypal_verify == "offline":
        return paypal.OfflineVerifier(settings.paypal_webhook_id, certificates)
    api = paypal_api.VerificationApi(
        client,
        base_url=settings.paypal_api_base or paypal_api.BASES[mode],
        client_id=settings.paypal_client_id,
        client_secret=settings.paypal_client_secret,
    )
    return paypal.ApiVerifier(settings.paypal_webhook_id, certificates, api)


def _simulator(settings: Settings) -> Verifier:
    """Return the verifier of the provider simulator. In production no secret is good: it takes no money."""
    secret = settings.simulator_webhook_secret if settings.env != "prod" else ""
    return SourceVerifier(
        simulator.NAME, "standard", Options(object_id="/data/id"), [secret] if secret else [], simulator.NAME
    )


class WebhookAnswer(msgspec.Struct, frozen=True):
    """The answer to a provider whose event is stored, now or before."""

    status: str
    message: str
    event_id: str | None


class CloudPaymentsAnswer(msgspec.Struct, frozen=True):
    """The answer to CloudPayments. 0 is yes; a notification gets no other code."""

    code: int


async def receive_stripe(call: Call) -> web.Response:
    """Take in an event of Stripe."""
    return await receive(call, call.parts.inbound.stripe)


async def receive_paypal(call: Call) -> web.Response:
    """Take in an event of PayPal."""
    return await receive(call, call.parts.inbound.paypal)


async def receive_simulator(call: Call) -> web.Response:
    """Take in an event of the provider simulator."""
    return await receive(call, call.parts.inbound.simulator)


async def receive_from_source(call: Call) -> web.Response:
    """Take in an event of a registered source."""
    return await receive(call, await call.parts.inbound.sources.get(call.path("source")))


async def receive_cloudpayments(call: Call) -> web.Response:
    """Take in a notification of CloudPayments, or answer its `check` whether a payment may be made."""
    kind = call.path("kind")
    verifier = call.parts.inbound.cloudpayments[kind]
    if kind == "check":
        event = await _verified(call, verifier)
        fields = cloudpayments.read_fields(event.body)
        return answer(200, CloudPaymentsAnswer(await answer_check(call.service.database, fields)))
    await _take_in(call, verifier)
    return answer(200, CloudPaymentsAnswer(cloudpayments.ACCEPTED))


async def receive(call: Call, verifier: Verifier, stored: str = STORED) -> web.Response:
    """Take in an event; `stored` is the message for a new one."""
    event, new = await _take_in(call, verifier)
    message = stored if new else "duplicate ignored"
    return answer(200, WebhookAnswer("ok", message, event.event_id))


async def _take_in(call: Call, verifier: Verifier) -> tuple[NewEvent, bool]:
    """Verify and store an event; return it, durable by then, and whether it is new."""
    started = time.perf_counter()
    status, event_type = "failed", OTHER_TYPE
    try:
        event = await _verified(call, verifier)
        if (event.provider, event.event_type) in RULES:
            event_type = event.event_type
        new = await call.parts.inbound.intake.receive(event)
        status = "processed" if new else "duplicate"
        return event, new
    except Unavailable:
        status = "error"
        raise
    finally:
        metrics.observe_webhook(verifier.provider, event_type, status, time.perf_counter() - started)


async def _verified(call: Call, verifier: Verifier) -> NewEvent:
    try:
        event = await verifier.verify(call.raw, _Headers(call.request.headers), time.time())
    except NotGenuine as refusal:
        metrics.observe_signature(verifier.provider, valid=False)
        call.parts.inbound.refusals.note(verifier.provider, refusal.reason)
        raise
    metrics.observe_signature(verifier.provider, valid=True)
    return event


class _Headers(Mapping[str, str]):
    """The headers of a request as verifiers read them: by lower-case names, and a repeated one joined with commas.

    A proxy may have split a header in two; RFC 9110, section 5.3, says that both mean their values joined. Verifiers
    read a few of a dozen headers, so that none is touched before.
    """

    __slots__ = ("_headers",)

    def __init__(self, headers: CIMultiDictProxy[str]) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        return ",".join(self._headers.getall(name))

    def get(self, name: str, default: Any = None) -> Any:
        # The general way raises and catches KeyError for a header that is not there.
        values = self._headers.getall(name, None)
        return default if values is None else ",".join(values)

    def __contains__(self, name: object) -> bool:
        return name in self._headers

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): None for name in self._headers})

    def __len__(self) -> int:
        return len({name.lower() for name in self._headers})


# The codes at which a provider should come again.
_LATER = ("database_unavailable", "overloaded", "shutting_down")

_REFUSALS = ("invalid_signature", "malformed_json", "invalid_request", *_LATER)
_TAG = "webhooks in"

_ROUTES = table(
    Route(
        "POST", "/webhooks/stripe", receive_stripe, "receive_stripe_event", "Take in an event of Stripe",
        description="The raw bytes are verified against `Stripe-Signature` with every active secret, stored once "
        "by the event's id, and acknowledged when they are durable. The event is applied afterwards, by a "
        "worker.",
    ),
    Route(
        "POST", "/webhooks/paypal", receive_paypal, "receive_paypal_event", "Take in an event of PayPal",
        description="The event is verified by the certificate that `PAYPAL-CERT-URL` names, when that is PayPal's, or "
        "(PAYPAL_VERIFY=api) by asking PayPal; in the mode demo_hmac by `X-Demo-Signature`.",
    ),
    Route(
        "POST", "/webhooks/cloudpayments/{kind}", receive_cloudpayments, "receive_cloudpayments_notification",
        "Take in a notification of CloudPayments", parameters={"kind": cloudpayments.Kind},
        answers={200: CloudPaymentsAnswer},
        description="Forms and JSON are verified by `Content-HMAC` or `X-Content-HMAC`. `check` is answered at once: "
        "0, or 11, 12 or 13 when the account, the amount or the moment is wrong; the others are stored and "
        "answered with 0.",
    ),
    Route(
        "POST", "/webhooks/simulator", receive_simulator, "receive_simulator_event",
        "Take in an event of the provider simulator",
        description="The event is verified by Standard Webhooks under SIMULATOR_WEBHOOK_SECRET. In production every "
        "one is refused, since the simulator takes no money.",
    ),
    Route(
        "POST", "/webhooks/in/{source}", receive_from_source, "receive_source_event",
        "Take in an event of a registered source", problems=("not_found", *_REFUSALS),
        description="The event is verified as its source was registered under /v1/webhook-sources.",
    ),
    tag=_TAG, raw=True, problems=_REFUSALS, answers={200: WebhookAnswer},
)  # fmt: skip

# A provider follows no redirect, and its user may have typed a slash too many: that path answers like the other.
ROUTES = (*_ROUTES, *(replace(route, path=f"{route.path}/", hidden=True) for route in _ROUTES))
