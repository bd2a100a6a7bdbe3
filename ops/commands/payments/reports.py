"""`tallystick payments match` and `settle`: a provider's report against payments and ledger, and its payouts posted."""

from __future__ import annotations

import asyncio
import csv
import sys
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import click

from ops.commands.keys import Duration
from ops.commands.printing import print_json, printable
from ops.commands.settlement import Moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from core.payments.reports.matching import Difference, Summary
    from core.payments.reports.reading import Line, Reader
    from core.payments.reports.settling import Settled
    from core.settings import Settings

# A million rows take seconds a statement; the bound allows for a slow disk.
STATEMENT_TIMEOUT_MS = 600_000
DIFFERENT = 1
COLUMNS = (
    "line", "class", "part", "row", "name", "payment", "attempt", "currency", "there", "here", "at_there", "at_here",
    "detail",
)  # fmt: skip

_file = click.argument("file", type=click.Path(exists=True, dir_okay=False))
_provider = click.option(
    "--provider", required=True, help="The provider's name, as payments have it: stripe, kaspi, ..."
)
_format = click.option(
    "--format",
    "form",
    help="The form of the file: stripe, kaspi, simulator or generic; without it the provider's own, or generic.",
)
_mapping = click.option(
    "--mapping",
    type=click.Path(exists=True, dir_okay=False),
    help="A TOML file that changes the form: columns, types, unit, decimal, timezone, ...",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")


@click.command()
@_file
@_provider
@_format
@_mapping
@click.option("--from", "since", type=Moment(), help="The begin of the report's period; else its first time.")
@click.option("--to", "until", type=Moment(), help="The end of the report's period; else its last time.")
@click.option(
    "--late-after",
    type=Duration(),
    default="1d",
    show_default=True,
    help="A payment that both sides have is late if their times are further apart.",
)
@click.option("--csv", "output", type=click.Path(dir_okay=False), help="Write the differences to this file.")
@_json
def match(  # noqa: PLR0913 - one for each option
    file: str,
    provider: str,
    form: str | None,
    mapping: str | None,
    since: datetime | None,
    until: datetime | None,
    late_after: timedelta,
    output: str | None,
    *,
    as_json: bool,
) -> int:
    """Compare FILE, a provider's report as CSV, with payments and ledger. Exit with 1 if anything differs.

    Each row gets one class: matched, missing_here, missing_there, amount, currency, duplicate, late or unreadable. The
    rows missing_there are the ledger's own, from the period. It changes nothing in payments and ledger.

    \b
    Examples:
      tallystick payments match balance.csv --provider stripe --csv differences.csv
      tallystick payments match statement.csv --provider kaspi --from 2026-01-01 --to 2026-02-01
      tallystick payments match sales.csv --provider links --mapping sales.toml --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.reports.matching import Period
    from core.payments.reports.matching import match as compare
    from core.service import open_migrated

    async def run(settings: Settings, reader: Reader, tell: Callable[[Difference], None]) -> Summary:
        from core.database import open_database

        opened, _ = await open_migrated(settings, size=1)
        await opened.close()
        # A temporary table and the record of the comparison want the login role.
        database = await open_database(settings, role=None, size=1)
        try:
            return await compare(
                database,
                provider,
                reader,
                file=click.format_filename(file, shorten=True),
                period=Period(since, until),
                late_after=late_after,
                on_progress=_show_progress,
                on_difference=tell,
            )
        finally:
            await database.close()

    with ExitStack() as stack:
        reader = _opened(stack, file, provider, form, mapping)
        tell = _writer(stack, output)
        summary = _with_settings(lambda settings: run(settings, reader, tell))
    _print_summary(summary, reader.ignored, as_json=as_json)
    return 0 if summary.clean else DIFFERENT


@click.command()
@_file
@_provider
@_format
@_mapping
@click.option("--dry-run", is_flag=True, help="Show the payouts and fees, and post none.")
@_json
def settle(
    file: str, provider: str, form: str | None, mapping: str | None, *, dry_run: bool, as_json: bool
) -> int:
    """Post the payouts of FILE, a provider's report, and its fees of no payment.

    Exit with 1 if one was refused, or a row cannot be read, since it may be one.

    A payout goes from the provider's clearing account to system:bank:<currency>, a fee to
    system:provider_fees:<currency>; each once by the id of its row, however often the file is given.

    \b
    Examples:
      tallystick payments settle balance.csv --provider stripe --dry-run
      tallystick payments settle balance.csv --provider stripe
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.reports.settling import settle as post
    from core.service import open_migrated

    async def run(settings: Settings, lines: list[Line]) -> list[Settled]:
        database, _ = await open_migrated(settings, size=1)
        try:
            return await post(database, provider, lines, dry_run=dry_run)
        finally:
            await database.close()

    with ExitStack() as stack:
        reader = _opened(stack, file, provider, form, mapping)
        lines = [line for line in reader if line.problem or line.part in {"payout", "fee"}]
    settled = _with_settings(lambda settings: run(settings, lines))
    _print_settled(settled, as_json=as_json)
    return DIFFERENT if any(one.fate not in {"posted", "known", "planned"} for one in settled) else 0


def _opened(stack: ExitStack, file: str, provider: str, form: str | None, mapping: str | None) -> Reader:
    from pathlib import Path

    from core.errors import Refusal
    from core.payments.reports.mapping import PRESETS, changed, preset
    from core.payments.reports.reading import Reader

    if form is not None and form not in PRESETS:
        raise click.BadParameter(f"it is one of {', '.join(PRESETS)}.", param_hint="--format")
    chosen = preset(form or provider)
    try:
        if mapping is not None:
            chosen = changed(chosen, Path(mapping).read_bytes())
        return Reader(stack.enter_context(Path(file).open("rb")), chosen, provider)
    except Refusal as refusal:
        raise click.UsageError(refusal.detail) from None


def _with_settings(run: Callable[[Settings], Any]) -> Any:
    from core.log import configure_logging
    from ops.reach import reaching_database
    from ops.state import operator_settings

    settings = operator_settings(
        redis_needed=False, log_level="warning", database_statement_timeout_ms=STATEMENT_TIMEOUT_MS
    )
    # Standard output is for the result.
    configure_logging(settings, sys.stderr.buffer)
    with reaching_database(settings.database_url):
        return asyncio.run(run(settings))


def _writer(stack: ExitStack, output: str | None) -> Callable[[Difference], None]:
    if output is None:
        return lambda _difference: None
    from pathlib import Path

    file: IO[str] = Path(output).open("w", newline="", encoding="utf-8")  # noqa: SIM115 - the stack closes it
    stack.push(file)
    rows = csv.writer(file)
    rows.writerow(COLUMNS)
    return lambda found: rows.writerow([_cell(value) for value in found])


def _cell(value: Any) -> Any:
    """Return a value for a cell. A stranger's text must not be a formula in the table of whoever opens the file."""
    if value is None:
        return ""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, int):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _show_progress(stage: str, done: int) -> None:
    click.echo(f"{stage}: {done:,} rows" if done else f"{stage} ...", err=True)


def _print_summary(summary: Summary, ignored: int, *, as_json: bool) -> None:
    from core.payments.reports.matching import Class

    if as_json:
        print_json(
            {
                "ok": summary.clean,
                "since": summary.period.since,
                "until": summary.period.until,
                "rows": {class_: summary.rows(class_) for class_ in Class},
                "counts": [
                    {"class": count.class_, **dict(list(count._asdict().items())[1:])}
                    for count in summary.counts
                ],
                "fees_not_told_here": summary.fees,
                "ignored": ignored,
            }
        )
        return
    since, until = summary.period
    click.echo(f"period         {since or 'no begin'} to {until or 'no end'}")
    for class_ in Class:
        click.echo(f"{class_:<14} {summary.rows(class_):>10,}")
        for count in summary.counts:
            if count.class_ is class_ and count.currency:
                figures = f"there {count.there:,}, here {count.here:,}"
                click.echo(f"  {count.part:<12} {count.rows:>10,}  {count.currency} {figures}")
    for currency, fees in summary.fees.items():
        click.echo(f"fees that nobody has told here: {fees:,} {currency}")
    if ignored:
        click.echo(f"rows that tell of no money: {ignored:,}")


def _print_settled(settled: list[Settled], *, as_json: bool) -> None:
    if as_json:
        print_json([one._asdict() for one in settled])
        return
    for one in settled:
        if one.problem:
            click.echo(f"line {one.line}: {one.fate}: {printable(one.problem)}")
            continue
        click.echo(
            f"line {one.line}: {one.part} {printable(one.row)} {one.amount:,} {one.currency}: {one.fate}"
        )
    unreadable = sum(one.problem is not None for one in settled)
    click.echo(f"{len(settled) - unreadable} payouts and fees, {unreadable} rows that cannot be read.")
