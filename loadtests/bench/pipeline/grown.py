"""The group `grown`: the whole way on a database through which a million events went, beside an empty one."""

import contextlib
from collections.abc import AsyncIterator

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.bench.deliveries import OWNER, PAYMENTS, hook, subscribe, sustain
from loadtests.bench.measures import BASE, run_rounds
from loadtests.bench.meter import DELIVERIES, EVENTS, Meter
from loadtests.bench.pipeline.explaining import Cost, explain
from loadtests.bench.pipeline.filling import COPIED, check_known, counted, fill_copies, fill_ledger
from loadtests.bench.pipeline.sizes import Size, sizes
from loadtests.bench.pipeline.steps import Way, at_rate, draining, recorded
from loadtests.bench.stand import Stand
from loadtests.bench.subject import Connection

LEAN, GROWN = "lean", "grown"


class Grown(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the group beside its figures: the sizes after `events`, and the costs of statements on both."""

    events: int
    bytes: float
    by_table: dict[str, Size]
    lean: dict[str, Cost]
    grown: dict[str, Cost]


async def grown(stand: Stand, meter: Meter, console: Console) -> Grown:
    """A backlog, a rate, and deliveries at once, in turns on both; then the plans."""
    await stand.create_database(LEAN, BASE)
    async with stand.receiver() as receiver:
        by_table: dict[str, Size] = {}

        async def lean() -> None:
            async with stand.api(LEAN, worker=False) as api:
                way = Way(stand, meter, LEAN, api, receiver)
                if not by_table:
                    await subscribe(api, [hook(receiver, "0")], PAYMENTS)
                await _take(way, first=not by_table)

        async def full() -> None:
            if not by_table:
                # The first round on the empty one has left the rows that those of a million events look like.
                await stand.create_database(GROWN, LEAN)
                by_table.update(await _fill(stand, console))
            async with stand.api(GROWN, worker=False) as api:
                await _take(Way(stand, meter, GROWN, api, receiver))

        await run_rounds(stand, meter, [(LEAN, lean), (GROWN, full)])
        lean_costs, grown_costs = await explain(stand, LEAN), await explain(stand, GROWN)
    return Grown(
        events=stand.plan.grown_events,
        bytes=sum(size.total for size in by_table.values()),
        by_table=by_table,
        lean=lean_costs,
        grown=grown_costs,
    )


async def _take(way: Way, *, first: bool = False) -> None:
    """A round on one database; the first of all shows which tables the pipeline writes to."""
    stand, meter, plan = way.stand, way.meter, way.stand.plan
    async with stand.connect(way.database) as connection:
        before = await counted(connection) if first else {}
        async with draining(way, f"{way.database}.backlog", events=plan.pipeline_events):
            await recorded(way)
            if first:
                check_known(before, await counted(connection), plan.pipeline_events)
            work = at_rate(way, way.api.event(traced=True), plan.grown_rate, plan.seconds)
            name = f"{way.database}@{plan.grown_rate}"
            await meter.measure(name, work, connections=plan.ack_connections, unit=EVENTS)
            await recorded(way)
            work = sustain(stand, way.database, way.receiver, [OWNER], plan.sustained_deliveries, endpoints=1)
            await meter.measure(f"{way.database}.sustained", work, connections=1, unit=DELIVERIES)
            await recorded(way)


async def _fill(stand: Stand, console: Console) -> dict[str, Size]:
    """Fill the grown database and tidy it up; return the sizes of its tables."""
    events = stand.plan.grown_events
    stand.say(f"filling the database {GROWN} with {events:,} events")
    columns = (BarColumn(), TextColumn("{task.completed:,.0f}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=events * (len(COPIED) + 1))

        def done(rows: int) -> None:
            progress.advance(task, rows)

        async with _hasty(stand) as connection:
            await fill_ledger(connection, stand.plan.accounts, events, done)
            await fill_copies(connection, events, done)
    await stand.tidy(GROWN)
    async with stand.connect(GROWN) as connection:
        return await sizes(connection)


@contextlib.asynccontextmanager
async def _hasty(stand: Stand) -> AsyncIterator[Connection]:
    """A connection that does not wait for the disk."""
    async with stand.connect(GROWN) as connection:
        await connection.execute("SET synchronous_commit = off; SET jit = off")
        yield connection
