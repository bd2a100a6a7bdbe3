"""The jobs of payments as commands: reconcile, expire, dispatch callbacks; once, or with --worker again and again.

`tallystick worker` does all of this by itself. The commands are for deployments that start a process for each job, as
the service before did, and may run beside workers.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ops.commands.printing import print_line, printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.payments.flow import Payments
    from core.settings import Settings
    from core.work.progress import Progress

FAILED = 1

_HELP_WORKER = "Run at once, then at each interval, until SIGTERM or Ctrl-C."
_HELP_JSON = "Print one line of JSON for each run."


@dataclass(frozen=True, slots=True)
class PaymentJob:
    """A job: its name, the key and the reader of its interval in minutes, and a run that says how much it has done."""

    name: str
    key: str
    minutes: Callable[[Settings], int]
    run: Callable[[Settings, Payments], Awaitable[Progress]]


def is_worker(context: click.Context) -> bool:
    """Say whether --worker stands before the command, or between its words, where the service before took it."""
    return any(
        (before.obj or {}).get("worker") or before.params.get("worker") for before in _line_of(context)
    )


def _line_of(context: click.Context) -> list[click.Context]:
    return [context, *_line_of(context.parent)] if context.parent else [context]


def command(job: PaymentJob, name: str, help_: str) -> click.Command:
    """Return the command that runs a job."""

    def run(*, worker: bool, as_json: bool) -> None:
        run_job(job, worker=worker, as_json=as_json)

    options: list[click.Parameter] = [
        click.Option(["--worker"], is_flag=True, help=_HELP_WORKER),
        click.Option(["--json", "as_json"], is_flag=True, help=_HELP_JSON),
    ]
    help_ += (
        f"\n\nThe exit code is 1 when anything failed. With --worker it runs every {job.key}, and a"
        " failed run is followed by the next one. `tallystick worker` does this by itself; both may run at once."
    )
    return click.Command(name, callback=run, params=options, help=help_)


def run_job(job: PaymentJob, *, worker: bool, as_json: bool) -> None:
    """Run a job once, or as a worker; exit with 1 when the run, or a worker's start, failed."""
    from core.log import configure_logging
    from ops.state import operator_settings

    worker = worker or is_worker(click.get_current_context())
    settings = operator_settings(log_level="warning")
    minutes = job.minutes(settings)
    if worker and minutes <= 0:
        raise click.UsageError(f"{job.key} is {minutes}: a worker needs an interval above 0 minutes.")
    # Standard output is for the result.
    configure_logging(settings, sys.stderr.buffer)
    done = asyncio.run(_run(settings, job, minutes if worker else None, as_json=as_json))
    if done.failed and not worker:
        raise click.exceptions.Exit(FAILED)


async def _run(settings: Settings, job: PaymentJob, minutes: int | None, *, as_json: bool) -> Progress:
    """Run the job once, or every so many minutes until a signal comes; return the last progress."""
    from core.payments.router import open_engine
    from core.platform import open_platform
    from core.service import open_service

    stop = asyncio.Event()
    if minutes is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        open_service(settings) as service,
        open_platform(service) as platform,
        open_engine(service, platform.waker) as payments,
    ):
        while True:
            done = await _run_once(settings, job, payments, goes_on=minutes is not None, as_json=as_json)
            if minutes is None or stop.is_set():
                return done
            try:
                await asyncio.wait_for(stop.wait(), minutes * 60.0)
            except TimeoutError:
                continue
            return done


async def _run_once(
    settings: Settings, job: PaymentJob, payments: Payments, *, goes_on: bool, as_json: bool
) -> Progress:
    from core.work.progress import Progress

    told: dict[str, Any] = {}
    try:
        done = await job.run(settings, payments)
    except Exception as error:
        if not goes_on:
            raise
        # The next run may find the servers back.
        done, told = Progress(0, 1), {"error": f"{type(error).__name__}: {error}"}
    if as_json:
        print_line({"job": job.name, **done._asdict(), **told})
    else:
        click.echo(
            f"{job.name}: {done.done} done, {done.failed} failed.{''.join(f' {t}' for t in told.values())}"
        )
    sys.stdout.flush()
    return done


async def _reconcile(settings: Settings, payments: Payments) -> Progress:
    from datetime import timedelta

    from core.payments.reconciling import left_alone, reconcile_all
    from core.work.progress import Progress

    stale = timedelta(minutes=settings.payments_reconcile_stale_after_minutes)
    done = await reconcile_all(payments, batch=settings.payments_job_batch_size, stale_after=stale)
    alone = await left_alone(payments, stale_after=stale)
    for provider, attempts in alone.items():
        click.echo(
            f"{attempts} open at {printable(provider)}, which these settings do not set up: nobody looks there.",
            err=True,
        )
    return done.and_then(Progress(0, sum(alone.values())))


async def _expire(settings: Settings, payments: Payments) -> Progress:
    from datetime import timedelta

    from core.payments.orchestration.desk import SURFACE
    from core.payments.reconciling import expire_all

    age = timedelta(minutes=settings.payments_pending_timeout_minutes)
    return await expire_all(payments, batch=settings.payments_job_batch_size, surface=SURFACE, age=age)


async def _dispatch(settings: Settings, payments: Payments) -> Progress:
    from core.outbox.destinations import Destinations
    from core.outbox.send_now import dispatch_callbacks
    from core.work.progress import Progress

    rule = Destinations.of(settings.outbound_allow_hosts, require_https=settings.env == "prod")
    results = await dispatch_callbacks(payments.database, settings, rule)
    return Progress(results["delivered"], results["pending"] + results["failed"])


RECONCILE = PaymentJob(
    "reconcile",
    "PAYMENTS_RECONCILE_INTERVAL_MINUTES",
    lambda settings: settings.payments_reconcile_interval_minutes,
    _reconcile,
)
EXPIRE = PaymentJob(
    "expire pending",
    "PAYMENTS_EXPIRE_PENDING_INTERVAL_MINUTES",
    lambda settings: settings.payments_expire_pending_interval_minutes,
    _expire,
)
DISPATCH = PaymentJob(
    "callbacks dispatch",
    "PAYMENTS_CALLBACK_DISPATCH_INTERVAL_MINUTES",
    lambda settings: settings.payments_callback_dispatch_interval_minutes,
    _dispatch,
)

reconcile = command(
    RECONCILE,
    "reconcile",
    "Ask providers how open payments stand that are due or stale, and about refunds, one batch of them:"
    " PAYMENTS_RECONCILE_STALE_AFTER_MINUTES, PAYMENTS_JOB_BATCH_SIZE. An attempt whose provider gave no answer"
    " counts as failed and stays as it is, and so does one whose provider is not set up.\n\n\b\nExamples:\n"
    "  tallystick payments reconcile\n  tallystick payments reconcile --worker --json",
)
expire = command(
    EXPIRE,
    "expire",
    "Give payments up whose time is over, those of orchestration by PAYMENTS_PENDING_TIMEOUT_MINUTES as it is now:"
    " each provider is asked to close its order, and its answer closes the payment, or tells that it was paid.\n\n\b\n"
    "Examples:\n  tallystick expire pending\n"
    "  tallystick expire pending --worker",
)
dispatch = command(
    DISPATCH,
    "dispatch",
    "Send the callbacks that are due, with all other deliveries that are. An attempt that fails counts as failed, and"
    " its callback is tried again later.\n\n\b\nExamples:\n  tallystick callbacks dispatch\n"
    "  tallystick callbacks dispatch --worker",
)
