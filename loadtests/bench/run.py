"""One run from its servers to its report."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.bench import machine
from loadtests.bench.claims import CLAIMS, claims
from loadtests.bench.creating.group import CREATES, OWN, creates
from loadtests.bench.deliveries import DELIVERY, HEALTHY, SICK, SUSTAINED, delivery, isolation
from loadtests.bench.figures import Figures
from loadtests.bench.ingest import INGEST, ingest
from loadtests.bench.measures import (
    BASE,
    LOADED,
    SMALL,
    STORAGE,
    THROUGHPUT,
    TPCB,
    compare_sizes,
    several_processes,
)
from loadtests.bench.measures import throughput as measure_throughput
from loadtests.bench.memory import Memory
from loadtests.bench.memory import memory as measure_memory
from loadtests.bench.meter import Meter
from loadtests.bench.payments import PAYMENTS, payments
from loadtests.bench.pipeline.group import PIPELINE, Pipeline
from loadtests.bench.pipeline.group import pipeline as measure_pipeline
from loadtests.bench.pipeline.grown import GROWN, LEAN, Grown
from loadtests.bench.pipeline.grown import grown as measure_grown
from loadtests.bench.pipeline.told import TOLD, told
from loadtests.bench.plan import Plan
from loadtests.bench.report import Report, all_ratios, contention, now
from loadtests.bench.stand import Stand
from loadtests.bench.storage import Storage
from loadtests.bench.storage import storage as measure_storage
from loadtests.bench.subject import Subject
from loadtests.bench.targets import verdicts

#: PostgreSQL's settings that a figure depends on.
SERVER_SETTINGS = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "checkpoint_timeout",
    "max_wal_size",
)
#: This file describes a kept state folder, which is used again only when its accounts and entries are the wanted ones.
MARK = "bench.json"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a kept state folder: the sizes and the key of its ledgers."""

    accounts: int
    small_entries: int
    loaded_entries: int
    token: str


async def run(
    plan: Plan,
    subject: Subject,
    *,
    parent: Path,
    console: Console,
    postgres_options: Mapping[str, str] | None = None,
) -> Report:
    """Measures every group of the plan and returns the report. All processes are stopped however the run ends.

    `parent` is where the temporary state folder is made. PostgreSQL is durable unless `postgres_options` say otherwise,
    and the report tells its settings as they were in force.
    """
    started_at = now()
    load_before = machine.load_average()
    figures = Figures()
    storage: Storage | None = None
    memory: Memory | None = None

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    async with Stand(plan, subject, parent=parent, say=say, postgres_options=postgres_options) as stand:
        meter = Meter(figures, stand.roles, client=plan.client, seed=plan.seed, say=say)
        await prepare(stand, console)
        if plan.has("singles", "latency", "batches"):
            await measure_throughput(stand, meter)
        if plan.has("storage"):
            say("[bold]bytes a transfer[/bold]")
            storage = await measure_storage(stand, meter)
        if plan.has("loaded"):
            say("[bold]a large ledger beside a small one[/bold]")
            await compare_sizes(stand, meter)
        if plan.has("processes"):
            say("[bold]several API processes[/bold]")
            await several_processes(stand, meter)
        if plan.has("payments"):
            say("[bold]payments at one QR code[/bold]")
            await payments(stand, meter)
        if plan.has("creates"):
            say("[bold]payments through a provider[/bold]")
            await creates(stand, meter)
        await measure_webhooks(stand, meter)
        pipeline, grown = await measure_whole_way(stand, meter, console)
        if plan.has("memory"):
            say(f"[bold]memory over {plan.memory_seconds} s[/bold]")
            memory = await measure_memory(stand, meter)
        settings = await server_settings(stand)
        if stand.kept:
            await drop_copies(stand)
    ratios = all_ratios(plan, figures, storage, memory, pipeline)
    return Report(
        started_at=started_at,
        finished_at=now(),
        commit=machine.commit(),
        quick=plan.quick,
        machine=machine.facts() | {"state_filesystem": stand.filesystem},
        contention=contention(figures, load_before),
        postgres=settings,
        plan=msgspec.json.decode(msgspec.json.encode(msgspec.structs.replace(plan, state=None))),
        figures=figures.all,
        medians={name: figures.median_rate(name) for name in figures.names()},
        storage=storage,
        memory=memory,
        pipeline=pipeline,
        grown=grown,
        ratios=ratios,
        targets=verdicts(ratios),
        notes=meter.notes,
    )


async def measure_webhooks(stand: Stand, meter: Meter) -> None:
    """Whichever of the groups about webhooks the plan has."""
    if stand.plan.has("ingest", "ack", "refusal"):
        stand.say("[bold]signed events[/bold]")
        await ingest(stand, meter)
    if stand.plan.has("delivery"):
        stand.say("[bold]deliveries[/bold]")
        await delivery(stand, meter)
    if stand.plan.has("isolation"):
        stand.say("[bold]healthy receivers beside sick ones[/bold]")
        await isolation(stand, meter)
    if stand.plan.has("claims"):
        stand.say("[bold]claims while a foreign transaction stays open[/bold]")
        await claims(stand, meter)


async def measure_whole_way(
    stand: Stand, meter: Meter, console: Console
) -> tuple[Pipeline | None, Grown | None]:
    """Whichever of the groups about events from their arrival to the receiver the plan has."""
    pipeline: Pipeline | None = None
    grown: Grown | None = None
    if stand.plan.has("pipeline"):
        stand.say("[bold]events from their arrival to the receiver[/bold]")
        pipeline = await measure_pipeline(stand, meter)
    if stand.plan.has("told"):
        stand.say("[bold]payments that somebody is told of[/bold]")
        await told(stand, meter)
    if stand.plan.has("grown"):
        stand.say("[bold]the same after many events[/bold]")
        grown = await measure_grown(stand, meter, console)
    return pipeline, grown


async def prepare(stand: Stand, console: Console) -> None:
    """Makes the ledgers that the groups copy, or finds them in a kept state folder."""
    plan, subject = stand.plan, stand.subject
    wanted_entries = plan.loaded_entries if plan.has("loaded") else 0
    kept = read_mark(stand.state / MARK) if stand.kept else None
    present = await stand.databases()
    if (
        kept
        and (kept.accounts, kept.small_entries) == (plan.accounts, plan.small_entries)
        and BASE in present
    ):
        stand.token = kept.token
        await subject.migrate(stand.postgres.url(BASE))
    else:
        kept = None
        url = await stand.create_database(BASE)
        stand.say(f"opening {plan.accounts:,} accounts")
        stand.token = await subject.prepare(url, plan.accounts)
        await fill(stand, BASE, plan.small_entries, console)
    if wanted_entries:
        if kept and kept.loaded_entries == wanted_entries and LOADED in present:
            await subject.migrate(stand.postgres.url(LOADED))
        else:
            await stand.create_database(LOADED, BASE)
            await fill(stand, LOADED, wanted_entries, console)
    if stand.kept:
        loaded = wanted_entries or (kept.loaded_entries if kept else 0)
        mark = Kept(
            accounts=plan.accounts, small_entries=plan.small_entries, loaded_entries=loaded, token=stand.token
        )
        write_mark(stand.state / MARK, mark)


async def fill(stand: Stand, database: str, entries: int, console: Console) -> None:
    """Posts until the ledger holds so many entries, with a bar where someone watches; then tidies it up."""
    stand.say(f"filling the ledger {database} with {entries:,} entries")
    columns = (BarColumn(), TextColumn("{task.completed:,.0f}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=entries)

        def show(count: int) -> None:
            progress.update(task, completed=count)

        await stand.subject.fill(stand.postgres.url(database), entries, show)
    await stand.tidy(database)


async def drop_copies(stand: Stand) -> None:
    """Drops the databases that the next run on this state folder cannot use."""
    for name in (
        THROUGHPUT,
        TPCB,
        STORAGE,
        SMALL,
        PAYMENTS,
        CREATES,
        OWN,
        INGEST,
        DELIVERY,
        SUSTAINED,
        HEALTHY,
        SICK,
        CLAIMS,
        PIPELINE,
        TOLD,
        LEAN,
        GROWN,
    ):
        await stand.execute("postgres", f'DROP DATABASE IF EXISTS "{name}" (FORCE)')


async def server_settings(stand: Stand) -> dict[str, str]:
    """The server's settings as they were in force."""
    async with stand.connect("postgres") as connection:
        return {
            name: await connection.fetchval("SELECT current_setting($1)", name) for name in SERVER_SETTINGS
        }


def read_mark(path: Path) -> Kept | None:
    """Returns the description of a kept folder; None for a new folder or an older form."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_mark(path: Path, mark: Kept) -> None:
    """Describes the folder. The file names an API key, so only the owner can read it."""
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(mark))
