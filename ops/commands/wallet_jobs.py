"""`tallystick autopay` and its like: the jobs of the wallet platform, each as a command."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from ops.commands.payments.jobs import expire as expire_payments

if TYPE_CHECKING:
    from core.settings import Settings
    from core.work.progress import Progress


def _command(name: str, help_: str, others: dict[str, click.Command] | None = None) -> click.Command:
    """Return the command that runs a job of `jobs.table.JOBS` until nothing is due; it may have `others` below it."""

    def run(*, once: bool) -> None:
        from core.log import configure_logging
        from ops.state import operator_settings

        settings = operator_settings(log_level="warning")
        # Standard output is for the result.
        configure_logging(settings, sys.stderr.buffer)
        done = asyncio.run(_run(settings, name, once=once))
        click.echo(f"{done.done} done, {done.failed} failed.")
        if done.failed:
            raise click.exceptions.Exit(1)

    help_ += f"\n\n\b\nExamples:\n  tallystick {name}\n  tallystick {name} --once"
    option = click.Option(["--once"], is_flag=True, help="Do one step and not all that is due.")
    if not others:
        return click.Command(name, callback=run, params=[option], help=help_)

    worker = click.Option(["--worker"], is_flag=True, hidden=True)

    @click.pass_context
    def run_or_hand_on(context: click.Context, /, *, once: bool, worker: bool) -> None:
        if context.invoked_subcommand is None:
            if worker:
                raise click.UsageError(f"--worker is of {', '.join(f'`{name} {one}`' for one in others)}.")
            run(once=once)

    return click.Group(
        name,
        others,
        callback=run_or_hand_on,
        params=[option, worker],
        help=help_,
        invoke_without_command=True,
    )


async def _run(settings: Settings, name: str, *, once: bool) -> Progress:
    from core.platform import open_platform
    from core.service import open_service
    from jobs.loops import drain
    from jobs.table import JOBS, Tools

    async with open_service(settings) as service, open_platform(service) as platform:
        return await drain(
            Tools(platform),
            JOBS[name],
            once=once,
            on_step=lambda done: click.echo(f"{done.done} done, {done.failed} failed", err=True),
        )


_EXIT = "The exit code is 1 when something failed. Workers do this by themselves; the command may run beside them."

autopay = _command(
    "autopay",
    "Pay due invoices that a mandate covers, each by itself. One that cannot be paid is tried again after a quarter of"
    f" an hour, then later each time, up to a day.\n\n{_EXIT}",
)
charge = _command(
    "charge",
    "Charge subscriptions that are due, each once a period. One that cannot be charged is tried again within its"
    f" period, and its merchant is told.\n\n{_EXIT}",
)
settle = _command(
    "settle",
    "Report the sales of the day before (UTC) to each merchant, once: a row that stays, and an event. `tallystick"
    f" settlement` writes any span of time as CSV.\n\n{_EXIT}",
)
retain = _command(
    "retain",
    f"Remove audit records older than AUDIT_RETENTION_DAYS, if that is set, and ended sign-ins.\n\n{_EXIT}",
)
expire = _command(
    "expire",
    "Expire codes, links, requests and cash requests whose time is over, tell their merchants, and give back their"
    f" holds. `tallystick expire pending` is of payments through providers.\n\n{_EXIT}",
    {"pending": expire_payments},
)
