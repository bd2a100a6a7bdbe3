"""`tallystick settlement` and `tallystick closing`."""

from __future__ import annotations

import asyncio
import csv
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from ops.commands.database import with_database
from ops.commands.texts import Text

if TYPE_CHECKING:
    from core.settings import Settings

STATEMENT_TIMEOUT_MS = 120_000
# One page has so many merchants; progress is shown after each.
PAGE = 500
COLUMNS = ("merchant_user_id", "merchant_wallet_id", "currency", "gross_cents", "fees_cents", "net_cents")


class Moment(click.ParamType[datetime]):
    """A time in ISO 8601, in UTC unless it has an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the text."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time like 2026-01-31T12:00:00Z.", param, ctx)


@click.group()
def closing() -> None:
    """Show and move the closed dates of currencies, before which nothing may take effect any more.

    The commands work on the database at DATABASE_URL, as its owner, or else on that of the `tallystick up` that runs
    here.
    """


@closing.command("list")
def list_closed() -> None:
    """Show the closed date of each currency that has one."""
    from core.closing import MAX_LISTED, list_closed_dates

    for found in with_database(lambda database: list_closed_dates(database, limit=MAX_LISTED)):
        click.echo(f"{found.currency:<12} {_shown(found.closed_before)}")


@closing.command()
@click.argument("currency")
@click.option("--before", type=Moment(), help="Nothing may take effect before this time; it must be over.")
@click.option("--open", "opens", is_flag=True, help="Open all of the past again.")
@click.option("--reason", type=Text(), required=True, help="Why, for the audit.")
def move(currency: str, before: datetime | None, *, opens: bool, reason: str) -> None:
    """Move the closed date of CURRENCY, forth or back.

    \b
    Examples:
      tallystick closing move SYP --before 2026-01-01 --reason "The books of 2025 are reported."
      tallystick closing move SYP --open --reason "A year was closed by mistake."
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.closing import move_closed_date

    if (before is None) is not opens:
        raise click.UsageError("Give either --before or --open.")
    moved = with_database(
        lambda database: move_closed_date(database, currency, before, actor="system:closing", reason=reason)
    )
    click.echo(f"{moved.currency}: {_shown(moved.closed_before)}")


def _shown(closed_before: datetime | None) -> str:
    return "open" if closed_before is None else f"closed before {closed_before.isoformat()}"


@click.command()
@click.option("--from", "since", type=Moment(), help="From when; without it one day before the end.")
@click.option("--to", "until", type=Moment(), help="Until when; without it now.")
def settlement(since: datetime | None, until: datetime | None) -> None:
    """Write the sales of each merchant as CSV on standard output: a row a merchant, amounts in minor units.

    Gross is the sum that others have paid; net is gross less fees and refunds, as on the merchants' statements.
    Standard error shows the progress. The command works on the database at DATABASE_URL, as its owner, or else on that
    of the `tallystick up` that runs here.

    \b
    Examples:
      tallystick settlement > yesterday.csv
      tallystick settlement --from 2026-01-01 --to 2026-02-01T00:00:00+03:00
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.reach import reaching_database
    from ops.state import operator_settings

    end = until or datetime.now(UTC)
    begin = since or end - timedelta(days=1)
    if begin > end:
        raise click.BadParameter("it begins after its end.", param_hint="--from")
    settings = operator_settings(redis_needed=False, database_statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    with reaching_database(settings.database_url):
        asyncio.run(_write(settings, begin, end))


async def _write(settings: Settings, since: datetime, until: datetime) -> None:
    from core.service import open_migrated
    from core.wallets.statements import merchants_after, settle

    database, _ = await open_migrated(settings, size=1)
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    done, after = 0, UUID(int=0)
    try:
        while page := await merchants_after(database, after, PAGE):
            for merchant in page:
                currency, totals = await settle(database, merchant, since, until)
                figures = (totals.gross, totals.fees, totals.net)
                writer.writerow((merchant.user_id, merchant.wallet_id, currency, *figures))
            done, after = done + len(page), page[-1].user_id
            click.echo(f"{done:,} merchants so far", err=True)
    finally:
        await database.close()
    click.echo(f"{done:,} merchants from {since.isoformat()} to {until.isoformat()}", err=True)
