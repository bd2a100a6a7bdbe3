"""The chaos run as a command: from its options to its exit code."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from core.settings import load_settings
from loadtests.bench.command import RESULTS, make_console
from loadtests.bench.stand import StandError
from loadtests.chaos.audit import CHECKS, Finding
from loadtests.chaos.ending import Ending, stop_on_signals
from loadtests.chaos.payments import buyers as payments
from loadtests.chaos.payments.audit import CHECKS as PAYMENT_CHECKS
from loadtests.chaos.payments.run import run_payments
from loadtests.chaos.plan import Plan
from loadtests.chaos.run import Report, run_chaos
from ops.process import StartError
from ops.state import state_dir


def main(*, seed: int, events: int, kills: int, rate: float, output: Path | None) -> None:
    """Runs, prints, writes. Raises click's exceptions, so that every end has its exit code and sentence."""
    console = make_console()
    plan = Plan(seed=seed, events=events, kills=kills, rate=rate)
    report = execute(plan, parent=state_dir(load_settings(env_file=None)), console=console)
    write(report, output, "chaos", console)
    show(report, console)
    if report.findings:
        raise click.exceptions.Exit(1)


def pay(plan: payments.Plan, output: Path | None) -> None:
    """The run of payments, as `main` does the other one."""
    console = make_console()
    report = execute(plan, run_payments, parent=state_dir(load_settings(env_file=None)), console=console)
    write(report, output, "chaos-payments", console)
    rows = {
        "seed": plan.seed,
        "asked for": plan.payments,
        **{f"in the end {state}": count for state, count in report.states.items()},
        "charged at the provider": report.charged,
        "minor units earned": report.earned,
        **report.faults,
        **report.answers,
        "seconds until all was known": report.seconds_until_known,
        "seconds": report.seconds,
    }
    totals("payments", rows, console)
    verdict(report.findings, PAYMENT_CHECKS, "Every payment stands as at the provider, to the unit.", console)
    if report.findings:
        raise click.exceptions.Exit(1)


def write(report: Any, output: Path | None, kind: str, console: Console) -> None:
    """Write a report to its file, and say where it is, before anything else can go wrong."""
    path = output or RESULTS / f"{report.started_at[:10]}-{report.commit}-{kind}-{report.plan.seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    console.print(f"written: {path}", highlight=False, markup=False)


def execute(
    plan: Any,
    run: Callable[..., Awaitable[Any]] = run_chaos,
    *,
    parent: Path,
    console: Console,
    ending: Ending | None = None,
) -> Any:
    """Runs the plan on an event loop of its own. Ctrl-C and SIGTERM stop all that was started, then end us with 130.

    A run that can end early in good order has its `ending`, and is stopped by the second signal only.
    """
    kept = "\nThe state is kept in {}."
    with console.status("chaos") as status:

        def say(text: str) -> None:
            # On a terminal one line that changes; in a file a line each.
            if console.is_terminal:
                status.update(text)
            else:
                console.print(text, highlight=False, markup=False)

        async def stoppable() -> Any:
            stop_on_signals(ending, say)
            return await run(plan, parent=parent, say=say)

        try:
            return uvloop.run(stoppable())
        except (KeyboardInterrupt, asyncio.CancelledError):
            state = kept.format(ending.state) if ending and ending.state else ""
            console.print(
                f"stopped; nothing was written{state}", highlight=False, markup=False, soft_wrap=True
            )
            raise click.exceptions.Exit(130) from None
        except (StandError, StartError) as error:
            state = kept.format(ending.state) if ending and ending.state else ""
            raise click.ClickException(f"{error}{state}") from error


def show(report: Report, console: Console) -> None:
    """Prints what was done to the service, what came of it, and the verdict."""
    faults = Table(title="seconds until the next acknowledgement", title_justify="left")
    faults.add_column("after the fault")
    for heading in ("times", "median", "longest"):
        faults.add_column(heading, justify="right")
    for name, comeback in report.faults.items():
        faults.add_row(name, str(comeback.times), f"{comeback.median:.2f}", f"{comeback.longest:.2f}")
    console.print(faults)
    rows = {
        "seed": report.plan.seed,
        "sent": report.sent,
        "acknowledged": report.acknowledged,
        "forged, refused": report.forged,
        "kills": report.kills,
        "seconds": report.seconds,
        **{f"answered {answer}": count for answer, count in report.answers.items()},
        **{
            f"receiver: {'no answer' if answer == '0' else answer}": count
            for answer, count in report.deliveries.items()
        },
    }
    totals("events", rows, console)
    promise = "Every acknowledged event was posted once, and every emitted event delivered under one id."
    verdict(report.findings, CHECKS, promise, console)


def totals(title: str, rows: Mapping[str, float], console: Console) -> None:
    """Prints a run's figures, a row each."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(name, f"{value:,}")
    console.print(table)


def verdict(findings: Sequence[Finding], checks: Mapping[str, str], promise: str, console: Console) -> None:
    """Prints each broken promise with its first cases, or the promise that was kept."""
    for finding in findings:
        console.print(f"{finding.count:,} × {checks[finding.check]}:", style="red", markup=False)
        for example in finding.examples:
            console.print(f"  {example}", style="red", markup=False, highlight=False)
    if not findings:
        console.print(promise, style="green")
