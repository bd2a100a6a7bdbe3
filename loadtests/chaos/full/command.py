"""The full run as a command: prints, writes, and tells where to look when a promise was broken."""

import functools
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from core.settings import load_settings
from loadtests.bench.command import make_console
from loadtests.chaos import audit as events_audit
from loadtests.chaos.command import execute, totals, verdict, write
from loadtests.chaos.ending import TIME_IS_UP, Ending
from loadtests.chaos.full import audit
from loadtests.chaos.full.plan import KINDS, Plan
from loadtests.chaos.full.report import Report, run_full
from loadtests.chaos.payments import audit as payments_audit
from ops.state import state_dir

CHECKS = {**events_audit.CHECKS, **payments_audit.CHECKS, **audit.CHECKS}


def main(plan: Plan, output: Path | None) -> None:
    """Run, print, write. Raises click's exceptions, so that every end has its exit code and sentence."""
    console = make_console()
    ending, parent = Ending(), state_dir(load_settings(env_file=None))
    run = functools.partial(run_full, ending=ending)
    report = execute(plan, run, parent=parent, console=console, ending=ending)
    write(report, output, "chaos-full", console)
    show(report, console)
    if report.findings:
        raise click.exceptions.Exit(1)
    if report.ended_early not in {"", TIME_IS_UP}:
        raise click.exceptions.Exit(130)


def show(report: Report, console: Console) -> None:
    """Print what was done to the service, what came of it, and the verdict."""
    faults = Table(title="seconds until the next acknowledged write", title_justify="left")
    faults.add_column("after the fault")
    for heading in ("times", "p50", "p95", "longest"):
        faults.add_column(heading, justify="right")
    for name, one in report.faults.items():
        label = f"{name} (kill)" if KINDS[name].kills else name
        faults.add_row(label, str(one.times), f"{one.p50:.2f}", f"{one.p95:.2f}", f"{one.longest:.2f}")
    console.print(faults)
    rows = {
        "seed": report.plan.seed,
        "steps": report.steps,
        "steps of the script": report.steps_planned,
        "kills": report.kills,
        "other faults": report.others,
        "checkpoints": report.checkpoints,
        "lines of a full disk": report.disk_full_errors,
        **{f"events {name}": count for name, count in report.events.items()},
        **{f"transfers and holds: {name}": count for name, count in report.transfers.items()},
        **{f"payments {name}": count for name, count in report.payments.items()},
        "seconds until all was settled": report.seconds_until_settled,
        **{f"longest lag of the {name}, in seconds": lag for name, lag in report.longest_lags.items()},
        "seconds": report.seconds,
    }
    totals("the run", rows, console)
    if report.ended_early:
        console.print(
            f"ENDED EARLY by {report.ended_early}: {report.steps} of {report.steps_planned} steps were made; "
            f"`--step {report.plan.first_step + report.steps}` goes on",
            style="yellow",
            markup=False,
        )
    for name, reason in report.left_out.items():
        console.print(f"LEFT OUT: {name}: {reason}", style="yellow", markup=False)
    promise = "Every acknowledged write is there exactly once, every event was delivered under one id."
    verdict(report.findings, CHECKS, promise, console)
    if report.state:
        how = f"The state is kept in {report.state}, its logs in {report.state}/logs. To look into the data:"
        for place in Path(report.state).glob("postgres-*"):
            if not any(place.iterdir()):
                how += f"\n  mount -o loop {report.state}/disk.img {place}"
        how += f"\n  STATE_DIR={report.state} tallystick up"
        console.print(how, style="red", markup=False, highlight=False, soft_wrap=True)
