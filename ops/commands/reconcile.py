"""`tallystick reconcile`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from core.database import Database
    from core.payables.reconcile import Findings
    from core.settings import Settings

# So many lines are shown of each kind of fault; the count is of all.
MAX_LINES = 50
# A range takes a fraction of a second; the bound allows for a wallet with millions of entries on a slow disk.
STATEMENT_TIMEOUT_MS = 120_000
FAILED = 1


@click.command()
@click.option(
    "--fix-balances",
    is_flag=True,
    help="Correct balances that are not the sum of their entries, by a transfer that shows it.",
)
@click.option("--once", is_flag=True, help="Look once and end: what it does anyway, said for schedulers.")
@click.option(
    "--worker",
    is_flag=True,
    help="Be `tallystick payments reconcile --worker`, as deployments of before mean it.",
)
def reconcile(*, fix_balances: bool, once: bool, worker: bool) -> int:
    """Compare wallets' balances with their entries, and transfers with their legs. Exit with 1 if something is wrong.

    It reads in short transactions and changes nothing without --fix-balances. With it each wrong balance is corrected
    by a transfer against the system account `corrections`, which an audit record names. That wants a login that owns
    the tables. Transfers are never changed. `tallystick verify` checks much more.

    \b
    Examples:
      tallystick reconcile
      tallystick reconcile --fix-balances
      tallystick reconcile --worker
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.commands.payments.jobs import RECONCILE, is_worker, run_job
    from ops.reach import reaching_database
    from ops.state import operator_settings

    if worker or is_worker(click.get_current_context()):
        if fix_balances or once:
            raise click.UsageError(
                "--worker asks providers about payments; --fix-balances and --once are of wallets."
            )
        run_job(RECONCILE, worker=True, as_json=False)
        return 0
    settings = operator_settings(redis_needed=False, database_statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    with reaching_database(settings.database_url):
        return asyncio.run(_run(settings, fix=fix_balances))


async def _run(settings: Settings, *, fix: bool) -> int:
    from core.database import open_database
    from core.payables.reconcile import reconcile as look
    from core.payables.reconcile import remember
    from core.service import open_migrated

    reader, _ = await open_migrated(settings, size=2)
    try:
        findings = await look(reader, _show_progress)
        _print(findings)
        left = findings.mismatch_count
        if fix and findings.mismatches:
            owner = await open_database(settings, role=None, size=2)
            try:
                left -= await _fix(owner, findings)
            finally:
                await owner.close()
        await remember(reader, left, findings.issue_count, "admin")
    finally:
        await reader.close()
    return FAILED if left or findings.issue_count else 0


async def _fix(owner: Database, findings: Findings) -> int:
    """Correct the wrong balances, and return the number of those that are right now."""
    from core.errors import Refusal
    from core.payables.reconcile import correct

    right = 0
    for mismatch in findings.mismatches:
        try:
            correction = await correct(owner, mismatch.account)
        except Refusal as refusal:
            click.echo(f"not fixed: wallet={mismatch.wallet} reason={refusal.code}")
            continue
        right += 1
        if correction is not None:
            told = f"wallet={mismatch.wallet} off_by={correction.drift} transfer={correction.transfer_id}"
            click.echo(f"fixed: {told}")
    return right


def _print(findings: Findings) -> None:
    click.echo(f"Wallet mismatches: {findings.mismatch_count}")
    for mismatch in findings.mismatches[:MAX_LINES]:
        figures = f"balance={mismatch.balance} ledger_sum={mismatch.ledger_sum}"
        click.echo(f"wallet={mismatch.wallet} {figures}")
    click.echo(f"Transfer issues: {findings.issue_count}")
    for issue in findings.issues[:MAX_LINES]:
        click.echo(f"transfer={issue.transfer_id} problem={issue.problem} details={issue.details}")


def _show_progress(stage: str, done: int) -> None:
    click.echo(f"{stage}: to {done:,}", err=True)
