"""Webhooks in: where providers send their events. Verify, store, answer; nothing else happens before the answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiohttp import web

from core import metrics
from core.errors import Unavailable
from core.inbox.intake import Intake
from core.inbox.rules import RULES
from core.inbox.stripe import StripeVerifier
from core.inbox.verifying import NotGenuine, Verifier
from core.outbox.destinations import Destinations
from core.service import Service
from core.wakeup import Waker
from handlers.api import Call, Route, answer

if TYPE_CHECKING:
    from core.inbox.intake import Receipt

log = structlog.get_logger(__name__)

# What the existing dashboards call every event; types that we do not know would make a series each.
OTHER_TYPE = "webhook"


@dataclass(frozen=True, slots=True)
class Inbound:
    """What the routes of webhooks share in one process."""

    intake: Intake
    destinations: Destinations
    refusals: RefusalLog
    stripe: Verifier


class RefusalLog:
    """Says in the log that signatures are refused: once a second, since a line costs more than the refusal itself."""

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


INBOUND: web.AppKey[Inbound] = web.AppKey("inbound", Inbound)


@asynccontextmanager
async def open_inbound(service: Service) -> AsyncIterator[Inbound]:
    """Open it; at the end store what was accepted and send the last wake-up."""
    settings = service.settings
    waker = Waker(service.redis, service.epoch)
    intake = Intake(service.database, waker)
    try:
        yield Inbound(
            intake=intake,
            destinations=Destinations.of(settings.outbound_allow_hosts, require_https=settings.env == "prod"),
            refusals=RefusalLog(),
            stripe=StripeVerifier(settings.stripe_signing_secrets, settings.stripe_timestamp_tolerance),
        )
    finally:
        await intake.close()
        await waker.close()


class WebhookAnswer(msgspec.Struct, frozen=True):
    """What a provider is told: the event is stored, now or before."""

    status: str
    message: str
    event_id: str | None


async def receive_stripe(call: Call) -> web.Response:
    """Take in an event of Stripe."""
    return await _receive(call, call.request.app[INBOUND].stripe)


async def _receive(call: Call, verifier: Verifier) -> web.Response:
    receipt, new = await _take_in(call, verifier)
    message = "processed" if new else "duplicate ignored"
    return answer(200, WebhookAnswer("ok", message, receipt.event_id))


async def _take_in(call: Call, verifier: Verifier) -> tuple[Receipt, bool]:
    """Verify and store an event; say whether it is new. It is durable when this returns."""
    started = time.perf_counter()
    status, event_type = "failed", OTHER_TYPE
    try:
        receipt = await _verified(call, verifier)
        if (receipt.provider, receipt.event_type) in RULES:
            event_type = receipt.event_type
        new = await call.request.app[INBOUND].intake.receive(receipt)
        status = "processed" if new else "duplicate"
        return receipt, new
    except Unavailable:
        status = "error"
        raise
    finally:
        metrics.observe_webhook(verifier.provider, event_type, status, time.perf_counter() - started)


async def _verified(call: Call, verifier: Verifier) -> Receipt:
    try:
        receipt = await verifier.verify(call.raw, _headers(call.request), time.time())
    except NotGenuine as refusal:
        metrics.observe_signature(verifier.provider, valid=False)
        call.request.app[INBOUND].refusals.note(verifier.provider, refusal.reason)
        raise
    metrics.observe_signature(verifier.provider, valid=True)
    return receipt


def _headers(request: web.Request) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        # A proxy may have split a header in two; joining them is what RFC 9110, section 5.3, says they mean.
        found[key] = f"{found[key]},{value}" if key in found else value
    return found


# What a provider hears of when it should come again.
_LATER = ("database_unavailable", "overloaded", "shutting_down")

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/webhooks/stripe",
        receive_stripe,
        "receive_stripe_event",
        "Take in an event of Stripe",
        "webhooks in",
        raw=True,
        surface="webhooks",
        answers={200: WebhookAnswer},
        problems=("invalid_signature", "malformed_json", "invalid_request", *_LATER),
        description=(
            "The raw bytes are verified against `Stripe-Signature` with every active secret, stored once by the event's"
            " id, and acknowledged when they are durable. What the event does is done afterwards, by a worker."
        ),
    ),
)
