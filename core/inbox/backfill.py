"""Missed events: the events that a provider could not deliver are fetched from it and taken in like any other.

A fetched event has no signature. We believe it because we asked the provider over TLS with our own key. Asking for too
much does no harm, because the inbox knows an event that it has already by its id.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import aiohttp
import msgspec
import structlog

from core.errors import Refusal
from core.inbox import stripe
from core.inbox.paypal import transmissions as paypal
from core.inbox.paypal.api import BASES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from core.inbox.intake import Intake, NewEvent
    from core.settings import Settings

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")

# This name stands in the place of the headers that a sent event has; its value is the URL that the event came from.
FETCHED: Final = "tallystick-fetched"

# Stripe gives at most so many at once (https://docs.stripe.com/api/events/list); PayPal names no bound.
PAGE_EVENTS: Final = 100
# One run fetches at most 100,000 events. The next run goes on, because the inbox knows these by then.
MAX_PAGES: Final = 1_000
# A page of a hundred of the largest events that a webhook of ours may have.
MAX_PAGE_BYTES: Final = 128 * 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
# PayPal makes its list while the caller waits.
PAYPAL_TIMEOUT_SECONDS: Final = 30.0
GOOD: Final = 200


class Fetched(NamedTuple):
    """The counts of a run, in events: all that the provider listed, the new ones, and the unreadable ones."""

    listed: int = 0
    new: int = 0
    unreadable: int = 0


class _StripePage(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


class _PayPalPage(msgspec.Struct):
    events: list[msgspec.Raw] = []


class _Token(msgspec.Struct):
    access_token: str


class _Run:
    """One run over the pages of one provider; `found` holds its counts so far."""

    def __init__(self, intake: Intake, on_page: Callable[[Fetched], None]) -> None:
        self._intake = intake
        self._on_page = on_page
        self.found = Fetched()

    async def take_in(self, provider: str, events: Sequence[NewEvent | None], url: str) -> list[NewEvent]:
        """Store the events of a page and return them; unreadable ones (None) are counted and logged."""
        readable = [event._replace(headers={FETCHED: url}) for event in events if event is not None]
        if lost := len(events) - len(readable):
            log.warning("backfill.unreadable", provider=provider, events=lost)
        stored = await asyncio.gather(*(self._intake.receive(event) for event in readable))
        listed, new, unreadable = self.found
        self.found = Fetched(listed + len(events), new + sum(stored), unreadable + lost)
        self._on_page(self.found)
        return readable


async def backfill_stripe(
    settings: Settings,
    intake: Intake,
    since: datetime,
    *,
    on_page: Callable[[Fetched], None] = lambda _: None,
) -> Fetched:
    """Take in the events since `since` that Stripe could not deliver to all of its endpoints, the newest first.

    Stripe keeps events for 30 days. Raises Refusal `provider_key_missing` without STRIPE_SECRET_KEY,
    `provider_unreachable`, and `provider_refused` for an answer that is not a list of events.
    (https://docs.stripe.com/webhooks/process-undelivered-events)
    """
    if not settings.stripe_secret_key:
        raise Refusal("provider_key_missing", "STRIPE_SECRET_KEY is unset: Stripe cannot be asked.")
    run = _Run(intake, on_page)
    timeout = aiohttp.ClientTimeout(total=settings.stripe_http_timeout_seconds)
    headers = {"Authorization": f"Bearer {settings.stripe_secret_key}"}
    url = f"{settings.stripe_api_base}/v1/events"
    query = {
        "limit": str(PAGE_EVENTS),
        "delivery_success": "false",
        "created[gte]": str(int(since.timestamp())),
    }
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        for _ in range(MAX_PAGES):
            page = await _ask(session.get(url, params=query, allow_redirects=False), _StripePage)
            readable = await run.take_in(
                stripe.PROVIDER,
                [_read(lambda raw: stripe.read_event(raw, ""), raw) for raw in page.data],
                url,
            )
            if not page.has_more or not readable:
                break
            query["starting_after"] = readable[-1].event_id
        else:
            log.warning("backfill.cut", provider=stripe.PROVIDER, pages=MAX_PAGES)
    log.info("backfill.done", provider=stripe.PROVIDER, since=since.isoformat(), **run.found._asdict())
    return run.found


async def backfill_paypal(
    settings: Settings,
    intake: Intake,
    since: datetime,
    *,
    on_page: Callable[[Fetched], None] = lambda _: None,
) -> Fetched:
    """Take in the events since `since`, delivered or not, because PayPal's list does not tell. The newest come first.

    PayPal does not document in full how pages are continued. Each page is therefore asked for by time, up to the oldest
    event of the page before it, until a page has nothing that this run has not seen. Raises the refusals of
    `backfill_stripe`, `provider_key_missing` without PAYPAL_CLIENT_ID and PAYPAL_CLIENT_SECRET.
    (https://developer.paypal.com/docs/api/webhooks/v1/#webhooks-events_list)
    """
    base = settings.paypal_api_base or BASES.get(settings.paypal_mode, "")
    if not (settings.paypal_client_id and settings.paypal_client_secret and base):
        raise Refusal(
            "provider_key_missing",
            "PAYPAL_CLIENT_ID or PAYPAL_CLIENT_SECRET is unset: PayPal cannot be asked.",
        )
    run = _Run(intake, on_page)
    url = f"{base}/v1/notifications/webhooks-events"
    seen: set[str] = set()
    until = datetime.now(UTC)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PAYPAL_TIMEOUT_SECONDS)) as session:
        headers = {"Authorization": f"Bearer {await _paypal_token(session, base, settings)}"}
        for _ in range(MAX_PAGES):
            query = {"page_size": str(PAGE_EVENTS), "start_time": _second(since), "end_time": _second(until)}
            page = await _ask(
                session.get(url, params=query, headers=headers, allow_redirects=False), _PayPalPage
            )
            events = [_read(lambda raw: paypal.read_event(raw, {}), raw) for raw in page.events]
            fresh = [event for event in events if event is None or event.event_id not in seen]
            readable = await run.take_in(paypal.PROVIDER, fresh, url)
            seen.update(event.event_id for event in readable)
            times = [event.occurred_at for event in readable if event.occurred_at is not None]
            if not times:
                break
            until = min(times)
        else:
            log.warning("backfill.cut", provider=paypal.PROVIDER, pages=MAX_PAGES)
    log.info("backfill.done", provider=paypal.PROVIDER, since=since.isoformat(), **run.found._asdict())
    return run.found


async def _paypal_token(session: aiohttp.ClientSession, base: str, settings: Settings) -> str:
    answer = await _ask(
        session.post(
            f"{base}/v1/oauth2/token",
            headers={
                "Authorization": aiohttp.encode_basic_auth(
                    settings.paypal_client_id, settings.paypal_client_secret
                )
            },
            data={"grant_type": "client_credentials"},
            allow_redirects=False,
        ),
        _Token,
    )
    token = answer.access_token
    if not (token.isascii() and token.isprintable()):
        raise Refusal("provider_refused", "The provider's token cannot be sent.")
    return token


def _second(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _ask(call: AbstractAsyncContextManager[aiohttp.ClientResponse], kind: type[Answer]) -> Answer:
    """Make a call and return its answer of at most MAX_PAGE_BYTES; the client bounds the time."""
    try:
        async with call as response:
            if response.status != GOOD:
                raise Refusal("provider_refused", f"The provider answers {response.status}.")
            body = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_PAGE_BYTES:
                    raise Refusal("provider_refused", "The provider's answer is longer than it may be.")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Refusal(
            "provider_unreachable", f"The provider cannot be reached: {type(error).__name__}."
        ) from error
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("provider_refused", "The provider's answer cannot be read.") from None


def _read(read: Callable[[bytes], NewEvent], raw: msgspec.Raw) -> NewEvent | None:
    try:
        return read(bytes(raw))
    except Refusal:
        return None
