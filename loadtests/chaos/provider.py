"""Stripe's side: signs events, sends them, and repeats each until it is acknowledged, as a provider does."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp
import msgspec

from loadtests.chaos.plan import Event, Plan
from ops.stripe_events import payment_intent_succeeded, stripe_signature

SECRET = "whsec_of_the_chaos_run"  # noqa: S105 - both sides of it run here
SOMEBODY_ELSES = "whsec_of_somebody_else"
CURRENCY = "USD"

#: Events on their way at once; beyond that the stream waits for the service.
MAX_SENDING = 256
#: An answer that takes longer counts as none, and the event is sent again.
ANSWER_TIMEOUT_SECONDS = 10.0
#: Waits between two tries of one event: doubled from the first to the last.
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 0.1, 2.0
#: An event that was acknowledged is sent again after up to so many seconds, if the plan says so.
LATE_SECONDS = 4.0

#: A provider may get these statuses. Any other is a fault of the service: an outage is 503, never 500.
ACCEPTED, REFUSED, AWAY = 200, 400, frozenset({429, 503})


def shop_account(shop: int) -> str:
    """The account of one of the shops."""
    return f"chaos:shop:{shop}"


@dataclass
class Journal:
    """The journal of events and answers. `acknowledged` has the messages of each event's 2xx answers."""

    sent: dict[str, Event] = field(default_factory=dict)
    forged: dict[str, Event] = field(default_factory=dict)
    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)

    def genuine(self) -> dict[str, Event]:
        """The events that are to be posted, by their intent."""
        return {event.intent: event for event in self.sent.values()}


class Provider:
    """Sends the stream of a plan. `release` says how far it may go."""

    def __init__(self, plan: Plan, stream: Iterable[Event], url: str, session: aiohttp.ClientSession) -> None:
        self.journal = Journal()
        self.started = 0
        self._plan = plan
        self._stream = stream
        self._url = f"{url}/webhooks/stripe"
        self._session = session
        self._random = random.Random(f"sending {plan.seed}")
        self._released = 0
        self._finished = False
        self._turn = asyncio.Condition()
        self._slots = asyncio.Semaphore(MAX_SENDING)
        self._stopped_at: float | None = None

    async def release(self, count: int) -> None:
        """Let the stream go on up to the event of this number."""
        async with self._turn:
            self._released = max(self._released, count)
            self._turn.notify_all()

    def give_up(self) -> None:
        """Send nothing again from now on: the service does not come back."""
        self._stopped_at = time.monotonic()

    def finish(self) -> None:
        """Begin with no further event."""
        self._finished = True

    async def run(self) -> None:
        """Send the whole stream, as it is released, and return when each event is acknowledged or given up."""
        interval, due = 1 / self._plan.rate, time.monotonic()
        async with asyncio.TaskGroup() as group:
            for event in self._stream:
                await self._released_past(event.number)
                if self._finished:
                    break
                await self._slots.acquire()
                due = max(due + interval, time.monotonic() - 1.0)
                await asyncio.sleep(due - time.monotonic())
                self.started += 1
                group.create_task(self._tell(event))

    async def _released_past(self, number: int) -> None:
        async with self._turn:
            await self._turn.wait_for(lambda: number < self._released)

    async def _tell(self, event: Event) -> None:
        try:
            if event.sending == "forged":
                self.journal.forged[event.id] = event
                await self._deliver(event, SOMEBODY_ELSES)
                return
            self.journal.sent[event.id] = event
            copies = 2 if event.sending == "twice" else 1
            await asyncio.gather(*(self._deliver(event, SECRET) for _ in range(copies)))
        finally:
            self._slots.release()
        if event.sending == "late":
            await asyncio.sleep(self._random.uniform(0.0, LATE_SECONDS))
            await self._deliver(event, SECRET)

    async def _deliver(self, event: Event, secret: str) -> None:
        """Send one event until it is answered for good. Every try has a signature of its own."""
        body = msgspec.json.encode(
            payment_intent_succeeded(
                shop_account(event.shop),
                event_id=event.id,
                intent=event.intent,
                amount=event.amount,
                currency=CURRENCY.lower(),
            )
        )
        wait = FIRST_WAIT_SECONDS
        while self._stopped_at is None and not await self._send(event, body, secret):
            await asyncio.sleep(wait * self._random.uniform(0.5, 1.0))
            wait = min(2 * wait, LAST_WAIT_SECONDS)

    async def _send(self, event: Event, body: bytes, secret: str) -> bool:
        """Send once; whether that was the last time."""
        headers = {
            "Content-Type": "application/json",
            "Stripe-Signature": stripe_signature(body, secret, int(time.time())),
        }
        try:
            async with self._session.post(self._url, data=body, headers=headers) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.journal.statuses[type(error).__name__] += 1
            return False
        self.journal.statuses[str(response.status)] += 1
        if response.status == ACCEPTED:
            message = str(msgspec.json.decode(answer)["message"])
            self.journal.acknowledged.setdefault(event.id, []).append(message)
            return True
        if response.status == REFUSED and secret is SOMEBODY_ELSES:
            return True
        if response.status not in AWAY:
            self.journal.unexpected.append(
                f"{event.id}: {response.status} {answer[:200].decode(errors='replace')}"
            )
        return False
