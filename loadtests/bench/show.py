"""The report as tables for a terminal."""

import statistics
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from loadtests.bench.figures import Figure, Figures
from loadtests.bench.pipeline.group import Pipeline
from loadtests.bench.pipeline.grown import Grown
from loadtests.bench.pipeline.sizes import Size
from loadtests.bench.report import Report


def show(report: Report, console: Console) -> None:
    """Prints the figures, where they were taken, and the targets."""
    console.print(figures_table(report.figures))
    if report.storage:
        console.print(storage_table(report))
    if report.pipeline:
        console.print(bytes_table(report.pipeline))
        starts, ends = report.pipeline.resident_at_start, report.pipeline.resident_at_end
        told = ", ".join(f"{role} {starts.get(role)} MB, then {end} MB" for role, end in ends.items())
        console.print(
            f"resident, after the warm-up and at the end of the pipeline's run: {told}", highlight=False
        )
    if report.grown:
        console.print(sizes_table(report.grown))
        console.print(costs_table(report.grown))
    machine, contention = report.machine, report.contention
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mb']} MB, Python {machine['python']}, "
        f"PostgreSQL {report.postgres.get('server_version', '?')}, state on {machine['state_filesystem']}, "
        f"commit {report.commit}",
        highlight=False,
    )
    console.print(
        f"load average {contention.load_average_before} before and {contention.load_average_after} after; at worst "
        f"others used {contention.other_cores_largest} cores and {contention.steal_largest} of the time was stolen",
        highlight=False,
    )
    for note in report.notes:
        console.print(f"! {note}", style="yellow", highlight=False, markup=False)
    if report.quick:
        console.print(
            "A quick run shows that the benchmark works; its figures say nothing about speed.", style="yellow"
        )
    console.print(targets_table(report))


#: The table shows the processor time of these parts; the lines printed during the run show all.
ROLES = ("client", "api", "worker", "postgres", "receiver", "other")


#: Tables with a smaller part of the whole stand in the JSON only.
LEAST_SHOWN = 0.001


def figures_table(all_figures: list[Figure]) -> Table:
    """One row a name: the medians over the rounds, and on average how many cores were used by whom."""
    figures = Figures()
    for figure in all_figures:
        figures.add(figure)
    table = Table(
        title="medians over the rounds; on the right the cores that each part used", title_justify="left"
    )
    table.add_column("measurement", no_wrap=True)
    table.add_column("by")
    for heading in ("a second", "lowest", "highest", "p50 ms", "p95 ms", "p99 ms", *ROLES):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in figures.names():
        rounds = figures.named(name)
        median = figures.median_rate(name)
        rates = [figure.rate for figure in rounds]
        table.add_row(
            name,
            rounds[0].client,
            "invalid" if median is None else f"{median:,.0f}",
            f"{min(rates):,.0f}",
            f"{max(rates):,.0f}",
            *(
                _median([figure.latency_ms.get(percentile) for figure in rounds])
                for percentile in ("p50", "p95", "p99")
            ),
            *(_median([figure.cpu.get(role) for figure in rounds]) for role in ROLES),
            style="red" if median is None else None,
        )
    return table


def storage_table(report: Report) -> Table:
    """The growth of each relation."""
    storage = report.storage
    transfers = storage.transfers if storage else 0
    table = Table(title=f"bytes a transfer, over {transfers:,} transfers", title_justify="left")
    table.add_column("relation")
    for heading in ("table", "indexes"):
        table.add_column(heading, justify="right")
    relations = storage.by_relation.items() if storage else ()
    for name, growth in sorted(relations, key=lambda item: -(item[1].table + item[1].indexes)):
        table.add_row(name, f"{growth.table:.1f}", f"{growth.indexes:.1f}")
    return table


def bytes_table(pipeline: Pipeline) -> Table:
    """The bytes that an event leaves in each table."""
    found = pipeline.bytes
    title = f"bytes an event, over {found.events:,} events: {found.bytes_per_event:,.0f}"
    return _sizes(title, found.by_table, "{:,.1f}".format)


def sizes_table(grown: Grown) -> Table:
    """The sizes of the tables of the grown database."""
    title = f"MB after {grown.events:,} events: {grown.bytes / 2**20:,.1f}"
    return _sizes(title, grown.by_table, lambda size: f"{size / 2**20:,.1f}")


def _sizes(title: str, by_table: Mapping[str, Size], shown: Callable[[float], str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("table")
    for heading in ("rows", "toast", "indexes"):
        table.add_column(heading, justify="right")
    whole = sum(size.total for size in by_table.values())
    for name, size in sorted(by_table.items(), key=lambda item: -item[1].total):
        if size.total >= LEAST_SHOWN * whole:
            table.add_row(name, shown(size.heap), shown(size.toast), shown(size.indexes))
    return table


def costs_table(grown: Grown) -> Table:
    """The statements of the worker on both databases, by what they read on the grown one."""
    table = Table(
        title=f"medians of a call, empty and after {grown.events:,} events (EXPLAIN ANALYZE, BUFFERS)",
        title_justify="left",
    )
    table.add_column("statement")
    for heading in ("calls", "pages: empty", "grown", "ms: empty", "grown"):
        table.add_column(heading, justify="right")
    for name, cost in sorted(grown.grown.items(), key=lambda item: -item[1].buffers):
        lean = grown.lean.get(name)
        table.add_row(
            name,
            str(cost.calls),
            f"{lean.buffers:,.0f}" if lean else "",
            f"{cost.buffers:,.0f}",
            f"{lean.milliseconds:.2f}" if lean else "",
            f"{cost.milliseconds:.2f}",
        )
    return table


def targets_table(report: Report) -> Table:
    """Each target with its figure, and whether it is met."""
    table = Table(title="targets", title_justify="left")
    table.add_column("target")
    table.add_column("want", justify="right")
    table.add_column("got", justify="right")
    table.add_column("met")
    for verdict in report.targets:
        words = {None: "not measured", True: "[green]yes[/green]", False: "[red]no[/red]"}
        got = "" if verdict.got is None else f"{verdict.got:,.3f} {verdict.unit}".rstrip()
        table.add_row(verdict.text, f"{verdict.want} {verdict.unit}".rstrip(), got, words[verdict.met])
    return table


def _median(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.2f}" if known else ""
