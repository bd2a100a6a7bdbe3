"""The groups of measurements, each a function of the stand. Within a round, ours and the floors take turns."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from loadtests.bench.clients import pgbench
from loadtests.bench.clients.client import ClientName
from loadtests.bench.clients.workload import Caller
from loadtests.bench.meter import REQUESTS, Meter
from loadtests.bench.stand import Sample, Stand, StandError, fetch

#: Databases of a run. The copies start equal, so that no group measures what another has left behind.
BASE, THROUGHPUT, TPCB, STORAGE, SMALL, LOADED = "base", "throughput", "tpcb", "storage", "small", "loaded"

Step = tuple[str, Callable[[], Awaitable[object]]]


async def throughput(stand: Stand, meter: Meter) -> None:
    """Singles, one connection, batches: whichever of these groups the plan has, beside their floors."""
    plan = stand.plan
    url = await stand.create_database(THROUGHPUT, BASE)
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(stand.api(THROUGHPUT))
        floor = await stack.enter_async_context(stand.floor(await sample_answer(api)))
        steps: list[Step] = []
        if plan.has("singles", "batches"):
            steps += await _tpcb_step(stand, meter)
        if plan.has("singles"):
            steps += await _function_steps(stand, meter, url)
            steps += _single_steps(stand, meter, api, floor)
        if plan.has("batches"):
            steps.append(_batch_step(stand, meter, api))
        if plan.has("latency"):
            steps += await stack.enter_async_context(_latency_steps(stand, meter, api, floor))
        widest = max(plan.connections)
        await meter.warm(api.single(), api, widest, plan.warm_seconds)
        await meter.warm(floor.single(), floor, widest, plan.warm_seconds)
        await run_rounds(stand, meter, steps)


async def run_rounds(stand: Stand, meter: Meter, steps: list[Step]) -> None:
    """Takes every step once a round."""
    for number in range(1, stand.plan.rounds + 1):
        meter.round = number
        stand.say(f"[bold]round {number} of {stand.plan.rounds}[/bold]")
        for _, take in steps:
            await take()
    meter.round = 0


async def sample_answer(api: Caller) -> Sample:
    """One real transfer, which shows that the service works and what its answer looks like."""
    body = b'{"from":"acct-000001","to":"acct-000002","amount":125,"kind":"payment"}'
    sample = await fetch(api, "POST", "/v1/transfers", body, **{"Idempotency-Key": "bench-sample"})
    if sample.status != 201:
        raise StandError(f"a transfer was answered {sample.status}: {sample.body.decode(errors='replace')}")
    return sample


async def _tpcb_step(stand: Stand, meter: Meter) -> list[Step]:
    program, seconds = stand.pgbench, stand.plan.seconds
    if program is None:
        meter.note("pgbench was not found, so the floors 2 and 3 are missing")
        return []
    url = await stand.create_database(TPCB)
    await pgbench.initialise(program, url, stand.plan.pgbench_scale)
    name = "floor2.tpcb"

    async def take() -> None:
        work = pgbench.run_tpcb(program, url, seconds, meter.seed())
        await meter.measure(name, work, connections=pgbench.CLIENTS)

    return [(name, take)]


async def _function_steps(stand: Stand, meter: Meter, url: str) -> list[Step]:
    program, seconds = stand.pgbench, stand.plan.seconds
    if program is None:
        return []
    books = await stand.subject.books(url)

    def step(name: str, *, hot: bool) -> Step:
        script = stand.subject.pgbench_script(books, hot=hot)

        async def take() -> None:
            work = pgbench.run_script(program, url, script, seconds, meter.seed())
            await meter.measure(name, work, connections=pgbench.CLIENTS)

        return name, take

    return [step("floor3.function.uniform", hot=False), step("floor3.function.hot", hot=True)]


def _single_steps(stand: Stand, meter: Meter, api: Caller, floor: Caller) -> list[Step]:
    steps = []
    for connections in stand.plan.connections:
        steps += [
            _http_step(stand, meter, f"floor1.single@{connections}", floor, connections),
            _http_step(stand, meter, f"single.uniform@{connections}", api, connections),
            _http_step(stand, meter, f"single.hot@{connections}", api, connections, hot=True),
        ]
    return steps


def _http_step(
    stand: Stand,
    meter: Meter,
    name: str,
    caller: Caller,
    connections: int,
    *,
    hot: bool = False,
    client: ClientName | None = None,
) -> Step:
    seconds = stand.plan.seconds

    async def take() -> None:
        workload = caller.single(hot=hot)  # made anew: its keys begin with a prefix of their own
        await meter.http(name, workload, caller, connections=connections, seconds=seconds, client=client)

    return name, take


def _batch_step(stand: Stand, meter: Meter, api: Caller) -> Step:
    plan = stand.plan
    name = f"batch{plan.batch_items}"

    async def take() -> None:
        workload = api.batch(plan.batch_items)
        await meter.http(name, workload, api, connections=plan.batch_connections, seconds=plan.seconds)

    return name, take


@contextlib.asynccontextmanager
async def _latency_steps(stand: Stand, meter: Meter, api: Caller, floor: Caller) -> AsyncIterator[list[Step]]:
    books = await stand.subject.books(stand.postgres.url(THROUGHPUT))
    async with stand.connect(THROUGHPUT) as connection:
        call = await stand.subject.direct(connection, books, meter.seed())

        async def direct() -> None:
            await meter.direct("floor3.direct@1", call, stand.plan.seconds)

        yield [
            ("floor3.direct@1", direct),
            _http_step(stand, meter, "floor1.single@1", floor, 1, client="raw"),
            _http_step(stand, meter, "single.uniform@1", api, 1, client="raw"),
        ]


async def compare_sizes(stand: Stand, meter: Meter) -> None:
    """The same transfers on a small ledger and on a large one, in turns; then balances at a past time on the large."""
    plan = stand.plan
    await stand.create_database(SMALL, BASE)
    books = await stand.subject.books(stand.postgres.url(LOADED))
    connections = min(plan.connections)
    async with stand.api(SMALL) as small, stand.api(LOADED) as loaded:
        for caller in (small, loaded):
            # Long enough for the first touch of most pages since the checkpoint, which writes each into the log.
            await meter.warm(caller.single(), caller, connections, max(plan.warm_seconds, plan.seconds))

        async def past() -> None:
            workload = loaded.past_balance(books.earliest, books.latest)
            await meter.http(
                "past_balance",
                workload,
                loaded,
                connections=plan.past_balance_connections,
                seconds=plan.seconds,
                unit=REQUESTS,
                client="raw",
            )

        steps = [
            _http_step(stand, meter, "single.uniform.small", small, connections),
            _http_step(stand, meter, "single.uniform.loaded", loaded, connections),
            ("past_balance", past),
        ]
        await run_rounds(stand, meter, steps)


async def several_processes(stand: Stand, meter: Meter) -> None:
    """More than one API process on the one port: for information, without a target."""
    plan = stand.plan
    await stand.create_database(THROUGHPUT, BASE)
    for processes in (1, *plan.processes):
        async with stand.api(THROUGHPUT, processes=processes) as api:
            connections = max(plan.connections)
            await meter.warm(api.single(), api, connections, plan.warm_seconds)
            name = f"single.uniform@{connections}.processes{processes}"
            for number in range(1, plan.rounds + 1):
                meter.round = number
                await meter.http(name, api.single(), api, connections=connections, seconds=plan.seconds)
    meter.round = 0
