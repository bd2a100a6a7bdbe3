"""The full run as a command: prints, writes, and tells where to look when a promise was broken."""

from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from core.settings import load_settings
from loadtests.bench.command import RESULTS, make_console
from loadtests.chaos import audit as events_audit
from loadtests.chaos.command import execute, verdict
from loadtests.chaos.full import audit
from loadtests.chaos.full.plan import KINDS, Plan
from loadtests.chaos.full.report import Report, run_full
from loadtests.chaos.payments import audit as payments_audit
from ops.state import state_dir

CHECKS = {**events_audit.CHECKS, **payments_audit.CHECKS, **audit.CHECKS}


def main(plan: Plan, output: Path | None) -> None:
    """Run, print, write. Raises click's exceptions, so that every end has its exit code and sentence."""
    console = make_console()
    report = execute(plan, run_full, parent=state_dir(load_settings(env_file=None)), console=console)
    path = output or RESULTS / f"{report.started_at[:10]}-{report.commit}-chaos-full-{plan.seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    show(report, console)
    console.print(f"written: {path}", highlight=False, markup=False)
    if report.findings:
        raise click.exceptions.Exit(1)


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
    totals = Table(title="the run", title_justify="left", show_header=False)
    totals.add_column()
    totals.add_column(justify="right")
    rows = {
        "seed": report.plan.seed,
        "steps": report.steps,
        "kills": report.kills,
        "other faults": report.others,
        "checkpoints": report.checkpoints,
        "lines of a full disk": report.disk_full_errors,
        **{f"events {name}": count for name, count in report.events.items()},
        **{f"transfers and holds: {name}": count for name, count in report.transfers.items()},
        **{f"payments {name}": count for name, count in report.payments.items()},
        "seconds until all was settled": report.seconds_until_settled,
        "seconds": report.seconds,
    }
    for name, value in rows.items():
        totals.add_row(name, f"{value:,}")
    console.print(totals)
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
