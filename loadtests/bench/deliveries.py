"""Webhooks out: the time to a delivery, deliveries a second, and the effect of sick receivers on healthy ones."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec

from loadtests.bench import outbox
from loadtests.bench.clients.client import ClientResult, run_client
from loadtests.bench.clients.workload import Caller
from loadtests.bench.figures import latency_summary
from loadtests.bench.measures import BASE, Step, run_rounds
from loadtests.bench.meter import DELIVERIES, Meter
from loadtests.bench.pipeline.arrivals import arrivals_of, forget
from loadtests.bench.stand import SETTLE_SECONDS, Stand, StandError, fetch, wait_until
from ops.process import choose_port

DELIVERY, SUSTAINED, HEALTHY, SICK = "delivery", "sustained", "healthy", "sick"
#: This principal owns the accounts, so the events of their payments go to it.
OWNER = "bench"
PAYMENTS = "payment.succeeded"
#: One principal may have so many endpoints.
ENDPOINTS_OF_PRINCIPAL = 100
CONNECTIONS = 16


async def delivery(stand: Stand, meter: Meter) -> None:
    """The way from the written event to the receiver at fixed rates; then as many deliveries as go through."""
    plan = stand.plan
    await stand.create_database(DELIVERY, BASE)
    async with stand.receiver() as receiver, stand.api(DELIVERY) as api:
        await subscribe(api, [hook(receiver, "0")], PAYMENTS)
        await _take(
            stand,
            DELIVERY,
            api,
            receiver,
            endpoints=1,
            rate=min(plan.delivery_rates),
            seconds=plan.warm_seconds,
        )

        steps = [_rate_step(stand, meter, api, receiver, rate) for rate in plan.delivery_rates]
        await run_rounds(stand, meter, steps)
    for endpoints in plan.sustained_endpoints:
        await _sustained(stand, meter, endpoints)


def _rate_step(stand: Stand, meter: Meter, api: Caller, receiver: Caller, rate: int) -> Step:
    name = f"delivery@{rate}"

    async def take() -> None:
        work = _take(stand, DELIVERY, api, receiver, endpoints=1, rate=rate, seconds=stand.plan.seconds)
        await meter.measure(name, work, connections=CONNECTIONS, unit=DELIVERIES)

    return name, take


async def _sustained(stand: Stand, meter: Meter, endpoints: int) -> None:
    """Writes the events for so many deliveries at once and counts how fast they arrive, fan-out included."""
    plan = stand.plan
    url = await stand.create_database(SUSTAINED, BASE)
    owners = [f"{OWNER} {number}" for number in range(-(-endpoints // ENDPOINTS_OF_PRINCIPAL))]
    each = max(plan.sustained_deliveries // endpoints, 1)
    async with stand.receiver() as receiver, stand.api(SUSTAINED) as api:
        for number, owner in enumerate(owners):
            caller = msgspec.structs.replace(api, token=await stand.subject.key(url, owner))
            first = number * ENDPOINTS_OF_PRINCIPAL
            names = range(first, min(first + ENDPOINTS_OF_PRINCIPAL, endpoints))
            await subscribe(caller, [hook(receiver, str(name)) for name in names], outbox.BACKLOG_TYPE)

        work = sustain(stand, SUSTAINED, receiver, owners, each, endpoints=endpoints)
        await meter.measure(f"sustained@{endpoints}", work, connections=endpoints, unit=DELIVERIES)


async def sustain(
    stand: Stand, database: str, receiver: Caller, owners: Sequence[str], each: int, *, endpoints: int
) -> ClientResult:
    """Writes so many events of each owner at once; the time is that from the first arrival to the last."""
    await forget(receiver)
    async with stand.connect(database) as connection:
        for owner in owners:
            await outbox.emit(connection, owner, each)
    arrivals = await arrivals_of(receiver, each * endpoints)
    moments = sorted(arrival.moment for arrival in arrivals)
    missing = each * endpoints - len(moments)
    return ClientResult(
        requests=len(moments),
        seconds=moments[-1] - moments[0] if len(moments) > 1 else 0.0,
        latency_ms={},
        errors={"missing": missing} if missing > 0 else {},
        client="receiver",
    )


async def isolation(stand: Stand, meter: Meter) -> None:
    """The same traffic to healthy receivers, alone and beside dead and slow ones with a backlog, in turns."""
    plan = stand.plan

    async def take(name: str, database: str, *, sick: bool) -> None:
        async with _receivers(stand, database, sick=sick) as (api, receiver):
            await _take(
                stand, database, api, receiver, endpoints=plan.isolation_healthy, rate=plan.isolation_rate,
                seconds=plan.warm_seconds,
            )  # fmt: skip
            work = _take(
                stand, database, api, receiver, endpoints=plan.isolation_healthy, rate=plan.isolation_rate,
                seconds=plan.seconds,
            )  # fmt: skip
            await meter.measure(name, work, connections=CONNECTIONS, unit=DELIVERIES)

    async def alone() -> None:
        await take("isolation.alone", HEALTHY, sick=False)

    async def beside() -> None:
        await take("isolation.beside", SICK, sick=True)

    await run_rounds(stand, meter, [("isolation.alone", alone), ("isolation.beside", beside)])


@contextlib.asynccontextmanager
async def _receivers(stand: Stand, database: str, *, sick: bool) -> AsyncIterator[tuple[Caller, Caller]]:
    """A service with healthy endpoints, and if asked for with dead and slow ones that have their backlog by then."""
    plan = stand.plan
    await stand.create_database(database, BASE)
    async with stand.receiver() as receiver, stand.api(database) as api:
        await subscribe(
            api, [hook(receiver, str(number)) for number in range(plan.isolation_healthy)], PAYMENTS
        )
        if sick:
            nobody = choose_port(None)
            dead = [f"http://{receiver.host}:{nobody}/dead/{n}" for n in range(plan.isolation_sick // 2)]
            slow = [
                f"http://{receiver.host}:{receiver.port}/slow/{n}"
                for n in range(plan.isolation_sick - len(dead))
            ]
            await subscribe(api, [*dead, *slow], outbox.BACKLOG_TYPE)
            async with stand.connect(database) as connection:
                await outbox.emit(connection, OWNER, plan.isolation_backlog // plan.isolation_sick)
                if not await wait_until(lambda: outbox.is_fanned_out(connection), SETTLE_SECONDS):
                    raise StandError("the backlog was not fanned out")
        yield api, receiver


async def subscribe(caller: Caller, urls: Sequence[str], event_type: str) -> None:
    """Creates endpoints of the caller that want one type of events."""
    for url in urls:
        body = msgspec.json.encode({"url": url, "event_types": [event_type]})
        sample = await fetch(caller, "POST", "/v1/webhook-endpoints", body, **{"Idempotency-Key": url})
        if sample.status != 201:
            raise StandError(
                f"an endpoint was answered {sample.status}: {sample.body.decode(errors='replace')}"
            )


def hook(receiver: Caller, name: str) -> str:
    """The URL of a healthy endpoint."""
    return f"http://{receiver.host}:{receiver.port}/hooks/{name}"


async def _take(
    stand: Stand, database: str, api: Caller, receiver: Caller, *, endpoints: int, rate: float, seconds: float
) -> ClientResult:
    """Sends payments at a rate; the latencies are those from each event's row to its arrival at each endpoint."""
    await forget(receiver)
    async with stand.connect(database) as connection:
        since = await outbox.clock(connection)
        sent = await run_client(
            api.event(), api, connections=CONNECTIONS, seconds=seconds, seed=int(since.timestamp()), client="raw",
            rate=rate,
        )  # fmt: skip
        if not await wait_until(lambda: outbox.is_applied(connection), SETTLE_SECONDS):
            raise StandError("the events were not applied")
        objects = await outbox.written_since(connection, since)
        arrivals = await arrivals_of(receiver, len(objects) * endpoints)
        written = await outbox.written_at(connection, objects)
    first: dict[tuple[str, str], float] = {}
    for arrival in arrivals:
        first.setdefault((arrival.object_id, arrival.hook), arrival.unix)
    latencies = [moment - written[name] for (name, _), moment in first.items() if name in written]
    errors = dict(sent.errors)
    if missing := sent.requests * endpoints - len(latencies):
        errors["missing"] = missing
    return ClientResult(
        requests=len(latencies),
        seconds=sent.seconds,
        latency_ms=latency_summary(latencies),
        errors=errors,
        client=sent.client,
        cpu_seconds=sent.cpu_seconds,
    )
