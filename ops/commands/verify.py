"""`tallystick verify`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from core.ledger.verify import Finding, Progress, Seal
    from core.settings import Settings

# A range takes a fraction of a second; the bound allows for a disk that has to be read from anew.
STATEMENT_TIMEOUT_MS = 120_000
FAILED = 1


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option(
    "--late-after",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    help="Seconds after which a batch that is not in the feed is a fault.",
)
def verify(*, as_json: bool, late_after: float) -> int:
    """Check that the ledger's records agree with each other. If not, name the first bad row of each kind; exit with 1.

    It checks balances against entries, entries against transfers, holds, reversals, keys, conservation in each
    currency, and the feed with the hash chain over everything that was ever sealed. It reads in short transactions and
    locks nothing, so it may run beside the traffic. The seal that it prints is worth keeping elsewhere: it changes if
    any history below that position is rewritten, even by somebody who rewrites the chain with it.

    \b
    Examples:
      tallystick verify
      tallystick verify --json | jq .findings
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.reach import reaching_database
    from ops.state import operator_settings

    settings = operator_settings(redis_needed=False, database_statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    with reaching_database(settings.database_url):
        findings, seal = asyncio.run(_run(settings, late_after))
    if as_json:
        _print_json(findings, seal)
    else:
        _print_text(findings, seal)
    return FAILED if findings else 0


async def _run(settings: Settings, late_after: float) -> tuple[list[Finding], Seal]:
    from core.ledger.verify import read_seal
    from core.ledger.verify import verify as verify_ledger
    from core.service import open_migrated

    database, _ = await open_migrated(settings, size=2)
    try:
        seal = await read_seal(database)
        with _Shown() as shown:
            findings = await verify_ledger(database, on_progress=shown, late_after_seconds=late_after)
        return findings, seal
    finally:
        await database.close()


class _Shown:
    """The progress on standard error: bars on a terminal, else a line for each finished stage."""

    def __init__(self) -> None:
        self._show: Callable[[Progress], None] = self._write_line
        self._bars: Any = None
        self._stages: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = (
                TextColumn("{task.description:>18}"),
                BarColumn(),
                TextColumn("{task.completed:>12,} of {task.total:,}"),
                TimeElapsedColumn(),
            )
            self._bars = Bars(*columns, console=Console(stderr=True))
            self._bars.start()
            self._show = self._move_bar
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        self._show(progress)

    def _move_bar(self, progress: Progress) -> None:
        if progress.stage not in self._stages:
            self._stages[progress.stage] = self._bars.add_task(progress.stage)
        self._bars.update(self._stages[progress.stage], completed=progress.done, total=progress.total)

    def _write_line(self, progress: Progress) -> None:
        if progress.done >= progress.total and progress.stage not in self._stages:
            self._stages[progress.stage] = True
            what = f"{progress.total:,}" if progress.rows else "all"
            click.echo(f"{progress.stage}: {what} checked", err=True)


def _print_json(findings: list[Finding], seal: Seal) -> None:
    import msgspec

    result = {"ok": not findings, "findings": findings, "seal": seal}
    click.echo(msgspec.json.format(msgspec.json.encode(result)))


def _print_text(findings: list[Finding], seal: Seal) -> None:
    from core.ledger.verify import CHECKS

    for finding in findings:
        click.echo(f"{finding.check}: {CHECKS[finding.check]}; not so for {finding.count:,}.")
        click.echo(f"  First: {finding.subject}: {finding.detail}.")
    verdict = "All records agree." if not findings else f"{len(findings)} of {len(CHECKS)} checks failed."
    click.echo(f"{verdict} Sealed to position {seal.position}: {seal.digest or 'nothing yet'}")
