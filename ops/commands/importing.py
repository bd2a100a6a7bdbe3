"""`tallystick import`: the databases of the services before this one, carried over."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from ops.commands.printing import print_json, printable

if TYPE_CHECKING:
    from core.importing.running import Count, Result, Step
    from core.settings import Settings

STATEMENT_TIMEOUT_MS = 600_000
REFUSED = 1
# The module of core.importing and its list of steps, for each database.
SERVICES = {
    "wallets": ("wallets", "STEPS"),
    "inbox": ("inbox", "STEPS"),
    "orders": ("orders", "STEPS"),
    "orders_logs": ("orders", "LOG_STEPS"),
    "kaspi": ("kaspi", "STEPS"),
    "orchestration": ("orchestration", "STEPS"),
}


@click.command("import")
@click.argument("service", metavar="SERVICE", type=click.Choice(list(SERVICES)))
@click.option(
    "--from",
    "source",
    required=True,
    envvar="IMPORT_URL",
    help="The old database: postgresql://…, mysql://… or sqlite:///path. IMPORT_URL, too, keeps passwords from ps.",
)
@click.option("--dry-run", is_flag=True, help="Do everything, tell everything, and keep nothing.")
@click.option(
    "--phones-proven",
    is_flag=True,
    help="Of wallets: count every phone as proven. Without it money leaves a wallet after its next sign-in by code.",
)
@click.option(
    "--verify/--no-verify", default=True, help="Check the ledger afterwards, as `tallystick verify` does."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def import_(
    service: str, source: str, *, dry_run: bool, phones_proven: bool, verify: bool, as_json: bool
) -> int:
    """Carry the database of SERVICE over, of one of the five before this one. Exit with 1 if a row was refused.

    SERVICE is wallets, inbox, orders, orders_logs, kaspi or orchestration.

    The old service is stopped meanwhile; its database is read in one snapshot and never written to. Everything keeps
    its id, so a second run changes nothing, and a run that was ended goes on where it was. docs/migration.md has the
    order of the commands.

    \b
    Examples:
      tallystick import wallets --from postgresql://user@host/payments --dry-run
      tallystick import wallets --from postgresql://user@host/payments
      tallystick import inbox --from sqlite:////srv/inbox/payments.db
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.log import configure_logging
    from ops.reach import reaching_database
    from ops.state import operator_settings

    settings = operator_settings(
        redis_needed=False, log_level="warning", database_statement_timeout_ms=STATEMENT_TIMEOUT_MS
    )
    # Standard output is for the result.
    configure_logging(settings, sys.stderr.buffer)
    options = frozenset({"phones_proven"} if phones_proven else ())
    with reaching_database(settings.database_url):
        result, findings = asyncio.run(
            _run(settings, service, source, options, dry_run=dry_run, verify=verify and not dry_run)
        )
    _print(result, findings, dry_run=dry_run, as_json=as_json)
    return REFUSED if result.refused or findings else 0


def _steps(service: str) -> tuple[Step, ...]:
    from importlib import import_module

    module, name = SERVICES[service]
    found: tuple[Step, ...] = getattr(import_module(f"core.importing.{module}"), name)
    return found


async def _run(
    settings: Settings,
    service: str,
    url: str,
    options: frozenset[str],
    *,
    dry_run: bool,
    verify: bool,
) -> tuple[Result, list[Any]]:
    from core.database import open_database
    from core.importing.running import Run
    from core.importing.sources import open_source
    from core.ledger.verify import verify as verify_ledger
    from core.service import read_epoch

    # Operators' tables want the login role.
    database = await open_database(settings, role=None, size=2)
    try:
        await read_epoch(database)
        async with open_source(url) as source:
            run = Run(
                database,
                settings,
                service,
                _steps(service),
                dry_run=dry_run,
                options=options,
                on_page=_show_progress,
            )
            result = await run.run(source)
        findings = await verify_ledger(database) if verify else []
        return result, list(findings)
    finally:
        await database.close()


def _show_progress(told: Count) -> None:
    click.echo(f"{told.step}: {told.read:,} rows", err=True)


def _print(result: Result, findings: list[Any], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "steps": [step._asdict() for step in result.steps],
                "problems": [problem._asdict() for problem in result.problems],
                "findings": findings,
            }
        )
        return
    for step in result.steps:
        if step.skipped:
            click.echo(f"{step.step:<16} left out: {step.skipped}")
            continue
        click.echo(
            f"{step.step:<16} {step.read:>9,} read, {step.new:,} new, {step.known:,} known, {step.refused:,} refused"
        )
    for problem in result.problems:
        click.echo(
            f"{'refused' if problem.refused else 'note'}: {problem.step} {printable(problem.row)}:"
            f" {printable(problem.text)}"
        )
    for finding in findings:
        click.echo(f"verify: {finding.check}: {finding.count:,}, first {finding.subject}: {finding.detail}")
    if dry_run:
        click.echo("A dry run: nothing was kept.")
