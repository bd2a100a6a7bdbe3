"""Webhooks in: how many signed events are taken, how soon they are acknowledged, what a forged one costs."""

import time

import msgspec

from loadtests.bench.clients.workload import (
    CURRENCY,
    STRIPE_PATH,
    STRIPE_SECRET,
    UNKNOWN_SECRET,
    Caller,
    Workload,
)
from loadtests.bench.measures import BASE, Step, run_rounds
from loadtests.bench.meter import EVENTS, Meter
from loadtests.bench.stand import Sample, Stand, StandError, fetch
from ops.stripe_events import payment_intent_succeeded, stripe_signature

INGEST = "ingest"


async def ingest(stand: Stand, meter: Meter) -> None:
    """Whichever of ingest, ack and refusal the plan has. The worker is off: what is measured ends with the commit."""
    plan = stand.plan
    await stand.create_database(INGEST, BASE)
    async with stand.api(INGEST, worker=False) as api:
        accepted, refused = (
            await sample_answer(api, STRIPE_SECRET, 200),
            await sample_answer(api, UNKNOWN_SECRET, 400),
        )
        await meter.warm(api.event(), api, plan.event_connections, plan.warm_seconds)
        if plan.has("ingest"):
            async with stand.floor(accepted) as floor:
                await meter.warm(floor.event(), floor, plan.event_connections, plan.warm_seconds)
                steps = [_step(stand, meter, "floor1.event", floor), _step(stand, meter, "event", api)]
                await run_rounds(stand, meter, steps)
        if plan.has("ack"):
            await run_rounds(stand, meter, [_ack_step(stand, meter, api, rate) for rate in plan.ack_rates])
        if plan.has("refusal"):
            async with stand.floor(refused) as floor:
                await meter.warm(floor.forged_event(), floor, plan.event_connections, plan.warm_seconds)
                steps = [
                    _step(stand, meter, "floor1.forged", floor, forged=True),
                    _step(stand, meter, "forged", api, forged=True),
                ]
                await run_rounds(stand, meter, steps)


async def sample_answer(api: Caller, secret: str, status: int) -> Sample:
    """One real answer, which shows that the service takes events, and what its answer looks like."""
    event = payment_intent_succeeded(
        "acct-000001", event_id="evt_sample", intent="pi_sample", currency=CURRENCY.lower()
    )
    body = msgspec.json.encode(event)
    signature = stripe_signature(body, secret, int(time.time()))
    sample = await fetch(api, "POST", STRIPE_PATH, body, **{"Stripe-Signature": signature})
    if sample.status != status:
        text = sample.body.decode(errors="replace")
        raise StandError(f"an event was answered {sample.status} and not {status}: {text}")
    return sample


def _step(stand: Stand, meter: Meter, name: str, caller: Caller, *, forged: bool = False) -> Step:
    plan = stand.plan
    connections = plan.event_connections

    async def take() -> None:
        workload: Workload = caller.forged_event() if forged else caller.event()
        await meter.http(name, workload, caller, connections=connections, seconds=plan.seconds, unit=EVENTS)

    return name, take


def _ack_step(stand: Stand, meter: Meter, api: Caller, rate: int) -> Step:
    plan = stand.plan
    name = f"ack@{rate}"

    async def take() -> None:
        await meter.http(
            name,
            api.event(repeats=0.5),
            api,
            connections=plan.ack_connections,
            seconds=plan.seconds,
            unit=EVENTS,
            rate=rate,
        )

    return name, take
